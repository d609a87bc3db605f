//! A record to be sent that owns its bytes, with what programs tell each other beside the value: the usual headers, by name and type.

use std::sync::Arc;

use bytes::Bytes;

use crate::chance::random_id;
use crate::error::Result;
use crate::producer::{Delivery, Producer};
use crate::record::{Header, NewRecord, Record, find};

/// Names of the headers that have a meaning here. Values are UTF-8.
pub mod names {
    /// Which message it is; the same when it is sent again.
    pub const MESSAGE_ID: &str = "message-id";
    /// Which message it belongs to: a reply to its request, a step to its process.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// The topic, or topic and partition with a colon between them, where a reply is waited for.
    pub const REPLY_TO: &str = "reply-to";
    /// The media type of the value.
    pub const CONTENT_TYPE: &str = "content-type";
}

/// A record to be sent.
///
/// ```
/// use floodmark_client::Message;
///
/// let message = Message::to("orders").key("42").value(r#"{"paid":true}"#).content_type("application/json").with_id();
/// assert!(message.header_str("message-id").is_some());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: Arc<str>,
    /// None: where the hash of its key sends it.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// In their order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; none: now.
    pub timestamp_ms: Option<i64>,
}

impl Message {
    /// An empty one.
    #[must_use]
    pub fn to(topic: impl Into<Arc<str>>) -> Message {
        Message {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// What was read, for another topic: key, value, headers and time as they are.
    #[must_use]
    pub fn forward(record: &Record, topic: impl Into<Arc<str>>) -> Message {
        Message {
            topic: topic.into(),
            partition: None,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            timestamp_ms: (record.timestamp_ms >= 0).then_some(record.timestamp_ms),
        }
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Message {
        self.key = Some(key.into());
        self
    }

    /// With this value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Message {
        self.value = Some(value.into());
        self
    }

    /// To this partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Message {
        self.partition = Some(partition);
        self
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Message {
        self.headers.push(Header::new(name, value));
        self
    }

    /// With this header instead of all of its name.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<Bytes>) -> Message {
        self.headers.retain(|header| header.name != name);
        self.header(name, value)
    }

    /// With a new id.
    #[must_use]
    pub fn with_id(self) -> Message {
        self.set(names::MESSAGE_ID, new_id())
    }

    /// Belongs to that message or process.
    #[must_use]
    pub fn correlation_id(self, id: impl Into<Bytes>) -> Message {
        self.set(names::CORRELATION_ID, id)
    }

    /// Where a reply is waited for.
    #[must_use]
    pub fn reply_to(self, address: &ReplyAddress) -> Message {
        self.set(names::REPLY_TO, address.to_string())
    }

    /// With the media type of its value.
    #[must_use]
    pub fn content_type(self, media_type: impl Into<Bytes>) -> Message {
        self.set(names::CONTENT_TYPE, media_type)
    }

    /// The text of the last header of that name.
    #[must_use]
    pub fn header_str(&self, name: &str) -> Option<&str> {
        find(&self.headers, name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Hands it to a producer; the returned future tells what became of it.
    pub async fn send(&self, producer: &Producer) -> Result<Delivery> {
        let headers: Vec<_> = self.headers.iter().map(Header::borrowed).collect();
        producer
            .send(NewRecord {
                topic: &self.topic,
                partition: self.partition,
                key: self.key.as_deref(),
                value: self.value.as_deref(),
                headers: &headers,
                timestamp_ms: self.timestamp_ms,
            })
            .await
    }
}

/// An id that nobody else has: 32 hexadecimal digits, by chance.
#[must_use]
pub fn new_id() -> String {
    format!("{:032x}", u128::from_be_bytes(random_id()))
}

/// Where a reply is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplyAddress {
    /// The topic.
    pub topic: Arc<str>,
    /// None: any of it.
    pub partition: Option<i32>,
}

impl ReplyAddress {
    /// Where the sender of `record` waits for a reply, if it does.
    #[must_use]
    pub fn of(record: &Record) -> Option<ReplyAddress> {
        record.header_str(names::REPLY_TO)?.parse().ok()
    }
}

impl std::fmt::Display for ReplyAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "{}:{partition}", self.topic),
            None => f.write_str(&self.topic),
        }
    }
}

impl std::str::FromStr for ReplyAddress {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<ReplyAddress, Self::Err> {
        // No topic's name has a colon in it.
        match text.split_once(':') {
            Some((topic, partition)) => {
                Ok(ReplyAddress { topic: topic.into(), partition: Some(partition.parse()?) })
            }
            None => Ok(ReplyAddress { topic: text.into(), partition: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_set_replaces_all_of_its_name_and_no_other() {
        let message = Message::to("t").header("a", "1").header("b", "2").header("a", "3").set("a", "4");
        assert_eq!(message.headers, [Header::new("b", "2"), Header::new("a", "4")]);
        assert_eq!(message.header_str("a"), Some("4"));
    }

    #[test]
    fn addresses_survive_their_text() {
        for address in [
            ReplyAddress { topic: "replies".into(), partition: None },
            ReplyAddress { topic: "a.b-c".into(), partition: Some(7) },
        ] {
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        assert!("t:x".parse::<ReplyAddress>().is_err());
    }

    #[test]
    fn ids_differ() {
        assert!(new_id() != new_id() && new_id().len() == 32);
    }
}
