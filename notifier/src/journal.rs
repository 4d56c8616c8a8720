//! The journal as the rest of the notifier sees it, whichever database keeps it.
//!
//! Entries leave the database's own modules as finished events: what an event looks like is decided here, once, for
//! live relay, replay and restart alike.

use crate::error::NotifierError;
use crate::history::JournalHistory;
use crate::keep::{KeepOptions, Keeper};
use crate::minion::Action;
use crate::postgres::PgJournal;
use crate::recorders::{Confirmation, Confirmed, Recorder};
use crate::retention::{Retention, Trim, Trimmed};
use crate::sqlite::SqliteJournal;
use crate::waits::Waits;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use minium_bus::{Bounds, History, Relayed};
use minium_protocol::{Envelope, EventType, Filter, Position, Topic};
use minium_queue::{Backend, Store};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// What every event says about where it comes from.
#[derive(Debug, Clone)]
pub struct EnvelopeOptions {
    /// `/minium/<name of the installation>`: of what it wrote itself.
    pub source: String,
    /// URL of the schema of task events' `data`: `<public url>/schemas/job.json`.
    pub dataschema: Option<String>,
}

impl Default for EnvelopeOptions {
    fn default() -> EnvelopeOptions {
        EnvelopeOptions { source: "/minium/default".into(), dataschema: None }
    }
}

/// Bounds of a journal, with defaults.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// At most so many entries are numbered in one step: a backlog is taken in pieces.
    pub step_count_max: u32,
    /// At most so many entries come back from one step or page.
    pub page_count_max: u32,
    /// No more entries after the first that passes so many stored bytes.
    pub page_bytes_max: usize,
    /// At most so many entries are looked at for one page of a filter that no index answers.
    pub walk_count_max: u32,
    /// `?last=` looks at no more entries than this.
    pub last_walk_count_max: u32,
    /// Reads of history at once; more wait.
    pub reads_max: usize,
    /// So long may one step or page take before its connection is given up.
    pub patience: Duration,
    /// Partitions of so many days to come are made ahead.
    pub days_ahead: u32,
    /// Bounds of keeping messages.
    pub keep: KeepOptions,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            step_count_max: 50_000,
            page_count_max: 1_000,
            page_bytes_max: 1 << 20,
            walk_count_max: 10_000,
            last_walk_count_max: 100_000,
            reads_max: 3,
            patience: Duration::from_secs(30),
            days_ahead: 2,
            keep: KeepOptions::default(),
        }
    }
}

/// One entry with its number.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// Nothing when its topic is none that could be said on a bus.
    pub(crate) relayed: Option<Relayed>,
    pub(crate) action: Option<Action>,
    /// Its own id, when a client published it: its publisher may wait for the number.
    pub(crate) message: Option<Uuid>,
    /// A run that was called off.
    pub(crate) cancelled: Option<Cancelled>,
}

/// A run that was called off, if the job was running at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancelled {
    pub(crate) job: i64,
    pub(crate) attempt: i32,
}

impl Cancelled {
    fn of(kind: &str, subject: &str, data: &str) -> Option<Cancelled> {
        #[derive(serde::Deserialize)]
        struct Run {
            attempt: i32,
        }
        if EventType::parse(kind) != Some(EventType::Cancelled) {
            return None;
        }
        let Run { attempt } = serde_json::from_str(data).ok()?;
        Some(Cancelled { job: subject.parse().ok()?, attempt })
    }
}

/// `type` of what clients publish.
pub(crate) const MESSAGE: &str = "message";

/// An entry as a row holds it; borrowed, to be written once.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) id: Uuid,
    pub(crate) topic: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) trace: Option<&'a str>,
    pub(crate) late: Option<&'a str>,
    pub(crate) data: &'a str,
    /// Whose it is, if not this installation's.
    pub(crate) source: Option<&'a str>,
}

impl Row<'_> {
    /// Makes the event.
    pub(crate) fn entry(&self, epoch: u64, options: &EnvelopeOptions) -> Entry {
        let topic: Option<Topic> = self.topic.parse().ok();
        if topic.is_none() {
            // the queue checks names; only whoever writes the table by hand gets here
            tracing::error!(offset = self.offset, "An entry's topic is not valid; it is not relayed.");
        }
        let relayed = topic.map(|topic| {
            let mut event = Vec::new();
            Envelope {
                id: self.id,
                source: self.source.unwrap_or(&options.source),
                kind: self.kind,
                subject: self.subject,
                time: self.at,
                dataschema: options.dataschema.as_deref().filter(|_| self.kind.starts_with("task.")),
                epoch,
                offset: self.offset,
                trace: self.trace,
                late: self.late,
                data: self.data,
            }
            .write(&mut event);
            let position = Position { epoch, offset: self.offset };
            let event = Bytes::from(event);
            // the data stands last in an event, as it came
            let end = event.len() - 1;
            let data = (self.kind == MESSAGE).then(|| event.slice(end - self.data.len()..end));
            Relayed { position, topic, event, data }
        });
        let action = Action::of(self.kind, self.subject);
        let message = (self.kind == MESSAGE).then_some(self.id);
        let cancelled = Cancelled::of(self.kind, self.subject, self.data);
        Entry { offset: self.offset, relayed, action, message, cancelled }
    }
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to number.
    Idle,
    /// Entries were numbered, by us.
    Numbered,
    /// Another node is numbering.
    Busy,
    /// The database is not the one that the numbering was begun in: open it again.
    Moved,
}

/// What is known after a step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) outcome: Outcome,
    pub(crate) epoch: u64,
    /// The newest offset that was given.
    pub(crate) last: u64,
    /// How many were numbered.
    pub(crate) numbered: u64,
    /// There is more to number already.
    pub(crate) more: bool,
    /// The first of what was numbered; the rest is read by offset.
    pub(crate) entries: Vec<Entry>,
}

/// What a read by filter found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) bounds: Bounds,
    pub(crate) entries: Vec<Relayed>,
    pub(crate) scanned_to: u64,
}

/// Which part of the journal a read is about.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) filter: Filter,
    pub(crate) after: u64,
    pub(crate) to: u64,
    pub(crate) count_max: u32,
    pub(crate) bytes_max: usize,
}

/// A message as it is written.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) topic: Topic,
    /// What its publisher called it.
    pub(crate) id: Option<Box<str>>,
    /// What we call it.
    pub(crate) entry: Uuid,
    /// JSON on one line.
    pub(crate) data: Box<str>,
}

/// Where an entry without a number waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its number among the writers.
    pub(crate) seq: i64,
    /// Its offset will lie behind this one.
    pub(crate) behind: i64,
}

/// What became of a message, once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It has its number, or the one of the same id before it.
    Numbered(Position),
    /// It gets its number when it is this entry's turn, which is another's if the id was used before.
    Waiting(Uuid, Place),
}

/// What is in the journal and not yet on the bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// How many entries, with and without a number.
    pub(crate) events: u64,
    /// How long ago the oldest was written.
    pub(crate) age: Duration,
}

/// A journal in a database. Everything may be called from any node; the database decides who numbers.
#[async_trait]
pub(crate) trait JournalStore: Send + Sync + 'static {
    /// Makes sure that the numbering is one of this database, with a new epoch when it was moved, restored or rewound
    /// behind `known`, and says what there is.
    async fn open(&self, known: Option<Position>) -> Result<Bounds, NotifierError>;

    /// Numbers what has become visible and has waited for `patience`, committed when this returns.
    async fn step(&self, patience: Duration) -> Result<Step, NotifierError>;

    /// What the journal holds now, of all channels together: what lies before `first` is gone.
    async fn bounds(&self) -> Result<Bounds, NotifierError>;

    /// What it holds now of what a filter matches: from `first` on all of it.
    async fn bounds_of(&self, filter: Filter) -> Result<Bounds, NotifierError>;

    /// Entries behind an offset, in order.
    async fn page(&self, epoch: u64, after: u64) -> Result<Vec<Entry>, NotifierError>;

    /// Entries by filter.
    async fn read(&self, range: Range) -> Result<Found, NotifierError>;

    /// The offset behind which the last `count` entries that match begin.
    async fn before_last(&self, filter: Filter, count: u32) -> Result<u64, NotifierError>;

    /// Writes messages in their order, all or none, committed when this returns. No two of them have the same topic
    /// and id; one whose id was used within [`ID_WINDOW`] is not written again.
    async fn keep(&self, messages: &[Kept]) -> Result<Vec<Stored>, NotifierError>;

    /// The numbers of entries, as far as they have one.
    async fn find(&self, places: &[Place]) -> Result<Vec<Option<Position>>, NotifierError>;

    /// Forgets at most `batch` ids whose time is over, and says how many.
    async fn forget_ids(&self, batch: u32) -> Result<u64, NotifierError>;

    /// Asks writers to notify, or to stop it.
    async fn arm(&self, armed: bool) -> Result<(), NotifierError>;

    /// Says which channels there are besides the one of all others. When they are not those that were, what is kept is
    /// counted anew.
    async fn assign(&self, prefixes: &[String]) -> Result<(), NotifierError>;

    /// Counts at most `batch` entries for their channels, and says how many.
    async fn count(&self, batch: u32) -> Result<u64, NotifierError>;

    /// Lets go of what a channel has beyond its retention, the oldest first. What is not counted stays.
    async fn trim(&self, prefix: &str, retention: &Retention, trim: Trim) -> Result<Trimmed, NotifierError>;

    /// Moves the floor of the journal to the oldest entry that any channel keeps.
    async fn sweep(&self) -> Result<(), NotifierError>;

    /// What lies beyond what was relayed; of what has no number yet, at most so many are counted. Where nothing was relayed
    /// yet, everything with a number counts as if it had been.
    async fn lag(&self, relayed: Option<u64>, count_max: u64) -> Result<Lag, NotifierError>;

    /// Room for the days to come, and none for empty days that have gone.
    async fn tend(&self) -> Result<(), NotifierError>;

    /// Changes whenever there may be new entries. It only wakes.
    fn events(&self) -> watch::Receiver<u64>;

    /// Is every commit signalled by `events`, so that nothing needs to be polled for?
    fn signalled(&self) -> bool;

    /// A recorder says how far it is.
    async fn confirm(&self, confirmation: &Confirmation) -> Result<Confirmed, NotifierError>;

    /// All recorders, by name.
    async fn recorders(&self) -> Result<Vec<Recorder>, NotifierError>;

    /// Nothing is kept for it any more. Answers whether it was known.
    async fn forget_recorder(&self, name: &str) -> Result<bool, NotifierError>;

    /// How much is kept unless somebody says otherwise.
    async fn retention(&self) -> Result<Retention, NotifierError>;
}

/// So long is the id of a message remembered.
pub(crate) const ID_WINDOW: Duration = Duration::from_secs(120);

/// The journal of a database. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    pub(crate) store: Arc<dyn JournalStore>,
    /// The jobs in the same database.
    pub(crate) queue: Arc<dyn Store>,
    pub(crate) waits: Arc<Waits>,
    history: Arc<JournalHistory>,
}

impl Journal {
    /// The journal of the queue's database, with the usual bounds. Nothing is connected yet. To be called on a tokio
    /// runtime: what keeps messages runs there.
    pub fn open(backend: &Backend, envelope: EnvelopeOptions) -> Journal {
        Journal::open_with(backend, envelope, JournalOptions::default())
    }

    /// As [`Journal::open`], with bounds.
    pub fn open_with(backend: &Backend, envelope: EnvelopeOptions, options: JournalOptions) -> Journal {
        let (reads_max, keep) = (options.reads_max, options.keep.clone());
        let store: Arc<dyn JournalStore> = match backend {
            Backend::Postgres(store) => Arc::new(PgJournal::new(store.clone(), envelope, options)),
            Backend::Sqlite(store) => Arc::new(SqliteJournal::new(store.clone(), envelope, &options)),
        };
        let waits = Arc::new(Waits::default());
        let keeper = Keeper::start(store.clone(), waits.clone(), keep);
        let history = Arc::new(JournalHistory::new(store.clone(), reads_max, keeper));
        Journal { history, waits, queue: backend.store(), store }
    }

    /// What the bus reads back from.
    pub fn history(&self) -> Arc<dyn History> {
        self.history.clone()
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::CloudEvent;

    fn row<'a>(topic: &'a str, kind: &'a str) -> Row<'a> {
        Row {
            offset: 7,
            at: "2026-11-22T02:00:00.123456Z".parse().unwrap(),
            id: Uuid::nil(),
            topic,
            kind,
            subject: "42",
            trace: None,
            late: None,
            data: r#"{"id":42}"#,
            source: None,
        }
    }

    fn options() -> EnvelopeOptions {
        EnvelopeOptions { dataschema: Some("http://h/schemas/job.json".into()), ..EnvelopeOptions::default() }
    }

    #[test]
    fn an_entry_becomes_an_event_that_carries_its_position() {
        let entry = row("task/import/42", "task.finished").entry(3, &options());
        let relayed = entry.relayed.unwrap();
        let event: CloudEvent = serde_json::from_slice(&relayed.event).unwrap();
        assert_eq!(event.position(), Some(Position { epoch: 3, offset: 7 }));
        assert_eq!(relayed.position, event.position().unwrap());
        assert_eq!(entry.action.map(Action::message).as_deref(), Some(r#"[42,"finished"]"#));
        assert!(String::from_utf8(relayed.event.to_vec()).unwrap().contains("schemas/job.json"));
    }

    #[test]
    fn an_entry_of_others_says_whose_it_is() {
        let source = |row: Row<'_>| {
            let event = row.entry(1, &options()).relayed.unwrap().event;
            serde_json::from_slice::<CloudEvent>(&event).unwrap().source
        };
        assert_eq!(source(row("task/import/42", "task.finished")), "/minium/default");
        let of_minion = Row { source: Some("/minion/app"), ..row("task/import/42", "task.finished") };
        assert_eq!(source(of_minion), "/minion/app");
    }

    #[test]
    fn a_cancellation_says_which_run() {
        let data = r#"{"id":42,"attempt":3,"args":[{"attempt":9}]}"#;
        let of = |kind| Row { data, ..row("task/import/42", kind) }.entry(1, &options()).cancelled;
        assert_eq!(of("task.cancelled"), Some(Cancelled { job: 42, attempt: 3 }));
        assert_eq!(of("task.failed"), None);
    }

    #[test]
    fn only_task_events_are_described_by_the_schema_of_jobs() {
        let relayed = row("livesys/7", "message").entry(1, &options()).relayed.unwrap();
        assert!(!String::from_utf8(relayed.event.to_vec()).unwrap().contains("dataschema"));
    }

    #[test]
    fn an_entry_whose_topic_cannot_be_said_still_has_its_offset() {
        let entry = row("task//42", "task.enqueue").entry(1, &options());
        assert!(entry.relayed.is_none());
        assert_eq!(entry.offset, 7);
    }
}
