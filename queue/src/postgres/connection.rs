//! Connections: how they are made, the pool, what each session is set to, and what an error of the database means to a caller.

use super::PgOptions;
use super::outage::Gate;
use super::session::{Session, Types};
use super::tls::{self, Tls};
use crate::error::{Away, QueueError};
use crate::metrics::{DATABASE_CONNECTIONS, DATABASE_SECONDS, DATABASE_WAITING};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

/// What every session of ours relies on. Statements are written for READ COMMITTED: a waiter looks at the row as it
/// has become. JIT would cost more than any statement here takes. Every statement has an index to go by, and a plan
/// that was made while a table was empty must not go on reading all of it when it has grown; so each is planned once,
/// whatever its parameters: planning anew was a quarter of the database's work per job at 100 jobs a call. Without bitmaps
/// `id = any (…)` walks the key, so that rows are locked, and numbers drawn, in the order of the ids.
const SESSION: &str = "set timezone = 'UTC'; set datestyle = 'ISO'; set jit = off; \
                       set enable_seqscan = off; set enable_bitmapscan = off; \
                       set plan_cache_mode = force_generic_plan; \
                       set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off";

/// The pool, and how statements are run on it.
#[derive(Debug)]
pub(super) struct Connections {
    pool: Pool,
    gate: Gate,
    /// Behind a pooler: the types of what goes out unnamed.
    types: Option<Arc<Types>>,
    /// A little longer than the server's own limit on a statement: it fires when the network is gone.
    patience: Duration,
    retries_max: u32,
}

/// How to connect: for the pool, for the listener, and for whoever looks whether the server is there.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// Through a pooler that gives each transaction another session: nothing is kept in one.
    pub(super) pooled: bool,
}

impl Way {
    pub(super) fn of(url: &str, options: &PgOptions) -> Result<Way, QueueError> {
        let (mut config, said) = tls::read(url)?;
        if config.get_application_name().is_none() {
            config.application_name("minium");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(options.connect_timeout);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(options.statement_timeout);
        }
        config.keepalives_idle(Duration::from_secs(30));
        Ok(Way { config, tls: Tls::new(&said)?, pooled: said.is_pooled() })
    }
}

impl Connections {
    pub(super) fn new(way: Way, options: &PgOptions) -> Result<Connections, QueueError> {
        let Way { config, tls, pooled } = way;
        let types = pooled.then(|| Arc::new(Types::new(config.clone(), tls.clone())));
        // each host that does not answer takes its time
        let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(1);
        let manager =
            Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let mut builder = Pool::builder(manager)
            .max_size(options.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.wait_timeout))
            .create_timeout(Some(options.connect_timeout * hosts + Duration::from_secs(1)));
        if !pooled {
            // what is set through a pooler stays with whichever session it was
            let setup =
                format!("{SESSION}; set statement_timeout = {}", options.statement_timeout.as_millis());
            builder = builder.post_create(Hook::async_fn(move |client, _| {
                let setup = setup.clone();
                Box::pin(async move { client.batch_execute(&setup).await.map_err(HookError::Backend) })
            }));
        }
        let pool =
            builder.build().map_err(|e| QueueError::Invalid(format!("the pool cannot be built: {e}")))?;
        let patience = options.statement_timeout + Duration::from_secs(5);
        Ok(Connections { pool, gate: Gate::new(), types, patience, retries_max: options.retries_max })
    }

    /// Looks whether the server is there as long as this runs.
    pub(super) fn watch(
        &self,
        way: Way,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (gate, pool) = (self.gate.clone(), self.pool.clone());
        gate.watch(way.config, way.tls, move || drop(pool.retain(|_, _| false)), stop)
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A connection as the pool has it, for who sees to everything else. At once an error while the server is away.
    pub(super) async fn get(&self, attempted: &'static str) -> Result<Object, QueueError> {
        let got = self.gate.pass(self.pool.get()).await.map_err(|why| refused(attempted, why))?;
        got.map_err(|error| {
            self.gate.doubt();
            match error {
                PoolError::Backend(e) => away(attempted, e),
                PoolError::Timeout(TimeoutType::Wait) => QueueError::Busy { attempted },
                other => unavailable(attempted, other),
            }
        })
    }

    /// Does what is done on a connection of [`Connections::get`], and gives it up when the server has gone.
    pub(super) async fn guard<T>(
        &self,
        attempted: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, QueueError> {
        self.gate.pass(work).await.map_err(|why| refused(attempted, why))
    }

    /// Runs an operation on a connection. What the database gave up for the sake of another transaction (a deadlock, a
    /// serialization failure) is run again, a bounded number of times: nothing of it was kept.
    pub(super) async fn run<T, F, Fut>(
        &self,
        attempted: &'static str,
        mut operation: F,
    ) -> Result<T, QueueError>
    where
        F: FnMut(Session) -> Fut + Send,
        Fut: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        let asked = Instant::now();
        for again in 0.. {
            let client = Session::new(self.get(attempted).await?, self.types.clone());
            // what callers wait for would grow by several times its size
            let work = Box::pin(tokio::time::timeout(self.patience, operation(client)));
            match self.gate.pass(work).await {
                Ok(Ok(Ok(done))) => {
                    metrics::histogram!(DATABASE_SECONDS, "operation" => attempted).record(asked.elapsed());
                    return Ok(done);
                }
                Ok(Ok(Err(e))) if again < self.retries_max && gave_way(&e) => {
                    let pause_ms = fastrand::u64(1..=10 << again.min(5));
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                }
                Ok(Ok(Err(e))) => {
                    if e.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
                        // the server has become a standby under open connections
                        self.forget();
                    }
                    let error = failed(attempted, e);
                    if matches!(error, QueueError::Unavailable { .. }) {
                        self.gate.doubt();
                    }
                    return Err(error);
                }
                // the connection went back to the pool with a statement that nobody will answer
                Ok(Err(elapsed)) => {
                    self.forget();
                    return Err(unavailable(attempted, elapsed));
                }
                Err(why) => {
                    self.forget();
                    return Err(refused(attempted, why));
                }
            }
        }
        unreachable!("the range has no end")
    }

    /// How many connections there are, and how many wait for one.
    pub(super) fn tell_figures(&self) {
        let status = self.pool.status();
        let idle = status.available.min(status.size);
        metrics::gauge!(DATABASE_CONNECTIONS, "state" => "idle").set(idle as f64);
        metrics::gauge!(DATABASE_CONNECTIONS, "state" => "used").set((status.size - idle) as f64);
        metrics::gauge!(DATABASE_WAITING).set(status.waiting as f64);
    }

    fn forget(&self) {
        drop(self.pool.retain(|_, _| false));
    }
}

fn refused(attempted: &'static str, why: Away) -> QueueError {
    unavailable(attempted, why)
}

fn gave_way(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(c) if *c == SqlState::T_R_SERIALIZATION_FAILURE || *c == SqlState::T_R_DEADLOCK_DETECTED)
}

/// What the database said, without what it said it about: its details show rows and keys, which are payload, and errors go
/// to the log.
#[derive(Debug, thiserror::Error)]
#[error("{severity} {code}: {message}")]
struct Said {
    severity: String,
    code: String,
    message: String,
}

/// An error of the database for the log: severity, code and message alone. Others are as they are.
pub fn discreet(error: tokio_postgres::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error.as_db_error() {
        Some(db) => Box::new(Said {
            severity: db.severity().to_owned(),
            code: db.code().code().to_owned(),
            message: db.message().to_owned(),
        }),
        None => Box::new(error),
    }
}

fn unavailable(
    attempted: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> QueueError {
    QueueError::Unavailable { attempted, source: Box::new(source) }
}

fn away(attempted: &'static str, error: tokio_postgres::Error) -> QueueError {
    QueueError::Unavailable { attempted, source: discreet(error) }
}

/// What an error of the database means to the caller.
pub(super) fn failed(attempted: &'static str, error: tokio_postgres::Error) -> QueueError {
    let Some(db) = error.as_db_error() else {
        let source = std::error::Error::source(&error);
        // parameters that do not fit the statement are a fault of ours; anything else is the connection
        return if source.is_some_and(|s| s.is::<tokio_postgres::types::WrongType>()) {
            QueueError::Database { attempted, source: Box::new(error) }
        } else {
            unavailable(attempted, error)
        };
    };
    let code = db.code().code();
    match code {
        // no such table or schema: nobody has migrated
        "42P01" | "3F000" | "42883" => QueueError::Schema(format!(
            "the database lacks what this program needs ({}): run minium migrate",
            db.message()
        )),
        // raised by our own functions for whoever asked, and values that no column can hold
        "22023" | "23514" => QueueError::Invalid(db.message().to_owned()),
        "22P05" | "22P02" | "22021" | "22003" | "22008" => {
            QueueError::Invalid(format!("the database cannot keep this: {}", db.message()))
        }
        _ => match meaning(code) {
            Meaning::Away => away(attempted, error),
            Meaning::Full => QueueError::StorageFull { attempted, source: discreet(error) },
            Meaning::Refused => QueueError::Refused { attempted, source: discreet(error) },
            Meaning::Fault => QueueError::Database { attempted, source: discreet(error) },
        },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Away,
    Full,
    Refused,
    Fault,
}

fn meaning(code: &str) -> Meaning {
    match code {
        "53100" => Meaning::Full,
        // shutdown, start-up, or a standby
        "57P01" | "57P02" | "57P03" | "25006" | "57014" => Meaning::Away,
        _ => match code.get(..2) {
            // no connection, or no resources: memory, connections, a limit that was set
            Some("08" | "53") => Meaning::Away,
            // what was given: its data, a constraint, a limit of the program
            Some("22" | "23" | "54") => Meaning::Refused,
            _ => Meaning::Fault,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_data_causes_is_refused_and_a_full_disk_says_so() {
        for code in ["22001", "23505", "54000"] {
            assert_eq!(meaning(code), Meaning::Refused, "{code}");
        }
        assert_eq!(meaning("53100"), Meaning::Full);
        for code in ["53200", "53300", "53400", "57P01", "08006", "25006"] {
            assert_eq!(meaning(code), Meaning::Away, "{code}");
        }
        for code in ["58030", "XX001", "42501", "40P01"] {
            assert_eq!(meaning(code), Meaning::Fault, "{code}");
        }
    }
}
