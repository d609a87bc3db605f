//! gzip (RFC 1952), exactly one member.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::{BatchError, CompressionType, Output, compress_error, corrupt};

const CODEC: CompressionType = CompressionType::Gzip;
const LEVEL_DEFAULT: u32 = 6;
/// Guess at the ratio of ordinary data, for the first reservation.
const RATIO_GUESS: usize = 4;

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let level = match level {
        None => LEVEL_DEFAULT,
        Some(level @ 1..=9) => level as u32,
        Some(level) => return Err(compress_error(CODEC, format!("level {level} is not within 1 to 9"))),
    };
    let mut encoder = GzEncoder::new(out, Compression::new(level));
    encoder
        .write_all(input)
        .and_then(|()| encoder.finish())
        .map(|_| ())
        .map_err(|error| compress_error(CODEC, error.to_string()))
}

pub(super) fn decompress(input: &[u8], output: &mut Output<'_>) -> Result<(), BatchError> {
    let mut member = GzDecoder::new(input);
    let mut step = input.len().saturating_mul(RATIO_GUESS);
    while output.left() > 0 {
        let start = output.extend_zeroed(step.clamp(1, output.left()))?;
        let read_bytes = read(&mut member, &mut output.bytes[start..])?;
        output.bytes.truncate(start + read_bytes);
        if read_bytes == 0 {
            return super::check_exhausted(member.into_inner());
        }
        step = output.bytes.len();
    }
    // The member may end exactly at the cap.
    match read(&mut member, &mut [0])? {
        0 => super::check_exhausted(member.into_inner()),
        _ => Err(output.bomb()),
    }
}

fn read(member: &mut GzDecoder<&[u8]>, into: &mut [u8]) -> Result<usize, BatchError> {
    member.read(into).map_err(|error| corrupt(CODEC, error.to_string()))
}
