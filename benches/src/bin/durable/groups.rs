//! The machine's disk, with a note of how many bytes of batches each sync covered.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use floodmark_storage::fs::{DirEntry, Disk, DiskFile, DiskLock, FileMap, OpenMode, RealDisk, SyncPoint};

/// Bytes of batches by the sync that covered them.
#[derive(Debug, Default)]
struct Notes {
    unsynced: AtomicU64,
    groups: Mutex<Vec<u64>>,
}

/// A disk that passes everything on.
#[derive(Debug, Default)]
pub(crate) struct GroupsDisk {
    notes: Arc<Notes>,
}

#[derive(Debug)]
struct GroupsFile {
    file: Arc<dyn DiskFile>,
    notes: Arc<Notes>,
}

impl GroupsDisk {
    /// Bytes of each group since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.notes.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Disk for GroupsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        if path.extension().is_some_and(|extension| extension == "log") {
            return Ok(Arc::new(GroupsFile { file, notes: Arc::clone(&self.notes) }));
        }
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path, point: SyncPoint) -> io::Result<()> {
        RealDisk.sync_dir(dir, point)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        RealDisk.lock(path)
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.available_bytes(dir)
    }
}

impl DiskFile for GroupsFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(into, at)
    }

    fn read_at_hand(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at_hand(into, at)
    }

    fn write_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let written = self.file.write_at(from, at)?;
        // Zeros written ahead are not what a caller waits for; batches begin with an offset and a length that is none.
        if from.first().and_then(|slice| slice.get(8..12)) != Some(&[0; 4]) {
            self.notes.unsynced.fetch_add(written as u64, Ordering::Relaxed);
        }
        Ok(written)
    }

    fn let_go(&self, range: Range<u64>) {
        self.file.let_go(range);
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.file.set_size(bytes)
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        let group = match point {
            SyncPoint::AppendData => self.notes.unsynced.swap(0, Ordering::Relaxed),
            _ => 0,
        };
        if group > 0 {
            self.notes.groups.lock().unwrap_or_else(PoisonError::into_inner).push(group);
        }
        self.file.sync(point)
    }

    fn map(&self, bytes: u64) -> io::Result<FileMap> {
        self.file.map(bytes)
    }
}
