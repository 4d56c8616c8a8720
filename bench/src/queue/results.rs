//! What all rounds of a row gave: medians, each contender beside the best peer, and whether the aims are met, as JSON. Text
//! and tables are made of that, so that rows of an earlier run of the same day can stand beside those of this one.

use super::rows::{self as figure, Aim, Bound, Load, Of, Row};
use crate::report::{Figures, aims, medians, rounded, word};
use crate::samples::median;
use serde_json::{Value, json};

/// What one contender did, round by round.
pub(super) struct Result {
    pub(super) contender: &'static str,
    pub(super) version: String,
    pub(super) is_peer: bool,
    pub(super) rounds: Vec<Figures>,
}

/// A row that was measured.
pub(super) struct Results {
    pub(super) row: &'static Row,
    pub(super) contenders: Vec<Result>,
}

/// An aim against what was measured.
struct Judged {
    words: String,
    shown: String,
    measured: Option<f64>,
    met: Option<bool>,
}

impl Results {
    fn judge(&self, aim: &Aim) -> Judged {
        let (sign, bound) = match aim.bound {
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::AtMost(bound) => ("≤", bound),
        };
        let higher_is_better = sign == "≥";
        let own = self.contenders.iter().find(|c| c.contender == aim.contender);
        let values: Vec<f64> = own
            .map_or(&[][..], |c| &c.rounds)
            .iter()
            .enumerate()
            .filter_map(|(round, own)| {
                let value = own.get(aim.figure)?.as_f64()?;
                match self.others(aim.of) {
                    None => Some(value),
                    // of the same round: what disturbed one disturbed the other
                    Some(others) => {
                        let all =
                            others.iter().filter_map(|c| c.rounds.get(round)?.get(aim.figure)?.as_f64());
                        let better = |a: f64, b: f64| if (a > b) == higher_is_better { a } else { b };
                        all.reduce(better).filter(|b| *b != 0.0).map(|best| value / best)
                    }
                }
            })
            .collect();
        let measured = (!values.is_empty()).then(|| median(&values));
        let met = measured.map(|m| if higher_is_better { m >= bound } else { m <= bound });
        let shown = measured.map_or_else(|| "–".into(), number);
        let of = match aim.of {
            Of::Itself => String::new(),
            Of::One(other) => format!(" of {other}"),
            Of::BestPeer => " of the best peer".into(),
            Of::BestPeerBut(other) => format!(" of the best peer but {other}"),
        };
        let words = format!("{}: {} {sign} {}{of}", aim.contender, label(aim.figure), number(bound));
        Judged { words, shown, measured, met }
    }

    /// Whom an aim compares with; nobody when it speaks of the figure itself.
    fn others(&self, of: Of) -> Option<Vec<&Result>> {
        let all =
            |wanted: &dyn Fn(&Result) -> bool| Some(self.contenders.iter().filter(|c| wanted(c)).collect());
        match of {
            Of::Itself => None,
            Of::One(other) => all(&|c| c.contender == other),
            Of::BestPeer => all(&|c| c.is_peer),
            Of::BestPeerBut(other) => all(&|c| c.is_peer && c.contender != other),
        }
    }

    pub(super) fn json(&self) -> Value {
        let (main, higher_is_better) = main_figure(self.row.load);
        let mut contenders = Vec::new();
        for result in &self.contenders {
            let mut document = medians(&result.rounds);
            let bound = if higher_is_better { Bound::AtLeast(1.0) } else { Bound::AtMost(1.0) };
            let beside = Aim { contender: result.contender, figure: main, of: Of::BestPeer, bound };
            if let Some(ratio) = self.judge(&beside).measured {
                document.insert("of_best_peer".into(), rounded(ratio));
            }
            document.insert("contender".into(), json!(result.contender));
            document.insert("version".into(), json!(result.version));
            document.insert("runs".into(), json!(result.rounds));
            contenders.push(Value::Object(document));
        }
        let aims: Vec<Value> = self.row.aims.iter().map(|a| self.judge(a).json()).collect();
        json!({ "name": self.row.name, "what": self.row.what, "main": main, "contenders": contenders, "aims": aims })
    }
}

impl Judged {
    fn json(&self) -> Value {
        json!({ "aim": self.words, "measured": self.measured.map(rounded), "shown": self.shown, "met": self.met })
    }
}

/// The figure that contenders are set beside each other by, and whether more of it is better.
fn main_figure(load: Load) -> (&'static str, bool) {
    match load {
        Load::Pickup => (figure::ACK_P50, false),
        Load::Subscriber => (figure::ARRIVAL_P50, false),
        Load::Wal => (figure::WAL, false),
        Load::Drain | Load::Singles { .. } | Load::Bulk | Load::FlatOut | Load::Kept | Load::Sqlite => {
            (figure::PER_SECOND, true)
        }
    }
}

/// A row's JSON as text in columns, and its aims.
pub(super) fn text(row: &Value) -> String {
    let mut out = format!("{}: {}\n", word(row, "name"), word(row, "what"));
    let table = table(row);
    let width = |column: usize| table.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    for line in &table {
        let told: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        out.push_str(&format!("  {}\n", told.join("  ")));
    }
    aims(row).for_each(|aim| out.push_str(&format!("  {aim}\n")));
    out
}

/// A row's JSON as a table, its aims, and what is no single number.
pub(super) fn markdown(row: &Value) -> String {
    let mut out = format!("\n## {}: {}\n\n", word(row, "name"), word(row, "what"));
    let table = table(row);
    for (i, line) in table.iter().enumerate() {
        out.push_str(&format!("| {} |\n", line.join(" | ")));
        if i == 0 {
            out.push_str(&format!("|{}\n", "---|".repeat(line.len())));
        }
    }
    out.push('\n');
    aims(row).for_each(|aim| out.push_str(&format!("- {aim}\n")));
    for (name, contender) in contenders(row) {
        for extra in [figure::READS, figure::WINDOWS].iter().filter(|extra| !contender[**extra].is_null()) {
            out.push_str(&format!(
                "- {name}, {}, last round: {}\n",
                extra.replace('_', " "),
                contender[*extra]
            ));
        }
    }
    out
}

/// Who, the medians of those figures that anybody has, and all rounds of the main one.
fn table(row: &Value) -> Vec<Vec<String>> {
    let has = |name: &&&str| contenders(row).any(|(_, contender)| contender[**name].is_number());
    let columns: Vec<&str> = SHOWN.iter().filter(has).copied().collect();
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(|name| label(name).to_owned()));
    head.push("rounds".into());
    let mut table = vec![head];
    for (name, contender) in contenders(row) {
        let cell = |column: &&str| contender[*column].as_f64().map_or_else(|| "–".into(), number);
        let mut line = vec![name.to_owned()];
        line.extend(columns.iter().map(cell));
        let runs = contender["runs"].as_array().into_iter().flatten();
        let rounds = runs.filter_map(|run| Some(number(run[word(row, "main")].as_f64()?)));
        line.push(rounds.collect::<Vec<_>>().join(" "));
        table.push(line);
    }
    table
}

fn contenders(row: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = row["contenders"].as_array().into_iter().flatten();
    all.map(|contender| (word(contender, "contender"), contender))
}

/// What is told of a contender, in this order.
const SHOWN: &[&str] = &[
    figure::PER_SECOND,
    figure::ENQUEUED,
    figure::ACK_P50,
    figure::ACK_P99,
    figure::CALL_P50,
    figure::CALL_P99,
    figure::ARRIVAL_P50,
    figure::ARRIVAL_P99,
    "of_best_peer",
    figure::STEADINESS,
    figure::READ,
    figure::DATABASE_CPU,
    figure::CLIENT_CPU,
    figure::NODE_CPU,
    figure::WAL,
    figure::WAL_PAGES,
    figure::BEHIND,
    figure::RELAYED_SECONDS,
    figure::FIRST,
    figure::FOREIGN_CPU,
    "seconds",
];

fn label(name: &str) -> &'static str {
    match name {
        figure::PER_SECOND => "jobs/s",
        figure::ENQUEUED => "enqueued/s",
        figure::ACK_P50 => "ack→handler p50 ms",
        figure::ACK_P99 => "ack→handler p99 ms",
        figure::CALL_P50 => "call→handler p50 ms",
        figure::CALL_P99 => "call→handler p99 ms",
        figure::ARRIVAL_P50 => "event→subscriber p50 ms",
        figure::ARRIVAL_P99 => "event→subscriber p99 ms",
        "of_best_peer" => "× best peer",
        figure::STEADINESS => "last third / first",
        figure::READ => "slowest read ms",
        figure::DATABASE_CPU => "PG µs/job",
        figure::CLIENT_CPU => "client µs/job",
        figure::NODE_CPU => "node µs/job",
        figure::WAL => "WAL B/job",
        figure::WAL_PAGES => "of it full pages",
        figure::BEHIND => "events behind",
        figure::RELAYED_SECONDS => "s until numbered",
        figure::FIRST => "first after ms",
        figure::FOREIGN_CPU => "foreign cpu s",
        "seconds" => "s",
        _ => "?",
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 0.995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::rows::ROWS;

    fn result(contender: &'static str, is_peer: bool, name: &str, rounds: &[f64]) -> Result {
        let rounds = rounds.iter().map(|v| Figures::from_iter([(name.into(), rounded(*v))])).collect();
        Result { contender, version: String::new(), is_peer, rounds }
    }

    #[test]
    fn aims_are_judged_against_the_best_of_the_same_round() {
        let rate = figure::PER_SECOND;
        let contenders = vec![
            result("minium", false, rate, &[30.0, 10.0, 40.0]),
            result("pgmq", true, rate, &[10.0, 10.0, 10.0]),
            result("graphile", true, rate, &[20.0, 5.0, 10.0]),
        ];
        let results = Results { row: &ROWS[0], contenders };
        let share =
            |of| results.judge(&Aim { contender: "minium", figure: rate, of, bound: Bound::AtLeast(1.5) });
        let best = share(Of::BestPeer);
        assert_eq!((best.measured, best.met), (Some(1.5), Some(true)), "of 1.5, 1 and 4");
        assert_eq!(share(Of::One("pgmq")).measured, Some(3.0));
        assert_eq!(share(Of::BestPeerBut("graphile")).measured, Some(3.0));
        assert_eq!(share(Of::One("nobody")).met, None);
        let table = markdown(&results.json());
        assert!(table.contains("| minium | 30 | 1.50 | 30 10 40 |\n"), "{table}");
    }

    #[test]
    fn of_latencies_the_best_is_the_least() {
        let contenders = vec![
            result("minium-relayed", false, figure::ACK_P50, &[1.0]),
            result("a", true, figure::ACK_P50, &[4.0]),
            result("b", true, figure::ACK_P50, &[2.0]),
        ];
        let results = Results { row: &ROWS[4], contenders };
        assert_eq!(results.judge(&ROWS[4].aims[0]).measured, Some(0.5));
        assert_eq!(results.json()["contenders"][0]["of_best_peer"], 0.5);
    }

    #[test]
    fn names_are_unique_and_aims_name_contenders_and_known_figures() {
        for (i, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..i].iter().all(|other| other.name != row.name), "{} twice", row.name);
            let names: Vec<_> = row.contenders.iter().map(|c| c.name).collect();
            assert!((1..names.len()).all(|i| !names[..i].contains(&names[i])), "{names:?}");
            for aim in row.aims {
                assert!(names.contains(&aim.contender), "{}: {}", row.name, aim.contender);
                assert!(SHOWN.contains(&aim.figure) && label(aim.figure) != "?", "{}", aim.figure);
                let known = |other| names.contains(&other);
                assert!(match aim.of {
                    Of::One(other) | Of::BestPeerBut(other) => known(other),
                    Of::Itself | Of::BestPeer => true,
                });
            }
        }
    }
}
