//! Spans that leave the node: OTLP over HTTP, to a collector that the environment names as OpenTelemetry has it (feature `otel`).
//!
//! Nothing waits for a collector. What it does not take in time is dropped and counted; one that is away costs a node nothing
//! but those spans. Without an endpoint nothing is exported, and nothing costs anything.

#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod outbox;
#[cfg(feature = "otel")]
mod road;
#[cfg(feature = "otel")]
mod said;
#[cfg(feature = "otel")]
mod words;

#[cfg(feature = "otel")]
pub(crate) use export::{Spans, Telemetry};
#[cfg(feature = "otel")]
pub(crate) use outbox::describe_metrics;

/// Either of these asks for an export.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What a variable says; an empty one says nothing.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// Does the environment want spans to be exported?
fn wanted() -> bool {
    let says = |name: &str, word: &str| variable(name).is_some_and(|text| text.eq_ignore_ascii_case(word));
    ENDPOINTS.iter().any(|name| variable(name).is_some())
        && !says("OTEL_SDK_DISABLED", "true")
        && !says("OTEL_TRACES_EXPORTER", "none")
}

/// What stands beside the log: nothing ever does.
#[cfg(not(feature = "otel"))]
pub(crate) type Spans = tracing_subscriber::layer::Identity;

/// This program cannot export.
#[cfg(not(feature = "otel"))]
#[derive(Debug)]
pub(crate) struct Telemetry {
    wanted: bool,
}

#[cfg(not(feature = "otel"))]
impl Telemetry {
    /// For a command that has spans, or has none.
    pub(crate) fn begin(_runtime: &tokio::runtime::Runtime, spans: bool) -> Telemetry {
        Telemetry { wanted: spans && wanted() }
    }

    /// Says in the log what is amiss, once there is one.
    pub(crate) fn tell(&self) {
        if self.wanted {
            tracing::warn!(
                "An endpoint for traces is set, and this program was built without the feature otel: nothing is exported."
            );
        }
    }

    /// Nothing stands beside the log.
    pub(crate) fn layer(&self) -> Option<Spans> {
        None
    }

    /// There is nothing to be sent.
    pub(crate) async fn end(self, _in_order: bool) {}
}
