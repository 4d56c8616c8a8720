//! The Rust client and the real server: many subscriptions, restarts, and typed events.

use crate::support::node::{Node, Options};
use crate::support::wait;
use futures::StreamExt;
use minium_client::{
    Backoff, Client, ConnectOptions, Connection, Event, LeasedJob, PullOptions, Puller, Received,
    Subscription, Work,
};
use minium_protocol::{After, ErrorCode, EventType, LogLevel, LogLine, State};
use serde_json::json;

fn connect(node: &Node) -> Connection {
    let backoff = Backoff { failures_max: None, ..Backoff::none() };
    let options = ConnectOptions { backoff, ..ConnectOptions::default() };
    Client::new(&node.http(""), None).unwrap().connect(options).unwrap()
}

async fn message(events: &mut Subscription) -> Received {
    let next = async {
        loop {
            match events.next().await.expect("it goes on").unwrap() {
                Event::Message(message) => return message,
                Event::CaughtUp { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    wait::within("a message", next).await
}

/// E-1, P-3: typed events, over a restart of the node.
#[tokio::test]
async fn task_events_are_typed_and_go_on_over_a_restart() {
    let node = Node::start(Options::file()).await;
    let connection = connect(&node);
    let mut events = connection.subscribe(&"task/idle".parse().unwrap(), After::Earliest).await.unwrap();
    let first = node.enqueue(&json!({ "task": "idle", "args": [1] })).await;
    let event = message(&mut events).await.task_event().unwrap().unwrap();
    assert_eq!((event.kind, event.job.id, event.job.state), (EventType::Enqueue, first, State::Inactive));
    node.kill().await;
    node.restart().await;
    let second = node.enqueue(&json!({ "task": "idle" })).await;
    assert_eq!(message(&mut events).await.task_event().unwrap().unwrap().job.id, second);
    connection.close().await;
}

/// P-2, P-4: filters that meet, each with all that it asks for; an epoch that changes.
#[tokio::test]
async fn subscriptions_that_meet_miss_nothing_and_a_lost_position_is_told() {
    let node = Node::memory().await;
    let connection = connect(&node);
    let mut all = connection.subscribe(&"task".parse().unwrap(), After::Latest).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(node.enqueue(&json!({ "task": "idle" })).await);
    }
    // what the first subscription has had already
    let mut later = connection.subscribe(&"task/idle".parse().unwrap(), After::Earliest).await.unwrap();
    for events in [&mut all, &mut later] {
        for id in &ids {
            assert_eq!(message(events).await.task_event().unwrap().unwrap().job.id, *id);
        }
    }
    node.kill().await;
    node.restart().await; // in memory: another epoch
    let lost = async {
        loop {
            match later.next().await.unwrap().unwrap() {
                Event::Lost(problem) => return problem,
                Event::CaughtUp { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(wait::within("the loss to be told", lost).await.code, ErrorCode::EpochChanged);
    later.begin(After::Earliest).await.unwrap();
    let id = node.enqueue(&json!({ "task": "idle" })).await;
    assert_eq!(message(&mut later).await.task_event().unwrap().unwrap().job.id, id);
}

async fn job(puller: &mut Puller) -> Box<LeasedJob> {
    match wait::within("a job", puller.next()).await {
        Some(Ok(Work::Job(job))) => job,
        other => panic!("{other:?}"),
    }
}

/// work over a connection: credit, words, a cancel, and a word after the puller left.
#[tokio::test]
async fn work_is_pulled_told_of_and_cancelled() {
    let config = "[channels.import]\ndurable = true\n";
    let node = Node::start(Options::memory().config(config)).await;
    let connection = connect(&node);
    let client = Client::new(&node.http(""), None).unwrap();
    let topic = "import".parse().unwrap();
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(connection.push(&topic, json!({ "n": n }), None).await.unwrap().job.unwrap());
    }
    let options = PullOptions { credit: 2, ..PullOptions::default() };
    let mut puller = connection.pull(&topic, options).await.unwrap();
    let (mut first, second) = (job(&mut puller).await, job(&mut puller).await);
    assert_eq!([first.job.id, second.job.id], ids[..2]);
    assert!(!first.note(json!({ "at": "half" }).as_object().unwrap().clone(), None).await.unwrap());
    let line = |text: &str| LogLine { at: None, level: LogLevel::Step, text: text.into() };
    assert!(!first.log(vec![line("a"), line("b")]).await.unwrap());
    let page = client.log(ids[0], 1, None).await.unwrap();
    assert_eq!((page.lines.len(), page.lines[0].text.as_str(), page.next), (1, "b", None));
    first.ack(Some(serde_json::value::to_raw_value("done").unwrap())).await.unwrap();
    let shown = node.get(&format!("/api/v1/jobs/{}", ids[0])).await.expect(200);
    assert_eq!(
        (&shown["state"], &shown["result"], &shown["notes"]["at"]),
        (&json!("finished"), &json!("done"), &json!("half"))
    );
    node.post(&format!("/api/v1/jobs/{}/cancel", ids[1]), "").await.expect(200);
    wait::within("the cancel", second.cancelled()).await;
    drop(second);
    let third = job(&mut puller).await;
    assert_eq!(third.job.id, ids[2]);
    drop(puller);
    wait::within("a word after the puller left", third.ack(None)).await.unwrap();
    assert_eq!(node.get(&format!("/api/v1/jobs/{}", ids[2])).await.expect(200)["state"], "finished");
    connection.close().await;
}
