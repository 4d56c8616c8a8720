//! kill -9 of the node in mid-stream.

use super::{Enqueuer, is_last};
use crate::support::curl::Stream;
use crate::support::events::{TaskEvent, assert_dense, follow};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where the kills fall comes from here; a failing run prints it.
const SEED: u64 = 0x_4d69_6e69_756d;

const KILLS: usize = 5;

on_both! {
    /// P-3, E-2, E-4, Q-7: subscribers that resume have every event once and in order, over five kills.
    subscribers_that_resume_have_every_event_once_and_in_order_over_five_kills;
}

/// Jobs that run and end beside those that only wait: events of every transition are in the stream when it breaks.
const CONFIG: &str = r#"
[tasks.quick]
command = ["true"]
[worker]
lease = "2s"
[queue]
lease_grace = "0s"
"#;

/// As `follow`, by curl and `Last-Event-ID`.
async fn follow_by_curl(node: &Node) -> Vec<TaskEvent> {
    let mut events: Vec<TaskEvent> = Vec::new();
    loop {
        let last = events.last().map(TaskEvent::position);
        let mut stream = wait::until("an event stream", async || {
            // refused while the node is down: then there is no head, and curl ends
            let headers: Vec<(&str, &str)> = last.iter().map(|id| ("Last-Event-ID", id.as_str())).collect();
            let stream = Stream::try_open(&node.http("/sub/task?after=earliest"), &headers).await?;
            match stream.status {
                200 => Some(stream),
                503 => None,
                other => panic!("curl was refused: {other}"),
            }
        })
        .await;
        while let Some(event) = stream.next().await {
            let parsed = TaskEvent::parse(&event.data);
            assert_eq!(event.id, Some(parsed.position()));
            let ended = is_last(&parsed);
            events.push(parsed);
            if ended {
                return events;
            }
        }
    }
}

async fn subscribers_that_resume_have_every_event_once_and_in_order_over_five_kills(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    let mut random = fastrand::Rng::with_seed(SEED);
    let (python, perl) = (Foreign::python(), Foreign::perl());
    let (seen, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (idle, quick) = (Enqueuer::default(), Enqueuer::default());
    let stopped = || stop.load(Ordering::Relaxed);

    let killing = async {
        for kill in 1..=KILLS {
            // in mid-stream: when so many more events have reached a subscriber
            let goal = seen.load(Ordering::Relaxed) + random.u64(30..300);
            let what = format!("{goal} events before kill {kill}, seed {SEED:#x}");
            wait::until(&what, async || (seen.load(Ordering::Relaxed) >= goal).then_some(())).await;
            node.kill().await;
            node.restart().await;
        }
        let goal = seen.load(Ordering::Relaxed) + 100;
        wait::until("events after the last kill", async || {
            (seen.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
    };
    let enqueuing = async {
        tokio::join!(idle.run(&node, "idle", stopped), quick.run(&node, "quick", stopped));
        idle.end(&node).await;
    };
    let counting = |_: &TaskEvent| {
        seen.fetch_add(1, Ordering::Relaxed);
    };
    let all = async {
        tokio::join!(
            killing,
            enqueuing,
            follow(&python, &node, "task", is_last, counting),
            follow(&perl, &node, "task", is_last, |_| ()),
            follow_by_curl(&node),
        )
    };
    let ((), (), by_python, by_perl, by_curl) = all.await;

    for (who, events) in [("python", &by_python), ("perl", &by_perl), ("curl", &by_curl)] {
        assert_dense(events, &format!("{who}, seed {SEED:#x}"));
        idle.assert_all_announced(events, who);
        quick.assert_all_announced(events, who);
    }
    assert!(by_python == by_perl && by_python == by_curl, "all have the same bytes, seed {SEED:#x}");
    assert!(by_python.iter().any(|e| e.kind() == "task.finished"), "jobs ran, too");
}
