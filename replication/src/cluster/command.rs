//! Every change of the cluster that may be proposed, what comes of it, and why it may be refused. Data only.
//!
//! A command carries what was decided with the help of time, chance or a table that may differ between programs (ids,
//! placement, checked settings), so that each broker makes the same image of it.

use std::borrow::Cow;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, ProducerId, TopicId};

use super::image::{Endpoint, FIRST_FEATURE_LEVEL, InSyncDefaults, MOVES_FEATURE_LEVEL};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// A broker has started. It is fenced until it is ready; the same incarnation may register again.
    RegisterBroker {
        /// The broker.
        broker: BrokerId,
        /// Which start of its process this is.
        incarnation: uuid::Uuid,
        /// Where it stands.
        rack: Option<String>,
        /// Where it is reached.
        endpoints: Vec<Endpoint>,
        /// Lowest and highest feature level that it can work with.
        feature_levels: (u16, u16),
        /// Identities of its data directories, the one with metadata first. The same broker with another first directory is
        /// refused: it has lost its disk, and what it promised with it.
        directories: Vec<uuid::Uuid>,
        /// Its own defaults for topics; kept from feature level 3 on.
        in_sync_defaults: Option<InSyncDefaults>,
    },
    /// Takes every leadership from a broker and lets it have none: it is silent, or has stopped.
    FenceBroker {
        /// The broker.
        broker: BrokerId,
        /// Of the registration that is meant.
        epoch: BrokerEpoch,
    },
    /// A broker is ready: it may lead.
    UnfenceBroker {
        /// The broker.
        broker: BrokerId,
        /// Of the registration that is meant.
        epoch: BrokerEpoch,
    },
    /// A broker is about to stop: what it leads goes to other replicas in sync, and it gets nothing new. Its next registration
    /// ends that.
    BeginShutdown {
        /// The broker.
        broker: BrokerId,
        /// Of the registration that is meant.
        epoch: BrokerEpoch,
    },
    /// Forgets a broker that is fenced, and its directory with it. Its id may then be another disk's.
    RemoveBroker {
        /// The broker.
        broker: BrokerId,
        /// False: only where it holds no replica. True: it remains a replica of what it holds, in sync nowhere, so that a broker
        /// that comes under its id with an empty disk gets all of it back.
        keeps_replicas: bool,
    },
    /// A broker says that it does not have what it should have: a disk is gone. It leaves those in-sync sets; where it is the
    /// last member, nobody leads any more.
    LoseReplicas {
        /// The broker.
        broker: BrokerId,
        /// Of the registration that is meant.
        epoch: BrokerEpoch,
        /// What it lacks. What is not there, or is not its own, is passed over.
        partitions: Vec<(TopicId, u32)>,
    },
    /// Has a partition move to other brokers. It ends by itself once all of them are in sync; another move takes its place.
    MovePartition {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: u32,
        /// Where it shall lie, preferred leader first.
        replicas: Vec<BrokerId>,
    },
    /// Takes a partition back to where it was before its move.
    CancelMove {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: u32,
    },
    /// Ends a move whose target is in sync and leads: the brokers that it leaves know that they lead no more.
    FinishMove {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: u32,
        /// The state that was decided upon.
        partition_epoch: i32,
    },
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// An id that no topic has had.
        id: TopicId,
        /// The replicas of each partition, preferred leader first.
        assignments: Vec<Vec<BrokerId>>,
        /// Checked settings.
        settings: Vec<(String, String)>,
    },
    /// Removes a topic and its records.
    DeleteTopic {
        /// The topic.
        topic: TopicId,
    },
    /// Adds partitions behind those there are.
    AddPartitions {
        /// The topic.
        topic: TopicId,
        /// How many there must be now.
        count_now: u32,
        /// The replicas of each new partition, preferred leader first.
        assignments: Vec<Vec<BrokerId>>,
    },
    /// Changes settings of one resource: all of them or none.
    SetConfig {
        /// Of what.
        resource: ConfigResource,
        /// The changes, each of another name.
        changes: Vec<ConfigChange>,
    },
    /// A leader states which replicas are in sync.
    ChangeIsr {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: u32,
        /// The leader that says so.
        leader: BrokerId,
        /// Its epoch as the leader knows it.
        leader_epoch: LeaderEpoch,
        /// The state the leader decided upon.
        partition_epoch: i32,
        /// The set, each with the registration that was in sync.
        isr: Vec<(BrokerId, BrokerEpoch)>,
    },
    /// Gives a partition a leader.
    ElectLeader {
        /// The topic.
        topic: TopicId,
        /// The partition.
        partition: u32,
        /// Whom.
        election: Election,
    },
    /// Sets producer ids aside for a broker to give out.
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// Of the registration that is meant.
        epoch: BrokerEpoch,
        /// How many.
        count: u32,
    },
    /// Lets the cluster use what brokers of this level know.
    SetFeatureLevel {
        /// The level; it never falls.
        level: u16,
    },
}

impl Command {
    /// The feature level that a cluster must have for it: programs below do not know it.
    #[must_use]
    pub fn feature_level(&self) -> u16 {
        match self {
            Command::BeginShutdown { .. }
            | Command::RemoveBroker { .. }
            | Command::LoseReplicas { .. }
            | Command::MovePartition { .. }
            | Command::CancelMove { .. }
            | Command::FinishMove { .. } => MOVES_FEATURE_LEVEL,
            _ => FIRST_FEATURE_LEVEL,
        }
    }
}

/// What settings belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic.
    Topic(TopicId),
    /// One broker.
    Broker(BrokerId),
    /// All brokers.
    Cluster,
}

/// One setting that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its name.
    pub name: String,
    /// Its value, checked by whoever proposes; `None` takes the setting back to its default.
    pub value: Option<String>,
    /// What it must be now: a value made from the one before must not be set over another that came between.
    pub only_over: ExpectedValue,
}

/// A condition on the value that a change replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedValue {
    /// None.
    Any,
    /// It is not set.
    Unset,
    /// It is set to this.
    Is(String),
}

/// Which leader is to be elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The preferred one, the first replica.
    Preferred,
    /// Where there is none: the first live replica in sync.
    InSync,
    /// Where there is none and none can be in sync: the first live replica, whatever it lacks is lost.
    Unclean,
}

/// What a command that was carried out answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Nothing to tell.
    Done,
    /// A broker is registered.
    BrokerRegistered {
        /// Its epoch from now on.
        epoch: BrokerEpoch,
    },
    /// The in-sync set is as proposed.
    IsrChanged {
        /// The partition's epoch from now on.
        partition_epoch: i32,
    },
    /// A partition has the leader that was asked for.
    LeaderElected {
        /// The leader.
        leader: BrokerId,
        /// Its epoch.
        leader_epoch: LeaderEpoch,
    },
    /// Producer ids that nobody else has.
    ProducerIds {
        /// The first of them.
        first: ProducerId,
        /// How many.
        count: u32,
    },
}

/// Why a command was not carried out. The image is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is a topic of this name.
    #[error("topic '{name}' already exists")]
    TopicExists {
        /// The name.
        name: String,
    },
    /// There is a topic with this id.
    #[error("topic id {id} is in use")]
    TopicIdInUse {
        /// The id.
        id: TopicId,
    },
    /// The name cannot be a topic's.
    #[error("{reason}")]
    InvalidTopicName {
        /// Why.
        reason: String,
    },
    /// Metrics could not tell the two names apart.
    #[error("topic '{name}' collides with existing topic '{existing}': '.' and '_' are one in metric names")]
    TopicNameCollides {
        /// The name asked for.
        name: String,
        /// The topic there is.
        existing: String,
    },
    /// There is no such topic.
    #[error("there is no topic with id {id}")]
    UnknownTopic {
        /// The id.
        id: TopicId,
    },
    /// The topic has no such partition.
    #[error("topic '{topic}' has no partition {partition}")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A topic has at least one partition, and a command adds at least one.
    #[error("the number of partitions must be larger than 0")]
    NoPartitions,
    /// The topic has another number of partitions than the command was made for.
    #[error("topic '{topic}' has {actual} partitions, not {expected}")]
    PartitionCountDiffers {
        /// The topic's name.
        topic: String,
        /// What the command was made for.
        expected: u32,
        /// What there are.
        actual: u32,
    },
    /// A partition cannot be placed so.
    #[error("partition {partition} cannot be placed: {reason}")]
    InvalidAssignment {
        /// The partition.
        partition: u32,
        /// Why.
        reason: String,
    },
    /// Something is larger than it may be.
    #[error("{what}: {actual} exceeds the limit of {limit}")]
    LimitExceeded {
        /// What.
        what: Cow<'static, str>,
        /// How large it is.
        actual: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The broker has never registered.
    #[error("broker {broker} is not registered")]
    UnknownBroker {
        /// The broker.
        broker: BrokerId,
    },
    /// The broker has registered again since.
    #[error("epoch {given} of broker {broker} is not its current one, {current}")]
    StaleBrokerEpoch {
        /// The broker.
        broker: BrokerId,
        /// What the command says.
        given: BrokerEpoch,
        /// What is true.
        current: BrokerEpoch,
    },
    /// The broker that proposes does not lead the partition.
    #[error("broker {broker} does not lead the partition")]
    NotLeader {
        /// The broker.
        broker: BrokerId,
        /// Who does.
        leader: Option<BrokerId>,
    },
    /// The leader was elected in another epoch.
    #[error("leader epoch {given} is not the current one, {current}")]
    StaleLeaderEpoch {
        /// What the command says.
        given: LeaderEpoch,
        /// What is true.
        current: LeaderEpoch,
    },
    /// The partition has changed since the command was made.
    #[error("partition epoch {given} is not the current one, {current}")]
    StalePartitionEpoch {
        /// What the command says.
        given: i32,
        /// What is true.
        current: i32,
    },
    /// The set cannot be the partition's in-sync set.
    #[error("invalid in-sync set: {reason}")]
    InvalidIsr {
        /// Why.
        reason: String,
    },
    /// A member of the proposed in-sync set may not be in it now.
    #[error("broker {broker} may not be in sync: {reason}")]
    IneligibleReplica {
        /// The broker.
        broker: BrokerId,
        /// Why.
        reason: Cow<'static, str>,
    },
    /// The partition has the leader that the election would give it.
    #[error("the partition needs no election")]
    ElectionNotNeeded,
    /// The preferred leader is fenced or not in sync.
    #[error("the preferred leader {broker} is not available")]
    PreferredLeaderNotAvailable {
        /// The preferred leader.
        broker: BrokerId,
    },
    /// Nobody may be elected.
    #[error("no replica may be elected leader")]
    NoEligibleLeader,
    /// The setting is not what the change was made for.
    #[error("setting '{name}' has been changed since; read it and try again")]
    ConfigChanged {
        /// The setting.
        name: String,
    },
    /// A name is changed twice in one command.
    #[error("setting '{name}' is named more than once")]
    DuplicateConfig {
        /// The setting.
        name: String,
    },
    /// Every producer id has been given out.
    #[error("there are no producer ids left")]
    ProducerIdsExhausted,
    /// A registered broker cannot work at this level.
    #[error("broker {broker} works at feature levels {lowest} to {highest}, not at {level}")]
    UnsupportedFeatureLevel {
        /// The level asked for, or the cluster's.
        level: u16,
        /// The broker.
        broker: BrokerId,
        /// Its lowest level.
        lowest: u16,
        /// Its highest level.
        highest: u16,
    },
    /// The command needs a level that the cluster has not reached.
    #[error(
        "this needs feature level {needed}, and the cluster is at {current}: start every broker with this program"
    )]
    NeedsFeatureLevel {
        /// What it needs.
        needed: u16,
        /// The level in use.
        current: u16,
    },
    /// The broker had another disk when it registered before.
    #[error(
        "broker {broker} is known with directory {registered}, not {given}: it has another disk; remove the broker from the \
         cluster first, or give it back its directory"
    )]
    OtherDirectory {
        /// The broker.
        broker: BrokerId,
        /// The directory it is known with.
        registered: uuid::Uuid,
        /// The one it came with.
        given: uuid::Uuid,
    },
    /// A broker that takes part cannot be removed.
    #[error("broker {broker} is not fenced; stop it first")]
    BrokerNotFenced {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker that holds partitions cannot be removed.
    #[error("broker {broker} holds {partitions} partitions; move them to other brokers first")]
    BrokerHoldsReplicas {
        /// The broker.
        broker: BrokerId,
        /// How many.
        partitions: usize,
    },
    /// The change would leave nobody who has everything that was acknowledged.
    #[error(
        "broker {broker} alone is in sync; what the others lack would be lost. Start it again, or give that up by an unclean election \
         first"
    )]
    LosesInSync {
        /// A replica in sync that would go.
        broker: BrokerId,
    },
    /// The partition does not move, or not so far that its move could end.
    #[error("the partition has no move that could be {what}")]
    NoMove {
        /// What was asked.
        what: Cow<'static, str>,
    },
    /// The level is below the one in use.
    #[error("feature level {level} is below the one in use, {current}")]
    FeatureLevelMayNotFall {
        /// The level asked for.
        level: u16,
        /// The level in use.
        current: u16,
    },
}
