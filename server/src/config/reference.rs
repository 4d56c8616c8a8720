//! The reference of the configuration, from the sections' own comments: what `docs/configuration.md` and the manual page
//! `minium.toml` say. The document is checked against it by a test.

use super::section::{Key, Section};
use super::{
    Anonymous, Auth, AuthKey, AuthLimits, Certificate, Channel, Database, Deliveries, Hook, KeepQueue,
    LimitOf, Limits, Notifier, Queue, Recorders, Retention, Sandbox, Schedule, Schemas, Server, Sink, Task,
    Tls, Worker,
};

/// What holds for all of it: paragraphs, in Markdown.
pub(crate) const ABOUT: &str = "\
One TOML file: `--config FILE`, else `./minium.toml`, else `/etc/minium/minium.toml`, else nothing but defaults.
Environment variables win over the file, flags (`--listen`, `--database`, `--schemas`) over both. A variable is `MINIUM_`
and the key in capitals with two underscores between the levels: `MINIUM_SERVER__LISTEN`, `MINIUM_SERVER__LIMITS__MESSAGE_BYTES`.
Unknown keys are refused, and all mistakes are told at once (exit code 2). `minium config show` prints what holds, with
secrets masked. Relative paths start at the working directory.

Durations are seconds or a number with `ms`, `s`, `m`, `h`, `d`; sizes are bytes or a number with `KiB`, `MiB`, `GiB`.";

/// A table of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// Its name, without brackets.
    pub(crate) name: &'static str,
    /// What it is for, in Markdown.
    pub(crate) about: &'static str,
    /// Its keys; none where they are those of another table.
    pub(crate) keys: &'static [Key],
}

const fn table(name: &'static str, about: &'static str, keys: &'static [Key]) -> Table {
    Table { name, about, keys }
}

/// All tables, in the order in which they are told.
pub(crate) const TABLES: &[Table] = &[
    table("server", "What the node listens on.", Server::KEYS),
    table("server.limits", "Bounds of everything that clients can make grow.", Limits::KEYS),
    table(
        "server.tls",
        "TLS on the one listener. The files are read again on SIGHUP, for connections that come from then on; a bad file keeps the old ones, and the log says so.",
        Tls::KEYS,
    ),
    table("database", "Where jobs and the journal are kept.", Database::KEYS),
    table(
        "schemas",
        "The schemas of channels and tasks. They are read again on SIGHUP and when a file changes; a broken file keeps the old one, and the log says so.",
        Schemas::KEYS,
    ),
    table(
        "channels.\"PREFIX\"",
        "A topic prefix, as in `[channels.\"livesys\"]`; the nearest one governs a topic. What a channel does not say is what the nearest configured prefix above it says. Channels are read again on SIGHUP: sessions that are open keep what they began with, and a file with mistakes changes nothing.",
        Channel::KEYS,
    ),
    table(
        "channels.\"PREFIX\".retention",
        "How much of a durable channel is kept: each channel for itself, without those below it. What lets go first counts.",
        Retention::KEYS,
    ),
    table(
        "schedules.NAME",
        "Work that repeats, by `every` or by `cron`. By `every` it fires at once when it is new. All nodes of one database must have the same schedules: each puts its own at its start, and removes what an earlier configuration had ([job-states.md](job-states.md#schedules)).",
        Schedule::KEYS,
    ),
    table(
        "hooks.\"NAME\"",
        "A webhook that comes in by POST `/hooks/NAME` and becomes a job ([hooks.md](hooks.md)). Hooks, and the files that they name, are read again on SIGHUP; a file with mistakes changes nothing.",
        Hook::KEYS,
    ),
    table("notifier", "Between journal and bus.", Notifier::KEYS),
    table(
        "recorders",
        "What the journal keeps for recorders (`PUT /api/v1/recorders/{name}`) that have not confirmed it, beyond each channel's retention.",
        Recorders::KEYS,
    ),
    table(
        "auth",
        "Who may connect, and what they may do: see [security.md](security.md). Without keys, certificates and anonymous scopes everybody may do everything, on loopback alone. SIGHUP reads all of `[auth]` again, the files that it names included.",
        Auth::KEYS,
    ),
    table("auth.keys.NAME", "A key that vouches for tokens.", AuthKey::KEYS),
    table("auth.anonymous", "What whoever brings no token may do.", Anonymous::KEYS),
    table(
        "auth.certificates.\"NAME\"",
        "A client certificate, by the name that it was issued to.",
        Certificate::KEYS,
    ),
    table("auth.limits", "How much those may send who bring a token.", AuthLimits::KEYS),
    table("queue", "The queue's own affairs.", Queue::KEYS),
    table(
        "retention.QUEUE",
        "How long ended jobs of one queue are kept, in place of what `[queue]` says for all.",
        KeepQueue::KEYS,
    ),
    table(
        "limits.\"TASK\"",
        "How many jobs of a task, and of those below it, run at once and how many are started in a time, whatever workers there are. The nearest limit at or above a job's task counts, as it is when the job is enqueued. The limits of the node that started last are in force.",
        LimitOf::KEYS,
    ),
    table(
        "worker",
        "The worker inside the node, which runs `[tasks]`. Without tasks there is none.",
        Worker::KEYS,
    ),
    table(
        "worker.sandbox",
        "What holds the node's commands back: what each key is worth, and what not, is in [security.md](security.md#commands-in-a-sandbox).",
        Sandbox::KEYS,
    ),
    table(
        "tasks.\"NAME\"",
        "A command worker: arguments as JSON on stdin, the result on stdout, `::progress 40 text`, `::note key=value`, `::step name` and `::log level text` on stderr.",
        Task::KEYS,
    ),
    table(
        "tasks.\"NAME\".sandbox",
        "What holds this command back. The keys are those of `[worker.sandbox]`; what is not said here is what stands there.",
        &[],
    ),
    table(
        "sinks.NAME",
        "Who is told of events outside: by webhooks, or by the statuses of commits ([sinks.md](sinks.md)). All nodes of one database must have the same sinks. Files are read at the start.",
        Sink::KEYS,
    ),
    table(
        "deliveries",
        "The worker inside the node that sends what sinks are told. Without sinks there is none.",
        Deliveries::KEYS,
    ),
];

impl Key {
    /// What it means, as one line of Markdown.
    pub(crate) fn meaning(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What is allowed, as a sentence.
    pub(crate) fn bounds(&self) -> String {
        let mut chars = self.allowed.chars();
        chars.next().map(|c| c.to_uppercase().to_string() + chars.as_str() + ".").unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

    const HEAD: &str = "\
# Configuration

Written from the comments in `server/src/config/mod.rs`; a test compares the two, and
`MINIUM_WRITE_DOCS=1 cargo test -p minium reference` writes this page anew.

";

    fn written() -> String {
        let mut out = format!("{HEAD}{ABOUT}\n");
        for Table { name, about, keys } in TABLES {
            write!(out, "\n## `[{name}]`\n\n{about}\n").unwrap();
            if !keys.is_empty() {
                out.push_str("\n| key | default | |\n|---|---|---|\n");
            }
            for key in *keys {
                let default =
                    if key.default.is_empty() { "–".to_owned() } else { format!("`{}`", key.default) };
                let (meaning, bounds) = (key.meaning(), key.bounds());
                writeln!(out, "| `{}` | {default} | {meaning} *{bounds}* |", key.name).unwrap();
            }
        }
        out
    }

    #[test]
    fn the_reference_is_what_the_comments_say() {
        let expected = written();
        if std::env::var_os("MINIUM_WRITE_DOCS").is_some() {
            std::fs::write(PLACE, &expected).unwrap();
        }
        let have = std::fs::read_to_string(PLACE).unwrap_or_default();
        assert!(
            have == expected,
            "docs/configuration.md is stale; MINIUM_WRITE_DOCS=1 cargo test -p minium reference"
        );
    }
}
