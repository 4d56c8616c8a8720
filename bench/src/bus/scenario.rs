//! What is measured, as a table: each scenario is a load, those who are put under it, and what is aimed at.

use super::server::Server;

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) load: Load,
    /// The first is judged, the others are compared with.
    pub(super) contenders: &'static [Contender],
    pub(super) aims: &'static [Aim],
}

/// A server, and what is particular about how it is loaded here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) server: Server,
    pub(super) dress: Dress,
}

/// What makes one contender different from another on the same server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dress {
    Plain,
    /// Every message is checked against a schema.
    Checked,
    /// Everybody speaks `minium.v1`.
    V1,
    /// One more subscriber that never reads.
    Stalled,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// Flat out.
    Flood(Flood),
    /// At so many messages a second, for latency.
    Steady { subscribers: usize, size: usize, rate: u64, longer: u32 },
    /// Sessions that do nothing, for long enough that each is pinged.
    Idle { sessions: usize },
    /// Opening sessions, many at once.
    Openings { sessions: usize },
    /// Messages that are kept: acknowledged by four publishers flat out, then at a rate, with one subscriber.
    Durable(Store),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flood {
    pub(super) topics: usize,
    /// To each topic.
    pub(super) subscribers: usize,
    /// And one above them all.
    pub(super) parent: bool,
    pub(super) size: usize,
    /// So many messages of all publishers together may be on their way.
    pub(super) window: u64,
}

/// Where a node keeps what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    SqliteFile,
    /// Of `--database`.
    Postgres,
}

/// What is aimed at: a figure's bound, or its bound in shares of another contender's figure of the same round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aim {
    pub(super) figure: &'static str,
    pub(super) of: Option<&'static str>,
    pub(super) bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

// Names of figures, as they stand in the JSON.
pub(super) const PER_SECOND: &str = "deliveries_per_second";
pub(super) const PER_CPU: &str = "deliveries_per_server_cpu_second";
pub(super) const LOST: &str = "lost";
pub(super) const DISORDERED: &str = "disordered";
/// Sessions that ended without being asked to.
pub(super) const ENDED: &str = "ended_sessions";
pub(super) const SERVER_CPU: &str = "server_cpu_seconds";
pub(super) const CLIENT_CPU: &str = "client_cpu_seconds";
pub(super) const FOREIGN_CPU: &str = "foreign_cpu_seconds";
pub(super) const SECONDS: &str = "seconds";
pub(super) const RSS: &str = "rss_bytes";
pub(super) const P50: &str = "latency_p50_ms";
pub(super) const P99: &str = "latency_p99_ms";
pub(super) const P999: &str = "latency_p999_ms";
pub(super) const RSS_EACH: &str = "rss_bytes_per_session";
pub(super) const CPU_PERCENT: &str = "idle_cpu_percent";
pub(super) const OPENINGS: &str = "openings_per_second";
pub(super) const OPENINGS_PER_CPU: &str = "openings_per_server_cpu_second";
pub(super) const PEAK_GROWTH: &str = "peak_rss_growth_bytes";
pub(super) const ACKED: &str = "acked_per_second";
pub(super) const ACK_TO_ARRIVAL_P50: &str = "ack_to_arrival_p50_ms";
pub(super) const ACK_TO_ARRIVAL_P99: &str = "ack_to_arrival_p99_ms";

const fn least(figure: &'static str, bound: f64) -> Aim {
    Aim { figure, of: None, bound: Bound::AtLeast(bound) }
}

const fn most(figure: &'static str, bound: f64) -> Aim {
    Aim { figure, of: None, bound: Bound::AtMost(bound) }
}

/// At least so much of another contender's.
const fn share(figure: &'static str, of: &'static str, bound: f64) -> Aim {
    Aim { figure, of: Some(of), bound: Bound::AtLeast(bound) }
}

/// At most so much of another contender's.
const fn within(figure: &'static str, of: &'static str, bound: f64) -> Aim {
    Aim { figure, of: Some(of), bound: Bound::AtMost(bound) }
}

const fn plain(name: &'static str, server: Server) -> Contender {
    Contender { name, server, dress: Dress::Plain }
}

const MINIUM: Contender = plain("minium", Server::Minium);
const FLOOR: Contender = plain("floor", Server::Floor);
const NATS: Contender = plain("nats", Server::Nats);
const MOSQUITTO: Contender = plain("mosquitto", Server::Mosquitto);
const UWS: Contender = plain("uwebsockets", Server::UWebSockets);

/// Everybody who can do the simple thing.
pub(super) const ALL: &[Contender] = &[MINIUM, FLOOR, NATS, MOSQUITTO, UWS];

const fn dressed(name: &'static str, dress: Dress) -> Contender {
    Contender { name, server: Server::Minium, dress }
}

const fn flood(subscribers: usize, size: usize, window: u64) -> Load {
    Load::Flood(Flood { topics: 1, subscribers, parent: false, size, window })
}

/// The table of issue 3, in its order.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "thousand",
        what: "1 → 1,000, 128 B, 64 in flight",
        load: flood(1_000, 128, 64),
        contenders: ALL,
        aims: &[least(PER_CPU, 4e6), share(PER_CPU, "floor", 0.85), share(PER_CPU, "nats", 3.0)],
    },
    Scenario {
        name: "thousand-24",
        what: "1 → 1,000, 128 B, 24 in flight",
        load: flood(1_000, 128, 24),
        contenders: ALL,
        aims: &[share(PER_CPU, "uwebsockets", 0.95), share(PER_CPU, "floor", 0.95)],
    },
    Scenario {
        name: "hundred",
        what: "1 → 100, 128 B, 256 in flight",
        load: flood(100, 128, 256),
        contenders: ALL,
        aims: &[least(PER_CPU, 15e6), share(PER_CPU, "floor", 0.8)],
    },
    Scenario {
        name: "kibibyte",
        what: "1 → 1,000, 1 KiB, 64 in flight",
        load: flood(1_000, 1_024, 64),
        contenders: ALL,
        aims: &[least(PER_CPU, 3e6), share(PER_CPU, "floor", 0.85)],
    },
    Scenario {
        name: "topics",
        what: "1,000 topics × 10 subscribers, 128 B, 100,000 in flight in all, and one subscriber of the parent",
        // the subscriber above gets them all: 13 MB on their way, which a ring of 16 MiB holds
        load: Load::Flood(Flood { topics: 1_000, subscribers: 10, parent: true, size: 128, window: 100_000 }),
        contenders: &[MINIUM],
        aims: &[least(PER_CPU, 15e6)],
    },
    Scenario {
        name: "five-thousand",
        what: "1 → 5,000, 128 B, 64 in flight",
        load: flood(5_000, 128, 64),
        contenders: ALL,
        aims: &[share(PER_CPU, "floor", 0.8)],
    },
    Scenario {
        name: "latency",
        what: "100 messages/s → 1,000, 128 B",
        load: Load::Steady { subscribers: 1_000, size: 128, rate: 100, longer: 2 },
        contenders: ALL,
        aims: &[within(P99, "floor", 1.2)],
    },
    Scenario {
        name: "idle",
        what: "10,000 idle sessions, beside 1,000 that were there before",
        load: Load::Idle { sessions: 10_000 },
        contenders: &[MINIUM, NATS, MOSQUITTO, UWS],
        aims: &[most(RSS_EACH, 1_024.0), most(CPU_PERCENT, 1.0)],
    },
    Scenario {
        name: "openings",
        what: "10,000 openings, 128 at once",
        load: Load::Openings { sessions: 10_000 },
        contenders: &[MINIUM, NATS, MOSQUITTO, UWS],
        aims: &[least(OPENINGS, 15e3), least(OPENINGS_PER_CPU, 20e3)],
    },
    Scenario {
        name: "checked",
        what: "1 → 1,000, 128 B, 64 in flight, each message checked against a schema",
        load: flood(1_000, 128, 64),
        contenders: &[dressed("checked", Dress::Checked), dressed("plain", Dress::Plain)],
        aims: &[share(PER_CPU, "plain", 0.75)],
    },
    Scenario {
        name: "v1",
        what: "1 → 1,000, 128 B, 64 in flight, all in minium.v1",
        load: flood(1_000, 128, 64),
        contenders: &[dressed("v1", Dress::V1), dressed("plain", Dress::Plain)],
        aims: &[share(PER_CPU, "plain", 0.75)],
    },
    Scenario {
        name: "tls",
        what: "1 → 1,000, 1 KiB, 64 in flight, over TLS",
        load: flood(1_000, 1_024, 64),
        contenders: &[plain("tls", Server::MiniumTls), dressed("plain", Dress::Plain)],
        aims: &[share(PER_CPU, "plain", 0.4)],
    },
    Scenario {
        name: "slow",
        what: "1,000 messages/s of 4 KiB → 100, and one more that never reads",
        load: Load::Steady { subscribers: 100, size: 4_096, rate: 1_000, longer: 4 },
        contenders: &[dressed("disturbed", Dress::Stalled), dressed("undisturbed", Dress::Plain)],
        aims: &[within(P99, "undisturbed", 2.0), most(PEAK_GROWTH, 64.0 * 1024.0 * 1024.0)],
    },
    Scenario {
        name: "durable-sqlite",
        what: "durable publishes of 4 publishers on SQLite, then 2,000/s with a subscriber",
        load: Load::Durable(Store::SqliteFile),
        contenders: &[MINIUM],
        aims: &[least(ACKED, 20e3), most(ACK_TO_ARRIVAL_P99, 15.0)],
    },
    Scenario {
        name: "durable-postgres",
        what: "durable publishes of 4 publishers on PostgreSQL, then 2,000/s with a subscriber",
        load: Load::Durable(Store::Postgres),
        contenders: &[MINIUM],
        aims: &[least(ACKED, 10e3), most(ACK_TO_ARRIVAL_P99, 15.0)],
    },
];
