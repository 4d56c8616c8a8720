//! What a command says on stderr: progress, notes, steps, log lines, and the words that explain a failure.
//!
//! `::progress 40 text`, `::note key=value`, `::step name` and `::log level text` are for the job; every other line is
//! kept at the end of a bounded tail. Nothing here trusts the command: lines are bounded, bytes need not be UTF-8, a malformed `::` line is an
//! ordinary one.

use minium_protocol::{LogLevel, Progress};
use serde_json::Value;

/// One line, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// `::progress PERCENT [TEXT]`.
    Progress(Progress),
    /// `::note KEY=VALUE`; the value is JSON if it parses, else the text itself.
    Note(String, Value),
    /// `::log LEVEL TEXT`, or `::step NAME`.
    Log(LogLevel, String),
    /// Anything else.
    Other,
}

impl Line {
    pub(super) fn read(text: &str) -> Line {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("::progress ") {
            progress(rest.trim_start()).map_or(Line::Other, Line::Progress)
        } else if let Some(rest) = text.strip_prefix("::note ") {
            note(rest.trim_start()).unwrap_or(Line::Other)
        } else if let Some(name) = text.strip_prefix("::step ") {
            Line::Log(LogLevel::Step, name.trim_start().into())
        } else if let Some(rest) = text.strip_prefix("::log ") {
            log(rest.trim_start()).unwrap_or(Line::Other)
        } else {
            Line::Other
        }
    }
}

fn progress(rest: &str) -> Option<Progress> {
    let (number, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let number = number.strip_suffix('%').unwrap_or(number);
    let percent: f64 = number.parse().ok().filter(|p: &f64| p.is_finite())?;
    let text = Some(text.trim()).filter(|t| !t.is_empty()).map(str::to_owned);
    Some(Progress { percent: percent.clamp(0.0, 100.0), text })
}

fn note(rest: &str) -> Option<Line> {
    let (key, value) = rest.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return None;
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
    Some(Line::Note(key.into(), value))
}

fn log(rest: &str) -> Option<Line> {
    let (level, text) = rest.split_once(char::is_whitespace)?;
    Some(Line::Log(level.parse().ok()?, text.trim_start().into()))
}

/// Cuts a stream of bytes into lines. A line that is too long is given once, cut; its rest is dropped.
#[derive(Debug)]
pub(super) struct Splitter {
    line: Vec<u8>,
    bytes_max: usize,
    /// The line was given already; skip to its end.
    skipping: bool,
}

impl Splitter {
    pub(super) fn new(bytes_max: usize) -> Splitter {
        Splitter { line: Vec::new(), bytes_max, skipping: false }
    }

    /// Takes what was read and gives each line that it completes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&str)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n');
            let (piece, rest) = match end {
                Some(at) => (&bytes[..at], &bytes[at + 1..]),
                None => (bytes, &[][..]),
            };
            if !self.skipping {
                let room = self.bytes_max - self.line.len();
                self.line.extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.len() > room {
                    self.give(&mut each);
                    self.skipping = true;
                }
            }
            if end.is_some() && !std::mem::take(&mut self.skipping) {
                self.give(&mut each);
            }
            bytes = rest;
        }
    }

    /// Gives what stands behind the last line end.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.give(&mut each);
        }
    }

    fn give(&mut self, each: &mut impl FnMut(&str)) {
        each(&String::from_utf8_lossy(&self.line));
        self.line.clear();
    }
}

/// The last words, within a bound.
#[derive(Debug)]
pub(super) struct Tail {
    text: String,
    bytes_max: usize,
    cut: bool,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Tail {
        Tail { text: String::new(), bytes_max, cut: false }
    }

    pub(super) fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        // twice the bound, so that the front is moved once per bound and not with every line
        if self.text.len() > 2 * self.bytes_max {
            self.trim();
        }
    }

    fn trim(&mut self) {
        if self.text.len() > self.bytes_max {
            let from = self.text.ceil_char_boundary(self.text.len() - self.bytes_max);
            self.text.drain(..from);
            self.cut = true;
        }
    }

    /// The tail, without blanks around it; `…` shows that more stood before.
    pub(super) fn into_text(mut self) -> String {
        self.trim();
        let text = self.text.trim();
        if self.cut { format!("…{text}") } else { text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn progress_has_a_number_and_maybe_words() {
        let read = |t: &str| match Line::read(t) {
            Line::Progress(p) => (p.percent, p.text),
            other => panic!("{t}: {other:?}"),
        };
        assert_eq!(read("::progress 40 half  way"), (40.0, Some("half  way".into())));
        assert_eq!(read("::progress 12.5%\r"), (12.5, None));
        assert_eq!(read("::progress 400 x").0, 100.0);
        assert_eq!(read("::progress -4").0, 0.0);
    }

    #[test]
    fn notes_are_json_if_they_can_be() {
        let note = |t: &str| Line::read(t);
        assert_eq!(note("::note rows=10"), Line::Note("rows".into(), json!(10)));
        assert_eq!(note(r#"::note a={"b":[1]}"#), Line::Note("a".into(), json!({"b":[1]})));
        assert_eq!(note("::note disk=/dev/sda=1"), Line::Note("disk".into(), json!("/dev/sda=1")));
        assert_eq!(note("::note gone=null"), Line::Note("gone".into(), Value::Null));
        assert_eq!(note("::note empty="), Line::Note("empty".into(), json!("")));
    }

    #[test]
    fn malformed_lines_are_ordinary_ones() {
        for text in [
            "::progress x",
            "::progress",
            "::progress NaN",
            "::progress inf",
            "::note x",
            "::note =1",
            "::",
            "x ::note a=1",
            ":: note a=1",
            "::step",
            "::log info",
            "::log loud words",
            "::logs info words",
        ] {
            assert_eq!(Line::read(text), Line::Other, "{text}");
        }
    }

    #[test]
    fn steps_have_a_name_and_log_lines_a_level() {
        let log = |level, text: &str| Line::Log(level, text.into());
        assert_eq!(Line::read("::step  source downloaded \r"), log(LogLevel::Step, "source downloaded"));
        assert_eq!(Line::read("::log warn  disk  full"), log(LogLevel::Warn, "disk  full"));
        assert_eq!(Line::read("::log step done"), log(LogLevel::Step, "done"));
    }

    fn split(bytes_max: usize, pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::new(bytes_max);
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.feed(piece, |l| lines.push(l.to_owned()));
        }
        splitter.finish(|l| lines.push(l.to_owned()));
        lines
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(split(80, &[b"a", b"b\nc", b"\n", b"\nd"]), ["ab", "c", "", "d"]);
        assert_eq!(split(80, &[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory_and_is_given_once() {
        let long = vec![b'x'; 1000];
        assert_eq!(split(4, &[&long, &long, b"\nnext\n"]), ["xxxx", "next"]);
        assert_eq!(split(4, &[b"xxxx\ny"]), ["xxxx", "y"], "exactly the bound");
    }

    #[test]
    fn the_tail_is_the_end() {
        let mut tail = Tail::new(10);
        for i in 0..1000 {
            tail.push(&format!("ä{i}"));
            assert!(tail.text.len() <= 30);
        }
        assert_eq!(tail.into_text(), "…998\nä999");
        let mut short = Tail::new(10);
        short.push(" oops ");
        assert_eq!(short.into_text(), "oops");
    }
}
