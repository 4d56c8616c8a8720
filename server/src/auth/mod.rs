//! Who asks, and what they may do.
//!
//! **Map.** [`jws`] takes a token apart, [`key`] holds keys that check signatures ([`der`] reads them out of PEM),
//! [`jwks`] sets of keys that somebody else publishes ([`fetch`] gets them), [`claims`] says what a token must claim.
//! [`table`] puts these together: from what a request brings to a [`Grant`](minium_bus::Grant). [`load`] makes the
//! table from the configuration, [`holder`] swaps it while the node runs. [`sign`] makes tokens.
//!
//! **What must hold.** The algorithm is the key's, never the token's. Whatever is wrong with a token, the answer has
//! the same words; the reason goes to the log at debug, and no token ever does. A token that is no good is refused,
//! never taken for none.

mod claims;
mod der;
mod fetch;
mod holder;
mod jwks;
mod jws;
mod key;
mod known;
mod load;
mod sign;
mod table;

pub(crate) use claims::Claims;
pub(crate) use der::ed25519_point;
pub(crate) use holder::{Auth, Current};
pub(crate) use jwks::JwksPlace;
pub(crate) use jws::Jws;
use jws::TOKEN_BYTES_MAX;
pub(crate) use key::{Algorithm, VerifyingKey};
pub(crate) use load::{build, read_secret};
pub(crate) use sign::SigningKey;
pub(crate) use table::{Presented, Table};

/// The name that a client's certificate was issued to, checked by TLS; an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub(crate) name: std::sync::Arc<str>,
}

impl From<&str> for ClientIdentity {
    fn from(name: &str) -> ClientIdentity {
        ClientIdentity { name: name.into() }
    }
}

/// What is wrong with a token; for the log, and for those who inspect their own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not three parts with dots between them")]
    Shape,
    #[error("its {0} is not base64url")]
    Base64(&'static str),
    #[error("its {0} is not a JSON object as RFC 7519 has it")]
    Json(&'static str),
    #[error("its header has crit, and no extension is known here")]
    Critical,
    #[error("its typ is {0:?}, which is no access token")]
    Kind(String),
    #[error("no key here has its algorithm, {0:?}")]
    Algorithm(String),
    #[error("no key here vouches for its signature")]
    Signature,
    #[error("it has no exp")]
    NoExpiry,
    #[error("its {0} is no time")]
    Time(&'static str),
    #[error("it expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("its iss is not the issuer that is asked for")]
    Issuer,
    #[error("its aud does not name this audience")]
    Audience,
    #[error("what was presented is no bearer token, or more than one")]
    Presented,
}

/// Cut, and without what would move a terminal's cursor.
fn tame(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
