//! What a connection does besides publishing and subscribing: work, and peers.

use super::*;

fn job(id: i64, lease: LeaseToken) -> Value {
    let time = "2026-11-22T02:00:00.000001Z";
    json!({ "op": "job", "topic": "import", "lease": lease, "lease_expires": time, "job": {
        "id": id, "task": "import", "queue": "default", "state": "active", "priority": 0, "args": ["x"],
        "notes": {}, "attempt": 1, "attempts": 1, "retries": 0, "parents": [], "lax": false, "key": null,
        "schedule": null, "worker": null, "result": null, "error": null, "progress": null, "origin": null,
        "created": time, "delayed": time, "expires": null, "started": time, "finished": null, "retried": null } })
}

#[tokio::test]
async fn work_survives_a_cut_and_its_words_are_said_again() {
    let lease = LeaseToken::fresh();
    let server = Server::start(move |n, incoming| async move {
        let mut session = incoming.accept().await;
        let pull = said(&mut session).await.unwrap();
        assert_eq!(
            (&pull["op"], &pull["credit"], &pull["queue"]),
            (&json!("pull"), &json!(2 - n), &json!("slow"))
        );
        say(&mut session, [ok(&pull)]).await;
        if n == 0 {
            say(&mut session, [job(7, lease)]).await;
            let note = said(&mut session).await.unwrap();
            assert_eq!((&note["op"], &note["notes"]["at"]), (&json!("note"), &json!(1)));
            return; // cut before the answer
        }
        let note = said(&mut session).await.unwrap();
        assert_eq!((&note["op"], &note["lease"]), (&json!("note"), &json!(lease)));
        let until = json!({ "op": "ok", "ref": note["ref"], "lease_expires": "2030-01-01T00:00:00Z" });
        say(&mut session, [until, json!({ "op": "cancel", "job": 7 })]).await;
        let nack = said(&mut session).await.unwrap();
        assert_eq!((&nack["op"], &nack["retry"]), (&json!("nack"), &json!(false)));
        let problem = Problem::new(ErrorCode::LeaseLost, "too late");
        say(&mut session, [json!({ "op": "error", "ref": nack["ref"], "problem": problem })]).await;
        let more = said(&mut session).await.unwrap();
        assert_eq!((&more["op"], &more["credit"]), (&json!("pull"), &json!(1)));
        until_closed(&mut session).await;
    })
    .await;
    let connection = connect(&server, at_once());
    let options = PullOptions { queue: Some("slow".into()), credit: 2, ..PullOptions::default() };
    let mut puller = connection.pull(&topic("import"), options).await.unwrap();
    let Some(Ok(Work::Job(mut job))) = puller.next().await else { panic!("no job") };
    assert_eq!((job.job.id, job.snapshot.get().contains("\"attempt\":1")), (7, true));
    let notes = json!({ "at": 1 }).as_object().unwrap().clone();
    assert!(!job.note(notes, None).await.unwrap());
    assert_eq!(job.lease_expires.unwrap().to_string(), "2030-01-01T00:00:00Z");
    job.cancelled().await;
    assert!(job.is_cancelled());
    assert_eq!(job.nack("stopped", false).await.unwrap_err().code(), Some(ErrorCode::LeaseLost));
    connection.close().await;
    assert!(puller.next().await.is_none());
}

#[tokio::test]
async fn peers_hear_speak_and_are_told_what_was_refused() {
    let server = Server::start(|n, incoming| async move {
        let mut session = incoming.accept().await;
        let bus = said(&mut session).await.unwrap();
        say(&mut session, [ok(&bus)]).await;
        if n == 0 {
            return;
        }
        while let Some(frame) = said(&mut session).await {
            let echo = json!({ "op": "msg", "topic": "ops", "data": frame["data"] });
            let problem = Problem::new(ErrorCode::SchemaViolation, "no");
            let refused = json!({ "op": "error", "ref": frame["ref"], "problem": problem });
            let frames = if frame["data"] == "bad" { vec![refused] } else { vec![echo, ok(&frame)] };
            say(&mut session, frames).await;
        }
    })
    .await;
    let connection = connect(&server, at_once());
    let mut peer = connection.bus(&topic("ops")).await.unwrap();
    assert!(matches!(peer.next().await, Some(Ok(PeerEvent::Gap))));
    let sender = peer.sender();
    for text in ["one", "bad", "two"] {
        sender.send(text).await.unwrap();
    }
    sender.finish().await;
    let mut heard = Vec::new();
    while let Some(event) = peer.next().await {
        heard.push(match event {
            Ok(PeerEvent::Message(m)) => m.payload.parse::<String>().unwrap(),
            Err(error) => error.code().unwrap().to_string(),
            Ok(other) => panic!("{other:?}"),
        });
    }
    assert_eq!(heard, ["one", "schema_violation", "two"]);
}
