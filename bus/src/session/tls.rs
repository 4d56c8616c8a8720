//! A socket that speaks TLS, for a session that thinks it writes to a plain one.
//!
//! The log's bytes go to rustls in slices as long as they come, so that a record is as full as it can be, and at most
//! [`HELD_BYTES_MAX`] of them are inside of rustls at one moment. **What rustls holds was not written yet**: while the
//! kernel has not taken all of it, one byte of what was offered is not counted as taken. So the session stays blocked
//! as it would at a plain socket, waits for the kernel, offers that byte again, and nobody besides this file has to
//! flush anything.

use rustls::ServerConnection;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes encrypted and not yet taken by the kernel, beyond which rustls gets no more: four full records.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// One TLS connection behind its handshake.
pub(crate) struct TlsSocket {
    socket: TcpStream,
    tls: RefCell<ServerConnection>,
    /// A byte that rustls has and that the session was told it must offer again.
    owed: Cell<Option<u8>>,
    /// There may be plaintext in rustls: the kernel need not say anything for a read to bring some.
    undrained: Cell<bool>,
    /// What came cannot be decrypted: nothing more is read.
    broken: Cell<bool>,
    /// Our side has said its last; the socket is shut as soon as that is out.
    ending: Cell<bool>,
}

/// The kernel's side of rustls. Short reads and writes spare the call that would find nothing.
struct Wire<'a>(&'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.try_read(buf)?;
        if n > 0 && n < buf.len() {
            exhausted(self.0, Interest::READABLE);
        }
        Ok(n)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells tokio that there is no more, without asking the kernel.
pub(super) fn exhausted(socket: &TcpStream, interest: Interest) {
    let nothing = || Err::<(), _>(io::Error::from(ErrorKind::WouldBlock));
    // the error is the message
    drop(socket.try_io(interest, nothing));
}

impl TlsSocket {
    pub(crate) fn new(socket: TcpStream, mut tls: ServerConnection) -> TlsSocket {
        tls.set_buffer_limit(Some(HELD_BYTES_MAX));
        TlsSocket {
            socket,
            tls: RefCell::new(tls),
            owed: Cell::default(),
            undrained: Cell::new(true), // the handshake may have brought the first frames along
            broken: Cell::default(),
            ending: Cell::default(),
        }
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    /// Must what is offered next begin with a byte that rustls has already?
    pub(super) fn owes(&self) -> bool {
        self.owed.get().is_some()
    }

    /// How many of these bytes are out. The others must be offered again, in their order.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        if !self.flush(&mut tls)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let again = self.owed.take();
        debug_assert!(again.is_none_or(|b| bytes.first() == Some(&b)), "something else was offered");
        let mut taken = bytes.len().min(usize::from(again.is_some()));
        while taken < bytes.len() {
            taken += tls.writer().write(&bytes[taken..])?;
            if !self.flush(&mut tls)? {
                self.owed.set(Some(bytes[taken - 1]));
                return Ok(taken - 1);
            }
        }
        Ok(taken)
    }

    /// Gives the kernel what rustls holds. False: it does not take all.
    fn flush(&self, tls: &mut ServerConnection) -> io::Result<bool> {
        while tls.wants_write() {
            match tls.write_tls(&mut Wire(&self.socket)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) if tls.wants_write() => {
                    exhausted(&self.socket, Interest::WRITABLE);
                    return Ok(false);
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        if self.ending.get() {
            // if it fails the client is gone, which reading finds out
            drop(socket2::SockRef::from(&self.socket).shutdown(Shutdown::Write));
        }
        Ok(true)
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_write_ready(cx).map(drop)
    }

    /// Also the place where rustls gets out what it has to say by itself: tickets, answers to key updates, alerts and
    /// the last word of all. A session waits here whenever it is allowed to read.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.owed.get().is_none() {
            let mut tls = self.tls.borrow_mut();
            while tls.wants_write() && self.socket.poll_write_ready(cx).is_ready() {
                if self.flush(&mut tls).is_err() {
                    return Poll::Ready(()); // reading finds out
                }
            }
        }
        if self.undrained.get() { Poll::Ready(()) } else { self.socket.poll_read_ready(cx).map(drop) }
    }

    /// Plaintext, as much as fits and has come. Nothing at all is the client's orderly end (its `close_notify`); a
    /// connection that ends without one is [`ErrorKind::UnexpectedEof`], and what cannot be decrypted is an error, too.
    pub(super) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        let (mut read, mut came) = (0, 0);
        self.undrained.set(true);
        while read < buf.len() {
            match tls.reader().read(&mut buf[read..]) {
                Ok(n) if n > 0 => {
                    read += n;
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // an end, of either kind: it stays, and is told when it is the only news
                end => return if read > 0 { Ok(read) } else { end },
            }
            if self.broken.get() {
                return if read > 0 { Ok(read) } else { Err(ErrorKind::InvalidData.into()) };
            }
            if came >= buf.len() {
                break; // records without contents: the others shall have a turn
            }
            match tls.read_tls(&mut Wire(&self.socket)) {
                Ok(n) => came += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.undrained.set(false);
                    break;
                }
                // what came before it is still good
                Err(e) => return if read > 0 { Ok(read) } else { Err(e) },
            }
            if tls.process_new_packets().is_err() {
                self.broken.set(true); // what came before it is still good
                drop(self.flush(&mut tls)); // the alert, if it gets out
            }
        }
        if read > 0 { Ok(read) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Says that nothing more comes, then ends our side of the connection below.
    pub(super) fn finish(&self) {
        let mut tls = self.tls.borrow_mut();
        if !self.ending.replace(true) {
            tls.send_close_notify();
        }
        // what does not get out now does before the session reads again; an error means that the client is gone
        drop(self.flush(&mut tls));
    }
}

#[cfg(test)]
pub(crate) mod tests;
