//! A call that waits for the log, and its answer, which it gets whatever happens. Must know nothing of the log.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use floodmark_proto::ids::Offset;

use crate::error::LogError;
use crate::log::append::{AppendAs, AppendOutcomes, ToAppend};

/// What is to be called with an outcome.
pub type Then<T> = Box<dyn FnOnce(Result<T, LogError>) + Send>;

/// The order of a request's batches is fixed and they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// What became of each batch.
    pub outcomes: AppendOutcomes,
    /// Those that were taken are durable once the log is up to here; the log's very beginning where none was.
    pub end: Offset,
}

/// Batches whose order is not fixed yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batches: Vec<ToAppend>,
    pub(super) count: usize,
    pub(super) bytes: usize,
    pub(super) append_as: AppendAs,
    pub(super) then: Answer<Receipt, Then<Receipt>>,
}

impl Request {
    pub(super) fn new(batches: Vec<ToAppend>, append_as: AppendAs, then: Then<Receipt>) -> Request {
        let bytes = batches.iter().map(|b| b.batch.size_bytes()).sum::<usize>().max(1);
        let count = batches.len();
        Request { batches, count, bytes, append_as, then: Answer::new(then) }
    }
}

pub(super) fn receipt_of(outcomes: AppendOutcomes) -> Receipt {
    let taken = outcomes.iter().flatten().map(|batch| Offset(batch.last_offset.0.saturating_add(1)));
    Receipt { end: taken.max().unwrap_or(Offset::ZERO), outcomes }
}

/// Hands each request of a group what is its own of the outcomes.
pub(super) fn for_each_receipt(
    group: Vec<Request>,
    outcomes: AppendOutcomes,
    mut take: impl FnMut(Answer<Receipt, Then<Receipt>>, Receipt),
) {
    let mut outcomes = outcomes.into_iter();
    for request in group {
        let own = outcomes.by_ref().take(request.count).collect();
        take(request.then, receipt_of(own));
    }
}

/// Somebody to be told, once. Dropped untold, it tells that the call was abandoned.
pub(super) struct Answer<T, F: FnOnce(Result<T, LogError>)> {
    then: Option<F>,
    of: std::marker::PhantomData<fn(T)>,
}

impl<T, F: FnOnce(Result<T, LogError>)> Answer<T, F> {
    pub(super) fn new(then: F) -> Answer<T, F> {
        Answer { then: Some(then), of: std::marker::PhantomData }
    }

    pub(super) fn give(mut self, outcome: Result<T, LogError>) {
        if let Some(then) = self.then.take() {
            // Who is told panics for itself, not for those who are told after it on the same thread.
            let _ = catch_unwind(AssertUnwindSafe(|| then(outcome)));
        }
    }
}

impl<T, F: FnOnce(Result<T, LogError>)> Drop for Answer<T, F> {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then(Err(LogError::Abandoned));
        }
    }
}

impl<T, F: FnOnce(Result<T, LogError>)> fmt::Debug for Answer<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}
