//! What goes to stdout and stderr, and how: the only place of the command line that writes.
//!
//! Data goes to stdout, everything else to stderr. On a terminal data is for people, with colour unless `NO_COLOR`
//! is set; otherwise it is for programs. A reader that goes away (`| head`) ends a command quietly.

use serde_json::value::RawValue;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Whoever read stdout has gone. Not a failure: it has what it wanted.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
struct Gone;

/// Makes an end of this kind a good one.
pub(crate) fn quietly(result: anyhow::Result<()>) -> anyhow::Result<()> {
    result.or_else(|error| if error.is::<Gone>() { Ok(()) } else { Err(error) })
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Tables and sentences.
    People {
        /// With colour.
        colour: bool,
    },
    /// Lines without ornament, in a pipe.
    Plain,
    /// One JSON document, or one to a line.
    Json,
}

/// Where a command's output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    style: Style,
    /// Does a person read stderr?
    watched: bool,
}

impl Output {
    /// Looks at where stdout and stderr lead.
    pub(crate) fn new(json: bool) -> Output {
        let colourless = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let style = match io::stdout().is_terminal() {
            _ if json => Style::Json,
            true => Style::People { colour: !colourless },
            false => Style::Plain,
        };
        Output { style, watched: io::stderr().is_terminal() }
    }

    pub(crate) fn style(self) -> Style {
        self.style
    }

    pub(crate) fn is_json(self) -> bool {
        self.style == Style::Json
    }

    pub(crate) fn for_people(self) -> bool {
        matches!(self.style, Style::People { .. })
    }

    /// Writes a line of data.
    pub(crate) fn line(self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes data and ends its line.
    pub(crate) fn bytes(self, data: &[u8]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let written = out.write_all(data).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        written.map_err(lost)
    }

    /// Writes data as it is, for what has its own line ends.
    pub(crate) fn whole(self, data: &[u8]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(data).and_then(|()| out.flush()).map_err(lost)
    }

    /// Writes one JSON document on one line.
    pub(crate) fn json(self, document: &RawValue) -> anyhow::Result<()> {
        self.line(&one_line(document.get()))
    }

    /// Tells a person what happens or what to do next. Programs don't hear it.
    pub(crate) fn hint(self, text: &str) {
        if self.watched {
            self.notice(text);
        }
    }

    /// Tells whoever reads stderr.
    pub(crate) fn notice(self, text: &str) {
        // A closed stderr is no reason to stop.
        writeln!(io::stderr(), "{}", clean(text)).ok();
    }

    /// Tells a person how far something has come, in the place of what was told before. `all` may be unknown: 0.
    pub(crate) fn progress(self, done: u64, all: u64, text: &str) {
        const BAR: u64 = 24;
        if !self.watched {
            return;
        }
        let bar = match all {
            0 => String::new(),
            _ => {
                let filled = (done.min(all) * BAR / all) as usize;
                let (full, rest) = ("█".repeat(filled), "░".repeat(BAR as usize - filled));
                format!("{full}{rest} {:>3} % ", done.min(all) * 100 / all)
            }
        };
        write!(io::stderr(), "\r{bar} {}\x1b[K", clean(text)).ok();
    }

    /// Takes the line of [`Output::progress`] away.
    pub(crate) fn progress_ended(self) {
        if self.watched {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }

    /// `text` in a colour, where there is colour.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        match self.style {
            Style::People { colour: true } => format!("\x1b[{}m{text}\x1b[0m", colour as u8),
            Style::People { colour: false } | Style::Plain | Style::Json => text.into(),
        }
    }

    /// Writes a page of a list. A person is told `nothing` in place of an empty table, and with what option to get the
    /// next page.
    pub(crate) fn page(
        self,
        head: &[&str],
        rows: &[Vec<Cell>],
        nothing: &str,
        next: Option<String>,
    ) -> anyhow::Result<()> {
        if rows.is_empty() && self.for_people() {
            self.hint(nothing);
        } else {
            self.table(head, rows)?;
        }
        if let Some(next) = next {
            self.hint(&format!("The next page: {next}"));
        }
        Ok(())
    }

    /// Writes a table with aligned columns. Colours are put on after the widths are known.
    pub(crate) fn table(self, head: &[&str], rows: &[Vec<Cell>]) -> anyhow::Result<()> {
        let mut text = String::new();
        let head: Vec<_> =
            head.iter().map(|h| Cell { text: (*h).into(), colour: Some(Colour::Grey) }).collect();
        let mut widths: Vec<_> = head.iter().map(|cell| cell.text.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        for row in std::iter::once(&head).chain(rows) {
            for (i, (width, cell)) in widths.iter().zip(row).enumerate() {
                let last = i + 1 == row.len();
                let fill = if last { 0 } else { width - cell.text.chars().count() + 2 };
                let painted = cell.colour.map_or_else(|| cell.text.clone(), |c| self.paint(c, &cell.text));
                write!(text, "{painted}{:fill$}", "").expect("memory takes every byte");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        self.whole(text.as_bytes())
    }
}

/// A failed write. Only a reader that is gone is a good end.
fn lost(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Gone.into(),
        _ => anyhow::Error::new(error).context("Cannot write to stdout"),
    }
}

/// Colours, by their SGR number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
    Grey = 90,
}

/// One field of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Cell {
        Cell { text: clean(text.as_ref()), colour: None }
    }

    pub(crate) fn painted(text: impl AsRef<str>, colour: Option<Colour>) -> Cell {
        Cell { colour, ..Cell::new(text) }
    }
}

/// Text that others wrote, fit for a terminal: what would move its cursor or change its state becomes visible.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => clean.push('⏎'),
            '\t' => clean.push(' '),
            // C0, DEL and C1 controls, and the marks that turn the direction of writing
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                clean.push('\u{fffd}');
            }
            c => clean.push(c),
        }
    }
    clean
}

/// The beginning of a text, with a mark where it was cut.
pub(crate) fn shortened(text: &str, characters_max: usize) -> String {
    if text.chars().count() <= characters_max {
        return text.into();
    }
    text.chars().take(characters_max.saturating_sub(1)).chain(['…']).collect()
}

/// JSON on one line. Line ends inside of its strings are escaped, so all that stand there are mere white space.
pub(crate) fn one_line(json: &str) -> String {
    json.trim().replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\td\u{9b}31m\u{202e}"), "a\u{fffd}[2Jb⏎c d\u{fffd}31m\u{fffd}");
        assert_eq!(clean("grün ✓"), "grün ✓");
    }

    #[test]
    fn a_reader_that_is_gone_is_a_good_end_and_nothing_else_is() {
        assert!(quietly(Err(lost(io::ErrorKind::BrokenPipe.into()))).is_ok());
        assert!(quietly(Err(lost(io::ErrorKind::StorageFull.into()))).is_err());
        assert!(quietly(Err(anyhow::anyhow!("something"))).is_err());
    }

    #[test]
    fn json_fits_on_one_line_and_means_the_same() {
        let pretty = "{\n  \"a\": \"x\\ny\",\r\n  \"n\": 12345678901234567890123\n}\n";
        let line = one_line(pretty);
        assert!(
            !line.contains(['\n', '\r'])
                && line.contains("12345678901234567890123")
                && line.contains(r"x\ny")
        );
        let both: [serde_json::Value; 2] = [pretty, &line].map(|t| serde_json::from_str(t).unwrap());
        assert_eq!(both[0], both[1]);
    }

    #[test]
    fn long_text_is_cut_where_characters_end() {
        assert_eq!(shortened("grün", 4), "grün");
        assert_eq!(shortened("grüne", 4), "grü…");
    }

    #[test]
    fn only_people_get_colour() {
        let output = |style| Output { style, watched: false };
        assert_eq!(output(Style::People { colour: true }).paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(output(Style::People { colour: false }).paint(Colour::Red, "x"), "x");
        assert_eq!(output(Style::Plain).paint(Colour::Red, "x"), "x");
    }
}
