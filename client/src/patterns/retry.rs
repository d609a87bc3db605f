//! Work that may fail: what failed is tried again after a while, without holding up what comes behind it, and what failed too often is set
//! aside with the reasons.
//!
//! A record that failed goes to the retry topic of its attempt, one for each delay, so that records of one topic become due in their order; a
//! record that failed after the last delay goes to the dead-letter topic. Both keep key, value and headers.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::next_readable;
use crate::admin::OffsetCommit;
use crate::client::Client;
use crate::clock::now_ms;
use crate::consumer::{Commit, Consumer, ConsumerConfig};
use crate::error::Result;
use crate::message::Message;
use crate::producer::Producer;
use crate::record::{Record, TopicPartition};

/// Attempts that a record has behind it.
pub const ATTEMPTS_HEADER: &str = "floodmark-retry-attempts";
/// When it is to be tried again, in milliseconds since 1970.
pub const DUE_HEADER: &str = "floodmark-retry-due-ms";
/// Why it failed; one header for each attempt.
pub const CAUSE_HEADER: &str = "floodmark-retry-cause";
/// Topic, partition and offset where it was first read, with colons between them.
pub const ORIGIN_HEADER: &str = "floodmark-retry-origin";

/// Done records between two commits at most.
const COMMIT_EVERY: usize = 1000;
/// Time between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Where records come from, and where they go when they fail.
#[derive(Debug, Clone)]
pub struct RetryConfig {
    /// The group that shares the work.
    pub group: String,
    /// The topic with the work.
    pub topic: String,
    /// For each further attempt: the topic where it waits, and how long.
    pub retries: Vec<(String, Duration)>,
    /// Where records go that have failed after the last delay.
    pub dead_letters: String,
}

impl RetryConfig {
    /// Topics named after `topic`: `.retry-1` and so on for each delay, and `.dead`.
    #[must_use]
    pub fn new(
        group: impl Into<String>,
        topic: impl Into<String>,
        delays: impl IntoIterator<Item = Duration>,
    ) -> RetryConfig {
        let topic = topic.into();
        let retry = |(n, delay)| (format!("{topic}.retry-{n}"), delay);
        RetryConfig {
            group: group.into(),
            retries: (1..).zip(delays).map(retry).collect::<Vec<(String, Duration)>>(),
            dead_letters: format!("{topic}.dead"),
            topic,
        }
    }

    /// All topics that have to be there.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let retries = self.retries.iter().map(|(topic, _)| topic.as_str());
        [self.topic.as_str(), self.dead_letters.as_str()].into_iter().chain(retries)
    }
}

/// Hands out work. Each record is handed out **at least once**, until it is [`RetryQueue::done`] or has [`RetryQueue::failed`] for good.
#[derive(Debug)]
pub struct RetryQueue {
    config: RetryConfig,
    consumer: Consumer,
    producer: Producer,
    /// Records of retry topics that are not due; their partitions are paused.
    waiting: HashMap<TopicPartition, Waiting>,
    /// What is done and not committed.
    done: HashMap<TopicPartition, i64>,
    done_count: usize,
    commit_at: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    record: Record,
}

/// A record to be worked on, and its history.
#[derive(Debug)]
#[must_use = "a record that is neither done nor failed is handed out again after a restart"]
pub struct Attempt {
    /// The record.
    pub record: Record,
    /// Attempts behind it.
    pub failures: u32,
}

impl RetryQueue {
    /// Joins the group. The topics have to be there.
    pub async fn open(client: &Client, producer: Producer, config: RetryConfig) -> Result<RetryQueue> {
        let retries = config.retries.iter().map(|(topic, _)| topic.as_str());
        let topics: Vec<&str> = std::iter::once(config.topic.as_str()).chain(retries).collect();
        let mut consuming = ConsumerConfig::group(config.group.as_str(), topics).from_start();
        consuming.commit = Commit::Manual;
        let consumer = client.consumer(consuming).await?;
        let (waiting, done) = (HashMap::new(), HashMap::new());
        Ok(RetryQueue { config, consumer, producer, waiting, done, done_count: 0, commit_at: None })
    }

    /// The next record that is due. Dropped before it is ready, it loses nothing.
    pub async fn recv(&mut self) -> Result<Attempt> {
        loop {
            let due = self.waiting.iter().min_by_key(|(_, waiting)| waiting.due);
            let (at, due) =
                due.map_or((None, Instant::now()), |(at, waiting)| (Some(at.clone()), waiting.due));
            let commit_at = self.commit_at.unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(due), if at.is_some() => {
                    if let Some(attempt) = at.and_then(|at| self.take_due(&at)) {
                        return Ok(attempt);
                    }
                }
                () = sleep_until(commit_at), if self.commit_at.is_some() => self.commit().await?,
                record = next_readable(&mut self.consumer) => {
                    if let Some(attempt) = self.take(record?) {
                        return Ok(attempt);
                    }
                }
            }
        }
    }

    /// None where it is not due yet: then its partition waits with it.
    fn take(&mut self, record: Record) -> Option<Attempt> {
        let wait = Duration::from_millis(u64::try_from(number(&record, DUE_HEADER) - now_ms()).unwrap_or(0));
        if *record.topic == *self.config.topic || wait.is_zero() {
            return Some(attempt(record));
        }
        let at = record.topic_partition();
        self.consumer.handle().pause(std::slice::from_ref(&at));
        self.waiting.insert(at, Waiting { due: Instant::now() + wait, record });
        None
    }

    fn take_due(&mut self, at: &TopicPartition) -> Option<Attempt> {
        let waiting = self.waiting.remove(at)?;
        let handle = self.consumer.handle();
        handle.resume(std::slice::from_ref(at));
        // Where another member reads the partition by now, it has the record too.
        let is_ours = handle.position(at) == Some(waiting.record.offset + 1);
        is_ours.then(|| attempt(waiting.record))
    }

    /// The work is done.
    pub async fn done(&mut self, attempt: Attempt) -> Result<()> {
        self.done.insert(attempt.record.topic_partition(), attempt.record.offset + 1);
        self.done_count += 1;
        self.commit_at.get_or_insert_with(|| Instant::now() + COMMIT_INTERVAL);
        if self.done_count >= COMMIT_EVERY { self.commit().await } else { Ok(()) }
    }

    /// The work has failed. Returns once the record lies in its next topic: true where it will be tried again.
    pub async fn failed(&mut self, attempt: Attempt, cause: &str) -> Result<bool> {
        let next = self.config.next(&attempt, cause, now_ms());
        let is_tried_again = *next.topic != *self.config.dead_letters;
        next.send(&self.producer).await?.await?;
        self.done(attempt).await?;
        Ok(is_tried_again)
    }

    /// Commits what is done and leaves the group.
    pub async fn close(mut self) -> Result<()> {
        self.commit().await?;
        self.consumer.close().await
    }

    async fn commit(&mut self) -> Result<()> {
        let commit = |(partition, offset): (&TopicPartition, &i64)| OffsetCommit {
            partition: partition.clone(),
            offset: *offset,
            leader_epoch: None,
            metadata: String::new(),
        };
        let assigned = self.consumer.handle().assignment();
        self.done.retain(|partition, _| assigned.contains(partition));
        let offsets: Vec<OffsetCommit> = self.done.iter().map(commit).collect();
        self.consumer.handle().commit_offsets(&offsets).await?;
        self.done.clear();
        self.done_count = 0;
        self.commit_at = None;
        Ok(())
    }
}

impl RetryConfig {
    /// The record as it goes on after a failure.
    fn next(&self, attempt: &Attempt, cause: &str, now_ms: i64) -> Message {
        let record = &attempt.record;
        let retry = self.retries.get(attempt.failures as usize);
        let topic = retry.map_or(&self.dead_letters, |(topic, _)| topic);
        let mut next = Message::forward(record, topic.as_str())
            .set(ATTEMPTS_HEADER, (attempt.failures + 1).to_string())
            .header(CAUSE_HEADER, cause.to_owned());
        next.headers.retain(|header| header.name != DUE_HEADER);
        if let Some((_, delay)) = retry {
            let due_ms = now_ms.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
            next = next.header(DUE_HEADER, due_ms.to_string());
        }
        if record.header(ORIGIN_HEADER).is_none() {
            next = next
                .header(ORIGIN_HEADER, format!("{}:{}:{}", record.topic, record.partition, record.offset));
        }
        next
    }
}

fn attempt(record: Record) -> Attempt {
    Attempt { failures: u32::try_from(number(&record, ATTEMPTS_HEADER)).unwrap_or(0), record }
}

/// Zero where there is none.
fn number(record: &Record, name: &str) -> i64 {
    record.header_str(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_record_goes_from_topic_to_topic_and_keeps_its_history() {
        let delays = [Duration::from_secs(1), Duration::from_secs(60)];
        let config = RetryConfig::new("g", "work", delays);
        assert_eq!(
            config.topics().collect::<Vec<_>>(),
            ["work", "work.dead", "work.retry-1", "work.retry-2"]
        );
        let mut record = Record {
            topic: "work".into(),
            partition: 2,
            offset: 7,
            timestamp_ms: 5,
            key: Some("k".into()),
            value: None,
            headers: vec![crate::record::Header::new("own", "x")],
        };
        let mut seen = Vec::new();
        for cause in ["first", "second", "third"] {
            let next = config.next(&attempt(record.clone()), cause, 1000);
            seen.push((next.topic.to_string(), next.header_str(DUE_HEADER).map(str::to_owned)));
            assert_eq!((next.key.as_deref(), next.timestamp_ms), (Some(&b"k"[..]), Some(5)));
            record = Record {
                topic: Arc::clone(&next.topic),
                partition: 0,
                offset: 0,
                headers: next.headers,
                ..record
            };
        }
        let due = |ms: &str| Some(ms.to_owned());
        let topic = |name: &str| name.to_owned();
        assert_eq!(
            seen,
            [
                (topic("work.retry-1"), due("2000")),
                (topic("work.retry-2"), due("61000")),
                (topic("work.dead"), None)
            ]
        );
        let causes: Vec<_> = record.headers.iter().filter(|h| h.name == CAUSE_HEADER).collect();
        assert_eq!(causes.len(), 3);
        assert_eq!(record.header_str(ORIGIN_HEADER), Some("work:2:7"));
        assert_eq!((record.header_str(ATTEMPTS_HEADER), record.header_str("own")), (Some("3"), Some("x")));
    }
}
