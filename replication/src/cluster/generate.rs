//! Commands by chance, for properties: few brokers, topics and epochs, so that they meet.

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, TopicId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::apply;
use super::command::{Command, ConfigChange, ConfigResource, Election, ExpectedValue};
use super::image::{ClusterImage, Endpoint, InSyncDefaults};

fn broker() -> impl Strategy<Value = BrokerId> {
    (0..4).prop_map(BrokerId)
}

/// Versions are small in these runs, and so are the epochs made of them.
fn broker_epoch() -> impl Strategy<Value = BrokerEpoch> {
    prop_oneof![(0i64..40).prop_map(BrokerEpoch), any::<i64>().prop_map(BrokerEpoch)]
}

pub(crate) fn topic_id() -> impl Strategy<Value = TopicId> {
    (2u128..8).prop_filter_map("reserved", |n| TopicId::from_bytes(n.to_be_bytes()).ok())
}

fn name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 8] = ["a", "b", "a.b", "a_b", "", "..", "__consumer_offsets", "no spaces"];
    proptest::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn settings() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((setting_name(), setting_value()), 0..3)
}

fn setting_name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 4] = ["retention.ms", "floodmark.sync", "min.insync.replicas", "anything"];
    proptest::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn setting_value() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[0-9]{0,2}", 1 => Just("ack".to_owned()), 1 => Just("none".to_owned())]
}

fn assignments() -> impl Strategy<Value = Vec<Vec<BrokerId>>> {
    vec(vec(broker(), 0..4), 0..4)
}

fn config_change() -> impl Strategy<Value = ConfigChange> {
    let expected = prop_oneof![
        4 => Just(ExpectedValue::Any),
        1 => Just(ExpectedValue::Unset),
        1 => setting_value().prop_map(ExpectedValue::Is),
    ];
    (setting_name(), option::of(setting_value()), expected)
        .prop_map(|(name, value, only_over)| ConfigChange { name, value, only_over })
}

fn resource() -> impl Strategy<Value = ConfigResource> {
    prop_oneof![
        topic_id().prop_map(ConfigResource::Topic),
        broker().prop_map(ConfigResource::Broker),
        Just(ConfigResource::Cluster),
    ]
}

fn election() -> impl Strategy<Value = Election> {
    prop_oneof![Just(Election::Preferred), Just(Election::InSync), Just(Election::Unclean)]
}

fn register() -> impl Strategy<Value = Command> {
    let rack = option::of(proptest::sample::select(&["east", "west"][..]).prop_map(str::to_owned));
    let levels = prop_oneof![5 => Just((1u16, 3u16)), 1 => (0u16..3, 0u16..5)];
    let directories = vec((0u128..2).prop_map(uuid::Uuid::from_u128), 0..2);
    let defaults = proptest::bool::weighted(0.9);
    let defaults = (defaults, 0u32..4)
        .prop_map(|(is_synced, min_insync_replicas)| InSyncDefaults { is_synced, min_insync_replicas });
    let defaults = option::weighted(0.9, defaults);
    (broker(), 0u128..3, rack, any::<u16>(), levels, directories, defaults).prop_map(
        |(broker, incarnation, rack, port, feature_levels, directories, in_sync_defaults)| {
            Command::RegisterBroker {
                broker,
                incarnation: uuid::Uuid::from_u128(incarnation),
                rack,
                endpoints: vec![Endpoint { listener: "PLAINTEXT".to_owned(), host: "h".to_owned(), port }],
                feature_levels,
                directories,
                in_sync_defaults,
            }
        },
    )
}

/// Of those that need feature level 2.
fn of_moves() -> impl Strategy<Value = Command> {
    let partition = || (topic_id(), 0u32..3);
    prop_oneof![
        (broker(), broker_epoch()).prop_map(|(broker, epoch)| Command::BeginShutdown { broker, epoch }),
        (broker(), any::<bool>())
            .prop_map(|(broker, keeps_replicas)| Command::RemoveBroker { broker, keeps_replicas }),
        (broker(), broker_epoch(), vec(partition(), 0..4))
            .prop_map(|(broker, epoch, partitions)| { Command::LoseReplicas { broker, epoch, partitions } }),
        (partition(), vec(broker(), 0..4)).prop_map(|((topic, partition), replicas)| {
            Command::MovePartition { topic, partition, replicas }
        }),
        partition().prop_map(|(topic, partition)| Command::CancelMove { topic, partition }),
        (partition(), -1i32..6).prop_map(|((topic, partition), partition_epoch)| {
            Command::FinishMove { topic, partition, partition_epoch }
        }),
    ]
}

fn change_isr() -> impl Strategy<Value = Command> {
    (topic_id(), 0u32..3, broker(), -1i32..4, -1i32..4, vec((broker(), broker_epoch()), 0..4)).prop_map(
        |(topic, partition, leader, leader_epoch, partition_epoch, isr)| Command::ChangeIsr {
            topic,
            partition,
            leader,
            leader_epoch: LeaderEpoch(leader_epoch),
            partition_epoch,
            isr,
        },
    )
}

/// Any command, sensible or not.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => register(),
        1 => (broker(), broker_epoch()).prop_map(|(broker, epoch)| Command::FenceBroker { broker, epoch }),
        2 => (broker(), broker_epoch()).prop_map(|(broker, epoch)| Command::UnfenceBroker { broker, epoch }),
        4 => (name(), topic_id(), assignments(), settings()).prop_map(
            |(name, id, assignments, settings)| Command::CreateTopic { name, id, assignments, settings }
        ),
        1 => topic_id().prop_map(|topic| Command::DeleteTopic { topic }),
        1 => (topic_id(), 0u32..4, assignments()).prop_map(
            |(topic, count_now, assignments)| Command::AddPartitions { topic, count_now, assignments }
        ),
        1 => (resource(), vec(config_change(), 0..3))
            .prop_map(|(resource, changes)| Command::SetConfig { resource, changes }),
        2 => change_isr(),
        1 => (topic_id(), 0u32..3, election()).prop_map(
            |(topic, partition, election)| Command::ElectLeader { topic, partition, election }
        ),
        1 => (broker(), broker_epoch(), any::<u32>()).prop_map(
            |(broker, epoch, count)| Command::AllocateProducerIds { broker, epoch, count }
        ),
        1 => any::<u16>().prop_map(|level| Command::SetFeatureLevel { level }),
        5 => of_moves(),
    ]
}

/// What a command is to name instead, so that it meets what the image holds: an epoch that is current, the leader's own word.
fn made_current(image: &ClusterImage, command: Command) -> Command {
    let current = |broker: BrokerId, epoch| image.broker(broker).map_or(epoch, |b| b.epoch);
    match command {
        Command::FenceBroker { broker, epoch } => {
            Command::FenceBroker { broker, epoch: current(broker, epoch) }
        }
        Command::UnfenceBroker { broker, epoch } => {
            Command::UnfenceBroker { broker, epoch: current(broker, epoch) }
        }
        Command::BeginShutdown { broker, epoch } => {
            Command::BeginShutdown { broker, epoch: current(broker, epoch) }
        }
        Command::LoseReplicas { broker, epoch, partitions } => {
            Command::LoseReplicas { broker, epoch: current(broker, epoch), partitions }
        }
        Command::FinishMove { topic, partition, partition_epoch } => {
            let held = image.topic_by_id(topic).and_then(|t| t.partition(partition));
            let partition_epoch = held.map_or(partition_epoch, |held| held.partition_epoch);
            Command::FinishMove { topic, partition, partition_epoch }
        }
        Command::AllocateProducerIds { broker, epoch, count } => {
            Command::AllocateProducerIds { broker, epoch: current(broker, epoch), count }
        }
        Command::ChangeIsr { topic, partition, leader, leader_epoch, partition_epoch, isr } => {
            let isr: Vec<_> = isr.into_iter().map(|(b, e)| (b, current(b, e))).collect();
            match image.topic_by_id(topic).and_then(|t| t.partition(partition)) {
                Some(held) => Command::ChangeIsr {
                    topic,
                    partition,
                    leader: held.leader.unwrap_or(leader),
                    leader_epoch: held.leader_epoch,
                    partition_epoch: held.partition_epoch,
                    isr,
                },
                None => Command::ChangeIsr { topic, partition, leader, leader_epoch, partition_epoch, isr },
            }
        }
        other => other,
    }
}

/// Commands, most of which name what is current when their turn comes. Most sequences begin at a higher level than the first.
pub(crate) fn commands() -> impl Strategy<Value = Vec<(bool, Command)>> {
    let level = prop_oneof![1 => Just(1), 2 => Just(2), 4 => Just(3)];
    (level, vec((proptest::bool::weighted(0.8), command()), 0..60)).prop_map(|(level, mut commands)| {
        commands.insert(0, (false, Command::SetFeatureLevel { level }));
        commands
    })
}

/// Applies commands in turn and shows each step.
pub(crate) fn run(
    commands: Vec<(bool, Command)>,
    mut look: impl FnMut(&ClusterImage, &Command, &ClusterImage),
) -> ClusterImage {
    let mut image = ClusterImage::new(floodmark_proto::ids::ClusterId::from_bytes([3; 16]));
    for (is_current, command) in commands {
        let command = if is_current { made_current(&image, command) } else { command };
        let (next, _) = apply(&image, &command);
        look(&image, &command, &next);
        image = next;
    }
    image
}
