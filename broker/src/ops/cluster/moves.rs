//! Partitions that go to other brokers: planned, begun, told, cancelled.

use std::collections::BTreeMap;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::placement::{place_drain, place_onto};
use floodmark_replication::cluster::{ClusterImage, Command, CommandError, Partition, Topic};
use tokio::task::JoinSet;
use tokio::time::Instant;

use std::sync::Arc;

use crate::ops::error::OpError;
use crate::shared::Shared;

/// Commands under way at one time: they share entries of the metadata's log.
const PROPOSED_AT_ONCE: usize = 64;

/// Where a partition shall lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Preferred leader first.
    pub(crate) replicas: Vec<BrokerId>,
}

/// A partition, and where it lies without and with a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) from: Vec<BrokerId>,
    pub(crate) to: Vec<BrokerId>,
}

/// What has to move so that `broker` holds nothing.
pub(crate) fn away_from(image: &ClusterImage, broker: BrokerId) -> Result<Vec<Target>, OpError> {
    known(image, broker)?;
    let planned = place_drain(image, broker).map_err(|e| {
        let message = format!("broker {broker} cannot be drained: {e}");
        OpError::new(ErrorCode::InvalidReplicaAssignment, message)
    })?;
    Ok(named(image, planned))
}

/// What has to move so that `broker` holds its share.
pub(crate) fn onto(image: &ClusterImage, broker: BrokerId) -> Result<Vec<Target>, OpError> {
    known(image, broker)?;
    let planned = place_onto(image, broker).map_err(|e| {
        let message = format!("broker {broker} cannot be given its share: {e}");
        OpError::new(ErrorCode::InvalidReplicaAssignment, message)
    })?;
    Ok(named(image, planned))
}

fn known(image: &ClusterImage, broker: BrokerId) -> Result<(), OpError> {
    match image.broker(broker) {
        Some(_) => Ok(()),
        None => {
            Err(OpError::new(ErrorCode::BrokerIdNotRegistered, format!("broker {broker} is not registered")))
        }
    }
}

fn named(image: &ClusterImage, planned: Vec<Command>) -> Vec<Target> {
    let target = |command: Command| match command {
        Command::MovePartition { topic, partition, replicas } => {
            let topic = Arc::clone(&image.topic_by_id(topic)?.name);
            Some(Target { topic, partition: i32::try_from(partition).ok()?, replicas })
        }
        _ => None,
    };
    planned.into_iter().filter_map(target).collect()
}

/// Has each partition move to where its target says; an outcome for each, in their order. What lies there already is no move, and no error.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    targets: &[Target],
    validate_only: bool,
    deadline: Instant,
) -> Vec<(Move, Result<(), OpError>)> {
    let image = shared.cluster.image();
    let planned = targets.iter().map(|target| {
        let moved = |from| Move {
            topic: Arc::clone(&target.topic),
            partition: target.partition,
            from,
            to: target.replicas.clone(),
        };
        match partition_of(&image, &target.topic, target.partition) {
            Ok((topic, index, partition)) => {
                let replicas = target.replicas.clone();
                let command = Command::MovePartition { topic: topic.id, partition: index, replicas };
                (moved(partition.target().collect()), Ok(command))
            }
            Err(e) => (moved(Vec::new()), Err(e)),
        }
    });
    propose_all(shared, &image, planned.collect(), validate_only, deadline).await
}

/// Takes partitions back to where they were before their moves. Without names all that move, or all that leave `away_from`.
pub(crate) async fn cancel(
    shared: &Arc<Shared>,
    named: &[(Arc<str>, i32)],
    away_from: Option<BrokerId>,
    validate_only: bool,
    deadline: Instant,
) -> Vec<(Move, Result<(), OpError>)> {
    let image = shared.cluster.image();
    let back = |topic: &Topic, index: u32, p: &Partition| {
        let partition = i32::try_from(index).unwrap_or(i32::MAX);
        let (from, to) = (p.target().collect(), p.origin().collect());
        let command = Command::CancelMove { topic: topic.id, partition: index };
        (Move { topic: Arc::clone(&topic.name), partition, from, to }, Ok(command))
    };
    let planned = if named.is_empty() {
        let leaves = |p: &Partition| away_from.is_none_or(|broker| p.removing.contains(&broker));
        let moving = |p: &Partition| p.is_moving() && leaves(p);
        let of_topic = |topic: &Arc<Topic>| {
            let found = topic.partitions.iter().filter(|(_, p)| moving(p));
            found.map(|(index, p)| back(topic, *index, p)).collect::<Vec<_>>()
        };
        image.topics().flat_map(of_topic).collect()
    } else {
        let one = |(topic, index): &(Arc<str>, i32)| match partition_of(&image, topic, *index) {
            Ok((topic, index, p)) => back(topic, index, p),
            Err(e) => (
                Move { topic: Arc::clone(topic), partition: *index, from: Vec::new(), to: Vec::new() },
                Err(e),
            ),
        };
        named.iter().map(one).collect()
    };
    propose_all(shared, &image, planned, validate_only, deadline).await
}

/// Moves that are under way, with the partitions as they are now.
pub(crate) fn under_way(image: &ClusterImage) -> impl Iterator<Item = (Move, &Partition)> {
    image.topics().flat_map(|topic| {
        let moving = topic.partitions.iter().filter(|(_, p)| p.is_moving());
        moving.map(|(index, p)| {
            let partition = i32::try_from(*index).unwrap_or(i32::MAX);
            let (from, to) = (p.origin().collect(), p.target().collect());
            (Move { topic: Arc::clone(&topic.name), partition, from, to }, p)
        })
    })
}

/// A partition by the names of a request. The refusal leaves the topic's name to whoever tells it: one is made for each partition.
pub(crate) fn partition_of<'a>(
    image: &'a ClusterImage,
    topic: &str,
    index: i32,
) -> Result<(&'a Topic, u32, &'a Partition), OpError> {
    let unknown = |message: String| OpError::new(ErrorCode::UnknownTopicOrPartition, message);
    let topic = image.topic(topic).ok_or_else(|| unknown("there is no such topic".to_owned()))?;
    let found = u32::try_from(index).ok().and_then(|index| Some((index, topic.partition(index)?)));
    let (index, partition) = found.ok_or_else(|| unknown(format!("the topic has no partition {index}")))?;
    Ok((topic, index, partition))
}

/// Several at a time; what is refused keeps nothing else from being done. Where it is only to be told, each is tried on the image.
async fn propose_all(
    shared: &Arc<Shared>,
    image: &ClusterImage,
    planned: Vec<(Move, Result<Command, OpError>)>,
    validate_only: bool,
    deadline: Instant,
) -> Vec<(Move, Result<(), OpError>)> {
    let mut outcomes: BTreeMap<usize, Result<(), OpError>> = BTreeMap::new();
    let mut moves = Vec::with_capacity(planned.len());
    let mut under_way: JoinSet<(usize, Result<(), OpError>)> = JoinSet::new();
    for (n, (planned, command)) in planned.into_iter().enumerate() {
        moves.push(planned);
        let command = match command {
            Ok(command) => command,
            Err(e) => {
                outcomes.insert(n, Err(e));
                continue;
            }
        };
        if validate_only {
            outcomes.insert(n, tried(image, &command).map_err(OpError::from));
            continue;
        }
        if under_way.len() >= PROPOSED_AT_ONCE
            && let Some(Ok((n, outcome))) = under_way.join_next().await
        {
            outcomes.insert(n, outcome);
        }
        let shared = Arc::clone(shared);
        under_way.spawn(async move { (n, shared.cluster.propose(command, deadline).await.map(|_done| ())) });
    }
    while let Some(done) = under_way.join_next().await {
        if let Ok((n, outcome)) = done {
            outcomes.insert(n, outcome);
        }
    }
    let fault = || Err(OpError::new(ErrorCode::UnknownServerError, "the broker failed; its log says why"));
    moves.into_iter().enumerate().map(|(n, m)| (m, outcomes.remove(&n).unwrap_or_else(fault))).collect()
}

fn tried(image: &ClusterImage, command: &Command) -> Result<(), CommandError> {
    floodmark_replication::cluster::apply(image, command).1.map(|_output| ())
}
