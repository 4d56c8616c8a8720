//! The broker: channels, sessions and schemas on share-nothing shards.
//!
//! A [`Bus`] takes checked WebSocket upgrades ([`Opening`]) and publishes, hands out and passes on messages between
//! them, in three patterns that are strangers to one another: publish and subscribe (by hierarchy), push and pull
//! (round robin), and peers. What a journal relays to it goes to subscribers in offset order, and whoever fell behind
//! or comes back reads the rest from the journal's [`History`].
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//! use minium_bus::{Backing, Bus, Message, Options};
//! use std::time::Duration;
//!
//! let bus = Bus::start(Options::default(), Backing::default())?;
//! let permit = bus.admit()?;
//! let mut events = bus.subscribe("news".parse()?, None, None, permit).await?;
//! bus.publish(&"news/local".parse()?, Message::Text("hello".into()), None).await?;
//! assert_eq!(events.next().await.as_deref(), Some(&b"data: hello\n\n"[..]));
//! bus.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! **Invariants.** A socket lives on one thread, and only that thread's shard writes it. A session is registered
//! before its 101 is written. Frames never contain anything about one subscriber, so a message is encoded once per
//! mode. Control frames go out between frames only, never inside one. Every queue is bounded, and whoever falls
//! behind is told: by a refusal, by a close code, or by a replay that leaves no gap. A panic ends one session.
//! Routing is pure.
//!
//! **Allowed imports**: tokio, tungstenite (reading only: our own encoder writes), rustls, socket2, jsonschema,
//! serde_json, metrics. No database, no HTTP framework, no queue.

#![allow(
    clippy::result_large_err,
    reason = "a problem is made when something is refused, not on the way of what passes"
)]

mod allowance;
mod bus;
mod channels;
mod encode;
mod error;
#[cfg(test)]
mod faults;
mod follow;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod history;
mod hub;
mod inbox;
mod lanes;
mod latest;
mod lists;
mod log;
mod merge;
mod message;
pub mod metrics;
mod opening;
mod options;
mod outside;
mod pattern;
mod peers;
mod publish;
mod reads;
mod recent;
mod relay;
mod resolve;
mod ring;
mod routing;
mod schemas;
mod seats;
mod session;
mod sessions;
mod shard;
mod shelf;
mod subscription;
mod tally;
mod upkeep;
mod walk;
mod work;

pub use allowance::{Allowance, Rate};
pub use bus::{Backing, Bus, LiveChannel, Stats};
pub use channels::{Channel, Channels, ChannelsError};
pub use error::BusError;
pub use grant::{Grant, Review, Revoked};
pub use history::{Bounds, Draft, History, HistoryError, Page, Relayed};
pub use lists::{SessionPage, SessionQuery, TopicPage, TopicQuery, TopicView};
pub use message::Message;
pub use opening::{Mode, Opening, Permit, Role, Socket, Start};
pub use options::{Options, Slow};
pub use pattern::Pattern;
pub use schemas::{
    BUILT_IN_SCHEMAS, BuiltInSchema, Governs, RefusedSchema, Report, Schema, SchemaFile, SchemaOptions,
    SchemaView, Schemas,
};
pub use seats::SessionView;
pub use subscription::Subscription;
pub use work::{LeasedJob, Order, Puller, Pulling, Pushed, Said, Saying, Word, Work};
