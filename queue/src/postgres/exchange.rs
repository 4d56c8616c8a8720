//! Hands outcomes in and claims jobs, in one commit.
//!
//! Few jobs that finished and a claim are one statement (`exchange.sql`); many are two in one transaction, so that the claim has
//! a look of its own. Failures are written before them in the same transaction, each `failed` followed by its automatic
//! retry. All of it is sent at once and costs one round trip. What was not accepted is judged afterwards
//! (`judging.rs`), so that the usual case pays nothing for it.

use super::PgStore;
use super::connection::failed;
use super::marks::{Got, Look};
use super::pull::notes;
use super::session::Session;
use crate::error::QueueError;
use crate::metrics::{JOBS_FINISHED, count_jobs, note_waits, tells_wait};
use crate::rules;
use crate::store::{Claim, Ending, Exchanged, Leased, Outcome, Pause, Verdict};
use minium_protocol::{LeaseToken, State, TraceContext};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, GenericClient, Row};
use uuid::Uuid;

const WHAT: &str = "hand in outcomes and claim jobs";
/// $1 outcomes' jobs. Failures and what finished are written by two statements; all of them are locked before, so that who else
/// locks several meets them in one order. Index: the key of job. Locks: the jobs, by id.
const LOCK: &str = "select from minium.job where id = any ($1::bigint[]) order by id for no key update";
const EXCHANGE: &str = include_str!("exchange.sql");
const FAIL: &str = include_str!("fail.sql");
const RETRY: &str = include_str!("retry.sql");

/// From so many outcomes on, it matters that others claim while they are written.
const MANY: usize = 16;

/// Outcomes of different jobs, in one array for each column.
#[derive(Debug, Default)]
struct Batch<'a> {
    finished: Vec<i64>,
    finished_leases: Vec<Uuid>,
    results: Vec<std::borrow::Cow<'a, str>>,
    failed: Vec<i64>,
    failed_leases: Vec<Uuid>,
    errors: Vec<std::borrow::Cow<'a, str>>,
    retry: Vec<bool>,
    backtraces: Vec<Option<std::borrow::Cow<'a, str>>>,
    retried: Vec<i64>,
    retried_leases: Vec<Uuid>,
    run_pauses: Vec<Option<i64>>,
    task_pauses: Vec<Option<i64>>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, outcome: &'a Outcome) {
        match &outcome.ending {
            Ending::Finished(result) => {
                self.finished.push(outcome.job);
                self.finished_leases.push(outcome.lease.0);
                self.results.push(rules::result_text(result));
            }
            Ending::Failed { error, retry, pause, backtrace } => {
                self.failed.push(outcome.job);
                self.failed_leases.push(outcome.lease.0);
                self.errors.push(rules::storable(error));
                self.retry.push(*retry);
                self.backtraces.push(backtrace.as_deref().map(rules::storable));
                if *retry {
                    self.retried.push(outcome.job);
                    self.retried_leases.push(outcome.lease.0);
                    let (run, task) = match pause {
                        Pause::Usual => (None, None),
                        Pause::Run(pause) => (Some(rules::micros(*pause)), None),
                        Pause::Task(pause) => (None, Some(rules::micros(*pause))),
                    };
                    self.run_pauses.push(run);
                    self.task_pauses.push(task);
                }
            }
        }
    }
}

/// What one statement says of itself: how many to claim, where.
struct Asked<'a> {
    claim: &'a Claim,
    limit: i64,
    worker: String,
    lease_us: i64,
    min_priority: i32,
    aged_us: Option<i64>,
    look: Look,
}

/// What the statements answered.
#[derive(Default)]
struct Answer {
    accepted: HashSet<i64>,
    claimed: Vec<Claimed>,
    /// Parents with children that wait may have ended.
    settle: bool,
    /// Something became ready.
    ready: bool,
    /// What ran under a limit has ended, so that another may be claimed.
    room: bool,
    /// There are limits.
    limits: bool,
    /// Some were taken task by task: jobs of other tasks that were asked for may wait before them.
    apart: bool,
}

/// What a round claimed.
#[derive(Default)]
struct Taken {
    jobs: Vec<Claimed>,
    /// As [`Answer::apart`].
    apart: bool,
}

pub(super) struct Claimed {
    pub(super) seq: i64,
    pub(super) priority: i32,
    pub(super) job: Leased,
}

impl PgStore {
    pub(super) async fn exchange_all(
        &self,
        outcomes: &[Outcome],
        claim: &Claim,
    ) -> Result<Exchanged, QueueError> {
        rules::check_claim(claim)?;
        let mut verdicts = vec![Verdict::LeaseLost; outcomes.len()];
        let mut rounds = rounds(outcomes, self.options.batch_max);
        let last = rounds.pop().unwrap_or_default();
        for round in &rounds {
            self.round(outcomes, round, self.asked(claim, 0), &mut verdicts).await?;
        }
        let limit = i64::from(claim.limit).min(i64::try_from(self.options.batch_max).unwrap_or(i64::MAX));
        let limit = if claim.queues.is_empty() { 0 } else { limit };
        let mut limited = Vec::new();
        if limit > 0 && self.has_limits() {
            // those that are not limited and more urgent are left their places
            limited = self.claim_limited(claim, limit, self.most_urgent(claim).await?).await?;
        }
        let asked = self.asked(claim, limit - i64::try_from(limited.len()).unwrap_or(limit));
        let limit = asked.limit;
        let whole = asked.look.is_whole();
        let mut taken = match self.round(outcomes, &last, asked, &mut verdicts).await {
            Ok(taken) => taken,
            Err(error) if limited.is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "Outcomes could not be handed in; the jobs claimed before them go out.");
                last.iter().for_each(|&i| verdicts[i] = Verdict::Unjudged);
                Taken::default()
            }
        };
        let short = limit - i64::try_from(taken.jobs.len()).unwrap_or(limit);
        if short > 0 && !whole {
            // the marks may have hidden what was committed late
            let mut again = self.asked(claim, short);
            again.look = again.look.whole();
            match self.round(outcomes, &[], again, &mut verdicts).await {
                Ok(more) => {
                    taken.jobs.extend(more.jobs);
                    taken.apart |= more.apart;
                }
                // the first look's claims and verdicts are committed, and must reach whoever asked
                Err(error) => tracing::warn!(%error, "A second look for jobs has failed."),
            }
        }
        if limit > 0 {
            limited.extend(self.learn(claim, limit, &taken).await);
        }
        let mut claimed = taken.jobs;
        claimed.extend(limited);
        claimed.sort_by_key(|c| (std::cmp::Reverse(c.priority), c.seq));
        Ok(Exchanged { verdicts, jobs: claimed.into_iter().map(|c| c.job).collect(), slowed: false })
    }

    /// Learns from what was claimed. When that was less than was asked for, looks for whoever is left under limits, and asks to
    /// be woken.
    async fn learn(&self, claim: &Claim, limit: i64, taken: &Taken) -> Vec<Claimed> {
        let short = limit - i64::try_from(taken.jobs.len()).unwrap_or(limit);
        let in_order = if taken.apart { &[][..] } else { &taken.jobs };
        let got = in_order.iter().map(|c| Got { queue: &c.job.queue, priority: c.priority, seq: c.seq });
        self.marks.learn(claim, short <= 0, got, Instant::now());
        if short <= 0 {
            return Vec::new();
        }
        let mut limited = Vec::new();
        if self.has_limits() {
            let from = claim.min_priority.unwrap_or(i32::MIN);
            // the first look's claims and verdicts are committed, and must reach whoever asked
            match self.claim_limited(claim, short, from).await {
                Ok(more) => limited = more,
                Err(error) => tracing::warn!(%error, "A look for jobs under limits has failed."),
            }
        }
        self.ask_to_be_woken().await;
        limited
    }

    /// Hands in that a run has ended well, inside of the caller's transaction: it counts if that commits, together with
    /// whatever else it holds. The worker's own word about the same run, with the same result, is a repetition then, so a
    /// task simply returns what it handed in. Whoever waits for the job is released by upkeep, or by that word.
    ///
    /// # Errors
    /// What the database refuses has ended the transaction.
    pub async fn finish_in<C: GenericClient + Sync>(
        &self,
        client: &C,
        job: i64,
        lease: LeaseToken,
        result: &RawValue,
    ) -> Result<Verdict, QueueError> {
        let outcome = Outcome { job, lease, ending: Ending::Finished(result.to_owned()) };
        let mut batch = Batch::default();
        batch.push(&outcome);
        let claim = Claim::nothing();
        let asked = self.asked(&claim, 0);
        let rows = client.query(EXCHANGE, &exchange_params(&batch, &asked)).await;
        let rows = rows.map_err(|e| failed("hand in an outcome within a transaction", e))?;
        let mut answer = Answer::default();
        answer.read(&rows).map_err(|e| failed("hand in an outcome within a transaction", e))?;
        Ok(if answer.accepted.contains(&job) { Verdict::Accepted } else { Verdict::LeaseLost })
    }

    fn asked<'a>(&self, claim: &'a Claim, limit: i64) -> Asked<'a> {
        Asked {
            claim,
            limit,
            worker: serde_json::to_string(&claim.worker).expect("a worker is plain JSON"),
            lease_us: rules::micros(claim.lease),
            min_priority: claim.min_priority.unwrap_or(i32::MIN),
            aged_us: claim.aged.map(rules::micros),
            look: if limit > 0 { self.marks.look(claim, Instant::now()) } else { Look::default() },
        }
    }

    /// One commit: outcomes of different jobs, and perhaps a claim.
    async fn round(
        &self,
        outcomes: &[Outcome],
        round: &[usize],
        asked: Asked<'_>,
        verdicts: &mut [Verdict],
    ) -> Result<Taken, QueueError> {
        if round.is_empty() && asked.limit == 0 {
            return Ok(Taken::default());
        }
        let mut batch = Batch::default();
        for &i in round {
            batch.push(&outcomes[i]);
        }
        let (batch, asked) = (&batch, &asked);
        let exchange = |client: Session| async move {
            if !batch.failed.is_empty() || asked.limit > 0 && batch.finished.len() >= MANY {
                Box::pin(one_transaction(&client, batch, asked)).await
            } else {
                one_statement(&client, batch, asked).await
            }
        };
        let answer = self.connections.run(WHAT, exchange).await?;
        self.note_limits(answer.limits);
        if !answer.accepted.is_empty() || !answer.claimed.is_empty() {
            self.wake(answer.ready || answer.room);
        }
        if answer.room {
            self.tell_of_room();
        }
        if !answer.accepted.is_empty() {
            self.settle_beside(answer.accepted.iter().copied().collect(), answer.settle).await;
        }
        let mut refused = Vec::new();
        for &i in round {
            if answer.accepted.contains(&outcomes[i].job) {
                verdicts[i] = Verdict::Accepted;
            } else {
                refused.push(i);
            }
        }
        if !refused.is_empty() {
            self.judge_beside(outcomes, &refused, verdicts, !answer.claimed.is_empty()).await?;
        }
        Ok(Taken { jobs: answer.claimed, apart: answer.apart })
    }
}

/// Splits outcomes so that no round has two of one job, each by id, and none is longer than a statement takes.
fn rounds(outcomes: &[Outcome], batch_max: usize) -> Vec<Vec<usize>> {
    let mut rounds = Vec::new();
    let (mut round, mut jobs) = (Vec::new(), HashSet::new());
    for (i, outcome) in outcomes.iter().enumerate() {
        if round.len() >= batch_max || jobs.contains(&outcome.job) {
            rounds.push(std::mem::take(&mut round));
            jobs.clear();
        }
        jobs.insert(outcome.job);
        round.push(i);
    }
    rounds.push(round);
    // the statements look outcomes up in the order of the ids
    rounds.iter_mut().for_each(|round| round.sort_unstable_by_key(|&i| outcomes[i].job));
    rounds
}

async fn one_statement(client: &Session, batch: &Batch<'_>, asked: &Asked<'_>) -> Result<Answer, Error> {
    let statement = client.prepare_cached(EXCHANGE).await?;
    let rows = client.query(&statement, &exchange_params(batch, asked)).await?;
    let mut answer = Answer::default();
    answer.read(&rows)?;
    Ok(answer)
}

/// The same in one transaction: failures, what finished, the claim. Everything is sent before the first answer is waited for; if
/// a statement fails, the commit at the end rolls back.
///
/// The claim is a statement of its own, so that it begins with a look of its own at the database. One that looks at it as it was
/// before many outcomes were written meets jobs that other workers have claimed since. It locks the new version of each, to
/// see that it is not ready any more, and that worker waits for this commit when it hands the job in.
async fn one_transaction(client: &Session, batch: &Batch<'_>, asked: &Asked<'_>) -> Result<Answer, Error> {
    let exchange = client.prepare_cached(EXCHANGE).await?;
    let failing = match batch.failed.is_empty() {
        true => None,
        false => Some((
            client.prepare_cached(LOCK).await?,
            client.prepare_cached(FAIL).await?,
            client.prepare_cached(RETRY).await?,
        )),
    };
    let all: Vec<i64> = batch.failed.iter().chain(&batch.finished).copied().collect();
    let fail_params: [&(dyn ToSql + Sync); 5] =
        [&batch.failed, &batch.failed_leases, &batch.errors, &batch.retry, &batch.backtraces];
    let retry_params: [&(dyn ToSql + Sync); 4] =
        [&batch.retried, &batch.retried_leases, &batch.run_pauses, &batch.task_pauses];
    let (nothing, none) = (Batch::default(), 0_i64);
    let mut finish_params = exchange_params(batch, asked);
    finish_params[LIMIT] = &none;
    let claim_params = exchange_params(&nothing, asked);
    let (begun, locked, failed, retried, finished, claimed, committed) = futures::join!(
        client.batch_execute("begin"),
        async {
            let Some((lock, ..)) = &failing else { return Ok(Vec::new()) };
            client.query(lock, &[&all]).await
        },
        async {
            let Some((_, fail, _)) = &failing else { return Ok(Vec::new()) };
            client.query(fail, &fail_params).await
        },
        async {
            let Some((.., retry)) = &failing else { return Ok(None) };
            client.query_one(retry, &retry_params).await.map(Some)
        },
        client.query(&exchange, &finish_params),
        async {
            if asked.limit == 0 { Ok(Vec::new()) } else { client.query(&exchange, &claim_params).await }
        },
        client.batch_execute("commit"),
    );
    begun?;
    locked?;
    let (failed, retried, finished, claimed) = (failed?, retried?, finished?, claimed?);
    committed?;
    let mut answer = Answer::default();
    for row in failed {
        answer.ended(row.get(0), row.get(1), row.get(2), row.get(3), State::Failed);
        answer.room |= row.get::<_, bool>(4);
    }
    answer.ready = retried.is_some_and(|row| row.get(1));
    answer.read(&finished)?;
    answer.read(&claimed)?;
    Ok(answer)
}

/// The place of the limit among the parameters of [`EXCHANGE`].
const LIMIT: usize = 3;

/// The parameters of [`EXCHANGE`].
fn exchange_params<'a>(batch: &'a Batch<'_>, asked: &'a Asked<'_>) -> [&'a (dyn ToSql + Sync); 13] {
    let (claim, look) = (asked.claim, &asked.look);
    [
        &batch.finished,
        &batch.finished_leases,
        &batch.results,
        &asked.limit,
        &asked.worker,
        &asked.lease_us,
        &look.queues,
        &claim.tasks,
        &asked.min_priority,
        &look.mark_queues,
        &look.mark_priorities,
        &look.marks,
        &asked.aged_us,
    ]
}

impl Answer {
    fn read(&mut self, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            match row.get::<_, &str>(0) {
                "f" => {
                    self.ended(row.get(4), row.get(5), row.get(13), row.get(14), State::Finished);
                    self.room |= row.get::<_, bool>(15);
                }
                "c" => self.claimed.push(claimed(row)?),
                "l" => self.limits = true,
                "t" => self.apart = true,
                // the row is only there to have woken the journal's reader
                _ => {}
            }
        }
        note_waits(rows.iter().filter_map(waited));
        Ok(())
    }

    fn ended(&mut self, task: &str, queue: &str, ids: Vec<i64>, settle: bool, state: State) {
        let n = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        count_jobs(JOBS_FINISHED, queue, task, Some(state.as_str()), n);
        self.accepted.extend(ids);
        self.settle |= settle;
    }
}

fn claimed(row: &Row) -> Result<Claimed, Error> {
    let args: String = row.try_get(6)?;
    let timeout: Option<i64> = row.try_get(11)?;
    Ok(Claimed {
        seq: row.try_get(2)?,
        priority: row.try_get(3)?,
        job: Leased {
            id: row.try_get(1)?,
            task: row.try_get(4)?,
            queue: row.try_get(5)?,
            args: RawValue::from_string(args).expect("the column's type admits JSON only"),
            attempt: row.try_get(7)?,
            attempts: row.try_get(8)?,
            lease: LeaseToken(row.try_get(9)?),
            lease_expires: row.try_get(10)?,
            timeout: timeout.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros),
            trace: row.try_get::<_, Option<&str>>(12)?.and_then(TraceContext::from_text),
            priority: row.try_get(3)?,
            notes: notes(row.try_get(1)?, row.try_get(16)?),
            parents: row.try_get::<_, Option<_>>(13)?.unwrap_or_default(),
        },
    })
}

/// Whose wait a row tells, if it does, and how long that was.
fn waited(row: &Row) -> Option<(&str, &str, f64)> {
    let seconds = row.get::<_, Option<f64>>(17)?;
    let has_parents = row.get::<_, Option<Vec<i64>>>(13).is_some();
    tells_wait(row.get(7), has_parents).then(|| (row.get(5), row.get(4), seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(job: i64) -> Outcome {
        Outcome { job, lease: LeaseToken::fresh(), ending: Ending::failed("a\0\"b") }
    }

    #[test]
    fn two_words_about_one_job_come_one_after_the_other() {
        let outcomes: Vec<_> = [1, 2, 1, 1, 3].map(outcome).into();
        assert_eq!(rounds(&outcomes, 10), [vec![0, 1], vec![2], vec![3, 4]]);
        assert_eq!(rounds(&outcomes[..2], 1), [vec![0], vec![1]]);
        assert_eq!(rounds(&[], 10), [Vec::<usize>::new()]);
        assert_eq!(
            rounds(&[3, 1, 2].map(outcome), 10),
            [vec![1, 2, 0]],
            "each round in the order of the ids"
        );
    }
}
