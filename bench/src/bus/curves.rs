//! Two curves: latency over the rate of publishing, and throughput over the number of subscribers.

use super::scenario::{self as figure, ALL, Contender, Flood};
use super::svg::{Chart, Line, Unit};
use super::{Options, measure};
use crate::report::{Figures, medians};
use serde_json::{Value, json};

/// Messages per second, to a thousand subscribers.
const RATES: &[u64] = &[10, 30, 100, 300, 1_000, 2_000, 4_000];
const SUBSCRIBERS: &[usize] = &[1, 10, 100, 1_000, 5_000];
const SIZE: usize = 128;
const WINDOW: u64 = 64;
/// Whoever is slower than this cannot keep up: higher rates say nothing about it.
const P99_MS_MAX: f64 = 500.0;

/// A curve's axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Latency,
    Throughput,
}

/// What was measured at each place of an axis, by contender.
pub(super) struct Curve {
    kind: Kind,
    series: Vec<(&'static str, Vec<(f64, Figures)>)>,
}

/// Both curves.
pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Curve>> {
    let mut curves = Vec::new();
    for kind in [Kind::Latency, Kind::Throughput] {
        let mut series = Vec::new();
        for (contender, result) in options.contenders(ALL).await {
            if result.left_out.is_none() {
                series.push((contender.name, points(options, kind, &contender).await?));
            }
        }
        curves.push(Curve { kind, series });
    }
    Ok(curves)
}

async fn points(options: &Options, kind: Kind, contender: &Contender) -> anyhow::Result<Vec<(f64, Figures)>> {
    let mut points = Vec::new();
    let places = if kind == Kind::Latency { RATES.len() } else { SUBSCRIBERS.len() };
    for place in 0..places {
        let (mut rounds, mut x) = (Vec::new(), 0.0);
        for _ in 0..options.runs {
            let server = contender.server.start().await?;
            let figures = tokio::task::block_in_place(|| match kind {
                Kind::Latency => {
                    x = RATES[place] as f64;
                    measure::steady(&server, contender, (1_000, SIZE, RATES[place]), options.time())
                }
                Kind::Throughput => {
                    x = SUBSCRIBERS[place] as f64;
                    let flood = Flood {
                        topics: 1,
                        subscribers: SUBSCRIBERS[place],
                        parent: false,
                        size: SIZE,
                        window: WINDOW,
                    };
                    measure::flood(&server, contender, &flood, options.time())
                }
            });
            server.stop().await?;
            rounds.push(figures?);
        }
        let medians = medians(&rounds);
        let slow = kind == Kind::Latency && value(&medians, figure::P99) > P99_MS_MAX;
        points.push((x, medians));
        if slow {
            break;
        }
    }
    Ok(points)
}

fn value(figures: &Figures, name: &str) -> f64 {
    figures.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

impl Curve {
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Latency => "latency",
            Kind::Throughput => "throughput",
        }
    }

    fn line(
        &self,
        (contender, points): &(&'static str, Vec<(f64, Figures)>),
        figure: &str,
        dashed: bool,
    ) -> Line {
        let points = points.iter().map(|(x, f)| (*x, value(f, figure))).collect();
        Line { name: (*contender).into(), points, dashed }
    }

    pub(super) fn json(&self) -> Value {
        let x = if self.kind == Kind::Latency { "messages_per_second" } else { "subscribers" };
        let series = self.series.iter().map(|(contender, points)| {
            let points = points.iter().map(|(at, figures)| {
                let mut point = figures.clone();
                point.insert(x.into(), json!(at));
                Value::Object(point)
            });
            json!({ "contender": contender, "points": points.collect::<Vec<_>>() })
        });
        json!({ "name": self.name(), "series": series.collect::<Vec<_>>() })
    }

    pub(super) fn svg(&self) -> String {
        let chart = match self.kind {
            Kind::Latency => Chart {
                title: "Latency at a steady rate, 1 → 1,000 subscribers, 128 B",
                note: "solid: p99, dashed: p50; from when a message was due to its arrival",
                x: ("messages per second", Unit::Plain),
                y: ("milliseconds", Unit::Plain),
                lines: [(figure::P99, false), (figure::P50, true)]
                    .iter()
                    .flat_map(|(figure, dashed)| self.series.iter().map(|s| self.line(s, figure, *dashed)))
                    .collect(),
            },
            Kind::Throughput => Chart {
                title: "Deliveries per second of server CPU, 128 B, 64 in flight",
                note: "load and server share the machine",
                x: ("subscribers", Unit::Plain),
                y: ("deliveries per CPU second", Unit::Thousands),
                lines: self.series.iter().map(|s| self.line(s, figure::PER_CPU, false)).collect(),
            },
        };
        chart.svg()
    }
}
