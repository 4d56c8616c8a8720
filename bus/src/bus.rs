//! The handle of a running bus: what the server and the notifier hold.

use crate::channels::Channels;
use crate::error::BusError;
use crate::grant::{Grant, Review};
use crate::history::{Draft, History, Relayed};
use crate::hub::Hub;
use crate::inbox::{Inbox, Item, StreamOpening};
use crate::lanes::Refusal;
use crate::message::Message;
use crate::opening::{Opening, Permit, Start};
use crate::options::Options;
use crate::outside::Outside;
use crate::pattern::Pattern;
use crate::reads::Reads;
use crate::schemas::Schemas;
use crate::shard::Shard;
use crate::subscription::{Pipe, Subscription};
use crate::work::{Pushed, Work};
use crate::{publish, relay, resolve};
use minium_protocol::{After, ErrorCode, Filter, JobOptions, Position, Problem, Topic};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::oneshot;

/// The handle of a running bus. Cheap to clone; when the last one is dropped, the shards end and sockets are cut.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    hub: Arc<Hub>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Entries are relayed by one at a time, or they would overtake each other.
    relaying: tokio::sync::Mutex<()>,
}

/// What a bus holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Sessions that are open.
    pub sessions: usize,
    /// Topics and filters that somebody receives.
    pub channels: usize,
    /// How far the journal was relayed; nothing before [`Bus::relay_from`].
    pub relayed: Option<Position>,
}

/// A topic or filter that somebody receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveChannel {
    /// Its name space.
    pub pattern: Pattern,
    /// Its name.
    pub filter: String,
}

/// What a bus works with and does not own.
#[derive(Clone, Default)]
pub struct Backing {
    /// What messages must look like.
    pub schemas: Arc<Schemas>,
    /// What is configured for prefixes of topics.
    pub channels: Arc<Channels>,
    /// The journal; nothing leaves durable channels unavailable.
    pub history: Option<Arc<dyn History>>,
    /// The queue; nothing leaves durable push/pull channels unavailable.
    pub work: Option<Arc<dyn Work>>,
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backing").field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bus").field(&self.stats()).finish()
    }
}

impl Bus {
    /// Starts the shards. To be called on a tokio runtime: history is read there. What it measures goes to the
    /// `metrics` recorder that is installed by now.
    ///
    /// # Errors
    /// When an option leaves no room to work, or a thread cannot start.
    pub fn start(options: Options, backing: Backing) -> Result<Bus, BusError> {
        let Backing { schemas, channels, history, work } = backing;
        options.check()?;
        let runtime = Handle::try_current().map_err(|_| BusError::NoRuntime)?;
        let has_history = history.is_some();
        let outside = Outside::new(Some(runtime), history, work, options.outside_patience);
        let hub = Hub::new(options, schemas, channels, outside);
        let reads = has_history.then(|| Arc::new(Reads::new(&hub)));
        let inner =
            Inner { hub: hub.clone(), threads: Mutex::default(), relaying: tokio::sync::Mutex::new(()) };
        let bus = Bus(Arc::new(inner)); // from here on, dropping it ends the shards that run
        for id in 0..hub.inboxes.len() {
            let thread = spawn(id, hub.clone(), reads.clone()).map_err(BusError::Thread)?;
            bus.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(bus)
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    /// Room for one session more, to be asked for before the 101.
    ///
    /// # Errors
    /// `unavailable` when there are as many as may be, or the node goes down.
    pub fn admit(&self) -> Result<Permit, Problem> {
        self.check_open()?;
        let max = self.0.hub.options.sessions_max;
        Permit::take(&self.0.hub, max).ok_or_else(|| {
            Problem::new(ErrorCode::Unavailable, format!("there are {max} sessions, more are not taken"))
        })
    }

    fn check_open(&self) -> Result<(), Problem> {
        if self.0.hub.closing.load(Relaxed) {
            return Err(Problem::new(ErrorCode::Unavailable, "the node goes down"));
        }
        Ok(())
    }

    /// Finds where a subscription begins; nothing means with what comes from now on.
    ///
    /// # Errors
    /// `epoch_changed` and `offset_expired` with the earliest position that can be asked for, `invalid_request` for a
    /// position on a topic that is not kept, `unavailable` while the journal is not there.
    pub async fn resolve(&self, filter: &Filter, after: After) -> Result<Option<Start>, Problem> {
        resolve::resolve(&self.0.hub, filter, after).await
    }

    /// Gives an upgrade to a shard, which registers the session and then answers.
    pub fn open(&self, opening: Opening) {
        // a shard that has ended hands it back, and dropping it closes the socket
        drop(self.0.hub.next_shard().put(Item::Open(Box::new(opening))));
    }

    /// Publishes one message to the subscribers of the topic and of its parents. On a durable channel it is kept
    /// first, and the answer is where it stands; `id` makes trying again harmless there. Waits while a shard is full.
    ///
    /// # Errors
    /// When the message may not go out: its schema, its size, a topic that the journal alone fills; `unavailable` and
    /// `storage_full` when it cannot be kept.
    pub async fn publish(
        &self,
        topic: &Topic,
        message: Message,
        id: Option<&str>,
    ) -> Result<Option<Position>, Problem> {
        self.check_open()?;
        let hub = &self.0.hub;
        let (message, durable) = publish::accept(hub, Pattern::Sub, topic, message)?;
        if !durable {
            publish::publish(hub, Pattern::Sub, topic, &message).await;
            return Ok(None);
        }
        let draft = Draft { topic: topic.clone(), id: id.map(Box::from), data: message.bytes().clone() };
        let kept = hub.outside.keep(vec![draft]).await?;
        Ok(kept.into_iter().next())
    }

    /// Sends one message to all peers of the topic.
    ///
    /// # Errors
    /// When the message may not go out.
    pub async fn send(&self, topic: &Topic, message: Message) -> Result<(), Problem> {
        self.check_open()?;
        let hub = &self.0.hub;
        let (message, _) = publish::accept(hub, Pattern::Bus, topic, message)?;
        publish::publish(hub, Pattern::Bus, topic, &message).await;
        Ok(())
    }

    /// Hands one message to a puller of the topic, or keeps it for the first one that comes. On a durable channel it
    /// becomes a job, whose id is the answer.
    ///
    /// # Errors
    /// `no_puller` when nobody pulls and no more can wait, or when all pullers stay full for too long; what the queue
    /// refuses.
    pub async fn push(
        &self,
        topic: &Topic,
        message: Message,
        options: JobOptions,
    ) -> Result<Option<i64>, Problem> {
        self.check_open()?;
        let hub = &self.0.hub;
        let (message, durable) = publish::accept(hub, Pattern::Push, topic, message)?;
        hub.tallies.count_one(Pattern::Push, topic.as_str());
        if durable {
            let pushed = Pushed { data: message.bytes().clone(), options };
            let ids = hub.outside.push(topic.clone(), vec![pushed]).await?;
            return Ok(ids.into_iter().next());
        }
        self.hand_out(topic, message).await.map(|()| None)
    }

    async fn hand_out(&self, to: &Topic, message: Message) -> Result<(), Problem> {
        let hub = &self.0.hub;
        let topic = to.shared();
        let mut left = Some(message);
        let pushed = poll_fn(|cx| {
            let Some(message) = left.take() else { return Poll::Ready(Ok(())) };
            match hub.lanes.push(hub, &topic, message, cx.waker()) {
                Ok(()) => Poll::Ready(Ok(())),
                Err((Refusal::NoPuller, _)) => Poll::Ready(Err("nobody pulls, and no more can wait")),
                Err((Refusal::Busy, message)) => {
                    left = Some(message);
                    Poll::Pending
                }
            }
        });
        let pushed = tokio::time::timeout(hub.options.push_wait, pushed).await;
        pushed.unwrap_or(Err("all who pull have as much as they can take")).map_err(|why| {
            let channel = hub.channels.label(Pattern::Push, to);
            crate::metrics::dropped(channel, ErrorCode::NoPuller.as_str());
            Problem::new(ErrorCode::NoPuller, format!("{topic}: {why}"))
        })
    }

    /// Judges the grants of all sessions anew; those that are refused end.
    pub fn review(&self, review: &Arc<Review>) {
        for inbox in &self.0.hub.inboxes {
            // a shard that has ended has no sessions
            drop(inbox.put(Item::Review(review.clone())));
        }
    }

    /// Waits until every shard has been through its loop, however long that takes; false when one has ended. Whoever asks
    /// waits for the answer before he asks again, so that there is one question at most in a shard that hangs.
    pub async fn turn(&self) -> bool {
        let turn = |inbox: &Inbox| {
            let (tell, told) = oneshot::channel();
            let question = Box::new(move |_: &Shard| {
                // whoever asked may have gone by now
                tell.send(()).ok();
            });
            inbox.put(Item::Ask(question)).is_ok().then_some(told)
        };
        match self.0.hub.inboxes.iter().map(turn).collect::<Option<Vec<_>>>() {
            Some(turns) => futures::future::try_join_all(turns).await.is_ok(),
            None => false,
        }
    }

    /// Subscribes as server-sent events that go no further than this process. Registered when it returns.
    ///
    /// # Errors
    /// `unavailable` when the node goes down.
    pub async fn subscribe(
        &self,
        filter: Filter,
        start: Option<Start>,
        grant: Option<Arc<Grant>>,
        permit: Permit,
    ) -> Result<Subscription, Problem> {
        self.subscribe_from(None, filter, start, grant, permit).await
    }

    /// Subscribes as server-sent events for a client at `remote`. Registered when it returns.
    ///
    /// # Errors
    /// `unavailable` when the node goes down.
    pub async fn subscribe_from(
        &self,
        remote: Option<SocketAddr>,
        filter: Filter,
        start: Option<Start>,
        grant: Option<Arc<Grant>>,
        permit: Permit,
    ) -> Result<Subscription, Problem> {
        let hub = &self.0.hub;
        let pipe = Arc::new(Pipe::new(hub.options.stream_bytes_max));
        let subscription = Subscription::new(pipe.clone());
        let (ready, registered) = oneshot::channel();
        let opening = StreamOpening { filter, start, grant, permit, remote, pipe, ready };
        // if the shard has ended, so has `ready`
        drop(hub.next_shard().put(Item::Subscribe(Box::new(opening))));
        registered.await.map_err(|_| Problem::new(ErrorCode::Unavailable, "the node goes down"))?;
        Ok(subscription)
    }

    /// Says how far the numbering of the journal is known: entries behind this position will be relayed. Positions
    /// can be resolved from now on. To be called again when the numbering begins anew.
    pub async fn relay_from(&self, position: Position) {
        let _one_at_a_time = self.0.relaying.lock().await;
        relay::relay_from(&self.0.hub, position);
    }

    /// Relays entries in offset order; waits while a shard's inbox is full. What was relayed before is left out.
    pub async fn relay(&self, batch: Vec<Relayed>) {
        let _one_at_a_time = self.0.relaying.lock().await;
        relay::relay(&self.0.hub, batch).await;
    }

    /// What it holds now.
    pub fn stats(&self) -> Stats {
        let hub = &self.0.hub;
        Stats { sessions: hub.sessions.load(Relaxed), channels: hub.channels(), relayed: hub.relayed() }
    }

    /// Topics and filters that somebody receives or that have work waiting, at most `max`, in no order.
    pub fn channels(&self, max: usize) -> Vec<LiveChannel> {
        let names = self.0.hub.channel_names(max);
        names.into_iter().map(|(pattern, filter)| LiveChannel { pattern, filter }).collect()
    }

    /// Closes all sessions with 1001 and waits until they have ended, at most `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        let hub = &self.0.hub;
        hub.closing.store(true, Relaxed);
        for inbox in &hub.inboxes {
            // one that has ended needs no word
            drop(inbox.put(Item::Shutdown(grace)));
        }
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().filter_map(|t| t.join().err()).count());
        if joined.await.unwrap_or(0) > 0 {
            tracing::error!("A shard panicked.");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for inbox in &self.hub.inboxes {
            drop(inbox.put(Item::Shutdown(Duration::ZERO)));
        }
    }
}

/// Starts one shard; returns when its runtime is there.
fn spawn(id: usize, hub: Arc<Hub>, reads: Option<Arc<Reads>>) -> io::Result<JoinHandle<()>> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(e) => return drop(tell.send(Err(e))),
        };
        drop(tell.send(Ok(())));
        runtime.block_on(async move {
            let shard = Shard::new(id, hub, reads);
            tokio::task::spawn_local(shard.clone().look_after());
            shard.drive().await;
        });
    };
    let thread = std::thread::Builder::new().name(format!("minium-shard-{id}")).spawn(run)?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
    Ok(thread)
}
