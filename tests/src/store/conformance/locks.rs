//! Named locks: never more holders than the limit, each hold for a time of the database's, fenced by its token.

use crate::store::fixture::*;
use crate::support::wait;
use minium_protocol::{LockToken, LockView};
use minium_queue::{LockFilter, LockHeld, QueueError, UpkeepRules, locks};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SPAN: Duration = seconds(100);

async fn take(f: &Fixture, name: &str, limit: u32) -> Option<LockHeld> {
    f.store().lock(name, "me", SPAN, limit).await.unwrap()
}

async fn listed(f: &Fixture) -> Vec<LockView> {
    f.store().locks(&LockFilter::default()).await.unwrap().locks
}

pub(crate) async fn a_lock_is_held_by_one(f: &Fixture) {
    let held = take(f, "a", 1).await.unwrap();
    let left = held.until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((90..=100).contains(&left), "{held:?}");
    assert_eq!(take(f, "a", 1).await, None);
    assert!(take(f, "A", 1).await.is_some(), "another name is another lock");
    assert!(f.store().unlock("a", held.token).await.unwrap());
    let again = take(f, "a", 1).await.unwrap();
    assert_ne!(again.token, held.token);
}

pub(crate) async fn a_shared_lock_is_held_by_as_many_as_its_limit(f: &Fixture) {
    for _ in 0..3 {
        assert!(take(f, "slots", 3).await.is_some());
    }
    assert_eq!(take(f, "slots", 3).await, None);
    assert_eq!(take(f, "slots", 1).await, None);
    assert!(take(f, "slots", 4).await.is_some(), "each is judged by its own limit");
}

pub(crate) async fn a_lock_ends_by_itself(f: &Fixture) {
    let held = take(f, "a", 1).await.unwrap();
    f.pass(seconds(99)).await;
    assert_eq!(take(f, "a", 1).await, None);
    f.pass(seconds(1)).await;
    assert!(listed(f).await.is_empty());
    assert_eq!(f.store().extend_lock("a", held.token, SPAN).await.unwrap(), None, "it has ended");
    assert!(take(f, "a", 1).await.is_some());
    assert_eq!(f.store().extend_lock("a", held.token, SPAN).await.unwrap(), None);
    assert!(!f.store().unlock("a", held.token).await.unwrap());
    assert_eq!(listed(f).await.len(), 1, "the other one is untouched");
}

pub(crate) async fn extending_moves_the_end_and_only_ones_own(f: &Fixture) {
    let held = take(f, "a", 1).await.unwrap();
    f.pass(seconds(60)).await;
    let until = f.store().extend_lock("a", held.token, seconds(500)).await.unwrap().unwrap();
    assert_eq!(listed(f).await[0].until, until);
    f.pass(seconds(400)).await;
    assert_eq!(take(f, "a", 1).await, None, "it is still held");
    for (name, token) in [("a", LockToken::fresh()), ("b", held.token)] {
        assert_eq!(f.store().extend_lock(name, token, SPAN).await.unwrap(), None, "{name}");
    }
    f.pass(seconds(100)).await;
    assert!(take(f, "a", 1).await.is_some());
}

pub(crate) async fn unlocking_ends_ones_own_hold_alone(f: &Fixture) {
    let (one, other) = (take(f, "a", 2).await.unwrap(), take(f, "a", 2).await.unwrap());
    for (name, token) in [("a", LockToken::fresh()), ("b", one.token)] {
        assert!(!f.store().unlock(name, token).await.unwrap(), "{name}");
    }
    assert!(f.store().unlock("a", one.token).await.unwrap());
    assert!(!f.store().unlock("a", one.token).await.unwrap());
    assert!(f.store().extend_lock("a", other.token, SPAN).await.unwrap().is_some());
}

pub(crate) async fn an_operator_ends_all_holds_of_a_name(f: &Fixture) {
    for _ in 0..2 {
        take(f, "a", 3).await.unwrap();
    }
    let kept = take(f, "b", 1).await.unwrap();
    f.pass(seconds(50)).await;
    let last = take(f, "a", 3).await.unwrap();
    f.pass(seconds(50)).await;
    assert_eq!(f.store().unlock_any("a").await.unwrap(), 1, "two of them have ended by themselves");
    assert_eq!(f.store().extend_lock("a", last.token, SPAN).await.unwrap(), None);
    assert_eq!(f.store().unlock_any("a").await.unwrap(), 0);
    assert_eq!(f.store().extend_lock("b", kept.token, SPAN).await.unwrap(), None, "its time is up as well");
}

pub(crate) async fn asking_takes_nothing(f: &Fixture) {
    let ask = async |limit| f.store().lock("a", "me", Duration::ZERO, limit).await.unwrap().is_some();
    for _ in 0..3 {
        assert!(ask(1).await);
    }
    take(f, "a", 1).await.unwrap();
    assert!(!ask(1).await);
    assert!(ask(2).await);
    f.pass(SPAN).await;
    assert!(ask(1).await);
    assert!(listed(f).await.is_empty());
}

pub(crate) async fn what_is_held_is_listed_by_the_page(f: &Fixture) {
    for name in ["b", "a", "c", "a"] {
        f.store().lock(name, &format!("who\0 {name}"), SPAN, 7).await.unwrap().unwrap();
    }
    let page = async |names: &[&str], after, limit| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let page = f.store().locks(&LockFilter { names, after, limit }).await.unwrap();
        (page.locks.into_iter().map(|l| l.name).collect::<Vec<_>>(), page.next)
    };
    let (first, next) = page(&[], None, 3).await;
    assert_eq!(first, ["b", "a", "c"], "as they were taken");
    assert_eq!(page(&[], next, 3).await, (vec!["a".to_owned()], None));
    assert_eq!(page(&[], None, 4).await.1, None);
    assert_eq!(page(&["a", "b", "none\0"], None, 50).await.0, ["b", "a", "a"]);
    let (_, next) = page(&["a"], None, 1).await;
    assert_eq!(page(&["a"], next, 1).await, (vec!["a".to_owned()], None));
    let all = listed(f).await;
    assert_eq!((all[0].owner.as_str(), all[0].limit), ("who\u{fffd} b", 7));
    assert_eq!(all[0].until.duration_since(all[0].taken).as_secs(), 100);
}

pub(crate) async fn what_breaks_a_rule_is_refused(f: &Fixture) {
    let token = LockToken::fresh();
    let refused = |what: &str, error: QueueError| {
        assert!(matches!(error, QueueError::Invalid(_)), "{what}: {error:?}");
    };
    for name in ["", ".", "..", "a\0", &"x".repeat(256)] {
        refused(name, f.store().lock(name, "", SPAN, 1).await.unwrap_err());
        refused(name, f.store().extend_lock(name, token, SPAN).await.unwrap_err());
        refused(name, f.store().unlock(name, token).await.unwrap_err());
        refused(name, f.store().unlock_any(name).await.unwrap_err());
    }
    let century = Duration::from_secs(101 * 365 * 86_400);
    for (span, limit) in [(SPAN, 0), (SPAN, 1_000_001), (century, 1), (Duration::from_micros(1), 1)] {
        refused("bounds", f.store().lock("a", "", span, limit).await.unwrap_err());
    }
    refused("zero", f.store().extend_lock("a", token, Duration::ZERO).await.unwrap_err());
    let names = vec!["a".to_owned(); 101];
    let many = LockFilter { names, ..LockFilter::default() };
    refused("names", f.store().locks(&many).await.unwrap_err());
    let full = "é".repeat(127);
    let longest = Duration::from_secs(100 * 365 * 86_400);
    assert!(f.store().lock(&full, "", longest, 1_000_000).await.unwrap().is_some());
}

pub(crate) async fn upkeep_removes_what_has_ended(f: &Fixture) {
    for _ in 0..5 {
        take(f, "a", 10).await.unwrap();
    }
    f.pass(SPAN).await;
    let living = take(f, "b", 1).await.unwrap();
    let few = UpkeepRules { batch: 2, ..upkeep_rules() };
    for left in [4, 2, 1, 1] {
        f.store().upkeep(&few).await.unwrap();
        assert_eq!(f.count("lock").await, left, "a round has a bound");
    }
    assert!(f.store().unlock("b", living.token).await.unwrap());
}

/// Twenty tasks on two stores, three may be inside at once: counted where they are inside.
pub(crate) async fn never_more_than_the_limit_hold_it_at_once(f: &Fixture) {
    let stores = [f.shared(), f.second().await];
    let (inside, entered, most) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let counters = Arc::new((inside, entered, most));
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (store, counters) = (stores[n % 2].clone(), counters.clone());
            tokio::spawn(async move {
                let (inside, entered, most) = &*counters;
                let mut rounds = 0;
                while rounds < 5 {
                    let Some(held) = store.lock("three", "", SPAN, 3).await.unwrap() else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    entered.fetch_add(1, Ordering::SeqCst);
                    store.extend_lock("three", held.token, SPAN).await.unwrap().unwrap();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    assert!(store.unlock("three", held.token).await.unwrap());
                    rounds += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        wait::within("everybody to have been inside", task).await.unwrap();
    }
    let (_, entered, most) = &*counters;
    assert_eq!(entered.load(Ordering::SeqCst), 100);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} were inside at once");
}

pub(crate) async fn a_guard_keeps_its_lock_and_lets_it_go(f: &Fixture) {
    let span = Duration::from_millis(600);
    let guard = locks::hold(f.shared(), "a", "me", span, 1).await.unwrap().unwrap();
    let first = listed(f).await[0].until;
    let extended = async || (listed(f).await.first()?.until > first).then_some(());
    wait::until("the lock to be extended", extended).await;
    let twice = first.checked_add(span).unwrap();
    wait::until("the lock to outlive its span", async || (jiff::Timestamp::now() > twice).then_some(()))
        .await;
    assert!(locks::hold(f.shared(), "a", "other", span, 1).await.unwrap().is_none());
    assert!(!guard.lost().is_cancelled());
    assert!(guard.release().await);
    assert!(listed(f).await.is_empty());
}

pub(crate) async fn a_guard_that_is_dropped_lets_its_lock_go(f: &Fixture) {
    let guard = locks::hold(f.shared(), "a", "me", seconds(1_000), 1).await.unwrap().unwrap();
    assert_eq!(guard.name(), "a");
    drop(guard);
    wait::until("the lock to be let go", async || listed(f).await.is_empty().then_some(())).await;
    assert!(locks::hold(f.shared(), "a", "me", Duration::ZERO, 1).await.is_err());
}

pub(crate) async fn a_guard_tells_when_its_lock_is_lost(f: &Fixture) {
    let guard = locks::hold(f.shared(), "a", "me", Duration::from_millis(300), 1).await.unwrap().unwrap();
    assert_eq!(f.store().unlock_any("a").await.unwrap(), 1);
    wait::within("the guard to notice", guard.lost().cancelled()).await;
    let other = take(f, "a", 1).await.unwrap();
    assert!(!guard.release().await, "it had been lost");
    assert!(f.store().unlock("a", other.token).await.unwrap(), "the other's hold is untouched");
}
