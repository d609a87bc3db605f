//! What happens to writes of metadata when the disk is full: they wait for space, and newcomers are told. The log says so now and then.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::error::QuorumError;
use crate::lasting::{Trouble, Word};

/// Between two tries to write to a full disk.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Shared by all who write metadata, and by those who propose.
#[derive(Debug, Default)]
pub(crate) struct DiskPressure {
    waiting: AtomicUsize,
    closing: AtomicBool,
    writes: Trouble,
    checkpoints: Trouble,
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
        self.waiting.fetch_add(1, Ordering::AcqRel);
        while outcome.as_ref().is_err_and(QuorumError::is_full) && !self.closing.load(Ordering::Acquire) {
            tell_of_writes(self.writes.meet());
            std::thread::sleep(RETRY_AFTER);
            outcome = write();
        }
        let is_last = self.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && outcome.is_ok() {
            tell_of_writes(self.writes.end());
        }
        outcome
    }

    /// The log's recovery point was moved, or could not be. It is tried after each request, and of a failure that is more than a full disk
    /// the next append tells.
    pub(crate) fn on_checkpoint(&self, outcome: Result<(), QuorumError>) {
        let Err(e) = outcome else { return tell_of_checkpoints(self.checkpoints.end(), None) };
        tell_of_checkpoints(self.checkpoints.meet(), Some(&e));
    }
}

fn tell_of_writes(word: Option<Word>) {
    match word {
        None => {}
        Some(Word::Begins) => {
            tracing::error!("the disk of the metadata log is full; changes wait until there is space");
        }
        Some(Word::Lasts { times }) => {
            tracing::error!(
                times,
                "the disk of the metadata log is still full; changes wait until there is space"
            );
        }
        Some(Word::Over { times }) => {
            tracing::info!(times, "the disk of the metadata log has space again");
        }
    }
}

fn tell_of_checkpoints(word: Option<Word>, error: Option<&QuorumError>) {
    let error = error.map(tracing::field::display);
    match word {
        None => {}
        Some(Word::Begins) => {
            tracing::error!(error, "metadata log: the recovery point cannot be moved; it is tried again");
        }
        Some(Word::Lasts { times }) => {
            tracing::error!(
                error,
                times,
                "metadata log: the recovery point still cannot be moved; it is tried again"
            );
        }
        Some(Word::Over { times }) => {
            tracing::info!(times, "metadata log: the recovery point has been moved");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;

    fn full() -> QuorumError {
        QuorumError::io("append to", Path::new("log"))(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn one_write_that_waits_is_told_of_as_one_trouble_until_it_is_over() {
        let pressure = DiskPressure::default();
        let mut tries = 0;
        let written = pressure.until_space(|| {
            tries += 1;
            assert_eq!(pressure.is_full(), tries > 1);
            if tries < 4 { Err(full()) } else { Ok(()) }
        });
        assert!(written.is_ok() && !pressure.is_full());
        // It was told and is over: there is nothing to be ended, and the next word has to wait.
        assert_eq!((pressure.writes.end(), pressure.writes.meet()), (None, None));
    }

    #[test]
    fn a_recovery_point_that_does_not_move_is_told_of_once_until_it_does() {
        let pressure = DiskPressure::default();
        for _ in 0..3 {
            pressure.on_checkpoint(Err(full()));
        }
        assert_eq!(pressure.checkpoints.end(), Some(Word::Over { times: 2 }));
        assert_eq!(pressure.checkpoints.meet(), None);
        assert_eq!(pressure.writes.meet(), Some(Word::Begins), "that is another trouble");
    }
}
