//! The signatures of [Standard Webhooks](https://www.standardwebhooks.com), for what comes in and what goes out.
//!
//! What is signed is `id.timestamp.body`, by HMAC-SHA256 under a shared secret. Signatures are compared in constant
//! time. Nothing here has a clock: whoever verifies says what time it is.

use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _};
use ring::hmac;
use std::time::Duration;

/// The header with the id of the delivery, the same whenever it is sent again.
pub(crate) const ID: &str = "webhook-id";
/// The header with the time of this attempt, in seconds of Unix time.
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures.
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// So far may the clocks of sender and receiver be apart.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(300);
/// Of a header no more signatures are looked at.
const SIGNATURES_MAX: usize = 16;
/// Shorter secrets can be guessed, longer ones are a mistake.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=128;
const PREFIX: &str = "whsec_";

/// Some senders leave the padding of their secrets out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A shared secret, ready to sign.
#[derive(Clone)]
pub(crate) struct Secret(hmac::Key);

/// What is wrong with a secret; it never says the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretError {
    /// No `whsec_…` at all.
    #[error("must be whsec_ and base64 behind it")]
    Form,
    /// Too short or too long.
    #[error("must have 16 to 128 bytes behind whsec_, once decoded")]
    Length,
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The time of the delivery cannot be read.
    #[error("its timestamp is no number")]
    Timestamp,
    /// It was sent too long ago: maybe somebody plays back what was recorded.
    #[error("its timestamp is too old")]
    Stale,
    /// It was sent in the future.
    #[error("its timestamp lies ahead")]
    Ahead,
    /// No signature is right.
    #[error("none of its signatures is right")]
    Signature,
}

impl Secret {
    /// Out of `whsec_…`.
    pub(crate) fn parse(text: &str) -> Result<Secret, SecretError> {
        let coded = text.strip_prefix(PREFIX).ok_or(SecretError::Form)?;
        let bytes = LENIENT.decode(coded).map_err(|_| SecretError::Form)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(SecretError::Length);
        }
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn tag(&self, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            context.update(part);
        }
        context.sign()
    }

    /// Are the two equal? In constant time: what is compared are tags of both that nobody can foresee.
    fn same(&self, right: &hmac::Tag, presented: &[u8]) -> bool {
        let expected = hmac::sign(&self.0, right.as_ref());
        hmac::verify(&self.0, presented, expected.as_ref()).is_ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The value of `webhook-signature`: one signature for each secret, so that receivers may change theirs without a gap.
pub(crate) fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let signed = |secret: &Secret| format!("v1,{}", STANDARD.encode(secret.tag(id, &timestamp, body)));
    secrets.iter().map(signed).collect::<Vec<_>>().join(" ")
}

/// Is one of `signatures` made with one of the secrets, at a time near `now` (seconds of Unix time)?
pub(crate) fn verify(
    secrets: &[Secret],
    (id, timestamp, signatures): (&str, &str, &str),
    body: &[u8],
    now: i64,
) -> Result<(), Refused> {
    let sent: i64 = timestamp.parse().map_err(|_| Refused::Timestamp)?;
    let tolerance = TOLERANCE.as_secs() as i64;
    if sent < now.saturating_sub(tolerance) {
        return Err(Refused::Stale);
    }
    if sent > now.saturating_add(tolerance) {
        return Err(Refused::Ahead);
    }
    let presented = signatures.split_ascii_whitespace().take(SIGNATURES_MAX);
    let presented: Vec<_> =
        presented.filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok()).collect();
    // the body is gone through once for each secret, however many signatures a stranger sends
    let good = secrets.iter().any(|secret| {
        let right = secret.tag(id, timestamp, body);
        presented.iter().any(|one| secret.same(&right, one))
    });
    if good { Ok(()) } else { Err(Refused::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vector that the libraries of Standard Webhooks test themselves with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const DELIVERY: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SENT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    fn judged(signatures: &str, now: i64) -> Result<(), Refused> {
        verify(&[secret(SECRET)], (DELIVERY, &SENT.to_string(), signatures), BODY, now)
    }

    #[test]
    fn the_published_vector_is_signed_and_believed() {
        assert_eq!(sign(&[secret(SECRET)], DELIVERY, SENT, BODY), SIGNED);
        assert_eq!(judged(SIGNED, SENT), Ok(()));
    }

    #[test]
    fn one_right_signature_among_others_is_enough_and_so_is_one_of_many_secrets() {
        let other = secret("whsec_c2VjcmV0IG9mIHNvbWVib2R5IGVsc2U=");
        let both = sign(&[other.clone(), secret(SECRET)], DELIVERY, SENT, BODY);
        assert!(both.ends_with(SIGNED) && both.split(' ').count() == 2);
        assert_eq!(judged(&both, SENT), Ok(()));
        assert_eq!(judged(&format!("v1a,AAAA nonsense v1,!! {SIGNED}"), SENT), Ok(()));
        let parts = (DELIVERY, "1614265330", SIGNED);
        assert_eq!(verify(&[other.clone(), secret(SECRET)], parts, BODY, SENT), Ok(()));
        assert_eq!(verify(&[other], parts, BODY, SENT), Err(Refused::Signature));
        assert_eq!(verify(&[], parts, BODY, SENT), Err(Refused::Signature));
    }

    #[test]
    fn whatever_is_changed_is_not_believed() {
        let secrets = [secret(SECRET)];
        for (id, timestamp, signatures, body) in [
            ("msg_other", "1614265330", SIGNED, BODY),
            (DELIVERY, "1614265331", SIGNED, BODY),
            (DELIVERY, "1614265330", SIGNED, b"{\"test\": 2432232315}"),
            (DELIVERY, "1614265330", "", BODY),
            (DELIVERY, "1614265330", "v1,", BODY),
            (DELIVERY, "1614265330", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY),
            (DELIVERY, "1614265330", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1A==", BODY),
        ] {
            let judged = verify(&secrets, (id, timestamp, signatures), body, SENT);
            assert_eq!(judged, Err(Refused::Signature), "{id} {timestamp} {signatures}");
        }
    }

    #[test]
    fn what_was_sent_long_ago_or_in_the_future_is_refused() {
        let tolerance = TOLERANCE.as_secs() as i64;
        assert_eq!(judged(SIGNED, SENT + tolerance), Ok(()));
        assert_eq!(judged(SIGNED, SENT + tolerance + 1), Err(Refused::Stale));
        assert_eq!(judged(SIGNED, SENT - tolerance), Ok(()));
        assert_eq!(judged(SIGNED, SENT - tolerance - 1), Err(Refused::Ahead));
        for timestamp in ["", "soon", "1614265330.5", "99999999999999999999"] {
            let judged = verify(&[secret(SECRET)], (DELIVERY, timestamp, SIGNED), BODY, SENT);
            assert_eq!(judged, Err(Refused::Timestamp), "{timestamp:?}");
        }
        let judged = verify(&[secret(SECRET)], (DELIVERY, &i64::MIN.to_string(), SIGNED), BODY, i64::MAX);
        assert_eq!(judged, Err(Refused::Stale));
    }

    #[test]
    fn of_a_header_so_many_signatures_are_looked_at() {
        let crowd = |before: usize| format!("{}{SIGNED}", "v1,AAAA ".repeat(before));
        assert_eq!(judged(&crowd(SIGNATURES_MAX - 1), SENT), Ok(()));
        assert_eq!(judged(&crowd(SIGNATURES_MAX), SENT), Err(Refused::Signature));
    }

    #[test]
    fn secrets_are_read_with_care_and_never_shown() {
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ü", "whsec_MfKQ 9r8GKYqrTwjUPD8I"] {
            assert_eq!(Secret::parse(bad).unwrap_err(), SecretError::Form, "{bad}");
        }
        assert_eq!(Secret::parse("whsec_c2hvcnQ=").unwrap_err(), SecretError::Length);
        assert_eq!(format!("{:?}", secret(SECRET)), "Secret");
        let unpadded = secret("whsec_c2VjcmV0IG9mIHNvbWVib2R5IGVsc2U");
        let padded = secret("whsec_c2VjcmV0IG9mIHNvbWVib2R5IGVsc2U=");
        assert_eq!(sign(&[unpadded], "a", 1, b"b"), sign(&[padded], "a", 1, b"b"));
    }
}
