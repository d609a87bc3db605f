//! LZ4 frames: written as Kafka writes them (independent blocks of 64 KiB, no checksums); any legal frame is read.
//!
//! The frame is walked here because blocks then decode straight into the output, which also serves as the dictionary of
//! linked blocks.

use std::io::Write;

use lz4_flex::block::{DecompressError, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{BatchError, CompressionType, Output, compress_error, corrupt};

const CODEC: CompressionType = CompressionType::Lz4;
const MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();
/// Set in a block length where the block is stored as it is.
const STORED: u32 = 1 << 31;
/// How far back a linked block may reach.
const DICTIONARY_LEN: usize = 64 << 10;

const FLAG_VERSION: u8 = 0b1100_0000;
const FLAG_VERSION_1: u8 = 0b0100_0000;
const FLAG_INDEPENDENT: u8 = 0b0010_0000;
const FLAG_BLOCK_CHECKSUM: u8 = 0b0001_0000;
const FLAG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLAG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLAG_RESERVED: u8 = 0b0000_0010;
const FLAG_DICTIONARY: u8 = 0b0000_0001;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(input).map_err(|error| compress_error(CODEC, error.to_string()))?;
    encoder.finish().map(|_| ()).map_err(|error| compress_error(CODEC, error.to_string()))
}

pub(super) fn decompress(input: &[u8], output: &mut Output<'_>) -> Result<(), BatchError> {
    let (frame, mut unread) = read_frame_header(input)?;
    loop {
        let length = u32::from_le_bytes(take(&mut unread)?);
        if length == 0 {
            break;
        }
        let block_len = (length & !STORED) as usize;
        if block_len > frame.block_len_max {
            return Err(corrupt(CODEC, "a block is larger than the frame allows"));
        }
        let (block, rest) =
            unread.split_at_checked(block_len).ok_or_else(|| corrupt(CODEC, "a block passes the end"))?;
        unread = rest;
        if frame.has_block_checksum {
            check(block, take(&mut unread)?, "a block's checksum differs")?;
        }
        if length & STORED != 0 {
            output.extend(block)?;
        } else {
            decompress_block(block, &frame, output)?;
        }
    }
    if frame.has_content_checksum {
        check(output.bytes, take(&mut unread)?, "the content checksum differs")?;
    }
    if frame.content_size.is_some_and(|size| size != output.bytes.len() as u64) {
        return Err(corrupt(CODEC, "the content size differs from the content"));
    }
    super::check_exhausted(unread)
}

struct Frame {
    is_independent: bool,
    has_block_checksum: bool,
    has_content_checksum: bool,
    content_size: Option<u64>,
    block_len_max: usize,
}

fn read_frame_header(input: &[u8]) -> Result<(Frame, &[u8]), BatchError> {
    let mut unread = input;
    if take(&mut unread)? != MAGIC {
        return Err(corrupt(CODEC, "the frame magic is missing"));
    }
    let descriptor = unread;
    let [flags, block_descriptor] = take(&mut unread)?;
    if flags & FLAG_VERSION != FLAG_VERSION_1 || flags & FLAG_RESERVED != 0 {
        return Err(corrupt(CODEC, "the frame version is unknown"));
    }
    if flags & FLAG_DICTIONARY != 0 {
        return Err(corrupt(CODEC, "the frame needs a dictionary"));
    }
    let block_len_max = match block_descriptor {
        0x40 => 64 << 10,
        0x50 => 256 << 10,
        0x60 => 1 << 20,
        0x70 => 4 << 20,
        _ => return Err(corrupt(CODEC, "the block size is unknown")),
    };
    let content_size = match flags & FLAG_CONTENT_SIZE {
        0 => None,
        _ => Some(u64::from_le_bytes(take(&mut unread)?)),
    };
    let descriptor = &descriptor[..descriptor.len() - unread.len()];
    let [stored] = take(&mut unread)?;
    if stored != (XxHash32::oneshot(0, descriptor) >> 8) as u8 {
        return Err(corrupt(CODEC, "the header checksum differs"));
    }
    let frame = Frame {
        is_independent: flags & FLAG_INDEPENDENT != 0,
        has_block_checksum: flags & FLAG_BLOCK_CHECKSUM != 0,
        has_content_checksum: flags & FLAG_CONTENT_CHECKSUM != 0,
        content_size,
        block_len_max,
    };
    Ok((frame, unread))
}

fn decompress_block(block: &[u8], frame: &Frame, output: &mut Output<'_>) -> Result<(), BatchError> {
    let block_room = frame.block_len_max.min(block.len().saturating_mul(CODEC.expansion_max() as usize));
    let room = block_room.min(output.left());
    let start = output.extend_zeroed(room)?;
    let (done, into) = output.bytes.split_at_mut(start);
    let dictionary: &[u8] =
        if frame.is_independent { &[] } else { &done[start.saturating_sub(DICTIONARY_LEN)..] };
    match decompress_into_with_dict(block, into, dictionary) {
        Ok(written) => {
            output.bytes.truncate(start + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room < block_room => Err(output.bomb()),
        Err(error) => Err(corrupt(CODEC, error.to_string())),
    }
}

fn check(bytes: &[u8], stored: [u8; 4], reason: &'static str) -> Result<(), BatchError> {
    if XxHash32::oneshot(0, bytes) == u32::from_le_bytes(stored) {
        Ok(())
    } else {
        Err(corrupt(CODEC, reason))
    }
}

fn take<const N: usize>(unread: &mut &[u8]) -> Result<[u8; N], BatchError> {
    let (taken, rest) =
        unread.split_first_chunk::<N>().ok_or_else(|| corrupt(CODEC, "the frame is cut short"))?;
    *unread = rest;
    Ok(*taken)
}
