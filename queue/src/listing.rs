//! How one page of a list comes together.
//!
//! A list walks from the newest job downwards, and a filter that few jobs pass walks far. So it goes in pieces, each a short
//! statement over a bounded number of jobs, which takes no lock and keeps no old snapshot alive; and it gives up after so many
//! jobs that were looked at, or so much time, with a cursor behind the last of them. No filter keeps the database busy.

use crate::error::QueueError;
use crate::filter::JobFilter;
use crate::rules;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::time::Instant;

/// So many jobs are looked at first: most pages are full by then.
const FIRST: u32 = 1_000;
/// And so many with each statement behind it.
const FURTHER: u32 = 5_000;
/// No further piece is begun after so long.
const TIME_MAX: Duration = Duration::from_secs(1);

/// One page of jobs, newest first.
#[derive(Debug)]
pub struct JobPage {
    /// Snapshots.
    pub jobs: Vec<Box<RawValue>>,
    /// `before` of the next page, if there may be more: a page that is short, or empty, is not the last for that.
    pub next: Option<i64>,
}

/// What one statement found.
pub(crate) struct Piece {
    pub(crate) jobs: Vec<Box<RawValue>>,
    /// The page is full, and more jobs pass the filter below this one.
    pub(crate) full: Option<i64>,
    /// The last job that was looked at, if there are any below it.
    pub(crate) low: Option<i64>,
}

/// Puts a page together. `read` looks at no more jobs than it is told, and gives no more than the filter says.
pub(crate) async fn page<F: Future<Output = Result<Piece, QueueError>>>(
    filter: &JobFilter,
    mut read: impl FnMut(JobFilter, u32) -> F,
) -> Result<JobPage, QueueError> {
    let begun = Instant::now();
    let mut asked = filter.clone();
    asked.limit = filter.limit.clamp(1, rules::PAGE_MAX);
    let (mut jobs, mut looked) = (Vec::new(), 0);
    loop {
        let step = if looked == 0 { FIRST } else { FURTHER };
        let step = step.min(filter.looked_max.saturating_sub(looked).max(1));
        let piece = read(asked.clone(), step).await?;
        looked = looked.saturating_add(step);
        asked.limit -= u32::try_from(piece.jobs.len()).unwrap_or(u32::MAX).min(asked.limit);
        let bytes: usize = piece.jobs.iter().map(|job| job.get().len()).sum();
        asked.bytes_max = asked.bytes_max.saturating_sub(bytes);
        jobs.extend(piece.jobs);
        if piece.full.is_some() || piece.low.is_none() {
            return Ok(JobPage { jobs, next: piece.full });
        }
        asked.before = piece.low;
        let full = asked.limit == 0 || asked.bytes_max == 0 && !jobs.is_empty();
        if full || looked >= filter.looked_max || begun.elapsed() >= TIME_MAX {
            return Ok(JobPage { jobs, next: piece.low });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: i64) -> Box<RawValue> {
        serde_json::value::to_raw_value(&id).unwrap()
    }

    /// Walks from `newest` downwards over ids without gaps, of which every one passes that `every` divides.
    async fn walked(filter: &JobFilter, newest: i64, every: i64) -> (Vec<i64>, Option<i64>, Vec<u32>) {
        let mut steps = Vec::new();
        let read = |asked: JobFilter, step: u32| {
            steps.push(step);
            let from = asked.before.unwrap_or(newest + 1);
            let low = (from - i64::from(step)).max(1);
            let mut found = (low..from).rev().filter(|id| id % every == 0);
            let jobs: Vec<_> = found.by_ref().take(asked.limit as usize).collect();
            let full = found.next().and(jobs.last().copied());
            let jobs = jobs.into_iter().map(job).collect();
            std::future::ready(Ok(Piece { jobs, full, low: (low > 1).then_some(low) }))
        };
        let page = page(filter, read).await.unwrap();
        (page.jobs.iter().map(|job| job.get().parse().unwrap()).collect(), page.next, steps)
    }

    #[tokio::test]
    async fn a_walk_is_bounded_and_goes_on_where_it_ended() {
        let mut filter = JobFilter { limit: 2, ..JobFilter::default() };
        assert_eq!(walked(&filter, 500, 1).await, (vec![500, 499], Some(499), vec![FIRST]));
        assert_eq!(walked(&filter, 500, 501).await, (vec![], None, vec![FIRST]));
        filter.looked_max = 7_500;
        let (jobs, next, steps) = walked(&filter, 100_000, 1_000_000).await;
        assert_eq!((jobs, next, steps), (vec![], Some(92_501), vec![FIRST, FURTHER, 1_500]));
        // every job is met, once, whatever the pages are
        let (mut met, mut pages) = (Vec::new(), 0);
        loop {
            let (jobs, next, _) = walked(&filter, 100_000, 7_000).await;
            met.extend(jobs);
            pages += 1;
            let Some(next) = next else { break };
            filter.before = Some(next);
        }
        assert_eq!(met, (1..=14).rev().map(|n| n * 7_000).collect::<Vec<_>>());
        assert!(pages > 13, "{pages}");
    }

    #[tokio::test]
    async fn what_is_full_at_the_end_of_a_piece_ends_there() {
        let filter = JobFilter { limit: 1, ..JobFilter::default() };
        assert_eq!(walked(&filter, 5_000, 4_500).await, (vec![4_500], Some(4_001), vec![FIRST]));
    }
}
