//! Signatures of heads: Ed25519. A head speaks for everything before it, so one signature does, too.

use crate::digest::{Digest, hex, unhex};
use crate::error::AuditError;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::str::FromStr;

/// What is signed begins so: a signature of a head is good for nothing else.
const CONTEXT: &[u8] = b"minium audit head\n";

/// The private half: it signs each block's head.
pub struct SealKey(Ed25519KeyPair);

/// The public half: it checks signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckKey([u8; 32]);

fn signed(head: &Digest) -> Vec<u8> {
    [CONTEXT, head.as_bytes()].concat()
}

impl SealKey {
    /// From PKCS#8, with or without the public half in it.
    ///
    /// # Errors
    /// [`AuditError::Key`] when it is no Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<SealKey, AuditError> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
        key.map(SealKey).map_err(|e| AuditError::Key(format!("this is no Ed25519 key in PKCS#8: {e}")))
    }

    /// The half that may be shown.
    pub fn check_key(&self) -> CheckKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        CheckKey(bytes)
    }

    pub(crate) fn sign(&self, head: &Digest) -> String {
        hex(self.0.sign(&signed(head)).as_ref())
    }
}

impl fmt::Debug for SealKey {
    // a key stays out of logs
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealKey").field(&self.check_key()).finish()
    }
}

impl CheckKey {
    /// From the 32 bytes of its point.
    pub fn from_point(point: [u8; 32]) -> CheckKey {
        CheckKey(point)
    }

    pub(crate) fn accepts(&self, head: &Digest, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        unhex(signature).is_some_and(|signature| key.verify(&signed(head), &signature).is_ok())
    }
}

impl fmt::Display for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for CheckKey {
    type Err = AuditError;
    fn from_str(text: &str) -> Result<CheckKey, AuditError> {
        let point = unhex(text).and_then(|bytes| bytes.try_into().ok());
        point.map(CheckKey).ok_or_else(|| AuditError::Key("a public key is 64 hexadecimal digits".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_head_and_its_key() {
        let key = || {
            let der = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
            SealKey::from_pkcs8(der.as_ref()).unwrap()
        };
        let (ours, other) = (key(), key());
        let head = Digest::of(b"x");
        let signature = ours.sign(&head);
        assert!(ours.check_key().accepts(&head, &signature));
        assert!(!ours.check_key().accepts(&Digest::of(b"y"), &signature));
        assert!(!other.check_key().accepts(&head, &signature));
        assert!(!ours.check_key().accepts(&head, "00"));
        assert_eq!(ours.check_key().to_string().parse::<CheckKey>().unwrap(), ours.check_key());
        assert!(SealKey::from_pkcs8(b"no key").is_err());
    }
}
