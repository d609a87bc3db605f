//! The `.txnindex` file: the aborted transactions whose marker lies in the segment, in order of their markers. 34
//! bytes an entry, big-endian: version (i16, 0), producer id, first offset, last offset, last stable offset (i64
//! each).

use floodmark_proto::ids::{Offset, ProducerId};

use crate::format_error::{FormatError, Place};

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 34;
/// Entries that one segment's index may hold; a segment that has so many rolls.
pub const ENTRIES_MAX: u32 = 1 << 20;
/// Bytes of the largest index.
pub const BYTES_MAX: u64 = ENTRIES_MAX as u64 * ENTRY_LEN as u64;
const VERSION: i16 = 0;
const FILE: &str = "transaction index";

/// A transaction that was aborted. Small enough to be kept and sent by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose transaction it was.
    pub producer_id: ProducerId,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Offset of its abort marker.
    pub last_offset: Offset,
    /// The last stable offset once the marker was written: the first offset of the oldest transaction still open
    /// then, or the offset after the marker. Later entries are of transactions that begin there or after it, so a
    /// read that ends at or before it needs none of them.
    pub last_stable_offset: Offset,
}

impl AbortedTransaction {
    /// The entry as it stands in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        bytes[2..10].copy_from_slice(&self.producer_id.0.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.first_offset.0.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.last_offset.0.to_be_bytes());
        bytes[26..].copy_from_slice(&self.last_stable_offset.0.to_be_bytes());
        bytes
    }
}

/// What tells the entries of an index from any others: Kafka's file has no checksum of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntriesFacts {
    /// How many there are.
    pub entries: u32,
    /// CRC-32 of their bytes.
    pub crc: u32,
}

impl EntriesFacts {
    /// Of the whole entries in `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> EntriesFacts {
        EntriesFacts::default().and(bytes)
    }

    /// With those in `bytes` behind.
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> EntriesFacts {
        let added = bytes.len() / ENTRY_LEN;
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc);
        crc.update(&bytes[..added * ENTRY_LEN]);
        EntriesFacts { entries: self.entries.saturating_add(added as u32), crc: crc.finalize() }
    }

    /// Bytes that the entries take.
    #[must_use]
    pub fn len_bytes(self) -> u64 {
        u64::from(self.entries) * ENTRY_LEN as u64
    }

    /// The entries at the head of `bytes`, where they are the ones that this was taken of.
    #[must_use]
    pub fn found_in(self, bytes: &[u8]) -> Option<&[u8]> {
        let head = bytes.get(..self.len_bytes() as usize)?;
        (EntriesFacts::of(head) == self).then_some(head)
    }
}

/// Reads a whole index, which has no padding. Takes memory in proportion to `bytes`.
///
/// Fails on another version, on a cut entry, on impossible offsets, and where last offsets do not rise.
pub fn parse(bytes: &[u8]) -> Result<Vec<AbortedTransaction>, FormatError> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    let mut parsed: Vec<AbortedTransaction> = Vec::with_capacity(entries.len());
    for (n, entry) in entries.iter().enumerate() {
        let transaction = decode(entry, n)?;
        if let Some(previous) = parsed.last().map(|p| p.last_offset)
            && transaction.last_offset <= previous
        {
            return Err(FormatError::OutOfOrder {
                file: FILE,
                place: Place::Entry(n),
                field: "last offset",
                value: transaction.last_offset.0,
                previous: previous.0,
            });
        }
        parsed.push(transaction);
    }
    if rest.is_empty() {
        Ok(parsed)
    } else {
        Err(FormatError::CutShort {
            file: FILE,
            need_bytes: ((entries.len() + 1) * ENTRY_LEN) as u64,
            have_bytes: bytes.len() as u64,
        })
    }
}

/// How many leading entries of a file that may be damaged are right by themselves and in order.
#[must_use]
pub fn valid_prefix(bytes: &[u8]) -> usize {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    let mut previous = Offset(-1);
    for (n, entry) in entries.iter().enumerate() {
        match decode(entry, n) {
            Ok(transaction) if transaction.last_offset > previous => previous = transaction.last_offset,
            _ => return n,
        }
    }
    entries.len()
}

/// What a look into one segment's index gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Aborted transactions that overlap the range, in the order of their markers.
    pub aborted: Vec<AbortedTransaction>,
    /// True where no later segment can hold another one; else the search goes on in the next segment.
    pub is_complete: bool,
}

/// Aborted transactions that overlap the read range from `first` to before `end`, from the entries of one segment.
#[must_use]
pub fn collect(entries: &[AbortedTransaction], first: Offset, end: Offset) -> Collected {
    let mut aborted = Vec::new();
    for entry in entries {
        if entry.last_offset >= first && entry.first_offset < end {
            aborted.push(*entry);
        }
        if entry.last_stable_offset >= end {
            return Collected { aborted, is_complete: true };
        }
    }
    Collected { aborted, is_complete: false }
}

/// How many leading entries remain when the log is cut so that `end` becomes its next offset.
#[must_use]
pub fn entries_before(entries: &[AbortedTransaction], end: Offset) -> usize {
    entries.partition_point(|entry| entry.last_offset < end)
}

fn decode(bytes: &[u8; ENTRY_LEN], n: usize) -> Result<AbortedTransaction, FormatError> {
    let version = i16::from_be_bytes([bytes[0], bytes[1]]);
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
    let transaction = AbortedTransaction {
        producer_id: ProducerId(i64_at(bytes, 2)),
        first_offset: Offset(i64_at(bytes, 10)),
        last_offset: Offset(i64_at(bytes, 18)),
        last_stable_offset: Offset(i64_at(bytes, 26)),
    };
    let out_of_range =
        |field, value| FormatError::OutOfRange { file: FILE, place: Place::Entry(n), field, value };
    if transaction.producer_id.0 < 0 {
        return Err(out_of_range("producer id", transaction.producer_id.0));
    }
    if transaction.first_offset.0 < 0 {
        return Err(out_of_range("first offset", transaction.first_offset.0));
    }
    // The marker follows what it ends; so zeros left by a torn write are no entry.
    if transaction.last_offset <= transaction.first_offset || transaction.last_offset == Offset::MAX {
        return Err(out_of_range("last offset", transaction.last_offset.0));
    }
    // Nothing after the marker existed when the entry was written.
    if transaction.last_stable_offset.0 < 0 || transaction.last_stable_offset > transaction.last_offset.next()
    {
        return Err(out_of_range("last stable offset", transaction.last_stable_offset.0));
    }
    Ok(transaction)
}

fn i64_at(bytes: &[u8; ENTRY_LEN], at: usize) -> i64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(field)
}
