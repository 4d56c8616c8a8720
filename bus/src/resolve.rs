//! Where a subscription begins: `?after=`, `?last=` and `Last-Event-ID`, judged before anything is answered.

use crate::history::{Bounds, History, HistoryError};
use crate::hub::Hub;
use crate::opening::Start;
use crate::pattern::Pattern;
use minium_protocol::{After, ErrorCode, Filter, Position, Problem};
use std::sync::Arc;

/// The position behind which delivery begins; nothing for what comes from now on.
pub(crate) async fn resolve(hub: &Hub, filter: &Filter, after: After) -> Result<Option<Start>, Problem> {
    if after == After::Latest {
        return Ok(None);
    }
    if !hub.channels.is_durable(Pattern::Sub, filter) {
        let words = format!("{filter} is not kept: there are no positions in it");
        return Err(Problem::new(ErrorCode::InvalidRequest, words));
    }
    if after == After::Last(1)
        && let Some(known) = hub.latest().of(filter)
    {
        let Position { epoch, offset } = known.position;
        return Ok(Some(Start { epoch, after: offset - 1 }));
    }
    let unavailable = |words: &str| Problem::new(ErrorCode::Unavailable, words);
    let history: &Arc<dyn History> =
        hub.outside.history().ok_or_else(|| unavailable("this node has no journal"))?;
    let relayed = hub.relayed().ok_or_else(|| unavailable("the journal is not there yet"))?;
    let mut bounds = history.bounds(filter).await.map_err(|e| unavailable(&e.to_string()))?;
    if bounds.epoch != relayed.epoch {
        return Err(unavailable("the journal is beginning a new numbering"));
    }
    let after = match after {
        After::Last(0) | After::Latest => bounds.last,
        After::Last(n) => {
            let after = history.before_last(filter, n).await.map_err(|e| refused(&bounds, &e))?;
            // what came between the two looks is no other numbering
            bounds.last = bounds.last.max(after);
            after
        }
        After::Earliest => bounds.first.saturating_sub(1),
        After::Offset(offset) => offset,
        After::Position(p) if p.epoch == bounds.epoch => p.offset,
        After::Position(p) => {
            let words = format!("the position is of epoch {}, now it is {}", p.epoch, bounds.epoch);
            return Err(problem(ErrorCode::EpochChanged, words, &bounds));
        }
    };
    judge(after, &bounds)
}

/// Can what follows `after` be had?
fn judge(after: u64, bounds: &Bounds) -> Result<Option<Start>, Problem> {
    if after > bounds.last {
        // it was given by a numbering that is no more: after a restore, or by a journal in memory
        let words = format!("the journal ends at {}, before {after}", bounds.last);
        return Err(problem(ErrorCode::EpochChanged, words, bounds));
    }
    if after.saturating_add(1) < bounds.first {
        let words = format!("the oldest offset that is kept is {}", bounds.first);
        return Err(problem(ErrorCode::OffsetExpired, words, bounds));
    }
    Ok(Some(Start { epoch: bounds.epoch, after }))
}

/// `earliest` is a position to ask for with `after`: everything that is kept lies behind it.
fn problem(code: ErrorCode, words: String, bounds: &Bounds) -> Problem {
    let earliest = Position { epoch: bounds.epoch, offset: bounds.first.saturating_sub(1) };
    Problem { earliest: Some(earliest.to_string()), ..Problem::new(code, words) }
}

fn refused(bounds: &Bounds, e: &HistoryError) -> Problem {
    match e {
        HistoryError::Expired { first } => {
            problem(ErrorCode::OffsetExpired, e.to_string(), &Bounds { first: *first, ..*bounds })
        }
        HistoryError::Unavailable(_) => Problem::new(ErrorCode::Unavailable, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { epoch: 3, first: 11, last: 20 };

    #[test]
    fn everything_from_before_the_first_to_the_last_can_be_had() {
        for after in [10, 11, 20] {
            assert_eq!(judge(after, &BOUNDS).unwrap(), Some(Start { epoch: 3, after }));
        }
        let empty = Bounds { epoch: 1, first: 1, last: 0 };
        assert_eq!(judge(0, &empty).unwrap(), Some(Start { epoch: 1, after: 0 }));
    }

    #[test]
    fn what_is_gone_says_where_to_begin_instead() {
        let p = judge(9, &BOUNDS).unwrap_err();
        assert_eq!((p.code, p.earliest.as_deref()), (ErrorCode::OffsetExpired, Some("3:10")));
        let p = judge(21, &BOUNDS).unwrap_err();
        assert_eq!((p.code, p.earliest.as_deref()), (ErrorCode::EpochChanged, Some("3:10")));
    }
}
