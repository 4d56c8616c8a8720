//! The configuration: what can be said, with defaults, in one place.
//!
//! Defaults, then one TOML file, then `MINIUM_…` variables, then flags; later ones win. Unknown keys are refused and
//! all mistakes are told at once. The comments here are the reference: `docs/configuration.md` and the manual page
//! `minium.toml` are written from them.

mod channels;
mod check;
mod check_auth;
mod check_hooks;
mod check_schedules;
mod env;
mod kept;
mod load;
pub(crate) mod reference;
mod sandbox;
mod secret;
mod section;
mod show;
mod sinks;
mod value;

pub(crate) use load::{Flags, load, load_text};
pub(crate) use sandbox::Sandbox;
pub(crate) use show::show;
pub(crate) use sinks::{Deliveries, Sink, SinkKind};
pub(crate) use value::Json;

use minium_bus::Rate;
use minium_protocol::{Missed, Topic};
use secret::Secrets;
use section::{Reader, section};
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;
use value::{BaseUrl, Listen, Size, SlowPolicy};

section! {
    /// What the node listens on.
    Server {
        /// Address and port of the one listener for HTTP and WebSocket. Port 0 takes a free one, and the log says
        /// which. Anything but loopback needs
        /// `[auth]` with keys, certificates or anonymous scopes, or `--insecure-no-auth`.
        listen: Listen = "127.0.0.1:3000";
        /// How clients reach the node, as it stands in `dataschema`. Without it, what it listens on.
        public_url: Option<BaseUrl> = "";
        /// Threads that own sockets, 1 to 64; without it one for each core but one, which is left to HTTP, the journal and
        /// the queue.
        shards: Option<u32> = "";
        /// How long sessions, jobs and requests get to end when the node goes down.
        shutdown_grace: Duration = "10s";
        inside {
            /// Bounds of everything that clients can make grow.
            limits: Limits;
            /// TLS on the one listener.
            tls: Tls;
        }
    }
}

section! {
    /// Bounds of everything that clients can make grow.
    Limits {
        /// Largest message, on sockets and by POST. A larger one closes the socket with 1009, or is answered 413.
        message_bytes: Size = "256KiB";
        /// Largest body of a request to `/api/`.
        request_bytes: Size = "4MiB";
        /// Largest head of a request, request line and all headers together.
        header_bytes: Size = "16KiB";
        /// How long a client may take to send the head of a request, and to finish an upgrade.
        handshake_timeout: Duration = "10s";
        /// Connections that speak HTTP at one moment, upgrades in progress and event streams among them. Whoever
        /// comes next waits in the listen queue.
        connections: u32 = "4096";
        /// WebSocket and SSE sessions at one moment. The next one is answered 503.
        sessions: u32 = "20000";
        /// Waits for jobs (`/api/v1/jobs/{id}/wait`) at one moment. The next one is answered 503.
        waits: u32 = "1024";
        /// Messages that one session may send; a request without a token counts for its address. Without it there
        /// is no such bound.
        session_messages_per_second: Option<u32> = "";
        /// How many of them at once. Without it, as many as in a second.
        session_messages_burst: Option<u32> = "";
        /// WebSocket and SSE sessions that one address may open. Behind a proxy all come from its address. Without it
        /// there is no such bound.
        openings_per_second: Option<u32> = "";
        /// How many of them at once. Without it, as many as in a second.
        openings_burst: Option<u32> = "";
        /// Bodies of webhooks' deliveries that are read from one address at one moment, of 32 from all. The next one waits, and is
        /// answered 503 when that takes too long. Behind a proxy all come from its address: say 32 there, if it reads bodies before
        /// it passes them on.
        hook_bodies_per_address: u32 = "4";
    }
}

section! {
    /// TLS on the one listener.
    Tls {
        /// The node's certificate, and behind it those that lead to its authority, as PEM. With it the listener speaks
        /// TLS and nothing else.
        certificate_file: Option<PathBuf> = "";
        /// The certificate's private key, as PEM.
        key_file: Option<PathBuf> = "";
        /// Authorities of one's own whose clients' certificates are believed, as PEM. Without it no client is asked for
        /// one.
        client_ca_file: Option<PathBuf> = "";
        /// Must clients have a certificate of `client_ca_file` (`required`, which is what is meant when nothing is
        /// said), or may they (`optional`)?
        client_auth: Option<String> = "";
    }
}

section! {
    /// Where jobs and the journal are kept.
    Database {
        /// `sqlite:FILE`, `sqlite::memory:` or `postgres://USER@HOST/NAME`, with `?sslmode=verify-full&sslrootcert=FILE` for
        /// TLS that is checked, and `?pgbouncer=true` behind a pooler in transaction mode.
        url: String = "sqlite:minium.db";
        /// Connections to PostgreSQL, at most. SQLite has one writer whatever stands here.
        pool: u32 = "8";
    }
}

section! {
    /// The schemas of channels and tasks.
    Schemas {
        /// Directory with `sub/`, `push/`, `bus/` and `tasks/`, added to what is built in. Without it `schemas` in the
        /// working directory, if that exists.
        dir: Option<PathBuf> = "";
    }
}

section! {
    /// How much is kept of a durable channel.
    Retention {
        /// Messages older than this are let go. Without it 30 days.
        age: Option<Duration> = "";
        /// No more than so many of the newest are kept. Without it a million, or 100000 in memory; without bound where
        /// `bytes` is said.
        count: Option<u32> = "";
        /// No more of the newest are kept than have so many bytes, as the database stores them. Without it, without
        /// bound.
        bytes: Option<Size> = "";
    }
}

section! {
    /// A topic prefix, as in `[channels."livesys"]`.
    Channel {
        /// For subscribers: is what is published kept in the journal? For pushers and pullers: is it a task? `task`
        /// always is durable, and so is what lies below a durable channel. Not at all when nothing is said.
        durable: Option<bool> = "";
        /// What happens to a subscriber that falls behind: `replay` reads on from the journal (durable channels, unless
        /// something else is said), `close` closes with 4000 (all others), `gap` tells it what it missed and goes on
        /// (in `minium.v1`; other modes are closed).
        slow: Option<SlowPolicy> = "";
        /// How long a puller's lease holds unless it extends it. Without it 30 seconds.
        lease: Option<Duration> = "";
        /// Only for these: `sub`, `push`, `bus`. Without it all three; `task` is for `sub` alone.
        patterns: Option<Vec<String>> = "";
        inside {
            /// How much of it is kept.
            retention: Retention;
        }
    }
}

section! {
    /// Work that repeats, as in `[schedules.inventory]`.
    Schedule {
        /// The task to enqueue.
        task: Option<String> = "";
        /// How often, 1s or more; or `cron` says when.
        every: Option<Duration> = "";
        /// When, in five fields: minute, hour, day of the month, month, day of the week, as in `"0 3 * * mon-fri"`; or
        /// `@yearly`, `@monthly`, `@weekly`, `@daily`, `@hourly`.
        cron: Option<String> = "";
        /// In whose clock time `cron` is meant, as in `"Europe/Berlin"`. Without it UTC.
        zone: Option<String> = "";
        /// What becomes of firings that no node was there for: one job makes up for all of them (`fold`), or each has its
        /// job (`all`), at most 1000.
        missed: Missed = "fold";
        /// The arguments.
        args: Option<Json> = "";
        /// The queue.
        queue: String = "default";
        /// The priority, -1000 to 1000.
        priority: i32 = "0";
        /// How many runs each job may have.
        attempts: i32 = "1";
        /// Jobs that have not been started within this time are removed.
        expire: Option<Duration> = "";
        /// How long one run may take.
        timeout: Option<Duration> = "";
        /// Pause before an automatic retry.
        backoff: Option<Duration> = "";
        /// Unique among the living jobs of the task: while one with it lives, no other is enqueued.
        key: Option<String> = "";
        /// First notes of each job, a table.
        notes: Option<Json> = "";
    }
}

section! {
    /// A webhook that comes in by POST `/hooks/NAME`, as in `[hooks.github]`.
    Hook {
        /// How deliveries are signed: `github` (`X-Hub-Signature-256`; GitHub and what speaks as it does) or `standard`
        /// (Standard Webhooks).
        kind: Option<String> = "";
        /// The secrets that are shared with the sender, at most 8; a delivery needs one of them, so that they can be changed
        /// without a gap. For `github` 16 bytes or more, for `standard` as in `whsec_…`.
        secrets: Secrets = "";
        /// The same in files. Whitespace around a secret does not count.
        secret_files: Vec<String> = "";
        /// The task to enqueue.
        task: Option<String> = "";
        /// The queue.
        queue: String = "default";
        /// The priority, -1000 to 1000.
        priority: i32 = "0";
        /// How many runs each job may have.
        attempts: i32 = "1";
        /// Each job waits for so long.
        delay: Duration = "0s";
        /// Only these: what `X-GitHub-Event` says, or the member `type` of a Standard Webhook. Without it all.
        events: Vec<String> = "";
        /// Only deliveries that have these values: a table of JSON pointers into the payload and what must stand there, as in
        /// `{ "/ref" = "refs/heads/main" }`.
        when: Option<Json> = "";
        /// The arguments. In them `$/a/b` stands for that place of the payload (null where it has none), `$` for all of it,
        /// `$event` and `$delivery` for the event and the id of the delivery, and `$$` for a `$`. Without it one argument: the payload.
        args: Option<Json> = "";
        /// First notes of each job, a table, likewise.
        notes: Option<Json> = "";
        /// For so long a delivery that comes again, under its id, is answered by the job of the first. 3d or more.
        window: Duration = "7d";
    }
}

section! {
    /// Between journal and bus.
    Notifier {
        /// Every enqueue, dequeue, finished and failed also goes to `/bus/<this topic>` as `[id,"action"]`, as
        /// Minion::Notifier sends it. Off when absent.
        minion_topic: Option<Topic> = "";
        /// When more events than this are not on the node's bus yet, claims are slowed until it follows; enqueues never are. 1 or more.
        lag_events: u32 = "100000";
        /// The same when the oldest of them has waited for so long. 1s or more.
        lag: Duration = "30s";
    }
}

section! {
    /// What the journal keeps for recorders.
    Recorders {
        /// So much longer than its retention says is an entry kept while a registered recorder has not confirmed it. What
        /// is kept no longer is counted and logged as an error.
        hold_age: Duration = "30d";
        /// So many more entries than its retention says are kept of a channel. Without it a million, or 100000 in memory.
        hold_count: Option<u32> = "";
        /// So many more bytes are kept of it, where its retention bounds the bytes.
        hold_bytes: Size = "10GiB";
    }
}

section! {
    /// Who may connect, and what they may do.
    Auth {
        /// Origins of pages that may connect besides the host's own: hosts (`example.com`, `*.example.com`) or whole
        /// origins (`https://example.com:8443`). `*` stands for one label.
        allowed_origins: Vec<String> = "";
        /// Refuse requests without an `Origin` too.
        require_origin: bool = "false";
        /// What `iss` of every token must be. Without it `iss` is not looked at.
        issuer: Option<String> = "";
        /// What must be `aud` of every token, or one of its members. Without it `aud` is not looked at: say it where
        /// the issuer's tokens are for others too.
        audience: Option<String> = "";
        /// How far the clocks of issuers may be off: `exp` and `nbf` are read with so much patience. At most 5m.
        leeway: Duration = "0s";
        inside {
            /// What whoever brings no token may do.
            anonymous: Anonymous;
            /// How much those may send who bring a token.
            limits: AuthLimits;
        }
        named {
            /// The keys that vouch for tokens.
            keys: AuthKey;
            /// What the holders of client certificates may do.
            certificates: Certificate;
        }
    }
}

section! {
    /// A key that vouches for tokens, as in `[auth.keys.ops]`.
    AuthKey {
        /// `EdDSA`, `ES256`, `RS256` or `HS256`. It is a property of the key: a token that names another is refused.
        algorithm: Option<String> = "";
        /// The shared secret of `HS256`, 32 bytes or more. Whitespace around it does not count.
        secret_file: Option<PathBuf> = "";
        /// The public key of `EdDSA`, `ES256` or `RS256`, as PEM (`BEGIN PUBLIC KEY`).
        public_key_file: Option<PathBuf> = "";
        /// A set of public keys (RFC 7517): an `https://` URL, an `http://` URL on loopback, or a file.
        jwks: Option<String> = "";
        /// The set is fetched again when it is so old. A token whose `kid` is not in it has it fetched earlier, but
        /// not more often than every 10 s; while that fails, the keys that are known go on counting.
        jwks_max_age: Duration = "10m";
    }
}

section! {
    /// What whoever brings no token may do.
    Anonymous {
        /// Scopes, as in `["sub:public"]`. Nothing, once there is any key, certificate or this list.
        scopes: Option<Vec<String>> = "";
    }
}

section! {
    /// A client certificate, as in `[auth.certificates."image-7"]`.
    Certificate {
        /// What its holder may do, as in `["pull:livesys/7"]`.
        scopes: Vec<String> = "";
    }
}

section! {
    /// How much those may send who bring a token.
    AuthLimits {
        /// Messages and requests that change something, for each token: all its sessions and requests together.
        /// Without it there is no such bound.
        messages_per_second: Option<u32> = "";
        /// How many of them at once. Without it, as many as in a second.
        messages_burst: Option<u32> = "";
    }
}

section! {
    /// The queue's own affairs.
    Queue {
        /// Finished jobs are removed after so long, unless a job that has not ended waits for them.
        keep_finished: Duration = "2d";
        /// Failed jobs are removed after so long. Without it they stay until somebody removes them.
        keep_failed: Option<Duration> = "";
        /// Cancelled jobs are removed after so long. Without it they stay until somebody removes them.
        keep_cancelled: Option<Duration> = "";
        /// No lease is given away before the database has been up, and some node there again, for so long: workers get
        /// the chance to hand in what they did during an outage.
        lease_grace: Duration = "60s";
    }
}

section! {
    /// How long jobs of one queue are kept, as in `[retention.batch]`, in place of what `[queue]` says.
    KeepQueue {
        /// Finished jobs. Without it they stay until somebody removes them.
        finished: Option<Duration> = "";
        /// Failed jobs, likewise.
        failed: Option<Duration> = "";
        /// Cancelled jobs, likewise.
        cancelled: Option<Duration> = "";
    }
}

section! {
    /// How many jobs of a task and those below it run at once, and how many are started in a time, as in
    /// `[limits."mail"]`. The nearest limit at or above a job's task counts, as it is when the job is enqueued.
    LimitOf {
        /// So many run at once, whatever workers there are.
        running: Option<u32> = "";
        /// So many run at once of those with one and the same `partition`.
        per_partition: Option<u32> = "";
        /// So many are started in the time that `per` says.
        rate: Option<u32> = "";
        /// The time of `rate`.
        per: Duration = "1m";
    }
}

section! {
    /// The worker inside the node, which runs `[tasks]`. Without tasks there is none.
    Worker {
        /// Jobs at one moment.
        concurrency: u32 = "4";
        /// So many more slots, for jobs of high priority when all others are full.
        spare: u32 = "0";
        /// From this priority on a job may take a spare slot.
        spare_min_priority: i32 = "1";
        /// The queues it takes jobs from.
        queues: Vec<String> = "default";
        /// How long its leases hold unless it extends them.
        lease: Duration = "30s";
        /// What its commands write to stderr stands in the logs of their jobs, line by line.
        log_stderr: bool = "true";
        inside {
            /// What holds its commands back.
            sandbox: Sandbox;
        }
    }
}

section! {
    /// A command worker, as in `[tasks."burn-in"]`: arguments as JSON on stdin, the result on stdout.
    Task {
        /// The program and its arguments. No shell sees them.
        command: Vec<String> = "";
        /// How long one run may take; then it is killed, with its children.
        timeout: Option<Duration> = "";
        /// At most so many at once in the node's worker.
        limit: Option<u32> = "";
        /// Run `command`, which then is one text, by `/bin/sh -c`.
        shell: bool = "false";
        /// How long a job waits for its first automatic retry, unless it says so itself; a tenth more or less. Without it,
        /// 15, 16, 31, 96 and so on seconds.
        backoff: Option<Duration> = "";
        /// Each further pause is so many times longer.
        backoff_factor: u32 = "2";
        /// No pause is longer.
        backoff_max: Duration = "1h";
        /// `once`: a process for each job; `ndjson`: a process takes one job after the other, a line of JSON each
        /// ([protocol.md](protocol.md#long-lived-commands)).
        mode: String = "once";
        /// With `ndjson`: a process is replaced after so many jobs.
        recycle_jobs: Option<u32> = "";
        /// With `ndjson`: a process is replaced after so long, when it has no job.
        recycle_after: Option<Duration> = "";
        /// With `ndjson`: a process that does not say that it is ready within this is killed, and tried again.
        start_timeout: Duration = "30s";
        inside {
            /// What holds this command back.
            sandbox: Sandbox;
        }
    }
}

impl Task {
    /// As the worker has it. What is wrong with it was told when it was read.
    pub(crate) fn command(&self, name: &str, worker: &Worker) -> minium_worker::CommandTask {
        let lasting = minium_worker::Lasting {
            jobs_max: self.recycle_jobs.map(u64::from),
            age_max: self.recycle_after,
            start_timeout: self.start_timeout,
        };
        minium_worker::CommandTask {
            name: name.to_owned(),
            command: self.command.clone(),
            timeout: self.timeout,
            shell: self.shell,
            lasting: (self.mode == NDJSON).then_some(lasting),
            sandbox: self.sandbox.or(&worker.sandbox).build().expect(SANDBOXES_ARE_CHECKED),
        }
    }
}

/// Nothing runs without the sandbox that was asked for.
pub(crate) const SANDBOXES_ARE_CHECKED: &str =
    "one that cannot be is a mistake, and ends the reading of the configuration";

/// The mode of long-lived commands.
const NDJSON: &str = "ndjson";

/// A rate out of its two keys; they were checked to be no zeros.
pub(crate) fn rate(per_second: Option<u32>, burst: Option<u32>) -> Option<Rate> {
    let per_second = per_second.and_then(NonZero::new)?;
    Some(Rate { per_second, burst: burst.and_then(NonZero::new).unwrap_or(per_second) })
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) database: Database,
    pub(crate) schemas: Schemas,
    pub(crate) channels: BTreeMap<String, Channel>,
    pub(crate) schedules: BTreeMap<String, Schedule>,
    pub(crate) hooks: BTreeMap<String, Hook>,
    pub(crate) notifier: Notifier,
    pub(crate) recorders: Recorders,
    pub(crate) auth: Auth,
    pub(crate) queue: Queue,
    pub(crate) retention: BTreeMap<String, KeepQueue>,
    pub(crate) limits: BTreeMap<String, LimitOf>,
    pub(crate) worker: Worker,
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) sinks: BTreeMap<String, Sink>,
    pub(crate) deliveries: Deliveries,
}

impl Config {
    fn read(reader: &mut Reader<'_>) -> Config {
        Config {
            server: reader.section("server"),
            database: reader.section("database"),
            schemas: reader.section("schemas"),
            channels: reader.named("channels"),
            schedules: reader.named("schedules"),
            hooks: reader.named("hooks"),
            notifier: reader.section("notifier"),
            recorders: reader.section("recorders"),
            auth: reader.section("auth"),
            queue: reader.section("queue"),
            retention: reader.named("retention"),
            limits: reader.named("limits"),
            worker: reader.section("worker"),
            tasks: reader.named("tasks"),
            sinks: reader.named("sinks"),
            deliveries: reader.section("deliveries"),
        }
    }

    /// Is everything gone with the process?
    pub(crate) fn is_in_memory(&self) -> bool {
        self.database.url == "sqlite::memory:"
    }

    /// Must whoever comes show who they are? Else everybody may do everything.
    pub(crate) fn is_guarded(&self) -> bool {
        let Auth { keys, certificates, anonymous, .. } = &self.auth;
        !keys.is_empty() || !certificates.is_empty() || anonymous.scopes.is_some()
    }
}
