//! Characters that are hard to type in a shell: `\t`, `\n`, `\0` and the like.

/// The bytes that `text` stands for.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match characters.next() {
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = characters.by_ref().take(2).collect();
                let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                u8::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| is_byte)
                    .ok_or_else(|| format!("\\x{digits} is no byte; two hexadecimal digits follow \\x"))?
            }
            Some(other) => return Err(format!("\\{other} means nothing; {KNOWN}")),
            None => return Err(format!("a backslash stands at the end; {KNOWN}")),
        });
    }
    Ok(bytes)
}

const KNOWN: &str = r"known are \n \r \t \0 \\ and \xHH";

/// For an argument of at least one byte.
pub(crate) fn separator(text: &str) -> Result<Separator, String> {
    let bytes = unescape(text)?;
    if bytes.is_empty() { Err("it cannot be empty".to_owned()) } else { Ok(Separator(bytes)) }
}

/// For an argument that may also be empty.
pub(crate) fn ending(text: &str) -> Result<Separator, String> {
    unescape(text).map(Separator)
}

/// For an argument of exactly one byte.
pub(crate) fn delimiter(text: &str) -> Result<u8, String> {
    match unescape(text)?[..] {
        [byte] => Ok(byte),
        _ => Err(r"it is one byte, such as \n or \0".to_owned()),
    }
}

/// Bytes that stand between two others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Separator(pub(crate) Vec<u8>);

impl Separator {
    /// What is before the first one in `bytes`, and what is after it.
    pub(crate) fn split<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let at = bytes.windows(self.0.len()).position(|window| window == self.0)?;
        Some((&bytes[..at], &bytes[at + self.0.len()..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("plain", b"plain"),
            (r"\t", b"\t"),
            (r"a\n\r\0\\b", b"a\n\r\0\\b"),
            (r"\xff\x00", b"\xff\0"),
            ("ä", "ä".as_bytes()),
        ] {
            assert_eq!(unescape(text).as_deref(), Ok(bytes), "{text}");
        }
        for text in [r"\", r"\q", r"\x", r"\x1", r"\xzz", r"\x+1"] {
            assert!(unescape(text).is_err(), "{text}");
        }
        assert_eq!(delimiter(r"\0"), Ok(0));
        assert!(delimiter("ä").is_err() && delimiter("").is_err() && separator("").is_err());
    }

    #[test]
    fn the_first_separator_counts() {
        let split = |separator: &str, bytes: &'static [u8]| Separator(separator.into()).split(bytes);
        assert_eq!(split("=", b"k=v=w"), Some((&b"k"[..], &b"v=w"[..])));
        assert_eq!(split("::", b"a:::b"), Some((&b"a"[..], &b":b"[..])));
        assert_eq!(split("=", b"="), Some((&b""[..], &b""[..])));
        assert_eq!(split("=", b"none"), None);
        assert_eq!(split("==", b"="), None);
    }
}
