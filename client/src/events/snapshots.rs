//! Snapshots: what was folded from a stream up to some offset, in a compacted topic beside it, so that the next fold begins there.

use crate::admin::NewTopic;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::producer::{Producer, ProducerConfig};
use crate::record::NewRecord;

use super::{EventStore, ReadStream, create_if_missing};

/// The offset of the last event in a snapshot, in decimal digits.
const OFFSET_HEADER: &str = "floodmark-snapshot-offset";

/// A compacted topic that holds a snapshot for each stream that has one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshots {
    store: EventStore,
    producer: Producer,
}

impl Snapshots {
    /// In the topic `<topic of the events>-snapshots`, which is made where it is missing.
    pub async fn beside(client: &Client, events: &EventStore) -> Result<Snapshots> {
        let topic = format!("{}-snapshots", events.topic());
        let partitions = client.partition_count(events.topic()).await?;
        let settings = NewTopic::new(topic.as_str())
            .partitions(partitions)
            .setting("cleanup.policy", "compact")
            .setting("floodmark.key.index", "true");
        create_if_missing(client, settings).await?;
        let producer = client.producer(ProducerConfig::default())?;
        Ok(Snapshots { store: EventStore::new(client, topic), producer })
    }

    /// Keeps what was folded from a stream up to and with the event at `last_offset`. Returns once it is kept.
    pub async fn put(&self, stream: &[u8], last_offset: i64, state: &[u8]) -> Result<()> {
        let offset = last_offset.to_string();
        let headers: &[(&[u8], Option<&[u8]>)] = &[(OFFSET_HEADER.as_bytes(), Some(offset.as_bytes()))];
        let record = NewRecord::to(self.store.topic()).key(stream).value(state).headers(headers);
        self.producer.deliver(record).await.map(|_placed| ())
    }

    /// The newest one of a stream: the offset of its last event, and the state.
    pub async fn get(&self, stream: &[u8]) -> Result<Option<(i64, bytes::Bytes)>> {
        let newest = ReadStream::backward().max(1);
        let record = self.store.read_stream(stream, newest).await?.next().await?;
        let Some(record) = record else { return Ok(None) };
        let offset = record.header_str(OFFSET_HEADER).and_then(|digits| digits.parse().ok());
        let offset = offset.ok_or_else(|| {
            Error::Protocol(format!(
                "the record at {} of {} is no snapshot",
                record.offset,
                self.store.topic()
            ))
        })?;
        Ok(record.value.map(|state| (offset, state)))
    }
}
