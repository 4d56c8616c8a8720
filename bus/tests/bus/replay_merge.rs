//! Durable filters of one socket that can match the same messages read history together, by rising offsets: a client
//! that keeps one position for each filter takes each message once for each, and never an older one after a newer.

use crate::client::{Client, PING, PONG, TEXT, frame, within};
use crate::node::{EPOCH, Node};
use minium_bus::{Options, Relayed};
use minium_protocol::Filter;
use serde_json::{Value, json};
use std::sync::Arc;

const TOPICS: [&str; 7] =
    ["task/a/b", "task/a/c", "task/a", "task/a/b/d", "task/z", "task/a/c/d", "task/a/c/d/e"];
const FILTERS: [&str; 8] =
    ["task", "task/a", "task/a/+", "task/a/b", "task/+/b", "task/a/+/d", "task/a/c/+", "task/z"];

fn topic_of(offset: u64) -> &'static str {
    TOPICS[(offset * 5 + offset / 3) as usize % TOPICS.len()]
}

/// The next entries of the journal.
fn append(node: &Node, count: u64) -> Vec<Relayed> {
    let from = node.journal.position().offset + 1;
    (from..from + count).flat_map(|offset| node.journal.append(topic_of(offset), 1)).collect()
}

async fn relay(node: &Node, count: u64) {
    node.bus.relay(append(node, count)).await;
}

fn matching(filter: &Filter, after: u64, to: u64) -> Vec<u64> {
    (after + 1..=to).filter(|offset| filter.matches_str(topic_of(*offset))).collect()
}

struct Sub {
    filter: Filter,
    /// Where it began, and where it is.
    began: u64,
    position: u64,
    took: Vec<u64>,
    /// It was told that it is live.
    caught_up: bool,
    /// It reads history first.
    reads: bool,
}

/// A client that takes a message for each subscription that it matches and that stands before it.
struct Careful {
    client: Client,
    subs: Vec<Sub>,
    /// So many subscriptions were asked for and not given up.
    asked: usize,
}

impl Careful {
    async fn open(node: &Node) -> Careful {
        Careful { client: node.v1("/ws").await, subs: Vec::new(), asked: 0 }
    }

    /// Gives one up, and hears until that is answered.
    async fn give_up(&mut self, n: usize) {
        let frame = json!({ "op": "unsub", "topic": self.subs[n].filter.as_str(), "ref": "bye" });
        self.client.text(&frame.to_string()).await;
        while self.hear().await["ref"] != "bye" {}
        self.subs.remove(n);
        self.asked -= 1;
    }

    /// In one breath.
    async fn subscribe(&mut self, subs: &[(&str, Value)]) {
        let frames = subs.iter().flat_map(|(filter, after)| {
            let text = json!({ "op": "sub", "topic": filter, "after": after, "ref": filter }).to_string();
            frame(TEXT, text.as_bytes())
        });
        self.client.say(&frames.collect::<Vec<u8>>()).await;
        self.asked += subs.len();
    }

    /// Takes what comes next, and judges it.
    async fn hear(&mut self) -> Value {
        let frame = self.client.json().await;
        match frame["op"].as_str().unwrap() {
            "msg" => self.take(frame["offset"].as_u64().unwrap(), frame["topic"].as_str().unwrap()),
            "ok" if frame["offset"].is_u64() => {
                let (filter, began) = (frame["ref"].as_str().unwrap(), frame["offset"].as_u64().unwrap());
                self.subs.push(Sub {
                    filter: filter.parse().unwrap(),
                    began,
                    position: began,
                    took: Vec::new(),
                    caught_up: false,
                    reads: true,
                });
            }
            "ok" => {}
            "caught_up" => {
                let to = frame["offset"].as_u64().unwrap();
                let is = |s: &&mut Sub| s.filter.as_str() == frame["topic"];
                let sub = self.subs.iter_mut().find(is).unwrap();
                assert_eq!(
                    sub.took,
                    matching(&sub.filter, sub.began, to),
                    "{} is live from {to}",
                    sub.filter
                );
                sub.caught_up = true;
            }
            _ => panic!("{frame}"),
        }
        frame
    }

    fn take(&mut self, offset: u64, topic: &str) {
        assert_eq!(topic, topic_of(offset));
        let mut for_whom = 0;
        for sub in self.subs.iter_mut().filter(|s| s.filter.matches_str(topic) && s.position < offset) {
            sub.position = offset;
            sub.took.push(offset);
            for_whom += 1;
        }
        assert!(for_whom > 0, "{offset} came for nobody");
    }

    /// Hears until all have everything, and those that were to catch up have.
    async fn hear_all(&mut self, last: u64) {
        while self.subs.len() < self.asked {
            self.hear().await;
        }
        let ends: Vec<_> = self.subs.iter().map(|s| matching(&s.filter, s.began, last).pop()).collect();
        let is_done =
            |(s, end): (&Sub, &Option<u64>)| s.took.last() == end.as_ref() && (s.caught_up || !s.reads);
        while !self.subs.iter().zip(&ends).all(is_done) {
            self.hear().await;
        }
        self.judge(last);
    }

    fn judge(&self, last: u64) {
        for s in &self.subs {
            assert_eq!(s.took, matching(&s.filter, s.began, last), "{} from {}", s.filter, s.began);
        }
    }

    /// No message more has come; but who was overtaken at the very end is told once more that it is live.
    async fn no_other_message(&mut self) {
        self.client.say(&frame(PING, b"anything?")).await;
        loop {
            match self.client.next().await.expect("the connection ended") {
                (PONG, body) => return assert_eq!(body, b"anything?"),
                (PING, body) => self.client.say(&frame(PONG, &body)).await,
                (_, body) => {
                    let heard: Value = serde_json::from_slice(&body).unwrap();
                    assert_eq!(heard["op"], "caught_up", "{heard}");
                }
            }
        }
    }

    async fn expect(&mut self, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            assert_eq!(self.hear().await["offset"], offset);
        }
    }

    async fn expect_op(&mut self, op: &str, topic: &str) {
        let frame = self.hear().await;
        let about = if op == "ok" { &frame["ref"] } else { &frame["topic"] };
        assert_eq!((&frame["op"], about), (&json!(op), &json!(topic)), "{frame}");
    }
}

/// Numbers that look like chance, the same for each seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_subscribed_in_one_breath_comes_once_and_in_order_whatever_the_positions() {
    let node = Node::with(Options { page_count_max: 7, ..Options::default() }).await;
    append(&node, 200);
    node.begin().await;
    in_one_breath(&node).await;
    // all of it in memory: what is read alone is read in no time
    let node = Node::start().await;
    node.begin().await;
    relay(&node, 200).await;
    in_one_breath(&node).await;
}

async fn in_one_breath(node: &Node) {
    let mut c = Careful::open(node).await;
    c.subscribe(&[("task/a", json!(150)), ("task/a/+", json!(20)), ("task/+/b", json!(90))]).await;
    for filter in ["task/a", "task/a/+", "task/+/b"] {
        c.expect_op("ok", filter).await;
    }
    let [first, then, last]: [Filter; 3] = ["task/a/+", "task/+/b", "task/a"].map(|f| f.parse().unwrap());
    c.expect(matching(&first, 20, 90)).await;
    let both = (91..=150).filter(|o| first.matches_str(topic_of(*o)) || then.matches_str(topic_of(*o)));
    c.expect(both).await;
    c.expect(matching(&last, 150, 200)).await;
    for filter in ["task/a", "task/a/+", "task/+/b"] {
        c.expect_op("caught_up", filter).await;
    }
    relay(node, 10).await;
    c.hear_all(210).await;
    c.client.nothing_else().await;
}

/// Every socket subscribes what it likes from where it likes, and gives some of it up, while the relay runs as fast as
/// it can.
async fn at_full_speed(options: Options) {
    const SOCKETS: u64 = 60;
    const LAST: u64 = 4_000;
    let node = Arc::new(Node::with(options).await);
    append(&node, 500);
    node.begin().await;
    let relaying = tokio::spawn({
        let node = node.clone();
        async move {
            while node.journal.position().offset < LAST {
                relay(&node, 25).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut sockets = tokio::task::JoinSet::new();
    for seed in 0..SOCKETS {
        let node = node.clone();
        sockets.spawn(async move {
            let mut chance = Chance(seed);
            let mut c = Careful::open(&node).await;
            for _ in 0..1 + chance.below(3) {
                let turn = chance.below(LAST);
                node.until(|s| s.relayed.is_some_and(|p| p.offset >= turn)).await;
                let left: Vec<_> =
                    FILTERS.iter().filter(|f| c.subs.iter().all(|s| s.filter.as_str() != **f)).collect();
                let (count, from) = (1 + chance.below(3) as usize, chance.below(left.len() as u64) as usize);
                let subs: Vec<_> =
                    left[from..].iter().take(count).map(|f| (**f, json!(chance.below(turn + 1)))).collect();
                c.subscribe(&subs).await;
                while c.subs.len() < c.asked {
                    c.hear().await;
                }
                if chance.below(4) == 0 {
                    c.give_up(0).await;
                }
            }
            c.hear_all(LAST).await;
            c.no_other_message().await;
        });
    }
    while let Some(done) = sockets.join_next().await {
        done.unwrap();
    }
    relaying.await.unwrap();
}

fn crowded() -> Options {
    // rings and memory so small that some are overtaken, and most of it is read from the store
    Options {
        ring_bytes_max: 128 << 10,
        recent_bytes_max: 64 << 10,
        page_count_max: 37,
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_gets_its_messages_once_and_in_order_under_a_relay_at_full_speed() {
    at_full_speed(crowded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_when_no_page_is_kept() {
    at_full_speed(Options { pages_bytes_max: 0, ..crowded() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_subscription_has_its_history_and_who_was_live_waits_for_it() {
    let node = Node::with(Options { recent_bytes_max: 1, ..Options::default() }).await;
    append(&node, 40);
    node.begin().await;
    let mut c = Careful::open(&node).await;
    c.subscribe(&[("task/a", json!(40)), ("task/z", json!(40))]).await;
    for (op, topic) in [("ok", "task/a"), ("ok", "task/z"), ("caught_up", "task/a"), ("caught_up", "task/z")]
    {
        c.expect_op(op, topic).await;
    }
    relay(&node, 20).await;
    c.expect(41..=60).await;
    node.journal.set_open(false);
    c.subscribe(&[("task/a/b", json!(0))]).await;
    c.expect_op("ok", "task/a/b").await;
    relay(&node, 20).await;
    let [z, b]: [Filter; 2] = ["task/z".parse().unwrap(), "task/a/b".parse().unwrap()];
    // what it can have nothing in common with goes on
    c.expect(matching(&z, 60, 80)).await;
    c.client.nothing_else().await;
    node.journal.set_open(true);
    c.expect(matching(&b, 0, 60)).await;
    let a: Filter = "task/a".parse().unwrap();
    c.expect(matching(&a, 60, 80)).await;
    c.expect_op("caught_up", "task/a/b").await;
    relay(&node, 5).await;
    c.hear_all(85).await;
    c.client.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_now_on_waits_for_history_that_it_meets_and_is_free_when_that_is_given_up() {
    let node = Node::with(Options { recent_bytes_max: 1, ..Options::default() }).await;
    append(&node, 40);
    node.begin().await;
    node.journal.set_open(false);
    let mut c = Careful::open(&node).await;
    c.subscribe(&[("task/a", json!(10))]).await;
    c.expect_op("ok", "task/a").await;
    c.subscribe(&[("task/a/c", json!("latest"))]).await;
    c.expect_op("ok", "task/a/c").await;
    assert_eq!(c.subs[1].began, 40);
    c.subs[1].reads = false;
    relay(&node, 10).await;
    c.client.nothing_else().await;
    c.give_up(0).await;
    node.journal.set_open(true);
    c.hear_all(50).await;
    relay(&node, 10).await;
    c.hear_all(60).await;
    c.client.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_behind_with_overlapping_filters_reads_on_in_order() {
    const LAST: u64 = 30_000;
    let options = Options { ring_bytes_max: 128 << 10, recent_bytes_max: 64 << 10, ..Options::default() };
    let node = Node::with(options).await;
    node.begin().await;
    let mut c = Careful { client: node.v1_narrow("/ws").await, ..Careful::open(&node).await };
    c.subscribe(&FILTERS.map(|f| (f, json!("latest")))).await;
    for filter in FILTERS {
        c.expect_op("ok", filter).await;
    }
    c.subs.iter_mut().for_each(|s| s.reads = false);
    for _ in 0..LAST / 100 {
        relay(&node, 100).await;
    }
    c.expect(1..=LAST).await;
    assert!(node.journal.reads() > 0, "it was never behind");
    // the widest filter is read for all
    assert!(node.journal.reads() as u64 <= LAST / 256, "{} reads", node.journal.reads());
    while c.subs.iter().any(|s| !s.caught_up) {
        c.hear().await;
    }
    relay(&node, 3).await;
    c.expect(LAST + 1..=LAST + 3).await;
    c.client.nothing_else().await;
    c.judge(LAST + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_its_place_while_another_filter_reads_goes_on_with_both() {
    const LAST: u64 = 30_000;
    let options = Options { ring_bytes_max: 128 << 10, recent_bytes_max: 64 << 10, ..Options::default() };
    let node = Node::with(options).await;
    append(&node, 40);
    node.begin().await;
    node.journal.set_open(false);
    let mut c = Careful { client: node.v1_narrow("/ws").await, ..Careful::open(&node).await };
    c.subscribe(&[("task/a/+", json!(0)), ("task/z", json!("latest")), ("task/a/b", json!("latest"))]).await;
    for filter in ["task/a/+", "task/z", "task/a/b"] {
        c.expect_op("ok", filter).await;
    }
    c.subs[2].reads = false;
    while node.journal.position().offset < LAST {
        relay(&node, 60).await;
    }
    node.journal.set_open(true);
    c.hear_all(node.journal.position().offset).await;
    assert!(c.subs[1].caught_up, "it was never behind");
    c.client.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_who_return_with_overlapping_filters_share_the_reads() {
    let node = Node::with(Options { page_count_max: 100, ..Options::default() }).await;
    append(&node, 1_000);
    node.begin().await;
    let mut sockets = Vec::new();
    for _ in 0..300 {
        let mut c = Careful::open(&node).await;
        c.subscribe(&[("task/a/+", json!(100)), ("task/a", json!(100)), ("task/a/b", json!(100))]).await;
        sockets.push(c);
    }
    for c in &mut sockets {
        for _ in 0..3 {
            c.hear().await;
        }
        c.expect(matching(&"task/a".parse().unwrap(), 100, 1_000)).await;
        c.hear_all(1_000).await;
    }
    // eight pages of the widest filter, and a few more at the seams; each by itself they would be twenty
    assert!(node.journal.reads() <= 12, "{} reads", node.journal.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_gone_concerns_its_own_subscription_alone() {
    let node = Node::start().await;
    append(&node, 50);
    node.begin().await;
    node.journal.prune(20);
    let mut c = Careful::open(&node).await;
    let old = json!({"op":"sub","topic":"task/a","after":format!("{}:1", EPOCH - 1),"ref":"old"});
    let gone = json!({"op":"sub","topic":"task/a/+","after":10,"ref":"gone"});
    let frames: Vec<u8> = [&old, &gone].iter().flat_map(|f| frame(TEXT, f.to_string().as_bytes())).collect();
    c.client.say(&frames).await;
    c.subscribe(&[("task", json!(30))]).await;
    for (reference, code) in [("old", "epoch_changed"), ("gone", "offset_expired")] {
        let answer = c.client.json().await;
        assert_eq!((&answer["ref"], &answer["problem"]["code"]), (&json!(reference), &json!(code)));
        assert_eq!(answer["problem"]["earliest"], format!("{EPOCH}:20"));
    }
    within(c.hear_all(50)).await;
}
