//! The recorder: follows durable topics for ever and writes what comes into an archive.
//!
//! A message is taken from its subscription into a bounded buffer, a buffer becomes a block, and only what a whole block
//! holds counts as recorded. While a block cannot be written nothing more is taken, so nothing more is read from the
//! socket either; the journal keeps it. What the server says of a position that is gone is never passed over: it is
//! put on record, and either ends the recorder or is gone on from.

use crate::block::Batch;
use crate::confirm::Confirming;
use crate::error::AuditError;
use crate::line::mark;
use crate::pace::Pace;
use crate::writer::Writer;
use futures::stream::{SelectAll, unfold};
use futures::{FutureExt, Stream, StreamExt};
use minium_client::plain::{Mode, Received, SubscribeOptions, Subscription};
use minium_client::{Backoff, Client, ClientError};
use minium_protocol::{After, ErrorCode, Filter, Position};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// No archive has more topics: each has a socket and a buffer.
pub const TOPICS_MAX: usize = 16;
/// A buffer that has so many bytes becomes a block.
const BLOCK_BYTES: usize = 4 << 20;
/// So many messages are taken before signals and times are looked at.
const MESSAGES_PER_TURN: usize = 1_024;
/// Pauses while the disk is full, doubled from the first to the longest.
const FULL_FIRST: Duration = Duration::from_millis(100);
const FULL_MAX: Duration = Duration::from_secs(10);
/// A subscription that the server ended orderly is begun anew after so long.
const REOPEN: Duration = Duration::from_secs(1);
/// So many times in a row a position may be gone before any event comes.
const LOST_MAX: u32 = 10;

/// So often the server is told how far everything is recorded while nothing comes.
pub const HEARTBEAT: Duration = Duration::from_secs(60);

/// What to record.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// These, each durable.
    pub topics: Vec<Filter>,
    /// Where a topic begins of which nothing is recorded yet.
    pub after: After,
    /// An event waits at most so long for others of its block.
    pub flush: Duration,
    /// Go on behind a hole.
    pub accept_gaps: bool,
    /// End when everything is recorded that was there at the start.
    pub once: bool,
    /// The name under which the server is told how far everything is recorded.
    pub name: String,
    /// The server is told again after so long while nothing comes: [`HEARTBEAT`], but in tests.
    pub heartbeat: Duration,
    /// Pauses between attempts to come back.
    pub backoff: Backoff,
    /// Where the server is told of nothing but what is in a bucket: how far that is.
    pub uploaded: Option<watch::Receiver<Uploaded>>,
}

/// How far each topic is in a bucket.
pub type Uploaded = BTreeMap<String, Position>;

/// What was recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recorded {
    /// So many events.
    pub events: u64,
    /// In so many blocks.
    pub blocks: u64,
}

/// What a subscription brings: a message, an error, or its orderly end.
type Item = (usize, Option<Result<Received, ClientError>>);
type Items = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// Records until `stop`, an error, or with `once` the end.
///
/// # Errors
/// [`AuditError`]; everything up to the last whole block is recorded all the same.
pub async fn record(
    client: &Client,
    writer: Writer,
    options: RecordOptions,
    stop: CancellationToken,
) -> Result<Recorded, AuditError> {
    let mut recorder = Recorder::new(client, writer, options, stop);
    let result = recorder.run().await;
    let (recorded, confirming) = (recorder.recorded, recorder.confirming);
    confirming.finish().await;
    result.map(|()| recorded)
}

/// One topic.
struct Track {
    filter: Filter,
    batch: Batch,
    /// Since its first event.
    begun: Option<Instant>,
    /// With `once`: done when it is recorded up to here.
    target: Option<Position>,
    /// Positions that were gone in a row.
    lost: u32,
}

struct Recorder<'a> {
    client: &'a Client,
    /// Away while a block is written.
    writer: Option<Writer>,
    options: RecordOptions,
    tracks: Vec<Track>,
    items: SelectAll<Items>,
    confirming: Confirming,
    recorded: Recorded,
    pace: Pace,
    stop: CancellationToken,
}

impl<'a> Recorder<'a> {
    fn new(
        client: &'a Client,
        writer: Writer,
        options: RecordOptions,
        stop: CancellationToken,
    ) -> Recorder<'a> {
        let track = |filter: &Filter| Track {
            filter: filter.clone(),
            batch: Batch::new(filter.as_str()),
            begun: None,
            target: None,
            lost: 0,
        };
        Recorder {
            client,
            writer: Some(writer),
            tracks: options.topics.iter().map(track).collect(),
            items: SelectAll::new(),
            confirming: Confirming::start(client, &options.name, &options.topics, options.heartbeat),
            options,
            recorded: Recorded::default(),
            pace: Pace::new(),
            stop,
        }
    }

    async fn run(&mut self) -> Result<(), AuditError> {
        for n in 0..self.tracks.len() {
            // registered before the first event comes, so that none is let go of meanwhile
            if let Some(position) = self.behind(n) {
                self.confirm(n, position);
            }
            if self.options.once {
                // where the page ends may be behind it, and the event may be longer than is taken
                let last = self.client.kept_beginning(&self.tracks[n].filter, After::Last(1)).await?;
                self.tracks[n].target = last.as_deref().and_then(mark).map(|mark| mark.position);
            }
        }
        for n in 0..self.tracks.len() {
            if !self.is_caught_up(n) {
                self.open(n).await?;
            }
        }
        let stop = self.stop.clone();
        while !self.is_done() {
            let due =
                self.tracks.iter().filter_map(|t| t.begun).min().map(|begun| begun + self.options.flush);
            let seal = self.writer.as_ref().and_then(Writer::seal_in).map(|wait| Instant::now() + wait);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = at(due) => self.flush_due().await?,
                () = at(seal) => self.on_disk(Writer::seal).await?,
                () = changed(&mut self.options.uploaded) => self.confirm_uploaded(),
                () = self.pace.due() => self.tell(),
                item = self.items.next() => self.take_turn(item).await?,
            }
        }
        for n in 0..self.tracks.len() {
            self.flush(n).await?;
        }
        // a run that ends by itself leaves nothing that is not in the bucket
        if self.is_done() && self.writer.as_ref().is_some_and(Writer::is_spool) {
            self.on_disk(Writer::seal).await?;
        }
        Ok(())
    }

    /// What is on the disk counts as recorded, unless only what is in a bucket does.
    fn confirm(&self, n: usize, position: Position) {
        if self.options.uploaded.is_none() {
            self.confirming.confirm(n, position);
        }
    }

    fn confirm_uploaded(&mut self) {
        let Some(uploaded) = &mut self.options.uploaded else { return };
        let positions = uploaded.borrow_and_update();
        for (n, track) in self.tracks.iter().enumerate() {
            if let Some(position) = positions.get(track.filter.as_str()) {
                self.confirming.confirm(n, *position);
            }
        }
    }

    /// With `once`: is this topic recorded as far as it was filled?
    fn is_caught_up(&self, n: usize) -> bool {
        let track = &self.tracks[n];
        let taken = track.batch.last.or_else(|| self.position(n));
        self.options.once
            && track.target.is_none_or(|t| taken.is_some_and(|p| (p.epoch, p.offset) >= (t.epoch, t.offset)))
    }

    fn is_done(&self) -> bool {
        self.options.once && (0..self.tracks.len()).all(|n| self.is_caught_up(n))
    }

    fn position(&self, n: usize) -> Option<Position> {
        self.writer.as_ref()?.position(self.tracks[n].filter.as_str())
    }

    /// The position behind which a topic is recorded, if it is known before anything comes.
    fn behind(&self, n: usize) -> Option<Position> {
        let given = match self.options.after {
            After::Position(position) => Some(position),
            _ => None,
        };
        self.position(n).or(given)
    }

    /// Subscribes behind what is recorded.
    async fn open(&mut self, n: usize) -> Result<(), AuditError> {
        loop {
            let after = self.position(n).map_or(self.options.after, After::Position);
            let options = SubscribeOptions {
                after,
                mode: Mode::CloudEvents,
                backoff: self.options.backoff.clone(),
                patient: true,
                durable: Some(true),
            };
            let filter = self.tracks[n].filter.clone();
            debug!(topic = %filter, ?after, "Subscribing.");
            match self.client.plain_subscribe(&filter, options).await {
                Ok(subscription) => {
                    self.items.push(items(n, subscription));
                    return Ok(());
                }
                Err(error) => self.lost(n, error).await?,
            }
        }
    }

    /// A subscription came to its end, which may be a hole, a new numbering, or an event that is too long.
    async fn lost(&mut self, n: usize, error: ClientError) -> Result<(), AuditError> {
        if let ClientError::TooLong { bytes, limit, behind, .. } = error {
            self.tracks[n].lost += 1;
            return match self.tracks[n].lost {
                ..=LOST_MAX => self.too_long(n, bytes, limit, behind).await,
                _ => Err(error.into()),
            };
        }
        let code = error.code();
        let earliest = error.problem().and_then(|p| p.earliest.as_deref()?.parse::<Position>().ok());
        let (Some(code), Some(earliest)) = (code, earliest) else { return Err(error.into()) };
        self.tracks[n].lost += 1;
        if self.tracks[n].lost > LOST_MAX {
            return Err(error.into());
        }
        self.flush(n).await?;
        let (topic, behind) = (self.tracks[n].filter.to_string(), self.position(n));
        match code {
            ErrorCode::EpochChanged => {
                let resumes = resumes(self.behind(n), earliest);
                warn!(%topic, %resumes, "The journal counts anew; that is on record, and what it keeps is recorded again.");
                self.on_disk(move |writer| writer.note_epoch(&topic, resumes)).await?;
                self.confirm(n, resumes);
                Ok(())
            }
            ErrorCode::OffsetExpired => {
                let accepted = self.options.accept_gaps;
                let of = topic.clone();
                self.on_disk(move |writer| writer.note_gap(&of, earliest, accepted)).await?;
                if !accepted {
                    return Err(AuditError::Gap { topic, behind, earliest });
                }
                warn!(%topic, %earliest, "Events are missing; that is on record.");
                self.confirm(n, earliest);
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    /// An event is longer than is taken: where it stands is read from how it begins. If that cannot be told now it comes again.
    async fn too_long(
        &mut self,
        n: usize,
        bytes: usize,
        limit: usize,
        behind: Option<Position>,
    ) -> Result<(), AuditError> {
        self.flush(n).await?;
        let filter = self.tracks[n].filter.clone();
        let after = self.position(n).or(behind).map_or(self.options.after, After::Position);
        let found = self.client.kept_beginning(&filter, after).await;
        let at = found.as_ref().ok().and_then(|event| mark(event.as_deref()?)).map(|mark| mark.position);
        let Some(at) = at else {
            let error = found.err().map(|error| error.to_string());
            debug!(topic = %filter, error, "Where an event stands that is too long could not be seen.");
            tokio::time::sleep(REOPEN).await;
            return Ok(());
        };
        let (topic, accepted) = (filter.to_string(), self.options.accept_gaps);
        let of = topic.clone();
        self.on_disk(move |writer| writer.note_large(&of, at, bytes as u64, accepted)).await?;
        if !accepted {
            return Err(AuditError::TooLong { topic, at, bytes, limit });
        }
        warn!(%topic, %at, bytes, limit, "An event is longer than is taken and is missing; that is on record.");
        self.confirm(n, at);
        Ok(())
    }

    /// Takes an item, and what came with it.
    async fn take_turn(&mut self, first: Option<Item>) -> Result<(), AuditError> {
        let mut next = first;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(item) = next.take() else { break };
            self.take(item).await?;
            if self.options.once && self.is_done() {
                break;
            }
            next = self.items.next().now_or_never().flatten();
        }
        match next {
            Some(item) => self.take(item).await,
            None => Ok(()),
        }
    }

    async fn take(&mut self, (n, item): Item) -> Result<(), AuditError> {
        let received = match item {
            Some(Ok(received)) => received,
            Some(Err(error)) => {
                self.lost(n, error).await?;
                return self.open(n).await;
            }
            None if self.stop.is_cancelled() => return Ok(()),
            None => {
                tokio::time::sleep(REOPEN).await;
                return self.open_again(n).await;
            }
        };
        let topic = || self.tracks[n].filter.to_string();
        let text = received.message.as_text().ok_or_else(|| AuditError::NotDurable(topic()))?;
        if !self.tracks[n].batch.fits(text) {
            self.flush(n).await?;
        }
        let track = &mut self.tracks[n];
        track.batch.push(text)?;
        track.lost = 0;
        track.begun.get_or_insert_with(Instant::now);
        if track.batch.bytes() >= BLOCK_BYTES {
            self.flush(n).await?;
        }
        Ok(())
    }

    /// What was taken and not written yet is written before the position is asked for.
    async fn open_again(&mut self, n: usize) -> Result<(), AuditError> {
        self.flush(n).await?;
        self.open(n).await
    }

    async fn flush_due(&mut self) -> Result<(), AuditError> {
        for n in 0..self.tracks.len() {
            if self.tracks[n].begun.is_some_and(|begun| begun.elapsed() >= self.options.flush) {
                self.flush(n).await?;
            }
        }
        Ok(())
    }

    /// Makes a block of what was taken of a topic.
    async fn flush(&mut self, n: usize) -> Result<(), AuditError> {
        let track = &mut self.tracks[n];
        track.begun = None;
        if track.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut track.batch, Batch::new(track.filter.as_str()));
        let (events, to) = (batch.len(), batch.to.clone());
        self.on_disk(move |writer| writer.append(&batch)).await?;
        self.recorded.events += events;
        self.recorded.blocks += 1;
        if let Some(position) = self.position(n) {
            self.pace.note(events, position, to);
            self.confirm(n, position);
        }
        Ok(())
    }

    /// Writes beside the runtime. While the disk is full it tries again; nothing is taken meanwhile.
    async fn on_disk(
        &mut self,
        write: impl Fn(&mut Writer) -> Result<(), AuditError> + Send + 'static,
    ) -> Result<(), AuditError> {
        let (mut write, mut pause, mut told) = (write, FULL_FIRST, false);
        loop {
            let mut writer = self.writer.take().expect("it is away only while it is awaited");
            let written = tokio::task::spawn_blocking(move || {
                let result = write(&mut writer);
                (writer, write, result)
            });
            let (writer, again, result) = written.await.map_err(|e| AuditError::Reader(e.into()))?;
            self.writer = Some(writer);
            match result {
                Err(error) if error.is_full() => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(%error, "The disk is full; nothing more is recorded until there is room.");
                    }
                    let waiting = tokio::time::sleep(pause);
                    if self.stop.clone().run_until_cancelled(waiting).await.is_none() {
                        return Err(error);
                    }
                    pause = (pause * 2).min(FULL_MAX);
                    write = again;
                }
                Ok(()) if told => {
                    info!("The disk has room again.");
                    return Ok(());
                }
                result => return result,
            }
        }
    }

    fn tell(&mut self) {
        self.pace.tell();
    }
}

/// What a subscription brings, up to its error or its orderly end: one of these is its last item.
fn items(n: usize, subscription: Subscription) -> Items {
    Box::pin(unfold(Some(subscription), move |open| async move {
        let mut subscription = open?;
        let item = subscription.next().await;
        let open = matches!(item, Some(Ok(_))).then_some(subscription);
        Some(((n, item), open))
    }))
}

/// Where a topic goes on in a new numbering. Offsets may go on upward over it: then what lies between the last one that is
/// recorded and `earliest` is gone, and the server says so as soon as it is asked for.
fn resumes(behind: Option<Position>, earliest: Position) -> Position {
    let offset = behind.map_or(earliest.offset, |behind| behind.offset.min(earliest.offset));
    Position { offset, ..earliest }
}

async fn changed(uploaded: &mut Option<watch::Receiver<Uploaded>>) {
    let heard = match uploaded {
        Some(uploaded) => uploaded.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        std::future::pending().await
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
