//! What happens to writes of metadata when the disk is full: they wait for space, and newcomers are told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::error::QuorumError;

/// Between two tries to write to a full disk.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Shared by all who write metadata, and by those who propose.
#[derive(Debug, Default)]
pub(crate) struct DiskPressure {
    waiting: AtomicUsize,
    closing: AtomicBool,
}

impl DiskPressure {
    /// True while a write waits for space.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// From now on a write that finds no space fails.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Makes the call again until it finds space. Raft cannot give a write back: one that fails ends it. Blocks.
    pub(crate) fn until_space<T>(
        &self,
        mut write: impl FnMut() -> Result<T, QuorumError>,
    ) -> Result<T, QuorumError> {
        let mut outcome = write();
        if !outcome.as_ref().is_err_and(QuorumError::is_full) {
            return outcome;
        }
        tracing::error!("the disk of the metadata log is full; changes wait until there is space");
        self.waiting.fetch_add(1, Ordering::AcqRel);
        while outcome.as_ref().is_err_and(QuorumError::is_full) && !self.closing.load(Ordering::Acquire) {
            std::thread::sleep(RETRY_AFTER);
            outcome = write();
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        outcome
    }
}
