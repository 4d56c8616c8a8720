//! Line charts on two logarithmic axes, as SVG that is readable on a bright and on a dark page.

use std::fmt::Write;

/// How a number is told at an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    /// k and M.
    Thousands,
}

pub(super) struct Line {
    /// Lines of one name have one colour and one label, at the first of them.
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dashed: bool,
}

pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) x: (&'static str, Unit),
    pub(super) y: (&'static str, Unit),
    pub(super) lines: Vec<Line>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 500.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 58.0;
/// Labels are at least so far apart.
const LABEL_GAP: f64 = 16.0;
/// Told apart by people who see few colours (Okabe and Ito).
const COLOURS: &[&str] = &["#0072b2", "#777777", "#d55e00", "#009e73", "#cc79a7"];

/// A logarithmic axis, in its own numbers and in pixels.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From the ticks below the least to that above the greatest value.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (low, high) =
            values.filter(|v| *v > 0.0).fold((f64::MAX, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 10.0) };
        let all: Vec<f64> = ticks(low / 10.0, high * 10.0);
        let below = all.iter().rev().find(|t| **t <= low * 1.000_001).copied().unwrap_or(low);
        let above = all.iter().find(|t| **t >= high * 0.999_999 && **t > below).copied().unwrap_or(high);
        Axis { low: below, high: above, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        self.from + (self.to - self.from) * (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// At most about ten.
    fn ticks(&self) -> Vec<f64> {
        let all = ticks(self.low, self.high);
        if all.len() <= 10 {
            return all;
        }
        all.into_iter().filter(|t| (t.log10() - t.log10().round()).abs() < 1e-9).collect()
    }
}

/// 1, 2 and 5 times the powers of ten.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = powers.flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(p)));
    all.filter(|t| *t >= low * 0.999_999 && *t <= high * 1.000_001).collect()
}

impl Chart {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|l| &l.points);
        let x = Axis::around(points().map(|p| p.0), LEFT, WIDTH - RIGHT);
        let y = Axis::around(points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\">\n<title>{}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
            escape(self.title)
        );
        let mut put = |element: String| out.push_str(&(element + "\n"));
        put(text(LEFT, 28.0, "start", "#222222", self.title).replacen(
            "<text",
            "<text font-size=\"17\" font-weight=\"600\"",
            1,
        ));
        put(text(LEFT, 48.0, "start", "#666666", self.note));
        self.grid(&x, &y, &mut put);
        for line in &self.lines {
            self.line(line, &x, &y, &mut put);
        }
        self.labels(&x, &y, &mut put);
        out.push_str("</svg>\n");
        out
    }

    fn grid(&self, x: &Axis, y: &Axis, put: &mut impl FnMut(String)) {
        for tick in x.ticks() {
            let at = x.at(tick);
            put(rule(at, y.from, at, y.to, "#ececec"));
            put(text(at, y.from + 19.0, "middle", "#444444", &number(tick, self.x.1)));
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            put(rule(x.from, at, x.to, at, "#ececec"));
            put(text(x.from - 8.0, at + 4.5, "end", "#444444", &number(tick, self.y.1)));
        }
        put(rule(x.from, y.from, x.to, y.from, "#888888"));
        put(text((x.from + x.to) / 2.0, y.from + 42.0, "middle", "#222222", self.x.0));
        let (left, middle) = (20.0, (y.from + y.to) / 2.0);
        let turned = text(left, middle, "middle", "#222222", self.y.0);
        put(turned.replacen("<text", &format!("<text transform=\"rotate(-90 {left} {middle:.1})\""), 1));
    }

    fn colour(&self, name: &str) -> &'static str {
        let mut names: Vec<&str> = Vec::new();
        self.lines.iter().for_each(|l| {
            if !names.contains(&l.name.as_str()) {
                names.push(&l.name)
            }
        });
        COLOURS[names.iter().position(|n| *n == name).unwrap_or(0) % COLOURS.len()]
    }

    fn line(&self, line: &Line, x: &Axis, y: &Axis, put: &mut impl FnMut(String)) {
        let colour = self.colour(&line.name);
        let places: Vec<(f64, f64)> =
            line.points.iter().filter(|p| p.1 > 0.0).map(|p| (x.at(p.0), y.at(p.1))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (dashes, width) = if line.dashed { (" stroke-dasharray=\"5 4\"", 1.5) } else { ("", 2.2) };
        put(format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"{dashes} stroke-linejoin=\"round\" points=\"{}\"/>",
            path.join(" ")
        ));
        for (x, y) in places.iter().filter(|_| !line.dashed) {
            put(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
    }

    /// Names stand where their lines end, pushed apart where they would cover one another.
    fn labels(&self, x: &Axis, y: &Axis, put: &mut impl FnMut(String)) {
        let mut labels: Vec<(f64, f64, &str)> = Vec::new();
        for line in self.lines.iter().filter(|l| !l.dashed) {
            if let Some((at, value)) = line.points.iter().rfind(|p| p.1 > 0.0) {
                labels.push((y.at(*value), x.at(*at), &line.name));
            }
        }
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut last = f64::MIN;
        for (at, end, name) in labels {
            // only those that end at the edge can meet
            let down = if end > x.to - 1.0 { at.max(last + LABEL_GAP) } else { at };
            if end > x.to - 1.0 {
                last = down;
            }
            put(text(end + 9.0, down + 4.5, "start", self.colour(name), name));
        }
    }
}

fn rule(x1: f64, y1: f64, x2: f64, y2: f64, colour: &str) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>")
}

fn text(x: f64, y: f64, anchor: &str, colour: &str, words: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
        escape(words)
    )
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Thousands if value >= 1e6 => format!("{} M", value / 1e6),
        Unit::Thousands if value >= 1e3 => format!("{} k", value / 1e3),
        _ if value >= 1e3 => format!("{},{:03}", (value / 1e3) as u64, value as u64 % 1_000),
        _ => {
            let mut text = String::new();
            // writing to a String cannot fail
            let _written = write!(text, "{:.3}", value);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_begin_and_end_at_ticks_around_what_is_shown() {
        let axis = Axis::around([3.0, 70.0, 0.0].into_iter(), 0.0, 100.0);
        assert_eq!((axis.low, axis.high), (2.0, 100.0));
        assert_eq!(axis.ticks(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!((axis.at(2.0), axis.at(100.0)), (0.0, 100.0));
        let one = Axis::around([5.0].into_iter(), 0.0, 1.0);
        assert!(one.low < one.high, "one point is shown, too");
        assert_eq!(Axis::around([1.0, 1e6].into_iter(), 0.0, 1.0).ticks().len(), 7);
    }

    #[test]
    fn numbers_are_told_short() {
        let plain: Vec<_> = [0.5, 2.0, 1_000.0, 20_000.0].iter().map(|v| number(*v, Unit::Plain)).collect();
        assert_eq!(plain, ["0.5", "2", "1,000", "20,000"]);
        assert_eq!(number(5e5, Unit::Thousands), "500 k");
        assert_eq!(number(2e7, Unit::Thousands), "20 M");
    }
}
