//! What a producer sent for one partition, made ready for the log: judged against the topic's rules, given the broker's time or
//! another codec where the topic asks for that. Pure; knows nothing of partitions, doors or producer state.
//!
//! Records are looked at only where a rule needs them: a compacted topic must know that each has a key, an event store which, another
//! codec needs them decoded, and a producer that left the maximum timestamp unset leaves it to be found. Everything else is decided by the header and
//! one pass for the CRC (docs/adr/0008).

use std::borrow::Cow;

use bytes::BytesMut;
use floodmark_proto::batch::{
    BatchBuilder, BatchError, CompressionType, DecompressLimits, RecordBatch, RecordRules,
};
use floodmark_proto::ids::{LeaderEpoch, Offset, TimestampMs};

/// `max.message.bytes` bounds a batch as it comes; this bounds what it may become when it has to be decoded.
pub(super) const DECODED_BYTES_MAX: usize = 64 << 20;
/// Records named in one refusal; the first one is what a person looks at.
const NAMED_RECORDS_MAX: usize = 64;

/// The topic's settings that decide what is taken and how it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IntakeRules {
    /// `max.message.bytes`.
    pub(crate) max_batch_bytes: usize,
    /// `cleanup.policy` names `compact`.
    pub(crate) is_compacted: bool,
    /// `floodmark.key.index`: records are found by their key, so each must be where its batch says.
    pub(crate) is_event_store: bool,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub(crate) is_log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub(crate) before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub(crate) after_max_ms: i64,
    /// `compression.type`, `None` for `producer`; with the codec's level.
    pub(crate) compression: Option<(CompressionType, Option<i32>)>,
}

/// What a request's version and sender say of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentWith {
    /// zstd came with Produce version 7; older consumers could not read it.
    pub(crate) may_use_zstd: bool,
    /// The producer named a transaction.
    pub(crate) in_transaction: bool,
    /// The records are copies: what their headers asked of a broker was asked when they were new.
    pub(crate) are_copies: bool,
}

/// Why a partition's batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The bytes are not one batch of records, or a field of it is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The checksum does not match.
    #[error("{0}")]
    Corrupt(BatchError),
    /// Larger than `max.message.bytes`.
    #[error("{0}; raise the topic's max.message.bytes, or send smaller batches")]
    TooLarge(BatchError),
    /// A transactional batch without a transactional id, or the other way round.
    #[error("transactional batches and a transactional id come together or not at all")]
    Transaction,
    /// A codec that the request's version does not know.
    #[error("zstd needs version 7 of the request")]
    UnsupportedCompression,
    /// Records without a key in a compacted topic.
    #[error("compacted topic cannot accept message without key")]
    NoKey(Vec<NamedRecord>),
    /// What a record expects of its stream cannot be checked.
    #[error("record {} of the batch: {}", .0.index, .0.reason)]
    Expectation(NamedRecord),
    /// A time further off than the topic allows.
    #[error("timestamp {timestamp} is out of range, it must lie in {from} to {to}")]
    Timestamp {
        /// The batch's.
        timestamp: TimestampMs,
        /// Earliest that is taken.
        from: TimestampMs,
        /// Latest that is taken.
        to: TimestampMs,
    },
}

/// A record that a refusal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedRecord {
    /// Its place in the batch.
    pub(crate) index: i32,
    /// What is wrong with it.
    pub(crate) reason: Cow<'static, str>,
}

/// Judges what came for one partition and makes it what the log is to hold.
///
/// `scratch` is reused between calls. CPU-bound for one pass over the bytes; where records must be decoded, for that as well.
pub(crate) fn take_in(
    bytes: Option<BytesMut>,
    sent: SentWith,
    rules: &IntakeRules,
    now_ms: TimestampMs,
    scratch: &mut Vec<u8>,
) -> Result<RecordBatch, Refusal> {
    let bytes =
        bytes.filter(|b| !b.is_empty()).ok_or_else(|| invalid("there is no batch for the partition"))?;
    let mut batch = RecordBatch::from_client(bytes, rules.max_batch_bytes).map_err(refuse)?;
    // What a client says of offsets and epochs means nothing, and offsets near the largest must not overflow below.
    batch.stamp(Offset::ZERO, LeaderEpoch::UNKNOWN);
    let codec = batch.header().attributes.compression().unwrap_or(CompressionType::None);
    if codec == CompressionType::Zstd && !sent.may_use_zstd {
        return Err(Refusal::UnsupportedCompression);
    }
    if batch.header().attributes.is_transactional() != sent.in_transaction {
        return Err(Refusal::Transaction);
    }
    let target = rules.compression.filter(|(target, _)| *target != codec);
    let header = *batch.header();
    // Some clients leave the maximum at -1 or at the time of the first record; the log's look-ups by time need the real one.
    let has_unknown_maximum = header.max_timestamp < header.base_timestamp && !rules.is_log_append_time;
    if rules.is_compacted || rules.is_event_store || has_unknown_maximum || target.is_some() {
        let limits = DecompressLimits { max_bytes: DECODED_BYTES_MAX, ..DecompressLimits::DEFAULT };
        let summary = batch.check_records(RecordRules::FromClient, &limits, scratch).map_err(refuse)?;
        if summary.record_count != header.record_count as usize {
            return Err(invalid("the batch holds another number of records than its header says"));
        }
        if rules.is_compacted && summary.has_null_key {
            return Err(Refusal::NoKey(records_without_key(&batch, &limits, scratch)?));
        }
        if has_unknown_maximum {
            batch.set_max_timestamp(summary.max_timestamp);
        }
        if let Some(target) = target {
            batch = encode_with(&batch, target, &limits, scratch)?;
        }
    }
    if rules.is_log_append_time {
        batch.set_log_append_time(now_ms);
    } else {
        check_times(&batch, rules, now_ms)?;
    }
    Ok(batch)
}

fn check_times(batch: &RecordBatch, rules: &IntakeRules, now_ms: TimestampMs) -> Result<(), Refusal> {
    let from = now_ms.saturating_sub(rules.before_max_ms);
    let to = now_ms.saturating_add(rules.after_max_ms);
    let header = batch.header();
    // The base time is the first record's. -1 says that there is none.
    let wrong = [header.base_timestamp, header.max_timestamp]
        .into_iter()
        .find(|t| *t != -1 && !(from..=to).contains(t));
    wrong.map_or(Ok(()), |timestamp| Err(Refusal::Timestamp { timestamp, from, to }))
}

fn records_without_key(
    batch: &RecordBatch,
    limits: &DecompressLimits,
    scratch: &mut Vec<u8>,
) -> Result<Vec<NamedRecord>, Refusal> {
    let mut named = Vec::new();
    for record in batch.records(limits, scratch).map_err(refuse)? {
        let record = record.map_err(refuse)?;
        if record.key.is_none() && named.len() < NAMED_RECORDS_MAX {
            named.push(NamedRecord { index: record.offset_delta, reason: "the record has no key".into() });
        }
    }
    Ok(named)
}

/// The same records in another codec, with everything else of the batch as it was.
fn encode_with(
    batch: &RecordBatch,
    (codec, level): (CompressionType, Option<i32>),
    limits: &DecompressLimits,
    scratch: &mut Vec<u8>,
) -> Result<RecordBatch, Refusal> {
    let mut builder = BatchBuilder::like(batch.header()).compression(codec, level);
    for record in batch.records(limits, scratch).map_err(refuse)? {
        builder.push_stored(&record.map_err(refuse)?).map_err(refuse)?;
    }
    builder.build().map_err(refuse)
}

fn invalid(reason: &str) -> Refusal {
    Refusal::Invalid(reason.to_owned())
}

pub(super) fn refuse(error: BatchError) -> Refusal {
    match error {
        BatchError::CrcMismatch { .. } => Refusal::Corrupt(error),
        BatchError::TooLarge { .. } => Refusal::TooLarge(error),
        other => Refusal::Invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
