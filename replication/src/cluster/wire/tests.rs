//! What is written is read again, and what is not understood is refused.

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, ProducerId};
use proptest::prelude::*;

use super::super::generate::{command, commands, run};
use super::*;

proptest! {
    #[test]
    fn commands_come_back(command in command()) {
        let bytes = Bytes::from(command_to_pb(&command).encode_to_vec());
        prop_assert_eq!(bytes.len(), command_len(&command));
        prop_assert_eq!(command_from_pb(decode("command", bytes).unwrap()), Ok(command));
    }

    #[test]
    fn images_come_back_and_always_as_the_same_bytes(commands in commands()) {
        let image = run(commands, |_, _, _| {});
        let bytes = Bytes::from(image_to_pb(&image).encode_to_vec());
        let read = image_from_pb(decode("image", bytes.clone()).unwrap()).unwrap();
        prop_assert_eq!(&read, &image);
        prop_assert_eq!(image_to_pb(&read).encode_to_vec(), bytes);
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_panic(command in command(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = command_to_pb(&command).encode_to_vec();
        let at = at % bytes.len().max(1);
        if let Some(changed) = bytes.get_mut(at) {
            *changed = byte;
        }
        // Either outcome will do: a changed name is as good as the one before.
        if let Ok(message) = decode::<pb::Command>("command", bytes.clone().into()) {
            let _ = command_from_pb(message);
        }
        if let Ok(message) = decode::<pb::Image>("image", bytes.into()) {
            let _ = image_from_pb(message);
        }
    }
}

#[test]
fn outputs_come_back() {
    for output in [
        Output::Done,
        Output::BrokerRegistered { epoch: BrokerEpoch(7) },
        Output::IsrChanged { partition_epoch: 3 },
        Output::LeaderElected { leader: BrokerId(2), leader_epoch: LeaderEpoch(5) },
        Output::ProducerIds { first: ProducerId(1000), count: 1000 },
    ] {
        assert_eq!(output_from_pb(output_to_pb(&output)), Ok(output));
    }
}

/// One of each, by what the command list may be refused for.
fn refusals() -> Vec<CommandError> {
    use CommandError as E;
    let id = floodmark_proto::ids::TopicId::from_bytes([7; 16]).unwrap();
    let (broker, text) = (BrokerId(4), || "x".to_owned());
    vec![
        E::TopicExists { name: text() },
        E::TopicIdInUse { id },
        E::InvalidTopicName { reason: text() },
        E::TopicNameCollides { name: text(), existing: "y".to_owned() },
        E::UnknownTopic { id },
        E::UnknownPartition { topic: text(), partition: 3 },
        E::NoPartitions,
        E::PartitionCountDiffers { topic: text(), expected: 1, actual: 2 },
        E::InvalidAssignment { partition: 3, reason: text() },
        E::LimitExceeded { what: "things".into(), actual: 5, limit: 4 },
        E::UnknownBroker { broker },
        E::StaleBrokerEpoch { broker, given: BrokerEpoch(1), current: BrokerEpoch(2) },
        E::NotLeader { broker, leader: None },
        E::NotLeader { broker, leader: Some(BrokerId(0)) },
        E::StaleLeaderEpoch { given: LeaderEpoch(1), current: LeaderEpoch(2) },
        E::StalePartitionEpoch { given: 1, current: 2 },
        E::InvalidIsr { reason: text() },
        E::IneligibleReplica { broker, reason: "it is fenced".into() },
        E::ElectionNotNeeded,
        E::PreferredLeaderNotAvailable { broker },
        E::NoEligibleLeader,
        E::ConfigChanged { name: text() },
        E::DuplicateConfig { name: text() },
        E::ProducerIdsExhausted,
        E::UnsupportedFeatureLevel { level: 3, broker, lowest: 1, highest: 2 },
        E::FeatureLevelMayNotFall { level: 1, current: 2 },
        E::NeedsFeatureLevel { needed: 2, current: 1 },
        E::OtherDirectory { broker, registered: uuid::Uuid::from_u128(1), given: uuid::Uuid::from_u128(2) },
        E::BrokerNotFenced { broker },
        E::BrokerHoldsReplicas { broker, partitions: 9 },
        E::LosesInSync { broker },
        E::NoMove { what: "cancelled".into() },
    ]
}

#[test]
fn refusals_come_back() {
    for refusal in refusals() {
        let bytes = Bytes::from(refusal_to_pb(&refusal).encode_to_vec());
        assert_eq!(refusal_from_pb(decode("refusal", bytes).unwrap()), Ok(refusal));
    }
    let nothing = refusal_from_pb(pb::Refusal::default());
    assert_eq!(nothing, Err(WireError::Missing { what: "a refusal's reason" }));
}

/// As a program of the first level wrote them: fields that came later are not there.
#[test]
fn commands_and_images_of_the_first_level_are_read() {
    let register = [
        // register_broker { broker: 1, incarnation: [1; 16], feature levels 1 to 1 }
        &[0x0a, 24, 0x08, 1, 0x12, 16][..],
        &[1; 16],
        &[0x28, 1, 0x30, 1],
    ]
    .concat();
    let command = command_from_pb(decode("command", register.into()).unwrap()).unwrap();
    let Command::RegisterBroker { feature_levels, directories, in_sync_defaults, .. } = &command else {
        panic!()
    };
    assert_eq!((*feature_levels, directories.len(), *in_sync_defaults), ((1, 1), 0, None));
    let image = [
        // cluster_id, version 3, feature_level 1
        &[0x0a, 16][..],
        &[9; 16],
        &[0x10, 3, 0x18, 1],
        // brokers { id: 1, incarnation: [1; 16], epoch: 0, feature levels 1 to 1 }
        &[0x32, 24, 0x08, 1, 0x12, 16],
        &[1; 16],
        &[0x38, 1, 0x40, 1],
        // topics { id, name: "t", partitions { replicas: [1], isr: [1], leader: 1 } }
        &[0x4a, 31, 0x0a, 16],
        &[5; 16],
        &[0x12, 1, b't', 0x1a, 8, 0x0a, 1, 1, 0x12, 1, 1, 0x18, 1],
    ]
    .concat();
    let image = image_from_pb(decode("image", image.into()).unwrap()).unwrap();
    assert_eq!(image.feature_level(), 1);
    let broker = image.broker(BrokerId(1)).unwrap();
    assert!(!broker.stopping && broker.directories.is_empty() && broker.in_sync_defaults.is_none());
    assert!(!image.topic("t").unwrap().is_synced);
    let partition = image.topic("t").unwrap().partition(0).unwrap();
    assert!(!partition.is_moving() && !partition.is_lost);
    assert_eq!(partition.leader, Some(BrokerId(1)));
}

#[test]
fn what_a_newer_program_wrote_is_an_error_and_not_nothing() {
    // Field 99 of the oneof: prost leaves the change empty.
    let unknown = [0x98, 0x06, 0x01];
    let command: pb::Command = decode("command", Bytes::copy_from_slice(&unknown)).unwrap();
    assert!(matches!(command_from_pb(command), Err(WireError::Missing { .. })));
    let output: pb::Output = decode("output", Bytes::copy_from_slice(&unknown)).unwrap();
    assert!(matches!(output_from_pb(output), Err(WireError::Missing { .. })));
    let election = pb::ElectLeader { topic: vec![9; 16].into(), partition: 0, election: 9 };
    let command = pb::Command { change: Some(pb::command::Change::ElectLeader(election)) };
    assert_eq!(command_from_pb(command), Err(WireError::Value { what: "an election", value: 9 }));
}

#[test]
fn values_that_cannot_be_are_refused() {
    use pb::command::Change;
    let with = |change| command_from_pb(pb::Command { change: Some(change) });
    let short = with(Change::DeleteTopic(vec![1; 15].into()));
    assert_eq!(short, Err(WireError::Identifier { what: "a topic id" }));
    let reserved = with(Change::DeleteTopic(vec![0; 16].into()));
    assert_eq!(reserved, Err(WireError::Identifier { what: "a topic id" }));
    let level = with(Change::SetFeatureLevel(70_000));
    assert_eq!(level, Err(WireError::Value { what: "a feature level", value: 70_000 }));
    let lonely = with(Change::SetConfig(pb::SetConfig { resource: None, changes: Vec::new() }));
    assert_eq!(lonely, Err(WireError::Missing { what: "what settings belong to" }));
    let twice = pb::Image {
        cluster_id: vec![1; 16].into(),
        cluster_settings: vec![pb::Setting::default(), pb::Setting::default()],
        ..pb::Image::default()
    };
    assert!(matches!(image_from_pb(twice), Err(WireError::Twice { what: "setting", .. })));
    assert_eq!(image_from_pb(pb::Image::default()), Err(WireError::Identifier { what: "a cluster id" }));
}
