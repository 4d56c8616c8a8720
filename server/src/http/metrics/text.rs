//! Prometheus' text form, for figures that are not counted but looked up.

use std::fmt::{Display, Write};

/// Lines about metrics, of which each is told once.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// What the samples that follow are.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One value.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let label = |(name, value): &(&str, &str)| format!("{name}=\"{}\"", escaped(value));
        match labels {
            [] => self.line(format_args!("{name} {value}")),
            _ => {
                let labels: Vec<String> = labels.iter().map(label).collect();
                self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    /// A metric that has one value only.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_names_told_once() {
        let mut text = Text::default();
        text.family("a", "gauge", "Words.");
        text.sample("a", &[("q", "x\"\\\ny"), ("s", "1")], 1.5);
        text.single("b_total", "counter", "More.", 2);
        let expected = "# HELP a Words.\n# TYPE a gauge\na{q=\"x\\\"\\\\\\ny\",s=\"1\"} 1.5\n\
                        # HELP b_total More.\n# TYPE b_total counter\nb_total 2\n";
        assert_eq!(text.into_string(), expected);
    }
}
