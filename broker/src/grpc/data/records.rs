//! Batches made of records that come by themselves: each record goes where its key's hash sends it, in the order in which they came. Pure.

use std::collections::BTreeMap;

use bytes::BytesMut;
use floodmark_proto::batch::{BatchBuilder, BatchError, NewRecord};
use floodmark_proto::ids::TimestampMs;
use floodmark_proto::murmur2::partition_of_key;

use super::wire::{RECORD_TAG, WireError, WireHeader, WireRecord, each_record};

/// What goes to one partition.
#[derive(Debug)]
pub(super) struct PartitionRecords {
    pub(super) partition: i32,
    /// Places of its records in the request, rising; empty where it has all of them.
    pub(super) places: Vec<u32>,
    pub(super) batch: BytesMut,
}

/// Where records go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// All to one partition.
    Partition(i32),
    /// By their keys.
    ByKey {
        partition_count: u32,
        /// For those without one.
        keyless: i32,
    },
}

/// Records that make no batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoBatch {
    #[error("there are no records")]
    Empty,
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Batch(#[from] BatchError),
}

#[derive(Default)]
struct Growing {
    builder: BatchBuilder,
    places: Vec<u32>,
}

/// One batch for each partition. Records without a time get `now_ms`.
pub(super) fn batches(
    records: &[u8],
    target: Target,
    now_ms: TimestampMs,
) -> Result<Vec<PartitionRecords>, NoBatch> {
    let mut growing: BTreeMap<i32, Growing> = BTreeMap::new();
    each_record(records, RECORD_TAG, |place, record, headers| {
        let partition = target.of(record);
        let growing = growing.entry(partition).or_default();
        if let Target::ByKey { .. } = target {
            // A message is far smaller than that many records would be.
            growing.places.push(place as u32);
        }
        push(&mut growing.builder, record, headers, now_ms).map_err(NoBatch::from)
    })?;
    if growing.is_empty() {
        return Err(NoBatch::Empty);
    }
    let finish = |(partition, growing): (i32, Growing)| {
        // Whole and uniquely owned, so this copies nothing.
        let batch = BytesMut::from(growing.builder.build()?.freeze());
        Ok(PartitionRecords { partition, places: growing.places, batch })
    };
    growing.into_iter().map(finish).collect()
}

impl Target {
    fn of(self, record: &WireRecord<'_>) -> i32 {
        match self {
            Target::Partition(partition) => partition,
            Target::ByKey { partition_count, keyless } => {
                record.key.map_or(keyless, |key| partition_of_key(key, partition_count) as i32)
            }
        }
    }
}

fn push(
    builder: &mut BatchBuilder,
    record: &WireRecord<'_>,
    headers: &[WireHeader<'_>],
    now_ms: TimestampMs,
) -> Result<(), BatchError> {
    builder.push(&NewRecord {
        timestamp: record.timestamp_ms.unwrap_or(now_ms),
        key: record.key,
        value: record.value,
        headers,
    })?;
    Ok(())
}
