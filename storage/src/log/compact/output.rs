//! A cleaned segment while it is written: data in large pieces, indexes beside it, all under names that are swept at opening
//! until the manifest speaks of them.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::Offset;

use crate::error::LogError;
use crate::fs::{Disk, DiskFile, OpenMode, SyncPoint, remove_if_present, with_suffix, write_all_at};
use crate::index::transaction_index::EntriesFacts;
use crate::index::{AbortedTransaction, IndexPolicy, Indexer, offset_index, time_index};
use crate::key_index::file::Indexed;
use crate::key_index::map::KeyMap;
use crate::key_index::write::encode;
use crate::key_index::{BatchKeys, KeySeed};
use crate::log::files::TEMPORARY;
use crate::segment::SegmentFacts;
use crate::segment::name::{FileKind, path_of};

/// Bytes gathered before they are written: few enough that the system finds them in a core's cache when it copies them.
const PIECE_BYTES: usize = 256 << 10;
/// Positions in an index have 31 bits.
pub(super) const OUTPUT_BYTES_MAX: u64 = i32::MAX as u64;

/// The files of one cleaned segment.
#[derive(Debug)]
pub(super) struct Output {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    base: Offset,
    data: Arc<dyn DiskFile>,
    path: PathBuf,
    piece: Vec<u8>,
    written: u64,
    indexer: Indexer,
    offsets: Vec<u8>,
    times: Vec<u8>,
    keys: Option<Keys>,
}

/// The key index of the cleaned batches.
#[derive(Debug)]
struct Keys {
    seed: KeySeed,
    map: KeyMap,
    /// Position and checksum of the last batch.
    last: (u64, u32),
}

impl Output {
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        dir: Arc<Path>,
        base: Offset,
        policy: IndexPolicy,
        keys: Option<KeySeed>,
    ) -> Result<Output, LogError> {
        // A stale index of an unfinished pass must not be taken for this one's where this one has none.
        remove_unfinished(&*disk, &dir, base)?;
        let path = path_of(&dir, base, FileKind::Cleaned);
        let data = disk.open(&path, OpenMode::Create).map_err(LogError::io("create", &path))?;
        Ok(Output {
            disk,
            dir,
            base,
            data,
            path,
            piece: Vec::with_capacity(PIECE_BYTES),
            written: 0,
            indexer: Indexer::new(base, policy),
            offsets: Vec::new(),
            times: Vec::new(),
            keys: keys.map(|seed| Keys { seed, map: KeyMap::new(None), last: (0, 0) }),
        })
    }

    /// Where the next batch goes.
    pub(super) fn position(&self) -> u64 {
        self.written + self.piece.len() as u64
    }

    pub(super) fn push(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), LogError> {
        let position = self.position();
        if position + batch.len() as u64 > OUTPUT_BYTES_MAX {
            let reason = "a cleaned segment would pass 2 GiB; lower segment.bytes".to_owned();
            return Err(LogError::Refused { path: self.path.clone(), reason });
        }
        let entries = self
            .indexer
            .on_batch(header, position as u32)
            .map_err(|source| LogError::BadFile { path: self.path.clone(), source })?;
        if let Some(entry) = entries.offset {
            self.offsets.extend_from_slice(&entry.encode());
        }
        if let Some(entry) = entries.time {
            self.times.extend_from_slice(&entry.encode());
        }
        if let Some(keys) = &mut self.keys {
            let of_batch = BatchKeys::of_stored(batch, header, keys.seed);
            let offset = u32::try_from(header.base_offset - self.base).unwrap_or(u32::MAX);
            keys.map.add(&of_batch, offset, position as u32);
            keys.last = (position, header.crc);
        }
        if self.piece.len() + batch.len() > PIECE_BYTES {
            self.flush()?;
        }
        self.piece.extend_from_slice(batch);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        write_all_at(&*self.data, &mut [IoSlice::new(&self.piece)], self.written)
            .map_err(LogError::io("write", &self.path))?;
        self.written += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Completes the files and makes all that the swap relies on durable: bytes, aborted transactions where there were any, and
    /// the names of both. `end` is the end of what was read.
    pub(super) fn finish(
        mut self,
        end: Offset,
        aborted: Option<&[AbortedTransaction]>,
    ) -> Result<SegmentFacts, LogError> {
        self.flush()?;
        if let Some(entry) = self.indexer.final_time_entry() {
            self.times.extend_from_slice(&entry.encode());
        }
        sync(&*self.data, &self.path)?;
        self.write_index(FileKind::OffsetIndex, &self.offsets)?;
        self.write_index(FileKind::TimeIndex, &self.times)?;
        if let Some(keys) = self.keys.take().filter(|_| self.written > 0) {
            let (last_position, last_crc) = keys.last;
            let indexed = Indexed { base: self.base, end, bytes: self.written, last_position, last_crc };
            self.write_index(FileKind::KeyIndex, &encode(&keys.map.into_table(), keys.seed, &indexed))?;
        }
        let mut facts = EntriesFacts::default();
        if let Some(aborted) = aborted {
            let entries: Vec<u8> = aborted.iter().flat_map(|a| a.encode()).collect();
            facts = EntriesFacts::of(&entries);
            let path = path_of(&self.dir, self.base, FileKind::CleanedTransactions);
            let file = self.write_file(&path, &entries)?;
            sync(&*file, &path)?;
        }
        self.disk
            .sync_dir(&self.dir, SyncPoint::CompactedCreated)
            .map_err(LogError::io("sync", &self.dir))?;
        Ok(SegmentFacts {
            base: self.base,
            end,
            bytes: self.written,
            largest_timestamp: self.indexer.largest_timestamp(),
            offset_entries: (self.offsets.len() / offset_index::ENTRY_LEN) as u32,
            time_entries: (self.times.len() / time_index::ENTRY_LEN) as u32,
            aborted: facts,
            settled: true,
        })
    }

    fn write_index(&self, kind: FileKind, entries: &[u8]) -> Result<(), LogError> {
        self.write_file(&index_aside(&self.dir, self.base, kind), entries).map(|_| ())
    }

    fn write_file(&self, path: &Path, content: &[u8]) -> Result<Arc<dyn DiskFile>, LogError> {
        let file = self.disk.open(path, OpenMode::Create).map_err(LogError::io("create", path))?;
        write_all_at(&*file, &mut [IoSlice::new(content)], 0).map_err(LogError::io("write", path))?;
        Ok(file)
    }
}

/// The one place that waits for cleaned bytes, those of the transaction index among them.
fn sync(file: &dyn DiskFile, path: &Path) -> Result<(), LogError> {
    file.sync(SyncPoint::CompactedData).map_err(LogError::io("sync", path))
}

/// Indexes can be made anew at any time, so their unfinished files carry the suffix that is swept without a look.
pub(super) fn index_aside(dir: &Path, base: Offset, kind: FileKind) -> PathBuf {
    with_suffix(&path_of(dir, base, kind), TEMPORARY)
}

/// Removes whatever a cleaned segment has left under its unfinished names.
pub(super) fn remove_unfinished(disk: &dyn Disk, dir: &Path, base: Offset) -> Result<(), LogError> {
    let paths = [
        path_of(dir, base, FileKind::Cleaned),
        path_of(dir, base, FileKind::CleanedTransactions),
        index_aside(dir, base, FileKind::OffsetIndex),
        index_aside(dir, base, FileKind::TimeIndex),
        index_aside(dir, base, FileKind::KeyIndex),
    ];
    for path in paths {
        remove_if_present(disk, &path).map_err(LogError::io("remove", &path))?;
    }
    Ok(())
}
