//! Reading back: the same bytes as went out live, by every filter, within bounds.

use super::{Fixture, Node, everything, number_all, open, read_all, write};
use crate::support::wait;
use bytes::Bytes;
use futures::StreamExt;
use minium_bus::{HistoryError, Message, Relayed};
use minium_notifier::{EnvelopeOptions, Journal, JournalOptions};
use minium_protocol::{After, Filter, Topic};
use minium_queue::Backend;

fn filter(text: &str) -> Filter {
    text.parse().unwrap()
}

fn events(entries: &[Relayed]) -> Vec<&Bytes> {
    entries.iter().map(|r| &r.event).collect()
}

/// The `data:` lines of an SSE subscription, as many as are due.
async fn live(subscription: &mut minium_bus::Subscription, count: usize) -> Vec<String> {
    let mut text = String::new();
    let lines = |text: &str| -> Vec<String> {
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        whole.lines().filter_map(|l| l.strip_prefix("data: ")).map(str::to_owned).collect()
    };
    loop {
        let got = lines(&text);
        if got.len() >= count {
            return got;
        }
        let chunk = wait::within("an event", subscription.next()).await.expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_back_equals_what_went_out_live_to_the_byte_also_after_a_restart() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let node = Node::start(&fixture.journal);
    node.begun().await;
    let permit = node.bus.admit().unwrap();
    let mut subscription = node.bus.subscribe(filter("task"), None, None, permit).await.unwrap();
    for n in 0..20 {
        write(&client, &[n, n + 1, n + 2], "task.enqueue").await;
    }
    let odd = "insert into minium.entry (topic, type, subject, trace, late, data)
               values ('task/t/1', 'task.late_result', '1', '00-ab-cd-01', '{\"state\": \"failed\"}',
                       '{ \"id\":1,  \"text\" : \"ä\\u00e4 \\\\ \\\"\" }')";
    client.batch_execute(odd).await.unwrap();
    let live_events = live(&mut subscription, 61).await;
    node.relayed(61).await;

    let back = read_all(&*fixture.journal.history(), "task", 7).await;
    assert_eq!(
        live_events,
        back.iter().map(|r| String::from_utf8(r.event.to_vec()).unwrap()).collect::<Vec<_>>()
    );
    assert!(
        live_events[60].ends_with(r#","data":{ "id":1,  "text" : "ä\u00e4 \\ \"" }}"#),
        "{}",
        live_events[60]
    );

    // resumed in the middle: what is missing, in order, then live, without a seam
    let start = node.bus.resolve(&filter("task"), After::Offset(30)).await.unwrap();
    let permit = node.bus.admit().unwrap();
    let mut resumed = node.bus.subscribe(filter("task"), start, None, permit).await.unwrap();
    assert_eq!(live(&mut resumed, 31).await, live_events[30..]);

    let (_backend, again) = open(fixture.database.url()).await;
    assert_eq!(events(&read_all(&*again.history(), "task", 1_000).await), events(&back));
    node.stop().await;
}

#[tokio::test]
async fn every_filter_finds_exactly_what_it_matches_however_it_is_looked_for() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    // one task with many events, one with few, one below another, and names that must not be mixed up
    let many = "insert into minium.entry (topic, type, subject, data)
                select case when i % 100 = 0 then 'task/rare/' || i when i % 100 = 1 then 'task/t.x/' || i
                            when i % 100 = 2 then 'task/t/sub/' || i when i % 100 = 3 then 'task/tt/' || i
                            when i % 100 = 4 then 'task/t-x/7' else 'task/t/' || i % 700 end,
                       'task.enqueue', i::text, '{}' from generate_series(1, 6000) i";
    client.batch_execute(many).await.unwrap();
    number_all(&client).await;
    let all = read_all(&*fixture.journal.history(), "+", 1_000).await;
    assert_eq!(all.len(), 6_000);
    let filters = [
        "task",
        "task/t",
        "task/rare",
        "task/rare/100",
        "task/t/6",
        "task/t/sub",
        "task/t-x",
        "task/t.x",
        "task/+/7",
        "task/t/+",
        "+/rare",
        "task/+/sub",
        "task/nothing",
        "task/rare/+",
        "+/+/100",
        "livesys",
    ];
    // walked in one go, walked in pieces, and found by the index on topics
    for walk_count_max in [100_000, 1_000, 10] {
        let options = JournalOptions { walk_count_max, ..JournalOptions::default() };
        let journal = Journal::open_with(&fixture.backend, envelope(), options);
        let history = journal.history();
        for text in filters {
            if walk_count_max == 10 && filter(text).fixed_prefix().split('/').count() < 2 {
                continue; // 600 pages of ten each would prove nothing more
            }
            let due: Vec<_> = all.iter().filter(|r| filter(text).matches(&r.topic)).cloned().collect();
            let found = read_all(&*history, text, 100).await;
            assert_eq!(events(&found), events(&due), "{text} walking {walk_count_max}");
        }
    }
}

fn envelope() -> EnvelopeOptions {
    EnvelopeOptions { dataschema: Some("http://h/schemas/job.json".into()), ..EnvelopeOptions::default() }
}

#[tokio::test]
async fn the_last_entries_of_a_filter_begin_behind_the_offset_that_is_told() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    for n in 1..=40 {
        write(&client, &[n % 4], "task.enqueue").await;
    }
    number_all(&client).await;
    let history = fixture.journal.history();
    for (text, count, due) in [
        ("task", 10, 30),
        ("task", 0, 40),
        ("task", 1_000, 0),
        ("task/t/3", 1, 38),
        ("task/t/3", 10, 2),
        ("task/t/3", 11, 0),
        ("task/+/0", 2, 35),
        ("task/nothing", 3, 0),
    ] {
        let before = history.before_last(&filter(text), count).await.unwrap();
        assert_eq!(before, due, "the last {count} of {text}");
        let bounds = history.bounds(&everything()).await.unwrap();
        let page = history.read(&filter(text), before, bounds.last, 1_000, 1 << 20).await.unwrap();
        assert!(page.entries.len() <= count as usize || count == 0);
    }
}

#[tokio::test]
async fn a_page_ends_by_count_and_by_bytes_and_never_stands_still() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let wide = "insert into minium.entry (topic, type, subject, data)
                select 'task/t/' || i, 'task.enqueue', i::text, json_build_object('id', i, 'pad', (
                    select string_agg(md5(random()::text), '') from generate_series(1, 300) where i > 0))
                  from generate_series(1, 20) i";
    client.batch_execute(wide).await.unwrap();
    number_all(&client).await;
    let history = fixture.journal.history();
    let page = history.read(&filter("task"), 0, u64::MAX, 4, 1 << 20).await.unwrap();
    assert_eq!((page.entries.len(), page.scanned_to), (4, 4));
    // one entry is larger than the bound: it comes all the same, alone
    let page = history.read(&filter("task"), 4, u64::MAX, 100, 1_000).await.unwrap();
    assert_eq!((page.entries.len(), page.scanned_to), (1, 5));
    let page = history.read(&filter("task"), 4, u64::MAX, 100, 30_000).await.unwrap();
    assert!((2..10).contains(&page.entries.len()), "{}", page.entries.len());
    assert_eq!(page.scanned_to, 4 + page.entries.len() as u64);
    let page = history.read(&filter("task"), 4, 9, 100, 1 << 20).await.unwrap();
    assert_eq!((page.entries.len(), page.scanned_to), (5, 9));
    let page = history.read(&filter("task"), 20, u64::MAX, 100, 1 << 20).await.unwrap();
    assert_eq!((page.entries.len(), page.scanned_to), (0, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_returning_readers_leaves_connections_for_the_queue() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    write(&client, &(0..2_000).collect::<Vec<_>>(), "task.enqueue").await;
    number_all(&client).await;
    let Backend::Postgres(store) = &fixture.backend else { panic!("the fixture is on PostgreSQL") };
    let history = fixture.journal.history();
    let readers: Vec<_> =
        (0..1_000)
            .map(|n| {
                let history = history.clone();
                async move {
                    history.read(&filter("task"), n, u64::MAX, 100, 1 << 20).await.unwrap().entries.len()
                }
            })
            .collect();
    let mut crowd = Box::pin(futures::future::join_all(readers));
    let mut least_free = usize::MAX;
    let read = wait::within("the crowd", async {
        loop {
            tokio::select! {
                biased;
                read = &mut crowd => return read,
                () = tokio::task::yield_now() => {
                    let status = store.pool().status();
                    least_free = least_free.min(status.max_size - (status.size - status.available));
                }
            }
        }
    })
    .await;
    assert!(read.iter().all(|n| *n == 100));
    assert!(least_free >= 4, "only {least_free} connections were left");
}

#[tokio::test]
async fn what_is_no_longer_kept_is_never_skipped_in_silence() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    write(&client, &(0..10).collect::<Vec<_>>(), "task.enqueue").await;
    number_all(&client).await;
    let trim = "select minium.journal_count(100);
                select minium.journal_trim('', '-infinity', 4, 1000000000, 'infinity', 10, 100)";
    client.batch_execute(trim).await.unwrap();
    let history = fixture.journal.history();
    for text in ["task", "task/t/8", "task/+/8"] {
        let expired = history.read(&filter(text), 5, u64::MAX, 10, 1 << 20).await;
        assert!(matches!(expired, Err(HistoryError::Expired { first: 7 })), "{text}: {expired:?}");
        assert!(history.read(&filter(text), 6, u64::MAX, 10, 1 << 20).await.is_ok());
    }
    assert_eq!(history.before_last(&filter("task"), 100).await.unwrap(), 6);
}

#[tokio::test]
async fn a_database_that_is_gone_is_said_to_be_unavailable() {
    let url = "postgres:///nothing?host=/nowhere&user=nobody";
    let backend = Backend::open(&url.parse().unwrap()).await.unwrap();
    let journal = Journal::open(&backend, envelope());
    assert!(matches!(journal.history().bounds(&everything()).await, Err(HistoryError::Unavailable(_))));
}

/// What the peers of a bus topic hear, over a real socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_the_minion_topic_hear_four_kinds_of_transitions_in_order() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let topic: Topic = "minion".parse().unwrap();
    let options = minium_notifier::RelayOptions { minion_topic: Some(topic.clone()), ..Default::default() };
    let node = Node::start_with(&fixture.journal, options);
    node.begun().await;
    let mut peer = super::peer(&node.bus, &topic).await;
    node.bus.send(&topic, Message::Text("hello".into())).await.unwrap();
    assert_eq!(super::heard(&mut peer).await, "hello", "the peer is there");
    for kind in ["enqueue", "dequeue", "progress", "failed", "retry", "dequeue", "finished", "removed"] {
        write(&client, &[42], &format!("task.{kind}")).await;
    }
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(super::heard(&mut peer).await);
    }
    let words = ["enqueue", "dequeue", "failed", "dequeue", "finished"];
    assert_eq!(heard, words.map(|word| format!("[42,\"{word}\"]")));
    node.stop().await;
}
