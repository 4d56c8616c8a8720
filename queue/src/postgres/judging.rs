//! Judges outcomes that were not accepted: they repeat what is known, or come too late; then an event keeps what was brought.

use super::PgStore;
use super::session::Session;
use crate::error::QueueError;
use crate::rules;
use crate::store::{Ending, Outcome, Verdict};
use minium_protocol::State;
use std::collections::HashMap;
use std::sync::LazyLock;
use tokio_postgres::types::ToSql;

const LATE: &str = include_str!("late.sql");
/// The same, passing over jobs that somebody holds.
static LATE_BESIDE: LazyLock<String> =
    LazyLock::new(|| LATE.replace("for no key update)", "for no key update skip locked)"));

impl PgStore {
    /// Judges what was not accepted. Nobody's locks are waited for when jobs were `claimed` by the same commit, since their leases
    /// run: then what cannot be judged now is to be handed in again.
    pub(super) async fn judge_beside(
        &self,
        outcomes: &[Outcome],
        refused: &[usize],
        verdicts: &mut [Verdict],
        claimed: bool,
    ) -> Result<(), QueueError> {
        if !claimed {
            return self.judge_refused(LATE, Verdict::LeaseLost, outcomes, refused, verdicts).await;
        }
        let judged = self.judge_refused(&LATE_BESIDE, Verdict::Unjudged, outcomes, refused, verdicts).await;
        if let Err(error) = judged {
            tracing::warn!(%error, "Outcomes could not be judged; the jobs claimed beside them go out.");
            refused.iter().for_each(|&i| verdicts[i] = Verdict::Unjudged);
        }
        Ok(())
    }

    /// Repeated, or late: then an event keeps what was brought. Those of jobs that the statement has passed over are `unseen`.
    async fn judge_refused(
        &self,
        late_sql: &str,
        unseen: Verdict,
        outcomes: &[Outcome],
        refused: &[usize],
        verdicts: &mut [Verdict],
    ) -> Result<(), QueueError> {
        let words: Vec<_> = refused.iter().map(|&i| Word::new(&outcomes[i])).collect();
        let ids: Vec<_> = refused.iter().map(|&i| outcomes[i].job).collect();
        let leases: Vec<_> = refused.iter().map(|&i| outcomes[i].lease.0).collect();
        let states: Vec<_> = words.iter().map(|w| w.state.as_str()).collect();
        let texts: Vec<_> = words.iter().map(|w| w.text.as_ref()).collect();
        let late: Vec<_> = words.iter().map(|w| w.late.as_str()).collect();
        let params: [&(dyn ToSql + Sync); 5] = [&ids, &leases, &states, &texts, &late];
        let params = &params;
        let judge = |client: Session| async move {
            let statement = client.prepare_cached(late_sql).await?;
            client.query(&statement, params).await
        };
        let rows = self.connections.run("judge outcomes under leases that are gone", judge).await?;
        let repeated: HashMap<i64, Option<bool>> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        for &i in refused {
            verdicts[i] = match repeated.get(&outcomes[i].job) {
                Some(Some(true)) => Verdict::Repeated,
                Some(None) => unseen,
                Some(Some(false)) | None => Verdict::LeaseLost,
            };
        }
        if repeated.values().any(|repeated| *repeated == Some(false)) {
            self.wake(false);
        }
        Ok(())
    }
}

/// A word about a run as text, to be compared and kept.
struct Word<'a> {
    state: State,
    text: std::borrow::Cow<'a, str>,
    late: String,
}

impl<'a> Word<'a> {
    fn new(outcome: &'a Outcome) -> Word<'a> {
        let late = rules::late(outcome);
        match &outcome.ending {
            Ending::Finished(result) => {
                Word { state: State::Finished, text: rules::result_text(result), late }
            }
            Ending::Failed { error, .. } => Word { state: State::Failed, text: rules::storable(error), late },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::LeaseToken;

    #[test]
    fn what_comes_late_is_kept_as_json() {
        let word = Outcome { job: 1, lease: LeaseToken::fresh(), ending: Ending::failed("a\0\"b") };
        let late: serde_json::Value = serde_json::from_str(&Word::new(&word).late).unwrap();
        assert_eq!(late["error"], "a\u{fffd}\"b");
        assert_eq!(
            (late["state"].as_str(), late["lease"].as_str()),
            (Some("failed"), Some(&*word.lease.to_string()))
        );
    }
}
