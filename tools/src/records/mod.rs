//! Records on standard input and output: lines, JSON, whole files and templates, so that whatever `consume` writes `produce` takes back.

pub(crate) mod base64;
pub(crate) mod feed;
pub(crate) mod json;
pub(crate) mod read;
pub(crate) mod template;
pub(crate) mod write;

use floodmark_client::{Header, Record};

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NewRecord {
    /// Where it was read from, if its line says so.
    pub(crate) partition: Option<i32>,
    /// Of its source, from 1 on; 0 where it has no lines.
    pub(crate) line: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<NewHeader>,
    pub(crate) timestamp_ms: Option<i64>,
}

/// A header of a record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewHeader {
    /// UTF-8 or not.
    pub(crate) name: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// A record that was read.
#[derive(Debug, Clone)]
pub(crate) struct SeenRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// In their order, with those that come twice.
    pub(crate) headers: Vec<SeenHeader<'a>>,
}

impl<'a> From<&'a Record> for SeenRecord<'a> {
    fn from(record: &'a Record) -> SeenRecord<'a> {
        let header =
            |header: &'a Header| SeenHeader { name: header.name_bytes(), value: header.value.as_deref() };
        SeenRecord {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

/// A header of a record that was read.
#[derive(Debug, Clone)]
pub(crate) struct SeenHeader<'a> {
    /// UTF-8 or not.
    pub(crate) name: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}
