//! Zeros written ahead of the log's end, so that a synced append changes no file size: half the latency of a sync, several
//! times the synced throughput (docs/PERFORMANCE.md). The zeros are written beside the writer, who waits for them only where it
//! has come up with them, and then for no more than one piece. Which file gets them, and when, its owner says.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::LogError;
use crate::fs::{DiskFile, SyncPoint, write_all_at};

/// What is written between two looks at whether the writer has come too near.
const PIECE_BYTES: usize = 256 << 10;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// How far a file is filled with zeros, and who fills it.
#[derive(Debug)]
pub(super) struct Prewrite {
    /// End of the zeros that are synced.
    filled_to: u64,
    /// Zeros could not be written, or not be synced.
    has_failed: bool,
    job: Option<Arc<Progress>>,
}

/// Asked at every append, so whoever asks waits for no write.
#[derive(Debug)]
struct Progress {
    /// Held while a piece is written.
    piece: Mutex<()>,
    /// Zeros come at or after this place only. It only grows.
    at: AtomicU64,
    /// No piece is begun any more.
    stopped: AtomicBool,
    failed: AtomicBool,
}

/// Zeros to be written and synced on any thread.
#[derive(Debug)]
pub struct PrewriteJob {
    file: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    to: u64,
    progress: Arc<Progress>,
}

impl Prewrite {
    /// For a file of `file_bytes`, all of which are on the disk.
    pub(super) fn new(file_bytes: u64) -> Prewrite {
        Prewrite { filled_to: file_bytes, has_failed: false, job: None }
    }

    /// True where fewer than half of `ahead_bytes` are left behind `position`, and nobody is writing any.
    pub(super) fn is_due(&mut self, position: u64, ahead_bytes: u64, limit: u64) -> bool {
        self.collect();
        let from = self.filled_to.max(position);
        let to = (position + ahead_bytes).min(limit);
        self.job.is_none() && from < to && from - position <= ahead_bytes / 2
    }

    /// Zeros to write, where fewer than half of `ahead_bytes` are left behind `position` and nobody is writing any.
    pub(super) fn begin(
        &mut self,
        position: u64,
        ahead_bytes: u64,
        limit: u64,
        file: Arc<dyn DiskFile>,
        path: std::path::PathBuf,
    ) -> Option<PrewriteJob> {
        if !self.is_due(position, ahead_bytes, limit) {
            return None;
        }
        let (from, to) = (self.filled_to.max(position), (position + ahead_bytes).min(limit));
        Some(self.fill(from, to, file, path))
    }

    /// Zeros from `from` to `to`. Nobody is writing any.
    pub(super) fn fill(
        &mut self,
        from: u64,
        to: u64,
        file: Arc<dyn DiskFile>,
        path: std::path::PathBuf,
    ) -> PrewriteJob {
        let progress = Arc::new(Progress {
            piece: Mutex::new(()),
            at: AtomicU64::new(from),
            stopped: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        self.job = Some(Arc::clone(&progress));
        PrewriteJob { file, path, to, progress }
    }

    /// End of the zeros, where nobody is writing any.
    pub(super) fn filled_to(&mut self) -> Option<u64> {
        self.collect();
        self.job.is_none().then_some(self.filled_to)
    }

    /// Up to `end` the file is on the disk, whatever was in it. Nobody is writing any zeros.
    pub(super) fn extend_to(&mut self, end: u64) {
        self.filled_to = self.filled_to.max(end);
    }

    /// True where zeros that should be in the file may not be.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The writer is about to write up to `end`: zeros must not come after it there.
    pub(super) fn claim(&mut self, end: u64) {
        let Some(job) = &self.job else { return };
        if end > job.at.load(Ordering::Acquire) {
            job.stopped.store(true, Ordering::Release);
            drop(job.piece.lock());
        }
        self.collect();
    }

    /// Returns once no more zeros will be written.
    pub(super) fn stop(&mut self) {
        self.claim(u64::MAX);
    }

    fn collect(&mut self) {
        let Some(job) = &self.job else { return };
        if job.stopped.load(Ordering::Acquire) {
            self.filled_to = job.at.load(Ordering::Acquire);
            self.has_failed |= job.failed.load(Ordering::Acquire);
            self.job = None;
        }
    }
}

impl Drop for Prewrite {
    fn drop(&mut self) {
        // Zeros must not arrive when the next writer of this file is at work.
        self.stop();
    }
}

impl PrewriteJob {
    /// Writes and syncs the zeros; ends early where the writer needs the place. Blocks on the disk.
    pub fn run(self) -> Result<(), LogError> {
        let outcome = self.fill();
        self.progress.failed.store(outcome.is_err(), Ordering::Release);
        self.progress.stopped.store(true, Ordering::Release);
        outcome
    }

    fn fill(&self) -> Result<(), LogError> {
        let progress = &self.progress;
        loop {
            let _piece = progress.piece.lock();
            let at = progress.at.load(Ordering::Acquire);
            if progress.stopped.load(Ordering::Acquire) || at >= self.to {
                break;
            }
            let piece = PIECE_BYTES.min((self.to - at) as usize);
            write_all_at(&*self.file, &mut [IoSlice::new(&ZEROS[..piece])], at)
                .map_err(LogError::io("write ahead in", &self.path))?;
            progress.at.store(at + piece as u64, Ordering::Release);
        }
        // Without this the next acknowledged append would wait for all these zeros.
        self.file.sync(SyncPoint::Prewritten).map_err(LogError::io("sync", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Disk, OpenMode, RealDisk};

    #[test]
    fn a_writer_behind_the_zeros_does_not_wait_for_a_piece_and_one_that_comes_up_ends_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.open(&path, OpenMode::Create).unwrap();
        let mut zeros = Prewrite::new(4096);
        let job = zeros.fill(4096, 3 * 4096, Arc::clone(&file), path);
        let piece = job.progress.piece.lock();
        // Waiting here would be for ever.
        zeros.claim(4096);
        assert_eq!(zeros.filled_to(), None);
        drop(piece);
        zeros.claim(4097);
        assert_eq!(zeros.filled_to(), Some(4096));
        job.run().unwrap();
        assert_eq!(file.size().unwrap(), 0);
        assert!(!zeros.has_failed());
    }
}
