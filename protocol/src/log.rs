//! Log lines: what a task says in words while its job runs, for people who look on.

use crate::job::words;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;

/// The longest text of a line; what is longer is cut.
pub const LOG_TEXT_BYTES_MAX: usize = 8 << 10;
/// The most lines that are said at once, and the most that are kept of a job.
pub const LOG_LINES_MAX: usize = 1_000;
/// The most text in lines that are said at once, and in those that are kept of a job.
pub const LOG_BYTES_MAX: usize = 256 << 10;

words! {
    /// What a line is for.
    LogLevel {
        /// The name of a step that the job has reached.
        Step = "step",
        /// For whoever looks for a mistake.
        Debug = "debug",
        /// What happens.
        Info = "info",
        /// What is odd.
        Warn = "warn",
        /// What is wrong.
        Error = "error",
    }
}

/// A line that is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// When, by the clock of whoever says it; left out, it is the database's, when the line is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What it is for.
    #[serde(default = "info")]
    pub level: LogLevel,
    /// What it says.
    pub text: String,
}

fn info() -> LogLevel {
    LogLevel::Info
}

/// A line that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLine {
    /// Its number within the job, from 1, without gaps.
    pub n: i64,
    /// When it was said.
    #[serde(serialize_with = "micros")]
    pub at: Timestamp,
    /// Number of the run that said it.
    pub attempt: i32,
    /// What it is for.
    pub level: LogLevel,
    /// What it says.
    pub text: String,
}

/// As snapshots have their times.
fn micros<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}

/// A text as it is kept: cut at the end of a character, which `…` shows, and without NUL, which no database need keep.
pub fn log_text(text: &str) -> Cow<'_, str> {
    const CUT: &str = "…";
    let fits = text.len() <= LOG_TEXT_BYTES_MAX;
    // what replaces a NUL is longer
    let text = match text.contains('\0') {
        true => Cow::Owned(text[..text.floor_char_boundary(LOG_TEXT_BYTES_MAX)].replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    };
    if fits && text.len() <= LOG_TEXT_BYTES_MAX {
        return text;
    }
    let end = text.floor_char_boundary(LOG_TEXT_BYTES_MAX - CUT.len());
    format!("{}{CUT}", &text[..end]).into()
}

/// Says what is wrong with lines that are said at once.
///
/// # Errors
/// In words for whoever sent them.
pub fn check_log(lines: &[LogLine]) -> Result<(), String> {
    if lines.len() > LOG_LINES_MAX {
        return Err(format!("log has {} lines, at most {LOG_LINES_MAX} are taken at once", lines.len()));
    }
    let bytes: usize = lines.iter().map(|line| log_text(&line.text).len()).sum();
    if bytes > LOG_BYTES_MAX {
        return Err(format!("log has {bytes} bytes of text, at most {LOG_BYTES_MAX} are taken at once"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_end_of_a_character() {
        let fits = "x".repeat(LOG_TEXT_BYTES_MAX);
        assert!(matches!(log_text(&fits), Cow::Borrowed(text) if text == fits));
        for long in ["x".repeat(LOG_TEXT_BYTES_MAX + 1), "ä".repeat(LOG_TEXT_BYTES_MAX), "\0".repeat(9_000)]
        {
            let cut = log_text(&long);
            assert!(cut.len() <= LOG_TEXT_BYTES_MAX && cut.len() > LOG_TEXT_BYTES_MAX - 6, "{}", cut.len());
            assert!(cut.ends_with('…') && !cut.contains('\0'));
        }
        assert_eq!(log_text(&"\0".repeat(4_000)).chars().last(), Some('…'), "replaced it is too long");
        assert_eq!(log_text("a\0b"), "a\u{fffd}b");
    }

    #[test]
    fn a_line_needs_only_its_text() {
        let line: LogLine = serde_json::from_str(r#"{"text":"x"}"#).unwrap();
        assert_eq!(line, LogLine { at: None, level: LogLevel::Info, text: "x".into() });
        for bad in ["{}", r#"{"text":1}"#, r#"{"text":"x","level":"loud"}"#, r#"{"text":"x","n":1}"#] {
            assert!(serde_json::from_str::<LogLine>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kept_line_has_its_time_as_snapshots_do() {
        let at = "2026-11-22T02:00:00Z".parse().unwrap();
        let line = KeptLine { n: 1, at, attempt: 2, level: LogLevel::Step, text: "a".into() };
        let text = r#"{"n":1,"at":"2026-11-22T02:00:00.000000Z","attempt":2,"level":"step","text":"a"}"#;
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        assert_eq!(serde_json::from_str::<KeptLine>(text).unwrap(), line);
    }

    #[test]
    fn what_is_said_at_once_is_bounded() {
        let lines =
            |count, text: &str| vec![LogLine { at: None, level: LogLevel::Info, text: text.into() }; count];
        assert!(check_log(&lines(LOG_LINES_MAX, "x")).is_ok());
        assert!(check_log(&lines(LOG_LINES_MAX + 1, "")).unwrap_err().contains("lines"));
        let long = "x".repeat(1 << 20);
        assert!(check_log(&lines(32, &long)).is_ok(), "counted as it is kept");
        assert!(check_log(&lines(33, &long)).unwrap_err().contains("bytes"));
        assert!(
            check_log(&lines(33, &"\0".repeat(4_000))).unwrap_err().contains("bytes"),
            "what replaces a NUL is longer"
        );
    }
}
