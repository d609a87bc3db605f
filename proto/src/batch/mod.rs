//! Record batch v2, the unit in which records travel and rest. Bytes in, bytes out; no I/O.

//!
//! - [`header`]: the fixed part, read and stamped in place.
//! - [`validate`]: what is taken from a client, a replica or a disk.
//! - [`records`]: lazy iteration; [`compression`] where the records are compressed.
//! - [`builder`]: batches made here; [`control`] the markers that end transactions.
//! - [`event_headers`]: headers of records that mean something to the broker.
//! - [`RecordBatch`]: a checked batch with its bytes.

pub mod builder;
pub mod compression;
pub mod control;
pub mod crc32c;
mod error;
pub mod event_headers;
pub mod header;
mod record_batch;
pub mod records;
pub mod validate;
mod varint;

pub use builder::{BatchBuilder, NewRecord};
pub use compression::DecompressLimits;
pub use control::{EndTransactionMarker, TransactionResult};
pub use error::BatchError;
pub use header::{Attributes, BatchHeader, HEADER_LEN};
pub use record_batch::RecordBatch;
pub use records::{Headers, Record, RecordHeader, Records};
pub use validate::{RecordRules, RecordsSummary, check_from_client, check_records, check_stored};

/// Codecs of the batch format, by their code in the attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompressionType {
    /// Records as they are.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy in xerial framing, or one raw block.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl CompressionType {
    /// Every codec, in code order.
    pub const ALL: [CompressionType; 5] = [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ];

    /// The codec with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<CompressionType> {
        CompressionType::ALL.get(usize::from(code)).copied()
    }

    /// The code in the attribute bits.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name in topic settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CompressionType::None => "none",
            CompressionType::Gzip => "gzip",
            CompressionType::Snappy => "snappy",
            CompressionType::Lz4 => "lz4",
            CompressionType::Zstd => "zstd",
        }
    }
}
