//! Starts that read the end of a segment, and readers that pass over what they do not want.

use super::*;
use crate::read::read_while;

/// Events that no compressor makes small.
fn noise(offsets: std::ops::RangeInclusive<u64>) -> Batch {
    let mut batch = Batch::new("task");
    for offset in offsets {
        let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(4_000).collect();
        batch
            .push(&event(1, offset).replace(r#""task":"#, &format!(r#""noise":"{noise}","task":"#)))
            .unwrap();
    }
    batch
}

fn reopened(dir: &Path) -> Result<Writer, AuditError> {
    Writer::open(dir, &topics(), None, SegmentLimits::default())
}

/// A start takes the same time whatever the segment's length, and what it goes on with is the same.
#[test]
fn a_start_judges_the_end_of_its_segment_and_leaves_the_rest_to_verify() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    for first in (1..=1_600).step_by(100) {
        writer.append(&noise(first..=first + 99)).unwrap();
    }
    let head = writer.head();
    drop(writer);
    let path = segment(dir.path(), 1);
    let (bytes, bounds) = (fs::read(&path).unwrap(), bounds(&path));
    assert!(bytes.len() as u64 > 2 * tail::TAIL_BYTES, "{}", bytes.len());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        fs::write(&path, &changed).unwrap();
    };
    // what lies far before the end is not read, and so it is verify's
    with(&|bytes| bytes[bounds[1] + 1_000] ^= 1);
    let writer = reopened(dir.path()).unwrap();
    assert_eq!((writer.position("task"), writer.head()), (Some(at(1, 1_600)), head));
    drop(writer);
    assert_eq!(check(dir.path()).findings[0].offset, bounds[1] as u64);
    // what was confirmed and is read is held against the chain as ever
    for block in [13, 14] {
        with(&|bytes| bytes[bounds[block] + 1_000] ^= 1);
        let error = reopened(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("at byte {}", bounds[block])), "{error}");
    }
    // a torn end is cut off, and recorded again; the segment's line is that of all of it
    for cut in [bounds[15] + 1, bounds[16] - 1] {
        with(&|bytes| bytes.truncate(cut));
        let mut writer = reopened(dir.path()).unwrap();
        assert_eq!(writer.position("task"), Some(at(1, 1_500)), "cut at {cut}");
        writer.append(&noise(1_501..=1_600)).unwrap();
        writer.seal().unwrap();
        drop(writer);
        assert_eq!(assert_whole(dir.path()).events, 1_600, "cut at {cut}");
        assert_eq!(fs::read_to_string(dir.path().join("manifest.ndjson")).unwrap().lines().count(), 1);
        fs::remove_file(dir.path().join("manifest.ndjson")).unwrap();
    }
    // more than a block without a record is more than a crash leaves
    with(&|bytes| bytes[bounds[2]..].fill(0));
    assert_eq!(
        reopened(dir.path()).unwrap().position("task"),
        Some(at(1, 200)),
        "one block may be that long"
    );
}

/// A segment that is old is closed though nothing comes, and the next event begins another.
#[test]
fn a_segment_that_is_closed_stays_closed() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SegmentLimits { age_max: jiff::SignedDuration::from_mins(1), ..SegmentLimits::default() };
    let mut writer = Writer::open(dir.path(), &topics(), None, limits).unwrap();
    assert_eq!(writer.seal_in(), None);
    writer.append(&batch(1, 1..=1)).unwrap();
    assert!(writer.seal_in().unwrap() > std::time::Duration::ZERO);
    writer.seal().unwrap();
    assert_eq!(writer.seal_in(), None);
    writer.seal().unwrap();
    drop(writer);
    let mut writer = open(dir.path());
    writer.append(&batch(1, 2..=2)).unwrap();
    drop(writer);
    assert_eq!(assert_whole(dir.path()).segments, 2);
    assert_eq!(all(dir.path()).len(), 2);
}

/// Closed segments of another time are not read, but missed all the same; a manifest that does not go with them is not believed.
#[test]
fn segments_of_another_time_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_small(dir.path());
    (1..=4).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    drop(writer);
    let second = |n: i64| Some(jiff::Timestamp::from_second(1_795_312_800 + n).unwrap());
    let since = Selection { since: second(3), ..Selection::default() };
    let until = Selection { until: second(3), ..Selection::default() };
    assert_eq!(
        (lines(dir.path(), &since), lines(dir.path(), &until)),
        (vec![event(1, 3), event(1, 4)], vec![event(1, 1), event(1, 2)])
    );
    let damage = |number: u64| {
        let path = segment(dir.path(), number);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, vec![0; bytes.len()]).unwrap();
        bytes
    };
    let fails = |selection: &Selection| {
        read(dir.path(), selection, &mut |_, _| (), &mut |_| Ok(ControlFlow::Continue(()))).is_err()
    };
    let first = damage(1);
    assert_eq!(lines(dir.path(), &since).len(), 2, "what is of another time is not read");
    assert!(fails(&until));
    // another length: the manifest speaks of something else
    fs::write(segment(dir.path(), 1), [&first[..], b"x"].concat()).unwrap();
    assert!(fails(&since));
    fs::remove_file(segment(dir.path(), 1)).unwrap();
    assert!(fails(&since), "a segment that is missing is told of, whatever is asked for");
}

/// Whoever looks for what is not there can stop at once.
#[test]
fn who_wants_no_more_is_asked_for_each_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    (1..=9).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    drop(writer);
    let none = Selection { job: Some(1_000), ..Selection::default() };
    let (mut blocks, left) = (0, std::cell::Cell::new(3));
    let wanted = || left.replace(left.get() - 1) > 1;
    read_while(
        dir.path().into(),
        &none,
        &wanted,
        &mut |_, _| blocks += 1,
        &mut |_| (),
        &mut |_| unreachable!(),
    )
    .unwrap();
    assert_eq!(blocks, 3);
}

/// An event that is a block by itself may be larger than any other block. Torn by a crash it is cut off as those are.
#[test]
fn a_torn_block_of_one_large_event_is_cut_off() {
    // farther apart than a compressor looks back
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(4 << 20).collect();
    let large = event(1, 4).replace(r#""task":"#, &format!(r#""noise":"{}","task":"#, noise.repeat(12)));
    let mut alone = Batch::new("task");
    assert!(!batch(1, 1..=3).fits(&large) && alone.fits(&large));
    alone.push(&large).unwrap();
    assert!(!alone.fits(&event(1, 5)));
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    writer.append(&batch(1, 1..=3)).unwrap();
    writer.append(&alone).unwrap();
    drop(writer);
    assert_eq!(assert_whole(dir.path()).events, 4);
    assert!(all(dir.path())[3] == large);
    let path = segment(dir.path(), 1);
    let (bytes, bounds) = (fs::read(&path).unwrap(), bounds(&path));
    assert!(bytes.len() - bounds[1] > block::DATA_BYTES_MAX + (1 << 20), "{}", bytes.len());
    for cut in [bounds[1] + 1_000, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let writer = reopened(dir.path()).unwrap();
        assert_eq!(writer.position("task"), Some(at(1, 3)), "cut at {cut}");
        drop(writer);
        assert_eq!(assert_whole(dir.path()).events, 3, "cut at {cut}");
    }
}
