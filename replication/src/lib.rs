//! Partition data by in-sync replicas and leader epochs, cluster metadata by Raft. Must never know Kafka messages or public protobuf.
//!
//! - [`cluster`]: what the cluster knows about itself and how it changes; pure
//! - [`controller`]: what its leader does for the cluster: who lives, who leads
//! - [`partition`]: one partition on this broker: appends, what is committed, who is told
//! - [`registry`]: all partitions of this broker, as the metadata wants them
//! - [`lease`]: how long this broker may trust that it leads
//! - [`fetcher`]: copies what this broker follows; [`isr_proposals`] carries what its leaders say about who is in sync
//! - [`quorum`]: the Raft group that agrees on it
//! - [`rpc`]: how brokers reach each other, and what they say
//! - [`vital`]: what a broker cannot be without

pub mod cluster;
pub mod controller;
pub mod fetcher;
pub mod isr_proposals;
mod lasting;
pub mod lease;
pub mod partition;
pub mod quorum;
pub mod registry;
pub mod rpc;
pub mod vital;
