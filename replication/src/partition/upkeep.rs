//! What keeps a partition in order beside reading and writing: its duty, retention, compaction, memory, its end. Every call may
//! wait for the disk, so none of them belongs on a thread that runs tasks.

use std::time::Duration;

use floodmark_storage::LogError;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::log::{CompactionControl, CompactionReport, Log};
use floodmark_storage::retention::DeletionReason;

use super::{Duty, PartitionError, PartitionHandle, RetentionDue};

impl PartitionHandle {
    /// Does as `duty` says from now on; says whether it does so already. It takes the log, which somebody may have who waits for a disk: after
    /// `patience` it is left to that one, before the log is let go. One that was overtaken by the present one is passed over. Whoever waits
    /// for what an earlier leadership here appended is told that it has ended.
    pub fn take_up(&self, duty: Duty, patience: Duration) -> bool {
        self.0.progress.want(duty);
        self.settle(patience)
    }

    /// Waits until this replica is and does what is wanted of it, for so long at most; says whether it is so.
    pub fn settle(&self, patience: Duration) -> bool {
        // Who had the log meanwhile may have seen to it, and another may have it since.
        !self.is_late() || self.0.log.look_within(patience) || !self.is_late()
    }

    /// Whether somebody who has the log keeps this replica from being what is wanted of it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.0.progress.is_late()
    }

    /// Removes what is too old or too much; says why each segment went.
    pub fn apply_retention(&self) -> Result<Vec<DeletionReason>, PartitionError> {
        Ok(self.0.log.with_log(|log| log.apply_retention())?)
    }

    /// Whether retention should not wait for its time. Told once of each reason.
    #[must_use]
    pub fn take_retention_due(&self) -> RetentionDue {
        self.0.progress.take_retention_due()
    }

    /// Makes a compaction pass where one is due. Appends and reads go on meanwhile.
    pub fn compact(&self, control: CompactionControl) -> Result<Option<CompactionReport>, PartitionError> {
        // Else a log that grows slowly would keep its superseded records until it has grown by a checkpoint's interval.
        if self.settings().cleanup.compact {
            self.0.log.checkpoint_if(Log::has_segments_past_recovery_point)?;
        }
        let begun = self.0.log.with_log(|log| log.begin_compaction(CompactWhen::Due, control))?;
        let Some(mut pass) = begun else { return Ok(None) };
        while let Some(group) = pass.clean_next()? {
            self.0.log.with_log(|log| log.install_cleaned(&mut pass, group))?;
        }
        Ok(Some(self.0.log.with_log(|log| log.finish_compaction(pass))?))
    }

    /// Has a sync made soon where the flush policy demands one now. Waits for nothing.
    pub fn flush_if_due(&self) {
        if self.0.reader.durable() < self.0.reader.end() {
            self.0.log.nudge();
        }
    }

    /// Forgets producers that have been silent for long.
    pub fn expire_producers(&self) {
        self.0.log.with_log(|log| log.expire_producers());
    }

    /// Moves a recovery point that was left behind.
    pub fn catch_up_recovery_point(&self) {
        // A disk that is full is tried again in a while; any other failure is kept in the log.
        let _ = self.0.log.checkpoint_if(Log::is_checkpoint_left);
    }

    /// Closes files that nobody uses now.
    pub fn release_idle(&self) {
        self.0.log.with_log(|log| log.release_idle());
    }

    /// Ends the log cleanly: opening it again finds nothing to recover. Later writes are refused, reading goes on.
    pub fn close(&self) -> Result<(), PartitionError> {
        match self.0.log.close() {
            Err(LogError::Closed) | Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Ends the log as it is, because its files are to be removed; as [`PartitionHandle::take_up`], which it overtakes. Says whether it has
    /// ended: whoever has it until then may write.
    pub fn abandon(&self, patience: Duration) -> bool {
        self.0.progress.want_end();
        self.settle(patience)
    }
}
