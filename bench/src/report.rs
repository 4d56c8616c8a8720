//! Prints the figures of a bench, and keeps them.

use crate::{Common, machine, samples};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

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

    fn document(&self) -> Value {
        let mut document = medians(&self.runs);
        document.append(&mut circumstances(self.name, &self.settings));
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
            for (name, value) in medians(&self.runs) {
                let all: Vec<String> =
                    self.runs.iter().filter_map(|r| Some(r.get(&name)?.to_string())).collect();
                writeln!(out, "  {name:<42} {:>16}   {}", value.to_string(), all.join(" "))?;
            }
        }
        if let Some(dir) = &common.save {
            let text = serde_json::to_string_pretty(&document)? + "\n";
            save(&todays(dir)?, &format!("{}.json", self.name), &text)?;
        }
        Ok(())
    }
}

/// Medians by name; what is no number is told as in the last run.
pub(crate) fn medians(runs: &[Figures]) -> Figures {
    let Some(last) = runs.last() else { return Figures::new() };
    let middle = |name: &String, value: &Value| {
        let numbers: Vec<f64> = runs.iter().filter_map(|r| r.get(name)?.as_f64()).collect();
        if numbers.is_empty() { value.clone() } else { rounded(samples::median(&numbers)) }
    };
    last.iter().map(|(name, value)| (name.clone(), middle(name, value))).collect()
}

/// What a reader of the figures must know besides them.
pub(crate) fn circumstances(bench: &str, settings: &Value) -> Figures {
    let told = [
        ("bench", json!(bench)),
        ("settings", settings.clone()),
        ("machine", json!(machine::description())),
        ("at", json!(jiff::Timestamp::now().to_string())),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ];
    told.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// The folder of this day and machine.
pub(crate) fn todays(dir: &Path) -> anyhow::Result<PathBuf> {
    let day = jiff::Zoned::now().date();
    let dir = dir.join(format!("{day}-{}", machine::host()));
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// Keeps a file.
pub(crate) fn save(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Three digits behind the point are more than any of these figures is worth.
pub(crate) fn rounded(value: f64) -> Value {
    let r = (value * 1_000.0).round() / 1_000.0;
    if r.fract() == 0.0 && r.abs() < 1e15 { json!(r as i64) } else { json!(r) }
}

/// A word of a document, or nothing.
pub(crate) fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What was aimed at in a line of a table, whether it was met, and what was measured.
pub(crate) fn aims(line: &Value) -> impl Iterator<Item = String> {
    line["aims"].as_array().into_iter().flatten().map(|aim| {
        let mark = match aim["met"].as_bool() {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "not measured",
        };
        format!("{mark}: {} (measured {})", word(aim, "aim"), word(aim, "shown"))
    })
}
