//! The spool against a plain model, with cuts at every byte.

use super::*;
use minium_queue::Ending;
use proptest::prelude::*;
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const SERVER: &[&str] = &["ws://rack3:3000"];

fn outcome(job: i64, result: &str) -> Outcome {
    let result = RawValue::from_string(result.into()).unwrap();
    Outcome { job, lease: LeaseToken::fresh(), ending: Ending::Finished(result) }
}

fn open_in(dir: &Path) -> Spool {
    Spool::open(dir, SERVER, SpoolOptions::default()).unwrap()
}

fn jobs(spool: &Spool) -> Vec<i64> {
    spool.outcomes().map(|o| o.job).collect()
}

#[test]
fn what_is_not_reported_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes: Vec<Outcome> = (1..=4).map(|job| outcome(job, "[1]")).collect();
    let mut spool = open_in(dir.path());
    spool.append(&outcomes).unwrap();
    spool.append(&outcomes[..2]).unwrap(); // offered again
    spool.settle(&[outcomes[1].lease, LeaseToken::fresh()]);
    assert_eq!(jobs(&spool), [1, 3, 4]);
    drop(spool);
    let mut spool = open_in(dir.path());
    assert_eq!(jobs(&spool), [1, 3, 4]);
    assert_eq!(format!("{:?}", spool.outcomes().nth(1).unwrap()), format!("{:?}", outcomes[2]));
    spool.settle(&outcomes.iter().map(|o| o.lease).collect::<Vec<_>>());
    assert!(spool.is_empty());
    drop(spool);
    let spool = open_in(dir.path());
    assert!(spool.is_empty());
    assert_eq!(fs::metadata(spool.path()).unwrap().len(), 0, "and takes no room");
}

/// The spool's file, which tells what is done to it, and whose disk may refuse.
#[derive(Debug, Clone)]
struct Told {
    file: Arc<File>,
    steps: Arc<Mutex<Vec<&'static str>>>,
    refuses: Arc<AtomicBool>,
}

impl Told {
    fn of(spool: &mut Spool) -> Told {
        let file = OpenOptions::new().append(true).open(&spool.path).unwrap();
        let told = Told { file: Arc::new(file), steps: Arc::default(), refuses: Arc::default() };
        spool.file = Box::new(told.clone());
        told
    }

    fn step(&self, step: &'static str) {
        self.steps.lock().unwrap().push(step);
    }

    fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.steps.lock().unwrap())
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step("write");
        (&*self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Told {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self.file).seek(to)
    }
}

impl Medium for Told {
    fn sync_data(&self) -> io::Result<()> {
        self.step("sync");
        match self.refuses.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the disk is gone")),
            false => Medium::sync_data(&*self.file),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.step("cut");
        Medium::set_len(&*self.file, length)
    }
}

/// Whoever is told that an outcome is kept may report it, and forget it: it is not in some cache alone.
#[test]
fn what_is_kept_is_on_the_disk_before_anybody_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open_in(dir.path());
    let told = Told::of(&mut spool);
    let outcomes = [outcome(1, "1"), outcome(2, "2")];
    spool.append(&outcomes[..1]).unwrap();
    assert_eq!(told.taken(), ["write", "sync"]);
    spool.append(&outcomes).unwrap();
    assert_eq!(told.taken(), ["write", "sync"]);
    spool.probe().unwrap();
    assert_eq!(told.taken(), ["write", "sync"], "or it would not know the disk");
    // that it was reported may be forgotten
    spool.settle(&[outcomes[0].lease]);
    assert_eq!(told.taken(), ["write"]);
    // what did not reach the disk is not kept
    told.refuses.store(true, Ordering::Relaxed);
    assert!(spool.append(&[outcome(3, "3")]).is_err());
    assert_eq!((told.taken(), jobs(&spool)), (vec!["write", "sync", "cut"], vec![2]));
    drop(spool);
    assert_eq!(jobs(&open_in(dir.path())), [2]);
}

#[test]
fn it_is_full_by_count_or_by_bytes_and_keeps_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let options = SpoolOptions { count_max: 2, bytes_max: 1_000 };
    let mut spool = Spool::open(dir.path(), SERVER, options).unwrap();
    let small = [outcome(1, "1"), outcome(2, "2"), outcome(3, "3")];
    spool.append(&small[..1]).unwrap();
    assert!(!spool.is_full());
    spool.append(&small[1..]).unwrap();
    assert!(spool.is_full() && spool.len() == 3);
    spool.settle(&[small[0].lease, small[1].lease]);
    assert!(!spool.is_full());
    spool.append(&[outcome(4, &format!("\"{}\"", "x".repeat(1_000)))]).unwrap();
    assert!(spool.is_full());
}

#[test]
fn each_worker_has_its_own_and_each_server_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open_in(dir.path());
    first.append(&[outcome(1, "1")]).unwrap();
    let second = open_in(dir.path());
    assert!(second.is_empty() && second.path() != first.path());
    let elsewhere = Spool::open(dir.path(), &["ws://rack4:3000"], SpoolOptions::default()).unwrap();
    assert!(elsewhere.is_empty());
    drop((first, second));
    assert_eq!(jobs(&open_in(dir.path())), [1], "the first that nobody has");
}

#[test]
fn a_long_life_does_not_grow_the_file_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open_in(dir.path());
    let lasting = outcome(0, "0");
    spool.append(std::slice::from_ref(&lasting)).unwrap();
    let large = format!("\"{}\"", "x".repeat(50_000));
    for job in 1..100 {
        let one = outcome(job, &large);
        spool.append(std::slice::from_ref(&one)).unwrap();
        spool.settle(&[one.lease]);
        assert!(fs::metadata(spool.path()).unwrap().len() < COMPACT_BYTES_MIN + 200_000);
    }
    drop(spool);
    assert_eq!(jobs(&open_in(dir.path())), [0]);
}

/// With thousands of small outcomes waiting, noting that one was reported must not write all of them anew each time.
#[test]
fn small_outcomes_that_wait_do_not_make_each_word_a_rewrite() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open_in(dir.path());
    let waiting: Vec<Outcome> = (0..9_000).map(|job| outcome(job, "1")).collect();
    spool.append(&waiting).unwrap();
    assert!(spool.length > COMPACT_BYTES_MIN / 2 && spool.bytes as u64 == spool.length);
    let more: Vec<Outcome> = (0..9_000).map(|job| outcome(job, "1")).collect();
    spool.append(&more).unwrap();
    assert!(spool.length > COMPACT_BYTES_MIN);
    let file = || fs::metadata(dir.path().join(spool_name(dir.path()))).unwrap().ino();
    let mut rewrites = 0;
    let mut last = file();
    for one in &more[..4_000] {
        spool.settle(&[one.lease]);
        let before = last;
        last = file();
        rewrites += usize::from(before != last);
        assert!(rewrites < 3, "each word is a rewrite");
    }
    assert_eq!(spool.len(), 14_000);
}

fn spool_name(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.find(|p| p.extension().is_some_and(|e| e == "spool")).unwrap()
}

/// A disk that fails in the middle of a record and does not even let it be cut off: what comes later is whole all the
/// same.
#[test]
fn half_a_record_that_cannot_be_cut_off_spoils_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open_in(dir.path());
    spool.append(&[outcome(1, "1")]).unwrap();
    let path = spool.path().to_owned();
    let broken = |spool: &mut Spool| {
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"mnR1 half a record").unwrap();
        spool.file = Box::new(File::open(&path).unwrap()); // neither written nor cut
    };
    broken(&mut spool);
    spool.append(&[outcome(2, "2")]).unwrap_err();
    assert_eq!(jobs(&spool), [1], "it was refused");
    spool.append(&[outcome(3, "3")]).unwrap();
    broken(&mut spool);
    let lease = spool.outcomes().next().unwrap().lease;
    spool.settle(&[lease]);
    spool.append(&[outcome(4, "4")]).unwrap();
    spool.probe().unwrap();
    let length = fs::metadata(&path).unwrap().len();
    assert_eq!(spool.length, length);
    drop(spool);
    assert_eq!(jobs(&open_in(dir.path())), [3, 4]);
    let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.contains("damaged")), "nothing was in the way of anything");
}

/// Whoever has an address in common with a file that nobody uses reports what it holds; nobody else does.
#[test]
fn what_was_left_is_found_whatever_became_of_the_addresses() {
    let open = |dir: &Path, addresses: &[&str]| Spool::open(dir, addresses, SpoolOptions::default()).unwrap();
    for (later, found) in [
        (&["http://a", "http://b"][..], true),
        (&["http://b/", "http://a"], true),
        (&["http://new", "http://a", "http://b"], true),
        (&["http://b"], true),
        (&["http://c"], false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, mut second) =
            (open(dir.path(), &["http://a", "http://b"]), open(dir.path(), &["http://a", "http://b"]));
        first.append(&[outcome(1, "1")]).unwrap();
        second.append(&[outcome(2, "2")]).unwrap();
        let others = open(dir.path(), later);
        assert_eq!(jobs(&others), [] as [i64; 0], "{later:?}: somebody uses them");
        drop(others);
        let path = second.path().to_owned();
        drop((first, second));
        let spool = open(dir.path(), later);
        let mut jobs = jobs(&spool);
        jobs.sort_unstable();
        assert_eq!(jobs, if found { vec![1, 2] } else { vec![] }, "{later:?}");
        assert_eq!(Spool::peek(&path).unwrap() == 0, found, "{later:?}: and nobody reports it twice");
    }
}

/// Files of earlier versions have an empty lock and the name of the first address.
#[test]
fn what_an_earlier_version_left_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = Spool::open(dir.path(), &["http://a"], SpoolOptions::default()).unwrap();
    old.append(&[outcome(1, "1")]).unwrap();
    fs::write(old.path().with_extension("lock"), "").unwrap();
    drop(old);
    let spool = Spool::open(dir.path(), &["http://b", "http://a"], SpoolOptions::default()).unwrap();
    assert_eq!(jobs(&spool), [1]);
}

#[test]
fn no_more_is_taken_over_than_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let options = SpoolOptions { count_max: 2, ..SpoolOptions::default() };
    let mut spools: Vec<Spool> =
        (0..4).map(|_| Spool::open(dir.path(), SERVER, options.clone()).unwrap()).collect();
    for (job, spool) in spools.iter_mut().enumerate() {
        spool.append(&[outcome(job as i64, "1")]).unwrap();
    }
    drop(spools);
    let first = Spool::open(dir.path(), SERVER, options.clone()).unwrap();
    assert!(first.is_full() && first.len() == 2);
    let next = Spool::open(dir.path(), SERVER, options).unwrap();
    assert_eq!(next.len(), 2, "another worker takes the rest");
}

#[test]
fn a_damaged_file_is_kept_and_what_is_whole_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open_in(dir.path());
    spool.append(&(1..=3).map(|job| outcome(job, "1")).collect::<Vec<_>>()).unwrap();
    let path = spool.path().to_owned();
    drop(spool);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(jobs(&open_in(dir.path())), [1, 3]);
    let kept = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let kept: Vec<_> = kept.filter(|p| p.to_string_lossy().contains("damaged")).collect();
    assert_eq!(fs::read(&kept[0]).unwrap(), bytes);
}

#[test]
fn a_place_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Spool::open(&file, SERVER, SpoolOptions::default()).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("cannot create"), "{error}");
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<String>),
    Settle(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec("[a-z\"\\\\mnR1\u{0}\u{1F600}]{0,40}", 0..4).prop_map(Step::Append),
        3 => (0..10usize).prop_map(Step::Settle),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, it holds what was appended and not settled; and a crash, which may cut the file behind what was
    /// synced, takes nothing of that.
    #[test]
    fn it_holds_what_was_kept_and_not_reported(steps in prop::collection::vec(step(), 1..30), torn in 0..60usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open_in(dir.path());
        let mut model: Vec<(i64, LeaseToken, String)> = Vec::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Append(texts) => {
                    let kept: Vec<Outcome> = texts.iter().map(|text| {
                        number += 1;
                        outcome(number, &serde_json::Value::from(text.as_str()).to_string())
                    }).collect();
                    spool.append(&kept).unwrap();
                    model.extend(kept.iter().zip(texts).map(|(o, text)| (o.job, o.lease, text)));
                }
                Step::Settle(i) if i < model.len() => {
                    let (_, lease, _) = model.remove(i);
                    spool.settle(&[lease]);
                }
                Step::Settle(_) => {}
                Step::Reopen => {
                    drop(spool);
                    spool = open_in(dir.path());
                }
            }
        }
        // a crash in the middle of the next record
        let path = spool.path().to_owned();
        drop(spool);
        let mut half = Vec::new();
        record::write_outcome(&mut half, &outcome(1_000_000, "\"never promised\""));
        half.truncate(torn.min(half.len() - 1));
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&half);
        fs::write(&path, bytes).unwrap();
        let spool = open_in(dir.path());
        let held: Vec<(i64, LeaseToken, String)> = spool.outcomes().map(|o| match &o.ending {
            Ending::Finished(r) => (o.job, o.lease, serde_json::from_str(r.get()).unwrap()),
            other @ Ending::Failed { .. } => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(held, model);
    }
}
