//! What a consumer of records sees of stored batches: no markers, nothing of aborted transactions where it asked for that, nothing before
//! its position, nothing that its filter leaves out. Pure.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;
use floodmark_proto::batch::{BatchError, BatchHeader, CompressionType, DecompressLimits, Record, Records};
use floodmark_proto::ids::{Offset, ProducerId};
use floodmark_storage::index::AbortedTransaction;

use crate::filter::Filter;

/// A batch that is larger decoded can be had whole, and not record by record.
const DECODED_BYTES_MAX: usize = 64 << 20;

/// Batches of one partition, one behind the other, and what is to be left out of them.
#[derive(Debug)]
pub(crate) struct Visible<'a> {
    pub(crate) batches: &'a [Bytes],
    /// First record that is wanted.
    pub(crate) from: Offset,
    /// Transactions that are left out.
    pub(crate) aborted: &'a [AbortedTransaction],
    /// What it is not true of is left out.
    pub(crate) filter: Option<&'a Filter>,
}

impl Visible<'_> {
    /// Calls `each` with every record that is seen until it breaks; answers with the offset behind the last one looked at, whether seen or
    /// not. `scratch` is for compressed batches. CPU-bound for what is decoded.
    pub(crate) fn each(
        &self,
        scratch: &mut Vec<u8>,
        each: &mut dyn FnMut(&Record<'_>) -> Result<ControlFlow<()>, BatchError>,
    ) -> Result<Offset, BatchError> {
        let limits = DecompressLimits { max_bytes: DECODED_BYTES_MAX, ..DecompressLimits::DEFAULT };
        let hidden = Hidden::new(self.aborted);
        let mut next = self.from;
        for bytes in batches(self.batches) {
            let bytes = bytes?;
            let header = BatchHeader::parse(bytes)?;
            let end = header.next_offset();
            if end <= self.from {
                continue;
            }
            if hidden.hides(&header) || self.filter.is_some_and(|filter| !filter.may_match(&header)) {
                next = next.max(end);
                continue;
            }
            for record in Records::open(bytes, &limits, scratch)? {
                let record = record?;
                if record.offset < self.from {
                    continue;
                }
                next = Offset(record.offset.0.saturating_add(1));
                if self.filter.is_some_and(|filter| !filter.matches(&record)) {
                    continue;
                }
                if each(&record)?.is_break() {
                    return Ok(next);
                }
            }
            // Compaction may have taken the last records of a batch.
            next = next.max(end);
        }
        Ok(next)
    }
}

/// The offset behind the last batch; `from` where there is none.
pub(crate) fn end_of(pieces: &[Bytes], from: Offset) -> Result<Offset, BatchError> {
    let mut end = from;
    for bytes in batches(pieces) {
        let header = BatchHeader::parse(bytes?)?;
        end = end.max(header.next_offset());
    }
    Ok(end)
}

/// Whether any batch has to be decompressed.
pub(crate) fn has_compressed(pieces: &[Bytes]) -> bool {
    batches(pieces).flatten().any(|bytes| {
        BatchHeader::parse(bytes).is_ok_and(|h| h.attributes.compression() != Some(CompressionType::None))
    })
}

/// One batch after the other, each with its bytes alone.
fn batches(pieces: &[Bytes]) -> impl Iterator<Item = Result<&[u8], BatchError>> {
    pieces.iter().flat_map(|piece| {
        let mut rest: &[u8] = piece;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let cut = BatchHeader::parse(rest).and_then(|header| {
                let need_bytes = header.size_bytes();
                rest.split_at_checked(need_bytes)
                    .ok_or(BatchError::Truncated { need_bytes, have_bytes: rest.len() })
            });
            match cut {
                Ok((batch, after)) => {
                    rest = after;
                    Some(Ok(batch))
                }
                Err(e) => {
                    rest = &[];
                    Some(Err(e))
                }
            }
        })
    })
}

/// Which batches no consumer sees: markers, and what aborted transactions left.
struct Hidden(BTreeMap<ProducerId, Vec<RangeInclusive<Offset>>>);

impl Hidden {
    fn new(aborted: &[AbortedTransaction]) -> Hidden {
        let mut hidden: BTreeMap<ProducerId, Vec<RangeInclusive<Offset>>> = BTreeMap::new();
        for transaction in aborted {
            let offsets = transaction.first_offset..=transaction.last_offset;
            hidden.entry(transaction.producer_id).or_default().push(offsets);
        }
        Hidden(hidden)
    }

    fn hides(&self, header: &BatchHeader) -> bool {
        let is_aborted = |ranges: &Vec<RangeInclusive<Offset>>| {
            ranges.iter().any(|offsets| offsets.contains(&header.base_offset))
        };
        header.attributes.is_control()
            || (header.attributes.is_transactional()
                && self.0.get(&header.producer_id).is_some_and(is_aborted))
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::batch::{
        BatchBuilder, EndTransactionMarker, NewRecord, RecordBatch, TransactionResult,
    };

    use super::*;

    fn batch(base: i64, records: i64, with: impl FnOnce(BatchBuilder) -> BatchBuilder) -> Bytes {
        let mut builder = with(BatchBuilder::new()).base_offset(Offset(base));
        for n in 0..records {
            let value = format!("{}", base + n);
            builder.push(&NewRecord { value: Some(value.as_bytes()), ..NewRecord::default() }).unwrap();
        }
        RecordBatch::freeze(builder.build().unwrap())
    }

    fn marker(at: i64, producer: i64, result: TransactionResult) -> Bytes {
        let mut builder = BatchBuilder::new().base_offset(Offset(at)).producer(ProducerId(producer), 0, -1);
        builder.push_marker(0, &EndTransactionMarker { result, coordinator_epoch: 0 }).unwrap();
        builder.build().unwrap().freeze()
    }

    fn seen(batches: &[Bytes], from: i64, aborted: &[AbortedTransaction]) -> (Vec<i64>, i64) {
        let visible = Visible { batches, from: Offset(from), aborted, filter: None };
        let mut offsets = Vec::new();
        let next = visible.each(&mut Vec::new(), &mut |record| {
            offsets.push(record.offset.0);
            Ok(ControlFlow::Continue(()))
        });
        (offsets, next.unwrap().0)
    }

    #[test]
    fn records_before_the_position_and_markers_are_left_out() {
        let zstd = |b: BatchBuilder| b.compression(CompressionType::Zstd, None);
        let pieces = [
            [batch(0, 3, |b| b), batch(3, 2, zstd)].concat().into(),
            marker(5, 1, TransactionResult::Commit),
        ];
        assert_eq!(seen(&pieces, 0, &[]), (vec![0, 1, 2, 3, 4], 6));
        assert_eq!(seen(&pieces, 4, &[]), (vec![4], 6));
        assert_eq!(seen(&pieces[1..], 5, &[]), (vec![], 6));
        assert_eq!(end_of(&pieces, Offset(0)).unwrap(), Offset(6));
        assert!(has_compressed(&pieces));
        assert!(!has_compressed(&pieces[1..]));
    }

    #[test]
    fn offsets_that_compaction_took_are_passed() {
        let pieces = [batch(10, 1, |b| b.last_offset_delta(9))];
        assert_eq!(seen(&pieces, 10, &[]), (vec![10], 20));
        assert_eq!(seen(&pieces, 15, &[]), (vec![], 20));
    }

    #[test]
    fn what_was_aborted_is_left_out_and_what_comes_after_it_is_not() {
        let of = |producer| move |b: BatchBuilder| b.transactional(true).producer(ProducerId(producer), 0, 0);
        let pieces = [
            batch(0, 2, of(1)),
            batch(2, 1, of(2)),
            marker(3, 1, TransactionResult::Abort),
            batch(4, 1, of(1)),
        ];
        let aborted = [AbortedTransaction {
            producer_id: ProducerId(1),
            first_offset: Offset(0),
            last_offset: Offset(3),
            last_stable_offset: Offset(4),
        }];
        assert_eq!(seen(&pieces, 0, &aborted), (vec![2, 4], 5));
        assert_eq!(seen(&pieces, 0, &[]), (vec![0, 1, 2, 4], 5));
    }

    #[test]
    fn positions_move_past_what_a_filter_leaves_out() {
        let pieces = [batch(0, 3, |b| b), batch(3, 3, |b| b)];
        for (expression, expected) in
            [("offset == 1", &[1][..]), ("offset >= 6", &[]), ("offset % 3 == 0", &[0, 3])]
        {
            let filter = Filter::compile(expression).unwrap();
            let visible = Visible { batches: &pieces, from: Offset(0), aborted: &[], filter: Some(&filter) };
            let mut offsets = Vec::new();
            let next = visible.each(&mut Vec::new(), &mut |record| {
                offsets.push(record.offset.0);
                Ok(ControlFlow::Continue(()))
            });
            assert_eq!((&*offsets, next.unwrap()), (expected, Offset(6)), "{expression}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let whole = batch(0, 1, |b| b);
        let cut = whole.slice(..whole.len() - 1);
        let visible = Visible { batches: &[cut], from: Offset(0), aborted: &[], filter: None };
        visible.each(&mut Vec::new(), &mut |_| Ok(ControlFlow::Continue(()))).unwrap_err();
    }
}
