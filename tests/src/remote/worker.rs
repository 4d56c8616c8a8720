//! `minium worker --url`: commands without a database, and results that survive.

use crate::support::node::{Node, Options, binary};
use crate::support::postgres::connect;
use crate::support::{on_both, wait};
use futures::{SinkExt, StreamExt};
use minium_client::{Client, ConnectOptions};
use minium_protocol::{ErrorCode, Problem};
use minium_worker::{
    ClientSource, Failure, JobContext, Spool, SpoolOptions, Worker as Runner, WorkerOptions,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_util::sync::CancellationToken;

on_both! {
    /// J-1, J-2, Q-11: a pushed message runs a command elsewhere, with progress, notes, results and failures.
    a_command_runs_without_a_database;
    /// Q-10: a result survives the node and the worker, both killed, and the job does not run again.
    a_result_survives_the_node_and_the_worker;
    /// J-3: a result that the database will never take ends the job with a failure that says so.
    a_result_that_is_refused_for_good_becomes_a_failure;
    /// J-4: cancelling stops the command with all that it has started.
    cancelling_kills_the_command;
    /// J-4: what was called off, or lost, takes no slot any more.
    a_run_that_was_called_off_makes_room_for_another;
    /// Q-10: a result that the node cannot read fails its own job, and holds up nobody else's.
    a_result_that_the_node_cannot_read_holds_nobody_up;
}

const CONFIG: &str = "[channels.\"livesys\"]\ndurable = true\n";

/// A worker in a directory of its own.
pub(super) struct Worker {
    dir: PathBuf,
    child: Child,
}

impl Worker {
    /// Runs `script` for `livesys/7`.
    fn start(node: &Node, script: &str) -> Worker {
        Worker::start_with(node, script, &[])
    }

    /// The same, with further arguments.
    fn start_with(node: &Node, script: &str, args: &[&str]) -> Worker {
        let dir = node.dir().join("image");
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join("run.sh");
        std::fs::write(&program, format!("#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\n{script}\n"))
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = node.log_file();
        let child = Command::from(node.command())
            // where a node runs as well: it is not this worker's
            .env("MINIUM_DATABASE__URL", "sqlite:the-nodes.db")
            .args(["worker", "--url", &node.ws(""), "-j", "2", "--spool"])
            .arg(dir.join("spool"))
            .args(["--task", &format!("livesys/7={}", program.display())])
            .args(args)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Worker { dir, child }
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.join(name)).ok()
    }

    async fn until_file(&self, name: &str) -> String {
        wait::until(name, async || self.file(name).filter(|text| text.ends_with('\n'))).await
    }

    /// What its spool holds, as it stands on the disk.
    fn spooled(&self) -> String {
        spooled_in(&self.dir.join("spool"))
    }

    /// Until its spool holds these words.
    async fn until_spooled(&self, words: &str) {
        let what = format!("{words} in the spool");
        wait::until(&what, async || self.spooled().contains(words).then_some(())).await;
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Ends it orderly.
    async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(wait::within("the worker to end", self.child.wait()).await.unwrap().success());
    }
}

fn spooled_in(dir: &std::path::Path) -> String {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let spools = files.filter(|p| p.extension().is_some_and(|e| e == "spool"));
    spools.map(|p| String::from_utf8_lossy(&std::fs::read(p).unwrap()).into_owned()).collect()
}

/// Pushes, and answers the job.
async fn push(node: &Node, data: &Value) -> i64 {
    node.post("/push/livesys/7", data.to_string()).await.expect(200)["job"].as_i64().unwrap()
}

async fn a_command_runs_without_a_database(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let script = r#"args=$(cat)
case "$args" in *fail*) echo "no such command" >&2; exit 3;; esac
echo "::progress 50 half" >&2
echo "::note kernel=6.1" >&2
echo "{\"got\":$args}""#;
    let worker = Worker::start(&node, script);
    let (good, bad) = (push(&node, &json!(["uptime"])).await, push(&node, &json!(["fail"])).await);
    let good = node.ended(good).await;
    assert_eq!((&good["state"], &good["result"]), (&json!("finished"), &json!({ "got": ["uptime"] })));
    assert_eq!((&good["notes"]["kernel"], &good["progress"]["percent"]), (&json!(6.1), &json!(50.0)));
    let bad = node.ended(bad).await;
    assert_eq!(bad["state"], "failed");
    assert!(bad["error"].as_str().unwrap().contains("no such command"), "{bad}");
    // the node goes and comes back: so does the worker
    node.kill().await;
    node.restart().await;
    let again = push(&node, &json!(["again"])).await;
    assert_eq!(node.ended(again).await["state"], "finished");
    worker.stop().await;
}

async fn a_result_survives_the_node_and_the_worker(options: Options) {
    if options.database == "sqlite::memory:" {
        return;
    }
    let node = Node::start(options.config(CONFIG)).await;
    let script = "echo run >> runs; while [ ! -e go ]; do sleep 0.05; done; echo '\"the only result\"'";
    let worker = Worker::start(&node, script);
    let id = push(&node, &json!([])).await;
    worker.until_file("runs").await;
    node.kill().await;
    std::fs::write(worker.dir.join("go"), "").unwrap();
    worker.until_spooled("the only result").await;
    worker.kill().await;
    node.restart().await;
    let worker = Worker::start(&node, "echo run >> runs; echo '\"another\"'");
    let job = node.ended(id).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("finished"), &json!(1)));
    assert_eq!(job["result"], "the only result");
    assert_eq!(worker.file("runs").unwrap().lines().count(), 1, "it ran once");
    worker.stop().await;
}

async fn a_result_that_the_node_cannot_read_holds_nobody_up(options: Options) {
    let config = format!("{CONFIG}[server.limits]\nmessage_bytes = \"64KiB\"\n");
    let node = Node::start(options.config(&config)).await;
    let script = r#"case "$(cat)" in
*large*) echo run >> runs; while [ ! -e go ]; do sleep 0.05; done; head -c 100000 /dev/zero | tr '\0' x;;
*) echo '"small"';;
esac"#;
    let worker = Worker::start(&node, script);
    let large = push(&node, &json!(["large"])).await;
    worker.until_file("runs").await;
    // all of them at once, and the large one among them
    std::fs::write(worker.dir.join("go"), "").unwrap();
    let mut small = Vec::new();
    for _ in 0..20 {
        small.push(push(&node, &json!([])).await);
    }
    let large = node.ended(large).await;
    assert_eq!(large["state"], "failed");
    assert!(large["error"].as_str().unwrap().contains("could not be stored"), "{large}");
    for id in small {
        let job = node.ended(id).await;
        assert_eq!((&job["state"], &job["result"]), (&json!("finished"), &json!("small")));
    }
    worker.stop().await;
}

/// A worker whose token is no good any more is not to lose what it has done: the next one with a good token reports it.
#[tokio::test]
async fn a_token_that_is_refused_costs_no_result() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("ops.key");
    std::fs::write(&key, "thirty-two bytes are the least: ok").unwrap();
    let config = format!(
        "{CONFIG}[auth.anonymous]\nscopes = [\"push:livesys\", \"jobs:read\"]\n\
         [auth.keys.ops]\nalgorithm = \"HS256\"\nsecret_file = {key:?}\n"
    );
    let node = Node::start(Options::file().config(&config)).await;
    let mint = node
        .tokio_command()
        .args(["token", "mint", "--key", "ops", "--subject", "image", "--scope", "pull:livesys/7"])
        .args(["--expires", "1h"])
        .output();
    let mint = mint.await.unwrap();
    assert!(mint.status.success(), "{mint:?}");
    let token = node.dir().join("image.jwt");
    std::fs::write(&token, mint.stdout).unwrap();
    let with_token = ["--token-file", token.to_str().unwrap()];
    let script = "echo run >> runs; while [ ! -e go ]; do sleep 0.05; done; echo '\"the only result\"'";
    let mut worker = Worker::start_with(&node, script, &with_token);
    let id = push(&node, &json!([])).await;
    worker.until_file("runs").await;
    node.kill().await;
    std::fs::write(worker.dir.join("go"), "").unwrap();
    worker.until_spooled("the only result").await;
    std::fs::write(&key, "another secret that nobody knows here").unwrap();
    node.restart().await;
    let status = wait::within("the worker to end", worker.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(4), "it is told that it is not allowed");
    assert!(worker.spooled().contains("the only result"), "{}", worker.spooled());
    node.kill().await;
    std::fs::write(&key, "thirty-two bytes are the least: ok").unwrap();
    node.restart().await;
    let worker = Worker::start_with(&node, "echo run >> runs; echo '\"another\"'", &with_token);
    let job = node.ended(id).await;
    assert_eq!((&job["state"], &job["result"]), (&json!("finished"), &json!("the only result")));
    assert_eq!(worker.file("runs").unwrap().lines().count(), 1, "it ran once");
    worker.stop().await;
}

/// A trigger stands for whatever a database may have against a value.
async fn a_result_that_is_refused_for_good_becomes_a_failure(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    match node.database().strip_prefix("sqlite:") {
        Some(path) => {
            let refuse = "create trigger refuse before update on job when new.result = '\"poison\"'
                          begin select raise(abort, 'too much'); end";
            rusqlite::Connection::open(path).unwrap().execute_batch(refuse).unwrap();
        }
        None => {
            let refuse = "create function refuse() returns trigger language plpgsql as $$
                          begin raise exception using errcode = '54000', message = 'too much'; end $$;
                          create trigger refuse before update on minium.job for each row
                          when (new.result::text = '\"poison\"') execute function refuse()";
            connect(&node.database()).await.unwrap().batch_execute(refuse).await.unwrap();
        }
    }
    let worker = Worker::start(&node, "echo '\"poison\"'");
    let id = push(&node, &json!([])).await;
    let job = node.ended(id).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(1)));
    assert!(job["error"].as_str().unwrap().contains("could not be stored"), "{job}");
    worker.stop().await;
}

async fn cancelling_kills_the_command(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let worker = Worker::start(&node, "sleep 1000 & echo $! > child; wait");
    let id = push(&node, &json!([])).await;
    let child: i32 = worker.until_file("child").await.trim().parse().unwrap();
    let there = || std::path::Path::new(&format!("/proc/{child}/cmdline")).exists();
    assert!(there());
    node.post(&format!("/api/v1/jobs/{id}/cancel"), "").await.expect(200);
    wait::until("the child of the command to be gone", async || (!there()).then_some(())).await;
    assert_eq!(node.job(id).await["state"], "cancelled");
    // it was told, and did not have to ask
    let metrics = node.get("/metrics").await;
    let asked = |line: &&str| line.starts_with("minium_notifier_words_total") && line.contains("cancelled");
    assert_eq!(metrics.text().lines().find(asked), None);
    worker.stop().await;
}

async fn a_run_that_was_called_off_makes_room_for_another(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let worker = Worker::start(&node, "case $(cat) in *last*) exit;; esac; exec sleep 1000");
    // more than it has slots
    for n in 0..5 {
        let id = push(&node, &json!([n])).await;
        let active = async || (node.job(id).await["state"] == "active").then_some(());
        wait::until("the job to be begun", active).await;
        node.post(&format!("/api/v1/jobs/{id}/cancel"), "").await.expect(200);
    }
    let last = push(&node, &json!(["last"])).await;
    assert_eq!(node.ended(last).await["state"], "finished");
    worker.stop().await;
}

/// An outage is told once, and once that it is over.
#[tokio::test]
async fn a_worker_tells_when_its_node_is_away() {
    let node = Node::start(Options::file().config(CONFIG)).await;
    let worker = Worker::start(&node, "echo '\"done\"'");
    let id = push(&node, &json!([])).await;
    node.ended(id).await;
    let told = |words: &str| node.log().matches(words).count();
    assert_eq!(told("The node is away"), 0, "{}", node.log());
    node.kill().await;
    wait::until("the outage in the log", async || (told("The node is away") > 0).then_some(())).await;
    // it tries again and again meanwhile, whether somebody hears it or not
    let place = tokio::net::TcpListener::bind(node.address()).await.unwrap();
    for _ in 0..3 {
        drop(wait::within("another attempt", place.accept()).await.unwrap());
    }
    drop(place);
    node.restart().await;
    wait::until("its end in the log", async || (told("The node is back.") > 0).then_some(())).await;
    assert_eq!((told("The node is away"), told("The node is back.")), (1, 1), "{}", node.log());
    worker.stop().await;
}

/// What cannot be pulled ends the worker with its reason, and its exit code.
#[tokio::test]
async fn a_channel_that_is_no_task_ends_the_worker() {
    let node = Node::memory().await;
    let output = Command::new(binary())
        .args(["worker", "--url", &node.ws(""), "--task", "ephemeral=true", "--spool"])
        .arg(node.dir().join("spool"))
        .kill_on_drop(true)
        .output();
    let output = wait::within("the worker to end", output).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("WARN The node refuses this worker.\n"), "{told}");
    assert_eq!(told.matches("ephemeral is not durable").count(), 1, "{told}");
    assert!(output.stdout.is_empty());
    // nobody is there: it waits
    let log = std::fs::File::create(node.dir().join("waiting")).unwrap();
    let mut waiting = Command::new(binary())
        .args(["worker", "--url", "ws://127.0.0.1:1", "--task", "x=true", "--spool"])
        .arg(node.dir().join("spool"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait::until("the worker to say so", async || {
        let told = std::fs::read_to_string(node.dir().join("waiting")).unwrap();
        told.contains("WARN The node is away; trying again until it is there. url=").then_some(())
    })
    .await;
    assert!(waiting.try_wait().unwrap().is_none(), "a node that is away is waited for");
}

/// Q-10: an outcome is on the disk before it is reported for the first time. This node looks.
#[tokio::test]
async fn an_outcome_is_on_the_disk_before_it_is_reported() {
    const JOBS: usize = 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary())
        .args(["worker", "--url", &url, "-j", "4", "--task", "livesys/7=echo 1", "--spool"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (given, acked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut sessions = JoinSet::new();
    let all = wait::until("every outcome", async || {
        tokio::select! {
            accepted = listener.accept() => {
                _ = sessions.spawn(hand_out(accepted.unwrap().0, dir.path().to_owned(), given.clone(), acked.clone()));
            }
            Some(ended) = sessions.join_next() => ended.unwrap(),
            () = tokio::task::yield_now() => {}
        }
        (acked.load(Ordering::SeqCst) >= JOBS).then_some(acked.load(Ordering::SeqCst))
    });
    assert!(all.await >= JOBS);
    child.kill().await.unwrap();
}

/// Q-10: while the spool is full, no slot is given free, whatever credit the node would answer; when there is room again,
/// jobs are taken as before. This node takes no outcome until it is told to.
#[tokio::test]
async fn a_full_spool_takes_no_jobs_until_there_is_room() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let small = SpoolOptions { count_max: 1, ..SpoolOptions::default() };
    let spool = Spool::open(dir.path(), &[&url], small).unwrap();
    let node = Arc::new(Unwilling::default());
    let sessions = tokio::spawn({
        let node = node.clone();
        async move {
            // words about jobs do not come over the socket that gave them out
            let mut sessions = JoinSet::new();
            loop {
                let (socket, node) = (listener.accept().await.unwrap().0, node.clone());
                sessions.spawn(async move { node.serve(socket).await });
            }
        }
    });
    let link = Client::new(&url, None).unwrap().connect(ConnectOptions::default()).unwrap();
    let task = |_: JobContext, _: Value| async { Ok::<_, Failure>(1) };
    let options = WorkerOptions { upkeep: None, ..WorkerOptions::default() };
    let worker = Runner::new(ClientSource::new(link, spool, 2), options).task("livesys/7", task);
    let stop = CancellationToken::new();
    let work = tokio::spawn(worker.run(stop.clone()));
    let refused = |n| {
        let node = node.clone();
        async move || (node.refused.load(Ordering::SeqCst) >= n).then_some(())
    };
    // both have ended, and are offered in vain again and again
    wait::until("outcomes to be refused", refused(6)).await;
    assert_eq!(node.credit.load(Ordering::SeqCst), 2, "its two slots, once");
    assert!(spooled_in(dir.path()).matches("\"finished\"").count() >= 1);
    node.willing.store(true, Ordering::SeqCst);
    wait::until("jobs to be taken", async || (node.credit.load(Ordering::SeqCst) > 6).then_some(())).await;
    stop.cancel();
    wait::within("the worker to end", work).await.unwrap().unwrap();
    sessions.abort();
}

/// A node that gives out as many jobs as it gets credit, and takes outcomes only when it is willing.
#[derive(Default)]
struct Unwilling {
    willing: AtomicBool,
    credit: AtomicUsize,
    refused: AtomicUsize,
}

impl Unwilling {
    async fn serve(&self, socket: tokio::net::TcpStream) {
        let Some(mut session) = accepted(socket).await else { return };
        while let Some(frame) = heard(&mut session).await {
            let mut answers = vec![json!({ "op": "ok", "ref": frame["ref"] })];
            match frame["op"].as_str().unwrap() {
                "pull" => {
                    for _ in 0..frame["credit"].as_u64().unwrap_or(1) {
                        answers.push(a_job(self.credit.fetch_add(1, Ordering::SeqCst) + 1));
                    }
                }
                "ack" if !self.willing.load(Ordering::SeqCst) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    let problem = Problem::new(ErrorCode::Forbidden, "not now");
                    answers = vec![json!({ "op": "error", "ref": frame["ref"], "problem": problem })];
                }
                _ => {}
            }
            for answer in answers {
                session.send(Message::text(answer.to_string())).await.ok();
            }
        }
    }
}

/// A session of `minium.v1`.
#[expect(clippy::result_large_err, reason = "tungstenite's callback wants this type")]
async fn accepted(socket: tokio::net::TcpStream) -> Option<WebSocketStream<tokio::net::TcpStream>> {
    let choose = |_: &Request, mut response: Response| {
        response.headers_mut().insert("sec-websocket-protocol", "minium.v1".parse().unwrap());
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(socket, choose).await.ok()
}

/// The next frame of its worker.
async fn heard(session: &mut WebSocketStream<tokio::net::TcpStream>) -> Option<Value> {
    loop {
        if let Message::Text(text) = session.next().await?.ok()? {
            return Some(serde_json::from_str(text.as_str()).unwrap());
        }
    }
}

/// A session of a node that gives out as many jobs as it gets credit, and takes an outcome only if it is in the spool.
async fn hand_out(
    socket: tokio::net::TcpStream,
    spool: PathBuf,
    given: Arc<AtomicUsize>,
    acked: Arc<AtomicUsize>,
) {
    let Some(mut session) = accepted(socket).await else { return };
    while let Some(frame) = heard(&mut session).await {
        let mut answers = vec![json!({ "op": "ok", "ref": frame["ref"] })];
        match frame["op"].as_str().unwrap() {
            "pull" => {
                for _ in 0..frame["credit"].as_u64().unwrap_or(1) {
                    answers.push(a_job(given.fetch_add(1, Ordering::SeqCst) + 1));
                }
            }
            "ack" => {
                let lease = frame["lease"].as_str().unwrap();
                assert!(spooled_in(&spool).contains(lease), "it is reported, and not on the disk");
                acked.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
        for answer in answers {
            session.send(Message::text(answer.to_string())).await.ok();
        }
    }
}

fn a_job(id: usize) -> Value {
    let at = "2026-11-22T02:00:00Z";
    json!({ "op": "job", "topic": "livesys/7", "lease": uuid::Uuid::new_v4(), "lease_expires": "2226-11-22T02:00:00Z",
        "job": { "id": id, "task": "livesys/7", "queue": "default", "state": "active", "priority": 0, "args": [],
            "notes": {}, "attempt": 1, "attempts": 1, "retries": 0, "parents": [], "lax": false, "key": null,
            "schedule": null, "worker": null, "result": null, "error": null, "progress": null, "origin": null,
            "created": at, "delayed": at, "expires": null, "started": at, "finished": null, "retried": null } })
}
