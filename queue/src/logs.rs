//! Logs of jobs: lines that a task says while it runs, kept beside the job within a bound, and gone with it.
//!
//! Lines come with the notes and the progress of the same moment ([`Annotation`](crate::Annotation)), under the same
//! lease, and are told by the same event. They are numbered within their job, so that whoever reads one from its table
//! and hears the rest from its events sees each line once. A line that is said again, since its answer was lost, is known by
//! its time, level and text among the newest, and is not kept twice.

use crate::error::QueueError;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{KeptLine, LOG_BYTES_MAX, LOG_LINES_MAX, LogLine, log_text};
use serde::Serialize;

/// Of each job the newest so many lines are kept.
pub(crate) const KEPT_LINES_MAX: i64 = LOG_LINES_MAX as i64;
/// And of these the newest whose texts have so many bytes together.
pub(crate) const KEPT_BYTES_MAX: i64 = LOG_BYTES_MAX as i64;

/// A line that is said again is looked for among so many more of the newest than came with it: words that were on their way
/// together are said again together, and each may be a call of its own.
pub(crate) const AGAIN_MAX: i64 = 64;

/// Lines of one job, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogPage {
    /// Each once, by rising numbers, without gaps.
    pub lines: Vec<KeptLine>,
    /// `after` of the next page, if there is one.
    pub next: Option<i64>,
    /// So many lines, the job's first ones, are kept no more.
    pub dropped: i64,
}

impl LogPage {
    /// Out of what was read: one line more than asked for says that there is a next page.
    pub(crate) fn new(mut lines: Vec<KeptLine>, limit: u32, dropped: i64) -> LogPage {
        let more = lines.len() > limit as usize;
        lines.truncate(limit as usize);
        let next = lines.last().map(|line| line.n).filter(|_| more);
        LogPage { lines, next, dropped }
    }
}

/// Reads logs.
#[async_trait]
pub trait Logs: Send + Sync {
    /// Lines of a job behind the one with this number (0 is before the first), at most so many. Nothing for a job that
    /// does not exist.
    async fn log(&self, job: i64, after: i64, limit: u32) -> Result<LogPage, QueueError>;
}

/// Lines as every database can keep them: texts within their bound, times of this era in whole microseconds.
pub(crate) fn storable_lines(lines: &[LogLine]) -> Vec<LogLine> {
    let era = |at: Timestamp| {
        let micros = at.as_microsecond().max(0);
        Timestamp::from_microsecond(micros).expect("between 1970 and the last time that there is")
    };
    let line = |line: &LogLine| LogLine {
        at: line.at.map(era),
        level: line.level,
        text: log_text(&line.text).into_owned(),
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::LogLevel;

    #[test]
    fn times_and_texts_become_storable() {
        let said = |at: &str, text: &str| LogLine {
            at: Some(at.parse().unwrap()),
            level: LogLevel::Warn,
            text: text.into(),
        };
        let stored = storable_lines(&[
            said("-004711-01-01T00:00:00Z", "\0"),
            said("2026-11-22T02:00:00.123456789Z", "x"),
            said("9999-12-30T22:00:00Z", "x"),
        ]);
        let times: Vec<_> = stored.iter().map(|line| line.at.unwrap().to_string()).collect();
        assert_eq!(times, ["1970-01-01T00:00:00Z", "2026-11-22T02:00:00.123456Z", "9999-12-30T22:00:00Z"]);
        assert_eq!((stored[0].text.as_str(), stored[0].level), ("\u{fffd}", LogLevel::Warn));
    }

    #[test]
    fn one_line_more_than_asked_for_is_the_next_page() {
        let line = |n| KeptLine {
            n,
            at: Timestamp::UNIX_EPOCH,
            attempt: 1,
            level: LogLevel::Info,
            text: String::new(),
        };
        let page = LogPage::new(vec![line(7), line(8), line(9)], 2, 6);
        assert_eq!((page.lines.len(), page.next, page.dropped), (2, Some(8), 6));
        assert_eq!(LogPage::new(vec![line(7), line(8)], 2, 6).next, None);
        assert_eq!(LogPage::new(vec![], 2, 0), LogPage::default());
    }
}
