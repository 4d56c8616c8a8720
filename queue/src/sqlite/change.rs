//! One operation inside its transaction: its clock, its events, and what else moves with a job's state.
//!
//! Whoever changes a job does it through here: [`Change::event`] writes the journal's row, [`Change::moved`] keeps the
//! figures by state and the children's counters in step, [`Change::draw`] numbers those that become ready.

use super::actor::Touched;
use super::failure::failure;
use super::handlers;
use super::row::{COLUMNS, Job};
use crate::error::QueueError;
use crate::rules;
use minium_protocol::{EventType, State};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;

/// A running operation. [`Change::finish`] must end it.
pub(super) struct Change<'c> {
    conn: &'c Connection,
    touched: &'c mut Touched,
    /// The database's clock, one value for the whole operation.
    pub(super) now: i64,
    /// What is attempted, for errors.
    attempted: &'static str,
    by_state: [i64; State::ALL.len()],
    /// Runs and jobs that ended in this operation, by how.
    ended: [i64; State::ALL.len()],
    drawn: Option<i64>,
    /// Parents whose children that run on a failure are to be judged, and whether each waits again.
    moved_parents: Vec<(i64, bool)>,
    /// Such children that are new, or whose parent is gone and with it the edge that leads to them.
    orphans: Vec<i64>,
}

/// One hour, in microseconds.
pub(super) const HOUR: i64 = 3_600_000_000;

/// The database's clock: SQLite has no other than this machine's.
pub(super) fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

impl<'c> Change<'c> {
    pub(super) fn begin(
        conn: &'c Connection,
        touched: &'c mut Touched,
        attempted: &'static str,
    ) -> Change<'c> {
        let none = [0; State::ALL.len()];
        let now = now_micros();
        Change {
            conn,
            touched,
            now,
            attempted,
            by_state: none,
            ended: none,
            drawn: None,
            moved_parents: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// Runs one operation and writes what it owes.
    pub(super) fn run<T>(
        conn: &'c Connection,
        touched: &'c mut Touched,
        attempted: &'static str,
        operation: impl FnOnce(&mut Change<'c>) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        let mut change = Change::begin(conn, touched, attempted);
        let value = operation(&mut change)?;
        handlers::judge_all(&mut change)?;
        change.finish()?;
        Ok(value)
    }

    fn failed(&self, error: rusqlite::Error) -> QueueError {
        failure(self.attempted, error)
    }

    /// Runs a statement that answers nothing; how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, QueueError> {
        let run = || self.conn.prepare_cached(sql)?.execute(params);
        run().map_err(|e| self.failed(e))
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, QueueError> {
        let run = || self.conn.prepare_cached(sql)?.query_row(params, read).optional();
        run().map_err(|e| self.failed(e))
    }

    /// All rows; the statement must have a limit of its own, or answer what one job owns.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, QueueError> {
        let run = || self.conn.prepare_cached(sql)?.query_map(params, read)?.collect::<Result<Vec<_>, _>>();
        run().map_err(|e| self.failed(e))
    }

    /// A job, or the error that there is none.
    pub(super) fn job(&self, id: i64) -> Result<Job, QueueError> {
        self.find(id)?.ok_or(QueueError::NotFound(id))
    }

    /// A job, if it exists.
    pub(super) fn find(&self, id: i64) -> Result<Option<Job>, QueueError> {
        self.first(&format!("select {COLUMNS} from job where id = ?1"), [id], Job::read)
    }

    /// Updates one job by `set …` with ?1 as its id, and writes the event of it. The job must exist.
    pub(super) fn update(
        &mut self,
        event: EventType,
        set: &str,
        params: impl Params,
    ) -> Result<Job, QueueError> {
        let job = self.write(set, params)?;
        self.event(event, &job, None)?;
        Ok(job)
    }

    /// As [`Change::update`]; whoever calls it writes the event.
    pub(super) fn write(&self, set: &str, params: impl Params) -> Result<Job, QueueError> {
        let sql = format!("update job set {set} where id = ?1 returning {COLUMNS}");
        let job = self.first(&sql, params, Job::read)?;
        job.ok_or_else(|| self.failed(rusqlite::Error::QueryReturnedNoRows))
    }

    /// Writes the event of one transition, with the job as it stands right after it.
    pub(super) fn event(
        &mut self,
        event: EventType,
        job: &Job,
        late: Option<&str>,
    ) -> Result<(), QueueError> {
        self.entry(event, job, late, &job.snapshot())
    }

    /// Writes the event of a job that has said these lines, which are JSON.
    pub(super) fn event_with_log(&mut self, job: &Job, lines: &str) -> Result<(), QueueError> {
        let snapshot = job.snapshot();
        let open = snapshot.strip_suffix('}').expect("a snapshot is an object");
        self.entry(EventType::Progress, job, None, &format!("{open},\"log\":{lines}}}"))
    }

    fn entry(
        &mut self,
        event: EventType,
        job: &Job,
        late: Option<&str>,
        data: &str,
    ) -> Result<(), QueueError> {
        self.touched.events = true;
        let sql = "insert into entry (at, id, topic, type, subject, trace, late, data)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let mut id = Uuid::encode_buffer();
        let id: &str = Uuid::new_v4().hyphenated().encode_lower(&mut id);
        let (topic, subject) = (format!("task/{}/{}", job.task, job.id), job.id.to_string());
        self.execute(sql, params![self.now, id, topic, event.as_str(), subject, job.trace, late, data])?;
        Ok(())
    }

    /// Counts a job in the metrics.
    pub(super) fn count(&mut self, metric: &'static str, job: &Job, state: Option<State>) {
        self.touched.count(metric, &job.queue, &job.task, state.map(State::as_str));
    }

    /// Notes how long a job could have run that is claimed now.
    pub(super) fn note_wait(&mut self, job: &Job) {
        let seconds = (self.now - job.delayed) as f64 / 1e6;
        self.touched.waited(&job.queue, &job.task, seconds);
    }

    /// The number of a job that becomes ready now.
    pub(super) fn draw(&mut self) -> Result<i64, QueueError> {
        let last = match self.drawn {
            Some(last) => last,
            None => self.tally("drawn")?,
        };
        self.drawn = Some(last + 1);
        self.touched.jobs = true;
        Ok(last + 1)
    }

    fn tally(&self, name: &str) -> Result<i64, QueueError> {
        let n = self.first("select n from tally where name = ?1", [name], |row| row.get(0))?;
        Ok(n.unwrap_or_default())
    }

    /// Workers must hear of this change at once.
    pub(super) fn control(&mut self) -> Result<(), QueueError> {
        self.touched.controls = true;
        self.execute("update tally set n = n + 1 where name = 'control'", []).map(drop)
    }

    /// A job has gone from one state to another; `None` is before it was there, and after it was deleted.
    pub(super) fn moved(
        &mut self,
        job: i64,
        before: Option<State>,
        after: Option<State>,
    ) -> Result<(), QueueError> {
        for (state, step) in [(before, -1), (after, 1)] {
            if let Some(state) = state {
                self.by_state[state as usize] += step;
            }
        }
        let (strict, lax) = (rules::edge_step(before, after, false), rules::edge_step(before, after, true));
        if let Some(ended) = after.filter(|after| after.is_ended() && before.is_some()) {
            self.ended[ended as usize] += 1;
        }
        if before.is_some() && (strict, lax) != (0, 0) {
            self.move_edges(job, strict, lax)?;
            let again = before.is_some_and(State::is_ended) && after.is_some_and(|after| !after.is_ended());
            self.moved_parents.push((job, again));
        }
        Ok(())
    }

    /// Moves the children's counters and whatever follows from them.
    fn move_edges(&mut self, parent: i64, strict: i64, lax: i64) -> Result<(), QueueError> {
        let counted = self.execute(
            "update job set open_edges = open_edges + iif(lax, ?3, ?2)
              where id in (select child from edge where parent = ?1) and on_failure is null",
            params![parent, strict, lax],
        )?;
        if counted == 0 {
            return Ok(());
        }
        self.execute(
            "update job set ready = 0
              where id in (select child from edge where parent = ?1) and ready and open_edges > 0",
            [parent],
        )?;
        let freed = self.all(
            "select id from job
              where id in (select child from edge where parent = ?1) and on_failure is null
                and state = 'inactive' and not ready and open_edges = 0 and later is null
              order by id",
            [parent],
            |row| row.get::<_, i64>(0),
        )?;
        for child in freed {
            let seq = self.draw()?;
            self.execute("update job set ready = 1, seq = ?2 where id = ?1", [child, seq])?;
        }
        Ok(())
    }

    /// A run that failed, though the job may be retried.
    pub(super) fn count_failure(&mut self) {
        self.ended[State::Failed as usize] += 1;
    }

    /// A new job that runs on a failure is judged when all of its call are there.
    pub(super) fn judge_at_the_end(&mut self, job: i64) {
        self.orphans.push(job);
    }

    /// Children that run on a failure and are to be judged by themselves.
    pub(super) fn take_orphans(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.orphans)
    }

    /// The parents whose children that run on a failure are still to be judged, and whether each waits again.
    pub(super) fn take_moved_parents(&mut self) -> Vec<(i64, bool)> {
        std::mem::take(&mut self.moved_parents)
    }

    /// Lets a job's key go, if it has one and does not hold it for a time that is not over.
    pub(super) fn release_key(&self, job: &Job) -> Result<(), QueueError> {
        if let Some(key) = &job.key {
            let sql = "delete from job_key
                        where task = ?1 and key = ?2 and job = ?3 and (until is null or until <= ?4)";
            self.execute(sql, params![job.task, key, job.id, self.now])?;
        }
        Ok(())
    }

    /// Nobody runs the job any more: its place under a limit is free.
    pub(super) fn release_place(&mut self, job: &Job) -> Result<(), QueueError> {
        if job.limited.is_some() && self.execute("delete from running where job = ?1", [job.id])? > 0 {
            self.touched.jobs = true;
        }
        Ok(())
    }

    /// Idle workers are to look again.
    pub(super) fn wake_workers(&mut self) {
        self.touched.jobs = true;
    }

    /// Deletes a job, with the event that tells of it.
    pub(super) fn delete(&mut self, event: EventType, job: &Job) -> Result<(), QueueError> {
        self.event(event, job, None)?;
        self.moved(job.id, Some(job.state), None)?;
        self.release_key(job)?;
        let orphans = self.all(
            "select id from job where id in (select child from edge where parent = ?1) and on_failure order by id",
            [job.id],
            |row| row.get::<_, i64>(0),
        )?;
        self.orphans.extend(orphans);
        self.execute("delete from edge where parent = ?1", [job.id])?;
        self.execute("delete from edge where child = ?1", [job.id])?;
        self.execute("delete from failure where job = ?1", [job.id])?;
        self.execute("delete from log_line where job = ?1", [job.id])?;
        self.execute("delete from job where id = ?1", [job.id])?;
        Ok(())
    }

    /// Writes the figures that have moved.
    fn finish(self) -> Result<(), QueueError> {
        let add = "update tally set n = n + ?2 where name = ?1";
        for state in State::ALL {
            let step = self.by_state[*state as usize];
            if step != 0 {
                self.execute(add, params![state.as_str(), step])?;
            }
        }
        let [finished, failed, cancelled] =
            [State::Finished, State::Failed, State::Cancelled].map(|state| self.ended[state as usize]);
        if (finished, failed, cancelled) != (0, 0, 0) {
            self.execute(
                "insert into hour (hour, finished, failed, cancelled) values (?1, ?2, ?3, ?4)
                 on conflict (hour) do update set finished = finished + excluded.finished,
                   failed = failed + excluded.failed, cancelled = cancelled + excluded.cancelled",
                params![self.now.div_euclid(HOUR) * HOUR, finished, failed, cancelled],
            )?;
        }
        if let Some(drawn) = self.drawn {
            self.execute("update tally set n = ?1 where name = 'drawn'", [drawn])?;
        }
        Ok(())
    }
}
