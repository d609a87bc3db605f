//! Records from a stream of bytes, one at a time, in memory bounded by the largest of them.

use std::io::{self, BufRead as _, BufReader, Read};

use anyhow::{Context as _, bail};

use super::{NewHeader, NewRecord, json};
use crate::input::escapes::Separator;

/// Of one record as it is typed: far more than a broker takes, and little enough to be refused in words instead of eating all memory.
const RECORD_BYTES_MAX: usize = 128 << 20;

/// Read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What records are read from.
pub(crate) type Source = Box<dyn Read + Send>;

/// How bytes become records.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// A record for each line, or whatever ends with the delimiter.
    Lines(LineForm),
    /// A record for each line of JSON.
    Json,
    /// One record of all the bytes.
    Whole { key: Option<Vec<u8>> },
}

/// How a line becomes a record.
#[derive(Debug, Clone)]
pub(crate) struct LineForm {
    pub(crate) delimiter: u8,
    /// Between key and value; `None` for lines that are all value.
    pub(crate) key_separator: Option<Separator>,
    /// Stands for null, as a key or a value.
    pub(crate) null: Option<Vec<u8>>,
    /// For lines that have none of their own.
    pub(crate) key: Option<Vec<u8>>,
}

/// Reads records from one source.
pub(crate) struct RecordReader {
    /// For errors.
    name: String,
    source: BufReader<Source>,
    form: Form,
    headers: Vec<NewHeader>,
    line: u64,
    is_done: bool,
}

impl RecordReader {
    pub(crate) fn new(name: String, source: Source, form: Form, headers: Vec<NewHeader>) -> RecordReader {
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        RecordReader { name, source, form, headers, line: 0, is_done: false }
    }

    /// Blocks until there is one, or the source has ended.
    pub(crate) fn next_record(&mut self) -> anyhow::Result<Option<NewRecord>> {
        if self.is_done {
            return Ok(None);
        }
        let record = match &self.form {
            Form::Whole { key } => {
                self.is_done = true;
                let value = read_whole(&mut self.source).with_context(|| self.name.clone())?;
                Some(NewRecord { key: key.clone(), value: Some(value), ..NewRecord::default() })
            }
            Form::Lines(form) => {
                let line = read_line(&mut self.source, form.delimiter).with_context(|| self.place())?;
                match line {
                    Some(line) => {
                        Some(form.record(line).map_err(anyhow::Error::msg).with_context(|| self.place())?)
                    }
                    None => None,
                }
            }
            Form::Json => loop {
                let Some(line) = read_line(&mut self.source, b'\n').with_context(|| self.place())? else {
                    break None;
                };
                // A blank line between objects says nothing.
                if !line.trim_ascii().is_empty() {
                    break Some(
                        json::parse(&line).map_err(anyhow::Error::msg).with_context(|| self.place())?,
                    );
                }
                self.line += 1;
            },
        };
        self.line += 1;
        let line = if matches!(self.form, Form::Whole { .. }) { 0 } else { self.line };
        Ok(record.map(|mut record| {
            record.line = line;
            record.headers.extend_from_slice(&self.headers);
            record
        }))
    }

    /// No whole record has been read ahead: the next one may have to be waited for.
    pub(crate) fn may_wait(&self) -> bool {
        let delimiter = match &self.form {
            Form::Lines(form) => form.delimiter,
            Form::Json => b'\n',
            Form::Whole { .. } => return true,
        };
        !self.source.buffer().contains(&delimiter)
    }

    fn place(&self) -> String {
        format!("{}, line {}", self.name, self.line + 1)
    }
}

impl LineForm {
    fn record(&self, line: Vec<u8>) -> Result<NewRecord, String> {
        let Some(separator) = &self.key_separator else {
            return Ok(NewRecord {
                key: self.key.clone(),
                value: self.or_null(line),
                ..NewRecord::default()
            });
        };
        let Some((key, value)) = separator.split(&line) else {
            return Err(format!(
                "no key separator {:?} in it; every line is KEY, separator, VALUE",
                String::from_utf8_lossy(&separator.0)
            ));
        };
        Ok(NewRecord {
            key: self.or_null(key.to_vec()),
            value: self.or_null(value.to_vec()),
            ..NewRecord::default()
        })
    }

    fn or_null(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        (self.null.as_ref() != Some(&bytes)).then_some(bytes)
    }
}

/// Without its delimiter, which may be missing from the last line; `None` at the end.
fn read_line(source: &mut BufReader<Source>, delimiter: u8) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = RECORD_BYTES_MAX as u64 + 1;
    source.by_ref().take(limit).read_until(delimiter, &mut line)?;
    if line.last() == Some(&delimiter) {
        line.pop();
        return Ok(Some(line));
    }
    if line.len() > RECORD_BYTES_MAX {
        bail!("longer than {} MiB; --input whole takes a file as one record", RECORD_BYTES_MAX >> 20);
    }
    Ok((!line.is_empty()).then_some(line))
}

fn read_whole(source: &mut BufReader<Source>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = source.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(length) if length > RECORD_BYTES_MAX => {
            bail!("larger than {} MiB, which is too large for one record", RECORD_BYTES_MAX >> 20)
        }
        Ok(_) => Ok(bytes),
        Err(e) => Err(io::Error::new(e.kind(), format!("cannot be read: {e}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8], form: Form) -> anyhow::Result<Vec<NewRecord>> {
        let header = NewHeader { name: b"h".to_vec(), value: None };
        let mut reader = RecordReader::new("input".to_owned(), Box::new(bytes), form, vec![header]);
        let mut records = Vec::new();
        while let Some(mut record) = reader.next_record()? {
            assert_eq!(record.headers.pop().map(|h| h.name).as_deref(), Some(&b"h"[..]));
            records.push(record);
        }
        Ok(records)
    }

    fn lines() -> LineForm {
        LineForm { delimiter: b'\n', key_separator: None, null: None, key: None }
    }

    type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

    fn pairs(records: &[NewRecord]) -> Vec<Pair<'_>> {
        records.iter().map(|record| (record.key.as_deref(), record.value.as_deref())).collect()
    }

    #[test]
    fn each_line_is_a_value() {
        let records = read(b"a\n\n\xff\r\nlast", Form::Lines(lines())).unwrap();
        let values: [&[u8]; 4] = [b"a", b"", b"\xff\r", b"last"];
        assert_eq!(pairs(&records), values.map(|value| (None, Some(value))));
        assert!(read(b"", Form::Lines(lines())).unwrap().is_empty());
        let form = LineForm { delimiter: 0, key: Some(b"k".to_vec()), ..lines() };
        let records = read(b"a\nb\0c\0", Form::Lines(form)).unwrap();
        assert_eq!(pairs(&records), [(Some(&b"k"[..]), Some(&b"a\nb"[..])), (Some(b"k"), Some(b"c"))]);
    }

    #[test]
    fn keys_and_nulls_stand_in_lines() {
        let form = LineForm {
            key_separator: Some(Separator(b"=>".to_vec())),
            null: Some(b"NULL".to_vec()),
            ..lines()
        };
        let records = read(b"k=>v=>w\nNULL=>NULL\n=>\n", Form::Lines(form.clone())).unwrap();
        assert_eq!(
            pairs(&records),
            [(Some(&b"k"[..]), Some(&b"v=>w"[..])), (None, None), (Some(b""), Some(b""))]
        );
        let told = format!("{:#}", read(b"k=>v\nno\n", Form::Lines(form)).unwrap_err());
        assert!(told.starts_with("input, line 2: no key separator \"=>\" in it"), "{told}");
    }

    #[test]
    fn json_and_whole_files_are_records() {
        let records = read(b"{\"value\": \"a\"}\n\n{\"key\": \"k\", \"value\": null}", Form::Json).unwrap();
        assert_eq!(pairs(&records), [(None, Some(&b"a"[..])), (Some(&b"k"[..]), None)]);
        let told = format!("{:#}", read(b"{\"value\": \"a\"}\n\n{}", Form::Json).unwrap_err());
        assert!(told.starts_with("input, line 3: it has no \"value\""), "{told}");
        let whole = Form::Whole { key: None };
        assert_eq!(pairs(&read(b"a\nb\0", whole.clone()).unwrap()), [(None, Some(&b"a\nb\0"[..]))]);
        assert_eq!(pairs(&read(b"", whole).unwrap()), [(None, Some(&b""[..]))]);
    }
}
