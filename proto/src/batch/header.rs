//! The 61-byte header of a record batch (magic 2): read in place, stamped in place.
//! Knows field positions and nothing of what a field's value may be; `validate` judges.

use super::{BatchError, CompressionType};
use crate::ids::{LeaderEpoch, Offset, ProducerId, TimestampMs};

/// Bytes of a batch header; the records, compressed or not, follow it.
pub const HEADER_LEN: usize = 61;
/// Base offset and length field: the part of a batch that `batch_length` does not count.
pub const LENGTH_PREFIX_LEN: usize = 12;
/// Where the bytes that the CRC covers begin. Base offset, length, leader epoch and magic lie before it.
pub const CRC_COVERS_FROM: usize = 21;
/// The only record format written or served.
pub const MAGIC: i8 = 2;

const BASE_OFFSET_AT: usize = 0;
const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

const COMPRESSION_MASK: i16 = 0b0000_0111;
const LOG_APPEND_TIME: i16 = 0b0000_1000;
const TRANSACTIONAL: i16 = 0b0001_0000;
const CONTROL: i16 = 0b0010_0000;
const DELETE_HORIZON: i16 = 0b0100_0000;
const RESERVED: i16 = !0b0111_1111;

/// The attribute bits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// How the records after the header are compressed; `None` for the three codes that name no codec.
    #[must_use]
    pub fn compression(self) -> Option<CompressionType> {
        CompressionType::from_code((self.0 & COMPRESSION_MASK) as u8)
    }

    /// Replaces the codec bits.
    #[must_use]
    pub fn with_compression(self, codec: CompressionType) -> Attributes {
        Attributes((self.0 & !COMPRESSION_MASK) | i16::from(codec.code()))
    }

    /// True where `max_timestamp` is the broker's clock and counts for every record of the batch.
    #[must_use]
    pub fn is_log_append_time(self) -> bool {
        self.0 & LOG_APPEND_TIME != 0
    }

    /// Sets or clears the log-append-time bit.
    #[must_use]
    pub fn with_log_append_time(self, on: bool) -> Attributes {
        self.with(LOG_APPEND_TIME, on)
    }

    /// True for data and markers that belong to a transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    /// Sets or clears the transactional bit.
    #[must_use]
    pub fn with_transactional(self, on: bool) -> Attributes {
        self.with(TRANSACTIONAL, on)
    }

    /// True for batches that hold a marker instead of data.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    /// Sets or clears the control bit.
    #[must_use]
    pub fn with_control(self, on: bool) -> Attributes {
        self.with(CONTROL, on)
    }

    /// True where `base_timestamp` holds the time after which tombstones and markers of the batch may go (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON != 0
    }

    /// Sets or clears the delete-horizon bit.
    #[must_use]
    pub fn with_delete_horizon(self, on: bool) -> Attributes {
        self.with(DELETE_HORIZON, on)
    }

    /// Bits that no version of the format has given a meaning.
    #[must_use]
    pub fn reserved_bits(self) -> i16 {
        self.0 & RESERVED
    }

    fn with(self, bit: i16, on: bool) -> Attributes {
        Attributes(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// A decoded copy of the header; 61 bytes are cheaper to copy than to look at twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch was written with (compaction may have removed that record since).
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C from the attributes to the end of the batch.
    pub crc: u32,
    /// Codec and kind.
    pub attributes: Attributes,
    /// Distance from the base offset to the last offset, kept when compaction removes the last record.
    pub last_offset_delta: i32,
    /// What record timestamps are deltas to, or the delete horizon.
    pub base_timestamp: TimestampMs,
    /// Largest record timestamp, or the broker's clock.
    pub max_timestamp: TimestampMs,
    /// Producer that wrote the batch, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Incarnation of that producer, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Records present in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// Fails on fewer than 61 bytes, on another magic, and on a length too small to hold a header. The batch need not be
    /// complete and nothing else is judged: [`super::validate`] does that.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(h) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { need_bytes: HEADER_LEN, have_bytes: bytes.len() });
        };
        let magic = h[MAGIC_AT] as i8;
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        let batch_length = i32_at(h, LENGTH_AT);
        if batch_length < (HEADER_LEN - LENGTH_PREFIX_LEN) as i32 {
            return Err(BatchError::LengthTooSmall(batch_length));
        }
        Ok(BatchHeader {
            base_offset: Offset(i64_at(h, BASE_OFFSET_AT)),
            batch_length,
            leader_epoch: LeaderEpoch(i32_at(h, LEADER_EPOCH_AT)),
            crc: i32_at(h, CRC_AT) as u32,
            attributes: Attributes(i16_at(h, ATTRIBUTES_AT)),
            last_offset_delta: i32_at(h, LAST_OFFSET_DELTA_AT),
            base_timestamp: i64_at(h, BASE_TIMESTAMP_AT),
            max_timestamp: i64_at(h, MAX_TIMESTAMP_AT),
            producer_id: ProducerId(i64_at(h, PRODUCER_ID_AT)),
            producer_epoch: i16_at(h, PRODUCER_EPOCH_AT),
            base_sequence: i32_at(h, BASE_SEQUENCE_AT),
            record_count: i32_at(h, RECORD_COUNT_AT),
        })
    }

    /// The whole batch in bytes, header included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        LENGTH_PREFIX_LEN + self.batch_length as usize
    }

    /// Last offset the batch covers, whether or not that record is still present.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// First offset after the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Sequence number of the last record; sequences wrap from `i32::MAX` to 0. `-1` without a producer.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        // Some clients without a producer id send 0 for a sequence.
        if self.producer_id == ProducerId::NONE || self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// When tombstones and markers of this batch may be removed, where compaction has set it.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<TimestampMs> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Writes all fields at the start of `bytes`, the CRC as given in `self.crc`.
    pub fn write(&self, bytes: &mut [u8; HEADER_LEN]) {
        put(bytes, BASE_OFFSET_AT, &self.base_offset.0.to_be_bytes());
        put(bytes, LENGTH_AT, &self.batch_length.to_be_bytes());
        put(bytes, LEADER_EPOCH_AT, &self.leader_epoch.0.to_be_bytes());
        put(bytes, MAGIC_AT, &MAGIC.to_be_bytes());
        put(bytes, CRC_AT, &self.crc.to_be_bytes());
        put(bytes, ATTRIBUTES_AT, &self.attributes.0.to_be_bytes());
        put(bytes, LAST_OFFSET_DELTA_AT, &self.last_offset_delta.to_be_bytes());
        put(bytes, BASE_TIMESTAMP_AT, &self.base_timestamp.to_be_bytes());
        put(bytes, MAX_TIMESTAMP_AT, &self.max_timestamp.to_be_bytes());
        put(bytes, PRODUCER_ID_AT, &self.producer_id.0.to_be_bytes());
        put(bytes, PRODUCER_EPOCH_AT, &self.producer_epoch.to_be_bytes());
        put(bytes, BASE_SEQUENCE_AT, &self.base_sequence.to_be_bytes());
        put(bytes, RECORD_COUNT_AT, &self.record_count.to_be_bytes());
    }
}

/// Stamps offset and epoch into a complete header. Both lie outside the CRC, so the batch stays valid.
pub fn stamp(header: &mut [u8; HEADER_LEN], base_offset: Offset, leader_epoch: LeaderEpoch) {
    put(header, BASE_OFFSET_AT, &base_offset.0.to_be_bytes());
    put(header, LEADER_EPOCH_AT, &leader_epoch.0.to_be_bytes());
}

/// Stores the CRC field; the caller computed it over everything from [`CRC_COVERS_FROM`].
pub fn put_crc(header: &mut [u8; HEADER_LEN], crc: u32) {
    put(header, CRC_AT, &crc.to_be_bytes());
}

fn put(bytes: &mut [u8; HEADER_LEN], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn i64_at(h: &[u8; HEADER_LEN], at: usize) -> i64 {
    let mut field = [0; 8];
    field.copy_from_slice(&h[at..at + 8]);
    i64::from_be_bytes(field)
}

fn i32_at(h: &[u8; HEADER_LEN], at: usize) -> i32 {
    let mut field = [0; 4];
    field.copy_from_slice(&h[at..at + 4]);
    i32::from_be_bytes(field)
}

fn i16_at(h: &[u8; HEADER_LEN], at: usize) -> i16 {
    i16::from_be_bytes([h[at], h[at + 1]])
}

#[cfg(test)]
mod tests;
