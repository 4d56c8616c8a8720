//! `minium audit record` and `verify`: fill an archive, and see whether anybody changed it.

use super::audit_keys::{check_key, seal_key};
use super::audit_place::{Store, Whence, address};
use super::audit_show::{Export, Replay, Show};
use super::output::{Output, Style};
use super::remote::{Remote, explain};
use super::stream::stopped;
use crate::exit::{Exit, fault};
use clap::{Args, Subcommand};
use futures::future::BoxFuture;
use jiff::SignedDuration;
use minium_audit::{
    AuditError, Digest, EVENT_BYTES_MAX, HEARTBEAT, RecordOptions, Seen, SegmentLimits, TOPICS_MAX, Verdict,
    VerifyOptions, Writer, record, verify,
};
use minium_client::{Backoff, ClientOptions};
use minium_protocol::{After, Filter, parse_bytes, parse_duration};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A segment is put in one request, from memory.
#[cfg(feature = "s3")]
const SPOOLED_SEGMENT_MAX: u64 = 1 << 30;

/// With less, ordinary events would be left out.
const EVENT_MIN: usize = 64 << 10;

/// Subcommands of `minium audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Archive everything that durable topics say, for ever
    Record(Record),
    /// See whether an archive is as it was written
    Verify(Verify),
    /// Show events of an archive
    Show(Show),
    /// Write events of an archive to a file, or to stdout
    Export(Export),
    /// Publish an archive's events once more
    Replay(Replay),
}

/// Arguments of `minium audit record`.
#[derive(Debug, Args)]
#[command(
    after_help = "Goes on behind the last event of the archive, at the next start as well. An event that the archive \
    does not have and the server no longer has is a hole: it is put on record, and ends the command unless --accept-gaps. \
    Several topics take a socket each.

Examples:
  minium audit record --to /var/lib/minium-audit
  minium audit record --to archive --sign audit.pem --url https://hub.example --token-file token
  minium audit record --to archive --once           what is there now, for cron"
)]
pub(crate) struct Record {
    /// Directory of the archive, made if it is not there; or s3://BUCKET/PREFIX, with --spool
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// What to record, with all below it; must be durable, and the same for the archive's whole life
    #[arg(long = "topic", value_name = "TOPIC", default_value = "task")]
    topics: Vec<Filter>,
    /// Where an empty archive begins: EPOCH:OFFSET, OFFSET, earliest or latest
    #[arg(long, value_name = "POSITION", default_value = "earliest")]
    after: After,
    /// An event is on the disk after so long at the latest
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    flush: Duration,
    /// Go on behind events that are missing; that they are is on record
    #[arg(long)]
    accept_gaps: bool,
    /// An event may be so large, 1GiB at most; a larger one ends the command, or is put on record as missing with --accept-gaps
    #[arg(long, value_name = "SIZE", value_parser = event_size, default_value = "256MiB")]
    event_max: usize,
    /// End when everything is recorded that was there at the start
    #[arg(long)]
    once: bool,
    /// Sign each block with this Ed25519 key (PKCS#8 in PEM)
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Under what name the server keeps this recorder; by default this host's, and of the directory
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Begin a new segment at this size
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "256MiB")]
    segment: u64,
    /// Begin a new segment so long after the first event of the one before; by default a day, 15m into an object store
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    seal_after: Option<Duration>,
    #[command(flatten)]
    into: Destination,
    #[command(flatten)]
    remote: Remote,
}

/// What is needed to record into an object store.
#[derive(Debug, Args)]
struct Destination {
    #[command(flatten)]
    store: Store,
    /// With s3://: directory in which everything is until it is uploaded
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// With s3://: of what the server is told that it is recorded
    #[cfg(feature = "s3")]
    #[arg(long, value_enum, default_value = "spooled")]
    confirm: Told,
}

/// What counts as recorded.
#[cfg(feature = "s3")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Told {
    /// What is on the disk of --spool
    Spooled,
    /// What is in the bucket; the server must keep events for longer than --seal-after
    Uploaded,
}

/// Arguments of `minium audit verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Finds every byte that was changed, and blocks that are missing or moved. That the newest blocks were \
    taken away cannot be seen in what is left: keep the head that is printed elsewhere, and ask for it by --head.

Examples:
  minium audit verify archive
  minium audit verify archive --key audit-public.pem --head 3f5a…"
)]
pub(crate) struct Verify {
    #[command(flatten)]
    whence: Whence,
    /// Each block must be signed with this key (Ed25519, PUBLIC KEY in PEM)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// This head must be in the chain
    #[arg(long, value_name = "HASH")]
    head: Option<Digest>,
    /// Write manifest.ndjson anew if it is not that of the segments and these are as they should be
    #[arg(long)]
    rebuild_manifest: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// An error of an archive in words for people, and with its exit code.
pub(super) fn told(error: AuditError) -> anyhow::Error {
    match error {
        AuditError::Client(error) => explain(error),
        AuditError::InUse(_) | AuditError::Taken { .. } => fault(Exit::Conflict, error.to_string()),
        AuditError::NoArchive { .. } => fault(Exit::NotFound, error.to_string()),
        AuditError::Mismatch(_) | AuditError::Key(_) | AuditError::NotDurable(_) => {
            fault(Exit::Usage, error.to_string())
        }
        AuditError::Reader(error) => match error.downcast::<Passed>() {
            Ok(passed) => passed.0,
            Err(error) => fault(Exit::Failed, error.to_string()),
        },
        _ => fault(Exit::Failed, error.to_string()),
    }
}

/// What a reader of events fails of, on its way through the archive.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Passed(pub(super) anyhow::Error);

/// As an error of the archive.
pub(super) fn passed(error: anyhow::Error) -> AuditError {
    AuditError::Reader(Box::new(Passed(error)))
}

impl Audit {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Audit::Record(record) => record.run().await,
            Audit::Verify(verify) => verify.run(),
            Audit::Show(show) => show.run(),
            Audit::Export(export) => export.run(),
            Audit::Replay(replay) => replay.run().await,
        }
    }
}

impl Record {
    async fn run(self) -> anyhow::Result<()> {
        if self.topics.len() > TOPICS_MAX {
            return Err(fault(Exit::Usage, format!("an archive has at most {TOPICS_MAX} topics")));
        }
        let doubled = |a: &Filter| self.topics.iter().filter(|b| a.meets(b)).count() > 1;
        if let Some(topic) = self.topics.iter().find(|topic| doubled(topic)) {
            return Err(fault(Exit::Usage, format!("{topic} would be recorded twice: topics must not meet")));
        }
        let key = self.sign.as_deref().map(seal_key).transpose()?;
        let bounds = ClientOptions { message_bytes_max: self.event_max, ..ClientOptions::default() };
        let client = self.remote.client_with(&bounds)?;
        let topics: Vec<String> = self.topics.iter().map(Filter::to_string).collect();
        let goal = self.goal()?;
        let sealed = match (self.seal_after, &goal) {
            (Some(after), _) => {
                SignedDuration::try_from(after).map_err(|e| fault(Exit::Usage, e.to_string()))?
            }
            (None, Goal::Dir) => SegmentLimits::default().age_max,
            #[cfg(feature = "s3")]
            (None, Goal::Bucket(_)) => SignedDuration::from_mins(15),
        };
        let limits = SegmentLimits { bytes_max: self.segment, age_max: sealed };
        let (dir, of) = (self.to.clone(), topics.clone());
        let opening = move || match goal {
            Goal::Dir => Writer::open(&dir, &of, key, limits).map(|writer| (writer, Goal::Dir)),
            #[cfg(feature = "s3")]
            Goal::Bucket(upload) => {
                upload.writer(&of, key, limits).map(|writer| (writer, Goal::Bucket(upload)))
            }
        };
        let (writer, goal) = tokio::task::spawn_blocking(opening).await?.map_err(told)?;
        let name = self.name.unwrap_or_else(|| name_of(&self.to));
        let last = topics.iter().filter_map(|topic| writer.position(topic)).map(|p| p.to_string());
        let behind = last.collect::<Vec<_>>().join(", ");
        info!(archive = %self.to.display(), topics = topics.join(", "), behind, name, "The recorder begins.");
        let options = RecordOptions {
            topics: self.topics,
            after: self.after,
            flush: self.flush,
            accept_gaps: self.accept_gaps,
            once: self.once,
            name,
            heartbeat: HEARTBEAT,
            backoff: Backoff::default(),
            uploaded: None,
        };
        let stop = CancellationToken::new();
        let recording: BoxFuture<'_, _> = match goal {
            Goal::Dir => Box::pin(record(&client, writer, options, stop.clone())),
            #[cfg(feature = "s3")]
            Goal::Bucket(upload) => Box::pin(upload.record(&client, writer, options, stop.clone())),
        };
        let ending = async {
            stopped().await;
            stop.cancel();
            std::future::pending().await
        };
        let result = tokio::select! {
            result = recording => result,
            () = ending => unreachable!("it waits for the recorder"),
        };
        client.close().await;
        let recorded = result.map_err(told)?;
        info!(events = recorded.events, blocks = recorded.blocks, "The recorder has ended.");
        Ok(())
    }
}

/// Where to.
enum Goal {
    Dir,
    #[cfg(feature = "s3")]
    Bucket(minium_audit::Upload),
}

impl Record {
    #[cfg(feature = "s3")]
    fn goal(&self) -> anyhow::Result<Goal> {
        use minium_audit::{Confirm, Upload};
        let Some(url) = address(&self.to) else {
            let spool = self.into.spool.is_none();
            return if spool {
                Ok(Goal::Dir)
            } else {
                Err(fault(Exit::Usage, "--spool goes with s3:// only"))
            };
        };
        let spool = self.into.spool.as_deref();
        let spool =
            spool.ok_or_else(|| fault(Exit::Usage, "recording into an object store needs --spool DIR"))?;
        if self.segment > SPOOLED_SEGMENT_MAX {
            return Err(fault(Exit::Usage, "--segment is 1GiB at most into an object store"));
        }
        let confirm = match self.into.confirm {
            Told::Spooled => Confirm::Spooled,
            Told::Uploaded => Confirm::Uploaded,
        };
        Ok(Goal::Bucket(Upload::new(self.into.store.bucket(url)?, spool, confirm)))
    }

    #[cfg(not(feature = "s3"))]
    fn goal(&self) -> anyhow::Result<Goal> {
        address(&self.to).map_or(Ok(Goal::Dir), |url| Err(super::audit_place::without(url)))
    }
}

/// How large an event may be: no more than an archive can hold.
fn event_size(text: &str) -> Result<usize, String> {
    let size = parse_bytes(text).map_err(|e| e.to_string())?;
    let size = usize::try_from(size).ok().filter(|size| (EVENT_MIN..=EVENT_BYTES_MAX).contains(size));
    size.ok_or_else(|| "it is 64KiB to 1GiB".into())
}

/// The same for the same directory of the same host, whatever runs there besides.
fn name_of(dir: &Path) -> String {
    let place = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let digest = Digest::of(place.as_os_str().as_encoded_bytes()).to_string();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{}", &digest[..8])
}

impl Verify {
    fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.json);
        let key = self.key.as_deref().map(check_key).transpose()?;
        let options = VerifyOptions { key, head: self.head, rebuild_manifest: self.rebuild_manifest };
        let mut shown = Shown::new(output);
        let place = self.whence.place()?;
        let looked = tokio::task::block_in_place(|| verify(place, &options, &mut |seen| shown.tell(seen)));
        let verdict = looked.map_err(told)?;
        shown.end();
        match output.style() {
            Style::Json => output.line(&json!(verdict).to_string())?,
            Style::People { .. } | Style::Plain => output.whole(words(&verdict).as_bytes())?,
        }
        match verdict.findings.len() as u64 + verdict.findings_more {
            0 => Ok(()),
            count => Err(fault(
                Exit::Failed,
                format!("{} is not as it was written: {count} found", self.whence.dir.display()),
            )),
        }
    }
}

fn words(verdict: &Verdict) -> String {
    let mut rows = vec![
        ("segments", verdict.segments.to_string()),
        ("blocks", verdict.blocks.to_string()),
        ("events", verdict.events.to_string()),
        ("bytes", format!("{} ({} on the disk)", verdict.bytes, verdict.stored)),
    ];
    rows.extend(verdict.positions.iter().map(|(topic, at)| ("recorded", format!("{topic} up to {at}"))));
    rows.extend(verdict.key.iter().map(|key| ("signed by", key.clone())));
    rows.extend(verdict.head.iter().map(|head| ("head", head.to_string())));
    rows.extend(verdict.in_use.then(|| ("in use", "a recorder writes; the end is not judged".to_owned())));
    let place = |file: &str, offset: u64, what: &str| format!("{file} at byte {offset}: {what}");
    let facts = verdict.facts.iter().map(|f| ("on record", place(&f.file, f.offset, &f.what)));
    rows.extend(facts);
    rows.extend((verdict.facts_more > 0).then(|| ("on record", format!("and {} more", verdict.facts_more))));
    rows.extend(verdict.findings.iter().map(|f| ("FOUND", place(&f.file, f.offset, &f.what))));
    if verdict.findings_more > 0 {
        rows.push(("FOUND", format!("and {} more", verdict.findings_more)));
    }
    if verdict.findings.is_empty() {
        rows.push(("verdict", "as it was written".into()));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<10} {}\n", super::output::clean(&value))).collect()
}

/// Tells people how far a long look has come.
struct Shown {
    output: Output,
    began: Instant,
    last: Option<Instant>,
}

impl Shown {
    fn new(output: Output) -> Shown {
        Shown { output, began: Instant::now(), last: None }
    }

    fn tell(&mut self, seen: Seen) {
        const EVERY: Duration = Duration::from_millis(200);
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let rate = seen.events as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        self.output.progress(seen.bytes, seen.bytes_all, &format!("{} events, {rate:.0}/s", seen.events));
    }

    fn end(&self) {
        self.output.progress_ended();
    }
}
