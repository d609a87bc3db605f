//! What every message can do, and every part of one. The implementations are generated, but for those of plain values.

use std::ops::RangeInclusive;

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::error::{DecodeError, EncodeError};

/// A whole message: a request or a response body, or a record's key or value behind its version.
pub trait Message<'a>: Part<'a> + Default {
    /// Kafka's name of it.
    const NAME: &'static str;
    /// The versions of its table.
    const VERSIONS: RangeInclusive<i16>;
    /// First version with compact lengths and tagged fields.
    const FIRST_FLEXIBLE: Option<i16>;

    /// Reads the message. What lies behind it is left to the caller: see [`Decoder::finish`].
    ///
    /// Fields that the version lacks have their defaults.
    fn decode(decoder: &mut Decoder<'a>, version: i16) -> Result<Self, DecodeError> {
        decoder.start(Self::NAME, &Self::VERSIONS, Self::FIRST_FLEXIBLE, version)?;
        Self::decode_part(decoder, version, Self::NAME)
    }

    /// Writes the message. Fields that the version lacks are left out; what cannot be written is told by [`Encoder::finish`].
    fn encode(&self, encoder: &mut Encoder, version: i16) {
        if Self::VERSIONS.contains(&version) {
            encoder.set_flexible(Self::FIRST_FLEXIBLE.is_some_and(|first| version >= first));
            self.encode_part(encoder, version, Self::NAME);
        } else {
            encoder.fail(EncodeError::Version { message: Self::NAME, version });
        }
    }
}

/// A struct within a message, or what an array may hold.
pub trait Part<'a>: Sized {
    /// Bytes of its shortest encoding: what bounds a count before memory is taken.
    fn min_len(version: i16, flexible: bool) -> usize;
    /// Reads it; `field` names it in errors.
    fn decode_part(decoder: &mut Decoder<'a>, version: i16, field: &'static str)
    -> Result<Self, DecodeError>;
    /// Writes it; `field` names it in errors.
    fn encode_part(&self, encoder: &mut Encoder, version: i16, field: &'static str);
}

impl<'a> Part<'a> for i8 {
    fn min_len(_version: i16, _flexible: bool) -> usize {
        1
    }

    fn decode_part(
        decoder: &mut Decoder<'a>,
        _version: i16,
        field: &'static str,
    ) -> Result<Self, DecodeError> {
        decoder.i8(field)
    }

    fn encode_part(&self, encoder: &mut Encoder, _version: i16, _field: &'static str) {
        encoder.i8(*self);
    }
}

impl<'a> Part<'a> for i32 {
    fn min_len(_version: i16, _flexible: bool) -> usize {
        4
    }

    fn decode_part(
        decoder: &mut Decoder<'a>,
        _version: i16,
        field: &'static str,
    ) -> Result<Self, DecodeError> {
        decoder.i32(field)
    }

    fn encode_part(&self, encoder: &mut Encoder, _version: i16, _field: &'static str) {
        encoder.i32(*self);
    }
}

impl<'a> Part<'a> for &'a str {
    fn min_len(_version: i16, flexible: bool) -> usize {
        if flexible { 1 } else { 2 }
    }

    fn decode_part(
        decoder: &mut Decoder<'a>,
        _version: i16,
        field: &'static str,
    ) -> Result<Self, DecodeError> {
        decoder.string(field)
    }

    fn encode_part(&self, encoder: &mut Encoder, _version: i16, field: &'static str) {
        encoder.string(self, field);
    }
}
