//! The queue over HTTP, and by SQL.

use crate::support::events::TaskEvent;
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::on_both;
use crate::support::postgres::Database;
use crate::support::wait;
use serde_json::{Value, json};

const WITH_WORKER: &str = r#"
[tasks.fast]
command = ["cat"]
[tasks.wrong]
command = ["sh", "-c", "echo first >&2; echo why >&2; exit 7"]
[tasks.words]
command = ["echo", "no json"]
[tasks.endless]
command = ["sh", "-c", "sleep 1000 & wait"]
[tasks.long]
command = ["sleep", "1000"]
"#;

on_both! {
    /// Q-1: one job is 201 with its place and its snapshot; many are all or none.
    enqueuing_answers_the_job_and_where_it_is;
    /// Q-2: options end where they belong.
    options_stand_in_the_snapshot;
    /// Q-4: pages walk back from the newest, whatever is added meanwhile.
    lists_are_filtered_and_walked_by_cursor;
    /// Q-5: the history from the journal, and the end when it comes.
    events_and_wait_tell_how_a_job_went;
    /// Q-16: a long history comes by the page, and what is not on a page is told.
    a_history_goes_on_where_a_page_ends;
    /// Q-6: what the state forbids is a conflict, and changes nothing.
    what_the_state_forbids_is_a_conflict;
    /// Q-14, Q-15: what is there besides: notes by hand, and figures.
    notes_are_merged_by_hand_and_figures_count;
    /// Q-3: one key, one living job, and the header is as good.
    the_header_is_the_key_of_one_job;
    /// L-4: a task event carries arguments that are larger than any message may be.
    an_event_may_be_larger_than_a_message;
    /// Q-11: arguments on stdin, result on stdout, the end of stderr when it fails.
    commands_get_arguments_and_give_results;
    /// Q-8: a cancelled job's command is ended, with its children, and the worker goes on.
    cancelling_ends_the_command_that_runs;
    /// Q-2: parents hold a job back, and let it go.
    a_job_waits_for_its_parents;
    /// Q-1, E-2: trace contexts go from the request to the event.
    a_trace_context_goes_along;
}

async fn enqueuing_answers_the_job_and_where_it_is(options: Options) {
    let node = Node::start(options).await;
    let answer = node.post_json("/api/v1/jobs", &json!({ "task": "a/b", "args": [1] })).await;
    let job = answer.expect(201);
    let id = job["id"].as_i64().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{id}"));
    assert_eq!((&job["task"], &job["state"], &job["args"]), (&json!("a/b"), &json!("inactive"), &json!([1])));
    assert_eq!(node.get(answer.header("location")).await.expect(200), job);

    let many = node.post_json("/api/v1/jobs", &json!([{ "task": "x" }, { "task": "y" }])).await.expect(201);
    let ids: Vec<i64> = serde_json::from_value(many["ids"].clone()).unwrap();
    assert_eq!(ids.len(), 2);
    assert_eq!(node.get(&format!("/api/v1/jobs/{}", ids[1])).await.expect(200)["task"], "y");
    assert_eq!(node.post_json("/api/v1/jobs", &json!([])).await.expect(201), json!({ "ids": [] }));

    let none = json!([{ "task": "z" }, { "task": "z", "priority": 9999 }]);
    let problem = node.post_json("/api/v1/jobs", &none).await.problem(400, "invalid_request");
    assert!(problem["detail"].as_str().unwrap().contains("priority"), "{problem}");
    assert_eq!(node.get("/api/v1/jobs?task=z").await.expect(200)["jobs"], json!([]));
}

async fn options_stand_in_the_snapshot(options: Options) {
    let node = Node::start(options).await;
    let parent = node.enqueue(&json!({ "task": "p" })).await;
    let id = node.enqueue(&json!({
        "task": "x", "args": {"any": "json"}, "attempts": 5, "delay": "1h", "expire": 7200, "lax": true,
        "notes": {"n": [1]}, "parents": [parent], "priority": -7, "queue": "slow", "key": "k", "timeout": "90s", "backoff": 5,
    })).await;
    let job = node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
    for (member, value) in [
        ("args", json!({"any": "json"})),
        ("attempts", json!(5)),
        ("lax", json!(true)),
        ("notes", json!({"n": [1]})),
        ("parents", json!([parent])),
        ("priority", json!(-7)),
        ("queue", json!("slow")),
        ("key", json!("k")),
        ("attempt", json!(0)),
        ("state", json!("inactive")),
        ("result", Value::Null),
        ("worker", Value::Null),
    ] {
        assert_eq!(job[member], value, "{member}: {job}");
    }
    let time = |member: &str| job[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("delayed").duration_since(time("created")).as_secs(), 3_600);
    assert_eq!(time("expires").duration_since(time("created")).as_secs(), 7_200);
    assert!(job["created"].as_str().unwrap().ends_with('Z'), "{job}");
}

async fn lists_are_filtered_and_walked_by_cursor(options: Options) {
    let node = Node::start(options).await;
    let jobs: Vec<Value> = (0..25)
        .map(|n| json!({ "task": if n % 5 == 0 { "five" } else { "other" }, "queue": if n % 2 == 0 { "even" } else { "odd" },
            "notes": if n == 3 { json!({"three": null, "odd": 1}) } else { json!({}) } }))
        .collect();
    let ids: Vec<i64> =
        serde_json::from_value(node.post_json("/api/v1/jobs", &json!(jobs)).await.expect(201)["ids"].clone())
            .unwrap();
    node.post(&format!("/api/v1/jobs/{}/cancel", ids[24]), "").await.expect(200);
    let listed = async |query: &str| -> Vec<i64> {
        let page = node.get(&format!("/api/v1/jobs{query}")).await.expect(200);
        page["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_i64().unwrap()).collect()
    };
    let chosen = |keep: &dyn Fn(usize) -> bool| -> Vec<i64> {
        (0..25).rev().filter(|n| keep(*n)).map(|n| ids[n]).collect()
    };
    assert_eq!(listed("").await, chosen(&|_| true));
    assert_eq!(listed("?task=five").await, chosen(&|n| n % 5 == 0));
    assert_eq!(listed("?task=five&queue=odd").await, chosen(&|n| n % 10 == 5));
    assert_eq!(listed("?state=cancelled").await, chosen(&|n| n == 24));
    assert_eq!(listed("?state=inactive,cancelled&queue=even").await, chosen(&|n| n % 2 == 0));
    assert_eq!(listed("?note=odd").await, chosen(&|n| n == 3));
    let (mut walked, mut query) = (Vec::new(), "?limit=4".to_owned());
    loop {
        let page = node.get(&format!("/api/v1/jobs{query}")).await.expect(200);
        walked.extend(page["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_i64().unwrap()));
        node.enqueue(&json!({ "task": "meanwhile" })).await;
        match page["next"].as_i64() {
            Some(next) => query = format!("?limit=4&before={next}"),
            None => break,
        }
    }
    assert_eq!(walked, chosen(&|_| true));
}

async fn events_and_wait_tell_how_a_job_went(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let id = node.enqueue(&json!({ "task": "fast", "args": ["r"] })).await;
    let ended = node.get(&format!("/api/v1/jobs/{id}/wait?timeout=60s")).await.expect(200);
    assert_eq!((&ended["state"], &ended["result"]), (&json!("finished"), &json!(["r"])));
    let events = node.events(id, "task.finished").await;
    let kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["task.enqueue", "task.dequeue", "task.finished"]);
    let client = Foreign::python();
    let mut session = client.open(&node.ws(&format!("/sub/task/fast/{id}?after=earliest"))).await;
    let lines = node
        .request(
            reqwest::Method::GET,
            &format!("/api/v1/jobs/{id}/events"),
            &[("accept", "application/x-ndjson")],
            "",
        )
        .await;
    for line in lines.text().lines() {
        assert_eq!(session.text().await, line, "the same bytes");
    }
    let idle = node.enqueue(&json!({ "task": "idle" })).await;
    node.get(&format!("/api/v1/jobs/{idle}/wait?timeout=100ms")).await.problem(408, "timeout");
    let waiting = format!("/api/v1/jobs/{idle}/wait?timeout=60s");
    let (waited, _) = tokio::join!(node.get(&waiting), async {
        node.post(&format!("/api/v1/jobs/{idle}/cancel"), "").await.expect(200)
    });
    assert_eq!(waited.expect(200)["state"], "cancelled");
}

async fn a_history_goes_on_where_a_page_ends(options: Options) {
    let node = Node::start(options).await;
    let id = node.enqueue(&json!({ "task": "idle" })).await;
    let path = format!("/api/v1/jobs/{id}/events");
    for n in 0..4 {
        let body = json!({ "notes": { "n": n } }).to_string();
        let json = [("content-type", "application/json")];
        node.request(reqwest::Method::PATCH, &format!("/api/v1/jobs/{id}"), &json, body).await.expect(200);
        node.enqueue(&json!({ "task": "other" })).await;
    }
    let page = async |query: &str| {
        let answer = node.get(&format!("{path}{query}")).await;
        let page = answer.expect(200);
        assert_eq!(answer.header("minium-earliest"), page["earliest"].as_str().unwrap());
        let kinds = page["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap().to_owned());
        (kinds.collect::<Vec<_>>(), page["next"].as_str().map(str::to_owned))
    };
    let whole = wait::until("all to be numbered", async || {
        let (kinds, next) = page("").await;
        (kinds.len() == 5 && next.is_none()).then_some(kinds)
    })
    .await;
    assert_eq!(whole[0], "task.enqueue");
    let (mut kinds, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let (more, next) = page(&query).await;
        assert!(more.len() <= 2);
        kinds.extend(more);
        match next {
            Some(next) => query = format!("?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(kinds, whole, "pages join");
    let headers = [("accept", "application/x-ndjson")];
    let lines = node.request(reqwest::Method::GET, &format!("{path}?limit=2"), &headers, "").await;
    assert_eq!(lines.text().lines().count(), 2);
    assert!(lines.header("minium-next").contains(':') && lines.header("minium-earliest").contains(':'));
    assert_eq!(page("?after=latest").await, (vec![], None));
    for bad in ["?limit=0", "?limit=10001", "?after=x", "?last=1"] {
        node.get(&format!("{path}{bad}")).await.problem(400, "invalid_request");
    }
    node.get(&format!("{path}?after=99:1")).await.problem(410, "epoch_changed");
}

async fn notes_are_merged_by_hand_and_figures_count(options: Options) {
    let node = Node::start(options).await;
    let id = node.enqueue(&json!({ "task": "idle", "notes": { "a": 1, "b": { "c": 2 } } })).await;
    let path = format!("/api/v1/jobs/{id}");
    let patch = async |body: Value| {
        let json = [("content-type", "application/json")];
        node.request(reqwest::Method::PATCH, &path, &json, body.to_string()).await
    };
    let changed = patch(json!({ "notes": { "a": null, "b": { "d": 3 } } })).await.expect(200);
    assert_eq!(changed["notes"], json!({ "b": { "d": 3 } }));
    for wrong in [json!({ "priority": "1" }), json!({ "attempts": 3 }), json!({}), json!({ "queue": null })] {
        patch(wrong).await.problem(400, "invalid_request");
    }
    // one change of what waits
    let later = json!({ "priority": 7, "delay": "90s", "queue": "slow", "notes": { "e": 4 } });
    let changed = patch(later).await.expect(200);
    assert_eq!(
        (&changed["priority"], &changed["queue"], &changed["phase"]),
        (&json!(7), &json!("slow"), &json!("delayed"))
    );
    assert_eq!((&changed["notes"], &changed["retries"]), (&json!({ "b": { "d": 3 }, "e": 4 }), &json!(0)));
    node.events(id, "task.changed").await;
    let ended = node.enqueue(&json!({ "task": "idle" })).await;
    node.request(reqwest::Method::POST, &format!("/api/v1/jobs/{ended}/cancel"), &[], "").await.expect(200);
    let json = [("content-type", "application/json")];
    let refused =
        node.request(reqwest::Method::PATCH, &format!("/api/v1/jobs/{ended}"), &json, r#"{"delay":0}"#).await;
    refused.problem(409, "conflict");
    let deep = (0..105).fold(json!(1), |inner, _| json!([inner]));
    patch(json!({ "notes": { "deep": deep } })).await.problem(400, "invalid_request");
    // the bound is on all of them together
    let half = "x".repeat(150_000);
    patch(json!({ "notes": { "large": half } })).await.expect(200);
    patch(json!({ "notes": { "larger": half } })).await.problem(413, "payload_too_large");
    patch(json!({ "notes": { "large": null } })).await.expect(200);
    assert_eq!(node.get(&path).await.expect(200)["notes"], changed["notes"]);
    let stats = node.get("/api/v1/stats").await.expect(200);
    assert_eq!((&stats["inactive"], &stats["finished"]), (&json!(1), &json!(0)), "{stats}");
    assert!(stats["sessions"].is_u64() && stats.get("position").is_some(), "{stats}");
}

async fn the_header_is_the_key_of_one_job(options: Options) {
    let node = Node::start(options).await;
    let post = async |body: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
        node.request(reqwest::Method::POST, "/api/v1/jobs", &headers, body.to_string()).await
    };
    let first = post(json!({ "task": "idle" })).await.expect(201);
    let again = post(json!({ "task": "idle" })).await.expect(200);
    assert_eq!((&again["id"], &again["existing"]), (&first["id"], &json!(true)));
    assert_eq!(first["key"], "once");
    post(json!([{ "task": "idle" }])).await.problem(400, "invalid_request");
    // one bound, wherever it stands
    let body = json!({ "task": "long" }).to_string();
    for (path, taken) in [("/api/v1/jobs", 201), ("/push/a", 200), ("/pub/a", 200)] {
        let with = async |key: &str| {
            let headers = [("content-type", "application/json"), ("idempotency-key", key)];
            node.request(reqwest::Method::POST, path, &headers, body.clone()).await
        };
        assert_eq!(with(&"k".repeat(255)).await.status, taken, "{path}");
        with(&"k".repeat(256)).await.problem(400, "invalid_request");
    }
}

async fn an_event_may_be_larger_than_a_message(options: Options) {
    let node = Node::start(options).await;
    let large = "x".repeat(600_000);
    let id = node.enqueue(&json!({ "task": "idle", "args": [large] })).await;
    let client = Foreign::python();
    let mut session = client.open(&node.ws("/sub/task?after=earliest")).await;
    let event = session.json().await;
    assert_eq!((&event["data"]["id"], &event["data"]["args"]), (&json!(id), &json!([large])));
}

async fn what_the_state_forbids_is_a_conflict(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let client = Foreign::perl();
    let mut session = client.open(&node.ws("/sub/task")).await;
    let done = node.enqueue(&json!({ "task": "fast", "key": "taken" })).await;
    node.get(&format!("/api/v1/jobs/{done}/wait?timeout=60s")).await.expect(200);
    node.post(&format!("/api/v1/jobs/{done}/cancel"), "").await.problem(409, "conflict");
    // dies with the node, which is killed at the end: it has no children
    let running = node.enqueue(&json!({ "task": "long" })).await;
    let mut last = String::new();
    while last != "task.dequeue" || !session_is(&node, running, "active").await {
        last = TaskEvent::parse(&session.text().await).kind().to_owned();
    }
    node.delete(&format!("/api/v1/jobs/{running}")).await.problem(409, "conflict");
    node.post(&format!("/api/v1/jobs/{running}/retry"), "").await.problem(409, "conflict");
    let _holder = node.enqueue(&json!({ "task": "fast", "key": "taken", "delay": "1h" })).await;
    node.post(&format!("/api/v1/jobs/{done}/retry"), "").await.problem(409, "conflict");
    assert_eq!(
        node.get(&format!("/api/v1/jobs/{done}")).await.expect(200)["state"],
        "finished",
        "nothing was changed"
    );
    node.post(&format!("/api/v1/jobs/{running}/cancel"), "").await.expect(200);
    assert_eq!(node.delete(&format!("/api/v1/jobs/{running}")).await.status, 204);
    node.get(&format!("/api/v1/jobs/{running}")).await.problem(404, "not_found");
}

async fn session_is(node: &Node, id: i64, state: &str) -> bool {
    node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"] == state
}

async fn commands_get_arguments_and_give_results(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let ended = async |task: &str| {
        let id = node.enqueue(&json!({ "task": task, "args": {"a": "ü"} })).await;
        node.get(&format!("/api/v1/jobs/{id}/wait?timeout=60s")).await.expect(200)
    };
    assert_eq!(ended("fast").await["result"], json!({"a": "ü"}));
    assert_eq!(ended("words").await["result"].as_str().unwrap().trim_end(), "no json");
    let failed = ended("wrong").await;
    assert_eq!(failed["state"], "failed");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("why") && error.contains('7'), "{error}");
}

async fn cancelling_ends_the_command_that_runs(options: Options) {
    let node =
        Node::start(options.config(&format!("{WITH_WORKER}[worker]\nconcurrency = 1\nlease = \"2s\"\n")))
            .await;
    let endless = node.enqueue(&json!({ "task": "endless" })).await;
    crate::support::wait::until("the job to run", async || {
        session_is(&node, endless, "active").await.then_some(())
    })
    .await;
    node.post(&format!("/api/v1/jobs/{endless}/cancel"), "").await.expect(200);
    // the one place of the worker is free again only when the command has ended
    let next = node.enqueue(&json!({ "task": "fast" })).await;
    assert_eq!(
        node.get(&format!("/api/v1/jobs/{next}/wait?timeout=60s")).await.expect(200)["state"],
        "finished"
    );
    assert!(session_is(&node, endless, "cancelled").await);
}

async fn a_job_waits_for_its_parents(options: Options) {
    let node = Node::start(options.config(WITH_WORKER)).await;
    let parent = node.enqueue(&json!({ "task": "idle" })).await;
    let child = node.enqueue(&json!({ "task": "fast", "parents": [parent], "lax": true })).await;
    let strict = node.enqueue(&json!({ "task": "fast", "parents": [parent] })).await;
    for id in [child, strict] {
        assert_eq!(node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["phase"], "blocked");
    }
    node.post(&format!("/api/v1/jobs/{parent}/cancel"), "").await.expect(200);
    let ended = node.get(&format!("/api/v1/jobs/{child}/wait?timeout=60s")).await.expect(200);
    assert_eq!(ended["state"], "finished", "a lax one goes on when its parent is cancelled");
    assert_eq!(node.get(&format!("/api/v1/jobs/{strict}")).await.expect(200)["phase"], "blocked");
}

async fn a_trace_context_goes_along(options: Options) {
    let node = Node::start(options).await;
    let client = Foreign::python();
    let mut session = client.open(&node.ws("/sub/task")).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!({ "task": "traced" }).to_string();
    node.request(reqwest::Method::POST, "/api/v1/jobs", &[("traceparent", trace)], body).await.expect(201);
    assert_eq!(session.json().await["traceparent"], trace);
    node.enqueue(&json!({ "task": "untraced" })).await;
    assert!(session.json().await.get("traceparent").is_none());
}

/// Q-12: SQL enqueues inside of its own transaction, and the views show whole jobs and events.
#[tokio::test]
async fn sql_enqueues_in_its_own_transaction() {
    let database = Database::create().await;
    let node = Node::start(Options::on(database.url()).config(WITH_WORKER)).await;
    let client = Foreign::python();
    let mut session = client.open(&node.ws("/sub/task")).await;
    let mut sql = database.connect().await;
    let undone = sql.transaction().await.unwrap();
    undone.query_one("select minium.enqueue('fast', '[0]')", &[]).await.unwrap();
    undone.rollback().await.unwrap();
    let done = sql.transaction().await.unwrap();
    let row = done
        .query_one("select minium.enqueue('fast', '[1]', '{\"key\": \"k\", \"priority\": 3}')", &[])
        .await
        .unwrap();
    let id: i64 = row.get(0);
    done.commit().await.unwrap();
    for kind in ["task.enqueue", "task.dequeue", "task.finished"] {
        let event = TaskEvent::parse(&session.text().await);
        assert_eq!((event.kind(), event.job()), (kind, id), "what was rolled back has no event");
    }
    let job = sql
        .query_one("select state::text, args::text, priority from minium.jobs where id = $1", &[&id])
        .await
        .unwrap();
    assert_eq!((job.get::<_, &str>(0), job.get::<_, i32>(2)), ("finished", 3));
    let journal = "select count(*), min(type), count(distinct epoch) from minium.journal where topic = $1";
    let row = sql.query_one(journal, &[&format!("task/fast/{id}")]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1), row.get::<_, i64>(2)), (3, "task.dequeue", 1));
    for (bad, why) in [
        ("'a b', '[]'", "task"),
        ("'x', '[]', '{\"attempts\": 0}'", "attempts"),
        ("'x', '[]', '{\"colour\": 1}'", "colour"),
    ] {
        let error = sql.query_one(&format!("select minium.enqueue({bad})"), &[]).await.unwrap_err();
        assert!(error.as_db_error().is_some_and(|e| e.message().contains(why)), "{bad}: {error:?}");
    }
}
