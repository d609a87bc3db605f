//! Key hashes, each with its records in the order of the log: what most of an index in memory lies in. It is larger than any cache, so
//! it is filled some hundred records at a time. Must know nothing of files.

use std::ops::Range;

use super::{Direction, Entry, Posting};

/// Lines of a fresh table. An idle log should cost little.
const LINES_MIN: usize = 16;
/// Slots of a line.
const SLOTS: usize = 4;
/// Records of a key after which its chunks grow no further: of a long stream some thousand chunks at most are stepped over.
const CHUNK_MAX: u32 = 4096;
/// No chunk comes before.
const NONE: u32 = u32::MAX;

/// Four slots, in what the processor fetches at once. They are taken from front to back, and none is given back.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line {
    /// 0 where nobody ever used the slot.
    hashes: [u64; SLOTS],
    held: [Packed; SLOTS],
}

/// Postings by key hash; those of a key rise.
#[derive(Debug)]
pub(crate) struct KeyTable {
    /// Open addressing by the upper bits of the hash, as the file's: so a table grows from front to back, and is read for the file
    /// in its order. A hash that finds its line full is in the next one that is not. As many as a power of two.
    lines: Vec<Line>,
    /// Slots that belong to a hash.
    used: usize,
    /// Those of them that have records.
    keys: usize,
    chunks: Vec<Chunk>,
    postings: Vec<Posting>,
    records: u64,
}

/// Where a slot is.
#[derive(Debug, Clone, Copy)]
struct At {
    line: usize,
    slot: usize,
}

/// What a slot holds of its key: of one record the offset and, behind it, the position and one, so that the lower half is none of the
/// other two; of more records the number of the newest chunk, and [`IN_CHUNKS`].
#[derive(Debug, Clone, Copy, Default)]
struct Packed(u64);

/// The slot's records were cut off.
const NO_RECORD: u32 = 0;
/// There is a chunk. No batch begins at such a position: a segment has less than 2 GiB.
const IN_CHUNKS: u32 = u32::MAX;

/// What a slot says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    Nothing,
    One(Posting),
    /// By number, the newest chunk.
    Chunks(u32),
}

/// A key that has records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) hash: u64,
    pub(super) held: Held,
}

/// A piece of `postings` that belongs to one key.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    start: u32,
    len: u32,
    capacity: u32,
    before: u32,
}

impl Packed {
    fn new(held: Held) -> Packed {
        let (a, b) = match held {
            Held::Nothing => (0, NO_RECORD),
            Held::One(posting) => (posting.offset, posting.position.saturating_add(1).min(IN_CHUNKS - 1)),
            Held::Chunks(newest) => (newest, IN_CHUNKS),
        };
        Packed(u64::from(a) << 32 | u64::from(b))
    }

    fn has_records(self) -> bool {
        self.0 as u32 != NO_RECORD
    }

    fn held(self) -> Held {
        let a = (self.0 >> 32) as u32;
        match self.0 as u32 {
            NO_RECORD => Held::Nothing,
            IN_CHUNKS => Held::Chunks(a),
            after => Held::One(Posting { offset: a, position: after - 1 }),
        }
    }
}

impl KeyTable {
    /// An empty table with room for about as many keys as `like` has: the next segment of a log mostly holds as many as the last,
    /// and growing in the middle of an append takes its time.
    pub(super) fn new(like: Option<&KeyTable>) -> KeyTable {
        KeyTable {
            lines: vec![Line::default(); like.map_or(LINES_MIN, |like| like.lines.len())],
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
    pub(super) fn insert_all(&mut self, entries: impl Iterator<Item = Entry> + Clone) {
        while (self.used + entries.clone().count()) * 4 > self.lines.len() * SLOTS * 3 {
            self.grow();
        }
        // None of their lines is in a cache. Nothing here waits for another, so the processor fetches many of them at once; the
        // inserts would wait for one after the other.
        let fetched = entries.clone().fold(0, |all, entry| all ^ self.lines[self.home(entry.hash)].hashes[0]);
        std::hint::black_box(fetched);
        entries.for_each(|entry| self.insert(entry));
    }

    #[inline]
    fn insert(&mut self, Entry { hash, posting }: Entry) {
        self.records += 1;
        let at = self.find(hash);
        let held = match self.held(at) {
            Held::Nothing => {
                self.used += usize::from(self.lines[at.line].hashes[at.slot] == 0);
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
        self.set(at, hash, Packed::new(held));
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

    /// The line of a hash, unless others fill it.
    fn home(&self, hash: u64) -> usize {
        // There are two lines or more.
        (hash >> (64 - self.lines.len().trailing_zeros())) as usize
    }

    /// The slot of a hash, or the free one where it belongs. There always is one.
    fn find(&self, hash: u64) -> At {
        let mask = self.lines.len() - 1;
        let mut at = self.home(hash);
        loop {
            let hashes = &self.lines[at].hashes;
            // Which of the four it is cannot be foretold, so there is no branch for each.
            let fits = |slot: usize| u32::from((hashes[slot] == hash) | (hashes[slot] == 0)) << slot;
            let fitting = fits(0) | fits(1) | fits(2) | fits(3);
            if fitting != 0 {
                return At { line: at, slot: fitting.trailing_zeros() as usize };
            }
            at = (at + 1) & mask;
        }
    }

    fn held(&self, At { line, slot }: At) -> Held {
        self.lines[line].held[slot].held()
    }

    fn set(&mut self, At { line, slot }: At, hash: u64, held: Packed) {
        let line = &mut self.lines[line];
        line.hashes[slot] = hash;
        line.held[slot] = held;
    }

    fn grow(&mut self) {
        let wanted = self.lines.len() * 2;
        let old = std::mem::replace(&mut self.lines, vec![Line::default(); wanted]);
        for line in old {
            for (hash, held) in line.hashes.into_iter().zip(line.held) {
                if held.has_records() {
                    self.set(self.find(hash), hash, held);
                }
            }
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
        match (self.held(self.find(hash)), direction) {
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
        for n in 0..self.lines.len() * SLOTS {
            let at = At { line: n / SLOTS, slot: n % SLOTS };
            while let Some(left) = self.without_last(self.held(at), end) {
                self.set(at, self.lines[at.line].hashes[at.slot], Packed::new(left));
                self.records -= 1;
                self.keys -= usize::from(matches!(left, Held::Nothing));
            }
        }
    }

    /// What a slot holds without its last record, where that lies at `end` or behind.
    fn without_last(&mut self, held: Held, end: u32) -> Option<Held> {
        let left = match held {
            Held::Nothing => return None,
            Held::One(only) => return (only.offset >= end).then_some(Held::Nothing),
            Held::Chunks(newest) => newest,
        };
        let mut chunk = self.chunks[left as usize];
        self.of_chunk(chunk).last().filter(|last| last.offset >= end)?;
        chunk.len -= 1;
        self.chunks[left as usize] = chunk;
        Some(match self.of_chunk(chunk) {
            [] if chunk.before == NONE => Held::Nothing,
            [] => Held::Chunks(chunk.before),
            [only] if chunk.before == NONE => Held::One(*only),
            _ => Held::Chunks(left),
        })
    }

    /// Gathers in `room` the keys with records whose hashes lie from `first` to `last`: of each the lower half of its hash, and behind it a
    /// number by which [`KeyTable::key`] knows it.
    pub(super) fn gather<'r>(&self, first: u64, last: u64, room: &'r mut Vec<u64>) -> &'r mut [u64] {
        let mut count = 0;
        let (home, last_home) = (self.home(first), self.home(last));
        for n in 0..self.lines.len() {
            let at = (home + n) & (self.lines.len() - 1);
            let line = &self.lines[at];
            if room.len() < count + SLOTS {
                room.resize((count + SLOTS) * 2, 0);
            }
            for slot in 0..SLOTS {
                // Written in any case, and counted where it is one: nobody could foretell which.
                let hash = line.hashes[slot];
                let is_one = line.held[slot].has_records() & (hash >= first) & (hash <= last);
                room[count] = hash << 32 | (at * SLOTS + slot) as u64;
                count += usize::from(is_one);
            }
            // Behind the last home are those whose lines were full.
            if home + n >= last_home && line.hashes[SLOTS - 1] == 0 {
                break;
            }
        }
        &mut room[..count]
    }

    /// The key with a number that [`KeyTable::gather`] gave.
    pub(super) fn key(&self, number: u32) -> Key {
        let at = At { line: number as usize / SLOTS, slot: number as usize % SLOTS };
        Key { hash: self.lines[at.line].hashes[at.slot], held: self.held(at) }
    }

    /// Appends the records of a key to a list.
    pub(super) fn append_records(&self, held: Held, to: &mut Vec<Posting>) {
        match held {
            Held::Nothing => {}
            Held::One(only) => to.push(only),
            Held::Chunks(newest) => {
                let chunk = self.chunks[newest as usize];
                if chunk.before == NONE {
                    // So it is with most keys.
                    to.extend(self.of_chunk(chunk));
                    return;
                }
                let chunks = self.chunks_from(newest, 0);
                to.extend(chunks.iter().rev().flat_map(|chunk| self.of_chunk(*chunk)));
            }
        }
    }
}
