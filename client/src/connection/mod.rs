//! `minium.v1`, the main road: subscriptions, publishing, work and peers that survive cuts.
//!
//! A [`Connection`] opens sockets as it needs them: one for all its subscriptions (two filters that can match the same
//! topic go to different ones: on one socket the live one would wait while the other reads history), one for what is
//! published and pushed, and one for each puller and each peer. So an answer that is waited for never stands behind a
//! message that nobody takes.

mod beside;
mod board;
mod desk;
mod frames;
mod line;
mod options;
mod payload;
mod peer;
mod places;
mod pull;
mod subscription;
mod task_event;
mod wire;

pub use board::State;
pub use options::{ConnectOptions, TokenSource};
pub use payload::Payload;
pub use peer::{Peer, PeerEvent, PeerSender};
pub use pull::{LeasedJob, PullOptions, Puller, Work};
pub use subscription::{Event, Subscription};
pub use task_event::TaskEvent;

use crate::client::Client;
use crate::error::ClientError;
use board::Board;
use desk::{Call, Command, Item, Key, Left};
use frames::Answered;
use jiff::Timestamp;
use line::{Handle, Line};
use minium_protocol::{
    After, CREDIT_MAX, ErrorCode, Filter, LeaseToken, LogLine, Position, Problem, Progress, Topic,
};
use places::Role;
use pull::Word;
use serde_json::value::RawValue;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A connection in `minium.v1`. Cheap to clone; it lives as long as a clone or anything that it gave out.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The same client at each of the nodes.
    clients: Vec<Client>,
    /// The token that was got since, for what is asked beside the sockets.
    renewed: Mutex<Option<String>>,
    options: Arc<ConnectOptions>,
    board: Arc<Board>,
    stop: CancellationToken,
    serial: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    subscribing: Vec<Subscribing>,
    speaking: Option<Arc<Handle>>,
}

/// A socket for subscriptions, and what is subscribed over it.
#[derive(Debug)]
struct Subscribing {
    line: Arc<Handle>,
    filters: Vec<(Key, Filter)>,
}

/// What was published, or handed out, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Of a message that is kept: its place in the journal. It was given after the commit.
    pub position: Option<Position>,
    /// Of durable work: the job.
    pub job: Option<i64>,
}

/// A message as a receiver gets it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The topic on which it was published.
    pub topic: Topic,
    /// Where it stands in the journal, if it is kept.
    pub position: Option<Position>,
    /// What it says.
    pub payload: Payload,
}

/// An answer that is on its way. Whether it is awaited or not changes nothing about what was asked.
#[derive(Debug)]
#[must_use = "without its answer nobody knows whether it was done"]
pub struct Pending<T> {
    answer: oneshot::Receiver<Result<Answered, ClientError>>,
    line: Arc<Handle>,
    read: fn(Answered) -> T,
}

impl<T> Future for Pending<T> {
    type Output = Result<T, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        let answer = answer.unwrap_or_else(|_| Err(self.line.why()));
        Poll::Ready(answer.map(self.read))
    }
}

impl Connection {
    pub(crate) fn new(client: &Client, options: ConnectOptions) -> Result<Connection, ClientError> {
        let mut clients = vec![client.clone()];
        for url in &options.elsewhere {
            clients.push(client.at(url)?);
        }
        let inner = Inner {
            clients,
            renewed: Mutex::default(),
            options: Arc::new(options),
            board: Arc::new(Board::new()),
            stop: client.session_token(),
            serial: AtomicU64::new(1),
            lines: Mutex::default(),
        };
        Ok(Connection { inner: Arc::new(inner) })
    }

    /// Subscribes. When this returns, delivery is certain from there on; the subscription then comes back by itself,
    /// and where messages are kept it resumes behind the last one that it handed out.
    ///
    /// While the program does not take what has come, the socket is not read. Subscriptions that share one then wait
    /// for the slowest.
    ///
    /// # Errors
    /// When the first connection fails, unless the options say to be patient; else the server's problem.
    pub async fn subscribe(&self, filter: &Filter, from: After) -> Result<Subscription, ClientError> {
        let key = self.inner.next();
        let line = self.inner.line_for(key, filter)?;
        let seat = Seat { key, line, lines: Arc::downgrade(&self.inner) };
        let (position, items) = seat.open(filter.clone(), Role::sub(from), self.buffered()).await?;
        Ok(Subscription { items, seat, filter: filter.clone(), position, told: false })
    }

    /// Publishes a message and waits for its receipt: on a durable channel the message is committed then.
    ///
    /// `id` makes a repetition harmless; without one it is made here. When the connection is cut before the receipt
    /// came the message is said again with the same id. Only where nothing is kept, which is known after the first
    /// receipt, that could come twice: there it is an error.
    ///
    /// # Errors
    /// The server's problem, or why the connection is over.
    pub async fn publish(
        &self,
        topic: &Topic,
        payload: impl Into<Payload>,
        id: Option<&str>,
    ) -> Result<Receipt, ClientError> {
        self.offer(topic, payload, id).await?.await
    }

    /// As [`Connection::publish`], but waits only until there is room, so that many can be on their way. Messages are
    /// said in the order of these calls. On a durable channel, if one fails those behind it that were on their way
    /// fail, too.
    ///
    /// # Errors
    /// Why the connection is over, or that the message cannot be said.
    pub async fn offer(
        &self,
        topic: &Topic,
        payload: impl Into<Payload>,
        id: Option<&str>,
    ) -> Result<Pending<Receipt>, ClientError> {
        let id = id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let data = json_of(payload.into())?;
        self.speak(Call::Publish { topic: topic.clone(), data, id }).await
    }

    /// Hands out work and waits for its receipt: on a durable channel it is a job then. `options` are those of an
    /// enqueue.
    ///
    /// When the connection is cut before the receipt came it is an error, since nobody knows whether the work was
    /// handed out; unless `options` has a `key`, which makes the repetition harmless.
    ///
    /// # Errors
    /// The server's problem, `no_puller` among them, or why the connection is over.
    pub async fn push(
        &self,
        topic: &Topic,
        payload: impl Into<Payload>,
        options: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<Receipt, ClientError> {
        self.hand_out(topic, payload, options).await?.await
    }

    /// As [`Connection::push`], but waits only until there is room.
    ///
    /// # Errors
    /// Why the connection is over, or that the message cannot be said.
    pub async fn hand_out(
        &self,
        topic: &Topic,
        payload: impl Into<Payload>,
        options: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<Pending<Receipt>, ClientError> {
        let data = json_of(payload.into())?;
        self.speak(Call::Push { topic: topic.clone(), data, options }).await
    }

    /// Takes work, over a socket of its own. Comes back by itself.
    ///
    /// # Errors
    /// As [`Connection::subscribe`].
    pub async fn pull(&self, topic: &Topic, options: PullOptions) -> Result<Puller, ClientError> {
        let room = options.credit.clamp(1, CREDIT_MAX) as usize;
        let role = Role::pull(options.tasks, options.queue, options.credit);
        let (seat, items) = self.own_line(topic, role, room).await?;
        Ok(Puller { items, seat, told: false })
    }

    /// As [`LeasedJob::ack`], for who kept the lease and not the job: a result that was spooled, say.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn ack(
        &self,
        job: i64,
        lease: LeaseToken,
        result: Option<Box<RawValue>>,
    ) -> Result<(), ClientError> {
        self.word(Word::Ack { job, lease, result }).await.map(drop)
    }

    /// As [`LeasedJob::nack`], for who kept the lease.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn nack(
        &self,
        job: i64,
        lease: LeaseToken,
        error: impl Into<String>,
        retry: bool,
    ) -> Result<(), ClientError> {
        self.word(Word::Nack { job, lease, error: error.into(), retry }).await.map(drop)
    }

    /// As [`LeasedJob::note`] and [`LeasedJob::log`] together, for who kept the lease. Nothing: it was cancelled; else until when the lease holds.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn note(
        &self,
        job: i64,
        lease: LeaseToken,
        notes: serde_json::Map<String, serde_json::Value>,
        progress: Option<Progress>,
        log: Vec<LogLine>,
    ) -> Result<Option<Timestamp>, ClientError> {
        self.held(Word::Note { job, lease, notes, progress, log }).await
    }

    /// As [`LeasedJob::extend`], for who kept the lease. Nothing: it was cancelled; else until when the lease holds.
    ///
    /// # Errors
    /// As [`LeasedJob::ack`].
    pub async fn extend(&self, job: i64, lease: LeaseToken) -> Result<Option<Timestamp>, ClientError> {
        self.held(Word::Extend { job, lease }).await
    }

    /// Joins a bus, over a socket of its own. Comes back by itself.
    ///
    /// # Errors
    /// As [`Connection::subscribe`].
    pub async fn bus(&self, topic: &Topic) -> Result<Peer, ClientError> {
        let (seat, items) = self.own_line(topic, Role::Peer, self.buffered()).await?;
        Ok(Peer { items, seat: Arc::new(seat), told: false })
    }

    /// The base URLs of the nodes, in the order in which they are tried.
    pub fn base_urls(&self) -> impl Iterator<Item = &str> {
        self.inner.clients.iter().map(Client::base_url)
    }

    /// How it is: changes when a socket is cut and when it is back.
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.board.watch()
    }

    /// Waits until what was said has been answered, then closes all sockets orderly. Subscriptions end.
    pub async fn close(&self) {
        let speaking = self.inner.lines().speaking.take();
        if let Some(line) = speaking {
            // a line that has ended has nothing left to say
            line.ask(Command::Finish).await.ok();
            line.ended().await;
        }
        self.inner.board.close();
        self.inner.stop.cancel();
        let mut state = self.inner.board.watch();
        // the board is ours, so it is there
        state.wait_for(|s| *s == State::Ended).await.ok();
    }

    fn buffered(&self) -> usize {
        self.inner.clients[0].options().buffered_messages_max.max(1)
    }

    async fn own_line(
        &self,
        topic: &Topic,
        role: Role,
        room: usize,
    ) -> Result<(Seat, mpsc::Receiver<Item>), ClientError> {
        let line = Arc::new(self.inner.start()?);
        let seat = Seat { key: self.inner.next(), line, lines: Weak::new() };
        let (_, items) = seat.open(topic.clone().into(), role, room).await?;
        Ok((seat, items))
    }

    async fn held(&self, word: Word) -> Result<Option<Timestamp>, ClientError> {
        let answered = self.word(word).await?;
        let until = answered.lease_expires.unwrap_or(Timestamp::MAX);
        Ok(Some(until).filter(|_| !answered.cancelled))
    }

    async fn word(&self, word: Word) -> Result<Answered, ClientError> {
        let line = self.inner.speaking_line()?;
        // no place has this key: the job's puller, if it is still there, is told by the handle that is dropped
        call(&line, Call::Word { key: 0, word }).await?.await
    }

    async fn speak(&self, what: Call) -> Result<Pending<Receipt>, ClientError> {
        let line = self.inner.speaking_line()?;
        let pending = call(&line, what).await?;
        let read = |a: Answered| Receipt { position: a.position, job: a.job };
        Ok(Pending { answer: pending.answer, line: pending.line, read })
    }
}

impl Inner {
    fn next(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("nobody panics while holding the lines")
    }

    fn start(&self) -> Result<Handle, ClientError> {
        if self.stop.is_cancelled() || self.clients[0].tasks().is_closed() {
            return Err(ClientError::ClientClosed);
        }
        let (options, board) = (self.options.clone(), self.board.clone());
        Ok(Line::start(self.clients.clone(), self.next(), options, board, self.stop.child_token()))
    }

    fn speaking_line(&self) -> Result<Arc<Handle>, ClientError> {
        let mut lines = self.lines();
        match &lines.speaking {
            Some(line) if !line.has_ended() => Ok(line.clone()),
            _ => {
                let line = Arc::new(self.start()?);
                lines.speaking = Some(line.clone());
                Ok(line)
            }
        }
    }

    /// The first socket on which nothing else can match the same topic.
    fn line_for(&self, key: Key, filter: &Filter) -> Result<Arc<Handle>, ClientError> {
        let mut lines = self.lines();
        lines.subscribing.retain(|l| !l.line.has_ended());
        let free = |l: &&mut Subscribing| !l.filters.iter().any(|(_, f)| f.meets(filter));
        if let Some(found) = lines.subscribing.iter_mut().find(free) {
            found.filters.push((key, filter.clone()));
            return Ok(found.line.clone());
        }
        let max = self.options.subscribing_sockets_max.max(1);
        if lines.subscribing.len() >= max {
            let words = format!("{filter} meets subscriptions on all of the {max} sockets that there may be");
            return Err(Problem::new(ErrorCode::InvalidRequest, words).into());
        }
        let line = Arc::new(self.start()?);
        lines.subscribing.push(Subscribing { line: line.clone(), filters: vec![(key, filter.clone())] });
        Ok(line)
    }

    /// A subscription is gone, and its socket, when it was the last one there.
    fn unsubscribed(&self, key: Key) {
        let mut lines = self.lines();
        for line in &mut lines.subscribing {
            line.filters.retain(|(k, _)| *k != key);
        }
        lines.subscribing.retain(|l| !l.filters.is_empty());
    }
}

/// A place at a line. Dropping it gives the place up.
#[derive(Debug)]
struct Seat {
    key: Key,
    line: Arc<Handle>,
    /// Of the connection, where its filter is written down.
    lines: Weak<Inner>,
}

impl Seat {
    async fn open(
        &self,
        filter: Filter,
        role: Role,
        room: usize,
    ) -> Result<(Option<Position>, mpsc::Receiver<Item>), ClientError> {
        let (out, items) = mpsc::channel(room);
        let (opened, answer) = oneshot::channel();
        self.line.ask(Command::Open { key: self.key, filter, role, out, opened }).await?;
        let position = answer.await.unwrap_or_else(|_| Err(self.line.why()))?;
        Ok((position, items))
    }

    /// Why nothing more comes, unless that is in order.
    fn last_word(&self) -> Option<ClientError> {
        self.line.failure()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.line.leave(Left::Place(self.key));
        if let Some(lines) = self.lines.upgrade() {
            lines.unsubscribed(self.key);
        }
    }
}

async fn call(line: &Arc<Handle>, call: Call) -> Result<Pending<Answered>, ClientError> {
    let (answers, answer) = oneshot::channel();
    line.ask(Command::Call { call, answers }).await?;
    Ok(Pending { answer, line: line.clone(), read: |answered| answered })
}

/// `minium.v1` says JSON.
fn json_of(payload: Payload) -> Result<Box<RawValue>, ClientError> {
    match payload {
        Payload::Json(json) => Ok(json),
        Payload::Binary(_) => {
            let words = "minium.v1 has no frame for binary data; POST it";
            Err(Problem::new(ErrorCode::InvalidJson, words).into())
        }
    }
}
