//! Who is under load: this very binary as a node, the floor relay, and the peers' WebSocket listeners, each a process of
//! its own on a free port.

use super::dialect::Dialect;
use super::{floor, tls};
use crate::node::Node;
use anyhow::{Context, bail};
use rustls::ClientConfig;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A server to put under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Minium,
    /// The same with a certificate.
    MiniumTls,
    Floor,
    Nats,
    Mosquitto,
    UWebSockets,
}

/// A running one. Dropping it kills the process.
pub(super) struct Running {
    process: Process,
    pub(super) address: String,
    pub(super) pid: u32,
    /// What the load trusts, when it speaks TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Its configuration; gone with it.
    _files: TempDir,
}

enum Process {
    Node(Node),
    Floor(floor::Floor),
    Peer(Child),
}

/// How long a peer may take until it listens.
const START: Duration = Duration::from_secs(10);

/// The schema of what is published below `checked`, as the load makes it.
const SCHEMA: &str = r#"{"type":"object","required":["w","p"],"additionalProperties":false,
 "properties":{"w":{"type":"string","minLength":34,"maxLength":34},"p":{"type":"string","maxLength":65536}}}"#;

impl Server {
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Server::Minium | Server::MiniumTls | Server::Floor | Server::UWebSockets => Dialect::Plain,
            Server::Nats => Dialect::Nats,
            Server::Mosquitto => Dialect::Mqtt,
        }
    }

    /// Is it measured only with `--peers`?
    pub(super) fn is_peer(self) -> bool {
        matches!(self, Server::Nats | Server::Mosquitto | Server::UWebSockets)
    }

    /// What it is, for the report; or why it cannot be had.
    pub(super) async fn version(self) -> anyhow::Result<String> {
        let (mut command, missing) = match self {
            Server::Minium | Server::MiniumTls => return Ok(env!("CARGO_PKG_VERSION").into()),
            Server::Floor => return Ok("the relay of this bench".into()),
            Server::Nats => (command("nats-server", &["--version"]), "nats-server"),
            Server::Mosquitto => (command("mosquitto", &["-h"]), "mosquitto"),
            Server::UWebSockets => {
                let version =
                    "import socketify, importlib.metadata as m; print('socketify', m.version('socketify'))";
                (command(&python(), &["-c", version]), "the Python package socketify")
            }
        };
        let words = || format!("{missing} is not here: ./scripts/get-bench-peers");
        let output = command.output().await.with_context(words)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next().with_context(words)?;
        Ok(line.trim().trim_start_matches("nats-server: ").to_owned())
    }

    pub(super) async fn start(self) -> anyhow::Result<Running> {
        let files = tempfile::tempdir().context("making a folder for a server's files")?;
        match self {
            Server::Minium | Server::MiniumTls => {
                let checked = files.path().join("schemas/sub/bench");
                std::fs::create_dir_all(&checked)?;
                std::fs::write(checked.join("checked.json"), SCHEMA)?;
                let mut settings = vec![("MINIUM_SCHEMAS__DIR".to_owned(), path(&files, "schemas"))];
                if self == Server::MiniumTls {
                    settings.extend(tls::settings(files.path())?);
                }
                let node = Node::start_with("sqlite::memory:", &settings).await?;
                if self == Server::Minium {
                    node.ready().await?;
                }
                let (address, pid) = (node.address.clone(), node.pid);
                let tls = (self == Server::MiniumTls).then(|| tls::client(files.path())).transpose()?;
                Ok(Running { process: Process::Node(node), address, pid, tls, _files: files })
            }
            Server::Floor => {
                let floor = floor::Floor::start().await?;
                let (address, pid) = (floor.address.clone(), floor.pid);
                Ok(Running { process: Process::Floor(floor), address, pid, tls: None, _files: files })
            }
            Server::Nats => {
                let (port, own) = (free_port()?, free_port()?);
                let text = format!(
                    "listen: 127.0.0.1:{own}\nwebsocket {{ listen: \"127.0.0.1:{port}\", no_tls: true }}\n"
                );
                let file = write(&files, "nats.conf", &text)?;
                peer(command("nats-server", &["-c", &file]), port, files).await
            }
            Server::Mosquitto => {
                let (port, own) = (free_port()?, free_port()?);
                // it does not start with a WebSocket listener alone (2.0.11); and no bound on what waits for a slow
                // client: otherwise it drops what this bench counts
                let text = format!(
                    "listener {own} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\n\
                     allow_anonymous true\nuser root\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n"
                );
                let file = write(&files, "mosquitto.conf", &text)?;
                peer(command("mosquitto", &["-c", &file]), port, files).await
            }
            Server::UWebSockets => {
                let port = free_port()?;
                let file = write(&files, "uws.py", include_str!("../../peers/uws.py"))?;
                peer(command(&python(), &[&file, &port.to_string()]), port, files).await
            }
        }
    }
}

impl Running {
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.process {
            Process::Node(node) => node.stop().await,
            Process::Floor(floor) => floor.stop().await,
            Process::Peer(mut child) => child.kill().await.context("ending a peer"),
        }
    }
}

fn command(program: &str, arguments: &[&str]) -> Command {
    // Debian keeps daemons where not everybody looks
    let found = ["/usr/sbin", "/usr/bin"].iter().map(|dir| Path::new(dir).join(program)).find(|p| p.exists());
    let mut command = Command::new(found.unwrap_or_else(|| program.into()));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The Python with uWebSockets: the one that the script made beside this binary, else whatever is there.
fn python() -> String {
    let beside = |exe: PathBuf| Some(exe.parent()?.parent()?.join("python/bin/python3"));
    let own = std::env::current_exe().ok().and_then(beside).filter(|p| p.exists());
    own.map_or_else(|| "python3".into(), |p| p.display().to_string())
}

/// A port that was free a moment ago: peers cannot say which one they took.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("looking for a free port")?.local_addr()?.port())
}

fn path(files: &TempDir, name: &str) -> String {
    files.path().join(name).display().to_string()
}

fn write(files: &TempDir, name: &str, text: &str) -> anyhow::Result<String> {
    std::fs::write(files.path().join(name), text).with_context(|| format!("writing {name}"))?;
    Ok(path(files, name))
}

async fn peer(mut command: Command, port: u16, files: TempDir) -> anyhow::Result<Running> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting a peer")?;
    let pid = child.id().context("a peer ended at once")?;
    let address = format!("127.0.0.1:{port}");
    let listens = async {
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("it ended with {status}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    let listens = tokio::time::timeout(START, listens).await;
    listens.context("it does not listen").flatten().with_context(|| format!("starting {command:?}"))?;
    Ok(Running { process: Process::Peer(child), address, pid, tls: None, _files: files })
}
