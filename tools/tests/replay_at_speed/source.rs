//! The topic that is copied: records whose every part follows from their number, written at speeds that change.

use floodmark_client::admin::NewTopic;
use floodmark_client::{Client, NewRecord, ProducerConfig, partition_of_key};
use std::time::Duration;

pub(crate) const PARTITIONS: i32 = 4;
const KEYS: u64 = 1000;
const FIRST_MS: i64 = 1_700_000_000_000;
const VALUE_BYTES: usize = 100;
/// How many times it goes faster and slower.
const WAVES: f64 = 5.0;
/// By how much, of its mean speed.
const SWELL: f64 = 0.4;
/// Writers' clocks differ: a record may be up to so much older than the one before it.
const DISORDER_MS: u64 = 20;

/// So many records, written over so long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) records: u64,
    pub(crate) span_ms: u64,
}

/// Names and values of headers.
pub(crate) type Headers = Vec<(&'static str, Option<Vec<u8>>)>;

pub(crate) fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

/// Which partition each record is in, by its number.
pub(crate) fn partitions() -> Vec<i32> {
    (0..KEYS).map(|number| partition_of_key(key(number).as_bytes(), PARTITIONS)).collect()
}

pub(crate) fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [(number % 251) as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// One name twice, and a header without a value, where they can be told from what a copy adds.
pub(crate) fn headers(number: u64) -> Headers {
    match number % 16 {
        0 => vec![("h", Some(vec![1])), ("h", None), ("g", Some(Vec::new()))],
        1 => Vec::new(),
        other => vec![("h", Some(vec![other as u8]))],
    }
}

impl Source {
    pub(crate) fn timestamp_ms(&self, number: u64) -> i64 {
        let part = number as f64 / self.records as f64;
        let turn = std::f64::consts::TAU * WAVES;
        let at = part + SWELL * (turn * part).sin() / turn;
        FIRST_MS + (at * self.span_ms as f64) as i64 - (number * 7 % (DISORDER_MS + 1)) as i64
    }

    /// From the first record to the newest.
    pub(crate) fn span(&self) -> Duration {
        // Only the last few can be the newest.
        let newest = (self.records.saturating_sub(1000)..self.records).map(|n| self.timestamp_ms(n)).max();
        let span = newest.unwrap_or(FIRST_MS) - self.timestamp_ms(0);
        Duration::from_millis(span.unsigned_abs())
    }

    /// Writes it.
    pub(crate) async fn write(&self, client: &Client, topic: &str) {
        client.admin().create_topic(NewTopic::new(topic).partitions(PARTITIONS)).await.unwrap();
        let producer = client.producer(ProducerConfig::default()).unwrap();
        for number in 0..self.records {
            let (key, value, headers) = (key(number), value(number), headers(number));
            let headers: Vec<(&[u8], Option<&[u8]>)> =
                headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
            let record = NewRecord::to(topic).key(&key).value(&value).headers(&headers);
            // What went wrong is told when it closes.
            drop(producer.send(record.timestamp_ms(self.timestamp_ms(number))).await.unwrap());
        }
        producer.close().await.unwrap();
    }
}
