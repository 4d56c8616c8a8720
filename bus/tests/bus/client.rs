//! A WebSocket client that may say anything, also what no library would.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Nothing here takes so long; it only keeps a broken test from hanging.
const GUARD: Duration = Duration::from_secs(60);

/// Plain or with TLS: to the tests it is the same.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

pub(crate) struct Client {
    pub(crate) socket: Box<dyn Stream>,
    buffer: Vec<u8>,
    read: usize,
}

/// A masked frame, as clients send them.
pub(crate) fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
    part(0x80 | opcode, body)
}

/// As [`frame`], with the whole first byte.
pub(crate) fn part(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match body.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let mask = [0x5a, 0xa5, 0x0f, 0xf0];
    out.extend_from_slice(&mask);
    out.extend(body.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

pub(crate) fn handshake(path: &str, mode: &str) -> Vec<u8> {
    let protocol =
        if mode.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {mode}\r\n") };
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{protocol}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

impl Client {
    /// Connects without a word; `receive` bounds what the kernel takes for us.
    pub(crate) async fn connect(address: std::net::SocketAddr, receive: Option<u32>) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let socket = socket.connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let socket = match crate::certificate::connector() {
            Some(tls) => {
                Box::new(within(tls.connect("localhost".try_into().unwrap(), socket)).await.unwrap())
            }
            None => Box::new(socket) as Box<dyn Stream>,
        };
        Client { socket, buffer: Vec::new(), read: 0 }
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        within(self.socket.write_all(bytes)).await.unwrap();
        within(self.socket.flush()).await.unwrap();
    }

    pub(crate) async fn text(&mut self, body: &str) {
        self.say(&frame(TEXT, body.as_bytes())).await;
    }

    /// Reads the answer to a handshake up to its empty line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            let end = self.buffer[self.read..].windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.take(end + 4);
                return String::from_utf8(head).unwrap();
            }
            assert!(self.more().await, "the connection ended in the head");
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let bytes = self.buffer[self.read..self.read + n].to_vec();
        self.read += n;
        if self.read == self.buffer.len() {
            self.buffer.clear();
            self.read = 0;
        }
        bytes
    }

    async fn more(&mut self) -> bool {
        if self.read > 1 << 20 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        // an RST is an end, too
        within(self.socket.read_buf(&mut self.buffer)).await.unwrap_or(0) > 0
    }

    /// The next frame, or nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let have = &self.buffer[self.read..];
            if let [first, short, rest @ ..] = have {
                assert_eq!(first & 0x70, 0, "a reserved bit in {first:#x}");
                assert_eq!(first & 0x80, 0x80, "the server never fragments");
                let long =
                    |n: usize| rest.get(..n).map(|b| b.iter().fold(0, |a, b| a << 8 | usize::from(*b)));
                let size = match short {
                    126 => long(2).map(|n| (4, n)),
                    127 => long(8).map(|n| (10, n)),
                    n => Some((2, usize::from(*n))),
                };
                if let Some((head, len)) = size.filter(|(head, len)| have.len() >= head + len) {
                    let opcode = first & 15;
                    let body = self.take(head + len).split_off(head);
                    return Some((opcode, body));
                }
            }
            if !self.more().await {
                assert_eq!(self.read, self.buffer.len(), "the connection ended within a frame");
                return None;
            }
        }
    }

    /// The next frame must be this text.
    pub(crate) async fn expect(&mut self, body: &str) {
        assert_eq!(self.heard().await, body);
    }

    /// The next frame must be text, after pings if the test takes long.
    pub(crate) async fn heard(&mut self) -> String {
        let heard = async {
            loop {
                match self.next().await.expect("the connection ended") {
                    (TEXT, text) => return String::from_utf8(text).unwrap(),
                    (PING, body) => self.say(&frame(PONG, &body)).await,
                    (opcode, body) => panic!("opcode {opcode}: {}", String::from_utf8_lossy(&body)),
                }
            }
        };
        within(heard).await
    }

    pub(crate) async fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.heard().await).unwrap()
    }

    /// Nothing has come for us but the answer to this ping.
    pub(crate) async fn nothing_else(&mut self) {
        self.say(&frame(PING, b"anything?")).await;
        loop {
            match self.next().await.expect("the connection ended") {
                (PING, body) => self.say(&frame(PONG, &body)).await,
                last => return assert_eq!(last, (PONG, b"anything?".to_vec())),
            }
        }
    }

    /// The next frame must be a Close, and then the end: answers its code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            let (opcode, body) = self.next().await.expect("the connection ended without a Close");
            if opcode == CLOSE {
                self.say_close(&body).await;
                assert_eq!(self.next().await, None, "something came after the Close");
                let code = body.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                return (code, String::from_utf8(body[body.len().min(2)..].to_vec()).unwrap());
            }
            assert_eq!(opcode, PING, "{:?}", String::from_utf8_lossy(&body));
        }
    }

    async fn say_close(&mut self, body: &[u8]) {
        // the server may have gone already
        drop(within(self.socket.write_all(&frame(CLOSE, body))).await);
        drop(within(self.socket.flush()).await);
    }

    /// Says goodbye and waits for the answer and the end.
    pub(crate) async fn leave(mut self) {
        self.say(&frame(CLOSE, &1000u16.to_be_bytes())).await;
        while let Some((opcode, body)) = self.next().await {
            if opcode == CLOSE {
                assert_eq!(body, 1000u16.to_be_bytes());
            }
        }
    }
}

/// Keeps a broken test from hanging.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, what).await.expect("nothing happened for a minute")
}
