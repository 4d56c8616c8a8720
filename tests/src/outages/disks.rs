//! Full disks: of PostgreSQL, of a SQLite file, and of a worker's spool.

use super::{assert_works_on, said, worker};
use crate::support::disk::SmallDisk;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions, UNPRIVILEGED_ID, connect};
use crate::support::wait;
use rustix::process::getuid;
use serde_json::{Value, json};

const CONFIG: &str = "[channels.kept]\ndurable = true\n[queue]\nlease_grace = \"0s\"\n";

/// A result that finds no room between what is there.
const LARGE: &str = "head -c 200000 /dev/urandom | base64 -w 0";

fn large(kib: usize) -> String {
    // nothing that could be compressed
    std::iter::repeat_with(fastrand::alphanumeric).take(kib << 10).collect()
}

/// Enqueues until the disk is full, and answers what was acknowledged.
async fn until_full(node: &Node) -> Vec<i64> {
    let mut kept = Vec::new();
    wait::until("the disk to be full", async || {
        let answer = node.post_json("/api/v1/jobs", &json!({ "task": "large", "args": [large(64)] })).await;
        if answer.status == 201 {
            kept.push(answer.json()["id"].as_i64().unwrap());
            return None;
        }
        answer.problem(507, "storage_full");
        // a smaller one may still have found room
        let more = node.post_json("/api/v1/jobs", &json!({ "task": "large", "args": [large(4)] })).await;
        (more.status == 507).then_some(())
    })
    .await;
    kept
}

async fn assert_kept(node: &Node, kept: &[i64]) {
    assert!(!kept.is_empty());
    for id in kept {
        node.get(&format!("/api/v1/jobs/{id}")).await.expect(200);
    }
}

/// a full disk of PostgreSQL refuses what is to be kept, and nothing else; what was acknowledged is there, a run that ends meanwhile
/// counts later, and when there is room again all goes on.
#[tokio::test]
async fn a_full_disk_of_postgres_is_told_and_costs_nothing() {
    let disk = SmallDisk::mount(24 << 10);
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let place = disk.path("tables");
    std::fs::create_dir(&place).unwrap();
    if getuid().is_root() {
        std::os::unix::fs::chown(&place, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).unwrap();
    }
    let admin = connect(&cluster.url("postgres")).await.unwrap();
    admin.batch_execute(&format!("create tablespace small location '{}'", place.display())).await.unwrap();
    admin.batch_execute("create database minium tablespace small").await.unwrap();
    let url = cluster.url("minium");
    let node = Node::start(Options::on(&url).config(CONFIG)).await;
    let task = format!("hold={}", hold(&node, LARGE));
    let mut worker = worker(&node, &url, &["--task", &task]);
    let id = node.enqueue(&json!({ "task": "hold" })).await;
    wait::until("the run to begin", async || node.dir().join("begun").exists().then_some(())).await;
    let kept = until_full(&node).await;
    node.post("/pub/kept/a", json!(large(64)).to_string()).await.problem(507, "storage_full");
    // the database is there, and says so
    node.assert_well().await;
    assert_kept(&node, &kept).await;
    std::fs::write(node.dir().join("go"), "").unwrap();
    wait::until("the result to be offered in vain", async || {
        (said(&node, "nothing is claimed") > 0).then_some(())
    })
    .await;
    assert_works_on(&mut worker);

    disk.grow(200 << 10);
    finished_once(&node, id).await;
    node.enqueue(&json!({ "task": "large", "args": [large(64)] })).await;
    node.post("/pub/kept/a", json!(large(64)).to_string()).await.expect(200);
    assert_kept(&node, &kept).await;
    node.whole().await;
    assert_works_on(&mut worker);
}

/// the same of a SQLite file.
#[tokio::test]
async fn a_full_disk_of_sqlite_is_told_and_costs_nothing() {
    let disk = SmallDisk::mount(4 << 10);
    let url = format!("sqlite:{}", disk.path("minium.db").display());
    let node = Node::start(Options::on(&url).config(CONFIG)).await;
    let kept = until_full(&node).await;
    node.post("/pub/kept/a", json!(large(64)).to_string()).await.problem(507, "storage_full");
    assert_kept(&node, &kept).await;
    node.assert_alive();
    disk.grow(64 << 10);
    node.enqueue(&json!({ "task": "large", "args": [large(64)] })).await;
    node.post("/pub/kept/a", json!(large(64)).to_string()).await.expect(200);
    assert_kept(&node, &kept).await;
    node.whole().await;
}

/// a worker whose spool's disk is full hands in what it runs from memory and claims nothing more until there is room.
#[tokio::test]
async fn a_full_disk_of_the_spool_stops_claims_and_costs_no_result() {
    let disk = SmallDisk::mount(256);
    let node = Node::start(Options::file().config(CONFIG)).await;
    let spool = disk.path("spool");
    let task = format!("hold={}", hold(&node, "echo done"));
    let more = ["--task", &task, "--spool", spool.to_str().unwrap()];
    let mut worker = worker(&node, &node.database(), &more);
    let first = node.enqueue(&json!({ "task": "hold" })).await;
    wait::until("the run to begin", async || node.dir().join("begun").exists().then_some(())).await;
    disk.fill("filler");
    std::fs::write(node.dir().join("go"), "").unwrap();
    finished_once(&node, first).await;
    wait::until("the worker to tell", async || {
        (said(&node, "The spool cannot be written") == 1).then_some(())
    })
    .await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(node.enqueue(&json!({ "task": "quick" })).await);
    }
    // longer than the pause between two polls, by a clock of the system's own: who claims now would have claimed them
    wait::within("polls to pass", tokio::process::Command::new("sleep").arg("3").status()).await.unwrap();
    for id in &waiting {
        assert_eq!(node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"], "inactive");
    }
    std::fs::remove_file(disk.path("filler")).unwrap();
    for id in waiting {
        finished_once(&node, id).await;
    }
    assert_works_on(&mut worker);
}

/// A program that says that it has begun, and ends with some words when it is told to.
fn hold(node: &Node, says: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = node.dir().join("hold.sh");
    let text = format!(
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\n: > begun\nwhile [ ! -e go ]; do sleep 0.05; done\n{says}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

async fn finished_once(node: &Node, id: i64) {
    let job: Value = wait::until("the job to finish", async || {
        let answer = node.get(&format!("/api/v1/jobs/{id}")).await;
        (answer.status == 200 && answer.json()["state"] == "finished").then(|| answer.json())
    })
    .await;
    assert_eq!(job["attempt"], 1, "it ran once: {job}");
}
