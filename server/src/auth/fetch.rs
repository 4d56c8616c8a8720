//! Getting a set of keys: a file, or one bounded GET over HTTP or HTTPS. Certificates are checked against what the
//! system trusts; redirects are not followed, since the place was chosen with care.

use super::jwks::JwksPlace;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No set is longer.
const BYTES_MAX: usize = 256 << 10;
/// For all of it, from the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("it is longer than {BYTES_MAX} bytes, or was cut off")]
    Body,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// Gets it.
pub(super) async fn fetch(place: &JwksPlace) -> Result<Vec<u8>, FetchError> {
    let got = async {
        match place {
            JwksPlace::Url(uri) => get(uri).await,
            JwksPlace::File(path) => {
                let mut text = Vec::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(BYTES_MAX as u64 + 1).read_to_end(&mut text).await?;
                if text.len() > BYTES_MAX { Err(FetchError::Body) } else { Ok(text) }
            }
        }
    };
    tokio::time::timeout(PATIENCE, Box::pin(got)).await.unwrap_or(Err(FetchError::Late))
}

async fn get(uri: &Uri) -> Result<Vec<u8>, FetchError> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    if !secure {
        return ask(stream, uri).await;
    }
    let connector = tokio::task::spawn_blocking(connector).await.map_err(io::Error::other)??;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    ask(connector.connect(name, stream).await?, uri).await
}

/// Trusts what the system trusts.
fn connector() -> io::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::other("this system trusts no certificate authority; install ca-certificates"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn ask<S>(stream: S, uri: &Uri) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(HOST, uri.authority().map_or("", |a| a.as_str()))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("minium/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answered = async move {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|_| FetchError::Body)?.to_bytes().to_vec())
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // it drives the exchange; when it ends first, what it brought is there
        _ = connection => answered.await,
    }
}
