//! The node under load: this very binary, started as `minium serve` in a process of its own, so that its CPU and
//! memory can be told apart from the load's.

use anyhow::{Context, bail};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// A started node. Dropping it kills the process.
pub(crate) struct Node {
    child: Child,
    /// Keeps its stderr empty for as long as it lives.
    _drain: JoinSet<()>,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    pub(crate) pid: u32,
}

impl Node {
    /// Starts `minium serve` on a free port, and waits until it says where it listens.
    pub(crate) async fn start(database: &str) -> anyhow::Result<Node> {
        Node::start_with(database, &[]).await
    }

    /// The same with settings of its own, as environment variables.
    pub(crate) async fn start_with(database: &str, settings: &[(String, String)]) -> anyhow::Result<Node> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--database", database])
            .env("MINIUM_LOG", "info")
            .env("MINIUM_SERVER__LIMITS__SESSIONS", "50000")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting minium serve")?;
        let pid = child.id().context("minium serve ended at once")?;
        let stderr = child.stderr.take().context("minium serve has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await? {
            // http:// or, with a certificate, https://
            if let Some((_, rest)) = line.split_once("listening on http") {
                let url = rest.split_whitespace().next().unwrap_or("");
                let address = url.trim_start_matches('s').trim_start_matches("://").to_owned();
                let mut drain = JoinSet::new();
                drain.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Node { child, _drain: drain, address, pid });
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!("minium serve did not start:\n{said}");
    }

    /// Waits until the node says that everything it needs is there.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        for _ in 0..600 {
            if self.get("/readyz").await.is_ok_and(|status| status == 200) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bail!("minium serve did not become ready within 30 s");
    }

    /// The status that a path answers, when all of the answer is there.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<u16> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(&self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let status = answer.split_whitespace().nth(1).and_then(|s| s.parse().ok());
        status.context("no HTTP answer")
    }

    /// Ends the node.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending minium serve")
    }
}
