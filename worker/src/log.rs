//! Log lines that were said and are not written yet, within a bound.
//!
//! Nobody waits for room: when too many wait, the oldest of them are dropped, and one line in their place says how many.

use jiff::Timestamp;
use minium_protocol::{LOG_LINES_MAX, LogLevel, LogLine, log_text};
use std::collections::VecDeque;

/// So many lines of one job may wait: the word about those that were dropped is kept with them.
const LINES_MAX: usize = LOG_LINES_MAX - 1;
/// And so many bytes of them, as JSON.
const BYTES_MAX: usize = 256 * 1024;
/// One call carries so many bytes, but for a single longer line: it must fit into a message beside the notes.
const CALL_BYTES_MAX: usize = 32 * 1024;

/// A line that waits.
#[derive(Debug, Clone)]
struct Waiting {
    line: LogLine,
    /// Its size as JSON.
    bytes: usize,
    /// Number of the word that said it.
    word: u64,
}

/// Lines on their way, in their order.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// So many were dropped before the first that waits.
    dropped: u64,
}

/// Lines for one call.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    lines: Vec<Waiting>,
    dropped: u64,
}

impl Lines {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The word that said the first line that waits.
    pub(crate) fn first_word(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.word)
    }

    /// A line is said, now.
    pub(crate) fn say(&mut self, level: LogLevel, text: &str, word: u64) {
        let line = LogLine { at: Some(Timestamp::now()), level, text: log_text(text).into_owned() };
        let bytes = serde_json::to_string(&line).expect("a line is plain JSON").len();
        self.bytes += bytes;
        self.waiting.push_back(Waiting { line, bytes, word });
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        while (self.waiting.len() > LINES_MAX || self.bytes > BYTES_MAX)
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.dropped += 1;
        }
    }

    /// Takes the first ones, as many as go into one call.
    pub(crate) fn take(&mut self) -> Batch {
        let mut batch = Batch { lines: Vec::new(), dropped: std::mem::take(&mut self.dropped) };
        let mut bytes = 0;
        while let Some(next) = self.waiting.front()
            && (batch.lines.is_empty() || bytes + next.bytes <= CALL_BYTES_MAX)
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.bytes;
            batch.lines.push(next);
        }
        self.bytes -= bytes;
        batch
    }

    /// Puts back what could not be written, before what has been said since. Where some of that has found no room already,
    /// what is older finds none either.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        if self.dropped > 0 {
            self.dropped += batch.dropped + batch.lines.len() as u64;
            return;
        }
        for waiting in batch.lines.into_iter().rev() {
            self.bytes += waiting.bytes;
            self.waiting.push_front(waiting);
        }
        self.dropped = batch.dropped;
        self.drop_oldest();
    }
}

impl Batch {
    /// The lines, and the word in place of those that are missing before them.
    pub(crate) fn lines(&self) -> Vec<LogLine> {
        let missing = self.lines.first().filter(|_| self.dropped > 0).map(|first| LogLine {
            at: first.line.at,
            level: LogLevel::Warn,
            text: match self.dropped {
                1 => "1 line was dropped here: more were said than could be written".into(),
                n => format!("{n} lines were dropped here: more were said than could be written"),
            },
        });
        missing.into_iter().chain(self.lines.iter().map(|waiting| waiting.line.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(batch: &Batch) -> Vec<String> {
        batch.lines().into_iter().map(|line| line.text).collect()
    }

    fn said(count: u64) -> Lines {
        let mut lines = Lines::default();
        (1..=count).for_each(|word| lines.say(LogLevel::Info, &word.to_string(), word));
        lines
    }

    #[test]
    fn the_oldest_go_and_one_line_says_how_many() {
        let mut lines = said(LINES_MAX as u64 + 7);
        let batch = lines.take();
        let told = texts(&batch);
        assert!(told[0].starts_with("7 lines were dropped"), "{}", told[0]);
        assert_eq!(told[1], "8");
        assert_eq!(batch.lines()[0].level, LogLevel::Warn);
        assert_eq!(texts(&lines.take())[0], (told.len() + 7).to_string(), "it is said once");
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let mut lines = Lines::default();
        (1..=1_000).for_each(|word| lines.say(LogLevel::Info, &"\u{1}".repeat(8 * 1024), word));
        assert!(lines.bytes <= BYTES_MAX && lines.waiting.len() == BYTES_MAX / lines.waiting[0].bytes);
        assert_eq!(lines.take().lines.len(), 1, "a line that is longer than a call goes alone");
        assert_eq!(lines.first_word(), Some(1_002 - (lines.waiting.len() as u64 + 1)));
    }

    #[test]
    fn what_is_put_back_stands_where_it_stood() {
        let mut lines = said(LINES_MAX as u64 + 1);
        let batch = lines.take();
        let count = batch.lines.len() as u64;
        // while it was on its way, so much was said that some of it finds no room
        (1..=3).for_each(|word| lines.say(LogLevel::Info, "later", 2_000 + word));
        lines.put_back(batch);
        assert_eq!((lines.dropped, lines.first_word()), (4, Some(5)));
        let (mut words, mut batches) = (Vec::new(), 0);
        while !lines.is_empty() {
            words.extend(lines.take().lines.iter().map(|waiting| waiting.word));
            batches += 1;
        }
        assert_eq!(lines.bytes, 0);
        assert!(batches > 1 && words.is_sorted() && words.len() == LINES_MAX, "{count} at first");
        assert_eq!(words.last(), Some(&2_003));
        let mut lines = said(10);
        let batch = lines.take();
        (1..=LINES_MAX as u64 + 1).for_each(|word| lines.say(LogLevel::Info, "later", word));
        lines.put_back(batch);
        assert_eq!((lines.dropped, lines.waiting.len()), (11, LINES_MAX));
    }
}
