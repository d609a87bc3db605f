//! Lazy iteration over the records of one batch: nothing is copied, compressed batches are decoded once into the
//! caller's buffer. Judges only what must hold for a record to be read; `validate` judges whether the records agree with the header.

use super::compression::{DecompressLimits, decompress};
use super::varint::Reader;
use super::{Attributes, BatchError, BatchHeader, CompressionType, HEADER_LEN};
use crate::ids::{Offset, TimestampMs};

/// Bytes of the smallest record: length, attributes, two deltas, null key, null value, no headers.
pub const RECORD_LEN_MIN: usize = 7;

/// Iterator over the records of one batch, in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    unread: &'a [u8],
    records_left: usize,
    index: usize,
    base_offset: Offset,
    base_timestamp: TimestampMs,
    append_time: Option<TimestampMs>,
}

impl<'a> Records<'a> {
    /// Opens the batch at the start of `bytes`; more may follow it.
    ///
    /// The CRC is not looked at: whoever took the bytes in has checked it. A compressed batch is decoded into `scratch`
    /// under `limits`, which replaces what it held; an uncompressed one leaves `scratch` alone. Does not block.
    pub fn open(
        bytes: &'a [u8],
        limits: &DecompressLimits,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Records<'a>, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let payload = payload_of(bytes, &header)?;
        let unread = match header.attributes.compression() {
            None => return Err(unknown_compression(header.attributes)),
            Some(CompressionType::None) => payload,
            // Compaction leaves no bytes behind where it leaves no records.
            Some(_) if header.record_count == 0 && payload.is_empty() => payload,
            Some(codec) => {
                decompress(codec, payload, limits, scratch)?;
                scratch.as_slice()
            }
        };
        Records::over_bytes(unread, &header)
    }

    /// Over records that are already decoded, whatever codec the header names: for whoever wants to own what was decoded.
    #[inline]
    pub fn over_bytes(unread: &'a [u8], header: &BatchHeader) -> Result<Records<'a>, BatchError> {
        let records_left = usize::try_from(header.record_count).map_err(|_| BatchError::Field {
            field: "record count",
            value: i64::from(header.record_count),
            reason: "it must not be negative",
        })?;
        Ok(Records {
            unread,
            records_left,
            index: 0,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: header.attributes.is_log_append_time().then_some(header.max_timestamp),
        })
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.unread.len()
    }

    #[inline]
    fn read_record(&mut self) -> Result<Record<'a>, &'static str> {
        let mut reader = Reader::new(self.unread);
        let len = usize::try_from(reader.varint()?).map_err(|_| "record length is negative")?;
        let mut body = Reader::new(reader.take(len)?);
        let raw = &self.unread[..self.unread.len() - reader.bytes.len()];
        let attributes = body.u8()? as i8;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let tail = body.bytes;
        let key = body.nullable_bytes()?;
        let value = body.nullable_bytes()?;
        let header_count = body.varint()?;
        let headers = Headers::new(header_count, body.bytes, self.index)?;
        let created = self.base_timestamp.checked_add(timestamp_delta).ok_or("timestamp overflows")?;
        let offset = self.base_offset.0.checked_add(i64::from(offset_delta)).ok_or("offset overflows")?;
        self.unread = reader.bytes;
        Ok(Record {
            offset: Offset(offset),
            timestamp: self.append_time.unwrap_or(created),
            offset_delta,
            timestamp_delta,
            attributes,
            key,
            value,
            headers,
            created,
            raw,
            tail,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    // Most who go through records want a key, or a value: inlined, the rest of a record is not put together for them.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.records_left == 0 {
            let trailing_bytes = std::mem::take(&mut self.unread).len();
            return (trailing_bytes > 0).then_some(Err(BatchError::TrailingBytes(trailing_bytes)));
        }
        match self.read_record() {
            Ok(record) => {
                self.records_left -= 1;
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                self.records_left = 0;
                self.unread = &[];
                Some(Err(BatchError::Record { index: self.index, reason }))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // A count is a claim until the bytes bear it out; one more item may be the error about trailing bytes.
        (0, Some((self.unread.len() / RECORD_LEN_MIN + 1).min(self.records_left.saturating_add(1))))
    }
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Position in the partition.
    pub offset: Offset,
    /// The record's time: the producer's, or the batch's where the broker's clock counts (log-append time).
    pub timestamp: TimestampMs,
    /// Distance to the base offset, as stored.
    pub offset_delta: i32,
    /// Distance to the base timestamp, as stored. True also where that field holds a delete horizon: whoever sets the
    /// horizon rewrites the deltas against it.
    pub timestamp_delta: i64,
    /// Unused by every version so far, kept as stored.
    pub attributes: i8,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Headers in their order, duplicates included.
    pub headers: Headers<'a>,
    created: TimestampMs,
    raw: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// The stored bytes of the record, its length included; valid only under the same base offset and base timestamp.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The producer's time, also where log-append time hides it.
    #[must_use]
    pub fn created(&self) -> TimestampMs {
        self.created
    }

    /// The stored bytes from the key on, which do not depend on the batch around them.
    pub(crate) fn tail(&self) -> &'a [u8] {
        self.tail
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// The key; UTF-8 by convention, which nobody enforces.
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

impl<'a> RecordHeader<'a> {
    /// The key as text, where it is text.
    #[must_use]
    pub fn key_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key).ok()
    }
}

/// Lazy iterator over the headers of a record. Ends after the first error.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    unread: &'a [u8],
    headers_left: usize,
    record_index: usize,
}

impl<'a> Headers<'a> {
    #[inline]
    fn new(count: i32, bytes: &'a [u8], record_index: usize) -> Result<Headers<'a>, &'static str> {
        let headers_left = usize::try_from(count).map_err(|_| "header count is negative")?;
        // A header takes two bytes or more.
        if headers_left > bytes.len() / 2 {
            return Err("header count passes the record");
        }
        if headers_left == 0 && !bytes.is_empty() {
            return Err("bytes follow the last header");
        }
        Ok(Headers { unread: bytes, headers_left, record_index })
    }

    /// Headers not read yet, as the record claims.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers_left
    }

    /// True without headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers_left == 0
    }

    fn read_header(&mut self) -> Result<RecordHeader<'a>, &'static str> {
        let mut reader = Reader::new(self.unread);
        let key = reader.nullable_bytes()?.ok_or("header key is null")?;
        let value = reader.nullable_bytes()?;
        if self.headers_left == 1 && !reader.bytes.is_empty() {
            return Err("bytes follow the last header");
        }
        self.unread = reader.bytes;
        Ok(RecordHeader { key, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<RecordHeader<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers_left == 0 {
            return None;
        }
        let header = self.read_header();
        self.headers_left = if header.is_ok() { self.headers_left - 1 } else { 0 };
        Some(header.map_err(|reason| BatchError::Record { index: self.record_index, reason }))
    }
}

/// What follows the header in a complete batch.
pub(crate) fn payload_of<'a>(bytes: &'a [u8], header: &BatchHeader) -> Result<&'a [u8], BatchError> {
    let need_bytes = header.size_bytes();
    bytes.get(HEADER_LEN..need_bytes).ok_or(BatchError::Truncated { need_bytes, have_bytes: bytes.len() })
}

/// The error for codec bits that name no codec.
pub(crate) fn unknown_compression(attributes: Attributes) -> BatchError {
    BatchError::UnknownCompression((attributes.0 & 0b111) as u8)
}
