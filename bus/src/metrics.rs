//! Names of what the bus measures. Labels never hold topics: their number has no bound. `channel` is the
//! prefix of one that is configured (`channels`).

use crate::options::Slow;
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::sync::Arc;

/// Sessions that are open now.
const SESSIONS: &str = "minium_bus_sessions";
/// Messages taken from clients and the journal, by `pattern` and `channel`.
const PUBLISHED: &str = "minium_bus_messages_published_total";
/// Messages written to clients, by `channel`.
const DELIVERED: &str = "minium_bus_messages_delivered_total";
/// Messages that did not go on, by `channel` and `reason`.
const DROPPED: &str = "minium_bus_messages_dropped_total";
/// Subscribers that lost their place in memory, by `policy`: what became of them.
const FELL_BEHIND: &str = "minium_bus_slow_consumers_total";
/// Topics that are counted no more, since others needed the room.
const FORGOTTEN: &str = "minium_bus_topics_forgotten_total";
/// Sessions that ended, by close `code`; 1006 without a word.
const CLOSED: &str = "minium_bus_sessions_closed_total";
/// From when a shard was given messages until its sockets had them.
const DELIVERY_SECONDS: &str = "minium_bus_delivery_seconds";

/// Tells the recorder what the names mean; to be called once, after it is installed.
pub fn describe() {
    describe_gauge!(SESSIONS, "Sessions that are open.");
    describe_counter!(PUBLISHED, "Messages taken from clients and the journal.");
    describe_counter!(DELIVERED, "Messages written to clients.");
    describe_counter!(DROPPED, "Messages that did not go on.");
    describe_counter!(FELL_BEHIND, "Subscribers that lost their place in memory.");
    describe_counter!(FORGOTTEN, "Topics whose counts were given up for others.");
    describe_counter!(CLOSED, "Sessions that ended, by close code.");
    describe_histogram!(
        DELIVERY_SECONDS,
        Unit::Seconds,
        "From when messages were taken until all sockets that took them had them."
    );
}

/// How long deliveries take.
pub(crate) fn delivery() -> Histogram {
    histogram!(DELIVERY_SECONDS)
}

/// The gauge of sessions.
pub(crate) fn sessions(now: usize) {
    gauge!(SESSIONS).set(now as f64);
}

/// Messages by pattern: `sub`, `push`, `bus`, or `relay` for what comes from the journal.
pub(crate) fn published(pattern: &'static str, channel: Arc<str>) -> Counter {
    counter!(PUBLISHED, "pattern" => pattern, "channel" => channel)
}

/// Messages written out.
pub(crate) fn delivered(channel: Arc<str>) -> Counter {
    counter!(DELIVERED, "channel" => channel)
}

/// Messages by channel, so that a counter is looked up once however many there are: mostly of one channel.
#[derive(Debug, Default)]
pub(crate) struct ByChannel(Vec<(Arc<str>, u64)>);

impl ByChannel {
    /// One message of this channel.
    pub(crate) fn add(&mut self, channel: Arc<str>) {
        match self.0.iter_mut().find(|(known, _)| *known == channel) {
            Some((_, count)) => *count += 1,
            None => self.0.push((channel, 1)),
        }
    }

    /// Counts all of them.
    pub(crate) fn count(self, counter: impl Fn(Arc<str>) -> Counter) {
        for (channel, count) in self.0 {
            counter(channel).increment(count);
        }
    }
}

/// Messages that did not go on: an error code, or `shutdown`.
pub(crate) fn dropped(channel: Arc<str>, reason: &'static str) {
    counter!(DROPPED, "channel" => channel, "reason" => reason).increment(1);
}

/// A subscriber that lost its place in memory.
pub(crate) fn fell_behind(policy: Slow) {
    let policy = match policy {
        Slow::Replay => "replay",
        Slow::Close => "close",
        Slow::Gap => "gap",
    };
    counter!(FELL_BEHIND, "policy" => policy).increment(1);
}

/// Topics whose counts were given up.
pub(crate) fn topics_forgotten(count: u64) {
    counter!(FORGOTTEN).increment(count);
}

/// A session that ended.
pub(crate) fn closed(code: u16) {
    // a client may choose any code, and labels are bounded
    let known = matches!(code, 1000..=1014 | 4000..=4002 | 4029 | 4500..=4504);
    let code = if known { code.to_string() } else { "other".to_owned() };
    counter!(CLOSED, "code" => code).increment(1);
}
