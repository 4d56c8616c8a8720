//! The bounds of a bus, each with a default.

use crate::allowance::Rate;
use crate::error::BusError;
use std::num::NonZero;
use std::time::Duration;

/// More shards than this are not told apart in the interest table.
pub(crate) const SHARDS_MAX: usize = 64;

/// What happens to a subscriber whose next message is no longer in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// It reads on from the journal, then joins again. For durable topics only.
    Replay,
    /// It is closed with 4000.
    Close,
    /// It is told that it missed something, and goes on with what is new. Where the mode has no word for that
    /// (minium.v1 has), it is closed.
    Gap,
}

/// Bounds and habits of a bus. All have defaults; change the ones you mean.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that own sockets; by default one per core, but for one core that is left to everything else (ADR 0007).
    pub shards: usize,
    /// Sessions in all, WebSocket and SSE together.
    pub sessions_max: usize,
    /// The longest message; one byte more closes with 1009.
    pub message_bytes_max: usize,
    /// `source` of the events that ephemeral messages are wrapped in.
    pub source: String,
    /// How long one message may take to arrive; then its session is closed with 1008.
    pub message_time_max: Duration,
    /// What all sessions of the node have half read; the one that goes beyond is closed with 1013.
    pub half_read_bytes_max: usize,
    /// Between pings; two that are not answered end a session.
    pub ping_interval: Duration,
    /// Between comments on SSE streams, so that proxies keep them open.
    pub comment_interval: Duration,
    /// How long a closing session waits for the client to end its side.
    pub linger: Duration,
    /// What a topic keeps in each shard for subscribers that lag, for each mode.
    pub ring_bytes_max: usize,
    /// What all topics of a shard keep; beyond it each keeps one segment.
    pub rings_bytes_max: usize,
    /// Messages on their way to a shard; publishers wait when there are more.
    pub inbox_bytes_max: usize,
    /// Own words for one session, such as pongs and refusals; its client isn't read while there are more.
    pub control_bytes_max: usize,
    /// What an SSE subscriber may leave unread before it counts as blocked.
    pub stream_bytes_max: usize,
    /// Publishers wait for subscribers that make progress (a sixteenth of a ring in 100 ms); those who make less for
    /// so long are not waited for.
    pub patience: Duration,
    /// What the kernel holds back unsent for one socket; zero leaves it to the kernel.
    pub unsent_bytes_max: usize,
    /// Messages that wait for a puller, for each topic.
    pub waiting_count_max: usize,
    /// Bytes that wait for a puller, for each topic.
    pub waiting_bytes_max: usize,
    /// Bytes that wait for pullers of all topics together.
    pub waiting_total_bytes_max: usize,
    /// Bytes on their way to one puller, messages of one topic or jobs of all; one that has more gets none meanwhile.
    pub puller_bytes_max: usize,
    /// How long a POST of work waits while all pullers are full.
    pub push_wait: Duration,
    /// Reads of history at once.
    pub replays_max: usize,
    /// How long the journal or the queue may take to answer a session.
    pub outside_patience: Duration,
    /// What one session may send; nothing where that has no bound.
    pub session_rate: Option<Rate>,
    /// Messages, jobs or words of one session that go to the journal or the queue at once.
    pub run_count_max: usize,
    /// Subscriptions of one session, and topics of which it is a peer.
    pub session_subs_max: usize,
    /// Different orders of work of one session.
    pub session_pulls_max: usize,
    /// The newest entries of the journal, kept in memory for those who come back.
    pub recent_bytes_max: usize,
    /// The last message of each topic, kept in memory for `?last=1`.
    pub latest_bytes_max: usize,
    /// Topics of which it is known what was sent on them; those go first that were longest quiet.
    pub topics_max: usize,
    /// Questions about all shards that are open at one time.
    pub lists_max: usize,
    /// How long a shard may take to say what it has.
    pub lists_patience: Duration,
    /// Pages of history that are kept for others who ask for the same.
    pub pages_bytes_max: usize,
    /// Entries in one page of history.
    pub page_count_max: u32,
    /// Bytes after which a page of history ends.
    pub page_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Options {
            shards: cores.saturating_sub(1).clamp(1, SHARDS_MAX),
            sessions_max: 65_536,
            message_bytes_max: 262_144,
            source: "/minium/default".into(),
            message_time_max: Duration::from_secs(60),
            half_read_bytes_max: 256 << 20,
            ping_interval: Duration::from_secs(30),
            comment_interval: Duration::from_secs(15),
            linger: Duration::from_secs(5),
            ring_bytes_max: 16 << 20,
            rings_bytes_max: 256 << 20,
            inbox_bytes_max: 1 << 20,
            control_bytes_max: 256 << 10,
            stream_bytes_max: 256 << 10,
            patience: Duration::from_millis(250),
            unsent_bytes_max: 128 << 10,
            waiting_count_max: 1_000,
            waiting_bytes_max: 1 << 20,
            waiting_total_bytes_max: 64 << 20,
            puller_bytes_max: 1 << 20,
            push_wait: Duration::from_secs(5),
            replays_max: 16,
            outside_patience: Duration::from_secs(10),
            session_rate: None,
            run_count_max: 1_024,
            session_subs_max: 1_024,
            session_pulls_max: 64,
            recent_bytes_max: 4 << 20,
            latest_bytes_max: 16 << 20,
            topics_max: 10_000,
            lists_max: 64,
            lists_patience: Duration::from_secs(2),
            pages_bytes_max: 16 << 20,
            page_count_max: 512,
            page_bytes_max: 64 << 10,
        }
    }
}

impl Options {
    /// Refuses bounds under which nothing could work.
    pub(crate) fn check(&self) -> Result<(), BusError> {
        let fault = |name, value: usize, must| Err(BusError::Option { name, value: value as u64, must });
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return fault("shards", self.shards, "1 to 64");
        }
        if self.message_bytes_max == 0 || self.message_bytes_max > 1 << 30 {
            return fault("message_bytes_max", self.message_bytes_max, "1 B to 1 GiB");
        }
        let least = [
            ("replays_max", self.replays_max),
            ("run_count_max", self.run_count_max),
            ("session_subs_max", self.session_subs_max),
            ("session_pulls_max", self.session_pulls_max),
            ("page_count_max", self.page_count_max as usize),
            ("page_bytes_max", self.page_bytes_max),
            ("ring_bytes_max", self.ring_bytes_max),
            ("inbox_bytes_max", self.inbox_bytes_max),
            ("control_bytes_max", self.control_bytes_max),
            ("stream_bytes_max", self.stream_bytes_max),
            ("puller_bytes_max", self.puller_bytes_max),
        ];
        if let Some((name, _)) = least.into_iter().find(|(_, value)| *value == 0) {
            return fault(name, 0, "1 or more");
        }
        if self.ping_interval < Duration::from_millis(10) {
            return fault("ping_interval", self.ping_interval.as_millis() as usize, "10 ms or more");
        }
        Ok(())
    }
}
