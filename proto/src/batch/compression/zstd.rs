//! Zstandard: exactly one frame, which states its size when it is written here.
//!
//! Decoded in one call straight into the output, so that no window is allocated. The Java client and librdkafka ask for a
//! window of 2 MiB at their default level; levels 19, 20 and 22 ask for 8, 32 and 128 MiB. All of them are read in the memory of
//! what they decode to, so no window has to be refused, and the cap on output is the only one.

use std::cell::RefCell;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, compress_bound, decompress_bound, find_frame_compressed_size, get_error_name,
    max_c_level, min_c_level,
};

use super::{BatchError, CompressionType, Output, compress_error, corrupt};

const CODEC: CompressionType = CompressionType::Zstd;
const LEVEL_DEFAULT: i32 = 3;
/// `ZSTD_error_dstSize_tooSmall`, whose value the library promises to keep; errors are returned negated.
const OUTPUT_TOO_SMALL: usize = 0usize.wrapping_sub(70);

thread_local! {
    // About 100 KiB once a thread has decoded zstd; making it anew costs more than decoding a small batch.
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let level = level.unwrap_or(LEVEL_DEFAULT);
    if !(min_c_level()..=max_c_level()).contains(&level) {
        let (min, max) = (min_c_level(), max_c_level());
        return Err(compress_error(CODEC, format!("level {level} is not within {min} to {max}")));
    }
    out.reserve(compress_bound(input.len()));
    let start = out.len();
    let mut into = std::io::Cursor::new(out);
    into.set_position(start as u64);
    let mut encoder = CCtx::try_create().ok_or_else(|| compress_error(CODEC, "out of memory"))?;
    encoder
        .set_parameter(CParameter::CompressionLevel(level))
        .and_then(|_| encoder.compress2(&mut into, input))
        .map(|_| ())
        .map_err(|code| compress_error(CODEC, get_error_name(code)))
}

pub(super) fn decompress(input: &[u8], output: &mut Output<'_>) -> Result<(), BatchError> {
    if input.is_empty() {
        return Err(corrupt(CODEC, "there is no frame"));
    }
    // Both walk the block headers, so that a cut and trailing bytes are found before anything is reserved.
    let frame_len = find_frame_compressed_size(input).map_err(|code| corrupt(CODEC, get_error_name(code)))?;
    super::check_exhausted(input.get(frame_len..).unwrap_or_default())?;
    let claimed = decompress_bound(input).map_err(|code| corrupt(CODEC, get_error_name(code)))?;
    let possible = input.len().saturating_mul(CODEC.expansion_max() as usize);
    let bound = usize::try_from(claimed).unwrap_or(usize::MAX).min(possible);
    output.reserve(bound.min(output.left()))?;
    match DECODER.with_borrow_mut(|decoder| decoder.decompress(&mut *output.bytes, input)) {
        // A reused buffer may have had more room than the cap.
        Ok(written) if written > output.cap => {
            Err(BatchError::Bomb { limit_bytes: output.cap, compressed_bytes: output.compressed_bytes })
        }
        // The library lets run-length blocks pass the 128 KiB that the format allows, if there is room: whether they
        // decode must not depend on the room that a reused buffer happens to have.
        Ok(written) if written > bound => Err(corrupt(CODEC, "a block is larger than the format allows")),
        Ok(_) => Ok(()),
        Err(OUTPUT_TOO_SMALL) if bound > output.cap => {
            Err(BatchError::Bomb { limit_bytes: output.cap, compressed_bytes: output.compressed_bytes })
        }
        Err(code) => Err(corrupt(CODEC, get_error_name(code))),
    }
}
