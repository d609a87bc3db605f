//! Each command by cases, and what holds after any sequence of them.

mod brokers;
mod disks;
mod moves;
mod partitions;
mod shutdown;
mod staying;
mod topics;

use std::collections::BTreeSet;

use floodmark_proto::ids::{ClusterId, LeaderEpoch, TopicId};
use proptest::prelude::*;

use super::super::command::{ConfigChange, Election};
use super::super::generate::{commands, run};
use super::super::image::{Endpoint, Partition};
use super::*;

fn empty() -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    image
}

fn register(broker: i32, incarnation: u128) -> Command {
    Command::RegisterBroker {
        broker: BrokerId(broker),
        incarnation: uuid::Uuid::from_u128(incarnation),
        rack: None,
        endpoints: vec![Endpoint { listener: "PLAINTEXT".to_owned(), host: "h".to_owned(), port: 9092 }],
        feature_levels: (1, 2),
        directories: vec![uuid::Uuid::from_u128(broker as u128)],
        in_sync_defaults: None,
    }
}

/// Carries out what must succeed.
fn done(image: &mut ClusterImage, command: &Command) -> Output {
    let (next, outcome) = apply(image, command);
    let output = outcome.unwrap();
    assert_eq!(next.version(), image.version() + 1);
    *image = next;
    output
}

/// Carries out what must be refused.
fn refused(image: &ClusterImage, command: &Command) -> CommandError {
    let (next, outcome) = apply(image, command);
    assert_eq!(&next, image);
    outcome.unwrap_err()
}

fn epoch(image: &ClusterImage, broker: i32) -> BrokerEpoch {
    image.broker(BrokerId(broker)).unwrap().epoch
}

fn unfence(image: &ClusterImage, broker: i32) -> Command {
    Command::UnfenceBroker { broker: BrokerId(broker), epoch: epoch(image, broker) }
}

fn fence(image: &ClusterImage, broker: i32) -> Command {
    Command::FenceBroker { broker: BrokerId(broker), epoch: epoch(image, broker) }
}

/// Live brokers 1 to `count`.
fn cluster(count: i32) -> ClusterImage {
    let mut image = empty();
    for broker in 1..=count {
        done(&mut image, &register(broker, 1));
        let command = unfence(&image, broker);
        done(&mut image, &command);
    }
    image
}

fn id(n: u128) -> TopicId {
    TopicId::from_bytes(n.to_be_bytes()).unwrap()
}

fn create(name: &str, n: u128, assignments: &[&[i32]]) -> Command {
    Command::CreateTopic {
        name: name.to_owned(),
        id: id(n),
        assignments: replicas(assignments),
        settings: Vec::new(),
    }
}

fn replicas(assignments: &[&[i32]]) -> Vec<Vec<BrokerId>> {
    assignments.iter().map(|r| r.iter().copied().map(BrokerId).collect()).collect()
}

/// Leader, leader epoch and in-sync set of the first partition.
fn first_partition(image: &ClusterImage, name: &str) -> (Option<i32>, i32, Vec<i32>) {
    let partition = image.topic(name).unwrap().partition(0).unwrap();
    (partition.leader.map(|l| l.0), partition.leader_epoch.0, partition.isr.iter().map(|r| r.0).collect())
}

fn check_invariants(image: &ClusterImage) {
    assert_eq!(image.topics().count(), image.topics_by_id.len());
    for topic in image.topics() {
        assert_eq!(image.topic_by_id(topic.id), Some(topic));
        assert!(topic.partitions.iter().map(|(n, _)| *n).eq(0..topic.partitions.len() as u32));
        assert!(!topic.partitions.is_empty());
        for partition in topic.partitions.values() {
            let replicas: BTreeSet<_> = partition.replicas.iter().collect();
            let isr: BTreeSet<_> = partition.isr.iter().collect();
            assert_eq!(replicas.len(), partition.replicas.len());
            assert_eq!(isr.len(), partition.isr.len());
            assert!(!isr.is_empty() && isr.is_subset(&replicas), "{partition:?}");
            let moving: BTreeSet<_> = partition.adding.iter().chain(&*partition.removing).collect();
            assert_eq!(moving.len(), partition.adding.len() + partition.removing.len(), "{partition:?}");
            assert!(moving.is_subset(&replicas), "{partition:?}");
            assert!(partition.target().next().is_some() && partition.origin().next().is_some());
            assert!(!partition.is_lost || partition.leader.is_none() && isr.len() == 1, "{partition:?}");
            if let Some(leader) = partition.leader {
                assert!(isr.contains(&leader) && image.is_live(leader), "{partition:?}");
            }
            // Of several members each may be elected at any moment, unless some were left in while they do not serve.
            let are_live = isr.iter().all(|r| image.is_live(**r));
            assert!(isr.len() == 1 || are_live || image.feature_level >= 3, "{partition:?}");
        }
    }
    let collisions: Vec<_> =
        image.topics().filter_map(|t| super::super::image::metric_name(&t.name)).collect();
    assert_eq!(collisions.iter().collect::<BTreeSet<_>>().len(), collisions.len());
    assert_eq!(collisions.len(), image.metric_names.len());
}

fn check_epochs(before: &ClusterImage, after: &ClusterImage) {
    for broker in before.brokers() {
        // One that was removed held nothing. Another under its id has an epoch above, because versions rise.
        match after.broker(broker.id) {
            Some(now) => assert!(now.epoch >= broker.epoch),
            None => assert!(broker.fenced && !is_in_sync_anywhere(before, broker.id)),
        }
    }
    for now in after.brokers().filter(|now| before.broker(now.id).is_none()) {
        assert_eq!(now.epoch.0, before.version() as i64);
    }
    for topic in before.topics() {
        let Some(now) = after.topic_by_id(topic.id) else {
            // One that takes its name later begins above.
            assert!(topic.partitions.values().all(|p| p.leader_epoch < after.first_leader_epoch));
            continue;
        };
        for (index, was) in topic.partitions.iter() {
            let is = now.partition(*index).unwrap();
            assert!(is.leader_epoch >= was.leader_epoch && is.partition_epoch >= was.partition_epoch);
            assert_eq!(is.leader_epoch == was.leader_epoch, is.leader == was.leader, "{was:?} {is:?}");
            assert_eq!(is.partition_epoch == was.partition_epoch, is == was);
            check_kept(before, after, was, is);
        }
    }
    assert!(after.next_producer_id >= before.next_producer_id);
    assert!(after.feature_level >= before.feature_level);
}

fn is_in_sync_anywhere(image: &ClusterImage, broker: BrokerId) -> bool {
    image.topics().flat_map(|t| t.partitions.values()).any(|p| p.isr.contains(&broker))
}

/// What was acknowledged stays with somebody, and nobody gets a lead who should not.
fn check_kept(before: &ClusterImage, after: &ClusterImage, was: &Partition, is: &Partition) {
    // Of those that had everything one at least still counts. Only an unclean election, which leaves one member that leads and
    // was not there before, may give that up.
    let has_kept = is.isr.iter().any(|r| was.isr.contains(r));
    let is_unclean = was.leader.is_none() && is.leader.is_some() && is.isr.len() == 1;
    assert!(has_kept || is_unclean, "{was:?} {is:?}");
    assert!(is.isr.iter().all(|r| was.isr.contains(r) || after.may_join_isr(*r)), "{was:?} {is:?}");
    if is.leader != was.leader
        && let Some(leader) = is.leader
    {
        assert!(after.may_lead(leader), "{was:?} {is:?}");
        assert!(is_unclean || was.isr.contains(&leader) || is.isr.contains(&leader) && was.is_moving());
    }
    // Replicas change by moves alone, and one that leads is never taken out.
    let gone = |r: &&BrokerId| !is.replicas.contains(r);
    assert!(was.replicas.iter().filter(gone).all(|r| was.leader != Some(*r)), "{was:?} {is:?}");
    assert!(before.version() < after.version() || is == was);
}

proptest! {
    #[test]
    fn no_sequence_breaks_what_every_command_keeps(commands in commands()) {
        run(commands, |before, command, after| {
            check_invariants(after);
            check_epochs(before, after);
            let (again, outcome) = apply(before, command);
            assert_eq!(&again, after, "the same command makes the same image");
            assert_eq!(after.version() - before.version(), u64::from(outcome.is_ok()));
            if outcome.is_err() {
                assert_eq!(after, before);
            }
        });
    }
}

#[test]
fn applying_one_command_to_ten_thousand_topics_copies_little() {
    let mut image = cluster(1);
    for n in 0..10_000u32 {
        image = apply(&image, &create(&format!("topic{n}"), u128::from(n) + 2, &[&[1]])).0;
    }
    let (next, outcome) = apply(&image, &create("one-more", 1 << 64, &[&[1]]));
    outcome.unwrap();
    let shared = image.topics().filter(|t| next.topic(&t.name).is_some_and(|n| Arc::ptr_eq(n, t)));
    assert_eq!(shared.count(), 10_000);
    assert_eq!(next.topics.differences(&image.topics).len(), 1);
}

#[test]
fn settings_change_together_or_not_at_all() {
    let mut image = cluster(1);
    done(&mut image, &create("t", 5, &[&[1]]));
    let change = |name: &str, value: Option<&str>, only_over| ConfigChange {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        only_over,
    };
    let set = |resource: ConfigResource, changes: Vec<ConfigChange>| Command::SetConfig { resource, changes };
    let topic = || ConfigResource::Topic(id(5));
    let first = change("a", Some("1"), ExpectedValue::Unset);
    done(&mut image, &set(topic(), vec![first.clone(), change("b", Some("2"), ExpectedValue::Any)]));
    assert_eq!(
        refused(&image, &set(topic(), vec![change("b", None, ExpectedValue::Any), first])),
        CommandError::ConfigChanged { name: "a".to_owned() }
    );
    let over = change("a", Some("3"), ExpectedValue::Is("1".to_owned()));
    let twice = vec![change("a", None, ExpectedValue::Any); 2];
    done(&mut image, &set(topic(), vec![over, change("b", None, ExpectedValue::Any)]));
    let held: Vec<_> =
        image.topic("t").unwrap().settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(held, [("a", "3")]);
    assert_eq!(refused(&image, &set(topic(), twice)), CommandError::DuplicateConfig { name: "a".to_owned() });
    assert_eq!(
        refused(&image, &set(ConfigResource::Topic(id(6)), Vec::new())),
        CommandError::UnknownTopic { id: id(6) }
    );
    let large = change("a", Some(&"x".repeat(SETTING_VALUE_BYTES_MAX + 1)), ExpectedValue::Any);
    assert!(matches!(refused(&image, &set(topic(), vec![large])), CommandError::LimitExceeded { .. }));
    for (resource, broker) in [(ConfigResource::Broker(BrokerId(1)), 1), (ConfigResource::Cluster, 0)] {
        done(&mut image, &set(resource.clone(), vec![change("c", Some("4"), ExpectedValue::Any)]));
        let held =
            if broker == 0 { Some(image.cluster_settings()) } else { image.broker_settings(BrokerId(1)) };
        assert_eq!(held.unwrap().get("c").unwrap(), "4");
        done(&mut image, &set(resource, vec![change("c", None, ExpectedValue::Any)]));
    }
    assert_eq!(image.broker_settings(BrokerId(1)), None);
}

#[test]
fn producer_ids_are_given_once() {
    let mut image = cluster(1);
    let epoch = epoch(&image, 1);
    let ask = |count| Command::AllocateProducerIds { broker: BrokerId(1), epoch, count };
    assert_eq!(done(&mut image, &ask(1000)), Output::ProducerIds { first: ProducerId(0), count: 1000 });
    assert_eq!(done(&mut image, &ask(10)), Output::ProducerIds { first: ProducerId(1000), count: 10 });
    image.next_producer_id = ProducerId(i64::MAX - 5);
    assert_eq!(refused(&image, &ask(6)), CommandError::ProducerIdsExhausted);
    let stale = Command::AllocateProducerIds { broker: BrokerId(1), epoch: BrokerEpoch(99), count: 1 };
    assert!(matches!(refused(&image, &stale), CommandError::StaleBrokerEpoch { .. }));
}

#[test]
fn the_feature_level_rises_where_every_broker_can_follow() {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    let level = |level| Command::SetFeatureLevel { level };
    let with = |broker, incarnation, levels| {
        let mut command = register(broker, incarnation);
        if let Command::RegisterBroker { feature_levels, .. } = &mut command {
            *feature_levels = levels;
        }
        command
    };
    done(&mut image, &with(1, 1, (1, 1)));
    done(&mut image, &level(1));
    let error =
        CommandError::UnsupportedFeatureLevel { level: 2, broker: BrokerId(1), lowest: 1, highest: 1 };
    assert_eq!(refused(&image, &level(2)), error);
    assert_eq!(refused(&image, &level(0)), CommandError::FeatureLevelMayNotFall { level: 0, current: 1 });
    done(&mut image, &with(1, 2, (1, 2)));
    done(&mut image, &level(2));
    let old = refused(&image, &with(2, 1, (1, 1)));
    assert!(matches!(old, CommandError::UnsupportedFeatureLevel { .. }));
}
