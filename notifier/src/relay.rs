//! The relay: brings the journal to the bus of this node, in the order of offsets, without a gap.
//!
//! One task numbers (when it is this node's turn), reads what is missing, and feeds the bus; others keep the
//! retention and look how far it is behind. The position moves only over a gapless prefix, and only after the commit that gave the offsets. A
//! database that is gone is waited for, for ever.

use crate::error::NotifierError;
use crate::journal::{Entry, Journal, JournalStore, Outcome, Step};
use crate::metrics;
use crate::prefix::Prefix;
use crate::pressure::{self, LagOptions};
use crate::recorders::Hold;
use crate::retention::{self, Retentions, Upkeep};
use crate::turn::{Look, Met, Turn, TurnOptions};
use crate::waits::Waits;
use crate::wake::{Decision, WakeOptions, Wakefulness};
use crate::work::TaskWork;
use minium_bus::{Bounds, Bus, Message, Relayed};
use minium_protocol::{Position, Topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bounds and habits of a relay, with defaults.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Say `[id,"action"]` there too, to peers, as Minion::Notifier does.
    pub minion_topic: Option<Topic>,
    /// Told at once which running jobs were cancelled, by whichever node.
    pub work: Option<TaskWork>,
    /// How much of the journal is kept; the usual for where it is kept when nothing is said.
    pub retention: Option<Retentions>,
    /// How often the journal is looked at.
    pub wake: WakeOptions,
    /// Between two attempts of a node that does not number to take over.
    pub follower_step: Duration,
    /// It takes over only what has waited for so long.
    pub follower_patience: Duration,
    /// Bytes that go to the bus at once.
    pub batch_bytes_max: usize,
    /// The first wait after a failure; it doubles each time, with jitter,
    pub backoff_min: Duration,
    /// up to this.
    pub backoff_max: Duration,
    /// Between two rounds of retention.
    pub retention_interval: Duration,
    /// So many entries are let go in one transaction.
    pub retention_batch: u32,
    /// Nothing younger than this is let go: other nodes have so long to relay it.
    pub retention_grace: Duration,
    /// Between two looks at the partitions of the days.
    pub days_interval: Duration,
    /// How much more is kept for recorders that have not confirmed it.
    pub hold: Hold,
    /// How far it may lie behind before claims are slowed.
    pub lag: LagOptions,
}

impl Default for RelayOptions {
    fn default() -> RelayOptions {
        RelayOptions {
            minion_topic: None,
            work: None,
            retention: None,
            wake: WakeOptions::default(),
            follower_step: Duration::from_millis(500),
            follower_patience: Duration::from_millis(300),
            batch_bytes_max: 256 << 10,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            retention_interval: Duration::from_secs(5),
            retention_batch: 5_000,
            retention_grace: Duration::from_secs(10),
            days_interval: Duration::from_secs(600),
            hold: Hold::default(),
            lag: LagOptions::default(),
        }
    }
}

/// How the relay is doing, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayState {
    /// It has not reached the journal yet.
    Starting,
    /// Everything up to here is on the bus.
    Relaying(Position),
    /// The journal cannot be reached; it is tried again.
    Waiting {
        /// Why, for whoever operates this node.
        reason: String,
    },
}

/// Brings the journal to a bus.
#[derive(Debug)]
pub struct Relay;

/// A running relay.
#[derive(Debug)]
pub struct RelayHandle {
    state: watch::Receiver<RelayState>,
    tasks: TaskTracker,
}

impl Relay {
    /// Starts it on the current runtime. It runs until `stop` is cancelled.
    pub fn start(journal: &Journal, bus: Bus, options: RelayOptions, stop: CancellationToken) -> RelayHandle {
        let store = journal.store.clone();
        let (state, watched) = watch::channel(RelayState::Starting);
        let upkeep = Upkeep {
            retention: options.retention.clone(),
            interval: options.retention_interval,
            batch: options.retention_batch.max(1),
            grace: options.retention_grace,
            days_interval: options.days_interval,
            hold: options.hold.clone(),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(retention::keep(store.clone(), upkeep, watched.clone(), stop.clone()));
        let looks = pressure::watch(
            store.clone(),
            journal.queue.clone(),
            options.lag.clone(),
            watched.clone(),
            stop.clone(),
        );
        tasks.spawn(looks);
        let waits = journal.waits.clone();
        tasks.spawn(Feeder { store, waits, bus, options, state, stop, told: None, reached: false }.run());
        tasks.close();
        RelayHandle { state: watched, tasks }
    }
}

impl RelayHandle {
    /// How it is doing now.
    pub fn state(&self) -> RelayState {
        self.state.borrow().clone()
    }

    /// The same, to be waited for.
    pub fn states(&self) -> watch::Receiver<RelayState> {
        self.state.clone()
    }

    /// Waits until it has stopped.
    pub async fn join(self) {
        self.tasks.wait().await;
    }
}

/// Why following the journal came to an end without a failure.
enum End {
    Stopped,
    /// The numbering is another now.
    Moved,
}

struct Feeder {
    store: Arc<dyn JournalStore>,
    /// Who waits for the numbers of messages.
    waits: Arc<Waits>,
    bus: Bus,
    options: RelayOptions,
    state: watch::Sender<RelayState>,
    stop: CancellationToken,
    /// How far the bus has been told.
    told: Option<Position>,
    /// The journal was reached since the last failure.
    reached: bool,
}

impl Feeder {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut failures = 0;
        loop {
            let ended = stop.run_until_cancelled(self.follow()).await.unwrap_or(Ok(End::Stopped));
            if std::mem::take(&mut self.reached) {
                failures = 0;
            }
            match ended {
                Ok(End::Stopped) => return,
                Ok(End::Moved) => tracing::info!("The journal's numbering has changed; it is opened again."),
                Err(error) => self.failed(&error, failures),
            }
            let pause = self.pause(failures);
            failures += 1;
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    fn failed(&self, error: &NotifierError, failures: u32) {
        ::metrics::counter!(metrics::RELAY_FAILURES).increment(1);
        let reason = error.story();
        if failures == 0 {
            tracing::warn!(error = reason, "The journal cannot be reached; trying again.");
        }
        self.state.send_replace(RelayState::Waiting { reason });
    }

    /// Doubles with each failure; the jitter keeps nodes that lost the same database from coming back at once.
    fn pause(&self, failures: u32) -> Duration {
        let full = self.options.backoff_min.saturating_mul(1 << failures.min(16));
        let full = full.min(self.options.backoff_max);
        full.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Follows the journal until something is in the way.
    async fn follow(&mut self) -> Result<End, NotifierError> {
        let bounds = self.store.open(self.told).await?;
        let mut prefix = self.begin(bounds).await;
        let now = Instant::now();
        let mut wake = Wakefulness::new(self.options.wake.clone(), self.store.signalled(), now);
        let mut turn = Turn::new(
            TurnOptions {
                follower_step: self.options.follower_step,
                patience: self.options.follower_patience,
            },
            now,
        );
        let mut events = self.store.events();
        loop {
            // what is signalled from here on may be missed by this look
            events.mark_unchanged();
            let started = Instant::now();
            let step = self.look(&mut turn).await?;
            if step.outcome == Outcome::Moved || step.epoch != bounds.epoch {
                return Ok(End::Moved);
            }
            let found = step.last > prefix.last();
            turn.met(Instant::now(), met(&step, prefix));
            let more = step.more;
            self.catch_up(&mut prefix, step).await?;
            if more {
                continue;
            }
            let decision = wake.after_look(Instant::now(), found);
            if let Some(armed) = decision.arm {
                self.store.arm(armed).await?;
            }
            self.rest(decision, started, &mut events).await;
        }
    }

    /// Waits until it is time for the next look: at once when a message of this node was committed.
    async fn rest(&self, decision: Decision, started: Instant, events: &mut watch::Receiver<u64>) {
        let signalled = async {
            if decision.listen {
                // a sender that is gone signals no more, but the time still passes
                drop(tokio::time::timeout(decision.wait, signal(events)).await);
            } else {
                tokio::time::sleep_until(started + decision.wait).await;
            }
        };
        tokio::select! {
            () = signalled => {}
            () = self.waits.committed.notified() => {}
        }
    }

    /// Tells the bus where the relay begins: where it was before, or at the end of what there is.
    async fn begin(&mut self, bounds: Bounds) -> Prefix {
        let known = self.told.filter(|p| {
            p.epoch == bounds.epoch && p.offset <= bounds.last && p.offset.saturating_add(1) >= bounds.first
        });
        let position = known.unwrap_or(Position { epoch: bounds.epoch, offset: bounds.last });
        if known.is_none() {
            self.bus.relay_from(position).await;
            tracing::info!(epoch = position.epoch, offset = position.offset, "Relaying the journal.");
        }
        self.reached(position);
        Prefix::behind(position.offset)
    }

    async fn look(&self, turn: &mut Turn) -> Result<Step, NotifierError> {
        ::metrics::gauge!(metrics::SEQUENCER_LEADER).set(u32::from(turn.leads()));
        match turn.look(Instant::now()) {
            Look::Step(patience) => {
                let step = self.store.step(patience).await?;
                ::metrics::counter!(metrics::ENTRIES_NUMBERED).increment(step.numbered);
                Ok(step)
            }
            Look::Watch => {
                let bounds = self.store.bounds().await?;
                let (epoch, last) = (bounds.epoch, bounds.last);
                Ok(Step { outcome: Outcome::Busy, epoch, last, numbered: 0, more: false, entries: vec![] })
            }
        }
    }

    /// Brings everything up to what the step knows to the bus: first what lies before its own entries, then these,
    /// then what it numbered beyond them.
    async fn catch_up(&mut self, prefix: &mut Prefix, step: Step) -> Result<(), NotifierError> {
        if let Some(first) = step.entries.first() {
            self.read_to(prefix, step.epoch, first.offset - 1).await?;
            self.feed(prefix, step.epoch, step.entries).await;
        }
        self.read_to(prefix, step.epoch, step.last).await?;
        Ok(())
    }

    async fn read_to(&mut self, prefix: &mut Prefix, epoch: u64, to: u64) -> Result<(), NotifierError> {
        while prefix.last() < to {
            let page = self.store.page(epoch, prefix.last()).await?;
            let next = page.first().map_or(to + 1, |entry| entry.offset);
            if next > prefix.next() {
                self.skip(prefix, epoch, next - 1).await;
            }
            self.feed(prefix, epoch, page).await;
        }
        Ok(())
    }

    /// Entries that were committed are gone: retention overtook this relay, or somebody deleted by hand. The bus
    /// begins anew behind them, so that every subscriber learns that it has missed something.
    async fn skip(&mut self, prefix: &mut Prefix, epoch: u64, to: u64) {
        let missing = to - prefix.last();
        tracing::error!(
            after = prefix.last(),
            to,
            missing,
            "Entries of the journal are gone before they were relayed."
        );
        ::metrics::counter!(metrics::JOURNAL_HOLES).increment(missing);
        let position = Position { epoch, offset: to };
        self.bus.relay_from(position).await;
        *prefix = Prefix::behind(to);
        self.reached(position);
    }

    /// Gives the bus what continues the prefix.
    #[tracing::instrument(level = "debug", name = "relay", skip_all, fields(sink = "bus", cursor = prefix.last()))]
    async fn feed(&mut self, prefix: &mut Prefix, epoch: u64, entries: Vec<Entry>) {
        let entries = prefix.admit(entries, |entry| entry.offset);
        if entries.is_empty() {
            return;
        }
        ::metrics::counter!(metrics::ENTRIES_RELAYED).increment(entries.len() as u64);
        let mut batch: Vec<Relayed> = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        let mut actions = Vec::new();
        let mut numbers = Vec::new();
        for entry in entries {
            let position = Position { epoch, offset: entry.offset };
            numbers.extend(entry.message.map(|message| (message, position)));
            actions.extend(entry.action.filter(|_| self.options.minion_topic.is_some()));
            if let (Some(work), Some(run)) = (&self.options.work, entry.cancelled) {
                work.cancelled(run.job, run.attempt);
            }
            let Some(relayed) = entry.relayed else { continue };
            bytes += relayed.event.len();
            batch.push(relayed);
            if bytes >= self.options.batch_bytes_max {
                self.bus.relay(std::mem::take(&mut batch)).await;
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.bus.relay(batch).await;
        }
        // only now: publishers wait while the shards are full
        self.waits.numbered(numbers.into_iter());
        if let Some(topic) = &self.options.minion_topic {
            for action in actions {
                // to peers, at most once: a bus that refuses it is going down
                if let Err(problem) = self.bus.send(topic, Message::Text(action.message().into())).await {
                    tracing::debug!(%problem, "An action was not sent.");
                }
            }
        }
        self.reached(Position { epoch, offset: prefix.last() });
    }

    fn reached(&mut self, position: Position) {
        self.told = Some(position);
        self.reached = true;
        self.state.send_replace(RelayState::Relaying(position));
    }
}

/// Who numbered, as far as a step can tell.
fn met(step: &Step, prefix: Prefix) -> Met {
    match step.outcome {
        Outcome::Numbered => Met::Won,
        Outcome::Busy => Met::Another,
        Outcome::Idle | Outcome::Moved if step.last > prefix.last() => Met::Another,
        Outcome::Idle | Outcome::Moved => Met::Nothing,
    }
}

/// The next signal; never, when nobody is left to signal.
async fn signal(events: &mut watch::Receiver<u64>) {
    if events.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
