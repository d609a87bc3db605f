//! The key index of the segment being written: a table of key hashes, and before it the newest records, which are not in it yet. Must know
//! nothing of files.

use std::ops::Range;
use std::sync::Arc;

use super::table::KeyTable;
use super::tail::Tail;
use super::{BatchKeys, Direction, Entry, Posting};

/// What a key costs in the file at most, and each of its records: by these the segment's size is bounded.
const FILE_BYTES_A_KEY: u64 = 24;
const FILE_BYTES_A_RECORD: u64 = 8;

/// Postings by key hash; those of a key rise.
#[derive(Debug)]
pub(crate) struct KeyMap {
    table: KeyTable,
    /// Records behind all of the table's. Made when the first one comes: an idle log should cost little.
    tail: Option<Arc<Tail>>,
}

/// The way by which the log's writer adds to a map without its lock, for as long as the map has room before its table.
#[derive(Debug)]
pub(crate) struct TailWriter(Arc<Tail>);

impl TailWriter {
    /// Bytes by which the file would be larger for the records of this batch, which are in the map now. `None` where they are not: there is
    /// no room, or the map is no more.
    pub(crate) fn add(&self, keys: &BatchKeys, offset: u32, position: u32) -> Option<u64> {
        // A map that was frozen or forgotten has let go of its list. All of that is the writer's doing, so it does not happen meanwhile.
        let is_of_map = Arc::strong_count(&self.0) > 1;
        let is_added = is_of_map && self.0.add(keys, offset, position);
        is_added.then(|| keys.count() as u64 * (FILE_BYTES_A_KEY + FILE_BYTES_A_RECORD))
    }
}

impl KeyMap {
    /// An empty map. `like` says how large it will be, about.
    pub(crate) fn new(like: Option<&KeyTable>) -> KeyMap {
        KeyMap { table: KeyTable::new(like), tail: None }
    }

    /// What the map of another segment may be made like.
    pub(crate) fn table(&self) -> &KeyTable {
        &self.table
    }

    /// For the one who adds to this map, and to no other one beside it.
    pub(crate) fn tail_writer(&self) -> Option<TailWriter> {
        self.tail.clone().map(TailWriter)
    }

    /// Bytes that a file of this map would have, at most.
    pub(crate) fn file_bytes(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.len()) as u64;
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
        let tail = self.tail.get_or_insert_with(|| Arc::new(Tail::new()));
        if !tail.push(entry) {
            fold(tail, &mut self.table);
            tail.push(entry);
        }
    }

    /// Places of records whose key has this hash, with relative offsets in `within`: `max` of them, the first or the last.
    pub(crate) fn collect(
        &self,
        hash: u64,
        within: &Range<u32>,
        max: usize,
        direction: Direction,
    ) -> Vec<Posting> {
        let tail = self.tail.iter().flat_map(|tail| tail.entries());
        let of_tail = tail.filter(|entry| entry.hash == hash).map(|entry| entry.posting);
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
                // Who decides on an append asks for the newest one: where that is here, no line need be fetched.
                let left = max - newer.len();
                (newer, if left == 0 { Vec::new() } else { of_table(left) })
            }
        };
        first.extend(second);
        first
    }

    /// Forgets records from the relative offset `end` on: the log was cut there.
    pub(crate) fn truncate(&mut self, end: u32) {
        let kept = self.tail.as_ref().map_or(0, |tail| {
            tail.shorten(tail.entries().take_while(|entry| entry.posting.offset < end).count());
            tail.len()
        });
        // Where a newer one stays, so does all of the table.
        if kept == 0 {
            self.table.truncate(end);
        }
    }

    /// All of it as a table, to which nothing comes any more.
    pub(crate) fn into_table(mut self) -> KeyTable {
        if let Some(tail) = &self.tail {
            fold(tail, &mut self.table);
        }
        self.table
    }
}

fn fold(tail: &Tail, table: &mut KeyTable) {
    table.insert_all(tail.entries());
    tail.shorten(0);
}
