//! One request to somebody outside: bounded in time and bytes, to addresses that were judged, and never passed on.
//!
//! The name is resolved here, each address is judged, and it is that address which is connected to: a name that resolves to
//! something else a moment later gains nothing. No proxy of the environment is asked, no redirect followed, and of the answer no
//! more is read than is shown to people.

use super::address::is_public;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Of an answer so much is read.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// What it means stands in its head: a body that does not end within this changes nothing of that.
const BODY_WITHIN: Duration = Duration::from_secs(2);
/// So many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 8;
/// No URL is longer.
const URL_BYTES_MAX: usize = 2_048;

/// Where to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// Goes what is sent there over a network where others can read it?
    pub(super) fn is_open(&self) -> bool {
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        let own = name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        !self.secure && !own
    }

    /// Its name and port, as the URL has them.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }
}

/// Reads a URL of `http` or `https`; says what is wrong with any other.
pub(crate) fn parse_url(text: &str) -> Result<Target, String> {
    let wrong = || "must be a URL that begins with https:// or http://".to_owned();
    if text.len() > URL_BYTES_MAX {
        return Err(format!("is longer than {URL_BYTES_MAX} bytes"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err("must not have a user or a password in it".into());
    }
    if text.contains('#') {
        return Err("must not have a fragment".into());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Target {
        secure,
        host,
        port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        authority: authority.as_str().to_owned(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    })
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// It resolves to nothing that may be connected to.
    #[error("{host} is {address}, which is no public address; allow_private = true allows it")]
    Private {
        /// The name.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The network says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What is spoken there is no HTTP, or ended too early.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer within {}", minium_protocol::format_duration(*.0))]
    Late(Duration),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The beginning of its body.
    pub(crate) body: String,
}

/// How a sink gets out.
#[derive(Debug)]
pub(crate) struct Road {
    pub(crate) allow_private: bool,
    pub(crate) timeout: Duration,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl Road {
    /// POST of a JSON text.
    pub(crate) async fn post(
        &self,
        target: &Target,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, PostError> {
        let deadline = Deadline { at: Instant::now() + self.timeout, whole: self.timeout };
        Box::pin(self.send(target, headers, body, deadline)).await
    }

    async fn send(
        &self,
        target: &Target,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        deadline: Deadline,
    ) -> Result<Answer, PostError> {
        let mut request = Request::post(target.path.as_str())
            .header(HOST, target.authority.as_str())
            .header(USER_AGENT, concat!("minium/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        request.headers_mut().extend(headers);
        request.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        let stream = deadline.before(self.connect(target, deadline)).await?;
        if !target.secure {
            return exchange(stream, request, deadline).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        let secured = TlsConnector::from(self.tls.clone()).connect(name, stream);
        exchange(deadline.before(secured).await?, request, deadline).await
    }

    /// A connection to the first address that may be had and answers.
    async fn connect(&self, target: &Target, deadline: Deadline) -> Result<TcpStream, PostError> {
        let resolved = tokio::net::lookup_host((target.host.as_str(), target.port)).await?;
        let addresses: Vec<SocketAddr> = resolved.take(ADDRESSES_MAX).collect();
        let (mut refused, mut failed) = (None, None);
        for (i, &address) in addresses.iter().enumerate() {
            if !self.may_reach(address) {
                refused
                    .get_or_insert(PostError::Private { host: target.host.clone(), address: address.ip() });
                continue;
            }
            // one that does not answer leaves time for those behind it
            let left = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
            let share = deadline.at.saturating_duration_since(Instant::now()) / left;
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = Some(PostError::Io(error)),
                Err(_) => failed = Some(PostError::Late(deadline.whole)),
            }
        }
        Err(failed.or(refused).unwrap_or_else(|| PostError::NoAddress(target.host.clone())))
    }

    fn may_reach(&self, address: SocketAddr) -> bool {
        self.allow_private || is_public(address.ip())
    }
}

/// Until when the head of an answer must be there.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    whole: Duration,
}

impl Deadline {
    async fn before<T, E>(self, what: impl Future<Output = Result<T, E>>) -> Result<T, PostError>
    where
        PostError: From<E>,
    {
        match tokio::time::timeout_at(self.at, what).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(PostError::Late(self.whole)),
        }
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    deadline: Deadline,
) -> Result<Answer, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async move {
        let response = deadline.before(sender.send_request(request)).await?;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(BODY_WITHIN, beginning(body)).await.unwrap_or_default();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // it drives the exchange; when it ends first, what it brought is there
        _ = connection => answered.await,
    }
}

/// The first part of a body; one that breaks off has said enough by its status.
async fn beginning(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = ANSWER_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whom a sink believes: these authorities, or the system's. Blocks a little.
pub(crate) fn trust(ca_file: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        Some(path) => {
            let unreadable =
                |why: &dyn std::fmt::Display| format!("{} cannot be read: {why}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                let certificate = certificate.map_err(|e| unreadable(&e))?;
                roots.add(certificate).map_err(|e| unreadable(&e))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"there is no certificate in it"));
            }
        }
    }
    // a system that trusts nobody reaches what speaks http, and says of the rest that it trusts nobody
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to() {
        let target = parse_url("https://[2001:db8::1]:8443/a?b=c").unwrap();
        assert_eq!((target.secure, target.host.as_str(), target.port), (true, "2001:db8::1", 8443));
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("[2001:db8::1]:8443", "/a?b=c"));
        let target = parse_url("http://example.com").unwrap();
        assert_eq!((target.secure, target.port, target.path.as_str()), (false, 80, "/"));
    }

    #[test]
    fn what_leaves_this_machine_without_tls_is_open() {
        for (url, open) in [
            ("http://example.com/", true),
            ("http://10.0.0.1/", true),
            ("http://[2001:db8::1]/", true),
            ("https://example.com/", false),
            ("http://localhost:80/", false),
            ("http://LOCALHOST./", false),
            ("http://ci.localhost/", false),
            ("http://127.9.9.9/", false),
            ("http://[::1]:80/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("http://localhost.example.com/", true),
        ] {
            assert_eq!(parse_url(url).unwrap().is_open(), open, "{url}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in
            ["", "/hook", "example.com/hook", "ftp://x/", "file:///etc/passwd", "https://", "http:///x"]
        {
            assert!(parse_url(text).is_err(), "{text}");
        }
        assert!(parse_url("https://me:secret@example.com/").unwrap_err().contains("password"));
        assert!(parse_url("https://example.com/#x").is_err());
        assert!(parse_url(&format!("https://example.com/{}", "x".repeat(URL_BYTES_MAX))).is_err());
    }
}
