//! Parquet of an archive with more rows than are kept in memory.

#![allow(clippy::unwrap_used, reason = "in tests an unwrap is an assertion")]

use minium_audit::{Batch, ParquetWriter, SegmentLimits, Selection, Writer, read};
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::ops::ControlFlow;

const ROWS: u64 = 70_000;

/// Rows are written in groups, and none is missing.
#[test]
fn columns_are_written_in_groups() {
    let dir = tempfile::tempdir().unwrap();
    let mut batch = Batch::new("task");
    for n in 1..=ROWS {
        let event = format!(
            r#"{{"id":"i{n}","type":"task.enqueue","subject":"{n}","time":"2026-11-22T02:00:00.000000Z","epoch":"1","sequence":"{n:020}","data":{{"id":{n}}}}}"#
        );
        batch.push(&event).unwrap();
    }
    Writer::open(dir.path(), &["task".into()], None, SegmentLimits::default())
        .unwrap()
        .append(&batch)
        .unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut writer = ParquetWriter::new(&mut file).unwrap();
    read(dir.path(), &Selection::default(), &mut |_, _| (), &mut |entry| {
        writer.push(entry).map(|()| ControlFlow::Continue(()))
    })
    .unwrap();
    writer.finish().unwrap();
    let written = SerializedFileReader::new(file).unwrap();
    let groups: Vec<i64> = written.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert!(groups.len() > 1, "{groups:?}");
    assert_eq!(groups.iter().sum::<i64>(), ROWS.cast_signed());
}
