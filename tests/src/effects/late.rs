//! A worker that is stopped for longer than its lease, and then reports.

use super::audit::{Event, audit};
use super::stage::{CONFIG, Stage, Way};
use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use serde_json::json;

on_both! {
    /// who was stopped past its lease and brings a result finds it on record as a late one, and has changed nothing.
    what_a_worker_over_the_database_brings_too_late_is_on_record;
    /// J-5, Q-9: the same over WebSocket.
    what_a_worker_over_websocket_brings_too_late_is_on_record;
}

async fn what_a_worker_over_the_database_brings_too_late_is_on_record(options: Options) {
    brings_too_late(options, Way::Database).await;
}

async fn what_a_worker_over_websocket_brings_too_late_is_on_record(options: Options) {
    brings_too_late(options, Way::Socket).await;
}

async fn brings_too_late(options: Options, way: Way) {
    let node = Node::start(options.config(CONFIG)).await;
    let mut stage = Stage::new(node, way, 2);
    stage.start(0);
    let job = stage.enqueue("hold", 5).await;
    wait::until("the first run", async || (stage.effects().len() == 1).then_some(())).await;
    stage.stop(0);
    stage
        .until("its lease to be taken away", |events| Stage::over(events).contains(&(job, 1)).then_some(()))
        .await;
    stage.start(1);
    // it may have been given to the one that stands still once more
    let ended = stage
        .until("another run to end", |events| {
            events.iter().find(|e| e.kind == "task.finished").map(|e| e.data.clone())
        })
        .await;
    // the first command ends while nobody listens to it
    std::fs::write(stage.node.dir().join("go"), "").unwrap();
    stage.go_on(0);
    let own = json!(format!("run:{job}:1;"));
    let late = stage
        .until("the late result", |events| {
            let late = |e: &&Event| e.late.as_ref().is_some_and(|late| late["result"] == own);
            events.iter().find(late).cloned()
        })
        .await;
    assert_eq!(late.kind, "task.late_result");
    assert_eq!(late.late.as_ref().unwrap()["state"], "finished");
    assert_eq!(late.data, ended, "the job is as it was");
    let mut books = stage.close().await;
    let last = (job, i32::try_from(ended["attempt"].as_i64().unwrap()).unwrap());
    assert!(last.1 > 1 && books.effects.contains(&last), "{:?}", books.effects);
    books.brought.extend([(job, 1), last]);
    assert_eq!(audit(&books), []);
}
