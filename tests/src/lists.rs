//! What the bus can tell: its sessions, and how one is closed; its topics; its schemas; and all of it as AsyncAPI.

use crate::support::curl::Stream;
use crate::support::foreign::{Foreign, Session};
use crate::support::node::{Node, Options, checkout};
use crate::support::raw::Raw;
use crate::support::{on_both, wait};
use crate::trust::{Guarded, token};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

on_both! {
    /// B-16: what is kept and what is pulled from the queue is counted, by task where it is about jobs.
    durable_topics_are_counted_as_they_are_relayed;
}

/// A node of several shards, whatever this machine has.
async fn shards(options: Options) -> Node {
    let env = vec![("MINIUM_SERVER__SHARDS", "3".to_owned())];
    Node::start(Options { env, ..options }).await
}

async fn sessions(node: &Node) -> Vec<Value> {
    node.get("/api/v1/sessions").await.expect(200)["sessions"].as_array().unwrap().clone()
}

/// The one session for which this holds, as soon as there is one.
async fn session(node: &Node, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, async || sessions(node).await.into_iter().find(|session| is(session))).await
}

async fn topics(node: &Node, query: &str) -> Vec<Value> {
    node.get(&format!("/api/v1/topics{query}")).await.expect(200)["topics"].as_array().unwrap().clone()
}

/// One topic, as soon as this holds.
async fn topic(node: &Node, pattern: &str, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let query = format!("?pattern={pattern}&prefix={name}");
    wait::until(&format!("{pattern} {name} to be as it must"), async || {
        topics(node, &query).await.into_iter().find(|topic| topic["topic"] == name && is(topic))
    })
    .await
}

async fn v1(client: &Foreign, node: &Node, path: &str) -> Session {
    client.open_with(&node.ws(path), json!({ "subprotocols": ["minium.v1"] })).await
}

async fn ask(session: &mut Session, frame: Value) -> Value {
    session.send(&frame.to_string()).await;
    session.json().await
}

/// B-14: each kind of session says what it is, where it is, and what it was given.
#[tokio::test]
async fn sessions_say_what_they_are() {
    let node = shards(Options::memory()).await;
    for client in Foreign::each() {
        let name = client.name;
        let mut plain = client.open(&node.ws(&format!("/sub/{name}"))).await;
        let events = json!({ "subprotocols": ["cloudevents.json"] });
        let _events = client.open_with(&node.ws(&format!("/pub/{name}/x")), events).await;
        let _pull = client.open(&node.ws(&format!("/pull/{name}"))).await;
        let _peer = client.open(&node.ws(&format!("/bus/{name}"))).await;
        let mut talk = v1(&client, &node, "/ws").await;
        assert_eq!(ask(&mut talk, json!({ "op": "sub", "topic": format!("{name}/+") })).await["op"], "ok");
        assert_eq!(ask(&mut talk, json!({ "op": "bus", "topic": name })).await["op"], "ok");
        let stream = Stream::open(&node.http(&format!("/sub/{name}/sse")), &[]).await;
        for n in 0..3 {
            node.post(&format!("/pub/{name}"), format!("{n}")).await;
            assert_eq!(plain.text().await, format!("{n}"));
        }

        let of = |mode: &'static str, pattern: Value| {
            let name = name.to_owned();
            move |session: &Value| {
                let concerns = session["filters"].to_string().contains(&name);
                session["mode"] == mode && session["pattern"] == pattern && concerns
            }
        };
        let given =
            session(&node, "what was sent to be counted", |s| of("plain", json!("sub"))(s) && s["sent"] == 3);
        let given = given.await;
        assert_eq!((&given["filters"], &given["received"]), (&json!([name]), &json!(0)));
        assert_eq!((&given["behind"], &given["more_filters"]), (&json!(false), &json!(0)));
        assert!(given["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{given}");
        assert!(given["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{given}");
        let publisher = session(&node, "the publisher", of("cloudevents", json!("pub"))).await;
        assert_eq!(publisher["filters"], json!([format!("{name}/x")]));
        session(&node, "the puller", of("plain", json!("pull"))).await;
        session(&node, "the peer", of("plain", json!("bus"))).await;
        let several = session(&node, "the one that does several things", |s| {
            of("minium.v1", Value::Null)(s) && s["received"] == 2
        });
        let filters = json!([format!("sub/{name}/+"), format!("bus/{name}")]);
        assert_eq!(several.await["filters"], filters);
        let sse = session(&node, "the event stream", of("sse", json!("sub"))).await;
        assert!(sse["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{sse}");
        drop(stream);
    }
    wait::until("those that left to be gone", async || sessions(&node).await.is_empty().then_some(())).await;
}

/// B-14: page by page comes every session once, in the order of opening.
#[tokio::test]
async fn sessions_are_listed_by_the_page() {
    let node = shards(Options::memory()).await;
    let client = Foreign::python();
    let mut open = Vec::new();
    for n in 0..7 {
        open.push(client.open(&node.ws(&format!("/sub/page/{n}"))).await);
    }
    let mut seen = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = node.get(&format!("/api/v1/sessions{query}")).await.expect(200);
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 3, "{page}");
        seen.extend(sessions.iter().map(|session| session["filters"][0].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_u64() else { break };
        query = format!("?limit=3&after={next}");
    }
    assert_eq!(seen, (0..7).map(|n| format!("page/{n}")).collect::<Vec<_>>());
    for bad in ["?limit=0", "?limit=1001", "?after=x", "?before=1"] {
        node.get(&format!("/api/v1/sessions{bad}")).await.problem(400, "invalid_request");
    }
}

/// B-14: one that does not read is behind until it has read.
#[tokio::test]
async fn a_session_that_does_not_read_is_behind() {
    let node = shards(Options::memory()).await;
    let mut raw = Raw::connect_narrow(&node).await;
    raw.upgrade(&node, "/sub/slow").await;
    assert_eq!(session(&node, "the session", |_| true).await["behind"], false);
    let message = "x".repeat(200_000);
    for _ in 0..20 {
        assert_eq!(node.post("/pub/slow", message.clone()).await.status, 200);
    }
    session(&node, "it to be behind", |s| s["behind"] == true).await;
    for _ in 0..20 {
        assert_eq!(raw.frame().await.unwrap().payload.len(), message.len());
    }
    session(&node, "it to have read", |s| s["behind"] == false && s["sent"] == 20).await;
}

/// B-15: the client hears why, in every mode, and only that one.
#[tokio::test]
async fn an_operator_closes_a_session() {
    let node = shards(Options::memory()).await;
    let id = async |name: &str| {
        let found = session(&node, "the session", |s| s["filters"][0] == name).await;
        found["id"].as_u64().unwrap()
    };
    for client in Foreign::each() {
        let mut back = client.open(&node.ws("/sub/back")).await;
        let mut away = v1(&client, &node, "/sub/away").await;
        assert_eq!(away.json().await["op"], "ok");
        let mut stays = client.open(&node.ws("/sub/stays")).await;
        let mut stream = Stream::open(&node.http("/sub/stream"), &[]).await;

        let (back_id, away_id, stream_id) = (id("back").await, id("away").await, id("stream").await);
        assert_eq!(node.delete(&format!("/api/v1/sessions/{back_id}")).await.status, 204);
        assert_eq!(back.closed().await, 1012);
        assert_eq!(node.delete(&format!("/api/v1/sessions/{away_id}?reconnect=0")).await.status, 204);
        assert_eq!(away.closed().await, 1008);
        assert_eq!(node.delete(&format!("/api/v1/sessions/{stream_id}")).await.status, 204);
        let told = stream.event().await;
        assert_eq!(told.name.as_deref(), Some("close"));
        let told: Value = serde_json::from_str(&told.data).unwrap();
        assert_eq!(told, json!({ "code": 1012, "reason": "an operator closed the session" }));

        node.delete(&format!("/api/v1/sessions/{back_id}")).await.problem(404, "not_found");
        node.post("/pub/stays", "still").await;
        assert_eq!(stays.text().await, "still");
        assert_eq!(stays.close(1000).await, 1000);
        wait::until("all of them to be gone", async || sessions(&node).await.is_empty().then_some(())).await;
    }
    node.delete("/api/v1/sessions/x").await.problem(400, "invalid_request");
    node.delete("/api/v1/sessions/1?reconnect=maybe").await.problem(400, "invalid_request");
}

/// B-14: numbers are not given again by the next start.
#[tokio::test]
async fn a_number_from_before_a_restart_names_nobody() {
    let node = Node::start(Options::file()).await;
    let client = Foreign::python();
    let first = client.open(&node.ws("/sub/a")).await;
    let old = session(&node, "the session", |_| true).await["id"].clone();
    node.kill().await;
    drop(first);
    // the numbers begin with the second of the start
    let second = jiff::Timestamp::now().as_second();
    wait::until("the next second", async || (jiff::Timestamp::now().as_second() > second).then_some(()))
        .await;
    node.restart().await;
    let mut again = client.open(&node.ws("/sub/a")).await;
    let new = session(&node, "the session", |_| true).await["id"].clone();
    assert!(new.as_u64().unwrap() > old.as_u64().unwrap() && new.as_u64().unwrap() < 1 << 53, "{old} {new}");
    node.delete(&format!("/api/v1/sessions/{old}")).await.problem(404, "not_found");
    node.post("/pub/a", "x").await;
    assert_eq!(again.text().await, "x");
}

/// B-14, A-6: addresses and subjects are for admins.
#[tokio::test]
async fn only_an_admin_sees_addresses_and_subjects() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let with = |scope: &str| format!("Bearer {}", token(scope));
    let client = Foreign::python();
    let headers = json!({ "headers": { "Authorization": with("sub:a") } });
    let _session = client.open_with(&node.ws("/sub/a"), headers).await;
    let list = async |scope: &str| {
        let bearer = with(scope);
        let headers = [("authorization", bearer.as_str())];
        let answer = node.request(Method::GET, "/api/v1/sessions", &headers, "").await;
        answer.expect(200)["sessions"][0].clone()
    };
    let all = list("admin").await;
    assert_eq!(all["subject"], "tester");
    assert!(all["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{all}");
    let less = list("jobs:read jobs:write").await;
    assert_eq!((&less["subject"], &less["remote"]), (&Value::Null, &Value::Null), "{less}");
    assert_eq!((&less["id"], &less["filters"]), (&all["id"], &json!(["a"])));
}

/// B-16: who receives is counted by hierarchy, what is sent by topic, however it is sent.
#[tokio::test]
async fn topics_say_who_receives_and_what_was_sent() {
    let node = shards(Options::memory()).await;
    for (client, other) in [(Foreign::python(), Foreign::perl()), (Foreign::perl(), Foreign::python())] {
        let name = client.name;
        let mut exact = client.open(&node.ws(&format!("/sub/{name}/a/b"))).await;
        let _above = other.open(&node.ws(&format!("/sub/{name}"))).await;
        let mut wild = v1(&client, &node, "/ws").await;
        // one session, two filters that match: it counts once
        for filter in [format!("{name}/+"), format!("{name}/a/+")] {
            assert_eq!(ask(&mut wild, json!({ "op": "sub", "topic": filter })).await["op"], "ok");
        }
        let socket = client.open(&node.ws(&format!("/pub/{name}/a/b"))).await;
        socket.send("1").await;
        let mut talk = v1(&other, &node, "/ws").await;
        let frame = json!({ "op": "pub", "topic": format!("{name}/a/b"), "data": "2" });
        assert_eq!(ask(&mut talk, frame).await["op"], "ok");
        assert_eq!(node.post(&format!("/pub/{name}/a/b"), "3").await.status, 200);
        let came: BTreeSet<String> = [exact.text().await, exact.text().await, exact.text().await].into();
        assert_eq!(came, ["1", "2", "3"].map(str::to_owned).into());

        let there = topic(&node, "sub", &format!("{name}/a/b"), |t| t["messages"] == 3).await;
        assert_eq!(
            (&there["subscribers"], &there["pullers"], &there["peers"]),
            (&json!(3), &json!(0), &json!(0))
        );
        assert_eq!((&there["channel"], &there["durable"]), (&Value::Null, &json!(false)));
        assert!(there["rate"].as_f64().unwrap() > 0.0 && there["last"].is_string(), "{there}");
        let quiet = topic(&node, "sub", name, |_| true).await;
        assert_eq!(
            (&quiet["messages"], &quiet["last"], &quiet["subscribers"]),
            (&json!(0), &Value::Null, &json!(1))
        );

        let _pullers = [
            client.open(&node.ws(&format!("/pull/{name}"))).await,
            other.open(&node.ws(&format!("/pull/{name}"))).await,
        ];
        assert_eq!(node.post(&format!("/push/{name}"), "w").await.status, 200);
        let work = topic(&node, "push", name, |t| t["pullers"] == 2 && t["messages"] == 1).await;
        assert_eq!(work["subscribers"], 0);
        let _peer = client.open(&node.ws(&format!("/bus/{name}"))).await;
        assert_eq!(node.post(&format!("/bus/{name}"), "p").await.status, 200);
        topic(&node, "bus", name, |t| t["peers"] == 1 && t["messages"] == 1).await;

        assert_eq!(exact.close(1000).await, 1000);
        topic(&node, "sub", &format!("{name}/a/b"), |t| t["subscribers"] == 2 && t["messages"] == 3).await;
    }
}

/// B-16: by name, then by pattern, by the page, below a prefix.
#[tokio::test]
async fn topics_are_listed_by_the_page() {
    let node = shards(Options::memory()).await;
    for (pattern, topic) in
        [("pub", "p/b"), ("bus", "p/a"), ("pub", "p/a"), ("push", "p"), ("pub", "pa"), ("pub", "p/a/c")]
    {
        assert_eq!(node.post(&format!("/{pattern}/{topic}"), "x").await.status, 200);
    }
    let mut seen = Vec::new();
    let mut query = "?prefix=p&limit=2".to_owned();
    loop {
        let page = node.get(&format!("/api/v1/topics{query}")).await.expect(200);
        assert_eq!(page["forgotten"], 0);
        for topic in page["topics"].as_array().unwrap() {
            seen.push(format!("{} {}", topic["topic"].as_str().unwrap(), topic["pattern"].as_str().unwrap()));
        }
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?prefix=p&limit=2&after={next}");
    }
    assert_eq!(seen, ["p push", "p/a sub", "p/a bus", "p/a/c sub", "p/b sub"]);
    for bad in ["?pattern=pub", "?limit=0", "?after=x", "?topic=x"] {
        node.get(&format!("/api/v1/topics{bad}")).await.problem(400, "invalid_request");
    }
    node.get("/api/v1/topics?prefix=a/%2B").await.problem(400, "topic_invalid");
}

async fn durable_topics_are_counted_as_they_are_relayed(options: Options) {
    let channels = "[channels.log]\ndurable = true\npatterns = [\"sub\"]\n[channels.work]\ndurable = true\npatterns = [\"push\"]\n";
    let node = shards(options.config(channels)).await;
    for n in 0..2 {
        assert_eq!(node.post("/pub/log/x", json!({ "n": n }).to_string()).await.status, 200);
        assert_eq!(node.post("/push/work", json!({ "n": n }).to_string()).await.status, 200);
    }
    let client = Foreign::python();
    let mut puller = v1(&client, &node, "/pull/work").await;
    assert_eq!(puller.json().await["op"], "ok");
    assert_eq!(puller.json().await["op"], "job");
    let log = topic(&node, "sub", "log/x", |t| t["messages"] == 2).await;
    assert_eq!((&log["channel"], &log["durable"]), (&json!("log"), &json!(true)));
    let work = topic(&node, "push", "work", |t| t["messages"] == 2 && t["pullers"] == 1).await;
    assert_eq!(work["durable"], true);
    // two were created, and one of them was claimed
    let task = topic(&node, "sub", "task/work", |t| t["messages"] == 3).await;
    assert_eq!((&task["channel"], &task["schema"]), (&json!("task"), &json!("sub/task.json")));
    let pulled = session(&node, "the puller", |s| s["pattern"] == "pull" && s["sent"] == 1).await;
    assert_eq!(pulled["filters"], json!(["work"]));
}

const LABELS: &str =
    r#"{"title":"A label","type":"object","required":["t"],"properties":{"t":{"type":"string"}}}"#;

/// A node with channels and schemas of its own.
async fn described() -> Node {
    let channels = "[channels.rack]\n[channels.\"rack/7\"]\ndurable = true\npatterns = [\"sub\"]\n\
                    [channels.import]\ndurable = true\npatterns = [\"push\"]\n[channels.\"odd:~@name.x_y\"]\n\
                    [notifier]\nminion_topic = \"jobs\"\n";
    let node = Node::start(Options::memory().config(channels)).await;
    for path in ["sub/rack/7/label.json", "bus/ops.json", "tasks/import.json"] {
        let file = node.dir().join("schemas").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, LABELS).unwrap();
    }
    rustix::process::kill_process(node.pid(), rustix::process::Signal::HUP).unwrap();
    wait::until("the schemas to be read", async || {
        // all files are taken at once
        (node.get("/schemas/tasks/import.json").await.status == 200).then_some(())
    })
    .await;
    node
}

/// S-7: what there is, what it governs, and where it is read.
#[tokio::test]
async fn schemas_are_listed() {
    let node = described().await;
    let list = node.get("/api/v1/schemas").await.expect(200);
    let list = list["schemas"].as_array().unwrap();
    let of = |path: &str| list.iter().find(|s| s["path"] == path).unwrap_or_else(|| panic!("{path}")).clone();
    let label = of("sub/rack/7/label.json");
    let expected = json!({
        "path": "sub/rack/7/label.json", "url": "/schemas/sub/rack/7/label.json", "pattern": "sub",
        "topic": "rack/7/label", "task": null, "title": "A label", "built_in": false,
    });
    assert_eq!(label, expected);
    assert_eq!(
        (&of("tasks/import.json")["task"], &of("tasks/import.json")["pattern"]),
        (&json!("import"), &Value::Null)
    );
    assert_eq!((&of("job.json")["built_in"], &of("job.json")["topic"]), (&json!(true), &Value::Null));
    for schema in list {
        assert_eq!(node.get(schema["url"].as_str().unwrap()).await.status, 200, "{schema}");
    }
}

/// S-8: a document is judged as a message or as arguments would be, and goes nowhere.
#[tokio::test]
async fn a_document_is_tested_by_its_schema() {
    let node = described().await;
    let python = Foreign::python();
    let mut client = python.open(&node.ws("/sub/rack")).await;
    let test = async |asked: Value| node.post_json("/api/v1/schemas:test", &asked).await;
    let by = async |asked: Value| test(asked).await.expect(200);
    let topic = "rack/7/label/x";
    let good = by(json!({ "pattern": "sub", "topic": topic, "document": { "t": "a" } })).await;
    assert_eq!(good, json!({ "valid": true, "schema": "sub/rack/7/label.json", "errors": [] }));
    let bad = by(json!({ "pattern": "sub", "topic": topic, "document": { "t": 1 } })).await;
    assert_eq!((&bad["valid"], &bad["schema"]), (&json!(false), &json!("sub/rack/7/label.json")));
    assert_eq!(bad["errors"][0]["pointer"], "/t");
    // the same words as for a message
    let refused = node.post(&format!("/pub/{topic}"), r#"{"t":1}"#).await.problem(422, "schema_violation");
    assert_eq!(bad["errors"], refused["errors"]);
    let args = by(json!({ "task": "import/x", "document": {} })).await;
    assert_eq!((&args["valid"], &args["schema"]), (&json!(false), &json!("tasks/import.json")));
    let path = by(json!({ "path": "bus/ops.json", "document": { "t": "" } })).await;
    assert_eq!((&path["valid"], &path["schema"]), (&json!(true), &json!("bus/ops.json")));
    let free = by(json!({ "pattern": "push", "topic": "rack", "document": null })).await;
    assert_eq!(free, json!({ "valid": true, "schema": null, "errors": [] }));
    test(json!({ "path": "sub/none.json", "document": 1 })).await.problem(404, "not_found");
    test(json!({ "path": "bus/ops.json" })).await.problem(400, "invalid_request");
    test(json!({ "path": "bus/ops.json", "task": "import", "document": 1 }))
        .await
        .problem(400, "invalid_request");
    node.post("/api/v1/schemas:test", "{").await.problem(400, "invalid_json");
    assert_eq!(node.post("/pub/rack", "marker").await.status, 200);
    assert_eq!(client.text().await, "marker", "nothing that was tested came");
}

/// S-9: by the standard's own rules, complete, and every reference leads somewhere.
#[tokio::test]
async fn all_channels_and_messages_are_told_as_asyncapi() {
    let node = described().await;
    let document = node.get("/asyncapi.json").await.expect(200);
    judge(&document).await.unwrap();
    let mut broken = document.clone();
    broken["channels"]["sub__rack"]["adress"] = json!("x");
    assert!(judge(&broken).await.unwrap_err().contains("adress"), "the judge sees what is wrong");

    let channels = document["channels"].as_object().unwrap();
    let addresses: BTreeSet<&str> = channels.values().map(|c| c["address"].as_str().unwrap()).collect();
    let expected = "sub/rack pub/rack push/rack pull/rack bus/rack sub/rack/7 pub/rack/7 push/import pull/import \
        sub/odd:~@name.x_y pub/odd:~@name.x_y push/odd:~@name.x_y pull/odd:~@name.x_y bus/odd:~@name.x_y sub/task \
        sub/rack/7/label pub/rack/7/label bus/ops sub/livesys pub/livesys sub/livesys/all pub/livesys/all sub/bulk/{id} bus/jobs";
    assert_eq!(addresses, expected.split_whitespace().collect());
    let schema = |key: &str| channels[key]["messages"]["message"]["payload"]["schema"]["$ref"].clone();
    assert_eq!(schema("sub__rack__7__label"), node.http("/schemas/sub/rack/7/label.json"));
    assert_eq!(schema("pull__import"), node.http("/schemas/tasks/import.json"));
    assert_eq!(schema("sub__rack__7"), Value::Null, "any JSON");

    let operations = document["operations"].as_object().unwrap();
    let mut used = BTreeSet::new();
    for operation in operations.values() {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        let pointed =
            document.pointer(channel.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{channel}"));
        used.insert(pointed["address"].as_str().unwrap());
        let message = operation["messages"][0]["$ref"].as_str().unwrap();
        let message =
            document.pointer(message.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{message}"));
        if let Some(url) = message["payload"]["schema"]["$ref"].as_str() {
            let place = url.strip_prefix(&node.http("")).unwrap_or_else(|| panic!("{url}"));
            let (path, pointer) = place.split_once('#').unwrap_or((place, ""));
            let file = node.get(path).await.expect(200);
            let schema = file.pointer(pointer).unwrap_or_else(|| panic!("nothing stands at {place}"));
            assert_eq!(schema["$id"], Value::Null, "a schema stands at {place}");
        }
    }
    assert_eq!(used, addresses, "every channel is used");
    assert_eq!(document["servers"]["node"]["host"], node.address().to_string());
}

/// Lets Python's jsonschema judge a document by the rules that AsyncAPI publishes.
async fn judge(document: &Value) -> Result<(), String> {
    let python = std::env::var("MINIUM_TEST_PYTHON")
        .unwrap_or_else(|_| panic!("MINIUM_TEST_PYTHON is not set: run ./scripts/test"));
    let modules = std::env::var("MINIUM_TEST_NODE_MODULES")
        .unwrap_or_else(|_| panic!("MINIUM_TEST_NODE_MODULES is not set: run ./scripts/test"));
    let mut process = tokio::process::Command::new(python)
        .arg(checkout().join("tests/clients/asyncapi.py"))
        .arg(format!("{modules}/@asyncapi/specs/schemas/3.0.0.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let text = document.to_string();
    let mut stdin = process.stdin.take().expect("stdin is piped");
    let writing = async move {
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let (_, output) =
        wait::within("the judge", async { tokio::join!(writing, process.wait_with_output()) }).await;
    let output = output.unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// C-4: the same from the command line.
#[tokio::test]
async fn operators_look_and_close_by_commands() {
    let node = described().await;
    let run = async |args: &[&str]| {
        let what = format!("minium {args:?}");
        wait::within(&what, node.tokio_command().args(args).output()).await.unwrap()
    };
    let says = async |args: &[&str]| -> Value {
        let output = run(&[args, &["--json"]].concat()).await;
        assert!(output.status.success(), "minium {args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let python = Foreign::python();
    let mut client = python.open(&node.ws("/sub/rack")).await;
    let listed = says(&["session", "ls", "-n", "5"]).await;
    let id = listed["sessions"][0]["id"].to_string();
    assert_eq!(listed["sessions"][0]["filters"], json!(["rack"]));
    let table = run(&["session", "ls"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains(&format!("{id}  plain")), "{table:?}");
    let found = says(&["topic", "ls", "rack", "--pattern", "sub"]).await;
    assert_eq!(
        (&found["topics"][0]["topic"], &found["topics"][0]["subscribers"]),
        (&json!("rack"), &json!(1))
    );
    let table = run(&["topic", "ls"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("rack"), "{table:?}");
    let schemas = run(&["schema", "ls"]).await;
    assert!(String::from_utf8_lossy(&schemas.stdout).contains("arguments of import"), "{schemas:?}");
    assert_eq!(
        says(&["session", "close", &id, "--for-good"]).await,
        json!({ "closed": [id.parse::<u64>().unwrap()] })
    );
    assert_eq!(client.closed().await, 1008);
    assert_eq!(run(&["session", "close", &id]).await.status.code(), Some(3));
}
