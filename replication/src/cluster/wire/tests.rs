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
