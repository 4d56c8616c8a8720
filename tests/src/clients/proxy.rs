//! A TCP proxy that cuts its connections after so many bytes, in either direction, as a seed says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// About what a handshake has, and a little more.
const HANDSHAKE_BYTES: usize = 600;

/// A running proxy. Ends when dropped; when the test fails, it tells its seed.
pub(crate) struct Cutter {
    address: SocketAddr,
    seed: u64,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    to: SocketAddr,
    bytes_max: usize,
    cuts: AtomicUsize,
    /// No more cuts.
    calm: AtomicBool,
}

impl Cutter {
    /// In front of `to`. Each connection is cut before `bytes_max` bytes have passed in one of its directions.
    pub(crate) async fn start(to: SocketAddr, seed: u64, bytes_max: usize) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { to, bytes_max, cuts: AtomicUsize::new(0), calm: AtomicBool::new(false) });
        let mut tasks = JoinSet::new();
        let mine = shared.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(mine.clone().pass(socket, random.fork()));
                while connections.try_join_next().is_some() {}
            }
        });
        Cutter { address, seed, shared, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Of a node that speaks TLS.
    pub(crate) fn https(&self) -> String {
        format!("https://{}", self.address)
    }

    /// So many connections were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Cuts no connection that begins from now on.
    pub(crate) fn calm(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- seed {} of the proxy at {}, after {} cuts", self.seed, self.address, self.cuts());
        }
    }
}

impl Shared {
    async fn pass(self: Arc<Self>, near: TcpStream, mut random: fastrand::Rng) {
        let Ok(far) = TcpStream::connect(self.to).await else { return };
        let mut budget = || match random.u8(0..4) {
            _ if self.calm.load(Ordering::Relaxed) => usize::MAX,
            // within the handshake or the first frames
            0 => random.usize(0..HANDSHAKE_BYTES),
            _ => random.usize(0..self.bytes_max),
        };
        let (up, down) = (budget(), budget());
        if random.bool() {
            // a reset takes along what has not been read yet
            near.set_zero_linger().unwrap();
            far.set_zero_linger().unwrap();
        }
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let cut = tokio::select! {
            cut = forward(near_read, far_write, up) => cut,
            cut = forward(far_read, near_write, down) => cut,
        };
        // both sockets are dropped now, in whatever they were
        if cut {
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Passes bytes on until the budget is spent (true) or somebody ends. An end waits for the other direction's.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut budget: usize) -> bool {
    let mut buffer = vec![0; 4096];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(0) => {
                to.shutdown().await.ok();
                return std::future::pending().await;
            }
            Ok(n) => n,
            Err(_) => return false,
        };
        let passed = n.min(budget);
        if to.write_all(&buffer[..passed]).await.is_err() {
            return false;
        }
        budget -= passed;
        if passed < n {
            return true;
        }
    }
}
