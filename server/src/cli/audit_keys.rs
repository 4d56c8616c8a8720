//! Keys of archives, from PEM.

use crate::auth::ed25519_point;
use crate::exit::{Exit, fault};
use minium_audit::{CheckKey, SealKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use std::path::Path;

fn wrong(path: &Path, words: &str) -> anyhow::Error {
    fault(Exit::Usage, format!("{} {words}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| wrong(path, &format!("cannot be read: {error}")))
}

/// The key that signs.
pub(super) fn seal_key(path: &Path) -> anyhow::Result<SealKey> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| wrong(path, "holds no PRIVATE KEY in PEM (openssl genpkey -algorithm ed25519)"))?;
    SealKey::from_pkcs8(der.secret_pkcs8_der())
        .map_err(|error| wrong(path, &format!("cannot be used: {error}")))
}

/// The key that checks.
pub(super) fn check_key(path: &Path) -> anyhow::Result<CheckKey> {
    let none = || wrong(path, "holds no Ed25519 PUBLIC KEY in PEM (openssl pkey -pubout)");
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&read(path)?).map_err(|_| none())?;
    ed25519_point(&der).map(CheckKey::from_point).ok_or_else(none)
}
