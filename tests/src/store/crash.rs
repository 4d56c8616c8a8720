//! A process that dies in the midst of an operation, and the next one that opens the same database.
//!
//! On SQLite the connection stops at a given instruction of its virtual machine and does nothing more, as if it had been killed
//! there; on PostgreSQL the sessions of the store are terminated after a given number of round trips of another one.

use super::fixture::{Fixture, upkeep_rules};
use super::sequence::Step;
use super::subject::Subject;
use minium_protocol::LeaseToken;
use minium_queue::{Backend, QueueError};
use serde_json::{Value, json};

const TERMINATE: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                          where datname = current_database() and application_name = 'minium'";
/// The longest operation takes about so many round trips.
const TRIPS_MAX: u32 = 60;

/// What a step left behind whose process died.
pub(super) struct Crashed {
    /// It was answered before the end, so that it must have been done.
    pub(super) answered: bool,
    /// The answer, of a claim as far as it can be found out. It says `crashed` where a claim may have taken less than it could.
    pub(super) got: Value,
    /// What the next process does before anybody looks.
    pub(super) then: Vec<Step>,
}

impl Subject {
    /// Does a step in a process that dies in the midst of it.
    pub(super) async fn crash(&mut self, step: &Step, at: u32) -> Crashed {
        let answer = match self.fixture.backend.clone() {
            Backend::Sqlite(store) => {
                let mut left = at;
                let stop = move || {
                    left = left.saturating_sub(1);
                    left == 0
                };
                store.call(move |conn| conn.progress_handler(1, Some(stop))).await.unwrap().unwrap();
                self.answer(step).await
            }
            Backend::Postgres(_) => {
                let killer = self.fixture.client().await;
                let kill = async {
                    for _ in 0..at % TRIPS_MAX {
                        killer.query_one("select 1", &[]).await.unwrap();
                    }
                    killer.query_one(TERMINATE, &[]).await.unwrap();
                };
                tokio::join!(self.answer(step), kill).0
            }
        };
        self.fixture.reopen().await;
        let then = self.repair().await;
        let (answered, got) = match answer {
            Ok(mut got) => {
                // a second look, for jobs under limits, may have failed: what the first one took is answered all the same
                if let (Step::Exchange { .. } | Step::Pull(_), Value::Object(got)) = (step, &mut got) {
                    got.insert("crashed".into(), json!(true));
                }
                (true, got)
            }
            Err(e @ (QueueError::Unavailable { .. } | QueueError::Database { .. })) => {
                drop(e);
                (false, self.claimed(step).await)
            }
            Err(e) => panic!("{step:?}: {e:?}"),
        };
        Crashed { answered, got, then }
    }

    /// What a commit on PostgreSQL leaves to be done right after it is done by upkeep, when nobody came to it.
    async fn repair(&self) -> Vec<Step> {
        let Backend::Postgres(_) = &self.fixture.backend else { return Vec::new() };
        self.fixture.store().upkeep(&upkeep_rules()).await.unwrap();
        settle_what_is_left(&self.fixture).await;
        vec![Step::Upkeep { keep: None, batch: 1_000 }]
    }

    /// The jobs that a claim took whose answer never came: those that run under tokens that nobody knows.
    async fn claimed(&mut self, step: &Step) -> Value {
        let (Step::Exchange { .. } | Step::Pull(_)) = step else { return Value::Null };
        let mut leases = self.fixture.leases().await;
        leases.retain(|lease| !self.runs.contains(&(lease.0, lease.1)));
        leases.sort_by_key(|(id, ..)| *id);
        let mut jobs = Vec::new();
        let mut pulled = Vec::new();
        for (id, _, worker) in &leases {
            let name = self.name(*id);
            jobs.push(json!([name, null]));
            pulled.push(json!([(worker - 100) / 10, (worker - 100) % 10, name, null]));
        }
        pulled.sort_by_key(|p| (p[0].as_i64(), p[1].as_i64()));
        if let Step::Pull(_) = step {
            leases.sort_by_key(|(_, _, worker)| *worker);
        }
        self.runs.extend(leases.iter().map(|(id, lease, _)| (*id, *lease)));
        json!({"crashed": true, "jobs": jobs, "pulled": pulled})
    }
}

impl Fixture {
    /// Jobs that run, under which tokens, for which workers.
    async fn leases(&self) -> Vec<(i64, LeaseToken, i64)> {
        let read = |id: i64, lease: &str, worker: &str| {
            let worker: Value = serde_json::from_str(worker).unwrap();
            (id, LeaseToken(lease.parse().unwrap()), worker["id"].as_i64().unwrap())
        };
        match &self.backend {
            Backend::Postgres(_) => {
                let sql = "select id, lease::text, worker::text from minium.job where state = 'active'";
                let rows = self.client().await.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| read(row.get(0), row.get(1), row.get(2))).collect()
            }
            Backend::Sqlite(store) => {
                let sql = "select id, lease, worker from job where state = 'active'";
                let rows = store.read(move |conn| {
                    let mut statement = conn.prepare(sql).unwrap();
                    let row = statement.query_map([], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
                    });
                    row.unwrap().map(Result::unwrap).collect::<Vec<_>>()
                });
                let rows = rows.await.unwrap();
                rows.iter().map(|(id, lease, worker)| read(*id, lease, worker)).collect()
            }
        }
    }
}

/// On PostgreSQL what follows from a handler that is called off is left to upkeep. This does that part of it alone.
pub(super) async fn settle_what_is_left(fixture: &Fixture) {
    if let Backend::Postgres(_) = &fixture.backend {
        let client = fixture.client().await;
        while client
            .query_one("select minium.settle_left(1000)", &[])
            .await
            .unwrap()
            .get::<_, Option<i64>>(0)
            .is_some()
        {}
    }
}
