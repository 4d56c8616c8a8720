//! Between a client and the server: a proxy that cuts both ways at random byte counts, or does to one message what a
//! broken server would.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A connection carries at least so much before it is cut: its handshake, and then some.
const CUT_BYTES_MIN: usize = 500;

/// What is done to one message on its way to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    /// It does not arrive.
    Drop,
    /// It arrives twice.
    Double,
    /// It arrives behind its successor.
    Swap,
    /// It says something else.
    Alter,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    random: Mutex<fastrand::Rng>,
    /// At most so many bytes go through one connection in one direction, while it is not calm.
    cut_bytes_max: Option<usize>,
    calm: AtomicBool,
    cuts: AtomicU64,
    plant: Mutex<Option<Planted>>,
}

/// What is done to which message.
#[derive(Debug, Clone)]
struct Planted {
    plant: Plant,
    /// How messages of the publisher begin.
    mark: String,
    /// So many of them go through before.
    left: usize,
}

/// A running proxy; it ends with this value, and so do its connections.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Cuts connections before so many bytes have passed.
    pub(super) async fn cutting(target: SocketAddr, cut_bytes_max: usize, random: fastrand::Rng) -> Proxy {
        Proxy::start(target, Some(cut_bytes_max), random, None).await
    }

    /// Does this to a message of a publisher, of which so many go through before.
    pub(super) async fn planting(target: SocketAddr, plant: Plant, publisher: u32, left: usize) -> Proxy {
        let planted = Planted { plant, mark: format!("\"publisher\":{publisher},"), left };
        Proxy::start(target, None, fastrand::Rng::with_seed(0), Some(planted)).await
    }

    async fn start(
        target: SocketAddr,
        cut_bytes_max: Option<usize>,
        random: fastrand::Rng,
        plant: Option<Planted>,
    ) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            random: Mutex::new(random),
            cut_bytes_max,
            calm: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            plant: Mutex::new(plant),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Proxy { address, shared, accepting }
    }

    /// Connections that were cut.
    pub(super) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Relaxed)
    }

    /// From now on everything passes.
    pub(super) fn calm(&self) {
        self.shared.calm.store(true, Relaxed);
    }

    /// Has the fault happened?
    pub(super) fn is_done(&self) -> bool {
        self.shared.plant.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, shared.clone()));
    }
}

/// One connection, until either side ends it or it is cut.
async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(shared.target).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (up, down, hard) = shared.budgets();
    let planted = shared.plant.lock().unwrap().is_some();
    let cut = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let upwards = pass(&mut from_client, &mut to_server, up, &shared);
        let downwards = async {
            if planted {
                mangle(&mut from_server, &mut to_client, &shared).await;
                return false;
            }
            pass(&mut from_server, &mut to_client, down, &shared).await
        };
        tokio::select! { cut = upwards => cut, cut = downwards => cut }
    };
    if cut {
        shared.cuts.fetch_add(1, Relaxed);
        if hard {
            // both sides get a reset, and what was not read yet is gone
            client.set_zero_linger().ok();
            server.set_zero_linger().ok();
        }
    }
}

impl Shared {
    /// How many bytes pass upwards and downwards, and whether the cut is a reset.
    fn budgets(&self) -> (usize, usize, bool) {
        let Some(max) = self.cut_bytes_max else { return (usize::MAX, usize::MAX, false) };
        let mut random = self.random.lock().unwrap();
        let (up, down) = (random.usize(CUT_BYTES_MIN..max), random.usize(CUT_BYTES_MIN..max));
        (up, down, random.bool())
    }
}

/// Passes bytes on; true when it was cut for its budget.
async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut budget: usize,
    shared: &Shared,
) -> bool {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else { return false };
        let n = if shared.calm.load(Relaxed) { n } else { n.min(budget) };
        if to.write_all(&buffer[..n]).await.is_err() {
            return false;
        }
        budget = budget.saturating_sub(n);
        if budget == 0 && !shared.calm.load(Relaxed) {
            return true;
        }
    }
}

/// Passes frames on, and does to one message what is planned.
async fn mangle(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    shared: &Shared,
) {
    let mut buffer = Vec::new();
    let mut held: Option<Vec<u8>> = None;
    let mut head = true;
    loop {
        while let Some(end) = if head { head_end(&buffer) } else { frame_end(&buffer) } {
            let mut frame: Vec<u8> = buffer.drain(..end).collect();
            let text = String::from_utf8_lossy(&frame);
            let is_message = !head && text.contains("\"publisher\"");
            let plan = if head { None } else { shared.plan(&text) };
            head = false;
            let mut out = Vec::new();
            match plan {
                None => out.extend(&frame),
                Some(Plant::Drop) => {}
                Some(Plant::Double) => {
                    out.extend(&frame);
                    out.extend(&frame);
                }
                Some(Plant::Swap) => held = Some(std::mem::take(&mut frame)),
                Some(Plant::Alter) => {
                    let at = frame.windows(4).position(|w| w == b"1.50").expect("it is in each message");
                    frame[at + 3] = b'1';
                    out.extend(&frame);
                }
            }
            if is_message && !frame.is_empty() {
                out.extend(held.take().unwrap_or_default());
            }
            if to.write_all(&out).await.is_err() {
                return;
            }
        }
        let Ok(1..) = from.read_buf(&mut buffer).await else { return };
    }
}

impl Shared {
    /// What is to be done to this frame.
    fn plan(&self, frame: &str) -> Option<Plant> {
        let mut planted = self.plant.lock().unwrap();
        match planted.as_mut().filter(|p| frame.contains(&p.mark)) {
            None => None,
            Some(Planted { left: left @ 1.., .. }) => {
                *left -= 1;
                None
            }
            Some(_) => planted.take().map(|p| p.plant),
        }
    }
}

fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Frames of servers are not masked.
fn frame_end(buffer: &[u8]) -> Option<usize> {
    let (head, length) = match buffer.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (buffer.len() >= head + length).then_some(head + length)
}
