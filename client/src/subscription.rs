//! A subscription that survives: it comes back after every cut that may pass, resumes by position where the topic is
//! durable, and drops what was delivered before.
//!
//! One task per subscription reads the socket and fills a bounded channel; while the program does not take what is
//! there, the socket is not read, and the server's policy for slow readers decides. The position moves only when an
//! event has been handed over.

use crate::backoff::Backoff;
use crate::client::{Client, Mode};
use crate::error::ClientError;
use crate::message::Message;
use crate::order::{Judgement, Order, position_of};
use crate::socket::{self, Refused, Route};
use futures::{SinkExt, Stream, StreamExt};
use minium_protocol::{After, CloseCode, Position, parse_duration};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

/// Topics under these segments are durable: their events carry positions.
const DURABLE_PREFIXES: &[&str] = &["task"];

/// How to subscribe.
#[derive(Debug, Clone, Default)]
pub struct SubscribeOptions {
    /// Where to begin. Anything but `Latest` needs a durable topic.
    pub after: After,
    /// What the session speaks. Task events look the same in every mode.
    pub mode: Mode,
    /// Pauses between attempts to come back; their `failures_max` bounds the attempts.
    pub backoff: Backoff,
    /// Keep trying when the first connection fails, too.
    pub patient: bool,
    /// Is the topic durable? By itself the client knows of `task/…`, and believes a server that announces a position.
    pub durable: Option<bool>,
}

/// One message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub message: Message,
    /// Where it stands in the journal, on durable topics.
    pub position: Option<Position>,
    /// The connection was cut before this message, and what came meanwhile is not known. Never set while resuming by
    /// position is possible.
    pub after_gap: bool,
}

/// How a subscription is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not connected, for the first time or again.
    Connecting {
        /// Failures in a row.
        failures: u32,
        /// How the last one failed.
        last: Option<String>,
    },
    /// Connected for the n-th time.
    Open {
        /// From 1.
        connection: u64,
    },
    /// Over.
    Ended,
}

/// A stream of messages. Ends after an orderly end (the server's 1000, or [`Client::close`]) or an error.
///
/// Dropping it closes the session orderly in the background; [`Subscription::close`] waits for that.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Waiting>,
    status: watch::Receiver<Status>,
    stop: DropGuard,
}

impl Subscription {
    pub(crate) async fn open(
        client: &Client,
        role: &'static str,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<Subscription, ClientError> {
        if client.tasks().is_closed() {
            return Err(ClientError::ClientClosed);
        }
        let (out, messages) = mpsc::channel(client.options().buffered_messages_max.max(1));
        let (status_out, status) = watch::channel(Status::Connecting { failures: 0, last: None });
        let stop = client.session_token();
        let mut reader = Reader::new(client, role, topic, options, out, status_out, stop.clone());
        let first = match reader.open().await {
            Err(refused) if !(reader.options.patient && refused.error.is_passing()) => {
                return Err(refused.error);
            }
            first => first,
        };
        client.tasks().spawn(reader.run(first));
        Ok(Subscription { messages, status, stop: stop.drop_guard() })
    }

    /// How it is: changes when the connection is cut and when it is back.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Closes the session and waits for the server's answer. What has come but was not read is lost to this reader;
    /// it can resume behind the last position that it has read.
    pub async fn close(mut self) {
        drop(self.stop);
        self.messages.close();
        // The channel ends when the task has.
        while self.messages.recv().await.is_some() {}
    }
}

impl Stream for Subscription {
    type Item = Result<Received, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx).map(|waiting| waiting.map(|(result, _room)| result))
    }
}

/// What waits to be read, and the room that it takes meanwhile.
type Waiting = (Result<Received, ClientError>, Option<OwnedSemaphorePermit>);

/// Room is counted in pieces of so many bytes.
const ROOM_BYTES: usize = 1 << 10;

/// Room for so many bytes, as pieces.
fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(ROOM_BYTES)).unwrap_or(u32::MAX)
}

/// How a connection ended.
enum End {
    /// Orderly: nothing more is to come.
    Over,
    /// Otherwise. The error decides whether to come back.
    Broken(Refused),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> End {
        End::Broken(error.into())
    }
}

/// The task behind a subscription.
struct Reader {
    client: Client,
    path: String,
    options: SubscribeOptions,
    durable: bool,
    order: Order,
    /// Messages may be missing before the next one.
    gap: bool,
    /// In a row, since the last message that got through.
    failures: u32,
    connections: u64,
    random: fastrand::Rng,
    out: mpsc::Sender<Waiting>,
    /// Room for what waits.
    room: Arc<Semaphore>,
    status: watch::Sender<Status>,
    stop: CancellationToken,
}

impl Reader {
    fn new(
        client: &Client,
        role: &'static str,
        topic: &str,
        options: SubscribeOptions,
        out: mpsc::Sender<Waiting>,
        status: watch::Sender<Status>,
        stop: CancellationToken,
    ) -> Reader {
        let by_name = role == "sub" && topic.split('/').next().is_some_and(|s| DURABLE_PREFIXES.contains(&s));
        let start = match options.after {
            After::Position(position) => Some(position),
            After::Latest | After::Earliest | After::Offset(_) | After::Last(_) => None,
        };
        Reader {
            client: client.clone(),
            path: format!("{role}/{topic}"),
            durable: options.durable.unwrap_or(by_name),
            options,
            order: Order::starting_at(start),
            gap: false,
            failures: 0,
            connections: 0,
            random: fastrand::Rng::new(),
            out,
            room: Arc::new(Semaphore::new(pieces(client.options().buffered_bytes_max).max(1) as usize)),
            status,
            stop,
        }
    }

    async fn run(mut self, first: Result<socket::Stream, Refused>) {
        let stop = self.stop.clone();
        if let Err(error) = self.live(first).await {
            debug!(path = %self.path, %error, "Subscription ended.");
            // Nobody is there to be told when the subscription was dropped.
            stop.run_until_cancelled(self.out.send((Err(error), None))).await;
        }
        self.status.send_replace(Status::Ended);
    }

    /// Reads one connection after the other, until an orderly end or an error that coming back does not mend.
    async fn live(&mut self, first: Result<socket::Stream, Refused>) -> Result<(), ClientError> {
        let stop = self.stop.clone();
        let mut next = first;
        loop {
            next = match next {
                Ok(mut stream) => match self.read(&mut stream).await {
                    End::Over => return Ok(()),
                    End::Broken(refused) => Err(refused),
                },
                // A pause or a handshake that nobody waits for any more is dropped where it stands.
                Err(refused) => match stop.run_until_cancelled(self.come_back(refused)).await {
                    Some(result) => result?,
                    None => return Ok(()),
                },
            };
        }
    }

    /// Waits as long as the failure asks for and connects again.
    async fn come_back(&mut self, refused: Refused) -> Result<Result<socket::Stream, Refused>, ClientError> {
        let Refused { error, wait } = refused;
        if !error.is_passing_for(self.connections > 0) {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        let backoff = &self.options.backoff;
        if backoff.gives_up(self.failures) {
            let failures = self.failures;
            return Err(if failures == 1 {
                error
            } else {
                ClientError::GaveUp { failures, last: Box::new(error) }
            });
        }
        let pause =
            backoff.pause(self.failures, &mut self.random).max(wait.unwrap_or_default().min(backoff.max));
        debug!(path = %self.path, %error, ?pause, failures = self.failures, "Coming back.");
        let last = Some(error.to_string());
        self.status.send_replace(Status::Connecting { failures: self.failures, last });
        tokio::time::sleep(pause).await;
        Ok(self.open().await)
    }

    async fn open(&mut self) -> Result<socket::Stream, Refused> {
        let opened = socket::open(&self.client, &self.route()).await?;
        if self.connections > 0 && !self.resumes() {
            self.gap = true;
        }
        self.durable |= opened.start.is_some() && self.options.durable != Some(false);
        self.order.connected(opened.start);
        self.connections += 1;
        self.status.send_replace(Status::Open { connection: self.connections });
        Ok(opened.stream)
    }

    /// Does a new connection go on where the last one was cut?
    fn resumes(&self) -> bool {
        let again = matches!(self.options.after, After::Earliest | After::Offset(_) | After::Position(_));
        self.durable && (again || self.order.position().is_some())
    }

    fn route(&self) -> Route {
        let after = match self.order.position() {
            Some(position) if self.durable => After::Position(position),
            _ => self.options.after,
        };
        let query = match after {
            // "From now on" as a position, so that the server can say which and a cut before the first event can be
            // resumed from.
            After::Latest if self.durable => vec![("last", "0".into())],
            After::Latest => vec![],
            After::Earliest => vec![("after", "earliest".into())],
            After::Offset(offset) => vec![("after", offset.to_string())],
            After::Position(position) => vec![("after", position.to_string())],
            After::Last(count) => vec![("last", count.to_string())],
        };
        Route { path: self.path.clone(), query, mode: self.options.mode }
    }

    /// Reads one connection to its end.
    async fn read(&mut self, stream: &mut socket::Stream) -> End {
        let stop = self.stop.clone();
        let idle = self.client.options().idle;
        let (mut pinged, mut taken) = (false, stream.get_ref().taken());
        loop {
            let frame = tokio::select! {
                () = stop.cancelled() => {
                    self.leave(stream).await;
                    return End::Over;
                }
                frame = timeout(idle, stream.next()) => frame,
            };
            // a large message on a slow line takes longer than that
            let comes = std::mem::replace(&mut taken, stream.get_ref().taken()) != taken;
            let end = match frame {
                Err(_) if comes => {
                    pinged = false;
                    None
                }
                Err(_) if pinged => {
                    Some(socket::cut(&self.client, "the server does not answer pings").into())
                }
                Err(_) => {
                    pinged = true;
                    self.ping(stream).await.err().map(End::from)
                }
                Ok(None) => Some(socket::cut(&self.client, "it was ended").into()),
                Ok(Some(Err(error))) => Some(self.failed(&error).into()),
                Ok(Some(Ok(frame))) => {
                    pinged = false;
                    self.take(stream, frame).await
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// What an error on the session means; of a message that is too long also where it stands.
    fn failed(&self, error: &tungstenite::Error) -> ClientError {
        match socket::failed(&self.client, error) {
            ClientError::TooLong { bytes, limit, .. } => {
                let (what, behind) = (format!("a message of {}", self.path), self.order.position());
                ClientError::TooLong { what, bytes, limit, behind }
            }
            error => error,
        }
    }

    /// Acts on one frame.
    async fn take(&mut self, stream: &mut socket::Stream, frame: tungstenite::Message) -> Option<End> {
        let message = match frame {
            tungstenite::Message::Text(text) => Message::Text(text.as_str().into()),
            tungstenite::Message::Binary(bytes) => Message::Binary(bytes),
            tungstenite::Message::Close(frame) => {
                socket::drain(stream, self.client.options().close_timeout).await;
                return Some(end_of(socket::closed(frame)));
            }
            tungstenite::Message::Ping(_)
            | tungstenite::Message::Pong(_)
            | tungstenite::Message::Frame(_) => {
                return None;
            }
        };
        match self.deliver(message).await {
            Ok(true) => None,
            Ok(false) => {
                self.leave(stream).await;
                Some(End::Over)
            }
            Err(error) => {
                self.leave(stream).await;
                Some(error.into())
            }
        }
    }

    /// Hands one message over. `false`: nobody wants it any more.
    async fn deliver(&mut self, message: Message) -> Result<bool, ClientError> {
        let mut position = None;
        if self.durable {
            position = message.as_text().and_then(position_of);
            match position {
                Some(got) => match self.order.judge(got) {
                    Judgement::New => {}
                    Judgement::Duplicate => return Ok(true),
                    Judgement::StepBack(last) => return Err(ClientError::OutOfOrder { last, got }),
                },
                None => {
                    if let Some(problem) = message.as_problem() {
                        return Err(problem.into());
                    }
                }
            }
        }
        self.failures = 0;
        let wanted =
            pieces(message.as_bytes().len()).min(pieces(self.client.options().buffered_bytes_max).max(1));
        let received = Received { message, position, after_gap: std::mem::take(&mut self.gap) };
        let sending = async {
            let room = Arc::clone(&self.room).acquire_many_owned(wanted).await;
            self.out.send((Ok(received), room.ok())).await.is_ok()
        };
        Ok(self.stop.run_until_cancelled(sending).await.unwrap_or(false))
    }

    async fn ping(&self, stream: &mut socket::Stream) -> Result<(), ClientError> {
        let ping = tungstenite::Message::Ping(Default::default());
        match timeout(self.client.options().idle, stream.send(ping)).await {
            Ok(sent) => sent.map_err(|e| socket::failed(&self.client, &e)),
            Err(_) => Err(socket::cut(&self.client, "nothing can be written to it")),
        }
    }

    /// Closes orderly, as far as the server lets us in time.
    async fn leave(&self, stream: &mut socket::Stream) {
        let limit = self.client.options().close_timeout;
        if let Ok(Ok(())) = timeout(limit, stream.send(socket::goodbye())).await {
            socket::drain(stream, limit).await;
        }
    }
}

/// What the server's Close asks for. With 4029 the wait stands in the reason.
fn end_of(error: ClientError) -> End {
    match &error {
        ClientError::Closed { code, .. } if *code == CloseCode::Normal.code() => End::Over,
        ClientError::Closed { code, reason } if *code == CloseCode::RateLimited.code() => {
            let wait = wait_in(reason);
            End::Broken(Refused { error, wait })
        }
        _ => error.into(),
    }
}

/// The first duration that stands in a text, as in `rate limited, wait 2.5s`.
pub(crate) fn wait_in(reason: &str) -> Option<Duration> {
    reason
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .find_map(|word| parse_duration(word.trim_end_matches('.')).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_found_in_the_reason() {
        assert_eq!(wait_in("rate limited, wait 2.5s."), Some(Duration::from_millis(2_500)));
        assert_eq!(wait_in("30"), Some(Duration::from_secs(30)));
        assert_eq!(wait_in("slow down"), None);
    }
}
