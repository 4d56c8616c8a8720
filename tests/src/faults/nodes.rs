//! Several nodes on one database: one numbers the journal, all relay it, and another takes over when it is killed.

use super::{Enqueuer, is_last};
use crate::support::events::{assert_dense, follow};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::postgres::Database;
use crate::support::wait;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KILLS: usize = 4;

/// P-3, E-4, Q-7: whichever node dies, and in whichever order, the others go on numbering and relaying, and all tell
/// the same.
#[tokio::test]
async fn another_node_takes_over_when_one_is_killed() {
    let database = Database::create().await;
    // one name for all of them: it stands in each event, which must be the same everywhere
    let options = Options::on(database.url()).config("[server]\npublic_url = \"http://minium.test\"\n");
    let nodes =
        [Node::start(options.clone()).await, Node::start(options.clone()).await, Node::start(options).await];
    let (python, perl) = (Foreign::python(), Foreign::perl());
    let (seen, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let stopped = || stop.load(Ordering::Relaxed);
    let enqueuers = [Enqueuer::default(), Enqueuer::default(), Enqueuer::default()];

    let killing = async {
        for kill in 0..KILLS {
            let goal = seen.load(Ordering::Relaxed) + 150;
            let what = format!("events before kill {kill}");
            wait::until(&what, async || (seen.load(Ordering::Relaxed) >= goal).then_some(())).await;
            let node = &nodes[kill % nodes.len()];
            node.kill().await;
            // the others go on without it: the first subscriber is at the last of them
            let goal = seen.load(Ordering::Relaxed) + 150;
            let what = format!("events while node {} is down", kill % nodes.len());
            if kill % nodes.len() != 2 {
                wait::until(&what, async || (seen.load(Ordering::Relaxed) >= goal).then_some(())).await;
            }
            node.restart().await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let enqueuing = async {
        let [a, b, c] = &enqueuers;
        tokio::join!(
            a.run(&nodes[0], "a", stopped),
            b.run(&nodes[1], "b", stopped),
            c.run(&nodes[2], "c", stopped)
        );
        a.end(&nodes[0]).await;
    };
    let all = async {
        tokio::join!(
            killing,
            enqueuing,
            follow(&python, &nodes[2], "task", is_last, |_| {
                seen.fetch_add(1, Ordering::Relaxed);
            }),
            follow(&perl, &nodes[0], "task", is_last, |_| ()),
        )
    };
    let ((), (), by_python, by_perl) = all.await;
    for (who, events) in [("python", &by_python), ("perl", &by_perl)] {
        assert_dense(events, who);
        for enqueuer in &enqueuers {
            enqueuer.assert_all_announced(events, who);
        }
    }
    assert!(by_python == by_perl, "all nodes tell the same");
}
