//! The native client of Floodmark. Knows the messages of `floodmark-proto` and nothing of the broker's inside.
//!
//! ```no_run
//! use floodmark_client::admin::NewTopic;
//! use floodmark_client::{Client, ConsumerConfig, NewRecord, ProducerConfig};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> floodmark_client::Result<()> {
//!     // `floodmark serve` listens here.
//!     let client = Client::connect("127.0.0.1:9093").await?;
//!     client.admin().create_topic(NewTopic::new("orders").partitions(3)).await?;
//!
//!     let producer = client.producer(ProducerConfig::default())?;
//!     producer.deliver(NewRecord::to("orders").key("42").value("paid")).await?;
//!
//!     let mut consumer = client.consumer(ConsumerConfig::group("billing", ["orders"]).from_start()).await?;
//!     let record = consumer.recv().await?;
//!     println!("{}-{}@{}: {:?}", record.topic, record.partition, record.offset, record.value);
//!     consumer.close().await
//! }
//! ```
//!
//! - [`Client`]: finds whom to ask; connections, metadata, retries. All else is made from it.
//! - [`Producer`]: batches, compresses, and writes each record once and in order.
//! - [`Consumer`]: reads what it is told to, or its part of what a group shares.
//! - [`Admin`]: topics, settings, offsets, groups, the cluster.
//! - [`events`]: topics as event stores, aggregates, snapshots, projections.
//!
//! Every [`Error`] says whether the same call may succeed later. Tasks run in the tokio runtime around the call that starts them; any flavour
//! serves.

pub mod admin;
mod chance;
mod channels;
mod client;
mod clock;
pub mod cloud_events;
mod config;
mod consumer;
mod error;
pub mod events;
mod message;
mod metadata;
pub mod patterns;
mod producer;
mod record;
pub mod replay;
mod retry;
mod spares;
mod stream;
#[cfg(test)]
mod tests;

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
pub use floodmark_proto::ids::TopicId;
pub use message::{Message, ReplyAddress, names, new_id};
pub use producer::{Acks, Compression, Delivery, Producer, ProducerConfig, partition_of_key};
pub use record::{Durability, Header, NewRecord, Placed, Record, TopicPartition};
