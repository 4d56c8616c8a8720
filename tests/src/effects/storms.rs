//! Troubles by seed, one after the other, while jobs run.

use super::audit::audit;
use super::stage::{CONFIG, Stage, Way};
use crate::ledger::{Seed, seeds};
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions};
use crate::support::wait;

/// Seeds of each kind, unless the environment says otherwise.
const SEEDS: u64 = 2;
/// Jobs that are enqueued before each trouble.
const JOBS: usize = 8;

/// What is done to those who run jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KillWorker,
    StopWorker,
    KillNode,
    StopDatabase,
}

/// kill -9 of workers and of the node, a worker that stands still, a stop of the database. Workers over PostgreSQL.
#[tokio::test]
async fn every_run_has_one_outcome_over_postgres() {
    on_postgres(Way::Database).await;
}

/// The same over WebSocket.
#[tokio::test]
async fn every_run_has_one_outcome_over_websocket() {
    on_postgres(Way::Socket).await;
}

/// The same over a SQLite file.
#[tokio::test]
async fn every_run_has_one_outcome_over_a_file() {
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let node = Node::start(Options::file().config(CONFIG)).await;
        weather(Stage::new(node, Way::Database, 3), None, seed).await;
    }
}

async fn on_postgres(way: Way) {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let url = cluster.create_database(&format!("seed_{seed}")).await;
        let node = Node::start(Options::on(&url).config(CONFIG)).await;
        weather(Stage::new(node, way, 3), Some(&mut cluster), seed).await;
    }
}

/// Each trouble once, in an order of the seed's.
async fn weather(mut stage: Stage, mut cluster: Option<&mut Cluster>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..stage.workers()).for_each(|worker| stage.start(worker));
    let mut troubles = vec![Trouble::KillWorker, Trouble::StopWorker, Trouble::KillWorker, Trouble::KillNode];
    troubles.extend(cluster.as_ref().map(|_| Trouble::StopDatabase));
    random.shuffle(&mut troubles);
    for trouble in troubles {
        let before = stage.events().await.map_or(0, |events| Stage::over(&events).len());
        for _ in 0..JOBS {
            let what = *random.choice(&["well", "well", "fail", "long"]).expect("there are some");
            let attempts = *random.choice(&[1, 2, 30, 30]).expect("there are some");
            stage.enqueue(what, attempts).await;
        }
        let goal = before + random.usize(1..6);
        stage.until("some runs to end", |events| (Stage::over(events).len() >= goal).then_some(())).await;
        let worker = random.usize(..stage.workers());
        match trouble {
            Trouble::KillWorker => {
                stage.kill(worker).await;
                stage.start(worker);
            }
            Trouble::StopWorker => stop_worker(&mut stage, worker).await,
            Trouble::KillNode => {
                stage.node.kill().await;
                stage.node.restart().await;
            }
            Trouble::StopDatabase => {
                let cluster = cluster.as_mut().expect("it is stopped where it can be");
                if random.bool() {
                    cluster.stop_immediately()
                } else {
                    cluster.stop()
                };
                // what ends now waits on the workers' disks; one of them dies meanwhile
                stage.kill(worker).await;
                cluster.restart().await;
                stage.start(worker);
            }
        }
    }
    let books = stage.close().await;
    let count = |kind: &str| books.events.iter().filter(|e| e.kind == kind).count();
    eprintln!(
        "seed {seed}: {} jobs, {} runs, {} lost, {} late, {} outcomes seen on disks",
        books.enqueued.len(),
        books.effects.len(),
        count("task.lost"),
        count("task.late_result"),
        books.brought.len()
    );
    assert!(count("task.lost") > 0, "somebody was killed while it ran something");
    assert_eq!(audit(&books), []);
}

/// For longer than a lease, while it runs something.
async fn stop_worker(stage: &mut Stage, worker: usize) {
    let pid = stage.pid(worker).as_raw_nonzero().get();
    for _ in 0..2 * stage.workers() {
        stage.enqueue("long", 30).await;
    }
    let run = loop {
        let run = wait::until("it to run something", async || {
            let over = Stage::over(&stage.events().await?);
            stage
                .effects()
                .iter()
                .rev()
                .find(|(run, by)| *by == pid && !over.contains(run))
                .map(|(run, _)| *run)
        })
        .await;
        stage.stop(worker);
        if stage.can_write() {
            break run;
        }
        // stopped in the middle of a write to the file, it stops all others too: that is not asked here
        stage.go_on(worker);
    };
    stage.until("the run to be over for it", |events| Stage::over(events).contains(&run).then_some(())).await;
    stage.go_on(worker);
}
