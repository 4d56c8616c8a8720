//! Schedules of a node: over HTTP, by the command line, and from its configuration.

use crate::support::http::Answer;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::wait;
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Output;

on_both! {
    /// D-1, D-2: put, shown, changed, removed.
    a_schedule_is_put_shown_and_removed;
    /// D-1, S-4: what breaks a rule, or does not fit the task's schema, is refused as at an enqueue.
    what_breaks_a_rule_of_schedules_is_refused;
    /// D-3: a schedule rests, goes on, and is run by hand.
    a_schedule_rests_goes_on_and_is_run_by_hand;
    /// D-4: the configuration is put at the start, and owns its names.
    a_changed_configuration_takes_effect_at_the_next_start;
    /// D-2, C-4: the same by the command line.
    schedules_are_looked_after_by_commands;
}

async fn put(node: &Node, name: &str, body: &Value) -> Answer {
    let path = format!("/api/v1/schedules/{name}");
    node.request(Method::PUT, &path, &[("content-type", "application/json")], body.to_string()).await
}

async fn show(node: &Node, name: &str) -> Value {
    node.get(&format!("/api/v1/schedules/{name}")).await.expect(200)
}

async fn names(node: &Node) -> Vec<String> {
    let page = node.get("/api/v1/schedules").await.expect(200);
    let name = |schedule: &Value| schedule["name"].as_str().unwrap().to_owned();
    page["schedules"].as_array().unwrap().iter().map(name).collect()
}

/// The ids of a task's jobs, newest first.
async fn jobs(node: &Node, task: &str) -> Vec<i64> {
    let page = node.get(&format!("/api/v1/jobs?task={task}&limit=1000")).await.expect(200);
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect()
}

async fn some_jobs(node: &Node, task: &str, count: usize) -> Vec<i64> {
    let what = format!("{count} jobs of {task}");
    wait::until(&what, async || Some(jobs(node, task).await).filter(|jobs| jobs.len() >= count)).await
}

async fn a_schedule_is_put_shown_and_removed(options: Options) {
    let node = Node::start(options).await;
    let body = json!({ "task": "x", "args": [1], "every": "1h", "queue": "slow", "notes": { "n": 1 } });
    let made = put(&node, "a%2Fb", &body).await.expect(201);
    // told at once, and not at the next look
    let first = some_jobs(&node, "x", 1).await[0];
    let job = node.get(&format!("/api/v1/jobs/{first}")).await.expect(200);
    assert_eq!(
        (&job["schedule"], &job["args"], &job["queue"], &job["notes"]),
        (&json!("a/b"), &json!([1]), &json!("slow"), &json!({ "n": 1 }))
    );
    for (member, value) in [
        ("name", json!("a/b")),
        ("task", json!("x")),
        ("args", json!([1])),
        ("every", json!(3600.0)),
        ("cron", Value::Null),
        ("zone", json!("UTC")),
        ("missed", json!("fold")),
        ("paused", json!(false)),
        ("configured", json!(false)),
        ("fired", Value::Null),
        ("job", Value::Null),
    ] {
        assert_eq!(made[member], value, "{member}: {made}");
    }
    let shown = show(&node, "a%2Fb").await;
    assert_eq!((&shown["job"], shown["fired"].is_string()), (&json!(first), true), "{shown}");

    let body = json!({ "task": "x", "cron": "30 2 * * *", "zone": "Europe/Berlin", "missed": "all" });
    let changed = put(&node, "a%2Fb", &body).await.expect(200);
    let due: jiff::Timestamp = changed["due"].as_str().unwrap().parse().unwrap();
    let berlin = due.in_tz("Europe/Berlin").unwrap();
    assert!(matches!((berlin.hour(), berlin.minute()), (2, 30) | (3, 0)), "{changed}");
    assert_eq!(
        (&changed["every"], &changed["missed"], &changed["queue"]),
        (&Value::Null, &json!("all"), &json!("default"))
    );
    put(&node, "c", &json!({ "task": "x", "cron": "@yearly" })).await.expect(201);
    let page = node.get("/api/v1/schedules?limit=1").await.expect(200);
    assert_eq!((&page["schedules"][0]["name"], &page["next"]), (&json!("a/b"), &json!("a/b")));
    let page = node.get("/api/v1/schedules?limit=1&after=a/b").await.expect(200);
    assert_eq!((&page["schedules"][0]["name"], &page["next"]), (&json!("c"), &Value::Null));
    assert_eq!(node.delete("/api/v1/schedules/a%2Fb").await.status, 204);
    node.delete("/api/v1/schedules/a%2Fb").await.problem(404, "not_found");
    assert_eq!(names(&node).await, ["c"]);
    assert_eq!(jobs(&node, "x").await, [first], "what it enqueued stays");
}

async fn what_breaks_a_rule_of_schedules_is_refused(options: Options) {
    let node = Node::start(options).await;
    for (body, word) in [
        (json!({ "task": "x" }), "every or cron"),
        (json!({ "every": "1h" }), "task"),
        (json!({ "task": "x", "every": "1h", "cron": "* * * * *" }), "exclude"),
        (json!({ "task": "x", "every": "10ms" }), "less than a second"),
        (json!({ "task": "x", "every": "1h", "zone": "Europe/Berlin" }), "zone"),
        (json!({ "task": "x", "cron": "* * *" }), "five fields"),
        (json!({ "task": "x", "cron": "0 25 * * *" }), "hour"),
        (json!({ "task": "x", "cron": "0 0 30 2 *" }), "never"),
        (json!({ "task": "x", "cron": "0 0 * * *", "zone": "Mars/Olympus" }), "Mars/Olympus"),
        (json!({ "task": "x", "every": "1h", "missed": "some" }), "missed"),
        (json!({ "task": "x", "every": "1h", "colour": 1 }), "colour"),
        (json!({ "task": "x", "every": "1h", "parents": [1] }), "parents"),
        (json!({ "task": "x", "every": "1h", "attempts": 0 }), "attempts"),
    ] {
        let problem = put(&node, "a", &body).await.problem(400, "invalid_request");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{body}: {problem}");
    }
    put(&node, "a%00", &json!({ "task": "x", "every": "1h" })).await.problem(400, "invalid_request");
    put(&node, &"x".repeat(256), &json!({ "task": "x", "every": "1h" }))
        .await
        .problem(400, "invalid_request");
    let misfit = json!({ "task": "livesys/inventory", "args": [{ "colour": 1 }], "every": "1h" });
    put(&node, "a", &misfit).await.problem(422, "schema_violation");
    for action in ["pause", "resume", "run"] {
        node.post(&format!("/api/v1/schedules/a/{action}"), "").await.problem(404, "not_found");
    }
    node.get("/api/v1/schedules/a").await.problem(404, "not_found");
    node.get("/api/v1/schedules?limit=0").await.problem(400, "invalid_request");
    assert!(names(&node).await.is_empty());
}

async fn a_schedule_rests_goes_on_and_is_run_by_hand(options: Options) {
    let node = Node::start(options).await;
    put(&node, "a", &json!({ "task": "x", "every": "1s" })).await.expect(201);
    some_jobs(&node, "x", 2).await;
    let paused = node.post("/api/v1/schedules/a/pause", "").await.expect(200);
    assert_eq!(paused["paused"], true);
    let rested = jobs(&node, "x").await;
    // another one that is due in between shows that time has passed
    put(&node, "b", &json!({ "task": "y", "every": "1s" })).await.expect(201);
    some_jobs(&node, "y", 4).await;
    assert_eq!(jobs(&node, "x").await, rested, "nothing while it rests");
    let ran = node.post("/api/v1/schedules/a/run", "").await.expect(201);
    assert_eq!((&ran["task"], &ran["schedule"]), (&json!("x"), &json!("a")));
    assert_eq!(jobs(&node, "x").await.len(), rested.len() + 1);
    assert_eq!(show(&node, "a").await["job"], ran["id"]);
    node.post("/api/v1/schedules/a/resume", "").await.expect(200);
    some_jobs(&node, "x", rested.len() + 2).await;
    node.events(ran["id"].as_i64().unwrap(), "task.enqueue").await;
}

async fn a_changed_configuration_takes_effect_at_the_next_start(options: Options) {
    let schedule = |name: &str, rest: &str| format!("[schedules.{name}]\ntask = \"{name}\"\n{rest}\n");
    let before = [
        schedule("kept", "every = \"1h\""),
        schedule("gone", "every = \"1h\""),
        schedule("rests", "every = \"1h\""),
    ];
    let mut node = Node::start(options.config(&before.concat())).await;
    for task in ["kept", "gone", "rests"] {
        some_jobs(&node, task, 1).await;
    }
    let taken = put(&node, "kept", &json!({ "task": "x", "every": "1h" })).await.problem(409, "conflict");
    assert!(taken["detail"].as_str().unwrap().contains("configuration"), "{taken}");
    node.delete("/api/v1/schedules/kept").await.problem(409, "conflict");
    assert_eq!(show(&node, "kept").await["configured"], true);
    node.post("/api/v1/schedules/rests/pause", "").await.expect(200);
    put(&node, "own", &json!({ "task": "own", "cron": "@yearly" })).await.expect(201);

    node.kill().await;
    let changed = [
        schedule("kept", "every = \"1h\"\nargs = [2]"),
        schedule("rests", "every = \"1h\""),
        schedule("new", "cron = \"@yearly\"\nzone = \"Europe/Berlin\""),
    ];
    node.reconfigure(&changed.concat());
    node.restart().await;
    assert_eq!(names(&node).await, ["kept", "new", "own", "rests"]);
    assert_eq!(show(&node, "kept").await["args"], json!([2]));
    assert_eq!(show(&node, "rests").await["paused"], true, "what was said by hand counts on");
    assert_eq!(show(&node, "new").await["zone"], "Europe/Berlin");
    assert_eq!(jobs(&node, "kept").await.len(), 1, "it keeps its step");
    assert!(jobs(&node, "new").await.is_empty());
}

/// D-4, C-5: arguments of the configuration that do not fit are told at the start, all at once.
#[tokio::test]
async fn configured_arguments_that_do_not_fit_are_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("minium.toml");
    let one = |name: &str| {
        format!(
            "[schedules.{name}]\ntask = \"livesys/inventory\"\nargs = [{{ colour = 1 }}]\nevery = \"1h\"\n"
        )
    };
    std::fs::write(&file, one("first") + &one("second")).unwrap();
    let mut serve = tokio::process::Command::new(crate::support::node::binary());
    serve.current_dir(dir.path()).args(["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:"]);
    serve.arg("--schemas").arg(crate::support::node::checkout().join("schemas")).arg("--config").arg(&file);
    let output = wait::within("serve to refuse", serve.output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("schedules.first: schema_violation") && said.contains("schedules.second: "),
        "{said}"
    );
}

/// D-5: several nodes on one database fire each due time once.
#[tokio::test]
async fn several_nodes_fire_once() {
    let database = crate::support::postgres::Database::create().await;
    let config = "[schedules.pulse]\ntask = \"pulse\"\nevery = \"1s\"\nmissed = \"all\"\n";
    let start = || Node::start(Options::on(database.url()).config(config));
    let (one, two, three) = tokio::join!(start(), start(), start());
    let client = database.connect().await;
    // both of one moment: a firing writes its job and when it is next due in one transaction
    let fired = async || -> (i64, f64) {
        let sql = "select (select count(*) from minium.job where schedule = 'pulse'),
                          extract(epoch from due)::float8 from minium.schedule where name = 'pulse'";
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    some_jobs(&one, "pulse", 1).await;
    let (before, from) = fired().await;
    some_jobs(&three, "pulse", 4).await;
    one.kill().await;
    some_jobs(&two, "pulse", 10).await;
    let (after, to) = fired().await;
    assert!(before >= 1 && after >= before + 8, "{before} jobs, then {after}");
    // one for each due time, whatever was killed: none twice, and none left out
    assert_eq!((after - before) as f64, (to - from).round(), "from {from} to {to}");
    assert!(((to - from) - (to - from).round()).abs() < 1e-3, "in step with the first: {from}, {to}");
}

async fn minium(node: &Node, args: &[&str]) -> Output {
    let what = format!("minium {}", args.join(" "));
    wait::within(&what, node.tokio_command().args(args).output()).await.unwrap()
}

async fn told(node: &Node, args: &[&str]) -> String {
    let output = minium(node, args).await;
    assert!(output.status.success(), "minium {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn schedules_are_looked_after_by_commands(options: Options) {
    let node = Node::start(options.config("[schedules.fixed]\ntask = \"f\"\nevery = \"1h\"\n")).await;
    let status = async |args: &[&str]| minium(&node, args).await.status.code();
    let put =
        ["schedule", "put", "a b/c", "x", "[1]", "--cron", "0 3 * * *", "--zone", "Europe/Berlin", "--json"];
    let made: Value = serde_json::from_str(&told(&node, &put).await).unwrap();
    assert_eq!(
        (&made["name"], &made["zone"], &made["args"]),
        (&json!("a b/c"), &json!("Europe/Berlin"), &json!([1]))
    );
    told(&node, &["schedule", "put", "pulse", "y", "--every", "1h", "--key", "k"]).await;
    let listed = told(&node, &["schedule", "ls"]).await;
    for words in ["a b/c", "0 3 * * * Europe/Berlin", "every 1h", "configured"] {
        assert!(listed.contains(words), "{words} in {listed}");
    }
    let first = some_jobs(&node, "y", 1).await[0];
    assert_eq!(told(&node, &["schedule", "run", "pulse"]).await, first.to_string(), "its key lives");
    let id: i64 = told(&node, &["schedule", "run", "a b/c"]).await.parse().unwrap();
    assert_eq!(jobs(&node, "x").await, [id]);
    told(&node, &["schedule", "pause", "a b/c", "pulse"]).await;
    let shown: Value =
        serde_json::from_str(&told(&node, &["schedule", "show", "pulse", "--json"]).await).unwrap();
    assert_eq!(shown["paused"], true);
    told(&node, &["schedule", "resume", "pulse"]).await;
    told(&node, &["schedule", "rm", "a b/c"]).await;
    assert_eq!(names(&node).await, ["fixed", "pulse"]);
    assert_eq!(status(&["schedule", "show", "a b/c"]).await, Some(3));
    assert_eq!(status(&["schedule", "rm", "fixed"]).await, Some(7));
    assert_eq!(status(&["schedule", "put", "fixed", "f", "--every", "2h"]).await, Some(7));
    assert_eq!(status(&["schedule", "put", "bad", "f", "--cron", "0 0 30 2 *"]).await, Some(2));
    assert_eq!(
        status(&["schedule", "put", "bad", "f", "--cron", "@daily", "--zone", "Mars/Olympus"]).await,
        Some(2)
    );
    assert_eq!(status(&["schedule", "put", "bad", "f"]).await, Some(2));
    let misfit = ["schedule", "put", "bad", "livesys/inventory", "[{\"colour\":1}]", "--every", "1h"];
    assert_eq!(status(&misfit).await, Some(6));
    let from = ["--zone", "Europe/Berlin", "--from", "2026-03-28T12:00:00Z", "-n", "2"];
    let next = told(&node, &[&["schedule", "next", "30 2 * * *"][..], &from].concat()).await;
    let expected = "2026-03-29T03:00:00+02:00[Europe/Berlin]\n2026-03-30T02:30:00+02:00[Europe/Berlin]";
    assert_eq!(next, expected);
    assert_eq!(status(&["schedule", "next", "0 0 30 2 *"]).await, Some(2));
}
