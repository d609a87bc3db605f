//! A view of a whole topic: everything from the start, then what comes, without a gap, and on from a checkpoint after a restart.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::{NewTopic, OffsetCommit};
use crate::client::Client;
use crate::consumer::{Begin, Consumer, ConsumerConfig};
use crate::error::Result;
use crate::producer::{Producer, ProducerConfig};
use crate::record::{NewRecord, Record, TopicPartition};

use super::create_if_missing;

/// How often it is looked whether everything old has been read.
const CATCH_UP_CHECK: Duration = Duration::from_millis(20);

/// Where a projection keeps how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoints {
    /// As offsets of a group of its name, which the usual tools show as lag.
    Group,
    /// In this compacted topic, which is made where it is missing; several projections may share it.
    Topic(String),
    /// Nowhere: the caller keeps them with the view, and gives them back here. What is not named begins at the start.
    Own(BTreeMap<i32, i64>),
}

/// Settings of a [`Projection`].
#[derive(Debug, Clone)]
pub struct ProjectionConfig {
    /// Its name; another one for each view.
    pub name: String,
    /// What it is a view of.
    pub topic: String,
    /// Where it keeps how far it is.
    pub checkpoints: Checkpoints,
    /// How often that is written down at most.
    pub interval: Duration,
    /// Only records for which this expression is true.
    pub filter: Option<String>,
}

impl ProjectionConfig {
    /// With checkpoints as a group's offsets, every second at most.
    #[must_use]
    pub fn new(name: impl Into<String>, topic: impl Into<String>) -> ProjectionConfig {
        ProjectionConfig {
            name: name.into(),
            topic: topic.into(),
            checkpoints: Checkpoints::Group,
            interval: Duration::from_secs(1),
            filter: None,
        }
    }

    /// With checkpoints elsewhere.
    #[must_use]
    pub fn checkpoints(mut self, checkpoints: Checkpoints) -> ProjectionConfig {
        self.checkpoints = checkpoints;
        self
    }
}

/// What a projection is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The next record of some partition.
    Record(Record),
    /// Everything that was there when it began has been handed out: the view is whole. Told once.
    CaughtUp,
}

/// Feeds a view with every record of a topic, each at least once and in the order of its partition. Several projections of one topic do not
/// know of each other.
///
/// ```no_run
/// # async fn example() -> floodmark_client::Result<()> {
/// use floodmark_client::Client;
/// use floodmark_client::events::{Projection, ProjectionConfig, Update};
///
/// let client = Client::connect("127.0.0.1:9093").await?;
/// let mut projection = Projection::start(&client, ProjectionConfig::new("totals", "orders")).await?;
/// let mut count = 0;
/// loop {
///     match projection.next().await? {
///         Update::Record(_) => count += 1,
///         Update::CaughtUp => println!("{count} orders so far"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Projection {
    client: Client,
    config: ProjectionConfig,
    consumer: Consumer,
    /// High watermarks at the beginning of partitions that are not read so far yet; none once that was told.
    behind: Option<BTreeMap<i32, i64>>,
    /// What was handed out: next offsets by partition.
    handed_out: HashMap<i32, i64>,
    kept: HashMap<i32, i64>,
    kept_at: Instant,
    writer: Option<(Producer, String)>,
}

impl Projection {
    /// Begins at its checkpoint, or, without one, at the start.
    pub async fn start(client: &Client, config: ProjectionConfig) -> Result<Projection> {
        let writer = match &config.checkpoints {
            Checkpoints::Topic(topic) => {
                let settings =
                    NewTopic::new(topic.as_str()).partitions(1).setting("cleanup.policy", "compact");
                create_if_missing(client, settings).await?;
                Some((client.producer(ProducerConfig::default())?, topic.clone()))
            }
            _ => None,
        };
        let known = kept(client, &config).await?;
        let mut behind = BTreeMap::new();
        let mut parts = Vec::new();
        for offsets in client.admin().topic_offsets(&config.topic, None).await? {
            let from = known.get(&offsets.partition).map_or(Begin::Start, |offset| Begin::Offset(*offset));
            parts.push((TopicPartition::new(config.topic.as_str(), offsets.partition), from));
            behind.insert(offsets.partition, offsets.high_watermark);
        }
        let reading =
            ConsumerConfig { filter: config.filter.clone(), ..ConsumerConfig::assigned().from_start() };
        let consumer = client.consumer(reading).await?;
        consumer.assign(&parts).await?;
        Ok(Projection {
            client: client.clone(),
            config,
            consumer,
            behind: Some(behind),
            handed_out: HashMap::new(),
            kept: HashMap::new(),
            kept_at: Instant::now(),
            writer,
        })
    }

    /// Begins at the start, whatever its checkpoint: to build the view anew.
    pub async fn rebuild(client: &Client, config: ProjectionConfig) -> Result<Projection> {
        let own = ProjectionConfig { checkpoints: Checkpoints::Own(BTreeMap::new()), ..config.clone() };
        let from_start = Projection::start(client, own).await?;
        let writer = match &config.checkpoints {
            Checkpoints::Topic(topic) => Some((client.producer(ProducerConfig::default())?, topic.clone())),
            _ => None,
        };
        Ok(Projection { config, writer, ..from_start })
    }

    /// The next record, or that the view is whole. Whoever asks for it is done with the one before; from time to time that is written down.
    pub async fn next(&mut self) -> Result<Update> {
        if self.kept_at.elapsed() >= self.config.interval {
            self.checkpoint().await?;
        }
        loop {
            if self.has_caught_up() {
                self.behind = None;
                return Ok(Update::CaughtUp);
            }
            // Where nothing is left to read, positions move on without a record.
            let check = async {
                match self.behind {
                    Some(_) => sleep(CATCH_UP_CHECK).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                record = self.consumer.recv() => {
                    let record = record?;
                    self.handed_out.insert(record.partition, record.offset + 1);
                    return Ok(Update::Record(record));
                }
                () = check => {}
            }
        }
    }

    fn has_caught_up(&mut self) -> bool {
        let (handle, topic) = (self.consumer.handle(), &self.config.topic);
        let Some(behind) = &mut self.behind else { return false };
        behind.retain(|partition, end| {
            let position = handle.position(&TopicPartition::new(topic.as_str(), *partition));
            position.is_some_and(|position| position < *end)
        });
        behind.is_empty()
    }

    /// Writes down that everything handed out is in the view.
    pub async fn checkpoint(&mut self) -> Result<()> {
        self.kept_at = Instant::now();
        let news: Vec<(i32, i64)> = self
            .handed_out
            .iter()
            .filter(|(partition, offset)| self.kept.get(partition) != Some(offset))
            .map(|(partition, offset)| (*partition, *offset))
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        if let Some((producer, topic)) = &self.writer {
            for (partition, offset) in &news {
                let (key, value) = (key(&self.config, *partition), offset.to_string());
                producer.deliver(NewRecord::to(topic).key(&key).value(&value)).await?;
            }
        } else if self.config.checkpoints == Checkpoints::Group {
            let commit = |(partition, offset): &(i32, i64)| {
                OffsetCommit::new(TopicPartition::new(self.config.topic.as_str(), *partition), *offset)
            };
            let offsets: Vec<OffsetCommit> = news.iter().map(commit).collect();
            let committed = self.client.admin().commit_offsets(&self.config.name, &offsets).await?;
            committed.into_iter().collect::<Result<Vec<()>>>()?;
        }
        self.kept.extend(news);
        Ok(())
    }

    /// What was handed out, as next offsets by partition: for a caller that keeps them with the view.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<i32, i64> {
        self.handed_out.iter().map(|(partition, offset)| (*partition, *offset)).collect()
    }
}

/// Checkpoints of one projection among others in one topic.
fn key(config: &ProjectionConfig, partition: i32) -> String {
    format!("{}/{}/{partition}", config.name, config.topic)
}

async fn kept(client: &Client, config: &ProjectionConfig) -> Result<BTreeMap<i32, i64>> {
    match &config.checkpoints {
        Checkpoints::Own(kept) => Ok(kept.clone()),
        Checkpoints::Group => {
            let committed = client.admin().committed(&config.name, &[]).await?;
            let of_topic = committed.iter().filter(|committed| *committed.partition.topic == *config.topic);
            Ok(of_topic
                .filter_map(|one| one.offset.map(|offset| (one.partition.partition, offset)))
                .collect())
        }
        Checkpoints::Topic(topic) => kept_in(client, config, topic).await,
    }
}

/// The last record of each key counts.
async fn kept_in(client: &Client, config: &ProjectionConfig, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let only = TopicPartition::new(topic, 0);
    let end = client.admin().offsets(&only, None).await?.high_watermark;
    let mut consumer = client.consumer(ConsumerConfig::assigned().from_start()).await?;
    consumer.assign(&[(only.clone(), Begin::Start)]).await?;
    let handle = consumer.handle();
    let mut kept = BTreeMap::new();
    let prefix = format!("{}/{}/", config.name, config.topic);
    while handle.position(&only).is_some_and(|position| position < end) {
        // Offsets at the end may have no records.
        let record = tokio::select! {
            record = consumer.recv() => record?,
            () = sleep(CATCH_UP_CHECK) => continue,
        };
        let text =
            |bytes: Option<bytes::Bytes>| bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let (Some(key), Some(value)) = (text(record.key), text(record.value)) else { continue };
        let partition = key.strip_prefix(&prefix).and_then(|partition| partition.parse().ok());
        if let (Some(partition), Ok(offset)) = (partition, value.parse()) {
            kept.insert(partition, offset);
        }
    }
    Ok(kept)
}
