//! What clients asked of a broker or a cluster and what they were told, one JSON line each, and a judge of it. Must not know clients or
//! brokers: a workload records, faults happen, and in the end [`check_files`] says which promise was broken.
//!
//! Obligations of a workload: a value is sent by one producer, numbered by it from zero in each partition; who commits for a partition of
//! a group commits rising offsets; when the faults are over, each partition is read from its start to its end, from every replica.
//!
//! - [`recorder`]: writes a history; one file a process.
//! - [`stream`]: reads several files as one history, in the order in which things ended.
//! - [`checker`]: finds what must not be.
//! - [`replicas`]: compares the files of replicas, byte for byte.

pub mod anomaly;
pub mod checker;
pub mod recorder;
pub mod replicas;
pub mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use anomaly::Anomaly;
pub use checker::{Checker, Verdict, check, check_files};
pub use recorder::Recorder;

/// A partition, by a number that the workload gives it.
pub type Partition = u32;

/// A value that is sent once, or again by a producer that was not told what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u64)", into = "(u32, u64)")]
pub struct Value {
    /// Who sent it.
    pub producer: u32,
    /// Its place among what the producer sends to this partition.
    pub n: u64,
}

impl From<(u32, u64)> for Value {
    fn from((producer, n): (u32, u64)) -> Value {
        Value { producer, n }
    }
}

impl From<Value> for (u32, u64) {
    fn from(value: Value) -> (u32, u64) {
        (value.producer, value.n)
    }
}

/// Something that a client did, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// One attempt to append the values `first` to `first + count`.
    Send {
        /// Who sends.
        producer: u32,
        /// Sending again must not write again.
        idempotent: bool,
        /// Where to.
        partition: Partition,
        /// The first value's place.
        first: u64,
        /// How many values.
        count: u64,
        /// Where it was acknowledged. Without that nobody knows what became of it.
        acked_at: Option<i64>,
    },
    /// A consumer put itself somewhere, of its own will or because a group told it to.
    Seek {
        /// Who.
        reader: u32,
        /// In what.
        partition: Partition,
        /// Where it goes on.
        offset: i64,
    },
    /// A consumer asked for what is at `from` and was given this.
    Read {
        /// Who reads.
        reader: u32,
        /// From what.
        partition: Partition,
        /// The offset asked for.
        from: i64,
        /// Offsets and values.
        records: Vec<(i64, Value)>,
    },
    /// A group said how far it is.
    Commit {
        /// Which group.
        group: String,
        /// In what.
        partition: Partition,
        /// Where the group goes on.
        offset: i64,
        /// Whether it was told that this is kept.
        acked: bool,
    },
    /// A group asked how far it is.
    Resume {
        /// Which group.
        group: String,
        /// In what.
        partition: Partition,
        /// Nothing where it was told of no commit.
        offset: Option<i64>,
    },
    /// A member was given partitions.
    Own {
        /// Of which group.
        group: String,
        /// In which generation of it.
        generation: i32,
        /// Who.
        member: String,
        /// All that it was given.
        partitions: BTreeSet<Partition>,
    },
    /// Some or all of what a replica holds, read when the faults were over; pieces follow each other.
    Final {
        /// Of what.
        partition: Partition,
        /// The broker that was read from.
        replica: u32,
        /// Where this piece begins: the first one at the start of the log.
        from: i64,
        /// Offsets and values.
        records: Vec<(i64, Value)>,
        /// Whether the end was reached.
        ends: bool,
    },
}

/// An [`Op`] with the moments between which it happened, by a clock that all clients share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Nothing of it happened before.
    pub begun: u64,
    /// All that its client learnt of it was known then.
    pub ended: u64,
    /// What it was.
    pub did: Op,
}
