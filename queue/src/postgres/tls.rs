//! TLS towards PostgreSQL, by the words that libpq has for it in a URL: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
//!
//! The driver knows `disable`, `prefer` and `require` only, and none of the files; so they are taken out of the URL here.
//! Files are read when the store is opened, never again. So is `pgbouncer`, which the driver does not know either.

use crate::error::QueueError;
use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

/// What of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Nothing: against those who listen, not against those who pretend.
    Nothing,
    /// Who issued it.
    Authority,
    /// Who issued it, and that it is the host's.
    Host,
}

/// What a URL says about TLS.
#[derive(Debug)]
pub(crate) struct Said {
    check: Check,
    /// Without it the authorities that the system trusts.
    roots: Option<PathBuf>,
    /// Certificate and key of our own.
    identity: Option<(PathBuf, PathBuf)>,
    /// A pooler in transaction mode stands between.
    pooled: bool,
}

impl Said {
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }
}

/// Reads a URL. No file is looked at.
pub(crate) fn read(url: &str) -> Result<(Config, Said), QueueError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut roots, mut certificate, mut key, mut pgbouncer) = (None, None, None, None, None);
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let ours = match name {
            "sslmode" => &mut mode,
            "sslrootcert" => &mut roots,
            "sslcert" => &mut certificate,
            "sslkey" => &mut key,
            "pgbouncer" => &mut pgbouncer,
            _ => {
                rest.push(pair);
                continue;
            }
        };
        let value = percent_decode_str(value).decode_utf8();
        *ours = Some(value.map_err(|_| invalid(format!("{name} is not UTF-8")))?.into_owned());
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    // the parser's words name no part of the URL, and so no password
    let mut config: Config = url.parse().map_err(invalid)?;
    let (mode, check) = match mode.as_deref() {
        Some("disable") => (SslMode::Disable, Check::Nothing),
        // a unix socket never speaks TLS, so there is nothing to ask
        None | Some("prefer") if is_local(&config) => (SslMode::Disable, Check::Nothing),
        None | Some("prefer") => (SslMode::Prefer, Check::Nothing),
        // as libpq has it: whoever names an authority wants it checked
        Some("require") if roots.is_some() => (SslMode::Require, Check::Authority),
        Some("require") => (SslMode::Require, Check::Nothing),
        Some("verify-ca") => (SslMode::Require, Check::Authority),
        Some("verify-full") => (SslMode::Require, Check::Host),
        Some(other) => {
            let known = "disable, prefer, require, verify-ca or verify-full";
            return Err(invalid(format!("sslmode must be {known}, not {other:?}")));
        }
    };
    config.ssl_mode(mode);
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err(invalid("sslcert and sslkey need each other")),
    };
    let roots = roots.filter(|path| path != "system").map(PathBuf::from);
    let pooled = match pgbouncer.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(invalid(format!("pgbouncer must be true or false, not {other:?}"))),
    };
    Ok((config, Said { check, roots, identity, pooled }))
}

fn is_local(config: &Config) -> bool {
    config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)))
}

fn invalid(why: impl std::fmt::Display) -> QueueError {
    QueueError::Invalid(format!("the database URL cannot be read: {why}"))
}

/// How connections begin TLS.
#[derive(Debug, Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Reads the files that the URL names.
    pub(super) fn new(said: &Said) -> Result<Tls, QueueError> {
        let refused = |what: &str, e: &dyn std::fmt::Display| QueueError::Invalid(format!("{what}: {e}"));
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| refused("TLS cannot be set up", &e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(said, provider)?));
        let config = match &said.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_file_iter(certificate)
                    .and_then(Iterator::collect)
                    .map_err(|e| refused(&format!("sslcert {}", certificate.display()), &e))?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|e| refused(&format!("sslkey {}", key.display()), &e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| refused("sslcert and sslkey", &e))?
            }
        };
        Ok(Tls(Arc::new(config)))
    }
}

/// Checks as much of a server's certificate as the URL asks for.
#[derive(Debug)]
struct Verifier {
    /// Nothing where nothing of the certificate is checked.
    chain: Option<Arc<WebPkiServerVerifier>>,
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(said: &Said, provider: Arc<CryptoProvider>) -> Result<Verifier, QueueError> {
        let check = said.check;
        if check == Check::Nothing {
            return Ok(Verifier { chain: None, check, provider });
        }
        let mut roots = RootCertStore::empty();
        let place = match &said.roots {
            Some(path) => {
                let refused = |e: &dyn std::fmt::Display| {
                    QueueError::Invalid(format!("sslrootcert {}: {e}", path.display()))
                };
                for root in CertificateDer::pem_file_iter(path).map_err(|e| refused(&e))? {
                    roots.add(root.map_err(|e| refused(&e))?).map_err(|e| refused(&e))?;
                }
                path.display().to_string()
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                "the system".into()
            }
        };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let chain = chain.map_err(|e| QueueError::Invalid(format!("authorities of {place}: {e}")))?;
        Ok(Verifier { chain: Some(chain), check, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verdict = chain.verify_server_cert(certificate, between, name, ocsp, now);
        match verdict {
            // the name is looked at last: everything else was good
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Authority => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection's TLS, not yet begun.
pub(super) struct Beginning {
    connector: TlsConnector,
    name: Result<ServerName<'static>, io::Error>,
}

/// A connection with TLS.
pub(super) struct Secured<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Secured<S>;
    type TlsConnect = Beginning;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Beginning> {
        // asked for unix sockets too, which have no name and never get so far
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other);
        Ok(Beginning { connector: TlsConnector::from(self.0.clone()), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Beginning {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { Ok(Secured(self.connector.connect(self.name?, stream).await?)) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_is_told_by_the_url() {
        let pooled = |url: &str| read(url).map(|(_, said)| said.is_pooled());
        assert!(pooled("postgres://u@h/db?pgbouncer=true&sslmode=disable").unwrap());
        assert!(!pooled("postgres://u@h/db?pgbouncer=false").unwrap());
        assert!(!pooled("postgres://u@h/db").unwrap());
        pooled("postgres://u@h/db?pgbouncer=1").unwrap_err();
    }

    fn said(url: &str) -> (SslMode, Check) {
        let (config, said) = read(url).unwrap();
        (config.get_ssl_mode(), said.check)
    }

    #[test]
    fn the_words_of_libpq_mean_what_they_mean_there() {
        let at = |query: &str| said(&format!("postgres://me@db/jobs?{query}"));
        assert_eq!(at(""), (SslMode::Prefer, Check::Nothing));
        assert_eq!(at("sslmode=disable"), (SslMode::Disable, Check::Nothing));
        assert_eq!(at("sslmode=require"), (SslMode::Require, Check::Nothing));
        assert_eq!(at("sslmode=require&sslrootcert=ca.pem"), (SslMode::Require, Check::Authority));
        assert_eq!(at("sslrootcert=system&sslmode=verify-ca"), (SslMode::Require, Check::Authority));
        assert_eq!(at("sslmode=verify-full&connect_timeout=3"), (SslMode::Require, Check::Host));
        assert_eq!(said("postgres:///jobs?host=/run/x"), (SslMode::Disable, Check::Nothing));
        let (config, said) = read("postgres://h/x?sslrootcert=%2Fa%20b.pem&user=me").unwrap();
        assert_eq!(said.roots, Some(PathBuf::from("/a b.pem")));
        assert_eq!(config.get_user(), Some("me"), "the rest of the URL is the driver's");
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_a_password() {
        for (query, word) in
            [("sslmode=allow", "verify-full"), ("sslcert=x", "each other"), ("nope=1", "cannot be read")]
        {
            let e = read(&format!("postgres://me:hidden@db/x?{query}")).unwrap_err().to_string();
            assert!(e.contains(word) && !e.contains("hidden"), "{e}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let open = |query: &str| Tls::new(&read(&format!("postgres://db/x?{query}")).unwrap().1).unwrap_err();
        let e = open("sslmode=verify-full&sslrootcert=/nowhere/ca.pem").to_string();
        assert!(e.contains("/nowhere/ca.pem"), "{e}");
        let e = open("sslmode=require&sslcert=/nowhere/me.pem&sslkey=/nowhere/me.key").to_string();
        assert!(e.contains("/nowhere/me.pem"), "{e}");
    }
}
