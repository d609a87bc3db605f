//! The key index of a log, from its segments' parts: switched on and off, opened and built where it is missing, written once a segment is
//! rolled. The files are hints that can be made anew, so nothing of them is synced, and no failure to write one concerns
//! anybody but the next look-up. What they tell, [`crate::key_index`] says.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use floodmark_proto::ids::Offset;
use parking_lot::Mutex;

use super::reader::LogShared;
use super::{Log, files};
use crate::error::LogError;
use crate::fs::DiskFile;
use crate::key_index::file::{Blocks, KeyIndex, ReadCost};
use crate::key_index::{Direction, KeySeed, Posting};
use crate::segment::name::FileKind;
use crate::segment::{Head, Segment};

/// Rolled segments whose keys may be in memory at a time; past this the append that rolls one writes the oldest first.
const FROZEN_MAX: usize = 2;
/// Heads found wrong, each built anew after the one before, until that is an error.
const TRIES_MAX: usize = 3;

/// What all segments of a log have in common as to keys.
#[derive(Debug)]
pub(crate) struct LogKeys {
    is_on: AtomicBool,
    seed: KeySeed,
    /// Held while a file gets its name, and while a cut or a swap begins: none gets one that it should not have any more.
    names: Mutex<()>,
}

/// Makes the file of a rolled segment's keys, or opens that of one that was there when the log was opened.
#[derive(Debug)]
pub struct KeyIndexJob {
    shared: Arc<LogShared>,
    segment: Arc<Segment>,
}

impl LogKeys {
    pub(crate) fn new(is_on: bool, seed: KeySeed) -> LogKeys {
        LogKeys { is_on: AtomicBool::new(is_on), seed, names: Mutex::new(()) }
    }

    /// The secret of the log's hashes, where it has an index.
    pub(crate) fn seed(&self) -> Option<KeySeed> {
        self.is_on.load(Ordering::Acquire).then_some(self.seed)
    }

    /// Runs `begin`, which makes one of the counters odd, between two names that are given.
    pub(crate) fn before_change(&self, begin: impl FnOnce()) {
        let _no_name_now = self.names.lock();
        begin();
    }
}

impl LogShared {
    /// Fails where nobody wanted an index of this log.
    pub(crate) fn key_seed(&self) -> Result<KeySeed, LogError> {
        let reason = "it has no key index: set floodmark.key.index=true for the topic";
        self.keys
            .seed()
            .ok_or_else(|| LogError::Refused { path: self.dir.to_path_buf(), reason: reason.to_owned() })
    }

    /// Places of records in `segment` whose key may be `key`, with relative offsets in `within`: `max` of them at most, the first or
    /// the last. Blocks on the disk, for long where an index must be built.
    pub(crate) fn places(
        &self,
        segment: &Arc<Segment>,
        key: &[u8],
        within: &Range<u32>,
        max: usize,
        direction: Direction,
        cost: &mut ReadCost,
    ) -> Result<Vec<Posting>, LogError> {
        let seed = self.key_seed()?;
        let mut failures = 0;
        while failures < TRIES_MAX {
            // What is in the map now may be in the head when that is looked into, so both are of one look.
            let looked = segment.look_for_key(seed.hash(key), within, max, direction);
            let of_head = within.start..within.end.min(looked.head_end);
            let is_full = direction == Direction::Backward && looked.of_map.len() >= max;
            if of_head.is_empty() || is_full {
                return Ok(looked.of_map);
            }
            let index = match looked.head {
                Head::Empty => return Ok(looked.of_map),
                Head::Open(index) => index,
                Head::Unopened | Head::Lost => {
                    self.open_head(segment, cost)?;
                    continue;
                }
            };
            let hash = index.seed().hash(key);
            match index.collect(hash, &of_head, max, direction, cost) {
                Ok(found) => {
                    let (mut first, second) = match direction {
                        Direction::Forward => (found, looked.of_map),
                        Direction::Backward => (looked.of_map, found),
                    };
                    first.extend(second);
                    first.truncate(max);
                    return Ok(first);
                }
                Err(_) => {
                    failures += 1;
                    segment.distrust_head(&index);
                }
            }
        }
        let path = segment.path(FileKind::KeyIndex);
        Err(LogError::damaged(&path, 0, "the key index was built anew and cannot be read"))
    }

    /// Has the head of a segment built anew at the next look: it named a place where its record is not.
    pub(crate) fn distrust(&self, segment: &Segment) {
        if let (Head::Open(index), ..) = segment.head() {
            segment.distrust_head(&index);
        }
    }

    /// Opens the file of a segment's keys, or builds it from the batches.
    fn open_head(&self, segment: &Arc<Segment>, cost: &mut ReadCost) -> Result<(), LogError> {
        let changes = self.changes();
        let _alone = segment.hold_head();
        segment.touch();
        let (head, bytes, end) = segment.head();
        match head {
            Head::Empty | Head::Open(_) => return Ok(()),
            Head::Lost => {}
            Head::Unopened => {
                if let Some(index) = segment.open_key_file(cost) {
                    segment.set_head(index);
                    return Ok(());
                }
            }
        }
        let image = segment.build_key_index(self.key_seed()?, bytes, end)?;
        self.take_image(segment, image, changes, (bytes, end))
    }

    /// Gives a segment the index that was made of its batches: in a file where it can be, else in memory.
    fn take_image(
        &self,
        segment: &Arc<Segment>,
        image: Vec<u8>,
        changes: (u64, u64),
        (bytes, end): (u64, Offset),
    ) -> Result<(), LogError> {
        let file = self.write_image(segment, &image, changes);
        let blocks = file.map_or(Blocks::Memory(image), Blocks::File);
        let about = (segment.base, end, bytes);
        match KeyIndex::open(blocks, about, &mut ReadCost::default()) {
            Ok(index) => {
                segment.set_head(index);
                Ok(())
            }
            Err(e) => {
                let reason = format!("the key index that was just made is of no use: {e}");
                Err(LogError::damaged(&segment.path(FileKind::KeyIndex), 0, reason))
            }
        }
    }

    /// `None` where it could not be written, or is out of date by now.
    fn write_image(
        &self,
        segment: &Arc<Segment>,
        image: &[u8],
        changes: (u64, u64),
    ) -> Option<Arc<dyn DiskFile>> {
        let (file, aside) = segment.write_key_file_aside(image).ok()?;
        let _no_change_now = self.keys.names.lock();
        let is_current = self.keys.is_on.load(Ordering::Acquire)
            && self.is_undisturbed_since(changes)
            && self.lists(segment);
        if is_current && segment.rename_key_file(&aside).is_ok() {
            return Some(file);
        }
        segment.remove_key_file_aside(&aside);
        None
    }

    fn lists(&self, segment: &Arc<Segment>) -> bool {
        self.segments.load().iter().any(|listed| Arc::ptr_eq(listed, segment))
    }
}

impl KeyIndexJob {
    /// Makes the file, and lets go of the memory. Blocks on the disk. For a segment that has left the log meanwhile there is nothing
    /// to do.
    pub fn run(&self) -> Result<(), LogError> {
        match self.make() {
            Err(e) if self.shared.lists(&self.segment) => Err(e),
            _ => Ok(()),
        }
    }

    fn make(&self) -> Result<(), LogError> {
        let changes = self.shared.changes();
        if self.segment.frozen_keys().is_none() {
            return self.shared.open_head(&self.segment, &mut ReadCost::default());
        }
        let _alone = self.segment.hold_head();
        let Some((table, is_whole)) = self.segment.frozen_keys() else { return Ok(()) };
        let seed = self.shared.keys.seed;
        let extent = (self.segment.bytes(), self.segment.end());
        let image = if is_whole {
            self.segment.encode_keys(&table, seed)?
        } else {
            // Of what was there when the log was opened the file may not be right; this makes one of both parts.
            self.segment.build_key_index(seed, extent.0, extent.1)?
        };
        self.shared.take_image(&self.segment, image, changes, extent)
    }
}

impl Log {
    /// The next segment whose keys are to be seen to. To be run on a thread that may wait for the disk.
    pub fn key_index_job(&mut self) -> Option<KeyIndexJob> {
        if self.to_index.is_empty() {
            return None;
        }
        Some(KeyIndexJob { shared: Arc::clone(&self.shared), segment: self.to_index.remove(0) })
    }

    pub(super) fn is_key_index_due(&self) -> bool {
        !self.to_index.is_empty()
    }

    /// Begins to gather the keys of the active segment, where there is to be an index.
    pub(super) fn begin_keys(&self, like: Option<&Segment>) {
        if self.config.key_index {
            self.active.segment.begin_keys(like);
        }
    }

    /// The keys of a segment that was just rolled are to be written.
    pub(super) fn freeze_keys(&mut self, sealed: &Arc<Segment>) {
        if !sealed.freeze_keys() || sealed.bytes() == 0 {
            return;
        }
        self.to_index.retain(|segment| !Arc::ptr_eq(segment, sealed));
        self.to_index.push(Arc::clone(sealed));
        while self.to_index.len() > FROZEN_MAX
            && let Some(job) = self.key_index_job()
        {
            // What fails here is tried again by whoever looks for a key.
            let _ = job.run();
        }
    }

    /// As [`Log::set_config`] says. Off, the files go; on, they are made when they are first needed.
    pub(super) fn switch_key_index(&mut self, on: bool) {
        let segments = self.segments().clone();
        self.shared.keys.before_change(|| self.shared.keys.is_on.store(on, Ordering::Release));
        self.to_index.clear();
        for segment in segments.iter() {
            segment.forget_keys();
            if !on {
                // One that stays is removed at the next opening.
                let _ =
                    files::remove(&*self.context.disk, &self.shared.dir, segment.base, FileKind::KeyIndex);
            }
        }
        self.begin_keys(None);
    }

    /// What the shortened segment keeps of its keys. The file goes where it tells of more than is left.
    pub(super) fn inherit_keys(&mut self, from: &Segment, to: &Segment) -> Result<(), LogError> {
        self.to_index.retain(|segment| segment.base < to.base);
        if to.inherit_keys(from) {
            return Ok(());
        }
        files::remove(&*self.context.disk, &self.shared.dir, to.base, FileKind::KeyIndex)
    }
}
