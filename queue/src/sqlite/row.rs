//! One job as it stands in its table, and the snapshot that is made of it: here and nowhere else.

use jiff::Timestamp;
use minium_protocol::State;
use rusqlite::Row;
use std::io::Write;

/// The columns that [`Job::read`] reads, in its order.
pub(super) const COLUMNS: &str = "id, task, queue, state, priority, attempt, attempts, retries, lax, key, schedule, \
     worker, origin, created, delayed, expires, started, finished, retried, lease, trace, timeout, backoff, \
     open_edges, parents, notes, progress, error, result, args, args_shown, unique_us, on_failure, limited, part";

/// A row of `job`. JSON columns are text, times are microseconds.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: i64,
    pub(super) task: String,
    pub(super) queue: String,
    pub(super) state: State,
    pub(super) priority: i32,
    pub(super) attempt: i32,
    pub(super) attempts: i32,
    pub(super) retries: i32,
    pub(super) lax: bool,
    pub(super) key: Option<String>,
    pub(super) schedule: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) origin: Option<i64>,
    pub(super) created: i64,
    pub(super) delayed: i64,
    pub(super) expires: Option<i64>,
    pub(super) started: Option<i64>,
    pub(super) finished: Option<i64>,
    pub(super) retried: Option<i64>,
    pub(super) lease: Option<String>,
    pub(super) trace: Option<String>,
    pub(super) timeout: Option<i64>,
    pub(super) backoff: Option<i64>,
    pub(super) open_edges: i64,
    pub(super) parents: String,
    pub(super) notes: String,
    pub(super) progress: Option<String>,
    pub(super) error: Option<String>,
    pub(super) result: Option<String>,
    pub(super) args: String,
    /// What anybody may see of `args`, when that is not all.
    pub(super) args_shown: Option<String>,
    /// How its key is held: `None` while it lives, 0 while it waits, else for so long.
    pub(super) unique_us: Option<i64>,
    /// It runs when a parent has failed.
    pub(super) on_failure: bool,
    /// The limit that it runs under.
    pub(super) limited: Option<String>,
    /// Which of those that the limit counts apart.
    pub(super) part: Option<String>,
}

impl Job {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
        Ok(Job {
            id: row.get(0)?,
            task: row.get(1)?,
            queue: row.get(2)?,
            state: state(row, 3)?,
            priority: row.get(4)?,
            attempt: row.get(5)?,
            attempts: row.get(6)?,
            retries: row.get(7)?,
            lax: row.get(8)?,
            key: row.get(9)?,
            schedule: row.get(10)?,
            worker: row.get(11)?,
            origin: row.get(12)?,
            created: row.get(13)?,
            delayed: row.get(14)?,
            expires: row.get(15)?,
            started: row.get(16)?,
            finished: row.get(17)?,
            retried: row.get(18)?,
            lease: row.get(19)?,
            trace: row.get(20)?,
            timeout: row.get(21)?,
            backoff: row.get(22)?,
            open_edges: row.get(23)?,
            parents: row.get(24)?,
            notes: row.get(25)?,
            progress: row.get(26)?,
            error: row.get(27)?,
            result: row.get(28)?,
            args: row.get(29)?,
            args_shown: row.get(30)?,
            unique_us: row.get(31)?,
            on_failure: row.get::<_, Option<bool>>(32)?.unwrap_or(false),
            limited: row.get(33)?,
            part: row.get(34)?,
        })
    }

    /// The snapshot as anybody may see it.
    pub(super) fn snapshot(&self) -> String {
        self.snapshot_with(self.args_shown.as_ref().unwrap_or(&self.args))
    }

    /// The snapshot for whoever runs the job.
    pub(super) fn whole_snapshot(&self) -> String {
        self.snapshot_with(&self.args)
    }

    /// Members and order are the protocol's.
    fn snapshot_with(&self, args: &str) -> String {
        let room = 640 + args.len() + self.notes.len() + self.result.as_ref().map_or(0, String::len);
        let mut out = Writer(Vec::with_capacity(room));
        out.raw("{\"id\":", self.id);
        out.text(",\"task\":", Some(&self.task));
        out.text(",\"queue\":", Some(&self.queue));
        out.text(",\"state\":", Some(self.state.as_str()));
        out.raw(",\"priority\":", self.priority);
        out.raw(",\"args\":", args);
        out.raw(",\"notes\":", &self.notes);
        out.raw(",\"attempt\":", self.attempt);
        out.raw(",\"attempts\":", self.attempts);
        out.raw(",\"retries\":", self.retries);
        out.raw(",\"parents\":", &self.parents);
        out.raw(",\"lax\":", self.lax);
        out.text(",\"key\":", self.key.as_deref());
        out.text(",\"schedule\":", self.schedule.as_deref());
        out.option(",\"worker\":", self.worker.as_ref());
        out.option(",\"result\":", self.result.as_ref());
        out.text(",\"error\":", self.error.as_deref());
        out.option(",\"progress\":", self.progress.as_ref());
        out.option(",\"origin\":", self.origin.as_ref());
        out.time(",\"created\":", Some(self.created));
        out.time(",\"delayed\":", Some(self.delayed));
        out.time(",\"expires\":", self.expires);
        out.time(",\"started\":", self.started);
        out.time(",\"finished\":", self.finished);
        out.time(",\"retried\":", self.retried);
        out.raw("}", "");
        String::from_utf8(out.0).expect("only text was written")
    }
}

/// A state column; the table's check lets no other word in.
pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<State> {
    let word = row.get_ref(column)?.as_str()?;
    word.parse().map_err(|e: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, e.into())
    })
}

/// A time of the database.
pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.0, "{name}{value}").expect("memory takes every byte");
    }

    fn option(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.raw(name, value),
            None => self.raw(name, "null"),
        }
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        self.raw(name, "");
        serde_json::to_writer(&mut self.0, &value).expect("text always serialises into memory");
    }

    fn time(&mut self, name: &str, micros: Option<i64>) {
        match micros {
            Some(micros) => self.raw(name, format_args!("\"{:.6}\"", timestamp(micros))),
            None => self.raw(name, "null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_the_members_of_the_protocol_in_its_order() {
        let job = Job {
            id: 42,
            task: "import".into(),
            queue: "default".into(),
            state: State::Finished,
            priority: 0,
            attempt: 1,
            attempts: 3,
            retries: 0,
            lax: false,
            key: Some("k\"\n".into()),
            schedule: None,
            worker: Some(r#"{"id":7,"host":"rack3","pid":411}"#.into()),
            origin: Some(9),
            created: 1_000_000,
            delayed: 1_000_001,
            expires: None,
            started: Some(0),
            finished: Some(1_795_312_800_123_456),
            retried: None,
            lease: Some("never shown".into()),
            trace: None,
            timeout: None,
            backoff: None,
            open_edges: 0,
            parents: "[1,2]".into(),
            notes: "{}".into(),
            progress: None,
            error: None,
            result: Some("123456789012345678901234567890.10e+5".into()),
            args: "[\"x\", 1]".into(),
            args_shown: None,
            unique_us: None,
            on_failure: false,
            limited: None,
            part: None,
        };
        assert_eq!(
            job.snapshot(),
            concat!(
                r#"{"id":42,"task":"import","queue":"default","state":"finished","priority":0,"args":["x", 1],"#,
                r#""notes":{},"attempt":1,"attempts":3,"retries":0,"parents":[1,2],"lax":false,"key":"k\"\n","#,
                r#""schedule":null,"worker":{"id":7,"host":"rack3","pid":411},"#,
                r#""result":123456789012345678901234567890.10e+5,"error":null,"progress":null,"origin":9,"#,
                r#""created":"1970-01-01T00:00:01.000000Z","delayed":"1970-01-01T00:00:01.000001Z","expires":null,"#,
                r#""started":"1970-01-01T00:00:00.000000Z","finished":"2026-11-22T02:00:00.123456Z","retried":null}"#,
            )
        );
    }
}
