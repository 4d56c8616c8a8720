//! Claims for pullers (`pull.sql`).
//!
//! There are no low-water marks here: an index entry leads to jobs of one task only, so there is little to pass over.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use crate::metrics::{self, tells_wait};
use crate::rules;
use crate::store::{Leased, Pull, Pulled};
use minium_protocol::{LeaseToken, TraceContext};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

const WHAT: &str = "claim jobs for pullers";
pub(super) const PULL: &str = include_str!("pull.sql");

/// One array for each column of `pull.sql`.
#[derive(Default)]
struct Columns<'a> {
    queues: Vec<&'a str>,
    tasks: Vec<String>,
    limits: Vec<i64>,
    leases: Vec<i64>,
    bases: Vec<i64>,
    workers: Vec<String>,
}

impl<'a> Columns<'a> {
    fn new(pulls: &'a [Pull]) -> Columns<'a> {
        let mut c = Columns::default();
        for (pull, limit) in pulls.iter().zip(rules::pull_limits(pulls)) {
            c.queues.push(&pull.queue);
            c.tasks.push(array_text(&pull.tasks));
            c.limits.push(i64::try_from(limit).unwrap_or(i64::MAX));
            c.leases.push(rules::micros(pull.lease));
            c.bases.push(i64::try_from(c.workers.len()).unwrap_or(i64::MAX));
            let json = |worker| serde_json::to_string(worker).expect("a worker is plain JSON");
            c.workers.extend(pull.workers.iter().take(limit).map(json));
        }
        c
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 6] {
        [&self.queues, &self.tasks, &self.limits, &self.leases, &self.bases, &self.workers]
    }

    /// Whose the job at a place is, from 1 over all workers: which pull, and which of its workers. Of pulls that begin at
    /// one base only the last takes anything.
    fn owner(&self, place: i64) -> (usize, usize) {
        let pull = self.bases.partition_point(|base| *base < place).saturating_sub(1);
        (pull, usize::try_from(place - 1 - self.bases[pull]).unwrap_or(0))
    }
}

/// An array of texts as PostgreSQL writes one, since an array of arrays cannot be ragged.
fn array_text(names: &[String]) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", names.iter().map(quoted).collect::<Vec<_>>().join(","))
}

impl PgStore {
    pub(super) async fn pull_jobs(&self, pulls: &[Pull]) -> Result<Vec<Pulled>, QueueError> {
        rules::check_pulls(pulls)?;
        let columns = Columns::new(pulls);
        if columns.workers.is_empty() {
            return Ok(Vec::new());
        }
        let params = &columns.params();
        let claim = |client: Session| async move {
            let statement = client.prepare_cached(PULL).await?;
            client.query(&statement, params).await
        };
        let rows = self.connections.run(WHAT, claim).await?;
        let mut pulled = Vec::with_capacity(rows.len());
        for row in &rows {
            // a row without a place is only there to have woken the journal's reader
            if let Some(place) = row.get::<_, Option<i64>>(0) {
                let (pull, place) = columns.owner(place);
                pulled.push(Pulled { pull, place, job: leased(row), snapshot: json(row.get(14)) });
            }
        }
        if pulled.len() < columns.workers.len() {
            let mut taken = vec![0; pulls.len()];
            pulled.iter().for_each(|p: &Pulled| taken[p.pull] = taken[p.pull].max(p.place + 1));
            match self.pull_limited(pulls, &taken, &mut pulled).await {
                Ok(()) => {}
                // what was claimed is committed, and must reach whoever asked
                Err(error) => tracing::warn!(%error, "A look for jobs under limits has failed."),
            }
        }
        note_waits(&rows);
        pulled.sort_by_key(|p| (p.pull, p.place));
        if !pulled.is_empty() {
            self.wake(false);
        }
        if pulled.len() < columns.workers.len() {
            self.ask_to_be_woken().await;
        }
        Ok(pulled)
    }
}

/// A claimed job, from its second column on as `pull.sql`, `capped.sql` and `limits` answer it.
pub(super) fn leased(row: &Row) -> Leased {
    let timeout: Option<i64> = row.get(9);
    Leased {
        id: row.get(1),
        task: row.get(2),
        queue: row.get(3),
        args: json(row.get(4)),
        attempt: row.get(5),
        attempts: row.get(6),
        lease: LeaseToken(row.get(7)),
        lease_expires: row.get(8),
        timeout: timeout.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros),
        trace: row.get::<_, Option<&str>>(10).and_then(TraceContext::from_text),
        priority: row.get(11),
        notes: notes(row.get(1), row.get(12)),
        parents: row.get::<_, Option<_>>(13).unwrap_or_default(),
    }
}

/// Notes how long these jobs have waited; the columns are those of [`leased`], and the last one.
pub(super) fn note_waits(rows: &[Row]) {
    let told = rows.iter().filter_map(|row| {
        let seconds = row.get::<_, Option<f64>>(15)?;
        tells_wait(row.get(5), row.get::<_, Option<Vec<i64>>>(13).is_some())
            .then(|| (row.get(3), row.get(2), seconds))
    });
    metrics::note_waits(told);
}

/// A job's notes; most have none. Whoever writes rows by hand may keep what JSON's readers refuse: its claim stands all the
/// same, and nobody else's jobs are to suffer.
pub(super) fn notes(job: i64, text: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
    text.map_or_else(Default::default, |text| {
        serde_json::from_str(text).unwrap_or_else(|error| {
            tracing::warn!(job, %error, "The notes of a job cannot be read; it is given out without them.");
            serde_json::Map::new()
        })
    })
}

pub(super) fn json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("the column's type admits JSON only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::WorkerRef;

    #[test]
    fn each_place_has_its_owner() {
        let worker = WorkerRef { id: 1, host: "h".into(), pid: 1 };
        let pull = |count| Pull {
            queue: "default".into(),
            tasks: vec!["a".into()],
            lease: Duration::from_secs(1),
            workers: vec![worker.clone(); count],
        };
        let pulls = [pull(0), pull(2), pull(0), pull(1), pull(3)];
        let columns = Columns::new(&pulls);
        let owners: Vec<_> = (1..=6).map(|place| columns.owner(place)).collect();
        assert_eq!(owners, [(1, 0), (1, 1), (3, 0), (4, 0), (4, 1), (4, 2)]);
    }

    #[test]
    fn names_are_written_as_an_array() {
        assert_eq!(array_text(&["a/b".into(), "c\"\\".into()]), r#"{"a/b","c\"\\"}"#);
        assert_eq!(array_text(&[]), "{}");
    }
}
