//! The machine's file system behind the seam. The only file that names `std::fs`.
#![allow(clippy::disallowed_methods, reason = "this is the file the other files are sent to")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustix::fs::{Advice, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use super::{DirEntry, Disk, DiskFile, DiskLock, FileMap, LockHeld, OpenMode, SyncPoint};

/// Files for the broker's user alone: records are nobody else's to read.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE).custom_flags(libc::O_NOFOLLOW);
        match mode {
            OpenMode::Through(_) => {
                options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECT | libc::O_DSYNC);
            }
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed by its owner between the listing and the look at it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if let Ok(name) = entry.file_name().into_string() {
                let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                entries.push(DirEntry {
                    name,
                    is_dir: metadata.is_dir(),
                    bytes: metadata.len(),
                    modified_ms: i64::try_from(modified.as_millis()).unwrap_or(i64::MAX),
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path, _point: SyncPoint) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        // The kind that Java takes, and so Kafka, is another one, which a second handle of the same process would pass.
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DiskLock(Box::new(file))),
            Err(Errno::ACCESS | Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => Err(e.into()),
        }
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl LockHeld for File {}

/// `RWF_DONTCACHE` (include/uapi/linux/fs.h, since Linux 6.14), which has no name in rustix yet: written to the disk at once, in the background,
/// and then out of the page cache. What is read back meanwhile, and what a sync says, is as of any other write.
const PASSING: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// The page cache holds files in blocks of many pages, with pages of 4 KiB of no more than this, and lets go of whole ones only: one that reached
/// over the end last time is met again.
const BLOCK_MAX_BYTES: u64 = 2 << 20;

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(into, at)
    }

    fn read_at_hand(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        Ok(rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT)?)
    }

    fn write_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        match from {
            [one] => self.0.write_at(one, at),
            many => Ok(rustix::io::pwritev(&self.0, many, at)?),
        }
    }

    fn write_passing_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        match rustix::io::pwritev2(&self.0, from, at, PASSING) {
            // What this system or this file system does not know, or a filter of calls does not let through, is written as anything else.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => self.write_at(from, at),
            written => Ok(written?),
        }
    }

    fn let_go(&self, range: Range<u64>) {
        // Whole pages before the end: a part of one that is not there would have to be read before anything can be written behind it.
        let end = range.end - range.end % rustix::param::page_size() as u64;
        let from = range.start.saturating_sub(BLOCK_MAX_BYTES);
        if let Some(bytes) = NonZeroU64::new(end.saturating_sub(from)) {
            // Where it fails, memory holds more than it must.
            let _ = rustix::fs::fadvise(&self.0, from, Some(bytes), Advice::DontNeed);
        }
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self, _point: SyncPoint) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self, bytes: u64) -> io::Result<FileMap> {
        FileMap::of_file(&self.0, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{BLOCK_BYTES, Blocks, read_full_at, write_all_at, write_all_passing_at};

    /// `TMPFS_MAGIC` of include/uapi/linux/magic.h.
    const TMPFS: i64 = 0x0102_1994;

    #[test]
    fn what_is_let_go_is_on_the_disk_alone_but_for_the_page_that_the_next_write_goes_on_in() {
        // Beside the program, for in a directory for temporary files there may be no disk.
        let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        // A file system in memory has nothing to let go to.
        let is_on_a_disk = rustix::fs::statfs(dir.path()).unwrap().f_type != TMPFS;
        let file = RealDisk.open(&dir.path().join("file"), OpenMode::Create).unwrap();
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
        let mut end = 0;
        for piece in bytes.chunks(1_000_001) {
            write_all_at(&*file, &mut [IoSlice::new(piece)], end as u64).unwrap();
            file.sync(SyncPoint::AppendData).unwrap();
            let begin = end;
            end += piece.len();
            // Asks what is there, where a read would bring it in.
            let map = file.map(end as u64).unwrap();
            let is_there = |at: usize| map.is_resident(&(at..at + 1));
            assert!(is_there(begin) && is_there(end - 1));
            file.let_go(begin as u64..end as u64);
            for at in [0, begin, begin + piece.len() / 2] {
                assert!(!is_there(at) || !is_on_a_disk, "{at} of {end}");
            }
            assert!(is_there(end - 1), "{end}");
        }
        let mut read = vec![0; bytes.len()];
        assert_eq!(read_full_at(&*file, &mut read, 0).unwrap(), bytes.len());
        assert!(read == bytes);
    }

    #[test]
    fn what_passes_is_read_back_as_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("file"), OpenMode::Create).unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let mut at = 0;
        // Pieces that end inside of pages, which the next one goes on in.
        for piece in bytes.chunks(70_001) {
            let (first, second) = piece.split_at(piece.len() / 3);
            let mut slices = [IoSlice::new(first), IoSlice::new(second)];
            write_all_passing_at(&*file, &mut slices, at).unwrap();
            at += piece.len() as u64;
            let mut read = vec![0; at as usize];
            assert_eq!(read_full_at(&*file, &mut read, 0).unwrap(), read.len());
            assert!(read == bytes[..read.len()]);
        }
        file.sync(SyncPoint::AppendData).unwrap();
        let mut read = vec![0; bytes.len() + 1];
        assert_eq!(read_full_at(&*file, &mut read, 0).unwrap(), bytes.len());
        assert!(read[..bytes.len()] == bytes);
    }

    #[test]
    fn what_goes_past_the_memory_of_the_system_is_found_by_who_reads_through_it() {
        let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        let path = dir.path().join("file");
        let cached = RealDisk.open(&path, OpenMode::Create).unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let begin = BLOCK_BYTES + 900;
        write_all_at(&*cached, &mut [IoSlice::new(&bytes[..begin])], 0).unwrap();
        cached.sync(SyncPoint::AppendData).unwrap();
        let through = match RealDisk.open(&path, OpenMode::Through(SyncPoint::AppendThrough)) {
            Ok(through) => through,
            Err(e) => {
                let kind = rustix::fs::statfs(dir.path()).unwrap().f_type;
                assert!(kind == TMPFS && e.kind() == io::ErrorKind::InvalidInput, "{kind:#x}: {e}");
                return;
            }
        };
        let mut at = BLOCK_BYTES;
        let mut blocks = Blocks::new(1 << 20);
        assert!(blocks.iter().all(|byte| *byte == 0));
        // Each begins in the block in which the one before has ended, which somebody has in memory.
        for end in [begin + 1, begin + 5_000, begin + 200_000, bytes.len()] {
            let whole = (end - at).next_multiple_of(BLOCK_BYTES);
            blocks[..end - at].copy_from_slice(&bytes[at..end]);
            blocks[end - at..whole].fill(0);
            write_all_at(&*through, &mut [IoSlice::new(&blocks[..whole])], at as u64).unwrap();
            let mut read = vec![0; end];
            assert_eq!(read_full_at(&*cached, &mut read, 0).unwrap(), end);
            assert!(read == bytes[..end], "{end}");
            at = end - end % BLOCK_BYTES;
        }
        let apart = through.write_at(&[IoSlice::new(&blocks[..100])], 0).unwrap_err();
        assert_eq!(apart.kind(), io::ErrorKind::InvalidInput);
    }
}
