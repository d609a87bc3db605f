//! The header of a request frame, read in place.

use super::request::Refusal;

/// Shortest header: API key, version, correlation id.
const FIXED_BYTES: usize = 8;

/// What stands before the body of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FixedHeader {
    pub(crate) api_key: i16,
    pub(crate) api_version: i16,
    pub(crate) correlation_id: i32,
}

impl FixedHeader {
    /// The first eight bytes, which are the same in every version of the header.
    pub(crate) fn read(frame: &[u8]) -> Result<FixedHeader, Refusal> {
        let Some((fixed, _)) = frame.split_first_chunk::<FIXED_BYTES>() else {
            return Err(Refusal::Malformed { what: "request header" });
        };
        let [k0, k1, v0, v1, c0, c1, c2, c3] = *fixed;
        Ok(FixedHeader {
            api_key: i16::from_be_bytes([k0, k1]),
            api_version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

/// The client id and where the body begins. Tagged fields of a flexible header are stepped over.
pub(crate) fn read_rest(frame: &[u8], is_flexible: bool) -> Result<(Option<&str>, usize), Refusal> {
    let mut rest = Cursor { bytes: frame, at: FIXED_BYTES };
    rest.read(is_flexible)
        .map(|client_id| (client_id, rest.at))
        .ok_or(Refusal::Malformed { what: "request header" })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn read(&mut self, is_flexible: bool) -> Option<Option<&'a str>> {
        let length = i16::from_be_bytes(self.take(2)?.try_into().ok()?);
        let client_id = match length {
            -1 => None,
            _ => Some(std::str::from_utf8(self.take(usize::try_from(length).ok()?)?).ok()?),
        };
        if is_flexible {
            // Each tagged field takes two bytes at least, so the frame's end bounds the count.
            for _ in 0..self.varint()? {
                self.varint()?;
                let bytes = usize::try_from(self.varint()?).ok()?;
                self.take(bytes)?;
            }
        }
        Some(client_id)
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(bytes)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.take(1)?.first()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}
