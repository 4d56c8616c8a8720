//! The whole life of Minion's jobs, one step at a time: after each the journal has exactly its events, each with the row
//! as it is.

use super::mapping::{assert_says, row, snapshot};
use super::minion::Minion;
use serde_json::json;

impl Minion {
    /// Asserts what has come, of which the last is what the row of its job is now.
    async fn expect_row(&mut self, expected: &[(&str, i64)]) {
        let entries = self.expect(expected).await;
        let last = entries.last().unwrap();
        assert_says(last, &row(self, last.job()).await);
    }
}

/// M-1, M-2: enqueue, dequeue, note, finish.
#[tokio::test]
async fn a_job_from_enqueue_to_finish() {
    let mut minion = Minion::attached().await;
    minion.order(json!({ "do": "register" })).await;
    let parent = minion.enqueue("steered", json!({})).await;
    minion.expect_row(&[("task.enqueue", parent)]).await;
    let options = json!({ "attempts": 3, "priority": 7, "queue": "default", "notes": {"a": {"b": [1]}}, "expire": 3600,
                          "parents": [parent], "lax": 1 });
    let id = minion.enqueue("steered", options).await;
    minion.expect_row(&[("task.enqueue", id)]).await;
    minion.dequeue(parent).await;
    minion.expect_row(&[("task.dequeue", parent)]).await;
    // nothing is ready: the poll touches no row, and says nothing
    minion.order(json!({ "do": "dequeue" })).await;
    minion.expect(&[]).await;
    minion.order(json!({ "do": "finish", "id": parent, "result": {"sum": [1, 2.5, "☃"]} })).await;
    minion.expect_row(&[("task.finished", parent)]).await;

    minion.dequeue(id).await;
    minion.expect_row(&[("task.dequeue", id)]).await;
    minion.order(json!({ "do": "note", "id": id, "notes": {"a": null, "step": "half"} })).await;
    minion.expect_row(&[("task.progress", id)]).await;
    minion.order(json!({ "do": "note", "id": id, "notes": {"step": "half"} })).await;
    minion.expect(&[]).await;
    // a task that returns nothing: null is what it brought
    minion.order(json!({ "do": "finish", "id": id, "result": null })).await;
    minion.expect_row(&[("task.finished", id)]).await;
    minion.order(json!({ "do": "finish", "id": id, "result": "late" })).await;
    minion.expect(&[]).await;
}

/// M-1, M-2: a failure with a retry that follows, one without, retries by hand, and the end.
#[tokio::test]
async fn a_job_that_fails_and_is_retried() {
    let mut minion = Minion::attached().await;
    minion.order(json!({ "do": "register" })).await;
    let id = minion.enqueue("steered", json!({ "attempts": 2 })).await;
    minion.dequeue(id).await;
    minion.expect_row(&[("task.enqueue", id), ("task.dequeue", id)]).await;
    minion.order(json!({ "do": "fail", "id": id, "result": "boom" })).await;
    let entries = minion.expect(&[("task.failed", id), ("task.retry", id)]).await;
    assert_eq!((&entries[0].data["error"], &entries[0].data["attempt"]), (&json!("boom"), &json!(1)));
    assert_says(&entries[1], &row(&minion, id).await);
    minion.dequeue(id).await;
    let dequeued = minion.expect(&[("task.dequeue", id)]).await;
    assert_eq!((&dequeued[0].data["attempt"], &dequeued[0].data["attempts"]), (&json!(2), &json!(2)));
    minion.order(json!({ "do": "fail", "id": id, "result": {"code": 7} })).await;
    minion.expect_row(&[("task.failed", id)]).await;

    let options = json!({ "priority": -3, "queue": "later", "delay": 60 });
    minion.order(json!({ "do": "retry", "id": id, "options": options })).await;
    minion.expect_row(&[("task.retry", id)]).await;
    // one that waits is retried too, to give it other options; that was no run
    minion.order(json!({ "do": "retry", "id": id, "options": {"queue": "default"} })).await;
    minion.expect_row(&[("task.retry", id)]).await;
    minion.dequeue(id).await;
    minion.expect_row(&[("task.dequeue", id)]).await;
    // and one that runs: it is free for others, while the first still runs
    minion.order(json!({ "do": "retry", "id": id })).await;
    minion.expect_row(&[("task.retry", id)]).await;
    let last = row(&minion, id).await;
    assert_eq!(minion.order(json!({ "do": "remove", "id": id })).await, 1);
    let removed = minion.expect(&[("task.removed", id)]).await;
    assert_says(&removed[0], &last);
}

/// M-1, M-3: what Minion's repair does: workers that went away, jobs that are stuck, expired, or kept for long enough.
#[tokio::test]
async fn what_repair_does() {
    let mut minion = Minion::attached().await;
    let worker = minion.order(json!({ "do": "register" })).await;
    let (lost, again) = (minion.enqueue("steered", json!({})).await, 2);
    assert_eq!(minion.enqueue("steered", json!({ "attempts": 2 })).await, again);
    minion.dequeue(lost).await;
    minion.dequeue(again).await;
    minion.order(json!({ "do": "unregister" })).await;
    minion.entries().await;
    minion.order(json!({ "do": "repair" })).await;
    let found = minion.expect(&[("task.lost", lost), ("task.lost", again), ("task.retry", again)]).await;
    assert_eq!(found[0].data["worker"], json!({ "id": worker, "host": null, "pid": null }));
    assert_eq!(found[0].data["error"], "Worker went away");
    assert_says(&found[0], &row(&minion, lost).await);
    assert_says(&found[2], &row(&minion, again).await);

    // of a worker that is there the same words are a failure like any other
    minion.order(json!({ "do": "register" })).await;
    minion.dequeue(again).await;
    minion.order(json!({ "do": "fail", "id": again, "result": "Worker went away" })).await;
    minion.expect_row(&[("task.dequeue", again), ("task.failed", again)]).await;

    let (stuck, expired) = (minion.enqueue("steered", json!({})).await, 4);
    assert_eq!(minion.enqueue("steered", json!({ "expire": 3600 })).await, expired);
    minion.entries().await;
    minion.sql("update minion_jobs set delayed = now() - interval '3 days' where id = 3").await;
    minion.sql("update minion_jobs set expires = now() - interval '1 second' where id = 4").await;
    minion.expect_row(&[("task.changed", stuck), ("task.changed", expired)]).await;
    let last = row(&minion, expired).await;
    minion.order(json!({ "do": "repair" })).await;
    let found = minion.expect(&[("task.expired", expired), ("task.failed", stuck)]).await;
    assert_says(&found[0], &last);
    assert_eq!(found[1].data["error"], "Job appears stuck in queue");
    assert_eq!(found[1].data["attempt"], 0, "it has never run");
    assert_says(&found[1], &row(&minion, stuck).await);
}

/// M-1: many at once, by one statement, in the order of their ids.
#[tokio::test]
async fn statements_that_change_many_jobs() {
    let mut minion = Minion::attached().await;
    minion.order(json!({ "do": "register" })).await;
    let mut rows = Vec::new();
    for id in 1..=20 {
        minion.enqueue("steered", json!({ "priority": id % 3 })).await;
    }
    for _ in 1..=10 {
        let id = minion.order(json!({ "do": "dequeue" })).await;
        minion.order(json!({ "do": "finish", "id": id, "result": id })).await;
    }
    minion.entries().await;
    let finished = "select id from minion_jobs where state = 'finished' order by id";
    let finished: Vec<i64> =
        minion.admin.query(finished, &[]).await.unwrap().iter().map(|r| r.get(0)).collect();
    for id in &finished {
        rows.push(row(&minion, *id).await);
    }
    minion
        .sql("update minion_jobs set finished = finished - interval '3 days' where state = 'finished'")
        .await;
    minion.entries().await;
    minion.order(json!({ "do": "repair", "remove_after": 3600 })).await;
    let expected: Vec<_> = finished.iter().map(|id| ("task.removed", *id)).collect();
    let found = minion.expect(&expected).await;
    for (entry, row) in found.iter().zip(&rows) {
        assert_eq!(entry.data["result"], snapshot(row)["result"]);
    }
    // a reset empties the table without touching a row
    let left: Vec<_> = (1..=20).filter(|id| !finished.contains(id)).map(|id| ("task.removed", id)).collect();
    minion.order(json!({ "do": "reset" })).await;
    minion.expect(&left).await;
    // its numbers begin anew
    assert_eq!(minion.enqueue("steered", json!({})).await, 1);
    minion.expect_row(&[("task.enqueue", 1)]).await;
    // as no transition, so no event
    minion.sql("begin; update minion_jobs set state = 'active'; rollback").await;
    minion.sql("update minion_jobs set state = state").await;
    minion.expect(&[]).await;
}
