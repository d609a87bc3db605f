//! A delta leads from the old image to the new one, and says no more than what differs.

use proptest::prelude::*;

use super::super::generate::{commands, run, topic_id};
use super::super::{Command, apply};
use super::*;

proptest! {
    #[test]
    fn applied_to_the_old_image_it_gives_the_new(commands in commands(), cut in 0usize..60) {
        let mut images = vec![];
        let last = run(commands, |before, _, _| images.push(before.clone()));
        let first = images.get(cut.min(images.len().saturating_sub(1))).unwrap_or(&last);
        let delta = ClusterDelta::between(first, &last);
        prop_assert_eq!(&delta.apply(first), &last);
        let nothing = ClusterDelta::between(&last, &last);
        prop_assert!(nothing.changes_no_topic_or_broker());
        prop_assert_eq!(&nothing.apply(&last), &last);
    }

    #[test]
    fn it_names_the_topics_that_differ(commands in commands(), topic in topic_id()) {
        run(commands, |before, _, after| {
            let delta = ClusterDelta::between(before, after);
            let (old, new) = (before.topic_by_id(topic), after.topic_by_id(topic));
            let named = delta.topics.iter().filter(|t| match t {
                TopicDelta::Created(t) | TopicDelta::Deleted(t) => t.id == topic,
                TopicDelta::Changed { old, new } => old.id == topic && new.id == topic,
            });
            assert_eq!(named.count(), usize::from(old != new));
        });
    }
}

/// A cluster of one live broker.
fn cluster() -> ClusterImage {
    let image = ClusterImage::new(floodmark_proto::ids::ClusterId::from_bytes([3; 16]));
    let broker = BrokerId(1);
    let register = Command::RegisterBroker {
        broker,
        incarnation: uuid::Uuid::from_u128(1),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: (1, 1),
        directories: Vec::new(),
        in_sync_defaults: None,
    };
    let image = done(&image, &register);
    let epoch = image.broker(broker).unwrap().epoch;
    done(&image, &Command::UnfenceBroker { broker, epoch })
}

fn done(image: &ClusterImage, command: &Command) -> ClusterImage {
    let (image, outcome) = apply(image, command);
    outcome.unwrap();
    image
}

fn create(n: u128, partitions: usize) -> Command {
    Command::CreateTopic {
        name: "t".to_owned(),
        id: floodmark_proto::ids::TopicId::from_bytes(n.to_be_bytes()).unwrap(),
        assignments: vec![vec![BrokerId(1)]; partitions],
        settings: Vec::new(),
    }
}

#[test]
fn a_topic_made_again_under_its_name_is_another() {
    let old = done(&cluster(), &create(5, 1));
    let topic = old.topic("t").unwrap().id;
    let new = done(&done(&old, &Command::DeleteTopic { topic }), &create(4, 1));
    let delta = ClusterDelta::between(&old, &new);
    assert!(matches!(&delta.topics[..], [TopicDelta::Created(_), TopicDelta::Deleted(_)]));
    assert_eq!(delta.apply(&old), new);
    assert!(
        new.topic("t").unwrap().partition(0).unwrap().leader_epoch
            > old.topic("t").unwrap().partition(0).unwrap().leader_epoch
    );
}

#[test]
fn it_says_which_partitions_and_whether_settings_changed() {
    let old = done(&cluster(), &create(5, 3));
    let topic = old.topic("t").unwrap().id;
    let more = Command::AddPartitions { topic, count_now: 3, assignments: vec![vec![BrokerId(1)]] };
    let new = done(&old, &more);
    let delta = ClusterDelta::between(&old, &new);
    assert_eq!(delta.topics[0].partitions(), [3]);
    assert!(!delta.topics[0].has_other_settings());
    assert!(delta.brokers.is_empty());
    let set = Command::SetConfig {
        resource: super::super::command::ConfigResource::Topic(topic),
        changes: vec![super::super::command::ConfigChange {
            name: "retention.ms".to_owned(),
            value: Some("1".to_owned()),
            only_over: super::super::command::ExpectedValue::Unset,
        }],
    };
    let delta = ClusterDelta::between(&new, &done(&new, &set));
    assert!(delta.topics[0].has_other_settings());
    assert!(delta.topics[0].partitions().is_empty());
}
