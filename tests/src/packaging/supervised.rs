//! Nodes and workers under a supervisor that listens.

use super::Supervisor;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// A process that is alive says so more often than that, in microseconds.
const WATCHDOG: &str = "200000";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_when_it_is_ready_reads_again_and_goes_down() {
    let mut cluster = Cluster::prepare(ClusterOptions::default());
    let supervisor = Supervisor::new();
    let options = Options {
        env: vec![supervisor.variable()],
        await_ready: false,
        ..Options::on(&cluster.url("postgres"))
    };
    let node = Node::start(options).await;
    // it works for all that needs no database, and asks for patience
    let at = supervisor.wait_for("STATUS=On http://127.0.0.1:", 0).await;
    supervisor.wait_for("EXTEND_TIMEOUT_USEC=", at).await;
    let at = supervisor.wait_for("EXTEND_TIMEOUT_USEC=", at + 1).await;
    assert_eq!(supervisor.count("READY=1"), 0, "/readyz says no");
    assert_eq!(node.get("/readyz").await.status, 503);
    cluster.restart().await;
    let at = supervisor.wait_for("READY=1", at).await;
    assert_eq!(supervisor.heard()[at], format!("STATUS=Ready on {}", node.http("")));
    node.assert_well().await;
    kill_process(node.pid(), Signal::HUP).unwrap();
    let at = supervisor.wait_for("RELOADING=1", at).await;
    supervisor.wait_for("MONOTONIC_USEC=", at).await;
    let at = supervisor.wait_for("READY=1", at).await;
    assert!(node.log().contains("Channels and hooks read again."), "it was ready when it had read");
    assert!(node.end(Signal::TERM).await.success());
    supervisor.wait_for("STOPPING=1", at).await;
    assert_eq!(supervisor.count("READY=1"), 2);
    assert_eq!(supervisor.count("WATCHDOG=1"), 0, "nobody asked for that");
}

/// A stop that takes far longer than a watchdog waits is not the end of a node that does its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_for_long_is_alive_meanwhile() {
    let supervisor = Supervisor::new();
    let config = "[server]\nshutdown_grace = \"10m\"\n[tasks.long]\ncommand = [\"sh\", \"-c\", \"echo here >began; \
                  until test -e goes; do sleep 0.05; done\"]\n";
    let options = Options {
        env: vec![supervisor.variable(), ("WATCHDOG_USEC", WATCHDOG.to_owned())],
        ..Options::memory().config(config)
    };
    let node = Node::start(options).await;
    let place = |name: &str| node.dir().join(name);
    node.enqueue(&serde_json::json!({ "task": "long" })).await;
    wait::until("the job to run", async || place("began").exists().then_some(())).await;
    let at = supervisor.wait_for("READY=1", 0).await;
    let watching = async {
        let at = supervisor.wait_for("STOPPING=1", at).await;
        let before = supervisor.count("WATCHDOG=1");
        // each is half of what the watchdog waits
        wait::until("twenty beats of a node that goes down", async || {
            (supervisor.count("WATCHDOG=1") >= before + 20).then_some(())
        })
        .await;
        supervisor.wait_for("EXTEND_TIMEOUT_USEC=", at).await;
        std::fs::write(place("goes"), "").unwrap();
    };
    let (ended, ()) = tokio::join!(node.end(Signal::TERM), watching);
    assert!(ended.success());
}

/// Stops one thread and no other, until it is dropped. A debugger can; ours is ten lines of Python, which is the parent of
/// the process for where only parents may.
const STOP_A_THREAD: &str = r#"
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
node = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
def call(what, thread):
    if libc.ptrace(what, thread, None, None) != 0:
        sys.exit("ptrace: " + os.strerror(ctypes.get_errno()))
for line in sys.stdin:
    if line.strip() == "stop":
        tasks = "/proc/%d/task" % node.pid
        thread = next(int(t) for t in os.listdir(tasks) if open(tasks + "/" + t + "/comm").read().startswith("minium-shard"))
        call(SEIZE, thread)
        call(INTERRUPT, thread)
        os.waitpid(thread, WALL)
        print("stopped", flush=True)
    else:
        call(DETACH, thread)
        print("goes on", flush=True)
node.terminate()
print("ended", node.wait(), flush=True)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_shard_hangs_is_not_alive_whatever_else_goes_on() {
    let (supervisor, other) = (Supervisor::new(), Supervisor::new());
    let watched =
        |supervisor: &Supervisor| vec![supervisor.variable(), ("WATCHDOG_USEC", WATCHDOG.to_owned())];
    // its beats are the clock
    let well = Node::start(Options { env: watched(&other), ..Options::memory() }).await;
    let port = crate::support::node::free_port().to_string();
    let python =
        std::env::var("MINIUM_TEST_PYTHON").expect("MINIUM_TEST_PYTHON is not set: run ./scripts/test");
    let mut command = Command::new(python);
    command.args(["-u", "-c", STOP_A_THREAD]).arg(well.command().get_program());
    command.args(["serve", "--database", "sqlite::memory:", "--listen", &format!("127.0.0.1:{port}")]);
    command.env_clear().envs(watched(&supervisor)).env("MINIUM_SERVER__SHARDS", "2").current_dir(well.dir());
    let mut debugger = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(well.log_file())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = debugger.stdin.take().unwrap();
    let mut said = BufReader::new(debugger.stdout.take().unwrap()).lines();
    let mut order = async |word: &str, answer: &str| {
        use tokio::io::AsyncWriteExt;
        stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let line = wait::within(word, said.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(answer));
    };
    let at = supervisor.wait_for("READY=1", 0).await;
    supervisor.wait_for("WATCHDOG=1", at).await;

    order("stop", "stopped").await;
    let before = supervisor.count("WATCHDOG=1");
    let others = other.count("WATCHDOG=1");
    wait::until("twenty beats of a node that is well", async || {
        (other.count("WATCHDOG=1") >= others + 20).then_some(())
    })
    .await;
    let url = format!("http://127.0.0.1:{port}/healthz");
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200, "its other threads go on");
    let after = supervisor.count("WATCHDOG=1");
    assert!(after <= before + 2, "one turn was through, one word under way: {before}, {after}");

    order("go on", "goes on").await;
    wait::until("it to be alive again", async || (supervisor.count("WATCHDOG=1") > after).then_some(()))
        .await;
    drop(stdin);
    assert_eq!(wait::within("the end", said.next_line()).await.unwrap().as_deref(), Some("ended 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_when_it_works_and_goes_down() {
    let node = Node::start(Options::file()).await;
    let supervisor = Supervisor::new();
    let mut command = node.tokio_command();
    command.args(["worker", "--task", "env=env", "--database", &node.database()]);
    command.envs([supervisor.variable(), ("WATCHDOG_USEC", WATCHDOG.to_owned())]);
    let mut worker = command.stderr(node.log_file()).spawn().unwrap();
    let at = supervisor.wait_for("READY=1", 0).await;
    assert!(supervisor.heard()[at].starts_with("STATUS=Works on sqlite:"), "{:?}", supervisor.heard());
    supervisor.wait_for("WATCHDOG=1", at).await;
    // a command that heeded these would speak in the worker's name
    let id = node.enqueue(&serde_json::json!({ "task": "env" })).await;
    let result = node.ended(id).await["result"].as_str().unwrap().to_owned();
    assert!(result.contains("MINIUM_JOB_ID="), "{result}");
    assert!(!result.contains("NOTIFY_SOCKET") && !result.contains("WATCHDOG_USEC"), "{result}");
    kill_process(Pid::from_raw(worker.id().unwrap().cast_signed()).unwrap(), Signal::TERM).unwrap();
    supervisor.wait_for("STOPPING=1", at).await;
    assert!(wait::within("the worker's end", worker.wait()).await.unwrap().success());
}
