//! Sockets that whoever starts a node opens and keeps: over a restart nobody is refused.

use crate::support::node::{Node, Options, binary};
use crate::support::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The task `look` tells what a command has of its node.
const LOOK: &str = r#"
[tasks.look]
command = ["/bin/sh", "-c", "env; ls -l /proc/$$/fd"]
"#;

/// Starts a node with these sockets as descriptors 3 and 4, as systemd does: its number is that of the process.
fn start(dir: &Path, sockets: [&TcpListener; 2], args: &[&str]) -> Child {
    let given = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    let launch =
        "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b; exec \"$@\" 3<&0 4<&1 </dev/null >/dev/null";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", launch, "sh"]).arg(binary()).args(["serve", "--config", "minium.toml"]).args(args);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", dir);
    // what is configured does not count beside sockets: nobody may bind this one
    command.env("MINIUM_SERVER__LISTEN", "127.0.0.1:1").current_dir(dir).kill_on_drop(true);
    command.stdin(given(sockets[0])).stdout(given(sockets[1])).stderr(Stdio::piped()).spawn().unwrap()
}

fn place(toml: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix("minium-sockets-").tempdir().unwrap();
    std::fs::write(dir.path().join("minium.toml"), toml).unwrap();
    dir
}

/// Connects, asks and gives the connection, whether or not anybody takes it now.
async fn ask(to: &TcpListener, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to.local_addr().unwrap()).await.expect("nobody is refused");
    let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.unwrap();
    stream
}

async fn status(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    wait::within("an answer", stream.read_to_string(&mut answer)).await.expect("nobody is cut off");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_refuses_nobody() {
    let dir = place(LOOK);
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let each = || [&sockets[0], &sockets[1]];
    // before there is a node
    let mut waiting = vec![ask(&sockets[0], "/healthz").await, ask(&sockets[1], "/healthz").await];
    for _ in 0..3 {
        let mut node = start(dir.path(), each(), &[]);
        for stream in waiting.drain(..) {
            assert_eq!(status(stream).await, "HTTP/1.1 200 OK");
        }
        kill_process(Pid::from_raw(node.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
        // while it goes down, and when it is down; few enough for the queues of these sockets
        for _ in 0..20 {
            for socket in each() {
                drop(TcpStream::connect(socket.local_addr().unwrap()).await.expect("nobody is refused"));
            }
            tokio::task::yield_now().await;
        }
        assert!(wait::within("the node's end", node.wait()).await.unwrap().success());
        for _ in 0..20 {
            waiting.push(ask(&sockets[0], "/healthz").await);
            waiting.push(ask(&sockets[1], "/healthz").await);
        }
    }
    let _node = start(dir.path(), each(), &[]);
    for stream in waiting {
        assert_eq!(status(stream).await, "HTTP/1.1 200 OK");
    }
}

/// Room for two connections is enough for two at one socket: the other one, where nobody comes, takes none of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_where_nobody_comes_takes_no_room() {
    let dir = place("[server.limits]\nconnections = 2\nhandshake_timeout = \"10m\"\n");
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let _node = start(dir.path(), [&sockets[0], &sockets[1]], &[]);
    let mut stays = TcpStream::connect(sockets[0].local_addr().unwrap()).await.unwrap();
    stays.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    // whoever came first is taken first
    for _ in 0..2 {
        assert_eq!(status(ask(&sockets[0], "/healthz").await).await, "HTTP/1.1 200 OK");
        assert_eq!(status(ask(&sockets[1], "/healthz").await).await, "HTTP/1.1 200 OK");
    }
    stays.write_all(b"Host: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    assert_eq!(status(stays).await, "HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_have_nothing_of_the_sockets() {
    let dir = place(LOOK);
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let _node = start(dir.path(), [&sockets[0], &sockets[1]], &[]);
    let url = format!("http://{}/api/v1/jobs", sockets[0].local_addr().unwrap());
    let client = reqwest::Client::new();
    let body = serde_json::json!({ "task": "look" }).to_string();
    let job = wait::until("a job to be taken", async || {
        let sent = client
            .post(&url)
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await
            .ok()?;
        (sent.status() == 201).then_some(())?;
        Some(serde_json::from_slice::<serde_json::Value>(&sent.bytes().await.ok()?).unwrap()["id"].clone())
    })
    .await;
    let seen = wait::until("the job's end", async || {
        let job = client.get(format!("{url}/{job}")).send().await.ok()?.bytes().await.ok()?;
        let job: serde_json::Value = serde_json::from_slice(&job).unwrap();
        assert_ne!(job["state"], "failed", "{job}");
        job["result"].as_str().map(str::to_owned)
    })
    .await;
    assert!(seen.contains("MINIUM_JOB_ID="), "{seen}");
    assert!(!seen.contains("LISTEN_"), "{seen}");
    for socket in &sockets {
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let inode = std::fs::read_link(link).unwrap().display().to_string();
        assert!(inode.starts_with("socket:[") && !seen.contains(&inode), "{inode} in {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_socket_asks_for_rules() {
    let dir = place("");
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = start(dir.path(), [&loopback, &open], &[]).wait_with_output();
    let refused = wait::within("the node to refuse", refused).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("would be open to everybody"), "{said}");
    // the same socket, and somebody who means it
    let meant = start(dir.path(), [&loopback, &open], &["--insecure-no-auth"]);
    assert_eq!(status(ask(&loopback, "/healthz").await).await, "HTTP/1.1 200 OK");
    drop(meant);
    // sockets that are meant for another process are left alone: the configured address counts
    let node = Node::start(Options {
        env: vec![("LISTEN_PID", "1".into()), ("LISTEN_FDS", "1".into())],
        ..Options::memory()
    });
    node.await.assert_well().await;
}
