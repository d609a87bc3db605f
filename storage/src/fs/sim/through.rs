//! Writes of a simulated disk that wait for the platter. Until one has returned, a power cut leaves of it what it leaves of any other.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{FileOp, SimDisk, SimFile, State, Target};
use crate::fs::sim::FaultOn;
use crate::fs::{BLOCK_BYTES, DiskFile, FileMap, SyncPoint};

#[derive(Debug)]
struct ThroughFile {
    file: SimFile,
    point: SyncPoint,
}

impl SimDisk {
    /// From now on, and until it is healed, the disk has no way past the memory of its system, neither for a file that is opened nor for one that
    /// was.
    pub fn refuse_through(&self) {
        self.state.lock().faults.refuses_through = true;
    }
}

pub(super) fn open(file: SimFile, point: SyncPoint, state: &State) -> io::Result<Arc<dyn DiskFile>> {
    if state.faults.refuses_through {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Arc::new(ThroughFile { file, point }))
}

impl DiskFile for ThroughFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at_hand(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        if self.file.disk.state.lock().faults.refuses_through {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let is_whole = |n: usize| n.is_multiple_of(BLOCK_BYTES);
        if !is_whole(at as usize) || from.iter().any(|s| !is_whole(s.len()) || !is_whole(s.as_ptr() as usize))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.file.disk.state.lock();
        let (inode, path) = (self.file.inode, &self.file.path);
        let mut bytes: Vec<u8> = from.iter().flat_map(|slice| slice.iter().copied()).collect();
        let grows = (at + bytes.len() as u64).saturating_sub(state.inodes[inode].live.len() as u64);
        let used = state.live_bytes();
        let fits = state.faults.check_write(path, bytes.len(), grows, used)?;
        let fits = bytes.len().min(fits.next_multiple_of(BLOCK_BYTES));
        bytes.truncate(fits);
        state.sync_overlapping(inode, at..at + fits as u64);
        let operation = state.operations;
        state.write(inode, FileOp::Write { at, bytes: Bytes::from(bytes) });
        if let Err(e) = state.faults.check(FaultOn::Sync, path) {
            // It may be there, or not.
            state.faults.note_failed_sync(self.point);
            return Err(e);
        }
        if !state.skips(self.point) {
            let inode = &mut state.inodes[inode];
            let (now, later) =
                std::mem::take(&mut inode.pending).into_iter().partition(|(at, _)| *at == operation);
            inode.pending = later;
            let now: Vec<(u64, FileOp)> = now;
            now.iter().for_each(|(_, op)| inode.apply(Target::Durable, op));
        }
        state.changed();
        Ok(fits)
    }

    fn set_size(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self, _: SyncPoint) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map(&self, _: u64) -> io::Result<FileMap> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl State {
    /// What the system had in memory of `range` goes to the disk first; of the file's size that cannot be said.
    fn sync_overlapping(&mut self, inode: usize, range: Range<u64>) {
        let inode = &mut self.inodes[inode];
        let overlaps = |op: &FileOp| match op {
            FileOp::Write { at, bytes } => *at < range.end && at + bytes.len() as u64 > range.start,
            FileOp::SetSize(_) => false,
        };
        let is_size_unsynced = inode.pending.iter().any(|(_, op)| matches!(op, FileOp::SetSize(_)));
        if is_size_unsynced && self.skipped.is_none() {
            self.violations.push("a write past the memory of a file whose size is not synced".to_owned());
        }
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inode.pending).into_iter().partition(|(_, op)| overlaps(op));
        inode.pending = later;
        now.iter().for_each(|(_, op)| inode.apply(Target::Durable, op));
    }
}
