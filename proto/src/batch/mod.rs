//! Record batch v2, the unit in which records travel and rest. Bytes in, bytes out; no I/O.

pub mod crc32c;
mod error;
pub mod header;

pub use error::BatchError;
pub use header::{Attributes, BatchHeader, HEADER_LEN};

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
