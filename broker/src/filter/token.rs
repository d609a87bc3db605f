//! Words of an expression, each with its place.

use super::FilterError;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    /// Text, or bytes in hexadecimal.
    Bytes(Vec<u8>),
    /// An integer, or a time in milliseconds since 1970.
    Number(i64),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// Longer ones first, so that none is taken for the beginning of another.
const SIGNS: [&str; 15] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", "%"];

/// The words of `text`, with the byte at which each begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (len, token) = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (sign.len(), Token::Sign(sign))
        } else if first == '.' {
            (1, Token::Sign("."))
        } else if first == '"' {
            string(at, rest)?
        } else if first.is_ascii_digit() || first == '-' {
            number(at, rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            match (&rest[..len], rest[len..].starts_with('"')) {
                ("hex", true) => hex(at, rest, len)?,
                (name, _) => (len, Token::Name(name.to_owned())),
            }
        } else {
            return Err(FilterError::new(at, format!("{first:?} means nothing here")));
        };
        found.push((at, token));
        at += len;
    }
    Ok(found)
}

/// Text in quotes; `\"`, `\\`, `\n`, `\r`, `\t` stand for what they stand for elsewhere.
fn string(at: usize, rest: &str) -> Result<(usize, Token), FilterError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => return Ok((offset + 1, Token::Bytes(text.into_bytes()))),
            '\\' => text.push(match chars.next().map(|(_, escaped)| escaped) {
                Some(c @ ('"' | '\\')) => c,
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                _ => {
                    let message = "after a backslash comes one of \" \\ n r t";
                    return Err(FilterError::new(at + offset, message));
                }
            }),
            c => text.push(c),
        }
    }
    Err(FilterError::new(at, "the text is not closed; a quotation mark is missing"))
}

/// Bytes as in `hex"00ff"`.
fn hex(at: usize, rest: &str, name_len: usize) -> Result<(usize, Token), FilterError> {
    let wrong =
        || FilterError::new(at, "bytes are written as pairs of hexadecimal digits, as in hex\"00ff\"");
    let digits = rest[name_len + 1..].split_once('"').ok_or_else(wrong)?.0;
    let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return Err(wrong());
    }
    let value = |digit: u8| (digit as char).to_digit(16).and_then(|v| u8::try_from(v).ok());
    let byte = |pair: &[u8; 2]| Some(value(pair[0])? << 4 | value(pair[1])?);
    let bytes = pairs.iter().map(byte).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
    Ok((name_len + 2 + digits.len(), Token::Bytes(bytes)))
}

/// An integer, or a date as in `2026-01-01` or `2026-01-01T12:00:00.5Z`.
fn number(at: usize, rest: &str) -> Result<(usize, Token), FilterError> {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.' | b'+');
    let len = rest.bytes().take_while(is_part).count();
    let word = &rest[..len];
    let digits = word.strip_prefix('-').unwrap_or(word);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let number = word.parse().map_err(|_| FilterError::new(at, "the number has more than 64 bits"))?;
        return Ok((len, Token::Number(number)));
    }
    let wrong = || {
        let message = format!("{word:?} is no number and no time; times are written as 2026-01-31T12:00:00Z");
        FilterError::new(at, message)
    };
    time(word).map(|ms| (len, Token::Number(ms))).ok_or_else(wrong)
}

/// Milliseconds since 1970 of a date, or a date with a time of day in UTC.
fn time(word: &str) -> Option<i64> {
    let (date, clock) = match word.split_once('T') {
        Some((date, clock)) => (date, clock.strip_suffix('Z')?),
        None => (word, "00:00:00"),
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = digits(parts.next()?, 2)?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 || !(1..=3).contains(&fraction.len())
    {
        return None;
    }
    let ms = digits(fraction, fraction.len())? * [100, 10, 1].get(fraction.len() - 1)?;
    let days = days_before(year, month) + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms)
}

fn digits(text: &str, len: usize) -> Option<i64> {
    (text.len() == len && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>()
}
