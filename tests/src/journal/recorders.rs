//! What a recorder has not confirmed is kept, up to a limit, on both databases.

use super::Node;
use super::home::{Home, keep, on_both};
use crate::support::wait;
use minium_bus::History;
use minium_notifier::{
    Confirmation, Confirmed, Hold, Journal, Policy, RECORDERS_MAX, RECORDERS_OF_ONE_MAX, RelayOptions,
    Retention, Retentions,
};
use minium_protocol::{Filter, Position};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

on_both! {
    what_nobody_has_confirmed_is_kept
    beyond_the_limit_it_goes
    what_is_said_of_a_recorder_is_judged
    there_is_a_bound_on_recorders
    a_quiet_topic_holds_nothing_else_of_its_channel
}

fn so_many(count: u64) -> Retention {
    Retention { age: Duration::MAX, count, bytes: u64::MAX }
}

/// Rounds as often as can be, with `count` of `a` and of `b` kept, and so many more for recorders.
fn options(count: u64, hold: u64) -> RelayOptions {
    let channels = ["a", "b"].map(|prefix| (prefix.parse().unwrap(), so_many(count)));
    let policy = Policy { others: so_many(u64::MAX), channels: BTreeMap::from(channels) };
    RelayOptions {
        retention: Some(Retentions::new(policy)),
        retention_interval: Duration::from_millis(20),
        retention_batch: 4,
        hold: Hold { age: Duration::MAX, count: hold, bytes: u64::MAX },
        ..RelayOptions::default()
    }
}

fn filters(topics: &[&str]) -> Vec<Filter> {
    topics.iter().map(|topic| topic.parse().unwrap()).collect()
}

async fn epoch(journal: &Journal) -> u64 {
    journal.history().bounds(&filters(&["+"])[0]).await.unwrap().epoch
}

async fn confirm(journal: &Journal, name: &str, topics: &[&str], offset: u64) -> Confirmed {
    confirm_as(journal, name, "somebody", false, topics, offset).await
}

async fn confirm_as(
    journal: &Journal,
    name: &str,
    owner: &str,
    for_anyone: bool,
    topics: &[&str],
    offset: u64,
) -> Confirmed {
    let position = Position { epoch: epoch(journal).await, offset };
    let said = Confirmation {
        name: name.into(),
        owner: owner.into(),
        for_anyone,
        topics: filters(topics),
        position,
    };
    journal.confirm(&said).await.unwrap()
}

/// 1, 3, 5, … on `a/x`, 2, 4, 6, … on `b/x`.
async fn publish(history: &Arc<dyn History>, count: usize) {
    for n in 0..count {
        keep(history, ["a/x", "b/x"][n % 2], None, "1").await.unwrap();
    }
}

/// Waits for a floor, which must never be beyond `due`.
async fn until_first(history: &Arc<dyn History>, filter: &str, due: u64) {
    wait::until(&format!("the floor of {filter} to be {due}"), async || {
        let first = history.bounds(&filter.parse().unwrap()).await.unwrap().first;
        assert!(first <= due, "{first} is too much for {filter}");
        (first == due).then_some(())
    })
    .await;
}

async fn what_nobody_has_confirmed_is_kept(home: Home) {
    let (_backend, journal) = home.open().await;
    let history = journal.history();
    assert_eq!(confirm(&journal, "one", &["a"], 0).await, Confirmed::New);
    assert_eq!(confirm(&journal, "two", &["a/+"], 0).await, Confirmed::New);
    let node = Node::start_with(&journal, options(5, u64::MAX));
    node.begun().await;
    publish(&history, 40).await;
    // that of `b`, which nobody follows, is kept up meanwhile: rounds are made
    until_first(&history, "b", 31).await;
    until_first(&history, "a", 1).await;
    assert_eq!(confirm(&journal, "one", &["a"], 21).await, Confirmed::Known);
    assert_eq!(confirm(&journal, "two", &["a/+"], 9).await, Confirmed::Known);
    until_first(&history, "a", 10).await;
    assert!(journal.forget_recorder("two").await.unwrap());
    until_first(&history, "a", 22).await;
    assert_eq!(confirm(&journal, "one", &["a"], 39).await, Confirmed::Known);
    until_first(&history, "a", 30).await; // the last five of its own: 31 to 39
    node.stop().await;
}

async fn beyond_the_limit_it_goes(home: Home) {
    let (_backend, journal) = home.open().await;
    let history = journal.history();
    assert_eq!(confirm(&journal, "one", &["+"], 4).await, Confirmed::Ahead);
    assert_eq!(confirm(&journal, "one", &["+"], 0).await, Confirmed::New);
    let node = Node::start_with(&journal, options(5, 7));
    node.begun().await;
    publish(&history, 40).await;
    // twelve of the twenty of each
    until_first(&history, "a", 16).await;
    until_first(&history, "b", 17).await;
    publish(&history, 2).await;
    until_first(&history, "a", 18).await;
    assert_eq!(confirm(&journal, "one", &["+"], 42).await, Confirmed::Known);
    until_first(&history, "a", 32).await;
    node.stop().await;
}

async fn what_is_said_of_a_recorder_is_judged(home: Home) {
    let (_backend, journal) = home.open().await;
    let node = Node::start(&journal); // which numbers what is published
    node.begun().await;
    publish(&journal.history(), 3).await;
    assert_eq!(confirm(&journal, "r", &["a", "b/+"], 2).await, Confirmed::New);
    assert_eq!(confirm(&journal, "r", &["a"], 4).await, Confirmed::Ahead);
    assert_eq!(confirm_as(&journal, "r", "another", false, &["a"], 3).await, Confirmed::Foreign);
    let elsewhere = Position { epoch: epoch(&journal).await + 1, offset: 1 };
    let said = Confirmation {
        name: "r".into(),
        owner: "somebody".into(),
        for_anyone: true,
        topics: filters(&["a"]),
        position: elsewhere,
    };
    assert_eq!(journal.confirm(&said).await.unwrap(), Confirmed::OtherEpoch);
    let recorders = journal.recorders().await.unwrap();
    let [r] = &recorders[..] else { panic!("{recorders:?}") };
    assert_eq!((r.name.as_str(), r.owner.as_str(), r.offset), ("r", "somebody", 2), "nothing has changed");
    assert_eq!(r.topics, filters(&["a", "b/+"]));
    assert!(r.registered <= r.confirmed);
    // whoever may speak for all does not become the owner; and it may go back
    assert_eq!(confirm_as(&journal, "r", "admin", true, &["a"], 1).await, Confirmed::Known);
    let r = &journal.recorders().await.unwrap()[0];
    assert_eq!((r.owner.as_str(), r.offset, &r.topics), ("somebody", 1, &filters(&["a"])));
    assert!(journal.forget_recorder("r").await.unwrap());
    assert!(!journal.forget_recorder("r").await.unwrap());
    assert!(journal.recorders().await.unwrap().is_empty());
    node.stop().await;
}

async fn there_is_a_bound_on_recorders(home: Home) {
    let (_backend, journal) = home.open().await;
    // of many that come at once no more get in
    let answers = futures::future::join_all((0..RECORDERS_MAX + 5).map(|n| {
        let journal = journal.clone();
        let owner = format!("o{}", n / RECORDERS_OF_ONE_MAX);
        async move { confirm_as(&journal, &format!("r{n}"), &owner, false, &["a"], 0).await }
    }))
    .await;
    let new = answers.iter().filter(|answer| **answer == Confirmed::New).count();
    let many = answers.iter().filter(|answer| **answer == Confirmed::TooMany).count();
    assert_eq!((new, many), (RECORDERS_MAX as usize, 5));
    let known = journal.recorders().await.unwrap().swap_remove(7);
    let again = confirm_as(&journal, &known.name, &known.owner, false, &["b"], 0).await;
    assert_eq!(again, Confirmed::Known);
    // and no owner leaves the others without
    for recorder in journal.recorders().await.unwrap() {
        assert!(journal.forget_recorder(&recorder.name).await.unwrap());
    }
    for n in 0..RECORDERS_OF_ONE_MAX {
        assert_eq!(confirm(&journal, &format!("r{n}"), &["a"], 0).await, Confirmed::New);
    }
    assert_eq!(confirm(&journal, "more", &["a"], 0).await, Confirmed::TooMany);
    assert_eq!(confirm_as(&journal, "more", "another", false, &["a"], 0).await, Confirmed::New);
}

async fn a_quiet_topic_holds_nothing_else_of_its_channel(home: Home) {
    let (_backend, journal) = home.open().await;
    let history = journal.history();
    assert_eq!(confirm(&journal, "one", &["a/quiet", "a/+/quiet"], 0).await, Confirmed::New);
    let node = Node::start_with(&journal, options(5, u64::MAX));
    node.begun().await;
    publish(&history, 40).await;
    until_first(&history, "a", 30).await;
    // what it follows and has not got yet stays, with all behind it
    keep(&history, "a/x/quiet", None, "1").await.unwrap();
    publish(&history, 40).await;
    until_first(&history, "b", 72).await;
    let first = history.bounds(&filters(&["a"])[0]).await.unwrap().first;
    assert!(first <= 41, "{first}");
    assert_eq!(confirm(&journal, "one", &["a/quiet", "a/+/quiet"], 41).await, Confirmed::Known);
    until_first(&history, "a", 71).await;
    node.stop().await;
}
