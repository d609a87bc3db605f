//! The newest records of the segment being written, which are not in its table yet. The log's writer adds to them without a lock while
//! others look. Must know nothing of segments.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{BatchKeys, Entry, Posting};

/// Records that are gathered before they go into the table together. Enough that the processor always has as many lines on their
/// way as it can; few enough that a look-up, which goes through all of them, takes some tens of nanoseconds for it.
pub(super) const TAIL_MAX: usize = 128;

/// Records in their order. One thread adds, and only a caller that keeps all others out takes away: so what is there stays as it is
/// while anybody looks.
#[derive(Debug)]
pub(crate) struct Tail {
    len: AtomicUsize,
    /// Hash of the key, then offset and position.
    notes: [[AtomicU64; 2]; TAIL_MAX],
}

impl Tail {
    pub(super) fn new() -> Tail {
        Tail { len: AtomicUsize::new(0), notes: [const { [AtomicU64::new(0), AtomicU64::new(0)] }; TAIL_MAX] }
    }

    pub(super) fn len(&self) -> usize {
        // Who sees a length also sees the records that it counts.
        self.len.load(Ordering::Acquire).min(TAIL_MAX)
    }

    /// Notes the records of a batch whose first record has this relative offset, and which begins at `position`. False, and none of them
    /// noted, where there is no room for all.
    pub(crate) fn add(&self, keys: &BatchKeys, offset: u32, position: u32) -> bool {
        let len = self.len();
        let Some(free) = self.notes[len..].get(..keys.count()) else { return false };
        for (note, (hash, delta)) in free.iter().zip(keys.hashes()) {
            let posting = Posting { offset: offset.saturating_add(delta), position };
            set(note, Entry { hash, posting });
        }
        self.len.store(len + keys.count(), Ordering::Release);
        true
    }

    /// Notes one record; false where there is no room.
    pub(super) fn push(&self, entry: Entry) -> bool {
        let len = self.len();
        let Some(note) = self.notes.get(len) else { return false };
        set(note, entry);
        self.len.store(len + 1, Ordering::Release);
        true
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> + Clone {
        self.notes[..self.len()].iter().map(|[hash, place]| {
            let (hash, place) = (hash.load(Ordering::Relaxed), place.load(Ordering::Relaxed));
            Entry { hash, posting: Posting { offset: (place >> 32) as u32, position: place as u32 } }
        })
    }

    /// Keeps the first `len` records. Whoever calls keeps away who looks.
    pub(super) fn shorten(&self, len: usize) {
        self.len.store(self.len().min(len), Ordering::Release);
    }
}

fn set([hash, place]: &[AtomicU64; 2], Entry { hash: of_key, posting }: Entry) {
    hash.store(of_key, Ordering::Relaxed);
    place.store(u64::from(posting.offset) << 32 | u64::from(posting.position), Ordering::Relaxed);
}
