//! Waiting for a condition. The only place in the tests where time passes by design.

use std::time::Duration;

/// No wait of a test takes longer. Far above what any machine needs: reaching it means that the condition never comes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition that cannot be awaited is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `condition` gives a value; fails the test with `what` when it never does.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    within(what, looking).await
}

/// Awaits `future`; fails the test with `what` when it does not end before the deadline.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain for: {what}", DEADLINE.as_secs()),
    }
}
