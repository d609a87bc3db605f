//! The key index of the segment being written: a table of key hashes, each with its records in the order of the log. Must know
//! nothing of files.

use std::ops::Range;

use super::{BatchKeys, Direction, Entry, Posting};

/// Slots of a fresh table. An idle log should cost little.
const SLOTS_MIN: usize = 64;
/// Records of a key after which its chunks grow no further: of a long stream some thousand chunks at most are stepped over.
const CHUNK_MAX: u32 = 4096;
/// No chunk comes before.
const NONE: u32 = u32::MAX;

/// What a key costs in the file at most, and each of its records: by these the segment's size is bounded.
const FILE_BYTES_A_KEY: u64 = 24;
const FILE_BYTES_A_RECORD: u64 = 8;

/// Postings by key hash; those of a key rise.
#[derive(Debug)]
pub(crate) struct KeyMap {
    /// Open addressing; as many as a power of two.
    slots: Vec<Slot>,
    used: usize,
    chunks: Vec<Chunk>,
    postings: Vec<Posting>,
    records: u64,
}

/// A key: its only record, or the newest chunk of its records.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// 0 where nobody ever used the slot.
    hash: u64,
    count: u32,
    /// Of one record: the offset; of more: the chunk.
    a: u32,
    /// Of one record: the position.
    b: u32,
}

/// A piece of `postings` that belongs to one key.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    start: u32,
    len: u32,
    capacity: u32,
    before: u32,
}

impl KeyMap {
    /// An empty map with room for about as many keys as `like` has: the next segment of a log mostly holds as many as the last,
    /// and growing in the middle of an append takes its time.
    pub(crate) fn new(like: Option<&KeyMap>) -> KeyMap {
        let slots = like.map_or(SLOTS_MIN, |like| like.slots.len());
        KeyMap {
            slots: vec![Slot::default(); slots],
            used: 0,
            chunks: Vec::new(),
            postings: Vec::new(),
            records: 0,
        }
    }

    /// Bytes that a file of this map would have, at most.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.used as u64 * FILE_BYTES_A_KEY + self.records * FILE_BYTES_A_RECORD
    }

    /// Notes the records of a batch whose first record has this relative offset, and which begins at `position`.
    pub(crate) fn add(&mut self, keys: &BatchKeys, offset: u32, position: u32) {
        for (hash, delta) in &keys.hashes {
            self.insert(*hash, Posting { offset: offset.saturating_add(*delta), position });
        }
    }

    fn insert(&mut self, hash: u64, posting: Posting) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.records += 1;
        let at = self.find(hash);
        let slot = self.slots[at];
        self.used += usize::from(slot.hash == 0);
        let (a, b) = match slot.count {
            0 => (posting.offset, posting.position),
            1 => {
                let chunk = self.new_chunk(4, NONE);
                self.push_to(chunk, Posting { offset: slot.a, position: slot.b });
                self.push_to(chunk, posting);
                (chunk, 0)
            }
            _ => {
                let last = self.chunks[slot.a as usize];
                let chunk = if last.len < last.capacity {
                    slot.a
                } else {
                    self.new_chunk((last.capacity * 2).min(CHUNK_MAX), slot.a)
                };
                self.push_to(chunk, posting);
                (chunk, 0)
            }
        };
        self.slots[at] = Slot { hash, count: slot.count + 1, a, b };
    }

    fn new_chunk(&mut self, capacity: u32, before: u32) -> u32 {
        let start = self.postings.len();
        self.postings.resize(start + capacity as usize, Posting::default());
        self.chunks.push(Chunk { start: start as u32, len: 0, capacity, before });
        (self.chunks.len() - 1) as u32
    }

    fn push_to(&mut self, chunk: u32, posting: Posting) {
        let chunk = &mut self.chunks[chunk as usize];
        self.postings[(chunk.start + chunk.len) as usize] = posting;
        chunk.len += 1;
    }

    /// The slot of a hash, or the free one where it belongs. There always is one.
    fn find(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].hash != 0 && self.slots[at].hash != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let wanted = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); wanted]);
        self.used = 0;
        for slot in old.into_iter().filter(|slot| slot.count > 0) {
            let at = self.find(slot.hash);
            self.slots[at] = slot;
            self.used += 1;
        }
    }

    fn of_chunk(&self, chunk: Chunk) -> &[Posting] {
        &self.postings[chunk.start as usize..(chunk.start + chunk.len) as usize]
    }

    /// The chunks of a key that may hold offsets from `from` on, newest first.
    fn chunks_from(&self, newest: u32, from: u32) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut at = newest;
        while at != NONE {
            let chunk = self.chunks[at as usize];
            chunks.push(chunk);
            if self.of_chunk(chunk).first().is_some_and(|first| first.offset < from) {
                break;
            }
            at = chunk.before;
        }
        chunks
    }

    /// Places of records whose key has this hash, with relative offsets in `within`: `max` of them, the first or the last.
    pub(crate) fn collect(
        &self,
        hash: u64,
        within: &Range<u32>,
        max: usize,
        direction: Direction,
    ) -> Vec<Posting> {
        let slot = self.slots[self.find(hash)];
        let is_wanted = |posting: &&Posting| within.contains(&posting.offset);
        match (slot.count, direction) {
            (0, _) => Vec::new(),
            (1, _) => {
                let only = Posting { offset: slot.a, position: slot.b };
                Some(only).iter().filter(is_wanted).take(max).copied().collect()
            }
            (_, Direction::Backward) => {
                let chunks = self.chunks_from(slot.a, within.start);
                let newest_first = chunks.iter().flat_map(|chunk| self.of_chunk(*chunk).iter().rev());
                newest_first.filter(is_wanted).take(max).copied().collect()
            }
            (_, Direction::Forward) => {
                let chunks = self.chunks_from(slot.a, within.start);
                let oldest_first = chunks.iter().rev().flat_map(|chunk| self.of_chunk(*chunk));
                oldest_first.filter(is_wanted).take(max).copied().collect()
            }
        }
    }

    /// Forgets records from the relative offset `end` on: the log was cut there.
    pub(crate) fn truncate(&mut self, end: u32) {
        for at in 0..self.slots.len() {
            while let Some(left) = self.without_last(self.slots[at], end) {
                self.slots[at] = left;
                self.records -= 1;
            }
        }
    }

    /// A slot without its last record, where that lies at `end` or behind.
    fn without_last(&mut self, slot: Slot, end: u32) -> Option<Slot> {
        let one = |posting: Posting| Slot { count: 1, a: posting.offset, b: posting.position, ..slot };
        match slot.count {
            0 => None,
            1 => (slot.a >= end).then_some(Slot { count: 0, ..slot }),
            count => {
                let chunk = self.chunks[slot.a as usize];
                self.of_chunk(chunk).last().filter(|last| last.offset >= end)?;
                let (mut newest, mut left) = (slot.a, chunk);
                left.len -= 1;
                self.chunks[newest as usize] = left;
                if left.len == 0 {
                    newest = left.before;
                    left = *self.chunks.get(newest as usize)?;
                }
                if count == 2 {
                    self.of_chunk(left).first().map(|p| one(*p))
                } else {
                    Some(Slot { count: count - 1, a: newest, ..slot })
                }
            }
        }
    }

    /// All of it, in no order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.records as usize);
        for slot in self.slots.iter().filter(|slot| slot.count > 0) {
            let entry = |posting: &Posting| Entry { hash: slot.hash, posting: *posting };
            if slot.count == 1 {
                entries.push(entry(&Posting { offset: slot.a, position: slot.b }));
            } else {
                for chunk in self.chunks_from(slot.a, 0) {
                    entries.extend(self.of_chunk(chunk).iter().map(entry));
                }
            }
        }
        entries
    }
}
