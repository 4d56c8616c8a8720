//! As much of WebSocket as a load needs: the handshake, masked frames out, and counting frames in without keeping
//! them. The library would make the load slower than the server that it measures.

use anyhow::{Context, ensure};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every message begins with when it was sent, in nanoseconds, as so many hex digits.
pub(super) const STAMP_BYTES: usize = 16;

/// Opens a WebSocket. What the server sent behind its answer is given back.
pub(super) async fn open(address: &str, path: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut socket = TcpStream::connect(address).await.context("connecting")?;
    socket.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    loop {
        if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
            ensure!(
                answer.starts_with(b"HTTP/1.1 101"),
                "no WebSocket: {}",
                String::from_utf8_lossy(&answer)
            );
            let rest = answer.split_off(end + 4);
            return Ok((socket, rest));
        }
        ensure!(socket.read_buf(&mut answer).await? > 0, "the server hung up during the handshake");
    }
}

/// Appends a text frame of `size` bytes that begins with the stamp. Masked with zeros: the payload stays as it is.
pub(super) fn message(out: &mut Vec<u8>, size: usize, epoch: Instant) {
    out.push(0x81);
    match size {
        0..126 => out.push(0x80 | size as u8),
        126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    let stamp = format!("{:016x}", epoch.elapsed().as_nanos() as u64);
    out.extend_from_slice(stamp.as_bytes());
    out.resize(out.len() + size - STAMP_BYTES, b'x');
}

/// Follows the server's frames and counts them.
#[derive(Default)]
pub(super) struct Counter {
    head: [u8; 10],
    have: u8,
    left: u64,
    stamp: [u8; STAMP_BYTES],
    stamped: u8,
    data: bool,
}

impl Counter {
    /// Tells `each` the stamp of every data message that ends in `bytes`.
    pub(super) fn advance(&mut self, mut bytes: &[u8], mut each: impl FnMut(u64)) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.head[self.have as usize] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                self.begin();
                continue;
            }
            let n = self.left.min(bytes.len() as u64) as usize;
            let wanted = (STAMP_BYTES - self.stamped as usize).min(n);
            let at = self.stamped as usize;
            self.stamp[at..at + wanted].copy_from_slice(&bytes[..wanted]);
            self.stamped += wanted as u8;
            self.left -= n as u64;
            bytes = &bytes[n..];
            if self.left == 0 && self.data {
                let text = std::str::from_utf8(&self.stamp).unwrap_or("");
                each(u64::from_str_radix(text, 16).unwrap_or(0));
            }
        }
    }

    /// Is the head complete? Then the payload begins.
    fn begin(&mut self) {
        let extended = match self.head[1] & 127 {
            _ if self.have < 2 => return,
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if (self.have as usize) < 2 + extended {
            return;
        }
        self.left = match extended {
            0 => u64::from(self.head[1] & 127),
            n => self.head[2..2 + n].iter().fold(0, |sum, b| sum << 8 | u64::from(*b)),
        };
        self.data = self.head[0] & 8 == 0;
        (self.have, self.stamped) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_wherever_they_are_cut() {
        let mut frames = Vec::new();
        for (size, op) in [(16usize, 0x81u8), (200, 0x81), (2, 0x89), (70_000, 0x81)] {
            frames.push(op);
            match size {
                0..126 => frames.push(size as u8),
                126..65_536 => frames.extend([&[126][..], &(size as u16).to_be_bytes()].concat()),
                _ => frames.extend([&[127][..], &(size as u64).to_be_bytes()].concat()),
            }
            frames.extend(format!("{size:016x}").bytes().chain(std::iter::repeat(b'x')).take(size));
        }
        for cut in [1, 2, 3, 7, 100, 4096, frames.len()] {
            let (mut counter, mut seen) = (Counter::default(), Vec::new());
            frames.chunks(cut).for_each(|c| counter.advance(c, |stamp| seen.push(stamp)));
            assert_eq!(seen, [16, 200, 70_000], "cut {cut}");
        }
    }
}
