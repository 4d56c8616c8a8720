//! Whether the server is there, for everybody who wants a connection: refuses at once while it is not, and looks for it alone.
//!
//! The rules are the breaker's ([`crate::breaker`]); here are the probe and the clock. A doubt is raised by a connection that
//! cannot be had or was lost, and by whoever has waited for [`DOUBT_AFTER`]. So the first request of an outage is answered at
//! once when the server refuses connections, and within `DOUBT_AFTER` and [`PROBE_TIMEOUT`] (for each host of the URL) when
//! it says nothing at all; all others are answered with it, and those that follow at once.

use super::connection::discreet;
use super::tls::Tls;
use crate::breaker::{Breaker, Edge};
use crate::error::{Away, causes};
use crate::metrics::{DATABASE_AVAILABLE, DATABASE_OUTAGES, DATABASE_REFUSALS};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Whoever has waited so long for a connection, or for an answer, has the server looked at.
const DOUBT_AFTER: Duration = Duration::from_secs(2);
/// A server that has not answered a probe by then is not there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between probes that doubts bring about: connections may end by the dozen while the server is well.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);

/// Stands before the connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    breaker: Mutex<Breaker>,
    /// Why it is away, while it is.
    away: watch::Sender<Option<Away>>,
    doubted: Notify,
}

impl Gate {
    pub(super) fn new() -> Gate {
        metrics::gauge!(DATABASE_AVAILABLE).set(1);
        let inner = Inner {
            breaker: Mutex::new(Breaker::new()),
            away: watch::Sender::new(None),
            doubted: Notify::new(),
        };
        Gate(Arc::new(inner))
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has reason to believe that the server is away. It is looked at soon.
    pub(super) fn doubt(&self) {
        if self.breaker().doubt() {
            self.0.doubted.notify_one();
        }
    }

    /// Does the work if the server is there, and gives it up as soon as it is known not to be.
    pub(super) async fn pass<T>(&self, work: impl Future<Output = T>) -> Result<T, Away> {
        let mut away = self.0.away.subscribe();
        if !self.breaker().admits() {
            metrics::counter!(DATABASE_REFUSALS).increment(1);
            let why = away.borrow().clone();
            return Err(why.unwrap_or_else(|| Away("the server is away".into())));
        }
        let gone = async {
            loop {
                let told = async { away.wait_for(Option::is_some).await.map(|why| why.clone()) };
                match timeout(DOUBT_AFTER, told).await {
                    Ok(Ok(why)) => return why,
                    // the store is gone, and the work ends as it does
                    Ok(Err(_)) => return std::future::pending().await,
                    Err(_) => self.doubt(),
                }
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            why = gone => {
                metrics::counter!(DATABASE_REFUSALS).increment(1);
                Err(why.expect("it was waited for until there is a reason"))
            }
        }
    }

    /// Looks whether the server is there: whenever somebody doubts it, and again and again while it is not.
    pub(super) async fn watch(
        self,
        config: Config,
        tls: Tls,
        forget: impl Fn() + Send,
        stop: CancellationToken,
    ) {
        let rounds = async {
            let mut since = Instant::now();
            loop {
                let pause = self.breaker().next_probe();
                match pause {
                    Some(pause) => {
                        sleep(pause).await;
                        self.breaker().begin_probe();
                    }
                    None => self.0.doubted.notified().await,
                }
                let found = probe(&config, tls.clone()).await;
                if found.is_ok() && !self.breaker().admits() {
                    // whoever is let in from now on must find neither an old connection nor the old reason
                    forget();
                    self.0.away.send_replace(None);
                }
                let edge = self.breaker().probed(found.is_ok());
                match (edge, found) {
                    (Edge::Opened, Err(why)) => {
                        since = Instant::now();
                        warn!(
                            error = why,
                            "The database is away; what needs it is refused at once until it is back."
                        );
                        metrics::gauge!(DATABASE_AVAILABLE).set(0);
                        metrics::counter!(DATABASE_OUTAGES).increment(1);
                        self.0.away.send_replace(Some(Away(why.into())));
                        // what is left of them leads to where the database was
                        forget();
                    }
                    (Edge::None, Err(why)) => _ = self.0.away.send_replace(Some(Away(why.into()))),
                    (Edge::Closed, _) => {
                        metrics::gauge!(DATABASE_AVAILABLE).set(1);
                        info!(away_ms = since.elapsed().as_millis(), "The database is back.");
                    }
                    (Edge::Opened | Edge::None, _) => sleep(DOUBT_PAUSE).await,
                }
            }
        };
        stop.run_until_cancelled(rounds).await;
    }
}

/// Is there a server that takes writes? Else why not. It has a connection of its own: that all others are in use says nothing.
async fn probe(config: &Config, tls: Tls) -> Result<(), String> {
    let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(1);
    let mut config = config.clone();
    config.connect_timeout(PROBE_TIMEOUT);
    match timeout(PROBE_TIMEOUT * hosts, ask(&config, tls)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("the server is a standby".into()),
        // it is there, and has no room for one more
        Ok(Err(error)) if error.code().is_some_and(|code| code.code().starts_with("53")) => Ok(()),
        Ok(Err(error)) if error.code().is_some_and(turns_away) => {
            Err(format!("it is there and does not let us in: {}", causes(&*discreet(error))))
        }
        Ok(Err(error)) => Err(causes(&*discreet(error))),
        Err(_) => Err("the server does not answer".into()),
    }
}

/// A wrong password, an unknown role or database: waiting may not help, somebody has to see to it.
fn turns_away(code: &SqlState) -> bool {
    code.code().starts_with("28") || *code == SqlState::UNDEFINED_DATABASE
}

async fn ask(config: &Config, tls: Tls) -> Result<bool, tokio_postgres::Error> {
    let (client, connection) = config.connect(tls).await?;
    let mut answer = pin!(client.simple_query("select 1 where not pg_catalog.pg_is_in_recovery()"));
    let rows = tokio::select! {
        rows = &mut answer => rows?,
        ended = connection => {
            ended?;
            answer.await?
        }
    };
    Ok(rows.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))))
}
