//! Topics made, extended and removed. Judges a request against the image of the cluster, then proposes one command a topic, and
//! answers once this broker has carried it out. Must never know wire types.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use floodmark_proto::ids::{BrokerId, TopicId};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::cluster::placement::{self, Wanted};
use floodmark_replication::cluster::{self, ClusterImage, Command, Topic, settings};

use super::error::OpError;
use crate::groups::records::OFFSETS_TOPIC;
use crate::shared::Shared;

/// Partitions that one request may make, as in Kafka.
const PARTITIONS_OF_A_REQUEST_MAX: u64 = 10_000;
/// Longest name that a topic can have.
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// The name of the partition that holds Kafka's own metadata; ours lies elsewhere.
const RESERVED_NAME: &str = "__cluster_metadata";
/// How long the cluster is asked for what is newer than the image here.
const FRESH_WITHIN: Duration = Duration::from_secs(1);
/// Replicas where nobody says how many, if there are as many brokers.
const REPLICAS: usize = 3;
/// How many of them must have a record before it is acknowledged.
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// A topic as somebody wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NewTopic<'a> {
    pub(crate) name: &'a str,
    /// `None` for the broker's default.
    pub(crate) partitions: Option<i32>,
    /// `None` for the broker's default.
    pub(crate) replication_factor: Option<i16>,
    /// Replicas by partition, where the client places them itself.
    pub(crate) assignments: Vec<(i32, Vec<i32>)>,
    pub(crate) settings: Vec<(&'a str, Option<&'a str>)>,
}

/// A topic that was made, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreatedTopic {
    pub(crate) id: TopicId,
    pub(crate) partitions: u32,
    pub(crate) replication_factor: usize,
    pub(crate) settings: Vec<(String, String)>,
}

/// A topic by whichever of its names the client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey<'a> {
    Name(&'a str),
    Id(TopicId),
}

/// How many partitions a topic is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MorePartitions<'a> {
    pub(crate) name: &'a str,
    pub(crate) count: i32,
    /// Replicas of each new partition, where the client places them itself.
    pub(crate) assignments: Option<Vec<Vec<i32>>>,
}

/// Makes topics; each by itself. Where `validate_only`, says what would come of it.
pub(crate) async fn create(
    shared: &Shared,
    topics: &[NewTopic<'_>],
    validate_only: bool,
    within: Duration,
) -> Vec<Result<CreatedTopic, OpError>> {
    let doubled = doubled(topics.iter().map(|topic| topic.name));
    let deadline = tokio::time::Instant::now() + within;
    let (mut results, mut made, mut last_version) = (Vec::with_capacity(topics.len()), 0, None);
    for topic in topics {
        let outcome = if doubled.contains(topic.name) {
            Err(OpError::new(
                ErrorCode::InvalidRequest,
                format!("topic '{}' is named more than once", topic.name),
            ))
        } else {
            create_one(shared, topic, validate_only, deadline, &mut made, &mut last_version).await
        };
        results.push(outcome);
    }
    // Partitions are opened beside each other; waiting for the last image waits for all.
    if let Some(version) = last_version {
        let opened = tokio::time::timeout_at(deadline, shared.cluster.registry().reconciled(version)).await;
        if opened.is_err() {
            for result in results.iter_mut().filter(|r| r.is_ok()) {
                *result = Err(timed_out("the topic was created, but its partitions are not open yet"));
            }
        }
    }
    results
}

async fn create_one(
    shared: &Shared,
    topic: &NewTopic<'_>,
    validate_only: bool,
    deadline: tokio::time::Instant,
    made: &mut u64,
    last_version: &mut Option<u64>,
) -> Result<CreatedTopic, OpError> {
    let image = shared.cluster.image();
    let (assignments, settings) =
        plan(&image, topic, &shared.cluster.topic_defaults(), shared.cluster.random().next_u64())?;
    *made += assignments.len() as u64;
    if *made > PARTITIONS_OF_A_REQUEST_MAX {
        let message = format!("one request may make {PARTITIONS_OF_A_REQUEST_MAX} partitions");
        return Err(OpError::new(ErrorCode::PolicyViolation, message));
    }
    let created = CreatedTopic {
        id: new_topic_id(shared, &image),
        partitions: assignments.len() as u32,
        replication_factor: assignments.first().map_or(0, Vec::len),
        settings: settings.clone(),
    };
    let command = Command::CreateTopic { name: topic.name.to_owned(), id: created.id, assignments, settings };
    if validate_only || !topic.assignments.is_empty() {
        try_on(&image, &command)?;
    }
    if validate_only {
        // Nothing is waited for, and thousands may be tried.
        tokio::task::yield_now().await;
        return Ok(created);
    }
    shared.cluster.propose(command, deadline).await?;
    *last_version = Some(shared.cluster.image().version());
    Ok(created)
}

/// What a topic has where its maker does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicDefaults<'a> {
    /// The broker that makes it.
    pub(crate) broker: BrokerId,
    /// `num.partitions`.
    pub(crate) partitions: i32,
    /// `default.replication.factor`; 0 for as many as the cluster has brokers, up to three.
    pub(crate) replication_factor: i16,
    /// Brokers that the cluster was founded with: they count from its first moment on, whether they have come up yet or not.
    pub(crate) voters: usize,
    /// The broker's own defaults for topic settings.
    pub(crate) file: &'a Settings,
}

impl TopicDefaults<'_> {
    fn factor(&self, image: &ClusterImage) -> i16 {
        match self.replication_factor {
            0 => self.voters.max(image.brokers().count()).clamp(1, REPLICAS) as i16,
            factor => factor,
        }
    }

    /// With three replicas and more, an acknowledged record is on two disks at least, unless somebody wants it otherwise.
    fn need_majority(
        &self,
        image: &ClusterImage,
        assignments: &[Vec<BrokerId>],
        settings: &mut Vec<(String, String)>,
    ) {
        let has_enough = assignments.iter().all(|replicas| replicas.len() >= REPLICAS);
        let broker = image.broker_settings(self.broker);
        let is_said = settings.iter().any(|(name, _)| name == MIN_IN_SYNC)
            || image.cluster_settings().contains_key(MIN_IN_SYNC)
            || broker.is_some_and(|settings| settings.contains_key(MIN_IN_SYNC))
            || self.file.contains_key(MIN_IN_SYNC);
        if has_enough && !is_said {
            settings.push((MIN_IN_SYNC.to_owned(), "2".to_owned()));
        }
    }
}

/// The replicas of each partition, and the settings.
type Plan = (Vec<Vec<BrokerId>>, Vec<(String, String)>);

/// What is to be proposed for a new topic. Pure; `start` is any number.
fn plan(
    image: &ClusterImage,
    topic: &NewTopic<'_>,
    defaults: &TopicDefaults<'_>,
    start: u64,
) -> Result<Plan, OpError> {
    if topic.name == RESERVED_NAME {
        return Err(OpError::new(
            ErrorCode::InvalidRequest,
            format!("topic '{RESERVED_NAME}' cannot be created"),
        ));
    }
    check_name(image, topic.name)?;
    let mut settings = Vec::with_capacity(topic.settings.len());
    for (name, value) in &topic.settings {
        let value = value.ok_or_else(|| {
            OpError::new(
                ErrorCode::InvalidConfig,
                format!("null value not supported for topic config {name}"),
            )
        })?;
        settings.push(((*name).to_owned(), value.to_owned()));
    }
    settings::check_all(settings.iter().map(|(n, v)| (n.as_str(), v.as_str())))?;
    if !topic.assignments.is_empty() {
        if topic.partitions.is_some() || topic.replication_factor.is_some() {
            let message =
                "partitions placed by hand need -1 for both their number and the replication factor";
            return Err(OpError::new(ErrorCode::InvalidRequest, message));
        }
        let assignments = by_hand(&topic.assignments)?;
        defaults.need_majority(image, &assignments, &mut settings);
        return Ok((assignments, settings));
    }
    let count = topic.partitions.unwrap_or(defaults.partitions);
    let count = u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
        OpError::new(ErrorCode::InvalidPartitions, "the number of partitions must be larger than 0")
    })?;
    if u64::from(count) > PARTITIONS_OF_A_REQUEST_MAX {
        let message = format!("one request may make {PARTITIONS_OF_A_REQUEST_MAX} partitions, not {count}");
        return Err(OpError::new(ErrorCode::PolicyViolation, message));
    }
    let factor = topic.replication_factor.unwrap_or_else(|| defaults.factor(image));
    let replication_factor = usize::try_from(factor).ok().filter(|f| *f > 0).ok_or_else(|| {
        OpError::new(ErrorCode::InvalidReplicationFactor, "the replication factor must be larger than 0")
    })?;
    let assignments = placement::place(image, Wanted { first: 0, count, replication_factor, start })?;
    defaults.need_majority(image, &assignments, &mut settings);
    Ok((assignments, settings))
}

/// What the command would be refused for; a name that nobody may have, or somebody has.
fn check_name(image: &ClusterImage, name: &str) -> Result<(), OpError> {
    floodmark_storage::data_dir::PartitionName::new(name, 0)
        .map_err(|reason| OpError::new(ErrorCode::InvalidTopicException, reason))?;
    if image.topic(name).is_some() {
        return Err(OpError::new(ErrorCode::TopicAlreadyExists, format!("topic '{name}' already exists")));
    }
    Ok(())
}

fn by_hand(assignments: &[(i32, Vec<i32>)]) -> Result<Vec<Vec<BrokerId>>, OpError> {
    let mut sorted: Vec<&(i32, Vec<i32>)> = assignments.iter().collect();
    sorted.sort_by_key(|(partition, _)| *partition);
    if (0..).zip(&sorted).any(|(expected, (partition, _))| *partition != expected) {
        let message = "partitions placed by hand must be numbered from 0 without gaps or doubles";
        return Err(OpError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(sorted.into_iter().map(|(_, replicas)| replicas.iter().map(|id| BrokerId(*id)).collect()).collect())
}

fn new_topic_id(shared: &Shared, image: &ClusterImage) -> TopicId {
    loop {
        let random = shared.cluster.random();
        let bits = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        // Versioned like other random ids, so that tools which check that are content.
        let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        if let Ok(id) = TopicId::from_bytes(id.into_bytes())
            && image.topic_by_id(id).is_none()
        {
            return id;
        }
    }
}

/// Removes topics and their records; answers with name and id of what is gone.
pub(crate) async fn delete(
    shared: &Shared,
    topics: &[TopicKey<'_>],
    within: Duration,
) -> Vec<Result<(String, TopicId), OpError>> {
    let deadline = tokio::time::Instant::now() + within;
    let mut results = Vec::with_capacity(topics.len());
    let image = shared.cluster.image();
    let found: Vec<Option<TopicId>> =
        topics.iter().map(|key| find(&image, *key).ok().map(|t| t.id)).collect();
    let doubled = doubled(found.iter().flatten().copied());
    for (key, id) in topics.iter().zip(&found) {
        let outcome = if id.is_some_and(|id| doubled.contains(&id)) {
            Err(OpError::new(ErrorCode::InvalidRequest, "the topic is named more than once"))
        } else {
            delete_one(shared, *key, deadline).await
        };
        results.push(outcome);
    }
    results
}

/// What is named more than once.
pub(crate) fn doubled<T: Eq + Hash + Copy>(named: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    named.filter(|name| !seen.insert(*name)).collect()
}

async fn delete_one(
    shared: &Shared,
    key: TopicKey<'_>,
    deadline: tokio::time::Instant,
) -> Result<(String, TopicId), OpError> {
    let image = match key {
        TopicKey::Name(name) => image_with(shared, [name]).await,
        TopicKey::Id(_) => shared.cluster.image(),
    };
    let topic = find(&image, key)?.clone();
    if &*topic.name == OFFSETS_TOPIC {
        let message = format!(
            "topic '{}' keeps the offsets of all groups and is not deleted; delete groups instead",
            topic.name
        );
        return Err(OpError::new(ErrorCode::InvalidTopicException, message));
    }
    shared.cluster.propose(Command::DeleteTopic { topic: topic.id }, deadline).await?;
    let version = shared.cluster.image().version();
    // The topic is gone whether or not its files are; a request that comes after must not meet its partitions.
    let _ = tokio::time::timeout_at(deadline, shared.cluster.registry().reconciled(version)).await;
    Ok((topic.name.to_string(), topic.id))
}

/// Adds partitions; each topic by itself.
pub(crate) async fn extend(
    shared: &Shared,
    topics: &[MorePartitions<'_>],
    validate_only: bool,
    within: Duration,
) -> Vec<Result<(), OpError>> {
    let deadline = tokio::time::Instant::now() + within;
    let mut results = Vec::with_capacity(topics.len());
    let doubled = doubled(topics.iter().map(|topic| topic.name));
    for topic in topics {
        let outcome = if doubled.contains(topic.name) {
            Err(OpError::new(
                ErrorCode::InvalidRequest,
                format!("topic '{}' is named more than once", topic.name),
            ))
        } else {
            extend_one(shared, topic, validate_only, deadline).await
        };
        results.push(outcome);
    }
    results
}

async fn extend_one(
    shared: &Shared,
    more: &MorePartitions<'_>,
    validate_only: bool,
    deadline: tokio::time::Instant,
) -> Result<(), OpError> {
    let image = image_with(shared, [more.name]).await;
    let topic = find(&image, TopicKey::Name(more.name))?;
    let assignments = plan_more(&image, topic, more, shared.cluster.random().next_u64())?;
    let count_now = topic.partitions.len() as u32;
    let command = Command::AddPartitions { topic: topic.id, count_now, assignments };
    if validate_only || more.assignments.is_some() {
        try_on(&image, &command)?;
    }
    if validate_only {
        return Ok(());
    }
    shared.cluster.propose(command, deadline).await?;
    let version = shared.cluster.image().version();
    tokio::time::timeout_at(deadline, shared.cluster.registry().reconciled(version))
        .await
        .map_err(|_| timed_out("the partitions were created, but are not open yet"))
}

/// What would come of a command here and now. What is not placed by the cluster itself is refused before it goes into the metadata's log.
fn try_on(image: &ClusterImage, command: &Command) -> Result<(), OpError> {
    cluster::apply(image, command).1.map(|_output| ()).map_err(OpError::from)
}

fn plan_more(
    image: &ClusterImage,
    topic: &Topic,
    more: &MorePartitions<'_>,
    start: u64,
) -> Result<Vec<Vec<BrokerId>>, OpError> {
    let invalid = |message: String| OpError::new(ErrorCode::InvalidPartitions, message);
    if &*topic.name == OFFSETS_TOPIC {
        let message = format!(
            "topic '{}' keeps its number of partitions: by it groups find their offsets, and with another they would not",
            topic.name
        );
        return Err(OpError::new(ErrorCode::InvalidTopicException, message));
    }
    let (name, now) = (more.name, topic.partitions.len() as u32);
    let wanted = u32::try_from(more.count).unwrap_or(0);
    if wanted == now {
        return Err(invalid(format!("topic '{name}' already has {now} partitions")));
    }
    if wanted < now {
        let message = format!("topic '{name}' has {now} partitions, and partitions cannot be taken away");
        return Err(invalid(message));
    }
    let added = wanted - now;
    if u64::from(added) > PARTITIONS_OF_A_REQUEST_MAX {
        let message = format!("one request may make {PARTITIONS_OF_A_REQUEST_MAX} partitions, not {added}");
        return Err(OpError::new(ErrorCode::PolicyViolation, message));
    }
    if let Some(assignments) = &more.assignments {
        if assignments.len() != added as usize {
            let message = format!("{} assignments for {added} new partitions", assignments.len());
            return Err(OpError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        return Ok(assignments
            .iter()
            .map(|replicas| replicas.iter().map(|id| BrokerId(*id)).collect())
            .collect());
    }
    let replication_factor = topic.partition(0).map_or(1, |p| p.replicas.len());
    Ok(placement::place(image, Wanted { first: now, count: added, replication_factor, start })?)
}

/// The image in which every topic of `names` is that there is by now. Where one is missing here, the cluster is asked: it may have been
/// made on another broker a moment ago. Where the cluster does not answer, what is known here has to do.
pub(crate) async fn image_with(
    shared: &Shared,
    names: impl IntoIterator<Item = &str>,
) -> std::sync::Arc<ClusterImage> {
    let image = shared.cluster.image();
    if names.into_iter().all(|name| image.topic(name).is_some()) {
        return image;
    }
    let fresh = tokio::time::timeout(FRESH_WITHIN, shared.cluster.quorum().read_barrier()).await;
    fresh.ok().and_then(Result::ok).unwrap_or(image)
}

/// True for the topics that brokers keep their own state in.
pub(crate) fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// The topic that a key names, or the error for its kind of name.
pub(crate) fn find<'a>(
    image: &'a ClusterImage,
    key: TopicKey<'_>,
) -> Result<&'a std::sync::Arc<Topic>, OpError> {
    match key {
        TopicKey::Name(name) => image.topic(name).ok_or_else(|| {
            // What no topic can be called is not said again: it may have been asked for thousands of partitions of it.
            let message = if name.len() <= TOPIC_NAME_BYTES_MAX {
                format!("there is no topic '{name}'")
            } else {
                format!("no topic can have a name of {} bytes", name.len())
            };
            OpError::new(ErrorCode::UnknownTopicOrPartition, message)
        }),
        TopicKey::Id(id) => image.topic_by_id(id).ok_or_else(|| {
            OpError::new(ErrorCode::UnknownTopicId, format!("there is no topic with id {id}"))
        }),
    }
}

fn timed_out(message: &str) -> OpError {
    OpError::new(ErrorCode::RequestTimedOut, message)
}

#[cfg(test)]
mod tests;
