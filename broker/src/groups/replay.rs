//! The log of one partition of `__consumer_offsets`, batch by batch, into the groups that it tells of. Takes what Kafka writes:
//! compacted logs, transactions, and records of kinds that are not kept here, which are counted and left alone.

use std::collections::HashMap;
use std::sync::Arc;

use floodmark_proto::batch::{
    BatchError, BatchHeader, DecompressLimits, EndTransactionMarker, Record, Records, TransactionResult,
};
use floodmark_proto::ids::ProducerId;

use super::group::Group;
use super::offsets::GroupOffsets;
use super::records::{self, Entry as Said};
use super::settings::GroupSettings;
use super::shard::Entry;
use super::snapshot::GroupSnapshot;

/// What the log has told so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: HashMap<Arc<str>, Replayed>,
    scratch: Vec<u8>,
    pub(super) counts: ReplayCounts,
}

#[derive(Debug, Default)]
struct Replayed {
    snapshot: Option<GroupSnapshot>,
    offsets: GroupOffsets,
}

/// How much was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReplayCounts {
    pub(super) records: u64,
    /// Of kinds that are not kept here.
    pub(super) of_other_kinds: u64,
    /// Of known kinds, and not in their layout.
    pub(super) unreadable: u64,
}

impl Replay {
    /// The next batch. Its checksum has been checked when it was taken in.
    pub(super) fn batch(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        for record in Records::open(bytes, &DecompressLimits::default(), &mut scratch)? {
            self.counts.records += 1;
            if header.attributes.is_control() {
                self.control(header.producer_id, &record?)?;
            } else {
                self.record(header, &record?);
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    fn control(&mut self, producer: ProducerId, record: &Record<'_>) -> Result<(), BatchError> {
        let Some(marker) = EndTransactionMarker::decode(record.key, record.value)? else { return Ok(()) };
        let is_commit = marker.result == TransactionResult::Commit;
        for replayed in self.groups.values_mut() {
            replayed.offsets.apply_transaction_end(producer, is_commit);
        }
        Ok(())
    }

    fn record(&mut self, header: &BatchHeader, record: &Record<'_>) {
        match records::read(record.key.unwrap_or_default(), record.value) {
            Ok(Said::Other(_)) => self.counts.of_other_kinds += 1,
            Ok(Said::Group { group, value }) => self.of(&group).snapshot = value,
            Ok(Said::Offset { group, topic, partition, value }) => {
                let is_transactional = header.attributes.is_transactional();
                let (producer, at) = (header.producer_id, record.offset);
                let offsets = &mut self.of(&group).offsets;
                match value {
                    None => offsets.apply_delete(&topic, partition),
                    Some(value) if is_transactional => {
                        offsets.apply_transactional(producer, &topic, partition, value, at);
                    }
                    Some(value) => offsets.apply_commit(&topic, partition, value, at),
                }
            }
            Err(error) => {
                self.counts.unreadable += 1;
                tracing::error!(offset = %record.offset, %error, "a record of the offsets topic is not as it should be");
            }
        }
    }

    fn of(&mut self, group: &Arc<str>) -> &mut Replayed {
        self.groups.entry(Arc::clone(group)).or_default()
    }

    /// The groups of which something is left.
    pub(super) fn finish(self, settings: &Arc<GroupSettings>) -> HashMap<Arc<str>, Entry> {
        let left = self.groups.into_iter().filter(|(_, r)| r.snapshot.is_some() || !r.offsets.is_empty());
        let entry = |(id, replayed): (Arc<str>, Replayed)| {
            let has_record = replayed.snapshot.is_some();
            let group = match replayed.snapshot {
                Some(snapshot) => Group::from_snapshot(snapshot, Arc::clone(settings)),
                None => Group::new(Arc::clone(&id), Arc::clone(settings)),
            };
            (id, Entry { offsets: replayed.offsets, has_record, ..Entry::new(group) })
        };
        left.map(entry).collect()
    }
}

#[cfg(test)]
mod tests;
