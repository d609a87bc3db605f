//! Base64 (RFC 4648, with padding) back to bytes. Writing it is in `output/text.rs`.

/// The bytes that `text` stands for; `None` where it is no base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let groups = text.len() / 4;
    for (n, group) in text.chunks_exact(4).enumerate() {
        // Only the last group may be filled up.
        let padding =
            if n + 1 == groups { group.iter().rev().take_while(|c| **c == b'=').count() } else { 0 };
        if padding > 2 {
            return None;
        }
        let mut bits = 0u32;
        for character in &group[..4 - padding] {
            bits = bits << 6 | sextet(*character)?;
        }
        bits <<= 6 * padding;
        let [_, first, second, third] = bits.to_be_bytes();
        bytes.extend_from_slice(&[first, second, third][..3 - padding]);
        // Bits that belong to no byte would make two texts of one value.
        if [first, second, third][3 - padding..].iter().any(|byte| *byte != 0) {
            return None;
        }
    }
    Some(bytes)
}

fn sextet(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::decode;
    use crate::output::text::base64;

    #[test]
    fn every_length_and_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..=all.len() {
            for bytes in [&all[..length], &all[all.len() - length..]] {
                assert_eq!(decode(&base64(bytes)).as_deref(), Some(bytes));
            }
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in
            ["A", "AA", "AAA", "A===", "====", "AA=A", "AA==AAAA", "AB==", "AAB=", "A*==", "AA-_", "Zg=\n"]
        {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
