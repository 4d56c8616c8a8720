//! `minium.v1`: many topics on one socket, in order, each message once.

use crate::client::{BINARY, CLOSE, Client, TEXT, frame, within};
use crate::node::{EPOCH, Node, event};
use minium_bus::{Channel, Options, Slow};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

async fn ask(c: &mut Client, frame: Value) {
    c.text(&frame.to_string()).await;
}

/// Asks, and expects this answer next.
async fn done(c: &mut Client, frame: Value, answer: Value) {
    ask(c, frame.clone()).await;
    assert_eq!(c.json().await, answer, "{frame}");
}

fn msg(topic: &str, data: &Value) -> Value {
    json!({ "op": "msg", "topic": topic, "data": data })
}

fn durable(name: &str) -> Channel {
    Channel::durable(name.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_subscribes_and_publishes_many_topics_and_overlapping_filters_give_one_copy() {
    let node = Node::start().await;
    let mut c = node.v1("/ws").await;
    done(&mut c, json!({"op":"sub","topic":"a","ref":"1"}), json!({"op":"ok","ref":"1"})).await;
    done(&mut c, json!({"op":"sub","topic":"a/+","ref":"2"}), json!({"op":"ok","ref":"2"})).await;
    done(&mut c, json!({"op":"sub","topic":"b"}), json!({"op":"ok"})).await;
    let mut other = node.open("/sub/a").await;
    let mut p = node.v1("/pub/a/x").await;
    done(&mut p, json!({"op":"pub","data":{"n":1},"ref":"p"}), json!({"op":"ok","ref":"p"})).await;
    done(&mut p, json!({"op":"pub","topic":"b","data":"text"}), json!({"op":"ok"})).await;
    done(&mut p, json!({"op":"pub","topic":"c","data":1}), json!({"op":"ok"})).await;
    assert_eq!(c.json().await, msg("a/x", &json!({"n":1})));
    assert_eq!(c.json().await, msg("b", &json!("text")));
    other.expect(r#"{"n":1}"#).await;
    done(&mut c, json!({"op":"unsub","topic":"a"}), json!({"op":"ok"})).await;
    ask(&mut p, json!({"op":"pub","data":2})).await;
    assert_eq!(c.json().await, msg("a/x", &json!(2)), "a/+ is still there");
    done(&mut c, json!({"op":"unsub","topic":"a/+"}), json!({"op":"ok"})).await;
    ask(&mut p, json!({"op":"pub","data":3})).await;
    ask(&mut p, json!({"op":"pub","topic":"b","data":4})).await;
    assert_eq!(c.json().await, msg("b", &json!(4)));
    done(&mut c, json!({"op":"ping","ref":"x"}), json!({"op":"pong","ref":"x"})).await;
    c.nothing_else().await;
    node.publish("b", "plain").await;
    assert_eq!(c.json().await, msg("b", &json!("plain")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_answered_and_what_is_no_frame_ends_the_session() {
    let node = Node::start().await;
    node.schema("sub/strict.json", r#"{"type":"object"}"#);
    let mut c = node.v1("/ws").await;
    for (frame, code) in [
        (json!({"op":"sub","topic":"a//b","ref":"r"}), "topic_invalid"),
        (json!({"op":"sub","ref":"r"}), "invalid_request"),
        (json!({"op":"nothing","ref":"r"}), "invalid_request"),
        (json!({"op":"sub","topic":"a","after":"1:1","ref":"r"}), "invalid_request"),
        (json!({"op":"unsub","topic":"a","ref":"r"}), "not_found"),
        (json!({"op":"pub","topic":"strict","data":[],"ref":"r"}), "schema_violation"),
        (json!({"op":"pub","topic":"task/x","data":{},"ref":"r"}), "forbidden"),
        (json!({"op":"send","topic":"a","data":1,"ref":"r"}), "invalid_request"),
        (json!({"op":"push","topic":"a","data":1,"options":{"priority":1},"ref":"r"}), "invalid_request"),
    ] {
        ask(&mut c, frame.clone()).await;
        let answer = c.json().await;
        assert_eq!(answer["problem"]["code"], code, "{frame} {answer}");
        assert_eq!((&answer["op"], &answer["ref"]), (&json!("error"), &json!("r")));
    }
    done(&mut c, json!({"op":"sub","topic":"a"}), json!({"op":"ok"})).await;
    ask(&mut c, json!({"op":"sub","topic":"a"})).await;
    assert_eq!(c.json().await["problem"]["code"], "conflict");
    for (opcode, body) in [(TEXT, &b"hello"[..]), (TEXT, b"[1]"), (BINARY, br#"{"op":"ping"}"#)] {
        let mut c = node.v1("/ws").await;
        c.say(&frame(opcode, body)).await;
        assert_eq!(c.closed().await.0, 4500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_names_the_topic_and_implies_the_first_op() {
    let node = Node::start().await;
    node.begin().await;
    node.append("task/a/1", 3).await;
    let mut live = node.v1("/sub/task").await;
    assert_eq!(live.json().await, json!({"op":"ok","epoch":EPOCH,"offset":3}));
    let mut resumed = node.v1("/sub/task?after=1").await;
    assert_eq!(resumed.json().await, json!({"op":"ok","epoch":EPOCH,"offset":1}));
    for offset in 2..=3 {
        let m = resumed.json().await;
        assert_eq!(
            (&m["offset"], &m["topic"], &m["epoch"]),
            (&json!(offset), &json!("task/a/1"), &json!(EPOCH))
        );
        assert_eq!(m["data"]["sequence"], format!("{offset:020}"));
    }
    assert_eq!(resumed.json().await, json!({"op":"caught_up","topic":"task","offset":3}));
    live.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_messages_are_acknowledged_with_their_position_and_come_with_it() {
    let node = Node::with_channels(Options::default(), vec![durable("log")]).await;
    node.keep_relaying().await;
    let mut s = node.v1("/sub/log").await;
    assert_eq!(s.json().await, json!({"op":"ok","epoch":EPOCH,"offset":0}));
    let (mut plain, mut events) = (node.open("/sub/log").await, node.events("/sub/log").await);
    let mut p = node.v1("/ws").await;
    let publish = json!({"op":"pub","topic":"log/x","data":{"n":1},"id":"one","ref":"1"});
    let ok = json!({"op":"ok","ref":"1","epoch":EPOCH,"offset":1});
    done(&mut p, publish.clone(), ok.clone()).await;
    done(&mut p, publish, ok).await;
    let first = json!({"op":"msg","topic":"log/x","epoch":EPOCH,"offset":1,"data":{"n":1}});
    assert_eq!(s.json().await, first);
    plain.expect(r#"{"n":1}"#).await;
    events.expect(&event(1)).await;
    // a sender in plain mode hears only of what is refused
    let mut sender = node.open("/pub/log").await;
    sender.text("no json").await;
    assert_eq!(sender.json().await["problem"]["code"], "invalid_json");
    sender.text("2").await;
    plain.expect("2").await;
    assert_eq!(s.json().await["offset"], 2);
    let kept = node.bus.publish(&"log".parse().unwrap(), "3".into(), None).await.unwrap();
    assert_eq!(kept.map(|p| p.offset), Some(3));
    let mut late = node.v1("/sub/log?after=earliest").await;
    assert_eq!(late.json().await["offset"], 0);
    assert_eq!(late.json().await, first);
    // the third may have been relayed before it had caught up, or after
    let rest = [late.json().await, late.json().await, late.json().await];
    let (joints, messages): (Vec<_>, Vec<_>) = rest.iter().partition(|f| f["op"] == "caught_up");
    let offsets: Vec<_> = messages.iter().map(|m| m["offset"].as_u64().unwrap()).collect();
    assert_eq!((joints.len(), offsets), (1, vec![2, 3]), "{rest:?}");
    assert_eq!(joints[0]["topic"], "log");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_behind_a_message_that_failed_fails_too() {
    let options = Options { run_count_max: 2, ..Options::default() };
    let node = Node::with_channels(options, vec![durable("log")]).await;
    node.keep_relaying().await;
    let mut p = node.v1("/ws").await;
    node.journal.refuse_once(); // what comes later could be kept
    let mut burst = Vec::new();
    for n in 0..7 {
        let f = json!({"op":"pub","topic":"log","data":n,"ref":n.to_string()}).to_string();
        burst.extend(frame(TEXT, f.as_bytes()));
    }
    p.say(&burst).await;
    for n in 0..7 {
        let answer = p.json().await;
        assert_eq!(
            (&answer["ref"], &answer["problem"]["code"]),
            (&json!(n.to_string()), &json!("unavailable"))
        );
    }
    // what it sent before it saw that is not kept either, wherever it was on its way
    p.say(&frame(TEXT, br#"{"op":"pub","topic":"log","data":7}"#)).await;
    assert_eq!(p.closed().await.0, 1013);
    let mut p = node.v1("/ws").await;
    let again = json!({"op":"pub","topic":"log","data":0});
    done(&mut p, again, json!({"op":"ok","epoch":EPOCH,"offset":1})).await;
    node.journal.break_down();
    let mut plain = node.open("/pub/log").await;
    plain.text("1").await;
    assert_eq!(plain.json().await["problem"]["code"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_live_goes_on_while_another_subscription_reads_history() {
    let node = Node::start().await;
    node.journal.append("task/x/1", 100);
    node.begin().await;
    node.journal.set_open(false);
    let mut c = node.v1("/sub/live").await;
    assert_eq!(c.json().await, json!({"op":"ok"}));
    done(
        &mut c,
        json!({"op":"sub","topic":"task","after":"7:90","ref":"h"}),
        json!({"op":"ok","ref":"h","epoch":EPOCH,"offset":90}),
    )
    .await;
    node.publish("live", "now").await;
    assert_eq!(c.json().await, msg("live", &json!("now")));
    node.journal.set_open(true);
    for offset in 91..=100 {
        assert_eq!(c.json().await["offset"], offset);
    }
    assert_eq!(c.json().await, json!({"op":"caught_up","topic":"task","offset":100}));
    node.publish("live", "then").await;
    assert_eq!(c.json().await, msg("live", &json!("then")));
    node.append("task/x/1", 1).await;
    assert_eq!(c.json().await["offset"], 101);
}

/// What the store has before the relay brings it comes once, whoever reads and whoever joins meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_yet_relayed_comes_once_to_filters_that_overlap() {
    let node = Node::start().await;
    node.journal.append("task/x/1", 10);
    node.begin().await;
    let not_yet_relayed = node.journal.append("task/x/1", 5);
    let mut c = node.v1("/ws").await;
    let sub = |topic: &str, after: &str| json!({"op":"sub","topic":topic,"after":after});
    let ok = |offset: u64| json!({"op":"ok","epoch":EPOCH,"offset":offset});
    let caught_up = |topic: &str| json!({"op":"caught_up","topic":topic,"offset":10});
    done(&mut c, sub("task", "7:0"), ok(0)).await;
    for offset in 1..=10 {
        assert_eq!(c.json().await["offset"], offset);
    }
    assert_eq!(c.json().await, caught_up("task"));
    done(&mut c, sub("task/x", "7:10"), ok(10)).await;
    assert_eq!(c.json().await, caught_up("task/x"));
    done(&mut c, sub("task/x/1", "latest"), ok(10)).await;
    node.bus.relay(not_yet_relayed).await;
    node.append("task/x/1", 1).await;
    for offset in 11..=16 {
        assert_eq!(c.json().await["offset"], offset);
    }
    c.nothing_else().await;
}

/// A thousand subscriptions of overlapping filters, at all positions, on a hundred sockets, while the relay runs as
/// fast as it can: each offset comes from where the widest began, and none that is new to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_resumed_subscriptions_lose_and_double_nothing_at_the_joint() {
    const SOCKETS: u64 = 100;
    const LAST: u64 = 6_000;
    let node =
        std::sync::Arc::new(Node::with(Options { ring_bytes_max: 256 << 10, ..Options::default() }).await);
    node.begin().await;
    let relaying = tokio::spawn({
        let node = node.clone();
        async move {
            for n in 0..LAST / 25 {
                node.append(&format!("task/t{}/1", n % 10), 25).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut sockets = tokio::task::JoinSet::new();
    for n in 0..SOCKETS {
        let node = node.clone();
        sockets.spawn(async move {
            let turn = LAST * n / SOCKETS;
            node.until(|s| s.relayed.is_some_and(|p| p.offset >= turn)).await;
            let from = turn - turn.min(n * 31 % 1_500);
            let mut c = node.v1("/ws").await;
            // one that covers all, and nine that lie within it, some from later on
            ask(&mut c, json!({"op":"sub","topic":"task","after":from,"ref":"task"})).await;
            for t in 0..9 {
                let filter = format!("task/t{t}");
                ask(&mut c, json!({"op":"sub","topic":filter,"after":from + t * 20,"ref":filter})).await;
            }
            let (mut seen, mut oks, mut joined) = (HashSet::new(), 0, 0);
            let mut positions = HashMap::new();
            while (seen.len() as u64) < LAST - from || oks + joined < 20 {
                let f = c.json().await;
                match f["op"].as_str().unwrap() {
                    "ok" => {
                        oks += 1;
                        positions
                            .insert(f["ref"].as_str().unwrap().to_owned(), f["offset"].as_u64().unwrap());
                    }
                    "caught_up" => joined += 1,
                    "msg" => {
                        let (offset, topic) = (f["offset"].as_u64().unwrap(), f["topic"].as_str().unwrap());
                        let behind =
                            positions.iter_mut().filter(|(f, at)| topic.starts_with(*f) && **at < offset);
                        let new = behind.map(|(_, at)| *at = offset).count();
                        assert!(new > 0, "socket {n}: {offset} came for nobody");
                        seen.insert(offset);
                    }
                    // a subscription may ask for what is not there yet
                    "error" => oks += 2,
                    other => panic!("{other}"),
                }
            }
            c.nothing_else().await;
        });
    }
    while let Some(done) = sockets.join_next().await {
        done.unwrap();
    }
    relaying.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_come_and_go_disturb_no_other() {
    const CHANGES: u64 = 60;
    let node = std::sync::Arc::new(Node::start().await);
    let mut c = node.v1("/sub/steady").await;
    c.json().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (received, mut window) = tokio::sync::watch::channel(0);
    let publishing = tokio::spawn({
        let node = node.clone();
        async move {
            let mut p = node.open("/pub/steady").await;
            let mut n = 0;
            while !*stopped.borrow() {
                // never so far ahead that the reader of a test could fall behind
                within(window.wait_for(|r| n < r + 5_000)).await.unwrap();
                p.text(&n.to_string()).await;
                n += 1;
            }
            p.text("last").await;
            n
        }
    });
    let (mut next, mut oks, mut asked, mut last) = (0, 0, 0, false);
    while !last {
        if oks == asked && asked < CHANGES && next > asked * 20 {
            let op = if asked % 2 == 0 { "sub" } else { "unsub" };
            ask(&mut c, json!({"op":op,"topic":format!("other/{}", asked / 2 % 3)})).await;
            asked += 1;
        }
        let f = c.json().await;
        match f["op"].as_str().unwrap() {
            "ok" => oks += 1,
            "msg" if f["data"] == "last" => last = true,
            "msg" => {
                assert_eq!(f["data"], next.to_string());
                next += 1;
                received.send_replace(next);
            }
            other => panic!("{other}"),
        }
        if oks == CHANGES {
            stop.send_replace(true);
        }
    }
    assert_eq!(next, publishing.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_far_behind_changes_its_subscriptions_when_it_has_read() {
    const COUNT: usize = 3_000;
    let node = Node::start().await;
    let mut c = node.v1_narrow("/sub/steady").await;
    let body = "x".repeat(1_000);
    let mut p = node.open("/pub/steady").await;
    for n in 0..COUNT {
        p.text(&format!("{n:08}{body}")).await;
    }
    ask(&mut c, json!({"op":"sub","topic":"other","ref":"late"})).await;
    assert_eq!(c.json().await, json!({"op":"ok"}));
    let (mut next, mut answered) = (0, false);
    while next < COUNT || !answered {
        let f = c.json().await;
        if f["op"] == "ok" {
            assert_eq!(f["ref"], "late");
            answered = true;
        } else {
            assert_eq!(f["data"].as_str().unwrap()[..8].parse::<usize>().unwrap(), next);
            next += 1;
        }
    }
    node.publish("other", "new").await;
    assert_eq!(c.json().await, msg("other", &json!("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_behind_is_told_of_the_gap_where_the_channel_says_so() {
    let gaps = Channel { slow: Slow::Gap, ..Channel::new("lossy".parse().unwrap()) };
    let kept = Channel { slow: Slow::Gap, ..durable("kept") };
    let options =
        Options { ring_bytes_max: 128 << 10, patience: std::time::Duration::ZERO, ..Options::default() };
    let node = Node::with_channels(options, vec![gaps, kept]).await;
    node.begin().await;
    let mut lossy = node.v1_narrow("/sub/lossy").await;
    let mut durable = node.v1_narrow("/sub/kept").await;
    let (count, body) = (3_000, "x".repeat(1_000));
    for n in 0..count {
        node.publish("lossy", &format!("{n:08}{body}")).await;
    }
    for _ in 0..300 {
        node.append("kept/x", 100).await;
    }
    assert_eq!(lossy.json().await, json!({"op":"ok"}));
    let (mut next, mut gaps) = (0, 0);
    while next < count {
        let f = lossy.json().await;
        if f["op"] == "gap" {
            assert_eq!(f, json!({"op":"gap","topic":"lossy"}));
            gaps += 1;
            if gaps == 1 {
                // once more at the end, so that the test ends whatever was lost
                node.publish("lossy", &format!("{:08}", count - 1)).await;
            }
            continue;
        }
        let n: u64 = f["data"].as_str().unwrap()[..8].parse().unwrap();
        assert!(n >= next, "{n} after {next}");
        next = n + 1;
    }
    assert!(gaps > 0, "it was never behind");
    durable.json().await;
    let (mut next, mut gaps) = (1, 0);
    while next <= 30_000 {
        let f = durable.json().await;
        if f["op"] == "gap" {
            assert_eq!((f["topic"].as_str(), f["from"].as_u64()), (Some("kept"), Some(next)), "{f}");
            next = f["to"].as_u64().unwrap() + 1;
            gaps += 1;
        } else {
            assert_eq!(f["offset"], next, "not told");
            next += 1;
        }
    }
    assert!(gaps > 0, "it was never behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_many_topics_hear_the_others_and_not_themselves() {
    let node = Node::start().await;
    let (mut a, mut b) = (node.v1("/ws").await, node.v1("/bus/x").await);
    assert_eq!(b.json().await, json!({"op":"ok"}));
    done(&mut a, json!({"op":"bus","topic":"x"}), json!({"op":"ok"})).await;
    done(&mut a, json!({"op":"bus","topic":"y"}), json!({"op":"ok"})).await;
    done(&mut a, json!({"op":"send","topic":"x","data":1,"ref":"1"}), json!({"op":"ok","ref":"1"})).await;
    assert_eq!(b.json().await, msg("x", &json!(1)));
    done(&mut b, json!({"op":"send","data":2}), json!({"op":"ok"})).await;
    assert_eq!(a.json().await, msg("x", &json!(2)));
    // its own message stands in the log that it leaves
    ask(&mut a, json!({"op":"send","topic":"y","data":3})).await;
    ask(&mut a, json!({"op":"sub","topic":"z"})).await;
    assert_eq!((a.json().await, a.json().await), (json!({"op":"ok"}), json!({"op":"ok"})));
    a.nothing_else().await;
    done(&mut a, json!({"op":"unsub","topic":"x"}), json!({"op":"ok"})).await;
    ask(&mut b, json!({"op":"send","data":4})).await;
    assert_eq!(b.json().await, json!({"op":"ok"}));
    a.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_channels_that_are_not_durable_is_handed_out_in_turns() {
    let node = Node::start().await;
    let mut pusher = node.v1("/push/w").await;
    let mut first = node.v1("/pull/w").await;
    assert_eq!(first.json().await, json!({"op":"ok"}));
    let mut second = node.v1("/ws").await;
    done(&mut second, json!({"op":"pull","topic":"w","ref":"r"}), json!({"op":"ok","ref":"r"})).await;
    // once more is the same puller, not another turn
    done(&mut second, json!({"op":"pull","topic":"w"}), json!({"op":"ok"})).await;
    for n in 0..4 {
        done(&mut pusher, json!({"op":"push","data":n}), json!({"op":"ok"})).await;
    }
    for n in [0, 2] {
        assert_eq!(first.json().await, msg("w", &json!(n)));
        assert_eq!(second.json().await, msg("w", &json!(n + 1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_says_so_first() {
    let node = Node::start().await;
    let mut c = node.v1("/ws").await;
    let shutdown = tokio::spawn({
        let bus = node.bus.clone();
        async move { bus.shutdown(std::time::Duration::from_secs(5)).await }
    });
    assert_eq!(c.json().await, json!({"op":"drain"}));
    assert_eq!(c.closed().await.0, 1001);
    drop(c);
    within(shutdown).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_subscriptions_and_no_more() {
    let node = Node::with(Options { session_subs_max: 3, ..Options::default() }).await;
    let mut c = node.v1("/ws").await;
    for n in 0..3 {
        done(&mut c, json!({"op":"sub","topic":format!("s/{n}")}), json!({"op":"ok"})).await;
    }
    ask(&mut c, json!({"op":"sub","topic":"s/3"})).await;
    assert_eq!(c.json().await["problem"]["code"], "invalid_request");
    c.say(&frame(CLOSE, &1000u16.to_be_bytes())).await;
    assert_eq!(c.closed().await.0, 1000);
    drop(c);
    node.until(|s| s.sessions == 0 && s.channels == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_is_told_and_then_closed_with_4029() {
    let one = std::num::NonZero::new(1).unwrap();
    let rate = minium_bus::Rate { per_second: one, burst: one };
    let node = Node::with(Options { session_rate: Some(rate), ..Options::default() }).await;
    let mut c = node.v1("/pub/a").await;
    done(&mut c, json!({"op":"pub","data":1}), json!({"op":"ok"})).await;
    ask(&mut c, json!({"op":"pub","data":2,"ref":"r"})).await;
    let answer = c.json().await;
    assert_eq!((&answer["problem"]["code"], &answer["ref"]), (&json!("rate_limited"), &json!("r")));
    for _ in 0..100 {
        ask(&mut c, json!({"op":"ping"})).await;
    }
    let code = loop {
        let (opcode, body) = c.next().await.unwrap();
        if opcode == CLOSE {
            assert!(String::from_utf8_lossy(&body[2..]).contains(" s"), "no wait in the reason");
            break u16::from_be_bytes([body[0], body[1]]);
        }
    };
    assert_eq!(code, 4029);
}
