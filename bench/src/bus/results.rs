//! What all rounds of a scenario gave: medians, and whether the aims are met, as JSON. Text and tables are made of that,
//! so that scenarios of an earlier run of the same day can stand beside those of this one.

use super::scenario::{self as figure, Aim, Bound, Scenario};
use crate::report::{Figures, aims, medians, rounded, word};
use crate::samples::median;
use serde_json::{Value, json};

/// What one contender did, round by round; or why it did nothing.
pub(super) struct Result {
    pub(super) contender: &'static str,
    pub(super) version: String,
    pub(super) rounds: Vec<Figures>,
    pub(super) left_out: Option<String>,
}

/// A scenario that was run.
pub(super) struct Results {
    pub(super) scenario: &'static Scenario,
    pub(super) contenders: Vec<Result>,
}

/// An aim against what was measured.
struct Judged {
    /// Whose form the measured one has; empty for a share.
    figure: &'static str,
    words: String,
    measured: Option<f64>,
    met: Option<bool>,
}

impl Results {
    fn rounds(&self, contender: &str) -> &[Figures] {
        let found = self.contenders.iter().find(|c| c.contender == contender);
        found.map_or(&[], |c| &c.rounds)
    }

    /// The judged contender lost nothing, doubled nothing, and kept the order.
    pub(super) fn is_whole(&self) -> bool {
        let clean = |f: &Figures| {
            [figure::LOST, figure::DISORDERED, figure::ENDED]
                .iter()
                .all(|n| f.get(*n).and_then(Value::as_f64).unwrap_or(0.0) == 0.0)
        };
        self.contenders.first().is_none_or(|c| c.rounds.iter().all(clean))
    }

    fn judge(&self, aim: &Aim) -> Judged {
        let own = self.contenders.first().map_or(&[][..], |c| &c.rounds);
        let value = |f: &Figures| f.get(aim.figure).and_then(Value::as_f64);
        let values: Vec<f64> = match aim.of {
            None => own.iter().filter_map(value).collect(),
            // of the same round: what disturbed one disturbed the other
            Some(other) => {
                let pairs = own.iter().zip(self.rounds(other));
                pairs.filter_map(|(a, b)| Some(value(a)? / value(b).filter(|b| *b > 0.0)?)).collect()
            }
        };
        let measured = (!values.is_empty()).then(|| median(&values));
        let (sign, bound) = match aim.bound {
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::AtMost(bound) => ("≤", bound),
        };
        let met = measured.map(|m| if sign == "≥" { m >= bound } else { m <= bound });
        let words = match aim.of {
            None => format!("{} {sign} {}", label(aim.figure), short(aim.figure, bound)),
            Some(other) => format!("{} {sign} {bound} of {other}", label(aim.figure)),
        };
        Judged { figure: if aim.of.is_some() { "" } else { aim.figure }, words, measured, met }
    }

    pub(super) fn json(&self) -> Value {
        let contenders: Vec<Value> = self.contenders.iter().map(Result::json).collect();
        let aims: Vec<Value> = self.scenario.aims.iter().map(|a| self.judge(a)).map(|j| j.json()).collect();
        json!({ "name": self.scenario.name, "what": self.scenario.what, "contenders": contenders, "aims": aims })
    }
}

impl Result {
    fn json(&self) -> Value {
        if let Some(words) = &self.left_out {
            return json!({ "contender": self.contender, "left_out": words });
        }
        let mut document = medians(&self.rounds);
        document.insert("contender".into(), json!(self.contender));
        document.insert("version".into(), json!(self.version));
        document.insert("runs".into(), json!(self.rounds));
        Value::Object(document)
    }
}

impl Judged {
    fn json(&self) -> Value {
        let shown = self.measured.map_or_else(|| "–".into(), |m| short(self.figure, m));
        json!({ "aim": self.words, "measured": self.measured.map(rounded), "shown": shown, "met": self.met })
    }
}

/// A scenario's JSON as lines of text.
pub(super) fn text(scenario: &Value) -> String {
    let mut out = format!("{}: {}\n", word(scenario, "name"), word(scenario, "what"));
    for (name, contender) in contenders(scenario) {
        let told: Vec<String> = match contender["left_out"].as_str() {
            Some(words) => vec![format!("left out: {words}")],
            None => cells(contender).iter().map(|(label, value)| format!("{label} {value}")).collect(),
        };
        out.push_str(&format!("  {name:<12} {}\n", told.join("  ")));
    }
    aims(scenario).for_each(|aim| out.push_str(&format!("  {aim}\n")));
    out
}

/// A scenario's JSON as a table: who, figures, aims.
pub(super) fn markdown(scenario: &Value) -> String {
    let mut out = format!("\n## {}: {}\n\n", word(scenario, "name"), word(scenario, "what"));
    let mut columns: Vec<&'static str> = Vec::new();
    for (label, _) in contenders(scenario).flat_map(|(_, contender)| cells(contender)) {
        if !columns.contains(&label) {
            columns.push(label);
        }
    }
    out.push_str(&format!("| | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len())));
    for (name, contender) in contenders(scenario).filter(|(_, c)| c["left_out"].is_null()) {
        let cells = cells(contender);
        let cell = |label: &&str| cells.iter().find(|(l, _)| l == label).map_or("–", |(_, v)| v.as_str());
        let row: Vec<&str> = columns.iter().map(cell).collect();
        out.push_str(&format!("| {name} | {} |\n", row.join(" | ")));
    }
    out.push('\n');
    aims(scenario).for_each(|aim| out.push_str(&format!("- {aim}\n")));
    for (name, contender) in contenders(scenario) {
        if let Some(words) = contender["left_out"].as_str() {
            out.push_str(&format!("- {name} was left out: {words}\n"));
        }
    }
    out
}

fn contenders(scenario: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = scenario["contenders"].as_array().into_iter().flatten();
    all.map(|contender| (word(contender, "contender"), contender))
}

/// Medians, in the order in which they are told.
fn cells(contender: &Value) -> Vec<(&'static str, String)> {
    let known = SHOWN.iter().filter_map(|name| Some((*name, contender[*name].as_f64()?)));
    known.map(|(name, value)| (label(name), short(name, value))).collect()
}

/// What is told of a contender, in this order.
const SHOWN: &[&str] = &[
    figure::PER_SECOND,
    figure::PER_CPU,
    figure::ACKED,
    figure::ACK_TO_ARRIVAL_P50,
    figure::ACK_TO_ARRIVAL_P99,
    figure::P50,
    figure::P99,
    figure::P999,
    figure::OPENINGS,
    figure::OPENINGS_PER_CPU,
    figure::RSS_EACH,
    figure::CPU_PERCENT,
    figure::PEAK_GROWTH,
    figure::LOST,
    figure::DISORDERED,
    figure::ENDED,
    figure::SECONDS,
    figure::SERVER_CPU,
    figure::CLIENT_CPU,
    figure::FOREIGN_CPU,
    figure::RSS,
];

fn label(name: &str) -> &'static str {
    match name {
        figure::PER_SECOND => "/s",
        figure::PER_CPU => "/cpu-s",
        figure::ACKED => "acked/s",
        figure::ACK_TO_ARRIVAL_P50 => "ack→arrival p50 ms",
        figure::ACK_TO_ARRIVAL_P99 => "ack→arrival p99 ms",
        figure::P50 => "p50 ms",
        figure::P99 => "p99 ms",
        figure::P999 => "p999 ms",
        figure::OPENINGS => "openings/s",
        figure::OPENINGS_PER_CPU => "openings/cpu-s",
        figure::RSS_EACH => "B/session",
        figure::CPU_PERCENT => "cpu %",
        figure::PEAK_GROWTH => "peak growth",
        figure::LOST => "lost",
        figure::DISORDERED => "disordered",
        figure::SECONDS => "s",
        figure::ENDED => "ended",
        figure::SERVER_CPU => "server cpu s",
        figure::CLIENT_CPU => "client cpu s",
        figure::FOREIGN_CPU => "foreign cpu s",
        figure::RSS => "rss",
        _ => "?",
    }
}

fn short(name: &str, value: f64) -> String {
    match name {
        figure::RSS | figure::PEAK_GROWTH => format!("{:.1} MiB", value / 1048576.0),
        _ => number(value),
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::scenario::SCENARIOS;

    fn figures(per_cpu: f64, lost: f64) -> Figures {
        Figures::from_iter([(figure::PER_CPU.into(), rounded(per_cpu)), (figure::LOST.into(), rounded(lost))])
    }

    fn result(contender: &'static str, rounds: &[f64]) -> Result {
        let rounds = rounds.iter().map(|v| figures(*v, 0.0)).collect();
        Result { contender, version: String::new(), rounds, left_out: None }
    }

    #[test]
    fn aims_are_judged_round_by_round() {
        let contenders = vec![result("minium", &[4e6, 9e6, 5e6]), result("floor", &[4e6, 10e6, 10e6])];
        let mut results = Results { scenario: &SCENARIOS[0], contenders };
        let judged: Vec<_> = SCENARIOS[0].aims.iter().map(|a| results.judge(a)).collect();
        assert_eq!(judged.iter().map(|j| j.met).collect::<Vec<_>>(), [Some(true), Some(true), None]);
        assert_eq!((judged[0].measured, judged[1].measured), (Some(5e6), Some(0.9)));
        assert!(results.is_whole());
        results.contenders[0].rounds.push(figures(1e6, -1.0));
        assert!(!results.is_whole(), "one came twice");
        results.contenders[0].rounds.truncate(1);
        results.contenders[1].rounds = vec![figures(8e6, 0.0)];
        assert_eq!(results.judge(&SCENARIOS[0].aims[1]).met, Some(false));
        let table = markdown(&results.json());
        assert!(table.contains("- FAIL: /cpu-s ≥ 0.85 of floor (measured 0.50)\n"), "{table}");
        assert!(table.contains("| minium | 4.00 M | 0 |\n| floor | 8.00 M | 0 |\n"), "{table}");
    }

    #[test]
    fn names_of_scenarios_and_contenders_are_unique_and_aims_name_contenders() {
        for (i, s) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..i].iter().all(|other| other.name != s.name), "{} twice", s.name);
            let names: Vec<_> = s.contenders.iter().map(|c| c.name).collect();
            assert!(s.aims.iter().all(|a| a.of.is_none_or(|o| names[1..].contains(&o))), "{}", s.name);
            assert!(s.aims.iter().all(|a| SHOWN.contains(&a.figure) && label(a.figure) != "?"), "{}", s.name);
        }
    }
}
