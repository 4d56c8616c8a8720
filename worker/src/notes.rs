//! Notes, progress and log lines of one running job, on their way to the source.
//!
//! Saying something is cheap and never waits: it is merged into what has not been written yet, later words over
//! earlier ones; lines stand in a row. One writer per job takes what has gathered, at most once per interval, so that a chatty job makes
//! events at a bounded rate. What is said last is always written before the job's outcome is handed in, unless the
//! source cannot be reached in the time that shutdown leaves.

use crate::backoff::Backoff;
use crate::log::{Batch, Lines};
use crate::options::WorkerOptions;
use crate::source::JobSource;
use minium_protocol::{LeaseToken, LogLevel, PROGRESS_TEXT_BYTES_MAX, Progress};
use minium_queue::{Annotation, QueueError};
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

/// Waiting notes of one job beyond this are dropped: they are for people, not for data.
const KEYS_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 255;
const BYTES_MAX: usize = 64 * 1024;

/// What was said and not yet written.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pending: Mutex<Pending>,
    /// Something was said, someone wants it written now, or it is closed.
    said: Notify,
    /// `written` moved.
    done: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// Notes and progress; lines wait by themselves.
    annotation: Annotation,
    bytes: usize,
    lines: Lines,
    /// Notes and lines are written apart: together they were refused, and one of them is not to cost the other.
    apart: bool,
    /// Number of the last word; the writer moves `written` after it.
    said: u64,
    written: u64,
    /// Up to this word nobody wants to wait for the interval.
    urgent: u64,
    dropped: u64,
    closed: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        !self.has_notes() && self.lines.is_empty()
    }

    fn has_notes(&self) -> bool {
        !self.annotation.notes.is_empty() || self.annotation.progress.is_some()
    }

    /// What goes into one call.
    fn take(&mut self) -> Words {
        let alone = self.apart && self.has_notes();
        self.bytes = 0;
        let mut annotation = std::mem::take(&mut self.annotation);
        let lines = if alone { Batch::default() } else { self.lines.take() };
        annotation.log = lines.lines();
        let up_to = self.lines.first_word().map_or(self.said, |left| left - 1);
        Words { annotation, lines, up_to }
    }

    fn put(&mut self, key: String, value: Value) -> bool {
        let size = |value: &Value| key.len() + value.to_string().len();
        let old = self.annotation.notes.get(&key).map(size);
        let full = old.is_none() && self.annotation.notes.len() >= KEYS_MAX;
        let bytes = self.bytes - old.unwrap_or(0) + size(&value);
        if key.len() > KEY_BYTES_MAX || full || bytes > BYTES_MAX {
            self.dropped += 1;
            return false;
        }
        self.bytes = bytes;
        self.annotation.notes.insert(key, value);
        true
    }
}

/// What one call carries.
struct Words {
    annotation: Annotation,
    lines: Batch,
    /// All words up to this one are in it, or were written before.
    up_to: u64,
}

impl Words {
    fn are_mixed(&self) -> bool {
        let Annotation { notes, progress, log } = &self.annotation;
        !log.is_empty() && (!notes.is_empty() || progress.is_some())
    }
}

/// How writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything that was said, as far as the source took it.
    All,
    /// The source says that the lease is gone.
    LeaseLost,
}

impl Notes {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a note; `null` deletes it.
    pub(crate) fn note(&self, key: String, value: Value) {
        let mut pending = self.pending();
        if pending.put(key, value) {
            pending.said += 1;
            drop(pending);
            self.said.notify_one();
        }
    }

    /// Replaces the progress.
    pub(crate) fn report(&self, mut progress: Progress) {
        let percent = if progress.percent.is_finite() { progress.percent.clamp(0.0, 100.0) } else { 0.0 };
        progress.percent = percent;
        if let Some(text) = &mut progress.text {
            text.truncate(text.floor_char_boundary(PROGRESS_TEXT_BYTES_MAX));
        }
        let mut pending = self.pending();
        pending.annotation.progress = Some(progress);
        pending.said += 1;
        drop(pending);
        self.said.notify_one();
    }

    /// Adds a line to the log.
    pub(crate) fn log(&self, level: LogLevel, text: &str) {
        let mut pending = self.pending();
        pending.said += 1;
        let word = pending.said;
        pending.lines.say(level, text, word);
        drop(pending);
        self.said.notify_one();
    }

    /// Waits until all that was said so far has been written, without waiting for the interval.
    pub(crate) async fn flush(&self) {
        let goal = {
            let mut pending = self.pending();
            pending.urgent = pending.said;
            pending.said
        };
        self.said.notify_one();
        loop {
            let done = self.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            let pending = self.pending().written;
            if pending >= goal {
                return;
            }
            done.await;
        }
    }

    /// Nothing more will be said: the writer ends when all is written.
    pub(crate) fn close(&self) {
        self.pending().closed = true;
        self.said.notify_one();
    }

    /// Waits for something that may be written now; `None` when closed and empty.
    async fn next(&self, not_before: Instant) -> Option<Words> {
        loop {
            let wait = {
                let mut pending = self.pending();
                let ready =
                    pending.closed || pending.urgent > pending.written || Instant::now() >= not_before;
                if pending.is_empty() {
                    if pending.closed {
                        return None;
                    }
                    None
                } else if ready {
                    return Some(pending.take());
                } else {
                    Some(not_before)
                }
            };
            match wait {
                None => self.said.notified().await,
                Some(at) => tokio::select! {
                    () = self.said.notified() => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Puts back what could not be written, beneath what has been said since.
    fn put_back(&self, words: Words) {
        let mut pending = self.pending();
        pending.lines.put_back(words.lines);
        for (key, value) in words.annotation.notes {
            if !pending.annotation.notes.contains_key(&key) {
                pending.put(key, value);
            }
        }
        if pending.annotation.progress.is_none() {
            pending.annotation.progress = words.annotation.progress;
        }
    }

    fn mark_written(&self, up_to: u64) {
        let mut pending = self.pending();
        pending.written = up_to;
        drop(pending);
        self.done.notify_waiters();
    }

    /// The writer of one job. Ends when closed and empty, or when the lease is gone.
    pub(crate) async fn write(
        &self,
        source: &dyn JobSource,
        job: i64,
        lease: LeaseToken,
        options: &WorkerOptions,
    ) -> Written {
        let mut backoff = Backoff::new(options);
        let (mut not_before, mut told) = (Instant::now(), false);
        while let Some(words) = self.next(not_before).await {
            match call(source.annotate(job, lease, &words.annotation), options.call_timeout).await {
                Ok(()) => {
                    backoff.reset();
                    self.mark_written(words.up_to);
                    not_before = Instant::now() + options.annotation_interval;
                }
                Err(QueueError::LeaseLost(_) | QueueError::NotFound(_)) => {
                    self.mark_written(u64::MAX);
                    return Written::LeaseLost;
                }
                Err(error) if error.is_away() => {
                    self.put_back(words);
                    sleep(backoff.pause()).await;
                }
                Err(_) if words.are_mixed() => {
                    self.pending().apart = true;
                    self.put_back(words);
                }
                Err(error) => {
                    // once: a node that knows no log lines refuses all of them
                    if !std::mem::replace(&mut told, true) {
                        warn!(job_id = job, %error, "Notes or log lines of a job were refused and are dropped.");
                    }
                    self.mark_written(words.up_to);
                }
            }
        }
        let dropped = self.pending().dropped;
        if dropped > 0 {
            warn!(job_id = job, dropped, "A job said more notes than are kept.");
        }
        Written::All
    }
}

/// A call to the source that takes too long has failed.
pub(crate) async fn call<T>(
    future: impl Future<Output = Result<T, QueueError>>,
    limit: Duration,
) -> Result<T, QueueError> {
    match tokio::time::timeout(limit, future).await {
        Ok(answer) => answer,
        Err(late) => Err(QueueError::Unavailable { attempted: "answer in time", source: Box::new(late) }),
    }
}
