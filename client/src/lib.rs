//! The native client of Floodmark. Knows the messages of `floodmark-proto` and nothing of the broker's inside.

pub mod admin;
mod chance;
mod channels;
mod client;
mod clock;
mod config;
mod consumer;
mod error;
pub mod events;
mod metadata;
mod producer;
mod record;
mod retry;

/// The services, generated from `proto/proto/floodmark/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the words are in the .proto files"
)]
mod rpc {
    tonic::include_proto!("floodmark.v1");
}

pub use admin::Admin;
pub use client::Client;
pub use config::ClientConfig;
pub use consumer::{
    Assignor, Begin, Commit, Consumer, ConsumerConfig, ConsumerHandle, Isolation, Rebalance, RebalanceChange,
    RebalanceListener, Reset,
};
pub use error::{Error, Refusal, Result};
pub use producer::{Acks, Compression, Delivery, Producer, ProducerConfig, partition_of_key};
pub use record::{Durability, Header, NewRecord, Placed, Record, TopicPartition};
