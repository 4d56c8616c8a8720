//! The panes that are lists: a table, a chosen line, and below it what did not fit into that line.

use super::draw::{Paint, clock, count, fit, seconds, short, span};
use super::look::{FailureRow, QueueRow, SessionRow, WorkerRow};
use super::model::{EventRow, Model, Pane, Stream};
use jiff::Timestamp;
use minium_queue::READY_COUNTED_MAX;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

/// Lines below a list in which the chosen one is told whole.
const DETAIL: u16 = 5;

pub(super) fn draw(model: &Model, paint: Paint, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let [list, below] = Layout::vertical([Constraint::Min(5), Constraint::Length(DETAIL)]).areas(area);
    match model.pane {
        Pane::Queues => draw_queues(model, paint, area, buffer),
        Pane::Workers => {
            draw_workers(model, paint, now, list, buffer);
            let rows = &model.seen().look.workers;
            let words = rows.get(model.line(rows.len())).map(|row| {
                let runs = if row.runs.is_empty() { "nothing" } else { &row.runs };
                format!("{} #{} takes from {} and runs {runs}", row.host, row.id, row.queues)
            });
            draw_detail(paint, words, below, buffer);
        }
        Pane::Sessions => {
            draw_sessions(model, paint, now, list, buffer);
            let rows = &model.seen().look.sessions;
            let words = rows.get(model.line(rows.len())).map(|row| {
                let who = if row.who.is_empty() { "somebody" } else { &row.who };
                format!("{}: {who}, {}", row.id, row.filters)
            });
            draw_detail(paint, words, below, buffer);
        }
        Pane::Failures => {
            let rows: Vec<_> =
                model.seen().look.failures.iter().filter(|row| model.admits(&row.task)).collect();
            draw_failures(model, &rows, paint, list, buffer);
            let words = rows
                .get(model.line(rows.len()))
                .map(|row| format!("#{} {} in {}: {}", row.job, row.task, row.queue, row.error));
            draw_detail(paint, words, below, buffer);
        }
        Pane::Overview | Pane::Events => {
            draw_events(model, paint, list, buffer);
            let mut rows = model.seen().events.iter().filter(|row| model.admits(&row.task));
            let count = rows.clone().count();
            let words = rows
                .nth(model.line(count))
                .map(|row| format!("#{} {} in {}: {} {}", row.job, row.task, row.queue, row.what, row.gist));
            draw_detail(paint, words, below, buffer);
        }
    }
}

fn draw_detail(paint: Paint, words: Option<String>, area: Rect, buffer: &mut Buffer) {
    let words = words.unwrap_or_default();
    Paragraph::new(words).wrap(Wrap { trim: true }).block(paint.panel("Chosen")).render(area, buffer);
}

/// A column: its head, and so many cells; numbers stand to the right.
struct Column {
    head: &'static str,
    width: u16,
    right: bool,
}

const fn left(head: &'static str, width: u16) -> Column {
    Column { head, width, right: false }
}

const fn right(head: &'static str, width: u16) -> Column {
    Column { head, width, right: true }
}

/// A field, with how it looks.
type Field = (String, Style);

/// Draws a table whose last column takes what is left. Lines scroll so that the chosen one is seen.
struct Table<'a> {
    title: String,
    columns: &'a [Column],
    /// What is said where there is no line.
    none: &'a str,
    /// The line that is chosen, if one can be.
    chosen: Option<usize>,
}

impl Table<'_> {
    fn draw<R>(
        &self,
        rows: &[R],
        fields: impl Fn(&R) -> Vec<Field>,
        paint: Paint,
        area: Rect,
        buffer: &mut Buffer,
    ) {
        let panel = paint.panel(&self.title);
        let inner = panel.inner(area);
        panel.render(area, buffer);
        if rows.is_empty() {
            return Line::styled(self.none, paint.soft()).render(inner, buffer);
        }
        let heads = self.columns.iter().map(|column| (column.head.to_owned(), paint.soft())).collect();
        self.line(heads, inner.y, inner, buffer);
        let room = inner.height.saturating_sub(1) as usize;
        let first = self.chosen.map_or(0, |chosen| (chosen + 1).saturating_sub(room));
        for (at, row) in rows.iter().enumerate().skip(first).take(room) {
            let y = inner.y + 1 + (at - first) as u16;
            self.line(fields(row), y, inner, buffer);
            if self.chosen == Some(at) {
                buffer.set_style(Rect { y, height: 1, ..inner }, Paint::chosen());
            }
        }
    }

    fn line(&self, fields: Vec<Field>, y: u16, area: Rect, buffer: &mut Buffer) {
        let mut x = area.x;
        for (at, (column, (text, style))) in self.columns.iter().zip(fields).enumerate() {
            let last = at + 1 == self.columns.len();
            let room = area.right().saturating_sub(x);
            let width = if last { room } else { column.width.min(room) };
            let text = fit(&text, width as usize);
            let pad = if column.right { width as usize - Span::raw(&text).width() } else { 0 };
            buffer.set_stringn(x + pad as u16, y, &text, width as usize - pad, style);
            x += width + 1;
            if x >= area.right() {
                return;
            }
        }
    }
}

pub(super) fn draw_queues(model: &Model, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let rows = &model.seen().look.queues;
    let plain = Style::new();
    let fields = |row: &QueueRow| {
        let more = if row.ready >= READY_COUNTED_MAX { "+" } else { "" };
        let wait = model.seen().rates.longest_wait(&row.name).map_or_else(|| "–".to_owned(), seconds);
        let paused = row.paused.map_or_else(String::new, |since| format!("paused since {}", clock(since)));
        vec![
            (row.name.clone(), plain),
            (count(row.ready) + more, Paint::strong()),
            (wait, plain),
            (paused, paint.of_word("paused")),
        ]
    };
    // the names take what the rest leaves
    let names = area.width.saturating_sub(2 + 8 + 11 + 3 + 22).max(12);
    Table {
        title: "Queues".to_owned(),
        columns: &[left("queue", names), right("ready", 8), right("waited", 9), left("", 22)],
        none: "No jobs wait, and no queue is paused.",
        chosen: (model.pane == Pane::Queues).then(|| model.line(rows.len())),
    }
    .draw(rows, fields, paint, area, buffer);
}

pub(super) fn draw_workers(model: &Model, paint: Paint, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let rows = &model.seen().look.workers;
    let plain = Style::new();
    let fields = |row: &WorkerRow| {
        let state = if row.paused { "paused" } else { &row.state };
        let runs = match &row.state[..] {
            "stale" => format!("heard of {} ago", span(now.duration_since(row.heartbeat))),
            _ => row.runs.clone(),
        };
        vec![
            (row.id.to_string(), plain),
            (row.host.clone(), plain),
            (state.to_owned(), paint.of_word(state)),
            (format!("{}/{}", row.running, row.concurrency), plain),
            (short(i64::try_from(row.performed).unwrap_or(i64::MAX)), plain),
            (runs, paint.of_word("active")),
        ]
    };
    let host = (area.width / 5).clamp(10, 30);
    Table {
        title: "Workers".to_owned(),
        columns: &[
            right("id", 5),
            left("host", host),
            left("state", 10),
            right("runs", 7),
            right("done", 7),
            left("what", 20),
        ],
        none: "No worker is there, so nothing is run.",
        chosen: (model.pane == Pane::Workers).then(|| model.line(rows.len())),
    }
    .draw(rows, fields, paint, area, buffer);
}

fn draw_sessions(model: &Model, paint: Paint, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let rows = &model.seen().look.sessions;
    let plain = Style::new();
    let fields = |row: &SessionRow| {
        let number = |n: u64| short(i64::try_from(n).unwrap_or(i64::MAX));
        vec![
            (row.mode.clone(), plain),
            (span(now.duration_since(row.since)), paint.soft()),
            (number(row.sent), plain),
            (number(row.received), plain),
            (if row.behind { "behind".to_owned() } else { String::new() }, paint.of_word("paused")),
            (row.filters.clone(), plain),
            (row.who.clone(), paint.soft()),
        ]
    };
    let filters = (area.width / 4).clamp(12, 50);
    Table {
        title: format!("Sessions of this node, {}", model.seen().look.stats.sessions),
        columns: &[
            left("mode", 11),
            right("since", 11),
            right("sent", 7),
            right("heard", 7),
            left("lag", 6),
            left("filters", filters),
            left("who", 10),
        ],
        none: "No session.",
        chosen: Some(model.line(rows.len())),
    }
    .draw(rows, fields, paint, area, buffer);
}

fn draw_failures(model: &Model, rows: &[&FailureRow], paint: Paint, area: Rect, buffer: &mut Buffer) {
    let plain = Style::new();
    let fields = |row: &&FailureRow| {
        vec![
            (row.at.map_or_else(String::new, clock), paint.soft()),
            (format!("#{}", row.job), plain),
            (row.task.clone(), Paint::strong()),
            (format!("{}/{}", row.attempt, row.attempts), plain),
            (row.error.clone(), paint.of_word("failed")),
        ]
    };
    let task = (area.width / 5).clamp(14, 36);
    Table {
        title: "Failed jobs, the newest first".to_owned(),
        columns: &[left("at", 8), right("job", 9), left("task", task), right("run", 5), left("error", 20)],
        none: if model.filter.is_empty() { "No job has failed." } else { "No such job has failed." },
        chosen: Some(model.line(rows.len())),
    }
    .draw(rows, fields, paint, area, buffer);
}

pub(super) fn draw_events(model: &Model, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let rows: Vec<_> = model.seen().events.iter().filter(|row| model.admits(&row.task)).collect();
    let plain = Style::new();
    let fields = |row: &&EventRow| {
        vec![
            (row.at.map_or_else(String::new, clock), paint.soft()),
            (format!("#{}", row.job), plain),
            (row.task.clone(), Paint::strong()),
            (row.what.to_owned(), paint.of_word(row.what)),
            (row.gist.clone(), paint.soft()),
        ]
    };
    let task = (area.width / 5).clamp(14, 36);
    let state = match model.seen().stream {
        Stream::Live => "live",
        Stream::Opening => "opening",
        Stream::Shut(_) => "none come",
    };
    Table {
        title: format!("Events, {state}"),
        columns: &[left("at", 8), right("job", 9), left("task", task), left("what", 11), left("", 20)],
        none: "No event yet.",
        chosen: (model.pane == Pane::Events).then(|| model.line(rows.len())),
    }
    .draw(&rows, fields, paint, area, buffer);
}
