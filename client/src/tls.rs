//! TLS towards a server: whom we trust, what we show, and what it means when no session comes about.

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Both requests and WebSockets are HTTP/1.1 here.
const ALPN: &[u8] = b"http/1.1";
/// No error has more causes than this looks at.
const CAUSES_MAX: usize = 16;

/// Whom to trust, and what to show. Counts for `https` and `wss` alone.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Certificates of the authorities that may have issued the server's, as PEM; they count instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// What to show to a server that asks for a certificate.
    pub identity: Option<Identity>,
}

/// A certificate of our own, and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: Vec<u8>,
    key: SecretString,
}

impl Identity {
    /// The certificate, behind it those that lead to its authority, and the key; each as PEM.
    pub fn new(certificate: impl Into<Vec<u8>>, key: impl Into<String>) -> Identity {
        Identity { certificate: certificate.into(), key: SecretString::from(key.into()) }
    }
}

/// What of the [`TlsOptions`] cannot be used, and why.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) what: &'static str,
    pub(crate) reason: String,
}

impl Unusable {
    fn new(what: &'static str, reason: impl fmt::Display) -> Unusable {
        Unusable { what, reason: reason.to_string() }
    }
}

/// What all sockets of a client share. Blocks a little where the system's authorities are read.
pub(crate) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>, Unusable> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots(options.authorities.as_deref())?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|e| Unusable::new("authorities", e))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Unusable::new("protocol", e))?
        .with_webpki_verifier(verifier);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates("certificate", &identity.certificate)?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.expose_secret().as_bytes())
                .map_err(|e| Unusable::new("key", e))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| Unusable::new("certificate with this key", e))?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = authorities else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let words = "this system trusts none; install ca-certificates, or name those that count";
            return Err(Unusable::new("authorities", words));
        }
        return Ok(roots);
    };
    for authority in certificates("authorities", pem)? {
        roots.add(authority).map_err(|e| Unusable::new("authorities", e))?;
    }
    Ok(roots)
}

/// The certificates of a PEM text, one at least.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|e| Unusable::new(what, e))?;
    if all.is_empty() { Err(Unusable::new(what, "there is no certificate in it")) } else { Ok(all) }
}

/// Why there is no TLS session with a server that is there. Coming back mends none of these, but for what time or the
/// server's operator mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// No authority that is trusted here issued the server's certificate.
    UnknownAuthority,
    /// The certificate is for other names or addresses than the URL's.
    WrongName,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// There is something else wrong with the certificate.
    Certificate,
    /// The server does not accept our certificate, or that we have none.
    Refused,
    /// `https` was said, and the server does not speak TLS.
    NotSpoken,
    /// `http` was said, and the server speaks TLS only.
    Wanted,
    /// The two sides found no way to speak TLS with each other.
    Failed,
}

impl TlsFault {
    /// All there are.
    pub const ALL: &[TlsFault] = &[
        TlsFault::UnknownAuthority,
        TlsFault::WrongName,
        TlsFault::Expired,
        TlsFault::NotYetValid,
        TlsFault::Certificate,
        TlsFault::Refused,
        TlsFault::NotSpoken,
        TlsFault::Wanted,
        TlsFault::Failed,
    ];

    /// Its stable word.
    pub fn code(self) -> &'static str {
        match self {
            TlsFault::UnknownAuthority => "tls_unknown_authority",
            TlsFault::WrongName => "tls_wrong_name",
            TlsFault::Expired => "tls_expired",
            TlsFault::NotYetValid => "tls_not_yet_valid",
            TlsFault::Certificate => "tls_certificate",
            TlsFault::Refused => "tls_refused",
            TlsFault::NotSpoken => "tls_not_spoken",
            TlsFault::Wanted => "tls_wanted",
            TlsFault::Failed => "tls_failed",
        }
    }

    /// Can it pass while we go on as we are? What we trust and what we say is read once, so only what time or the other
    /// side changes.
    pub(crate) fn is_passing(self) -> bool {
        matches!(self, TlsFault::Expired | TlsFault::NotYetValid | TlsFault::Failed)
    }

    /// What an error of a handshake says about TLS, and its own words. Nothing where the network failed.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<(TlsFault, String)> {
        let told = causes(error).find_map(|e| e.downcast_ref::<rustls::Error>())?;
        Some((fault(told), told.to_string()))
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An error and its causes. Those that an [`io::Error`] carries are not among what it calls its source.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> + 'a {
    std::iter::successors(Some(error), |error| cause(*error)).take(CAUSES_MAX)
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn fault(error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            // a signature that does not fit is that of another authority with the same name
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFault::WrongName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsFault::NotYetValid
            }
            _ => TlsFault::Certificate,
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => TlsFault::Refused,
        rustls::Error::InvalidMessage(_) => TlsFault::NotSpoken,
        _ => TlsFault::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let says = |authorities: Option<&str>, identity: Option<(&str, &str)>| {
            let options = TlsOptions {
                authorities: authorities.map(Into::into),
                identity: identity.map(|(certificate, key)| Identity::new(certificate, key)),
            };
            config(&options).err().map(|e| e.what)
        };
        assert_eq!(says(Some(&pem), Some((&pem, &key))), None);
        assert_eq!(says(Some("no PEM"), None), Some("authorities"));
        assert_eq!(says(Some(&key), None), Some("authorities"), "a key is no authority");
        assert_eq!(says(Some(&pem), Some(("", &key))), Some("certificate"));
        assert_eq!(says(Some(&pem), Some((&pem, &pem))), Some("key"));
        let foreign = other.signing_key.serialize_pem();
        assert_eq!(says(Some(&pem), Some((&pem, &foreign))), Some("certificate with this key"));
        let shown = format!("{:?}", Identity::new(pem, key.clone()));
        assert!(!shown.contains(key.lines().nth(1).unwrap()), "{shown}");
    }

    #[test]
    fn a_fault_is_found_beneath_its_wrappers() {
        let wrapped = |error: rustls::Error| {
            let inner = io::Error::new(io::ErrorKind::InvalidData, error);
            let outer = io::Error::other(inner);
            TlsFault::of(&outer).map(|(fault, _)| fault)
        };
        let certificate = |e| rustls::Error::InvalidCertificate(e);
        assert_eq!(wrapped(certificate(CertificateError::Expired)), Some(TlsFault::Expired));
        assert_eq!(wrapped(certificate(CertificateError::BadEncoding)), Some(TlsFault::Certificate));
        assert_eq!(
            wrapped(rustls::Error::AlertReceived(AlertDescription::UnknownCA)),
            Some(TlsFault::Refused)
        );
        assert_eq!(wrapped(rustls::Error::DecryptError), Some(TlsFault::Failed));
        assert_eq!(TlsFault::of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
        assert_eq!(TlsFault::of(&io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")), None);
    }
}
