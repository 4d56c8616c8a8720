//! What is measured, as a table: each row is a load, those who are put under it, and what is aimed at (issue 4, section 5).

use super::ours::Dress;
use super::peers::Peer;

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) load: Load,
    pub(super) contenders: &'static [Contender],
    pub(super) aims: &'static [Aim],
}

/// Somebody under load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) who: Who,
    /// Bytes of a job's arguments.
    pub(super) bytes: usize,
    pub(super) beside: Beside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Minium(Dress),
    /// pgmq's SQL, written down here.
    Pgmq,
    Peer(Peer),
}

impl Who {
    /// Is it measured only with `--peers`?
    pub(super) fn is_peer(self) -> bool {
        !matches!(self, Who::Minium(_))
    }
}

/// What else is there meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// A REPEATABLE READ transaction that holds back vacuum.
    Snapshot,
    /// A million finished jobs.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Preloaded jobs that do nothing, worked off.
    Drain,
    /// One job in each call, over so many connections.
    Singles { connections: usize },
    /// A thousand jobs in each call.
    Bulk,
    /// Single jobs into an idle queue.
    Pickup,
    /// From the event's time to a WebSocket subscriber, at a steady rate.
    Subscriber,
    /// A producer and two workers for as long as `--seconds` says.
    FlatOut,
    /// Drain and reads, with and without a million finished jobs.
    Kept,
    /// Bytes of write-ahead log of a job's whole life.
    Wal,
    /// A SQLite file, every commit on the disk.
    Sqlite,
}

/// Jobs in one call of a bulk enqueue.
pub(super) const BULK: usize = 1_000;

/// What is aimed at: a contender's figure by itself, or in shares of others' figures of the same round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aim {
    pub(super) contender: &'static str,
    pub(super) figure: &'static str,
    pub(super) of: Of,
    pub(super) bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Itself,
    One(&'static str),
    /// The best of all peers in that round.
    BestPeer,
    /// The best of all peers but one, which has an aim of its own.
    BestPeerBut(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

// Names of figures, as they stand in the JSON.
pub(super) const PER_SECOND: &str = "jobs_per_second";
pub(super) const DATABASE_CPU: &str = "database_cpu_us_per_job";
pub(super) const CLIENT_CPU: &str = "client_cpu_us_per_job";
pub(super) const NODE_CPU: &str = "node_cpu_us_per_job";
pub(super) const FOREIGN_CPU: &str = "foreign_cpu_seconds";
pub(super) const WAL: &str = "wal_bytes_per_job";
pub(super) const WAL_PAGES: &str = "wal_full_page_bytes_per_job";
/// Events without a number when the last job was done.
pub(super) const BEHIND: &str = "events_behind";
pub(super) const RELAYED_SECONDS: &str = "seconds_until_all_is_numbered";
/// From the command to work until the first job was handled.
pub(super) const FIRST: &str = "first_handled_after_ms";
pub(super) const ACK_P50: &str = "ack_to_handler_p50_ms";
pub(super) const ACK_P99: &str = "ack_to_handler_p99_ms";
pub(super) const CALL_P50: &str = "call_to_handler_p50_ms";
pub(super) const CALL_P99: &str = "call_to_handler_p99_ms";
pub(super) const ARRIVAL_P50: &str = "event_to_subscriber_p50_ms";
pub(super) const ARRIVAL_P99: &str = "event_to_subscriber_p99_ms";
/// The rate of the last third of the windows as a share of that of the first third.
pub(super) const STEADINESS: &str = "last_third_of_first";
pub(super) const WINDOWS: &str = "windows_jobs_per_second";
/// The longest of all medians of reads.
pub(super) const READ: &str = "slowest_read_ms";
pub(super) const READS: &str = "reads_ms";
pub(super) const ENQUEUED: &str = "enqueued_per_second";

const fn contender(name: &'static str, who: Who) -> Contender {
    Contender { name, who, bytes: 60, beside: Beside::Nothing }
}

const fn wide(name: &'static str, who: Who) -> Contender {
    Contender { name, who, bytes: 1_024, beside: Beside::Nothing }
}

const fn beside(contender: Contender, name: &'static str, beside: Beside) -> Contender {
    Contender { name, beside, ..contender }
}

const fn least(contender: &'static str, figure: &'static str, of: Of, bound: f64) -> Aim {
    Aim { contender, figure, of, bound: Bound::AtLeast(bound) }
}

const fn most(contender: &'static str, figure: &'static str, of: Of, bound: f64) -> Aim {
    Aim { contender, figure, of, bound: Bound::AtMost(bound) }
}

const MINIUM: Contender = contender("minium", Who::Minium(Dress::Alone));
const NO_EVENTS: Contender = contender("minium-no-events", Who::Minium(Dress::NoEvents));
const RELAYED: Contender = contender("minium-relayed", Who::Minium(Dress::Relayed));
const PGMQ: Contender = contender("pgmq", Who::Pgmq);
const GRAPHILE: Contender = contender("graphile", Who::Peer(Peer::Graphile { processes: 1 }));
const GRAPHILE_2: Contender = contender("graphile-2", Who::Peer(Peer::Graphile { processes: 2 }));
const PG_BOSS: Contender = contender("pg-boss", Who::Peer(Peer::PgBoss));
const CRATE: Contender = contender("graphile-crate", Who::Peer(Peer::GraphileCrate));
const MINION: Contender = contender("minion", Who::Peer(Peer::Minion));

const SINGLES: &[Contender] = &[MINIUM, PGMQ, GRAPHILE, PG_BOSS, CRATE, MINION];
const SINGLES_AIMS: &[Aim] = &[
    least("minium", PER_SECOND, Of::One("pgmq"), 1.75),
    least("minium", PER_SECOND, Of::BestPeerBut("pgmq"), 2.0),
];

const FLAT: Contender = contender("60 B", Who::Minium(Dress::Relayed));
const FLAT_WIDE: Contender = wide("1 KiB", Who::Minium(Dress::Relayed));
const KEPT: Contender = contender("fresh", Who::Minium(Dress::Alone));

/// All rows.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "drain",
        what: "preloaded jobs that do nothing, worked off",
        load: Load::Drain,
        contenders: &[NO_EVENTS, MINIUM, RELAYED, PGMQ, GRAPHILE, GRAPHILE_2, PG_BOSS, CRATE, MINION],
        aims: &[
            least("minium-no-events", PER_SECOND, Of::BestPeer, 1.25),
            least("minium", PER_SECOND, Of::BestPeer, 1.1),
            least("minium-relayed", PER_SECOND, Of::One("pgmq"), 0.85),
            least("minium-relayed", PER_SECOND, Of::One("pg-boss"), 1.0),
        ],
    },
    Row {
        name: "enqueue-1",
        what: "one job in each call, 1 connection",
        load: Load::Singles { connections: 1 },
        contenders: SINGLES,
        aims: SINGLES_AIMS,
    },
    Row {
        name: "enqueue-4",
        what: "one job in each call, 4 connections",
        load: Load::Singles { connections: 4 },
        contenders: SINGLES,
        aims: SINGLES_AIMS,
    },
    Row {
        name: "bulk",
        what: "1,000 jobs in each call",
        load: Load::Bulk,
        contenders: &[MINIUM, PGMQ, GRAPHILE, PG_BOSS, CRATE],
        aims: &[
            least("minium", PER_SECOND, Of::One("pgmq"), 0.6),
            least("minium", PER_SECOND, Of::BestPeerBut("pgmq"), 1.2),
        ],
    },
    Row {
        name: "pickup",
        what: "a job each 50 ms into an idle queue, to the start of its handler",
        load: Load::Pickup,
        contenders: &[RELAYED, PGMQ, GRAPHILE, PG_BOSS, CRATE, MINION],
        aims: &[
            most("minium-relayed", ACK_P50, Of::BestPeer, 1.0),
            most("minium-relayed", ACK_P99, Of::BestPeer, 1.0),
        ],
    },
    Row {
        name: "subscriber",
        what: "events to a WebSocket subscriber at a steady rate",
        load: Load::Subscriber,
        contenders: &[RELAYED],
        aims: &[
            most("minium-relayed", ARRIVAL_P50, Of::Itself, 4.0),
            most("minium-relayed", ARRIVAL_P99, Of::Itself, 15.0),
        ],
    },
    Row {
        name: "flat-out",
        what: "a producer and two workers flat out, with and without a transaction that holds back vacuum",
        load: Load::FlatOut,
        contenders: &[
            FLAT,
            beside(FLAT, "60 B, held", Beside::Snapshot),
            FLAT_WIDE,
            beside(FLAT_WIDE, "1 KiB, held", Beside::Snapshot),
        ],
        aims: &[
            least("60 B, held", PER_SECOND, Of::One("60 B"), 0.85),
            least("1 KiB, held", PER_SECOND, Of::One("1 KiB"), 0.65),
            // "not falling", in a number
            least("60 B, held", STEADINESS, Of::Itself, 0.9),
            least("1 KiB, held", STEADINESS, Of::Itself, 0.9),
        ],
    },
    Row {
        name: "kept",
        what: "drain and reads, with a million finished jobs kept",
        load: Load::Kept,
        contenders: &[KEPT, beside(KEPT, "a million kept", Beside::Finished)],
        aims: &[
            least("a million kept", PER_SECOND, Of::One("fresh"), 0.95),
            most("a million kept", READ, Of::Itself, 20.0),
        ],
    },
    Row {
        name: "wal",
        what: "write-ahead log of a job's whole life, three events and their numbers included",
        load: Load::Wal,
        contenders: &[FLAT, FLAT_WIDE],
        aims: &[most("60 B", WAL, Of::Itself, 4_000.0), most("1 KiB", WAL, Of::Itself, 10_000.0)],
    },
    Row {
        name: "sqlite",
        what: "a SQLite file, every commit on the disk: one by one, and drained in batches",
        load: Load::Sqlite,
        contenders: &[contender("sqlite", Who::Minium(Dress::Alone))],
        aims: &[
            least("sqlite", ENQUEUED, Of::Itself, 2_000.0),
            least("sqlite", PER_SECOND, Of::Itself, 15_000.0),
        ],
    },
];
