//! What an answer means for a delivery, and what a delivery's end means for its job. Pure but for the metric.

use super::outbound::Answer;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use minium_worker::Failure;
use serde_json::{Value, json};
use std::time::Duration;

/// Deliveries by how an attempt ended, `sink` and `outcome`.
pub(super) const DELIVERIES: &str = "minium_sinks_deliveries_total";

/// No receiver is asked again sooner, whatever it says: each time is a job's run, with its events.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// So long a receiver may ask us to wait; then we ask again.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// A delivery that waits for longer than this is put off no more: an attempt that meets a receiver who wants us to wait has failed.
const PATIENCE: Duration = Duration::from_secs(86_400);
/// So much of an answer stands in a job's result or error.
const SHOWN_CHARS_MAX: usize = 500;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// The receiver has it.
    Delivered(Value),
    /// There was nothing to tell any more.
    Skipped(&'static str),
    /// The receiver does not want it, now or later.
    Refused(String),
    /// Another attempt may help.
    Failed(String),
    /// The receiver wants us to come again after so long.
    Later(Duration, String),
}

impl Verdict {
    fn outcome(&self) -> &'static str {
        match self {
            Verdict::Delivered(_) => "delivered",
            Verdict::Skipped(_) => "skipped",
            Verdict::Refused(_) => "refused",
            Verdict::Failed(_) => "failed",
            Verdict::Later(..) => "postponed",
        }
    }

    pub(super) fn count(&self, sink: &str) {
        metrics::counter!(DELIVERIES, "sink" => sink.to_owned(), "outcome" => self.outcome()).increment(1);
    }

    /// What it is to the job, which has been there for so long.
    pub(super) fn of_job(self, age: Duration) -> Result<Value, Failure> {
        match self {
            Verdict::Delivered(result) => Ok(result),
            Verdict::Skipped(why) => Ok(json!({ "skipped": why })),
            Verdict::Refused(why) => Err(Failure::permanent(why)),
            Verdict::Failed(why) => Err(Failure::retryable(why)),
            Verdict::Later(pause, _) if age < PATIENCE => Err(Failure::postpone(bounded(pause))),
            Verdict::Later(pause, why) => Err(Failure::retry_in(bounded(pause), why)),
        }
    }
}

/// A pause that a receiver may ask for.
fn bounded(pause: Duration) -> Duration {
    pause.clamp(PAUSE_MIN, PAUSE_MAX)
}

/// The words for an answer that is not what was hoped for.
pub(super) fn words(answer: &Answer) -> String {
    let body = shown(&answer.body);
    let colon = if body.is_empty() { "" } else { ": " };
    format!("the answer was {}{colon}{body}", answer.status)
}

/// The beginning of what a receiver said, on one line.
pub(super) fn shown(body: &str) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    body.trim().chars().take(SHOWN_CHARS_MAX).map(line).collect()
}

/// `Retry-After`, in seconds or as a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, retry.parse().unwrap())])
    }

    #[test]
    fn a_receiver_says_when_by_seconds_or_by_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        assert_eq!(retry_after(&headers("120"), now), Some(Duration::from_secs(120)));
        let date = headers("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(&date, now), Some(Duration::from_secs(30)));
        let later = now + Duration::from_secs(3_600);
        assert_eq!(retry_after(&date, later), Some(Duration::ZERO), "it has passed");
        assert_eq!(retry_after(&headers("soon"), now), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn who_wants_us_to_wait_for_ever_is_not_waited_for() {
        let later = || Verdict::Later(Duration::from_secs(1 << 40), "busy".into());
        let young = later().of_job(Duration::from_secs(60)).unwrap_err();
        assert!(young.postponed && young.pause == Some(PAUSE_MAX));
        let old = later().of_job(PATIENCE).unwrap_err();
        assert!(!old.postponed && old.retry && old.error == "busy");
    }

    #[test]
    fn who_wants_to_be_asked_at_once_is_not() {
        let now = Verdict::Later(Duration::ZERO, "busy".into()).of_job(Duration::ZERO).unwrap_err();
        assert!(now.postponed && now.pause == Some(PAUSE_MIN));
    }

    #[test]
    fn what_a_receiver_says_is_shown_in_part_and_on_one_line() {
        assert_eq!(shown(" a\nb\u{7}c "), "a b c");
        assert_eq!(shown(&"é".repeat(10_000)).chars().count(), SHOWN_CHARS_MAX);
    }
}
