//! Key hashes, each with its records in the order of the log: what most of an index in memory lies in. It is larger than any cache, so
//! it is filled some hundred records at a time. Must know nothing of files.

use std::ops::Range;

use super::{Direction, Entry, Posting};

/// Slots of a fresh table. An idle log should cost little.
const SLOTS_MIN: usize = 64;
/// What the processor fetches at once: 64 bytes.
const SLOTS_A_LINE: usize = 64 / size_of::<Slot>();
/// Records of a key after which its chunks grow no further: of a long stream some thousand chunks at most are stepped over.
const CHUNK_MAX: u32 = 4096;
/// No chunk comes before.
const NONE: u32 = u32::MAX;

/// Postings by key hash; those of a key rise.
#[derive(Debug)]
pub(crate) struct KeyTable {
    /// Open addressing by the upper bits of the hash, as the file's: so a table grows from front to back, and is read for the file
    /// nearly in its order. As many as a power of two.
    slots: Vec<Slot>,
    /// Slots that belong to a hash.
    used: usize,
    /// Those of them that have records.
    keys: usize,
    chunks: Vec<Chunk>,
    postings: Vec<Posting>,
    records: u64,
}

/// A key: its only record, or the newest chunk of its records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    /// 0 where nobody ever used the slot.
    pub(super) hash: u64,
    /// Of one record: the offset; of more: the chunk.
    a: u32,
    /// Of one record: the position and one, so that it is none of the other two.
    b: u32,
}

/// In [`Slot::b`]: the slot's records were cut off.
const NO_RECORD: u32 = 0;
/// In [`Slot::b`]: there is a chunk. No batch begins at such a position: a segment has less than 2 GiB.
const IN_CHUNKS: u32 = u32::MAX;

/// What a slot says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    Nothing,
    One(Posting),
    /// By number, the newest chunk.
    Chunks(u32),
}

/// A piece of `postings` that belongs to one key.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    start: u32,
    len: u32,
    capacity: u32,
    before: u32,
}

impl Slot {
    fn new(hash: u64, held: Held) -> Slot {
        let (a, b) = match held {
            Held::Nothing => (0, NO_RECORD),
            Held::One(posting) => (posting.offset, posting.position.saturating_add(1).min(IN_CHUNKS - 1)),
            Held::Chunks(newest) => (newest, IN_CHUNKS),
        };
        Slot { hash, a, b }
    }

    pub(super) fn held(self) -> Held {
        match self.b {
            NO_RECORD => Held::Nothing,
            IN_CHUNKS => Held::Chunks(self.a),
            after => Held::One(Posting { offset: self.a, position: after - 1 }),
        }
    }
}

impl KeyTable {
    /// An empty table with room for about as many keys as `like` has: the next segment of a log mostly holds as many as the last,
    /// and growing in the middle of an append takes its time.
    pub(super) fn new(like: Option<&KeyTable>) -> KeyTable {
        let slots = like.map_or(SLOTS_MIN, |like| like.slots.len());
        KeyTable {
            slots: vec![Slot::default(); slots],
            used: 0,
            keys: 0,
            chunks: Vec::new(),
            postings: Vec::new(),
            records: 0,
        }
    }

    /// Slots that belong to a hash: as many keys as there are, or more.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn key_count(&self) -> usize {
        self.keys
    }

    pub(super) fn record_count(&self) -> u64 {
        self.records
    }

    /// Notes records that lie behind all that are here, in their order.
    pub(super) fn insert_all(&mut self, entries: &[Entry]) {
        while (self.used + entries.len()) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        // None of their slots is in a cache. Nothing here waits for another, so the processor fetches many of them at once; the
        // inserts would wait for one after the other.
        let fetched = entries.iter().fold(0, |all, entry| all ^ self.slots[self.home(entry.hash)].hash);
        std::hint::black_box(fetched);
        for entry in entries {
            self.insert(*entry);
        }
    }

    fn insert(&mut self, Entry { hash, posting }: Entry) {
        self.records += 1;
        let at = self.find(hash);
        let slot = self.slots[at];
        let held = match slot.held() {
            Held::Nothing => {
                self.used += usize::from(slot.hash == 0);
                self.keys += 1;
                Held::One(posting)
            }
            Held::One(first) => {
                let chunk = self.new_chunk(4, NONE);
                self.push_to(chunk, first);
                self.push_to(chunk, posting);
                Held::Chunks(chunk)
            }
            Held::Chunks(newest) => {
                let last = self.chunks[newest as usize];
                let chunk = if last.len < last.capacity {
                    newest
                } else {
                    self.new_chunk((last.capacity * 2).min(CHUNK_MAX), newest)
                };
                self.push_to(chunk, posting);
                Held::Chunks(chunk)
            }
        };
        self.slots[at] = Slot::new(hash, held);
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

    /// Where a hash belongs, unless others are there: the first slot of a line, so that most searches end in the line that they begin in.
    fn home(&self, hash: u64) -> usize {
        // There are two slots or more.
        (hash >> (64 - self.slots.len().trailing_zeros())) as usize & !(SLOTS_A_LINE - 1)
    }

    /// The slot of a hash, or the free one where it belongs. There always is one.
    fn find(&self, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.home(hash);
        while self.slots[at].hash != 0 && self.slots[at].hash != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let wanted = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); wanted]);
        for slot in old.into_iter().filter(|slot| slot.b != NO_RECORD) {
            let at = self.find(slot.hash);
            self.slots[at] = slot;
        }
        self.used = self.keys;
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
        let is_wanted = |posting: &&Posting| within.contains(&posting.offset);
        match (self.slots[self.find(hash)].held(), direction) {
            (Held::Nothing, _) => Vec::new(),
            (Held::One(only), _) => Some(only).iter().filter(is_wanted).take(max).copied().collect(),
            (Held::Chunks(newest), Direction::Backward) => {
                let chunks = self.chunks_from(newest, within.start);
                let newest_first = chunks.iter().flat_map(|chunk| self.of_chunk(*chunk).iter().rev());
                newest_first.filter(is_wanted).take(max).copied().collect()
            }
            (Held::Chunks(newest), Direction::Forward) => {
                let chunks = self.chunks_from(newest, within.start);
                let oldest_first = chunks.iter().rev().flat_map(|chunk| self.of_chunk(*chunk));
                oldest_first.filter(is_wanted).take(max).copied().collect()
            }
        }
    }

    /// Forgets records from the relative offset `end` on: the log was cut there.
    pub(super) fn truncate(&mut self, end: u32) {
        for at in 0..self.slots.len() {
            while let Some(left) = self.without_last(self.slots[at], end) {
                self.slots[at] = left;
                self.records -= 1;
                self.keys -= usize::from(left.b == NO_RECORD);
            }
        }
    }

    /// A slot without its last record, where that lies at `end` or behind.
    fn without_last(&mut self, slot: Slot, end: u32) -> Option<Slot> {
        let left = match slot.held() {
            Held::Nothing => return None,
            Held::One(only) => {
                return (only.offset >= end).then_some(Slot::new(slot.hash, Held::Nothing));
            }
            Held::Chunks(newest) => newest,
        };
        let mut chunk = self.chunks[left as usize];
        self.of_chunk(chunk).last().filter(|last| last.offset >= end)?;
        chunk.len -= 1;
        self.chunks[left as usize] = chunk;
        let held = match self.of_chunk(chunk) {
            [] if chunk.before == NONE => Held::Nothing,
            [] => Held::Chunks(chunk.before),
            [only] if chunk.before == NONE => Held::One(*only),
            _ => Held::Chunks(left),
        };
        Some(Slot::new(slot.hash, held))
    }

    /// Every key that has records, nearly in the order of their hashes.
    pub(super) fn keys(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().filter(|slot| slot.b != NO_RECORD).copied()
    }

    /// Appends the records of a key to a list.
    pub(super) fn append_records(&self, key: Slot, to: &mut Vec<Posting>) {
        match key.held() {
            Held::Nothing => {}
            Held::One(only) => to.push(only),
            Held::Chunks(newest) => {
                let chunks = self.chunks_from(newest, 0);
                to.extend(chunks.iter().rev().flat_map(|chunk| self.of_chunk(*chunk)));
            }
        }
    }
}
