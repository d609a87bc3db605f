//! Who has appended what waits in the log's own memory, and is told once it is durable: till then a process that is killed takes it along.
//! Whoever lets go of the log has it looked through before, so that a cut of the log is noticed before anything comes to lie where it was.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use floodmark_proto::ids::Offset;
use parking_lot::Mutex;

use super::request::{Answer, Receipt, Then};
use crate::error::LogError;
use crate::log::Log;

#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// In the order of the log, so `up_to` never falls. Changed with the log held.
    waiting: Mutex<VecDeque<Waiting>>,
    known: Mutex<Vec<(Told, Result<Receipt, LogError>)>>,
    /// Of both, so that the usual look at nothing takes no lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    up_to: Offset,
    receipt: Receipt,
    then: Told,
}

type Told = Answer<Receipt, Then<Receipt>>;

impl Receipts {
    /// With the log: keeps the receipt of what was appended last.
    pub(super) fn keep(&self, log: &Log, receipt: Receipt, then: Told) {
        self.count.fetch_add(1, Ordering::AcqRel);
        // All that is appended, for a batch that was there already may wait like any other.
        self.waiting.lock().push_back(Waiting { up_to: log.end(), receipt, then });
    }

    /// With the log, before anybody else has it: finds those whose fate is known.
    pub(super) fn look_through(&self, log: &mut Log) {
        let cut = log.take_cut();
        if self.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        let mut known = self.known.lock();
        // First, for others may lie where these did.
        if let Some((end, reason)) = cut {
            while let Some(gone) = waiting.pop_back_if(|last| last.up_to > end) {
                known.push((gone.then, Err(reason.clone().unwrap_or(LogError::Abandoned))));
            }
        }
        let durable = log.durable();
        while let Some(kept) = waiting.pop_front_if(|first| first.up_to <= durable) {
            known.push((kept.then, Ok(kept.receipt)));
        }
        if let Some(reason) = log.stopped() {
            known.extend(waiting.drain(..).map(|lost| (lost.then, Err(reason.clone()))));
        }
    }

    /// Without the log: tells them.
    pub(super) fn tell(&self) {
        if self.is_empty() {
            return;
        }
        let known = std::mem::take(&mut *self.known.lock());
        self.count.fetch_sub(known.len(), Ordering::AcqRel);
        for (then, outcome) in known {
            then.give(outcome);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests;
