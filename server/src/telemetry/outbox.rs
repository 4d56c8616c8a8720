//! Where ended spans wait to be sent: a bounded queue, and one who empties it in batches.
//!
//! Whoever ends a span never waits: one that finds the queue full is dropped and counted. A batch is on its way for a bounded time,
//! and so is what is left when the process ends.

use super::road::LastError;
use super::said::Bounds;
use super::words;
use metrics::{counter, describe_counter};
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Spans that have left the node or were given up, by `outcome`.
const SPANS: &str = "minium_trace_spans_total";
/// Of a collector that is too slow the log tells not more often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Says what the metric means.
pub(crate) fn describe_metrics() {
    describe_counter!(SPANS, "Spans that a collector took, and such that were dropped.");
}

/// Those that were given up since somebody was last told.
#[derive(Debug, Clone, Default)]
struct Dropped(Arc<AtomicU64>);

impl Dropped {
    fn note(&self, count: usize) {
        if count > 0 {
            counter!(SPANS, "outcome" => "dropped").increment(count as u64);
            self.0.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Takes spans that have ended.
#[derive(Debug)]
pub(super) struct Outbox {
    spans: mpsc::Sender<SpanData>,
    dropped: Dropped,
}

/// Who sends them.
pub(super) struct Postman<E> {
    spans: mpsc::Receiver<SpanData>,
    exporter: E,
    error: LastError,
    bounds: Bounds,
    dropped: Dropped,
    /// The last batch did not arrive.
    away: bool,
    /// When it was last told that spans were dropped though the collector is there.
    told: Option<Instant>,
}

/// Both ends.
pub(super) fn outbox<E: SpanExporter>(exporter: E, error: LastError, bounds: Bounds) -> (Outbox, Postman<E>) {
    let (sender, spans) = mpsc::channel(bounds.queue);
    let dropped = Dropped::default();
    let outbox = Outbox { spans: sender, dropped: dropped.clone() };
    (outbox, Postman { spans, exporter, error, bounds, dropped, away: false, told: None })
}

impl SpanProcessor for Outbox {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        words::translate(&mut span);
        if self.spans.try_send(span).is_err() {
            self.dropped.note(1);
        }
    }

    /// Nobody asks: the process waits for the postman.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl<E: SpanExporter> Postman<E> {
    /// Sends until it is told to end, and then what there is left, for at most so long as `patience` says by then.
    pub(super) async fn run(mut self, closing: CancellationToken, patience: impl Fn() -> Duration) {
        let mut until = None;
        while until.is_none()
            && let Some(batch) = self.batch(&closing).await
        {
            let count = batch.len();
            let sent = {
                let mut sending = pin!(self.exporter.export(batch));
                tokio::select! {
                    biased;
                    sent = &mut sending => sent.is_ok(),
                    () = closing.cancelled() => {
                        let end = Instant::now() + patience();
                        until = Some(end);
                        timeout_at(end, sending).await.is_ok_and(|sent| sent.is_ok())
                    }
                }
            };
            self.judge(sent, count);
        }
        self.end(until.unwrap_or_else(|| Instant::now() + patience())).await;
    }

    /// The spans of one request. None when the process ends.
    async fn batch(&mut self, closing: &CancellationToken) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        let came = closing.run_until_cancelled(self.spans.recv_many(&mut batch, self.bounds.batch)).await?;
        if came == 0 {
            return None;
        }
        let until = Instant::now() + self.bounds.delay;
        while batch.len() < self.bounds.batch && !closing.is_cancelled() {
            let room = self.bounds.batch - batch.len();
            let more = closing.run_until_cancelled(self.spans.recv_many(&mut batch, room));
            match timeout_at(until, more).await {
                Ok(Some(came)) if came > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
        Some(batch)
    }

    /// What is left. What does not arrive until then is dropped.
    async fn end(mut self, until: Instant) {
        self.spans.close();
        loop {
            let mut batch = Vec::new();
            let count = self.spans.recv_many(&mut batch, self.bounds.batch).await;
            if count == 0 {
                return;
            }
            let sent = timeout_at(until, self.exporter.export(batch)).await;
            self.judge(sent.is_ok_and(|sent| sent.is_ok()), count);
        }
    }

    /// Tells when a collector goes away and when it is back, not of each batch between.
    fn judge(&mut self, sent: bool, count: usize) {
        let error = self.error.take();
        if sent {
            counter!(SPANS, "outcome" => "sent").increment(count as u64);
        } else {
            self.dropped.note(count);
        }
        match (sent, self.away) {
            (false, false) => {
                let error = error.unwrap_or_else(|| "no answer in time".into());
                warn!(
                    error,
                    "Spans cannot be exported; they are dropped until the collector takes them again."
                );
            }
            (true, true) => {
                info!(dropped = self.dropped.take(), "Spans are exported again.");
            }
            (true, false) if self.told.is_none_or(|told| told.elapsed() > TELL_AGAIN) => {
                let dropped = self.dropped.take();
                if dropped > 0 {
                    self.told = Some(Instant::now());
                    warn!(dropped, "Spans were dropped: more have ended than the collector takes.");
                }
            }
            (true, false) => {}
            (false, true) => {}
        }
        self.away = !sent;
    }
}
