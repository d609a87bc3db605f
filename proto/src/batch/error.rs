//! What can be wrong with a batch, told exactly; each door maps these to its own codes.

/// Why bytes are not a batch that may be appended, served or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header, or than the header's length field, demands.
    #[error("batch is cut short: needs {need_bytes} bytes, has {have_bytes}")]
    Truncated {
        /// Bytes demanded.
        need_bytes: usize,
        /// Bytes present.
        have_bytes: usize,
    },
    /// A record format other than v2.
    #[error("record format (magic) {0} is not supported; only 2 is")]
    UnsupportedMagic(i8),
    /// The length field cannot hold a header.
    #[error("batch length {0} is smaller than a header")]
    LengthTooSmall(i32),
    /// Larger than the caller's cap.
    #[error("batch of {size_bytes} bytes exceeds the limit of {limit_bytes}")]
    TooLarge {
        /// The batch.
        size_bytes: usize,
        /// The cap.
        limit_bytes: usize,
    },
    /// Stored and computed checksums differ.
    #[error("checksum mismatch: header says {stored:#010x}, bytes give {computed:#010x}")]
    CrcMismatch {
        /// The header's.
        stored: u32,
        /// The bytes'.
        computed: u32,
    },
    /// The codec bits name no codec.
    #[error("compression code {0} is unknown")]
    UnknownCompression(u8),
    /// A header field contradicts another, or holds a value that its role forbids.
    #[error("{field} is {value}: {reason}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: i64,
        /// Why that cannot be.
        reason: &'static str,
    },
    /// A record does not decode.
    #[error("record {index} is malformed: {reason}")]
    Record {
        /// Position in the batch, from zero.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bytes follow the batch, its last record, or its compressed data.
    #[error("{0} bytes follow where the data ends")]
    TrailingBytes(usize),
    /// Compressed bytes do not decode.
    #[error("{codec} data is corrupt: {reason}")]
    Decompress {
        /// Codec name.
        codec: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// Decompressed size passes the cap by bytes or by ratio.
    #[error("decompressed size passes the limit of {limit_bytes} bytes ({compressed_bytes} compressed)")]
    Bomb {
        /// The cap that was passed.
        limit_bytes: usize,
        /// What the bytes came from.
        compressed_bytes: usize,
    },
    /// The codec could not encode.
    #[error("{codec} compression failed: {reason}")]
    Compress {
        /// Codec name.
        codec: &'static str,
        /// The encoder's words.
        reason: String,
    },
}
