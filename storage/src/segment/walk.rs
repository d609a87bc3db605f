//! Steps through the batches of a segment by their headers. Must know nothing of indexes or of what a batch means.

use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchHeader, HEADER_LEN};
use floodmark_proto::ids::Offset;

use crate::error::LogError;
use crate::fs::{DiskFile, FileMap, read_full_at};

/// Headers lie close together in small batches; one read of this size serves many.
const CHUNK_BYTES: usize = 64 << 10;

/// The bytes of a segment, in memory or behind a file.
#[derive(Debug, Clone)]
pub(crate) enum SegmentBytes {
    /// A sealed and synced segment.
    Mapped(Arc<FileMap>),
    /// A segment that may still grow, or may not be mapped.
    File(Arc<dyn DiskFile>),
}

/// Walks headers from a position that is a batch boundary to an end.
pub(crate) struct HeaderWalk<'a> {
    bytes: &'a SegmentBytes,
    path: &'a Path,
    position: u64,
    end: u64,
    /// The least offset that the next batch may begin with, and the first that no batch may reach.
    offsets: Range<Offset>,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<'a> HeaderWalk<'a> {
    pub(crate) fn new(bytes: &'a SegmentBytes, path: &'a Path, position: u64, end: u64) -> HeaderWalk<'a> {
        let offsets = Offset(i64::MIN)..Offset::MAX;
        HeaderWalk { bytes, path, position, end, offsets, chunk: Vec::new(), chunk_at: 0 }
    }

    /// Takes batches outside `offsets`, and those that do not rise, for damage: a batch's own checksum does not cover its
    /// offset, and a look-up would pass over them.
    pub(crate) fn within(mut self, offsets: Range<Offset>) -> HeaderWalk<'a> {
        self.offsets = offsets;
        self
    }

    /// The next batch's position and header, `None` at the end.
    pub(crate) fn step(&mut self) -> Result<Option<(u64, BatchHeader)>, LogError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let at = self.position;
        let header = match self.bytes {
            SegmentBytes::Mapped(map) => {
                let whole: &[u8] = (**map).as_ref();
                BatchHeader::parse(&whole[(at as usize).min(whole.len())..])
            }
            SegmentBytes::File(file) => {
                self.fill(&**file, at)?;
                BatchHeader::parse(&self.chunk[(at - self.chunk_at) as usize..])
            }
        };
        let header = header.map_err(|e| LogError::damaged(self.path, at, e.to_string()))?;
        let next = at + header.size_bytes() as u64;
        if next > self.end {
            let reason =
                format!("a batch of {} bytes reaches past the end at {}", header.size_bytes(), self.end);
            return Err(LogError::damaged(self.path, at, reason));
        }
        let (first, last) = (header.base_offset, header.last_offset());
        if first < self.offsets.start || last < first || last >= self.offsets.end {
            let (least, end) = (self.offsets.start, self.offsets.end);
            let reason =
                format!("a batch of offsets {first} to {last}, expected from {least} on, before {end}");
            return Err(LogError::damaged(self.path, at, reason));
        }
        if self.offsets.start.0 >= 0 {
            self.offsets.start = header.next_offset();
        }
        self.position = next;
        Ok(Some((at, header)))
    }

    fn fill(&mut self, file: &dyn DiskFile, at: u64) -> Result<(), LogError> {
        let held = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if held.contains(&at) && at + HEADER_LEN as u64 <= held.end {
            return Ok(());
        }
        let wanted = CHUNK_BYTES.min((self.end - at) as usize);
        self.chunk.resize(wanted, 0);
        let read = read_full_at(file, &mut self.chunk, at).map_err(LogError::io("read", self.path))?;
        self.chunk.truncate(read);
        self.chunk_at = at;
        Ok(())
    }
}

/// The leading whole batches of some bytes.
pub(super) struct Whole {
    pub(super) bytes: usize,
    /// First offset after them.
    pub(super) next_offset: Offset,
}

/// The leading whole batches of `bytes` that end before `below`; an error with the place of one that does not rise, or lies
/// outside `offsets`: it, or the one before it, is damaged.
pub(super) fn whole_batches(bytes: &[u8], offsets: Range<Offset>, below: Offset) -> Result<Whole, usize> {
    let mut whole = Whole { bytes: 0, next_offset: offsets.start };
    while let Some(rest) = bytes.get(whole.bytes..).filter(|rest| rest.len() >= HEADER_LEN) {
        let Ok(header) = BatchHeader::parse(rest) else { break };
        let last = header.last_offset();
        if header.base_offset < whole.next_offset || last < header.base_offset || last >= offsets.end {
            return Err(whole.bytes);
        }
        if header.size_bytes() > rest.len() || last >= below {
            break;
        }
        // Each header says where the next one is, so the memory would be waited for at every one. Batches are mostly
        // alike: a look at where one will probably lie has it on its way by then.
        black_box(rest.get(LOOK_AHEAD_BATCHES * header.size_bytes()).copied());
        whole.next_offset = header.next_offset();
        whole.bytes += header.size_bytes();
    }
    Ok(whole)
}

/// Batches whose headers are on their way from memory while one is looked at.
const LOOK_AHEAD_BATCHES: usize = 8;
