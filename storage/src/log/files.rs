//! What lies in a log's directory, and the changes to its files that recovery and the running log make alike.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::MANIFEST_FILE;
use super::set_aside::is_set_aside;
use crate::error::LogError;
use crate::fs::{
    DirEntry, Disk, DiskFile, OpenMode, ReplaceSyncs, SyncPoint, read_full_at, remove_if_present,
    replace_file, write_all_at,
};
use crate::manifest::Manifest;
use crate::segment::name::{self, FileKind};

/// Suffix of a file that was not finished before it got its name.
pub(super) const TEMPORARY: &str = ".tmp";

/// Stands in a log's directory from a failed write or sync until the log was recovered. Never synced: it has to last as long as the memory
/// of the system in which it is told, no longer.
const FAILED_FILE: &str = "write.failed";

/// How much is written again at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Names of one listing, sorted by what they are.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Base offset to bytes.
    pub(crate) data: BTreeMap<Offset, u64>,
    /// Base offset to the sizes of its offset and time index.
    pub(crate) indexes: BTreeMap<Offset, IndexBytes>,
    /// Base offset to bytes.
    pub(crate) transaction_indexes: BTreeMap<Offset, u64>,
    /// Base offsets.
    pub(crate) key_indexes: Vec<Offset>,
    pub(crate) snapshots: Vec<Offset>,
    /// Compacted copies that had not taken their places: base offset to bytes.
    pub(crate) cleaned: BTreeMap<Offset, u64>,
    pub(crate) cleaned_transactions: BTreeMap<Offset, u64>,
    pub(crate) temporary: Vec<String>,
    /// What an earlier opening, or `log recover`, set aside, and nobody has removed.
    pub(crate) set_aside: Vec<String>,
    /// A write or sync has failed since the log was recovered last, in a process of this run of the system.
    pub(crate) has_failed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IndexBytes {
    /// `None` where there is no such file.
    pub(crate) offset: Option<u64>,
    /// See `offset`.
    pub(crate) time: Option<u64>,
}

impl Found {
    /// Bases of data files that are gone though an index is there, which is made after them. Before the recovery point such an index is
    /// what a removal left that a crash ended, as are all of them where a truncation was under way.
    pub(crate) fn missing_data(&self, manifest: Option<&Manifest>) -> Vec<Offset> {
        if manifest.is_some_and(|m| m.truncating_to.is_some()) {
            return Vec::new();
        }
        let from = manifest.map_or(Offset::ZERO, Manifest::recovery_point);
        self.indexes.keys().copied().filter(|base| *base >= from && !self.data.contains_key(base)).collect()
    }
}

/// Lists `dir`. Names that are not a log's are left alone.
pub(crate) fn look(disk: &dyn Disk, dir: &Path) -> Result<Found, LogError> {
    let mut found = Found::default();
    for entry in disk.list(dir).map_err(LogError::io("list", dir))? {
        if entry.is_dir {
            continue;
        }
        if entry.name.ends_with(TEMPORARY) {
            found.temporary.push(entry.name);
            continue;
        }
        found.has_failed |= entry.name == FAILED_FILE;
        match name::parse(&entry.name) {
            Some((base, FileKind::Data)) => {
                found.data.insert(base, entry.bytes);
            }
            Some((base, FileKind::OffsetIndex)) => {
                found.indexes.entry(base).or_default().offset = Some(entry.bytes);
            }
            Some((base, FileKind::TimeIndex)) => {
                found.indexes.entry(base).or_default().time = Some(entry.bytes);
            }
            Some((base, FileKind::TransactionIndex)) => {
                found.transaction_indexes.insert(base, entry.bytes);
            }
            Some((base, FileKind::KeyIndex)) => found.key_indexes.push(base),
            Some((base, FileKind::Snapshot)) => found.snapshots.push(base),
            Some((base, FileKind::Cleaned)) => {
                found.cleaned.insert(base, entry.bytes);
            }
            Some((base, FileKind::CleanedTransactions)) => {
                found.cleaned_transactions.insert(base, entry.bytes);
            }
            None if is_set_aside(&entry.name) => found.set_aside.push(entry.name),
            None => {}
        }
    }
    found.set_aside.sort_unstable();
    Ok(found)
}

/// When each data file was last changed, in milliseconds since the Unix epoch.
pub(super) fn change_times(disk: &dyn Disk, dir: &Path) -> Result<BTreeMap<Offset, i64>, LogError> {
    let entries = disk.list(dir).map_err(LogError::io("list", dir))?;
    let time = |entry: &DirEntry| match name::parse(&entry.name) {
        Some((base, FileKind::Data)) => Some((base, entry.modified_ms)),
        _ => None,
    };
    Ok(entries.iter().filter_map(time).collect())
}

/// Removes all files of a segment, its data first: indexes without data are swept at the next opening.
pub(super) fn remove_segment(disk: &dyn Disk, dir: &Path, base: Offset) -> Result<(), LogError> {
    for kind in FileKind::OF_SEGMENT {
        remove(disk, dir, base, kind)?;
    }
    Ok(())
}

pub(super) fn remove(disk: &dyn Disk, dir: &Path, base: Offset, kind: FileKind) -> Result<(), LogError> {
    let path = name::path_of(dir, base, kind);
    remove_if_present(disk, &path).map_err(LogError::io("remove", &path))
}

/// Writes the producer state that belongs to `offset`. Not synced here.
pub(super) fn write_snapshot(
    disk: &dyn Disk,
    dir: &Path,
    offset: Offset,
    snapshot: &[u8],
) -> Result<(), LogError> {
    let path = name::path_of(dir, offset, FileKind::Snapshot);
    disk.open(&path, OpenMode::Create)
        .and_then(|file| write_all_at(&*file, &mut [IoSlice::new(snapshot)], 0))
        .map_err(LogError::io("write", &path))
}

/// Returns once removed names cannot come back, and new ones cannot go.
pub(super) fn settle_names(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    disk.sync_dir(dir, SyncPoint::SegmentsRemoved).map_err(LogError::io("sync", dir))
}

/// Leaves word of a failed write or sync for whoever opens the log next.
pub(super) fn note_failure(disk: &dyn Disk, dir: &Path) {
    // Where not even a name can be noted the disk is not going to take anything else.
    let _ = disk.open(&dir.join(FAILED_FILE), OpenMode::Create);
}

/// What was left by [`note_failure`] has been seen to.
pub(super) fn forget_failure(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(FAILED_FILE);
    remove_if_present(disk, &path).map_err(LogError::io("remove", &path))
}

/// Writes a part of a file once more as it reads. A system takes for written what it could not write: reads give it, no later sync
/// brings it to the disk.
pub(super) fn write_again(file: &dyn DiskFile, path: &Path, part: Range<u64>) -> Result<(), LogError> {
    let mut piece =
        vec![0; usize::try_from(PIECE_BYTES.min(part.end.saturating_sub(part.start))).unwrap_or(0)];
    let mut at = part.start;
    while at < part.end {
        let len = piece.len().min(usize::try_from(part.end - at).unwrap_or(usize::MAX));
        let read = read_full_at(file, &mut piece[..len], at).map_err(LogError::io("read", path))?;
        if read == 0 {
            return Ok(());
        }
        write_all_at(file, &mut [IoSlice::new(&piece[..read])], at).map_err(LogError::io("write", path))?;
        at += read as u64;
    }
    Ok(())
}

/// Makes `manifest` the durable truth about the log in `dir`.
pub(super) fn replace_manifest(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<(), LogError> {
    let path = dir.join(MANIFEST_FILE);
    let syncs = ReplaceSyncs { data: SyncPoint::ManifestData, rename: SyncPoint::ManifestRenamed };
    replace_file(disk, &path, manifest.format().as_bytes(), syncs).map_err(LogError::io("replace", &path))
}

/// Cuts a file that nobody maps, so that no byte behind the cut can ever be taken for a record again.
pub(super) fn cut_file(file: &Arc<dyn DiskFile>, path: &Path, bytes: u64) -> Result<(), LogError> {
    file.set_size(bytes).map_err(LogError::io("cut", path))?;
    settle_tail(file, path)
}

/// Returns once the file is on the disk as long, or as short, as it is now.
pub(super) fn settle_tail(file: &Arc<dyn DiskFile>, path: &Path) -> Result<(), LogError> {
    file.sync(SyncPoint::TailCut).map_err(LogError::io("sync", path))
}
