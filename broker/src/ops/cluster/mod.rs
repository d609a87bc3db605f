//! What an operator asks of the cluster: how it is, who votes, who belongs to it.
//!
//! - this file: brokers, voters, the feature level, and the state of it all
//! - [`moves`]: partitions that go to other brokers
//! - [`elections`]: other leaders for partitions

pub(crate) mod elections;
pub(crate) mod moves;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::{Broker, ClusterImage, Command, CommandError, Partition, apply};
use floodmark_replication::quorum::{FEATURE_LEVELS, LocalStatus, MembershipError};
use tokio::time::{Instant, timeout_at};

use crate::metrics::{ClusterHealth, cluster_health};
use crate::ops::error::OpError;
use crate::shared::Shared;

/// How many voters a quorum may have: of an even number one is for nothing.
const VOTERS: [usize; 3] = [1, 3, 5];

/// Partitions that a refusal names; of more it gives the number.
const PARTITIONS_NAMED_MAX: usize = 5;

/// A leader that is there answers at once; whoever asks how a cluster is, asks because something is wrong.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// How the cluster is.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) image: std::sync::Arc<ClusterImage>,
    pub(crate) load: BTreeMap<BrokerId, Load>,
    pub(crate) health: ClusterHealth,
    pub(crate) quorum: LocalStatus,
}

/// What a broker carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) leaders: u32,
    /// With those that a move adds.
    pub(crate) replicas: u32,
    /// Not in sync, and not being added.
    pub(crate) behind: u32,
}

/// Asks the leader of the quorum how far its members are; where nobody leads, this broker alone answers.
pub(crate) async fn status(shared: &Shared, deadline: Instant) -> Status {
    let image = shared.cluster.image();
    let quorum = shared.cluster.quorum();
    let quorum = match timeout_at(deadline.min(Instant::now() + STATUS_TIMEOUT), quorum.status()).await {
        Ok(Ok(status)) => LocalStatus {
            leader: Some(status.leader),
            term: status.term,
            last_log_index: Some(status.last_log_index),
            applied_index: Some(status.applied_index),
            nodes: status.nodes,
        },
        _ => quorum.local_status(),
    };
    let health = cluster_health(&image, shared.cluster.file_settings());
    Status { load: load(&image), health, quorum, image }
}

/// Counts what each broker carries, those that carry nothing included.
pub(crate) fn load(image: &ClusterImage) -> BTreeMap<BrokerId, Load> {
    let mut load: BTreeMap<BrokerId, Load> =
        image.brokers().map(|broker| (broker.id, Load::default())).collect();
    for partition in image.topics().flat_map(|topic| topic.partitions.values()) {
        if let Some(leader) = partition.leader {
            load.entry(leader).or_default().leaders += 1;
        }
        for replica in partition.replicas.iter() {
            let of = load.entry(*replica).or_default();
            of.replicas += 1;
            let is_behind = !partition.isr.contains(replica) && !partition.adding.contains(replica);
            of.behind += u32::from(is_behind);
        }
    }
    load
}

/// Makes `wanted` the voters; answers with those there were and those there are.
pub(crate) async fn change_voters(
    shared: &Shared,
    wanted: BTreeSet<BrokerId>,
    validate_only: bool,
    deadline: Instant,
) -> Result<(Vec<BrokerId>, Vec<BrokerId>), OpError> {
    shared.cluster.check_decides()?;
    let quorum = shared.cluster.quorum();
    let before: Vec<BrokerId> = quorum.membership().voters.iter().map(|(broker, _)| *broker).collect();
    check_voters(&shared.cluster.image(), &before, &wanted)?;
    if !validate_only {
        let changed = timeout_at(deadline, quorum.change_voters(wanted.clone())).await;
        let not_in_time =
            "the voters were not changed in time; they may still be: `floodmark cluster voters list` tells";
        changed.map_err(|_| OpError::new(ErrorCode::RequestTimedOut, not_in_time))?.map_err(of_membership)?;
    }
    Ok((before, wanted.into_iter().collect()))
}

/// A voter that is not there costs the quorum a vote, so only those that are may become one.
fn check_voters(
    image: &ClusterImage,
    before: &[BrokerId],
    wanted: &BTreeSet<BrokerId>,
) -> Result<(), OpError> {
    let invalid = |message: String| Err(OpError::new(ErrorCode::InvalidRequest, message));
    if !VOTERS.contains(&wanted.len()) {
        return invalid(format!("{} voters; there may be 1, 3 or 5", wanted.len()));
    }
    for broker in wanted {
        match image.broker(*broker) {
            None => return invalid(format!("broker {broker} is not registered; start it first")),
            Some(known) if known.fenced && !before.contains(broker) => {
                return invalid(format!("broker {broker} is fenced; it must be there to become a voter"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Forgets a broker that has been stopped for good. Answers with how many replicas are still assigned to its id.
pub(crate) async fn remove_broker(
    shared: &Shared,
    broker: BrokerId,
    keeps_replicas: bool,
    validate_only: bool,
    deadline: Instant,
) -> Result<u32, OpError> {
    shared.cluster.check_decides()?;
    let image = shared.cluster.image();
    let quorum = shared.cluster.quorum();
    let members = quorum.membership();
    let is_among = |members: &[(BrokerId, u64)]| members.iter().any(|(member, _)| *member == broker);
    let is_voter = is_among(&members.voters);
    if image.broker(broker).is_none() && !is_voter && !is_among(&members.learners) {
        let message = format!("broker {broker} is not registered");
        return Err(OpError::new(ErrorCode::BrokerIdNotRegistered, message));
    }
    let replicas = load(&image).get(&broker).map_or(0, |load| load.replicas);
    check_removal(
        image.broker(broker).map(|known| &**known),
        broker,
        is_voter,
        (!keeps_replicas).then_some(replicas),
    )?;
    let command = Command::RemoveBroker { broker, keeps_replicas };
    if image.broker(broker).is_some() {
        check_leaves_copies(&image, broker, &command)?;
    }
    if !validate_only {
        if image.broker(broker).is_some() {
            shared.cluster.propose(command, deadline).await?;
        }
        // Behind the registration: a broker that is gone from here asks to be let in again, and is refused above as long as it has one.
        let removed = timeout_at(deadline, quorum.remove_node(broker)).await;
        let not_in_time = || {
            let message = format!("broker {broker} is forgotten, but still in the quorum; remove it again");
            OpError::new(ErrorCode::RequestTimedOut, message)
        };
        removed.map_err(|_| not_in_time())?.map_err(of_membership)?;
    }
    Ok(replicas)
}

/// Tries the removal on the image, as every broker will carry it out, and says of which partitions nobody else has everything.
fn check_leaves_copies(image: &ClusterImage, broker: BrokerId, command: &Command) -> Result<(), OpError> {
    let refused = match apply(image, command).1 {
        Ok(_) => return Ok(()),
        Err(CommandError::LosesInSync { .. }) => CommandError::LosesInSync { broker },
        Err(e) => return Err(e.into()),
    };
    let serves_beside = |r: &BrokerId| *r != broker && image.is_live(*r);
    let is_needed = |p: &Partition| p.isr.contains(&broker) && !p.isr.iter().any(serves_beside);
    let in_sync = image.topics().flat_map(|topic| {
        let held = topic.partitions.iter().filter(|(_, partition)| is_needed(partition));
        held.map(|(index, _)| format!("{}-{index}", topic.name))
    });
    let mut names: Vec<String> = in_sync.collect();
    let more = names.len().saturating_sub(PARTITIONS_NAMED_MAX);
    names.truncate(PARTITIONS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let OpError { code, message } = refused.into();
    Err(OpError { code, message: format!("{message}. It is so in {}{more}", names.join(", ")) })
}

fn of_membership(error: MembershipError) -> OpError {
    match error {
        MembershipError::NotChanged(e) => e.into(),
        refused => OpError::new(ErrorCode::InvalidRequest, refused.to_string()),
    }
}

fn check_removal(
    known: Option<&Broker>,
    broker: BrokerId,
    is_voter: bool,
    replicas_that_matter: Option<u32>,
) -> Result<(), OpError> {
    let refuse = |message: String| Err(OpError::new(ErrorCode::InvalidRequest, message));
    if is_voter {
        return refuse(format!(
            "broker {broker} is a voter of the metadata; name 1, 3 or 5 others with `floodmark cluster voters set` first"
        ));
    }
    if known.is_some_and(|known| !known.fenced) {
        return refuse(format!("broker {broker} is there and serves; drain it and stop it first"));
    }
    match replicas_that_matter {
        Some(replicas) if replicas > 0 => refuse(format!(
            "broker {broker} holds {replicas} replicas; `floodmark cluster drain {broker}` first, or keep them for a broker of the same id \
             with --keep-replicas"
        )),
        _ => Ok(()),
    }
}

/// Lets the cluster use what brokers of this level know.
pub(crate) async fn set_feature_level(shared: &Shared, level: u32, deadline: Instant) -> Result<(), OpError> {
    let level = u16::try_from(level).ok().filter(|level| *level <= FEATURE_LEVELS.1).ok_or_else(|| {
        let message = format!(
            "feature level {level} is above {}, the highest that this program knows",
            FEATURE_LEVELS.1
        );
        OpError::new(ErrorCode::InvalidUpdateVersion, message)
    })?;
    shared.cluster.propose(Command::SetFeatureLevel { level }, deadline).await.map(|_done| ())
}

#[cfg(test)]
mod tests;
