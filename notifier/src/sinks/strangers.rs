//! Sinks that nobody follows any more: the journal must not wait for them for ever.
//!
//! A node knows its own configuration only, and while a change is rolled out another node may have a sink that this one does
//! not know. Whoever follows a sink confirms at least every half minute, so a registration goes only when no node has said
//! anything for it in a long time: [`FORGET_AFTER_MIN`] at least.

use super::SINK_PREFIX;
use crate::error::NotifierError;
use crate::journal::Journal;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A sink that is alive must never be forgotten: its node may be late by some confirmations, or be started anew.
pub const FORGET_AFTER_MIN: Duration = Duration::from_secs(120);

/// Between two looks, unless what is looked for is shorter.
const LOOK_MAX: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(500);

/// Is a sink of this name registered? Then some node has it, or had it a short while ago.
///
/// # Errors
/// When the database is not there, or fails.
pub async fn is_registered(journal: &Journal, sink: &str) -> Result<bool, NotifierError> {
    let is_it = |name: &str| name.strip_prefix(SINK_PREFIX) == Some(sink);
    Ok(journal.recorders().await?.iter().any(|recorder| is_it(&recorder.name)))
}

/// Is any sink registered?
///
/// # Errors
/// When the database is not there, or fails.
pub async fn is_any_registered(journal: &Journal) -> Result<bool, NotifierError> {
    Ok(journal.recorders().await?.iter().any(|recorder| recorder.name.starts_with(SINK_PREFIX)))
}

/// Lets go of sinks that are not among `own` and that no node has followed for so long.
pub async fn forget_strangers(
    journal: Journal,
    own: BTreeSet<String>,
    after: Duration,
    stop: CancellationToken,
) {
    let looking = async {
        let mut told = BTreeSet::new();
        loop {
            if let Err(error) = look(&journal, &own, after, &mut told).await {
                // who follows the journal tells of a database that fails
                debug!(error = error.story(), "It cannot be seen which sinks are registered.");
            }
            sleep((after / 2).clamp(LOOK_MIN, LOOK_MAX)).await;
        }
    };
    stop.run_until_cancelled(looking).await;
}

async fn look(
    journal: &Journal,
    own: &BTreeSet<String>,
    after: Duration,
    told: &mut BTreeSet<String>,
) -> Result<(), NotifierError> {
    for recorder in journal.recorders().await? {
        let Some(sink) = recorder.name.strip_prefix(SINK_PREFIX).filter(|name| !own.contains(*name)) else {
            continue;
        };
        if recorder.silence >= after {
            if journal.forget_recorder(&recorder.name).await? {
                warn!(
                    sink,
                    offset = recorder.offset,
                    "The sink is configured no more: the journal does not wait for it."
                );
            }
        } else if told.len() < own.len() + crate::recorders::RECORDERS_MAX as usize
            && told.insert(sink.to_owned())
        {
            info!(sink, "The journal waits for a sink that this node does not have.");
        }
    }
    Ok(())
}
