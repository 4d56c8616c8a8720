//! The notifier: numbers the journal, relays it to the bus, and reads it back for those who resume.
//!
//! It is the only part that knows both the database and the bus. Every transition of the queue leaves an entry in the
//! journal; the notifier gives each a dense offset after its commit, makes it an event, and brings it to the bus in
//! the order of offsets. Whoever comes back with a position reads on from the journal, byte for byte what went out
//! live. What clients publish on durable channels comes the other way: it is kept here, answered with its number, and
//! goes out by the relay like everything else.
//!
//! ```no_run
//! # async fn example(bus: minium_bus::Bus) -> Result<(), Box<dyn std::error::Error>> {
//! use minium_notifier::{EnvelopeOptions, Journal, Relay, RelayOptions};
//! use minium_queue::Backend;
//! use tokio_util::sync::CancellationToken;
//!
//! let backend = Backend::open(&"sqlite::memory:".parse()?).await?;
//! backend.migrate().await?;
//! let journal = Journal::open(&backend, EnvelopeOptions::default());
//! let history = journal.history(); // the bus is started with this
//! let stop = CancellationToken::new();
//! let relay = Relay::start(&journal, bus, RelayOptions::default(), stop.clone());
//! stop.cancel();
//! relay.join().await;
//! # drop(history); Ok(()) }
//! ```
//!
//! **Invariants.** Offsets are dense and given after the commit of what they number. A position moves only over a
//! gapless prefix. Nothing is published, and no message acknowledged, before the commit that numbered it. An entry's
//! event has the same bytes live, on replay and after a restart. What pullers get and say goes through the queue alone
//! ([`TaskWork`]). A database that is gone is waited for, for ever, and the wait is visible.
//!
//! **Allowed imports**: minium-queue for its databases, minium-bus for its traits, the SQL clients. No HTTP, no
//! WebSocket, no configuration files.

#![allow(
    clippy::result_large_err,
    reason = "a problem is made when something is refused, not on the way of what passes"
)]

mod attach;
mod error;
mod history;
mod journal;
mod keep;
pub mod metrics;
mod minion;
mod postgres;
mod prefix;
mod pressure;
mod reach;
mod recorders;
mod relay;
mod retention;
mod sinks;
mod sqlite;
mod turn;
mod waits;
mod wake;
mod work;

pub use attach::{AttachError, AttachOptions, Attached, MinionDatabase, Report};
pub use error::NotifierError;
pub use journal::{EnvelopeOptions, Journal, JournalOptions};
pub use keep::KeepOptions;
pub use pressure::LagOptions;
pub use recorders::{Confirmation, Confirmed, Hold, RECORDERS_MAX, RECORDERS_OF_ONE_MAX, Recorder};
pub use relay::{Relay, RelayHandle, RelayOptions, RelayState};
pub use retention::{Policy, Retention, Retentions};
pub use sinks::{
    Begin, FORGET_AFTER_MIN, FollowOptions, REMEMBER, Rule, SINK_PREFIX, Sink, SinkEvent, follow,
    forget_strangers, is_any_registered, is_registered,
};
pub use wake::WakeOptions;
pub use work::{ArgsCheck, StoreSlot, TaskWork, WorkOptions};
