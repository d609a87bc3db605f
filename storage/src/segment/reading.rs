//! Whole batches out of a segment: for a reader that looks for its place, for one that comes back for what follows, and for one that
//! must not wait for a disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use floodmark_proto::batch::{BatchHeader, HEADER_LEN};
use floodmark_proto::ids::Offset;

use super::name::FileKind;
use super::walk::{SegmentBytes, Whole, whole_batches};
use super::{Mapped, ReadLimits, Segment};
use crate::error::LogError;
use crate::fs::{DiskFile, read_full_at};

/// Readers of one segment whose places are noted.
const READERS_NOTED: usize = 4;
/// Position zero is where every segment begins, so it is never worth a note.
const NOTHING: u64 = 0;

/// Where the last reads ended: offset relative to the segment's base, then position, 32 bits each. A sequential reader goes on there
/// without asking the index.
#[derive(Debug, Default)]
pub(super) struct ReadEnds([AtomicU64; READERS_NOTED]);

impl ReadEnds {
    /// Position of the batch that follows everything before `offset`.
    fn find(&self, offset: u32) -> Option<u64> {
        let noted = self.0.iter().map(|end| end.load(Ordering::Relaxed));
        let found = noted.filter(|end| *end != NOTHING).find(|end| end >> 32 == u64::from(offset))?;
        Some(found & u64::from(u32::MAX))
    }

    /// Notes where a read ended that began at `began`: in the place of where that reader was, or else of another that may be gone.
    fn note(&self, began: u64, offset: u32, position: u32) {
        let is_its = |end: &&AtomicU64| {
            let noted = end.load(Ordering::Relaxed);
            noted == NOTHING || noted & u64::from(u32::MAX) == began
        };
        let any = (began >> 16) as usize % READERS_NOTED;
        let end = self.0.iter().find(is_its).unwrap_or(&self.0[any]);
        end.store(u64::from(offset) << 32 | u64::from(position), Ordering::Relaxed);
    }

    /// To be called where other bytes took the place of these.
    pub(super) fn forget(&self) {
        self.0.iter().for_each(|end| end.store(NOTHING, Ordering::Relaxed));
    }
}

impl Segment {
    /// Whole batches from the one that holds `from`; `None` where the segment has none at or after it below the limit.
    /// Copies no record bytes out of a settled segment. Blocks on the disk.
    pub(crate) fn read(&self, from: Offset, limits: ReadLimits) -> Result<Option<Bytes>, LogError> {
        // A segment without batches may have no file.
        if self.bytes() == 0 {
            return Ok(None);
        }
        let mapped = if self.is_settled() { self.mapped()? } else { None };
        match mapped {
            Some(mapped) => self.read_map(&mapped, from, limits),
            None => self.read_copy(from, limits),
        }
    }

    /// The same for a reader that comes back for what follows what was read last, of what the system has in memory; for any thread.
    /// `None` where a disk must be waited for, where nobody has read up to here, and where the first batch is larger than the limit.
    pub(crate) fn read_at_hand(&self, from: Offset, limits: ReadLimits) -> Option<Bytes> {
        let at = self.read_goes_on_at(from).filter(|at| *at < self.bytes())?;
        self.touched.store(true, Ordering::Relaxed);
        let (mapped, file) = {
            // Whoever holds it may be opening files.
            let open = self.open.try_lock()?;
            (open.map.clone(), open.data.clone())
        };
        let wanted = (self.bytes() - at).min(limits.max_bytes as u64) as usize;
        if self.is_settled() {
            let mapped = mapped?;
            let range = at as usize..at as usize + wanted;
            if !mapped.map.is_resident(&range) {
                return None;
            }
            let batches = mapped.bytes.slice(range);
            self.goes_on(&batches, from, limits).filter(|first| first.size_bytes() <= wanted)?;
            let whole = self.whole_at(at, &batches, limits.below).ok()?;
            return self.trusted(&mapped).ok().map(|()| batches.slice(..whole));
        }
        let file = file?;
        let mut head = [0; HEADER_LEN];
        file.read_at_hand(&mut head, at).ok().filter(|read| *read == HEADER_LEN)?;
        self.goes_on(&head, from, limits).filter(|first| first.size_bytes() <= wanted)?;
        let mut batches = vec![0; wanted];
        file.read_at_hand(&mut batches, at).ok().filter(|read| *read == wanted)?;
        batches.truncate(self.whole_at(at, &batches, limits.below).ok()?);
        Some(Bytes::from(batches))
    }

    fn read_map(&self, mapped: &Mapped, from: Offset, limits: ReadLimits) -> Result<Option<Bytes>, LogError> {
        let failed = |e| LogError::io("read", &self.path(FileKind::Data))(e);
        let populate = |from: u64, to: u64| mapped.map.populate(from as usize..to as usize).map_err(failed);
        let end = self.bytes();
        let ahead_of = |position: u64| end.min(position + limits.max_bytes as u64);
        let (located, populated_to) = match self.read_goes_on_at(from).filter(|at| *at < end) {
            Some(at) => {
                populate(at, ahead_of(at))?;
                let first = BatchHeader::parse(&mapped.bytes[at as usize..]);
                (first.ok().filter(|h| h.last_offset() >= from).map(|h| (at, h)), ahead_of(at))
            }
            None => (None, 0),
        };
        let (located, populated_to) = match located {
            Some(_) => (located, populated_to),
            None => {
                let entry = self.probe(from);
                let near = end.min(entry.map_or(0, |entry| u64::from(entry.position)));
                populate(near, ahead_of(near))?;
                let source = SegmentBytes::Mapped(Arc::clone(&mapped.map));
                (self.locate_from(&source, from, entry)?, ahead_of(near))
            }
        };
        let Some((position, first)) = located else { return Ok(None) };
        if first.last_offset() >= limits.below {
            return Ok(None);
        }
        let wanted = (limits.max_bytes as u64).max(first.size_bytes() as u64);
        let limit = end.min(position + wanted);
        populate(position.max(populated_to).min(limit), limit)?;
        let batches = mapped.bytes.get(position as usize..limit as usize).unwrap_or_default();
        let whole = self.whole_at(position, batches, limits.below)?;
        self.trusted(mapped).map_err(failed)?;
        Ok(Some(mapped.bytes.slice(position as usize..position as usize + whole)))
    }

    /// Where a page turned out to be unreadable, what was noted by it is wrong as well.
    fn trusted(&self, mapped: &Mapped) -> io::Result<()> {
        mapped.map.check().inspect_err(|_| self.read_ends.forget())
    }

    fn read_copy(&self, from: Offset, limits: ReadLimits) -> Result<Option<Bytes>, LogError> {
        let file = self.data_file()?;
        let bytes = self.bytes();
        if let Some(at) = self.read_goes_on_at(from).filter(|at| *at < bytes) {
            let batches = self.copied(&*file, at..bytes.min(at + limits.max_bytes as u64))?;
            // Where the first is not whole, its size is known by the other way.
            if let Some(first) = self.goes_on(&batches, from, limits)
                && first.size_bytes() <= batches.len()
            {
                return Ok(Some(self.whole_of(at, batches, limits.below)?));
            }
        }
        let source = SegmentBytes::File(Arc::clone(&file));
        let Some((position, first)) = self.locate(&source, from)? else { return Ok(None) };
        if first.last_offset() >= limits.below {
            return Ok(None);
        }
        let wanted = limits.max_bytes.max(first.size_bytes()) as u64;
        let batches = self.copied(&*file, position..self.bytes().min(position + wanted))?;
        Ok(Some(self.whole_of(position, batches, limits.below)?))
    }

    fn copied(&self, file: &dyn DiskFile, range: Range<u64>) -> Result<Vec<u8>, LogError> {
        let mut batches = vec![0; (range.end - range.start) as usize];
        let read = read_full_at(file, &mut batches, range.start)
            .map_err(LogError::io("read", &self.path(FileKind::Data)))?;
        batches.truncate(read);
        Ok(batches)
    }

    fn whole_of(&self, position: u64, mut batches: Vec<u8>, below: Offset) -> Result<Bytes, LogError> {
        batches.truncate(self.whole_at(position, &batches, below)?);
        Ok(Bytes::from(batches))
    }

    /// Where a sequential read that has come to `from` goes on.
    fn read_goes_on_at(&self, from: Offset) -> Option<u64> {
        self.read_ends.find(u32::try_from(from - self.base).ok()?)
    }

    /// The header of the batch that a read which goes on at `from` begins with, where it is one and may be returned.
    fn goes_on(&self, bytes: &[u8], from: Offset, limits: ReadLimits) -> Option<BatchHeader> {
        let first = BatchHeader::parse(bytes).ok()?;
        (first.base_offset >= from && first.last_offset() < limits.below.min(self.end())).then_some(first)
    }

    /// Length of the whole batches of `bytes`, which were read at `position` where one begins that may be returned. Notes where
    /// they end: a sequential reader comes back for exactly that.
    fn whole_at(&self, position: u64, bytes: &[u8], below: Offset) -> Result<usize, LogError> {
        let (at, reason) = match whole_batches(bytes, self.base..self.end(), below) {
            Ok(Whole { bytes: 0, .. }) => (0, "the file ends inside a batch"),
            Ok(whole) => {
                let next = u32::try_from(whole.next_offset - self.base);
                if let (Ok(next), Ok(at)) = (next, u32::try_from(position + whole.bytes as u64)) {
                    self.read_ends.note(position, next, at);
                }
                return Ok(whole.bytes);
            }
            Err(at) => (at, "a batch's offsets do not follow those of the one before it"),
        };
        Err(LogError::damaged(&self.path(FileKind::Data), position + at as u64, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_one_segment_keep_their_places() {
        let ends = ReadEnds::default();
        assert_eq!(ends.find(0), None, "nobody has read");
        let mut places = [(0, 0), (10, 1 << 16), (20, 2 << 16), (30, 3 << 16)];
        for (offset, position) in &mut places {
            for _ in 0..50 {
                let began = u64::from(*position);
                (*offset, *position) = (*offset + 40, *position + 7_000);
                ends.note(began, *offset, *position);
            }
        }
        for _ in 0..50 {
            for (offset, position) in &mut places {
                let began = ends.find(*offset);
                assert_eq!(began, Some(u64::from(*position)), "{offset}");
                (*offset, *position) = (*offset + 40, *position + 7_000);
                ends.note(began.unwrap(), *offset, *position);
            }
        }
        ends.note(99, 1_000_000, 100);
        assert_eq!(ends.find(1_000_000), Some(100), "one more takes the place of another");
        assert_eq!(places.iter().filter(|(offset, _)| ends.find(*offset).is_none()).count(), 1);
        ends.forget();
        assert!(places.iter().all(|(offset, _)| ends.find(*offset).is_none()));
    }
}
