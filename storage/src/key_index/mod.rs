//! Which records of a segment carry which key, for topics with `floodmark.key.index=true`: keys as hashes, records as an offset and
//! the position of their batch. Bytes and facts in, bytes and places out; must never know which files a log has, nor who writes it.
//!
//! An index only says where to look. Two keys may share a hash, so whoever uses a place reads the record there and compares
//! its key; but a record of the key that is missing here would never be looked at, so nothing may be missing.
//!
//! - this file: hashes, and what of a batch goes into an index
//! - `map`: the index of the segment being written, in memory; `table`: most of it; `tail`: its newest records
//! - `file`: the `.keyindex` of a sealed segment; `filter` says cheaply that a key is not in it; `write` makes it of a table
//! - `whole`: such a file read from end to end, for who looks at it from outside

pub(crate) mod file;
mod filter;
pub(crate) mod map;
pub(crate) mod table;
mod tail;
mod whole;
pub(crate) mod write;

use floodmark_proto::batch::{
    BatchError, BatchHeader, CompressionType, DecompressLimits, HEADER_LEN, Records,
};
use floodmark_proto::ids::Offset;
use siphasher::sip::SipHasher13;

pub(crate) use whole::{KeyIndexCheck, Verdict};
pub use whole::{KeyPlace, WholeKeyIndex};

/// What a batch may become when its keys are looked at. Past this nobody could read it through this broker either.
pub(crate) const LOOK_INTO: DecompressLimits = DecompressLimits { max_bytes: 1 << 30, max_ratio: 1 << 20 };

/// The secret with which one log hashes keys, so that nobody can choose keys that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySeed(pub u64, pub u64);

impl KeySeed {
    /// The hash of a key; never 0, which stands for a free place.
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.0, self.1).hash(key).max(1)
    }
}

/// A record's place in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(crate) struct Posting {
    /// Its offset, relative to the segment's base.
    pub(crate) offset: u32,
    /// Where its batch begins.
    pub(crate) position: u32,
}

/// A posting with the hash of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) hash: u64,
    pub(crate) posting: Posting,
}

/// In which order a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// The keys of one batch, hashed. Made by whoever hands a batch in, before it waits for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchKeys {
    /// Hash of the first key, and its record's distance to the batch's first offset: most appends of events have one, and it takes no memory
    /// of its own. Records without a key are in no stream.
    first: Option<(u64, u32)>,
    /// The same of all other keys.
    more: Vec<(u64, u32)>,
}

impl BatchKeys {
    /// Looks into the batch at the start of `batch`, which is decoded if need be. CPU-bound for its length. Fails where a reader would
    /// fail.
    pub fn of(batch: &[u8], header: &BatchHeader, seed: KeySeed) -> Result<BatchKeys, BatchError> {
        let mut keys = BatchKeys::default();
        keys.gather(batch, header, seed)?;
        Ok(keys)
    }

    /// Records with a key.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// What goes into the index of a segment with this base, of a batch with these keys that lies there.
    pub(crate) fn entries(
        &self,
        segment_base: Offset,
        batch_base: Offset,
        position: u64,
    ) -> impl Iterator<Item = Entry> {
        let first = u32::try_from(batch_base - segment_base).unwrap_or(u32::MAX);
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        self.hashes().map(move |(hash, delta)| Entry {
            hash,
            posting: Posting { offset: first.saturating_add(delta), position },
        })
    }

    /// Hash of each key, and the record's distance to the batch's first offset, in their order.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = (u64, u32)> {
        self.first.iter().chain(&self.more).copied()
    }

    fn push(&mut self, hash: u64, delta: u32) {
        match self.first {
            None => self.first = Some((hash, delta)),
            Some(_) => self.more.push((hash, delta)),
        }
    }

    /// The same of a batch that is in the log already: where its records end to make sense, nobody can read on.
    pub(crate) fn of_stored(batch: &[u8], header: &BatchHeader, seed: KeySeed) -> BatchKeys {
        let mut keys = BatchKeys::default();
        // What was gathered before the error counts.
        let _ = keys.gather(batch, header, seed);
        keys
    }

    /// Adds the keys of a batch to none that are here yet; those before an error are here then.
    pub(crate) fn gather(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        seed: KeySeed,
    ) -> Result<(), BatchError> {
        if header.attributes.is_control() {
            return Ok(());
        }
        match (header.attributes.compression(), batch.get(HEADER_LEN..header.size_bytes())) {
            // Its header need not be read twice.
            (Some(CompressionType::None), Some(records)) => {
                self.gather_records(Records::over_bytes(records, header)?, header, seed)
            }
            _ => {
                let mut scratch = Vec::new();
                self.gather_records(Records::open(batch, &LOOK_INTO, &mut scratch)?, header, seed)
            }
        }
    }

    fn gather_records(
        &mut self,
        records: Records<'_>,
        header: &BatchHeader,
        seed: KeySeed,
    ) -> Result<(), BatchError> {
        let mut next = 0;
        for record in records {
            let record = record?;
            // One outside its place is one that no offset leads to.
            if i64::from(record.offset_delta) < next || record.offset_delta > header.last_offset_delta {
                continue;
            }
            let delta = record.offset_delta as u32;
            next = i64::from(delta) + 1;
            if let Some(key) = record.key {
                self.push(seed.hash(key), delta);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
