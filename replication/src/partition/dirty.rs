//! Which of many partitions moved since somebody last looked: each has a mark, and who looks takes the marked ones, however many others there
//! are. Must not know what moved.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The slots that were marked and not yet taken, in the order of their first mark. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct DirtySet(Arc<Marked>);

#[derive(Debug, Default)]
struct Marked {
    /// No slot is twice in it, so it is no longer than there are marks.
    slots: Mutex<VecDeque<(u32, Arc<AtomicBool>)>>,
    notify: Notify,
}

/// Marks one slot of a set; clones mark the same one.
#[derive(Debug, Clone)]
pub struct DirtyMark {
    set: DirtySet,
    slot: u32,
    is_marked: Arc<AtomicBool>,
}

impl DirtySet {
    /// A mark for `slot`. The caller makes one for each.
    #[must_use]
    pub fn mark_of(&self, slot: u32) -> DirtyMark {
        DirtyMark { set: self.clone(), slot, is_marked: Arc::default() }
    }

    /// Up to `max` marked slots, oldest first. What moves from now on marks them again, so who looks
    /// at them after this misses nothing.
    #[must_use]
    pub fn take(&self, max: usize) -> Vec<u32> {
        let mut slots = self.0.slots.lock();
        let count = slots.len().min(max);
        let take = |(slot, is_marked): (u32, Arc<AtomicBool>)| {
            is_marked.store(false, Ordering::SeqCst);
            slot
        };
        slots.drain(..count).map(take).collect()
    }

    /// Returns once some slot is marked; for one task at a time.
    pub async fn marked(&self) {
        while self.0.slots.lock().is_empty() {
            self.0.notify.notified().await;
        }
    }
}

impl DirtyMark {
    /// Marks the slot, unless it is marked. Waits for nothing.
    pub fn mark(&self) {
        if self.is_marked.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut slots = self.set.0.slots.lock();
        slots.push_back((self.slot, Arc::clone(&self.is_marked)));
        let is_first = slots.len() == 1;
        drop(slots);
        if is_first {
            self.set.0.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_once_for_all_its_marks_and_again_for_later_ones() {
        let set = DirtySet::default();
        let marks: Vec<DirtyMark> = (0..4).map(|slot| set.mark_of(slot)).collect();
        assert!(set.take(9).is_empty());
        for slot in [2, 0, 2, 3, 2] {
            marks[slot].clone().mark();
        }
        assert_eq!((set.take(2), set.take(9), set.take(9)), (vec![2, 0], vec![3], vec![]));
        marks[2].mark();
        assert_eq!(set.take(9), [2]);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_first_mark_and_by_one_that_was_left() {
        let set = DirtySet::default();
        let (first, second) = (set.mark_of(1), set.mark_of(2));
        let waiting = tokio::spawn({
            let set = set.clone();
            async move { set.marked().await }
        });
        tokio::task::yield_now().await;
        first.mark();
        second.mark();
        waiting.await.unwrap();
        assert_eq!(set.take(1), [1]);
        set.marked().await;
        assert_eq!(set.take(1), [2]);
    }
}
