//! What the records of a producer's batch expect of their streams, said by a header of each. Pure; decided by the partition.

use std::collections::HashMap;

use bytes::Bytes;
use floodmark_proto::batch::event_headers::{APPEND_ID, APPEND_ID_BYTES_MAX, EXPECTED_OFFSET};
use floodmark_proto::batch::{DecompressLimits, Record, RecordBatch};
use floodmark_proto::ids::Offset;
use floodmark_storage::log::condition::{Condition, Expected, KeyCheck};

use super::intake::{DECODED_BYTES_MAX, NamedRecord, Refusal, refuse};

/// Records of one batch that may expect something. Each is a look at its stream while the log waits, and a small batch may unpack to
/// a million of them.
pub(super) const EXPECTING_MAX: usize = 1_000;

/// What must hold for `batch` to be appended; `None` where no record of it expects anything.
///
/// Each record that carries the header is checked as though it came alone, behind the records of the batch that come before it; with
/// one that fails, none is appended.
pub(super) fn condition_of(batch: &RecordBatch, scratch: &mut Vec<u8>) -> Result<Option<Condition>, Refusal> {
    let limits = DecompressLimits { max_bytes: DECODED_BYTES_MAX, ..DecompressLimits::DEFAULT };
    let mut expecting = 0;
    for record in batch.records(&limits, scratch).map_err(refuse)? {
        let record = record.map_err(refuse)?;
        if only_value(&record, EXPECTED_OFFSET)?.is_some() {
            expecting += 1;
        }
        if expecting > EXPECTING_MAX {
            let reason =
                format!("more than {EXPECTING_MAX} records of the batch expect something of their streams");
            return Err(Refusal::Expectation(NamedRecord {
                index: record.offset_delta,
                reason: reason.into(),
            }));
        }
    }
    if expecting == 0 {
        return Ok(None);
    }
    let mut condition = Condition::default();
    // The last record of each key so far: of so many that a look through all of them for each would take minutes.
    let mut before: HashMap<&[u8], i32> = HashMap::new();
    for record in batch.records(&limits, scratch).map_err(refuse)? {
        let record = record.map_err(refuse)?;
        if let Some(expected) = expectation_of(&record)? {
            let key = record
                .key
                .ok_or_else(|| wrong(&record, "it expects something of its stream and has no key"))?;
            let earlier = before.get(key).copied();
            if condition.checks.is_empty() {
                condition.append_id = append_id_of(&record)?;
            }
            let (record, key) = (record.offset_delta, Bytes::copy_from_slice(key));
            condition.checks.push(KeyCheck { record, key, expected, earlier });
        }
        if condition.checks.len() == expecting {
            break;
        }
        if let Some(key) = record.key {
            before.insert(key, record.offset_delta);
        }
    }
    Ok(Some(condition))
}

fn expectation_of(record: &Record<'_>) -> Result<Option<Expected>, Refusal> {
    let Some(value) = only_value(record, EXPECTED_OFFSET)? else { return Ok(None) };
    let expected = match value {
        b"any" => Expected::Any,
        b"no-stream" => Expected::NoStream,
        b"stream-exists" => Expected::StreamExists,
        digits => {
            let offset = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            let offset = offset.and_then(|digits| digits.parse().ok());
            let reason = "floodmark-expected-offset must be any, no-stream, stream-exists or an offset";
            Expected::Exactly(Offset(offset.ok_or_else(|| wrong(record, reason))?))
        }
    };
    Ok(Some(expected))
}

fn append_id_of(record: &Record<'_>) -> Result<Option<Bytes>, Refusal> {
    let Some(id) = only_value(record, APPEND_ID)? else { return Ok(None) };
    if id.is_empty() || id.len() > APPEND_ID_BYTES_MAX {
        return Err(wrong(record, "floodmark-append-id must have 1 to 64 bytes"));
    }
    Ok(Some(Bytes::copy_from_slice(id)))
}

/// The value of the header with this key. Of two nobody could say which one counts.
fn only_value<'r>(record: &Record<'r>, key: &[u8]) -> Result<Option<&'r [u8]>, Refusal> {
    let mut found = None;
    for header in record.headers {
        let header = header.map_err(refuse)?;
        if header.key == key {
            if found.is_some() {
                return Err(wrong(record, "a header that the broker reads stands there twice"));
            }
            found = Some(header.value.unwrap_or_default());
        }
    }
    Ok(found)
}

fn wrong(record: &Record<'_>, reason: &'static str) -> Refusal {
    Refusal::Expectation(NamedRecord { index: record.offset_delta, reason: reason.into() })
}

#[cfg(test)]
mod tests;
