//! Logs written through storage on the real disk, for tests of the commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::batch::{
    BatchBuilder, CompressionType, EndTransactionMarker, NewRecord, RecordBatch, TransactionResult,
};
use floodmark_proto::ids::{LeaderEpoch, ProducerId, TopicId};
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::data_dir::{DataDir, PartitionName, lock};
use floodmark_storage::fs::RealDisk;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{CompactionConfig, LogConfig, TailBudget};

/// Milliseconds since the epoch at which the first record is written.
pub(crate) const FIRST_MS: i64 = 1_700_000_000_000;
const TOPIC_ID: &str = "ASNFZ4mrze_-3LqYdlQyEA";

pub(crate) fn context() -> LogContext {
    LogContext {
        disk: Arc::new(RealDisk),
        clock: Clock::manual(FIRST_MS),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(0),
    }
}

/// Small segments with dense indexes.
pub(crate) fn config() -> LogConfig {
    LogConfig { segment_bytes: 2_000, index_interval_bytes: 300, prewrite_bytes: 0, ..LogConfig::default() }
}

/// The data directory below `root`.
pub(crate) fn data_dir(root: &Path) -> DataDir {
    DataDir::open(context(), &root.join("data")).unwrap()
}

/// Lets other processes use the directory. A child that another test is starting at this moment has a copy of the lock's handle until
/// it runs its own program.
pub(crate) fn let_go(data: DataDir) {
    let path = data.path().to_owned();
    drop(data);
    for _ in 0..6_000 {
        if lock(&RealDisk, &path).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} stays locked", path.display());
}

/// The log of partition 0 of `topic`, and its directory.
pub(crate) fn open(data: &DataDir, topic: &str) -> (Log, PathBuf) {
    let name = PartitionName::new(topic, 0).unwrap();
    let (log, _) = data.open_partition(&name, TOPIC_ID.parse::<TopicId>().unwrap(), config()).unwrap();
    let dir = data.partition_path(&name);
    (log, dir)
}

/// Who writes a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) sequence: i32,
    pub(crate) is_transactional: bool,
}

/// What a record should be read as, apart from its offset.
pub(crate) type Content = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

/// Records with every kind of content: text, bytes that are no text, empty, null; headers twice under one name.
pub(crate) fn contents(first: i64, count: i64) -> Vec<Content> {
    let content = |n: i64| {
        let key = match n % 5 {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![0xff, 0, n as u8]),
            _ => Some(format!("key-{}", n % 17).into_bytes()),
        };
        let value = match n % 4 {
            0 => None,
            1 => Some(vec![0xfe; 5]),
            _ => Some(format!("value {n} \u{fc}nd mehr {}", "ab".repeat(n as usize % 20)).into_bytes()),
        };
        let headers = (0..n % 3).map(|h| ("twice".to_owned(), (h == 0).then(|| vec![n as u8])));
        (FIRST_MS + n * 10, key, value, headers.collect())
    };
    (first..first + count).map(content).collect()
}

pub(crate) fn batch(contents: &[Content], codec: CompressionType, producer: Option<Producer>) -> RecordBatch {
    let mut builder = BatchBuilder::new().compression(codec, None);
    if let Some(producer) = producer {
        builder = builder
            .producer(ProducerId(producer.id), 0, producer.sequence)
            .transactional(producer.is_transactional);
    }
    for (timestamp, key, value, headers) in contents {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
        let record = NewRecord {
            timestamp: *timestamp,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn append(log: &mut Log, batch: RecordBatch, origin: Origin) {
    let append_as = AppendAs::Leader { epoch: LeaderEpoch(3), origin };
    let outcomes = log.append([batch], append_as).unwrap();
    outcomes[0].as_ref().unwrap();
}

pub(crate) fn marker(producer_id: i64, is_abort: bool) -> RecordBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(producer_id), 0, -1).transactional(true);
    let result = if is_abort { TransactionResult::Abort } else { TransactionResult::Commit };
    builder.push_marker(FIRST_MS, &EndTransactionMarker { result, coordinator_epoch: 1 }).unwrap();
    builder.build().unwrap()
}

/// A log with several segments: every codec, plain, idempotent and transactional batches, aborted and committed transactions.
/// Returns what each offset holds; markers are left out.
pub(crate) fn fill(log: &mut Log) -> Vec<(i64, Content)> {
    let mut written = Vec::new();
    let mut sequence = [0; 2];
    for n in 0..60 {
        let codec = CompressionType::ALL[n as usize % 5];
        let records = contents(n * 7, 1 + n % 6);
        let (who, producer) = match n % 3 {
            0 => (0, None),
            1 => (0, Some(Producer { id: 100, sequence: sequence[0], is_transactional: false })),
            _ => (1, Some(Producer { id: 200, sequence: sequence[1], is_transactional: true })),
        };
        if producer.is_some() {
            sequence[who] += records.len() as i32;
        }
        let base = log.end().0;
        append(log, batch(&records, codec, producer), Origin::Client);
        written.extend((base..).zip(records));
        if n % 9 == 8 {
            append(log, marker(200, n % 18 == 8), Origin::Coordinator);
        }
    }
    written
}

/// Makes one pass of compaction over all but the active segment.
pub(crate) fn compact(log: &mut Log) {
    log.on_high_watermark(log.end());
    let compaction = CompactionConfig { min_dirty_ratio: 0.0, ..CompactionConfig::default() };
    log.set_config(LogConfig { compaction: Some(compaction), ..config() });
    log.checkpoint().unwrap();
    log.compact(CompactWhen::Asked, CompactionControl::new(|_| {})).unwrap().unwrap();
}

/// RFC 4648, with padding.
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | ALPHABET.iter().position(|c| *c == character).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
