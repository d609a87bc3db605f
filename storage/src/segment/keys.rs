//! The key index of one segment, in its parts: what a file tells, or is to tell, of the bytes that were there when the log was opened, and
//! what a map in memory tells of those appended since. Must know nothing of other segments.
//!
//! The writer adds to the map before a batch is readable. It takes the lock once in some hundred records, when those go into the table;
//! readers take it for as long as it takes to copy a few places out.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use floodmark_proto::batch::{BatchHeader, check_stored};
use floodmark_proto::ids::Offset;
use parking_lot::{Mutex, MutexGuard};

use super::Segment;
use super::name::FileKind;
use super::scan::BatchScan;
use crate::error::LogError;
use crate::fs::{DiskFile, OpenMode, read_full_at};
use crate::key_index::file::{Blocks, Indexed, KeyIndex, ReadCost};
use crate::key_index::map::{KeyMap, TailWriter};
use crate::key_index::table::KeyTable;
use crate::key_index::write::encode;
use crate::key_index::{BatchKeys, Direction, KeySeed, Posting};

/// First read of a batch whose size is not known yet: most events fit, and one more read fetches what does not.
const FIRST_READ_BYTES: u64 = 1024;

/// What is known of a segment's keys.
#[derive(Debug)]
pub(super) struct SegmentKeys {
    state: Mutex<State>,
    /// Held by whoever opens or builds the head, which takes its time.
    building: Mutex<()>,
}

#[derive(Debug)]
struct State {
    head: Head,
    /// The head tells of the first so many bytes, up to this offset.
    head_bytes: u64,
    head_end: Offset,
    map: Map,
}

/// The part of the index that lies in a file.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    /// There are no bytes of which it would tell.
    Empty,
    /// Nobody has looked whether the file is there and right.
    Unopened,
    /// It is not, and must be built from the batches.
    Lost,
    Open(Arc<KeyIndex>),
}

/// The part of the index that is in memory.
#[derive(Debug)]
enum Map {
    None,
    Growing(KeyMap),
    /// The segment was rolled; a file is to be made of it.
    Frozen(Arc<KeyTable>),
}

/// What one look at the parts gave.
pub(crate) struct Looked {
    pub(crate) head: Head,
    /// First relative offset that the head does not tell of.
    pub(crate) head_end: u32,
    /// Places that the map gave.
    pub(crate) of_map: Vec<Posting>,
}

impl SegmentKeys {
    pub(super) fn new(bytes: u64, end: Offset) -> SegmentKeys {
        let head = if bytes == 0 { Head::Empty } else { Head::Unopened };
        let state = State { head, head_bytes: bytes, head_end: end, map: Map::None };
        SegmentKeys { state: Mutex::new(state), building: Mutex::new(()) }
    }

    /// Closes a file that can be opened again, and drops what could not be written and can be built again.
    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        if let Head::Open(_) = &state.head {
            state.head = Head::Unopened;
        }
    }
}

impl Segment {
    /// Gathers keys from here on. The writer's call, before the first batch that is to be gathered.
    pub(crate) fn begin_keys(&self, like: Option<&Segment>) {
        let like = like.map(|segment| segment.keys.state.lock());
        let like = match like.as_ref().map(|state| &state.map) {
            Some(Map::Growing(map)) => Some(map.table()),
            Some(Map::Frozen(table)) => Some(&**table),
            _ => None,
        };
        let map = KeyMap::new(like);
        let mut state = self.keys.state.lock();
        if matches!(state.map, Map::None) {
            state.map = Map::Growing(map);
            state.head_bytes = self.bytes();
            state.head_end = self.end();
        }
    }

    /// Adds the keys of a batch that is about to be written; says how large the index's file would be, and gives what takes the next ones
    /// without a lock. The writer's call.
    pub(crate) fn add_keys(&self, keys: &BatchKeys, offset: u32, position: u32) -> (u64, Option<TailWriter>) {
        let mut state = self.keys.state.lock();
        let Map::Growing(map) = &mut state.map else { return (0, None) };
        map.add(keys, offset, position);
        (map.file_bytes(), map.tail_writer())
    }

    /// The segment is rolled: the map grows no further. True where there is one.
    pub(crate) fn freeze_keys(&self) -> bool {
        let mut state = self.keys.state.lock();
        match std::mem::replace(&mut state.map, Map::None) {
            Map::Growing(map) => {
                state.map = Map::Frozen(Arc::new(map.into_table()));
                true
            }
            other => {
                state.map = other;
                false
            }
        }
    }

    /// Forgets all keys, because nobody wants an index any more.
    pub(crate) fn forget_keys(&self) {
        let mut state = self.keys.state.lock();
        *state = SegmentKeys::new(self.bytes(), self.end()).state.into_inner();
    }

    /// Takes over what `old`, of which this is the shortened successor, knows of its first batches. False where its file is not
    /// to be believed any more.
    pub(crate) fn inherit_keys(&self, old: &Segment) -> bool {
        let mut from = old.keys.state.lock();
        let mut state = self.keys.state.lock();
        match std::mem::replace(&mut from.map, Map::None) {
            Map::Growing(mut map) if from.head_bytes <= self.bytes() => {
                map.truncate(u32::try_from(self.end() - self.base).unwrap_or(u32::MAX));
                *state = State {
                    head: from.head.clone(),
                    head_bytes: from.head_bytes,
                    // Behind the head's last batch there may have been offsets without records, which are given out again now.
                    head_end: from.head_end.min(self.end()),
                    map: Map::Growing(map),
                };
                true
            }
            _ => {
                if self.bytes() > 0 {
                    state.head = Head::Lost;
                }
                false
            }
        }
    }

    /// The newest record that the map has of a hash, also one that is not written yet.
    pub(crate) fn newest_in_map(&self, hash: u64) -> Option<Offset> {
        let state = self.keys.state.lock();
        let Map::Growing(map) = &state.map else { return None };
        let newest = map.collect(hash, &(0..u32::MAX), 1, Direction::Backward);
        newest.first().map(|posting| Offset(self.base.0 + i64::from(posting.offset)))
    }

    /// Looks into the map, and says what else is to be looked into. `hash` is that of the log's seed.
    pub(crate) fn look_for_key(
        &self,
        hash: u64,
        within: &Range<u32>,
        max: usize,
        direction: Direction,
    ) -> Looked {
        self.touch();
        let state = self.keys.state.lock();
        let head_end = u32::try_from(state.head_end - self.base).unwrap_or(0);
        let head = state.head.clone();
        let within = within.start.max(head_end)..within.end;
        let of_map = match &state.map {
            Map::None => Vec::new(),
            Map::Growing(map) => map.collect(hash, &within, max, direction),
            Map::Frozen(table) => {
                let table = Arc::clone(table);
                drop(state);
                table.collect(hash, &within, max, direction)
            }
        };
        Looked { head, head_end, of_map }
    }

    /// What the head says is not so: it must be built anew.
    pub(crate) fn distrust_head(&self, of: &Arc<KeyIndex>) {
        let mut state = self.keys.state.lock();
        if let Head::Open(index) = &state.head
            && Arc::ptr_eq(index, of)
        {
            state.head = Head::Lost;
        }
    }

    /// Returns once nobody else opens or builds the head.
    pub(crate) fn hold_head(&self) -> MutexGuard<'_, ()> {
        self.keys.building.lock()
    }

    /// The head, and of how many bytes and up to which offset it tells.
    pub(crate) fn head(&self) -> (Head, u64, Offset) {
        let state = self.keys.state.lock();
        (state.head.clone(), state.head_bytes, state.head_end)
    }

    /// The map that waits to become a file, and whether it tells of all of the segment.
    pub(crate) fn frozen_keys(&self) -> Option<(Arc<KeyTable>, bool)> {
        let state = self.keys.state.lock();
        let Map::Frozen(table) = &state.map else { return None };
        Some((Arc::clone(table), matches!(state.head, Head::Empty)))
    }

    /// Takes an index of the segment's first `bytes` as its head, where that is still of use.
    pub(crate) fn set_head(&self, index: KeyIndex) {
        let mut state = self.keys.state.lock();
        let is_whole = index.indexed.bytes == self.bytes() && matches!(state.map, Map::Frozen(_));
        if is_whole {
            state.map = Map::None;
            (state.head_bytes, state.head_end) = (index.indexed.bytes, index.indexed.end);
        }
        if state.head_bytes == index.indexed.bytes {
            state.head = Head::Open(Arc::new(index));
        }
    }

    /// The index in the file, if it is there and of this segment's first bytes.
    pub(crate) fn open_key_file(&self, cost: &mut ReadCost) -> Option<KeyIndex> {
        let (_, bytes, end) = self.head();
        let file = self.disk.open(&self.path(FileKind::KeyIndex), OpenMode::Read).ok()?;
        let index = KeyIndex::open(Blocks::File(file), (self.base, end, bytes), cost).ok()?;
        let Indexed { last_position, last_crc, .. } = index.indexed;
        // An older file of the same name and length may have come back after a power cut.
        let mut last = [0; floodmark_proto::batch::HEADER_LEN];
        cost.add(last.len());
        read_full_at(&*self.data_file().ok()?, &mut last, last_position).ok()?;
        let header = BatchHeader::parse(&last).ok()?;
        (header.crc == last_crc && last_position + header.size_bytes() as u64 == bytes).then_some(index)
    }

    /// Builds the index of the first `bytes`, up to `end`, by reading and checking all of them.
    pub(crate) fn build_key_index(
        &self,
        seed: KeySeed,
        bytes: u64,
        end: Offset,
    ) -> Result<Vec<u8>, LogError> {
        let path = self.path(FileKind::Data);
        let mut scan = BatchScan::new(self.data_file()?, &path, 0, self.base)?;
        let (mut map, mut last) = (KeyMap::new(None), (0, 0));
        while scan.position() < bytes {
            let Some(batch) = scan.step()? else { break };
            last = (batch.position, batch.header.crc);
            let keys = BatchKeys::of_stored(batch.bytes, &batch.header, seed);
            for entry in keys.entries(self.base, batch.header.base_offset, batch.position) {
                map.push(entry);
            }
        }
        if scan.position() != bytes {
            return Err(LogError::damaged(&path, scan.position(), scan.end().to_string()));
        }
        let indexed = Indexed { base: self.base, end, bytes, last_position: last.0, last_crc: last.1 };
        Ok(encode(&map.into_table(), seed, &indexed))
    }

    /// Makes the index of the whole segment of the table that has all its keys.
    pub(crate) fn encode_keys(&self, table: &KeyTable, seed: KeySeed) -> Result<Vec<u8>, LogError> {
        let path = self.path(FileKind::Data);
        let (bytes, end) = (self.bytes(), self.end());
        let last = self.locate(&self.source()?, Offset(end.0 - 1))?;
        let Some((last_position, last)) = last else {
            return Err(LogError::damaged(&path, bytes, "the last batch is not where it was written"));
        };
        let indexed = Indexed { base: self.base, end, bytes, last_position, last_crc: last.crc };
        Ok(encode(table, seed, &indexed))
    }

    /// Reads, copies and checks the batch that begins at `position`; `None` where none does. Not by a map: the pages around a
    /// place in it would be read as well.
    pub(crate) fn read_batch_at(
        &self,
        position: u64,
        cost: &mut ReadCost,
    ) -> Result<Option<(BatchHeader, Bytes)>, LogError> {
        let path = || self.path(FileKind::Data);
        let end = self.bytes();
        if position >= end {
            return Ok(None);
        }
        let file = self.data_file()?;
        let mut batch = vec![0; FIRST_READ_BYTES.min(end - position) as usize];
        let mut read = |into: &mut [u8], at: u64| {
            cost.add(into.len());
            read_full_at(&*file, into, at).map_err(LogError::io("read", &path()))
        };
        let have = read(&mut batch, position)?;
        batch.truncate(have);
        let Ok(header) = BatchHeader::parse(&batch) else { return Ok(None) };
        if header.size_bytes() as u64 > end - position {
            return Ok(None);
        }
        if header.size_bytes() > have {
            batch.resize(header.size_bytes(), 0);
            let (missing, at) = (&mut batch[have..], position + have as u64);
            if read(missing, at)? < missing.len() {
                return Ok(None);
            }
        }
        batch.truncate(header.size_bytes());
        Ok(check_stored(&batch).ok().map(|header| (header, Bytes::from(batch))))
    }

    /// Writes an index beside its place.
    pub(crate) fn write_key_file_aside(
        &self,
        index: &[u8],
    ) -> Result<(Arc<dyn DiskFile>, std::path::PathBuf), LogError> {
        let aside = crate::fs::with_suffix(&self.path(FileKind::KeyIndex), KEYS_ASIDE);
        let write = || {
            let file = self.disk.open(&aside, OpenMode::Create)?;
            crate::fs::write_all_at(&*file, &mut [std::io::IoSlice::new(index)], 0)?;
            Ok(file)
        };
        match write() {
            Ok(file) => Ok((file, aside)),
            Err(e) => {
                // On a full disk part of it would take the room of what matters more. Swept at the next opening, if not now.
                let _ = self.disk.remove_file(&aside);
                Err(LogError::io("write", &aside)(e))
            }
        }
    }

    /// Gives an index that lies aside its name.
    pub(crate) fn rename_key_file(&self, aside: &std::path::Path) -> Result<(), LogError> {
        self.disk.rename(aside, &self.path(FileKind::KeyIndex)).map_err(LogError::io("rename", aside))
    }

    /// Removes what was written aside and is not to be used.
    pub(crate) fn remove_key_file_aside(&self, aside: &std::path::Path) {
        // Swept at the next opening, if not now.
        let _ = self.disk.remove_file(aside);
    }

    /// Notes that the segment's files are in use.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }
}

/// Not the suffix of a compacted segment's index: a pass may be writing that one at this moment.
const KEYS_ASIDE: &str = ".built.tmp";
