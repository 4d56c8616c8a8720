//! Schemas: what does not fit reaches nobody, files are found by place, and the folder is read again while the node
//! runs.

use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options, binary, checkout};
use crate::support::wait;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

fn put(node: &Node, path: &str, schema: &str) {
    let file = node.dir().join("schemas").join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, schema).unwrap();
}

/// SIGHUP, and then until `/schemas/<path>` is (or is not) there as `text`.
async fn reload_until(node: &Node, path: &str, text: Option<&str>) {
    kill_process(node.pid(), Signal::HUP).unwrap();
    wait::until("the schemas to be read again", async || {
        let answer = node.get(&format!("/schemas/{path}")).await;
        let now = (answer.status == 200).then(|| answer.text().to_owned());
        (now.as_deref() == text).then_some(())
    })
    .await;
}

const NUMBERS: &str =
    r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":1}}}"#;
const TEXTS: &str =
    r#"{"type":"object","required":["t"],"properties":{"t":{"type":"string","pattern":"^[a-z]+$"}}}"#;

/// S-1, S-2, S-3, W-5: the nearest ancestor governs; what does not fit is told with pointers and reaches nobody.
#[tokio::test]
async fn invalid_messages_are_refused_with_pointers_and_reach_nobody() {
    let node = Node::memory().await;
    put(&node, "sub/rack.json", NUMBERS);
    put(&node, "sub/rack/7/label.json", TEXTS);
    put(&node, "bus/rack.json", TEXTS);
    put(&node, "push/rack.json", NUMBERS);
    reload_until(&node, "push/rack.json", Some(NUMBERS)).await;
    for client in Foreign::each() {
        let mut all = client.open(&node.ws("/sub/rack")).await;
        let mut publisher = client.open(&node.ws("/pub/rack/7")).await;
        let mut label = client.open(&node.ws("/pub/rack/7/label/x")).await;
        for (below, message, pointer) in [
            (false, json!({ "n": 0 }), "/n"),
            (false, json!({ "t": "a" }), ""),
            (true, json!({ "n": 1 }), ""),
            (true, json!({ "t": "A" }), "/t"),
        ] {
            let session = if below { &mut label } else { &mut publisher };
            session.send(&message.to_string()).await;
            let problem = session.json().await["problem"].clone();
            assert_eq!(
                (&problem["code"], &problem["status"]),
                (&json!("schema_violation"), &json!(422)),
                "{problem}"
            );
            let fault = &problem["errors"][0];
            assert_eq!(fault["pointer"], pointer, "{problem}");
            assert!(fault["schema"].is_string() && fault["detail"].is_string(), "{problem}");
        }
        publisher.send_binary(b"{\"n\":1}").await;
        assert_eq!(publisher.json().await["problem"]["code"], "invalid_json");
        publisher.send("{\"n\":1}").await;
        assert_eq!(all.text().await, "{\"n\":1}", "the first thing that anybody hears");
        label.send("{\"t\":\"a\"}").await;
        assert_eq!(all.text().await, "{\"t\":\"a\"}");
        let mut peer = client.open(&node.ws("/bus/rack?echo=1")).await;
        peer.send("{\"n\":1}").await;
        assert_eq!(peer.json().await["problem"]["code"], "schema_violation", "{}", client.name);
        peer.send("{\"t\":\"b\"}").await;
        assert_eq!(peer.text().await, "{\"t\":\"b\"}");
        peer.close(1000).await;
        let mut puller = client.open(&node.ws("/pull/rack")).await;
        node.post("/push/rack", "{}").await.problem(422, "schema_violation");
        assert_eq!(node.post("/push/rack", "{\"n\":5}").await.status, 200);
        assert_eq!(puller.text().await, "{\"n\":5}");
        puller.close(1000).await;
    }
}

/// S-1: the built-in channels have their schemas, with a level below.
#[tokio::test]
async fn livesys_is_judged_by_the_built_in_schemas() {
    let node = Node::memory().await;
    let status = json!({ "type": "status", "state": "ready" });
    let command = json!({ "type": "command", "command": "reboot" });
    for (topic, message, code) in [
        ("livesys/7", &status, None),
        ("livesys/7", &command, None),
        ("livesys/7", &json!({ "type": "status", "state": "lazy" }), Some("schema_violation")),
        ("livesys/7", &json!([]), Some("schema_violation")),
        ("livesys/all", &command, None),
        ("livesys/all", &status, Some("schema_violation")),
        ("other/7", &json!([]), None),
    ] {
        let answer = node.post(&format!("/pub/{topic}"), message.to_string()).await;
        match code {
            None => assert_eq!(answer.status, 200, "{topic} {message}: {answer:?}"),
            Some(code) => drop(answer.problem(422, code)),
        }
    }
}

/// S-5: SIGHUP reads the folder again; a broken file keeps the one before it, and says so.
#[tokio::test]
async fn a_broken_file_keeps_the_old_schema_and_says_so() {
    let node = Node::memory().await;
    put(&node, "sub/live.json", NUMBERS);
    reload_until(&node, "sub/live.json", Some(NUMBERS)).await;
    node.post("/pub/live", "{}").await.problem(422, "schema_violation");
    let broken = [
        ("no JSON", "{"),
        ("no schema", r#"{"type":"nothing"}"#),
        ("a reference to elsewhere", r#"{"$ref":"http://127.0.0.1:1/x.json"}"#),
        ("a reference to a file", r#"{"$ref":"file:///etc/passwd"}"#),
        ("a pattern that looks back", r#"{"type":"string","pattern":"(a)\\1"}"#),
    ];
    for (round, (what, text)) in broken.into_iter().enumerate() {
        put(&node, "sub/live.json", text);
        // another file shows that the folder was read
        let marker = format!("{{\"title\":\"round {round}\"}}");
        put(&node, "sub/marker.json", &marker);
        reload_until(&node, "sub/marker.json", Some(&marker)).await;
        assert_eq!(node.get("/schemas/sub/live.json").await.text(), NUMBERS, "{what}");
        node.post("/pub/live", "{}").await.problem(422, "schema_violation");
        assert_eq!(node.post("/pub/live", "{\"n\":1}").await.status, 200, "{what}");
        assert!(node.log().contains("sub/live.json"), "{what}: the log says nothing");
    }
    put(&node, "sub/live.json", TEXTS);
    reload_until(&node, "sub/live.json", Some(TEXTS)).await;
    assert_eq!(node.post("/pub/live", "{\"t\":\"x\"}").await.status, 200);
    std::fs::remove_file(node.dir().join("schemas/sub/live.json")).unwrap();
    reload_until(&node, "sub/live.json", None).await;
    assert_eq!(node.post("/pub/live", "anything").await.status, 200);
}

/// S-5: a node does not start with a broken file, since nothing would govern in its place.
#[tokio::test]
async fn a_node_with_a_broken_file_does_not_start() {
    let node = Node::memory().await;
    put(&node, "tasks/unlock.json", "{\"writeOnly\":");
    let started =
        node.tokio_command().args(["serve", "--schemas", "schemas", "--listen", "127.0.0.1:0"]).output();
    let output = wait::within("a node that does not start", started).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tasks/unlock.json: it is not JSON"), "{said}");
}

/// S-4: arguments are judged when a job is enqueued, by a schema that the folder adds.
#[tokio::test]
async fn arguments_are_judged_at_enqueue() {
    let node = Node::memory().await;
    put(&node, "tasks/resize.json", r#"{"type":"array","prefixItems":[{"type":"integer"}],"minItems":1}"#);
    let answer = node.get("/schemas/tasks/resize.json").await;
    assert_eq!(answer.status, 404, "not read yet");
    let text = std::fs::read_to_string(node.dir().join("schemas/tasks/resize.json")).unwrap();
    reload_until(&node, "tasks/resize.json", Some(&text)).await;
    let problem = node
        .post_json("/api/v1/jobs", &json!({ "task": "resize", "args": ["big"] }))
        .await
        .problem(422, "schema_violation");
    assert_eq!(problem["errors"][0]["pointer"], "/0", "{problem}");
    node.post_json("/api/v1/jobs", &json!({ "task": "resize" })).await.problem(422, "schema_violation");
    node.enqueue(&json!({ "task": "resize", "args": [3] })).await;
    node.enqueue(&json!({ "task": "resizer", "args": ["another task"] })).await;
}

/// S-4: what nobody checked when it was enqueued is judged when a worker over the database claims it, by the schemas as
/// they are then.
#[tokio::test]
async fn what_sql_enqueues_is_judged_by_a_worker_over_the_database() {
    let node = Node::start(Options::file()).await;
    // before there is a schema, as SQL enqueues whatever there is
    let bad = node.enqueue(&json!({ "task": "resize", "args": ["big"], "attempts": 3 })).await;
    let good = node.enqueue(&json!({ "task": "resize", "args": [3] })).await;
    put(&node, "tasks/resize.json", r#"{"type":"array","items":{"type":"integer"}}"#);
    let _worker = node
        .tokio_command()
        .args(["worker", "--database", &node.database(), "--task", "resize=cat"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ended = async |id: i64| {
        wait::until("the job to end", async || {
            let job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
            (job["state"] == "finished" || job["state"] == "failed").then_some(job)
        })
        .await
    };
    let job = ended(bad).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(1)), "{job}");
    assert!(job["error"].as_str().unwrap().starts_with("schema_violation: /0: "), "{job}");
    assert_eq!(ended(good).await["result"], json!([3]));
    // it looks again by itself
    put(&node, "tasks/resize.json", r#"{"type":"array"}"#);
    wait::until("the new schema", async || {
        let body = json!({ "task": "resize", "args": ["big"] });
        let answer = node.post_json("/api/v1/jobs", &body).await;
        if answer.status != 201 {
            return None;
        }
        let id = answer.expect(201)["id"].as_i64().unwrap();
        (ended(id).await["state"] == "finished").then_some(())
    })
    .await;
}

/// S-6: every schema of the checkout is served as it is; Python's jsonschema takes each for a schema.
#[tokio::test]
async fn schemas_are_served_as_they_are() {
    let node = Node::memory().await;
    for path in [
        "job.json",
        "sub/task.json",
        "sub/livesys.json",
        "sub/livesys/all.json",
        "tasks/livesys/inventory.json",
    ] {
        let answer = node.get(&format!("/schemas/{path}")).await;
        let file = std::fs::read_to_string(checkout().join("schemas").join(path)).unwrap();
        assert_eq!((answer.status, answer.text()), (200, file.as_str()), "{path}");
        let nothing: &[Value] = &[];
        crate::support::events::judge(&node, &format!("/schemas/{path}"), nothing).await.unwrap();
    }
    node.get("/schemas/sub/none.json").await.problem(404, "not_found");
}

/// S-5, C-2: `minium schema check` tells good files from bad ones.
#[tokio::test]
async fn schema_check_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.json"), dir.path().join("bad.json"));
    std::fs::write(&good, NUMBERS).unwrap();
    std::fs::write(&bad, r#"{"type":"nothing"}"#).unwrap();
    let check = async |files: &[&std::path::Path]| {
        let mut command = tokio::process::Command::new(binary());
        wait::within("schema check", command.args(["schema", "check"]).args(files).output()).await.unwrap()
    };
    let output = check(&[&good]).await;
    assert!(output.status.success(), "{output:?}");
    let output = check(&[&good, &bad]).await;
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains("bad.json"));
}
