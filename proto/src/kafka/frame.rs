//! Cuts a stream of bytes into frames: four bytes of length, then so many bytes.

use bytes::{Buf, BytesMut};

/// Bytes of the length before each frame.
pub const LENGTH_PREFIX_LEN: usize = 4;

/// A length that no frame may have; the stream behind it means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame of {len} bytes is not between 0 and {max}")]
pub struct FrameError {
    /// The length announced.
    pub len: i32,
    /// The caller's limit.
    pub max: usize,
}

/// Length of the frame that starts at the front of `stream`, prefix not counted; none while the prefix is not complete.
///
/// To be asked before bytes are waited for, so that memory is taken only for a length that is allowed.
pub fn announced(stream: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = stream.first_chunk::<LENGTH_PREFIX_LEN>() else { return Ok(None) };
    let len = i32::from_be_bytes(*prefix);
    match usize::try_from(len) {
        Ok(len) if len <= max => Ok(Some(len)),
        _ => Err(FrameError { len, max }),
    }
}

/// Takes the frame at the front off `stream`, without its prefix; none while it is not complete.
pub fn split(stream: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, FrameError> {
    let Some(len) = announced(stream, max)? else { return Ok(None) };
    if stream.len() - LENGTH_PREFIX_LEN < len {
        return Ok(None);
    }
    stream.advance(LENGTH_PREFIX_LEN);
    Ok(Some(stream.split_to(len)))
}
