//! Topics in paths. The raw path is read, since a framework that decodes first would turn `%2F` into a level.

use super::problem::Refusal;
use http::Uri;
use minium_protocol::{ErrorCode, Filter, Topic, TopicError};

/// What stands behind the first segment, still percent-encoded: `a/b` of `/sub/a/b`.
fn rest(uri: &Uri) -> &str {
    uri.path().get(1..).and_then(|path| path.split_once('/')).map_or("", |(_, rest)| rest)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
fn refusal(error: TopicError) -> Refusal {
    Refusal::new(ErrorCode::TopicInvalid, error.to_string())
}

/// The topic that a path names.
pub(crate) fn topic(uri: &Uri) -> Result<Topic, Refusal> {
    Topic::from_path(rest(uri)).map_err(refusal)
}

/// The filter that a path names.
pub(crate) fn filter(uri: &Uri) -> Result<Filter, Refusal> {
    Filter::from_path(rest(uri)).map_err(refusal)
}

/// The job that a path names.
pub(crate) fn job(text: &str) -> Result<i64, Refusal> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| Refusal::invalid("a job's id is a whole number"))
}

/// The worker that a path or a query names.
pub(crate) fn worker(text: &str) -> Result<i64, Refusal> {
    job(text).map_err(|_| Refusal::invalid("a worker's id is a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_path_is_judged() {
        let topic = |path: &str| topic(&path.parse().unwrap()).map(|t| t.to_string()).ok();
        assert_eq!(topic("/pub/a/b?x=1"), Some("a/b".into()));
        assert_eq!(topic("/pub/a%3Ab"), Some("a:b".into()));
        for bad in ["/pub/", "/pub/a%2Fb", "/pub/a/", "/pub//a", "/pub/a/+", "/pub/%ff", "/pub/.."] {
            assert_eq!(topic(bad), None, "{bad}");
        }
        assert_eq!(filter(&"/sub/a/%2B".parse().unwrap()).unwrap().as_str(), "a/+");
    }

    #[test]
    fn a_job_is_a_number() {
        assert_eq!(job("42").unwrap(), 42);
        for bad in ["", "-1", "+1", "x", "99999999999999999999"] {
            assert!(job(bad).is_err(), "{bad}");
        }
    }
}
