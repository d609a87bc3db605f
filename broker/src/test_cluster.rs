//! Images of clusters, for tests of what is decided by looking at one.

use floodmark_proto::ids::{BrokerId, ClusterId, TopicId};
use floodmark_replication::cluster::{ClusterImage, Command, Output, apply};

/// Carries out what must succeed.
pub(crate) fn done(image: &mut ClusterImage, command: &Command) -> Output {
    let (next, outcome) = apply(image, command);
    *image = next;
    outcome.unwrap_or_else(|refused| panic!("{command:?}: {refused}"))
}

/// Live brokers 1 to `count`, without topics, at the highest feature level.
pub(crate) fn live(count: i32) -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([7; 16]));
    for id in 1..=count {
        let broker = BrokerId(id);
        let register = Command::RegisterBroker {
            broker,
            incarnation: uuid::Uuid::from_u128(id as u128),
            rack: None,
            endpoints: Vec::new(),
            feature_levels: floodmark_replication::quorum::FEATURE_LEVELS,
            directories: Vec::new(),
            in_sync_defaults: None,
        };
        let Output::BrokerRegistered { epoch } = done(&mut image, &register) else {
            panic!("not registered")
        };
        done(&mut image, &Command::UnfenceBroker { broker, epoch });
    }
    let level = floodmark_replication::quorum::FEATURE_LEVELS.1;
    done(&mut image, &Command::SetFeatureLevel { level });
    image
}

/// A topic with these replicas, all in sync.
pub(crate) fn create(image: &mut ClusterImage, name: &str, assignments: &[&[i32]]) {
    let of = |replicas: &&[i32]| replicas.iter().map(|id| BrokerId(*id)).collect();
    let id = TopicId::from_bytes([image.version() as u8; 16]).unwrap_or_else(|e| panic!("{e:?}"));
    let assignments = assignments.iter().map(of).collect();
    done(image, &Command::CreateTopic { name: name.to_owned(), id, assignments, settings: Vec::new() });
}
