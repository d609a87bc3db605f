//! A replay into another topic: each record once, with key, value, headers and time as they were, and a header that says where it comes from.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::ids::TopicId;
use tokio::time::{Instant, sleep};

use super::{Progress, Replay, ReplayConfig, Span};
use crate::admin::ConfigResource;
use crate::client::{Client, made_anew};
use crate::error::{Error, Result};
use crate::message::new_id;
use crate::producer::{Delivery, Producer, ProducerConfig, partition_of_key};
use crate::record::{Header, NewRecord, Record};

/// Topic, partition and offset that a copied record comes from, with colons between them.
pub const SOURCE_HEADER: &str = "floodmark-source";
/// Which copy brought it.
pub const COPY_HEADER: &str = "floodmark-copy";

/// Records on their way at most; what they hold is bounded by the producer's buffer.
const UNDER_WAY_MAX: usize = 100_000;
/// What a copy that was killed had under way may still arrive. It has, once nothing came for so long.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// A target that does not stand still for so long has other writers.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// What is copied, and where to.
#[derive(Debug, Clone)]
pub struct CopyConfig {
    /// What.
    pub replay: ReplayConfig,
    /// The topic that it goes to. With as many partitions as the source each record keeps its partition; with others, records with a key go
    /// where the key's hash sends them, those without to the partition of the same number, counted around.
    pub into: String,
    /// Only records with this key.
    pub key: Option<Bytes>,
    /// How it is written; [`ProducerConfig::are_copies`] is set whatever it says.
    pub producer: ProducerConfig,
}

/// How far a copy is, for whoever goes on with it. To be kept where a crash does not take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPoint {
    /// Names the copy.
    pub id: String,
    /// What is not known to be copied.
    pub left: Vec<Span>,
    /// For each partition of the target: nothing that is left lies before this offset.
    pub target: Vec<i64>,
    /// Which topic of its name the source was. None is not checked.
    pub source_id: Option<TopicId>,
    /// Which topic of its name the target was. None is not checked.
    pub target_id: Option<TopicId>,
}

/// A copy under way.
#[derive(Debug)]
pub struct Copy {
    client: Client,
    replay: Replay,
    into: String,
    into_id: Option<TopicId>,
    partitions: i32,
    keeps_partitions: bool,
    key: Option<Bytes>,
    producer: Producer,
    /// Read, and not taken by the producer yet.
    in_hand: Option<Record>,
    under_way: VecDeque<Delivery>,
    /// By partition and offset of the source: copied after the point that this one goes on from.
    copied: HashSet<(i32, i64)>,
    /// For each partition of the target, where that was looked for from.
    floor: Vec<i64>,
    id: String,
    records: u64,
}

impl Client {
    /// Begins a copy. Its first [`Copy::point`] is what it can be resumed from, so keep one before the first record.
    pub async fn copy(&self, config: CopyConfig) -> Result<Copy> {
        let replay = self.replay(config.replay.clone()).await?;
        Copy::begin(self, config, replay).await
    }

    /// The same for spans of the caller's choice.
    pub async fn copy_spans(&self, mut config: CopyConfig, spans: Vec<Span>) -> Result<Copy> {
        if config.replay.topic_id.is_none() {
            config.replay.topic_id = self.topic_id(&config.replay.topic).await?;
        }
        let replay = self.replay_spans(config.replay.clone(), spans)?;
        Copy::begin(self, config, replay).await
    }

    /// Goes on with a copy that was stopped at any moment after `point` was taken. What was copied since is found in the target, and not copied
    /// again. Fails with [`Error::MadeAnew`] where one of the topics is another by now.
    pub async fn resume_copy(&self, mut config: CopyConfig, point: CopyPoint) -> Result<Copy> {
        let found = self.topic_id(&config.replay.topic).await?;
        made_anew(&config.replay.topic, point.source_id, found)?;
        config.replay.topic_id = found;
        let replay = self.replay_spans(config.replay.clone(), point.left)?;
        let mut copy = Copy::new(self, config, replay, point.id).await?;
        made_anew(&copy.into, point.target_id, copy.into_id)?;
        if i32::try_from(point.target.len()) != Ok(copy.partitions) {
            return Err(Error::Invalid(format!(
                "{} has {} partitions and had {} when the copy was stopped: a copy cannot go on then",
                copy.into,
                copy.partitions,
                point.target.len()
            )));
        }
        copy.find_copied(&point.target).await?;
        copy.floor = point.target;
        Ok(copy)
    }
}

impl Copy {
    async fn begin(client: &Client, config: CopyConfig, replay: Replay) -> Result<Copy> {
        let mut copy = Copy::new(client, config, replay, new_id()).await?;
        copy.floor = copy.ends().await?;
        Ok(copy)
    }

    async fn new(client: &Client, config: CopyConfig, replay: Replay, id: String) -> Result<Copy> {
        if config.into == config.replay.topic {
            return Err(Error::Invalid(format!("{} cannot be copied into itself", config.into)));
        }
        let into_id = client.topic_id(&config.into).await?;
        keeps_times(client, &config.into).await?;
        let partitions = client.partition_count(&config.into).await?;
        let keeps_partitions = partitions == client.partition_count(&config.replay.topic).await?;
        Ok(Copy {
            client: client.clone(),
            replay,
            into: config.into,
            into_id,
            partitions,
            keeps_partitions,
            key: config.key,
            producer: client.producer(ProducerConfig { are_copies: true, ..config.producer })?,
            in_hand: None,
            under_way: VecDeque::new(),
            copied: HashSet::new(),
            floor: Vec::new(),
            id,
            records: 0,
        })
    }

    /// Reads what lies in the target from `from` on.
    async fn find_copied(&mut self, from: &[i64]) -> Result<()> {
        let ends = self.settled_ends().await?;
        if let Some((partition, (end, from))) =
            (0_i32..).zip(ends.iter().zip(from)).find(|(_partition, (end, from))| end < from)
        {
            return Err(Error::Invalid(format!(
                "{}-{partition} ends at {end} and held {from} when the copy was stopped: what was copied is gone, so begin anew",
                self.into
            )));
        }
        let spans = (0..).zip(from.iter().zip(&ends)).map(|(partition, (from, to))| Span {
            partition,
            from: *from,
            to: *to,
        });
        let mut tail = self.client.replay_spans(ReplayConfig::of(self.into.as_str()), spans.collect())?;
        while let Some(record) = tail.next().await? {
            if record.header_str(COPY_HEADER) == Some(&self.id) {
                let source = record.header_str(SOURCE_HEADER).and_then(parse);
                // What lies before the point is not met again, and would be held for good.
                let is_left = |(partition, offset): &(i32, i64)| {
                    let holds =
                        |span: &Span| span.partition == *partition && (span.from..span.to).contains(offset);
                    self.replay.spans().iter().any(holds)
                };
                self.copied.extend(source.filter(is_left));
            }
        }
        Ok(())
    }

    /// Where the target ends once whatever was under way has arrived: it stands still, and all that is written is committed, which a disk or
    /// a replica that is slow can hold up for long. Where others write to it, it never stands still; then what is written by the end of the
    /// wait has to be committed.
    async fn settled_ends(&self) -> Result<Vec<i64>> {
        let limit = self.client.config().operation_timeout;
        let began = Instant::now();
        let mut written = self.written_and_committed().await?.0;
        let mut is_settled = false;
        loop {
            sleep(SETTLED_AFTER).await;
            let (now, committed) = self.written_and_committed().await?;
            if !is_settled {
                is_settled = now == written || began.elapsed() >= SETTLED_WITHIN;
                written = now;
            }
            if is_settled && written.iter().zip(&committed).all(|(written, committed)| committed >= written) {
                return Ok(written);
            }
            if began.elapsed() >= limit {
                let what = "waiting until what a copy had written is committed";
                return Err(Error::Deadline { what, limit, last: None });
            }
        }
    }

    /// For each partition of the target.
    async fn written_and_committed(&self) -> Result<(Vec<i64>, Vec<i64>)> {
        let offsets = self.client.admin().topic_offsets(&self.into, None).await?;
        Ok(offsets.iter().map(|offsets| (offsets.end, offsets.high_watermark)).unzip())
    }

    async fn ends(&self) -> Result<Vec<i64>> {
        Ok(self.written_and_committed().await?.1)
    }

    /// Copies the next record, when it is due; false at the end of the range, once everything is acknowledged. Dropped before it is ready, it
    /// loses nothing. After a failure the copy is to be resumed from its last point.
    pub async fn advance(&mut self) -> Result<bool> {
        if self.in_hand.is_none() {
            let (copied, key) = (&self.copied, &self.key);
            let Some(front) = self.replay.front().await? else {
                self.finish().await?;
                return Ok(false);
            };
            // Neither is waited for: who is stopped again and again would else spend all its time on what it had copied before.
            let place = (front.partition, front.offset);
            if copied.contains(&place) || key.as_ref().is_some_and(|key| front.key.as_ref() != Some(key)) {
                self.copied.remove(&place);
                self.replay.pass();
                return Ok(true);
            }
            self.in_hand = self.replay.take_when_due().await?;
        }
        self.send_in_hand().await?;
        Ok(true)
    }

    async fn send_in_hand(&mut self) -> Result<()> {
        while self.under_way.len() >= UNDER_WAY_MAX
            && let Some(oldest) = self.under_way.front_mut()
        {
            oldest.await?;
            self.under_way.pop_front();
        }
        if let Some(record) = &self.in_hand {
            let delivery = self.send(record).await?;
            self.under_way.push_back(delivery);
            self.in_hand = None;
            self.records += 1;
        }
        Ok(())
    }

    async fn send(&self, record: &Record) -> Result<Delivery> {
        let source = format!("{}:{}:{}", record.topic, record.partition, record.offset);
        let mut headers: Vec<(&[u8], Option<&[u8]>)> = record.headers.iter().map(Header::borrowed).collect();
        headers.push((SOURCE_HEADER.as_bytes(), Some(source.as_bytes())));
        headers.push((COPY_HEADER.as_bytes(), Some(self.id.as_bytes())));
        let copied = NewRecord {
            topic: &self.into,
            partition: Some(self.partition_of(record)),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: (record.timestamp_ms >= 0).then_some(record.timestamp_ms),
        };
        self.producer.send(copied).await
    }

    /// Always the same for the same record, so that its copies are in order whoever resumes.
    fn partition_of(&self, record: &Record) -> i32 {
        match &record.key {
            _ if self.keeps_partitions => record.partition,
            Some(key) => partition_of_key(key, self.partitions),
            None => record.partition % self.partitions,
        }
    }

    /// Waits until everything that was read is acknowledged, and says what is left. Fails with [`Error::MadeAnew`] where the target has become another.
    pub async fn point(&mut self) -> Result<CopyPoint> {
        self.send_in_hand().await?;
        self.finish().await?;
        self.client.check_topic_id(&self.into, self.into_id).await?;
        // What was found in the target and is not passed yet has to be found again.
        if self.copied.is_empty() {
            self.floor = self.ends().await?;
        }
        Ok(CopyPoint {
            id: self.id.clone(),
            left: self.replay.left(),
            target: self.floor.clone(),
            source_id: self.replay.topic_id(),
            target_id: self.into_id,
        })
    }

    async fn finish(&mut self) -> Result<()> {
        self.producer.flush().await?;
        while let Some(delivery) = self.under_way.front_mut() {
            delivery.await?;
            self.under_way.pop_front();
        }
        Ok(())
    }

    /// How far it is; records that were there already are not counted.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { records: self.records, ..self.replay.progress() }
    }
}

/// Fails where the broker would put its own time on the records.
async fn keeps_times(client: &Client, into: &str) -> Result<()> {
    const SETTING: &str = "message.timestamp.type";
    let settings = client.admin().settings(ConfigResource::Topic(into.to_owned()), &[SETTING]).await?;
    if settings.iter().any(|setting| setting.name == SETTING && setting.value == "LogAppendTime") {
        return Err(Error::Invalid(format!(
            "{into} has {SETTING}=LogAppendTime, so the times of what is copied would be lost: set it to CreateTime while the copy runs, or copy into a topic that has that"
        )));
    }
    Ok(())
}

fn parse(source: &str) -> Option<(i32, i64)> {
    let mut parts = source.rsplitn(3, ':');
    let offset = parts.next()?.parse().ok()?;
    Some((parts.next()?.parse().ok()?, offset))
}
