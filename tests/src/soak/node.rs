//! The node under load: the real server as a process, in a directory of its own.

use super::Fault;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long it may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Jobs and entries are let go soon, so that a run sees many times what is kept.
const CONFIG: &str = r#"
[queue]
keep_finished = "30s"
[channels."task".retention]
count = 5000
[tasks.soak]
command = ["cat"]
"#;

/// A running node.
pub(crate) struct Node {
    dir: TempDir,
    address: SocketAddr,
    process: Child,
}

impl Node {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start() -> Result<Node, Fault> {
        let binary = std::env::current_exe()?.with_file_name("minium");
        if !binary.exists() {
            return Err(format!("{} is not built", binary.display()).into());
        }
        let dir = tempfile::Builder::new().prefix("minium-soak-").tempdir()?;
        std::fs::write(dir.path().join("minium.toml"), CONFIG)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = Command::new(binary)
            .current_dir(dir.path())
            .args(["serve", "--config", "minium.toml", "--database", "sqlite:minium.db", "--listen"])
            .arg(address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log"))?)
            .spawn()?;
        let node = Node { dir, address, process };
        let ready = async {
            while reqwest::get(format!("http://{address}/readyz")).await.map_or(0, |a| a.status().as_u16())
                != 200
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let words = || format!("the node does not become ready\n{}", node.log_end());
        tokio::time::timeout(PATIENCE, ready).await.map_err(|_| words())?;
        Ok(node)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its memory in KiB, and its open descriptors.
    pub(crate) fn look(&self) -> Result<(u64, u64), Fault> {
        let proc = format!("/proc/{}", self.process.id());
        let status = std::fs::read_to_string(format!("{proc}/status"))?;
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("the node has ended")?;
        let resident = resident.split_whitespace().next().ok_or("no figure")?.parse()?;
        Ok((resident, std::fs::read_dir(format!("{proc}/fd"))?.count() as u64))
    }

    /// The end of what it said.
    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log[log.floor_char_boundary(log.len().saturating_sub(4_096))..].to_owned()
    }

    /// Asks it to go down; it must do so by itself, and well.
    pub(crate) async fn stop(mut self) -> Result<(), Fault> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let ended = async {
            loop {
                if let Some(status) = self.process.try_wait()? {
                    break Ok::<_, Fault>(status);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let status =
            tokio::time::timeout(PATIENCE, ended).await.map_err(|_| "the node does not go down")??;
        if status.success() { Ok(()) } else { Err(format!("the node ended with {status}").into()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // after a fault it may run still, or have ended by itself
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
