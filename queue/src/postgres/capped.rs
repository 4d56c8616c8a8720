//! Claims with bounds for single tasks (`capped.sql`).
//!
//! A statement of its own, so that the usual claim pays nothing for it. Outcomes that come along are handed in before, in a
//! commit of their own: who runs only so many of a task at once runs long ones, and a commit more does not matter.

use super::PgStore;
use super::limits::is_below;
use super::pull::{leased, note_waits};
use crate::caps;
use crate::error::QueueError;
use crate::rules;
use crate::store::{Claim, Exchanged, Leased, Outcome};
use std::collections::BTreeMap;
use tokio_postgres::types::ToSql;

const WHAT: &str = "claim jobs, so many of a task";
const CAPPED: &str = include_str!("capped.sql");

impl PgStore {
    pub(super) async fn exchange_capped(
        &self,
        outcomes: &[Outcome],
        claim: &Claim,
    ) -> Result<Exchanged, QueueError> {
        rules::check_claim(claim)?;
        let nothing = Claim { limit: 0, caps: BTreeMap::new(), ..claim.clone() };
        let mut exchanged = self.exchange_all(outcomes, &nothing).await?;
        // those under limits first, but for what is less urgent than others; then others; then whoever is left
        let first = self.with_limited(claim, Vec::new(), None).await;
        let taken = |task: &str| first.iter().filter(|job| job.task == task).count();
        let less = |n: u32, by: usize| n.saturating_sub(u32::try_from(by).unwrap_or(u32::MAX));
        let rest = Claim {
            limit: less(claim.limit, first.len()),
            caps: claim.caps.iter().map(|(task, cap)| (task.clone(), less(*cap, taken(task)))).collect(),
            ..claim.clone()
        };
        match self.claim_capped(&rest).await {
            Ok(jobs) => {
                let all = first.into_iter().chain(jobs).collect();
                let least = claim.min_priority.unwrap_or(i32::MIN);
                exchanged.jobs = self.with_limited(claim, all, Some(least)).await;
            }
            // what was claimed is committed, and must reach whoever asked
            Err(error) if !first.is_empty() => {
                tracing::warn!(%error, "A claim has failed.");
                exchanged.jobs = first;
            }
            // the verdicts are committed, and must reach whoever asked
            Err(error) if !outcomes.is_empty() => tracing::warn!(%error, "A claim has failed."),
            Err(error) => return Err(error),
        }
        Ok(exchanged)
    }

    /// Adds jobs under limits, so many of each task as are left, from this priority on; without one, those that are no less
    /// urgent than what no limit holds back. What was claimed is committed, and goes out in any case.
    async fn with_limited(&self, claim: &Claim, mut jobs: Vec<Leased>, from: Option<i32>) -> Vec<Leased> {
        if let Err(error) = self.add_limited(claim, &mut jobs, from).await {
            tracing::warn!(%error, "A look for jobs under limits has failed.");
        }
        jobs
    }

    async fn add_limited(
        &self,
        claim: &Claim,
        jobs: &mut Vec<Leased>,
        from: Option<i32>,
    ) -> Result<(), QueueError> {
        let full = claim.limit as usize;
        if jobs.len() >= full || claim.queues.is_empty() {
            return Ok(());
        }
        let wanted = self.limits_with_jobs().await?;
        if wanted.is_empty() {
            return Ok(());
        }
        let from = match from {
            Some(from) => from,
            None => self.most_urgent(claim).await?,
        };
        for (task, cap) in caps::tasks(claim, 0) {
            let taken = jobs.iter().filter(|job| job.task == task).count();
            let room = (cap as usize).saturating_sub(taken).min(full.saturating_sub(jobs.len()));
            if room == 0 || !wanted.iter().any(|limit| is_below(task, limit)) {
                continue;
            }
            let of_task = Claim { tasks: Some(vec![task.to_owned()]), ..claim.clone() };
            let more = self.claim_limited(&of_task, i64::try_from(room).unwrap_or(i64::MAX), from).await?;
            jobs.extend(more.into_iter().map(|claimed| claimed.job));
        }
        Ok(())
    }

    async fn claim_capped(&self, claim: &Claim) -> Result<Vec<Leased>, QueueError> {
        let limit = i64::from(claim.limit.min(rules::CLAIM_MAX));
        let asked = caps::tasks(claim, fastrand::usize(..));
        if limit == 0 || asked.is_empty() || claim.queues.is_empty() {
            return Ok(Vec::new());
        }
        let (tasks, caps): (Vec<&str>, Vec<i64>) = asked.iter().map(|(t, n)| (*t, i64::from(*n))).unzip();
        let mut queues = claim.queues.clone();
        queues.rotate_left(fastrand::usize(..claim.queues.len()));
        let worker = serde_json::to_string(&claim.worker).expect("a worker is plain JSON");
        let (lowest, lease_us) = (claim.min_priority.unwrap_or(i32::MIN), rules::micros(claim.lease));
        let params: [&(dyn ToSql + Sync); 7] = [&limit, &queues, &tasks, &caps, &lowest, &worker, &lease_us];
        let rows = self.rows(WHAT, CAPPED, &params).await?;
        // a row without a place is only there to have woken the journal's reader
        let placed = |row| Some((tokio_postgres::Row::get::<_, Option<i32>>(row, 0)?, leased(row)));
        let mut jobs: Vec<(i32, Leased)> = rows.iter().filter_map(placed).collect();
        note_waits(&rows);
        jobs.sort_by_key(|(place, _)| *place);
        if !jobs.is_empty() {
            self.wake(false);
        }
        if i64::try_from(jobs.len()).is_ok_and(|n| n < limit) {
            self.ask_to_be_woken().await;
        }
        Ok(jobs.into_iter().map(|(_, job)| job).collect())
    }
}
