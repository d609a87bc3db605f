//! What clients asked of a broker or a cluster and what they were told, as records, and a judge of them. Must not know clients or
//! brokers: a workload records, faults happen, and in the end `check` says which promise was broken.
//!
//! Obligations of a workload: every value is sent by one producer, numbered by it from zero in each partition; who commits for a
//! partition of a group commits rising offsets; when the faults are over, each partition is read from its start to its end.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod cases;
mod checker;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

pub(crate) use checker::check;

/// A partition, by a number that the workload gives it.
pub(crate) type Partition = u32;

/// A value that is sent once, or again by a producer that was not told what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Value {
    pub(crate) producer: u32,
    /// Its place among what the producer sends to this partition.
    pub(crate) n: u64,
}

/// Something that a client did, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// One attempt to append the values `first` to `first + count`.
    Send {
        producer: u32,
        /// Sending again must not write again.
        idempotent: bool,
        partition: Partition,
        first: u64,
        count: u64,
        /// Where it was acknowledged. Without that nobody knows what became of it.
        acked_at: Option<i64>,
    },
    /// A consumer asked for what is at `from` and was given this.
    Read { reader: u32, partition: Partition, from: i64, records: Vec<(i64, Value)> },
    /// A group said how far it is.
    Commit { group: String, partition: Partition, offset: i64, acked: bool },
    /// A group asked how far it is; nothing where it was told of no commit.
    Resume { group: String, partition: Partition, offset: Option<i64> },
    /// A member was given partitions.
    Own { group: String, generation: i32, member: String, partitions: BTreeSet<Partition> },
    /// All of a partition, read when the faults were over.
    Final { partition: Partition, start: i64, records: Vec<(i64, Value)> },
}

/// An [`Op`] with the moments between which it happened, by a clock that all clients share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    #[serde(flatten)]
    pub(crate) op: Op,
}

/// Takes down what clients on several threads do. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<(AtomicU64, Mutex<Vec<Event>>)>);

impl Recorder {
    /// To be asked before anything is sent.
    pub(crate) fn begin(&self) -> u64 {
        self.0.0.fetch_add(1, Ordering::SeqCst)
    }

    /// To be told after the answer has come, or will not come any more.
    pub(crate) fn end(&self, begun: u64, op: Op) {
        let ended = self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.lock().unwrap().push(Event { begun, ended, op });
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.1.lock().unwrap().clone()
    }
}

/// One line of JSON an event, for a look at what went wrong or for other checkers.
pub(crate) fn to_json_lines(events: &[Event]) -> String {
    let line = |event| serde_json::to_string(event).unwrap() + "\n";
    events.iter().map(line).collect()
}
