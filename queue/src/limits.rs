//! Limits: how many jobs of a task may run at once, and how many may be started in a time.
//!
//! The nearest limit at or above a job's task, when it is enqueued, is the one that it runs under. Such a job waits apart
//! from the others (it never stands in their way), and is claimed when its limit has room: so a limit holds whatever
//! workers there are, and however they fail. Parts of a limit (a job's `partition`, such as a tenant) are counted apart
//! where it says so, and are served by turns in any case.

use crate::error::QueueError;
use async_trait::async_trait;
use minium_protocol::Topic;
use serde::Serialize;
use std::time::Duration;

/// More limits than this are a mistake: they are for tasks, not for jobs. Tenants are parts of one limit.
const LIMITS_MAX: usize = 1_000;
/// Larger numbers limit nothing.
const NUMBER_MAX: u32 = 1_000_000;

/// How many jobs of one task, and of those below it, at once and in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The task.
    pub task: String,
    /// So many run at once in all.
    pub running: Option<u32>,
    /// So many run at once of each part.
    pub per_partition: Option<u32>,
    /// So many are started in a time.
    pub rate: Option<Rate>,
}

/// So many in a time, as a bucket of tokens: after a rest that many may be started at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// So many.
    pub count: u32,
    /// In so long.
    pub per: Duration,
}

/// A limit, and what it holds back just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitView {
    /// The limit.
    #[serde(flatten)]
    pub limit: Limit,
    /// So many run under it.
    pub active: u32,
}

/// Keeps limits.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Puts these limits in the place of all that there were. Jobs that were enqueued before keep the limit that they were
    /// enqueued under; without that limit nothing holds them back.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a limit that breaks a rule: nothing was changed.
    async fn put_limits(&self, limits: &[Limit]) -> Result<(), QueueError>;

    /// All limits, by task.
    async fn limits(&self) -> Result<Vec<LimitView>, QueueError>;
}

/// Checks limits before any of them is written.
///
/// # Errors
/// [`QueueError::Invalid`], which names the limit.
pub fn check_limits(limits: &[Limit]) -> Result<(), QueueError> {
    if limits.len() > LIMITS_MAX {
        return Err(QueueError::Invalid(format!("{} limits; at most {LIMITS_MAX} are kept", limits.len())));
    }
    let mut seen = std::collections::HashSet::new();
    for limit in limits {
        let named = |words: String| QueueError::Invalid(format!("limit of {:?}: {words}", limit.task));
        Topic::of_job(&limit.task, i64::MAX).map_err(|e| named(e.to_string()))?;
        if !seen.insert(&limit.task) {
            return Err(named("there are two of them".into()));
        }
        let numbers = [limit.running, limit.per_partition, limit.rate.map(|rate| rate.count)];
        if numbers.iter().all(Option::is_none) {
            return Err(named("it limits nothing; give running, per_partition or rate".into()));
        }
        if let Some(number) = numbers.into_iter().flatten().find(|n| *n > NUMBER_MAX) {
            return Err(named(format!("{number} is more than {NUMBER_MAX}")));
        }
        if let Some(rate) = limit.rate {
            if rate.count == 0 {
                return Err(named("a rate is at least one in a time; running = 0 lets none run".into()));
            }
            let day = Duration::from_secs(366 * 86_400);
            if rate.per < Duration::from_millis(1) || rate.per > day {
                return Err(named("the time of a rate is a millisecond to a year".into()));
            }
        }
    }
    Ok(())
}

/// How many starts a bucket holds after some time, and never more than fit into it.
pub(crate) fn filled(tokens: f64, rate: Rate, elapsed: Duration) -> f64 {
    let gained = f64::from(rate.count) * elapsed.as_secs_f64() / rate.per.as_secs_f64();
    (tokens + gained).min(f64::from(rate.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(task: &str) -> Limit {
        Limit { task: task.into(), running: Some(1), per_partition: None, rate: None }
    }

    #[test]
    fn what_limits_nothing_or_makes_no_sense_is_refused() {
        assert!(check_limits(&[limit("a"), limit("a/b")]).is_ok());
        let rate = |count, per| Some(Rate { count, per: Duration::from_secs(per) });
        let bad = [
            vec![limit("a"), limit("a")],
            vec![limit("a b")],
            vec![Limit { running: None, ..limit("a") }],
            vec![Limit { running: Some(2_000_000), ..limit("a") }],
            vec![Limit { rate: rate(0, 1), ..limit("a") }],
            vec![Limit { rate: rate(1, 0), ..limit("a") }],
        ];
        for limits in bad {
            assert!(check_limits(&limits).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn a_bucket_fills_with_time_up_to_its_size() {
        let rate = Rate { count: 10, per: Duration::from_secs(60) };
        assert!((filled(0.0, rate, Duration::from_secs(6)) - 1.0).abs() < 1e-9);
        assert!((filled(9.5, rate, Duration::from_secs(60)) - 10.0).abs() < 1e-9);
    }
}
