//! The seam through which all files are reached: what storage asks of a disk, and the disks that answer.
//! [`RealDisk`] is the machine's; [`SimDisk`] holds back what was not synced, so that tests can cut its power;
//! [`OverlayDisk`] keeps all changes to itself, for dry runs.
//!
//! Every call blocks. No other file of this crate may name `std::fs`.

mod blocks;
mod map;
mod overlay;
mod real;
mod sigbus;
pub mod sim;

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use blocks::Blocks;
pub use map::FileMap;
pub use overlay::OverlayDisk;
pub use real::RealDisk;
pub use sim::SimDisk;

/// Names each place in the code that waits for bytes to reach the platter.
///
/// A test skips one of them at a time and demands that lost or invented data shows: a sync that can be skipped unnoticed
/// has no place in the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncPoint {
    /// Appended batches of the active segment.
    AppendData,
    /// The same where each write waits for the disk ([`OpenMode::Through`]).
    AppendThrough,
    /// Batches that there was no such way for after all.
    AppendRefused,
    /// Batches left unsynced in a segment that was rolled since.
    SealedData,
    /// The directory entry of a new segment, before data in it may be acknowledged.
    SegmentCreated,
    /// Aborted transactions, before the recovery point passes them.
    TransactionIndex,
    /// Producer state at the recovery point.
    ProducerSnapshot,
    /// The new manifest's bytes, before it takes the old one's name.
    ManifestData,
    /// The manifest's rename.
    ManifestRenamed,
    /// The shortened tail, before anything is written behind it again.
    TailCut,
    /// Names of removed files, which must not come back, and the name of a shortened copy.
    SegmentsRemoved,
    /// Zeros ahead of the log's end. For speed alone: without it an append would wait for them.
    Prewritten,
    /// The shortened copy of a segment that readers may have mapped.
    TruncateCopy,
    /// A compacted segment's bytes.
    CompactedData,
    /// A compacted segment's temporary name, before the manifest speaks of it.
    CompactedCreated,
    /// The compacted segment's final name, before the manifest forgets the swap.
    CompactedRenamed,
    /// The leader-epoch file's bytes.
    EpochsData,
    /// The leader-epoch file's rename.
    EpochsRenamed,
    /// The copy of damaged bytes, before the log is cut there.
    SetAside,
    /// Identity files: partition metadata and the format marker of a data directory.
    IdentityData,
    /// The name of an identity file.
    IdentityRenamed,
    /// A data directory in its parent, and what was made in it.
    DataDirCreated,
    /// A partition's directory in its parent.
    PartitionCreated,
    /// The absence of a removed partition.
    PartitionRemoved,
    /// The directory of cluster metadata in its data directory.
    MetadataDirCreated,
    /// The vote, and whose it is.
    NodeStateData,
    /// The rename of the file with the vote.
    NodeStateRenamed,
    /// The name of the file with the vote as it was found, before anybody is told what is in it.
    NodeStateFound,
    /// A snapshot of cluster metadata.
    ImageSnapshotData,
    /// The snapshot's rename, before the log that it stands for is removed.
    ImageSnapshotRenamed,
}

impl SyncPoint {
    /// Every sync in the code.
    pub const ALL: [SyncPoint; 30] = [
        SyncPoint::AppendData,
        SyncPoint::AppendThrough,
        SyncPoint::AppendRefused,
        SyncPoint::SealedData,
        SyncPoint::SegmentCreated,
        SyncPoint::TransactionIndex,
        SyncPoint::ProducerSnapshot,
        SyncPoint::ManifestData,
        SyncPoint::ManifestRenamed,
        SyncPoint::TailCut,
        SyncPoint::SegmentsRemoved,
        SyncPoint::Prewritten,
        SyncPoint::TruncateCopy,
        SyncPoint::CompactedData,
        SyncPoint::CompactedCreated,
        SyncPoint::CompactedRenamed,
        SyncPoint::EpochsData,
        SyncPoint::EpochsRenamed,
        SyncPoint::SetAside,
        SyncPoint::IdentityData,
        SyncPoint::IdentityRenamed,
        SyncPoint::DataDirCreated,
        SyncPoint::PartitionCreated,
        SyncPoint::PartitionRemoved,
        SyncPoint::MetadataDirCreated,
        SyncPoint::NodeStateData,
        SyncPoint::NodeStateRenamed,
        SyncPoint::NodeStateFound,
        SyncPoint::ImageSnapshotData,
        SyncPoint::ImageSnapshotRenamed,
    ];
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file for reading and writing that is made, or emptied where it exists.
    Create,
    /// An existing file, past the memory that the system keeps of it: what a write has taken is on the disk when it returns, under this name.
    /// Place, length and memory of each slice are whole blocks ([`BLOCK_BYTES`]). Fails with `InvalidInput`, here or at the first write, where a
    /// file system has no such way.
    ///
    /// While one of these writes is on its way, nobody may write into the same blocks, or change the file's size, by another handle: the system
    /// would keep the older of the two in memory.
    Through(SyncPoint),
}

/// What goes past the system's memory goes in whole blocks. Hardly a disk, and hardly a file system, asks for larger ones.
pub const BLOCK_BYTES: usize = 4096;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name alone; names that are not Unicode are never ours and are left out of listings.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Size of a file.
    pub bytes: u64,
    /// When it was last changed, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// A file system, as far as storage needs one.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens or makes a file. Never follows a symbolic link in the last component.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Gives a file or directory another name, replacing a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Returns once the names in `dir` are durable.
    fn sync_dir(&self, dir: &Path, point: SyncPoint) -> io::Result<()>;
    /// Takes the exclusive lock that `path` stands for, made if missing; fails with `WouldBlock` where another holds it.
    fn lock(&self, path: &Path) -> io::Result<DiskLock>;
    /// Bytes that may still be written below `dir`.
    fn available_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. All positions are absolute; calls may come from several threads.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Current size.
    fn size(&self) -> io::Result<u64>;
    /// Reads at `at`; fewer bytes than asked for, at the end zero.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// The same of what the system has in memory, without waiting for the disk: fewer bytes where the rest would have to be waited
    /// for, an error where that are all, or where a file system cannot tell.
    fn read_at_hand(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes at `at`, and may write less than all of it.
    fn write_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize>;
    /// The same of bytes that nobody reads soon: the system need not keep them in memory, and begins to write them at once where it can.
    fn write_passing_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        self.write_at(from, at)
    }
    /// The system need not keep in memory what lies in `range`, and a little before it. What is not synced stays. A word for speed alone.
    fn let_go(&self, _range: Range<u64>) {}
    /// Cuts or extends with zeros.
    fn set_size(&self, bytes: u64) -> io::Result<()>;
    /// Returns once all bytes written before are durable. After an error the state of the file is unknown for ever.
    fn sync(&self, point: SyncPoint) -> io::Result<()>;
    /// Maps the first `bytes`, which must be written, synced, and never shortened while the map lives.
    fn map(&self, bytes: u64) -> io::Result<FileMap>;
}

/// Holds a lock until dropped.
#[derive(Debug)]
pub struct DiskLock(#[expect(dead_code, reason = "held for its drop alone")] Box<dyn LockHeld>);

/// What a disk keeps to hold a lock; dropping it lets go.
trait LockHeld: Send + Sync + fmt::Debug {}

/// Writes all of `slices` at `at`. Stops at the first error, having written part.
pub fn write_all_at(file: &dyn DiskFile, slices: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
    write_all(|now, at| file.write_at(now, at), slices, at)
}

/// The same by [`DiskFile::write_passing_at`].
pub(crate) fn write_all_passing_at(
    file: &dyn DiskFile,
    slices: &mut [IoSlice<'_>],
    at: u64,
) -> io::Result<()> {
    write_all(|now, at| file.write_passing_at(now, at), slices, at)
}

fn write_all(
    write: impl Fn(&[IoSlice<'_>], u64) -> io::Result<usize>,
    slices: &mut [IoSlice<'_>],
    mut at: u64,
) -> io::Result<()> {
    // One system call takes 1,024 slices at most.
    const SLICES_A_CALL: usize = 1024;
    let mut rest = slices;
    // A slice of no bytes would look like a write that made no progress.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(SLICES_A_CALL)];
        match write(now, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// True where the process, or the system, has as many files open as it may.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Reads until `into` is full or the file ends; returns the bytes read.
pub fn read_full_at(file: &dyn DiskFile, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads a whole file of at most `limit_bytes`; a missing file is `None`, a larger one an error.
pub fn read_small_file(disk: &dyn Disk, path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let bytes = file.size()?;
    if bytes > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has {bytes} bytes, more than the {limit_bytes} such a file may have", path.display()),
        ));
    }
    let mut content = vec![0; bytes as usize];
    let read = read_full_at(&*file, &mut content, 0)?;
    content.truncate(read);
    Ok(Some(content))
}

/// The two syncs that replacing a file takes.
#[derive(Debug, Clone, Copy)]
pub struct ReplaceSyncs {
    /// Before the rename.
    pub data: SyncPoint,
    /// After the rename.
    pub rename: SyncPoint,
}

/// Replaces `path` so that after a crash it holds either the old bytes or the new ones: write aside, sync, rename, sync
/// the directory. The only place that does this.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8], syncs: ReplaceSyncs) -> io::Result<()> {
    let aside = with_suffix(path, ".tmp");
    let file = disk.open(&aside, OpenMode::Create)?;
    if let Err(e) = write_all_at(&*file, &mut [IoSlice::new(content)], 0) {
        // On a full disk part of it would take the space of what may be tried next. Swept at the next opening, if not now.
        let _ = disk.remove_file(&aside);
        return Err(e);
    }
    // A write that finds no space has changed nothing; a sync that does has lost what was written, like any failed sync.
    file.sync(syncs.data).map_err(lost)?;
    disk.rename(&aside, path)?;
    disk.sync_dir(parent(path), syncs.rename).map_err(lost)
}

fn lost(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::StorageFull { io::Error::other(e) } else { e }
}

/// Removes a file that may be missing.
pub fn remove_if_present(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// `path` with `suffix` behind its last name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
