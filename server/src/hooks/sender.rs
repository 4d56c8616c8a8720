//! Whose form a delivery has: how it is signed, and where its id and its event stand.
//!
//! GitHub signs the body alone, so its id and event are only as good as the connection that brought them; Standard
//! Webhooks sign id, time and body.

use crate::webhook_signature::{self as standard, Secret};
use http::HeaderMap;
use ring::hmac;
use serde_json::Value;

/// A shorter secret can be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// What senders are known by in the configuration.
pub(crate) const KINDS: &str = "\"github\" or \"standard\"";

/// A sender and its secrets.
#[derive(Debug)]
pub(crate) enum Sender {
    /// `X-Hub-Signature-256`, as of GitHub and of what speaks as GitHub does.
    GitHub(Vec<GitHubSecret>),
    /// `webhook-signature`.
    Standard(Vec<Secret>),
}

/// A secret that is shared with GitHub.
pub(crate) struct GitHubSecret(hmac::Key);

impl std::fmt::Debug for GitHubSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GitHubSecret")
    }
}

/// What the head of a request says of a delivery. Nothing of it is believed yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heading<'a> {
    signature: &'a str,
    timestamp: &'a str,
    id: Option<&'a str>,
    event: Option<&'a str>,
}

/// A delivery that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Believed<'a> {
    /// The sender's id of it.
    pub(crate) id: Option<&'a str>,
    /// The event, where the head says it.
    event: Option<&'a str>,
}

impl Sender {
    /// A sender of this kind without secrets yet.
    pub(crate) fn named(kind: &str) -> Option<Sender> {
        match kind {
            "github" => Some(Sender::GitHub(Vec::new())),
            "standard" => Some(Sender::Standard(Vec::new())),
            _ => None,
        }
    }

    /// Adds a secret; what is wrong with it comes in words, and never with the secret.
    pub(crate) fn add(&mut self, secret: &[u8]) -> Result<(), String> {
        match self {
            Sender::GitHub(_) if secret.len() < SECRET_BYTES_MIN => {
                Err(format!("must have {SECRET_BYTES_MIN} bytes or more"))
            }
            Sender::GitHub(secrets) => {
                secrets.push(GitHubSecret(hmac::Key::new(hmac::HMAC_SHA256, secret)));
                Ok(())
            }
            Sender::Standard(secrets) => {
                let text = std::str::from_utf8(secret).unwrap_or_default();
                secrets.push(Secret::parse(text).map_err(|error| error.to_string())?);
                Ok(())
            }
        }
    }

    /// What the head says; nothing where it cannot be a delivery, whatever its body is.
    pub(crate) fn heading<'a>(&self, headers: &'a HeaderMap) -> Option<Heading<'a>> {
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match self {
            Sender::GitHub(_) => Some(Heading {
                signature: get("x-hub-signature-256")?.strip_prefix("sha256=")?,
                timestamp: "",
                id: get("x-github-delivery"),
                event: get("x-github-event"),
            }),
            Sender::Standard(_) => Some(Heading {
                signature: get(standard::SIGNATURE)?,
                timestamp: get(standard::TIMESTAMP)?,
                id: Some(get(standard::ID)?),
                event: None,
            }),
        }
    }

    /// Is it from whom it says? Else the reason, for the log.
    pub(crate) fn believe<'a>(
        &self,
        heading: Heading<'a>,
        body: &[u8],
        now: i64,
    ) -> Result<Believed<'a>, standard::Refused> {
        let Heading { signature, timestamp, id, event } = heading;
        match self {
            Sender::GitHub(secrets) => {
                let signature = bytes_of(signature).ok_or(standard::Refused::Signature)?;
                let good = secrets.iter().any(|key| hmac::verify(&key.0, body, &signature).is_ok());
                good.then_some(()).ok_or(standard::Refused::Signature)?;
            }
            Sender::Standard(secrets) => {
                standard::verify(secrets, (id.unwrap_or_default(), timestamp, signature), body, now)?;
            }
        }
        Ok(Believed { id, event })
    }
}

impl<'a> Believed<'a> {
    /// What the sender calls it; empty where it does not say.
    pub(crate) fn event(&self, payload: &'a Value) -> &'a str {
        self.event.or_else(|| payload.get("type")?.as_str()).unwrap_or_default()
    }
}

/// The bytes of an HMAC-SHA256 in hexadecimal digits.
fn bytes_of(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(digit(2 * i)? << 4 | digit(2 * i + 1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    // The example of GitHub's own documentation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn github() -> Sender {
        let mut sender = Sender::named("github").unwrap();
        sender.add(b"the one that came before it").unwrap();
        sender.add(SECRET).unwrap();
        sender
    }

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-hub-signature-256", HeaderValue::from_str(signature).unwrap());
        headers.insert("x-github-delivery", HeaderValue::from_static("72d3162e"));
        headers.insert("x-github-event", HeaderValue::from_static("push"));
        headers
    }

    fn believed(signature: &str, body: &[u8]) -> bool {
        let (sender, headers) = (github(), headers(signature));
        sender.heading(&headers).is_some_and(|heading| sender.believe(heading, body, 0).is_ok())
    }

    #[test]
    fn the_example_of_github_is_believed_under_any_of_the_secrets() {
        assert!(believed(SIGNED, BODY));
        let (sender, headers) = (github(), headers(SIGNED));
        let delivery = sender.believe(sender.heading(&headers).unwrap(), BODY, 0).unwrap();
        let payload = serde_json::json!({ "type": "other" });
        assert_eq!((delivery.id, delivery.event(&payload)), (Some("72d3162e"), "push"));
    }

    #[test]
    fn anything_else_is_not() {
        assert!(!believed(SIGNED, b"Hello, World?"));
        let short = SIGNED.strip_suffix('7').unwrap();
        for bad in ["", "sha256=", SIGNED.trim_start_matches("sha256="), short, &format!("{SIGNED}0")] {
            assert!(!believed(bad, BODY), "{bad}");
        }
        assert!(!believed(&SIGNED.replace("sha256=", "sha1="), BODY));
        assert!(!believed(&SIGNED.replace("75710", "7571g"), BODY));
    }

    #[test]
    fn standard_webhooks_say_their_event_in_the_body_and_all_headers_are_needed() {
        let sender = Sender::named("standard").unwrap();
        let all = [("webhook-id", "m"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")];
        let with = |skipped: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in all.into_iter().filter(|(name, _)| *name != skipped) {
                headers.insert(name, HeaderValue::from_static(value));
            }
            sender.heading(&headers).is_some()
        };
        assert!(with(""));
        assert!(all.iter().all(|(name, _)| !with(name)));
        let believed = Believed { id: Some("m"), event: None };
        assert_eq!(believed.event(&serde_json::json!({ "type": "user.created" })), "user.created");
        assert_eq!(believed.event(&serde_json::json!([{ "type": 7 }])), "");
    }

    #[test]
    fn weak_secrets_are_refused() {
        assert!(Sender::named("github").unwrap().add(b"short").unwrap_err().contains("16 bytes"));
        assert!(Sender::named("standard").unwrap().add(SECRET).unwrap_err().contains("whsec_"));
        assert!(Sender::named("gitlab").is_none());
        assert!(!format!("{:?}", github()).contains("Secret to"));
    }

    proptest! {
        #[test]
        fn no_other_signature_is_right(text in "(sha256=)?[0-9a-f]{0,70}", body in any::<Vec<u8>>()) {
            prop_assert!(!believed(&text, &body));
        }

        #[test]
        fn digits_are_read_as_they_are_written(bytes in any::<[u8; 32]>()) {
            let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            prop_assert_eq!(bytes_of(&text), Some(bytes));
            prop_assert_eq!(bytes_of(&text.to_uppercase()), Some(bytes));
        }
    }
}
