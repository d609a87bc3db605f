//! What is planned for a request, and the error of each mistake.

use floodmark_proto::ids::ClusterId;
use floodmark_replication::cluster::{Command, apply};

use super::*;

const NOTHING: &Settings = &Settings::new();
const DEFAULTS: TopicDefaults<'_> =
    TopicDefaults { broker: BrokerId(1), partitions: 3, replication_factor: 1, voters: 1, file: NOTHING };

/// A cluster of one live broker, number 1, with the topics `existing`, two partitions each.
fn cluster(existing: &[&str]) -> ClusterImage {
    cluster_of(1, existing)
}

/// The same with brokers from 1 to `brokers`; the topics are the first one's.
fn cluster_of(brokers: i32, existing: &[&str]) -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([7; 16]));
    let mut carry_out = |command: Command| {
        let (next, outcome) = apply(&image, &command);
        image = next;
        outcome.unwrap()
    };
    for broker in (1..=brokers).map(BrokerId) {
        let registered = carry_out(Command::RegisterBroker {
            broker,
            incarnation: uuid::Uuid::from_u128(1),
            rack: None,
            endpoints: Vec::new(),
            feature_levels: (1, 1),
            directories: Vec::new(),
            in_sync_defaults: None,
        });
        let floodmark_replication::cluster::Output::BrokerRegistered { epoch } = registered else {
            panic!("{registered:?}")
        };
        carry_out(Command::UnfenceBroker { broker, epoch });
    }
    let broker = BrokerId(1);
    for (n, name) in (10..).zip(existing) {
        carry_out(Command::CreateTopic {
            name: (*name).to_owned(),
            id: TopicId::from_bytes([n; 16]).unwrap(),
            assignments: vec![vec![broker]; 2],
            settings: Vec::new(),
        });
    }
    image
}

fn planned(topic: &NewTopic<'_>) -> Result<(usize, usize), ErrorCode> {
    let (assignments, settings) = plan(&cluster(&["there"]), topic, &DEFAULTS, 5).map_err(|e| e.code)?;
    assert!(assignments.iter().all(|replicas| *replicas == [BrokerId(1)]), "{assignments:?}");
    Ok((assignments.len(), settings.len()))
}

#[test]
fn what_the_maker_leaves_open_is_the_brokers_to_say() {
    let new = NewTopic { name: "new", ..Default::default() };
    assert_eq!(planned(&new), Ok((3, 0)));
    assert_eq!(
        planned(&NewTopic { partitions: Some(7), replication_factor: Some(1), ..new.clone() }),
        Ok((7, 0))
    );
    let settings = vec![("retention.ms", Some("1000")), ("cleanup.policy", Some("compact,delete"))];
    assert_eq!(planned(&NewTopic { settings, ..new }), Ok((3, 2)));
}

/// What comes of a topic about which nothing is said: replicas of each partition, and its settings.
fn automatic(
    brokers: i32,
    defaults: &TopicDefaults<'_>,
    topic: &NewTopic<'_>,
) -> Result<(usize, Vec<String>), ErrorCode> {
    let (assignments, settings) = plan(&cluster_of(brokers, &[]), topic, defaults, 5).map_err(|e| e.code)?;
    let settings = settings.into_iter().map(|(name, value)| format!("{name}={value}"));
    Ok((assignments[0].len(), settings.collect()))
}

#[test]
fn a_topic_has_as_many_replicas_as_the_cluster_can_give_up_to_three() {
    let new = NewTopic { name: "new", ..Default::default() };
    let majority = || vec!["min.insync.replicas=2".to_owned()];
    for (brokers, voters, expected) in [
        (1, 1, Ok((1, vec![]))),
        (2, 1, Ok((2, vec![]))),
        (3, 3, Ok((3, majority()))),
        (5, 3, Ok((3, majority()))),
        // The third one is not there yet: a topic with less than is due is not made in its absence.
        (2, 3, Err(ErrorCode::InvalidReplicationFactor)),
    ] {
        let defaults = TopicDefaults { replication_factor: 0, voters, ..DEFAULTS };
        assert_eq!(automatic(brokers, &defaults, &new), expected, "{brokers} of {voters}");
    }
}

#[test]
fn how_many_replicas_must_be_in_sync_is_left_to_whoever_has_said_it() {
    let defaults = TopicDefaults { replication_factor: 0, voters: 3, ..DEFAULTS };
    let new = NewTopic { name: "new", ..Default::default() };
    let said = NewTopic { settings: vec![(MIN_IN_SYNC, Some("1"))], ..new.clone() };
    assert_eq!(automatic(3, &defaults, &said), Ok((3, vec!["min.insync.replicas=1".to_owned()])));
    let file = Settings::from([(MIN_IN_SYNC.to_owned(), "3".to_owned())]);
    assert_eq!(automatic(3, &TopicDefaults { file: &file, ..defaults }, &new), Ok((3, vec![])));
    let two = NewTopic { replication_factor: Some(2), ..new.clone() };
    assert_eq!(automatic(3, &defaults, &two), Ok((2, vec![])));
    let by_hand = NewTopic { assignments: vec![(0, vec![1, 2, 3])], ..new };
    assert_eq!(automatic(3, &defaults, &by_hand).map(|(_, settings)| settings.len()), Ok(1));
}

#[test]
fn each_mistake_has_the_error_that_kafka_has_for_it() {
    let new = || NewTopic { name: "new", ..Default::default() };
    let set = |name, value| NewTopic { settings: vec![(name, value)], ..new() };
    let long = "a".repeat(250);
    for (topic, code) in [
        (NewTopic { name: "there", ..new() }, ErrorCode::TopicAlreadyExists),
        (NewTopic { name: "", ..new() }, ErrorCode::InvalidTopicException),
        (NewTopic { name: "..", ..new() }, ErrorCode::InvalidTopicException),
        (NewTopic { name: "a/b", ..new() }, ErrorCode::InvalidTopicException),
        (NewTopic { name: &long, ..new() }, ErrorCode::InvalidTopicException),
        (NewTopic { name: "__cluster_metadata", ..new() }, ErrorCode::InvalidRequest),
        (NewTopic { partitions: Some(0), ..new() }, ErrorCode::InvalidPartitions),
        (NewTopic { partitions: Some(-2), ..new() }, ErrorCode::InvalidPartitions),
        (NewTopic { partitions: Some(10_001), ..new() }, ErrorCode::PolicyViolation),
        (NewTopic { replication_factor: Some(0), ..new() }, ErrorCode::InvalidReplicationFactor),
        (NewTopic { replication_factor: Some(2), ..new() }, ErrorCode::InvalidReplicationFactor),
        (set("retention.ms", None), ErrorCode::InvalidConfig),
        (set("retention.ms", Some("soon")), ErrorCode::InvalidConfig),
        (set("retention", Some("1")), ErrorCode::InvalidConfig),
    ] {
        assert_eq!(planned(&topic), Err(code), "{topic:?}");
    }
}

#[test]
fn partitions_placed_by_hand_are_numbered_without_gaps_and_say_everything() {
    let by_hand = |assignments: &[(i32, Vec<i32>)]| NewTopic {
        name: "new",
        assignments: assignments.to_vec(),
        ..Default::default()
    };
    assert_eq!(planned(&by_hand(&[(1, vec![1]), (0, vec![1])])), Ok((2, 0)));
    for wrong in [&[(1, vec![1])][..], &[(0, vec![1]), (0, vec![1])], &[(-1, vec![1])]] {
        assert_eq!(planned(&by_hand(wrong)), Err(ErrorCode::InvalidReplicaAssignment), "{wrong:?}");
    }
    let both = NewTopic { partitions: Some(1), ..by_hand(&[(0, vec![1])]) };
    assert_eq!(planned(&both), Err(ErrorCode::InvalidRequest));
}

#[test]
fn partitions_are_only_added() {
    let image = cluster(&["there"]);
    let topic = find(&image, TopicKey::Name("there")).unwrap();
    let more = |count, assignments| MorePartitions { name: "there", count, assignments };
    let planned = |wanted: &MorePartitions<'_>| {
        plan_more(&image, topic, wanted, 0).map(|a| a.len()).map_err(|e| e.code)
    };
    assert_eq!(planned(&more(5, None)), Ok(3));
    assert_eq!(planned(&more(4, Some(vec![vec![1], vec![1]]))), Ok(2));
    for count in [2, 1, 0, -1, i32::MIN] {
        assert_eq!(planned(&more(count, None)), Err(ErrorCode::InvalidPartitions), "{count}");
    }
    assert_eq!(planned(&more(i32::MAX, None)), Err(ErrorCode::PolicyViolation));
    assert_eq!(planned(&more(4, Some(vec![vec![1]]))), Err(ErrorCode::InvalidReplicaAssignment));
}

#[test]
fn groups_find_their_offsets_where_they_were() {
    let image = cluster(&["__consumer_offsets"]);
    let topic = find(&image, TopicKey::Name("__consumer_offsets")).unwrap();
    let more = MorePartitions { name: "__consumer_offsets", count: 5, assignments: None };
    assert_eq!(plan_more(&image, topic, &more, 0).map_err(|e| e.code), Err(ErrorCode::InvalidTopicException));
}

#[test]
fn what_is_named_twice_is_found_whatever_is_between() {
    let found = doubled(["a", "b", "c", "a", "d", "b", "a"].into_iter());
    assert_eq!(found, HashSet::from(["a", "b"]));
}

#[test]
fn a_topic_that_is_not_there_is_unknown_by_the_name_that_was_given() {
    let image = cluster(&["there"]);
    let id = image.topic("there").unwrap().id;
    assert_eq!(&*find(&image, TopicKey::Id(id)).unwrap().name, "there");
    let missing = [
        (TopicKey::Name("gone"), ErrorCode::UnknownTopicOrPartition),
        (TopicKey::Id(TopicId::from_bytes([99; 16]).unwrap()), ErrorCode::UnknownTopicId),
    ];
    for (key, code) in missing {
        assert_eq!(find(&image, key).map_err(|e| e.code).err(), Some(code));
    }
}
