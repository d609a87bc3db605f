//! The `.snapshot` file: the producers of a log as they were at the offset that names the file. Kafka's layout,
//! big-endian. No I/O.
//!
//! Version (i16, 1), CRC-32C of all bytes after it (u32), number of producers (i32), and for each 46 bytes: producer
//! id (i64), epoch (i16), last sequence (i32), last offset (i64), offset delta (i32), last timestamp (i64),
//! coordinator epoch (i32), first offset of the open transaction (i64, -1 if none). Last sequence and last offset are
//! -1, and the delta 0, for a producer without a batch in its epoch. Only the last batch of a producer is kept, so
//! after a restart only that one is told from a gap, until five more have come.

use std::collections::BTreeMap;

use floodmark_proto::batch::crc32c::crc32c;
use floodmark_proto::ids::{Offset, ProducerId};

use super::{BatchMetadata, ProducerState, ProducerStates};
use crate::format_error::{FormatError, Place};

const FILE: &str = "producer snapshot";
const VERSION: i16 = 1;
const HEAD_LEN: usize = 10;
const CRC_COVERS_FROM: usize = 6;
const ENTRY_LEN: usize = 46;

impl ProducerStates {
    /// The bytes of a snapshot of this state, to be stored under [`ProducerStates::end_offset`]. Equal states give
    /// equal bytes.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_LEN + self.len() * ENTRY_LEN);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend([0; 4]);
        // The caps keep the number of producers far below 2^31.
        bytes.extend((self.len() as i32).to_be_bytes());
        for state in self.iter() {
            let last = state.last_batch().copied();
            let last = last.unwrap_or(BatchMetadata {
                last_sequence: -1,
                last_offset: Offset(-1),
                ..BatchMetadata::default()
            });
            bytes.extend(state.producer_id.0.to_be_bytes());
            bytes.extend(state.epoch.to_be_bytes());
            bytes.extend(last.last_sequence.to_be_bytes());
            bytes.extend(last.last_offset.0.to_be_bytes());
            bytes.extend(last.offset_delta.to_be_bytes());
            bytes.extend(state.last_timestamp.to_be_bytes());
            bytes.extend(state.coordinator_epoch.to_be_bytes());
            bytes.extend(state.open_transaction.map_or(-1, |first| first.0).to_be_bytes());
        }
        let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
        bytes[2..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the snapshot that is stored under `end_offset`. Takes memory in proportion to `bytes`.
    ///
    /// Fails on another version, a wrong checksum, a count that does not match the length, values that no producer
    /// can have at that offset, and a producer or transaction that stands there twice. What has expired meanwhile is
    /// for the caller to [`ProducerStates::expire`].
    pub fn from_snapshot(bytes: &[u8], end_offset: Offset) -> Result<ProducerStates, FormatError> {
        let entries = check_frame(bytes)?;
        let mut states = ProducerStates { producers: BTreeMap::new(), ..ProducerStates::new(end_offset) };
        for (n, entry) in entries.iter().enumerate() {
            let state = decode(entry, n, end_offset)?;
            let repeated =
                |field, value| FormatError::Repeated { file: FILE, place: Place::Entry(n), field, value };
            if let Some(first) = state.open_transaction
                && states.open.insert(first, state.producer_id).is_some()
            {
                return Err(repeated("first offset of the open transaction", first.0));
            }
            if states.producers.insert(state.producer_id, state).is_some() {
                return Err(repeated("producer id", state.producer_id.0));
            }
        }
        Ok(states)
    }
}

/// Checks version, checksum and length, and gives the entries.
fn check_frame(bytes: &[u8]) -> Result<&[[u8; ENTRY_LEN]], FormatError> {
    let cut_short =
        |need| FormatError::CutShort { file: FILE, need_bytes: need, have_bytes: bytes.len() as u64 };
    let Some((head, body)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        return Err(cut_short(HEAD_LEN as u64));
    };
    let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *head;
    let version = i16::from_be_bytes([v0, v1]);
    if version > VERSION {
        return Err(FormatError::NewerVersion {
            file: FILE,
            found: i64::from(version),
            supported: i64::from(VERSION),
        });
    }
    if version < VERSION {
        return Err(FormatError::UnknownVersion { file: FILE, found: i64::from(version) });
    }
    let count = i32::from_be_bytes([n0, n1, n2, n3]);
    let count = usize::try_from(count).map_err(|_| FormatError::OutOfRange {
        file: FILE,
        place: Place::Byte(CRC_COVERS_FROM as u64),
        field: "number of producers",
        value: i64::from(count),
    })?;
    let need_bytes = (HEAD_LEN as u64).saturating_add((count as u64).saturating_mul(ENTRY_LEN as u64));
    if (bytes.len() as u64) < need_bytes {
        return Err(cut_short(need_bytes));
    }
    if bytes.len() as u64 > need_bytes {
        return Err(FormatError::Trailing { file: FILE, place: Place::Byte(need_bytes) });
    }
    let stored = u32::from_be_bytes([c0, c1, c2, c3]);
    let computed = crc32c(&bytes[CRC_COVERS_FROM..]);
    if stored != computed {
        return Err(FormatError::Checksum { file: FILE, stored, computed });
    }
    Ok(body.as_chunks::<ENTRY_LEN>().0)
}

fn decode(bytes: &[u8; ENTRY_LEN], n: usize, end_offset: Offset) -> Result<ProducerState, FormatError> {
    let producer_id = i64_at(bytes, 0);
    let epoch = i16::from_be_bytes([bytes[8], bytes[9]]);
    let last_sequence = i32_at(bytes, 10);
    let last_offset = i64_at(bytes, 14);
    let offset_delta = i32_at(bytes, 22);
    let last_timestamp = i64_at(bytes, 26);
    let coordinator_epoch = i32_at(bytes, 34);
    let open_transaction = i64_at(bytes, 38);

    let check = |holds: bool, field, value| {
        if holds {
            Ok(())
        } else {
            Err(FormatError::OutOfRange { file: FILE, place: Place::Entry(n), field, value })
        }
    };
    check(producer_id >= 0, "producer id", producer_id)?;
    check(epoch >= -1, "producer epoch", i64::from(epoch))?;
    check(last_sequence >= -1, "last sequence", i64::from(last_sequence))?;
    check((-1..end_offset.0).contains(&last_offset), "last offset", last_offset)?;
    let delta_max = last_offset.max(0);
    check((0..=delta_max).contains(&i64::from(offset_delta)), "offset delta", i64::from(offset_delta))?;
    check(coordinator_epoch >= -1, "coordinator epoch", i64::from(coordinator_epoch))?;
    let opened_in_log = (-1..end_offset.0).contains(&open_transaction);
    check(opened_in_log, "first offset of the open transaction", open_transaction)?;

    let mut state = ProducerState::new(ProducerId(producer_id), epoch);
    state.coordinator_epoch = coordinator_epoch;
    state.last_timestamp = last_timestamp;
    state.open_transaction = (open_transaction >= 0).then_some(Offset(open_transaction));
    if last_offset >= 0 {
        let last_offset = Offset(last_offset);
        state.recent.push(BatchMetadata {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp: last_timestamp,
        });
    }
    Ok(state)
}

fn i64_at(bytes: &[u8; ENTRY_LEN], at: usize) -> i64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(field)
}

fn i32_at(bytes: &[u8; ENTRY_LEN], at: usize) -> i32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    i32::from_be_bytes(field)
}
