//! (being written)
use crate::*;
use crate::hub::Hub;
use std::sync::Arc;
use std::time::Duration;
use minium_protocol::*;

/// The handle of a running bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus { hub: Arc<Hub>, options: Arc<Options> }

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
pub struct Channel {
    /// Its name space.
    pub pattern: Pattern,
    /// Its name.
    pub filter: String,
}

fn soon() -> Problem { Problem::new(ErrorCode::Unavailable, "the bus is being written") }

#[allow(unused_variables, clippy::unused_async, clippy::needless_pass_by_value, reason = "skeleton")]
impl Bus {
    /// Starts the shards. Called on a tokio runtime: history calls run there.
    pub fn start(options: Options, schemas: Arc<Schemas>, history: Option<Arc<dyn History>>) -> Result<Bus, BusError> {
        Ok(Bus { hub: Arc::default(), options: Arc::new(options) })
    }
    /// Room for one session more, to be asked before the 101.
    pub fn admit(&self) -> Result<Permit, Problem> {
        Permit::take(&self.hub, self.options.sessions_max).ok_or_else(soon)
    }
    /// Finds where a subscription begins.
    pub async fn resolve(&self, filter: &Filter, after: After) -> Result<Option<Start>, Problem> { Err(soon()) }
    /// Gives an upgrade to a shard.
    pub fn open(&self, opening: Opening) {}
    /// Publishes one message to subscribers.
    pub async fn publish(&self, topic: &Topic, message: Message) -> Result<(), Problem> { Err(soon()) }
    /// Sends one message to all peers.
    pub async fn send(&self, topic: &Topic, message: Message) -> Result<(), Problem> { Err(soon()) }
    /// Hands one message to a puller.
    pub async fn push(&self, topic: &Topic, message: Message) -> Result<(), Problem> { Err(soon()) }
    /// Subscribes as SSE.
    pub async fn subscribe(&self, filter: Filter, start: Option<Start>, permit: Permit) -> Result<Subscription, Problem> { Err(soon()) }
    /// Says how far the numbering of the journal is known.
    pub async fn relay_from(&self, position: Position) {}
    /// Relays entries in offset order.
    pub async fn relay(&self, batch: Vec<Relayed>) {}
    /// What it holds now.
    pub fn stats(&self) -> Stats { Stats { sessions: 0, channels: 0, relayed: None } }
    /// Topics and filters that somebody receives, at most `max`, in no order.
    pub fn channels(&self, max: usize) -> Vec<Channel> { Vec::new() }
    /// Closes all sessions with 1001 and waits for them, at most `grace`.
    pub async fn shutdown(&self, grace: Duration) {}
}
