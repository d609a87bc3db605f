//! Whether a copy has each record of the source once, as it was, and in the order of its partition.

use std::time::Duration;

use floodmark_client::replay::{COPY_HEADER, SOURCE_HEADER};
use floodmark_client::{Begin, Client, ConsumerConfig, Record};
use tokio::time::timeout;

use crate::source::{self, Source};
use crate::{FROM, INTO};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the next record of each partition has to be.
struct Expected<'a> {
    source: &'a Source,
    partitions: Vec<i32>,
    /// By partition: the number of the next record, and its offset in the source.
    next: Vec<(u64, i64)>,
    /// Which copy the first record came with: one that was killed goes on under its name.
    copy: Option<String>,
}

impl<'a> Expected<'a> {
    fn of(source: &'a Source) -> Expected<'a> {
        let partitions = source::partitions();
        let first = |partition| {
            let number = partitions.iter().position(|of_number| *of_number == partition);
            (number.map_or(u64::MAX, |number| number as u64), 0)
        };
        let next = (0..source::PARTITIONS).map(first).collect();
        Expected { source, partitions, next, copy: None }
    }

    /// By partition, how many there are.
    fn counts(&self) -> Vec<i64> {
        let mut counts = vec![0; self.next.len()];
        for number in 0..self.source.records {
            counts[self.partition_of(number) as usize] += 1;
        }
        counts
    }

    fn partition_of(&self, number: u64) -> i32 {
        self.partitions[(number % self.partitions.len() as u64) as usize]
    }

    /// What is wrong with this one as the next of its partition.
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let (number, offset) = self.next[record.partition as usize];
        let place = format!("{}-{}", record.partition, record.offset);
        let is = |what: &str, holds: bool| {
            if holds {
                Ok(())
            } else {
                Err(format!("{place}: {what}, where record {number} is due: {record:?}"))
            }
        };
        is("none is due", number < self.source.records)?;
        is("the offset", record.offset == offset)?;
        is("the value", record.value.as_deref() == Some(&source::value(number)[..]))?;
        is("the key", record.key.as_deref() == Some(source::key(number).as_bytes()))?;
        is("the time", record.timestamp_ms == self.source.timestamp_ms(number))?;
        let from = format!("{FROM}:{}:{offset}", record.partition);
        is("where it comes from", record.header_str(SOURCE_HEADER) == Some(from.as_str()))?;
        let copy = record.header_str(COPY_HEADER).map(str::to_owned);
        is("its copy", copy.is_some() && (self.copy.is_none() || self.copy == copy))?;
        self.copy = copy;
        let is_own = |name: &str| name == SOURCE_HEADER || name == COPY_HEADER;
        let kept = record.headers.iter().filter(|header| !is_own(&header.name));
        let kept: source::Headers =
            kept.map(|header| (name(&header.name), header.value.as_ref().map(|v| v.to_vec()))).collect();
        is("its headers", kept == source::headers(number))?;
        let of_partition = |number: &u64| self.partition_of(*number) == record.partition;
        let following = (number + 1..self.source.records).find(of_partition);
        self.next[record.partition as usize] = (following.unwrap_or(u64::MAX), offset + 1);
        Ok(())
    }

    /// Whether each partition has had its last.
    fn is_complete(&self) -> bool {
        self.next.iter().all(|(number, _)| *number >= self.source.records)
    }
}

/// The names that there are in the source.
fn name(name: &str) -> &'static str {
    ["h", "g"].into_iter().find(|known| *known == name).unwrap_or("another")
}

/// Reads it all; panics at the first record that is wrong.
pub(crate) async fn check(client: &Client, topic: &str, source: &Source) {
    let mut expected = Expected::of(source);
    let offsets = client.admin().topic_offsets(topic, None).await.unwrap();
    let ends: Vec<i64> = offsets.iter().map(|offsets| offsets.end).collect();
    assert_eq!(ends, expected.counts(), "records by partition");
    let mut consumer = client.consumer(ConsumerConfig::assigned()).await.unwrap();
    consumer.assign_topic(topic, Begin::Start).await.unwrap();
    while !expected.is_complete() {
        for record in timeout(PATIENCE, consumer.recv_batch()).await.unwrap().unwrap() {
            expected.take(&record).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
}

#[test]
fn each_way_in_which_a_copy_can_be_wrong_is_found() {
    use floodmark_client::Header;

    let source = Source { records: 3000, span_ms: 1000 };
    let partitions = source::partitions();
    let mut offsets = vec![0; source::PARTITIONS as usize];
    let copied: Vec<Record> = (0..source.records)
        .map(|number| {
            let partition = partitions[(number % partitions.len() as u64) as usize];
            let offset = offsets[partition as usize];
            offsets[partition as usize] += 1;
            let own = |(name, value): (&str, Option<Vec<u8>>)| Header::of(name, value.map(Into::into));
            let mut headers: Vec<Header> = source::headers(number).into_iter().map(own).collect();
            headers.push(Header::new(SOURCE_HEADER, format!("{FROM}:{partition}:{offset}")));
            headers.push(Header::new(COPY_HEADER, "one"));
            Record {
                topic: INTO.into(),
                partition,
                offset,
                timestamp_ms: source.timestamp_ms(number),
                key: Some(source::key(number).into()),
                value: Some(source::value(number).to_vec().into()),
                headers,
            }
        })
        .collect();
    let verdict = |records: &[Record]| {
        let mut expected = Expected::of(&source);
        for record in records {
            expected.take(record)?;
        }
        if expected.is_complete() { Ok(()) } else { Err("something is missing".to_owned()) }
    };
    assert_eq!(verdict(&copied), Ok(()));
    assert_eq!(Expected::of(&source).counts(), offsets);
    let of_zero: Vec<usize> = (0..copied.len()).filter(|at| copied[*at].partition == 0).collect();
    let (at, after) = (of_zero[10], of_zero[11]);
    type Breaks = fn(&mut Vec<Record>, usize, usize);
    let breaks: [(&str, Breaks); 10] = [
        ("lost in the middle", |records, at, _| {
            records.remove(at);
        }),
        ("the end is missing", |records, _, _| {
            records.pop();
        }),
        ("written twice", |records, at, _| {
            let mut again = records[at].clone();
            again.offset += 1;
            records.insert(at + 1, again);
        }),
        ("out of order", |records, at, after| {
            let offset = records[at].offset;
            records.swap(at, after);
            (records[at].offset, records[after].offset) = (offset, offset + 1);
        }),
        ("another value", |records, at, _| records[at].value = Some(vec![1].into())),
        ("no key", |records, at, _| records[at].key = None),
        ("another time", |records, at, _| records[at].timestamp_ms += 1),
        ("a header less", |records, at, _| {
            records[at].headers.pop();
        }),
        ("of two copies", |records, at, _| {
            records[at].headers.pop();
            records[at].headers.push(Header::new(COPY_HEADER, "two"));
        }),
        ("a header more", |records, at, _| records[at].headers.push(Header::new("x", "y"))),
    ];
    for (what, breaks) in breaks {
        let mut records = copied.clone();
        breaks(&mut records, at, after);
        assert!(verdict(&records).is_err(), "{what}");
    }
}
