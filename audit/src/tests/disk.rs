//! Archives on a disk that tells what is done to it, and refuses.

use super::*;
use crate::disk::{Disk, Medium, Real};
use crate::manifest::Manifest;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A disk that tells what is done to it, and takes no more than it has room for.
#[derive(Debug, Clone, Default)]
struct Told {
    steps: Arc<Mutex<Vec<String>>>,
    /// So many bytes may still be written.
    room: Arc<Mutex<Option<usize>>>,
    /// The disk does not even let itself be cut.
    stuck: Arc<Mutex<bool>>,
    /// The directory cannot be written.
    nameless: Arc<Mutex<bool>>,
}

#[derive(Debug)]
struct ToldFile {
    told: Told,
    name: String,
    file: Box<dyn Medium>,
}

impl Told {
    fn step(&self, what: &str, name: &str) {
        self.steps.lock().unwrap().push(format!("{what} {name}"));
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.steps.lock().unwrap())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk for Told {
    fn open_or_make(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        self.step(if path.exists() { "open" } else { "create" }, &name(path));
        Ok(Box::new(ToldFile { told: self.clone(), name: name(path), file: Real.open_or_make(path)? }))
    }

    fn keep_name(&self, path: &Path) -> io::Result<()> {
        self.step("name", &name(path));
        if *self.nameless.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Real.keep_name(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step("replace", &name(path));
        Real.replace(path, bytes)
    }
}

impl Write for ToldFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.told.room.lock().unwrap();
        let count = room.unwrap_or(usize::MAX).min(bytes.len());
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *room = room.map(|room| room - count);
        self.told.step("write", &self.name);
        self.file.write(&bytes[..count])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for ToldFile {
    fn sync(&self) -> io::Result<()> {
        self.told.step("sync", &self.name);
        self.file.sync()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.told.step("cut", &self.name);
        if *self.told.stuck.lock().unwrap() {
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.cut(length)
    }
}

fn open_told(dir: &Path, told: &Told, bytes_max: u64) -> Writer {
    let limits = SegmentLimits { bytes_max, ..SegmentLimits::default() };
    Writer::open_on(Box::new(told.clone()), dir, &topics(), None, limits).unwrap()
}

/// Whoever is told that events are recorded may let go of them: they are not in some cache alone.
#[test]
fn what_is_recorded_is_on_the_disk_before_anybody_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let mut writer = open_told(dir.path(), &told, 1);
    assert_eq!(told.taken(), ["replace archive.json"]);
    writer.append(&batch(1, 1..=1)).unwrap();
    let first = [
        "create 000001.ndjson.zst",
        "name 000001.ndjson.zst",
        "cut 000001.ndjson.zst",
        "write 000001.ndjson.zst",
        "sync 000001.ndjson.zst",
    ];
    assert_eq!(told.taken(), first);
    // the line of a segment is on the disk before the next one is begun
    writer.append(&batch(1, 2..=2)).unwrap();
    let line =
        ["create manifest.ndjson", "name manifest.ndjson", "write manifest.ndjson", "sync manifest.ndjson"];
    assert_eq!(
        told.taken(),
        [&line[..], &first.map(|step| step.replace("01", "02")).each_ref().map(|s| s.as_str())].concat()
    );
    drop(writer);
    let mut writer = open_told(dir.path(), &told, 1 << 20);
    assert_eq!(told.taken(), ["open 000002.ndjson.zst", "cut 000002.ndjson.zst", "sync 000002.ndjson.zst"]);
    writer.append(&batch(1, 3..=3)).unwrap();
    assert_eq!(told.taken(), ["write 000002.ndjson.zst", "sync 000002.ndjson.zst"], "one write and one sync");
}

/// A segment whose name could not be written is made whole by the next attempt, and by the next start.
#[test]
fn a_segment_has_its_name_before_its_first_block_whatever_failed_before() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let mut writer = open_told(dir.path(), &told, 1 << 20);
    *told.nameless.lock().unwrap() = true;
    assert!(writer.append(&batch(1, 1..=1)).unwrap_err().is_full());
    assert_eq!(fs::read(segment(dir.path(), 1)).unwrap(), b"", "it is there");
    let killed = copy(dir.path());
    *told.nameless.lock().unwrap() = false;
    told.taken();
    writer.append(&batch(1, 1..=1)).unwrap();
    let segment = "000001.ndjson.zst";
    let steps = |of: [&str; 5]| of.map(|step| format!("{step} {segment}"));
    assert_eq!(told.taken(), steps(["open", "name", "cut", "write", "sync"]));
    let mut writer = open_told(killed.path(), &told, 1 << 20);
    assert_eq!(told.taken()[..2], steps(["open", "name", "", "", ""])[..2]);
    writer.append(&batch(1, 1..=1)).unwrap();
    drop(writer);
    assert_whole(killed.path());
}

/// Wherever in a block the disk is full: nothing of it stays, and it is taken when there is room.
#[test]
fn a_full_disk_refuses_a_block_in_whole_and_takes_it_later() {
    for room in [0, 1, 100, 300] {
        for stuck in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let told = Told::default();
            let mut writer = open_told(dir.path(), &told, 1 << 20);
            writer.append(&batch(1, 1..=2)).unwrap();
            let before = fs::read(segment(dir.path(), 1)).unwrap();
            *told.room.lock().unwrap() = Some(room);
            *told.stuck.lock().unwrap() = stuck;
            for _ in 0..3 {
                let error = writer.append(&batch(1, 3..=9)).unwrap_err();
                assert!(error.is_full() || stuck, "{error}");
                assert_eq!(writer.position("task"), Some(at(1, 2)));
                *told.room.lock().unwrap() = Some(room);
            }
            if !stuck {
                assert_eq!(fs::read(segment(dir.path(), 1)).unwrap(), before);
            }
            (*told.room.lock().unwrap(), *told.stuck.lock().unwrap()) = (None, false);
            writer.append(&batch(1, 3..=9)).unwrap();
            drop(writer);
            assert_eq!((all(dir.path()).len(), assert_whole(dir.path()).blocks), (9, 2));
        }
    }
}

/// A disk that is full where a segment ends: the line in the manifest is whole or is made whole.
#[test]
fn a_full_disk_between_two_segments_leaves_no_half_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told::default();
    let mut writer = open_told(dir.path(), &told, 1);
    writer.append(&batch(1, 1..=1)).unwrap();
    for room in [0, 10, 50] {
        *told.room.lock().unwrap() = Some(room);
        assert!(writer.append(&batch(1, 2..=2)).unwrap_err().is_full());
    }
    *told.room.lock().unwrap() = None;
    writer.append(&batch(1, 2..=2)).unwrap();
    writer.append(&batch(1, 3..=3)).unwrap();
    let home = home::Home::open(dir.path().into()).unwrap();
    assert_eq!(Manifest::read(&home).unwrap().lines.len(), 2);
    drop(writer);
    assert_whole(dir.path());
}
