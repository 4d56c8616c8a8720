//! The connection that listens. It only wakes: whoever is woken looks for himself, and looks now and then anyway.

use super::tls::Tls;
use futures::StreamExt;
use std::time::Duration;
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What may be heard, and who is told.
#[derive(Debug, Clone)]
pub(super) struct Ears {
    /// There may be something to claim.
    pub(super) jobs: watch::Sender<u64>,
    /// There may be new entries in the journal.
    pub(super) events: watch::Sender<u64>,
    /// Some worker may have been told something, or some running job was cancelled.
    pub(super) controls: watch::Sender<u64>,
}

impl Ears {
    pub(super) fn new() -> Ears {
        Ears { jobs: watch::Sender::new(0), events: watch::Sender::new(0), controls: watch::Sender::new(0) }
    }

    pub(super) fn tell_jobs(&self) {
        self.jobs.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(super) fn tell_events(&self) {
        self.events.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// This process has written: there are new events, and perhaps jobs that can be claimed.
    pub(super) fn tell_written(&self, jobs: bool) {
        self.tell_events();
        if jobs {
            self.tell_jobs();
        }
    }

    pub(super) fn tell_controls(&self) {
        self.controls.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Listens until it is told to stop, and connects again whenever the connection is lost.
pub(super) async fn listen(config: Config, tls: Tls, ears: Ears, stop: CancellationToken) {
    let mut failures = 0;
    while !stop.is_cancelled() {
        let mut heard = false;
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = session(&config, tls.clone(), &ears, &mut heard) => ended,
        };
        if heard {
            failures = 0;
            // whatever is said from here on is missed, until the next session tells everybody to look
            warn!(error = ended.as_ref().err().map(ToString::to_string), "Listening connection lost.");
        } else {
            debug!(error = ended.as_ref().err().map(ToString::to_string), failures, "Cannot listen.");
        }
        failures += 1;
        let pause = pause(failures, fastrand::f64());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One connection, from LISTEN to its end.
async fn session(
    config: &Config,
    tls: Tls,
    ears: &Ears,
    heard: &mut bool,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(tls).await?;
    let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
    let listen = client.batch_execute("listen minium_job; listen minium_journal; listen minium_control");
    tokio::pin!(listen);
    loop {
        tokio::select! {
            listening = &mut listen, if !*heard => {
                listening?;
                *heard = true;
                info!("Listening to the database.");
                ears.tell_jobs();
                ears.tell_events();
                ears.tell_controls();
            }
            message = messages.next() => match message {
                None => return Ok(()),
                Some(Err(e)) => return Err(e),
                Some(Ok(AsyncMessage::Notification(n))) if n.channel() == "minium_job" => ears.tell_jobs(),
                Some(Ok(AsyncMessage::Notification(n))) if n.channel() == "minium_journal" => ears.tell_events(),
                Some(Ok(AsyncMessage::Notification(n))) if n.channel() == "minium_control" => ears.tell_controls(),
                Some(Ok(_)) => {}
            }
        }
    }
}

/// Doubles with each failure, and is never the same for all who lost the same server.
fn pause(failures: u32, jitter: f64) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    whole.mul_f64(0.5 + 0.5 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert!(pause(1, 1.0) < pause(3, 1.0));
        assert_eq!(pause(u32::MAX, 1.0), BACKOFF_MAX);
        assert_eq!(pause(u32::MAX, 0.0), BACKOFF_MAX / 2);
    }
}
