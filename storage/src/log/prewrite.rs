//! Zeros written ahead of the log's end, so that a synced append changes no file size: half the latency of a sync, several
//! times the synced throughput (docs/PERFORMANCE.md). The zeros are written beside the writer, who never waits for more than
//! one piece of them. Which file gets them, and when, its owner says.

use std::io::IoSlice;
use std::sync::Arc;

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
    job: Option<Arc<Mutex<Progress>>>,
}

#[derive(Debug)]
struct Progress {
    at: u64,
    stopped: bool,
    failed: bool,
}

/// Zeros to be written and synced on any thread.
#[derive(Debug)]
pub struct PrewriteJob {
    file: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    to: u64,
    progress: Arc<Mutex<Progress>>,
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
        let progress = Arc::new(Mutex::new(Progress { at: from, stopped: false, failed: false }));
        self.job = Some(Arc::clone(&progress));
        PrewriteJob { file, path, to, progress }
    }

    /// End of the zeros, where nobody is writing any.
    pub(super) fn filled_to(&mut self) -> Option<u64> {
        self.collect();
        self.job.is_none().then_some(self.filled_to)
    }

    /// True where zeros that should be in the file may not be.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The writer is about to write up to `end`: zeros must not come after it there.
    pub(super) fn claim(&mut self, end: u64) {
        let Some(job) = &self.job else { return };
        let mut progress = job.lock();
        if end > progress.at {
            progress.stopped = true;
        }
        drop(progress);
        self.collect();
    }

    /// Returns once no more zeros will be written.
    pub(super) fn stop(&mut self) {
        self.claim(u64::MAX);
    }

    fn collect(&mut self) {
        let Some(job) = &self.job else { return };
        let progress = job.lock();
        if progress.stopped {
            self.filled_to = progress.at;
            self.has_failed |= progress.failed;
            drop(progress);
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
        let mut progress = self.progress.lock();
        progress.failed = outcome.is_err();
        progress.stopped = true;
        drop(progress);
        outcome
    }

    fn fill(&self) -> Result<(), LogError> {
        loop {
            let mut progress = self.progress.lock();
            if progress.stopped || progress.at >= self.to {
                break;
            }
            let piece = PIECE_BYTES.min((self.to - progress.at) as usize);
            write_all_at(&*self.file, &mut [IoSlice::new(&ZEROS[..piece])], progress.at)
                .map_err(LogError::io("write ahead in", &self.path))?;
            progress.at += piece as u64;
        }
        // Without this the next acknowledged append would wait for all these zeros.
        self.file.sync(SyncPoint::Prewritten).map_err(LogError::io("sync", &self.path))
    }
}
