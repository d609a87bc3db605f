//! Other leaders for partitions: the preferred ones, or, where an operator accepts the loss, one that lacks something.

use std::sync::Arc;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::command::Election;
use floodmark_replication::cluster::{ClusterImage, Command, Output, Partition, Topic};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::moves::partition_of;
use crate::ops::error::OpError;
use crate::shared::Shared;

const ELECTED_AT_ONCE: usize = 64;

/// What became of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elected {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) before: Option<BrokerId>,
    /// Who leads now, or would.
    pub(crate) leader: Option<BrokerId>,
    /// Those that had everything that was acknowledged.
    pub(crate) in_sync: Vec<BrokerId>,
    pub(crate) error: Option<OpError>,
}

/// Has the first replica lead, of the partitions that are named, or of all where it could and does not.
pub(crate) async fn preferred(
    shared: &Arc<Shared>,
    named: &[(Arc<str>, i32)],
    validate_only: bool,
    deadline: Instant,
) -> Result<Vec<Elected>, OpError> {
    shared.cluster.check_decides()?;
    let image = shared.cluster.image();
    let wanted: Vec<(Arc<str>, i32)> =
        if named.is_empty() { where_preferred_could_lead(&image) } else { named.to_vec() };
    let mut elected = Vec::with_capacity(wanted.len());
    // Several at a time: they share entries of the metadata's log.
    for some in wanted.chunks(ELECTED_AT_ONCE) {
        let mut under_way = JoinSet::new();
        for (n, which) in some.iter().cloned().enumerate() {
            let (shared, image) = (Arc::clone(shared), Arc::clone(&image));
            under_way.spawn(async move {
                (n, elect(&shared, &image, which, Election::Preferred, validate_only, deadline).await)
            });
        }
        let mut done: Vec<(usize, Elected)> = under_way.join_all().await;
        done.sort_by_key(|(n, _)| *n);
        elected.extend(done.into_iter().map(|(_, elected)| elected));
    }
    Ok(elected)
}

/// Has a live replica lead a partition whose replicas in sync are gone. What it lacks is lost, so it is done for one partition by name, and
/// only where that is accepted; else it is told what would be.
pub(crate) async fn unclean(
    shared: &Arc<Shared>,
    named: &[(Arc<str>, i32)],
    accept_data_loss: bool,
    deadline: Instant,
) -> Result<Elected, OpError> {
    let [(topic, partition)] = named else {
        let message = "an unclean election loses records; it is ordered for one partition, by name";
        return Err(OpError::new(ErrorCode::InvalidRequest, message));
    };
    shared.cluster.check_decides()?;
    let image = shared.cluster.image();
    let which = (Arc::clone(topic), *partition);
    Ok(elect(shared, &image, which, Election::Unclean, !accept_data_loss, deadline).await)
}

fn where_preferred_could_lead(image: &ClusterImage) -> Vec<(Arc<str>, i32)> {
    let could = |p: &Partition| {
        let preferred = p.target().next();
        preferred
            .is_some_and(|first| p.leader != Some(first) && p.isr.contains(&first) && image.may_lead(first))
    };
    let of_topic = |topic: &Arc<Topic>| {
        let found = topic.partitions.iter().filter(|(_, p)| could(p));
        let name =
            |(index, _): (&u32, &Partition)| Some((Arc::clone(&topic.name), i32::try_from(*index).ok()?));
        found.filter_map(name).collect::<Vec<_>>()
    };
    image.topics().flat_map(of_topic).collect()
}

async fn elect(
    shared: &Arc<Shared>,
    image: &ClusterImage,
    (name, index): (Arc<str>, i32),
    election: Election,
    validate_only: bool,
    deadline: Instant,
) -> Elected {
    let mut elected = Elected {
        topic: name,
        partition: index,
        before: None,
        leader: None,
        in_sync: Vec::new(),
        error: None,
    };
    let (topic, partition, now) = match partition_of(image, &elected.topic, index) {
        Ok((topic, index, partition)) => (topic.id, index, partition),
        Err(e) => return Elected { error: Some(e), ..elected },
    };
    (elected.before, elected.leader) = (now.leader, now.leader);
    elected.in_sync = now.isr.to_vec();
    let command = Command::ElectLeader { topic, partition, election };
    let outcome = if validate_only {
        floodmark_replication::cluster::apply(image, &command).1.map_err(OpError::from)
    } else {
        shared.cluster.propose(command, deadline).await
    };
    match outcome {
        Ok(Output::LeaderElected { leader, .. }) => {
            elected.leader = Some(leader);
            if election == Election::Unclean && !validate_only {
                shared.ground.metrics.changes.on_unclean_election();
                tracing::warn!(
                    topic = &*elected.topic,
                    partition = elected.partition,
                    %leader,
                    "an operator had a leader elected that lacks something; that is lost"
                );
            }
        }
        Ok(_) => {}
        Err(e) => elected.error = Some(e),
    }
    elected
}
