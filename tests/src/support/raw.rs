//! HTTP and WebSocket by hand, byte by byte: for what no decent client would send, and for clients that do not read.

use super::node::Node;
use super::wait;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A frame as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// An answer as the server sent it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// As `content-length` says.
    pub(crate) body: String,
}

/// What ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A close frame with this code; 1005 without one.
    Code(u16),
    /// The connection, without a close frame.
    Dropped,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A frame with all its freedoms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits {
    pub(crate) fin: bool,
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
}

impl Bits {
    /// A whole, masked frame.
    pub(crate) fn plain(opcode: u8) -> Bits {
        Bits { fin: true, reserved: 0, opcode, masked: true }
    }

    /// The bytes of a frame; `claimed` is the length in its head.
    pub(crate) fn frame(self, payload: &[u8], claimed: u64) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let mask_bit = u8::from(self.masked) << 7;
        match claimed {
            0..126 => out.push(mask_bit | claimed as u8),
            126..65_536 => {
                out.push(mask_bit | 126);
                out.extend((claimed as u16).to_be_bytes());
            }
            _ => {
                out.push(mask_bit | 127);
                out.extend(claimed.to_be_bytes());
            }
        }
        if !self.masked {
            out.extend(payload);
            return out;
        }
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        out
    }
}

/// What the kernel takes for a client that lags as soon as it does not read. With less than 64 KiB there is no window
/// scaling, and Linux may come to offer for ever a little less than the server's kernel sends at once: 2 KiB in 200 ms.
pub(crate) const NARROW_BYTES: u32 = 128 << 10;

impl Raw {
    /// Connects.
    pub(crate) async fn connect(node: &Node) -> Raw {
        Raw::connect_from(node, TcpSocket::new_v4().unwrap()).await
    }

    /// Connects with little room for what is not read.
    pub(crate) async fn connect_narrow(node: &Node) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(NARROW_BYTES).unwrap();
        Raw::connect_from(node, socket).await
    }

    async fn connect_from(node: &Node, socket: TcpSocket) -> Raw {
        let stream = wait::within("a connection", socket.connect(node.address())).await.unwrap();
        Raw { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are. A server that has closed already is no error: its answer tells.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        wait::within("the server to read", self.stream.write_all(bytes)).await.ok();
    }

    /// The head of a handshake with usual headers, then `more` (whole lines).
    pub(crate) fn handshake(node: &Node, path: &str, more: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n",
            node.address()
        )
    }

    /// Opens a WebSocket.
    pub(crate) async fn upgrade(&mut self, node: &Node, path: &str) {
        self.write(Raw::handshake(node, path, "").as_bytes()).await;
        let head = self.head().await.expect("the handshake is answered");
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(head.headers.get("sec-websocket-extensions"), None, "none was offered");
    }

    /// Sends a whole, masked frame.
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&Bits::plain(opcode).frame(payload, payload.len() as u64)).await;
    }

    /// Sends byte by byte, with pauses, until all is sent or the server answers or closes; gives how many went out.
    /// The pauses are what is done to the server: nothing is awaited by them.
    pub(crate) async fn trickle(&mut self, bytes: &[u8], pause: Duration) -> usize {
        let mut ticks = tokio::time::interval(pause);
        let (mut read, mut write) = self.stream.split();
        for (sent, byte) in bytes.iter().enumerate() {
            tokio::select! {
                biased;
                _ = read.read_buf(&mut self.buffer) => return sent,
                _ = ticks.tick() => {}
            }
            if write.write_all(&[*byte]).await.is_err() {
                return sent;
            }
        }
        bytes.len()
    }

    /// Sends bytes, and reads nothing before `unread` has ended; then reads so many bytes, and gives them.
    pub(crate) async fn flood(
        &mut self,
        bytes: &[u8],
        unread: impl Future<Output = ()>,
        answer_bytes: usize,
    ) -> Vec<u8> {
        let (mut read, mut write) = self.stream.split();
        let reading = async {
            unread.await;
            while self.buffer.len() < answer_bytes {
                let n = read.read_buf(&mut self.buffer).await.unwrap_or(0);
                assert_ne!(n, 0, "the connection ended after {} bytes", self.buffer.len());
            }
        };
        // a server that has closed already is no error: its answer tells
        let writing = async { write.write_all(bytes).await.ok() };
        let both = Box::pin(async { tokio::join!(writing, reading) });
        wait::within("the flood to run off", both).await;
        self.buffer.drain(..answer_bytes).collect()
    }

    /// More bytes from the server; false at the end.
    async fn more(&mut self) -> bool {
        let read = wait::within("more from the server", self.stream.read_buf(&mut self.buffer)).await;
        // a reset is an end like any other
        read.unwrap_or(0) > 0
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The next answer over HTTP; `None` when the connection ends before.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.take(end + 4).await?).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let pair = |l: &str| l.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
        let headers: HashMap<_, _> = lines.filter_map(pair).collect();
        let length = headers.get("content-length").map_or(0, |n| n.parse().unwrap());
        let body = String::from_utf8_lossy(&self.take(length).await?).into_owned();
        Some(Head { status, headers, body })
    }

    /// The next frame; `None` when the connection ends before. Frames of servers are never masked.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let head = self.take(2).await?;
        assert_eq!(head[0] & 0xf0, 0x80, "frames are whole and have no reserved bits");
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.take(2).await?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8).await?.try_into().unwrap()),
            short => u64::from(short),
        };
        let payload = self.take(usize::try_from(length).unwrap()).await?;
        Some(Frame { opcode: head[0] & 0x0f, payload })
    }

    /// Reads on until the session ends; messages before that are dropped and counted.
    pub(crate) async fn end(&mut self) -> (End, usize) {
        let mut messages = 0;
        loop {
            match self.frame().await {
                None => return (End::Dropped, messages),
                Some(Frame { opcode: 8, payload }) => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    return (End::Code(code), messages);
                }
                Some(Frame { opcode: 1 | 2, .. }) => messages += 1,
                Some(_) => {}
            }
        }
    }
}
