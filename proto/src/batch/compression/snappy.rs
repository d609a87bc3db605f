//! Snappy: written in xerial framing, which is what Kafka's clients expect; read in xerial framing or as one raw block.
//! Snappy's own stream format is never used here.

use super::{BatchError, CompressionType, Output, compress_error, corrupt};

const CODEC: CompressionType = CompressionType::Snappy;
/// No raw block begins so: after the length it would copy from bytes that do not exist yet.
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Version, and the oldest version that can read it.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_HEADER_LEN: usize = 16;
/// Uncompressed bytes of a block, as the Java client cuts them.
const BLOCK_LEN: usize = 32 << 10;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_LEN) {
        let length_at = out.len();
        let data_at = length_at + 4;
        out.resize(data_at + snap::raw::max_compress_len(block.len()), 0);
        let block_len = encoder
            .compress(block, &mut out[data_at..])
            .map_err(|error| compress_error(CODEC, error.to_string()))?;
        out[length_at..data_at].copy_from_slice(&(block_len as u32).to_be_bytes());
        out.truncate(data_at + block_len);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], output: &mut Output<'_>) -> Result<(), BatchError> {
    if !input.starts_with(&XERIAL_MAGIC) {
        return decompress_block(input, output);
    }
    let mut unread =
        input.get(XERIAL_HEADER_LEN..).ok_or_else(|| corrupt(CODEC, "the xerial header is cut short"))?;
    while !unread.is_empty() {
        let (length, rest) =
            unread.split_first_chunk::<4>().ok_or_else(|| corrupt(CODEC, "a block length is cut short"))?;
        let block_len = u32::from_be_bytes(*length) as usize;
        let (block, rest) =
            rest.split_at_checked(block_len).ok_or_else(|| corrupt(CODEC, "a block passes the end"))?;
        decompress_block(block, output)?;
        unread = rest;
    }
    Ok(())
}

fn decompress_block(block: &[u8], output: &mut Output<'_>) -> Result<(), BatchError> {
    let claimed_len = snap::raw::decompress_len(block).map_err(|error| corrupt(CODEC, error.to_string()))?;
    // The claim stands before the data; an impossible one must not reserve anything.
    if claimed_len > block.len().saturating_mul(CODEC.expansion_max() as usize) {
        return Err(corrupt(
            CODEC,
            format!("{} bytes cannot hold the {claimed_len} they claim", block.len()),
        ));
    }
    if block.is_empty() {
        return Err(corrupt(CODEC, "a block is empty"));
    }
    let start = output.extend_zeroed(claimed_len)?;
    snap::raw::Decoder::new()
        .decompress(block, &mut output.bytes[start..])
        .map(|_| ())
        .map_err(|error| corrupt(CODEC, error.to_string()))
}
