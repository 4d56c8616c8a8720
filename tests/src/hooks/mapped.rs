//! What becomes of a payload: filtered, mapped, judged by its schema, refused; and hooks that change while the node runs.

use super::{CONFIG, OLD, deliver, event, jobs, of_github, push, received};
use crate::support::node::{Node, Options, checkout};
use crate::support::on_both;
use crate::support::wait;
use rustix::process::{Signal, kill_process};
use serde_json::json;

const MAPPED: &str = r#"
[hooks.map]
kind = "github"
secrets = ["a secret of sixteen bytes or more"]
task = "mapped"
queue = "slow"
priority = 7
attempts = 3
delay = "1h"
events = ["push", "create"]
when = { "/ref" = "refs/heads/main", "/repository/fork" = false }
args = { sha = "$/after", first = "$/commits/0/id", missing = "$/commits/9", event = "$event", id = "$delivery", cost = "$$5" }
notes = { sha = "$/after", from = "git" }
"#;

on_both! {
    /// G-5, G-6.
    a_payload_is_filtered_and_mapped;
    /// G-6: without a mapping the payload is the argument, to the byte.
    a_payload_is_kept_to_the_byte;
}

async fn a_payload_is_filtered_and_mapped(options: Options) {
    let node = Node::start(options.config(MAPPED)).await;
    let good = json!({
        "ref": "refs/heads/main", "after": "abc", "repository": { "fork": false }, "commits": [{ "id": "c1" }]
    });
    let answer = push(&node, "map", "d-1", &good).await.expect(202);
    let job = node.job(answer["job"].as_i64().unwrap()).await;
    let args = json!({
        "sha": "abc", "first": "c1", "missing": null, "event": "push", "id": "d-1", "cost": "$5"
    });
    assert_eq!((&job["task"], &job["args"]), (&json!("mapped"), &args));
    assert_eq!(job["notes"], json!({ "sha": "abc", "from": "git" }));
    assert_eq!(
        (&job["queue"], &job["priority"], &job["attempts"], &job["phase"]),
        (&json!("slow"), &json!(7), &json!(3), &json!("delayed"))
    );
    let ignored = async |event_name: &str, change: fn(&mut serde_json::Value)| {
        let mut payload = good.clone();
        change(&mut payload);
        event(&node, "map", (event_name, "d-2"), &payload).await.expect(202)
    };
    assert_eq!(ignored("star", |_| ()).await, json!({ "ignored": "event" }));
    assert_eq!(ignored("push", |p| p["ref"] = json!("refs/heads/x")).await, json!({ "ignored": "when" }));
    assert_eq!(ignored("push", |p| p["repository"] = json!(1)).await, json!({ "ignored": "when" }));
    assert_eq!(ignored("create", |p| p["repository"]["fork"] = json!("false")).await["ignored"], "when");
    let ping = event(&node, "map", ("ping", "d-3"), &json!({ "zen": "x" })).await;
    assert_eq!(ping.expect(200), json!({ "ignored": "ping" }));
    assert_eq!(jobs(&node).await, 1);
    let counted = (received(&node, "map", "ignored").await, received(&node, "map", "pinged").await);
    assert_eq!(counted, (4.0, 1.0));
}

async fn a_payload_is_kept_to_the_byte(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let body = "{ \"n\" : 1.000000000000000000000001, \"b\":1, \"a\":\"é\" }";
    let signature = of_github(OLD, body.as_bytes());
    let headers =
        [("x-hub-signature-256", signature.as_str()), ("x-github-event", "push"), ("x-github-delivery", "1")];
    let job = deliver(&node, "git", &headers, body).await.expect(202)["job"].as_i64().unwrap();
    let shown = node.get(&format!("/api/v1/jobs/{job}")).await;
    assert!(shown.text().contains(&format!("[{body}]")), "{}", shown.text());
}

/// G-3, H-4: what cannot be a job is refused, each with its code, and makes none.
#[tokio::test]
async fn what_cannot_be_a_job_is_refused() {
    let config = format!(
        "[server.limits]\nrequest_bytes = \"4KiB\"\n{CONFIG}[hooks.double]\nkind = \"github\"\n\
        secrets = [{OLD:?}]\ntask = \"hooked\"\nargs = [\"$\", \"$\"]\n"
    );
    let node = Node::start(Options::memory().config(&config)).await;
    let schema = json!({ "prefixItems": [{ "required": ["n"] }] });
    std::fs::create_dir(node.dir().join("schemas/tasks")).unwrap();
    std::fs::write(node.dir().join("schemas/tasks/hooked.json"), schema.to_string()).unwrap();
    kill_process(node.pid(), Signal::HUP).unwrap();
    wait::until("the schema", async || {
        (push(&node, "git", "bad", &json!({ "m": 1 })).await.status == 422).then_some(())
    })
    .await;
    let before = jobs(&node).await;
    let misfit = push(&node, "git", "misfit", &json!({ "m": 1 })).await.problem(422, "schema_violation");
    assert_eq!(misfit["errors"][0]["pointer"], "/0", "{misfit}");

    push(&node, "nowhere", "1", &json!({})).await.problem(404, "not_found");
    push(&node, "git", "", &json!({ "n": 1 })).await.problem(400, "invalid_request");
    push(&node, "git", &"i".repeat(300), &json!({ "n": 1 })).await.problem(400, "invalid_request");
    for garbage in [&b"payload=%7B%7D"[..], b"", b"{", b"\xff\xfe", b"{} {}"] {
        let signature = of_github(OLD, garbage);
        let headers = [("x-hub-signature-256", signature.as_str()), ("x-github-delivery", "1")];
        let problem = deliver(&node, "git", &headers, garbage).await.problem(400, "invalid_json");
        assert!(problem["detail"].as_str().unwrap().contains("application/json"), "{problem}");
    }
    let large = |bytes: usize| json!({ "n": "x".repeat(bytes) });
    push(&node, "git", "large", &large(4_096)).await.problem(413, "payload_too_large");
    push(&node, "double", "large", &large(3_000)).await.problem(413, "payload_too_large");
    let get = node.get("/hooks/git").await;
    get.problem(405, "method_not_allowed");
    assert_eq!(jobs(&node).await, before);
    // what was refused under its id is no job yet
    push(&node, "git", "misfit", &json!({ "n": 1 })).await.expect(202);
    push(&node, "git", "large", &large(3_000)).await.expect(202);
    assert_eq!(jobs(&node).await, before + 2);
    node.assert_well().await;
}

/// G-7: a new secret counts from SIGHUP on, one that is gone counts no more, and mistakes change nothing.
#[tokio::test]
async fn hooks_are_read_again() {
    let node = Node::start(Options::memory().config(CONFIG)).await;
    let configure = |text: &str| {
        std::fs::write(node.dir().join("minium.toml"), text).unwrap();
        kill_process(node.pid(), Signal::HUP).unwrap();
    };
    let file = node.dir().join("secret");
    let hook = |name: &str| {
        format!("[hooks.{name}]\nkind = \"github\"\nsecret_files = [{file:?}]\ntask = \"hooked\"\n")
    };
    std::fs::write(&file, format!("{OLD}\n")).unwrap();
    push(&node, "new", "1", &json!({})).await.problem(404, "not_found");
    configure(&hook("new"));
    wait::until("the new hook", async || {
        (push(&node, "new", "1", &json!({})).await.status == 202).then_some(())
    })
    .await;
    push(&node, "git", "1", &json!({})).await.problem(404, "not_found");
    std::fs::write(&file, "another secret altogether").unwrap();
    configure(&hook("new"));
    wait::until("the new secret", async || {
        (push(&node, "new", "1", &json!({})).await.status == 401).then_some(())
    })
    .await;
    std::fs::write(&file, "short").unwrap();
    configure(&hook("newer"));
    wait::until("the mistake to be told", async || {
        let log = node.log();
        (log.contains("hooks.newer: the secret in") && log.contains("stay as they are")).then_some(())
    })
    .await;
    push(&node, "newer", "1", &json!({})).await.problem(404, "not_found");
    push(&node, "new", "1", &json!({})).await.problem(401, "unauthorized");
    assert!(!node.log().contains("short\""), "a secret is never told");
}

/// G-2: what the page shows works as it stands, and is signed by openssl.
#[tokio::test]
async fn the_page_shows_a_delivery_that_is_taken() {
    let page = std::fs::read_to_string(checkout().join("docs/hooks.md")).unwrap();
    let block = |fence: &str, nth: usize| {
        page.split(&format!("```{fence}\n")).nth(nth + 1).unwrap().split("```").next().unwrap().to_owned()
    };
    let node = Node::start(Options::memory().config(&block("toml", 1))).await;
    let mut shell = tokio::process::Command::new("bash");
    shell.args(["-euc", &block("sh", 0)]).env("MINIUM_URL", node.http("")).kill_on_drop(true);
    let output = wait::within("the delivery", shell.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let job = node.job(answer["job"].as_i64().unwrap()).await;
    assert_eq!(job["args"], json!([{ "type": "invoice.paid", "data": { "n": 1 } }]));
    // the first one names a file that is not there
    let read = block("toml", 0).replace("/etc/minium/hook-sources", "secret");
    std::fs::write(node.dir().join("other.toml"), read).unwrap();
    let shown =
        node.tokio_command().args(["config", "show", "--config", "other.toml"]).output().await.unwrap();
    assert!(shown.status.success(), "{shown:?}");
}
