//! Partitions that are given up: first nobody finds them any more, then their logs end, then their files go. A log that hangs ends when it goes
//! on; until then its name is not free, for it may write there.

use std::time::Duration;

use floodmark_storage::LogError;

use super::Shared;
use super::changes::name_of;
use crate::partition::{PartitionHandle, PartitionId};

/// One whose files are not gone yet.
#[derive(Debug)]
pub(super) struct Leaving {
    partition: PartitionHandle,
    /// It was waited for in vain.
    is_late: bool,
}

impl Shared {
    /// Gives a partition up, with its records. Waits for no log.
    pub(super) fn release(&self, id: &PartitionId) {
        self.unusable.lock().remove(id);
        let partition = {
            let mut held = self.held.write();
            let partition = held.0.get_mut(&id.topic_id).and_then(|topic| topic.partitions.remove(&id.index));
            if held.0.get(&id.topic_id).is_some_and(|topic| topic.partitions.is_empty()) {
                held.0.remove(&id.topic_id);
            }
            partition
        };
        match partition {
            Some(partition) => {
                partition.abandon(Duration::ZERO);
                // It has the time to end in which others are waited for.
                self.upkeep.end_compaction_of(id, Duration::ZERO);
                self.leaving.lock().push(Leaving { partition, is_late: false });
            }
            None if !self.is_name_taken(id) => self.remove_files(id),
            None => {}
        }
    }

    /// Removes the files of those whose logs have ended. Those that have not are waited for once, for what is `left` of the patience: they end
    /// beside each other, whichever is waited for.
    pub(super) fn finish_leaving(&self, left: impl Fn() -> Duration) {
        let mut hanging = Vec::new();
        let mut leaving = self.leaving.lock();
        leaving.retain_mut(|Leaving { partition, is_late }| {
            let left = || if *is_late { Duration::ZERO } else { left() };
            // A pass cannot begin in a log that has ended; one under way must not write where another topic's files may be soon.
            let has_ended = partition.settle(left()) && self.upkeep.end_compaction_of(partition.id(), left());
            if has_ended {
                self.remove_files(partition.id());
            } else if !std::mem::replace(is_late, true) {
                hanging.push(partition.id().clone());
            }
            !has_ended
        });
        if let Some(first) = hanging.first() {
            tracing::warn!(count = hanging.len(), partition = %first, "logs that are to be removed hang, this one among them; their files go when they go on");
        }
    }

    pub(super) fn is_anything_leaving(&self) -> bool {
        !self.leaving.lock().is_empty()
    }

    /// Whether the log of a partition of this name, which was given up, has not ended yet.
    pub(super) fn is_name_taken(&self, id: &PartitionId) -> bool {
        let leaving = self.leaving.lock();
        let names = leaving.iter().map(|Leaving { partition, .. }| partition.id());
        names.into_iter().any(|left| left.topic == id.topic && left.index == id.index)
    }

    fn remove_files(&self, id: &PartitionId) {
        if let Err(reason) = self.try_remove_files(id) {
            tracing::error!(partition = %id, error = %reason, "the files of a deleted partition are still there");
        }
    }

    fn try_remove_files(&self, id: &PartitionId) -> Result<(), LogError> {
        let name = name_of(id)?;
        let named = self.places.lock().of(&name);
        for at in named {
            // One that does not say whose it is is empty.
            if self.data_dirs[at].topic_of(&name)?.is_none_or(|held| held == id.topic_id) {
                self.data_dirs[at].remove_partition(&name)?;
                self.places.lock().forget(&name, at);
            }
        }
        Ok(())
    }
}
