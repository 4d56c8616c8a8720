//! Where the configuration comes from: defaults, one file, the environment, flags.

use super::section::{Mistake, Origins, Reader};
use super::{Config, check, env};
use crate::exit::{Exit, fault};
use clap::Args;
use std::path::{Path, PathBuf};

/// Files that are tried when none is named; the first that exists counts.
const PLACES: &[&str] = &["minium.toml", "/etc/minium/minium.toml"];

/// Flags that win over file and environment.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Flags {
    /// Configuration file; without it ./minium.toml, else /etc/minium/minium.toml, else defaults
    #[arg(long, value_name = "FILE", env = "MINIUM_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Database: sqlite:FILE, sqlite::memory: or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Directory with schemas, added to the built-in ones
    #[arg(long, value_name = "DIR")]
    pub(crate) schemas: Option<String>,
}

impl Flags {
    fn overlay(&self, table: &mut toml::Table, origins: &mut Origins) {
        let said = [
            ("server", "listen", "--listen", &self.listen),
            ("database", "url", "--database", &self.database),
            ("schemas", "dir", "--schemas", &self.schemas),
        ];
        for (section, key, flag, text) in said {
            if let Some(text) = text {
                env::put(table, origins, &[section.to_owned(), key.to_owned()], text, flag);
            }
        }
    }
}

/// The configuration, and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What holds.
    pub(crate) config: Config,
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
}

/// Reads the configuration, or says everything that is wrong with it; exit code 2.
pub(crate) fn load(flags: &Flags) -> anyhow::Result<Loaded> {
    let file = match &flags.config {
        Some(named) => Some(named.clone()),
        None => PLACES.iter().map(PathBuf::from).find(|place| place.exists()),
    };
    let text = match &file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            fault(Exit::Usage, format!("The configuration file {} cannot be read: {error}", path.display()))
        })?,
        None => String::new(),
    };
    let place = file.as_deref().map_or("the configuration".into(), |p: &Path| p.display().to_string());
    let config =
        read(&text, variables(), flags).map_err(|wrong| fault(Exit::Usage, words(&place, &wrong)))?;
    Ok(Loaded { config, file })
}

/// As [`load`], with text in place of a file.
pub(crate) fn load_text(text: &str, flags: &Flags) -> anyhow::Result<Config> {
    read(text, variables(), flags).map_err(|wrong| fault(Exit::Usage, words("the configuration", &wrong)))
}

/// Variables that are not Unicode cannot be ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

fn words(place: &str, mistakes: &[Mistake]) -> String {
    let count = if mistakes.len() == 1 { "1 mistake".into() } else { format!("{} mistakes", mistakes.len()) };
    let lines: String = mistakes.iter().map(|m| format!("\n  {m}")).collect();
    format!("{count} in {place}:{lines}")
}

/// The configuration out of its three sources.
fn read(
    text: &str,
    vars: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Config, Vec<Mistake>> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let path = line.map_or("TOML".into(), |n| format!("line {n}"));
        vec![Mistake { path, origin: None, what: error.message().to_owned() }]
    })?;
    let mut origins = Origins::new();
    env::overlay(&mut table, &mut origins, vars);
    flags.overlay(&mut table, &mut origins);
    let mut mistakes = Vec::new();
    let mut reader = Reader::new("", table, &origins, &mut mistakes);
    let config = Config::read(&mut reader);
    reader.finish();
    check::check(&config, &origins, &mut mistakes);
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

#[cfg(test)]
pub(super) fn from_text(text: &str) -> Result<Config, Vec<Mistake>> {
    read(text, [], &Flags::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wrong(text: &str) -> Vec<String> {
        from_text(text).unwrap_err().iter().map(Mistake::to_string).collect()
    }

    #[test]
    fn nothing_said_is_a_whole_configuration() {
        let config = from_text("").unwrap();
        assert_eq!(config.server.listen.0.to_string(), "127.0.0.1:3000");
        assert_eq!(config.database.url, "sqlite:minium.db");
        assert_eq!(config.server.limits.message_bytes.0, 262_144);
    }

    #[test]
    fn what_the_protocol_shows_is_understood() {
        let text = r#"
            [server]
            listen = "127.0.0.1:4000"
            public_url = "http://127.0.0.1:4000"
            [database]
            url = "sqlite::memory:"
            [channels."task"]
            retention = { age = "30d", count = 100000 }
            [channels."livesys"]
            durable = true
            retention = { age = "30d", bytes = "1GiB", count = 100000 }
            slow = "replay"
            lease = "30s"
            patterns = ["sub"]
            [schedules.inventory]
            task = "livesys/inventory"
            every = "10s"
            [notifier]
            minion_topic = "minion"
            [auth]
            allowed_origins = ["example.com"]
            require_origin = false
            [tasks."burn-in"]
            command = ["./burn-in.sh"]
            timeout = "10m"
        "#;
        let config = from_text(text).unwrap();
        assert_eq!(config.schedules["inventory"].every, Some(Duration::from_secs(10)));
        assert_eq!(config.tasks["burn-in"].timeout, Some(Duration::from_secs(600)));
        assert_eq!(config.channels["livesys"].retention.count, Some(100_000));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = r#"
            colour = "red"
            [server]
            lissten = "127.0.0.1:1"
            listen = "nowhere"
            [server.limits]
            message_bytes = "1 KB"
            [database]
            url = 7
            [channels."livesys"]
            durable = "yes"
            [schedules.a]
            task = "x"
            cron = "0 25 * * *"
            zone = "Mars/Olympus"
            missed = "some"
            [schedules.b]
            every = "10s"
            [schedules.c]
            task = "x"
            [schedules.d]
            task = "x"
            every = "1h"
            cron = "0 3 * * *"
            [auth.keys.ops]
            algorithm = "HS256"
            [tasks."x y"]
            timeout = "soon"
        "#;
        let told = wrong(text);
        let expected = [
            "server.lissten: there is no such key; the keys here are listen",
            "server.listen: \"nowhere\" must be an address with a port",
            "server.limits.message_bytes: \"1 KB\" must be a size",
            "database.url: 7 must be a text",
            "channels.livesys.durable: \"yes\" must be true or false",
            "schedules.a.cron: the hour \"25\" of a cron expression must be",
            "schedules.a.zone: the time zone \"Mars/Olympus\" is not known here",
            "schedules.a.missed: \"some\" must be \"fold\" or \"all\"",
            "schedules.c.every: is missing; say every or cron",
            "schedules.d.cron: every and cron exclude each other",
            "schedules.b.task: is missing",
            "auth.keys.ops.secret_file: is missing",
            "tasks.\"x y\".timeout: \"soon\" must be a duration",
            "tasks.\"x y\".command: is missing",
            "colour: there is no such key; the keys here are server, database",
        ];
        for start in expected {
            assert!(told.iter().any(|t| t.starts_with(start)), "{start} is not among {told:#?}");
        }
    }

    #[test]
    fn broken_toml_names_the_line() {
        assert!(
            wrong("[server]\nlisten = ").iter().any(|t| t.starts_with("line 2: ")),
            "{:?}",
            wrong("[server]\nlisten = ")
        );
    }

    #[test]
    fn flags_win_over_the_environment_which_wins_over_the_file() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n[database]\nurl = \"sqlite:a\"\npool = 1";
        let vars = [("MINIUM_SERVER__LISTEN", "127.0.0.1:2"), ("MINIUM_DATABASE__POOL", "2")];
        let vars = vars.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let flags = Flags { listen: Some("127.0.0.1:3".into()), ..Flags::default() };
        let config = read(text, vars, &flags).unwrap();
        assert_eq!(config.server.listen.0.port(), 3);
        assert_eq!(config.database.pool, 2);
        assert_eq!(config.database.url, "sqlite:a");
    }

    #[test]
    fn a_mistake_says_which_variable_or_flag_made_it() {
        let vars = [("MINIUM_DATABASE__POOL".to_owned(), "many".to_owned())];
        let flags = Flags { listen: Some("here".into()), ..Flags::default() };
        let told = read("", vars, &flags).unwrap_err();
        let told: Vec<_> = told.iter().map(Mistake::to_string).collect();
        assert!(told[0].starts_with("server.listen (from --listen): "), "{told:?}");
        assert!(told[1].starts_with("database.pool (from MINIUM_DATABASE__POOL): "), "{told:?}");
    }
}
