//! `minium.v1`, durable channels and work over WebSocket, by clients that no one here wrote, on real databases.

use crate::support::foreign::{Foreign, Session};
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::raw::Raw;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

const CHANNELS: &str = "[channels.log]\ndurable = true\n[channels.work]\ndurable = true\npatterns = [\"push\"]\n\
                        lease = \"1s\"\n[channels.lossy]\nslow = \"gap\"\n";

async fn node(options: Options) -> Node {
    Node::start(Options { config: format!("{CHANNELS}{}", options.config), ..options }).await
}

async fn open(client: &Foreign, node: &Node, path: &str) -> Session {
    let session = client.open_with(&node.ws(path), json!({ "subprotocols": ["minium.v1"] })).await;
    assert_eq!(session.subprotocol.as_deref(), Some("minium.v1"));
    session
}

async fn ask(session: &mut Session, frame: &Value) -> Value {
    session.send(&frame.to_string()).await;
    session.json().await
}

on_both! {
    /// V-1, V-2, V-3, V-4, V-5, V-6, P-3: published, acknowledged with a position, resumed from it.
    durable_messages_are_acknowledged_and_resumed;
    /// V-12, V-13, V-14, V-15: one that is live, one that begins further back, one that is refused, one without positions.
    overlapping_filters_of_one_socket_have_each_its_history_in_order;
    /// B-6, V-6: a POST is answered with where the message stands, and a repeated key with the same place.
    a_post_to_a_durable_channel_is_answered_with_its_position;
    /// J-1, J-2, J-3: pushed, pulled with credit, noted, ended, seen in the API.
    work_is_pushed_pulled_and_ended_over_a_socket;
    /// J-3, J-5: a lease that ran out gives the job to another puller, and the late word is on record.
    a_lease_that_expires_gives_the_job_to_another_puller;
    /// J-4: a cancelled job is told at once to whoever works on it.
    a_cancelled_job_is_told_to_its_puller;
    /// J-6: in plain mode, with and without acknowledgement.
    plain_pullers_of_a_durable_channel;
}

async fn durable_messages_are_acknowledged_and_resumed(options: Options) {
    let node = node(options).await;
    for client in Foreign::each() {
        let mut s = open(&client, &node, "/sub/log").await;
        let start = s.json().await;
        assert_eq!(start["op"], "ok");
        let (epoch, first) = (start["epoch"].as_u64().unwrap(), start["offset"].as_u64().unwrap());
        let mut p = open(&client, &node, "/ws").await;
        for n in 1..=3 {
            let publish = json!({"op":"pub","topic":"log/x","data":{"n":n},"id":format!("{}-{n}", client.name),"ref":"r"});
            let ok = json!({"op":"ok","ref":"r","epoch":epoch,"offset":first + n});
            assert_eq!(ask(&mut p, &publish).await, ok);
            assert_eq!(ask(&mut p, &publish).await, ok, "the same id again");
            let m = json!({"op":"msg","topic":"log/x","epoch":epoch,"offset":first + n,"data":{"n":n}});
            assert_eq!(s.json().await, m);
        }
        let after = format!("{epoch}:{}", first + 1);
        let sub = json!({"op":"sub","topic":"log/+","after":after});
        assert_eq!(ask(&mut p, &sub).await, json!({"op":"ok","epoch":epoch,"offset":first + 1}));
        for n in 2..=3 {
            assert_eq!(p.json().await["data"]["n"], n);
        }
        assert_eq!(p.json().await, json!({"op":"caught_up","topic":"log/+","offset":first + 3}));
        let error = ask(&mut p, &json!({"op":"sub","topic":"free","after":after,"ref":"e"})).await;
        assert_eq!((&error["ref"], &error["problem"]["code"]), (&json!("e"), &json!("invalid_request")));
        let old = ask(&mut p, &json!({"op":"sub","topic":"log","after":format!("{}:1", epoch + 7)})).await;
        assert_eq!(old["problem"]["code"], "epoch_changed");
    }
}

async fn overlapping_filters_of_one_socket_have_each_its_history_in_order(options: Options) {
    let node = node(options).await;
    for client in Foreign::each() {
        let mut p = open(&client, &node, "/ws").await;
        let topic = |below: &str| format!("log/{}{below}", client.name);
        let mut publish = async |below: &str| {
            let kept = ask(&mut p, &json!({"op":"pub","topic":topic(below),"data":1})).await;
            kept["offset"].as_u64().unwrap()
        };
        let (first, _, third) = (publish("/a").await, publish("/b").await, publish("/a/c").await);
        let mut s = open(&client, &node, "/ws").await;
        let ok = ask(&mut s, &json!({"op":"sub","topic":topic(""),"after":third})).await;
        let epoch = ok["epoch"].as_u64().unwrap();
        assert_eq!(s.json().await["op"], "caught_up");
        let fourth = publish("/a").await;
        assert_eq!(s.json().await["offset"], fourth);
        let ok = ask(&mut s, &json!({"op":"sub","topic":topic("/a"),"after":first - 1})).await;
        assert_eq!(ok, json!({"op":"ok","epoch":epoch,"offset":first - 1}));
        for offset in [first, third, fourth] {
            assert_eq!(s.json().await["offset"], offset, "its history is whole, and in order");
        }
        let up = s.json().await;
        assert_eq!((&up["op"], &up["topic"]), (&json!("caught_up"), &json!(topic("/a"))), "{up}");
        let old = json!({"op":"sub","topic":topic("/b"),"after":format!("{}:1", epoch + 7)});
        assert_eq!(ask(&mut s, &old).await["problem"]["code"], "epoch_changed");
        let wild = topic("/a").replacen("log", "+", 1);
        assert_eq!(ask(&mut s, &json!({"op":"sub","topic":wild})).await, json!({"op":"ok"}));
        for below in ["/a", "/b", "/a/c"] {
            let offset = publish(below).await;
            assert_eq!(s.json().await["offset"], offset, "one copy for all of them");
        }
        assert_eq!(ask(&mut s, &json!({"op":"ping"})).await, json!({"op":"pong"}));
    }
}

async fn a_post_to_a_durable_channel_is_answered_with_its_position(options: Options) {
    let node = node(options).await;
    let post = async |body: &'static str, key: &'static str| {
        node.request(Method::POST, "/pub/log/y", &[("idempotency-key", key)], body).await
    };
    let first = post("{\"a\":1}", "k1").await.expect(200);
    assert_eq!(post("{\"a\":1}", "k1").await.expect(200), first);
    assert_eq!(post("{\"a\":2}", "k2").await.expect(200)["offset"], first["offset"].as_u64().unwrap() + 1);
    post("no json", "k3").await.problem(400, "invalid_json");
    post("{}", "").await.problem(400, "invalid_request");
}

async fn work_is_pushed_pulled_and_ended_over_a_socket(options: Options) {
    let node = node(options).await;
    for client in Foreign::each() {
        let mut pusher = open(&client, &node, "/push/work").await;
        let pushed = json!({"op":"push","data":[1],"options":{"priority":5,"attempts":2},"ref":"p"});
        let ok = ask(&mut pusher, &pushed).await;
        let id = ok["job"].as_i64().unwrap_or_else(|| panic!("{ok}"));
        let mut puller = open(&client, &node, "/ws").await;
        for queue in ["a\0b", "a b", ""] {
            let refused = ask(&mut puller, &json!({"op":"pull","topic":"work","queue":queue})).await;
            assert_eq!(refused["problem"]["code"], "invalid_request", "{refused}");
        }
        assert_eq!(
            ask(&mut puller, &json!({"op":"pull","topic":"work","credit":1})).await,
            json!({"op":"ok"})
        );
        let job = puller.json().await;
        assert_eq!(
            (&job["op"], &job["topic"], &job["job"]["id"]),
            (&json!("job"), &json!("work"), &json!(id))
        );
        assert_eq!(
            (&job["job"]["state"], &job["job"]["priority"], &job["job"]["args"]),
            (&json!("active"), &json!(5), &json!([1]))
        );
        let lease = &job["lease"];
        let noted =
            ask(&mut puller, &json!({"op":"note","job":id,"lease":lease,"notes":{"step":"one"}})).await;
        assert!(noted["lease_expires"].is_string(), "{noted}");
        let ack = json!({"op":"ack","job":id,"lease":lease,"result":{"rows":7},"ref":"a"});
        assert_eq!(ask(&mut puller, &ack).await, json!({"op":"ok","ref":"a"}));
        assert_eq!(
            ask(&mut puller, &ack).await,
            json!({"op":"ok","ref":"a"}),
            "its reply could have been lost"
        );
        let shown = node.get(&format!("/api/v1/jobs/{id}")).await.json();
        assert_eq!(
            (&shown["state"], &shown["result"]["rows"], &shown["notes"]["step"]),
            (&json!("finished"), &json!(7), &json!("one"))
        );
    }
}

async fn a_lease_that_expires_gives_the_job_to_another_puller(options: Options) {
    let node = node(Options { config: "[queue]\nlease_grace = \"0s\"\n".into(), ..options }).await;
    let client = Foreign::python();
    let mut pusher = open(&client, &node, "/push/work").await;
    ask(&mut pusher, &json!({"op":"push","data":[],"options":{"attempts":3}})).await;
    let mut first = open(&client, &node, "/pull/work").await;
    assert_eq!(first.json().await, json!({"op":"ok"}));
    let lost = first.json().await;
    let mut second = open(&client, &node, "/pull/work").await;
    assert_eq!(second.json().await, json!({"op":"ok"}));
    let given = second.json().await; // after a second, when the lease has run out
    assert_eq!((&given["job"]["id"], &given["job"]["attempt"]), (&lost["job"]["id"], &json!(2)));
    let id = given["job"]["id"].clone();
    let late = ask(&mut first, &json!({"op":"ack","job":id,"lease":lost["lease"],"result":"late"})).await;
    assert_eq!(late["problem"]["code"], "lease_lost");
    assert_eq!(
        ask(&mut second, &json!({"op":"ack","job":id,"lease":given["lease"]})).await,
        json!({"op":"ok"})
    );
    let events = node.events(id.as_i64().unwrap(), "task.finished").await;
    let types: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert!(types.contains(&"task.lost") && types.contains(&"task.late_result"), "{types:?}");
}

async fn a_cancelled_job_is_told_to_its_puller(options: Options) {
    let node = node(options).await;
    let client = Foreign::perl();
    let mut pusher = open(&client, &node, "/push/work").await;
    let id = ask(&mut pusher, &json!({"op":"push","data":[]})).await["job"].clone();
    let mut puller = open(&client, &node, "/pull/work").await;
    assert_eq!(puller.json().await, json!({"op":"ok"}));
    let job = puller.json().await;
    node.post(&format!("/api/v1/jobs/{id}/cancel"), "").await;
    assert_eq!(puller.json().await, json!({"op":"cancel","job":id}));
    let extend = ask(&mut puller, &json!({"op":"extend","job":id,"lease":job["lease"]})).await;
    assert_eq!(extend, json!({"op":"cancelled","job":id}));
}

async fn plain_pullers_of_a_durable_channel(options: Options) {
    let node = node(options).await;
    for client in Foreign::each() {
        for n in 0..3 {
            let pushed = node.post("/push/work", format!("[{n}]")).await;
            assert!(pushed.json()["job"].is_i64());
        }
        let mut acks = client.open(&node.ws("/pull/work?ack=1")).await;
        let first = acks.json().await;
        assert_eq!(first["data"], json!([0]));
        acks.send(&json!({"ack":first["job"],"lease":first["lease"],"result":"done"}).to_string()).await;
        let second = acks.json().await;
        acks.send(&json!({"nack":second["job"],"lease":second["lease"],"error":"broken"}).to_string()).await;
        let third = acks.json().await;
        acks.send(&json!({"ack":third["job"],"lease":third["lease"]}).to_string()).await;
        let state = async |job: &Value, wanted: &str| {
            let url = format!("/api/v1/jobs/{job}/wait?timeout=30s");
            assert_eq!(node.get(&url).await.json()["state"], wanted);
        };
        state(&first["job"], "finished").await;
        state(&second["job"], "failed").await;
        state(&third["job"], "finished").await;
        acks.close(1000).await;
        let mut written = client.open(&node.ws("/pull/work")).await;
        let job = node.post("/push/work", "{\"x\":1}").await.json()["job"].clone();
        assert_eq!(written.json().await, json!({"x":1}));
        state(&job, "finished").await;
        written.close(1000).await;
        let refused = client.refused(&node.ws("/pull/free?ack=1"), json!({})).await;
        assert_eq!(refused.status, 400);
    }
}

/// V-7, V-9, W-22: what one mode says, the others understand.
#[tokio::test]
async fn modes_understand_one_another() {
    let node = node(Options::memory()).await;
    for client in Foreign::each() {
        let (mut plain, mut v1) =
            (client.open(&node.ws("/sub/m")).await, open(&client, &node, "/sub/m").await);
        assert_eq!(v1.json().await, json!({"op":"ok"}));
        let mut events =
            client.open_with(&node.ws("/sub/m"), json!({ "subprotocols": ["cloudevents.json"] })).await;
        let mut p = open(&client, &node, "/pub/m").await;
        for (data, bare) in [(json!("hi"), "hi"), (json!({"a":1}), "{\"a\":1}")] {
            assert_eq!(ask(&mut p, &json!({"op":"pub","data":data})).await, json!({"op":"ok"}));
            assert_eq!(plain.text().await, bare);
            assert_eq!(v1.json().await, json!({"op":"msg","topic":"m","data":data}));
            assert_eq!(events.json().await["data"], data);
        }
        let (mut a, mut b) = (open(&client, &node, "/ws").await, client.open(&node.ws("/bus/p")).await);
        assert_eq!(ask(&mut a, &json!({"op":"bus","topic":"p"})).await, json!({"op":"ok"}));
        assert_eq!(ask(&mut a, &json!({"op":"send","topic":"p","data":"x"})).await, json!({"op":"ok"}));
        assert_eq!(b.text().await, "x");
        b.send("y").await;
        assert_eq!(a.json().await, json!({"op":"msg","topic":"p","data":"y"}));
        assert_eq!(ask(&mut a, &json!({"op":"ping"})).await, json!({"op":"pong"}));
    }
}

/// V-2, V-11, V-10, W-10: what is no frame ends the session; the node says that it goes.
#[tokio::test]
async fn frames_that_are_none_and_the_end() {
    let node = node(Options::memory()).await;
    let client = Foreign::python();
    let mut wrong = open(&client, &node, "/ws").await;
    wrong.send("hello").await;
    assert_eq!(wrong.closed().await, 4500);
    let mut many = open(&client, &node, "/ws").await;
    for n in 0..1_024 {
        assert_eq!(ask(&mut many, &json!({"op":"sub","topic":format!("s/{n}")})).await, json!({"op":"ok"}));
    }
    let more = ask(&mut many, &json!({"op":"sub","topic":"more"})).await;
    assert_eq!(more["problem"]["code"], "invalid_request");
    let refused = client.refused(&node.ws("/ws"), json!({})).await;
    assert_eq!(refused.status, 400, "only minium.v1 is spoken there");
    node.end(Signal::TERM).await;
    assert_eq!(many.json().await, json!({"op":"drain"}));
    assert_eq!(many.closed().await, 1001);
}

/// V-8, B-11: who did not read is told what it missed where the channel says so, and it is counted.
#[tokio::test]
async fn who_falls_behind_is_told_of_the_gap() {
    let node = node(Options::memory()).await;
    const COUNTED: &str = "minium_bus_slow_consumers_total";
    assert_eq!(node.metric(COUNTED).await, 0.0);
    let mut slow = Raw::connect_narrow(&node).await;
    let asked = Raw::handshake(&node, "/sub/lossy", "Sec-WebSocket-Protocol: minium.v1\r\n");
    slow.write(asked.as_bytes()).await;
    assert_eq!(slow.head().await.unwrap().status, 101);
    let body = "x".repeat(200_000);
    // more than ring and kernel hold
    for _ in 0..200 {
        assert_eq!(node.post("/pub/lossy", body.clone()).await.status, 200);
    }
    let gap = loop {
        let frame = slow.frame().await.expect("it is told and not closed");
        if frame.payload.starts_with(b"{\"op\":\"gap\"") {
            break String::from_utf8(frame.payload).unwrap();
        }
    };
    assert_eq!(gap, r#"{"op":"gap","topic":"lossy"}"#);
    assert!(node.metric(COUNTED).await > 0.0, "not counted");
}
