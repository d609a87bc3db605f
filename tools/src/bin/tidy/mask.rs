//! Tells code, comments and literals of a Rust source apart, byte by byte, without understanding it further.

/// A source in two copies of the same length: one with only its code, one with only its comments; the rest is blank.
pub(crate) struct Masked {
    pub(crate) code: String,
    pub(crate) comments: String,
}

/// Blanks comments and the insides of string and character literals out of `code`, and everything else out of `comments`.
pub(crate) fn mask(text: &str) -> Masked {
    let mut masker = Masker { text: text.as_bytes(), at: 0, code: Vec::new(), comments: Vec::new() };
    while masker.at < masker.text.len() {
        masker.step();
    }
    Masked {
        code: String::from_utf8_lossy(&masker.code).into_owned(),
        comments: String::from_utf8_lossy(&masker.comments).into_owned(),
    }
}

struct Masker<'a> {
    text: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
}

/// Where a byte goes.
#[derive(Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Masker<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        if rest.starts_with(b"//") {
            let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            self.take(end, Kind::Comment);
        } else if rest.starts_with(b"/*") {
            self.take(block_comment_len(rest), Kind::Comment);
        } else if let Some((prefix, hashes)) = self.raw_string_start(rest) {
            let body = raw_string_len(&rest[prefix..], hashes);
            self.take(prefix, Kind::Code);
            self.take(body, Kind::Literal);
        } else if rest[0] == b'"' {
            self.take(1, Kind::Code);
            let body = quoted_len(&self.text[self.at..]);
            self.take(body, Kind::Literal);
        } else if rest[0] == b'\'' {
            match char_literal_len(rest) {
                Some(len) => self.take(len, Kind::Literal),
                None => self.take(1, Kind::Code),
            }
        } else {
            self.take(1, Kind::Code);
        }
    }

    /// Moves over `len` bytes; line ends stay in both copies.
    fn take(&mut self, len: usize, kind: Kind) {
        for &byte in &self.text[self.at..self.at + len] {
            let blank = if byte == b'\n' { b'\n' } else { b' ' };
            self.code.push(if matches!(kind, Kind::Code) { byte } else { blank });
            self.comments.push(if matches!(kind, Kind::Comment) { byte } else { blank });
        }
        self.at += len;
    }

    /// The bytes of `r##"` and the like, and how many `#` it has.
    fn raw_string_start(&self, rest: &[u8]) -> Option<(usize, usize)> {
        let letters = rest.iter().take_while(|b| matches!(b, b'r' | b'b' | b'c')).count();
        if letters == 0 || letters > 2 || rest[letters - 1] != b'r' || self.follows_word() {
            return None;
        }
        let hashes = rest[letters..].iter().take_while(|&&b| b == b'#').count();
        (rest.get(letters + hashes) == Some(&b'"')).then_some((letters + hashes + 1, hashes))
    }

    fn follows_word(&self) -> bool {
        self.at.checked_sub(1).is_some_and(|before| is_word(self.text[before]))
    }
}

/// Whether `byte` may stand in a Rust name.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment_len(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of a raw string's inside and its closing quote.
fn raw_string_len(body: &[u8], hashes: usize) -> usize {
    let closes = |at: usize| {
        body[at] == b'"' && body[at + 1..].iter().take_while(|&&b| b == b'#').take(hashes).count() == hashes
    };
    (0..body.len()).find(|&at| closes(at)).map_or(body.len(), |at| at + 1 + hashes)
}

/// Length of a string's inside and its closing quote.
fn quoted_len(body: &[u8]) -> usize {
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    body.len()
}

/// Length of a character literal with its quotes; `None` for a lifetime.
fn char_literal_len(rest: &[u8]) -> Option<usize> {
    match *rest.get(1)? {
        b'\\' => rest.get(3..)?.iter().position(|&b| b == b'\'').map(|at| at + 4),
        first => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
        }
    }
}
