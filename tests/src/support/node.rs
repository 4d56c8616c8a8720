//! The real server as a process: started on a free port, killed, stopped, started again in the same place.
//!
//! A node's whole world is a temporary directory: configuration, schemas, SQLite file, log. When the test fails, the
//! log's end is shown.

use super::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// A failing test shows so much of the log's end.
const LOG_SHOWN_BYTES: usize = 16 * 1024;

/// Fixed ports come from here: below what the kernel gives to those who ask for any, so that a node that is down for
/// a moment finds its port free when it comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The server binary: what `scripts/test` built, else the one beside the tests.
pub(crate) fn binary() -> PathBuf {
    let named = std::env::var_os("MINIUM_TEST_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let tests = std::env::current_exe().unwrap();
        tests.ancestors().nth(2).unwrap().join("minium")
    });
    assert!(path.exists(), "{} is not built: run ./scripts/test", path.display());
    path
}

/// The schemas of the checkout.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the checkout").to_owned()
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `minium dev` in place of `serve`: it brings its own database and configuration.
    pub(crate) dev: bool,
    /// `database.url`; `{dir}` stands for the node's own directory.
    pub(crate) database: String,
    /// More configuration, as TOML.
    pub(crate) config: String,
    /// Further arguments.
    pub(crate) args: Vec<String>,
    /// More of the environment.
    pub(crate) env: Vec<(&'static str, String)>,
    /// The node speaks TLS, and curl reaches it with these arguments.
    pub(crate) https: Option<Vec<String>>,
    /// Wait until `/readyz` says yes; without it, only until it listens.
    pub(crate) await_ready: bool,
}

impl Options {
    /// In memory: gone with the process.
    pub(crate) fn memory() -> Options {
        Options::on("sqlite::memory:")
    }

    /// A file of its own, that survives the process.
    pub(crate) fn file() -> Options {
        Options::on("sqlite:{dir}/minium.db")
    }

    /// A database that somebody else looks after.
    pub(crate) fn on(url: &str) -> Options {
        Options {
            dev: false,
            database: url.into(),
            config: String::new(),
            args: vec![],
            env: vec![],
            https: None,
            await_ready: true,
        }
    }

    /// As a newcomer starts it.
    pub(crate) fn dev() -> Options {
        Options { dev: true, ..Options::memory() }
    }

    /// With more configuration.
    pub(crate) fn config(self, toml: &str) -> Options {
        Options { config: toml.into(), ..self }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Node {
    dir: TempDir,
    options: Options,
    address: SocketAddr,
    process: Mutex<Option<Child>>,
}

impl Node {
    /// In memory, with what is usual.
    pub(crate) async fn memory() -> Node {
        Node::start(Options::memory()).await
    }

    /// Starts a node and waits until it is ready.
    pub(crate) async fn start(options: Options) -> Node {
        let dir = tempfile::Builder::new().prefix("minium-node-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("schemas")).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let node = Node { dir, options, address, process: Mutex::new(None) };
        node.restart().await;
        node
    }

    /// What it is configured with from its next start on.
    pub(crate) fn reconfigure(&mut self, toml: &str) {
        self.options.config = toml.to_owned();
    }

    /// Starts it in the same place after it has ended.
    pub(crate) async fn restart(&self) {
        // what a killed node was about to start has its listener until it becomes another program
        let free = async || TcpListener::bind(self.address).ok().map(drop);
        wait::until(&format!("{} to be free", self.address), free).await;
        self.spawn();
        let ready = if self.options.await_ready { "/readyz" } else { "/healthz" };
        let url = self.http(ready);
        wait::until(&format!("the node at {url}"), async || {
            self.assert_alive();
            self.answers(&url).await.then_some(())
        })
        .await;
    }

    async fn answers(&self, url: &str) -> bool {
        let Some(args) = &self.options.https else {
            return reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success());
        };
        let mut curl = tokio::process::Command::new("curl");
        let curl = curl.args(["--silent", "--fail", "--output", "/dev/null"]).args(args).arg(url);
        curl.status().await.is_ok_and(|status| status.success())
    }

    /// Its log, for other processes that belong to the test: what they say stands there, too.
    pub(crate) fn log_file(&self) -> File {
        File::options().create(true).append(true).open(self.log_path()).unwrap()
    }

    fn spawn(&self) {
        std::fs::write(self.dir.path().join("minium.toml"), &self.options.config).unwrap();
        let log = self.log_file();
        let mut process = self.process.lock().unwrap();
        assert!(process.is_none(), "the node is running already");
        let mut command = self.command();
        // what crosses shards shall do so on every machine
        command.env("MINIUM_SERVER__SHARDS", "2");
        if self.options.dev {
            command.arg("dev");
        } else {
            command
                .args(["serve", "--config", "minium.toml", "--schemas", "schemas", "--database"])
                .arg(self.database());
        }
        let child = command
            .arg("--listen")
            .arg(self.address.to_string())
            .args(&self.options.args)
            .envs(self.options.env.iter().map(|(name, value)| (*name, value.as_str())))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *process = Some(child);
    }

    /// The binary in the node's directory, with its database and address in the environment but no arguments yet.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .env("MINIUM_URL", self.http(""))
            .stdin(Stdio::null());
        command
    }

    /// As `command`, for tests that await it.
    pub(crate) fn tokio_command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::from(self.command());
        command.kill_on_drop(true);
        command
    }

    /// Where its jobs are.
    pub(crate) fn database(&self) -> String {
        self.options.database.replace("{dir}", &self.dir.path().display().to_string())
    }

    /// Its directory; `schemas/` below it is read.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of `path`, which begins with a slash.
    pub(crate) fn http(&self, path: &str) -> String {
        let scheme = if self.options.https.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// The same for WebSockets.
    pub(crate) fn ws(&self, path: &str) -> String {
        let scheme = if self.options.https.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.process.lock().unwrap().as_ref().expect("the node is running"))
    }

    /// The memory that it has in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc().join("status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a process has memory");
        line.split_whitespace().nth(1).expect("in KiB").parse().unwrap()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc().join("fd")).unwrap().count()
    }

    fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid().as_raw_nonzero()))
    }

    /// Fails the test if the process has ended by itself.
    pub(crate) fn assert_alive(&self) {
        let mut process = self.process.lock().unwrap();
        let child = process.as_mut().expect("the node is running");
        if let Some(status) = child.try_wait().unwrap() {
            *process = None;
            panic!("the node ended by itself: {status}");
        }
    }

    /// It answers, and its database too.
    pub(crate) async fn assert_well(&self) {
        self.assert_alive();
        let answer =
            reqwest::get(self.http("/readyz")).await.unwrap_or_else(|e| panic!("the node is not well: {e}"));
        assert_eq!(answer.status(), 200, "the node is not ready: {:?}", answer.text().await);
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn end(&self, signal: Signal) -> ExitStatus {
        let mut child = self.process.lock().unwrap().take().expect("the node is running");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = wait::until("the node to end", async || child.try_wait().unwrap()).await;
        if signal == Signal::KILL {
            assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it was gone before it was killed");
        }
        status
    }

    /// kill -9.
    pub(crate) async fn kill(&self) {
        self.end(Signal::KILL).await;
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let child = self.process.get_mut().map(Option::take);
        if let Ok(Some(mut child)) = child {
            // it may have ended by itself, which is what the test then fails of
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.floor_char_boundary(log.len().saturating_sub(LOG_SHOWN_BYTES));
            eprintln!("--- log of the node at {}\n{}--- end of log", self.address, &log[from..]);
        }
    }
}

/// A port that nobody listens on now and nobody is given by chance later.
pub(crate) fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(PORTS))
        .take(1_000)
        .find(free)
        .expect("one of 1,000 ports is free")
}
