//! How much is kept of each channel, on both databases: by age, count and bytes, nested, and changed while it runs.
//! Whatever is let go of: from the floor of a filter on, all that it matches is there.

use super::home::{Home, draft, keep, on_both};
use super::{Node, subscriber};
use crate::support::wait;
use futures::StreamExt;
use minium_bus::{History, HistoryError};
use minium_notifier::{Policy, RelayOptions, Retention, Retentions, WakeOptions};
use minium_protocol::{After, ErrorCode, Filter, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

on_both! {
    each_channel_lets_the_oldest_go_by_its_own_measures
    from_a_floor_on_everything_is_there_whatever_is_configured
    the_last_ones_begin_where_everything_is_there
    the_numbers_of_ids_outlive_their_messages
    what_is_young_stays
}

fn everything() -> Retention {
    Retention { age: Duration::MAX, count: u64::MAX, bytes: u64::MAX }
}

fn policy<const N: usize>(channels: [(&str, Retention); N]) -> Policy {
    let channels = channels.map(|(prefix, retention)| (prefix.parse::<Topic>().unwrap(), retention));
    Policy { others: everything(), channels: BTreeMap::from(channels) }
}

/// Rounds as often as can be, in steps of a few entries.
fn options(retentions: &Retentions) -> RelayOptions {
    RelayOptions {
        retention: Some(retentions.clone()),
        retention_interval: Duration::from_millis(20),
        retention_batch: 4,
        ..RelayOptions::default()
    }
}

async fn first(history: &Arc<dyn History>, filter: &str) -> u64 {
    history.bounds(&filter.parse().unwrap()).await.unwrap().first
}

async fn until_first(history: &Arc<dyn History>, filter: &str, due: u64) {
    wait::until(&format!("the floor of {filter} to be {due}"), async || {
        let first = first(history, filter).await;
        assert!(first <= due, "{first} is too much for {filter}");
        (first == due).then_some(())
    })
    .await;
}

/// What a filter finds from its floor on, and the floor.
async fn kept(history: &Arc<dyn History>, filter: &str) -> (u64, Vec<u64>) {
    let filter: Filter = filter.parse().unwrap();
    'again: loop {
        let bounds = history.bounds(&filter).await.unwrap();
        let (mut after, mut found) = (bounds.first - 1, Vec::new());
        while after < bounds.last {
            match history.read(&filter, after, bounds.last, 3, 1 << 20).await {
                Ok(page) => {
                    after = page.scanned_to;
                    found.extend(page.entries.iter().map(|r| r.position.offset));
                }
                // more was let go of meanwhile, and it says so
                Err(HistoryError::Expired { first }) if first > bounds.first => continue 'again,
                Err(error) => panic!("{error}"),
            }
        }
        return (bounds.first, found);
    }
}

async fn each_channel_lets_the_oldest_go_by_its_own_measures(home: Home) {
    let (backend, journal) = home.open().await;
    let retentions = Retentions::new(policy([]));
    let node = Node::start_with(&journal, options(&retentions));
    node.begun().await;
    let history = journal.history();
    // 1 to 40, in turn: a/x, a/b/x, c, d
    for n in 0..40 {
        let topic = ["a/x", "a/b/x", "c", "d"][n % 4];
        let position = keep(&history, topic, None, "\"0123456789\"").await.unwrap();
        assert_eq!(position.offset, n as u64 + 1);
    }
    home.age(&backend, "c", 19, 3_600).await; // 3, 7, 11, 15, 19
    let one = 12; // bytes of a message
    let stored = if matches!(home, Home::Postgres(_)) { one + 1 } else { one };
    retentions.set(policy([
        ("a", Retention { count: 4, ..everything() }),
        ("a/b", Retention { bytes: stored * 3 + 1, ..everything() }),
        ("c", Retention { age: Duration::from_secs(1_800), ..everything() }),
    ]));
    until_first(&history, "a/x", 22).await; // 25, 29, 33, 37 are kept
    until_first(&history, "a/b", 27).await; // 30, 34, 38
    until_first(&history, "c", 20).await;
    assert_eq!(kept(&history, "a/x").await, (22, vec![25, 29, 33, 37]));
    assert_eq!(kept(&history, "a/b/x").await, (27, vec![30, 34, 38]));
    assert_eq!(kept(&history, "a").await, (27, vec![29, 30, 33, 34, 37, 38]), "the channel below counts");
    assert_eq!(kept(&history, "a/+/x").await, (27, vec![30, 34, 38]));
    assert_eq!(kept(&history, "c").await, (20, vec![23, 27, 31, 35, 39]));
    assert_eq!(kept(&history, "d").await, (1, (1..=10).map(|n| n * 4).collect()), "it has no bounds");
    for (filter, after) in [("a/x", 20), ("a/b", 25), ("a", 25), ("c", 18)] {
        let read = history.read(&filter.parse().unwrap(), after, u64::MAX, 10, 1 << 20).await;
        assert!(
            matches!(read, Err(HistoryError::Expired { first }) if first == after + 2),
            "{filter}: {read:?}"
        );
    }
    let last = |count| {
        let (history, filter) = (history.clone(), "a".parse().unwrap());
        async move { history.before_last(&filter, count).await.unwrap() }
    };
    assert_eq!((last(2).await, last(100).await), (36, 26), "no further back than the floor");

    // what comes now pushes out what was there
    for _ in 0..3 {
        keep(&history, "a/x", None, "1").await.unwrap();
    }
    until_first(&history, "a/x", 34).await;
    assert_eq!(kept(&history, "a/x").await.1, [37, 41, 42, 43]);
    node.stop().await;
}

async fn from_a_floor_on_everything_is_there_whatever_is_configured(home: Home) {
    const TOPICS: [&str; 7] = ["a", "a/b", "a/b/c", "a/x", "ab", "z", "z/b/c"];
    const FILTERS: [&str; 10] = ["a", "a/b", "a/b/c", "a/x", "a/+/c", "ab", "z", "z/+", "+", "+/b"];
    let seed = std::env::var("MINIUM_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("MINIUM_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (_backend, journal) = home.open().await;
    let retentions = Retentions::new(policy([]));
    let node = Node::start_with(&journal, options(&retentions));
    node.begun().await;
    let history = journal.history();
    let mut published: Vec<(u64, Topic)> = Vec::new();
    let mut now = policy([]);
    for _ in 0..25 {
        let topics: Vec<_> = (0..rng.usize(1..30)).map(|_| TOPICS[rng.usize(..TOPICS.len())]).collect();
        let drafts = topics.iter().map(|topic| draft(topic, None, "1")).collect();
        let positions = history.keep(drafts).await.unwrap();
        published.extend(positions.iter().zip(&topics).map(|(p, t)| (p.offset, t.parse().unwrap())));
        if rng.bool() {
            // channels come and go, and so do their bounds
            let some = TOPICS.iter().filter(|_| rng.u8(0..3) == 0).collect::<Vec<_>>();
            let channels = some
                .into_iter()
                .map(|prefix| (prefix.parse().unwrap(), Retention { count: rng.u64(1..12), ..everything() }));
            now = Policy { others: Retention { count: 40, ..everything() }, channels: channels.collect() };
            retentions.set(now.clone());
        }
        for text in FILTERS {
            let filter: Filter = text.parse().unwrap();
            let (first, found) = kept(&history, text).await;
            let due: Vec<u64> = published
                .iter()
                .filter(|(offset, topic)| *offset >= first && filter.matches(topic))
                .map(|(offset, _)| *offset)
                .collect();
            assert_eq!(found, due, "{text} from {first} on");
        }
    }
    // and in the end no channel has more than it may
    for (prefix, retention) in &now.channels {
        let nested: Vec<_> = now.channels.keys().filter(|p| *p != prefix).collect();
        let nearest = |topic: &Topic| {
            topic.levels().find(|l| now.channels.contains_key(&l.parse().unwrap())).map(str::to_owned)
        };
        wait::until(
            &format!("{prefix} to keep {} ({nested:?} below or beside)", retention.count),
            async || {
                let (first, _) = kept(&history, prefix.as_str()).await;
                let own = published.iter().filter(|(offset, topic)| {
                    *offset >= first && nearest(topic).as_deref() == Some(prefix.as_str())
                });
                (own.count() as u64 <= retention.count).then_some(())
            },
        )
        .await;
    }
    node.stop().await;
}

async fn the_last_ones_begin_where_everything_is_there(home: Home) {
    let (_backend, journal) = home.open().await;
    let retentions = Retentions::new(policy([("a/short", Retention { count: 1, ..everything() })]));
    let node = Node::start_with(&journal, options(&retentions));
    node.begun().await;
    let history = journal.history();
    for topic in ["a/x", "a/x", "a/x", "a/short", "a/short", "a/x"] {
        keep(&history, topic, None, "1").await.unwrap();
    }
    until_first(&history, "a", 5).await;
    let filter: Filter = "a".parse().unwrap();
    for (count, due) in [(0, 6), (1, 5), (2, 4), (3, 4), (5, 4), (100, 4)] {
        let behind = history.before_last(&filter, count).await.unwrap();
        assert_eq!(behind, due, "the last {count}");
        // a subscription can begin there, though the channel beside has older ones
        history.read(&filter, behind, 6, 10, 1 << 20).await.unwrap();
    }
    assert_eq!(history.before_last(&"a/x".parse().unwrap(), 3).await.unwrap(), 1);
    node.stop().await;
}

async fn the_numbers_of_ids_outlive_their_messages(home: Home) {
    let (_backend, journal) = home.open().await;
    let retentions = Retentions::new(policy([("a", Retention { count: 1, ..everything() })]));
    let node = Node::start_with(&journal, options(&retentions));
    node.begun().await;
    let history = journal.history();
    let first_position = keep(&history, "a", Some("x"), "1").await.unwrap();
    keep(&history, "a", Some("y"), "2").await.unwrap();
    until_first(&history, "a", 2).await;
    assert_eq!(keep(&history, "a", Some("x"), "3").await.unwrap(), first_position);
    assert_eq!(kept(&history, "a").await, (2, vec![2]));
    node.stop().await;
}

// A file's commits are signalled to all who share it: nobody lags there until a test looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lags_behind_what_is_let_go_is_told() {
    let home = Home::postgres().await;
    let (_one, journal) = home.open().await;
    let (_two, other) = home.open().await;
    let retentions = Retentions::new(policy([("task", Retention { count: 2, ..everything() })]));
    let node = Node::start_with(&journal, options(&retentions));
    let history = journal.history();
    node.begun().await;
    let before = keep(&history, "task/t/1", None, "0").await.unwrap();
    // it looks once, and again when somebody asks
    let never = Duration::from_secs(3_600);
    let wake = WakeOptions { poll: never, slow_poll: never, ..WakeOptions::default() };
    let upkeep = Retentions::new(policy([("task", everything())]));
    let options = RelayOptions { wake, retention_interval: never, ..options(&upkeep) };
    let lagging = Node::start_with(&other, options);
    lagging.relayed(before.offset).await;
    let mut reader = subscriber(&lagging.bus, "task").await;
    for n in 0..10 {
        keep(&history, "task/t/1", None, &n.to_string()).await.unwrap();
    }
    until_first(&history, "task", 10).await;
    // its own message wakes it, behind what is gone
    keep(&other.history(), "task/t/1", None, "10").await.unwrap();
    let told = loop {
        let frame = wait::within("the end", reader.next()).await.unwrap().unwrap();
        if let Message::Close(close) = frame {
            break close.unwrap().code;
        }
    };
    assert_eq!(u16::from(told), 4000, "no silent skip");
    let again = lagging.bus.resolve(&"task".parse().unwrap(), After::Position(before)).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::OffsetExpired);
    node.stop().await;
    lagging.stop().await;
}

async fn what_is_young_stays(home: Home) {
    let (backend, journal) = home.open().await;
    let one = || Retention { count: 1, ..everything() };
    let retentions = Retentions::new(policy([("a", one()), ("b", one())]));
    let options = RelayOptions { retention_grace: Duration::from_secs(1_800), ..options(&retentions) };
    let node = Node::start_patient(&journal, options);
    let history = journal.history();
    for n in 0..10 {
        keep(&history, if n % 2 == 0 { "a" } else { "b" }, None, "1").await.unwrap();
    }
    home.age(&backend, "b", 8, 3_600).await; // 2, 4, 6, 8
    // what is let go of last shows that rounds came by
    until_first(&history, "b", 9).await;
    assert_eq!(kept(&history, "b").await, (9, vec![10]));
    assert_eq!(kept(&history, "a").await, (1, vec![1, 3, 5, 7, 9]));
    node.stop().await;
}
