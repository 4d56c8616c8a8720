//! What `minium doctor` asks a server: its version, its settings, who connects, how full it is, what time it has. It judges
//! nothing and needs no rights; what a role may not see is `None` or empty.

use super::PgStore;
use super::connection::{Way, failed};
use crate::error::QueueError;
use jiff::Timestamp;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;

/// The oldest major version that is supported.
pub const VERSION_MIN: i32 = 14;
/// So often the clock is asked; the fastest answer counts.
const CLOCK_ASKED: usize = 5;

/// How a server is set and how it is.
#[derive(Debug, Clone)]
pub struct Checkup {
    /// As it calls itself.
    pub version: String,
    /// Its major version.
    pub major: i32,
    /// Who connects.
    pub user: String,
    /// May it do everything?
    pub superuser: bool,
    /// It is a standby, and takes no writes.
    pub standby: bool,
    /// What it is set to, of what matters here.
    pub settings: Settings,
    /// Connections that are open, of all who use the server.
    pub connections: i64,
    /// How long the oldest transaction of this database has been open, and what is known of it.
    pub oldest_transaction: Option<(Duration, String)>,
    /// Tables of Minium with dead rows: name, living and dead ones.
    pub dead_rows: Vec<(String, i64, i64)>,
}

/// Settings that matter here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Is a commit on the disk when it is answered?
    pub fsync: bool,
    /// The same, for each transaction.
    pub synchronous_commit: String,
    /// Does it survive a page that was written by half?
    pub full_page_writes: bool,
    /// How many may connect who are no superusers.
    pub connections_max: i64,
    /// Sessions that do nothing within a transaction are ended after this; nothing: never.
    pub idle_in_transaction: Option<Duration>,
    /// Are dead rows cleared away?
    pub autovacuum: bool,
}

/// What may stand between this process and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    /// The URL says that it is a pooler in transaction mode.
    pub pooled: bool,
    /// The port that the URL says.
    pub said: u16,
    /// The port that the server listens on.
    pub listens: u16,
}

/// How the URL says that the server is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pooled: bool,
    port: u16,
}

impl Reached {
    pub(super) fn of(way: &Way) -> Reached {
        const USUAL: u16 = 5432;
        Reached { pooled: way.pooled, port: way.config.get_ports().first().copied().unwrap_or(USUAL) }
    }
}

/// Two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// So many microseconds the other clock is ahead of this machine's.
    pub ahead_us: i64,
    /// It may be as many more or less: half of the time that asking took.
    pub uncertain_us: i64,
}

impl ClockReading {
    /// From what this machine's clock said before and after, and the other one in between.
    pub fn of(before: Timestamp, other: Timestamp, after: Timestamp) -> ClockReading {
        let (before, other, after) =
            (before.as_microsecond(), other.as_microsecond(), after.as_microsecond());
        let uncertain_us = (after - before).max(0) / 2;
        ClockReading { ahead_us: other - (before + uncertain_us), uncertain_us }
    }
}

const SERVER: &str = "
select current_setting('server_version'), current_setting('server_version_num')::int / 10000, current_user::text,
       coalesce((select rolsuper from pg_catalog.pg_roles where rolname = current_user), false),
       pg_catalog.pg_is_in_recovery(),
       current_setting('fsync')::bool, current_setting('synchronous_commit'), current_setting('full_page_writes')::bool,
       current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
       (select setting::bigint from pg_catalog.pg_settings where name = 'idle_in_transaction_session_timeout'),
       current_setting('autovacuum')::bool,
       (select count(*) from pg_catalog.pg_stat_activity where backend_type = 'client backend')";

/// Whose it is stays unknown to those who may not see it.
const OLDEST: &str = "
select extract(epoch from clock_timestamp() - a.xact_start)::float8,
       concat_ws(', ', 'process ' || a.pid, nullif(a.usename::text, ''), nullif(a.application_name, ''), a.state)
  from pg_catalog.pg_stat_activity a
 where a.datname = current_database() and a.xact_start is not null and a.pid <> pg_backend_pid()
   and a.backend_type = 'client backend'
 order by a.xact_start limit 1";

const DEAD: &str = "
select relname::text, n_live_tup, n_dead_tup from pg_catalog.pg_stat_user_tables
 where schemaname = 'minium' and n_dead_tup > 0 order by n_dead_tup desc limit 20";

const CLOCK: &str = "select clock_timestamp()";

impl PgStore {
    /// Asks the server how it is.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn checkup(&self) -> Result<Checkup, QueueError> {
        const WHAT: &str = "look at the database server";
        let server = self.step(WHAT, SERVER, &[]).await?;
        let idle_ms: Option<i64> = server.get(9);
        let settings = Settings {
            fsync: server.get(5),
            synchronous_commit: server.get(6),
            full_page_writes: server.get(7),
            connections_max: server.get(8),
            idle_in_transaction: idle_ms
                .filter(|ms| *ms > 0)
                .map(|ms| Duration::from_millis(ms.unsigned_abs())),
            autovacuum: server.get(10),
        };
        let oldest = self.rows(WHAT, OLDEST, &[]).await?;
        let oldest_transaction = oldest.first().map(|row| {
            let seconds: f64 = row.get(0);
            (Duration::try_from_secs_f64(seconds).unwrap_or_default(), row.get(1))
        });
        let dead = self.rows(WHAT, DEAD, &[]).await?;
        Ok(Checkup {
            version: server.get(0),
            major: server.get(1),
            user: server.get(2),
            superuser: server.get(3),
            standby: server.get(4),
            settings,
            connections: server.get(11),
            oldest_transaction,
            dead_rows: dead.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
        })
    }

    /// Looks whether something stands between. By a plain query, since a pooler that nobody told of confuses prepared ones.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn between(&self) -> Result<Between, QueueError> {
        const WHAT: &str = "look what stands before the database";
        let client = self.connection(WHAT).await?;
        let asked = self.guard(WHAT, Box::pin(client.simple_query("show port"))).await?;
        let answer = asked.map_err(|e| failed(WHAT, e))?;
        let port = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        let Reached { pooled, port: said } = self.reached;
        Ok(Between { pooled, said, listens: port.unwrap_or(said) })
    }

    /// Reads the server's clock beside this machine's.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn clock(&self) -> Result<ClockReading, QueueError> {
        const WHAT: &str = "read the database's clock";
        let mut best: Option<ClockReading> = None;
        for _ in 0..CLOCK_ASKED {
            let before = Timestamp::now();
            let other: Timestamp = self.step(WHAT, CLOCK, &[]).await?.get(0);
            let reading = ClockReading::of(before, other, Timestamp::now());
            best = Some(best.filter(|best| best.uncertain_us <= reading.uncertain_us).unwrap_or(reading));
        }
        Ok(best.expect("it was asked more than once"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_around_half_of_the_way() {
        let at = |us: i64| Timestamp::from_microsecond(us).unwrap();
        let read = |before, other, after| {
            let ClockReading { ahead_us, uncertain_us } = ClockReading::of(at(before), at(other), at(after));
            (ahead_us, uncertain_us)
        };
        assert_eq!(read(1_000, 1_010, 1_020), (0, 10));
        assert_eq!(read(1_000, 5_001_010, 1_020), (5_000_000, 10));
        assert_eq!(read(1_000, 10, 1_020), (-1_000, 10));
    }
}
