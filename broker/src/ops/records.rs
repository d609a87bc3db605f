//! Records removed from the front of a partition because somebody says so. Must never know wire types.

use floodmark_proto::ids::Offset;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::partition::PartitionHandle;
use tokio::time::{Instant, timeout_at};

use super::error::code_of_partition;

/// Lets a partition begin at `offset`, or at its high watermark; answers where it begins now.
pub(crate) async fn delete_before(
    partition: &PartitionHandle,
    offset: Option<Offset>,
    deadline: Instant,
) -> Result<Offset, ErrorCode> {
    // The records of a topic that is only compacted are its state.
    if !partition.settings().cleanup.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = partition.high_watermark();
    let offset = offset.unwrap_or(high_watermark);
    if offset < Offset::ZERO || offset > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let deleted = timeout_at(deadline, partition.delete_before(Some(offset))).await;
    deleted.map_err(|_| ErrorCode::RequestTimedOut)?.map_err(|e| code_of_partition(&e))
}
