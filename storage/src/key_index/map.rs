//! The key index of the segment being written: a table of key hashes, and before it the newest records, which are not in it yet. Must know
//! nothing of files.

use std::ops::Range;

use super::table::KeyTable;
use super::{BatchKeys, Direction, Entry, Posting};

/// Records that are gathered before they go into the table together. Enough that the processor always has as many slots on their
/// way as it can; few enough that a look-up, which goes through all of them, takes some tens of nanoseconds for it.
const TAIL_MAX: usize = 128;

/// What a key costs in the file at most, and each of its records: by these the segment's size is bounded.
const FILE_BYTES_A_KEY: u64 = 24;
const FILE_BYTES_A_RECORD: u64 = 8;

/// Postings by key hash; those of a key rise.
#[derive(Debug)]
pub(crate) struct KeyMap {
    table: KeyTable,
    /// Records behind all of the table's, in their order.
    tail: Vec<Entry>,
}

impl KeyMap {
    /// An empty map. `like` says how large it will be, about.
    pub(crate) fn new(like: Option<&KeyTable>) -> KeyMap {
        KeyMap { table: KeyTable::new(like), tail: Vec::new() }
    }

    /// What the map of another segment may be made like.
    pub(crate) fn table(&self) -> &KeyTable {
        &self.table
    }

    /// Bytes that a file of this map would have, at most.
    pub(crate) fn file_bytes(&self) -> u64 {
        let tail = self.tail.len() as u64;
        let (keys, records) = (self.table.used() as u64 + tail, self.table.record_count() + tail);
        keys * FILE_BYTES_A_KEY + records * FILE_BYTES_A_RECORD
    }

    /// Notes the records of a batch whose first record has this relative offset, and which begins at `position`.
    pub(crate) fn add(&mut self, keys: &BatchKeys, offset: u32, position: u32) {
        keys.hashes().for_each(|(hash, delta)| {
            self.push(Entry { hash, posting: Posting { offset: offset.saturating_add(delta), position } });
        });
    }

    /// Notes a record that lies behind all that are here.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.tail.len() >= TAIL_MAX {
            self.fold();
        }
        self.tail.push(entry);
    }

    fn fold(&mut self) {
        self.table.insert_all(&self.tail);
        self.tail.clear();
    }

    /// Places of records whose key has this hash, with relative offsets in `within`: `max` of them, the first or the last.
    pub(crate) fn collect(
        &self,
        hash: u64,
        within: &Range<u32>,
        max: usize,
        direction: Direction,
    ) -> Vec<Posting> {
        let of_tail = self.tail.iter().filter(|entry| entry.hash == hash).map(|entry| entry.posting);
        let of_tail = of_tail.filter(|posting| within.contains(&posting.offset));
        let of_table = |max| self.table.collect(hash, within, max, direction);
        let (mut first, second) = match direction {
            Direction::Forward => {
                let older = of_table(max);
                let left = max - older.len();
                (older, of_tail.take(left).collect())
            }
            Direction::Backward => {
                let newer: Vec<Posting> = of_tail.rev().take(max).collect();
                // Who decides on an append asks for the newest one: where that is here, no slot need be fetched.
                let left = max - newer.len();
                (newer, if left == 0 { Vec::new() } else { of_table(left) })
            }
        };
        first.extend(second);
        first
    }

    /// Forgets records from the relative offset `end` on: the log was cut there.
    pub(crate) fn truncate(&mut self, end: u32) {
        self.tail.retain(|entry| entry.posting.offset < end);
        // Where a newer one stays, so does all of the table.
        if self.tail.is_empty() {
            self.table.truncate(end);
        }
    }

    /// All of it as a table, to which nothing comes any more.
    pub(crate) fn into_table(mut self) -> KeyTable {
        self.fold();
        self.table
    }
}
