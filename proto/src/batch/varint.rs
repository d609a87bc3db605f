//! Zigzag varints as records use them: at most 5 bytes for 32 bits, at most 10 for 64.

/// Reads forward over borrowed bytes; every read checks what remains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, &'static str> {
        let (&first, rest) = self.bytes.split_first().ok_or("record ends early")?;
        self.bytes = rest;
        Ok(first)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or("length passes the end")?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A zigzag varint of 32 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<i32, &'static str> {
        // Most varints of a record fit one byte.
        if let Some((&first, rest)) = self.bytes.split_first()
            && first < 0x80
        {
            self.bytes = rest;
            return Ok(unzigzag32(u32::from(first)));
        }
        let raw = self.unsigned(5)?;
        u32::try_from(raw).map(unzigzag32).map_err(|_| "varint passes 32 bits")
    }

    /// A zigzag varint of 64 bits.
    #[inline]
    pub(crate) fn varlong(&mut self) -> Result<i64, &'static str> {
        let raw = self.unsigned(10)?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }

    /// Bytes behind a varint length, of which only -1 may be negative and means null.
    #[inline]
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, &'static str> {
        match self.varint()? {
            -1 => Ok(None),
            len => self.take(usize::try_from(len).map_err(|_| "length is negative")?).map(Some),
        }
    }

    #[inline]
    fn unsigned(&mut self, bytes_max: u32) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for at in 0..bytes_max {
            let byte = self.u8().map_err(|_| "varint ends early")?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if at == 9 && bits > 1 {
                return Err("varint passes 64 bits");
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint is too long")
    }
}

#[inline]
fn unzigzag32(raw: u32) -> i32 {
    ((raw >> 1) as i32) ^ -((raw & 1) as i32)
}

/// Appends a 32-bit zigzag varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

/// Appends a 64-bit zigzag varint.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Bytes that `value` takes as a zigzag varint.
pub(crate) fn varlong_len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0i32, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
        }
    }

    #[test]
    fn long_and_cut_varints_are_refused() {
        assert_eq!(Reader::new(&[0x80; 5]).varint(), Err("varint is too long"));
        assert_eq!(Reader::new(&[0x80; 10]).varlong(), Err("varint is too long"));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), Err("varint passes 32 bits"));
        let mut eleven_bits = [0xff; 10];
        eleven_bits[9] = 2;
        assert_eq!(Reader::new(&eleven_bits).varlong(), Err("varint passes 64 bits"));
        assert_eq!(Reader::new(&[0x80]).varint(), Err("varint ends early"));
        assert_eq!(Reader::new(&[]).varlong(), Err("varint ends early"));
        // Padding inside the five bytes is what Kafka's own reader takes too.
        assert_eq!(Reader::new(&[0x82, 0x80, 0]).varint(), Ok(1));
    }

    #[test]
    fn lengths_below_null_are_refused() {
        assert_eq!(Reader::new(&[1]).nullable_bytes(), Ok(None));
        assert_eq!(Reader::new(&[3]).nullable_bytes(), Err("length is negative"));
        assert_eq!(Reader::new(&[4, 7]).nullable_bytes(), Err("length passes the end"));
    }

    proptest! {
        #[test]
        fn every_value_round_trips(wide: i64, narrow: i32) {
            let mut out = Vec::new();
            put_varlong(&mut out, wide);
            prop_assert_eq!(out.len(), varlong_len(wide));
            prop_assert_eq!(Reader::new(&out).varlong(), Ok(wide));
            out.clear();
            put_varint(&mut out, narrow);
            prop_assert_eq!(out.len(), varlong_len(i64::from(narrow)));
            prop_assert_eq!(Reader::new(&out).varint(), Ok(narrow));
        }
    }
}
