//! One checked, complete batch: the unit that is appended, replicated and served.

use std::ops::Deref;

use bytes::{Bytes, BytesMut};

use super::compression::DecompressLimits;
use super::crc32c::batch_crc;
use super::header::{put_crc, stamp};
use super::records::Records;
use super::validate::{RecordRules, RecordsSummary, check_from_client, check_records, check_stored};
use super::{BatchError, BatchHeader, HEADER_LEN};
use crate::ids::{LeaderEpoch, Offset, TimestampMs};

/// A batch that has passed its checks, so that the fields a broker decides can be written: in place, where its bytes are its own.
///
/// Its bytes are a valid batch at every moment. Nothing here copies or decodes records, except where records are asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordBatch {
    bytes: BatchBytes,
    header: BatchHeader,
}

#[derive(Debug)]
enum BatchBytes {
    Own(BytesMut),
    /// A part of something larger.
    Shared(Bytes),
}

impl RecordBatch {
    /// Takes what a producer sent, which must be exactly one batch; see [`check_from_client`].
    pub fn from_client(bytes: BytesMut, max_batch_bytes: usize) -> Result<RecordBatch, BatchError> {
        let header = check_from_client(&bytes, max_batch_bytes)?;
        Ok(RecordBatch { bytes: BatchBytes::Own(bytes), header })
    }

    /// Takes what a replica sent or a disk held, which must be exactly one batch; see [`check_stored`].
    pub fn from_stored(bytes: BytesMut) -> Result<RecordBatch, BatchError> {
        RecordBatch::checked(BatchBytes::Own(bytes))
    }

    /// The same of bytes that stay where they are, with what lies around them, as long as the batch is kept.
    pub fn from_stored_within(bytes: Bytes) -> Result<RecordBatch, BatchError> {
        RecordBatch::checked(BatchBytes::Shared(bytes))
    }

    fn checked(bytes: BatchBytes) -> Result<RecordBatch, BatchError> {
        let header = check_stored(&bytes)?;
        match bytes.len() - header.size_bytes() {
            0 => Ok(RecordBatch { bytes, header }),
            trailing_bytes => Err(BatchError::TrailingBytes(trailing_bytes)),
        }
    }

    /// What the builder made, whose header it has just written.
    pub(super) fn built(bytes: BytesMut, header: BatchHeader) -> RecordBatch {
        RecordBatch { bytes: BatchBytes::Own(bytes), header }
    }

    /// The decoded header, always equal to the bytes.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole batch in bytes, header included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the base offset and the leader's epoch. Both lie outside the CRC, which stays as it is.
    pub fn stamp(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        stamp(self.head(), base_offset, leader_epoch);
    }

    /// Makes `now` the time of every record (`message.timestamp.type=LogAppendTime`). Reads the whole batch once, for the CRC.
    pub fn set_log_append_time(&mut self, now: TimestampMs) {
        self.header.attributes = self.header.attributes.with_log_append_time(true);
        self.header.max_timestamp = now;
        self.rewrite_header();
    }

    /// Corrects the maximum timestamp to what the records hold, see [`RecordsSummary::max_timestamp`]. Where it is right
    /// already nothing is written; otherwise the whole batch is read once, for the CRC.
    pub fn set_max_timestamp(&mut self, timestamp: TimestampMs) {
        if self.header.max_timestamp != timestamp {
            self.header.max_timestamp = timestamp;
            self.rewrite_header();
        }
    }

    /// Iterates over the records; see [`Records::open`].
    pub fn records<'a>(
        &'a self,
        limits: &DecompressLimits,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Records<'a>, BatchError> {
        Records::open(&self.bytes, limits, scratch)
    }

    /// Checks every record; see [`check_records`].
    pub fn check_records(
        &self,
        rules: RecordRules,
        limits: &DecompressLimits,
        scratch: &mut Vec<u8>,
    ) -> Result<RecordsSummary, BatchError> {
        check_records(&self.bytes, rules, limits, scratch)
    }

    /// Gives up the right to change the batch; the bytes are not copied.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        match self.bytes {
            BatchBytes::Own(bytes) => bytes.freeze(),
            BatchBytes::Shared(bytes) => bytes,
        }
    }

    fn rewrite_header(&mut self) {
        let mut header = self.header;
        header.write(self.head());
        header.crc = batch_crc(&self.bytes);
        put_crc(self.head(), header.crc);
        self.header = header;
    }

    fn head(&mut self) -> &mut [u8; HEADER_LEN] {
        if let BatchBytes::Shared(bytes) = &self.bytes {
            self.bytes = BatchBytes::Own(BytesMut::from(&bytes[..]));
        }
        let head = match &mut self.bytes {
            BatchBytes::Own(bytes) => bytes.first_chunk_mut(),
            BatchBytes::Shared(_) => None,
        };
        let Some(head) = head else {
            unreachable!("every constructor has read a header from these bytes, and they never shrink");
        };
        head
    }
}

impl Deref for BatchBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            BatchBytes::Own(bytes) => bytes,
            BatchBytes::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for BatchBytes {
    fn eq(&self, other: &BatchBytes) -> bool {
        **self == **other
    }
}

impl Eq for BatchBytes {}

#[cfg(test)]
mod tests;
