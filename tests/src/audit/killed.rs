//! Recorders and nodes that are killed at random moments: nothing is lost, nothing comes twice.

use super::{Recorder, archive_of, archived, archived_count, assert_as_written, journal, record_once};
use crate::faults::Enqueuer;
use crate::support::node::{Node, Options};
use crate::support::{on_both, wait};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the kills fall comes from here; a failing run prints it.
const SEED: u64 = 0x_6175_6469;

const KILLS: usize = 12;

on_both! {
    /// Over twelve kills of the recorder and four of the node in full stream.
    nothing_is_lost_or_doubled_when_recorders_and_nodes_are_killed;
}

async fn nothing_is_lost_or_doubled_when_recorders_and_nodes_are_killed(options: Options) {
    let node = Node::start(options).await;
    let dir = archive_of(&node);
    let enqueuer = Enqueuer::default();
    let done = AtomicBool::new(false);
    let mut random = fastrand::Rng::with_seed(SEED);
    let killing = async {
        for kill in 0..KILLS {
            let (before, acknowledged) =
                (archived_count(&dir), || enqueuer.acknowledged.lock().unwrap().len());
            // small segments, so that kills fall on their ends, too
            let mut recorder = Recorder::start(&node, &["--segment", "20KiB"]);
            if kill % 2 == 0 {
                wait::until("more in the archive", async || (archived_count(&dir) > before).then_some(()))
                    .await;
            }
            let moment = acknowledged() + random.usize(0..200);
            wait::until("the moment", async || (acknowledged() >= moment).then_some(())).await;
            if kill % 3 == 2 {
                node.kill().await;
                node.restart().await;
            }
            recorder.assert_works_on();
            assert_eq!(
                recorder.end(Signal::KILL).await,
                None,
                "seed {SEED:#x}: it was gone before kill {kill}"
            );
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(killing, enqueuer.run(&node, "idle", || done.load(Ordering::Relaxed)));
    record_once(&node, &["--segment", "20KiB"]).await;
    let (archive, journal) = (archived(&dir), journal(&node, "task").await);
    assert!(journal.len() >= enqueuer.acknowledged.lock().unwrap().len() && archive.len() > 100);
    let differs = archive.iter().zip(&journal).position(|(ours, theirs)| ours != theirs);
    assert_eq!((differs, archive.len()), (None, journal.len()), "seed {SEED:#x}");
    assert_as_written(&dir);
    let segments = std::fs::read_dir(&dir)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".zst"));
    assert!(segments.count() > 2, "kills fell on several segments");
}
