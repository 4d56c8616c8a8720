//! The bounds of each histogram, chosen for what is asked of it: `docs/metrics.md` tells them.
//!
//! Every label of a histogram has all of its buckets, so there are few, and they are close where a limit of somebody's may lie.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

/// Jobs wait and run from milliseconds to a day.
const JOBS: &[f64] =
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
/// What goes to the database and back: a millisecond when all is well, a minute when it gives up.
const OPERATIONS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Messages on their way through memory.
const DELIVERIES: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Which histogram has which.
const HISTOGRAMS: [(&str, &[f64]); 6] = [
    ("minium_queue_job_wait_seconds", JOBS),
    ("minium_queue_job_run_seconds", JOBS),
    ("minium_queue_database_seconds", OPERATIONS),
    ("minium_worker_exchange_seconds", OPERATIONS),
    ("minium_http_request_seconds", OPERATIONS),
    ("minium_bus_delivery_seconds", DELIVERIES),
];

/// Sets them. Without its bounds a histogram would be told as quantiles, which cannot be added up over nodes.
pub(super) fn set(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    HISTOGRAMS.iter().try_fold(builder, |builder, (name, bounds)| {
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)
    })
}
