//! Prints the figures of a bench, and keeps them.

use crate::{Common, machine, samples};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::io::Write;

/// One run's figures by name.
pub(crate) type Figures = Map<String, Value>;

/// The figures of all runs of one bench.
pub(crate) struct Report {
    name: &'static str,
    settings: Value,
    runs: Vec<Figures>,
}

impl Report {
    pub(crate) fn new(name: &'static str, settings: Value) -> Report {
        Report { name, settings, runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, figures: Figures) {
        self.runs.push(figures);
    }

    /// Medians by name; what is no number is told as in the last run.
    fn medians(&self) -> Figures {
        let Some(last) = self.runs.last() else { return Figures::new() };
        let middle = |name: &String, value: &Value| {
            let numbers: Vec<f64> = self.runs.iter().filter_map(|r| r.get(name)?.as_f64()).collect();
            if numbers.is_empty() { value.clone() } else { rounded(samples::median(&numbers)) }
        };
        last.iter().map(|(name, value)| (name.clone(), middle(name, value))).collect()
    }

    fn document(&self) -> Value {
        let mut document = self.medians();
        document.insert("bench".into(), json!(self.name));
        document.insert("settings".into(), self.settings.clone());
        document.insert("machine".into(), json!(machine::description()));
        document.insert("at".into(), json!(jiff::Timestamp::now().to_string()));
        document.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        if self.runs.len() > 1 {
            document.insert("runs".into(), json!(self.runs));
        }
        Value::Object(document)
    }

    /// Prints the medians, and saves everything where it was asked for.
    pub(crate) fn finish(&self, common: &Common) -> anyhow::Result<()> {
        let document = self.document();
        let mut out = std::io::stdout().lock();
        if common.json {
            writeln!(out, "{document}")?;
        } else {
            writeln!(out, "{} (medians of {} runs)", self.name, self.runs.len())?;
            for (name, value) in self.medians() {
                let all: Vec<String> =
                    self.runs.iter().filter_map(|r| Some(r.get(&name)?.to_string())).collect();
                writeln!(out, "  {name:<42} {:>16}   {}", value.to_string(), all.join(" "))?;
            }
        }
        if let Some(dir) = &common.save {
            let day = jiff::Zoned::now().date();
            let dir = dir.join(format!("{day}-{}", machine::host()));
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            let path = dir.join(format!("{}.json", self.name));
            std::fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

/// Three digits behind the point are more than any of these figures is worth.
pub(crate) fn rounded(value: f64) -> Value {
    let r = (value * 1_000.0).round() / 1_000.0;
    if r.fract() == 0.0 && r.abs() < 1e15 { json!(r as i64) } else { json!(r) }
}
