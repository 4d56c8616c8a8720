//! Archives cut at every byte and changed at every byte, and what they hold.

mod disk;
mod ends;
mod live;
mod told;
#[cfg(feature = "s3")]
mod uploaded;

use super::*;
use minium_protocol::Position;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

fn topics() -> Vec<String> {
    vec!["task".into()]
}

fn event(epoch: u64, offset: u64) -> String {
    let second = offset % 60;
    format!(
        r#"{{"specversion":"1.0","id":"i{offset}","source":"/m","type":"task.enqueue","subject":"{offset}","time":"2026-11-22T02:00:{second:02}.000000Z","datacontenttype":"application/json","epoch":"{epoch}","sequence":"{offset:020}","data":{{"id":{offset},"task":"t{}"}}}}"#,
        offset % 3
    )
}

fn batch(epoch: u64, offsets: std::ops::RangeInclusive<u64>) -> Batch {
    let mut batch = Batch::new("task");
    offsets.for_each(|offset| assert_eq!(batch.push(&event(epoch, offset)).unwrap(), at(epoch, offset)));
    batch
}

fn open(dir: &Path) -> Writer {
    Writer::open(dir, &topics(), None, SegmentLimits::default()).unwrap()
}

/// Each block a segment of its own.
fn open_small(dir: &Path) -> Writer {
    let limits = SegmentLimits { bytes_max: 1, ..SegmentLimits::default() };
    Writer::open(dir, &topics(), None, limits).unwrap()
}

fn check(dir: &Path) -> Verdict {
    verify(dir, &VerifyOptions::default(), &mut |_| ()).unwrap()
}

fn assert_whole(dir: &Path) -> Verdict {
    let verdict = check(dir);
    assert_eq!(verdict.findings, [], "{verdict:?}");
    verdict
}

fn lines(dir: &Path, selection: &Selection) -> Vec<String> {
    let mut lines = Vec::new();
    read(dir, selection, &mut |_, _| (), &mut |entry| {
        lines.push(entry.text.to_owned());
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    lines
}

fn all(dir: &Path) -> Vec<String> {
    lines(dir, &Selection::default())
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.ndjson.zst"))
}

/// Where each block of a segment begins, and where the last one ends.
fn bounds(path: &Path) -> Vec<usize> {
    let bytes = fs::read(path).unwrap();
    let mut blocks = blocks::Blocks::new(&bytes[..]).unwrap();
    let mut bounds = Vec::new();
    while let Some(Ok(block)) = blocks.next().unwrap() {
        bounds.push(block.offset as usize);
    }
    bounds.push(bytes.len());
    bounds
}

#[test]
fn what_was_written_is_read_and_plain_zstd_reads_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.append(&batch(1, 1..=3)).unwrap();
    let mut odd = Batch::new("task");
    odd.push(&event(1, 4).replace("\"data\":{", "\"data\":\n{\r\n")).unwrap();
    writer.append(&odd).unwrap();
    let head = writer.head();
    drop(writer);
    let verdict = assert_whole(dir.path());
    assert_eq!((verdict.events, verdict.blocks, verdict.head), (4, 2, Some(head)));
    assert_eq!(verdict.positions["task"], "1:4");
    let mut expected: Vec<String> = (1..=3).map(|offset| event(1, offset)).collect();
    expected.push(event(1, 4).replace("\"data\":{", "\"data\": {  "));
    assert_eq!(all(dir.path()), expected);
    let plain = std::process::Command::new("zstdcat").arg(segment(dir.path(), 1)).output().unwrap();
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), expected.join("\n") + "\n", "{:?}", plain.stderr);
}

#[test]
fn events_are_selected_by_job_task_topic_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    for offset in (1..=20).step_by(5) {
        writer.append(&batch(1, offset..=offset + 4)).unwrap();
    }
    let selected = |selection: Selection| -> Vec<u64> {
        let lines = lines(dir.path(), &selection);
        lines.iter().map(|line| (1..=20).find(|n| event(1, *n) == *line).unwrap()).collect()
    };
    let second = |n: i64| Some(jiff::Timestamp::from_second(1_795_312_800 + n).unwrap());
    assert_eq!(selected(Selection { job: Some(7), ..Selection::default() }), [7]);
    let task = Some("t2".into());
    assert_eq!(selected(Selection { task, until: second(9), ..Selection::default() }), [2, 5, 8]);
    let topic = Some("task/t0".parse().unwrap());
    assert_eq!(selected(Selection { topic, since: second(13), ..Selection::default() }), [15, 18]);
    assert_eq!(selected(Selection { since: second(19), until: second(20), ..Selection::default() }), [19]);
}

/// Whatever of an archive a crash leaves, nothing is lost that was confirmed before, and nothing comes twice.
#[test]
fn a_tail_that_is_torn_at_any_byte_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    for offset in [1, 3] {
        writer.append(&batch(1, offset..=offset + 1)).unwrap();
    }
    drop(writer);
    let path = segment(dir.path(), 1);
    let (bytes, bounds) = (fs::read(&path).unwrap(), bounds(&path));
    let expected: Vec<String> = (1..=4).map(|offset| event(1, offset)).collect();
    for cut in 0..=bytes.len() {
        let torn = copy(dir.path());
        fs::write(segment(torn.path(), 1), &bytes[..cut]).unwrap();
        let whole = bounds.iter().filter(|end| **end > 0 && **end <= cut).count() as u64;
        let torn_at = !bounds.contains(&cut);
        assert_eq!(check(torn.path()).findings.is_empty(), !torn_at, "cut at {cut}");
        assert_eq!(all(torn.path()), expected[..2 * whole as usize], "cut at {cut}");
        let mut writer = open(torn.path());
        let position = writer.position("task");
        assert_eq!(position, (whole > 0).then_some(at(1, 2 * whole)), "cut at {cut}");
        if whole < 2 {
            writer.append(&batch(1, 2 * whole + 1..=4)).unwrap();
        }
        drop(writer);
        assert_eq!(
            (all(torn.path()), assert_whole(torn.path()).events),
            (expected.clone(), 4),
            "cut at {cut}"
        );
    }
}

/// A block whose pages came to the disk in another order, or not all of them.
#[test]
fn a_last_block_with_holes_is_a_torn_one_and_an_earlier_one_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    for offset in 1..=3 {
        writer.append(&batch(1, offset..=offset)).unwrap();
    }
    drop(writer);
    let path = segment(dir.path(), 1);
    let (bytes, bounds) = (fs::read(&path).unwrap(), bounds(&path));
    for block in 0..3 {
        let (begin, end) = (bounds[block], bounds[block + 1]);
        for hole in [begin..begin + 10, begin + 20..begin + 60, end - 100..end - 80, end - 8..end] {
            let holed = copy(dir.path());
            let mut bytes = bytes.clone();
            bytes[hole].fill(0);
            fs::write(segment(holed.path(), 1), &bytes).unwrap();
            let opened = Writer::open(holed.path(), &topics(), None, SegmentLimits::default());
            match opened {
                Ok(writer) => {
                    assert_eq!((block, writer.position("task")), (2, Some(at(1, 2))));
                }
                Err(error) => {
                    let words = error.to_string();
                    assert!(block < 2 && words.contains(&format!("at byte {begin}")), "{block}: {words}");
                    assert_eq!(fs::read(segment(holed.path(), 1)).unwrap(), bytes, "and nothing was cut off");
                }
            }
        }
    }
}

#[test]
fn a_segment_that_a_crash_left_empty_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_small(dir.path());
    (1..=3).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    let head = writer.head();
    drop(writer);
    fs::write(segment(dir.path(), 4), b"").unwrap();
    let mut writer = open_small(dir.path());
    assert_eq!((writer.position("task"), writer.head()), (Some(at(1, 3)), head));
    writer.append(&batch(1, 4..=4)).unwrap();
    drop(writer);
    assert_eq!(assert_whole(dir.path()).segments, 4);
    assert_eq!(all(dir.path()).len(), 4);
    fs::remove_file(segment(dir.path(), 2)).unwrap();
    let error = Writer::open(dir.path(), &topics(), None, SegmentLimits::default()).unwrap_err();
    assert!(error.to_string().contains("segments are missing"), "{error}");
}

/// Whatever bit of whatever byte is turned, in whatever file.
#[test]
fn each_byte_that_is_changed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let der = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let key = SealKey::from_pkcs8(der.as_ref()).unwrap();
    let limits = SegmentLimits { bytes_max: 1, ..SegmentLimits::default() };
    let mut writer = Writer::open(dir.path(), &topics(), Some(key), limits).unwrap();
    writer.append(&batch(1, 1..=2)).unwrap();
    writer.note_gap("task", at(1, 5), true).unwrap();
    writer.append(&batch(1, 6..=6)).unwrap();
    drop(writer);
    assert_eq!(assert_whole(dir.path()).segments, 3);
    for name in
        ["archive.json", "000001.ndjson.zst", "000002.ndjson.zst", "000003.ndjson.zst", "manifest.ndjson"]
    {
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        for place in 0..bytes.len() {
            // a letter in the other case is the change that a careless reader takes for none
            let letter = bytes[place].is_ascii_lowercase() && place % 3 != 0;
            let mut changed = bytes.clone();
            changed[place] ^= if letter { 0x20 } else { 1 << (place % 8) };
            fs::write(&path, &changed).unwrap();
            match verify(dir.path(), &VerifyOptions::default(), &mut |_| ()) {
                Ok(verdict) => {
                    assert_ne!(verdict.findings, [], "{name}: byte {place} is not found");
                    // where it is, or in what hangs on it
                    let first = &verdict.findings[0];
                    let hangs = name == "archive.json" || name == "manifest.ndjson";
                    assert!(hangs || first.file == name, "{name} {place}: {first:?}");
                    assert!(hangs || first.offset <= place as u64, "{name} {place}: {first:?}");
                }
                Err(AuditError::NoArchive { .. }) if name == "archive.json" => {}
                Err(other) => panic!("{name}: byte {place}: {other}"),
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_whole(dir.path());
}

#[test]
fn blocks_and_segments_that_are_moved_or_missing_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let heads: Vec<Digest> = (1..=4)
        .map(|offset| {
            writer.append(&batch(1, offset..=offset)).unwrap();
            writer.head()
        })
        .collect();
    drop(writer);
    let path = segment(dir.path(), 1);
    let (bytes, bounds) = (fs::read(&path).unwrap(), bounds(&path));
    let block = |n: usize| &bytes[bounds[n]..bounds[n + 1]];
    let with = |blocks: &[usize], options: &VerifyOptions| {
        fs::write(&path, blocks.iter().flat_map(|n| block(*n).to_vec()).collect::<Vec<u8>>()).unwrap();
        verify(dir.path(), options, &mut |_| ()).unwrap()
    };
    let none = VerifyOptions::default();
    for order in
        [&[0, 2, 1, 3][..], &[1, 0, 2, 3], &[0, 1, 3], &[1, 2, 3], &[0, 0, 1, 2, 3], &[0, 1, 2, 3, 3]]
    {
        let verdict = with(order, &none);
        assert_ne!(verdict.findings, [], "{order:?}");
    }
    let place = &with(&[0, 1, 3], &none).findings;
    assert_eq!((place.len(), place[0].offset), (1, bounds[2] as u64), "{place:?}");
    // a chain cannot see that its end is missing; whoever wrote down a head can
    assert_eq!(with(&[0, 1, 2], &none).findings, []);
    let asked = |head: Digest| VerifyOptions { head: Some(head), ..VerifyOptions::default() };
    assert_eq!(with(&[0, 1, 2], &asked(heads[3])).findings.len(), 1);
    assert_eq!(with(&[0, 1, 2], &asked(heads[1])).findings, []);
}

#[test]
fn segments_that_are_changed_with_one_another_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_small(dir.path());
    (1..=4).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    drop(writer);
    assert_whole(dir.path());
    let files: Vec<Vec<u8>> = (1..=4).map(|n| fs::read(segment(dir.path(), n)).unwrap()).collect();
    let put = |number: u64, file: &[u8]| fs::write(segment(dir.path(), number), file).unwrap();
    put(2, &files[2]);
    put(3, &files[1]);
    assert_ne!(check(dir.path()).findings, []);
    put(2, &files[1]);
    put(3, &files[2]);
    assert_whole(dir.path());
    fs::remove_file(segment(dir.path(), 3)).unwrap();
    let findings = check(dir.path()).findings;
    assert!(findings[0].file == "000003.ndjson.zst" && findings[0].what.contains("missing"), "{findings:?}");
    put(3, &files[2]);
    // the manifest knows of closed segments, so that one at the end is missed, too
    fs::remove_file(segment(dir.path(), 4)).unwrap();
    assert_whole(dir.path());
    fs::remove_file(segment(dir.path(), 3)).unwrap();
    assert_ne!(check(dir.path()).findings, []);
}

#[test]
fn the_manifest_is_completed_and_made_anew_from_the_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_small(dir.path());
    (1..=4).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    drop(writer);
    let path = dir.path().join("manifest.ndjson");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.iter().filter(|b| **b == b'\n').count(), 3);
    // a crash between a segment's end and its line, at any byte of the line
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        drop(open_small(dir.path()));
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
    // closed, and then the crash before the next one was there: it stays closed
    let closed = tempfile::tempdir().unwrap();
    for name in ["archive.json", "000001.ndjson.zst", "000002.ndjson.zst", "manifest.ndjson"] {
        fs::copy(dir.path().join(name), closed.path().join(name)).unwrap();
    }
    let two: Vec<u8> = whole.split_inclusive(|b| *b == b'\n').take(2).flatten().copied().collect();
    fs::write(closed.path().join("manifest.ndjson"), &two).unwrap();
    assert_whole(closed.path());
    open(closed.path()).append(&batch(1, 3..=3)).unwrap();
    assert_eq!(assert_whole(closed.path()).segments, 3);
    let changed = String::from_utf8(whole.clone()).unwrap().replace("\"events\":1", "\"events\":2");
    fs::write(&path, changed).unwrap();
    assert_ne!(check(dir.path()).findings, []);
    let anew = VerifyOptions { rebuild_manifest: true, ..VerifyOptions::default() };
    assert_eq!(verify(dir.path(), &anew, &mut |_| ()).unwrap().findings, []);
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_whole(dir.path());
}

#[test]
fn a_hole_and_a_new_numbering_are_facts_of_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.append(&batch(1, 1..=2)).unwrap();
    writer.note_gap("task", at(1, 9), false).unwrap();
    let head = writer.head();
    writer.note_gap("task", at(1, 10), false).unwrap();
    assert_eq!(
        (writer.head(), writer.position("task")),
        (head, Some(at(1, 2))),
        "the same hole is told once"
    );
    drop(writer);
    let mut writer = open(dir.path());
    writer.note_gap("task", at(1, 11), false).unwrap();
    assert_eq!(writer.head(), head, "also after a restart");
    writer.note_gap("task", at(1, 11), true).unwrap();
    assert_eq!(writer.position("task"), Some(at(1, 11)));
    writer.append(&batch(1, 12..=12)).unwrap();
    writer.note_epoch("task", at(2, 3)).unwrap();
    writer.append(&batch(2, 4..=5)).unwrap();
    drop(writer);
    let verdict = assert_whole(dir.path());
    let facts: Vec<&str> = verdict.facts.iter().map(|fact| fact.what.as_str()).collect();
    assert_eq!(
        facts,
        [
            "events are missing between 1:2 and 1:9; stopped",
            "events are missing between 1:2 and 1:11; recorded on",
            "a new numbering after 1:12: what is kept comes again behind 2:3"
        ]
    );
    assert_eq!((verdict.events, verdict.positions["task"].as_str()), (5, "2:5"));
}

#[test]
fn a_signed_archive_stays_signed_by_one_key() {
    let key = || ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let (ours, others) = (key(), key());
    let seal = |der: &ring::pkcs8::Document| Some(SealKey::from_pkcs8(der.as_ref()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let open = |key| Writer::open(dir.path(), &topics(), key, SegmentLimits::default());
    open(seal(&ours)).unwrap().append(&batch(1, 1..=1)).unwrap();
    for wrong in [None, seal(&others)] {
        assert!(matches!(open(wrong), Err(AuditError::Mismatch(_))));
    }
    open(seal(&ours)).unwrap().append(&batch(1, 2..=2)).unwrap();
    let by = |der| VerifyOptions { key: seal(der).map(|key| key.check_key()), ..VerifyOptions::default() };
    assert_eq!(verify(dir.path(), &by(&ours), &mut |_| ()).unwrap().findings, []);
    let findings = verify(dir.path(), &by(&others), &mut |_| ()).unwrap().findings;
    assert_eq!(findings.len(), 3, "the archive's key and both blocks: {findings:?}");
    // whoever makes a whole chain anew cannot sign it
    let forged = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(forged.path(), &topics(), seal(&others), SegmentLimits::default()).unwrap();
    writer.append(&batch(1, 1..=1)).unwrap();
    drop(writer);
    assert_whole(forged.path());
    assert_ne!(verify(forged.path(), &by(&ours), &mut |_| ()).unwrap().findings, []);
}

#[test]
fn one_recorder_writes_and_an_archive_stays_of_its_topics() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(dir.path());
    let again = || Writer::open(dir.path(), &topics(), None, SegmentLimits::default());
    assert!(matches!(again(), Err(AuditError::InUse(_))));
    drop(writer);
    drop(again().unwrap());
    let other = Writer::open(dir.path(), &["kept".into()], None, SegmentLimits::default()).unwrap_err();
    assert_eq!(other.to_string(), "this archive is of task, not of kept");
    let error = verify(Path::new("/nowhere"), &VerifyOptions::default(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, AuditError::NoArchive { .. }), "{error}");
}

#[test]
fn what_does_not_belong_into_an_archive_is_refused() {
    let mut batch = batch(2, 5..=5);
    for event in [event(2, 5), event(2, 4), event(1, 6)] {
        assert!(matches!(batch.push(&event), Err(AuditError::Unfit { .. })), "{event}");
    }
    assert!(matches!(batch.push("{\"hello\":1}"), Err(AuditError::NotDurable(_))));
    batch.push(&event(2, 6)).unwrap();
    assert_eq!(batch.len(), 2);
    // one that comes again after a restart is not written twice
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(&batch).unwrap();
    assert!(matches!(open(dir.path()).append(&batch), Err(AuditError::Unfit { .. })));
    assert_whole(dir.path());
}
