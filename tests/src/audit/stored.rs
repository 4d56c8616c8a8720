//! Archives in an object store that speaks S3: uploaded, gone on with, fought over, and read from there.

use super::{enqueue_idle, journal};
use crate::support::node::{Node, Options};
use crate::support::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A store that no one here wrote, with a bucket.
struct Store {
    url: String,
    _process: Child,
}

const PLACE: &str = "s3://archives/plant/one";

impl Store {
    async fn start() -> Store {
        let python = std::env::var("MINIUM_TEST_PYTHON").expect("scripts/test-features sets it");
        let mut process = Command::new(python)
            .args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let said = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the store ended");
                if let Some((_, url)) = line.split_once("Running on ") {
                    return url.trim().to_owned();
                }
            }
        };
        let url = wait::within("the store to begin", said).await;
        // whatever it says later is taken from it
        tokio::task::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let store = Store { url, _process: process };
        assert!(store.put("", Vec::new()).await, "the bucket is made");
        store
    }

    fn at(&self, name: &str) -> String {
        match name {
            "" => format!("{}/archives", self.url),
            _ => format!("{}/archives/plant/one/{name}", self.url),
        }
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> bool {
        reqwest::Client::new().put(self.at(name)).body(bytes).send().await.unwrap().status().is_success()
    }

    async fn get(&self, name: &str) -> Option<Vec<u8>> {
        let response = reqwest::Client::new().get(self.at(name)).send().await.unwrap();
        match response.status().is_success() {
            true => Some(response.bytes().await.unwrap().to_vec()),
            false => None,
        }
    }

    async fn remove(&self, name: &str) {
        reqwest::Client::new().delete(self.at(name)).send().await.unwrap();
    }

    /// The lines of the manifest that stands there.
    async fn manifest(&self) -> Vec<String> {
        let text = String::from_utf8(self.get("manifest.ndjson").await.unwrap_or_default()).unwrap();
        text.split_inclusive('\n').map(str::to_owned).collect()
    }

    /// A command that knows where the store is.
    fn command(&self, node: &Node, args: &[&str]) -> Command {
        let mut command = node.tokio_command();
        command.arg("audit").args(args).envs([
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ]);
        command
    }

    async fn audit(&self, node: &Node, args: &[&str]) -> Output {
        wait::within(&format!("minium audit {args:?}"), self.command(node, args).output()).await.unwrap()
    }

    async fn audit_ok(&self, node: &Node, args: &[&str]) -> String {
        let output = self.audit(node, args).await;
        assert!(output.status.success(), "minium audit {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Records what is there now, in segments that are small.
    async fn record_once(&self, node: &Node, spool: &str) -> Output {
        let args = ["record", "--once", "--to", PLACE, "--spool", spool, "--segment", "2KiB"];
        self.audit(node, &args).await
    }

    /// The archive is whole and is the journal.
    async fn assert_is_journal(&self, node: &Node) {
        let verified = self.audit_ok(node, &["verify", PLACE]).await;
        assert!(verified.contains("as it was written"), "{verified}");
        let shown = self.audit_ok(node, &["show", PLACE]).await;
        let (shown, journal) = (shown.lines().collect::<Vec<_>>(), journal(node, "task").await);
        let differs = shown.iter().zip(&journal).position(|(ours, theirs)| ours != theirs);
        assert_eq!((differs, shown.len()), (None, journal.len()));
    }
}

fn spool_of(node: &Node, name: &str) -> (PathBuf, String) {
    let dir = node.dir().join(name);
    let text = dir.to_str().unwrap().to_owned();
    (dir, text)
}

/// What is closed is in the bucket and leaves the spool; every reader reads from there.
#[tokio::test]
async fn an_archive_in_a_bucket_is_the_journal() {
    let (store, node) = (Store::start().await, Node::start(Options::file()).await);
    let (dir, spool) = spool_of(&node, "spool");
    for count in [0, 30, 1, 40] {
        enqueue_idle(&node, count).await;
        let output = store.record_once(&node, &spool).await;
        assert!(output.status.success(), "{output:?}");
    }
    store.assert_is_journal(&node).await;
    let segments = store.manifest().await.len();
    assert!(segments >= 3, "{segments}");
    let kept = std::fs::read_dir(&dir).unwrap();
    let kept = kept.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "zst")).count();
    assert_eq!(kept, 1, "the next start begins with the last one");
    let csv = store.audit_ok(&node, &["export", PLACE, "--format", "csv"]).await;
    assert_eq!(csv.lines().count(), 72);
    // a byte that is changed there is found there
    let mut bytes = store.get("000002.ndjson.zst").await.unwrap();
    bytes[20] ^= 1;
    assert!(store.put("000002.ndjson.zst", bytes).await);
    let verified = store.audit(&node, &["verify", PLACE]).await;
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains("000002.ndjson.zst"), "{verified:?}");
    assert_eq!(store.audit(&node, &["verify", "s3://archives/nothing"]).await.status.code(), Some(3));
    assert_eq!(store.audit(&node, &["record", "--once", "--to", PLACE]).await.status.code(), Some(2));
}

/// Whatever step of an upload a crash came behind, the next start does the following one.
#[tokio::test]
async fn an_upload_goes_on_behind_any_step() {
    let (store, node) = (Store::start().await, Node::start(Options::file()).await);
    let (dir, spool) = spool_of(&node, "spool");
    for _ in 0..3 {
        enqueue_idle(&node, 20).await;
        assert!(store.record_once(&node, &spool).await.status.success());
    }
    let lines = store.manifest().await;
    let last = format!("{:06}.ndjson.zst", lines.len());
    // the segment is there, and the manifest does not know of it: by this recorder, and by one whose spool is lost
    for lost in [false, true] {
        assert!(store.put("manifest.ndjson", lines[..lines.len() - 1].concat().into_bytes()).await);
        if lost {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        let output = store.record_once(&node, &spool).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(store.manifest().await, lines);
        store.assert_is_journal(&node).await;
    }
    // neither is there
    assert!(store.put("manifest.ndjson", lines[..lines.len() - 1].concat().into_bytes()).await);
    store.remove(&last).await;
    assert!(store.record_once(&node, &spool).await.status.success());
    assert_eq!(store.manifest().await, lines);
    store.assert_is_journal(&node).await;
}

/// A machine that was lost with its spool is replaced by another one.
#[tokio::test]
async fn a_lost_spool_is_made_anew_from_the_bucket() {
    let (store, node) = (Store::start().await, Node::start(Options::file()).await);
    for round in 0..3 {
        let (_, spool) = spool_of(&node, &format!("spool{round}"));
        enqueue_idle(&node, 25).await;
        let output = store.record_once(&node, &spool).await;
        assert!(output.status.success(), "{output:?}");
        store.assert_is_journal(&node).await;
    }
}

/// Of two recorders with the same archive one goes on; the other one says so and ends.
#[tokio::test]
async fn of_two_recorders_one_goes_on() {
    let (store, node) = (Store::start().await, Node::start(Options::file()).await);
    let ((_, ours), (_, theirs)) = (spool_of(&node, "ours"), spool_of(&node, "theirs"));
    enqueue_idle(&node, 10).await;
    assert!(store.record_once(&node, &ours).await.status.success());
    enqueue_idle(&node, 10).await;
    assert!(store.record_once(&node, &theirs).await.status.success());
    // one that had begun before, whose next segment now stands there already
    enqueue_idle(&node, 10).await;
    let output = store.record_once(&node, &ours).await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another recorder has gone on"), "{output:?}");
    assert!(store.record_once(&node, &theirs).await.status.success());
    store.assert_is_journal(&node).await;
    // an object that somebody else put where the next segment belongs is not overwritten
    let next = format!("{:06}.ndjson.zst", store.manifest().await.len() + 1);
    assert!(store.put(&next, b"no segment".to_vec()).await);
    enqueue_idle(&node, 10).await;
    assert_eq!(store.record_once(&node, &theirs).await.status.code(), Some(7));
    assert_eq!(store.get(&next).await.unwrap(), b"no segment");
}

/// Recorders that are killed at any moment of their uploads: nothing is lost, nothing comes twice.
#[tokio::test]
async fn recorders_that_are_killed_while_they_upload_cost_nothing() {
    const KILLS: usize = 8;
    let (store, node) = (Store::start().await, Node::start(Options::file()).await);
    let (_, spool) = spool_of(&node, "spool");
    let args = [
        "record",
        "--to",
        PLACE,
        "--spool",
        &spool,
        "--segment",
        "1KiB",
        "--flush",
        "10ms",
        "--confirm",
        "uploaded",
    ];
    for kill in 0..KILLS {
        let before = store.manifest().await.len();
        let mut recorder =
            store.command(&node, &args).stderr(node.log_file()).kill_on_drop(true).spawn().unwrap();
        // ever more segments, so that it is killed in the middle of them
        wait::until("segments in the bucket", async || {
            enqueue_idle(&node, 3).await;
            (store.manifest().await.len() > before + kill % 3).then_some(())
        })
        .await;
        assert_eq!(recorder.try_wait().unwrap(), None, "it works on");
        kill_process(Pid::from_raw(recorder.id().unwrap().cast_signed()).unwrap(), Signal::KILL).unwrap();
        recorder.wait().await.unwrap();
    }
    let output = store.record_once(&node, &spool).await;
    assert!(output.status.success(), "{output:?}");
    store.assert_is_journal(&node).await;
}
