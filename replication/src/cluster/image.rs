//! The state of the cluster at one moment: immutable, shared, cheap to copy. Changed by `apply` alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, ProducerId, TopicId};

use super::sorted_map::SortedMap;

/// The first level of what is kept in images; rises where a newer program needs a command or field that an older one lacks.
pub const FIRST_FEATURE_LEVEL: u16 = 1;

/// The level from which brokers name their directories, stop in two steps and lose replicas, and partitions move.
pub const MOVES_FEATURE_LEVEL: u16 = 2;

/// The level from which it is known of topics whether their records were always synced before they counted, and replicas stay in sync on
/// the strength of it.
pub const STAYING_FEATURE_LEVEL: u16 = 3;

/// Names and values of settings that somebody set; what is not in it has its default.
pub type Settings = BTreeMap<String, String>;

/// Everything the cluster has agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterImage {
    pub(super) cluster_id: ClusterId,
    pub(super) version: u64,
    pub(super) feature_level: u16,
    pub(super) next_producer_id: ProducerId,
    /// Above every leader epoch of a topic that was deleted: a topic made again under its name goes on from here, because
    /// clients drop what they learn of a leader with an older epoch.
    pub(super) first_leader_epoch: LeaderEpoch,
    pub(super) brokers: Arc<BTreeMap<BrokerId, Arc<Broker>>>,
    pub(super) broker_settings: Arc<BTreeMap<BrokerId, Arc<Settings>>>,
    pub(super) cluster_settings: Arc<Settings>,
    pub(super) topics: SortedMap<Arc<str>, Arc<Topic>>,
    pub(super) topics_by_id: SortedMap<TopicId, Arc<Topic>>,
    /// Names with '.' or '_' in them, under what metrics make of them: two that agree there may not coexist.
    pub(super) metric_names: SortedMap<Arc<str>, Arc<str>>,
}

/// A broker that has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: BrokerId,
    /// Which start of the process this is; made by chance at each start.
    pub incarnation: uuid::Uuid,
    /// Rises with each registration.
    pub epoch: BrokerEpoch,
    /// A fenced broker leads nothing and joins no in-sync set: it is starting, has stopped, or is not heard of.
    pub fenced: bool,
    /// A stopping broker gets no leadership and joins no in-sync set. What it leads goes to others where they can take it.
    pub stopping: bool,
    /// The identities of its data directories; the first one holds metadata, and stands for the broker. Empty where an older
    /// program registered it.
    pub directories: Vec<uuid::Uuid>,
    /// Where it stands; replicas are spread over racks.
    pub rack: Option<String>,
    /// Where clients and brokers reach it, one for each listener.
    pub endpoints: Vec<Endpoint>,
    /// Lowest and highest feature level that it can work with.
    pub feature_levels: (u16, u16),
    /// What it takes for topics of which nobody says otherwise. `None` where it registered before the cluster kept that.
    pub in_sync_defaults: Option<InSyncDefaults>,
}

/// A broker's own defaults for those topic settings on which it depends who is in sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InSyncDefaults {
    /// `floodmark.sync` is `ack`.
    pub is_synced: bool,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
}

/// An address under the name of its listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name.
    pub listener: String,
    /// Host name or address as clients are told it.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Never used by another topic, also not by one of the same name later.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, numbered from zero without gaps.
    pub partitions: SortedMap<u32, Partition>,
    /// What was set for it.
    pub settings: Arc<Settings>,
    /// Since it was made, no broker can have counted a record of it that was not synced: `floodmark.sync=ack` was in force everywhere.
    pub is_synced: bool,
}

/// Where one partition lies and who leads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The brokers that hold it; the first one is the preferred leader. While the partition moves, those it moves to and
    /// behind them those that it leaves.
    pub replicas: Arc<[BrokerId]>,
    /// Those of them that have everything that was acknowledged. Where the topic's records were always synced, fenced brokers among them.
    pub isr: Arc<[BrokerId]>,
    /// Those of the replicas that get the partition by a move that is under way.
    pub adding: Arc<[BrokerId]>,
    /// Those of the replicas that lose it when the move ends.
    pub removing: Arc<[BrokerId]>,
    /// The last replica in sync has lost what it held. Nobody leads until an operator orders an unclean election.
    pub is_lost: bool,
    /// The one that takes writes.
    pub leader: Option<BrokerId>,
    /// Rises with each change of leader, never goes back.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of anything here.
    pub partition_epoch: i32,
}

impl ClusterImage {
    /// The image of a cluster of which nothing is known but its id.
    #[must_use]
    pub fn new(cluster_id: ClusterId) -> ClusterImage {
        ClusterImage {
            cluster_id,
            version: 0,
            feature_level: FIRST_FEATURE_LEVEL,
            next_producer_id: ProducerId(0),
            first_leader_epoch: LeaderEpoch(0),
            brokers: Arc::default(),
            broker_settings: Arc::default(),
            cluster_settings: Arc::default(),
            topics: SortedMap::default(),
            topics_by_id: SortedMap::default(),
            metric_names: SortedMap::default(),
        }
    }

    /// Identity of the cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// How many commands have changed it. Of two images of a cluster the one with the higher version is the newer.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The level that all brokers have agreed to work at.
    #[must_use]
    pub fn feature_level(&self) -> u16 {
        self.feature_level
    }

    /// Every producer id before it has been given to some broker.
    #[must_use]
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// All brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// A broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// True for a registered broker that is not fenced.
    #[must_use]
    pub fn is_live(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced)
    }

    /// True for a live broker that is not about to stop: only such a one gets leaderships and new partitions.
    #[must_use]
    pub fn may_lead(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced && !broker.stopping)
    }

    /// True for a broker that a leader may take into an in-sync set.
    #[must_use]
    pub fn may_join_isr(&self, id: BrokerId) -> bool {
        self.may_lead(id)
    }

    /// What was set for one broker.
    #[must_use]
    pub fn broker_settings(&self, id: BrokerId) -> Option<&Arc<Settings>> {
        self.broker_settings.get(&id)
    }

    /// What was set for all brokers.
    #[must_use]
    pub fn cluster_settings(&self) -> &Arc<Settings> {
        &self.cluster_settings
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topics whose names are `name` or come after it.
    pub fn topics_from<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Topic>> {
        self.topics.iter_from(name).map(|(_, topic)| topic)
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics_by_id.get(&id)
    }

    /// Puts a topic in the place of the one with its id, or adds it.
    pub(crate) fn put_topic(&mut self, topic: Arc<Topic>) {
        if let Some(collides_as) = metric_name(&topic.name) {
            self.metric_names.insert(collides_as, Arc::clone(&topic.name));
        }
        self.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.topics_by_id.insert(topic.id, topic);
    }

    /// Takes a topic out.
    pub(super) fn remove_topic(&mut self, topic: &Topic) {
        if let Some(collides_as) = metric_name(&topic.name) {
            self.metric_names.remove(&*collides_as);
        }
        self.topics.remove(&*topic.name);
        self.topics_by_id.remove(&topic.id);
    }
}

impl Topic {
    /// A partition.
    #[must_use]
    pub fn partition(&self, index: u32) -> Option<&Partition> {
        self.partitions.get(&index)
    }
}

impl Partition {
    /// True while it moves.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The replicas that it has once its move has ended; where it does not move, those that it has.
    pub fn target(&self) -> impl Iterator<Item = BrokerId> + Clone {
        self.replicas.iter().copied().filter(|r| !self.removing.contains(r))
    }

    /// The replicas that it had before its move began, in an order that keeps the target's.
    pub fn origin(&self) -> impl Iterator<Item = BrokerId> + Clone {
        self.replicas.iter().copied().filter(|r| !self.adding.contains(r))
    }

    /// A member of the in-sync set that may lead, the preferred leader first.
    #[must_use]
    pub fn heir(&self, image: &ClusterImage) -> Option<BrokerId> {
        let can = |r: &BrokerId| self.isr.contains(r) && image.may_lead(*r);
        if self.is_lost { None } else { self.replicas.iter().copied().find(can) }
    }
}

/// What metrics make of a name in which '.' and '_' are the same; `None` where it has neither.
pub(super) fn metric_name(name: &str) -> Option<Arc<str>> {
    name.contains(['.', '_']).then(|| Arc::from(name.replace('.', "_")))
}
