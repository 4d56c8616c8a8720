//! The main job, as a newcomer sees it: `minium dev`, and what it invites to try.

use crate::support::curl::Stream;
use crate::support::events::{TaskEvent, judge};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::wait;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// E-1, S-1: a schedule makes a worker read this machine; its progress and its result are seen by everybody, and what
/// it publishes fits its schema.
#[tokio::test]
async fn dev_reads_this_machine_and_everybody_sees_it() {
    let node = Node::start(Options::dev()).await;
    let client = Foreign::python();
    let mut reports = client.open(&node.ws("/sub/livesys")).await;
    let mut events = Stream::open(&node.http("/sub/task/livesys/inventory?after=earliest"), &[]).await;
    let mut kinds = Vec::new();
    let finished = loop {
        let event = TaskEvent::parse(&events.event().await.data);
        kinds.push(event.kind().to_owned());
        if event.kind() == "task.finished" {
            break event;
        }
        assert_ne!(event.kind(), "task.failed", "{}", event.text);
    };
    assert!(kinds.contains(&"task.progress".to_owned()), "it notes its progress: {kinds:?}");
    let job = &finished.json["data"];
    assert_eq!((&job["schedule"], &job["state"]), (&json!("inventory"), &json!("finished")));
    let result = &job["result"];
    let uname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(result["host"], uname.trim(), "{result}");
    let total_kib: u64 =
        std::fs::read_to_string("/proc/meminfo").unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(result["memory"]["total_bytes"], total_kib * 1024, "it is this very machine");

    // published, too, and it goes on by its schedule
    let report = reports.json().await;
    assert_eq!((&report["type"], &report["host"]), (&json!("inventory"), &result["host"]));
    judge(&node, "/schemas/sub/livesys.json", std::slice::from_ref(&report)).await.unwrap();
    let again = loop {
        let event = TaskEvent::parse(&events.event().await.data);
        if event.kind() == "task.enqueue" {
            break event;
        }
    };
    assert_ne!(again.job(), finished.job(), "the schedule repeats it");
}

/// C-1: it says where to look and what to try, and the page is there.
#[tokio::test]
async fn dev_tells_where_to_look_and_what_to_try() {
    let node = Node::start(Options::dev()).await;
    let greeting = node.log();
    for word in [
        &node.http(""),
        &node.ws("/sub/task"),
        &node.ws("/sub/livesys"),
        "job enqueue livesys/inventory",
        "curl ",
    ] {
        assert!(greeting.contains(word), "{word} is not in:\n{greeting}");
    }
    let page = node.get("/").await;
    assert_eq!((page.status, page.header("content-type").split(';').next()), (200, Some("text/html")));
    let linked = page
        .text()
        .split(['"', '\''])
        .filter(|l| l.starts_with("/console/"))
        .map(str::to_owned)
        .collect::<Vec<_>>();
    assert!(!linked.is_empty(), "the page has a script and a style");
    for link in linked {
        assert_eq!(node.get(&link).await.status, 200, "{link}");
    }
    let enqueue = ["job", "enqueue", "livesys/inventory", "[{\"sections\": [\"cpu\"]}]", "--wait=60s"];
    let output = wait::within("the job", node.tokio_command().args(enqueue).output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["cpu"].is_object(), "{result}");
}

/// C-2: `doctor` finds what is wrong before it hurts.
#[tokio::test]
async fn doctor_finds_what_is_wrong() {
    let node = Node::memory().await;
    let doctor = async |args: &[&str]| {
        let mut command = node.tokio_command();
        wait::within("doctor", command.arg("doctor").args(args).output()).await.unwrap()
    };
    let well = doctor(&["--database", "sqlite:well.db", "--listen", "127.0.0.1:0"]).await;
    assert!(well.status.success(), "{well:?}");
    let nowhere = doctor(&["--database", "postgres://x@127.0.0.1:1/x", "--listen", "127.0.0.1:0"]).await;
    assert!(
        !nowhere.status.success() && String::from_utf8_lossy(&nowhere.stdout).contains("database"),
        "{nowhere:?}"
    );
    let said = String::from_utf8_lossy(&well.stdout);
    for name in ["tls", "auth"] {
        let line = said.lines().find(|line| line.starts_with(&format!("ok    {name} ")));
        assert!(line.is_some_and(|line| line.contains("none")), "{name}: {said}");
    }

    let write = |name: &str, text: &str| std::fs::write(node.dir().join(name), text).unwrap();
    write("ops.key", "thirty-two bytes are the least: ok");
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(node.dir().join("ops.key"), mode).unwrap();
    write(
        "doctor.toml",
        "[auth.keys.ops]\nalgorithm = \"HS256\"\nsecret_file = \"ops.key\"\n\
         [auth.keys.gone]\nalgorithm = \"HS256\"\nsecret_file = \"gone.key\"\n\
         [server.tls]\ncertificate_file = \"gone.pem\"\nkey_file = \"gone.pem\"\n",
    );
    let trust = ["--config", "doctor.toml", "--database", "sqlite:well.db", "--listen", "127.0.0.1:0"];
    let trust = doctor(&trust).await;
    assert!(!trust.status.success(), "{trust:?}");
    let said = String::from_utf8_lossy(&trust.stdout);
    for (begins, holds) in [("fail  tls ", "gone.pem"), ("fail  auth ", "gone.key"), ("warn  auth ", "0640")]
    {
        assert!(said.lines().any(|l| l.starts_with(begins) && l.contains(holds)), "{begins}: {said}");
    }
}
