//! The four codecs of the batch format, whole payload in, whole payload out; every output is capped before it is reserved.
//!
//! No decoder keeps a window of its own beside the output: the output is the window. So memory is the output plus less
//! than 1 MiB, whatever window or block size the bytes ask for.
//!
//! Exactly one member, frame or stream makes a payload. Formats allow more of them back to back, and Kafka's Java decoders
//! read on after a gzip member or a zstd frame but stop after an lz4 frame: with one rule for all, a batch cannot hold different
//! records for different readers. It is stricter than Kafka; no client in `tests/golden` writes more than one.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use super::{BatchError, CompressionType};

/// How far decoding may go; the smaller of the two caps holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressLimits {
    /// Cap on the decoded bytes.
    pub max_bytes: usize,
    /// Cap on decoded over compressed bytes. Outputs up to [`RATIO_FLOOR_BYTES`] pass at any ratio.
    pub max_ratio: usize,
}

/// Decoded size that no ratio forbids: a batch of the default `max.message.bytes` full of zeros is legal at any ratio.
pub const RATIO_FLOOR_BYTES: usize = 1 << 20;

impl DecompressLimits {
    /// For bytes from strangers: 16 MiB keeps a decoder within 32 MiB while its output grows, and 1024 is a little less
    /// than the best that gzip can do.
    pub const DEFAULT: DecompressLimits = DecompressLimits { max_bytes: 16 << 20, max_ratio: 1024 };

    fn cap(&self, compressed_bytes: usize) -> usize {
        let by_ratio = compressed_bytes.saturating_mul(self.max_ratio);
        self.max_bytes.min(by_ratio.max(RATIO_FLOOR_BYTES))
    }
}

impl Default for DecompressLimits {
    fn default() -> DecompressLimits {
        DecompressLimits::DEFAULT
    }
}

/// Compresses `input` and appends the result to `out`, as Kafka's own producers write it.
///
/// `level` is the codec's own scale: gzip 1 to 9 (default 6), zstd -131072 to 22 (default 3). Snappy has no levels, and lz4
/// has one here, so a level asked of them is an error, as is one out of range. CPU-bound for the length of the input.
/// [`CompressionType::None`] appends the input as it is. On an error `out` holds what was written so far.
pub fn compress(
    codec: CompressionType,
    level: Option<i32>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    match (codec, level) {
        (CompressionType::Gzip, level) => gzip::compress(level, input, out),
        (CompressionType::Zstd, level) => zstd::compress(level, input, out),
        (codec, Some(level)) => {
            Err(compress_error(codec, format!("it has no level {level}; leave the level unset")))
        }
        (CompressionType::None, None) => {
            out.extend_from_slice(input);
            Ok(())
        }
        (CompressionType::Snappy, None) => snappy::compress(input, out),
        (CompressionType::Lz4, None) => lz4::compress(input, out),
    }
}

/// Decodes `input`, which must be exactly one payload of a batch, and replaces the contents of `out` with the result.
///
/// Bytes after the compressed data are an error, as is output that passes `limits`. `out` is reserved only as far as the
/// input can justify, and keeps its capacity, so that a caller may reuse it. CPU-bound for the length of the output.
/// On an error the contents of `out` are unspecified.
pub fn decompress(
    codec: CompressionType,
    input: &[u8],
    limits: &DecompressLimits,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    out.clear();
    let mut output = Output { bytes: out, cap: limits.cap(input.len()), compressed_bytes: input.len() };
    match codec {
        CompressionType::None => output.extend(input),
        CompressionType::Gzip => gzip::decompress(input, &mut output),
        CompressionType::Snappy => snappy::decompress(input, &mut output),
        CompressionType::Lz4 => lz4::decompress(input, &mut output),
        CompressionType::Zstd => zstd::decompress(input, &mut output),
    }
}

impl CompressionType {
    /// The most bytes that one compressed byte can stand for: what the format allows, not what is usual.
    #[must_use]
    pub const fn expansion_max(self) -> u32 {
        match self {
            CompressionType::None => 1,
            // Two bits for a match of 258 bytes.
            CompressionType::Gzip => 1032,
            // Three bytes for a copy of 64.
            CompressionType::Snappy => 22,
            // One more length byte for 255 more bytes.
            CompressionType::Lz4 => 255,
            // Four bytes for a run-length block of 128 KiB.
            CompressionType::Zstd => 32 << 10,
        }
    }
}

/// The caller's buffer under its cap. Capacity grows in powers of two, so that growing costs at most half the cap on top.
struct Output<'o> {
    bytes: &'o mut Vec<u8>,
    cap: usize,
    compressed_bytes: usize,
}

impl Output<'_> {
    fn left(&self) -> usize {
        self.cap - self.bytes.len()
    }

    fn bomb(&self) -> BatchError {
        BatchError::Bomb { limit_bytes: self.cap, compressed_bytes: self.compressed_bytes }
    }

    fn extend(&mut self, piece: &[u8]) -> Result<(), BatchError> {
        self.reserve(piece.len())?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Appends zeros for a decoder to write over, and returns where they begin.
    fn extend_zeroed(&mut self, additional: usize) -> Result<usize, BatchError> {
        self.reserve(additional)?;
        let start = self.bytes.len();
        self.bytes.resize(start + additional, 0);
        Ok(start)
    }

    fn reserve(&mut self, additional: usize) -> Result<(), BatchError> {
        if additional > self.left() {
            return Err(self.bomb());
        }
        let needed = self.bytes.len() + additional;
        if needed > self.bytes.capacity() {
            let rounded =
                needed.checked_next_power_of_two().map_or(self.cap, |rounded| rounded.min(self.cap));
            self.bytes.reserve_exact(rounded - self.bytes.len());
        }
        Ok(())
    }
}

fn check_exhausted(unread: &[u8]) -> Result<(), BatchError> {
    if unread.is_empty() { Ok(()) } else { Err(BatchError::TrailingBytes(unread.len())) }
}

fn corrupt(codec: CompressionType, reason: impl Into<String>) -> BatchError {
    BatchError::Decompress { codec: codec.name(), reason: reason.into() }
}

fn compress_error(codec: CompressionType, reason: impl Into<String>) -> BatchError {
    BatchError::Compress { codec: codec.name(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
