//! Where things are in a partition: its ends, a point in time, the end of a leader's epoch. Must never know wire types.

use floodmark_proto::ids::{LeaderEpoch, Offset, TimestampMs};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::partition::{Isolation, PartitionHandle};
use floodmark_storage::LogReader;
use tokio::task::spawn_blocking;

use super::error::code_of_log;
use super::fetch::check_epoch;
use crate::cluster::Cluster;

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sought {
    /// After the last record that the reader may see.
    Latest,
    /// The first record.
    Earliest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// Where what is kept elsewhere ends: nothing is, here.
    Tiered,
    /// The first record at or after a time.
    At(TimestampMs),
}

/// An offset, as far as there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: Option<Offset>,
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) leader_epoch: Option<LeaderEpoch>,
}

impl Found {
    const NOTHING: Found = Found { offset: None, timestamp: None, leader_epoch: None };
}

/// Looks an offset up at the leader; the disk is asked by another thread.
pub(crate) async fn find(
    cluster: &Cluster,
    partition: &PartitionHandle,
    sought: Sought,
    isolation: Isolation,
    believed: Option<LeaderEpoch>,
) -> Result<Found, ErrorCode> {
    check_epoch(believed, partition.leader_epoch())?;
    cluster.check_leads(partition)?;
    let end = match isolation {
        Isolation::Uncommitted => partition.high_watermark(),
        Isolation::Committed => partition.last_stable_offset(),
    };
    let by_record = match sought {
        Sought::Latest if is_behind_its_predecessor(partition) => return Err(ErrorCode::OffsetNotAvailable),
        Sought::Latest => {
            return Ok(Found {
                offset: Some(end),
                timestamp: None,
                leader_epoch: Some(partition.leader_epoch()),
            });
        }
        Sought::Earliest => {
            let start = partition.log_start();
            let leader_epoch = partition.reader().leader_epochs().epoch_for_offset(start);
            return Ok(Found { offset: Some(start), timestamp: None, leader_epoch });
        }
        Sought::Tiered => return Ok(Found::NOTHING),
        Sought::MaxTimestamp => None,
        Sought::At(time) => Some(time),
    };
    let reader: LogReader = partition.reader();
    let looked_up = spawn_blocking(move || match by_record {
        Some(time) => reader.first_at_or_after(time),
        None => reader.largest_timestamp(),
    });
    let found = looked_up.await.map_err(|_| ErrorCode::UnknownServerError)?.map_err(|e| code_of_log(&e))?;
    // What the reader may not see yet is not there for it.
    let found = found.filter(|f| f.offset < end);
    if found.is_none() && is_behind_its_predecessor(partition) {
        return Err(ErrorCode::OffsetNotAvailable);
    }
    Ok(found.map_or(Found::NOTHING, |f| Found {
        offset: Some(f.offset),
        timestamp: Some(f.timestamp),
        leader_epoch: Some(f.leader_epoch),
    }))
}

/// True for a new leader that has not heard from its followers yet, so that less is committed by what it knows than its predecessor may
/// have told already (KIP-207).
fn is_behind_its_predecessor(partition: &PartitionHandle) -> bool {
    let epoch = partition.leader_epoch();
    let epochs = partition.reader().leader_epochs();
    let first = epochs.latest().filter(|latest| latest.epoch == epoch).map(|latest| latest.start_offset);
    partition.high_watermark() < first.unwrap_or_else(|| partition.log_end())
}

/// The newest epoch of the log that is not after `epoch`, and where it ends; `None` where the log knows of none.
pub(crate) fn end_of_epoch(
    cluster: &Cluster,
    partition: &PartitionHandle,
    epoch: LeaderEpoch,
    believed: Option<LeaderEpoch>,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    check_epoch(believed, partition.leader_epoch())?;
    cluster.check_leads(partition)?;
    Ok(partition.end_of_epoch(epoch))
}
