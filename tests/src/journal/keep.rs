//! Messages of clients, kept: the same promises on PostgreSQL and on SQLite.

use super::home::{Home, draft, keep, on_both};
use super::{Node, read_all};
use crate::support::wait;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use minium_bus::Draft;
use minium_notifier::KeepOptions;
use minium_protocol::{CloudEvent, ErrorCode, Position};
use minium_queue::Backend;
use std::collections::HashSet;

on_both! {
    messages_read_back_as_they_went_out
    one_call_keeps_its_order_and_many_calls_share_commits
    a_repeated_id_is_the_same_message
    one_id_at_once_from_everywhere_is_one_message
    what_cannot_be_kept_is_refused_whole
}

async fn messages_read_back_as_they_went_out(home: Home) {
    let (backend, journal) = home.open().await;
    let node = Node::start(&journal);
    let epoch = node.begun().await.epoch;
    let mut live = super::subscriber(&node.bus, "news").await;
    let history = journal.history();
    let texts = [r#"{"a":1}"#, r#""text""#, "null", "[1,\n 2]", " {\"é\": \"\\u0000\"} \n"];
    let drafts = texts.iter().map(|text| draft("news/local", None, *text)).collect();
    let positions = wait::within("messages to be kept", history.keep(drafts)).await.unwrap();
    let due: Vec<_> = (1..=5).map(|offset| Position { epoch, offset }).collect();
    assert_eq!(positions, due);

    let read = read_all(&*history, "news", 2).await;
    assert_eq!(read.iter().map(|r| r.position).collect::<Vec<_>>(), due);
    for (relayed, text) in read.iter().zip(texts) {
        let event: CloudEvent = serde_json::from_slice(&relayed.event).unwrap();
        assert_eq!((event.kind.as_str(), event.subject.as_deref()), ("message", Some("news/local")));
        assert_eq!(event.position(), Some(relayed.position));
        assert_eq!(uuid::Uuid::parse_str(&event.id).unwrap().get_version_num(), 7);
        let one_line = text.trim().replace('\n', " ");
        let end = format!(",\"data\":{one_line}}}");
        assert!(relayed.event.ends_with(end.as_bytes()), "as it was published, on one line: {event:?}");
        let data = relayed.data.as_ref().unwrap();
        assert_eq!(data, one_line.as_bytes());
        let (whole, part) = (relayed.event.as_ptr_range(), data.as_ptr_range());
        assert!(whole.start <= part.start && part.end <= whole.end, "no copy");
        let frame = wait::within("a frame", live.next()).await.unwrap().unwrap();
        assert_eq!(frame.into_data(), relayed.event, "live and read back");
    }
    node.stop().await;
    drop((backend, journal, history));
    let (_backend, journal) = home.open().await;
    let again = read_all(&*journal.history(), "news", 100).await;
    assert_eq!(
        again.iter().map(|r| &r.event).collect::<Vec<_>>(),
        read.iter().map(|r| &r.event).collect::<Vec<_>>(),
        "after a restart"
    );
}

async fn one_call_keeps_its_order_and_many_calls_share_commits(home: Home) {
    // so small that calls are put off to the next commit again and again, and one call is larger than a commit
    let options = KeepOptions { commit_count_max: 7, queue_count_max: 2, ..KeepOptions::default() };
    let (_backend, journal) = home.open_with(options).await;
    let node = Node::start(&journal);
    node.begun().await;
    let history = journal.history();
    let callers = (0..20).map(|caller| {
        let history = history.clone();
        async move {
            let mut positions = Vec::new();
            for call in 0..5 {
                let drafts = (0..=caller).map(|n| draft("t", None, format!("[{caller},{call},{n}]")));
                positions.extend(history.keep(drafts.collect()).await.unwrap());
            }
            positions
        }
    });
    let acked = wait::within("all callers", join_all(callers)).await;
    let read = read_all(&*history, "t", 100).await;
    assert_eq!(read.len(), 5 * (1..=20).sum::<usize>());
    for (caller, positions) in acked.iter().enumerate() {
        let own: Vec<_> = read.iter().filter(|r| positions.contains(&r.position)).collect();
        let said: Vec<_> = own.iter().map(|r| std::str::from_utf8(r.message()).unwrap().to_owned()).collect();
        let due: Vec<_> =
            (0..5).flat_map(|call| (0..=caller).map(move |n| format!("[{caller},{call},{n}]"))).collect();
        assert_eq!(said, due, "in the order in which they were published, each where its answer says");
        assert!(positions.is_sorted_by_key(|p| p.offset));
    }
    let distinct: HashSet<_> = acked.iter().flatten().map(|p| p.offset).collect();
    assert_eq!(distinct.len(), read.len(), "no offset twice");
    node.stop().await;
}

async fn a_repeated_id_is_the_same_message(home: Home) {
    let (backend, journal) = home.open().await;
    let node = Node::start(&journal);
    node.begun().await;
    let history = journal.history();
    let first = keep(&history, "a", Some("x"), "1").await.unwrap();
    assert_eq!(keep(&history, "a", Some("x"), "2").await.unwrap(), first);
    assert_ne!(keep(&history, "b", Some("x"), "3").await.unwrap(), first, "an id is of one topic");
    // known ones among new ones, and one twice in a call
    let drafts = vec![
        draft("a", Some("y"), "4"),
        draft("a", Some("x"), "5"),
        draft("a", None, "6"),
        draft("a", Some("y"), "7"),
        draft("a", None, "6"),
    ];
    let kept = history.keep(drafts).await.unwrap();
    assert_eq!((kept[1], kept[3]), (first, kept[0]));
    let said = |read: &[minium_bus::Relayed]| -> Vec<String> {
        read.iter().map(|r| String::from_utf8(r.message().to_vec()).unwrap()).collect()
    };
    assert_eq!(said(&read_all(&*history, "a", 100).await), ["1", "4", "6", "6"]);
    node.stop().await;
    drop((journal, history, backend));

    let (backend, journal) = home.open().await;
    let node = Node::start(&journal);
    node.begun().await;
    let history = journal.history();
    assert_eq!(keep(&history, "a", Some("x"), "8").await.unwrap(), first, "after a restart");
    home.age_ids(&backend, 119).await;
    assert_eq!(keep(&history, "a", Some("x"), "9").await.unwrap(), first, "within two minutes of the first");
    home.age_ids(&backend, 2).await;
    let second = keep(&history, "a", Some("x"), "10").await.unwrap();
    assert!(second.offset > first.offset, "two minutes later it is another message");
    assert_eq!(keep(&history, "a", Some("x"), "11").await.unwrap(), second, "which is remembered in turn");
    assert_eq!(said(&read_all(&*history, "a", 100).await), ["1", "4", "6", "6", "10"]);
    node.stop().await;
}

async fn one_id_at_once_from_everywhere_is_one_message(home: Home) {
    let (_one, journal) = home.open().await;
    let (_two, other) = home.open().await;
    let nodes = [Node::start(&journal), Node::start(&other)];
    let histories = [journal.history(), other.history()];
    for node in &nodes {
        node.begun().await;
    }
    for round in 0..10 {
        let ids = [format!("{round}-a"), format!("{round}-b")];
        // each call has both ids; every other one the other way round
        let calls = (0..40).map(|n| {
            let (history, ids) = (histories[n % 2].clone(), ids.clone());
            let mut drafts: Vec<_> = ids.iter().map(|id| draft("t", Some(id), format!("{n}"))).collect();
            if n % 3 == 0 {
                drafts.reverse();
            }
            async move {
                let mut kept = history.keep(drafts).await.unwrap();
                if n % 3 == 0 {
                    kept.reverse();
                }
                kept
            }
        });
        let kept = wait::within("all calls", join_all(calls)).await;
        assert!(kept.iter().all(|k| *k == kept[0]), "{kept:?}");
    }
    assert_eq!(read_all(&*histories[0], "t", 100).await.len(), 20);
    for node in nodes {
        node.stop().await;
    }
}

async fn what_cannot_be_kept_is_refused_whole(home: Home) {
    let options = KeepOptions { call_count_max: 3, ..KeepOptions::default() };
    let (_backend, journal) = home.open_with(options).await;
    let node = Node::start(&journal);
    node.begun().await;
    let history = journal.history();
    let good = || draft("t", Some("good"), "1");
    let long = "x".repeat(256);
    for bad in [draft("t", Some(""), "1"), draft("t", Some(&long), "1"), draft("t", Some("a\0"), "1")] {
        let refused = history.keep(vec![good(), bad]).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
    }
    let binary = Draft { data: Bytes::from_static(b"\"\xff\""), ..good() };
    assert_eq!(history.keep(vec![good(), binary]).await.unwrap_err().code, ErrorCode::InvalidJson);
    let many = history.keep(vec![good(), good(), good(), good()]).await.unwrap_err();
    assert_eq!(many.code, ErrorCode::InvalidRequest);
    assert_eq!(history.keep(Vec::new()).await.unwrap(), []);
    assert_eq!(read_all(&*history, "t", 100).await.len(), 0);
    let longest = "x".repeat(255);
    keep(&history, "t", Some(&longest), "1").await.unwrap();
    assert_eq!(read_all(&*history, "t", 100).await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_room_makes_it_well_again() {
    let home = Home::sqlite().await;
    let (backend, journal) = home.open().await;
    let Backend::Sqlite(store) = &backend else { panic!("a file is SQLite") };
    let limit = |pages: &'static str| async move {
        let sql = format!("pragma max_page_count = {pages}");
        store.call(move |conn| conn.query_row(&sql, [], |_| Ok(()))).await.unwrap().unwrap();
    };
    let history = journal.history();
    let first = keep(&history, "t", Some("1"), "1").await.unwrap();
    limit("1").await; // no fewer than there are
    let large = format!("\"{}\"", "x".repeat(100_000));
    let full = keep(&history, "t", Some("2"), &large).await.unwrap_err();
    assert_eq!((full.code, full.retryable), (ErrorCode::StorageFull, true));
    limit("1000000").await;
    let second = keep(&history, "t", Some("2"), &large).await.unwrap();
    assert_eq!(second.offset, first.offset + 1);
    assert_eq!(read_all(&*history, "t", 100).await.len(), 2);
}
