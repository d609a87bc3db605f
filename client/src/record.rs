//! Records as the client hands them out and takes them, and where they lie.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::pb::v1 as pb;

/// One partition of a topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Of the topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
}

impl TopicPartition {
    /// That partition.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<TopicPartition> for pb::TopicPartition {
    fn from(partition: TopicPartition) -> pb::TopicPartition {
        pb::TopicPartition { topic: partition.topic.to_string(), partition: partition.partition }
    }
}

impl From<pb::TopicPartition> for TopicPartition {
    fn from(partition: pb::TopicPartition) -> TopicPartition {
        TopicPartition::new(partition.topic, partition.partition)
    }
}

/// A record to be sent, borrowed from whoever sends it: it is encoded into a batch at once.
///
/// ```
/// use floodmark_client::NewRecord;
///
/// let record = NewRecord::to("orders").key(b"42").value(b"paid").headers(&[(b"source", Some(b"shop"))]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// None: where the hash of its key sends it, as Kafka's Java client does; without a key, wherever a batch is being filled.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none deletes the key in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Names and values beside it; order and duplicates are kept.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// Milliseconds since 1970; none: now.
    pub timestamp_ms: Option<i64>,
}

impl<'a> NewRecord<'a> {
    /// An empty record for this topic.
    #[must_use]
    pub fn to(topic: &'a str) -> NewRecord<'a> {
        NewRecord { topic, partition: None, key: None, value: None, headers: &[], timestamp_ms: None }
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> NewRecord<'a> {
        self.key = Some(key.as_ref());
        self
    }

    /// With this value.
    #[must_use]
    pub fn value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> NewRecord<'a> {
        self.value = Some(value.as_ref());
        self
    }

    /// With these headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a [u8], Option<&'a [u8]>)]) -> NewRecord<'a> {
        self.headers = headers;
        self
    }

    /// To this partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> NewRecord<'a> {
        self.partition = Some(partition);
        self
    }

    /// With this time.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> NewRecord<'a> {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// A name and a value beside a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name; several headers may have the same. What of it is no UTF-8 stands as U+FFFD here; [`Header::name_bytes`] has it as it came.
    pub name: String,
    /// The value; none is not the same as empty.
    pub value: Option<Bytes>,
    /// The name, where it is no UTF-8.
    raw_name: Option<Box<[u8]>>,
}

impl Header {
    /// With a value.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<Bytes>) -> Header {
        Header::of(name.into(), Some(value.into()))
    }

    /// With a value or without.
    #[must_use]
    pub fn of(name: impl Into<String>, value: Option<Bytes>) -> Header {
        Header { name: name.into(), value, raw_name: None }
    }

    /// As it stands in a record.
    pub(crate) fn read(name: &[u8], value: Option<Bytes>) -> Header {
        match std::str::from_utf8(name) {
            Ok(name) => Header::of(name, value),
            Err(_) => {
                let raw_name = Some(Box::from(name));
                Header { name: String::from_utf8_lossy(name).into_owned(), value, raw_name }
            }
        }
    }

    /// The name as it stands in the record, UTF-8 or not.
    #[must_use]
    pub fn name_bytes(&self) -> &[u8] {
        match &self.raw_name {
            // Somebody may have given it another name since.
            Some(raw) if String::from_utf8_lossy(raw) == self.name => raw,
            _ => self.name.as_bytes(),
        }
    }

    /// As a batch takes it.
    pub(crate) fn borrowed(&self) -> (&[u8], Option<&[u8]>) {
        (self.name_bytes(), self.value.as_deref())
    }
}

impl From<pb::Header> for Header {
    fn from(header: pb::Header) -> Header {
        Header::of(header.key, header.value)
    }
}

impl From<Header> for pb::Header {
    fn from(header: Header) -> pb::Header {
        pb::Header { key: header.name, value: header.value }
    }
}

/// A record that was read. Key and value share the bytes that came from the broker; keeping one keeps the batch around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub topic: Arc<str>,
    /// Where it lies.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Milliseconds since 1970; -1 where it has none.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    /// In their order, duplicates included.
    pub headers: Vec<Header>,
}

impl Record {
    /// The value of the last header of that name, as Kafka's clients take it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        find(&self.headers, name)
    }

    /// The same where it is text.
    #[must_use]
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.header(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Where it lies.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }

    pub(crate) fn from_message(record: pb::Record, topic: &Arc<str>, partition: i32) -> Record {
        Record {
            topic: Arc::clone(topic),
            partition,
            offset: record.offset.unwrap_or(-1),
            timestamp_ms: record.timestamp_ms.unwrap_or(-1),
            key: record.key,
            value: record.value,
            headers: record.headers.into_iter().map(Into::into).collect(),
        }
    }
}

/// The value of the last header of that name.
pub(crate) fn find<'h>(headers: &'h [Header], name: &str) -> Option<&'h [u8]> {
    headers.iter().rev().find(|header| header.name == name).and_then(|header| header.value.as_deref())
}

/// Where a record was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset; -1 where the broker knows only that a retry was one.
    pub offset: i64,
    /// The broker's time on it, where the topic has the broker's time.
    pub log_append_time_ms: Option<i64>,
    /// What was reached when it was acknowledged.
    pub durability: Durability,
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The broker did not say.
    Unknown,
    /// In the memory of the leader: a power cut may take it.
    Memory,
    /// On the disk of the leader.
    SyncedHere,
    /// On the disks of all replicas in sync.
    SyncedInSyncSet,
}

impl From<pb::Durability> for Durability {
    fn from(durability: pb::Durability) -> Durability {
        match durability {
            pb::Durability::Unspecified => Durability::Unknown,
            pb::Durability::Memory => Durability::Memory,
            pb::Durability::SyncedHere => Durability::SyncedHere,
            pb::Durability::SyncedInSyncSet => Durability::SyncedInSyncSet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_text_keeps_its_bytes() {
        let mut header = Header::read(b"gr\xfcn", None);
        assert_eq!((&*header.name, header.name_bytes()), ("gr\u{fffd}n", &b"gr\xfcn"[..]));
        assert_ne!(header, Header::read(b"gr\xffn", None));
        assert_eq!(Header::read("grün".as_bytes(), None), Header::of("grün", None));
        header.name = "another".to_owned();
        assert_eq!(header.borrowed(), (&b"another"[..], None));
    }
}
