//! How a worker ends: nothing more is claimed, running jobs end by themselves or are stopped, and what they brought goes in.

use super::{Shift, arrival};
use crate::notes::call;
use crate::running::Stopped;
use crate::side;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

impl Shift {
    /// No more claims: running jobs end, by themselves or by force, and their outcomes go in.
    pub(super) async fn drain(mut self) {
        info!(jobs = self.jobs.len(), "The worker ends its jobs and claims no more.");
        let grace_ends = Instant::now() + self.around.options.grace;
        let mut forced = false;
        while !self.jobs.is_empty() || self.exchange.is_some() || !forced && self.around.source.arrived() > 0
        {
            self.more |= !forced && self.around.source.arrived() > 0;
            self.begin_exchange(false);
            let moment = self.next_moment();
            tokio::select! {
                answer = arrival(&mut self.exchange) => self.answered(answer, !forced),
                kept = self.keeping.next() => self.kept(kept),
                Some(done) = self.jobs.join_next() => {
                    self.ended(done);
                    self.gather().await;
                }
                () = sleep_until(moment), if !self.handover.is_empty() => self.look_again(),
                () = sleep_until(grace_ends), if !forced => {
                    forced = true;
                    self.running.stop_all(Stopped::Shutdown);
                }
            }
        }
        let last = self.around.options.handover_grace;
        if timeout(last, self.hand_the_rest_in()).await.is_ok() {
            return;
        }
        let (outcomes, jobs) = (self.handover.len() + self.keeping.waiting(), self.unwanted.len());
        if outcomes > 0 && self.keeping.lasts() {
            warn!(outcomes, "Outcomes could not be handed in; the spool keeps them for the next start.");
        } else if outcomes > 0 {
            error!(
                outcomes,
                "Outcomes could not be handed in and are lost; their jobs run again if attempts are left, or fail."
            );
        }
        if jobs > 0 {
            warn!(
                jobs,
                "Jobs that were claimed and not begun could not be given back; they wait for their leases."
            );
        }
    }

    async fn hand_the_rest_in(&mut self) {
        while !self.handover.is_empty() || !self.keeping.is_idle() {
            self.begin_exchange(false);
            let moment = self.next_moment();
            tokio::select! {
                answer = arrival(&mut self.exchange) => self.answered(answer, false),
                kept = self.keeping.next() => self.kept(kept),
                () = sleep_until(moment), if !self.handover.is_empty() => self.look_again(),
            }
        }
        let (source, options) = (self.around.source.clone(), self.around.options.clone());
        while !self.unwanted.is_empty() {
            match call(source.release(&self.unwanted), options.call_timeout).await {
                Ok(()) => self.unwanted.clear(),
                Err(error) => {
                    side::failed_call("release", &error);
                    sleep(self.backoff.pause()).await;
                }
            }
        }
    }
}
