//! The spool against a plain model, with cuts at every byte.

use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

const SERVER: &str = "ws://rack3:3000";

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

#[test]
fn it_is_full_by_count_or_by_bytes_and_keeps_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let options = SpoolOptions { count_max: 2, bytes_max: 100 };
    let mut spool = Spool::open(dir.path(), SERVER, options).unwrap();
    let small = [outcome(1, "1"), outcome(2, "2"), outcome(3, "3")];
    spool.append(&small[..1]).unwrap();
    assert!(!spool.is_full());
    spool.append(&small[1..]).unwrap();
    assert!(spool.is_full() && spool.len() == 3);
    spool.settle(&[small[0].lease, small[1].lease]);
    assert!(!spool.is_full());
    spool.append(&[outcome(4, &format!("\"{}\"", "x".repeat(100)))]).unwrap();
    assert!(spool.is_full());
}

#[test]
fn each_worker_has_its_own_and_each_server_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open_in(dir.path());
    first.append(&[outcome(1, "1")]).unwrap();
    let second = open_in(dir.path());
    assert!(second.is_empty() && second.path() != first.path());
    let elsewhere = Spool::open(dir.path(), "ws://rack4:3000", SpoolOptions::default()).unwrap();
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
