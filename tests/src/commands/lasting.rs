//! Long-lived commands: one process, many jobs, and each way in which a process can break its word.

use super::{enqueue, error, machine_has, output, result, task as shell_task};
use crate::support::node::{Node, Options, checkout};
use crate::support::{on_both, wait};
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

on_both! {
    /// a process takes one job after the other, and is told all of each.
    a_process_takes_one_job_after_the_other;
    /// progress, notes and last words reach the job.
    what_it_says_reaches_the_job;
    /// a process that breaks its word fails its job, and the next job has another process.
    whoever_talks_nonsense_is_replaced;
}

fn python() -> PathBuf {
    std::env::var_os("MINIUM_TEST_PYTHON").expect("run ./scripts/test").into()
}

fn companion() -> PathBuf {
    checkout().join("tests/src/commands/companion.py")
}

/// A task `x` of long-lived processes, with more of its settings.
fn config(concurrency: u32, args: &[&Path], more: &str) -> String {
    let mut command = vec![python().display().to_string(), companion().display().to_string()];
    command.extend(args.iter().map(|arg| arg.display().to_string()));
    format!(
        "[worker]\nconcurrency = {concurrency}\n[tasks.x]\nmode = \"ndjson\"\nstart_timeout = \"55s\"\ncommand = {command:?}\n{more}\n"
    )
}

async fn start(options: Options, concurrency: u32, more: &str) -> Node {
    Node::start(options.config(&config(concurrency, &[], more))).await
}

async fn go(node: &Node, args: Value) -> Value {
    node.ended(enqueue(node, "x", args).await).await
}

async fn pid(node: &Node) -> i64 {
    result(&go(node, json!(["pid"])).await).as_i64().unwrap()
}

/// What stands in the log of a job.
async fn log(node: &Node, job: &Value) -> Vec<String> {
    let page = node.get(&format!("/api/v1/jobs/{}/log", job["id"])).await.expect(200);
    let line =
        |line: &Value| format!("{} {}", line["level"].as_str().unwrap(), line["text"].as_str().unwrap());
    page["lines"].as_array().unwrap().iter().map(line).collect()
}

/// The note that a job has made by now.
async fn note(node: &Node, id: i64, name: &str) -> i64 {
    wait::until(&format!("the note {name} of job {id}"), async || {
        node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["notes"][name].as_i64()
    })
    .await
}

async fn until_gone(pid: i64) {
    let number = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    wait::until(&format!("the end of process {pid}"), async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        (is_zombie || test_kill_process(number).is_err()).then_some(())
    })
    .await;
}

async fn a_process_takes_one_job_after_the_other(options: Options) {
    let node = start(options, 1, "").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let args = json!(["job", { "text": "two\nlines ä" }]);
    let request = json!({ "task": "x", "args": args, "attempts": 3 });
    let headers = [("traceparent", trace), ("tracestate", "a=1"), ("content-type", "application/json")];
    let id = node.request(reqwest::Method::POST, "/api/v1/jobs", &headers, request.to_string()).await;
    let id = id.expect(201)["id"].as_i64().unwrap();
    let told = node.ended(id).await["result"].clone();
    let expected = json!({
        "id": id, "task": "x", "queue": "default", "attempt": 1, "attempts": 3, "args": args, "trace": trace,
        "tracestate": "a=1",
    });
    assert_eq!(told, expected);
    let first = pid(&node).await;
    for _ in 0..20 {
        assert_eq!(pid(&node).await, first);
    }
}

async fn what_it_says_reaches_the_job(options: Options) {
    let node = start(options, 1, "").await;
    let job = go(&node, json!(["talk"])).await;
    assert_eq!((&job["state"], &job["result"]), (&json!("finished"), &Value::Null), "{job}");
    assert_eq!(job["progress"], json!({ "percent": 40.0, "text": "half way" }));
    assert_eq!(job["notes"], json!({ "rows": 7, "disk": "sda" }));
    assert_eq!(log(&node, &job).await, ["step source downloaded", "warn slow"]);
    // a last line without an end is its job's, and not the beginning of the next one's
    let dots = go(&node, json!(["dots"])).await;
    let next = go(&node, json!(["fail", false])).await;
    assert_eq!(log(&node, &dots).await, ["info some dots ..."]);
    assert_eq!(log(&node, &next).await, [""; 0]);
    let request =
        |retry: bool| json!({ "task": "x", "args": ["fail", retry], "attempts": 2, "backoff": "0s" });
    for (retry, attempts) in [(true, 2), (false, 1)] {
        let id = node.post_json("/api/v1/jobs", &request(retry)).await.expect(201)["id"].as_i64().unwrap();
        let job = wait::until("its last attempt", async || {
            let job = node.ended(id).await;
            (job["attempt"] == attempts).then_some(job)
        })
        .await;
        assert_eq!(error(&job), "no disk");
        let failures = node.get(&format!("/api/v1/jobs/{id}/failures")).await.expect(200);
        assert_eq!(failures["failures"].as_array().unwrap().len(), attempts, "{failures}");
        assert_eq!(failures["failures"][0]["backtrace"], "at line 7");
    }
}

async fn whoever_talks_nonsense_is_replaced(options: Options) {
    let node = start(options, 1, "").await;
    let cases = [
        ("nonsense", "its process wrote a line that is no word of ours: unknown field `outcome`"),
        ("twice", "its process said more after the job's outcome"),
        ("other", "which it does not have"),
        ("endless", "its process wrote a line without an end"),
    ];
    for (what, why) in cases {
        let before = pid(&node).await;
        let job = go(&node, json!([what])).await;
        assert!(error(&job).contains(why), "{what}: {job}");
        until_gone(before).await;
        assert_ne!(pid(&node).await, before, "{what}");
    }
}

/// a process that dies fails the job that it has, with its last words, and no other.
#[tokio::test]
async fn a_process_that_dies_fails_its_own_job() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(Options::memory(), 2, "").await;
    let go_on = dir.path().join("go");
    let other = enqueue(&node, "x", json!(["hold", go_on])).await;
    let held = note(&node, other, "pid").await;
    assert_eq!(error(&go(&node, json!(["die"])).await), "its process exited with code 3: no more memory");
    assert_ne!(pid(&node).await, held);
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(*result(&node.ended(other).await), "held");
}

/// a process that heeds the word goes on living; one that does not is killed with its children.
#[tokio::test]
async fn cancelled_jobs_end() {
    let node = start(Options::memory(), 1, "").await;
    let cancel = async |id: i64| {
        node.post(&format!("/api/v1/jobs/{id}/cancel"), "").await.expect(200);
        assert_eq!(node.ended(id).await["state"], "cancelled");
    };
    let id = enqueue(&node, "x", json!(["heed"])).await;
    let heeds = note(&node, id, "pid").await;
    cancel(id).await;
    assert_eq!(pid(&node).await, heeds, "it is the same process");
    let id = enqueue(&node, "x", json!(["deaf"])).await;
    let (deaf, child) = (note(&node, id, "pid").await, note(&node, id, "child").await);
    assert_eq!(deaf, heeds);
    cancel(id).await;
    until_gone(deaf).await;
    until_gone(child).await;
    assert_ne!(pid(&node).await, deaf);
}

/// the same for a run whose time is up.
#[tokio::test]
async fn a_time_out_is_told_and_then_enforced() {
    let node = start(Options::memory(), 1, "").await;
    for (what, survives) in [("heed", true), ("deaf", false)] {
        let before = pid(&node).await;
        let request = json!({ "task": "x", "args": [what], "timeout": "1s" });
        let id = node.post_json("/api/v1/jobs", &request).await.expect(201)["id"].as_i64().unwrap();
        assert_eq!(error(&node.ended(id).await), "timed out after 1s");
        assert_eq!(pid(&node).await == before, survives, "{what}");
    }
}

/// a process retires after its share of jobs.
#[tokio::test]
async fn processes_are_recycled() {
    let node = start(Options::memory(), 1, "recycle_jobs = 2").await;
    let mut pids = Vec::new();
    for _ in 0..5 {
        pids.push(pid(&node).await);
    }
    assert!(pids[0] == pids[1] && pids[2] == pids[3], "{pids:?}");
    assert!(pids[0] != pids[2] && pids[2] != pids[4], "{pids:?}");
    until_gone(pids[0]).await;
    let node = start(Options::memory(), 1, "recycle_after = \"1ms\"").await;
    assert_ne!(pid(&node).await, pid(&node).await);
}

fn count(dir: &TempDir, name: &str) -> usize {
    std::fs::read_to_string(dir.path().join(name)).unwrap_or_default().lines().count()
}

/// starts that fail are tried again, and while they fail jobs wait in the queue rather than fail one after the other.
#[tokio::test]
async fn starts_that_fail_cost_few_jobs() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broken"), "").unwrap();
    let node = Node::start(Options::memory().config(&config(2, &[dir.path()], ""))).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(enqueue(&node, "x", json!(["pid"])).await);
    }
    let first = node.ended(ids[0]).await;
    assert_eq!(error(&first), "it does not start: its process exited with code 1: no configuration");
    std::fs::remove_file(dir.path().join("broken")).unwrap();
    let (starts, mut failed) = (count(&dir, "starts"), 0);
    for id in &ids {
        failed += usize::from(node.ended(*id).await["state"] == "failed");
    }
    assert!(failed <= 4, "{failed} of 8 jobs failed");
    assert!((3..=12).contains(&starts), "{starts} starts");
}

/// at the end a process gets the end of its input, and time to heed it. X-1: over WebSocket, too.
#[tokio::test]
async fn over_websocket_and_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(Options::file().config("[channels.x]\ndurable = true\n")).await;
    let command = format!("x={} {} {}", python().display(), companion().display(), dir.path().display());
    let mut worker = node
        .tokio_command()
        .args(["worker", "--url", &node.ws(""), "--ndjson", "-j", "2", "--task", &command, "--spool"])
        .arg(dir.path().join("spool"))
        .spawn()
        .unwrap();
    let push =
        async |args: Value| node.post("/push/x", args.to_string()).await.expect(200)["job"].as_i64().unwrap();
    let mut pids = Vec::new();
    for _ in 0..3 {
        let job = node.ended(push(json!(["pid"])).await).await;
        pids.push(result(&job).as_i64().unwrap());
    }
    assert!(pids[0] == pids[1] && pids[1] == pids[2], "{pids:?}");
    assert!(error(&node.ended(push(json!(["die"])).await).await).contains("no more memory"));
    assert_ne!(*result(&node.ended(push(json!(["pid"])).await).await), pids[0]);
    rustix::process::kill_process(
        Pid::from_raw(worker.id().unwrap().try_into().unwrap()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    assert!(wait::within("the worker to end", worker.wait()).await.unwrap().success());
    assert_eq!(count(&dir, "farewell"), 1);
}

/// K-3, K-5: long-lived processes are behind walls, each in a directory of its own.
#[tokio::test]
async fn a_long_lived_process_is_in_a_sandbox() {
    if !machine_has(&Node::memory().await, "landlock").await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(dir.path().join("work")).unwrap();
    let real = std::fs::canonicalize(python()).unwrap();
    let home = real.ancestors().nth(2).unwrap().to_owned();
    let reads = [companion(), python().ancestors().nth(2).unwrap().to_owned(), home];
    let work = dir.path().join("work");
    let more = format!(
        "recycle_jobs = 3\nsandbox = {{ mode = \"landlock\", read = {reads:?}, work_dir = {work:?} }}"
    );
    let node = start(Options::memory(), 1, &more).await;
    let read =
        async |path: &Path| result(&go(&node, json!(["read", path])).await).as_str().unwrap().to_owned();
    assert!(read(&companion()).await.starts_with("\"\"\"A long-lived"));
    assert_eq!(read(&dir.path().join("secret")).await, "PermissionError");
    let own = result(&go(&node, json!(["cwd"])).await).clone();
    assert!(own[0].as_str().unwrap().starts_with(work.to_str().unwrap()), "{own}");
    // the third job was its last one
    let next = result(&go(&node, json!(["cwd"])).await).clone();
    assert!(own[0] != next[0] && next[1] == json!(["left"]), "{own} {next}");
    wait::until("the first one's directory to be gone", async || {
        (std::fs::read_dir(&work).unwrap().count() == 1).then_some(())
    })
    .await;
}

/// the examples, as they stand, with the standard libraries of their languages.
#[tokio::test]
async fn examples_in_two_languages() {
    let program = |name: &str| checkout().join("examples").join(name).display().to_string();
    let of = |task: &str, command: &[String]| {
        format!("[tasks.{task}]\nmode = \"ndjson\"\ncommand = {command:?}\n")
    };
    let config = of("python", &[python().display().to_string(), program("python/lasting.py")])
        + &of("perl", &["perl".into(), program("perl/lasting.pl")])
        + &shell_task("other", "true", "");
    let node = Node::start(Options::memory().config(&config)).await;
    for task in ["python", "perl"] {
        let enqueue = async |args: Value| enqueue(&node, task, json!([args])).await;
        let good = node.ended(enqueue(json!({ "steps": 3 })).await).await;
        assert_eq!(*result(&good), json!({ "steps": 3 }), "{task}");
        assert_eq!((&good["progress"]["percent"], &good["notes"]["by"]), (&json!(100.0), &json!(task)));
        let bad = node.ended(enqueue(json!({ "fail": "no disk" })).await).await;
        assert_eq!(error(&bad), "no disk", "{task}");
        let long = enqueue(json!({ "steps": 1_000_000 })).await;
        wait::until("the long job to run", async || {
            let job = node.get(&format!("/api/v1/jobs/{long}")).await.expect(200);
            (!job["progress"].is_null()).then_some(())
        })
        .await;
        node.post(&format!("/api/v1/jobs/{long}/cancel"), "").await.expect(200);
        assert_eq!(*result(&node.ended(enqueue(json!({})).await).await), json!({ "steps": 1 }), "{task}");
    }
}

/// a process that is not ready in time has not started.
#[tokio::test]
async fn a_process_that_is_never_ready_does_not_hang_its_job() {
    let config = "[tasks.x]\nmode = \"ndjson\"\nstart_timeout = \"100ms\"\ncommand = [\"sleep\", \"1000\"]\n";
    let node = Node::start(Options::memory().config(config)).await;
    let why = "it does not start: its process was not ready within 100ms";
    assert_eq!(error(&go(&node, json!([])).await), why);
    let mut shown = node.tokio_command();
    let shown = output(shown.args(["config", "show", "--config", "minium.toml"])).await;
    assert!(String::from_utf8(shown.stdout).unwrap().contains("mode = \"ndjson\""));
}
