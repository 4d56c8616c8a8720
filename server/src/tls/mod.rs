//! TLS on the listener: certificate, key and the authority of clients, read at the start and again on SIGHUP.
//!
//! What was read last and was good holds for connections that come from then on; those that are there keep theirs.
//! Tickets do not outlive a reload, so whoever was let in by an authority that is gone must show a certificate anew.

mod identity;

pub(crate) use identity::identity_of;

use crate::config;
use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// HTTP/2 as it is named in a handshake.
pub(crate) const H2: &[u8] = b"h2";

/// The listener's TLS.
pub(crate) struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<Clients>,
}

struct Clients {
    authority: PathBuf,
    required: bool,
}

impl Tls {
    /// Reads what the configuration names; nothing where it names no certificate.
    pub(crate) fn of(said: &config::Tls) -> Result<Option<Tls>, String> {
        let (Some(certificate), Some(key)) = (&said.certificate_file, &said.key_file) else {
            return Ok(None);
        };
        let clients = said.client_ca_file.clone().map(|authority| Clients {
            authority,
            required: said.client_auth.as_deref() != Some("optional"),
        });
        let files = Files { certificate: certificate.clone(), key: key.clone(), clients };
        let current = ArcSwap::from_pointee(files.read()?);
        Ok(Some(Tls { files, current }))
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again. Blocks.
    pub(crate) fn reload(&self) {
        match self.files.read() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                info!(certificate = %self.files.certificate.display(), "TLS certificate read again.");
            }
            Err(error) => warn!(%error, "The TLS files cannot be used; the old ones stay in use."),
        }
    }
}

impl Files {
    fn read(&self) -> Result<ServerConfig, String> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|e| format!("The TLS key {} cannot be read: {e}", self.key.display()))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                let refused = |e: &dyn std::fmt::Display| {
                    format!("The client authority {} cannot be used: {e}", clients.authority.display())
                };
                for authority in certificates(&clients.authority)? {
                    roots.add(authority).map_err(|e| refused(&e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier =
                    if clients.required { verifier } else { verifier.allow_unauthenticated() }.build();
                builder.with_client_cert_verifier(verifier.map_err(|e| refused(&e))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            format!("The TLS certificate {certificate} with the key {key} cannot be used: {e}")
        })?;
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        // in the client's hands instead of our memory
        config.ticketer = ring::Ticketer::new().map_err(|e| format!("TLS tickets cannot be made: {e}"))?;
        Ok(config)
    }
}

/// The certificates of a PEM file, one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let refused =
        |e: &dyn std::fmt::Display| format!("The certificates {} cannot be read: {e}", path.display());
    let all = CertificateDer::pem_file_iter(path).map_err(|e| refused(&e))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|e| refused(&e))?;
    if all.is_empty() { Err(refused(&"there is none in it")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, config::Tls) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        let said = config::Tls {
            certificate_file: path("cert.pem"),
            key_file: path("key.pem"),
            client_ca_file: None,
            client_auth: None,
        };
        (dir, said)
    }

    fn write(dir: &tempfile::TempDir, names: &[&str]) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for name in names {
            let text =
                if name.starts_with("key") { made.signing_key.serialize_pem() } else { made.cert.pem() };
            std::fs::write(dir.path().join(name), text).unwrap();
        }
    }

    fn refusal(said: &config::Tls) -> String {
        Tls::of(said).err().expect("it was taken")
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (dir, mut said) = files();
        assert!(refusal(&said).contains("cert.pem cannot be read"));
        write(&dir, &["cert.pem", "key.pem"]);
        assert!(Tls::of(&said).unwrap().is_some());
        write(&dir, &["key.pem"]);
        assert!(refusal(&said).contains("cert.pem with the key"), "a key of another certificate");
        std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
        assert!(refusal(&said).contains("key.pem cannot be read"));
        write(&dir, &["cert.pem", "key.pem"]);
        said.client_ca_file = Some(dir.path().join("key.pem"));
        assert!(refusal(&said).contains("there is none in it"));
        assert!(Tls::of(&config::Tls { certificate_file: None, key_file: None, ..said }).unwrap().is_none());
    }

    #[test]
    fn a_bad_file_keeps_the_old_ones() {
        let (dir, said) = files();
        write(&dir, &["cert.pem", "key.pem"]);
        let tls = Tls::of(&said).unwrap().unwrap();
        let first = tls.current.load_full();
        write(&dir, &["cert.pem"]);
        tls.reload();
        assert!(Arc::ptr_eq(&first, &tls.current.load_full()));
        write(&dir, &["cert.pem", "key.pem"]);
        tls.reload();
        assert!(!Arc::ptr_eq(&first, &tls.current.load_full()));
    }
}
