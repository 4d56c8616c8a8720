//! What a check found: a line for people, a member for programs, and a name that stays.

use crate::cli::output::{Colour, Output};
use serde::Serialize;
use serde_json::json;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// Of docs/operations.md; it stays.
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) words: String,
    /// What to do.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(name: &'static str, words: impl Into<String>) -> Finding {
        Finding { name, level: Level::Ok, words: words.into(), remedy: None }
    }

    pub(super) fn warn(name: &'static str, words: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name, level: Level::Warn, words: words.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn fail(name: &'static str, words: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name, level: Level::Fail, words: words.into(), remedy: Some(remedy.into()) }
    }
}

/// What was found so far. People read each line when it is there; a program gets one document.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(output: Output) -> Report {
        Report { output, findings: Vec::new() }
    }

    pub(super) fn tell(&mut self, finding: Finding) -> anyhow::Result<()> {
        const NAME_WIDTH: usize = 21;
        if !self.output.is_json() {
            let (word, colour) = match finding.level {
                Level::Ok => ("ok", Colour::Green),
                Level::Warn => ("warn", Colour::Yellow),
                Level::Fail => ("fail", Colour::Red),
            };
            let level = self.output.paint(colour, &format!("{word:<5}"));
            let words = crate::cli::output::clean(&finding.words);
            self.output.line(&format!("{level} {:<NAME_WIDTH$} {words}", finding.name))?;
            if let Some(remedy) = &finding.remedy {
                let remedy = crate::cli::output::clean(remedy);
                self.output.line(&format!("{:5} {:NAME_WIDTH$} → {remedy}", "", ""))?;
            }
        }
        self.findings.push(finding);
        Ok(())
    }

    pub(super) fn tell_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> anyhow::Result<()> {
        findings.into_iter().try_for_each(|finding| self.tell(finding))
    }

    /// Writes what is still to be written, and answers how many checks failed.
    pub(super) fn end(self) -> anyhow::Result<usize> {
        let failed = self.findings.iter().filter(|finding| finding.level == Level::Fail).count();
        if self.output.is_json() {
            self.output.line(&json!({ "findings": self.findings, "failed": failed }).to_string())?;
        }
        Ok(failed)
    }
}
