//! Sessions that send: publishers, pushers, peers. They don't come back by themselves, since what was on its way when
//! a connection is cut is lost at most once and only the program knows whether to say it again.
//!
//! One task per session reads and writes at the same time: pings are answered while the program is silent, and a
//! server that refuses many messages never waits for a program that only writes.

use crate::client::{Client, Mode};
use crate::error::ClientError;
use crate::message::Message;
use crate::socket::{self, Route};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use minium_protocol::{CloseCode, Problem, Topic};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Sends messages to one topic, for everyone (`/pub`) or for one taker each (`/push`).
///
/// In plain mode nothing is acknowledged: `send` returning means that the message is on its way. What the server
/// refuses is told afterwards, by [`Publisher::refused`] or at the latest by [`Publisher::close`].
#[derive(Debug)]
pub struct Publisher {
    link: Link,
}

/// One among the peers of a bus: a stream of what the others send, and a way to send to them.
///
/// A message of one's own that the server refused is an `Err` with its problem in the stream; the session goes on.
#[derive(Debug)]
pub struct Peer {
    link: Link,
}

/// The speaking half of a peer. Dropping it says that nothing more is to be sent.
#[derive(Debug)]
pub struct Speaker {
    out: mpsc::Sender<Message>,
}

impl Speaker {
    /// Sends a message to the others. Waits while too many are on their way. `false` when the session is over: the
    /// listening half says why.
    pub async fn send(&self, message: impl Into<Message>) -> bool {
        self.out.send(message.into()).await.is_ok()
    }
}

impl Publisher {
    pub(crate) async fn open(
        client: &Client,
        role: &'static str,
        topic: &Topic,
    ) -> Result<Publisher, ClientError> {
        let route = Route { path: format!("{role}/{topic}"), query: vec![], mode: Mode::Plain };
        Ok(Publisher { link: Link::open(client, &route, Unread::Dropped).await? })
    }

    /// Sends a message. Waits while too many are on their way.
    ///
    /// # Errors
    /// When the session is over: why.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), ClientError> {
        self.link.send(message.into()).await
    }

    /// The next refusal of a message that was sent, in the order of sending; `None` when the session is over. As many
    /// as the client buffers wait to be taken; further ones are dropped, so that a server never has to wait for a
    /// program that only writes.
    pub async fn refused(&mut self) -> Option<Problem> {
        // The server sends nothing but problems to those who only send.
        while let Some(message) = self.link.incoming.recv().await {
            if let Some(problem) = message.as_problem() {
                return Some(problem);
            }
        }
        None
    }

    /// Nothing more is to be sent: closes as soon as all has been. [`Publisher::refused`] then yields what is still
    /// refused, and ends.
    pub fn finish(&mut self) {
        self.link.finish();
    }

    /// Sends what is still on its way, closes orderly, and waits for the server's answer: everything before it has
    /// then been judged.
    ///
    /// # Errors
    /// The first refusal that was not yet taken by [`Publisher::refused`]; or how the session broke.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.link.finish();
        let first = self.refused().await;
        while self.refused().await.is_some() {}
        let ended = self.link.ended().await;
        first.map_or(ended, |problem| Err(problem.into()))
    }
}

impl Peer {
    pub(crate) async fn open(client: &Client, topic: &Topic, echo: bool) -> Result<Peer, ClientError> {
        let query = if echo { vec![("echo", "1".into())] } else { vec![] };
        let route = Route { path: format!("bus/{topic}"), query, mode: Mode::Plain };
        Ok(Peer { link: Link::open(client, &route, Unread::Waits).await? })
    }

    /// Sends a message to the others. Waits while too many are on their way. Whoever sends a lot must read meanwhile,
    /// since a server that cannot write does not read either: see [`Peer::split`].
    ///
    /// # Errors
    /// When the session is over: why.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), ClientError> {
        self.link.send(message.into()).await
    }

    /// For speaking and listening at the same time: what is left of the peer listens, and ends as after
    /// [`Peer::finish`] once the speaker is dropped.
    pub fn split(mut self) -> (Option<Speaker>, Peer) {
        let speaker = self.link.out.take().map(|out| Speaker { out });
        (speaker, self)
    }

    /// Nothing more is to be sent: closes as soon as all has been. The stream yields what still comes, then ends.
    pub fn finish(&mut self) {
        self.link.finish();
    }

    /// Closes orderly. What has come but was not read is dropped.
    ///
    /// # Errors
    /// How the session broke, if it did.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.link.finish();
        while self.link.incoming.recv().await.is_some() {}
        self.link.ended().await
    }
}

impl Stream for Peer {
    type Item = Result<Message, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = std::task::ready!(self.link.incoming.poll_recv(cx)) {
            let item = message.as_problem().map_or(Ok(message), |problem| Err(problem.into()));
            return Poll::Ready(Some(item));
        }
        // The last item says how the session broke, once, unless a send has said so.
        let Some(ended) = self.link.ended.as_mut() else { return Poll::Ready(None) };
        let ended = std::task::ready!(Pin::new(ended).poll(cx));
        self.link.ended = None;
        Poll::Ready(ended.ok().and_then(Result::err).map(Err))
    }
}

/// What becomes of messages that the program does not take.
#[derive(Debug, Clone, Copy)]
enum Unread {
    /// They wait, and with them the socket.
    Waits,
    /// They vanish.
    Dropped,
}

/// What publishers and peers have in common: the ends of the channels to the session's task.
#[derive(Debug)]
struct Link {
    /// `None` when nothing more is to be sent.
    out: Option<mpsc::Sender<Message>>,
    incoming: mpsc::Receiver<Message>,
    /// How the session ended; `None` once that has been told.
    ended: Option<oneshot::Receiver<Result<(), ClientError>>>,
    _stop: DropGuard,
}

impl Link {
    async fn open(client: &Client, route: &Route, unread: Unread) -> Result<Link, ClientError> {
        if client.tasks().is_closed() {
            return Err(ClientError::ClientClosed);
        }
        let opened = socket::open(client, route).await.map_err(|refused| refused.error)?;
        let buffered = client.options().buffered_messages_max.max(1);
        let (out, to_send) = mpsc::channel(buffered);
        let (incoming_in, incoming) = mpsc::channel(buffered);
        let (tell, ended) = oneshot::channel();
        let stop = client.session_token();
        let session = Session { client: client.clone(), unread, idle: Notify::new(), stop: stop.clone() };
        client.tasks().spawn(async move {
            let result = session.run(opened.stream, to_send, incoming_in).await;
            // Who dropped the session does not ask how it ended.
            tell.send(result).ok();
        });
        Ok(Link { out: Some(out), incoming, ended: Some(ended), _stop: stop.drop_guard() })
    }

    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        if let Some(out) = &self.out
            && out.send(message).await.is_ok()
        {
            return Ok(());
        }
        let ended = self.ended().await;
        Err(ended.err().unwrap_or_else(|| socket::closed(None)))
    }

    fn finish(&mut self) {
        self.out = None;
    }

    async fn ended(&mut self) -> Result<(), ClientError> {
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Err(ClientError::ClientClosed)),
            None => Ok(()),
        }
    }
}

/// The task behind a session.
struct Session {
    client: Client,
    unread: Unread,
    /// Nothing came for a while: ping.
    idle: Notify,
    stop: CancellationToken,
}

impl Session {
    async fn run(
        self,
        stream: socket::Stream,
        to_send: mpsc::Receiver<Message>,
        incoming: mpsc::Sender<Message>,
    ) -> Result<(), ClientError> {
        let close_timeout = self.client.options().close_timeout;
        // A server that does not read holds up the writer; it must not hold up the end as well.
        let overdue = async {
            self.stop.cancelled().await;
            sleep(2 * close_timeout).await;
        };
        let (sink, stream) = stream.split();
        let mut reader = pin!(self.read(stream, incoming));
        let mut writer = pin!(self.write(sink, to_send));
        tokio::select! {
            // The server's word comes before a failed write: it says why.
            biased;
            result = &mut reader => result,
            written = &mut writer => {
                let answer = timeout(close_timeout, &mut reader).await;
                match (answer, written) {
                    (Ok(result), Ok(())) => result,
                    (Ok(Err(closed @ ClientError::Closed { .. })), Err(_)) => Err(closed),
                    (_, Err(error)) => Err(error),
                    (Err(_), Ok(())) => Err(socket::cut(&self.client, "the server did not answer the Close")),
                }
            }
            () = overdue => Err(socket::cut(&self.client, "the server did not take the Close")),
        }
    }

    /// Reads until the server's Close. Its 1000, or its answer to ours, is the orderly end.
    async fn read(
        &self,
        mut stream: SplitStream<socket::Stream>,
        incoming: mpsc::Sender<Message>,
    ) -> Result<(), ClientError> {
        let idle = self.client.options().idle;
        let mut pinged = false;
        let frame = loop {
            let frame = match timeout(idle, stream.next()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Err(socket::cut(&self.client, "it was ended")),
                Ok(Some(Err(error))) => return Err(socket::failed(&self.client, &error)),
                Err(_) if pinged => {
                    return Err(socket::cut(&self.client, "the server does not answer pings"));
                }
                Err(_) => {
                    pinged = true;
                    self.idle.notify_one();
                    continue;
                }
            };
            pinged = false;
            match frame {
                tungstenite::Message::Text(text) => {
                    self.hand_over(&incoming, Message::Text(text.as_str().into())).await
                }
                tungstenite::Message::Binary(bytes) => {
                    self.hand_over(&incoming, Message::Binary(bytes)).await
                }
                tungstenite::Message::Close(frame) => break frame,
                tungstenite::Message::Ping(_)
                | tungstenite::Message::Pong(_)
                | tungstenite::Message::Frame(_) => {}
            }
        };
        // Reading on writes the answer; the server then ends the connection.
        let rest = async { while let Some(Ok(_)) = stream.next().await {} };
        timeout(self.client.options().close_timeout, rest).await.ok();
        match frame {
            Some(frame) if u16::from(frame.code) != CloseCode::Normal.code() => {
                Err(socket::closed(Some(frame)))
            }
            _ => Ok(()),
        }
    }

    async fn hand_over(&self, incoming: &mpsc::Sender<Message>, message: Message) {
        // Whoever closed its end does not want to know.
        match self.unread {
            Unread::Waits => incoming.send(message).await.ok(),
            Unread::Dropped => incoming.try_send(message).ok(),
        };
    }

    /// Writes until nothing more is to be sent, then closes.
    async fn write(
        &self,
        mut sink: SplitSink<socket::Stream, tungstenite::Message>,
        mut to_send: mpsc::Receiver<Message>,
    ) -> Result<(), ClientError> {
        let fault = |error| socket::failed(&self.client, &error);
        loop {
            let message = tokio::select! {
                biased;
                message = to_send.recv() => message,
                () = self.idle.notified() => {
                    sink.send(tungstenite::Message::Ping(Default::default())).await.map_err(fault)?;
                    continue;
                }
                () = self.stop.cancelled() => None,
            };
            let Some(message) = message else { break };
            sink.feed(message.into_frame()).await.map_err(fault)?;
            // What is sent in one go leaves in one write.
            if to_send.is_empty() {
                sink.flush().await.map_err(fault)?;
            }
        }
        sink.send(socket::goodbye()).await.map_err(fault)
    }
}
