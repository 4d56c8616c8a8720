//! The first pane: counts, rates, health, and what happened last; on large screens the fullest queues and the workers, too.

use super::draw::{Paint, clock, count, fit, rate, seconds, short};
use super::lists;
use super::model::{Model, Stream};
use super::rates::{SECONDS, Series};
use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

/// From this height on there is room for queues and workers.
const ROOMY: u16 = 32;

pub(super) fn draw(model: &Model, paint: Paint, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let roomy = if area.height >= ROOMY { Constraint::Length(10) } else { Constraint::Length(0) };
    let [top, middle, below] =
        Layout::vertical([Constraint::Length(9), roomy, Constraint::Min(5)]).areas(area);
    let [jobs, rates, health] =
        Layout::horizontal([Constraint::Length(20), Constraint::Min(30), Constraint::Length(30)]).areas(top);
    draw_jobs(model, paint, jobs, buffer);
    draw_rates(model, paint, rates, buffer);
    draw_health(model, paint, health, buffer);
    if middle.height > 0 {
        let [queues, workers] =
            Layout::horizontal([Constraint::Percentage(42), Constraint::Percentage(58)]).areas(middle);
        lists::draw_queues(model, paint, queues, buffer);
        lists::draw_workers(model, paint, now, workers, buffer);
    }
    lists::draw_events(model, paint, below, buffer);
}

fn draw_jobs(model: &Model, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let seen = &model.seen().look;
    let stats = &seen.stats;
    let counts = [
        ("ready", seen.ready()),
        ("delayed", stats.delayed),
        ("blocked", stats.blocked),
        ("active", stats.active),
        ("finished", stats.finished),
        ("failed", stats.failed),
        ("cancelled", stats.cancelled),
    ];
    let line = |(word, n): (&str, i64)| {
        let style = if n > 0 { paint.of_word(word) } else { paint.soft() };
        Line::from(vec![Span::raw(format!("{word:<9}")), Span::styled(format!("{:>9}", short(n)), style)])
    };
    let lines: Vec<Line> = counts.into_iter().map(line).collect();
    Paragraph::new(lines).block(paint.panel("Jobs")).render(area, buffer);
}

fn draw_rates(model: &Model, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let rates = &model.seen().rates;
    let inner = area.width.saturating_sub(2) as usize;
    let row = |word: &'static str, series: Series, style: Style| {
        let bars = inner.saturating_sub(9 + 10);
        Line::from(vec![
            Span::raw(format!("{word:<9}")),
            Span::styled(spark(&series, bars), style),
            Span::raw(format!("{:>7} /s", rate(series.rate()))),
        ])
    };
    let times = |word: &'static str, times: Option<(f64, f64)>| {
        let text = times.map_or_else(
            || "–".to_owned(),
            |(median, high)| format!("{}, 95 % {}", seconds(median), seconds(high)),
        );
        Line::from(vec![Span::raw(format!("{word:<9}")), Span::raw(text)])
    };
    let shut = matches!(model.seen().stream, Stream::Shut(_));
    let watched = rates.enqueued().seconds;
    let note = match (shut, watched) {
        (true, _) => "no events come".to_owned(),
        (false, 0) => String::new(),
        (false, n) if n < SECONDS => format!("of the last {n} s"),
        (false, _) => "of the last minute".to_owned(),
    };
    let lines = vec![
        row("enqueued", rates.enqueued(), paint.of_word("active")),
        row("finished", rates.finished(), paint.of_word("finished")),
        row("failed", rates.failed(), paint.of_word("failed")),
        Line::raw(""),
        times("waited", rates.wait()),
        times("ran", rates.run()),
        Line::styled(note, paint.soft()),
    ];
    Paragraph::new(lines).block(paint.panel("Throughput")).render(area, buffer);
}

/// Bars of the newest seconds, the highest as high as a line is.
fn spark(series: &Series, columns: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let newest = &series.counts[series.counts.len().saturating_sub(columns)..];
    let highest = newest.iter().copied().max().unwrap_or(0).max(1);
    let bar = |n: &u64| match n {
        0 => ' ',
        n => BARS[usize::try_from((n * 7).div_ceil(highest)).unwrap_or(7).min(7)],
    };
    let bars: String = newest.iter().map(bar).collect();
    format!("{bars:>columns$}")
}

fn draw_health(model: &Model, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let seen = &model.seen().look;
    let stats = &seen.stats;
    let (notifier, style) = match seen.lag {
        None => ("–".to_owned(), paint.soft()),
        Some(lag) if lag.events < 1.0 => ("up to date".to_owned(), paint.of_word("ready")),
        Some(lag) => (
            format!("{} behind, {}", short(lag.events as i64), seconds(lag.seconds)),
            paint.of_word(if lag.seconds > 5.0 { "failed" } else { "paused" }),
        ),
    };
    let (node, node_style) = match (&model.away(), &seen.down) {
        (Some(_), _) => ("away", paint.bad()),
        (None, Some(_)) => ("not ready", paint.bad()),
        (None, None) => ("ready", paint.of_word("ready")),
    };
    let workers = format!(
        "{}, {} busy{}",
        count(stats.workers),
        count(stats.active_workers),
        if stats.stale_workers > 0 { format!(", {} stale", stats.stale_workers) } else { String::new() }
    );
    let schedules = match stats.inactive_schedules {
        0 => count(stats.schedules),
        n => format!("{}, {} paused", count(stats.schedules), count(n)),
    };
    let inner = area.width.saturating_sub(2) as usize;
    let line = |word: &'static str, text: String, style: Style| {
        Line::from(vec![Span::raw(format!("{word:<10}")), Span::styled(fit(&text, inner - 10), style)])
    };
    let worker_style = if stats.stale_workers > 0 { paint.of_word("stale") } else { Style::new() };
    let lines = vec![
        line("node", node.to_owned(), node_style),
        line("notifier", notifier, style),
        line(
            "journal",
            stats.position.clone().map_or_else(|| "–".into(), |at| super::look::text(&at)),
            Style::new(),
        ),
        line("sessions", count(i64::try_from(stats.sessions).unwrap_or(i64::MAX)), Style::new()),
        line("workers", workers, worker_style),
        line("schedules", schedules, Style::new()),
        line("seen", clock(seen.at), paint.soft()),
    ];
    Paragraph::new(lines).block(paint.panel("Health")).render(area, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_of_the_newest_seconds_and_fill_their_place() {
        let series = |counts: &[u64]| Series { counts: counts.to_vec(), seconds: counts.len() };
        assert_eq!(spark(&series(&[]), 3), "   ");
        assert_eq!(spark(&series(&[0, 1, 7]), 4), "  ▂█");
        assert_eq!(spark(&series(&[9, 0, 0, 0]), 3), "   ");
        assert_eq!(spark(&series(&[u64::MAX / 8]), 1), "█");
    }
}
