//! Bytes of records as text: what is UTF-8 as it is, anything else in base64, and the two never taken for each other.

use serde::Serialize;

/// Bytes as JSON holds them: an object that names its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoded<'a> {
    /// The bytes are this text.
    Utf8(&'a str),
    /// The bytes are no UTF-8.
    Base64(String),
}

impl<'a> Encoded<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Encoded<'a> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Encoded::Utf8(text),
            Err(_) => Encoded::Base64(base64(bytes)),
        }
    }
}

/// Bytes as a table shows them: text in quotes with what cannot be printed escaped, other bytes as `base64:…`, no bytes as `null`.
/// At most `width` characters, if given.
pub(crate) fn cell(bytes: Option<&[u8]>, width: Option<usize>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    // A character takes four bytes at most, so what lies behind these cannot be seen.
    let seen = width.map_or(bytes, |width| &bytes[..bytes.len().min(width.saturating_mul(4) + 4)]);
    let text = match std::str::from_utf8(bytes) {
        // A cut inside a character is no reason to call the rest binary.
        Ok(_) => quoted(&String::from_utf8_lossy(seen), seen.len() == bytes.len()),
        Err(_) => format!("base64:{}", base64(seen)),
    };
    match width {
        Some(width) if seen.len() < bytes.len() || text.chars().count() > width => {
            let kept: String = text.chars().take(width.saturating_sub(1)).collect();
            format!("{kept}…")
        }
        _ => text,
    }
}

fn quoted(text: &str, is_whole: bool) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            // It ends nothing here.
            '\'' => quoted.push('\''),
            // Whatever could move a terminal's cursor, colour it or turn its direction is escaped.
            c => quoted.extend(c.escape_debug()),
        }
    }
    if is_whole {
        quoted.push('"');
    }
    quoted
}

/// RFC 4648, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let sextet = (bits >> (18 - 6 * n)) & 0x3f;
            text.push(if n <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standards() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn text_binary_and_null_are_told_apart() {
        assert_eq!(cell(None, None), "null");
        assert_eq!(cell(Some(b"null"), None), "\"null\"");
        assert_eq!(cell(Some(b""), None), "\"\"");
        assert_eq!(cell(Some(b"base64:AA=="), None), "\"base64:AA==\"");
        assert_eq!(cell(Some(&[0xff, 0]), None), "base64:/wA=");
        assert_eq!(
            cell(Some("it's \"grün\" \u{1b}[31m\n".as_bytes()), None),
            r#""it's \"grün\" \u{1b}[31m\n""#
        );
    }

    #[test]
    fn long_values_are_cut_to_the_width() {
        let long = "ä".repeat(1_000);
        for width in [1, 2, 5, 40] {
            let shown = cell(Some(long.as_bytes()), Some(width));
            assert_eq!(shown.chars().count(), width, "{shown}");
            assert!(shown.ends_with('…'));
        }
        assert_eq!(cell(Some(b"abc"), Some(5)), "\"abc\"");
        assert_eq!(cell(Some(b"abcd"), Some(5)), "\"abc…");
        assert_eq!(cell(Some(&[0xff; 100]), Some(12)), "base64:////…");
    }
}
