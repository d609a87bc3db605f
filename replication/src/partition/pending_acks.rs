//! Who waits until records are committed: a line of waiters by offset, so that the high watermark alone decides who is next.
//! Must know nothing of logs.

use std::collections::BTreeMap;

use floodmark_proto::ids::Offset;
use tokio::sync::oneshot;

use super::error::PartitionError;

/// Told once; a waiter that is dropped untold learns that as well, because its channel closes.
pub(super) type Waiter = oneshot::Sender<Result<(), PartitionError>>;

/// Waiters by the end of what they wait for, and among those by who came first.
#[derive(Debug, Default)]
pub(super) struct PendingAcks {
    waiters: BTreeMap<(Offset, u64), Waiter>,
    next: u64,
    sweep_at: usize,
}

/// Waiters below which nobody looks whether some have gone away.
const SWEEP_AT_MIN: usize = 1024;

impl PendingAcks {
    pub(super) fn push(&mut self, end: Offset, waiter: Waiter) {
        // Who gave up waiting is not told that it need not be told: where the watermark stands still, they would pile up.
        if self.waiters.len() >= self.sweep_at.max(SWEEP_AT_MIN) {
            self.waiters.retain(|_, waiter| !waiter.is_closed());
            self.sweep_at = self.waiters.len() * 2;
        }
        self.waiters.insert((end, self.next), waiter);
        self.next += 1;
    }

    /// Those who waited for no more than `high_watermark`, in the order of offsets.
    pub(super) fn take_up_to(&mut self, high_watermark: Offset) -> Vec<Waiter> {
        let mut taken = Vec::new();
        while let Some(first) = self.waiters.first_entry().filter(|e| e.key().0 <= high_watermark) {
            taken.push(first.remove());
        }
        taken
    }

    /// All of them.
    pub(super) fn take_all(&mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_answers_those_up_to_it_and_nobody_else() {
        let mut pending = PendingAcks::default();
        let mut waiting = Vec::new();
        for end in [5, 3, 8, 5] {
            let (tell, told) = oneshot::channel();
            pending.push(Offset(end), tell);
            waiting.push(told);
        }
        assert!(pending.take_up_to(Offset(2)).is_empty());
        for (high_watermark, count) in [(3, 1), (7, 2), (7, 0), (8, 1)] {
            let taken = pending.take_up_to(Offset(high_watermark));
            assert_eq!(taken.len(), count, "{high_watermark}");
            taken.into_iter().for_each(|waiter| waiter.send(Ok(())).unwrap());
        }
        assert!(pending.take_all().is_empty());
        assert!(waiting.iter_mut().all(|told| told.try_recv().unwrap().is_ok()));
    }

    #[test]
    fn waiters_that_gave_up_do_not_pile_up() {
        let mut pending = PendingAcks::default();
        let (tell, _told) = oneshot::channel();
        pending.push(Offset(7), tell);
        for _ in 0..10 * SWEEP_AT_MIN {
            pending.push(Offset(8), oneshot::channel().0);
        }
        assert!(pending.waiters.len() <= SWEEP_AT_MIN + 1, "{}", pending.waiters.len());
        assert_eq!(pending.take_up_to(Offset(7)).len(), 1);
    }

    #[test]
    fn a_waiter_that_is_dropped_is_told_so() {
        let mut pending = PendingAcks::default();
        let (tell, mut told) = oneshot::channel();
        pending.push(Offset(1), tell);
        drop(pending.take_all());
        assert_eq!(told.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }
}
