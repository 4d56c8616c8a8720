//! The floor: a relay that copies every frame of its publisher to all subscribers, one write each, and checks nothing.
//!
//! No broker on this machine can cost much less. It runs in a process of its own (this binary, with a hidden command),
//! on one thread with blocking sockets.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Environment variable that turns `minium bench bus` into the floor relay.
const SWITCH: &str = "MINIUM_BENCH_FLOOR";
const BURST_BYTES: usize = 64 * 1024;

/// The relay under load. Dropping it kills the process.
pub(super) struct Floor {
    child: Child,
    pub(super) address: String,
    pub(super) pid: u32,
}

impl Floor {
    pub(super) async fn start() -> anyhow::Result<Floor> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .args(["bench", "bus"])
            .env(SWITCH, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the floor relay")?;
        let pid = child.id().context("the floor relay ended at once")?;
        let stdout = child.stdout.take().context("the floor relay has no stdout")?;
        let Some(address) = BufReader::new(stdout).lines().next_line().await? else {
            bail!("the floor relay said nothing");
        };
        Ok(Floor { child, address, pid })
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("ending the floor relay")
    }
}

/// Is this process to be the relay?
pub(super) fn is_wanted() -> bool {
    std::env::var_os(SWITCH).is_some()
}

/// Takes subscribers until a publisher comes, serves it to its end, and begins anew.
pub(super) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let mut subscribers: Vec<TcpStream> = Vec::new();
    for socket in listener.incoming() {
        let mut socket = socket?;
        socket.set_nodelay(true)?;
        let head = head_of(&mut socket)?;
        socket.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        )?;
        if head.starts_with("GET /pub") {
            relay(&mut socket, &mut subscribers)?;
            subscribers.clear();
        } else {
            subscribers.push(socket);
        }
    }
    Ok(())
}

fn head_of(socket: &mut TcpStream) -> anyhow::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Copies bursts of whole frames, unmasked: the load masks with zeros, so only the heads change.
fn relay(publisher: &mut TcpStream, subscribers: &mut [TcpStream]) -> anyhow::Result<()> {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; BURST_BYTES];
    loop {
        let n = publisher.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..n]);
        let used = unmask(&input, &mut output);
        input.drain(..used);
        for subscriber in subscribers.iter_mut() {
            subscriber.write_all(&output)?;
        }
        output.clear();
    }
}

/// Appends the whole frames of `input` without their masks; answers how many bytes they had.
fn unmask(input: &[u8], output: &mut Vec<u8>) -> usize {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        let extended = match rest.get(1).map(|b| b & 127) {
            None => return used,
            Some(126) => 2,
            Some(127) => 8,
            Some(_) => 0,
        };
        if rest.len() < 2 + extended + 4 {
            return used;
        }
        let length = match extended {
            0 => usize::from(rest[1] & 127),
            n => rest[2..2 + n].iter().fold(0, |sum, b| sum << 8 | usize::from(*b)),
        };
        let (head, body) = (2 + extended, 2 + extended + 4);
        let Some(payload) = rest.get(body..body + length) else { return used };
        output.extend_from_slice(&[rest[0], rest[1] & 127]);
        output.extend_from_slice(&rest[2..head]);
        output.extend_from_slice(payload);
        used += body + length;
    }
}
