//! Topics as event stores: the records of one key are a stream that can be appended to on a condition and read by itself.
//!
//! [`EventStore`] is the store, [`Aggregates`] keeps state that is folded from streams and decides on commands, [`Projection`] keeps a view
//! of a whole topic.

mod aggregate;
mod projection;
mod reader;
mod snapshots;

use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::pb::v1 as pb;

pub use aggregate::{Aggregate, Aggregates, ExecuteError, Executed, Loaded, Snapshot};
pub use projection::{Checkpoints, Projection, ProjectionConfig, Update};
pub use reader::{Direction, EventReader, ReadStream};
pub use snapshots::Snapshots;

use crate::admin::NewTopic;
use crate::chance::random_id;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::producer::partition_of_key;
use crate::record::{Durability, Header, Record};

/// What the last record of a stream must be for an append to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// There is none.
    NoStream,
    /// There is one.
    StreamExists,
    /// The record at this offset.
    Offset(i64),
}

impl From<Expected> for pb::Expected {
    fn from(expected: Expected) -> pb::Expected {
        use pb::expected::{Last, Special};
        let last = match expected {
            Expected::Any => Last::Special(Special::Any.into()),
            Expected::NoStream => Last::Special(Special::NoStream.into()),
            Expected::StreamExists => Last::Special(Special::StreamExists.into()),
            Expected::Offset(offset) => Last::Offset(offset),
        };
        pb::Expected { last: Some(last) }
    }
}

/// An event to be appended. Its key is its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewEvent {
    /// The event.
    pub value: Option<Bytes>,
    /// Names and values beside it.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; none: the broker's time.
    pub timestamp_ms: Option<i64>,
}

impl NewEvent {
    /// Without headers.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> NewEvent {
        NewEvent { value: Some(value.into()), ..NewEvent::default() }
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> NewEvent {
        self.headers.push(Header::new(name, value));
        self
    }
}

impl From<NewEvent> for pb::Record {
    fn from(event: NewEvent) -> pb::Record {
        pb::Record {
            key: None,
            value: event.value,
            headers: event.headers.into_iter().map(Into::into).collect(),
            timestamp_ms: event.timestamp_ms,
            offset: None,
        }
    }
}

/// Where events were put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Of the stream.
    pub partition: i32,
    /// Of the first.
    pub base_offset: i64,
    /// Of the last: what the next append expects.
    pub last_offset: i64,
    /// What was reached.
    pub durability: Durability,
    /// An earlier attempt of the same append had been carried out already.
    pub is_repeat: bool,
}

/// A topic whose records of one key are a stream. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> floodmark_client::Result<()> {
/// use floodmark_client::events::{EventStore, Expected, NewEvent};
/// use floodmark_client::{Client, Error};
///
/// let client = Client::connect("127.0.0.1:9093").await?;
/// let store = EventStore::new(&client, "accounts");
/// store.create(4).await?;
/// store.append_if("alice", Expected::NoStream, vec![NewEvent::new("opened")]).await?;
/// match store.append_if("alice", Expected::NoStream, vec![NewEvent::new("opened")]).await {
///     Err(Error::Conflict { last_offset }) => println!("somebody was faster: {last_offset:?}"),
///     other => println!("{other:?}"),
/// }
/// for event in store.read("alice").await? {
///     println!("{}: {:?}", event.offset, event.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EventStore {
    client: Client,
    topic: Arc<str>,
}

impl EventStore {
    /// The store that this topic is; it has the setting `floodmark.key.index=true`.
    #[must_use]
    pub fn new(client: &Client, topic: impl Into<Arc<str>>) -> EventStore {
        EventStore { client: client.clone(), topic: topic.into() }
    }

    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Makes the topic, unless it is there already.
    pub async fn create(&self, partitions: i32) -> Result<()> {
        let topic = NewTopic::new(&*self.topic).partitions(partitions).setting("floodmark.key.index", "true");
        create_if_missing(&self.client, topic).await
    }

    /// The partition of a stream.
    pub async fn partition(&self, stream: &[u8]) -> Result<i32> {
        Ok(partition_of_key(stream, self.client.partition_count(&self.topic).await?))
    }

    /// Appends all of `events` to a stream, or, where its last record is not the expected one, none: then it fails with
    /// [`Error::Conflict`]. An attempt whose answer was lost is made again and not written twice.
    pub async fn append_if(
        &self,
        stream: impl AsRef<[u8]>,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let stream = stream.as_ref();
        let partition = self.partition(stream).await?;
        let asked = pb::AppendIfRequest {
            topic: self.topic.to_string(),
            partition: Some(partition),
            key: Bytes::copy_from_slice(stream),
            expected: Some(expected.into()),
            records: events.into_iter().map(Into::into).collect(),
            append_id: Bytes::copy_from_slice(&random_id()),
            timeout_ms: u32::try_from(self.client.request_timeout().as_millis()).unwrap_or(u32::MAX),
        };
        let what = "appending to a stream";
        let appended = self.client.ask_leader(what, &self.topic, partition, |peer| {
            let asked = asked.clone();
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.events().append_if(asked)).await
            }
        });
        let appended = appended.await?;
        Ok(Appended {
            partition: appended.partition,
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            durability: appended.durability().into(),
            is_repeat: appended.is_repeat,
        })
    }

    /// All records of a stream, oldest first.
    pub async fn read(&self, stream: impl AsRef<[u8]>) -> Result<Vec<Record>> {
        self.read_stream(stream, ReadStream::forward()).await?.collect().await
    }

    /// The records of a stream as they come: by both directions, from any offset, and on with what is appended.
    pub async fn read_stream(&self, stream: impl AsRef<[u8]>, how: ReadStream) -> Result<EventReader> {
        if how.follow && how.direction == Direction::Backward {
            return Err(Error::Invalid("a stream is followed forward only".to_owned()));
        }
        let partition = self.partition(stream.as_ref()).await?;
        Ok(EventReader::start(self.client.clone(), Arc::clone(&self.topic), partition, stream.as_ref(), how))
    }
}

pub(crate) async fn create_if_missing(client: &Client, topic: NewTopic) -> Result<()> {
    match client.admin().create_topic(topic).await {
        Err(error) if error.code() == Some(floodmark_proto::kafka::ErrorCode::TopicAlreadyExists) => Ok(()),
        made => made.map(|_made| ()),
    }
}
