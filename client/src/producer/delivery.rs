//! What becomes of a record: one outcome for a whole batch, shared by the futures of its records, so that a record costs no allocation.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::buffer::Buffer;
use crate::error::{Error, Result};
use crate::record::{Durability, Placed};

/// Where a batch was put.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchPlaced {
    /// -1 where the broker knows only that it was there already.
    pub(super) base_offset: i64,
    pub(super) log_append_time_ms: Option<i64>,
    pub(super) durability: Durability,
}

/// Set once, by whoever sends the batch.
#[derive(Debug)]
struct Outcome {
    topic: Arc<str>,
    partition: i32,
    done: OnceLock<Result<BatchPlaced>>,
    waiting: Mutex<Vec<Waker>>,
}

impl Outcome {
    fn new(topic: Arc<str>, partition: i32) -> Arc<Outcome> {
        Arc::new(Outcome { topic, partition, done: OnceLock::new(), waiting: Mutex::default() })
    }

    fn set(&self, outcome: Result<BatchPlaced>) {
        if self.done.set(outcome).is_ok() {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn poll(&self, slot: &mut Option<usize>, context: &Context<'_>) -> Poll<&Result<BatchPlaced>> {
        if let Some(done) = self.done.get() {
            return Poll::Ready(done);
        }
        let mut waiting = self.waiting.lock();
        // Set between the look and the lock: whoever sets it wakes only those that he finds.
        if let Some(done) = self.done.get() {
            return Poll::Ready(done);
        }
        match slot.and_then(|at| waiting.get_mut(at)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                *slot = Some(waiting.len());
                waiting.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// The fate of one record, a future. Dropping it changes nothing for the record.
#[derive(Debug)]
#[must_use = "a record that was taken is not yet a record that is kept: await its delivery, or flush and count on that"]
pub struct Delivery {
    outcome: Arc<Outcome>,
    index: i32,
    slot: Option<usize>,
}

impl Delivery {
    fn new(outcome: Arc<Outcome>, index: i32) -> Delivery {
        Delivery { outcome, index, slot: None }
    }

    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.outcome.partition
    }
}

impl Future for Delivery {
    type Output = Result<Placed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Placed>> {
        let this = self.get_mut();
        let Poll::Ready(done) = this.outcome.poll(&mut this.slot, context) else { return Poll::Pending };
        Poll::Ready(match done {
            Ok(batch) => Ok(Placed {
                topic: Arc::clone(&this.outcome.topic),
                partition: this.outcome.partition,
                offset: if batch.base_offset < 0 { -1 } else { batch.base_offset + i64::from(this.index) },
                log_append_time_ms: batch.log_append_time_ms,
                durability: batch.durability,
            }),
            Err(error) => Err(error.clone()),
        })
    }
}

/// The side of whoever sends the batch, with the bytes of the buffer that the batch has. Dropped unsaid, it says that the producer is closed.
#[derive(Debug)]
pub(super) struct Promise {
    outcome: Arc<Outcome>,
    buffer: Arc<Buffer>,
    reserved_bytes: usize,
}

impl Promise {
    pub(super) fn new(topic: Arc<str>, partition: i32, buffer: Arc<Buffer>) -> Promise {
        Promise { outcome: Outcome::new(topic, partition), buffer, reserved_bytes: 0 }
    }

    /// These bytes were taken from the buffer for a record more.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.reserved_bytes += bytes;
    }

    /// Gives the bytes back, then tells everybody.
    pub(super) fn keep(mut self, outcome: Result<BatchPlaced>) {
        self.give_back();
        self.outcome.set(outcome);
    }

    /// The fate of the record at this place in the batch.
    pub(super) fn delivery(&self, index: i32) -> Delivery {
        Delivery::new(Arc::clone(&self.outcome), index)
    }

    /// Tells everybody that waits what became of the batch, which goes on to have its place in line and its bytes of the buffer.
    pub(super) fn tell(&self, outcome: Result<BatchPlaced>) {
        self.outcome.set(outcome);
    }

    pub(super) fn is_told(&self) -> bool {
        self.outcome.done.get().is_some()
    }

    /// Where the batch goes.
    pub(super) fn place(&self) -> String {
        format!("{}-{}", self.outcome.topic, self.outcome.partition)
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.reserved_bytes);
        if bytes > 0 {
            self.buffer.give_back(bytes);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.give_back();
        self.outcome.set(Err(Error::Closed("the producer")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_is_told_and_whoever_comes_later_too() {
        let outcome = Outcome::new(Arc::from("t"), 3);
        let waiting: Vec<_> =
            (0..3).map(|index| tokio::spawn(Delivery::new(Arc::clone(&outcome), index))).collect();
        tokio::task::yield_now().await;
        outcome.set(Ok(BatchPlaced {
            base_offset: 40,
            log_append_time_ms: None,
            durability: Durability::Memory,
        }));
        outcome.set(Err(Error::Closed("it")));
        for (index, delivery) in (0..).zip(waiting) {
            assert_eq!(delivery.await.unwrap().unwrap().offset, 40 + index);
        }
        let late = Delivery::new(outcome, 9);
        assert_eq!(late.partition(), 3);
        assert_eq!(late.await.unwrap().offset, 49);
    }
}
