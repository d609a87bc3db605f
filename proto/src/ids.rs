//! The numbers and names that identify things in the log, each a type of its own so that none is taken for another.

use std::fmt;
use std::ops::{Add, Sub};

/// Position of a record in its partition, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Offset = Offset(0);
    /// Past every offset a log can hold.
    pub const MAX: Offset = Offset(i64::MAX);

    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl Add<i64> for Offset {
    type Output = Offset;
    fn add(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

impl Sub<Offset> for Offset {
    type Output = i64;
    fn sub(self, earlier: Offset) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The term of one partition leader; a batch carries the term in which it was first appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// What clients write and old data carries: the epoch is not known. Never zero, which is a real epoch.
    pub const UNKNOWN: LeaderEpoch = LeaderEpoch(-1);
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of an idempotent or transactional producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// The producer asked for no idempotence.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since the Unix epoch; `-1` where a record or batch has no time.
pub type TimestampMs = i64;

/// A broker of the cluster, named by its operator and never given to another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the registrations of brokers: a broker that starts again gets a higher one, and what the process before it
/// still says is told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerEpoch(pub i64);

impl fmt::Display for BrokerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a cluster, made once when its first broker starts. The text form is that of [`TopicId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// The id with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> ClusterId {
        ClusterId(bytes)
    }

    /// The bytes as they are kept.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_base64url(self.0, f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// A text that is not 22 characters of base64url that hold 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cluster id is not 22 characters of base64url")]
pub struct ClusterIdError;

impl std::str::FromStr for ClusterId {
    type Err = ClusterIdError;

    /// Reads the text form; fails on any text that [`fmt::Display`] would not have written.
    fn from_str(text: &str) -> Result<ClusterId, ClusterIdError> {
        parse_base64url(text).map(ClusterId).ok_or(ClusterIdError)
    }
}

/// Identity of one incarnation of a topic: a topic deleted and created again under its name gets another.
///
/// Never all zeros, Kafka's "no id", nor 1, the id of its metadata log. The text form is Kafka's: base64url, 22
/// characters, no padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 16]);

/// Why something is not a topic id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicIdError {
    /// Kafka keeps ids 0 and 1 for itself.
    #[error("topic id is reserved")]
    Reserved,
    /// Not 22 characters of base64url that hold 128 bits.
    #[error("topic id is not 22 characters of base64url")]
    NotBase64,
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const ID_TEXT_LEN: usize = 22;

impl TopicId {
    /// The id with these bytes; fails for the two reserved ones.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<TopicId, TopicIdError> {
        if u128::from_be_bytes(bytes) <= 1 {
            return Err(TopicIdError::Reserved);
        }
        Ok(TopicId(bytes))
    }

    /// The bytes as they cross the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_base64url(self.0, f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

impl std::str::FromStr for TopicId {
    type Err = TopicIdError;

    /// Reads the text form; fails on any text that [`fmt::Display`] would not have written.
    fn from_str(text: &str) -> Result<TopicId, TopicIdError> {
        TopicId::from_bytes(parse_base64url(text).ok_or(TopicIdError::NotBase64)?)
    }
}

fn write_base64url(bytes: [u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let bits = u128::from_be_bytes(bytes);
    let mut text = [0; ID_TEXT_LEN];
    for (n, character) in text.iter_mut().enumerate() {
        // 21 characters carry six bits each; the last one carries two, and four zeros.
        let sextet = if n < 21 { bits >> (122 - 6 * n) } else { bits << 4 };
        *character = BASE64URL[(sextet & 0x3f) as usize];
    }
    f.write_str(&String::from_utf8_lossy(&text))
}

fn parse_base64url(text: &str) -> Option<[u8; 16]> {
    if text.len() != ID_TEXT_LEN {
        return None;
    }
    let mut bits: u128 = 0;
    for (n, character) in text.bytes().enumerate() {
        let sextet = BASE64URL.iter().position(|c| *c == character)? as u128;
        if n < 21 {
            bits = bits << 6 | sextet;
        } else if sextet & 0xf == 0 {
            bits = bits << 2 | sextet >> 4;
        } else {
            return None;
        }
    }
    Some(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC_IDS: [(&str, u128); 5] = [
        ("AAAAAAAAAAAAAAAAAAAAAg", 2),
        ("AAAAAAAAAAEAAAAAAAAAAA", 1 << 64),
        ("_____________________w", u128::MAX),
        ("ASNFZ4mrze_-3LqYdlQyEA", 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210),
        ("gAAAAAAAAACAAAAAAAAAAQ", 0x8000_0000_0000_0000_8000_0000_0000_0001),
    ];

    #[test]
    fn topic_id_text_is_kafkas() {
        // Pairs printed by Kafka's own Uuid class.
        for (text, bytes) in TOPIC_IDS {
            let id: TopicId = text.parse().expect(text);
            assert_eq!(id, TopicId::from_bytes(bytes.to_be_bytes()).expect(text));
            assert_eq!(id.to_string(), text);
            let cluster: ClusterId = text.parse().expect(text);
            assert_eq!((cluster.to_string().as_str(), cluster.to_bytes()), (text, bytes.to_be_bytes()));
        }
    }

    #[test]
    fn reserved_and_misspelt_topic_ids_are_refused() {
        for (text, error) in [
            ("AAAAAAAAAAAAAAAAAAAAAA", TopicIdError::Reserved),
            ("AAAAAAAAAAAAAAAAAAAAAQ", TopicIdError::Reserved),
            ("AAAAAAAAAAAAAAAAAAAAAR", TopicIdError::NotBase64),
            ("AAAAAAAAAAAAAAAAAAAAA", TopicIdError::NotBase64),
            ("AAAAAAAAAAAAAAAAAAAAAg==", TopicIdError::NotBase64),
            ("AAAAAAAAAAAAAAAAAAAA+g", TopicIdError::NotBase64),
            ("", TopicIdError::NotBase64),
        ] {
            assert_eq!(text.parse::<TopicId>(), Err(error), "{text}");
            let is_base64 = error == TopicIdError::Reserved;
            assert_eq!(text.parse::<ClusterId>().is_ok(), is_base64, "{text}");
        }
    }
}
