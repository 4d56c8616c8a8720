//! What the environment says of the export, in OpenTelemetry's variables. What the exporter reads by itself (endpoint, headers)
//! is left to it; here is what it would leave to others, and what it cannot do.

use super::variable;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A larger one would be a leak with a number.
const QUEUE_MAX: usize = 65_536;
/// A longer one would hold up the next batch for ever.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const DELAY_MAX: Duration = Duration::from_secs(60);
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// How much waits, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Spans that wait to be sent.
    pub(super) queue: usize,
    /// Spans in one request.
    pub(super) batch: usize,
    /// From the first span of a batch to its request.
    pub(super) delay: Duration,
    /// For one request.
    pub(super) timeout: Duration,
}

impl Bounds {
    /// As the environment has them, within what is sensible.
    pub(super) fn of_environment() -> Bounds {
        Bounds::read(variable)
    }

    fn read(said: impl Fn(&str) -> Option<String>) -> Bounds {
        let number = |name: &str| said(name).and_then(|text| u64::from_str(text.trim()).ok());
        let count = |name: &str, usual: usize| {
            number(name).map_or(usual, |n| usize::try_from(n).unwrap_or(QUEUE_MAX)).clamp(1, QUEUE_MAX)
        };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", 2_048);
        let timeout =
            number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| number("OTEL_EXPORTER_OTLP_TIMEOUT"));
        Bounds {
            queue,
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(5_000)).min(DELAY_MAX),
            timeout: Duration::from_millis(timeout.unwrap_or(10_000).max(1)).min(TIMEOUT_MAX),
        }
    }
}

/// The authorities whom a collector's certificate must come from, if not the system's.
pub(super) fn certificate() -> Option<PathBuf> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
    names.iter().find_map(|name| variable(name)).map(PathBuf::from)
}

/// Why there can be no export, if the environment asks for what is not spoken here.
pub(super) fn refusal() -> Option<String> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let (name, protocol) = names.iter().find_map(|name| Some((name, variable(name)?)))?;
    (protocol != "http/protobuf").then(|| format!("{name} is {protocol}, and only http/protobuf is spoken"))
}

/// A sampler that nobody knows: then all is sampled, and whoever wrote it should hear of it.
pub(super) fn unknown_sampler() -> Option<String> {
    variable("OTEL_TRACES_SAMPLER").filter(|name| !SAMPLERS.contains(&name.as_str()))
}

/// Does the environment name the service?
pub(super) fn service_is_named() -> bool {
    variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|text| text.contains("service.name="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_as_said_and_never_without_end() {
        let usual = Bounds::read(|_| None);
        assert_eq!(
            (usual.queue, usual.batch, usual.delay.as_secs(), usual.timeout.as_secs()),
            (2_048, 512, 5, 10)
        );
        let none = Bounds::read(|_| Some("0".into()));
        assert_eq!((none.queue, none.batch, none.timeout.as_millis()), (1, 1, 1));
        let all = Bounds::read(|_| Some(u64::MAX.to_string()));
        assert_eq!(
            (all.queue, all.batch, all.delay, all.timeout),
            (QUEUE_MAX, QUEUE_MAX, DELAY_MAX, TIMEOUT_MAX)
        );
        let wrong = Bounds::read(|_| Some("many".into()));
        assert_eq!(wrong, usual);
        let own = |name: &str| (name == "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").then(|| "250".to_owned());
        assert_eq!(Bounds::read(own).timeout.as_millis(), 250);
    }
}
