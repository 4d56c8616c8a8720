//! Modes and positions: CloudEvents, SSE, `?after=` and `?last=`, `Last-Event-ID`.

use crate::support::curl::Stream;
use crate::support::events::TaskEvent;
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use base64::Engine;
use serde_json::{Value, json};

const CLOUDEVENTS: &str = "cloudevents.json";

fn cloudevents() -> Value {
    json!({ "subprotocols": ["no.such.mode", CLOUDEVENTS] })
}

/// W-2: whatever is published arrives as a CloudEvent.
#[tokio::test]
async fn ephemeral_messages_are_wrapped_in_cloudevents_mode() {
    let node = Node::memory().await;
    for client in Foreign::each() {
        let mut subscriber = client.open_with(&node.ws("/sub/room"), cloudevents()).await;
        assert_eq!(subscriber.subprotocol.as_deref(), Some(CLOUDEVENTS));
        let publisher = client.open(&node.ws("/pub/room/1")).await;
        publisher.send("héllo").await;
        publisher.send("{\"a\":1}").await;
        publisher.send_binary(&[0, 255]).await;
        let mut ids = std::collections::HashSet::new();
        let mut event = async || {
            let event = subscriber.json().await;
            assert_eq!(
                (&event["specversion"], &event["type"]),
                (&json!("1.0"), &json!("message")),
                "{event}"
            );
            assert_eq!(event["subject"], "room/1", "{event}");
            assert!(event["source"].as_str().is_some_and(|s| !s.is_empty()), "{event}");
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "a fresh id each");
            event
        };
        assert_eq!(event().await["data"], "héllo");
        assert_eq!(event().await["data"], "{\"a\":1}", "text is a JSON string");
        let binary = event().await;
        assert_eq!(binary["data_base64"], base64::engine::general_purpose::STANDARD.encode([0, 255]));
        assert!(binary.get("data").is_none());
    }
}

/// W-3: a client in this mode sends CloudEvents; what is none is refused, and the session lives.
#[tokio::test]
async fn clients_send_cloudevents_in_cloudevents_mode() {
    let node = Node::memory().await;
    for client in Foreign::each() {
        let mut subscriber = client.open(&node.ws("/sub/ce")).await;
        let mut publisher = client.open_with(&node.ws("/pub/ce"), cloudevents()).await;
        let event = |member: &str, data: Value| {
            let mut event = json!({ "specversion": "1.0", "id": "1", "source": "/me", "type": "x" });
            event[member] = data;
            event.to_string()
        };
        publisher.send("no event").await;
        assert_eq!(publisher.json().await["problem"]["code"], "invalid_json");
        publisher.send("{\"data\":1}").await;
        assert_eq!(publisher.json().await["problem"]["code"], "invalid_json");
        publisher.send(&event("data", json!({ "a": [1] }))).await;
        assert_eq!(subscriber.json().await, json!({ "a": [1] }));
        publisher.send(&event("data_base64", json!("AP8="))).await;
        let received = subscriber.receive().await;
        assert_eq!(received, crate::support::foreign::Received::Binary(vec![0, 255]));
        subscriber.close(1000).await;
    }
}

/// W-1, W-4: the subprotocol that is spoken is chosen and echoed; if none is, the handshake is refused.
#[tokio::test]
async fn subprotocols_are_chosen_or_refused() {
    let node = Node::memory().await;
    for client in Foreign::each() {
        for (offered, chosen) in [
            (json!(["minium.plain"]), "minium.plain"),
            (json!([CLOUDEVENTS]), CLOUDEVENTS),
            (json!(["other", "minium.plain", CLOUDEVENTS]), "minium.plain"),
        ] {
            let session = client.open_with(&node.ws("/sub/x"), json!({ "subprotocols": offered })).await;
            assert_eq!(session.subprotocol.as_deref(), Some(chosen), "{}", client.name);
        }
        let refusal = client.refused(&node.ws("/sub/x"), json!({ "subprotocols": ["chat", "mqtt"] })).await;
        assert_eq!(refusal.status, 400, "{}: {refusal:?}", client.name);
        assert!(refusal.body.contains("invalid_request"), "{refusal:?}");
    }
}

/// W-12, W-14: SSE of ephemeral messages.
#[tokio::test]
async fn curl_gets_ephemeral_messages_as_server_sent_events() {
    let node = Node::memory().await;
    let mut stream = Stream::open(&node.http("/sub/news"), &[]).await;
    assert_eq!(stream.status, 200);
    let kind = stream.headers.iter().find(|h| h.to_ascii_lowercase().starts_with("content-type:")).unwrap();
    assert!(kind.to_ascii_lowercase().contains("text/event-stream"), "{kind}");
    for text in ["hello", "two\nlines", "", "data: looks like one", "end\n"] {
        assert_eq!(node.post("/pub/news/today", text).await.status, 200);
        let event = stream.event().await;
        assert_eq!((event.data.as_str(), event.id), (text, None));
    }
    let mut wild = Stream::open(&node.http("/sub/+/today"), &[]).await;
    assert_eq!(node.post("/pub/news/today", "x").await.status, 200);
    assert_eq!(wild.event().await.data, "x");
}

/// P-7: where there is nothing to come back to, no event has an id that a browser would come back with.
#[tokio::test]
async fn a_stream_whose_filter_begins_with_a_wildcard_has_no_positions() {
    let node = Node::memory().await;
    let mut wild = Stream::open(&node.http("/sub/+"), &[]).await;
    assert_eq!(wild.status, 200);
    enqueue_idle(&node, 2).await;
    for _ in 0..2 {
        let event = wild.event().await;
        assert_eq!(event.id, None);
        TaskEvent::parse(&event.data);
    }
    for (path, headers) in [("/sub/+?after=1", &[][..]), ("/sub/+", &[("Last-Event-ID", "1:1")])] {
        let refused = Stream::open(&node.http(path), headers).await;
        assert_eq!(refused.status, 400, "{path} {headers:?}");
    }
}

on_both! {
    /// P-1, P-2: every way of saying where to begin, on both kinds of client.
    positions_begin_where_they_say;
    /// W-13: SSE comes back behind its last id.
    last_event_id_resumes_where_the_stream_ended;
    /// P-3: replay joins live without gap or double, while events keep coming.
    a_replay_joins_live_without_a_seam;
    /// P-4, P-5: positions that cannot be had are refused with the code that says why.
    bad_positions_are_refused;
    /// P-4: what retention has dropped is `offset_expired`, and names what is there.
    a_position_that_is_no_longer_kept_is_offset_expired;
    /// P-6: the epoch survives a restart, and so does every byte of the history.
    history_is_the_same_after_a_restart;
}

/// Enqueues `count` jobs without a worker: `count` events.
async fn enqueue_idle(node: &Node, count: usize) {
    let jobs: Vec<_> = (0..count).map(|n| json!({ "task": "idle", "args": [n] })).collect();
    let ids = node.post_json("/api/v1/jobs", &json!(jobs)).await.expect(201);
    assert_eq!(ids["ids"].as_array().unwrap().len(), count);
}

/// Reads the whole history up to `count` entries.
async fn history(node: &Node, client: &Foreign, count: usize) -> Vec<TaskEvent> {
    let mut session = client.open(&node.ws("/sub/task?after=earliest")).await;
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(TaskEvent::parse(&session.text().await));
    }
    events
}

async fn positions_begin_where_they_say(options: Options) {
    let node = Node::start(options).await;
    enqueue_idle(&node, 10).await;
    for client in Foreign::each() {
        let events = history(&node, &client, 10).await;
        let epoch = events[0].epoch();
        for (query, first) in [
            ("after=earliest".to_owned(), 1),
            ("after=0".into(), 1),
            (format!("after={epoch}:0"), 1),
            ("after=4".into(), 5),
            (format!("after={epoch}:9"), 10),
            ("last=3".into(), 8),
            ("last=10".into(), 1),
            ("last=1000".into(), 1),
        ] {
            let mut session = client.open(&node.ws(&format!("/sub/task/idle?{query}"))).await;
            for expected in &events[first - 1..] {
                assert_eq!(session.text().await, expected.text, "{query}");
            }
        }
    }
    let perl = Foreign::perl();
    let mut tails = Vec::new();
    for query in ["", "?after=latest", "?last=0", "?after=10"] {
        tails.push(perl.open(&node.ws(&format!("/sub/task{query}"))).await);
    }
    enqueue_idle(&node, 1).await;
    for tail in &mut tails {
        assert_eq!(TaskEvent::parse(&tail.text().await).offset(), 11);
    }
}

async fn last_event_id_resumes_where_the_stream_ended(options: Options) {
    let node = Node::start(options).await;
    enqueue_idle(&node, 5).await;
    let url = node.http("/sub/task?after=earliest");
    let mut stream = Stream::open(&url, &[]).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(stream.event().await);
    }
    drop(stream);
    enqueue_idle(&node, 2).await;
    // as browsers do: the same URL, and the last id in a header, which wins
    let id = all[2].id.clone().unwrap();
    let mut stream = Stream::open(&url, &[("Last-Event-ID", &id)]).await;
    for _ in 3..7 {
        all.push(stream.event().await);
    }
    enqueue_idle(&node, 1).await;
    all.push(stream.event().await);
    let offsets: Vec<_> = all.iter().map(|e| TaskEvent::parse(&e.data).offset()).collect();
    assert_eq!(offsets, (1..=8).collect::<Vec<_>>());
    for event in &all {
        assert_eq!(event.id, Some(TaskEvent::parse(&event.data).position()));
    }
    let mut refused = Stream::open(&url, &[("Last-Event-ID", "nonsense")]).await;
    let (status, body) = (refused.status, refused.rest().await);
    assert_eq!(status, 400, "{body}");
}

async fn a_replay_joins_live_without_a_seam(options: Options) {
    const COUNT: usize = 3_000;
    let node = Node::start(options).await;
    enqueue_idle(&node, 500).await;
    let clients = Foreign::each();
    let publishing = async {
        for _ in 0..(COUNT - 500) / 50 {
            enqueue_idle(&node, 50).await;
        }
    };
    let reading = async |client: &Foreign, after: u64| {
        // many join at different moments: some replay far, some hardly at all
        let mut session = client.open(&node.ws(&format!("/sub/task?after={after}"))).await;
        for expected in after + 1..=COUNT as u64 {
            assert_eq!(
                TaskEvent::parse(&session.text().await).offset(),
                expected,
                "{} from {after}",
                client.name
            );
        }
    };
    let streaming = async {
        let mut stream = Stream::open(&node.http("/sub/task?after=earliest"), &[]).await;
        for expected in 1..=COUNT as u64 {
            assert_eq!(TaskEvent::parse(&stream.event().await.data).offset(), expected, "curl");
        }
    };
    let (python, perl) = (&clients[0], &clients[1]);
    tokio::join!(
        publishing,
        reading(python, 0),
        reading(perl, 250),
        reading(python, 480),
        reading(perl, 499),
        streaming
    );
}

async fn bad_positions_are_refused(options: Options) {
    let node = Node::start(options).await;
    enqueue_idle(&node, 2).await;
    let client = Foreign::python();
    let events = history(&node, &client, 2).await;
    let other = events[0].epoch() + 7;
    for (query, status, code) in [
        (format!("after={other}:1"), 410, "epoch_changed"),
        ("after=soon".into(), 400, "invalid_request"),
        ("after=1:2:3".into(), 400, "invalid_request"),
        ("after=-1".into(), 400, "invalid_request"),
        ("after=99999999999999999999".into(), 400, "invalid_request"),
        ("last=-1".into(), 400, "invalid_request"),
        ("last=many".into(), 400, "invalid_request"),
        ("after=1&last=1".into(), 400, "invalid_request"),
    ] {
        let refusal = client.refused(&node.ws(&format!("/sub/task?{query}")), json!({})).await;
        assert_eq!(refusal.status, status, "{query}: {refusal:?}");
        let problem: Value = serde_json::from_str(&refusal.body).unwrap();
        assert_eq!(problem["code"], code, "{query}: {problem}");
        if status == 410 {
            let earliest = problem["earliest"].as_str().unwrap_or_else(|| panic!("{problem}"));
            let mut session = client.open(&node.ws(&format!("/sub/task?after={earliest}"))).await;
            assert_eq!(
                session.text().await,
                events[0].text,
                "everything that is kept comes behind `earliest`"
            );
        }
        let mut stream = Stream::open(&node.http(&format!("/sub/task?{query}")), &[]).await;
        let (streamed, body) = (stream.status, stream.rest().await);
        assert_eq!(streamed, status, "{query}: {body}");
    }
    let refusal = client.refused(&node.ws("/sub/news?after=1"), json!({})).await;
    assert_eq!(refusal.status, 400, "{refusal:?}");
}

async fn a_position_that_is_no_longer_kept_is_offset_expired(options: Options) {
    let config = "[channels.task]\nretention = { count = 5 }\n";
    let node = Node::start(options.config(config)).await;
    enqueue_idle(&node, 40).await;
    let client = Foreign::perl();
    let url = node.ws("/sub/task?after=1");
    let refusal = crate::support::wait::until("retention to have dropped the oldest", async || {
        client.handshake(&url, json!({})).await.err()
    })
    .await;
    let problem: Value = serde_json::from_str(&refusal.body).unwrap();
    assert_eq!((refusal.status, &problem["code"]), (410, &json!("offset_expired")), "{problem}");
    let earliest = problem["earliest"].as_str().unwrap();
    let mut session = client.open(&node.ws(&format!("/sub/task?after={earliest}"))).await;
    let first = TaskEvent::parse(&session.text().await).offset();
    let behind: u64 = earliest.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!(first, behind + 1, "nothing is skipped in silence");
    for offset in first + 1..=40 {
        assert_eq!(TaskEvent::parse(&session.text().await).offset(), offset);
    }
}

async fn history_is_the_same_after_a_restart(options: Options) {
    let node = Node::start(options).await;
    enqueue_idle(&node, 20).await;
    let client = Foreign::python();
    let before = history(&node, &client, 20).await;
    node.end(rustix::process::Signal::TERM).await;
    node.restart().await;
    assert_eq!(history(&node, &client, 20).await, before);
    enqueue_idle(&node, 1).await;
    let after = &history(&node, &client, 21).await[20];
    assert_eq!((after.offset(), after.epoch()), (21, before[0].epoch()));
}

/// P-6: what lived in memory is another generation after a restart, and says so.
#[tokio::test]
async fn memory_has_a_new_epoch_at_each_start() {
    let node = Node::memory().await;
    let client = Foreign::python();
    enqueue_idle(&node, 1).await;
    let position = history(&node, &client, 1).await[0].position();
    node.kill().await;
    node.restart().await;
    let refusal = client.refused(&node.ws(&format!("/sub/task?after={position}")), json!({})).await;
    assert_eq!(refusal.status, 410, "{refusal:?}");
    assert!(refusal.body.contains("epoch_changed"), "{refusal:?}");
}
