//! Results of an outage that was longer than leases.

use crate::support::events::{follow, kinds};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use tokio::process::Child;

const JOBS: usize = 5;

/// Leaves a line in `runs`, then waits until the file `go` is there.
const PROGRAM: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\necho run >> runs\n\
                       while [ ! -e go ]; do sleep 0.05; done\necho '{\"done\":true}'\n";

fn start(node: &Node, url: &str, spool: &str) -> Child {
    let log = node.log_file();
    let task = format!("hold={}", node.dir().join("hold.sh").display());
    let spool = node.dir().join(spool);
    let mut worker = node.tokio_command();
    worker.args(["worker", "--database", url, "--lease", "2s", "-j", "8", "--task", &task]);
    worker.arg("--spool").arg(spool).stderr(log).spawn().unwrap()
}

fn runs(node: &Node) -> usize {
    std::fs::read_to_string(node.dir().join("runs")).unwrap_or_default().lines().count()
}

/// what was done while the database was away is handed in before any lease is given away, though all have ended, others would take
/// the jobs, and who did them was killed meanwhile: each ran once, and each result counts.
#[tokio::test]
async fn results_of_an_outage_come_before_leases_are_given_away() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("minium").await;
    let node = Node::start(Options::on(&url)).await;
    let program = node.dir().join("hold.sh");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut first = start(&node, &url, "first");
    for _ in 0..JOBS {
        node.enqueue(&json!({ "task": "hold", "attempts": 3 })).await;
    }
    wait::until("every run to begin", async || (runs(&node) == JOBS).then_some(())).await;
    cluster.stop_immediately();
    std::fs::write(node.dir().join("go"), "").unwrap();
    let spooled = || -> usize {
        let files = std::fs::read_dir(node.dir().join("first")).unwrap().map(|e| e.unwrap().path());
        let spools = files.filter(|path| path.extension().is_some_and(|e| e == "spool"));
        spools
            .map(|p| String::from_utf8_lossy(&std::fs::read(p).unwrap()).matches("{\"done\":true}").count())
            .sum()
    };
    wait::until("every result on the disk", async || (spooled() == JOBS).then_some(())).await;
    first.kill().await.unwrap();
    // longer than the leases, by a clock of the system's own
    wait::within("the leases to end", tokio::process::Command::new("sleep").arg("3").status()).await.unwrap();
    cluster.restart().await;
    let _other = start(&node, &url, "other");
    node.whole().await;
    // upkeep has been there, and has given nothing away
    let gone = node.enqueue(&json!({ "task": "nobody", "expire": "1ms" })).await;
    wait::until("a round of upkeep", async || {
        (node.get(&format!("/api/v1/jobs/{gone}")).await.status == 404).then_some(())
    })
    .await;
    let _again = start(&node, &url, "first");
    wait::until("every job to finish", async || {
        let jobs = node.get("/api/v1/jobs?task=hold&state=finished").await.expect(200);
        (jobs["jobs"].as_array().unwrap().len() == JOBS).then_some(())
    })
    .await;
    let last = node.enqueue(&json!({ "task": "nobody" })).await;
    let events = follow(&Foreign::perl(), &node, "task", |e| e.job() == last, |_| ()).await;
    let kinds = kinds(&events);
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(
        (count("task.dequeue"), count("task.lost"), count("task.finished")),
        (JOBS, 0, JOBS),
        "{kinds:?}"
    );
    assert_eq!(runs(&node), JOBS);
}
