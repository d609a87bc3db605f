//! Steps through a whole data file, over damage and on: what inspection does where recovery would stop.
//! Must not know what damage means for the log; it only says what lies where.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::header::MAGIC;
use floodmark_proto::batch::{BatchError, BatchHeader, HEADER_LEN};
use floodmark_proto::ids::Offset;

use super::scan::{BATCH_BYTES_MAX, BatchScan, ScanEnd, Scanned};
use crate::error::LogError;
use crate::fs::{DiskFile, read_full_at};

const CHUNK_BYTES: usize = 1 << 20;
/// Offset of the magic byte in a header.
const MAGIC_AT: usize = 16;
/// Zeros looked through for a batch behind them: more than a log that is filled with zeros ahead has unsynced, for each of its appends is synced.
/// What is filled may be a whole segment.
const ZEROS_SEARCHED_BYTES: u64 = 64 << 20;
/// Bytes read to find out whether places that look like headers are batches: records may be full of such places.
const PROBED_BYTES_MAX: u64 = 256 << 20;

/// One piece of a data file.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A batch that passes all checks of its own; whether its offsets follow those before it is for the caller to say.
    Batch(Scanned<'a>),
    /// Bytes that are no batch, up to where one begins again or the file ends.
    Bad(BadBytes),
    /// Nothing but zeros up to the end of the file: written ahead of the log's end.
    Zeros {
        /// Where they begin.
        position: u64,
        /// How many.
        bytes: u64,
    },
}

/// Bytes that are no batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadBytes {
    /// Where they begin.
    pub position: u64,
    /// How many there are until a good batch or the end of the file.
    pub bytes: u64,
    /// Why they are no batch.
    pub reason: BatchError,
    /// True where they are zeros and not even a header.
    pub begins_with_zeros: bool,
    /// What the header says where there is one; nothing vouches for it.
    pub header: Option<BatchHeader>,
    /// True where a good batch follows.
    pub batch_follows: bool,
}

/// A walk through one data file. Takes memory for the largest batch in it, at most [`BATCH_BYTES_MAX`].
#[derive(Debug)]
pub struct Survey<'a> {
    scan: BatchScan<'a>,
    file: Arc<dyn DiskFile>,
    path: &'a Path,
    file_bytes: u64,
    /// What may still be spent; a survey that finds out all there is has no limits.
    zeros_max: u64,
    probe_bytes: Cell<u64>,
    /// Offsets of a segment lie within 31 bits of its base: bytes that say otherwise are no batch of it.
    offsets: std::ops::RangeInclusive<i64>,
}

impl<'a> Survey<'a> {
    /// Begins at the start of `file`, whose first offset is `base`.
    pub fn new(file: Arc<dyn DiskFile>, path: &'a Path, base: Offset) -> Result<Survey<'a>, LogError> {
        let file_bytes = file.size().map_err(LogError::io("look at", path))?;
        let scan = BatchScan::new(Arc::clone(&file), path, 0, Offset::ZERO)?;
        let offsets = base.0..=base.0.saturating_add(i64::from(i32::MAX));
        let (zeros_max, probe_bytes) = (u64::MAX, Cell::new(u64::MAX));
        Ok(Survey { scan, file, path, file_bytes, zeros_max, probe_bytes, offsets })
    }

    /// Begins at `position` instead.
    #[must_use]
    pub(crate) fn from(mut self, position: u64) -> Survey<'a> {
        self.scan.resume_at(position, Offset::ZERO);
        self
    }

    /// True where a batch lies at the survey's place or behind it, or trying places that look like one would take too long. Behind more zeros
    /// in a row than a log has unsynced none is looked for. Time and memory are bounded, whatever the bytes.
    pub(crate) fn may_hold_batch(mut self) -> Result<bool, LogError> {
        self.zeros_max = ZEROS_SEARCHED_BYTES;
        self.probe_bytes = Cell::new(PROBED_BYTES_MAX);
        while let Some(piece) = self.step()? {
            match piece {
                Piece::Batch(_) => return Ok(true),
                Piece::Zeros { .. } => return Ok(false),
                Piece::Bad(bad) if bad.batch_follows => return Ok(true),
                Piece::Bad(_) => {}
            }
        }
        Ok(false)
    }

    /// Size of the file when the walk began; what is appended later is not looked at.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The next piece; `None` at the end of the file. Fails only where the disk cannot be read.
    pub fn step(&mut self) -> Result<Option<Piece<'_>>, LogError> {
        if let Some(found) = self.scan.advance()? {
            self.scan.forget_order();
            return Ok(Some(Piece::Batch(self.scan.scanned(found))));
        }
        let position = self.scan.position();
        let (reason, begins_with_zeros) = match self.scan.end() {
            ScanEnd::Bad(reason) => (reason, false),
            ScanEnd::Zeros => match self.zeros_until(position)? {
                at if at == self.file_bytes => {
                    self.scan.resume_at(at, Offset::ZERO);
                    return Ok(Some(Piece::Zeros { position, bytes: at - position }));
                }
                _ => (BatchError::UnsupportedMagic(0), true),
            },
            ScanEnd::Complete | ScanEnd::OutOfOrder { .. } | ScanEnd::OutOfRange { .. } => return Ok(None),
        };
        let header = BatchHeader::parse(self.scan.unread()).ok();
        let next = self.next_batch(position, header.as_ref())?;
        self.scan.resume_at(next, Offset::ZERO);
        Ok(Some(Piece::Bad(BadBytes {
            position,
            bytes: next - position,
            reason,
            begins_with_zeros,
            header,
            batch_follows: next < self.file_bytes,
        })))
    }

    /// Where the zeros from `position` on end.
    fn zeros_until(&self, mut position: u64) -> Result<u64, LogError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let searched_to = position.saturating_add(self.zeros_max);
        while position < self.file_bytes.min(searched_to) {
            let read = self.read(&mut chunk, position)?;
            if let Some(at) = chunk[..read].iter().position(|byte| *byte != 0) {
                return Ok(position + at as u64);
            }
            if read == 0 {
                // The file was cut since the walk began.
                return Ok(self.file_bytes);
            }
            position += read as u64;
        }
        Ok(self.file_bytes)
    }

    /// Where the next good batch begins, or the end of the file.
    fn next_batch(&self, position: u64, header: Option<&BatchHeader>) -> Result<u64, LogError> {
        // A batch may carry another one in a record, so the bad one's own length comes before any search.
        if let Some(header) = header.filter(|h| h.size_bytes() <= BATCH_BYTES_MAX) {
            let next = position + header.size_bytes() as u64;
            if next == self.file_bytes || (next < self.file_bytes && self.is_batch(next)?) {
                return Ok(next);
            }
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let (mut at, mut zeros) = (position + 1, 0);
        while at < self.file_bytes && zeros < self.zeros_max {
            let read = self.read(&mut chunk, at)?;
            let Some(last) = read.checked_sub(HEADER_LEN) else { break };
            // No header is all zeros, nor does one begin where the rest of these is.
            let is_zeros = chunk[..read].iter().all(|byte| *byte == 0);
            zeros = if is_zeros { zeros + read as u64 } else { 0 };
            for n in (0..=last).take_while(|_| !is_zeros) {
                if self.may_be_header(&chunk[n..]) && self.is_batch(at + n as u64)? {
                    return Ok(at + n as u64);
                }
            }
            at += last as u64 + 1;
        }
        Ok(self.file_bytes)
    }

    /// A cheap look, so that few places are worth a checksum.
    fn may_be_header(&self, bytes: &[u8]) -> bool {
        bytes.get(MAGIC_AT) == Some(&(MAGIC as u8))
            && BatchHeader::parse(bytes).is_ok_and(|h| {
                self.offsets.contains(&h.base_offset.0)
                    && self.offsets.contains(&h.last_offset().0)
                    && h.attributes.reserved_bits() == 0
                    && h.size_bytes() <= BATCH_BYTES_MAX
            })
    }

    fn is_batch(&self, at: u64) -> Result<bool, LogError> {
        let left = self.probe_bytes.get();
        if left == 0 {
            return Ok(true);
        }
        let mut probe = BatchScan::new(Arc::clone(&self.file), self.path, at, Offset::ZERO)?;
        let is_batch = probe.advance()?.is_some();
        self.probe_bytes.set(left.saturating_sub(probe.bytes_read()));
        Ok(is_batch)
    }

    fn read(&self, into: &mut [u8], at: u64) -> Result<usize, LogError> {
        let wanted = into.len().min((self.file_bytes - at) as usize);
        read_full_at(&*self.file, &mut into[..wanted], at).map_err(LogError::io("read", self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use floodmark_proto::batch::{BatchBuilder, NewRecord};
    use floodmark_proto::ids::LeaderEpoch;

    use super::*;
    use crate::fs::{Disk, OpenMode, SimDisk, write_all_at};

    fn log_of(batches: i64) -> Vec<u8> {
        let mut log = Vec::new();
        for n in 0..batches {
            let mut builder = BatchBuilder::new();
            let inner = log.clone();
            let record = NewRecord { timestamp: n, key: None, value: Some(&inner), headers: &[] };
            builder.push(&record).unwrap();
            let mut batch = builder.build().unwrap();
            batch.stamp(Offset(n), LeaderEpoch(0));
            log.extend_from_slice(batch.as_bytes());
        }
        log
    }

    /// Kinds and places of all pieces, and that they cover the file without a gap.
    fn pieces(bytes: &[u8]) -> Vec<(char, u64)> {
        let disk = SimDisk::new();
        let path = Path::new("logs/a.log");
        disk.create_dir_all(Path::new("logs")).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
        let mut survey = Survey::new(file, path, Offset::ZERO).unwrap();
        let (mut found, mut end) = (Vec::new(), 0);
        while let Some(piece) = survey.step().unwrap() {
            let (kind, position, bytes) = match piece {
                Piece::Batch(batch) => ('b', batch.position, batch.bytes.len() as u64),
                Piece::Bad(bad) => ('x', bad.position, bad.bytes),
                Piece::Zeros { position, bytes } => ('0', position, bytes),
            };
            assert_eq!(position, end);
            end = position + bytes;
            found.push((kind, position));
        }
        assert_eq!(end, bytes.len() as u64);
        found
    }

    /// What is filled with zeros ahead may be a whole segment, and an opening is not to read it all.
    #[test]
    fn behind_more_zeros_than_are_searched_no_batch_is_looked_for() {
        let disk = SimDisk::new();
        let path = Path::new("logs/a.log");
        disk.create_dir_all(Path::new("logs")).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        let mut torn = log_of(1);
        torn[HEADER_LEN] ^= 1;
        let bytes = [torn, vec![0; 5 << 20], log_of(1)].concat();
        write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0).unwrap();
        let follows = |zeros_max: u64| {
            let mut survey = Survey::new(Arc::clone(&file), path, Offset::ZERO).unwrap();
            survey.zeros_max = zeros_max;
            match survey.step().unwrap() {
                Some(Piece::Bad(bad)) => bad.batch_follows,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([2 << 20, 4 << 20, 6 << 20, u64::MAX].map(follows), [false, false, true, true]);
        assert!(Survey::new(file, path, Offset::ZERO).unwrap().may_hold_batch().unwrap());
    }

    #[test]
    fn each_damaged_byte_costs_its_own_batch_only() {
        let log = log_of(4);
        let good = pieces(&log);
        assert_eq!(good.len(), 4);
        for at in 0..log.len() {
            // Base offset and leader epoch lie outside the checksum.
            let hurt = good.iter().rposition(|(_, start)| *start <= at as u64).unwrap();
            let in_batch = at - good[hurt].1 as usize;
            if in_batch < 8 || (12..16).contains(&in_batch) {
                continue;
            }
            let mut bytes = log.clone();
            bytes[at] ^= 0x80;
            let found = pieces(&bytes);
            let kept: Vec<_> = found.iter().filter(|(kind, _)| *kind == 'b').copied().collect();
            let expected: Vec<_> =
                good.iter().enumerate().filter(|(n, _)| *n != hurt).map(|(_, piece)| *piece).collect();
            assert!(expected.iter().all(|piece| kept.contains(piece)), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_told_from_zeros_in_between() {
        let log = log_of(2);
        let second = pieces(&log)[1].1;
        let ahead = [log.as_slice(), &[0; 5_000]].concat();
        assert_eq!(pieces(&ahead), [('b', 0), ('b', second), ('0', log.len() as u64)]);
        let hole = [&[0; 5_000], log.as_slice()].concat();
        assert_eq!(pieces(&hole), [('x', 0), ('b', 5_000), ('b', 5_000 + second)]);
        assert_eq!(pieces(&[0; 10]), [('0', 0)]);
        assert_eq!(pieces(&log[..second as usize + 70]), [('b', 0), ('x', second)]);
        assert_eq!(pieces(&[]), []);
    }
}
