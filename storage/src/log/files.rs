//! What lies in a log's directory, and the changes to its files that recovery and the running log make alike.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::MANIFEST_FILE;
use crate::error::LogError;
use crate::fs::{
    DirEntry, Disk, DiskFile, OpenMode, ReplaceSyncs, SyncPoint, remove_if_present, replace_file,
    write_all_at,
};
use crate::manifest::Manifest;
use crate::segment::name::{self, FileKind};

/// Suffix of a file that was not finished before it got its name.
pub(super) const TEMPORARY: &str = ".tmp";

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
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IndexBytes {
    /// `None` where there is no such file.
    pub(crate) offset: Option<u64>,
    /// See `offset`.
    pub(crate) time: Option<u64>,
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
            None => {}
        }
    }
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
