//! A token taken apart: JWS compact serialization (RFC 7515), nothing of it believed yet.

use super::{Why, tame};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

/// Longer tokens are not looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 8_192;
/// What `typ` may say, where it says anything: an ID token or a logout token is for somebody else.
const KINDS: &[&str] = &["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// What the token says of itself. Members that would name a key to trust (`jwk`, `jku`, `x5c`, `x5u`) are not read.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// A member that is there, whatever it says.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// A token in parts.
#[derive(Debug)]
pub(crate) struct Jws<'a> {
    /// The algorithm that it claims: a filter for keys, nothing more.
    pub(crate) algorithm: String,
    /// The key that it names: a hint.
    pub(crate) kid: Option<String>,
    /// What is signed.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes it apart.
    pub(crate) fn parse(token: &'a str) -> Result<Jws<'a>, Why> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Why::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Why::Shape)?;
        let (header, payload) = signed.split_once('.').ok_or(Why::Shape)?;
        if payload.contains('.') {
            return Err(Why::Shape);
        }
        let header: Header =
            serde_json::from_slice(&decoded(header, "header")?).map_err(|_| Why::Json("header"))?;
        if header.crit {
            return Err(Why::Critical);
        }
        if let Some(typ) = &header.typ
            && !KINDS.iter().any(|kind| typ.eq_ignore_ascii_case(kind))
        {
            return Err(Why::Kind(tame(typ, 40)));
        }
        Ok(Jws {
            algorithm: tame(&header.alg, 40),
            kid: header.kid,
            signed: signed.as_bytes(),
            signature: decoded(signature, "signature")?,
            payload: decoded(payload, "payload")?,
        })
    }
}

impl Jws<'_> {
    /// What it claims, as it stands in it.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

fn decoded(part: &str, name: &'static str) -> Result<Vec<u8>, Why> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Why::Base64(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode("{}"),
            URL_SAFE_NO_PAD.encode("s")
        )
    }

    fn why(token: &str) -> Why {
        Jws::parse(token).unwrap_err()
    }

    #[test]
    fn a_token_comes_apart() {
        let text = token(r#"{"alg":"ES256","kid":"a","typ":"JWT","x5u":"http://evil.example"}"#);
        let jws = Jws::parse(&text).unwrap();
        assert_eq!((jws.algorithm.as_str(), jws.kid.as_deref()), ("ES256", Some("a")));
        assert_eq!((jws.payload.as_slice(), jws.signature.as_slice()), (&b"{}"[..], &b"s"[..]));
        assert!(Jws::parse(&token(r#"{"alg":"x","typ":"at+JWT"}"#)).is_ok());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for shapeless in ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e"] {
            assert_eq!(why(shapeless), Why::Shape, "{shapeless}");
        }
        assert_eq!(why("..."), Why::Shape);
        assert_eq!(why(".."), Why::Json("header"));
        assert_eq!(why("!.e30.e30"), Why::Base64("header"));
        // the same bytes spelled another way, with padding or stray bits, are another token
        let good = token(r#"{"alg":"HS256"}"#);
        assert_eq!(why(&format!("{good}=")), Why::Base64("signature"));
        assert_eq!(why(&format!("{}x", &good[..good.len() - 1])), Why::Base64("signature"));
        assert_eq!(why(&format!("{good}\n")), Why::Base64("signature"));
        assert_eq!(why(&"a".repeat(TOKEN_BYTES_MAX + 1)), Why::TooLong);
    }

    #[test]
    fn headers_that_mean_something_else_are_refused() {
        for broken in [
            "[]",
            "{}",
            "null",
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"HS256","kid":7}"#,
            r#"{"alg":"HS256"} x"#,
        ] {
            assert_eq!(why(&token(broken)), Why::Json("header"), "{broken}");
        }
        let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
        assert!(Jws::parse(&token(&deep)).is_ok(), "what is not known is passed over, however deep it is");
        let deep = deep.replace("\"x\"", "\"kid\"");
        assert_eq!(why(&token(&deep)), Why::Json("header"));
        for crit in [r#"["b64"]"#, "[]", "null"] {
            assert_eq!(why(&token(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#))), Why::Critical, "{crit}");
        }
        assert_eq!(why(&token(r#"{"alg":"HS256","typ":"logout+jwt"}"#)), Why::Kind("logout+jwt".into()));
    }
}
