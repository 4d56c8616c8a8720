//! Publish and subscribe: who hears what, in which words.

use crate::client::{BINARY, Client, TEXT, frame, handshake};
use crate::node::Node;
use minium_bus::{Message, Options};
use minium_protocol::ErrorCode;

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_its_topic_and_all_below_by_whole_segments() {
    let node = Node::start().await;
    let (mut h, mut hi, mut hij) =
        (node.open("/sub/h").await, node.open("/sub/h/i").await, node.open("/sub/h/i/j").await);
    let (mut hx, mut bus, mut pull) =
        (node.open("/sub/hx").await, node.open("/bus/h").await, node.open("/pull/h/i/j").await);
    let mut p = node.open("/pub/h/i/j").await;
    p.text("deep").await;
    for s in [&mut h, &mut hi, &mut hij] {
        s.expect("deep").await;
    }
    node.publish("h", "up").await;
    h.expect("up").await;
    node.publish("hx", "other").await;
    hx.expect("other").await;
    for s in [&mut h, &mut hi, &mut hij, &mut hx, &mut bus, &mut pull] {
        s.nothing_else().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plus_stands_for_one_segment() {
    let node = Node::start().await;
    let mut one = node.open("/sub/a/+/c").await;
    let mut any = node.open("/sub/%2B").await;
    let mut two = node.open("/sub/a/+").await;
    for topic in ["a", "a/b", "a/b/c", "a/x/c/d", "a/b/d"] {
        node.publish(topic, topic).await;
    }
    for (s, heard) in [
        (&mut one, &["a/b/c", "a/x/c/d"][..]),
        (&mut any, &["a", "a/b", "a/b/c", "a/x/c/d", "a/b/d"]),
        (&mut two, &["a/b", "a/b/c", "a/x/c/d", "a/b/d"]),
    ] {
        for text in heard {
            s.expect(text).await;
        }
        s.nothing_else().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_at_the_sight_of_the_101_arrives() {
    let node = Node::start().await;
    for n in 0..200 {
        let mut s = node.open(&format!("/sub/at/once/{n}")).await;
        let mut p = Client::connect(node.address, None).await;
        let mut bytes = handshake(&format!("/pub/at/once/{n}"), "");
        bytes.extend(frame(TEXT, format!("hello {n}").as_bytes()));
        p.say(&bytes).await;
        s.expect(&format!("hello {n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_stays_text_and_binary_stays_binary_and_empty_stays_empty() {
    let node = Node::start().await;
    let mut s = node.open("/sub/t").await;
    let mut p = node.open("/pub/t").await;
    for (opcode, body) in
        [(TEXT, "hé\u{0}llo".as_bytes()), (BINARY, &[0, 255, 254]), (TEXT, b""), (BINARY, b"")]
    {
        p.say(&frame(opcode, body)).await;
        assert_eq!(s.next().await, Some((opcode, body.to_vec())));
    }
    node.bus.publish(&"t".parse().unwrap(), Message::Binary(vec![1, 0].into()), None).await.unwrap();
    assert_eq!(s.next().await, Some((BINARY, vec![1, 0])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscriber_sends_is_ignored() {
    let node = Node::start().await;
    let (mut a, mut b) = (node.open("/sub/i").await, node.open("/sub/i").await);
    a.text("hello?").await;
    a.nothing_else().await;
    b.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_publisher_is_heard_in_order_by_every_subscriber() {
    const EACH: usize = 3_000;
    let node = Node::start().await;
    let mut subscribers = Vec::new();
    for n in 0..5 {
        let mode = if n == 4 { "cloudevents.json" } else { "" };
        subscribers.push(node.open_as("/sub/order", mode, None).await);
    }
    let mut sending = Vec::new();
    for p in 0..4 {
        let mut publisher = node.open("/pub/order/x").await;
        sending.push(tokio::spawn(async move {
            for n in 0..EACH {
                publisher.text(&format!("{p} {n}")).await;
            }
            publisher
        }));
    }
    for (i, s) in subscribers.iter_mut().enumerate() {
        let mut next = [0; 4];
        for _ in 0..4 * EACH {
            let text =
                if i == 4 { s.json().await["data"].as_str().unwrap().to_owned() } else { s.heard().await };
            let (p, n) = text.split_once(' ').unwrap();
            let p: usize = p.parse().unwrap();
            assert_eq!(n.parse(), Ok(next[p]), "publisher {p}");
            next[p] += 1;
        }
        s.nothing_else().await;
    }
    for p in sending {
        p.await.unwrap().leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_has_its_own_words_for_the_same_message() {
    let node = Node::with(Options { source: "/minium/test".into(), ..Options::default() }).await;
    let (mut plain, mut events) = (node.open("/sub/m").await, node.events("/sub/m").await);
    let mut sse = node.sse("m", "latest").await;
    let mut p = node.open("/pub/m/x").await;
    p.text("two\nlines").await;
    plain.expect("two\nlines").await;
    let e = events.json().await;
    assert_eq!(
        (&e["type"], &e["subject"], &e["data"]),
        (&"message".into(), &"m/x".into(), &"two\nlines".into())
    );
    assert_eq!((&e["specversion"], &e["source"]), (&"1.0".into(), &"/minium/test".into()));
    sse.expect("data: two\ndata: lines").await;
    p.say(&frame(BINARY, &[0, 255])).await;
    assert_eq!(plain.next().await, Some((BINARY, vec![0, 255])));
    let b = events.json().await;
    assert_eq!(b["data_base64"], "AP8=");
    assert_ne!(b["id"], e["id"]);
    sse.expect("event: binary\ndata: AP8=").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloudevents_publisher_sends_events_whose_data_is_the_message() {
    let node = Node::start().await;
    let mut s = node.open("/sub/c").await;
    let mut p = node.events("/pub/c").await;
    p.text(r#"{"specversion":"1.0","id":"1","source":"/c","type":"x","data":{"a": 1}}"#).await;
    s.expect(r#"{"a": 1}"#).await;
    p.text(r#"{"specversion":"1.0","id":"2","source":"/c","type":"x","data_base64":"AP8="}"#).await;
    assert_eq!(s.next().await, Some((BINARY, vec![0, 255])));
    for bad in ["hello", r#"{"data":1}"#] {
        p.text(bad).await;
        assert_eq!(p.json().await["problem"]["code"], "invalid_json", "{bad}");
    }
    p.text(r#"{"specversion":"1.0","id":"3","source":"/c","type":"x","data":"text"}"#).await;
    s.expect("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_breaks_its_schema_reaches_nobody_and_its_sender_is_told() {
    let node = Node::start().await;
    node.schema("sub/rack.json", r#"{"type":"object","required":["watts"]}"#);
    let (mut s, mut e) = (node.open("/sub/rack").await, node.events("/sub/rack").await);
    let mut p = node.open("/pub/rack/7").await;
    for (message, code) in [("{}", "schema_violation"), ("watts", "invalid_json")] {
        p.text(message).await;
        assert_eq!(p.json().await["problem"]["code"], code, "{message}");
    }
    p.say(&frame(BINARY, br#"{"watts":1}"#)).await;
    assert_eq!(p.json().await["problem"]["code"], "invalid_json");
    p.text(r#"{"watts":1}"#).await;
    s.expect(r#"{"watts":1}"#).await;
    assert_eq!(e.json().await["data"]["watts"], 1);
    // and by POST
    let topic = "rack".parse().unwrap();
    let problem = node.bus.publish(&topic, "{}".into(), None).await.unwrap_err();
    assert_eq!((problem.code, problem.errors.len()), (ErrorCode::SchemaViolation, 1));
    s.nothing_else().await;
    // sessions that are open take note of new schemas
    node.schema("sub/rack.json", r#"{"type":"string"}"#);
    p.text(r#""now a string""#).await;
    s.expect(r#""now a string""#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_journal_publishes_on_durable_topics() {
    let node = Node::start().await;
    let mut s = node.open("/sub/task").await;
    let mut p = node.open("/pub/task/x/1").await;
    p.text("{}").await;
    assert_eq!(p.json().await["problem"]["code"], "forbidden");
    let problem = node.bus.publish(&"task".parse().unwrap(), "{}".into(), None).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::Forbidden);
    s.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_by_post_is_bounded_and_its_text_is_utf_8() {
    let node = Node::with(Options { message_bytes_max: 4, ..Options::default() }).await;
    let mut s = node.open("/sub/p").await;
    let topic = "p".parse().unwrap();
    let code = |m: Message| {
        let (bus, topic) = (node.bus.clone(), &topic);
        async move { bus.publish(topic, m, None).await.unwrap_err().code }
    };
    assert_eq!(code("12345".into()).await, ErrorCode::PayloadTooLarge);
    assert_eq!(code(Message::Text(vec![255].into())).await, ErrorCode::InvalidRequest);
    node.publish("p", "1234").await;
    s.expect("1234").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_leaves_nothing_behind() {
    let node = Node::start().await;
    for _ in 0..3 {
        let mut clients = Vec::new();
        for n in 0..20 {
            for path in ["sub", "sub/+", "bus", "pull", "pub", "push"] {
                clients.push(node.open(&format!("/{path}/{n}")).await);
            }
        }
        let mut streams = Vec::new();
        for n in 0..20 {
            streams.push(node.sse(&format!("s/{n}"), "latest").await);
        }
        let stats = node.bus.stats();
        assert_eq!((stats.sessions, stats.channels), (140, 100));
        assert_eq!((node.bus.channels(1_000).len(), node.bus.channels(7).len()), (100, 7));
        for (n, client) in clients.into_iter().enumerate() {
            if n % 2 == 0 {
                client.leave().await;
            } // the others are dropped without a word
        }
        drop(streams);
        node.until(|stats| stats.sessions == 0).await;
        assert_eq!(node.bus.stats().channels, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_stay_get_everything_while_others_leave() {
    // more than one stride of a walk in each shard, so that it yields while some change places
    const STAY: usize = 300;
    const ROUNDS: usize = 150;
    let node = Node::start().await;
    let (mut stay, mut leave) = (Vec::new(), Vec::new());
    for n in 0..2 * STAY {
        let client = node.open("/sub/crowd").await;
        if n % 2 == 0 { leave.push(client) } else { stay.push(client) }
    }
    let mut p = node.open("/pub/crowd").await;
    for n in 0..ROUNDS {
        p.text(&n.to_string()).await;
        // without a word, while the walk is on its way
        leave.truncate(STAY - 2 * (n + 1));
    }
    for s in &mut stay {
        for n in 0..ROUNDS {
            s.expect(&n.to_string()).await;
        }
        s.nothing_else().await;
    }
    node.until(|stats| stats.sessions == STAY + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_already_reaches_who_comes_later_and_no_more_who_left() {
    let node = Node::start().await;
    // senders on both shards
    let mut publishers = [node.open("/pub/l/x").await, node.open("/pub/l/x").await];
    let mut peers = [node.open("/bus/l").await, node.open("/bus/l").await];
    for round in 0..3 {
        for p in &mut publishers {
            p.text("nobody hears").await;
            p.nothing_else().await; // so it was read
        }
        let mut fresh = [node.open("/sub/l").await, node.open("/sub/l/+").await, node.events("/sub/l").await];
        let mut peer = node.open("/bus/l").await;
        for p in &mut publishers {
            p.text(&format!("now {round}")).await;
        }
        for _ in &publishers {
            fresh[0].expect(&format!("now {round}")).await;
            fresh[1].expect(&format!("now {round}")).await;
            assert_eq!(fresh[2].json().await["data"], format!("now {round}"));
        }
        peers[0].text("hello").await;
        peer.expect("hello").await;
        peers[1].expect("hello").await;
        let left = fresh.into_iter().chain([peer]);
        for c in left {
            c.leave().await;
        }
        node.until(|stats| stats.sessions == 4).await;
    }
}
