//! What can be told of a part without its partition. Pure.

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_proto::pb::replica::Part;

/// Bytes of its batches.
pub(crate) fn bytes_of(part: &Part) -> usize {
    part.batches.iter().map(|piece| piece.len()).sum()
}

/// Where a log ends that it was appended to.
pub(crate) fn end_of(part: &Part) -> i64 {
    last_batch(&part.batches).map_or(part.fetch_offset, |last| last.next_offset().0)
}

/// Where batches end, and the epoch of the last one. `None` where there are none.
pub(crate) fn end_of_batches(batches: &[bytes::Bytes]) -> Option<(Offset, LeaderEpoch)> {
    last_batch(batches).map(|last| (last.next_offset(), last.leader_epoch))
}

/// The header of the last batch, as far as the pieces are whole batches.
fn last_batch(batches: &[bytes::Bytes]) -> Option<BatchHeader> {
    let mut rest: &[u8] = batches.iter().rev().find(|piece| !piece.is_empty())?;
    let mut last = None;
    while let Ok(header) = BatchHeader::parse(rest) {
        last = Some(header);
        match rest.get(header.size_bytes()..) {
            Some(behind) if !behind.is_empty() => rest = behind,
            _ => break,
        }
    }
    last
}
