//! What Mercury does and Minium keeps to the letter.

use super::{MESSAGE_BYTES_MAX, cast};
use crate::support::foreign::Received;
use crate::support::node::Options;
use serde_json::json;

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

/// B-8: what one publisher sends arrives in the order in which it was sent.
#[tokio::test]
async fn keep_the_order_of_each_publisher() {
    const COUNT: usize = 500;
    let (node, clients) = cast(Options::memory()).await;
    for (sender, receiver) in &clients {
        let mut subscribers =
            [receiver.open(&node.ws("/sub/o")).await, receiver.open(&node.ws("/sub/o/+")).await];
        let mut publishers = Vec::new();
        for _ in 0..3 {
            publishers.push(sender.open(&node.ws("/pub/o/x")).await);
        }
        for n in 0..COUNT {
            for (who, publisher) in publishers.iter().enumerate() {
                publisher.send(&format!("{who} {n}")).await;
            }
        }
        for subscriber in &mut subscribers {
            let mut next = [0; 3];
            for _ in 0..3 * COUNT {
                let text = subscriber.text().await;
                let (who, n) = text.split_once(' ').unwrap();
                let expected = &mut next[who.parse::<usize>().unwrap()];
                assert_eq!(n, expected.to_string(), "of publisher {who}, {}", sender.name);
                *expected += 1;
            }
            subscriber.close(1000).await;
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
        // (Perl's strict decoder replaces noncharacters, such as U+10FFFF, by itself)
        for text in ["héllo", "", "\u{1F600}\u{0}\u{10FFFD}", "{\"not\": looked into", "line\nline\r\n"] {
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
