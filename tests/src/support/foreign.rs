//! Clients that no one here wrote: Python's websockets and Perl's Mojolicious, driven over their stdin.
//!
//! Both scripts in `tests/clients/` speak the same lines of JSON, so that one test runs with either. A [`Foreign`] is
//! one such process, a [`Session`] one WebSocket in it.

use super::node::checkout;
use super::wait;
use base64::Engine;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// A message as a client got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
}

/// A handshake that was not answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) body: String,
}

type Events = mpsc::UnboundedReceiver<Value>;
type Routes = Arc<Mutex<HashMap<String, mpsc::UnboundedSender<Value>>>>;

/// A process with WebSockets in it.
pub(crate) struct Foreign {
    /// `python` or `perl`, for messages of failing tests.
    pub(crate) name: &'static str,
    stdin: Arc<tokio::sync::Mutex<ChildStdin>>,
    routes: Routes,
    opened: Mutex<u32>,
    // killed with this value
    _process: Child,
}

/// One WebSocket.
pub(crate) struct Session {
    name: String,
    /// The subprotocol that the server chose.
    pub(crate) subprotocol: Option<String>,
    stdin: Arc<tokio::sync::Mutex<ChildStdin>>,
    events: Events,
}

impl Foreign {
    /// Python's websockets.
    pub(crate) fn python() -> Foreign {
        let python = std::env::var("MINIUM_TEST_PYTHON")
            .unwrap_or_else(|_| panic!("MINIUM_TEST_PYTHON is not set: run ./scripts/test"));
        Foreign::spawn(
            "python",
            Command::new(python).arg("-u").arg(checkout().join("tests/clients/sockets.py")),
        )
    }

    /// The same, believing the authorities in this file.
    pub(crate) fn python_with(authorities: &std::path::Path) -> Foreign {
        let python = std::env::var("MINIUM_TEST_PYTHON")
            .unwrap_or_else(|_| panic!("MINIUM_TEST_PYTHON is not set: run ./scripts/test"));
        let script = checkout().join("tests/clients/sockets.py");
        Foreign::spawn("python", Command::new(python).env("SSL_CERT_FILE", authorities).arg("-u").arg(script))
    }

    /// Perl's Mojolicious.
    pub(crate) fn perl() -> Foreign {
        Foreign::spawn("perl", Command::new("perl").arg(checkout().join("tests/clients/sockets.pl")))
    }

    /// All of them.
    pub(crate) fn each() -> [Foreign; 2] {
        [Foreign::python(), Foreign::perl()]
    }

    fn spawn(name: &'static str, command: &mut Command) -> Foreign {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let stdin = process.stdin.take().expect("stdin is piped");
        let stdout = process.stdout.take().expect("stdout is piped");
        let routes = Routes::default();
        let for_reader = routes.clone();
        // ends with the process
        drop(tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let event: Value =
                    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{name} said {line:?}: {e}"));
                let to = event["session"].as_str().unwrap_or_default();
                let route = for_reader.lock().unwrap().get(to).cloned();
                // a session that the test has dropped hears no more
                route.map(|r| r.send(event)).unwrap_or(Ok(())).ok();
            }
            // whoever still waits learns that nothing will come
            for_reader.lock().unwrap().clear();
        }));
        let stdin = Arc::new(tokio::sync::Mutex::new(stdin));
        Foreign { name, stdin, routes, opened: Mutex::new(0), _process: process }
    }

    /// Opens a WebSocket.
    pub(crate) async fn open(&self, url: &str) -> Session {
        self.open_with(url, json!({})).await
    }

    /// Opens one with `subprotocols` (a list) and `headers` (an object).
    pub(crate) async fn open_with(&self, url: &str, more: Value) -> Session {
        self.handshake(url, more).await.unwrap_or_else(|r| panic!("{}: {url} was refused: {r:?}", self.name))
    }

    /// Tries to open one and tells how that was refused.
    pub(crate) async fn refused(&self, url: &str, more: Value) -> Refusal {
        match self.handshake(url, more).await {
            Ok(_) => panic!("{}: {url} was not refused", self.name),
            Err(refusal) => refusal,
        }
    }

    /// Opens one, or tells how that was refused.
    pub(crate) async fn handshake(&self, url: &str, more: Value) -> Result<Session, Refusal> {
        let number = {
            let mut opened = self.opened.lock().unwrap();
            *opened += 1;
            *opened
        };
        let name = format!("{}-{number}", self.name);
        let (route, events) = mpsc::unbounded_channel();
        self.routes.lock().unwrap().insert(name.clone(), route);
        let mut session = Session { name, subprotocol: None, stdin: self.stdin.clone(), events };
        let mut order = json!({ "do": "open", "url": url });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        session.order(order).await;
        let answer = session.event("the handshake").await;
        match answer["event"].as_str() {
            Some("open") => {
                session.subprotocol = answer["subprotocol"].as_str().map(str::to_owned);
                Ok(session)
            }
            Some("refused") => Err(Refusal {
                status: u16::try_from(answer["status"].as_u64().unwrap_or(0)).unwrap(),
                body: answer["body"].as_str().unwrap_or_default().to_owned(),
            }),
            _ => panic!("{}: {answer}", session.name),
        }
    }
}

impl Session {
    async fn order(&self, mut order: Value) {
        order["session"] = self.name.as_str().into();
        let line = format!("{order}\n");
        self.stdin
            .lock()
            .await
            .write_all(line.as_bytes())
            .await
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    async fn event(&mut self, what: &str) -> Value {
        let waited_for = format!("{what} at {}", self.name);
        let event = wait::within(&waited_for, self.events.recv()).await;
        event.unwrap_or_else(|| panic!("the client process ended while {} waited for {what}", self.name))
    }

    /// Sends a text frame.
    pub(crate) async fn send(&self, text: &str) {
        self.order(json!({ "do": "send", "text": text })).await;
    }

    /// Sends a binary frame.
    pub(crate) async fn send_binary(&self, bytes: &[u8]) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.order(json!({ "do": "send", "base64": encoded })).await;
    }

    /// Sends one text message in several frames.
    pub(crate) async fn send_fragments(&self, parts: &[&str]) {
        self.order(json!({ "do": "fragments", "parts": parts })).await;
    }

    /// Sends a ping and waits for its pong, so that all that was sent before has been read by the server.
    pub(crate) async fn ping(&mut self) {
        self.order(json!({ "do": "ping" })).await;
        let event = self.event("a pong").await;
        assert_eq!(event["event"], "pong", "{}: {event}", self.name);
    }

    /// Closes and waits for the answer; gives its code.
    pub(crate) async fn close(&mut self, code: u16) -> u16 {
        self.order(json!({ "do": "close", "code": code })).await;
        self.closed().await
    }

    /// Waits until the server closes; gives its code. Messages that come before are an error.
    pub(crate) async fn closed(&mut self) -> u16 {
        let event = self.event("a close").await;
        assert_eq!(event["event"], "closed", "{}: {event}", self.name);
        u16::try_from(event["code"].as_u64().unwrap()).unwrap()
    }

    /// The next message, or the code of the close that came in its place.
    pub(crate) async fn next(&mut self) -> Result<Received, u16> {
        let event = self.event("a message").await;
        if event["event"] == "closed" {
            return Err(u16::try_from(event["code"].as_u64().unwrap()).unwrap());
        }
        assert_eq!(event["event"], "message", "{}: {event}", self.name);
        Ok(match event["base64"].as_str() {
            Some(encoded) => {
                Received::Binary(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap())
            }
            None => Received::Text(event["text"].as_str().unwrap().to_owned()),
        })
    }

    /// The next message, which must come.
    pub(crate) async fn receive(&mut self) -> Received {
        self.next().await.unwrap_or_else(|code| panic!("{} was closed with {code}", self.name))
    }

    /// The next message, which must be text.
    pub(crate) async fn text(&mut self) -> String {
        match self.receive().await {
            Received::Text(text) => text,
            Received::Binary(bytes) => panic!("{} got binary: {bytes:?}", self.name),
        }
    }

    /// The next message as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{} got {text:?}: {e}", self.name))
    }
}
