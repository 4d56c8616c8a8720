//! Keys that check signatures. Each has one algorithm, for ever.

use super::der::{PublicKey, public_key};
use super::jwks::Jwk;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::{hmac, signature};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;

/// RFC 7518, section 3.2: no shorter than the hash.
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
    Hs256,
}

impl Algorithm {
    /// By its name in tokens.
    pub(crate) fn named(name: &str) -> Option<Algorithm> {
        [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256, Algorithm::Hs256]
            .into_iter()
            .find(|a| a.as_str() == name)
    }

    /// Its name in tokens.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Hs256 => "HS256",
        }
    }
}

/// Why something is no key; worded to go behind the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("holds {0} bytes; a secret of HS256 needs at least {SECRET_BYTES_MIN}")]
    Short(usize),
    #[error("is PEM; the secret of HS256 is shared and must never be a public key")]
    Confused,
    #[error("holds a private key; only its public half belongs here (openssl pkey -pubout)")]
    Private,
    #[error("holds no PUBLIC KEY in PEM{0}")]
    NoPem(&'static str),
    #[error("holds no key for {}", .0.as_str())]
    Other(Algorithm),
    #[error("holds an RSA key of {0} bits; it must have 2048 to 8192")]
    Bits(usize),
}

/// A key that checks signatures.
pub(crate) struct VerifyingKey {
    algorithm: Algorithm,
    material: Material,
    digest: [u8; 32],
}

enum Material {
    Secret(hmac::Key),
    /// A point on the algorithm's curve.
    Point(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl VerifyingKey {
    /// A shared secret, for HS256.
    pub(crate) fn from_secret(secret: &[u8]) -> Result<VerifyingKey, KeyError> {
        if secret.starts_with(b"-----BEGIN") {
            return Err(KeyError::Confused);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::Short(secret.len()));
        }
        let material = Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Ok(VerifyingKey::new(Algorithm::Hs256, material, &[secret]))
    }

    /// A public key in PEM.
    pub(crate) fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<VerifyingKey, KeyError> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| {
            KeyError::NoPem(if text.contains("BEGIN CERTIFICATE") {
                "; take the key out of the certificate (openssl x509 -noout -pubkey)"
            } else if text.contains("BEGIN RSA PUBLIC KEY") {
                "; convert it (openssl rsa -RSAPublicKey_in -pubout)"
            } else {
                ""
            })
        })?;
        match (algorithm, public_key(&der)) {
            (Algorithm::EdDsa, Some(PublicKey::Ed25519(point))) => VerifyingKey::from_point(algorithm, point),
            (Algorithm::Es256, Some(PublicKey::P256(point))) => VerifyingKey::from_point(algorithm, point),
            (Algorithm::Rs256, Some(PublicKey::Rsa(n, e))) => VerifyingKey::from_rsa(n, e),
            _ => Err(KeyError::Other(algorithm)),
        }
    }

    /// A public key of a set; nothing if it is none for this algorithm.
    pub(super) fn from_jwk(algorithm: Algorithm, jwk: &Jwk) -> Result<VerifyingKey, KeyError> {
        let bytes = |member: &Option<String>| {
            let text = member.as_ref().ok_or(KeyError::Other(algorithm))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Other(algorithm))
        };
        match (algorithm, jwk.kty.as_str(), jwk.crv.as_deref()) {
            (Algorithm::EdDsa, "OKP", Some("Ed25519")) => {
                VerifyingKey::from_point(algorithm, &bytes(&jwk.x)?)
            }
            (Algorithm::Es256, "EC", Some("P-256")) => {
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return Err(KeyError::Other(algorithm));
                }
                VerifyingKey::from_point(algorithm, &[&[4][..], &x, &y].concat())
            }
            (Algorithm::Rs256, "RSA", None) => VerifyingKey::from_rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?),
            _ => Err(KeyError::Other(algorithm)),
        }
    }

    fn from_point(algorithm: Algorithm, point: &[u8]) -> Result<VerifyingKey, KeyError> {
        let good = match algorithm {
            Algorithm::EdDsa => point.len() == 32,
            _ => point.len() == 65 && point[0] == 4,
        };
        if !good {
            return Err(KeyError::Other(algorithm));
        }
        Ok(VerifyingKey::new(algorithm, Material::Point(point.to_vec()), &[point]))
    }

    fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<VerifyingKey, KeyError> {
        // ring takes numbers without leading zeros
        let number = |bytes: &[u8]| bytes[bytes.iter().take_while(|b| **b == 0).count()..].to_vec();
        let (modulus, exponent) = (number(modulus), number(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !(2_048..=8_192).contains(&bits) {
            return Err(KeyError::Bits(bits));
        }
        let parts = [modulus.clone(), exponent.clone()];
        let material = Material::Rsa { modulus, exponent };
        Ok(VerifyingKey::new(Algorithm::Rs256, material, &[&parts[0], &parts[1]]))
    }

    fn new(algorithm: Algorithm, material: Material, parts: &[&[u8]]) -> VerifyingKey {
        let mut all = algorithm.as_str().as_bytes().to_vec();
        for part in parts {
            all.push(0);
            all.extend_from_slice(part);
        }
        let digest = digest(&SHA256, &all).as_ref().try_into().expect("SHA-256 has 32 bytes");
        VerifyingKey { algorithm, material, digest }
    }

    /// Its one algorithm.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Tells it from other keys without giving it away.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Did this key sign the message?
    pub(super) fn verify(&self, message: &[u8], signed: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signed).is_ok(),
            Material::Point(point) => {
                let how: &dyn signature::VerificationAlgorithm = match self.algorithm {
                    Algorithm::EdDsa => &signature::ED25519,
                    _ => &signature::ECDSA_P256_SHA256_FIXED,
                };
                signature::UnparsedPublicKey::new(how, point).verify(message, signed).is_ok()
            }
            Material::Rsa { modulus, exponent } => {
                let key = signature::RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed).is_ok()
            }
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
