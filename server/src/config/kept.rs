//! How long jobs are kept, and how long the events of the node's own deliveries.
//!
//! A receiver that is away for a day costs some forty events for each that it is to be told, and a failed job that nobody may
//! ever look at. So what sinks deliver is kept for less time than others, unless the configuration says so itself: it must not
//! push the events of jobs out of the journal.

use super::Config;
use crate::sinks::{QUEUE, TASK_NAMESPACE};
use minium_notifier::Retention as Events;
use minium_protocol::Topic;
use minium_queue::{Keep, Retention};
use std::collections::BTreeMap;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
/// So long are events of deliveries kept.
const EVENTS_AGE: Duration = DAY;
/// So many of them.
const EVENTS_COUNT: u64 = 100_000;
/// So long are deliveries that failed or were cancelled kept: to be looked at, and told again.
const FAILED_KEPT: Duration = DAY.saturating_mul(14);

impl Config {
    /// How long jobs are kept.
    pub(crate) fn job_retention(&self) -> Retention {
        let queue = &self.queue;
        let usual = Keep {
            finished: Some(queue.keep_finished),
            failed: queue.keep_failed,
            cancelled: queue.keep_cancelled,
        };
        let said = self.retention.iter().map(|(name, keep)| {
            let keep = Keep { finished: keep.finished, failed: keep.failed, cancelled: keep.cancelled };
            (name.clone(), keep)
        });
        let mut queues: BTreeMap<String, Keep> = said.collect();
        if !self.sinks.is_empty() {
            let at_most =
                |said: Option<Duration>| Some(said.map_or(FAILED_KEPT, |said| said.min(FAILED_KEPT)));
            let deliveries =
                Keep { failed: at_most(usual.failed), cancelled: at_most(usual.cancelled), ..usual };
            queues.entry(QUEUE.into()).or_insert(deliveries);
        }
        Retention { usual, queues }
    }

    /// How long events of deliveries are kept, given how long those of all jobs are; nothing where there are none.
    pub(super) fn delivery_events(&self, usual: &Events) -> Option<(Topic, Events)> {
        let deliveries = format!("task/{TASK_NAMESPACE}").parse().ok().filter(|_| !self.sinks.is_empty())?;
        let kept = Events {
            age: usual.age.min(EVENTS_AGE),
            count: usual.count.min(EVENTS_COUNT),
            bytes: usual.bytes,
        };
        Some((deliveries, kept))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::from_text;
    use std::time::Duration;

    const SINK: &str = "[sinks.ops]\nkind = \"webhook\"\nurl = \"https://example.com/\"\n\
        secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
    const DAY: u64 = 86_400;

    fn days(kept: Option<Duration>) -> Option<u64> {
        kept.map(|kept| kept.as_secs() / DAY)
    }

    #[test]
    fn deliveries_are_kept_for_less_time_than_others() {
        let none = from_text("").unwrap();
        assert!(none.job_retention().queues.is_empty());
        assert!(!none.retention_policy().channels.contains_key(&"task/minium".parse().unwrap()));

        let config = from_text(SINK).unwrap();
        let kept = &config.job_retention().queues["minium"];
        assert_eq!(
            (days(kept.finished), days(kept.failed), days(kept.cancelled)),
            (Some(2), Some(14), Some(14))
        );
        let events = config.retention_policy().channels;
        let of = |prefix: &str| &events[&prefix.parse().unwrap()];
        assert_eq!((of("task/minium").age.as_secs(), of("task/minium").count), (DAY, 100_000));
        assert_eq!(of("task").count, 1_000_000);
    }

    #[test]
    fn what_is_said_of_deliveries_counts() {
        let said = "[retention.minium]\nfailed = \"90d\"\n[channels.\"task/minium\"]\nretention = { age = \"5d\" }\n";
        let config = from_text(&format!("{SINK}{said}")).unwrap();
        let kept = &config.job_retention().queues["minium"];
        assert_eq!((days(kept.finished), days(kept.failed)), (None, Some(90)));
        let events = config.retention_policy().channels;
        assert_eq!(events[&"task/minium".parse().unwrap()].age.as_secs(), 5 * DAY);
        // and what is short for all is short for them
        let config = from_text(&format!("{SINK}[queue]\nkeep_failed = \"1d\"\n")).unwrap();
        assert_eq!(days(config.job_retention().queues["minium"].failed), Some(1));
    }
}
