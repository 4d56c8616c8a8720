//! A task that knows where its job comes from: notes, parents and what they brought, and jobs of its own.

use crate::harness::{Queue, Wire, options, request, start, until, with};
use minium_protocol::{State, TraceContext};
use minium_queue::Store;
use minium_worker::{CommandTask, Failure, JobContext, Worker};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Notify;

#[tokio::test]
async fn a_task_reads_its_notes_parents_and_priority() {
    let queue = Queue::new().await;
    let tell = |job: JobContext, _: Value| async move {
        job.note("later", 1);
        Ok::<_, Failure>(json!([job.notes(), job.parents(), job.priority()]))
    };
    let id = queue
        .enqueue(with(request("tell", &json!([])), |o| {
            (o.parents, o.priority) = (vec![77, 78], 3);
            o.notes.insert("who".into(), "me".into());
        }))
        .await;
    let worker = start(Worker::new(queue.source(), options()).task("tell", tell));
    assert_eq!(queue.finished(id).await, json!([{ "who": "me" }, [77, 78], 3]));
    worker.stop().await;
    assert_eq!(queue.job(id).await.notes["later"], 1);
}

/// What each parent brought, as JSON.
async fn gather(job: JobContext, _: Value) -> Result<Value, Failure> {
    let results = job.parent_results().await?;
    Ok(serde_json::to_value(results)?)
}

#[tokio::test]
async fn a_task_gathers_what_its_parents_brought() {
    let queue = Queue::new().await;
    let part = |_: JobContext, (n,): (i64,)| async move {
        if n < 0 { Err(Failure::permanent("no such part")) } else { Ok(n * n) }
    };
    let mut parents = vec![999_999];
    for n in [3, -1, 2] {
        parents.push(queue.enqueue(request("part", &json!([n]))).await);
    }
    let child = with(request("gather", &json!([])), |o| (o.parents, o.lax) = (parents.clone(), true));
    let child = queue.enqueue(child).await;
    let worker = start(Worker::new(queue.source(), options()).task("part", part).task("gather", gather));
    let expected = json!([
        { "id": parents[0], "state": null, "result": null, "error": null },
        { "id": parents[1], "state": "finished", "result": 9, "error": null },
        { "id": parents[2], "state": "failed", "result": null, "error": "no such part" },
        { "id": parents[3], "state": "finished", "result": 4, "error": null },
    ]);
    assert_eq!(queue.finished(child).await, expected);
    worker.stop().await;
}

#[tokio::test]
async fn more_parents_than_one_look_takes_are_all_told() {
    let queue = Queue::new().await;
    let parents: Vec<i64> = (0..2_100).map(|n| 1_000_000 + n).collect();
    let count = |job: JobContext, _: Value| async move {
        let results = job.parent_results().await?;
        Ok::<_, Failure>(results.iter().map(|result| result.id).collect::<Vec<_>>())
    };
    let id = queue.enqueue(with(request("count", &json!([])), |o| o.parents = parents.clone())).await;
    let worker = start(Worker::new(queue.source(), options()).task("count", count));
    assert_eq!(queue.finished(id).await, json!(parents));
    worker.stop().await;
}

#[tokio::test]
async fn a_source_that_is_away_is_waited_for() {
    let queue = Queue::new().await;
    let wire = Wire::new(&queue);
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, may) = (begun.clone(), go_on.clone());
    let task = move |job: JobContext, args: Value| {
        let (told, may) = (told.clone(), may.clone());
        async move {
            told.notify_one();
            may.notified().await;
            gather(job, args).await
        }
    };
    let id = queue.enqueue(with(request("gather", &json!([])), |o| o.parents = vec![999])).await;
    let worker = start(Worker::new(wire.clone(), options()).task("gather", task));
    begun.notified().await;
    wire.state.cut.store(true, Ordering::SeqCst);
    let before = wire.state.questions.load(Ordering::SeqCst);
    go_on.notify_one();
    until("it asks in vain", || wire.state.questions.load(Ordering::SeqCst) > before).await;
    wire.state.cut.store(false, Ordering::SeqCst);
    assert_eq!(queue.finished(id).await[0]["id"], 999);
    assert!(wire.state.questions.load(Ordering::SeqCst) > before + 1);
    worker.stop().await;
}

#[tokio::test]
async fn what_a_task_enqueues_has_it_as_its_origin() {
    let queue = Queue::new().await;
    let parent = |job: JobContext, _: Value| async move {
        let mut one = request("leaf", &json!(["one"]));
        one.options.origin = Some(5);
        let first = job.enqueue(one).await?;
        let rest = job
            .enqueue_all(vec![request("leaf", &json!(["two"])), request("leaf", &json!(["three"]))])
            .await?;
        Ok::<_, Failure>(json!([first, rest]))
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let id = queue
        .enqueue(with(request("parent", &json!([])), |o| o.trace = TraceContext::new(trace, None)))
        .await;
    let worker = start(Worker::new(queue.source(), options()).task("parent", parent));
    let made = queue.finished(id).await;
    let ids: Vec<i64> = [&made[0], &made[1][0], &made[1][1]].iter().map(|n| n.as_i64().unwrap()).collect();
    worker.stop().await;
    for (leaf, args) in ids.iter().zip(["one", "two", "three"]) {
        let job = queue.job(*leaf).await;
        assert_eq!((job.origin, job.args.get()), (Some(id), &*json!([args]).to_string()));
    }
    assert_eq!(queue.store.cancel_cascade(id).await.unwrap(), 3);
    assert_eq!(queue.job(ids[2]).await.state, State::Cancelled);
}

#[tokio::test]
async fn a_command_knows_its_parents() {
    let queue = Queue::new().await;
    let task = CommandTask {
        name: "x".into(),
        command: vec![r#"echo "[${MINIUM_PARENTS-null}]""#.into()],
        timeout: None,
        shell: true,
        lasting: None,
        sandbox: None,
    };
    let worker = start(Worker::new(queue.source(), options()).command(task));
    let orphan = queue.enqueue(request("x", &json!([]))).await;
    assert_eq!(queue.finished(orphan).await, json!([null]));
    let child = queue.enqueue(with(request("x", &json!([])), |o| o.parents = vec![71, 72])).await;
    assert_eq!(queue.finished(child).await, json!([71, 72]));
    let many = queue
        .enqueue(with(request("x", &json!([])), |o| o.parents = (0..1_001).map(|n| n + 900_000).collect()))
        .await;
    assert_eq!(queue.finished(many).await, json!([null]), "an environment is too small for them");
    worker.stop().await;
}
