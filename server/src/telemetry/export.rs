//! The export as a whole: made before the log, so that spans find it, and ended last, so that those of the end are sent too.

use super::outbox::outbox;
use super::road::{LastError, ToCollector};
use super::said::{self, Bounds};
use super::wanted;
use crate::sinks::outbound::{Road, trust};
use anyhow::{Context, anyhow};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

/// What is left at the end has so long, where a process ends in order.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// And so long where somebody insisted, or something failed.
const LAST_SPANS_AT_ONCE: Duration = Duration::from_millis(300);
/// The postman keeps to his time; this is for one who does not.
const MARGIN: Duration = Duration::from_secs(1);

/// The spans as a layer of the log's subscriber.
pub(crate) type Spans = Box<dyn Layer<Registry> + Send + Sync>;

/// The export of this process.
pub(crate) struct Telemetry {
    export: Option<Export>,
    refused: Option<String>,
}

struct Export {
    provider: SdkTracerProvider,
    postman: JoinHandle<()>,
    closing: CancellationToken,
    in_order: Arc<AtomicBool>,
}

impl Telemetry {
    /// For a command that has spans, or has none.
    pub(crate) fn begin(runtime: &Runtime, spans: bool) -> Telemetry {
        if !(spans && wanted()) {
            return Telemetry { export: None, refused: None };
        }
        match Export::begin(runtime) {
            Ok(export) => Telemetry { export: Some(export), refused: None },
            Err(error) => Telemetry { export: None, refused: Some(format!("{error:#}")) },
        }
    }

    /// What makes spans of ours those that are exported. Log lines stay in the log: what they say is for whoever has that.
    pub(crate) fn layer(&self) -> Option<Spans> {
        let tracer = self.export.as_ref()?.provider.tracer("minium");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // a span knows its parent from tracing; the second way costs at each poll
            .with_context_activation(false);
        // a session lasts for days, and what is sent in it has no spans
        let ours = filter_fn(|span| {
            span.is_span() && span.target().starts_with("minium") && span.name() != "session"
        });
        Some(layer.with_filter(ours).boxed())
    }

    /// Says in the log what is done, or what is amiss, once there is one.
    pub(crate) fn tell(&self) {
        if self.export.is_some() {
            info!("Spans are exported.");
            if let Some(sampler) = said::unknown_sampler() {
                warn!(sampler, "OTEL_TRACES_SAMPLER names no sampler; all spans are exported.");
            }
        }
        if let Some(error) = &self.refused {
            warn!(error, "Spans are not exported.");
        }
    }

    /// Sends what is left, for a bounded time: a short one if the process did not end in order.
    pub(crate) async fn end(self, in_order: bool) {
        let Some(export) = self.export else { return };
        export.in_order.store(in_order, Ordering::Relaxed);
        export.closing.cancel();
        if timeout(LAST_SPANS + MARGIN, export.postman).await.is_err() {
            warn!("The last spans were not sent in time.");
        }
    }
}

impl Export {
    fn begin(runtime: &Runtime) -> anyhow::Result<Export> {
        if let Some(why) = said::refusal() {
            return Err(anyhow!(why));
        }
        let bounds = Bounds::of_environment();
        let tls = trust(said::certificate().as_deref()).map_err(|why| anyhow!(why))?;
        let error = LastError::default();
        // whoever runs the node chose the collector: it may well be on this machine
        let road = Road { allow_private: true, timeout: bounds.timeout, tls };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(ToCollector { road, error: error.clone() })
            .build();
        let mut exporter = exporter.context("The exporter cannot be set up")?;
        let resource = resource();
        exporter.set_resource(&resource);
        let (outbox, postman) = outbox(exporter, error, bounds);
        let closing = CancellationToken::new();
        let in_order = Arc::new(AtomicBool::new(true));
        let patience = {
            let in_order = in_order.clone();
            move || if in_order.load(Ordering::Relaxed) { LAST_SPANS } else { LAST_SPANS_AT_ONCE }
        };
        let postman = runtime.spawn(postman.run(closing.clone(), patience));
        let provider =
            SdkTracerProvider::builder().with_span_processor(outbox).with_resource(resource).build();
        Ok(Export { provider, postman, closing, in_order })
    }
}

/// Who we are: as the environment says, and what only we know.
fn resource() -> Resource {
    let builder =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if said::service_is_named() { builder.build() } else { builder.with_service_name("minium").build() }
}
