//! The `.snapshot` file: the producers of a log as they were at the offset that names the file. Kafka's layout,
//! big-endian. No I/O.
//!
//! Version (i16, 1), CRC-32C of all bytes after it (u32), number of producers (i32), and for each 46 bytes: producer
//! id (i64), epoch (i16), last sequence (i32), last offset (i64), offset delta (i32), last timestamp (i64),
//! coordinator epoch (i32), first offset of the open transaction (i64, -1 if none). Last sequence and last offset are
//! -1, and the delta 0, for a producer without a batch in its epoch.
//!
//! A client may have several batches on their way when a broker dies, and sends all of them again. Kafka keeps the last
//! one alone, and takes a retry of those before it for a gap. Here they stand before it, as entries of the same
//! producer without a transaction, oldest first; the last of them is the last batch once more, where a marker has come
//! behind it and the entry that follows has the marker's time. Kafka reads such a file as it should: of several entries
//! the last one counts.

use std::collections::BTreeMap;

use floodmark_proto::batch::crc32c::crc32c;
use floodmark_proto::ids::{Offset, ProducerId, TimestampMs};

use super::entry::RecentBatches;
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
        let rows: usize = self.iter().map(|state| earlier(state).len() + 1).sum();
        let mut bytes = Vec::with_capacity(HEAD_LEN + rows * ENTRY_LEN);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend([0; 4]);
        // The caps keep the number of producers far below 2^31.
        bytes.extend((rows as i32).to_be_bytes());
        for state in self.iter() {
            for batch in earlier(state) {
                put(&mut bytes, state, batch, batch.timestamp, None);
            }
            let none =
                BatchMetadata { last_sequence: -1, last_offset: Offset(-1), ..BatchMetadata::default() };
            let last = state.last_batch().unwrap_or(&none);
            put(&mut bytes, state, last, state.last_timestamp, state.open_transaction);
        }
        let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
        bytes[2..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the snapshot that is stored under `end_offset`. Takes memory in proportion to `bytes`.
    ///
    /// Fails on another version, a wrong checksum, a count that does not match the length, values that no producer
    /// can have at that offset, and a producer or transaction that stands there twice, unless what comes first is an
    /// earlier batch. What has expired meanwhile is for the caller to [`ProducerStates::expire`].
    pub fn from_snapshot(bytes: &[u8], end_offset: Offset) -> Result<ProducerStates, FormatError> {
        let entries = check_frame(bytes)?;
        let mut states = ProducerStates { producers: BTreeMap::new(), ..ProducerStates::new(end_offset) };
        let mut n = 0;
        for of_one_producer in entries.chunk_by(|a, b| a[..8] == b[..8]) {
            let state = read_rows(of_one_producer, n, end_offset)?;
            n += of_one_producer.len();
            if let Some(first) = state.open_transaction
                && states.open.insert(first, state.producer_id).is_some()
            {
                return Err(repeated(n - 1, "first offset of the open transaction", first.0));
            }
            if states.producers.insert(state.producer_id, state).is_some() {
                return Err(repeated(n - 1, "producer id", state.producer_id.0));
            }
        }
        Ok(states)
    }
}

/// The batches of a producer that its last entry does not tell of, or not with their own time.
fn earlier(state: &ProducerState) -> &[BatchMetadata] {
    match state.recent_batches() {
        [earlier @ .., last] if last.timestamp == state.last_timestamp => earlier,
        all => all,
    }
}

fn put(
    bytes: &mut Vec<u8>,
    state: &ProducerState,
    batch: &BatchMetadata,
    timestamp: TimestampMs,
    open_transaction: Option<Offset>,
) {
    bytes.extend(state.producer_id.0.to_be_bytes());
    bytes.extend(state.epoch.to_be_bytes());
    bytes.extend(batch.last_sequence.to_be_bytes());
    bytes.extend(batch.last_offset.0.to_be_bytes());
    bytes.extend(batch.offset_delta.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend(state.coordinator_epoch.to_be_bytes());
    bytes.extend(open_transaction.map_or(-1, |first| first.0).to_be_bytes());
}

fn repeated(entry: usize, field: &'static str, value: i64) -> FormatError {
    FormatError::Repeated { file: FILE, place: Place::Entry(entry), field, value }
}

/// The entries of one producer, of which the first is entry `n` of the file.
fn read_rows(rows: &[[u8; ENTRY_LEN]], n: usize, end_offset: Offset) -> Result<ProducerState, FormatError> {
    let Some((last, earlier)) = rows.split_last() else {
        return Err(FormatError::CutShort { file: FILE, need_bytes: 1, have_bytes: 0 });
    };
    let mut state = decode(last, n + earlier.len(), end_offset)?;
    let mut recent = RecentBatches::default();
    for (at, row) in (n..).zip(earlier) {
        let before = decode(row, at, end_offset)?;
        let follows = |batch: &BatchMetadata| {
            recent.as_slice().last().is_none_or(|previous| previous.last_offset < batch.last_offset)
        };
        match before.last_batch() {
            Some(batch)
                if before.epoch == state.epoch && before.open_transaction.is_none() && follows(batch) =>
            {
                recent.push(*batch);
            }
            _ => return Err(repeated(at + 1, "producer id", state.producer_id.0)),
        }
    }
    match (recent.as_slice().last(), state.last_batch()) {
        (None, _) => return Ok(state),
        // The same batch, with its own time.
        (Some(a), Some(b)) if BatchMetadata { timestamp: b.timestamp, ..*a } == *b => {}
        (Some(a), Some(b)) if a.last_offset < b.last_offset => recent.push(*b),
        _ => return Err(repeated(n + earlier.len(), "producer id", state.producer_id.0)),
    }
    state.recent = recent;
    Ok(state)
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
