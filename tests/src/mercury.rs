//! Mercury's rules in plain mode, kept to the letter or mended, one test each. Every rule runs twice: Python's clients
//! against Perl's, and the other way round.
//!
//! That something does not arrive is shown by what arrives in its place: a marker that was sent later, by the same
//! way, comes first.

use crate::support::foreign::{Foreign, Received};
use crate::support::node::{Node, Options};
use crate::support::raw::{End, Raw};
use crate::support::wait;
use rustix::process::Signal;
use serde_json::json;

/// The default limit on messages (L-1).
const MESSAGE_BYTES_MAX: usize = 262_144;

/// A node, and both clients in both parts: the first sends, the second receives.
async fn cast(options: Options) -> (Node, [(Foreign, Foreign); 2]) {
    let node = Node::start(options).await;
    (node, [(Foreign::python(), Foreign::perl()), (Foreign::perl(), Foreign::python())])
}

/// T-1, B-1 to B-6: the routes that Mercury has.
#[tokio::test]
async fn keep_all_routes() {
    let (node, clients) = cast(Options::memory()).await;
    for (client, _) in &clients {
        for route in ["/pub/a/b", "/sub/a/b", "/push/a", "/pull/a", "/bus/a", "/bus/a?echo=1", "/sub/a.json"]
        {
            let mut session = client.open(&node.ws(route)).await;
            assert_eq!(session.subprotocol, None, "{route}");
            assert_eq!(session.close(1000).await, 1000, "{route}");
        }
        for route in ["/pub", "/pub/", "/sub", "/sub/", "/push", "/pull/", "/bus", "/nothing"] {
            let refusal = client.refused(&node.ws(route), json!({})).await;
            assert!(matches!(refusal.status, 400 | 404), "{route}: {refusal:?}");
        }
    }
}

/// B-7: the session is registered before the 101 is written.
#[tokio::test]
async fn keep_registering_before_the_101() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let publisher = sender.open(&node.ws("/pub/early")).await;
        for round in 0..50 {
            let text = format!("round {round}");
            let mut subscriber = receiver.open(&node.ws("/sub/early")).await;
            publisher.send(&text).await;
            assert_eq!(subscriber.text().await, text, "{}", sender.name);
            assert_eq!(subscriber.close(1000).await, 1000);
        }
    }
}

/// T-5, B-1: upward by whole segments, root-most or not, once per session.
#[tokio::test]
async fn keep_the_upward_cascade_by_whole_segments() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut root = receiver.open(&node.ws("/sub/h")).await;
        let mut middle = receiver.open(&node.ws("/sub/h/i")).await;
        let mut leaf = receiver.open(&node.ws("/sub/h/i/j")).await;
        let mut upper_case = receiver.open(&node.ws("/sub/H")).await;
        for topic in ["hx", "h/ix", "h", "h/i", "h/i/j", "h/i/z", "H"] {
            let mut publisher = sender.open(&node.ws(&format!("/pub/{topic}"))).await;
            publisher.send(topic).await;
            // all that it sent has been taken before the next one publishes
            publisher.ping().await;
        }
        for heard in ["h/ix", "h", "h/i", "h/i/j", "h/i/z"] {
            assert_eq!(root.text().await, heard, "{}", sender.name);
        }
        for heard in ["h/i", "h/i/j", "h/i/z"] {
            assert_eq!(middle.text().await, heard, "{}", sender.name);
        }
        assert_eq!(leaf.text().await, "h/i/j", "{}", sender.name);
        assert_eq!(upper_case.text().await, "H", "{}", sender.name);
        for (session, topic) in [(&mut root, "h"), (&mut middle, "h/i"), (&mut leaf, "h/i/j")] {
            assert_eq!(node.post(&format!("/pub/{topic}"), "end").await.status, 200);
            assert_eq!(session.text().await, "end", "{topic} got one copy of each");
            session.close(1000).await;
        }
    }
}

/// B-5, B-6: peers hear the others, themselves only with `echo`; a POST reaches all.
#[tokio::test]
async fn keep_the_bus_without_echo_unless_asked() {
    let (node, clients) = cast(Options::memory()).await;
    for (one, other) in &clients {
        let mut peers = [
            one.open(&node.ws("/bus/ops")).await,
            other.open(&node.ws("/bus/ops?echo=1")).await,
            one.open(&node.ws("/bus/ops?echo=0")).await,
            other.open(&node.ws("/bus/ops?echo=")).await,
        ];
        for sender in 0..4 {
            let text = format!("from {sender}");
            peers[sender].send(&text).await;
            for (receiver, peer) in peers.iter_mut().enumerate() {
                // only the second one asked for an echo; what went elsewhere would stand before the next message
                if receiver != sender || receiver == 1 {
                    assert_eq!(peer.text().await, text, "peer {receiver}, {}", one.name);
                }
            }
        }
        let answer = node.post("/bus/ops", "from outside").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        for mut peer in peers {
            assert_eq!(peer.text().await, "from outside");
            peer.close(1000).await;
        }
    }
}

/// B-3: strict round robin in join order, one turn for all pushers, by socket and by POST.
#[tokio::test]
async fn keep_strict_round_robin_in_join_order() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut pullers = Vec::new();
        for _ in 0..3 {
            pullers.push(receiver.open(&node.ws("/pull/work")).await);
        }
        let mut pushers =
            [sender.open(&node.ws("/push/work")).await, receiver.open(&node.ws("/push/work")).await];
        for n in 0..6 {
            let pusher = &mut pushers[n % 2];
            pusher.send(&n.to_string()).await;
            // the next one is sent by another: this one must have been taken before
            pusher.ping().await;
        }
        assert_eq!(node.post("/push/work", "6").await.status, 200);
        assert_eq!(node.post("/push/work", "7").await.status, 200);
        for (i, puller) in pullers.iter_mut().enumerate() {
            for n in (i..8).step_by(3) {
                assert_eq!(puller.text().await, n.to_string(), "puller {i}, {}", sender.name);
            }
        }
        for mut puller in pullers {
            puller.close(1000).await;
        }
    }
}

/// B-6: POST is answered 200 with nothing in it.
#[tokio::test]
async fn keep_200_and_an_empty_body_on_post() {
    let (node, clients) = cast(Options::memory()).await;
    let (_, receiver) = &clients[0];
    let mut subscriber = receiver.open(&node.ws("/sub/p")).await;
    let mut puller = receiver.open(&node.ws("/pull/p")).await;
    let mut peer = receiver.open(&node.ws("/bus/p")).await;
    for route in ["/pub/p", "/push/p", "/bus/p"] {
        let answer = node.post(route, route).await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{route}");
    }
    assert_eq!(subscriber.text().await, "/pub/p");
    assert_eq!(puller.text().await, "/push/p");
    assert_eq!(peer.text().await, "/bus/p");
    // nobody needs to be there
    assert_eq!(node.post("/pub/nobody", "x").await.status, 200);
    assert_eq!(node.post("/bus/nobody", "x").await.status, 200);
}

/// H-3: a foreign origin is refused with 401 and Mercury's own words.
#[tokio::test]
async fn keep_401_and_its_text_on_a_foreign_origin() {
    let config = "[auth]\nallowed_origins = [\"example.com\"]\nrequire_origin = true\n";
    let (node, clients) = cast(Options { await_ready: false, ..Options::memory().config(config) }).await;
    for (client, _) in &clients {
        for headers in [json!({ "headers": { "Origin": "http://evil.net" } }), json!({})] {
            let refusal = client.refused(&node.ws("/sub/x"), headers).await;
            assert_eq!(
                (refusal.status, refusal.body.trim()),
                (401, "Origin check failed"),
                "{}",
                client.name
            );
        }
        let allowed = json!({ "headers": { "Origin": "http://example.com" } });
        client.open_with(&node.ws("/sub/x"), allowed).await.close(1000).await;
    }
    let refused = node.request(reqwest::Method::POST, "/pub/x", &[("origin", "http://evil.net")], "x").await;
    assert_eq!((refused.status, refused.text().trim()), (401, "Origin check failed"));
    let allowed =
        node.request(reqwest::Method::POST, "/pub/x", &[("origin", "https://example.com")], "x").await;
    assert_eq!(allowed.status, 200);
}

/// L-1, W-9: 262,144 bytes pass; one more closes the sender with 1009 and reaches nobody.
#[tokio::test]
async fn keep_the_limit_of_262144_bytes_with_1009() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut subscriber = receiver.open(&node.ws("/sub/big")).await;
        let mut publisher = sender.open(&node.ws("/pub/big")).await;
        let longest = "x".repeat(MESSAGE_BYTES_MAX);
        publisher.send(&longest).await;
        assert!(subscriber.text().await == longest, "{}", sender.name);
        publisher.send(&format!("{longest}x")).await;
        assert_eq!(publisher.closed().await, 1009, "{}", sender.name);
        assert_eq!(node.post("/pub/big", "end").await.status, 200);
        assert_eq!(subscriber.text().await, "end", "{}", sender.name);
        subscriber.close(1000).await;
    }
}

/// B-9, W-7: text stays text, fragments are joined, empty messages are messages.
#[tokio::test]
async fn keep_text_as_text() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut subscriber = receiver.open(&node.ws("/sub/text")).await;
        let publisher = sender.open(&node.ws("/pub/text")).await;
        for text in ["héllo", "", "\u{1F600}\u{0}\u{10FFFF}", "{\"not\": looked into", "line\nline\r\n"] {
            publisher.send(text).await;
            assert_eq!(subscriber.receive().await, Received::Text(text.into()), "{}", sender.name);
        }
        publisher.send_fragments(&["fünf", "", "€ in ", "pieces"]).await;
        assert_eq!(subscriber.text().await, "fünf€ in pieces", "{}", sender.name);
        subscriber.close(1000).await;
    }
}

/// B-2: what subscribers and pullers send is ignored, and they stay.
#[tokio::test]
async fn keep_ignoring_what_receivers_send() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut subscriber = receiver.open(&node.ws("/sub/deaf")).await;
        let mut puller = receiver.open(&node.ws("/pull/deaf")).await;
        for session in [&mut subscriber, &mut puller] {
            session.send("{\"problem\"?").await;
            session.send_binary(&[0, 159]).await;
            session.ping().await;
        }
        sender.open(&node.ws("/pub/deaf")).await.send("heard").await;
        sender.open(&node.ws("/push/deaf")).await.send("taken").await;
        assert_eq!(subscriber.text().await, "heard");
        assert_eq!(puller.text().await, "taken");
        subscriber.close(1000).await;
        puller.close(1000).await;
    }
}

/// T-6, T-7: three name spaces; bus and push have no hierarchy.
#[tokio::test]
async fn keep_name_spaces_apart_and_bus_and_push_flat() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut subscriber = receiver.open(&node.ws("/sub/q")).await;
        let mut puller = receiver.open(&node.ws("/pull/q")).await;
        let mut peer = receiver.open(&node.ws("/bus/q")).await;
        // a puller below, so that what is pushed there has where to go
        let mut below = receiver.open(&node.ws("/pull/q/child")).await;
        for route in ["/bus/q/child", "/push/q/child", "/pub/q/child", "/bus/q", "/push/q", "/pub/q"] {
            let mut session = sender.open(&node.ws(route)).await;
            session.send(route).await;
            session.ping().await;
            session.close(1000).await;
        }
        assert_eq!(below.text().await, "/push/q/child");
        assert_eq!(peer.text().await, "/bus/q");
        assert_eq!(puller.text().await, "/push/q");
        assert_eq!(subscriber.text().await, "/pub/q/child");
        assert_eq!(subscriber.text().await, "/pub/q");
        for mut session in [subscriber, puller, peer, below] {
            assert_eq!(session.close(1000).await, 1000);
        }
    }
}

/// W-6, W-7: pings are answered, closes are answered with the same code.
#[tokio::test]
async fn keep_answering_pings_and_closes() {
    let (node, clients) = cast(Options::memory()).await;
    for (client, _) in &clients {
        for route in ["/sub/c", "/pub/c", "/push/c", "/pull/c", "/bus/c"] {
            for code in [1000, 1001, 4321] {
                let mut session = client.open(&node.ws(route)).await;
                session.ping().await;
                assert_eq!(session.close(code).await, code, "{route}");
            }
        }
    }
}

/// B-10: who left gets nothing and costs nothing, whether it said goodbye or not.
#[tokio::test]
async fn fix_leaks_of_subscribers_and_peers() {
    let (node, clients) = cast(Options::memory()).await;
    let payload = "x".repeat(1024);
    let publish_all = async || {
        for _ in 0..300 {
            assert_eq!(node.post("/pub/leak", payload.clone()).await.status, 200);
            assert_eq!(node.post("/bus/leak", payload.clone()).await.status, 200);
        }
    };
    publish_all().await;
    let before = resident_kib(&node);
    for (client, _) in &clients {
        for round in 0..75 {
            let mut subscriber = client.open(&node.ws("/sub/leak")).await;
            let mut peer = client.open(&node.ws("/bus/leak")).await;
            if round % 2 == 0 {
                subscriber.close(1000).await;
                peer.close(1000).await;
            }
        }
    }
    // the other half leaves without a word
    drop(clients);
    wait::until("all sessions to be gone", async || {
        (node.metric("minium_bus_sessions").await == 0.0).then_some(())
    })
    .await;
    publish_all().await;
    let grown = resident_kib(&node).saturating_sub(before);
    // Mercury would hold 600 messages of 1 KiB for each of 300 dead sessions: 100 MB and more
    assert!(grown < 32 * 1024, "the node grew by {grown} KiB");
}

fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// B-3: when the puller whose turn it was leaves, the others go on taking.
#[tokio::test]
async fn fix_the_turn_when_a_puller_leaves() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut a = receiver.open(&node.ws("/pull/turn")).await;
        let mut b = receiver.open(&node.ws("/pull/turn")).await;
        let pusher = sender.open(&node.ws("/push/turn")).await;
        pusher.send("first").await;
        assert_eq!(a.text().await, "first");
        a.close(1000).await;
        for n in 0..3 {
            pusher.send(&n.to_string()).await;
            assert_eq!(b.text().await, n.to_string(), "{}", sender.name);
        }
        let mut c = receiver.open(&node.ws("/pull/turn")).await;
        for n in 3..7 {
            pusher.send(&n.to_string()).await;
        }
        let (first, second) = (b.text().await, c.text().await);
        let (third, fourth) = (b.text().await, c.text().await);
        let mut all = [first, second, third, fourth];
        all.sort();
        assert_eq!(all, ["3", "4", "5", "6"], "each one gets two, in turn");
        b.close(1000).await;
        c.close(1000).await;
    }
}

/// B-4: work waits for a puller, in order, and is refused aloud when there is no more room.
#[tokio::test]
async fn fix_push_without_a_puller() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut pusher = sender.open(&node.ws("/push/later")).await;
        pusher.send("0").await;
        pusher.ping().await;
        assert_eq!(node.post("/push/later", "1").await.status, 200);
        let mut puller = receiver.open(&node.ws("/pull/later")).await;
        assert_eq!(puller.text().await, "0", "{}", sender.name);
        assert_eq!(puller.text().await, "1", "{}", sender.name);
        puller.close(1000).await;
        // fill the buffer until it is full; it must be, long before this
        let mut taken = 0;
        let refused = loop {
            let answer = node.post("/push/later", taken.to_string()).await;
            if answer.status != 200 {
                break answer;
            }
            taken += 1;
            assert!(taken < 100_000, "the buffer has no bound");
        };
        assert_eq!(refused.problem(503, "no_puller")["retryable"], true);
        pusher.send("too much").await;
        assert_eq!(pusher.json().await["problem"]["code"], "no_puller", "the pusher is told too");
        let mut puller = receiver.open(&node.ws("/pull/later")).await;
        for n in 0..taken {
            assert_eq!(puller.text().await, n.to_string(), "{}", sender.name);
        }
        pusher.send("now").await;
        assert_eq!(puller.text().await, "now", "{}", sender.name);
        puller.close(1000).await;
    }
}

/// B-9: UTF-8 that was posted arrives as it was.
#[tokio::test]
async fn fix_the_charset_of_post() {
    let (node, clients) = cast(Options::memory()).await;
    for (_, receiver) in &clients {
        let mut subscriber = receiver.open(&node.ws("/sub/charset")).await;
        for kind in ["text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"] {
            let headers = [("content-type", kind)];
            let answer = node.request(reqwest::Method::POST, "/pub/charset", &headers, "héllo").await;
            assert_eq!(answer.status, 200);
            assert_eq!(subscriber.receive().await, Received::Text("héllo".into()), "{kind}");
        }
        // what is no text is refused or, when it says that it is none, binary
        let bytes = vec![0xff, 0, 0xfe];
        node.post("/pub/charset", bytes.clone()).await.problem(400, "invalid_request");
        let headers = [("content-type", "application/octet-stream")];
        assert_eq!(node.request(reqwest::Method::POST, "/pub/charset", &headers, bytes).await.status, 200);
        assert_eq!(subscriber.receive().await, Received::Binary(vec![0xff, 0, 0xfe]));
        subscriber.close(1000).await;
    }
}

/// H-4: a body that is too large is refused whole, never cut.
#[tokio::test]
async fn fix_truncation_of_large_posts() {
    let (node, clients) = cast(Options::memory()).await;
    let (_, receiver) = &clients[0];
    let mut subscriber = receiver.open(&node.ws("/sub/cut")).await;
    let longest = "y".repeat(MESSAGE_BYTES_MAX);
    assert_eq!(node.post("/pub/cut", longest.clone()).await.status, 200);
    assert!(subscriber.text().await == longest);
    for route in ["/pub/cut", "/push/cut", "/bus/cut"] {
        node.post(route, format!("{longest}y")).await.problem(413, "payload_too_large");
    }
    assert_eq!(node.post("/pub/cut", "end").await.status, 200);
    assert_eq!(subscriber.text().await, "end");
}

/// B-9: binary stays binary.
#[tokio::test]
async fn fix_binary_stays_binary() {
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut subscriber = receiver.open(&node.ws("/sub/binary")).await;
        let publisher = sender.open(&node.ws("/pub/binary")).await;
        let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        for bytes in [&[0x00, 0xff, 0xfe, 0x41][..], &[], &all] {
            publisher.send_binary(bytes).await;
            assert_eq!(subscriber.receive().await, Received::Binary(bytes.to_vec()), "{}", sender.name);
        }
        subscriber.close(1000).await;
    }
}

/// W-8: text that is not UTF-8 ends its sender with 1007 and reaches nobody.
#[tokio::test]
async fn fix_invalid_utf8_with_1007() {
    let (node, clients) = cast(Options::memory()).await;
    let (_, receiver) = &clients[0];
    let mut subscriber = receiver.open(&node.ws("/sub/utf8")).await;
    let mut publisher = Raw::connect(&node).await;
    publisher.upgrade(&node, "/pub/utf8").await;
    publisher.send(1, b"bad \xff\xfe").await;
    assert_eq!(publisher.end().await.0, End::Code(1007));
    assert_eq!(node.post("/pub/utf8", "end").await.status, 200);
    assert_eq!(subscriber.text().await, "end");
}

/// B-11: one that does not read is closed with 4000; the node does not grow, and the others go on.
#[tokio::test]
async fn fix_slow_consumers() {
    const COUNT: usize = 1_600;
    let (node, clients) = cast(Options::memory()).await;
    let (_, receiver) = &clients[0];
    let mut healthy = receiver.open(&node.ws("/sub/slow/end")).await;
    let mut slow = Raw::connect_narrow(&node).await;
    slow.upgrade(&node, "/sub/slow").await;
    let before = resident_kib(&node);
    let payload = "z".repeat(64 * 1024);
    for _ in 0..COUNT {
        assert_eq!(node.post("/pub/slow", payload.clone()).await.status, 200);
    }
    let grown = resident_kib(&node).saturating_sub(before);
    // 100 MiB were published; what is kept for those who lag is bounded to a part of that
    assert!(grown < 64 * 1024, "the node grew by {grown} KiB");
    assert_eq!(node.post("/pub/slow/end", "end").await.status, 200);
    assert_eq!(healthy.text().await, "end");
    let (end, got) = slow.end().await;
    assert_eq!(end, End::Code(4000), "after {got} messages");
    assert!(got < COUNT, "it was told of a loss that there was none of");
}

/// W-10: on shutdown every session is told 1001, and the process ends well.
#[tokio::test]
async fn fix_a_graceful_close_with_1001_on_shutdown() {
    for signal in [Signal::TERM, Signal::INT] {
        let (node, clients) = cast(Options::memory()).await;
        let mut sessions = Vec::new();
        for (client, _) in &clients {
            for route in ["/sub/s", "/pub/s", "/push/s", "/pull/s", "/bus/s"] {
                sessions.push(client.open(&node.ws(route)).await);
            }
        }
        let (status, codes) = tokio::join!(node.end(signal), async {
            let mut codes = Vec::new();
            for session in &mut sessions {
                codes.push(session.closed().await);
            }
            codes
        });
        assert_eq!(codes, vec![1001; sessions.len()]);
        assert!(status.success(), "{status}");
    }
}

/// H-3: patterns of origins are matched whole.
#[tokio::test]
async fn fix_anchored_origins() {
    let config = "[auth]\nallowed_origins = [\"example.com\", \"*.foo.org\", \"https://exact.net:8443\"]\n";
    let (node, clients) = cast(Options::memory().config(config)).await;
    let own = node.http("");
    let allowed =
        ["http://example.com", "https://example.com", "http://a.foo.org", "https://exact.net:8443", &own];
    let refused = [
        "http://evil-example.com",
        "http://example.com.evil.net",
        "http://sub.example.com",
        "http://foo.org",
        "http://a.b.foo.org",
        "http://exact.net:8443",
        "https://exact.net",
        "null",
        "http://127.0.0.1:1",
    ];
    for (client, _) in &clients {
        for origin in allowed {
            let headers = json!({ "headers": { "Origin": origin } });
            client.open_with(&node.ws("/sub/o"), headers).await.close(1000).await;
        }
        for origin in refused {
            let headers = json!({ "headers": { "Origin": origin } });
            let refusal = client.refused(&node.ws("/sub/o"), headers).await;
            assert_eq!((refusal.status, refusal.body.trim()), (401, "Origin check failed"), "{origin}");
        }
        // without an origin it is no browser
        client.open(&node.ws("/sub/o")).await.close(1000).await;
    }
}

/// L-3: a connection too many is told so, and room that is given back is used again.
#[tokio::test]
async fn fix_the_limit_on_sessions_with_503() {
    let config = "[server.limits]\nsessions = 4\n";
    let (node, clients) = cast(Options::memory().config(config)).await;
    for (client, _) in &clients {
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(client.open(&node.ws("/sub/full")).await);
        }
        let refusal = client.refused(&node.ws("/sub/full"), json!({})).await;
        assert_eq!(refusal.status, 503);
        let problem: serde_json::Value = serde_json::from_str(&refusal.body).unwrap();
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!("unavailable"), &json!(true)));
        for mut session in sessions {
            session.close(1000).await;
        }
        wait::until("room for sessions", async || {
            (node.metric("minium_bus_sessions").await == 0.0).then_some(())
        })
        .await;
    }
}
