//! The smallest way into a bus: parses an upgrade and hands the socket over, nothing answered yet.
//!
//! The product's way in is the server's, with limits, HTTP and trust. This one lets the bus be tried, measured and
//! tested alone.

use bytes::Bytes;
use minium_bus::{Bus, Mode, Opening, Role, Socket};
use minium_protocol::{After, Filter};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// Accepts for ever.
pub(crate) async fn accept(listener: TcpListener, bus: Bus, tls: Option<TlsAcceptor>) -> io::Result<()> {
    loop {
        let (socket, remote) = listener.accept().await?;
        let (bus, tls) = (bus.clone(), tls.clone());
        let served = async move {
            match tls {
                Some(tls) => serve(tls.accept(socket).await?, remote, bus).await,
                None => serve(socket, remote, bus).await,
            }
        };
        // whoever is too slow or speaks something else is simply not served
        tokio::spawn(async { drop(tokio::time::timeout(HEAD_TIME_MAX, served).await) });
    }
}

/// What the bus can take over.
trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn into_socket(self) -> io::Result<Socket>;
}

impl Stream for TcpStream {
    fn into_socket(self) -> io::Result<Socket> {
        Ok(Socket::Plain(self.into_std()?))
    }
}

impl Stream for TlsStream<TcpStream> {
    fn into_socket(self) -> io::Result<Socket> {
        let (socket, tls) = self.into_inner();
        Ok(Socket::Tls(socket.into_std()?, Box::new(tls)))
    }
}

async fn serve(mut socket: impl Stream, remote: SocketAddr, bus: Bus) -> io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if socket.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let leftover = Bytes::copy_from_slice(&head[end..]);
    match opening(&text, &bus).await {
        Ok((role, mode, filter, start, answer)) => {
            let Ok(permit) = bus.admit() else { return refuse(socket, "503 Service Unavailable").await };
            let socket = socket.into_socket()?;
            bus.open(Opening {
                socket,
                remote,
                role,
                mode,
                filter,
                start,
                answer,
                leftover,
                grant: None,
                permit,
            });
            Ok(())
        }
        Err(status) => refuse(socket, &status).await,
    }
}

async fn refuse(mut socket: impl Stream, status: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    socket.write_all(answer.as_bytes()).await
}

type Asked = (Role, Mode, Filter, Option<minium_bus::Start>, Vec<u8>);

async fn opening(head: &str, bus: &Bus) -> Result<Asked, String> {
    let bad = || "400 Bad Request".to_owned();
    let header = |name: &str| {
        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    };
    let target = head.split(' ').nth(1).ok_or_else(bad)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let asked = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
    let path = path.trim_start_matches('/');
    // the socket of many topics has none of its own
    let (pattern, topic) = if path == "ws" { (path, path) } else { path.split_once('/').ok_or_else(bad)? };
    let role = match pattern {
        "pub" => Role::Publish,
        "sub" => Role::Subscribe,
        "push" => Role::Push,
        "pull" => Role::Pull { acks: asked("ack") == Some("1") },
        "ws" => Role::Talk,
        "bus" => Role::Peer { echo: asked("echo") == Some("1") },
        _ => return Err("404 Not Found".into()),
    };
    let filter = Filter::from_path(topic).map_err(|_| bad())?;
    let after: After = asked("after").unwrap_or("latest").parse().map_err(|_| bad())?;
    let start = bus.resolve(&filter, after).await.map_err(|p| format!("{} {}", p.status, p.code))?;
    let (mode, chosen) = match header("sec-websocket-protocol") {
        Some("cloudevents.json") => (Mode::CloudEvents, "sec-websocket-protocol: cloudevents.json\r\n"),
        Some("minium.v1") => (Mode::V1, "sec-websocket-protocol: minium.v1\r\n"),
        _ => (Mode::Plain, ""),
    };
    let accept = derive_accept_key(header("sec-websocket-key").ok_or_else(bad)?.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n{chosen}\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    Ok((role, mode, filter, start, answer.into_bytes()))
}
