//! Batches to records: skips what lies before the position, what is no data, and what was aborted.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::batch::compression::decompress;
use floodmark_proto::batch::{
    BatchHeader, CompressionType, DecompressLimits, EndTransactionMarker, HEADER_LEN, Records,
    TransactionResult, check_stored,
};
use floodmark_proto::pb::v1 as pb;

use super::config::Isolation;
use crate::error::{Error, Result};
use crate::record::{Header, Record};

/// The batches of one message, taken apart one at a time.
#[derive(Debug)]
pub(crate) struct Batches {
    topic: Arc<str>,
    partition: i32,
    unread: Bytes,
    /// Records before it are left out.
    from: i64,
    isolation: Isolation,
    /// By first offset.
    aborted: VecDeque<pb::AbortedTransaction>,
    /// Producers whose open transaction is one that was aborted.
    aborting: HashSet<i64>,
    batch_bytes_max: usize,
}

impl Batches {
    pub(crate) fn new(
        topic: Arc<str>,
        partition: i32,
        bytes: Bytes,
        from: i64,
        isolation: Isolation,
        mut aborted: Vec<pb::AbortedTransaction>,
        batch_bytes_max: usize,
    ) -> Batches {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        Batches {
            topic,
            partition,
            unread: bytes,
            from,
            isolation,
            aborted: aborted.into(),
            aborting: HashSet::new(),
            batch_bytes_max,
        }
    }

    /// Appends the records of the next batches to `out` until there are some; false where nothing is left.
    ///
    /// Checks each batch against its checksum. CPU-bound for the length of one batch.
    pub(crate) fn next(&mut self, out: &mut VecDeque<Record>) -> Result<bool> {
        while !self.unread.is_empty() {
            self.next_batch(out).map_err(|reason| self.damaged(reason))?;
            if !out.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_batch(&mut self, out: &mut VecDeque<Record>) -> Result<()> {
        let size_bytes = BatchHeader::parse(&self.unread)?.size_bytes();
        let bytes = self.unread.slice(..size_bytes.min(self.unread.len()));
        let header = check_stored(&bytes)?;
        if self.is_data(&header, &bytes)? && header.last_offset().0 >= self.from {
            self.take(&bytes, &header, out)?;
        }
        self.unread = self.unread.slice(bytes.len()..);
        Ok(())
    }

    /// Names the batch that comes next.
    fn damaged(&self, reason: Error) -> Error {
        let base = BatchHeader::parse(&self.unread).map(|header| header.base_offset.0);
        Error::Damaged {
            topic: self.topic.to_string(),
            partition: self.partition,
            offset: base.unwrap_or(self.from),
            reason: Box::new(reason),
        }
    }

    /// Whether the batch holds records for this reader; follows the transactions that it has seen begin and end.
    fn is_data(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<bool> {
        if self.isolation == Isolation::Uncommitted {
            return Ok(!header.attributes.is_control());
        }
        while self.aborted.front().is_some_and(|first| first.first_offset <= header.last_offset().0) {
            if let Some(transaction) = self.aborted.pop_front() {
                self.aborting.insert(transaction.producer_id);
            }
        }
        if header.attributes.is_control() {
            if is_abort(bytes)? {
                self.aborting.remove(&header.producer_id.0);
            }
            return Ok(false);
        }
        Ok(!header.attributes.is_transactional() || !self.aborting.contains(&header.producer_id.0))
    }

    fn take(&self, bytes: &Bytes, header: &BatchHeader, out: &mut VecDeque<Record>) -> Result<()> {
        let payload = bytes.slice(HEADER_LEN..);
        let codec = header.attributes.compression();
        let codec = codec.ok_or_else(|| Error::Protocol("a batch of an unknown codec".to_owned()))?;
        let records = if codec == CompressionType::None || payload.is_empty() {
            payload
        } else {
            // Keys and values of the records will share this allocation.
            let limits = DecompressLimits { max_bytes: self.batch_bytes_max, max_ratio: usize::MAX };
            let mut decoded = Vec::new();
            decompress(codec, &payload, &limits, &mut decoded)?;
            Bytes::from(decoded)
        };
        self.take_from(&records, Records::over_bytes(&records, header)?, out)
    }

    fn take_from(&self, shared: &Bytes, records: Records<'_>, out: &mut VecDeque<Record>) -> Result<()> {
        for record in records {
            let record = record?;
            if record.offset.0 < self.from {
                continue;
            }
            let mut headers = Vec::with_capacity(record.headers.len());
            for header in record.headers {
                let header = header?;
                headers.push(Header::read(header.key, header.value.map(|value| shared.slice_ref(value))));
            }
            out.push_back(Record {
                topic: Arc::clone(&self.topic),
                partition: self.partition,
                offset: record.offset.0,
                timestamp_ms: record.timestamp,
                key: record.key.map(|key| shared.slice_ref(key)),
                value: record.value.map(|value| shared.slice_ref(value)),
                headers,
            });
        }
        Ok(())
    }
}

/// Whether the only record of a control batch says that its transaction was aborted.
fn is_abort(bytes: &[u8]) -> Result<bool> {
    let mut scratch = Vec::new();
    let mut records = Records::open(bytes, &DecompressLimits::DEFAULT, &mut scratch)?;
    let missing = || Error::Protocol("a control batch without a record".to_owned());
    let record = records.next().ok_or_else(missing)??;
    let marker = EndTransactionMarker::decode(record.key, record.value)?;
    Ok(marker.is_some_and(|marker| marker.result == TransactionResult::Abort))
}

#[cfg(test)]
mod tests;
