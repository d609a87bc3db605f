//! Consumer groups: who reads what, and how far they have read. Must never know the wire format of requests.
//!
//! - [`group`]: the machine of one group, pure; [`join`], [`sync`], [`leave`] and `rebalance` hold its inputs, [`member`] one
//!   member, [`snapshot`] what is kept of it.
//! - [`offsets`]: how far a group has read, pure; [`subscription`] the topics it reads.
//! - [`records`]: both as records of `__consumer_offsets`; `replay` reads them back.
//! - `shard`: the groups of one partition of that topic, [`shard_offsets`] their offsets, `shard_task` its writes and its time.
//! - [`budget`]: what all groups share.
//! - [`coordinator`]: all of them, and all that may be asked.

pub mod budget;
pub mod coordinator;
pub mod error;
pub mod group;
pub mod join;
pub mod leave;
pub mod member;
pub mod offsets;
mod rebalance;
pub mod records;
mod replay;
pub mod settings;
mod shard;
pub mod shard_offsets;
mod shard_task;
pub mod snapshot;
pub mod subscription;
pub mod sync;

pub use coordinator::Coordinator;
pub use error::GroupError;

#[cfg(test)]
mod tests;
