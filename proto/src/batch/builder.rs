//! Makes batches: for clients, for tests, and for compaction, which keeps records as they were stored.
//! Encodes; whether a broker would take the result is for `validate` to say.

use bytes::{Bytes, BytesMut};

use super::compression::compress;
use super::crc32c::batch_crc;
use super::header::put_crc;
use super::records::Record;
use super::varint::{put_varint, put_varlong, varlong_len};
use super::{
    Attributes, BatchError, BatchHeader, CompressionType, EndTransactionMarker, HEADER_LEN, RecordBatch,
};
use crate::ids::{LeaderEpoch, Offset, ProducerId, TimestampMs};

const LENGTH_PREFIX_LEN: usize = super::header::LENGTH_PREFIX_LEN;

/// A record to be encoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// The record's time.
    pub timestamp: TimestampMs,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Header keys and values; order and duplicates are kept.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Gathers records and encodes them into one [`RecordBatch`].
///
/// A new builder makes what a plain client sends: base offset 0, unknown leader epoch, no producer, no compression. The
/// base timestamp is that of the first record unless it is set before.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    // Room for the header, then the encoded records: an uncompressed batch is finished in place.
    bytes: Vec<u8>,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    attributes: Attributes,
    level: Option<i32>,
    base_timestamp: Option<TimestampMs>,
    max_timestamp: TimestampMs,
    max_timestamp_override: Option<TimestampMs>,
    producer_id: ProducerId,
    producer_epoch: i16,
    base_sequence: i32,
    record_count: i32,
    last_record_delta: i32,
    last_offset_delta: Option<i32>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> BatchBuilder {
        BatchBuilder::in_memory(Vec::new())
    }

    /// An empty builder that builds in this memory, whatever is in it.
    #[must_use]
    pub fn in_memory(mut memory: Vec<u8>) -> BatchBuilder {
        memory.clear();
        memory.resize(HEADER_LEN, 0);
        BatchBuilder {
            bytes: memory,
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::UNKNOWN,
            attributes: Attributes::default(),
            level: None,
            base_timestamp: None,
            max_timestamp: -1,
            max_timestamp_override: None,
            producer_id: ProducerId::NONE,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
            last_record_delta: -1,
            last_offset_delta: None,
        }
    }

    /// Takes memory for a batch of `bytes` at once, so that it does not move as it grows.
    #[must_use]
    pub fn room_for(mut self, bytes: usize) -> BatchBuilder {
        self.bytes.reserve_exact(bytes.saturating_sub(self.bytes.len()));
        self
    }

    /// A builder with the header fields of `header` and no records: what compaction keeps when it drops records. The
    /// last offset is kept whichever records follow; the maximum timestamp is theirs, except under log-append time.
    #[must_use]
    pub fn like(header: &BatchHeader) -> BatchBuilder {
        let keeps_append_time = header.attributes.is_log_append_time();
        BatchBuilder {
            base_offset: header.base_offset,
            leader_epoch: header.leader_epoch,
            attributes: header.attributes,
            base_timestamp: Some(header.base_timestamp),
            max_timestamp_override: keeps_append_time.then_some(header.max_timestamp),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_offset_delta: Some(header.last_offset_delta),
            ..BatchBuilder::new()
        }
    }

    /// Sets the base offset; clients leave it at zero.
    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> BatchBuilder {
        self.base_offset = offset;
        self
    }

    /// Sets the epoch of the leader that appends the batch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> BatchBuilder {
        self.leader_epoch = epoch;
        self
    }

    /// Replaces all attribute bits, the codec's among them.
    #[must_use]
    pub fn attributes(mut self, attributes: Attributes) -> BatchBuilder {
        self.attributes = attributes;
        self
    }

    /// Sets the codec and its level; `None` is the codec's default.
    #[must_use]
    pub fn compression(mut self, codec: CompressionType, level: Option<i32>) -> BatchBuilder {
        self.attributes = self.attributes.with_compression(codec);
        self.level = level;
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub fn transactional(mut self, on: bool) -> BatchBuilder {
        self.attributes = self.attributes.with_transactional(on);
        self
    }

    /// Names the producer, its incarnation, and the sequence number of the first record.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Sets what record timestamps are deltas to. To be called before the first record.
    #[must_use]
    pub fn base_timestamp(mut self, timestamp: TimestampMs) -> BatchBuilder {
        self.base_timestamp = Some(timestamp);
        self
    }

    /// Sets the delete horizon, which takes the place of the base timestamp (KIP-534). To be called before the first
    /// record; records kept by [`BatchBuilder::push_stored`] get new deltas and keep their times.
    #[must_use]
    pub fn delete_horizon(mut self, horizon: TimestampMs) -> BatchBuilder {
        self.attributes = self.attributes.with_delete_horizon(true);
        self.base_timestamp = Some(horizon);
        self
    }

    /// Marks the batch as timed by the broker's clock.
    #[must_use]
    pub fn log_append_time(mut self, now: TimestampMs) -> BatchBuilder {
        self.attributes = self.attributes.with_log_append_time(true);
        self.max_timestamp_override = Some(now);
        self
    }

    /// States the maximum timestamp instead of taking it from the records.
    #[must_use]
    pub fn max_timestamp(mut self, timestamp: TimestampMs) -> BatchBuilder {
        self.max_timestamp_override = Some(timestamp);
        self
    }

    /// States the last offset instead of taking it from the last record: compaction keeps it when that record goes.
    #[must_use]
    pub fn last_offset_delta(mut self, delta: i32) -> BatchBuilder {
        self.last_offset_delta = Some(delta);
        self
    }

    /// Appends a record at the next offset and returns its distance to the base offset.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<i32, BatchError> {
        let delta =
            self.last_record_delta.checked_add(1).ok_or_else(|| self.refuse("the offset delta overflows"))?;
        self.push_at(delta, record)?;
        Ok(delta)
    }

    /// Appends a record at a stated distance to the base offset, which must exceed that of the record before.
    ///
    /// Fails, and leaves the builder as it was, on a delta that does not rise, a timestamp too far from the base, and a
    /// record that passes 2 GiB.
    pub fn push_at(&mut self, offset_delta: i32, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let timestamp_delta = self.admit(offset_delta, record.timestamp)?;
        let start = self.bytes.len();
        let body_len = 1
            + varlong_len(timestamp_delta)
            + varlong_len(i64::from(offset_delta))
            + nullable_len(record.key)
            + nullable_len(record.value)
            + varlong_len(record.headers.len() as i64)
            + record
                .headers
                .iter()
                .map(|(key, value)| nullable_len(Some(key)) + nullable_len(*value))
                .sum::<usize>();
        self.start_record(body_len, 0, timestamp_delta, offset_delta)?;
        self.put_nullable(record.key);
        self.put_nullable(record.value);
        // The body's length has been shown to fit 32 bits, so everything in it does.
        put_varint(&mut self.bytes, record.headers.len() as i32);
        for (key, value) in record.headers {
            self.put_nullable(Some(key));
            self.put_nullable(*value);
        }
        debug_assert_eq!(self.bytes.len() - start, varlong_len(body_len as i64) + body_len);
        self.count(offset_delta, record.timestamp);
        Ok(())
    }

    /// Appends a record of a stored batch at the offset it has there: byte for byte where base offset and base timestamp
    /// agree, otherwise with new deltas and everything else as it was.
    ///
    /// Fails as [`BatchBuilder::push_at`] does, and on a record that lies outside the offsets a batch can span.
    pub fn push_stored(&mut self, record: &Record<'_>) -> Result<(), BatchError> {
        let offset_delta = record
            .offset
            .0
            .checked_sub(self.base_offset.0)
            .and_then(|delta| i32::try_from(delta).ok())
            .ok_or_else(|| self.refuse("the record lies too far from the base offset"))?;
        let timestamp_delta = self.admit(offset_delta, record.created())?;
        if offset_delta == record.offset_delta && timestamp_delta == record.timestamp_delta {
            self.bytes.extend_from_slice(record.raw());
        } else {
            let body_len =
                1 + varlong_len(timestamp_delta) + varlong_len(i64::from(offset_delta)) + record.tail().len();
            self.start_record(body_len, record.attributes, timestamp_delta, offset_delta)?;
            self.bytes.extend_from_slice(record.tail());
        }
        self.count(offset_delta, record.timestamp);
        Ok(())
    }

    /// Appends the marker that ends a transaction and makes the batch a transactional control batch.
    pub fn push_marker(
        &mut self,
        timestamp: TimestampMs,
        marker: &EndTransactionMarker,
    ) -> Result<i32, BatchError> {
        self.attributes = self.attributes.with_control(true).with_transactional(true);
        self.push(&NewRecord {
            timestamp,
            key: Some(&marker.key()),
            value: Some(&marker.value()),
            headers: &[],
        })
    }

    /// Records pushed so far.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.record_count as usize
    }

    /// Bytes of the batch so far, header included, before compression.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Compresses, fills in the header and the CRC.
    ///
    /// A batch without records needs a stated last offset; it is written uncompressed whatever the codec, as Kafka does.
    /// Fails on that, on a last offset below the last record's, on a level the codec does not have, and past 2 GiB.
    pub fn build(mut self) -> Result<RecordBatch, BatchError> {
        let last_offset_delta = self.final_last_offset_delta()?;
        if self.record_count == 0 {
            self.attributes = self.attributes.with_compression(CompressionType::None);
        }
        let codec = self
            .attributes
            .compression()
            .ok_or(BatchError::UnknownCompression((self.attributes.0 & 0b111) as u8))?;
        let mut bytes = self.bytes;
        if codec != CompressionType::None {
            let mut compressed = vec![0; HEADER_LEN];
            compress(codec, self.level, &bytes[HEADER_LEN..], &mut compressed)?;
            bytes = compressed;
        }
        let batch_length =
            i32::try_from(bytes.len() - LENGTH_PREFIX_LEN).map_err(|_| BatchError::TooLarge {
                size_bytes: bytes.len(),
                limit_bytes: i32::MAX as usize + LENGTH_PREFIX_LEN,
            })?;
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            batch_length,
            leader_epoch: self.leader_epoch,
            crc: 0,
            attributes: self.attributes,
            last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(-1),
            max_timestamp: self.max_timestamp_override.unwrap_or(self.max_timestamp),
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        };
        write_header(&mut bytes, &header);
        header.crc = batch_crc(&bytes);
        if let Some(head) = bytes.first_chunk_mut::<HEADER_LEN>() {
            put_crc(head, header.crc);
        }
        // Whole and uniquely owned, so this moves the allocation and copies nothing.
        Ok(RecordBatch::built(BytesMut::from(Bytes::from(bytes)), header))
    }

    fn final_last_offset_delta(&self) -> Result<i32, BatchError> {
        match self.last_offset_delta {
            Some(stated) if stated < 0 || stated < self.last_record_delta => Err(BatchError::Field {
                field: "last offset delta",
                value: i64::from(stated),
                reason: "it must not be negative or lie below the last record's",
            }),
            Some(stated) => Ok(stated),
            None if self.record_count == 0 => Err(BatchError::Field {
                field: "record count",
                value: 0,
                reason: "a batch without records must state its last offset",
            }),
            None => Ok(self.last_record_delta),
        }
    }

    /// Checks the place of the next record, fixes the base timestamp at the first, and returns the timestamp's delta.
    fn admit(&mut self, offset_delta: i32, timestamp: TimestampMs) -> Result<i64, BatchError> {
        if offset_delta <= self.last_record_delta {
            return Err(self.refuse("the offset delta does not rise"));
        }
        let base = self.base_timestamp.unwrap_or(timestamp);
        let delta = timestamp
            .checked_sub(base)
            .ok_or_else(|| self.refuse("the timestamp lies too far from the base"))?;
        self.base_timestamp = Some(base);
        Ok(delta)
    }

    fn start_record(
        &mut self,
        body_len: usize,
        attributes: i8,
        timestamp_delta: i64,
        offset_delta: i32,
    ) -> Result<(), BatchError> {
        let body_len_varint = i32::try_from(body_len).map_err(|_| self.refuse("the record passes 2 GiB"))?;
        self.bytes.reserve(varlong_len(i64::from(body_len_varint)) + body_len);
        put_varint(&mut self.bytes, body_len_varint);
        self.bytes.push(attributes as u8);
        put_varlong(&mut self.bytes, timestamp_delta);
        put_varint(&mut self.bytes, offset_delta);
        Ok(())
    }

    fn put_nullable(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => put_varint(&mut self.bytes, -1),
            Some(bytes) => {
                put_varlong(&mut self.bytes, bytes.len() as i64);
                self.bytes.extend_from_slice(bytes);
            }
        }
    }

    fn count(&mut self, offset_delta: i32, timestamp: TimestampMs) {
        let is_first = self.record_count == 0;
        self.max_timestamp = if is_first { timestamp } else { self.max_timestamp.max(timestamp) };
        self.last_record_delta = offset_delta;
        // Deltas rise strictly within 31 bits, so the count cannot overflow before they do.
        self.record_count += 1;
    }

    fn refuse(&self, reason: &'static str) -> BatchError {
        BatchError::Record { index: self.record_count as usize, reason }
    }
}

fn write_header(bytes: &mut [u8], header: &BatchHeader) {
    if let Some(head) = bytes.first_chunk_mut::<HEADER_LEN>() {
        header.write(head);
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varlong_len(bytes.len() as i64) + bytes.len(),
    }
}

#[cfg(test)]
mod tests;
