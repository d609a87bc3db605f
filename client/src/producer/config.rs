//! Settings of a producer.

use std::time::Duration;

pub use floodmark_proto::batch::CompressionType as Compression;

use crate::error::{Error, Result};

/// When a record counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Once it is on the disks of all replicas in sync.
    #[default]
    All,
    /// Once the leader has it, in memory: a power cut, or the leader's end, may take it.
    Leader,
}

/// Settings of a [`crate::Producer`]. The defaults lose nothing and write nothing twice.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// When a record counts as delivered.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// The codec's own scale; none is its default. Only gzip and zstd have one.
    pub compression_level: Option<i32>,
    /// Largest batch before compression; brokers refuse what passes the topic's `max.message.bytes`. A batch goes when it holds 256 KiB, and
    /// grows further while as many are under way as may be.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more records. Zero: it goes at once while nothing of its partition is under way, and
    /// else when that has come back: single records are not held up, and many make large batches.
    pub linger: Duration,
    /// Bytes that may wait to be acknowledged; [`crate::Producer::send`] waits beyond that.
    pub buffer_bytes: usize,
    /// Largest record, encoded. Brokers refuse what passes the topic's `max.message.bytes`.
    pub record_bytes_max: usize,
    /// Batches of one partition that may be under way.
    pub in_flight_max: usize,
    /// Each batch carries an identity and a sequence number, so that no retry writes a record twice.
    pub is_idempotent: bool,
    /// The records are copies of some that a topic has, or had: what their headers asked of a broker when they were new
    /// (`floodmark-expected-offset`, `floodmark-append-id`) is kept and not asked again.
    pub are_copies: bool,
    /// How long a record may take until it is acknowledged, with all retries. Then its delivery fails, and whether it was written is not known.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            compression: Compression::None,
            compression_level: None,
            batch_bytes: 1_000_000,
            linger: Duration::ZERO,
            buffer_bytes: 64 << 20,
            record_bytes_max: 1 << 20,
            in_flight_max: 5,
            is_idempotent: true,
            are_copies: false,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A batch of so many bytes waits for no more records: larger ones are still in the cores' caches when they are sent, no longer then.
const SENT_AT_BYTES: usize = 256 << 10;

impl ProducerConfig {
    /// A batch of so many bytes goes as soon as it may.
    pub(super) fn sent_at_bytes(&self) -> usize {
        self.batch_bytes.min(SENT_AT_BYTES)
    }

    pub(super) fn check(&self) -> Result<()> {
        // A broker remembers the last five batches of a producer: a sixth could not be told from a new one.
        if self.is_idempotent && !(1..=5).contains(&self.in_flight_max) || self.in_flight_max == 0 {
            return Err(Error::Invalid(
                "in_flight_max must be from 1 to 5, or more than 0 where is_idempotent is off".to_owned(),
            ));
        }
        if self.batch_bytes > i32::MAX as usize || self.record_bytes_max > i32::MAX as usize {
            return Err(Error::Invalid("batches and records are smaller than 2 GiB".to_owned()));
        }
        if self.buffer_bytes < self.record_bytes_max {
            return Err(Error::Invalid("buffer_bytes must have room for record_bytes_max".to_owned()));
        }
        if self.compression_level.is_some()
            && !matches!(self.compression, Compression::Gzip | Compression::Zstd)
        {
            return Err(Error::Invalid("only gzip and zstd have a compression_level".to_owned()));
        }
        Ok(())
    }
}
