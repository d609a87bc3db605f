//! Reads a range of a topic again: bounded, at a chosen speed, in an order that is the same each time, and without touching what any group
//! has committed.
//!
//! - this file: [`Replay`], which gives out records one after the other
//! - `lane` reads one partition, `merge` puts partitions in one order, `pace` says when a record is due
//! - `copy`: into another topic, each record once, also where the copy is stopped and resumed

mod copy;
mod lane;
mod merge;
mod pace;

use std::time::Duration;

use floodmark_proto::ids::TopicId;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep};

pub use copy::{COPY_HEADER, Copy, CopyConfig, CopyPoint, SOURCE_HEADER};
pub use pace::{NoRate, Rate};

use crate::client::{Client, made_anew};
use crate::consumer::{Begin, Isolation};
use crate::error::{Error, Result};
use crate::record::{Record, TopicPartition};
use lane::Lane;
use merge::Merge;
use pace::Pace;

/// What is read again, and how.
///
/// ```no_run
/// # async fn example() -> floodmark_client::Result<()> {
/// use floodmark_client::replay::{Rate, ReplayConfig};
/// use floodmark_client::Client;
///
/// let client = Client::connect("127.0.0.1:9093").await?;
/// let mut replay = client.replay(ReplayConfig { rate: Rate::TimesOriginal(10.0), ..ReplayConfig::of("orders") }).await?;
/// while let Some(record) = replay.next().await? {
///     println!("{}@{}", record.partition, record.offset);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayConfig {
    /// The topic.
    pub topic: String,
    /// Which of the topics that had this name, one after the other. Reading another fails with [`Error::MadeAnew`], also where it comes about
    /// while the replay runs. None: the one that is there when [`Client::replay`] is called, or any for [`Client::replay_spans`].
    pub topic_id: Option<TopicId>,
    /// Which partitions; none: all that there are when it begins.
    pub partitions: Option<Vec<i32>>,
    /// The first record. An offset is meant of each partition.
    pub from: Begin,
    /// Where it ends: the first record that is not read. [`Begin::End`] is what is committed when it begins, so it ends.
    pub to: Begin,
    /// Only records for which this expression is true.
    pub filter: Option<String>,
    /// How fast.
    pub rate: Rate,
    /// Which records of transactions are read.
    pub isolation: Isolation,
    /// Bytes that may be sent ahead, for all partitions together.
    pub prefetch_bytes: u64,
    /// Largest batch after decompression.
    pub batch_bytes_max: usize,
}

/// Less than this for a partition makes each message a round trip.
const WINDOW_BYTES_MIN: u64 = 256 << 10;

impl ReplayConfig {
    /// All that is in a topic now, as fast as can be.
    #[must_use]
    pub fn of(topic: impl Into<String>) -> ReplayConfig {
        ReplayConfig {
            topic: topic.into(),
            topic_id: None,
            partitions: None,
            from: Begin::Start,
            to: Begin::End,
            filter: None,
            rate: Rate::Maximum,
            isolation: Isolation::Uncommitted,
            prefetch_bytes: 32 << 20,
            batch_bytes_max: 64 << 20,
        }
    }
}

/// A partition's part of a replay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// First offset that is read.
    pub from: i64,
    /// First offset that is not.
    pub to: i64,
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Records given out.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Offsets passed, of `offsets`: filtered ones and gaps count too.
    pub offsets_done: u64,
    /// Offsets in all spans.
    pub offsets: u64,
    /// Since the first record was asked for.
    pub elapsed: Duration,
}

impl Progress {
    /// Time left at the speed so far; none before anything is done.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = self.offsets.saturating_sub(self.offsets_done) as f64;
        let speed = self.offsets_done as f64 / self.elapsed.as_secs_f64();
        (speed > 0.0).then(|| Duration::try_from_secs_f64(left / speed).unwrap_or(Duration::MAX))
    }

    /// Records a second so far.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// A replay under way. It holds no more than its prefetch; dropped, it is over.
///
/// Records of several partitions are merged by their timestamps, and records of one partition never leave their order, so that the same range
/// comes in the same order each time.
#[derive(Debug)]
pub struct Replay {
    client: Client,
    config: ReplayConfig,
    spans: Vec<Span>,
    lanes: Vec<Lane>,
    merge: Merge<Record>,
    pace: Pace,
    started: Option<Instant>,
    /// The topic has been looked at: it is the one that is meant.
    is_checked: bool,
    /// The record that is due was waited for already.
    is_due: bool,
    records: u64,
    bytes: u64,
}

impl Client {
    /// Begins to read a range of a topic again. The range is fixed when this returns.
    pub async fn replay(&self, mut config: ReplayConfig) -> Result<Replay> {
        let found = self.topic_id(&config.topic).await?;
        made_anew(&config.topic, config.topic_id, found)?;
        config.topic_id = config.topic_id.or(found);
        let count = self.partition_count(&config.topic).await?;
        let mut partitions = config.partitions.clone().unwrap_or_else(|| (0..count).collect());
        partitions.sort_unstable();
        partitions.dedup();
        if let Some(missing) = partitions.iter().find(|number| !(0..count).contains(*number)) {
            let reason = format!("{} has no partition {missing}, only 0 to {}", config.topic, count - 1);
            return Err(Error::Invalid(reason));
        }
        let mut spans = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let at = TopicPartition::new(config.topic.as_str(), partition);
            let offsets = self.admin().offsets(&at, None).await?;
            let end = match config.isolation {
                Isolation::Uncommitted => offsets.high_watermark,
                Isolation::Committed => offsets.last_stable,
            };
            let to = self.resolve(&at, config.to, config.isolation).await?.min(end);
            let from = self.resolve(&at, config.from, config.isolation).await?.max(offsets.start);
            spans.push(Span { partition, from, to: to.max(from) });
        }
        Replay::new(self.clone(), config, spans)
    }

    /// Goes on with a replay whose spans are what was left of it: [`Replay::left`] of one that was stopped, with its [`Replay::topic_id`] in the
    /// settings.
    pub fn replay_spans(&self, config: ReplayConfig, spans: Vec<Span>) -> Result<Replay> {
        Replay::new(self.clone(), config, spans)
    }
}

impl Replay {
    fn new(client: Client, config: ReplayConfig, spans: Vec<Span>) -> Result<Replay> {
        let pace = Pace::new(config.rate).map_err(|error| Error::Invalid(error.to_string()))?;
        let window_bytes = (config.prefetch_bytes / spans.len().max(1) as u64).max(WINDOW_BYTES_MIN);
        let lane = |span: &Span| {
            let at = TopicPartition::new(config.topic.as_str(), span.partition);
            Lane::new(&client, at, span.from, span.to, window_bytes)
        };
        Ok(Replay {
            lanes: spans.iter().map(lane).collect(),
            merge: Merge::new(spans.len()),
            pace,
            started: None,
            is_checked: false,
            is_due: false,
            records: 0,
            bytes: 0,
            client,
            config,
            spans,
        })
    }

    /// The next record, when it is due; `None` at the end of the range. Cancelled, it loses nothing.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        self.next_where(|_record| true).await
    }

    /// The next record that is wanted, when it is due; those before it are left out at once, as though they were not there: neither waited for
    /// nor counted. Cancelled, it loses nothing.
    pub async fn next_where(&mut self, mut is_wanted: impl FnMut(&Record) -> bool) -> Result<Option<Record>> {
        while let Some(record) = self.front().await? {
            if is_wanted(record) {
                return self.take_when_due().await;
            }
            self.pass();
            consume_budget().await;
        }
        Ok(None)
    }

    /// The record that is next, due or not.
    async fn front(&mut self) -> Result<Option<&Record>> {
        self.started.get_or_insert_with(Instant::now);
        if !self.is_checked {
            self.client.check_topic_id(&self.config.topic, self.config.topic_id).await?;
            self.is_checked = true;
        }
        while let Some(at) = self.merge.starving() {
            match self.lanes[at].next(&self.client, &self.config).await? {
                Some(records) => {
                    self.merge.feed(at, records.into_iter().map(|record| (record.timestamp_ms, record)))
                }
                None => self.merge.end(at),
            }
        }
        Ok(self.merge.peek().and_then(|(_timestamp_ms, lane)| self.merge.front(lane)))
    }

    /// Leaves out the record that is next.
    fn pass(&mut self) {
        self.merge.take();
        self.is_due = false;
    }

    /// The record that is next.
    async fn take_when_due(&mut self) -> Result<Option<Record>> {
        let Some((timestamp_ms, _)) = self.merge.peek() else { return Ok(None) };
        if !self.is_due {
            let elapsed = self.started.map(|started| started.elapsed()).unwrap_or_default();
            let wait = self.pace.wait(elapsed, self.records, timestamp_ms);
            if !wait.is_zero() {
                sleep(wait).await;
            }
            self.is_due = true;
        }
        let Some((_, record)) = self.merge.take() else { return Ok(None) };
        self.is_due = false;
        self.records += 1;
        let size = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, |part| part.len() as u64);
        self.bytes += size(&record.key) + size(&record.value);
        Ok(Some(record))
    }

    /// What it reads.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Which of the topics that had this name it reads, where that is known.
    #[must_use]
    pub fn topic_id(&self) -> Option<TopicId> {
        self.config.topic_id
    }

    /// What it has not given out yet: a replay of these gives out the rest, and nothing twice.
    #[must_use]
    pub fn left(&self) -> Vec<Span> {
        let left = |(at, span): (usize, &Span)| {
            let position =
                self.merge.front(at).map_or_else(|| self.lanes[at].position(), |record| record.offset);
            Span { from: position.min(span.to), ..span.clone() }
        };
        self.spans.iter().enumerate().map(left).collect()
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let size = |spans: &[Span]| spans.iter().map(|span| (span.to - span.from).unsigned_abs()).sum();
        let offsets = size(&self.spans);
        Progress {
            records: self.records,
            bytes: self.bytes,
            offsets_done: offsets - size(&self.left()),
            offsets,
            elapsed: self.started.map(|started| started.elapsed()).unwrap_or_default(),
        }
    }
}
