//! Reads the small text files line by line, strictly: every line ends with a line feed, numbers are canonical decimals.
//! A file torn inside its last line can so never pass for a whole one with a shorter number.

use crate::format_error::FormatError;

/// Walks through the lines of one file and names each by its number, counted from one.
pub(crate) struct TextLines<'a> {
    file: &'static str,
    rest: &'a [u8],
    line: usize,
}

impl<'a> TextLines<'a> {
    pub(crate) fn new(file: &'static str, bytes: &'a [u8]) -> TextLines<'a> {
        TextLines { file, rest: bytes, line: 0 }
    }

    /// Number of the line last returned.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// Bytes after the line last returned.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next line without its line feed; `expected` says in the error what should have been there.
    pub(crate) fn next(&mut self, expected: &'static str) -> Result<&'a str, FormatError> {
        self.line += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(self.malformed(expected))?;
        let line = std::str::from_utf8(&self.rest[..end]).map_err(|_| self.malformed(expected))?;
        self.rest = &self.rest[end + 1..];
        Ok(line)
    }

    pub(crate) fn malformed(&self, expected: &'static str) -> FormatError {
        FormatError::Malformed { file: self.file, line: self.line, expected }
    }

    /// A number of the line last returned. No plus sign, no leading zeros, no minus zero.
    pub(crate) fn number<N: TryFrom<i64>>(&self, text: &str, field: &'static str) -> Result<N, FormatError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_canonical = !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !digits.starts_with('0'));
        let number = text.parse::<i64>().ok().filter(|_| is_canonical);
        number.and_then(|number| N::try_from(number).ok()).ok_or(FormatError::NotANumber {
            file: self.file,
            line: self.line,
            field,
        })
    }

    /// The fields of the line last returned, which must be exactly `N`, one blank apart.
    pub(crate) fn fields<const N: usize>(
        &self,
        text: &'a str,
        expected: &'static str,
    ) -> Result<[&'a str; N], FormatError> {
        let mut fields = [""; N];
        let mut parts = text.split(' ');
        for field in &mut fields {
            *field = parts.next().ok_or(self.malformed(expected))?;
        }
        if parts.next().is_some() {
            return Err(self.malformed(expected));
        }
        Ok(fields)
    }
}
