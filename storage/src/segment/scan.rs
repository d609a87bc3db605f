//! Reads a segment batch by batch and checks every byte: what recovery and verification do.

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchError, BatchHeader, HEADER_LEN, check_stored};
use floodmark_proto::ids::Offset;

use crate::error::LogError;
use crate::fs::{DiskFile, read_full_at};

/// Larger than any batch a broker takes (a request has 100 MiB at most): a length beyond it is damage, and no memory is
/// spent on finding that out.
pub const BATCH_BYTES_MAX: usize = 128 << 20;
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
        }
    }
}

/// Checked batches of one file, in order.
#[derive(Debug)]
pub struct BatchScan<'a> {
    file: Arc<dyn DiskFile>,
    path: &'a Path,
    position: u64,
    file_bytes: u64,
    expected: Offset,
    chunk: Vec<u8>,
    chunk_at: u64,
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
        let file_bytes = file.size().map_err(LogError::io("look at", path))?;
        Ok(BatchScan {
            file,
            path,
            position,
            file_bytes,
            expected,
            chunk: Vec::new(),
            chunk_at: 0,
            end: None,
        })
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
        let position = self.position;
        self.position += size as u64;
        self.expected = header.next_offset();
        Ok(Some((position, header)))
    }

    /// The batch that the last [`BatchScan::advance`] gave.
    pub(super) fn scanned(&self, (position, header): (u64, BatchHeader)) -> Scanned<'_> {
        let from = (position - self.chunk_at) as usize;
        Scanned { position, header, bytes: &self.chunk[from..from + header.size_bytes()] }
    }

    /// Goes on behind bytes that were no batch. `expected` is the least offset that may follow.
    pub(super) fn resume_at(&mut self, position: u64, expected: Offset) {
        self.position = position;
        self.expected = expected;
        self.end = None;
        self.chunk.clear();
        self.chunk_at = position;
    }

    /// True where a good batch lies right behind the bad one, by the bad one's own length: a sign of damage rather than of
    /// a write that was cut short.
    pub fn good_batch_follows(&mut self) -> Result<bool, LogError> {
        let Ok(header) = BatchHeader::parse(self.unread()) else { return Ok(false) };
        let next = self.position + header.size_bytes() as u64;
        if header.size_bytes() > BATCH_BYTES_MAX || next >= self.file_bytes {
            return Ok(false);
        }
        let mut probe = BatchScan::new(Arc::clone(&self.file), self.path, next, self.expected)?;
        Ok(probe.step()?.is_some())
    }

    fn stop(&mut self, e: BatchError) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let zeros = self.unread().iter().take(HEADER_LEN).all(|byte| *byte == 0);
        self.end = Some(if zeros { ScanEnd::Zeros } else { ScanEnd::Bad(e) });
        Ok(None)
    }

    /// Lets any offset follow.
    pub(super) fn forget_order(&mut self) {
        self.expected = Offset::ZERO;
    }

    /// What is in memory from the position on: a header at least, unless the file ends before.
    pub(super) fn unread(&self) -> &[u8] {
        &self.chunk[((self.position - self.chunk_at) as usize).min(self.chunk.len())..]
    }

    /// Has at least `wanted` bytes from the position in memory, or all there are.
    fn fill(&mut self, wanted: usize) -> Result<(), LogError> {
        let left = (self.file_bytes - self.position) as usize;
        if self.unread().len() >= wanted.min(left) {
            return Ok(());
        }
        let bytes = wanted.max(CHUNK_BYTES).min(left);
        self.chunk.resize(bytes, 0);
        let read = read_full_at(&*self.file, &mut self.chunk, self.position)
            .map_err(LogError::io("read", self.path))?;
        self.chunk.truncate(read);
        self.chunk_at = self.position;
        Ok(())
    }
}
