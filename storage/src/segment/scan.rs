//! Reads a segment batch by batch and checks every byte: what recovery and verification do.

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchError, BatchHeader, HEADER_LEN, check_stored};
use floodmark_proto::ids::Offset;

use super::walk::SegmentBytes;
use crate::error::LogError;
use crate::fs::{DiskFile, read_full_at};

/// Larger than any batch a broker takes (a request has 100 MiB at most): a length beyond it is damage, and no memory is
/// spent on finding that out.
pub const BATCH_BYTES_MAX: usize = 128 << 20;
/// What is read, or brought into memory, at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a scan stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanEnd {
    /// The file ends with a batch.
    Complete,
    /// Zeros written ahead of the log's end, or left where a write never arrived.
    Zeros,
    /// Bytes that are no batch.
    Bad(BatchError),
    /// A good batch that cannot follow the one before it.
    OutOfOrder {
        /// Its first offset.
        base: Offset,
        /// The least it could be.
        expected: Offset,
    },
    /// A good batch whose offsets are none of this segment's.
    OutOfRange {
        /// Its first offset.
        base: Offset,
        /// Its last one.
        last: Offset,
        /// The first that cannot be.
        below: Offset,
    },
}

impl std::fmt::Display for ScanEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ScanEnd::Complete => f.write_str("the file ends here"),
            ScanEnd::Zeros => f.write_str("zeros instead of a batch"),
            ScanEnd::Bad(e) => e.fmt(f),
            ScanEnd::OutOfOrder { base, expected } => {
                write!(f, "a batch that begins at offset {base} where {expected} is next")
            }
            ScanEnd::OutOfRange { base, last, below } => {
                write!(f, "a batch of offsets {base} to {last} in a segment that ends before {below}")
            }
        }
    }
}

/// Checked batches of one file, in order.
#[derive(Debug)]
pub struct BatchScan<'a> {
    source: SegmentBytes,
    path: &'a Path,
    position: u64,
    file_bytes: u64,
    expected: Offset,
    /// Where no batch of the segment can reach, and where none can that leaves a gap before it: offsets lie outside the checksum.
    below: Offset,
    jumps_below: Offset,
    /// Bytes read from the file, from `chunk_at` on; of a map none are.
    chunk: Vec<u8>,
    chunk_at: u64,
    /// A map's pages are in memory up to here.
    populated_to: u64,
    end: Option<ScanEnd>,
}

/// A batch that passed all checks.
#[derive(Debug)]
pub struct Scanned<'b> {
    /// Where it begins in the file.
    pub position: u64,
    /// Its header.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: &'b [u8],
}

impl<'a> BatchScan<'a> {
    /// Scans `file` from `position`, a batch boundary, where `expected` is the least offset that may follow.
    pub fn new(
        file: Arc<dyn DiskFile>,
        path: &'a Path,
        position: u64,
        expected: Offset,
    ) -> Result<BatchScan<'a>, LogError> {
        BatchScan::of(SegmentBytes::File(file), path, position, expected)
    }

    /// [`BatchScan::new`] of bytes that may be mapped, of which nothing is copied then. What was done with a batch counts only once
    /// [`BatchScan::check`] was asked after it, or the next step was taken.
    pub(crate) fn of(
        source: SegmentBytes,
        path: &'a Path,
        position: u64,
        expected: Offset,
    ) -> Result<BatchScan<'a>, LogError> {
        let file_bytes = match &source {
            SegmentBytes::Mapped(map) => (**map).as_ref().len() as u64,
            SegmentBytes::File(file) => file.size().map_err(LogError::io("look at", path))?,
        };
        Ok(BatchScan {
            source,
            path,
            position,
            file_bytes,
            expected,
            below: Offset::MAX,
            jumps_below: Offset::MAX,
            chunk: Vec::new(),
            chunk_at: 0,
            populated_to: position,
            end: None,
        })
    }

    /// Takes no batch that cannot lie in the segment that begins at `base`, where the next one begins at `successor`.
    #[must_use]
    pub(crate) fn of_segment(mut self, base: Offset, successor: Option<Offset>) -> BatchScan<'a> {
        self.below = Offset(base.0.saturating_add(i64::from(i32::MAX)).saturating_add(1));
        self.jumps_below = successor.map_or(self.below, |next| next.min(self.below));
        self
    }

    /// Fails where a page turned out to be unreadable after it had been looked at: it may have been taken for zeros.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        match &self.source {
            SegmentBytes::Mapped(map) => map.check().map_err(LogError::io("read", self.path)),
            SegmentBytes::File(_) => Ok(()),
        }
    }

    /// End of the last good batch.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Offset after the last good batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.expected
    }

    /// Why the scan stopped; asked after [`BatchScan::step`] gave `None`.
    #[must_use]
    pub fn end(&self) -> ScanEnd {
        self.end.clone().unwrap_or(ScanEnd::Complete)
    }

    /// The next good batch; `None` at the first bytes that are none. Fails only where the disk cannot be read.
    pub fn step(&mut self) -> Result<Option<Scanned<'_>>, LogError> {
        Ok(self.advance()?.map(|found| self.scanned(found)))
    }

    /// [`BatchScan::step`] without the bytes, which [`BatchScan::scanned`] adds.
    pub(super) fn advance(&mut self) -> Result<Option<(u64, BatchHeader)>, LogError> {
        self.check()?;
        if self.end.is_some() {
            return Ok(None);
        }
        if self.position == self.file_bytes {
            self.end = Some(ScanEnd::Complete);
            return Ok(None);
        }
        self.fill(HEADER_LEN)?;
        let size = match BatchHeader::parse(self.unread()) {
            Ok(header) => header.size_bytes(),
            Err(e) => return self.stop(e),
        };
        if size > BATCH_BYTES_MAX {
            return self.stop(BatchError::TooLarge { size_bytes: size, limit_bytes: BATCH_BYTES_MAX });
        }
        self.fill(size)?;
        let header = match check_stored(self.unread()) {
            Ok(header) => header,
            Err(e) => return self.stop(e),
        };
        if header.base_offset < self.expected {
            self.end = Some(ScanEnd::OutOfOrder { base: header.base_offset, expected: self.expected });
            return Ok(None);
        }
        let is_jump = header.base_offset > self.expected;
        let below = if is_jump { self.jumps_below } else { self.below };
        if header.last_offset() >= below && below < Offset::MAX {
            let (base, last) = (header.base_offset, header.last_offset());
            self.end = Some(ScanEnd::OutOfRange { base, last, below });
            return Ok(None);
        }
        let position = self.position;
        self.position += size as u64;
        self.expected = header.next_offset();
        Ok(Some((position, header)))
    }

    /// The batch that the last [`BatchScan::advance`] gave.
    pub(super) fn scanned(&self, (position, header): (u64, BatchHeader)) -> Scanned<'_> {
        Scanned { position, header, bytes: &self.held_from(position)[..header.size_bytes()] }
    }

    /// Goes on behind bytes that were no batch. `expected` is the least offset that may follow.
    pub(super) fn resume_at(&mut self, position: u64, expected: Offset) {
        self.position = position;
        self.expected = expected;
        self.end = None;
        self.chunk.clear();
        self.chunk_at = position;
        self.populated_to = position;
    }

    /// True where a good batch lies right behind the bad one, by the bad one's own length: a sign of damage rather than of
    /// a write that was cut short.
    pub fn good_batch_follows(&mut self) -> Result<bool, LogError> {
        let Ok(header) = BatchHeader::parse(self.unread()) else { return Ok(false) };
        let next = self.position + header.size_bytes() as u64;
        if header.size_bytes() > BATCH_BYTES_MAX || next >= self.file_bytes {
            return Ok(false);
        }
        let mut probe = BatchScan::of(self.source.clone(), self.path, next, self.expected)?;
        Ok(probe.step()?.is_some())
    }

    fn stop(&mut self, e: BatchError) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let zeros = self.unread().iter().take(HEADER_LEN).all(|byte| *byte == 0);
        self.end = Some(if zeros { ScanEnd::Zeros } else { ScanEnd::Bad(e) });
        Ok(None)
    }

    /// Bytes in memory, of a file that were read last.
    pub(super) fn bytes_read(&self) -> u64 {
        self.chunk.len() as u64
    }

    /// Lets any offset follow.
    pub(super) fn forget_order(&mut self) {
        self.expected = Offset::ZERO;
    }

    /// What is in memory from the position on: a header at least, unless the file ends before.
    pub(super) fn unread(&self) -> &[u8] {
        self.held_from(self.position)
    }

    fn held_from(&self, position: u64) -> &[u8] {
        let (held, from) = match &self.source {
            SegmentBytes::Mapped(map) => {
                let whole: &[u8] = (**map).as_ref();
                (&whole[..(self.populated_to as usize).min(whole.len())], position)
            }
            SegmentBytes::File(_) => (&self.chunk[..], position - self.chunk_at),
        };
        &held[(from as usize).min(held.len())..]
    }

    /// Has at least `wanted` bytes from the position in memory, or all there are.
    fn fill(&mut self, wanted: usize) -> Result<(), LogError> {
        let left = (self.file_bytes - self.position) as usize;
        if self.unread().len() >= wanted.min(left) {
            return Ok(());
        }
        let bytes = wanted.max(CHUNK_BYTES).min(left);
        let failed = LogError::io("read", self.path);
        match &self.source {
            SegmentBytes::Mapped(map) => {
                let from = self.populated_to.max(self.position);
                let to = self.position + bytes as u64;
                map.populate(from as usize..to as usize).map_err(failed)?;
                self.populated_to = to;
            }
            SegmentBytes::File(file) => {
                self.chunk.resize(bytes, 0);
                let read = read_full_at(&**file, &mut self.chunk, self.position).map_err(failed)?;
                self.chunk.truncate(read);
                self.chunk_at = self.position;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::batch::{BatchBuilder, NewRecord};

    use super::*;
    use crate::fs::{Disk, OpenMode, RealDisk, SyncPoint, write_all_at};

    #[test]
    fn a_page_lost_under_a_batch_that_was_good_is_told_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.open(&path, OpenMode::Create).unwrap();
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: 1, key: None, value: Some(&[7; 9000]), headers: &[] };
        builder.push(&record).unwrap();
        let batch = builder.build().unwrap();
        write_all_at(&*file, &mut [std::io::IoSlice::new(batch.as_bytes())], 0).unwrap();
        file.sync(SyncPoint::AppendData).unwrap();
        let source = SegmentBytes::Mapped(Arc::new(file.map(batch.size_bytes() as u64).unwrap()));
        let mut scan = BatchScan::of(source, &path, 0, Offset(0)).unwrap();
        let good = scan.step().unwrap().unwrap();
        assert_eq!(good.bytes, batch.as_bytes());
        file.set_size(0).unwrap();
        assert!(good.bytes.iter().all(|byte| *byte == 0));
        assert!(scan.check().is_err() && scan.step().is_err());
    }
}
