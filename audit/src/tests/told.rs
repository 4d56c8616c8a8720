//! What is said to a server while nothing is recorded, whatever it answers.

use super::*;
use minium_client::{Backoff, Client};
use minium_protocol::After;
use std::slice::Iter;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Whoever waits for anything here has waited in vain after so long.
const DEADLINE: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it does not come")
}

/// Answers each confirmation with what `statuses` say, then 204, and tells of each body. Everything else is 503.
async fn server(statuses: &'static [u16], heard: mpsc::Sender<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let statuses = Arc::new(Mutex::new(statuses.iter()));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(socket, statuses.clone(), heard.clone()));
        }
    });
    url
}

async fn answer(socket: TcpStream, statuses: Arc<Mutex<Iter<'static, u16>>>, heard: mpsc::Sender<String>) {
    let (mut socket, mut request, mut buffer) = (socket, String::new(), [0; 4_096]);
    while !is_whole(&request) {
        match socket.read(&mut buffer).await {
            Ok(count @ 1..) => request.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
            _ => return,
        }
    }
    let mut status = 503;
    if request.starts_with("PUT /api/v1/recorders/") {
        status = *statuses.lock().unwrap().next().unwrap_or(&204);
        heard.send(request.split_once("\r\n\r\n").unwrap().1.to_owned()).await.ok();
    }
    let length = if status == 204 { "" } else { "content-length: 0\r\n" };
    let answer = format!("HTTP/1.1 {status} x\r\n{length}connection: close\r\n\r\n");
    socket.write_all(answer.as_bytes()).await.ok();
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0_usize)
}

fn options(after: After) -> RecordOptions {
    RecordOptions {
        topics: vec!["task".parse().unwrap()],
        after,
        flush: Duration::from_millis(10),
        accept_gaps: false,
        once: false,
        name: "ours".into(),
        heartbeat: Duration::from_millis(20),
        backoff: Backoff::default(),
        uploaded: None,
    }
}

/// Nothing comes, and it is said all the same: whatever the server answered before.
async fn is_told_again_and_again(dir: &Path, after: After, expected: &str) {
    let (heard, mut hears) = mpsc::channel(1);
    let url = server(&[404, 404, 500, 403, 204, 404], heard).await;
    let client = Client::new(&url, None).unwrap();
    let stop = CancellationToken::new();
    let recording = Box::pin(record(&client, open(dir), options(after), stop.clone()));
    let hearing = async {
        for _ in 0..10 {
            let body = hears.recv().await.unwrap();
            assert_eq!(body, format!(r#"{{"position":"{expected}","topics":["task"]}}"#));
        }
        stop.cancel();
        // the last word is heard, too
        while hears.recv().await.is_some() {}
    };
    let (recorded, ()) = within(async {
        tokio::select! {
            recorded = recording => (recorded, ()),
            () = hearing => unreachable!("the server stays"),
        }
    })
    .await;
    assert_eq!(recorded.unwrap().events, 0);
}

/// A recorder that has nothing to do is not one that is gone.
#[tokio::test]
async fn what_is_recorded_is_told_again_while_nothing_comes() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&batch(1, 1..=3)).unwrap();
    is_told_again_and_again(dir.path(), After::Earliest, "1:3").await;
}

/// Known to the server before the first event: nothing behind that position is let go of meanwhile.
#[tokio::test]
async fn an_empty_archive_is_told_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    is_told_again_and_again(dir.path(), After::Position(at(2, 7)), "2:7").await;
}
