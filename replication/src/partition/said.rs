//! What the log of the broker says of a partition whose disk fails it: of writes once, of reads at once and then once a minute. Must not
//! decide anything.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use floodmark_proto::ids::Offset;
use floodmark_storage::{LogError, LogReader};

use super::PartitionId;
use crate::lasting::{Trouble, Word};

#[derive(Debug, Default)]
pub(super) struct Said {
    is_stop_said: AtomicBool,
    reads: Trouble,
}

impl Said {
    /// After whatever may have stopped the log.
    pub(super) fn of_stop(&self, partition: &PartitionId, dir: &Path, reader: &LogReader) {
        let Some(reason) = reader.poison() else { return };
        if !self.is_stop_said.swap(true, Ordering::AcqRel) {
            tracing::error!(
                %partition,
                dir = %dir.display(),
                %reason,
                "the partition takes no more writes here until the broker is restarted; what is committed is read on. Look at the disk first"
            );
        }
    }

    /// After a read that failed.
    pub(super) fn of_read(&self, partition: &PartitionId, dir: &Path, from: Offset, error: &LogError) {
        // What readers did wrong, and what happens to those of a topic that goes.
        if matches!(error, LogError::OutOfRange { .. } | LogError::Closed) {
            return;
        }
        let dir = dir.display();
        match self.reads.meet() {
            Some(Word::Begins) => {
                tracing::error!(%partition, %dir, %from, %error, "records cannot be read; readers stop there and try again");
            }
            Some(Word::Lasts { times } | Word::Over { times }) => {
                tracing::error!(%partition, %dir, %from, %error, times, "records cannot be read, and have not been so often since this was said last");
            }
            None => {}
        }
    }
}
