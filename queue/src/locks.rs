//! Named locks: a mutex or a semaphore for whoever shares the database, held for a time that can be extended.
//!
//! A lock is no lease: leases belong to jobs and their attempts, locks to whatever their users mean by a name. Each
//! hold ends by itself by the database's clock, survives a crash of the database, and is fenced by a token that only
//! its taker knows. [`hold`] keeps one for as long as it is needed.

mod guard;

pub use guard::{LockGuard, hold, keep};

use crate::error::QueueError;
use crate::rules;
use async_trait::async_trait;
use jiff::Timestamp;
use minium_protocol::{LockToken, LockView};
use std::time::Duration;

/// Longer names of locks are mistakes.
pub const LOCK_NAME_BYTES_MAX: usize = 255;
/// No more may hold one lock at once.
pub const LOCK_LIMIT_MAX: u32 = 1_000_000;
/// Who holds a lock is said in so many bytes at most.
pub const LOCK_OWNER_BYTES_MAX: usize = 1_024;
/// Shorter holds are mistakes: they would end before anybody knew of them.
const SPAN_MIN: Duration = Duration::from_millis(1);

/// A lock that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockHeld {
    /// Fences every later word about it. Of a lock that was only asked for it is nobody's: all zeros.
    pub token: LockToken,
    /// When it ends unless it is extended, by the database's clock.
    pub until: Timestamp,
}

/// Which holds to list.
#[derive(Debug, Clone)]
pub struct LockFilter {
    /// Any of these names; empty means all.
    pub names: Vec<String>,
    /// Only ids above this: the cursor.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

impl Default for LockFilter {
    fn default() -> LockFilter {
        LockFilter { names: vec![], after: None, limit: 50 }
    }
}

/// One page of holds, in the order in which they were taken.
#[derive(Debug)]
pub struct LockPage {
    /// The holds.
    pub locks: Vec<LockView>,
    /// `after` of the next page, if there is one.
    pub next: Option<i64>,
}

/// Keeps the locks. All times are the database's.
#[async_trait]
pub trait Locks: Send + Sync + 'static {
    /// Takes a lock for `span`, unless `limit` holds of it are there already: then the answer is `None`. Others may ask
    /// with other limits; each is judged by its own. A span of zero asks whether the lock could be had and takes nothing.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a name, span or limit that breaks a rule. After [`QueueError::Unavailable`] it may
    /// have been taken; then it ends by itself.
    async fn lock(
        &self,
        name: &str,
        owner: &str,
        span: Duration,
        limit: u32,
    ) -> Result<Option<LockHeld>, QueueError>;

    /// Extends one's own hold to `span` from now, and answers until when; `None` when it has ended.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a name or span that breaks a rule.
    async fn extend_lock(
        &self,
        name: &str,
        token: LockToken,
        span: Duration,
    ) -> Result<Option<Timestamp>, QueueError>;

    /// Lets one's own hold go. False when it had ended already.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a name that breaks a rule.
    async fn unlock(&self, name: &str, token: LockToken) -> Result<bool, QueueError>;

    /// Ends all holds of a lock, whoever has them: for operators. Answers how many there were.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a name that breaks a rule.
    async fn unlock_any(&self, name: &str) -> Result<u64, QueueError>;

    /// A page of what is held.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for more names than [`rules::FILTER_NAMES_MAX`].
    async fn locks(&self, filter: &LockFilter) -> Result<LockPage, QueueError>;
}

/// Names of locks, and of schedules: one segment of a URL each, so neither dot segment is one.
///
/// # Errors
/// [`QueueError::Invalid`].
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), QueueError> {
    if name.is_empty()
        || name.len() > LOCK_NAME_BYTES_MAX
        || name.contains('\0')
        || [".", ".."].contains(&name)
    {
        let words = format!(
            "the name of a {what} has 1 to {LOCK_NAME_BYTES_MAX} bytes and no NUL character, and is neither . nor .."
        );
        return Err(QueueError::Invalid(words));
    }
    Ok(())
}

/// Checks what [`Locks::lock`] is asked.
pub(crate) fn check_lock(name: &str, owner: &str, span: Duration, limit: u32) -> Result<(), QueueError> {
    check_name("lock", name)?;
    if !span.is_zero() {
        check_span(span)?;
    }
    if !(1..=LOCK_LIMIT_MAX).contains(&limit) {
        let words = format!("the limit of a lock is {limit}, it must be 1 to {LOCK_LIMIT_MAX}");
        return Err(QueueError::Invalid(words));
    }
    if owner.len() > LOCK_OWNER_BYTES_MAX {
        let words = format!("owner has {} bytes, it may have {LOCK_OWNER_BYTES_MAX}", owner.len());
        return Err(QueueError::Invalid(words));
    }
    Ok(())
}

/// Checks what [`Locks::extend_lock`] is asked.
pub(crate) fn check_extension(name: &str, span: Duration) -> Result<(), QueueError> {
    check_name("lock", name)?;
    check_span(span)
}

/// Checks what [`Locks::locks`] is asked.
pub(crate) fn check_filter(filter: &LockFilter) -> Result<(), QueueError> {
    match filter.names.len() {
        n if n > rules::FILTER_NAMES_MAX => {
            let most = rules::FILTER_NAMES_MAX;
            Err(QueueError::Invalid(format!("{n} times name are asked for, at most {most} may be")))
        }
        _ => Ok(()),
    }
}

/// So many rows are read for a page: one more than it shows, to know whether there is a next.
pub(crate) fn rows_of_page(filter: &LockFilter) -> i64 {
    i64::from(filter.limit.clamp(1, rules::PAGE_MAX)) + 1
}

/// The page that these rows, with their ids, make.
pub(crate) fn page(mut rows: Vec<(i64, LockView)>, filter: &LockFilter) -> LockPage {
    let shown = usize::try_from(rows_of_page(filter) - 1).unwrap_or(usize::MAX);
    let more = rows.len() > shown;
    rows.truncate(shown);
    let next = rows.last().filter(|_| more).map(|(id, _)| *id);
    LockPage { locks: rows.into_iter().map(|(_, view)| view).collect(), next }
}

fn check_span(span: Duration) -> Result<(), QueueError> {
    if span < SPAN_MIN {
        return Err(QueueError::Invalid("a lock is held for a millisecond at least".into()));
    }
    if span > rules::SPAN_MAX {
        return Err(QueueError::Invalid("a lock would be held for longer than 100 years".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(1);

    #[test]
    fn what_breaks_a_rule_is_refused_and_bounds_are_not() {
        let (long, full) = ("x".repeat(256), "x".repeat(255));
        for bad in ["", ".", "..", "a\0", &long] {
            assert!(check_lock(bad, "", SPAN, 1).is_err(), "{bad:?}");
            assert!(check_extension(bad, SPAN).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b c", "…", &full] {
            check_lock(good, "", SPAN, 1).unwrap();
        }
        for (span, limit) in [(SPAN, 0), (SPAN, LOCK_LIMIT_MAX + 1), (Duration::from_nanos(1), 1)] {
            assert!(check_lock("a", "", span, limit).is_err(), "{span:?} {limit}");
        }
        check_lock("a", "", Duration::ZERO, LOCK_LIMIT_MAX).unwrap();
        check_lock("a", "", rules::SPAN_MAX, 1).unwrap();
        assert!(check_lock("a", "", rules::SPAN_MAX + SPAN, 1).is_err());
        assert!(check_extension("a", Duration::ZERO).is_err(), "that would be a release");
        assert!(check_lock("a", &"x".repeat(LOCK_OWNER_BYTES_MAX + 1), SPAN, 1).is_err());
    }
}
