//! A client of Minium: subscriptions that survive, publishing, work channels, peers, and the HTTP API for jobs.
//!
//! ```no_run
//! use futures::StreamExt;
//! use minium_client::{Client, SubscribeOptions};
//! use minium_protocol::After;
//!
//! # async fn run() -> Result<(), minium_client::ClientError> {
//! let client = Client::new("http://127.0.0.1:3000", None)?;
//! let options = SubscribeOptions { after: After::Earliest, ..SubscribeOptions::default() };
//! let mut events = client.subscribe(&"task".parse().expect("a filter"), options).await?;
//! while let Some(received) = events.next().await {
//!     let received = received?;
//!     println!("{:?} {}", received.position, received.message);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Invariants.** A subscription of a durable topic yields each event once and in order, across any number of cuts,
//! or ends with an error that says why it cannot; it never skips in silence. A subscription of anything else says
//! with [`Received::after_gap`] where messages may be missing. Close codes decide whether a client comes back.
//! Every wait, buffer and message has a bound in an options struct. Nothing runs longer than its [`Client`] when
//! [`Client::close`] is awaited.
//!
//! **Allowed imports**: protocol, tokio, tokio-tungstenite, reqwest. No SQL, no axum, no environment, no files.

mod address;
mod backoff;
mod client;
mod error;
mod http;
mod jobs;
mod link;
mod message;
mod order;
mod socket;
mod subscription;

pub use backoff::Backoff;
pub use client::{Client, ClientOptions, Mode};
pub use error::ClientError;
pub use jobs::{EnqueuedJob, JobInfo, JobList, JobQuery, RetryRequest, Statistics};
pub use link::{Peer, Publisher, Speaker};
pub use message::Message;
pub use subscription::{Received, Status, SubscribeOptions, Subscription};
