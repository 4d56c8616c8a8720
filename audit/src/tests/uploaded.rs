//! Archives in a bucket of a store that no one here wrote.

use super::*;
use crate::bucket::{Bucket, Put};
use crate::upload::{Confirm, Upload};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

struct Store {
    bucket: Bucket,
    process: Child,
    /// A line for each request.
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Store {
    /// With an empty bucket.
    fn start() -> Store {
        let python = std::env::var("MINIUM_TEST_PYTHON").expect("scripts/test-features sets it");
        let mut process = Command::new(python)
            .args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
        let begun = said.by_ref().map_while(Result::ok).find(|line| line.contains("Running on http"));
        let url = begun.unwrap().split_once("Running on ").unwrap().1.trim().to_owned();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        std::thread::spawn(move || {
            said.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line))
        });
        let mut socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        let request =
            b"PUT /archives HTTP/1.1\r\nHost: store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        socket.write_all(request).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.into(), "test".into()));
        let bucket = Bucket::open("s3://archives/plant/one", Some(&url), keys).unwrap();
        Store { bucket, process, log }
    }

    /// Opens a spool, records these events if there are any, closes the segment, and uploads.
    async fn record(&self, spool: &Path, offsets: std::ops::RangeInclusive<u64>) -> Result<(), AuditError> {
        let (bucket, dir) = (self.bucket.clone(), spool.to_owned());
        let (upload, sealed) = spawn_blocking(move || {
            let upload = Upload::new(bucket, &dir, Confirm::Spooled);
            let mut writer = upload.writer(&topics(), None, SegmentLimits::default())?;
            if !offsets.is_empty() {
                writer.append(&batch(1, offsets))?;
                writer.seal()?;
            }
            let sealed = writer.sealed();
            Ok::<_, AuditError>((upload, sealed))
        })
        .await
        .unwrap()?;
        upload.run(sealed, watch::Sender::new(Uploaded::new())).await
    }

    async fn assert_has(&self, last: u64) {
        let bucket = self.bucket.clone();
        spawn_blocking(move || {
            let place = Place::Bucket(bucket);
            let verdict = verify(place.clone(), &VerifyOptions::default(), &mut |_| ()).unwrap();
            assert_eq!((verdict.findings.as_slice(), verdict.events), (&[][..], last), "{verdict:?}");
            let mut lines = Vec::new();
            read(place, &Selection::default(), &mut |_, _| (), &mut |entry| {
                lines.push(entry.text.to_owned());
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
            assert_eq!(lines, (1..=last).map(|offset| event(1, offset)).collect::<Vec<_>>());
        })
        .await
        .unwrap();
    }

    /// As if the last line of the manifest had never been put.
    async fn forget_line(&self) -> Vec<u8> {
        let (whole, e_tag) = self.bucket.get("manifest.ndjson").await.unwrap().unwrap();
        let before = whole.iter().rposition(|byte| *byte == b'{').unwrap();
        let put = self.bucket.put("manifest.ndjson", whole[..before].to_vec(), e_tag).await.unwrap();
        assert!(matches!(put, Put::Done(_)));
        whole
    }
}

impl Store {
    /// How many objects' lengths were asked for.
    fn heads(&self) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains("\"HEAD ")).count()
    }
}

fn segments_in(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".zst")).count()
}

const NOTHING: std::ops::RangeInclusive<u64> = 1..=0;

/// Whatever step a crash came behind, the next start does the following one; a spool that is lost is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_behind_any_step() {
    let (store, spool) = (Store::start(), tempfile::tempdir().unwrap());
    for first in [1, 11, 21] {
        store.record(spool.path(), first..=first + 9).await.unwrap();
        store.assert_has(first + 9).await;
        assert_eq!(segments_in(spool.path()), 1, "what is uploaded leaves the spool");
    }
    let whole = store.forget_line().await;
    store.record(spool.path(), NOTHING).await.unwrap();
    assert_eq!(store.bucket.get("manifest.ndjson").await.unwrap().unwrap().0, whole);
    // the same for one who has nothing but the bucket
    store.forget_line().await;
    let other = tempfile::tempdir().unwrap();
    store.record(other.path(), NOTHING).await.unwrap();
    assert_eq!(store.bucket.get("manifest.ndjson").await.unwrap().unwrap().0, whole);
    store.record(other.path(), 31..=35).await.unwrap();
    store.assert_has(35).await;
}

/// Of two recorders one goes on, and nothing that stands in the bucket is overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_recorders_one_goes_on() {
    let (store, ours, theirs) = (Store::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    store.record(ours.path(), 1..=5).await.unwrap();
    store.record(theirs.path(), 6..=9).await.unwrap();
    for _ in 0..2 {
        let error = store.record(ours.path(), NOTHING).await.unwrap_err();
        assert!(matches!(error, AuditError::Taken { .. }), "{error}");
    }
    store.assert_has(9).await;
    let foreign = store.bucket.put("000003.ndjson.zst", b"no segment".to_vec(), None).await.unwrap();
    assert!(matches!(foreign, Put::Done(_)));
    let error = store.record(theirs.path(), 10..=12).await.unwrap_err();
    assert!(matches!(error, AuditError::Taken { .. }), "{error}");
    assert_eq!(store.bucket.get("000003.ndjson.zst").await.unwrap().unwrap().0, b"no segment");
}

/// Whoever records goes on while a segment is read, whatever the disk takes for it. The segment is a pipe here, which gives
/// nothing before somebody has seen the runtime turn.
#[tokio::test]
async fn a_disk_that_is_slow_keeps_nobody_else() {
    let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
    let (bucket, spool) = (store.bucket.clone(), dir.path().to_owned());
    let (upload, sealed) = spawn_blocking(move || {
        let upload = Upload::new(bucket, &spool, Confirm::Spooled);
        let mut writer = upload.writer(&topics(), None, SegmentLimits::default()).unwrap();
        writer.append(&batch(1, 1..=10)).unwrap();
        writer.seal().unwrap();
        (upload, writer.sealed())
    })
    .await
    .unwrap();
    let pipe = dir.path().join("000001.ndjson.zst");
    let bytes = fs::read(&pipe).unwrap();
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (turns, went_on) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, told) = (turns.clone(), went_on.clone());
    let disk = std::thread::spawn(move || {
        // opened when somebody reads
        let mut file = fs::File::options().write(true).open(&pipe).unwrap();
        let (before, begun) = (seen.load(Ordering::SeqCst), Instant::now());
        while seen.load(Ordering::SeqCst) < before + 5 && begun.elapsed() < Duration::from_secs(30) {
            std::thread::yield_now();
        }
        told.store(seen.load(Ordering::SeqCst) >= before + 5, Ordering::SeqCst);
        file.write_all(&bytes).unwrap();
    });
    let turning = async {
        loop {
            turns.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        done = upload.run(sealed, watch::Sender::new(Uploaded::new())) => done.unwrap(),
        () = turning => {}
    }
    disk.join().unwrap();
    assert!(went_on.load(Ordering::SeqCst), "the runtime stood still while a segment was read");
    store.assert_has(10).await;
}

/// A reader asks once what there is, and not for each segment.
#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_known_by_one_question() {
    let (store, spool) = (Store::start(), tempfile::tempdir().unwrap());
    for first in [1, 11, 21] {
        store.record(spool.path(), first..=first + 9).await.unwrap();
    }
    let before = store.heads();
    store.assert_has(30).await;
    assert!(store.heads() <= before + 1, "{:?}", store.log.lock().unwrap());
}
