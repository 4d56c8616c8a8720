//! What a node does again and again: upkeep, schedules, looking after schema files, masks and metrics.

use super::asked::Asked;
use crate::schema_files::SchemaDir;
use metrics_exporter_prometheus::PrometheusHandle;
use minium_bus::Schemas;
use minium_queue::{ArgsMask, QueueError, Store, UpkeepRules, Upkept};
use minium_worker::Worker;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// At least so often delayed jobs, lost leases and the rest are looked after.
const UPKEEP_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A round that left work undone is followed by the next so soon.
const UPKEEP_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Schedules are looked at so often even when none is due: another node may have changed them.
const SCHEDULE_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Between looks whether there are other schemas.
const MASKS_LOOK: Duration = Duration::from_millis(500);
/// After a database that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Says once that something fails, and once that it works again.
#[derive(Default)]
struct Trouble(bool);

impl Trouble {
    fn failed(&mut self, what: &'static str, error: &QueueError) {
        if !self.0 {
            self.0 = true;
            warn!(
                what,
                error = error as &dyn std::error::Error,
                "The database failed; trying again until it works."
            );
        }
    }

    fn worked(&mut self, what: &'static str) {
        if self.0 {
            self.0 = false;
            tracing::info!(what, "The database works again.");
        }
    }
}

/// Rounds of upkeep, as often as they are needed.
pub(super) async fn upkeep(store: Arc<dyn Store>, rules: UpkeepRules, closing: CancellationToken) {
    let mut trouble = Trouble::default();
    let rounds = async {
        loop {
            let pause = match store.upkeep(&rules).await {
                Ok(done) => {
                    trouble.worked("upkeep");
                    after(done, u64::from(rules.batch))
                }
                Err(error) => {
                    trouble.failed("upkeep", &error);
                    RETRY_PAUSE
                }
            };
            sleep(pause).await;
        }
    };
    closing.run_until_cancelled(rounds).await;
}

/// How long until the next round.
fn after(done: Upkept, batch: u64) -> Duration {
    let full =
        [done.staged, done.rescued, done.expired, done.released, done.removed].iter().any(|n| *n >= batch);
    match done.due_in {
        _ if full => UPKEEP_PAUSE_MIN,
        Some(due) => due.clamp(UPKEEP_PAUSE_MIN, UPKEEP_PAUSE_MAX),
        None => UPKEEP_PAUSE_MAX,
    }
}

/// Does what sinks are told, until the node goes down.
pub(super) async fn deliveries(worker: Worker, closing: CancellationToken) {
    match worker.run(closing.clone()).await {
        Ok(()) => {}
        Err(error) => {
            // a schema that this program does not know: the node has no sense without it
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "Sinks cannot be told anything; going down."
            );
            closing.cancel();
        }
    }
}

/// Enqueues what is due, and looks again at once when a schedule was changed through this node.
pub(super) async fn schedules(store: Arc<dyn Store>, closing: CancellationToken) {
    let mut trouble = Trouble::default();
    let mut changes = store.schedule_changes();
    let rounds = async {
        loop {
            let pause = match store.fire_schedules().await {
                Ok(due) => {
                    trouble.worked("schedules");
                    due.unwrap_or(SCHEDULE_PAUSE_MAX).clamp(UPKEEP_PAUSE_MIN, SCHEDULE_PAUSE_MAX)
                }
                Err(error) => {
                    trouble.failed("schedules", &error);
                    RETRY_PAUSE
                }
            };
            // an error means that the store is gone, and then the node goes as well
            if let Ok(Err(_)) = tokio::time::timeout(pause, changes.changed()).await {
                sleep(pause).await;
            }
        }
    };
    closing.run_until_cancelled(rounds).await;
}

/// Tells the database which arguments the schemas hide, whenever there are others than those of the generation that was told
/// before the node took jobs.
pub(super) async fn masks(
    store: Arc<dyn Store>,
    schemas: Arc<Schemas>,
    mut told: u64,
    closing: CancellationToken,
) {
    let mut trouble = Trouble::default();
    let rounds = async {
        loop {
            let generation = schemas.generation();
            let pause = if told == generation {
                MASKS_LOOK
            } else {
                match store.put_masks(&args_masks(&schemas)).await {
                    Ok(()) => {
                        trouble.worked("masks of arguments");
                        told = generation;
                        MASKS_LOOK
                    }
                    Err(error) => {
                        trouble.failed("masks of arguments", &error);
                        RETRY_PAUSE
                    }
                }
            };
            sleep(pause).await;
        }
    };
    closing.run_until_cancelled(rounds).await;
}

/// What the schemas in force hide.
pub(super) fn args_masks(schemas: &Schemas) -> Vec<ArgsMask> {
    let all = schemas.hidden_args().into_iter();
    all.map(|(task, paths)| ArgsMask { task: task.to_string(), paths }).collect()
}

/// Reads the schemas again when asked to, and when a file has changed.
pub(super) async fn watch_schemas(
    mut dir: SchemaDir,
    schemas: Arc<Schemas>,
    asked: Arc<Asked>,
    pause: Duration,
    closing: CancellationToken,
) {
    let mut missing = false;
    loop {
        let forced = tokio::select! {
            () = closing.cancelled() => return,
            () = asked.notified() => true,
            () = sleep(pause) => false,
        };
        let schemas = schemas.clone();
        // Files are read, and schemas compiled, where nobody waits for it.
        let look = tokio::task::spawn_blocking(move || {
            let result = if forced { dir.load(&schemas).map(drop) } else { dir.load_if_changed(&schemas) };
            (dir, result)
        });
        let Ok((back, result)) = look.await else { return };
        dir = back;
        match result {
            Ok(()) => missing = false,
            Err(error) if forced || !missing => {
                missing = true;
                warn!(%error, "The schema directory cannot be read; the schemas stay as they are.");
            }
            Err(_) => {}
        }
    }
}

/// Lets histograms forget.
pub(super) async fn sweep(metrics: PrometheusHandle, pause: Duration, closing: CancellationToken) {
    let rounds = async {
        loop {
            sleep(pause).await;
            metrics.run_upkeep();
        }
    };
    closing.run_until_cancelled(rounds).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upkeep_comes_when_it_is_due_and_at_once_when_there_was_more() {
        let none = Upkept::default();
        assert_eq!(after(none, 10), UPKEEP_PAUSE_MAX);
        assert_eq!(
            after(Upkept { due_in: Some(Duration::from_millis(300)), ..none }, 10),
            Duration::from_millis(300)
        );
        assert_eq!(after(Upkept { due_in: Some(Duration::from_secs(90)), ..none }, 10), UPKEEP_PAUSE_MAX);
        assert_eq!(after(Upkept { due_in: Some(Duration::ZERO), ..none }, 10), UPKEEP_PAUSE_MIN);
        assert_eq!(after(Upkept { staged: 10, ..none }, 10), UPKEEP_PAUSE_MIN);
    }
}
