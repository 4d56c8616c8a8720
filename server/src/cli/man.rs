//! `minium man`: the manual pages, made from the command line itself; and one of the configuration, from its reference.

use super::Cli;
use super::man_config;
use super::output::{Output, quietly};
use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::roff::{Inline, Roff};
use std::path::{Path, PathBuf};

/// A page has a date, and one that changes with each build would change each package: it is that of the version.
pub(super) const DATE: &str = "2026-11-28";
/// What the pages are of.
pub(super) const SOURCE: &str = concat!("minium ", env!("CARGO_PKG_VERSION"));

/// Arguments of `minium man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minium man | man -l -\n  minium man /usr/local/share/man")]
pub(crate) struct Man {
    /// Write all pages below this directory: man1/ has those of the commands, man5/ that of minium.toml [default: print
    /// that of minium]
    dir: Option<PathBuf>,
}

impl Man {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let pages = pages(root())?;
        let Some(dir) = self.dir else {
            return quietly(Output::new(false).whole(&pages[0].1));
        };
        for (name, text) in pages {
            write(&dir.join("man1"), &format!("{name}.1"), &text)?;
        }
        write(&dir.join("man5"), &format!("{}.5", man_config::NAME), man_config::page().as_bytes())
    }
}

fn write(dir: &Path, name: &str, text: &[u8]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("Cannot make {}", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("Cannot write {}", path.display()))
}

/// The command line with all names filled in.
fn root() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

/// The pages of a command and of all below it, itself first.
fn pages(command: Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let below: Vec<Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect();
    let mut all = vec![page(command)?];
    for sub in below {
        all.extend(pages(sub)?);
    }
    Ok(all)
}

fn page(command: Command) -> anyhow::Result<(String, Vec<u8>)> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let above = name.rsplit_once('-').map(|(above, _)| above.to_owned());
    let has_below = command.get_subcommands().any(|sub| !sub.is_hide_set());
    let manual = clap_mangen::Man::new(command).manual("Minium").title(name.to_uppercase());
    let manual = manual.date(DATE).source(SOURCE);
    let mut text = Vec::new();
    manual.render_title(&mut text)?;
    manual.render_name_section(&mut text)?;
    manual.render_synopsis_section(&mut text)?;
    manual.render_description_section(&mut text)?;
    manual.render_options_section(&mut text)?;
    if has_below {
        manual.render_subcommands_section(&mut text)?;
    }
    if let Some(after) = after {
        further(&after).to_writer(&mut text)?;
    }
    match above {
        Some(above) => see_also(&above, "1"),
        None => see_also(man_config::NAME, "5"),
    }
    .to_writer(&mut text)?;
    Ok((name, text))
}

/// What stands below the options in the help: examples as they are, everything else as text.
fn further(after: &str) -> Roff {
    let is_example = |line: &&str| line.starts_with("  ");
    let examples: Vec<&str> = after.lines().filter(is_example).collect();
    let mut notes =
        after.lines().filter(|line| !is_example(line) && !line.starts_with("Examples:")).peekable();
    let mut roff = Roff::new();
    if after
        .lines()
        .any(|line| !line.trim().is_empty() && !is_example(&line) && !line.starts_with("Examples:"))
    {
        roff.control("SH", ["NOTES"]);
    }
    let mut begun = false;
    while let Some(line) = notes.next() {
        if !line.trim().is_empty() {
            roff.text([Inline::Roman(line.to_owned())]);
            begun = true;
        } else if begun && notes.peek().is_some_and(|next| !next.trim().is_empty()) {
            roff.control("PP", []);
        }
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in examples {
            roff.text([Inline::Roman(line.trim_start().to_owned())]);
        }
        roff.control("fi", []);
    }
    roff
}

fn see_also(page: &str, section: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([Inline::Bold(page.to_owned()), Inline::Roman(format!("({section})"))]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let pages = pages(root()).unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|(page, _)| page == name).unwrap_or_else(|| panic!("{name}"));
            String::from_utf8(page.1.clone()).unwrap()
        };
        assert_eq!(pages[0].0, "minium");
        assert!(pages.len() > 60, "{}", pages.len());
        assert!(!pages.iter().any(|(name, _)| name == "minium-become"), "it is no command for people");
        let enqueue = text("minium-job-enqueue");
        assert!(enqueue.contains(".SH EXAMPLES\n.nf\n") && enqueue.contains(".SH NOTES\n"), "{enqueue}");
        assert!(enqueue.contains("\\fBminium\\-job\\fR(1)"), "{enqueue}");
        assert!(text("minium-job").contains("minium\\-job\\-enqueue(1)"), "{}", text("minium-job"));
    }
}
