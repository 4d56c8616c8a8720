//! Commands that are only mentioned, as `minium job ls --state S`: their words and flags exist.

use super::page::documents;
use crate::support::node::{binary, checkout};
use std::collections::BTreeMap;
use std::process::Command;

/// What begins like a command and is none: a text that is signed, and what is being built.
const NO_COMMANDS: &[&str] = &["minium audit head"];

/// What commands say of themselves, each asked once; nothing for one that does not exist.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, Option<String>>);

impl Helps {
    fn of(&mut self, words: &[String]) -> Option<String> {
        let ask = || {
            let output = Command::new(binary()).args(words).arg("--help").output().unwrap();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        self.0.entry(words.to_vec()).or_insert_with(ask).clone()
    }

    /// What is wrong with a mention, behind its `minium `.
    fn judge(&mut self, mention: &str) -> Result<(), String> {
        // within a table `|` is written `\|`
        let mention = mention.replace("\\|", "|");
        let mut words = mention.split_whitespace().peekable();
        let mut commands = vec![Vec::new()];
        loop {
            let mut helps = Vec::new();
            for command in &commands {
                let help = self.of(command).ok_or_else(|| format!("there is no command {command:?}"))?;
                helps.push(help);
            }
            let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '|');
            let has_more = helps.iter().any(|help| help.contains("\nCommands:\n"));
            let Some(word) = words.next_if(|word| has_more && is_word(word)) else {
                let flags =
                    words.filter_map(|word| word.strip_prefix("--")).map(flag).filter(|f| !f.is_empty());
                let known = |flag: &&str| helps.iter().any(|help| help.contains(&format!("--{flag}")));
                let mut unknown = flags.filter(|flag| !known(flag));
                return unknown.next().map_or(Ok(()), |flag| Err(format!("there is no --{flag}")));
            };
            let longer = |command: &Vec<String>| {
                let command = command.clone();
                word.split('|').map(move |word| [&command[..], &[word.to_owned()]].concat())
            };
            commands = commands.iter().flat_map(longer).collect();
        }
    }
}

/// The name of a flag, without its value or what stands around it.
fn flag(word: &str) -> &str {
    word.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default()
}

#[test]
fn each_command_that_is_mentioned_exists() {
    let (mut helps, mut wrong, mut count) = (Helps::default(), Vec::new(), 0);
    for name in documents(&checkout()) {
        let text = std::fs::read_to_string(checkout().join(&name)).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        for mention in prose.split('`').skip(1).step_by(2) {
            let mention = mention.split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(behind) = mention.strip_prefix("minium ") else { continue };
            if NO_COMMANDS.contains(&mention.as_str()) {
                continue;
            }
            count += 1;
            if let Err(why) = helps.judge(behind) {
                wrong.push(format!("{name}: {mention}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} commands are mentioned");
}
