//! Base64 with padding (RFC 4648), as CloudEvents in JSON hold bytes.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let all =
            chunk.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = all >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() { DIGITS[index as usize] as char } else { '=' });
        }
    }
    text
}

/// `None` where it is none.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let stripped = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    for chunk in stripped.as_bytes().chunks(4) {
        let mut all = 0_u32;
        for digit in chunk {
            let index = DIGITS.iter().position(|own| own == digit)?;
            all = all << 6 | u32::try_from(index).ok()?;
        }
        all <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&all.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(encode(&[0xfb, 0xff]), "+/8=");
        for wrong in ["Z", "Zg=", "Z===", "Zm9v!Zg=", "====", "=Zg="] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
