//! Writes frames into one reused buffer, with record batches set in between where they lie: they are never copied.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::EncodeError;
use super::message::Part;

/// Longest string, as Kafka has it in every version.
const STRING_LEN_MAX: usize = i16::MAX as usize;
const LENGTH_PREFIX_LEN: usize = 4;

/// Writes one frame after the other; what it hands out goes to a vectored write.
///
/// Writing a value never fails. What could not be written is remembered and told by [`Encoder::finish`], which then hands out nothing.
#[derive(Debug)]
pub struct Encoder {
    buffer: BytesMut,
    /// Chunks from elsewhere, each with its place in the buffer; in order.
    chunks: Vec<(usize, Bytes)>,
    chunks_len: usize,
    framed: bool,
    flexible: bool,
    failed: Option<EncodeError>,
    /// Bytes of the buffer past which nothing more is written.
    bytes_max: usize,
}

/// Where the number of tagged fields stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tags(usize);

/// Where a tagged field starts.
#[derive(Debug)]
pub(crate) struct Tag(usize);

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

impl Encoder {
    /// An empty one; its buffer grows as needed.
    #[must_use]
    pub fn new() -> Encoder {
        Encoder::limited(usize::MAX)
    }

    /// One that gives up a frame that takes more than `bytes_max`, apart from the record batches in it. A list is left at the element that
    /// would go further, so that no more than that is ever held.
    #[must_use]
    pub fn limited(bytes_max: usize) -> Encoder {
        Encoder {
            buffer: BytesMut::new(),
            chunks: Vec::new(),
            chunks_len: 0,
            framed: false,
            flexible: false,
            failed: None,
            bytes_max,
        }
    }

    /// Starts a frame, of which the length prefix is written at its end. What was begun and not finished is forgotten.
    pub(crate) fn start_frame(&mut self) {
        self.reset();
        self.framed = true;
        self.i32(0);
    }

    fn reset(&mut self) {
        self.buffer.clear();
        self.chunks.clear();
        self.chunks_len = 0;
        self.framed = false;
        self.failed = None;
    }

    /// Ends the frame: its bytes, length prefix included, to be written one chunk after the other. Then the encoder can be used again.
    pub fn finish(&mut self) -> Result<Vec<Bytes>, EncodeError> {
        if let Some(error) = self.failed {
            self.reset();
            // Nothing took its bytes, and they may be many.
            self.buffer = BytesMut::new();
            return Err(error);
        }
        if self.framed {
            let len = self.buffer.len() + self.chunks_len - LENGTH_PREFIX_LEN;
            let Ok(prefix) = i32::try_from(len) else {
                self.reset();
                return Err(EncodeError::Frame(len));
            };
            self.buffer[..LENGTH_PREFIX_LEN].copy_from_slice(&prefix.to_be_bytes());
        }
        let mut out = Vec::with_capacity(2 * self.chunks.len() + 1);
        let mut taken = 0;
        for (at, chunk) in self.chunks.drain(..) {
            if at > taken {
                out.push(self.buffer.split_to(at - taken).freeze());
                taken = at;
            }
            out.push(chunk);
        }
        if !self.buffer.is_empty() {
            out.push(self.buffer.split().freeze());
        }
        self.reset();
        Ok(out)
    }

    #[cold]
    pub(crate) fn fail(&mut self, error: EncodeError) {
        self.failed.get_or_insert(error);
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    #[inline]
    pub(crate) fn bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    #[inline]
    pub(crate) fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// A 16-bit number; public because record keys and values start with their version in one.
    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    #[inline]
    pub(crate) fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    #[inline]
    pub(crate) fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    #[inline]
    pub(crate) fn uuid(&mut self, value: &[u8; 16]) {
        self.buffer.put_slice(value);
    }

    pub(crate) fn varint(&mut self, value: u32) {
        let (bytes, len) = varint_bytes(value);
        self.buffer.put_slice(&bytes[..len]);
    }

    /// A length or count in the width of the version; false if it does not fit.
    fn length(&mut self, len: usize, short: bool, field: &'static str) -> bool {
        let max = if short { STRING_LEN_MAX } else { i32::MAX as usize - 1 };
        if len > max {
            self.fail(EncodeError::TooLong { field, len });
        } else if self.flexible {
            self.varint(len as u32 + 1);
        } else if short {
            self.i16(len as i16);
        } else {
            self.i32(len as i32);
        }
        len <= max
    }

    fn null(&mut self, short: bool, allowed: bool, field: &'static str) {
        match (allowed, self.flexible, short) {
            (false, ..) => self.fail(EncodeError::Null { field }),
            (true, true, _) => self.varint(0),
            (true, false, true) => self.i16(-1),
            (true, false, false) => self.i32(-1),
        }
    }

    pub(crate) fn string(&mut self, value: &str, field: &'static str) {
        if self.length(value.len(), true, field) {
            self.buffer.put_slice(value.as_bytes());
        }
    }

    pub(crate) fn nullable_string(&mut self, value: Option<&str>, allowed: bool, field: &'static str) {
        match value {
            Some(value) => self.string(value, field),
            None => self.null(true, allowed, field),
        }
    }

    pub(crate) fn bytes(&mut self, value: &[u8], field: &'static str) {
        if self.length(value.len(), false, field) {
            self.buffer.put_slice(value);
        }
    }

    pub(crate) fn nullable_bytes(&mut self, value: Option<&[u8]>, allowed: bool, field: &'static str) {
        match value {
            Some(value) => self.bytes(value, field),
            None => self.null(false, allowed, field),
        }
    }

    /// Record batches that stay where they are.
    pub(crate) fn nullable_chunks(&mut self, value: Option<&[Bytes]>, allowed: bool, field: &'static str) {
        let Some(chunks) = value else { return self.null(false, allowed, field) };
        let len = chunks.iter().map(Bytes::len).sum();
        if self.length(len, false, field) {
            let at = self.buffer.len();
            self.chunks
                .extend(chunks.iter().filter(|chunk| !chunk.is_empty()).map(|chunk| (at, chunk.clone())));
            self.chunks_len += len;
        }
    }

    pub(crate) fn array<'a, T: Part<'a>>(&mut self, items: &[T], version: i16, field: &'static str) {
        if self.length(items.len(), false, field) {
            for item in items {
                if self.buffer.len() > self.bytes_max {
                    return self.fail(EncodeError::Cap(self.bytes_max));
                }
                item.encode_part(self, version, field);
            }
        }
    }

    pub(crate) fn nullable_array<'a, T: Part<'a>>(
        &mut self,
        items: Option<&[T]>,
        allowed: bool,
        version: i16,
        field: &'static str,
    ) {
        match items {
            Some(items) => self.array(items, version, field),
            None => self.null(false, allowed, field),
        }
    }

    /// A struct behind a byte that says whether it is there.
    pub(crate) fn nullable_part<'a, T: Part<'a>>(
        &mut self,
        part: Option<&T>,
        allowed: bool,
        version: i16,
        field: &'static str,
    ) {
        match part {
            Some(part) => {
                self.i8(1);
                part.encode_part(self, version, field);
            }
            None if allowed => self.i8(-1),
            None => self.fail(EncodeError::Null { field }),
        }
    }

    /// The tagged fields of a struct that knows none.
    #[inline]
    pub(crate) fn no_tags(&mut self) {
        self.buffer.put_u8(0);
    }

    /// Starts the tagged fields of a struct; their number is counted as they come. No table has more than one byte can tell.
    pub(crate) fn tags(&mut self) -> Tags {
        self.no_tags();
        Tags(self.buffer.len() - 1)
    }

    pub(crate) fn start_tag(&mut self, tags: Tags, number: u32) -> Tag {
        self.buffer[tags.0] += 1;
        self.varint(number);
        Tag(self.buffer.len())
    }

    /// Sets the length in front of a tagged field, now that it is known.
    pub(crate) fn end_tag(&mut self, tag: Tag) {
        let Tag(start) = tag;
        let end = self.buffer.len();
        // A field that does not fit in 32 bits fails as a frame that does not.
        let (prefix, prefix_len) = varint_bytes((end - start) as u32);
        self.buffer.put_bytes(0, prefix_len);
        self.buffer.copy_within(start..end, start + prefix_len);
        self.buffer[start..start + prefix_len].copy_from_slice(&prefix[..prefix_len]);
    }
}

/// An unsigned varint and how many bytes of the array it takes.
fn varint_bytes(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}
