//! Archives that are looked at while a recorder writes to them, and what was changed under it.

use super::*;

fn read_fails(dir: &Path) -> String {
    let read = read(dir, &Selection::default(), &mut |_, _| (), &mut |_| Ok(ControlFlow::Continue(())));
    read.unwrap_err().to_string()
}

/// What was changed to look like a block that is being written: a frame without an end, a record that reaches over the file's.
#[test]
fn a_changed_block_is_not_taken_for_one_that_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    (1..=3).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    let path = segment(dir.path(), 1);
    let (bytes, bounds) = (fs::read(&path).unwrap(), bounds(&path));
    for block in 0..3 {
        let (begin, end) = (bounds[block], bounds[block + 1]);
        let record = begin + memchr::memmem::find(&bytes[begin..end], &block::RECORD_MAGIC).unwrap();
        // the kind of zstd's first block, which follows magic, descriptor and a length of one byte or two; 3 there is none
        let descriptor = bytes[begin + 4];
        assert_eq!(descriptor & 0b0010_0000, 0b0010_0000, "a single segment: no window is said");
        let kind = begin + 5 + [1, 2, 4, 8][usize::from(descriptor >> 6)];
        for (place, bits) in [(kind, 0b110), (record + 5, 0xff)] {
            let mut changed = bytes.clone();
            changed[place] |= bits;
            if place > record {
                changed[place] = 0x7f;
            }
            fs::write(&path, &changed).unwrap();
            let verdict = check(dir.path());
            let found: Vec<u64> = verdict.findings.iter().map(|finding| finding.offset).collect();
            assert_eq!(found, [begin as u64], "block {block}, byte {place}: {verdict:?}");
            let words = read_fails(dir.path());
            assert!(words.contains(&format!("damaged at byte {begin}")), "{words}");
        }
    }
    // and one that is being written is none: any beginning of it
    for cut in bounds[2] + 1..bounds[3] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let verdict = assert_whole(dir.path());
        assert_eq!((verdict.in_use, all(dir.path()).len()), (true, 2), "cut at {cut}");
    }
    drop(writer);
}

/// Whoever shows, exports or replays does not pass over a segment that is not there.
#[test]
fn a_segment_that_is_missing_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_small(dir.path());
    (1..=3).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    for number in [1, 2] {
        let lacking = copy(dir.path());
        fs::remove_file(segment(lacking.path(), number)).unwrap();
        let words = read_fails(lacking.path());
        assert!(
            words.contains(&format!("{number:06}.ndjson.zst is damaged at byte 0: it is missing")),
            "{words}"
        );
    }
}

/// Segments that are closed while others are looked at are no finding, and their manifest is not made anew meanwhile.
#[test]
fn a_recorder_may_close_segments_during_a_long_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_small(dir.path());
    (1..=2).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
    let mut grown = false;
    let verdict = verify(dir.path(), &VerifyOptions::default(), &mut |_| {
        if !std::mem::replace(&mut grown, true) {
            (3..=5).for_each(|offset| writer.append(&batch(1, offset..=offset)).unwrap());
        }
    });
    assert_eq!(verdict.unwrap().findings, []);
    let anew = VerifyOptions { rebuild_manifest: true, ..VerifyOptions::default() };
    let refused = verify(dir.path(), &anew, &mut |_| ()).unwrap_err();
    assert!(matches!(refused, AuditError::InUse(_)), "{refused}");
    drop(writer);
    let path = dir.path().join("manifest.ndjson");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, "").unwrap();
    // and no recorder begins meanwhile
    let mut begun = None;
    let verdict = verify(dir.path(), &anew, &mut |_| {
        begun = Some(Writer::open(dir.path(), &topics(), None, SegmentLimits::default()));
    });
    assert_eq!((verdict.unwrap().findings, fs::read(&path).unwrap()), (Vec::new(), whole));
    assert!(matches!(begun, Some(Err(AuditError::InUse(_)))), "{begun:?}");
}

/// An archive that had to go on over more holes than anybody would read.
#[test]
fn facts_beyond_a_thousand_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let (mut chain, mut bytes) = (home::Home::open(dir.path().into()).unwrap().chain(), Vec::new());
    for epoch in 2..=1_003 {
        let note = block::Note::Epoch { behind: None, resumes: block::At(at(epoch, 0)) };
        let (block, record) = chain.encode(&Batch::new("task"), Some(note), None).unwrap();
        chain.advance(&record);
        bytes.extend(block);
    }
    fs::write(segment(dir.path(), 1), bytes).unwrap();
    let verdict = assert_whole(dir.path());
    assert_eq!((verdict.blocks, verdict.facts.len(), verdict.facts_more), (1_002, 1_000, 2));
}
