//! Peers of other languages: a driver of ours as a process (`bench/peers/`), steered by lines of JSON.
//!
//! | command | what it does before it answers `{"ok":true}` |
//! |---|---|
//! | `open` host, port, user, password?, database | connects and makes the peer's tables |
//! | `bulk` jobs, call, bytes | enqueues, so many jobs in one call |
//! | `enqueue` jobs, connections, bytes | enqueues one by one over so many connections |
//! | `work` jobs | begins to work; `{"handled":N}` follows whenever the number has changed |
//! | `rest` | ends the work; answers `handled` |
//! | `pickup` jobs, every_ms, bytes | one job at a time; answers `from_call_ms`, `from_ack_ms` to the handler's start |
//! | `end` | ends |
//!
//! `bytes` is the length of the arguments' JSON. A failure is `{"error":"…"}`. So this side times all peers alike, and a
//! driver knows nothing but its library.

use super::database::Database;
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// So long may one command take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A driver that runs. Dropping it kills the process.
pub(super) struct Driver {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    pub(super) pid: u32,
    /// As it said last.
    pub(super) handled: u64,
}

impl Driver {
    /// Starts a driver and makes its tables.
    pub(super) async fn start(mut command: Command, database: &Database) -> anyhow::Result<Driver> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let stdin = child.stdin.take().context("a driver without stdin")?;
        let stdout = child.stdout.take().context("a driver without stdout")?;
        let pid = child.id().context("a driver has ended at once")?;
        let mut driver = Driver { child, stdin, lines: BufReader::new(stdout).lines(), pid, handled: 0 };
        let place = database.place()?;
        let open = json!({ "do": "open", "host": place.host, "port": place.port, "user": place.user,
            "password": place.password, "database": database.name });
        driver.ask(&open).await?;
        Ok(driver)
    }

    /// A command and its answer.
    pub(super) async fn ask(&mut self, command: &Value) -> anyhow::Result<Value> {
        self.tell(command).await?;
        loop {
            let answer = self.line().await.with_context(|| format!("the answer to {command}"))?;
            if answer.get("ok").is_some() {
                return Ok(answer);
            }
        }
    }

    async fn tell(&mut self, command: &Value) -> anyhow::Result<()> {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.context("telling a driver")?;
        self.stdin.flush().await.context("telling a driver")
    }

    /// Begins to work.
    pub(super) async fn work(&mut self, jobs: u64) -> anyhow::Result<()> {
        self.handled = 0;
        self.ask(&json!({ "do": "work", "jobs": jobs })).await.map(drop)
    }

    /// Waits until it has handled more.
    pub(super) async fn handles(&mut self) -> anyhow::Result<()> {
        let before = self.handled;
        while self.handled == before {
            self.line().await?;
        }
        Ok(())
    }

    /// Ends the work.
    pub(super) async fn rest(&mut self) -> anyhow::Result<()> {
        self.ask(&json!({ "do": "rest" })).await.map(drop)
    }

    async fn line(&mut self) -> anyhow::Result<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.context("it says nothing")?.context("reading")?.context("it has ended")?;
        let said: Value = serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))?;
        if let Some(words) = said["error"].as_str() {
            bail!("the peer: {words}");
        }
        if let Some(handled) = said["handled"].as_u64() {
            self.handled = handled;
        }
        Ok(said)
    }

    /// Ends the process.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.tell(&json!({ "do": "end" })).await?;
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        match ended {
            Ok(status) => ensure!(status?.success(), "a driver ended badly"),
            Err(_) => self.child.kill().await.context("ending a driver")?,
        }
        Ok(())
    }
}
