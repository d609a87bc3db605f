//! What a batch must hold to be taken: from a client, from a replica or a disk, and record by record.
//! Judges bytes against the format; never topic settings, offsets of the log or producer state.

use super::compression::DecompressLimits;
use super::crc32c::batch_crc;
use super::records::{RECORD_LEN_MIN, Record, Records, payload_of, unknown_compression};
use super::{BatchError, BatchHeader, CompressionType};
use crate::ids::{Offset, ProducerId, TimestampMs};

/// Judges one batch as a producer may send it; `bytes` must be that batch and nothing else.
///
/// Checks the length, every header field and last, once, the CRC; records are not looked at. A client's base offset and
/// leader epoch mean nothing and are not judged. Epoch and sequence without a producer id are ignored as Kafka ignores
/// them: clients send 0 or -1 there (sarama and franz-go the former). Allocates nothing, does not block.
pub fn check_from_client(bytes: &[u8], max_batch_bytes: usize) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let size_bytes = header.size_bytes();
    if size_bytes > max_batch_bytes {
        return Err(BatchError::TooLarge { size_bytes, limit_bytes: max_batch_bytes });
    }
    check_complete(bytes, &header)?;
    if bytes.len() > size_bytes {
        return Err(BatchError::TrailingBytes(bytes.len() - size_bytes));
    }
    let codec = codec_of(&header)?;
    check_client_attributes(&header)?;
    check_client_counts(&header)?;
    check_count_plausible(&header, codec)?;
    check_client_times(&header)?;
    check_client_producer(&header)?;
    check_crc(bytes, &header)?;
    Ok(header)
}

/// Judges the batch at the start of `bytes` as it may lie on a disk or come from a replica; more may follow it.
///
/// Compaction may have left gaps, fewer records than offsets, or no record at all; markers are as good as data.
/// Attribute bits without a meaning are kept: whoever wrote them knew one. Allocates nothing, does not block.
pub fn check_stored(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    check_complete(bytes, &header)?;
    let codec = codec_of(&header)?;
    let offsets = i64::from(header.last_offset_delta) + 1;
    if header.last_offset_delta < 0 {
        return Err(field("last offset delta", header.last_offset_delta, "it must not be negative"));
    }
    if header.base_offset.0 < 0 {
        return Err(field("base offset", header.base_offset.0, "it must not be negative"));
    }
    // The offset after the batch must still be an offset.
    if header.base_offset.0.checked_add(offsets).is_none() {
        return Err(field("base offset", header.base_offset.0, "the last offset overflows"));
    }
    if header.record_count < 0 {
        return Err(field("record count", header.record_count, "it must not be negative"));
    }
    if i64::from(header.record_count) > offsets {
        return Err(field("record count", header.record_count, "it exceeds the offsets of the batch"));
    }
    check_count_plausible(&header, codec)?;
    check_crc(bytes, &header)?;
    Ok(header)
}

/// What the records of a batch must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordRules {
    /// As a producer sends them: one record for every offset, in order, no time before the epoch except -1 for none.
    FromClient,
    /// As a log holds them: offsets strictly rising within the batch.
    Stored,
}

/// What a pass over the records found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsSummary {
    /// Records present.
    pub record_count: usize,
    /// Largest record timestamp, -1 in an empty batch. The header's own `max_timestamp` may say otherwise: some clients leave it unset.
    pub max_timestamp: TimestampMs,
    /// Offset of the first record that has the largest timestamp; the base offset in an empty batch.
    pub max_timestamp_offset: Offset,
    /// True where a record has no key, which a compacted topic refuses.
    pub has_null_key: bool,
}

/// Decodes every record and header of the batch at the start of `batch`, and checks that they agree with the header.
///
/// The batch has passed [`check_from_client`] or [`check_stored`]. Compressed batches are decoded into `scratch` under `limits`.
/// CPU-bound for the length of the batch; allocates only through `scratch`.
pub fn check_records(
    batch: &[u8],
    rules: RecordRules,
    limits: &DecompressLimits,
    scratch: &mut Vec<u8>,
) -> Result<RecordsSummary, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut summary = RecordsSummary {
        record_count: 0,
        max_timestamp: -1,
        max_timestamp_offset: header.base_offset,
        has_null_key: false,
    };
    let mut last_delta = -1;
    for record in Records::open(batch, limits, scratch)? {
        let record = record?;
        let index = summary.record_count;
        check_offset_delta(&record, last_delta, &header, rules)
            .and_then(|()| check_record_time(&record, rules))
            .map_err(|reason| BatchError::Record { index, reason })?;
        for header in record.headers {
            header?;
        }
        if index == 0 || record.timestamp > summary.max_timestamp {
            summary.max_timestamp = record.timestamp;
            summary.max_timestamp_offset = record.offset;
        }
        summary.has_null_key |= record.key.is_none();
        summary.record_count += 1;
        last_delta = record.offset_delta;
    }
    Ok(summary)
}

fn check_offset_delta(
    record: &Record<'_>,
    last_delta: i32,
    header: &BatchHeader,
    rules: RecordRules,
) -> Result<(), &'static str> {
    if record.offset_delta <= last_delta {
        return Err("offset delta does not rise");
    }
    if record.offset_delta > header.last_offset_delta {
        return Err("offset delta passes the last offset of the batch");
    }
    if rules == RecordRules::FromClient && record.offset_delta != last_delta + 1 {
        return Err("offset delta leaves a gap");
    }
    Ok(())
}

fn check_record_time(record: &Record<'_>, rules: RecordRules) -> Result<(), &'static str> {
    if rules == RecordRules::FromClient && record.timestamp < -1 {
        return Err("timestamp lies before the epoch");
    }
    Ok(())
}

fn check_complete(bytes: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    payload_of(bytes, header).map(|_| ())
}

fn codec_of(header: &BatchHeader) -> Result<CompressionType, BatchError> {
    header.attributes.compression().ok_or_else(|| unknown_compression(header.attributes))
}

fn check_client_attributes(header: &BatchHeader) -> Result<(), BatchError> {
    let attributes = header.attributes;
    let reason = if attributes.is_control() {
        "a client may not write control batches"
    } else if attributes.has_delete_horizon() {
        "a client may not set the delete horizon"
    } else if attributes.is_log_append_time() {
        "a client may not set log-append time"
    } else if attributes.reserved_bits() != 0 {
        "a reserved bit is set"
    } else if attributes.is_transactional() && header.producer_id == ProducerId::NONE {
        "a transactional batch needs a producer id"
    } else {
        return Ok(());
    };
    Err(field("attributes", attributes.0, reason))
}

fn check_client_counts(header: &BatchHeader) -> Result<(), BatchError> {
    if header.record_count < 1 {
        return Err(field("record count", header.record_count, "a client's batch holds at least one record"));
    }
    if header.last_offset_delta != header.record_count - 1 {
        return Err(field(
            "last offset delta",
            header.last_offset_delta,
            "it must be the record count less one",
        ));
    }
    Ok(())
}

/// Refuses counts that no encoder could have fitted into the bytes, so that a few bytes cannot claim millions of offsets.
fn check_count_plausible(header: &BatchHeader, codec: CompressionType) -> Result<(), BatchError> {
    let payload_bytes = (header.size_bytes() - super::HEADER_LEN) as u64;
    let records_max = payload_bytes * u64::from(codec.expansion_max()) / RECORD_LEN_MIN as u64;
    if header.record_count as u64 > records_max {
        return Err(field("record count", header.record_count, "the bytes cannot hold so many records"));
    }
    Ok(())
}

fn check_client_times(header: &BatchHeader) -> Result<(), BatchError> {
    // -1 says that there is no time; some clients never set the maximum, so it may also lie below the base.
    for (name, timestamp) in
        [("base timestamp", header.base_timestamp), ("max timestamp", header.max_timestamp)]
    {
        if timestamp < -1 {
            return Err(field(name, timestamp, "it must be a time since the epoch, or -1 for none"));
        }
    }
    Ok(())
}

fn check_client_producer(header: &BatchHeader) -> Result<(), BatchError> {
    if header.producer_id == ProducerId::NONE {
        return Ok(());
    }
    if header.producer_id.0 < 0 {
        return Err(field("producer id", header.producer_id.0, "only -1 may be negative, for none"));
    }
    if header.producer_epoch < 0 {
        return Err(field("producer epoch", header.producer_epoch, "a producer id needs an epoch"));
    }
    if header.base_sequence < 0 {
        return Err(field("base sequence", header.base_sequence, "a producer id needs a sequence"));
    }
    Ok(())
}

fn check_crc(bytes: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    let computed = batch_crc(&bytes[..header.size_bytes()]);
    if computed != header.crc {
        return Err(BatchError::CrcMismatch { stored: header.crc, computed });
    }
    Ok(())
}

fn field(field: &'static str, value: impl Into<i64>, reason: &'static str) -> BatchError {
    BatchError::Field { field, value: value.into(), reason }
}

#[cfg(test)]
mod tests;
