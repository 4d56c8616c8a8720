//! What whoever installs and supervises a node meets.

/// Manual pages and the Debian package.
mod package;
/// Sockets that outlive the node.
mod sockets;
/// What a node tells its supervisor.
mod supervised;

use crate::support::wait;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::UnixDatagram;

/// A supervisor as systemd is one: a socket that words come to.
struct Supervisor {
    dir: TempDir,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Supervisor {
    fn new() -> Supervisor {
        let dir = tempfile::Builder::new().prefix("minium-notify-").tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = heard.clone();
        // few words find room in the socket; ends with the test
        drop(tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(size) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..size]);
                kept.lock().unwrap().extend(text.lines().map(str::to_owned));
            }
        }));
        Supervisor { dir, heard }
    }

    fn variable(&self) -> (&'static str, String) {
        ("NOTIFY_SOCKET", self.dir.path().join("notify").display().to_string())
    }

    /// All words so far.
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// So often it was said.
    fn count(&self, word: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|heard| *heard == word).count()
    }

    /// Until a word that begins so has come behind the first `from` ones; gives how many there are with it.
    async fn wait_for(&self, word: &str, from: usize) -> usize {
        wait::until(&format!("{word} to be said to the supervisor"), async || {
            let heard = self.heard.lock().unwrap();
            heard.iter().skip(from).position(|heard| heard.starts_with(word)).map(|at| from + at + 1)
        })
        .await
    }
}
