//! TLS for one run: a certificate that is made for it, what the node is told of it, and what the load trusts.

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Where a node is told of its certificate and key.
const CERTIFICATE: &str = "MINIUM_SERVER__TLS__CERTIFICATE_FILE";
const KEY: &str = "MINIUM_SERVER__TLS__KEY_FILE";

const CERTIFICATE_FILE: &str = "certificate.pem";
const KEY_FILE: &str = "key.pem";

/// Makes a certificate under `files`; answers the node's settings for it.
pub(super) fn settings(files: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".into()]).context("making a certificate")?;
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = files.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.display().to_string())
    };
    Ok(vec![
        (CERTIFICATE.into(), write(CERTIFICATE_FILE, &made.cert.pem())?),
        (KEY.into(), write(KEY_FILE, &made.signing_key.serialize_pem())?),
    ])
}

/// A client that trusts what [`settings`] made.
pub(super) fn client(files: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_file(files.join(CERTIFICATE_FILE)).context("reading the certificate")?;
    roots.add(certificate).context("trusting the certificate")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
