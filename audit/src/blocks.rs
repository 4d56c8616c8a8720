//! Reads a segment block by block, in bounded memory, and says what is wrong with the first that is not whole.

use crate::block::{Chain, FRAME_MAGIC, LINES_BYTES_MAX, RECORD_BYTES_MAX, RECORD_MAGIC, Record};
use crate::digest::Digest;
use std::io::{self, Read};
use zstd::bulk::Decompressor;
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size, get_frame_content_size};

/// The first read of a block; most are smaller.
const READ_BYTES: usize = 256 << 10;

/// A segment, read from its beginning.
pub(crate) struct Blocks<R> {
    from: R,
    buffer: Vec<u8>,
    /// What of the buffer was read already.
    start: usize,
    /// Where that is in the file.
    offset: u64,
    ended: bool,
    decompressor: Decompressor<'static>,
    data: Vec<u8>,
}

/// A whole block: its record goes with its frame. Whether it goes with the chain is another question.
pub(crate) struct Block<'a> {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// All its bytes in the file.
    pub(crate) bytes: &'a [u8],
    pub(crate) record: Record,
    frame_length: usize,
    data: &'a mut Vec<u8>,
    decompressor: &'a mut Decompressor<'static>,
}

/// What stands at a place where a whole block should begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) offset: u64,
    pub(crate) reason: String,
    /// The file ends within it, and no record stands in what is there: a block that is being written, or one of a crash.
    pub(crate) torn: bool,
}

impl<R: Read> Blocks<R> {
    pub(crate) fn new(from: R) -> io::Result<Blocks<R>> {
        Blocks::new_at(from, 0)
    }

    /// From a reader that stands where a block begins.
    pub(crate) fn new_at(from: R, offset: u64) -> io::Result<Blocks<R>> {
        Ok(Blocks {
            from,
            buffer: Vec::new(),
            start: 0,
            offset,
            ended: false,
            decompressor: Decompressor::new()?,
            data: Vec::new(),
        })
    }

    /// The next block. Nothing at the file's end; after something broken there is nothing more.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<Block<'_>, Broken>>> {
        let (offset, start) = match self.measure()? {
            None => return Ok(None),
            Some(Err((reason, ends))) => {
                // a block is written from its beginning to its end, so a record shows that it once was whole
                let torn = ends && !later_record(self.rest(), 0);
                return Ok(Some(Err(Broken { offset: self.offset, reason, torn })));
            }
            Some(Ok((frame_length, record, length))) => {
                let (offset, start) = (self.offset, self.start);
                self.start += length;
                self.offset += length as u64;
                (offset, (start, frame_length, record, length))
            }
        };
        let (start, frame_length, record, length) = start;
        let bytes = &self.buffer[start..start + length];
        let (data, decompressor) = (&mut self.data, &mut self.decompressor);
        Ok(Some(Ok(Block { offset, bytes, record, frame_length, data, decompressor })))
    }

    /// Frame length, record and whole length of what comes next; or what is wrong, and whether the file ends there.
    #[expect(clippy::type_complexity, reason = "one place builds it and one takes it apart")]
    fn measure(&mut self) -> io::Result<Option<Result<(usize, Record, usize), (String, bool)>>> {
        let broken = |reason: &str, torn| Ok(Some(Err((reason.to_owned(), torn))));
        if !self.has(FRAME_MAGIC.len())? {
            return if self.rest().is_empty() {
                Ok(None)
            } else {
                broken("the file ends within a block", true)
            };
        }
        if !self.rest().starts_with(&FRAME_MAGIC) {
            return broken("no block begins here", false);
        }
        let frame = loop {
            match find_frame_compressed_size(self.rest()) {
                Ok(length) => break length,
                Err(_) if self.ended => return broken("the file ends within a block", true),
                Err(_)
                    if self.rest().len()
                        > compress_bound(claimed(self.rest()).unwrap_or(LINES_BYTES_MAX)) =>
                {
                    return broken("the block has no end", false);
                }
                Err(_) => self.fill(READ_BYTES.max(self.rest().len()))?,
            }
        };
        let head = RECORD_MAGIC.len() + 4;
        if !self.has(frame + head)? {
            return broken("the file ends within a block", true);
        }
        let (magic, length) = self.rest()[frame..frame + head].split_at(RECORD_MAGIC.len());
        if magic != RECORD_MAGIC {
            return broken("there is no record behind the lines", false);
        }
        let length = u32::from_le_bytes(length.try_into().expect("these are four bytes")) as usize;
        if length > RECORD_BYTES_MAX {
            return broken("the record is too long", false);
        }
        if !self.has(frame + head + length)? {
            return broken("the file ends within a record", true);
        }
        let bytes = &self.rest()[..frame + head + length];
        Ok(Some(match Record::parse(&bytes[frame + head..]) {
            Ok(record) => Ok((frame, record, bytes.len())),
            Err(reason) => Err((reason, false)),
        }))
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Are so many bytes there?
    fn has(&mut self, count: usize) -> io::Result<bool> {
        while self.rest().len() < count && !self.ended {
            self.fill(READ_BYTES.max(count))?;
        }
        Ok(self.rest().len() >= count)
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let read = (&mut self.from).take(count as u64).read_to_end(&mut self.buffer)?;
        self.ended = read < count;
        Ok(())
    }
}

impl Block<'_> {
    /// Is it whole, and does it come next?
    pub(crate) fn check(&mut self, chain: &Chain) -> Result<(), String> {
        self.lines()?;
        chain.judge(&self.record, self.data)
    }

    /// The lines.
    pub(crate) fn lines(&mut self) -> Result<&[u8], String> {
        let (summary, frame) = (&self.record.summary, &self.bytes[..self.frame_length]);
        if summary.stored != frame.len() as u64 || summary.frame != Digest::of(frame) {
            return Err("its compressed bytes are not those that were written".into());
        }
        let length = usize::try_from(summary.bytes).ok().filter(|length| *length <= LINES_BYTES_MAX);
        let length = length.ok_or("its record says that it is larger than a block can be")?;
        self.data.clear();
        self.data.reserve(length);
        let unpacked = self.decompressor.decompress_to_buffer(frame, self.data);
        unpacked.map_err(|e| format!("it cannot be unpacked: {e}"))?;
        if self.data.len() != length {
            return Err("its lines have another length than its record says".into());
        }
        Ok(self.data)
    }
}

/// How many bytes of lines a frame says that it holds, if that is as many as a block can have.
pub(crate) fn claimed(frame: &[u8]) -> Option<usize> {
    let bytes = usize::try_from(get_frame_content_size(frame).ok()??).ok()?;
    (bytes <= LINES_BYTES_MAX).then_some(bytes)
}

/// Is there a record in these bytes of a block with a greater number than this? What was torn by a crash is one block that
/// nobody was told of, so nothing can stand behind it.
pub(crate) fn later_record(bytes: &[u8], block: u64) -> bool {
    memchr::memmem::find_iter(bytes, &RECORD_MAGIC).any(|at| {
        let contents = || {
            let (length, rest) = bytes[at + RECORD_MAGIC.len()..].split_first_chunk::<4>()?;
            // one whose length was changed to reach over the end is one all the same
            Some(rest.get(..u32::from_le_bytes(*length) as usize).unwrap_or(rest))
        };
        contents().and_then(|text| Record::parse(text).ok()).is_some_and(|r| r.summary.block > block)
    })
}
