//! Reads a frame forward, borrowing from it. Nothing that the bytes claim is believed beyond the bytes that remain.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;

use super::error::{DecodeError, DecodeReason};
use super::message::Part;

/// Longest string, as Kafka has it in every version.
const STRING_LEN_MAX: usize = i16::MAX as usize;

/// Memory that the arrays of one frame may take: so many times its length, and a little more for frames that are small.
///
/// Names of three letters, of which there can be many, come to seven times their length at most. The shortest legal elements (a topic with
/// an empty name) take 16 times theirs, so that without this bound a frame of 100 MiB would come to 1.6 GiB.
const MEMORY_RATIO: usize = 8;
const MEMORY_FLOOR: usize = 64 * 1024;

/// Reads over one frame, without its length prefix.
#[derive(Debug)]
pub struct Decoder<'a> {
    frame: &'a [u8],
    /// Unread bytes up to the end of the frame, or of the tagged field being read.
    rest: &'a [u8],
    /// Bytes of the frame behind `rest`.
    behind: usize,
    flexible: bool,
    memory_left: usize,
}

/// The tagged fields still to come of one struct.
#[derive(Debug)]
pub(crate) struct Tags {
    field: &'static str,
    left: usize,
    /// Smallest number that may come next.
    next: u64,
}

/// A tagged field that is being read.
#[derive(Debug)]
pub(crate) struct Tag<'a> {
    field: &'static str,
    number: u32,
    after: &'a [u8],
}

impl Tag<'_> {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl<'a> Decoder<'a> {
    /// Starts at the front of `frame`.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Decoder<'a> {
        let memory_left = frame.len().saturating_mul(MEMORY_RATIO).saturating_add(MEMORY_FLOOR);
        Decoder { frame, rest: frame, behind: 0, flexible: false, memory_left }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.frame.len() - self.behind - self.rest.len()
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Where in the frame a decoded value lies, so that the frame's buffer can be split there; none if it is not of this frame.
    #[must_use]
    pub fn range_of(&self, part: &[u8]) -> Option<Range<usize>> {
        range_in(self.frame, part)
    }

    /// The end: an error if bytes remain.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            trailing => Err(self.error("end of message", DecodeReason::Trailing(trailing))),
        }
    }

    pub(crate) fn start(
        &mut self,
        name: &'static str,
        versions: &RangeInclusive<i16>,
        first_flexible: Option<i16>,
        version: i16,
    ) -> Result<(), DecodeError> {
        self.flexible = first_flexible.is_some_and(|first| version >= first);
        if versions.contains(&version) {
            Ok(())
        } else {
            Err(self.error(name, DecodeReason::Version(version)))
        }
    }

    #[cold]
    fn error(&self, field: &'static str, reason: DecodeReason) -> DecodeError {
        DecodeError { field, position: self.position(), reason }
    }

    #[cold]
    fn truncated(&self, field: &'static str, need_bytes: usize) -> DecodeError {
        self.error(field, DecodeReason::Truncated { need_bytes, have_bytes: self.rest.len() })
    }

    #[inline]
    fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk() {
            Some((value, rest)) => {
                self.rest = rest;
                Ok(*value)
            }
            None => Err(self.truncated(field, N)),
        }
    }

    #[inline]
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.truncated(field, len)),
        }
    }

    #[inline]
    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        Ok(self.fixed::<1>(field)? != [0])
    }

    #[inline]
    pub(crate) fn i8(&mut self, field: &'static str) -> Result<i8, DecodeError> {
        self.fixed(field).map(i8::from_be_bytes)
    }

    /// A 16-bit number; public because record keys and values start with their version in one.
    #[inline]
    pub fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.fixed(field).map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.fixed(field).map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.fixed(field).map(i64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn uuid(&mut self, field: &'static str) -> Result<[u8; 16], DecodeError> {
        self.fixed(field)
    }

    /// An unsigned varint of at most 32 bits in at most five bytes.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        // Nearly all lengths, counts and tags fit one byte.
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(u32::from(first));
        }
        self.long_varint(field)
    }

    fn long_varint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().take(5).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                let value = u32::try_from(value).map_err(|_| self.error(field, DecodeReason::Varint))?;
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        if self.rest.len() < 5 {
            return Err(self.truncated(field, self.rest.len() + 1));
        }
        Err(self.error(field, DecodeReason::Varint))
    }

    /// A length or count: -1, or a compact zero, is null.
    #[inline]
    fn length(&mut self, short: bool, field: &'static str) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            return Ok((self.varint(field)? as usize).checked_sub(1));
        }
        let length = if short { i32::from(self.i16(field)?) } else { self.i32(field)? };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(self.error(field, DecodeReason::Length(i64::from(length)))),
        }
    }

    fn not_null<T>(&self, value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
        value.ok_or_else(|| self.error(field, DecodeReason::Null))
    }

    fn null_if<T>(
        &self,
        value: Option<T>,
        allowed: bool,
        field: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        if value.is_some() || allowed { Ok(value) } else { Err(self.error(field, DecodeReason::Null)) }
    }

    fn any_string(&mut self, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
        let Some(len) = self.length(true, field)? else { return Ok(None) };
        if len > STRING_LEN_MAX {
            return Err(self.error(field, DecodeReason::Length(len as i64)));
        }
        let position = self.position();
        match std::str::from_utf8(self.take(len, field)?) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(DecodeError { field, position, reason: DecodeReason::Utf8 }),
        }
    }

    /// A string with a plain length, whatever the version.
    pub(crate) fn plain_nullable_string(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a str>, DecodeError> {
        self.flexible = false;
        self.any_string(field)
    }

    fn any_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.length(false, field)? {
            Some(len) => self.take(len, field).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let value = self.any_string(field)?;
        self.not_null(value, field)
    }

    pub(crate) fn nullable_string(
        &mut self,
        allowed: bool,
        field: &'static str,
    ) -> Result<Option<&'a str>, DecodeError> {
        let value = self.any_string(field)?;
        self.null_if(value, allowed, field)
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let value = self.any_bytes(field)?;
        self.not_null(value, field)
    }

    pub(crate) fn nullable_bytes(
        &mut self,
        allowed: bool,
        field: &'static str,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        let value = self.any_bytes(field)?;
        self.null_if(value, allowed, field)
    }

    /// Record batches of a response, copied: who decodes one is a client or a test.
    pub(crate) fn nullable_chunks(
        &mut self,
        allowed: bool,
        field: &'static str,
    ) -> Result<Option<Vec<Bytes>>, DecodeError> {
        let Some(bytes) = self.nullable_bytes(allowed, field)? else { return Ok(None) };
        if bytes.is_empty() {
            return Ok(Some(Vec::new()));
        }
        self.charge(bytes.len() + size_of::<Bytes>(), field)?;
        Ok(Some(vec![Bytes::copy_from_slice(bytes)]))
    }

    /// Takes memory for `need_bytes` out of what this frame may have.
    fn charge(&mut self, need_bytes: usize, field: &'static str) -> Result<(), DecodeError> {
        match self.memory_left.checked_sub(need_bytes) {
            Some(left) => {
                self.memory_left = left;
                Ok(())
            }
            None => Err(self.error(field, DecodeReason::Memory { need_bytes, have_bytes: self.memory_left })),
        }
    }

    fn any_array<T: Part<'a>>(
        &mut self,
        version: i16,
        field: &'static str,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(false, field)? else { return Ok(None) };
        if count.saturating_mul(T::min_len(version, self.flexible).max(1)) > self.rest.len() {
            return Err(self.error(field, DecodeReason::Count { count, have_bytes: self.rest.len() }));
        }
        self.charge(count * size_of::<T>(), field)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::decode_part(self, version, field)?);
        }
        Ok(Some(items))
    }

    pub(crate) fn array<T: Part<'a>>(
        &mut self,
        version: i16,
        field: &'static str,
    ) -> Result<Vec<T>, DecodeError> {
        let value = self.any_array(version, field)?;
        self.not_null(value, field)
    }

    pub(crate) fn nullable_array<T: Part<'a>>(
        &mut self,
        allowed: bool,
        version: i16,
        field: &'static str,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let value = self.any_array(version, field)?;
        self.null_if(value, allowed, field)
    }

    /// A struct behind a byte that says whether it is there.
    pub(crate) fn nullable_part<T: Part<'a>>(
        &mut self,
        allowed: bool,
        version: i16,
        field: &'static str,
    ) -> Result<Option<T>, DecodeError> {
        let value = match self.i8(field)? {
            1 => Some(T::decode_part(self, version, field)?),
            -1 => None,
            other => return Err(self.error(field, DecodeReason::Presence(other))),
        };
        self.null_if(value, allowed, field)
    }

    /// Starts the tagged fields of a struct.
    pub(crate) fn tags(&mut self, field: &'static str) -> Result<Tags, DecodeError> {
        let left = self.varint(field)? as usize;
        // The shortest tagged field is a number and a length of zero.
        if left.saturating_mul(2) > self.rest.len() {
            return Err(self.error(field, DecodeReason::Count { count: left, have_bytes: self.rest.len() }));
        }
        Ok(Tags { field, left, next: 0 })
    }

    /// The next tagged field; until [`Decoder::end_tag`] nothing behind it can be read.
    pub(crate) fn next_tag(&mut self, tags: &mut Tags) -> Result<Option<Tag<'a>>, DecodeError> {
        let Some(left) = tags.left.checked_sub(1) else { return Ok(None) };
        let field = tags.field;
        let number = self.varint(field)?;
        if u64::from(number) < tags.next {
            return Err(self.error(field, DecodeReason::TagOrder(number)));
        }
        *tags = Tags { field, left, next: u64::from(number) + 1 };
        let len = self.varint(field)? as usize;
        let Some((inside, after)) = self.rest.split_at_checked(len) else {
            return Err(self.truncated(field, len));
        };
        self.rest = inside;
        self.behind += after.len();
        Ok(Some(Tag { field, number, after }))
    }

    /// Passes over a tagged field that the version does not know.
    pub(crate) fn skip_tag(&mut self) {
        self.rest = &[];
    }

    /// Goes on behind a tagged field, which must be read to its end.
    pub(crate) fn end_tag(&mut self, tag: Tag<'a>) -> Result<(), DecodeError> {
        if !self.rest.is_empty() {
            return Err(self.error(tag.field, DecodeReason::TagLength(self.rest.len())));
        }
        self.behind -= tag.after.len();
        self.rest = tag.after;
        Ok(())
    }

    /// Passes over the tagged fields of a struct that knows none.
    #[inline]
    pub(crate) fn skip_tags(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let mut tags = self.tags(field)?;
        while let Some(tag) = self.next_tag(&mut tags)? {
            self.skip_tag();
            self.end_tag(tag)?;
        }
        Ok(())
    }
}

/// Where `part` lies in `whole`, if it was cut out of it.
fn range_in(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}
