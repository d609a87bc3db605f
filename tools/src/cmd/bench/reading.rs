//! Readers of a run.

use std::time::Duration;

use floodmark_client::{Begin, Client, Consumer, ConsumerConfig, TopicPartition};
use tokio::time::{Instant, timeout_at};

use super::figures::Latencies;
use super::pace::Schedule;

/// For records that are still on their way when the last one has been written.
const GRACE: Duration = Duration::from_secs(10);

/// What one reader saw of a run.
pub(super) struct Seen {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) latencies: Latencies,
    /// When the last one came.
    pub(super) last: Instant,
}

/// A reader of all partitions, from where they end now on. Records that are written after this returned are read.
pub(super) async fn at_the_end(client: &Client, topic: &str) -> anyhow::Result<Consumer> {
    let partitions = client.partition_count(topic).await?;
    let consumer = client.consumer(ConsumerConfig::assigned()).await?;
    let parts: Vec<(TopicPartition, Begin)> =
        (0..partitions).map(|partition| (TopicPartition::new(topic, partition), Begin::End)).collect();
    consumer.assign(&parts).await?;
    Ok(consumer)
}

/// Reads the records of a run until all have come, or none comes any more after the last one was due.
pub(super) async fn read_all(mut consumer: Consumer, schedule: Schedule) -> anyhow::Result<Seen> {
    let give_up = schedule.due(schedule.records) + GRACE;
    let mut seen = Seen { records: 0, bytes: 0, latencies: Latencies::new()?, last: schedule.start };
    while seen.records < schedule.records {
        // What has come by then is the outcome, and what has not is told as lost.
        let Ok(records) = timeout_at(give_up, consumer.recv_batch()).await else { break };
        let now = Instant::now();
        for record in records? {
            let value = record.value.unwrap_or_default();
            // Another program may write to a topic that is there.
            if let Some(number) = schedule.number(&value) {
                seen.latencies.add(now.saturating_duration_since(schedule.due(number)));
                seen.records += 1;
                seen.bytes += value.len() as u64;
                seen.last = now;
            }
        }
    }
    consumer.close().await?;
    Ok(seen)
}
