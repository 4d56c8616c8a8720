//! Following the journal for one sink: read, enqueue, confirm, again. One node at a time does it, by a named lock; when two do
//! so for a moment, the keys of the jobs make nothing of it.

use super::batch::Batch;
use super::{Begin, REMEMBER, Sink};
use crate::error::NotifierError;
use crate::journal::Journal;
use crate::metrics::{SINKS_EVENTS, SINKS_LAG};
use crate::recorders::{Confirmation, Confirmed};
use crate::relay::RelayState;
use jiff::Timestamp;
use minium_bus::{HistoryError, Relayed};
use minium_protocol::{EnqueueRequest, Position};
use minium_queue::locks::hold;
use minium_queue::{QueueError, causes};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Bounds and paces of following.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// Who follows, as it stands with the lock.
    pub owner: String,
    /// The lock of a node that was killed holds so long.
    pub lock: Duration,
    /// Between attempts to have the lock.
    pub pause: Duration,
    /// So many events of one filter are read at once at most.
    pub count_max: u32,
    /// No more behind the first that passes so many bytes.
    pub bytes_max: usize,
    /// While nothing is enqueued a position is confirmed no more often than this.
    pub confirm_min: Duration,
    /// And no more rarely, so that everybody sees that somebody follows.
    pub confirm_max: Duration,
    /// After a failure.
    pub retry: Duration,
    /// So long an event that is read again finds the job that it was given.
    pub remember: Duration,
    /// A round that was begun may take so long when the node goes down: cut off between its two halves it would be done again.
    pub finish: Duration,
    /// While somebody else has the lock it is looked so often how far the sink is.
    pub look: Duration,
}

impl Default for FollowOptions {
    fn default() -> FollowOptions {
        FollowOptions {
            owner: "minium".into(),
            lock: Duration::from_secs(10),
            pause: Duration::from_secs(1),
            count_max: 200,
            bytes_max: 1 << 20,
            confirm_min: Duration::from_secs(1),
            confirm_max: Duration::from_secs(30),
            retry: Duration::from_secs(1),
            remember: REMEMBER,
            finish: Duration::from_secs(5),
            look: Duration::from_secs(5),
        }
    }
}

/// Follows until it is stopped, whenever no other node does.
pub async fn follow(
    journal: Journal,
    states: watch::Receiver<RelayState>,
    sink: Sink,
    options: FollowOptions,
    stop: CancellationToken,
) {
    let name = format!("minium/{}", sink.recorder());
    let mut follower =
        Follower { journal, states, sink, options, at: None, oldest: None, looked: None, told: false };
    while !stop.is_cancelled() {
        let (locks, options) = (follower.journal.queue.clone(), &follower.options);
        match hold(locks, &name, &options.owner, options.lock, 1).await {
            Ok(Some(guard)) => {
                follower.settled();
                let (lost, finish) = (guard.lost().clone(), follower.options.finish);
                let late = async {
                    stop.cancelled().await;
                    sleep(finish).await;
                };
                tokio::select! {
                    () = follower.lead(&stop) => {}
                    () = lost.cancelled() => {}
                    () = late => {}
                }
                follower.at = None;
                follower.looked = None;
                guard.release().await;
            }
            Ok(None) => {
                stop.run_until_cancelled(follower.look_on()).await;
            }
            Err(error) => {
                follower.oldest.get_or_insert_with(Timestamp::now);
                follower.measure();
                follower.failed(&causes(&error));
            }
        }
        stop.run_until_cancelled(sleep(follower.options.pause)).await;
    }
}

/// Where a follower is.
#[derive(Debug, Clone, Copy)]
struct At {
    epoch: u64,
    offset: u64,
    /// What the journal knows of that.
    confirmed: u64,
    when: Instant,
}

struct Follower {
    journal: Journal,
    states: watch::Receiver<RelayState>,
    sink: Sink,
    options: FollowOptions,
    at: Option<At>,
    /// When the oldest event happened that waits.
    oldest: Option<Timestamp>,
    /// When that was last asked of the journal, since somebody else has the lock.
    looked: Option<Instant>,
    /// A failure was told.
    told: bool,
}

impl Follower {
    /// Round by round, until it is stopped between two of them.
    async fn lead(&mut self, stop: &CancellationToken) {
        info!(sink = %self.sink.name, "This node follows the journal for the sink.");
        while !stop.is_cancelled() {
            match self.round().await {
                Ok(true) => self.settled(),
                Ok(false) => {
                    self.settled();
                    stop.run_until_cancelled(self.rest()).await;
                }
                Err(why) => {
                    self.oldest.get_or_insert_with(Timestamp::now);
                    self.measure();
                    self.failed(&why);
                    stop.run_until_cancelled(sleep(self.options.retry)).await;
                }
            }
        }
    }

    /// Somebody else has the lock: as a rule a node that follows, but it may be one that hangs, or an operator. How far the
    /// sink really is stands in the journal.
    async fn look_on(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < self.options.look) {
            return;
        }
        self.looked = Some(Instant::now());
        match self.waiting().await {
            Ok(oldest) => {
                self.oldest = oldest;
                self.settled();
            }
            Err(why) => {
                self.oldest.get_or_insert_with(Timestamp::now);
                self.failed(&why);
            }
        }
        self.measure();
    }

    /// When the first event happened that lies behind what the journal knows of the sink.
    async fn waiting(&self) -> Result<Option<Timestamp>, String> {
        let RelayState::Relaying(last) = self.states.borrow().clone() else { return Ok(self.oldest) };
        let Some(known) = self.known().await? else { return Ok(None) };
        let (history, mut oldest) = (self.journal.history(), None);
        for topic in &self.sink.topics {
            let mut after = known;
            let page = loop {
                match history.read(topic, after, last.offset, 1, self.options.bytes_max).await {
                    Ok(page) => break page,
                    // whoever follows will tell of it
                    Err(HistoryError::Expired { first }) if first > after + 1 => after = first - 1,
                    Err(error) => return Err(error.to_string()),
                }
            };
            let first = page.entries.first().and_then(happened);
            oldest = [oldest, first].into_iter().flatten().min();
        }
        Ok(oldest)
    }

    /// Up to where the sink has everything, as the journal knows it.
    async fn known(&self) -> Result<Option<u64>, String> {
        let (recorders, name) = (self.journal.recorders().await.map_err(story)?, self.sink.recorder());
        Ok(recorders.iter().find(|recorder| recorder.name == name).map(|recorder| recorder.offset))
    }

    /// Until there is more to read, or something to say.
    async fn rest(&mut self) {
        let reached = self.at.map_or(0, |at| at.offset);
        let more = |state: &RelayState| matches!(state, RelayState::Relaying(to) if to.offset > reached);
        let waited = async {
            if self.states.wait_for(more).await.is_err() {
                // the relay has ended, and the follower will
                std::future::pending::<()>().await;
            }
        };
        drop(timeout(self.options.confirm_min, waited).await);
    }

    /// One piece of the journal. Answers whether there may be more at once.
    async fn round(&mut self) -> Result<bool, String> {
        let RelayState::Relaying(last) = self.states.borrow_and_update().clone() else { return Ok(false) };
        let at = match self.at {
            Some(at) if at.epoch == last.epoch => at,
            Some(_) | None => self.begin(last).await?,
        };
        if at.offset >= last.offset {
            self.oldest = None;
            self.measure();
            self.confirm(at, false).await?;
            return Ok(false);
        }
        let batch = self.read(at, last).await?;
        let reached = batch.reached.unwrap_or(at.offset).max(at.offset);
        if let Some(first) = batch.entries().next() {
            self.oldest = happened(first);
            self.measure();
        }
        let deliveries = batch.deliveries(&self.sink, self.options.remember);
        let enqueued = !deliveries.is_empty();
        self.enqueue(deliveries).await?;
        let at = At { offset: reached, ..at };
        self.at = Some(at);
        self.confirm(at, enqueued).await?;
        let more = reached < last.offset;
        if !more {
            self.oldest = None;
        }
        self.measure();
        Ok(more)
    }

    /// Where the journal says that the sink is; a new one is registered first.
    async fn begin(&mut self, last: Position) -> Result<At, String> {
        let known = self.known().await?;
        let offset = match (known, self.sink.begin) {
            // it may lie beyond what this node has relayed yet
            (Some(offset), _) => offset,
            (None, Begin::Now) => last.offset,
            (None, Begin::Earliest) => self.earliest().await?,
        };
        let at = At { epoch: last.epoch, offset, confirmed: offset, when: Instant::now() };
        self.say(at).await?;
        info!(sink = %self.sink.name, offset, known = known.is_some(), "The sink begins behind this offset.");
        self.at = Some(at);
        Ok(at)
    }

    async fn earliest(&self) -> Result<u64, String> {
        let (history, mut first) = (self.journal.history(), u64::MAX);
        for topic in &self.sink.topics {
            first = first.min(history.bounds(topic).await.map_err(|e| e.to_string())?.first);
        }
        Ok(first.saturating_sub(1))
    }

    /// What follows, of all filters.
    async fn read(&self, at: At, last: Position) -> Result<Batch, String> {
        let (history, mut batch) = (self.journal.history(), Batch::default());
        let FollowOptions { count_max, bytes_max, .. } = self.options;
        for topic in &self.sink.topics {
            let mut after = at.offset;
            let page = loop {
                match history.read(topic, after, last.offset, count_max, bytes_max).await {
                    Ok(page) => break page,
                    Err(HistoryError::Expired { first }) if first > after + 1 => {
                        error!(
                            sink = %self.sink.name,
                            topic = topic.as_str(),
                            behind = after,
                            resumes = first,
                            "Events were let go of before the sink had them: it was too far behind."
                        );
                        after = first - 1;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            };
            batch.add(page);
        }
        Ok(batch)
    }

    /// All of them; one that is refused by itself must not stop the others.
    async fn enqueue(&self, deliveries: Vec<EnqueueRequest>) -> Result<(), String> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let queue = &self.journal.queue;
        let mut told = 0;
        match queue.enqueue(&deliveries).await {
            Ok(enqueued) => told = enqueued.iter().filter(|delivery| !delivery.existing).count(),
            Err(error) if error.is_refusal() => {
                for delivery in deliveries {
                    match queue.enqueue(std::slice::from_ref(&delivery)).await {
                        Ok(enqueued) => told += enqueued.iter().filter(|delivery| !delivery.existing).count(),
                        Err(error) if error.is_refusal() => self.refused(&delivery, &error),
                        Err(error) => return Err(causes(&error)),
                    }
                }
            }
            Err(error) => return Err(causes(&error)),
        }
        ::metrics::counter!(SINKS_EVENTS, "sink" => self.sink.name.to_string()).increment(told as u64);
        Ok(())
    }

    fn refused(&self, delivery: &EnqueueRequest, error: &QueueError) {
        let key = delivery.options.key.as_deref().unwrap_or_default();
        error!(sink = %self.sink.name, key, error = %causes(error), "The queue does not take an event's delivery: it is not told.");
    }

    /// Tells the journal, when it is time to.
    async fn confirm(&mut self, at: At, enqueued: bool) -> Result<(), String> {
        let FollowOptions { confirm_min, confirm_max, .. } = self.options;
        let (moved, silent) = (at.offset > at.confirmed, at.when.elapsed());
        if enqueued || moved && silent >= confirm_min || silent >= confirm_max {
            self.say(at).await?;
            self.at = Some(At { confirmed: at.offset, when: Instant::now(), ..at });
        }
        Ok(())
    }

    async fn say(&mut self, at: At) -> Result<(), String> {
        let confirmation = Confirmation {
            name: self.sink.recorder(),
            owner: String::new(),
            for_anyone: true,
            topics: self.sink.topics.clone(),
            position: Position { epoch: at.epoch, offset: at.offset },
        };
        match self.journal.confirm(&confirmation).await.map_err(story)? {
            Confirmed::New | Confirmed::Known => Ok(()),
            refused
            @ (Confirmed::OtherEpoch | Confirmed::Ahead | Confirmed::Foreign | Confirmed::TooMany) => {
                // where it is is looked up anew
                self.at = None;
                Err(format!("the journal does not take the sink's position: {refused:?}"))
            }
        }
    }

    fn measure(&self) {
        let age = self.oldest.map_or(0.0, |oldest| Timestamp::now().duration_since(oldest).as_secs_f64());
        ::metrics::gauge!(SINKS_LAG, "sink" => self.sink.name.to_string()).set(age.max(0.0));
    }

    /// Told once, until it works again.
    fn failed(&mut self, why: &str) {
        if !self.told {
            warn!(sink = %self.sink.name, error = why, "The journal cannot be followed for the sink; trying again.");
        }
        self.told = true;
    }

    fn settled(&mut self) {
        if self.told {
            info!(sink = %self.sink.name, "The journal is followed for the sink again.");
        }
        self.told = false;
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn story(error: NotifierError) -> String {
    error.story()
}

/// When an event happened.
fn happened(entry: &Relayed) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Timed {
        time: Timestamp,
    }
    serde_json::from_slice::<Timed>(&entry.event).ok().map(|timed| timed.time)
}
