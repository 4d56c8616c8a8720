//! A client of Minium: subscriptions that survive, publishing, work channels, peers, and the HTTP API for jobs.
//!
//! ```no_run
//! use futures::StreamExt;
//! use minium_client::{Client, ConnectOptions, Event};
//! use minium_protocol::After;
//!
//! # async fn run() -> Result<(), minium_client::ClientError> {
//! let client = Client::new("http://127.0.0.1:3000", None)?;
//! let connection = client.connect(ConnectOptions::default())?;
//! let mut events = connection.subscribe(&"task".parse().expect("a filter"), After::Earliest).await?;
//! while let Some(event) = events.next().await {
//!     match event? {
//!         Event::Message(message) => println!("{} {}", message.topic, message.payload),
//!         Event::Lost(_) => events.begin(After::Earliest).await?,
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Invariants.** A subscription of a durable topic yields each message once and in order, across any number of cuts,
//! or says why it cannot; it never skips in silence. A subscription of anything else says where messages may be
//! missing. What was published and not acknowledged is said again with the same id. Close codes decide whether a
//! client comes back. No byte goes to a server of `https` whose certificate was not checked. Every wait, buffer and message has a bound in an options struct. Nothing runs longer than its
//! [`Client`] when [`Client::close`] is awaited.
//!
//! **Allowed imports**: protocol, tokio, tokio-tungstenite, hyper, rustls. No SQL, no axum; neither environment nor files,
//! but for the system's certificate authorities where nobody names others.

mod address;
mod backoff;
mod client;
mod connection;
mod dial;
mod error;
mod health;
mod history;
mod http;
mod jobs;
mod link;
mod lists;
mod locks;
mod logs;
mod many;
mod message;
mod order;
mod queues;
mod recorders;
mod schedules;
mod segment;
mod socket;
mod subscription;
mod tls;
mod workers;

pub use backoff::Backoff;
pub use client::{Client, ClientOptions};
pub use connection::{
    ConnectOptions, Connection, Event, LeasedJob, Payload, Peer, PeerEvent, PeerSender, Pending, PullOptions,
    Puller, Receipt, Received, State, Subscription, TaskEvent, TokenSource, Work,
};
pub use error::ClientError;
pub use health::Readiness;
pub use history::HistoryPage;
pub use jobs::{AmendRequest, EnqueuedJob, JobInfo, JobList, JobQuery, ParentPage, RetryRequest, Statistics};
pub use lists::{SchemaInfo, SessionInfo, SessionList, TopicInfo, TopicList, TopicListQuery};
pub use locks::LockList;
pub use logs::LogList;
pub use many::{BulkAction, BulkDone};
pub use message::Message;
pub use queues::{FailureInfo, HourInfo, LimitInfo, QueueInfo};
pub use schedules::{ScheduleFields, ScheduleInfo, ScheduleList};
pub use tls::{Identity, TlsFault, TlsOptions};
pub use workers::{WorkerInfo, WorkerList, WorkerQuery};

/// Sessions that speak plain mode, where a frame is one message, bare: for bytes that are no JSON, and for programs
/// that must hear exactly what others hear.
pub mod plain {
    pub use crate::client::Mode;
    pub use crate::link::{Peer, Publisher, Speaker};
    pub use crate::subscription::{Received, Status, SubscribeOptions, Subscription};
}
