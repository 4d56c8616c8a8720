//! Tokens, scopes, rates: who may do what, on a real node, with clients that no one here wrote.
//!
//! Tokens are signed here by ring, so that what the server makes of them is judged from outside.

mod command;
mod jwks;
mod limits;
mod logs;
mod reload;
mod routes;
mod sessions;

use crate::support::node::{Node, Options};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The shared secret of the key `ops`.
const SECRET: &str = "thirty-two bytes are the least: ok";

/// Seconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A part of a token.
fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token by the shared secret, with exactly these claims.
fn signed(claims: &Value) -> String {
    let message = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

/// A good token with these scopes.
pub(crate) fn token(scopes: &str) -> String {
    token_of("tester", scopes)
}

/// The same, for somebody.
pub(crate) fn token_of(subject: &str, scopes: &str) -> String {
    signed(&json!({ "sub": subject, "exp": now() + 3_600, "scope": scopes }))
}

/// As it stands in `Authorization`.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// As it stands among the subprotocols.
fn subprotocol(token: &str) -> String {
    format!("minium.bearer.{}", URL_SAFE_NO_PAD.encode(token))
}

/// Tokens that are no good, by what is wrong with them.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let good = json!({ "sub": "tester", "exp": now() + 3_600, "scope": "admin" });
    let none = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&good));
    let path =
        format!("{}.{}.c2ln", part(&json!({ "alg": "HS256", "kid": "../../../../dev/null" })), part(&good));
    let (message, _) = none.rsplit_once('.').unwrap();
    vec![
        ("rubbish", "rubbish".into()),
        ("alg none", none.clone()),
        ("alg none with something signed", format!("{message}.c2ln")),
        ("a kid that is a path", path),
        ("another secret", {
            let message = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(&good));
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"another secret of thirty-two bytes");
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
        }),
        ("expired", signed(&json!({ "sub": "tester", "exp": now() - 1, "scope": "admin" }))),
        ("without exp", signed(&json!({ "sub": "tester", "scope": "admin" }))),
        ("not yet valid", signed(&json!({ "exp": now() + 3_600, "nbf": now() + 600, "scope": "admin" }))),
        ("a scope that is no text", signed(&json!({ "exp": now() + 3_600, "scope": 7 }))),
    ]
}

/// A node that asks for tokens, and the directory of its keys.
pub(crate) struct Guarded {
    pub(crate) node: Node,
    keys: tempfile::TempDir,
}

impl Guarded {
    /// With the key `ops`, and more configuration.
    pub(crate) async fn start(more: &str) -> Guarded {
        Guarded::start_on(Options::memory(), more).await
    }

    async fn start_on(options: Options, more: &str) -> Guarded {
        let keys = tempfile::tempdir().unwrap();
        std::fs::write(keys.path().join("ops.key"), format!("{SECRET}\n")).unwrap();
        let config = Guarded::config(&keys.path().join("ops.key"), more);
        Guarded { node: Node::start(options.config(&config)).await, keys }
    }

    fn config(secret: &std::path::Path, more: &str) -> String {
        format!("[auth.keys.ops]\nalgorithm = \"HS256\"\nsecret_file = \"{}\"\n{more}", secret.display())
    }

    fn secret(&self) -> PathBuf {
        self.keys.path().join("ops.key")
    }
}
