//! Finds a place near a segment's end where a block begins, so that a start reads a few megabytes and not all.
//!
//! A record stands behind its frame and has its length and SHA-256. Whatever bytes look like a record, only those before
//! which such a frame stands are one: what is found is where a block begins, without a second file that could say
//! something else than the data.

use crate::block::{FRAME_MAGIC, RECORD_BYTES_MAX, RECORD_MAGIC, Record};
use crate::digest::Digest;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// So many bytes at the end are read at first, and judged in any case.
pub(crate) const TAIL_BYTES: u64 = 2 << 20;
/// More than two of the largest blocks of several events: where none is found in so many, all is read from the beginning.
const TAIL_BYTES_MAX: u64 = 96 << 20;

/// Where a block begins in the last bytes of a file of this length; its beginning if it is no longer than that, or if
/// nothing is found.
pub(crate) fn tail_start(file: &mut File, length: u64) -> io::Result<u64> {
    let mut bytes = TAIL_BYTES;
    while bytes < length && bytes <= TAIL_BYTES_MAX {
        let from = length - bytes;
        file.seek(SeekFrom::Start(from))?;
        let mut window = Vec::new();
        (&mut *file).take(bytes).read_to_end(&mut window)?;
        if let Some(start) = first_start(&window) {
            return Ok(from + start as u64);
        }
        bytes *= 2;
    }
    Ok(0)
}

/// Where the first whole block in these bytes begins.
fn first_start(window: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(window, &RECORD_MAGIC).find_map(|at| {
        let (length, rest) = window[at + RECORD_MAGIC.len()..].split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let record = Record::parse(rest.get(..length.min(RECORD_BYTES_MAX))?).ok()?;
        let start = at.checked_sub(usize::try_from(record.summary.stored).ok()?)?;
        let frame = &window[start..at];
        (frame.starts_with(&FRAME_MAGIC) && Digest::of(frame) == record.summary.frame).then_some(start)
    })
}
