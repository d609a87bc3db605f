//! What `--format` prints for a record: text with fields in braces.

use std::io::{self, Write};

use super::SeenRecord;
use crate::input::escapes::unescape;
use crate::output::text::base64;
use crate::output::time;

/// For help and errors.
pub(crate) const FIELDS: &str = "{topic} {partition} {offset} {timestamp} {time} {key} {value} {headers} {header:NAME}; \
{key}, {value} and {header:NAME} also with |base64, |hex or |json, as in {value|base64}; {{ and }} are braces";

/// A format, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    /// Milliseconds since 1970.
    Timestamp,
    /// The same as people read it.
    Time,
    Key(Encoding),
    Value(Encoding),
    /// All of them.
    Headers,
    /// The last of this name, as it counts where names are unique.
    Header(String, Encoding),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// The bytes as they are.
    Raw,
    Base64,
    Hex,
    /// A string with escapes; what is no UTF-8 as `base64:…` in a string.
    Json,
}

/// For an argument.
pub(crate) fn argument(text: &str) -> Result<Template, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            literal.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err("} stands alone; write }} for a brace".to_owned());
        }
        let Some((field, after)) = rest.split_once('}') else {
            return Err("{ is not closed; write {{ for a brace".to_owned());
        };
        push_text(&mut parts, &mut literal)?;
        parts.push(part(field)?);
        rest = after;
    }
    literal.push_str(rest);
    push_text(&mut parts, &mut literal)?;
    Ok(Template { parts })
}

fn push_text(parts: &mut Vec<Part>, literal: &mut String) -> Result<(), String> {
    if !literal.is_empty() {
        parts.push(Part::Text(unescape(literal)?));
        literal.clear();
    }
    Ok(())
}

fn part(field: &str) -> Result<Part, String> {
    let unknown = || format!("{{{field}}} is unknown; known are {FIELDS}");
    let (name, encoding) = match field.rsplit_once('|') {
        None => (field, None),
        Some((name, "base64")) => (name, Some(Encoding::Base64)),
        Some((name, "hex")) => (name, Some(Encoding::Hex)),
        Some((name, "json")) => (name, Some(Encoding::Json)),
        Some(_) => return Err(unknown()),
    };
    let of_bytes = encoding.unwrap_or(Encoding::Raw);
    match (name, encoding) {
        ("key", _) => Ok(Part::Key(of_bytes)),
        ("value", _) => Ok(Part::Value(of_bytes)),
        ("topic", None) => Ok(Part::Topic),
        ("partition", None) => Ok(Part::Partition),
        ("offset", None) => Ok(Part::Offset),
        ("timestamp", None) => Ok(Part::Timestamp),
        ("time", None) => Ok(Part::Time),
        ("headers", None) => Ok(Part::Headers),
        _ => match name.strip_prefix("header:") {
            Some(header) => Ok(Part::Header(header.to_owned(), of_bytes)),
            None => Err(unknown()),
        },
    }
}

impl Template {
    /// The plain form: the value, behind its key where there is a separator.
    pub(crate) fn of_lines(key_separator: Option<&[u8]>) -> Template {
        let value = Part::Value(Encoding::Raw);
        let parts = match key_separator {
            None => vec![value],
            Some(separator) => vec![Part::Key(Encoding::Raw), Part::Text(separator.to_vec()), value],
        };
        Template { parts }
    }

    /// Prints a record; what is null as `null`.
    pub(crate) fn write(&self, record: &SeenRecord<'_>, null: &[u8], out: &mut dyn Write) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Topic => out.write_all(record.topic.as_bytes())?,
                Part::Partition => write!(out, "{}", record.partition)?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Timestamp => write!(out, "{}", record.timestamp_ms)?,
                Part::Time => out.write_all(time::cell(record.timestamp_ms).as_bytes())?,
                Part::Key(encoding) => encoding.write(record.key, null, out)?,
                Part::Value(encoding) => encoding.write(record.value, null, out)?,
                Part::Header(name, encoding) => {
                    let header = record.headers.iter().rev().find(|header| header.name == name.as_bytes());
                    encoding.write(header.and_then(|header| header.value), null, out)?;
                }
                Part::Headers => {
                    for (n, header) in record.headers.iter().enumerate() {
                        let comma = if n == 0 { "" } else { "," };
                        out.write_all(comma.as_bytes())?;
                        out.write_all(header.name)?;
                        out.write_all(b"=")?;
                        Encoding::Raw.write(header.value, null, out)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Encoding {
    fn write(self, bytes: Option<&[u8]>, null: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Some(bytes) = bytes else {
            return match self {
                Encoding::Json => out.write_all(b"null"),
                _ => out.write_all(null),
            };
        };
        match self {
            Encoding::Raw => out.write_all(bytes),
            Encoding::Base64 => out.write_all(base64(bytes).as_bytes()),
            Encoding::Hex => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
            Encoding::Json => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(serde_json::to_writer(out, text)?),
                Err(_) => Ok(serde_json::to_writer(out, &format!("base64:{}", base64(bytes)))?),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SeenHeader;
    use super::*;

    fn shown(format: &str) -> String {
        let record = SeenRecord {
            topic: "t",
            partition: 2,
            offset: 7,
            timestamp_ms: 1_000,
            key: None,
            value: Some(b"\xfa\"a\n"),
            headers: vec![
                SeenHeader { name: b"h", value: Some(b"1") },
                SeenHeader { name: b"n", value: None },
                SeenHeader { name: b"h", value: Some("ä\n".as_bytes()) },
            ],
        };
        let mut out = Vec::new();
        argument(format).unwrap().write(&record, b"~", &mut out).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn fields_are_filled_in() {
        for (format, text) in [
            ("", ""),
            (r"{topic}\t{partition}:{offset}\n", "t\t2:7\n"),
            ("{timestamp} {time}", "1000 1970-01-01T00:00:01.000Z"),
            ("{{{key}}} {key|hex} {key|json}", "{~} ~ null"),
            ("{value}", "\u{fffd}\"a\n"),
            ("{value|base64} {value|hex} {value|json}", r#"+iJhCg== fa22610a "base64:+iJhCg==""#),
            ("{header:h|json} {header:n} {header:none}", r#""ä\n" ~ ~"#),
            ("{headers}", "h=1,n=~,h=ä\n"),
        ] {
            assert_eq!(shown(format), text, "{format}");
        }
    }

    #[test]
    fn what_is_no_format_is_told_what_is() {
        for format in ["{", "}", "{valu}", "{value|rot13}", "{offset|hex}", "{value", "a}b", r"\q"] {
            assert!(argument(format).is_err(), "{format}");
        }
        assert!(argument("{valu}").unwrap_err().contains("{value}"));
    }
}
