//! The screen, as a pure function of the model and the time: head, panes, foot.
//!
//! What must hold: every size is drawn, and one that is too small says so; without colour nothing is told by colour
//! alone; nothing here is longer than the place that it has.

use super::lists;
use super::model::{Model, Pane, Seen, Stream};
use super::overview;
use jiff::{SignedDuration, Timestamp};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

/// The least that all panes fit on.
pub(super) const WIDTH_MIN: u16 = 80;
pub(super) const HEIGHT_MIN: u16 = 24;

/// How things look, with colour and without.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    pub(super) colour: bool,
}

impl Paint {
    pub(super) fn in_colour(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn soft(self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    pub(super) fn bad(self) -> Style {
        self.in_colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn chosen() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// What a state or an event is painted in.
    pub(super) fn of_word(self, word: &str) -> Style {
        match word {
            "finished" | "idle" | "live" | "ready" => self.in_colour(Color::Green),
            "failed" | "lost" | "stale" | "expired" => self.bad(),
            "active" | "dequeue" | "processing" | "progress" => self.in_colour(Color::Cyan),
            "cancelled" | "delayed" | "blocked" | "retry" | "paused" => self.in_colour(Color::Yellow),
            _ => Style::new(),
        }
    }

    /// A box with a title.
    pub(super) fn panel(self, title: &str) -> Block<'static> {
        Block::bordered().border_style(self.soft()).title(Span::styled(format!(" {title} "), Paint::strong()))
    }
}

/// Draws everything.
pub(super) fn screen(model: &Model, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let paint = Paint { colour: model.colour };
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        return too_small(area, buffer);
    }
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(model, paint, now, head, buffer);
    draw_tabs(model, paint, tabs, buffer);
    match model.pane {
        Pane::Overview => overview::draw(model, paint, now, body, buffer),
        Pane::Queues | Pane::Workers | Pane::Sessions | Pane::Failures | Pane::Events => {
            lists::draw(model, paint, now, body, buffer);
        }
    }
    draw_foot(model, paint, now, foot, buffer);
    if model.help {
        draw_help(paint, body, buffer);
    }
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let words = format!(
        "This terminal has {} columns and {} lines. minium top needs {WIDTH_MIN} and {HEIGHT_MIN}. q ends it.",
        area.width, area.height
    );
    Paragraph::new(words).wrap(Wrap { trim: true }).render(area, buffer);
}

fn draw_head(model: &Model, paint: Paint, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let seen = model.seen();
    let (word, style) = match (model.away(), &seen.look.down) {
        (Some(away), _) => {
            let since = span(now.duration_since(away.since));
            (format!("AWAY since {} ({since})", clock(away.since)), paint.bad())
        }
        (None, Some(_)) => ("NOT READY".to_owned(), paint.bad()),
        (None, None) => ("ready".to_owned(), paint.of_word("ready")),
    };
    let mut words = vec![
        Span::styled("minium top", Paint::strong()),
        Span::raw("  "),
        Span::raw(fit(&model.url, 40)),
        Span::raw("  "),
        Span::styled(word, style),
    ];
    if model.away().is_none() && seen.look.stats.uptime > 0 {
        let uptime = SignedDuration::from_secs(i64::try_from(seen.look.stats.uptime).unwrap_or(i64::MAX));
        words.push(Span::styled(format!("  up {}", span(uptime)), paint.soft()));
    }
    Line::from(words).render(area, buffer);
    let time = clock(now);
    let x = area.right().saturating_sub(time.len() as u16 + 4);
    buffer.set_stringn(x, area.y, format!(" {time} Z"), 12, paint.soft());
}

fn draw_tabs(model: &Model, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let mut words = Vec::new();
    for (place, pane) in Pane::ALL.into_iter().enumerate() {
        let style = if pane == model.pane { Paint::chosen() } else { paint.soft() };
        words.push(Span::styled(format!(" {} {} ", place + 1, pane.title()), style));
        words.push(Span::raw(" "));
    }
    Line::from(words).render(area, buffer);
}

fn draw_foot(model: &Model, paint: Paint, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    if let Some(typed) = &model.typed {
        let words = vec![Span::styled("/", Paint::strong()), Span::raw(typed.clone()), Span::raw("▏")];
        return Line::from(words).render(area, buffer);
    }
    let mut words = Vec::new();
    if let Some(away) = model.away() {
        words.push(Span::styled(fit(&away.why, area.width as usize), paint.bad()));
    } else if let Some(since) = model.paused_since() {
        let text = format!("PAUSED at {}, {} ago", clock(since), span(now.duration_since(since)));
        words.push(Span::styled(text, paint.of_word("paused")));
        words.push(Span::styled("  p goes on", paint.soft()));
    } else if let Some(why) = why(model.seen()) {
        words.push(Span::styled(fit(&why, area.width as usize), paint.bad()));
    } else {
        let keys = "q quit  tab next  j k move  p pause  / filter  ? help";
        words.push(Span::styled(keys, paint.soft()));
    }
    if !model.filter.is_empty() {
        words.push(Span::raw("  "));
        words.push(Span::styled(format!("tasks with “{}”", model.filter), paint.of_word("paused")));
    }
    Line::from(words).render(area, buffer);
}

/// What is wrong, in a line.
fn why(seen: &Seen) -> Option<String> {
    if let Some(down) = &seen.look.down {
        return Some(down.clone());
    }
    if let Some((part, why)) = seen.look.missing.iter().next() {
        return Some(format!("{part}: {why}"));
    }
    match &seen.stream {
        Stream::Shut(why) => Some(format!("events: {why}")),
        Stream::Opening | Stream::Live => None,
    }
}

const HELP: [(&str, &str); 9] = [
    ("tab, → / shift-tab, ←", "the next pane, the one before"),
    ("1 … 6", "a pane by its number"),
    ("j, ↓ / k, ↑", "down and up"),
    ("g, home / G, end", "to the top, to the end"),
    ("p, space", "let the screen stand still, and go on"),
    ("/", "only tasks with a text in their name; empty: all"),
    ("esc", "back: out of help or a filter, else the end"),
    ("?", "this"),
    ("q, ctrl-c", "the end"),
];

fn draw_help(paint: Paint, area: Rect, buffer: &mut Buffer) {
    let (width, height) = (area.width.min(76), area.height.min(HELP.len() as u16 + 6));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let mut lines: Vec<Line> = HELP
        .iter()
        .map(|(keys, words)| {
            Line::from(vec![Span::styled(format!("{keys:<23}"), Paint::strong()), (*words).into()])
        })
        .collect();
    lines.push(Line::raw(""));
    lines.push(Line::styled(
        "Rates and times are of the last minute, of what happened while this ran.",
        paint.soft(),
    ));
    lines.push(Line::styled(
        "Lists show the first 100; failures are of jobs that have failed for good.",
        paint.soft(),
    ));
    Paragraph::new(lines).block(paint.panel("Keys")).render(place, buffer);
}

/// The time of day, in UTC.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// A span in the two largest units that say something.
pub(super) fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Seconds, as short as they can be told.
pub(super) fn seconds(span: f64) -> String {
    match span {
        ..0.000_95 => format!("{:.0} µs", span * 1e6),
        ..0.995 => format!("{:.0} ms", span * 1e3),
        ..99.95 => format!("{span:.1} s"),
        ..5_970.0 => format!("{:.0} min", span / 60.0),
        _ => format!("{:.0} h", span / 3_600.0),
    }
}

/// A number that people can read.
pub(super) fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if n < 0 { format!("-{text}") } else { text }
}

/// A number that fits in seven columns: 1,234,567 becomes 1.23 M.
pub(super) fn short(n: i64) -> String {
    let size = n.unsigned_abs() as f64;
    match size {
        ..100_000.0 => count(n),
        ..1e6 => format!("{:.0} k", n as f64 / 1e3),
        ..1e9 => format!("{:.2} M", n as f64 / 1e6),
        ..1e12 => format!("{:.2} G", n as f64 / 1e9),
        _ => format!("{:.0} T", n as f64 / 1e12),
    }
}

/// A rate a second.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        ..9.95 => format!("{rate:.2}"),
        ..99.5 => format!("{rate:.1}"),
        _ => short(rate.round() as i64),
    }
}

/// The beginning of a text that fits in so many columns, with a mark where it was cut. Wide characters take two.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if Span::raw(text).width() <= columns {
        return text.to_owned();
    }
    let mut end = 0;
    let mut width = 0;
    for (at, c) in text.char_indices() {
        let mut bytes = [0; 4];
        width += Span::raw(&*c.encode_utf8(&mut bytes)).width();
        if width + 1 > columns {
            break;
        }
        end = at + c.len_utf8();
    }
    if columns == 0 { String::new() } else { format!("{}…", &text[..end]) }
}
