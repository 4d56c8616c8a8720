//! The examples, run as they stand: each reads, resumes and writes as its page says.

use crate::clients::sdk;
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options, checkout};
use crate::support::wait;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Output;

/// Runs `examples/<name> URL …`.
async fn run(node: &Node, name: &str, args: &[&str]) -> Output {
    let file = checkout().join("examples").join(name);
    let program = match file.extension().and_then(|e| e.to_str()) {
        Some("py") => std::env::var_os("MINIUM_TEST_PYTHON").expect("run ./scripts/test").into(),
        Some("pl") => PathBuf::from("perl"),
        _ => PathBuf::from("bash"),
    };
    let is_script = name.ends_with(".mjs");
    let mut command = if is_script { sdk::node() } else { tokio::process::Command::new(program) };
    command.arg(file).arg(node.http("")).args(args).kill_on_drop(true);
    let output = wait::within(name, command.output()).await.unwrap();
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l:?}"))).collect()
}

/// P-2, P-3: readers print every event, and go on behind the position that they are given.
#[tokio::test]
async fn readers_read_and_resume() {
    let node = Node::start(Options::file()).await;
    let jobs: Vec<Value> = (0..6).map(|n| json!({ "task": "example", "args": [n] })).collect();
    node.post_json("/api/v1/jobs", &json!(jobs)).await.expect(201);
    for reader in ["python/read.py", "perl/read.pl", "javascript/read.mjs", "shell/read.sh"] {
        let first = lines(&run(&node, reader, &["task/example", "--count", "4"]).await);
        let offset = |e: &Value| e["sequence"].as_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(first.iter().map(offset).collect::<Vec<_>>(), [1, 2, 3, 4], "{reader}");
        let position = format!("{}:{}", first[3]["epoch"].as_str().unwrap(), offset(&first[3]));
        let rest = lines(&run(&node, reader, &["task/example", "--count", "2", "--after", &position]).await);
        assert_eq!(rest.iter().map(offset).collect::<Vec<_>>(), [5, 6], "{reader}");
    }
}

/// B-1, B-6: writers are heard.
#[tokio::test]
async fn writers_are_heard() {
    let node = Node::memory().await;
    let client = Foreign::perl();
    let mut subscriber = client.open(&node.ws("/sub/example")).await;
    for writer in ["python/write.py", "perl/write.pl", "javascript/write.mjs", "shell/write.sh"] {
        run(&node, writer, &["--count", "3"]).await;
        for n in 1..=3 {
            assert_eq!(subscriber.json().await["n"], n, "{writer}");
        }
    }
    let ids = run(&node, "shell/write.sh", &["--task", "example", "--count", "2"]).await;
    let listed = node.get("/api/v1/jobs?task=example").await.expect(200);
    let newest_first: Vec<Value> = lines(&ids).into_iter().rev().collect();
    assert_eq!(listed["jobs"].as_array().unwrap().iter().map(|j| j["id"].clone()).collect::<Vec<_>>(), newest_first);
}
