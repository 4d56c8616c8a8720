//! Durable topics: history, live, and the joint between them. Nothing is lost and nothing comes twice.

use crate::client::{Client, within};
use crate::node::{EPOCH, Node, event, offset_of};
use minium_bus::{Channel, Options, Slow, Start};
use minium_protocol::{After, ErrorCode, Filter, Position};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

async fn expect_range(c: &mut Client, offsets: impl Iterator<Item = u64>) {
    for offset in offsets {
        c.expect(&event(offset)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_resumed_from_history_and_goes_on_live_the_same_in_every_mode() {
    let node = Node::with(Options { page_count_max: 7, ..Options::default() }).await;
    node.journal.append("task/a/1", 50);
    node.begin().await;
    let mut plain = node.open(&format!("/sub/task?after={EPOCH}:10")).await;
    let mut events = node.events("/sub/task/a?after=10").await;
    let mut sse = node.sse("task/+/1", "7:10").await;
    let mut live = node.open("/sub/task").await;
    let mut other = node.open("/sub/task/b?after=earliest").await;
    node.append("task/a/1", 10).await;
    node.append("task/b/1", 1).await;
    expect_range(&mut plain, 11..=61).await;
    expect_range(&mut events, 11..=60).await;
    sse.expect("id: 7:10").await;
    for offset in 11..=61 {
        sse.expect(&format!("id: 7:{offset}\ndata: {}", event(offset))).await;
    }
    expect_range(&mut live, 51..=61).await;
    expect_range(&mut other, 61..=61).await;
    for c in [&mut plain, &mut events, &mut live, &mut other] {
        c.nothing_else().await;
    }
    assert!(node.journal.reads() >= 3 * 40 / 7, "history was not read in pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_resumed_names_no_positions() {
    let node = Node::start().await;
    node.begin().await;
    let (mut wild, mut resumable) = (node.sse("+/a", "latest").await, node.sse("task/a", "latest").await);
    resumable.expect("id: 7:0").await;
    node.append("task/a/1", 2).await;
    for offset in 1..=2 {
        wild.expect(&format!("data: {}", event(offset))).await;
        resumable.expect(&format!("id: 7:{offset}\ndata: {}", event(offset))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_who_resume_under_a_relay_at_full_speed_get_every_offset_once() {
    const RESUMERS: u64 = 200;
    const LAST: u64 = 10_000;
    // rings so small that some are overtaken while they read history
    let node = Arc::new(Node::with(Options { ring_bytes_max: 128 << 10, ..Options::default() }).await);
    node.begin().await;
    let relayed = Arc::new(AtomicU64::new(0));
    let relaying = tokio::spawn({
        let (node, relayed) = (node.clone(), relayed.clone());
        async move {
            while relayed.load(SeqCst) < LAST {
                node.append("task/x/1", 50).await;
                relayed.fetch_add(50, SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let mut resuming = tokio::task::JoinSet::new();
    for n in 0..RESUMERS {
        let (node, relayed) = (node.clone(), relayed.clone());
        resuming.spawn(async move {
            // they come in as the relay goes
            let turn = LAST * n / RESUMERS;
            within(async {
                while relayed.load(SeqCst) < turn {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let from = turn - turn.min(n * 37 % 3_000);
            let mode = ["", "cloudevents.json"][n as usize % 2];
            let mut c = node.open_as(&format!("/sub/task?after={from}"), mode, None).await;
            for offset in from + 1..=LAST {
                let got = offset_of(&c.heard().await);
                assert_eq!(got, offset, "resumer {n} from {from}");
            }
            c.nothing_else().await;
        });
    }
    while let Some(done) = resuming.join_next().await {
        done.unwrap();
    }
    relaying.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_runs_over_while_history_is_read_moves_the_joint() {
    let node =
        Node::with(Options { ring_bytes_max: 128 << 10, page_count_max: 50, ..Options::default() }).await;
    node.journal.append("task/x/1", 100);
    node.begin().await;
    node.journal.set_open(false);
    let mut plain = node.open("/sub/task?after=30").await;
    let mut sse = node.sse("task/x", "30").await;
    within(async {
        while node.journal.reads() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // far more than the ring holds, several times over
    for _ in 0..60 {
        node.append("task/x/1", 100).await;
    }
    node.journal.set_open(true);
    expect_range(&mut plain, 31..=6_100).await;
    sse.expect("id: 7:30").await;
    for offset in 31..=6_100 {
        sse.expect(&format!("id: 7:{offset}\ndata: {}", event(offset))).await;
    }
    node.append("task/x/1", 1).await;
    expect_range(&mut plain, 6_101..=6_101).await;
    plain.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_reads_of_history_run_at_once_than_allowed() {
    let node = Node::with(Options { replays_max: 3, ..Options::default() }).await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    node.journal.set_open(false);
    let mut clients = Vec::new();
    for n in 0..10 {
        // each wants another page
        clients.push(node.open(&format!("/sub/task?after={n}")).await);
    }
    within(async {
        while node.journal.reads() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for c in &mut clients {
        c.nothing_else().await; // everybody had a turn
    }
    assert_eq!(node.journal.reads(), 3);
    node.journal.set_open(true);
    for (n, c) in (0..).zip(&mut clients) {
        expect_range(c, n + 1..=10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_return_at_once_share_the_reads_of_the_store() {
    let node = Node::with(Options { page_count_max: 100, ..Options::default() }).await;
    node.journal.append("task/x/1", 1_000);
    node.begin().await;
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        clients.push(node.open("/sub/task?after=100").await);
    }
    for c in &mut clients {
        expect_range(c, 101..=1_000).await;
    }
    // nine pages; a few more where somebody came between the end of one and the beginning of the next
    assert!(node.journal.reads() <= 20, "{} reads", node.journal.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_a_moment_is_served_from_memory() {
    let node = Node::start().await;
    node.begin().await;
    node.append("task/x/1", 100).await;
    let mut c = node.open("/sub/task?after=40").await;
    expect_range(&mut c, 41..=100).await;
    node.append("task/x/1", 1).await;
    expect_range(&mut c, 101..=101).await;
    assert_eq!(node.journal.reads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_history_is_read_is_gone() {
    let node = Node::start().await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    node.journal.set_open(false);
    let c = node.open("/sub/task?after=0").await;
    let stream = node.sse("task", "0").await;
    drop(stream);
    c.leave().await;
    node.until(|stats| stats.sessions == 0).await;
    node.journal.set_open(true);
    let mut c = node.open("/sub/task?after=5").await;
    expect_range(&mut c, 6..=10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_behind_the_ring_reads_on_from_history_and_joins_again() {
    const COUNT: u64 = 60_000;
    let node = Node::with(Options { ring_bytes_max: 128 << 10, ..Options::default() }).await;
    node.begin().await;
    let mut slow = node.narrow("/sub/task").await;
    let mut stream = node.sse("task", "latest").await;
    stream.expect("id: 7:0").await;
    for _ in 0..COUNT / 100 {
        node.append("task/y/1", 100).await;
    }
    expect_range(&mut slow, 1..=COUNT).await;
    for offset in 1..=COUNT {
        stream.expect(&format!("id: 7:{offset}\ndata: {}", event(offset))).await;
    }
    assert!(node.journal.reads() > 0, "nobody was behind");
    // and live again
    node.append("task/y/1", 3).await;
    expect_range(&mut slow, COUNT + 1..=COUNT + 3).await;
    slow.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_subscribers_of_durable_topics_may_be_closed_instead() {
    let options = Options { ring_bytes_max: 128 << 10, ..Options::default() };
    let closed = Channel { slow: Slow::Close, ..Channel::tasks() };
    let node = Node::with_channels(options, vec![closed]).await;
    node.begin().await;
    let mut slow = node.narrow("/sub/task").await;
    for _ in 0..400 {
        node.append("task/y/1", 100).await;
    }
    let mut next = 1;
    let code = loop {
        let (opcode, body) = slow.next().await.unwrap();
        if opcode == crate::client::CLOSE {
            break u16::from_be_bytes([body[0], body[1]]);
        }
        assert_eq!(offset_of(std::str::from_utf8(&body).unwrap()), next);
        next += 1;
    };
    assert_eq!(code, 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_pruned_meanwhile_closes_with_4000_and_says_so() {
    let node = Node::start().await;
    node.journal.append("task/a/1", 100);
    node.begin().await;
    let filter: Filter = "task".parse().unwrap();
    let start = node.bus.resolve(&filter, After::Offset(10)).await.unwrap();
    node.journal.prune(50); // between the answer and the reading
    let permit = node.bus.admit().unwrap();
    let mut s = crate::node::Events::of(node.bus.subscribe(filter, start, None, permit).await.unwrap());
    s.expect("id: 7:10").await;
    let end = s.next().await.unwrap();
    assert!(end.contains("4000") && end.contains("offset_expired") && end.contains("51"), "{end}");
    assert_eq!(s.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_breaks_down_ends_replays_with_1011_and_nobody_else() {
    let node = Node::start().await;
    node.journal.append("task/a/1", 100);
    node.begin().await;
    let mut live = node.open("/sub/task").await;
    node.journal.break_down();
    let mut c = node.open("/sub/task?after=1").await;
    assert_eq!(c.closed().await.0, 1011);
    node.append("task/a/1", 1).await;
    expect_range(&mut live, 101..=101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_read_failed_is_asked_for_again_by_the_next() {
    let patience = std::time::Duration::from_secs(1);
    let node = Node::with(Options { outside_patience: patience, ..Options::default() }).await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    node.journal.panic_once();
    let mut c = node.open("/sub/task?after=0").await;
    assert_eq!(c.closed().await.0, 1011);
    node.journal.set_open(false); // it does not answer
    let mut c = node.open("/sub/task?after=0").await;
    assert_eq!(c.closed().await.0, 1011);
    node.journal.set_open(true);
    let mut c = node.open("/sub/task?after=0").await;
    expect_range(&mut c, 1..=10).await;
    assert_eq!(node.journal.reads(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_judged_before_anything_is_answered() {
    let node = Node::start().await;
    let task: Filter = "task/x".parse().unwrap();
    let code = |filter: &str, after: After| {
        let (bus, filter): (_, Filter) = (node.bus.clone(), filter.parse().unwrap());
        async move { bus.resolve(&filter, after).await.map_err(|p| (p.code, p.earliest)) }
    };
    assert_eq!(code("task", After::Earliest).await, Err((ErrorCode::Unavailable, None)));
    assert_eq!(code("task", After::Latest).await, Ok(None));
    node.journal.append("task/x/1", 30);
    node.journal.append("task/y/1", 30);
    node.begin().await;
    assert_eq!(node.bus.stats().relayed, Some(Position { epoch: EPOCH, offset: 60 }));
    node.journal.prune(20);
    let begins = |after| Ok(Some(Start { epoch: EPOCH, after }));
    assert_eq!(code("task", After::Earliest).await, begins(20));
    assert_eq!(code("task", After::Offset(20)).await, begins(20));
    assert_eq!(code("task", After::Position(Position { epoch: EPOCH, offset: 60 })).await, begins(60));
    assert_eq!(
        node.bus.resolve(&task, After::Last(3)).await.unwrap(),
        Some(Start { epoch: EPOCH, after: 27 })
    );
    assert_eq!(code("task", After::Last(0)).await, begins(60));
    let earliest = Some("7:20".to_owned());
    assert_eq!(code("task", After::Offset(19)).await, Err((ErrorCode::OffsetExpired, earliest.clone())));
    assert_eq!(code("task", After::Offset(61)).await, Err((ErrorCode::EpochChanged, earliest.clone())));
    let old = After::Position(Position { epoch: 6, offset: 30 });
    assert_eq!(code("task", old).await, Err((ErrorCode::EpochChanged, earliest)));
    assert_eq!(code("livesys", After::Earliest).await, Err((ErrorCode::InvalidRequest, None)));
    assert_eq!(code("+/x", After::Last(1)).await, Err((ErrorCode::InvalidRequest, None)));
    assert!(node.refused("/sub/task?after=3").await.contains("410"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_so_many_come_and_then_what_is_new() {
    let node = Node::start().await;
    node.journal.append("task/x/1", 30);
    node.begin().await;
    let filter: Filter = "task".parse().unwrap();
    let start = node.bus.resolve(&filter, After::Last(2)).await.unwrap();
    let permit = node.bus.admit().unwrap();
    let mut s = crate::node::Events::of(node.bus.subscribe(filter, start, None, permit).await.unwrap());
    node.append("task/x/1", 1).await;
    s.expect("id: 7:28").await;
    for offset in 29..=31 {
        s.expect(&format!("id: 7:{offset}\ndata: {}", event(offset))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_more_than_was_relayed_yet_gets_only_what_it_does_not_know() {
    let node = Node::start().await;
    node.begin().await;
    let early = node.journal.append("task/x/1", 20); // another node relayed these already
    let mut ahead = node.open("/sub/task?after=15").await;
    let mut live = node.open("/sub/task").await;
    let (first, rest) = early.split_at(9);
    node.bus.relay(first.to_vec()).await;
    expect_range(&mut live, 1..=9).await;
    ahead.nothing_else().await;
    node.bus.relay(rest.to_vec()).await;
    expect_range(&mut ahead, 16..=20).await;
    node.append("task/x/1", 1).await;
    expect_range(&mut ahead, 21..=21).await;
    expect_range(&mut live, 10..=21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_relayed_twice_comes_once() {
    let node = Node::start().await;
    node.begin().await;
    let mut s = node.open("/sub/task").await;
    let batch = node.journal.append("task/x/1", 10);
    node.bus.relay(batch.clone()).await;
    node.bus.relay_from(Position { epoch: EPOCH, offset: 5 }).await; // the relay begins again
    node.bus.relay(batch[5..].to_vec()).await;
    node.append("task/x/1", 1).await;
    expect_range(&mut s, 1..=11).await;
    s.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_leaves_something_out_does_not_do_so_in_silence() {
    let node = Node::start().await;
    node.begin().await;
    let mut s = node.open("/sub/task").await;
    let mut free = node.open("/sub/free").await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    assert_eq!(s.closed().await.0, 4000);
    free.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_numbering_is_followed_live_and_ends_replays_of_the_old_one() {
    let node = Node::start().await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    let filter: Filter = "task".parse().unwrap();
    let start = node.bus.resolve(&filter, After::Offset(0)).await.unwrap();
    let mut live = node.open("/sub/task").await;
    node.bus.relay_from(Position { epoch: EPOCH + 1, offset: 10 }).await;
    let permit = node.bus.admit().unwrap();
    let mut s =
        crate::node::Events::of(node.bus.subscribe(filter.clone(), start, None, permit).await.unwrap());
    s.next().await.unwrap(); // where it stands
    assert!(s.next().await.unwrap().contains("epoch_changed"));
    let mut batch = node.journal.append("task/x/1", 1);
    batch[0].position.epoch = EPOCH + 1;
    node.bus.relay(batch).await;
    live.expect(&event(11)).await;
    // the journal of this test still counts by the old numbering: positions wait until both agree
    assert_eq!(node.bus.resolve(&filter, After::Earliest).await.unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_value_of_a_topic_comes_from_memory() {
    let node = Node::with(Options { recent_bytes_max: 1, ..Options::default() }).await;
    node.begin().await;
    node.append("task/a/1", 3).await;
    node.append("task/b/1", 200).await;
    let subscribe = async |filter: &str| {
        let filter: Filter = filter.parse().unwrap();
        let start = node.bus.resolve(&filter, After::Last(1)).await.unwrap();
        let permit = node.bus.admit().unwrap();
        crate::node::Events::of(node.bus.subscribe(filter, start, None, permit).await.unwrap())
    };
    let mut a = subscribe("task/a").await;
    a.expect("id: 7:2").await;
    a.expect(&format!("id: 7:3\ndata: {}", event(3))).await;
    let mut all = subscribe("task").await;
    all.expect("id: 7:202").await;
    all.expect(&format!("id: 7:203\ndata: {}", event(203))).await;
    node.append("task/a/1", 1).await;
    for s in [&mut a, &mut all] {
        s.expect(&format!("id: 7:204\ndata: {}", event(204))).await;
    }
    assert_eq!(node.journal.reads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_the_beginning_of_a_new_numbering_is_told() {
    let node = Node::start().await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    let mut live = node.open("/sub/task").await;
    let mut free = node.open("/sub/free").await;
    // another node numbered eleven to thirteen anew, and this one goes on behind them
    node.bus.relay_from(Position { epoch: EPOCH + 1, offset: 13 }).await;
    assert_eq!(live.closed().await, (4000, "epoch_changed".to_owned()));
    free.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_ahead_of_the_relay_doubles_nothing_of_overlapping_subscriptions() {
    let node = Node::with(Options { recent_bytes_max: 1, ..Options::default() }).await;
    node.journal.append("task/x/1", 50);
    node.begin().await;
    let behind = node.journal.append("task/x/1", 10); // another node relays these already
    let mut c = node.v1("/sub/task/x").await;
    assert_eq!(c.json().await["offset"], 50);
    c.text(r#"{"op":"sub","topic":"task","after":40}"#).await;
    assert_eq!(c.json().await["offset"], 40);
    for offset in 41..=50 {
        assert_eq!(c.json().await["offset"], offset);
    }
    assert_eq!(c.json().await["op"], "caught_up");
    node.bus.relay(behind).await;
    for offset in 51..=60 {
        assert_eq!(c.json().await["offset"], offset);
    }
    c.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_numbering_that_begins_anew_while_a_position_is_judged_is_told_with_where_to_begin() {
    let node = Node::start().await;
    node.journal.append("task/a/1", 5);
    node.begin().await;
    let mut c = node.v1("/ws").await;
    node.journal.set_answering(false);
    let asked = node.journal.next_question();
    c.text(&format!(r#"{{"op":"sub","topic":"task","after":"{EPOCH}:2"}}"#)).await;
    within(asked).await;
    node.bus.relay_from(Position { epoch: EPOCH + 1, offset: 5 }).await;
    // both shards know of it
    for _ in 0..2 {
        let mut other = node.v1("/ws").await;
        other.text(r#"{"op":"sub","topic":"task"}"#).await;
        while other.json().await["epoch"] != EPOCH + 1 {
            other.text(r#"{"op":"unsub","topic":"task"}"#).await;
            assert_eq!(other.json().await["op"], "ok");
            other.text(r#"{"op":"sub","topic":"task"}"#).await;
        }
    }
    node.journal.set_answering(true);
    let problem = c.json().await["problem"].clone();
    assert_eq!((&problem["code"], &problem["retryable"]), (&"unavailable".into(), &true.into()), "{problem}");
}
