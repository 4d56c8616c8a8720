//! `minium doctor`: would a node run well here? One line a finding, with a hint where something is wrong.

use crate::auth;
use crate::config::{Config, Flags, load};
use crate::exit::{Exit, fault};
use crate::listener;
use crate::node::{causes, open_backend};
use crate::schema_files::{self, SchemaDir};
use crate::tls::Tls;
use clap::Args;
use minium_bus::Schemas;
use minium_queue::{DatabaseUrl, QueueError, SqlitePlace};
use minium_worker::Ability;
use rustix::process::{Resource, getrlimit};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// A database that does not answer within this is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files that a node needs besides one for each connection and session.
const FILES_OWN: u64 = 200;

/// Arguments of `minium doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    flags: Flags,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug)]
struct Finding {
    level: Level,
    subject: &'static str,
    words: String,
    hint: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, words: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, subject, words: words.into(), hint: None }
    }

    fn warn(subject: &'static str, words: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { level: Level::Warn, subject, words: words.into(), hint: Some(hint.into()) }
    }

    fn fail(subject: &'static str, words: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { level: Level::Fail, subject, words: words.into(), hint: Some(hint.into()) }
    }

    fn print(&self) -> io::Result<()> {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{level:<5} {:<10} {}", self.subject, self.words)?;
        if let Some(hint) = &self.hint {
            writeln!(out, "{:<5} {:<10} → {hint}", "", "")?;
        }
        Ok(())
    }
}

impl Doctor {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut failed = 0;
        let mut tell = |finding: Finding| {
            failed += usize::from(finding.level == Level::Fail);
            finding.print()
        };
        let config = match load(&self.flags) {
            Ok(loaded) => {
                let place = loaded.file.map_or("no file, defaults".to_owned(), |f| f.display().to_string());
                tell(Finding::ok("config", place))?;
                Some(loaded.config)
            }
            Err(error) => {
                tell(Finding::fail("config", error.to_string(), "docs/configuration.md lists every key"))?;
                None
            }
        };
        if let Some(config) = &config {
            for finding in database(config).await {
                tell(finding)?;
            }
            tell(schemas(config))?;
            tell(port(config))?;
            tell(tls(config))?;
            for finding in auth(config) {
                tell(finding)?;
            }
        }
        for finding in sandbox(config.as_ref()).await {
            tell(finding)?;
        }
        tell(clock())?;
        tell(open_files(config.as_ref()))?;
        match failed {
            0 => Ok(()),
            1 => Err(fault(Exit::Failed, "1 check failed")),
            n => Err(fault(Exit::Failed, format!("{n} checks failed"))),
        }
    }
}

async fn database(config: &Config) -> Vec<Finding> {
    const SUBJECT: &str = "database";
    let url: DatabaseUrl = match config.database.url.parse() {
        Ok(url) => url,
        Err(error) => return vec![Finding::fail(SUBJECT, causes(&error), "set database.url")],
    };
    match &url {
        DatabaseUrl::Sqlite(SqlitePlace::Memory) => {
            let hint = "fine for a look; nothing outlives the process";
            return vec![Finding::warn(SUBJECT, format!("{url} keeps everything in memory"), hint)];
        }
        DatabaseUrl::Sqlite(SqlitePlace::File(path)) if !path.exists() => return vec![new_file(path)],
        DatabaseUrl::Sqlite(SqlitePlace::File(_)) | DatabaseUrl::Postgres(_) => {}
    }
    let hint = "is it running, does it let this user in? `minium serve` starts without it and waits";
    let looked = tokio::time::timeout(PATIENCE, async {
        let backend = open_backend(config, &url).await?;
        backend.store().ping().await?;
        backend.migration_status().await
    });
    match looked.await {
        Err(_) => vec![Finding::fail(SUBJECT, format!("{url} does not answer within 10 s"), hint)],
        Ok(Err(error)) => {
            let hint = if matches!(error, QueueError::Schema(_)) {
                "run the program that made this schema"
            } else {
                hint
            };
            vec![Finding::fail(SUBJECT, format!("{url}: {}", causes(&error)), hint)]
        }
        Ok(Ok(status)) => {
            let pending = status.iter().filter(|m| m.applied.is_none()).count();
            let schema = match pending {
                0 => Finding::ok("schema", format!("up to date at {}", status.len())),
                n => {
                    let words = format!("{n} of {} migrations are pending", status.len());
                    Finding::warn(
                        "schema",
                        words,
                        "`minium migrate` applies them; `minium serve` does so by itself",
                    )
                }
            };
            vec![Finding::ok(SUBJECT, format!("{url} answers")), schema]
        }
    }
}

/// A file that is to be made: can it be?
fn new_file(path: &std::path::Path) -> Finding {
    let parent =
        path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let writable = rustix::fs::access(&parent, rustix::fs::Access::WRITE_OK).is_ok();
    if writable {
        Finding::ok("database", format!("{} will be made", path.display()))
    } else {
        let words =
            format!("{} cannot be made: {} is not there or not writable", path.display(), parent.display());
        Finding::fail("database", words, "set database.url to a place that this user can write")
    }
}

fn schemas(config: &Config) -> Finding {
    const SUBJECT: &str = "schemas";
    let Some(dir) = schema_files::place(config.schemas.dir.as_deref()) else {
        return Finding::ok(SUBJECT, "only the built-in ones");
    };
    let files = match SchemaDir::new(dir.to_owned()).read() {
        Ok(files) => files,
        Err(error) => {
            let words = format!("{} cannot be read: {error}", dir.display());
            return Finding::fail(SUBJECT, words, "set schemas.dir, or make the directory");
        }
    };
    let report = Schemas::built_in().replace(files);
    match schema_files::refused(&report, dir) {
        None => Finding::ok(SUBJECT, format!("{}, {} in force", dir.display(), report.in_force)),
        Some(why) => Finding::fail(SUBJECT, why, "`minium schema check` tells of all"),
    }
}

fn port(config: &Config) -> Finding {
    let address = config.server.listen.0;
    match listener::open(address) {
        Ok(_) if !address.ip().is_loopback() && !config.is_guarded() => {
            let hint = "configure [auth.keys], listen on 127.0.0.1, or start with --insecure-no-auth";
            Finding::warn("port", format!("{address} is free, and not loopback"), hint)
        }
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let hint = "if that is your node, all is well; else choose another port";
            Finding::fail("port", format!("{address} is taken"), hint)
        }
        Err(error) => {
            let words = format!("{address} cannot be listened on: {error}");
            Finding::fail("port", words, "choose another address or port by --listen")
        }
    }
}

fn tls(config: &Config) -> Finding {
    const SUBJECT: &str = "tls";
    let files = [&config.server.tls.certificate_file, &config.server.tls.client_ca_file];
    match Tls::of(&config.server.tls) {
        Ok(None) => Finding::ok(SUBJECT, "none: plain HTTP"),
        Ok(Some(_)) => {
            let files: Vec<String> = files.into_iter().flatten().map(|f| f.display().to_string()).collect();
            Finding::ok(SUBJECT, format!("{}, and the key fits", files.join(", ")))
        }
        Err(why) => Finding::fail(SUBJECT, why, "look at [server.tls]"),
    }
}

fn auth(config: &Config) -> Vec<Finding> {
    const SUBJECT: &str = "auth";
    let keys = &config.auth.keys;
    let mut findings = match auth::build(config, None) {
        Err(wrong) => wrong.into_iter().map(|why| Finding::fail(SUBJECT, why, "look at [auth]")).collect(),
        Ok(_) if !config.is_guarded() => {
            vec![Finding::ok(SUBJECT, "none: whoever reaches it may do everything")]
        }
        Ok(_) => vec![Finding::ok(SUBJECT, format!("asked for; keys: {}", keys.len()))],
    };
    // a file that is not there was told of
    let secrets = keys.values().filter_map(|key| key.secret_file.as_ref());
    findings.extend(secrets.filter_map(|path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let words = format!("{} has the mode {mode:04o}: others can read the secret", path.display());
        (mode & 0o077 != 0).then(|| Finding::warn(SUBJECT, words, format!("chmod 600 {}", path.display())))
    }));
    findings
}

/// What the machine has to hold commands back, and whether it has what is asked for.
async fn sandbox(config: Option<&Config>) -> Vec<Finding> {
    const SUBJECT: &str = "sandbox";
    let commands = |config: &Config| -> Vec<_> {
        config.tasks.iter().filter_map(|(name, task)| task.command(name, &config.worker).sandbox).collect()
    };
    let asked = config.map(commands).unwrap_or_default();
    let needs = |name: &str| {
        asked.iter().any(|sandbox| {
            let scope = sandbox.scope_memory_bytes.is_some() || sandbox.scope_processes.is_some();
            sandbox.wall.name() == name || name == "systemd-run" && scope
        })
    };
    let finding = |ability: Ability| {
        let words = format!("{}: {}", ability.name, ability.words);
        match (ability.usable, needs(ability.name)) {
            (true, _) => Finding::ok(SUBJECT, words),
            (false, false) => Finding::ok(SUBJECT, words + "; no task asks for it"),
            (false, true) => Finding::fail(SUBJECT, words, "docs/security.md says what each mode needs"),
        }
    };
    let mut findings: Vec<_> = minium_worker::abilities().await.into_iter().map(finding).collect();
    if asked.iter().any(|sandbox| sandbox.processes.is_some()) && rustix::process::getuid().is_root() {
        let hint = "run the node as another user, or use sandbox.scope_processes";
        findings.push(Finding::fail(SUBJECT, "processes: a limit does not hold root", hint));
    }
    findings
}

fn clock() -> Finding {
    let now = jiff::Timestamp::now();
    // Nothing of this program is older.
    let born: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("this is a time");
    if now < born {
        return Finding::fail(
            "clock",
            format!("it is {now:.0}, before this program was written"),
            "set the clock, run an NTP client",
        );
    }
    Finding::ok("clock", format!("{now:.0}"))
}

fn open_files(config: Option<&Config>) -> Finding {
    const SUBJECT: &str = "open files";
    let limit = getrlimit(Resource::Nofile).maximum;
    let Some(limit) = limit else { return Finding::ok(SUBJECT, "without a limit") };
    let wanted =
        config.map_or(0, |c| u64::from(c.server.limits.connections) + u64::from(c.server.limits.sessions));
    if limit < wanted + FILES_OWN {
        let words = format!("{limit}, and server.limits admit {wanted} connections and sessions");
        let hint =
            format!("raise it (ulimit -n {}, LimitNOFILE=), or lower server.limits", wanted + FILES_OWN);
        return Finding::warn(SUBJECT, words, hint);
    }
    Finding::ok(SUBJECT, limit.to_string())
}
