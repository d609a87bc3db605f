//! Topics made, removed and extended.

use super::*;

#[test]
fn a_new_topic_has_leaders_and_its_settings() {
    let mut image = cluster(2);
    let mut command = create("t", 5, &[&[1, 2], &[2, 1], &[2]]);
    if let Command::CreateTopic { settings, .. } = &mut command {
        settings.push(("retention.ms".to_owned(), "7".to_owned()));
    }
    done(&mut image, &command);
    let topic = image.topic("t").unwrap();
    assert_eq!(topic.id, id(5));
    assert_eq!(topic.settings.get("retention.ms").unwrap(), "7");
    let leaders: Vec<_> = topic.partitions.values().map(|p| p.leader.unwrap().0).collect();
    assert_eq!(leaders, [1, 2, 2]);
    assert!(topic.partition(3).is_none());
}

#[test]
fn a_fenced_replica_is_not_in_sync_and_does_not_lead() {
    let mut image = cluster(2);
    let command = fence(&image, 1);
    done(&mut image, &command);
    done(&mut image, &create("t", 5, &[&[1, 2]]));
    assert_eq!(first_partition(&image, "t"), (Some(2), 0, vec![2]));
    let alone = refused(&image, &create("u", 6, &[&[1]]));
    assert_eq!(alone.to_string(), "partition 0 cannot be placed: none of its brokers is live");
}

#[test]
fn refusals_of_new_topics() {
    let mut image = cluster(2);
    done(&mut image, &create("a.b", 5, &[&[1]]));
    let told = |command: Command| refused(&image, &command).to_string();
    assert_eq!(told(create("a.b", 6, &[&[1]])), "topic 'a.b' already exists");
    assert_eq!(
        told(create("a_b", 6, &[&[1]])),
        "topic 'a_b' collides with existing topic 'a.b': '.' and '_' are one in metric names"
    );
    assert!(matches!(refused(&image, &create("c", 5, &[&[1]])), CommandError::TopicIdInUse { .. }));
    assert!(matches!(refused(&image, &create("", 6, &[&[1]])), CommandError::InvalidTopicName { .. }));
    assert!(matches!(
        refused(&image, &create(&"x".repeat(250), 6, &[&[1]])),
        CommandError::InvalidTopicName { .. }
    ));
    assert_eq!(told(create("c", 6, &[])), "the number of partitions must be larger than 0");
    assert_eq!(told(create("c", 6, &[&[1], &[]])), "partition 1 cannot be placed: it has no replicas");
    assert_eq!(told(create("c", 6, &[&[1, 1]])), "partition 0 cannot be placed: broker 1 is named twice");
    assert_eq!(told(create("c", 6, &[&[7]])), "partition 0 cannot be placed: broker 7 is not registered");
    let many = Command::CreateTopic {
        name: "c".to_owned(),
        id: id(6),
        assignments: vec![vec![BrokerId(1)]; topic::PARTITIONS_MAX + 1],
        settings: Vec::new(),
    };
    assert!(matches!(refused(&image, &many), CommandError::LimitExceeded { .. }));
    let mut twice = create("c", 6, &[&[1]]);
    if let Command::CreateTopic { settings, .. } = &mut twice {
        *settings = vec![("a".to_owned(), "1".to_owned()); 2];
    }
    assert_eq!(refused(&image, &twice), CommandError::DuplicateConfig { name: "a".to_owned() });
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_free_at_higher_epochs() {
    let mut image = cluster(1);
    done(&mut image, &create("a.b", 5, &[&[1]]));
    done(&mut image, &register(1, 2));
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "a.b"), (Some(1), 2, vec![1]));
    done(&mut image, &Command::DeleteTopic { topic: id(5) });
    assert_eq!(image.topic_count(), 0);
    assert_eq!(
        refused(&image, &Command::DeleteTopic { topic: id(5) }),
        CommandError::UnknownTopic { id: id(5) }
    );
    done(&mut image, &create("a_b", 6, &[&[1]]));
    assert_eq!(first_partition(&image, "a_b"), (Some(1), 3, vec![1]));
}

#[test]
fn partitions_are_added_behind_the_ones_the_proposer_saw() {
    let mut image = cluster(2);
    done(&mut image, &create("t", 5, &[&[1]]));
    let add = |count_now, assignments: &[&[i32]]| Command::AddPartitions {
        topic: id(5),
        count_now,
        assignments: replicas(assignments),
    };
    done(&mut image, &add(1, &[&[2, 1], &[1]]));
    assert_eq!(image.topic("t").unwrap().partitions.len(), 3);
    assert_eq!(image.topic("t").unwrap().partition(1).unwrap().leader, Some(BrokerId(2)));
    assert_eq!(
        refused(&image, &add(1, &[&[1]])),
        CommandError::PartitionCountDiffers { topic: "t".to_owned(), expected: 1, actual: 3 }
    );
    assert_eq!(refused(&image, &add(3, &[])), CommandError::NoPartitions);
}
