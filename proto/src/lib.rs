//! Every byte layout that crosses a socket or reaches a disk. No I/O: this crate must never know files, sockets or tasks.
//!
//! - [`ids`]: offsets, epochs and producers as types of their own.
//! - [`batch`]: record batch v2, the unit everywhere.
//! - [`murmur2`]: which partition a key belongs to.
//! - [`kafka`]: frames, headers and messages of the Kafka protocol.
//! - [`pb`]: messages that are kept or sent between brokers and may grow.

pub mod batch;
pub mod ids;
pub mod kafka;
pub mod murmur2;
pub mod pb;
