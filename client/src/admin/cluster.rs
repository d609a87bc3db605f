//! The cluster from an operator's side: how it is, partitions moved, leaders elected, voters changed, brokers removed.

use floodmark_proto::pb::v1 as pb;
use pb::move_partitions_request::Goal;

use super::{Admin, Broker, timeout_ms};
use crate::error::{Error, Result, outcome};
use crate::record::TopicPartition;

/// Whether a change is made, or only judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Say what would become of it, and change nothing.
    Check,
    /// Do it.
    Change,
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Made once, when its first broker started.
    pub id: String,
    /// What all brokers have agreed to work at.
    pub feature_level: u32,
    /// How many changes there have been.
    pub metadata_version: u64,
    /// All that are registered, by number.
    pub brokers: Vec<BrokerStatus>,
    /// Those who keep the metadata.
    pub quorum: Quorum,
    /// What partitions lack.
    pub partitions: PartitionCounts,
    /// Who answered.
    pub answered_by: i32,
    /// Of the program that answered.
    pub version: String,
}

/// One broker, and what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Where it is.
    pub broker: Broker,
    /// It is about to stop.
    pub is_stopping: bool,
    /// Partitions that it leads.
    pub leaders: u32,
    /// Partitions that it holds, with those that a move adds.
    pub replicas: u32,
    /// Of these, those that lack something and are not being added.
    pub replicas_behind: u32,
    /// Replicas that it cannot open, or whose logs take no more writes; none where it was not heard of.
    pub replicas_failed: Option<u32>,
    /// One of these, and what is wrong with it.
    pub failure: Option<String>,
    /// `host:port` of its door for other brokers; none where it has no such door.
    pub cluster_address: Option<String>,
    /// Feature levels that its program works at, lowest and highest.
    pub feature_levels: (u32, u32),
}

/// The metadata quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// The controller; none while nobody is.
    pub leader: Option<i32>,
    /// Rises with each election.
    pub term: u64,
    /// Last entry of its log.
    pub last_index: Option<u64>,
    /// Last entry that the broker that answered has carried out.
    pub applied_index: Option<u64>,
    /// Voters and learners.
    pub members: Vec<QuorumMember>,
}

/// A broker's share in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its number.
    pub broker: i32,
    /// It counts in elections; the others only listen.
    pub is_voter: bool,
    /// Entries of the log that it lacks, where that is known.
    pub lag: Option<u64>,
}

/// How many partitions lack what. One may be counted under several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCounts {
    /// All of them.
    pub all: u32,
    /// Nobody leads them.
    pub offline: u32,
    /// Replicas are missing from the in-sync set.
    pub under_replicated: u32,
    /// Fewer in sync than `min.insync.replicas`.
    pub below_minimum: u32,
    /// On their way to other brokers.
    pub moving: u32,
}

/// What is to move where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveGoal {
    /// Each partition to these brokers, preferred leader first.
    To(Vec<(TopicPartition, Vec<i32>)>),
    /// Everything away from a broker.
    AwayFrom(i32),
    /// A broker's share of everything onto it.
    Onto(i32),
}

/// A partition that moves, or why it does not.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Which.
    pub partition: TopicPartition,
    /// Where it lay.
    pub from: Vec<i32>,
    /// Where it will lie.
    pub to: Vec<i32>,
    /// Why it does not move.
    pub error: Option<Error>,
}

/// A move that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveUnderWay {
    /// Which.
    pub partition: TopicPartition,
    /// Where it lay.
    pub from: Vec<i32>,
    /// Where it will lie.
    pub to: Vec<i32>,
    /// Who has everything.
    pub in_sync: Vec<i32>,
    /// Who leads it.
    pub leader: Option<i32>,
}

/// A partition's election.
#[derive(Debug, Clone)]
pub struct Elected {
    /// Which.
    pub partition: TopicPartition,
    /// Who led before.
    pub before: Option<i32>,
    /// Who leads now, or would.
    pub leader: Option<i32>,
    /// Who had everything that was acknowledged.
    pub in_sync: Vec<i32>,
    /// Why nothing came of it.
    pub error: Option<Error>,
}

impl Admin {
    /// Brokers, quorum, partitions.
    pub async fn status(&self) -> Result<ClusterStatus> {
        let what = "asking how the cluster is";
        let told = self.client.ask_anyone(what, |peer| async move {
            let asked = peer.request(pb::ClusterStatusRequest {});
            peer.answer(what, peer.admin().cluster_status(asked)).await
        });
        Ok(told.await?.into())
    }

    /// Has partitions move, and returns once the moves have begun; [`Admin::moves`] tells how far they are.
    pub async fn move_partitions(&self, goal: MoveGoal, mode: Mode) -> Result<Vec<Moved>> {
        let what = "moving partitions";
        let goal = Goal::from(goal);
        let begun = self.client.ask_anyone(what, |peer| {
            let asked = pb::MovePartitionsRequest {
                goal: Some(goal.clone()),
                validate_only: mode == Mode::Check,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().move_partitions(asked)).await
            }
        });
        Ok(begun.await?.moves.into_iter().map(Into::into).collect())
    }

    /// Moves that are under way.
    pub async fn moves(&self) -> Result<Vec<MoveUnderWay>> {
        let what = "listing moves";
        let told = self.client.ask_anyone(what, |peer| async move {
            let asked = peer.request(pb::ListMovesRequest {});
            peer.answer(what, peer.admin().list_moves(asked)).await
        });
        Ok(told.await?.moves.into_iter().map(Into::into).collect())
    }

    /// Takes partitions back to where they were before their moves: these, or all, or all that leave the broker `away_from`.
    pub async fn cancel_moves(
        &self,
        partitions: &[TopicPartition],
        away_from: Option<i32>,
        mode: Mode,
    ) -> Result<Vec<Moved>> {
        let what = "cancelling moves";
        let cancelled = self.client.ask_anyone(what, |peer| {
            let asked = pb::CancelMovesRequest {
                partitions: partitions.iter().cloned().map(Into::into).collect(),
                away_from,
                validate_only: mode == Mode::Check,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().cancel_moves(asked)).await
            }
        });
        Ok(cancelled.await?.moves.into_iter().map(Into::into).collect())
    }

    /// Has the preferred replicas lead: of these partitions, or of all where they could and do not.
    pub async fn elect_preferred(&self, partitions: &[TopicPartition], mode: Mode) -> Result<Vec<Elected>> {
        self.elect(partitions, pb::ElectionKind::ElectionPreferred, mode).await
    }

    /// Has a live replica lead a partition whose replicas in sync are gone. Whatever it lacks **is lost**, acknowledged or not.
    pub async fn elect_and_lose(&self, partition: &TopicPartition, mode: Mode) -> Result<Elected> {
        let named = std::slice::from_ref(partition);
        let elected = self.elect(named, pb::ElectionKind::ElectionUnclean, mode).await?;
        elected.into_iter().next().ok_or_else(|| super::unanswered("the partition"))
    }

    async fn elect(
        &self,
        partitions: &[TopicPartition],
        kind: pb::ElectionKind,
        mode: Mode,
    ) -> Result<Vec<Elected>> {
        let what = "electing leaders";
        let elected = self.client.ask_anyone(what, |peer| {
            let asked = pb::ElectLeadersRequest {
                kind: kind.into(),
                partitions: partitions.iter().cloned().map(Into::into).collect(),
                accept_data_loss: kind == pb::ElectionKind::ElectionUnclean && mode == Mode::Change,
                validate_only: mode == Mode::Check,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().elect_leaders(asked)).await
            }
        });
        Ok(elected.await?.elections.into_iter().map(Into::into).collect())
    }

    /// Makes these brokers the voters of the metadata, and returns those that were before. Done when it returns.
    pub async fn change_voters(&self, voters: &[i32], mode: Mode) -> Result<Vec<i32>> {
        let what = "changing voters";
        let changed = self.client.ask_anyone(what, |peer| {
            let asked = pb::ChangeVotersRequest {
                voters: voters.to_vec(),
                validate_only: mode == Mode::Check,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().change_voters(asked)).await
            }
        });
        Ok(changed.await?.before)
    }

    /// Forgets a broker that has been stopped for good. With `keep_replicas` its replicas wait for a broker of the same id with an empty
    /// disk; without, it must hold none. Returns how many are assigned to it still.
    pub async fn remove_broker(&self, broker: i32, keep_replicas: bool, mode: Mode) -> Result<u32> {
        let what = "removing a broker";
        let removed = self.client.ask_anyone(what, |peer| {
            let asked = pb::RemoveBrokerRequest {
                broker_id: broker,
                keep_replicas,
                validate_only: mode == Mode::Check,
                timeout_ms: timeout_ms(&self.client),
            };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().remove_broker(asked)).await
            }
        });
        Ok(removed.await?.replicas)
    }

    /// Lets the cluster use what brokers of this level know. It never falls.
    pub async fn set_feature_level(&self, level: u32) -> Result<()> {
        let what = "raising the feature level";
        let raised = self.client.ask_anyone(what, |peer| {
            let asked = pb::SetFeatureLevelRequest { level, timeout_ms: timeout_ms(&self.client) };
            async move {
                let asked = peer.request(asked);
                peer.answer(what, peer.admin().set_feature_level(asked)).await
            }
        });
        raised.await.map(|_raised| ())
    }
}

impl From<pb::ClusterStatusReply> for ClusterStatus {
    fn from(reply: pb::ClusterStatusReply) -> ClusterStatus {
        let quorum = reply.quorum.unwrap_or_default();
        let counts = reply.partitions.unwrap_or_default();
        let member = |member: pb::QuorumMember| QuorumMember {
            broker: member.broker_id,
            is_voter: member.is_voter,
            lag: quorum
                .last_index
                .zip(member.matched_index)
                .map(|(last, matched)| last.saturating_sub(matched)),
        };
        ClusterStatus {
            id: reply.cluster_id,
            feature_level: reply.feature_level,
            metadata_version: reply.metadata_version,
            brokers: reply.brokers.into_iter().map(Into::into).collect(),
            quorum: Quorum {
                leader: quorum.leader,
                term: quorum.term,
                last_index: quorum.last_index,
                applied_index: quorum.applied_index,
                members: quorum.members.iter().copied().map(member).collect(),
            },
            partitions: PartitionCounts {
                all: counts.all,
                offline: counts.offline,
                under_replicated: counts.under_replicated,
                below_minimum: counts.below_minimum,
                moving: counts.moving,
            },
            answered_by: reply.broker_id,
            version: reply.version,
        }
    }
}

impl From<pb::BrokerStatus> for BrokerStatus {
    fn from(status: pb::BrokerStatus) -> BrokerStatus {
        let has_door = !status.cluster_host.is_empty();
        let address = crate::metadata::address(&status.cluster_host, status.cluster_port);
        BrokerStatus {
            broker: status.broker.unwrap_or_default().into(),
            is_stopping: status.is_stopping,
            leaders: status.leaders,
            replicas: status.replicas,
            replicas_behind: status.replicas_behind,
            replicas_failed: status.replicas_failed,
            failure: Some(status.failure).filter(|failure| !failure.is_empty()),
            cluster_address: has_door.then_some(address),
            feature_levels: (status.lowest_level, status.highest_level),
        }
    }
}

impl From<MoveGoal> for Goal {
    fn from(goal: MoveGoal) -> Goal {
        match goal {
            MoveGoal::AwayFrom(broker) => Goal::AwayFrom(broker),
            MoveGoal::Onto(broker) => Goal::Onto(broker),
            MoveGoal::To(targets) => {
                let target = |(partition, replicas): (TopicPartition, Vec<i32>)| pb::Target {
                    topic: partition.topic.to_string(),
                    partition: partition.partition,
                    replicas,
                };
                Goal::To(pb::Targets { targets: targets.into_iter().map(target).collect() })
            }
        }
    }
}

impl From<pb::Moved> for Moved {
    fn from(moved: pb::Moved) -> Moved {
        Moved {
            partition: TopicPartition::new(moved.topic, moved.partition),
            from: moved.from,
            to: moved.to,
            error: outcome(moved.error.as_ref()).err(),
        }
    }
}

impl From<pb::MoveUnderWay> for MoveUnderWay {
    fn from(moved: pb::MoveUnderWay) -> MoveUnderWay {
        MoveUnderWay {
            partition: TopicPartition::new(moved.topic, moved.partition),
            from: moved.from,
            to: moved.to,
            in_sync: moved.in_sync,
            leader: moved.leader,
        }
    }
}

impl From<pb::ElectedLeader> for Elected {
    fn from(elected: pb::ElectedLeader) -> Elected {
        Elected {
            partition: TopicPartition::new(elected.topic, elected.partition),
            before: elected.before,
            leader: elected.leader,
            in_sync: elected.in_sync,
            error: outcome(elected.error.as_ref()).err(),
        }
    }
}
