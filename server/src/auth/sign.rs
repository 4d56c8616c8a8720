//! Keys that sign tokens: `minium token mint`, and tests. A node never signs anything.

use super::key::{Algorithm, SECRET_BYTES_MIN};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// Why something is no key to sign with; worded to go behind the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SigningError {
    #[error("holds {0} bytes; a secret of HS256 needs at least {SECRET_BYTES_MIN}")]
    Short(usize),
    #[error("holds no private key in PEM")]
    NoPem,
    #[error("holds a key in the form EC PRIVATE KEY; convert it (openssl pkcs8 -topk8 -nocrypt)")]
    Sec1,
    #[error("holds a key that is none of Ed25519, P-256 and RSA with 2048 bits or more")]
    Other,
    #[error("cannot sign")]
    Failed,
}

/// A key that signs.
pub(crate) enum SigningKey {
    Secret(hmac::Key),
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl SigningKey {
    /// A shared secret.
    pub(crate) fn from_secret(secret: &[u8]) -> Result<SigningKey, SigningError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SigningError::Short(secret.len()));
        }
        Ok(SigningKey::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// A private key in PEM; its kind says the algorithm.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<SigningKey, SigningError> {
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| SigningError::NoPem)? {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let p256 =
                    || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new());
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                    .map(SigningKey::Ed25519)
                    .or_else(|_| p256().map(|key| SigningKey::P256(Box::new(key))))
                    .or_else(|_| RsaKeyPair::from_pkcs8(der).map(|key| SigningKey::Rsa(Box::new(key))))
                    .map_err(|_| SigningError::Other)
            }
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map(|key| SigningKey::Rsa(Box::new(key)))
                .map_err(|_| SigningError::Other),
            PrivateKeyDer::Sec1(_) => Err(SigningError::Sec1),
            _ => Err(SigningError::Other),
        }
    }

    /// What its tokens say of it.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            SigningKey::Secret(_) => Algorithm::Hs256,
            SigningKey::Ed25519(_) => Algorithm::EdDsa,
            SigningKey::P256(_) => Algorithm::Es256,
            SigningKey::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, kid: Option<&str>, claims: &serde_json::Value) -> Result<String, SigningError> {
        let mut header = serde_json::json!({ "alg": self.algorithm().as_str(), "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signed = self.signature(message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let random = SystemRandom::new();
        let failed = |_| SigningError::Failed;
        let taken = |s: signature::Signature| s.as_ref().to_vec();
        match self {
            SigningKey::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            SigningKey::Ed25519(key) => Ok(taken(key.sign(message))),
            SigningKey::P256(key) => key.sign(&random, message).map(taken).map_err(failed),
            SigningKey::Rsa(key) => {
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut out).map_err(failed)?;
                Ok(out)
            }
        }
    }
}
