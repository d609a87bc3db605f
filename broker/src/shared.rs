//! What all connections of one broker share.

use std::sync::Arc;

use floodmark_replication::vital::Vitals;
use floodmark_storage::clock::Clock;

use crate::admission::{ByteBudget, ConnectionLimits};
use crate::cluster::Cluster;
use crate::config::BrokerConfig;
use crate::groups::Coordinator;
use crate::grpc::Api;
use crate::kafka::dispatch::SERVED;
use crate::kafka::fetch_sessions::{FetchSessions, SessionLimits};
use crate::metrics::{Metrics, SeriesMax, State};
use crate::ops::fetch::AnswerMemory;
use crate::ops::groups;
use crate::ops::producer_ids::ProducerIds;
use crate::readiness::Readiness;
use crate::shutdown::Drain;

/// The broker, as requests see it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Clock,
    /// What the cluster has agreed on, and the partitions that this broker holds.
    pub(crate) cluster: Cluster,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) answer_memory: Arc<AnswerMemory>,
    pub(crate) groups: Coordinator,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) ground: Ground,
}

impl Shared {
    pub(crate) fn new(config: BrokerConfig, clock: Clock, cluster: Cluster, ground: Ground) -> Shared {
        let fetch_sessions = FetchSessions::new(SessionLimits::default(), cluster.random().clone());
        let random = cluster.random().clone();
        let groups = groups::coordinator(
            &config,
            clock.clone(),
            random,
            cluster.lease().clone(),
            ground.vitals.clone(),
        );
        Shared {
            config,
            clock,
            cluster,
            fetch_sessions,
            answer_memory: Arc::default(),
            groups,
            producer_ids: ProducerIds::default(),
            ground,
        }
    }
}

impl Shared {
    /// What a scrape of the metrics looks at.
    pub(crate) fn observed(&self) -> State {
        let most = |max: i32| usize::try_from(max).unwrap_or(0);
        State {
            quorum: self.cluster.quorum().clone(),
            registry: self.cluster.registry().clone(),
            groups: self.groups.clone(),
            clock: self.clock.clone(),
            file_settings: self.cluster.file_settings().clone(),
            series_max: SeriesMax {
                partitions: most(self.config.metrics_partitions_max),
                group_offsets: most(self.config.metrics_group_offsets_max),
            },
        }
    }
}

/// What is there before the broker is a member of its cluster; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) metrics: Arc<Metrics>,
    /// Places for connections, of all doors together.
    pub(crate) connections: Arc<ConnectionLimits>,
    /// Memory for requests, of all doors together.
    pub(crate) request_bytes: ByteBudget,
    /// Begins when the broker stops.
    pub(crate) drain: Drain,
    pub(crate) readiness: Arc<Readiness>,
    /// What the broker cannot be without.
    pub(crate) vitals: Vitals,
}

impl Ground {
    pub(crate) fn new(config: &BrokerConfig) -> Ground {
        let drain = Drain::default();
        let [total, per_address] = [config.max_connections, config.max_connections_per_ip]
            .map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        Ground {
            metrics: Arc::new(Metrics::new(
                SERVED.iter().map(|api| api.key.name()),
                Api::ALL.iter().map(|api| api.name()),
            )),
            connections: ConnectionLimits::new(total, per_address),
            request_bytes: ByteBudget::new(config.queued_request_bytes_max.as_usize()),
            readiness: Arc::new(Readiness::new(drain.clone())),
            drain,
            vitals: Vitals::default(),
        }
    }
}
