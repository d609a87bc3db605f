//! Images that commands make, and what each step asks of one broker.

use floodmark_proto::ids::{ClusterId, LeaderEpoch, TopicId};

use super::*;
use crate::cluster::command::{Command, ConfigChange, ConfigResource, ExpectedValue};
use crate::cluster::image::Endpoint;
use crate::cluster::{Output, apply};

fn viewer(broker: i32) -> Viewer {
    Viewer { node: BrokerId(broker), file: Settings::new(), log: LogConfig::default() }
}

fn step(image: &ClusterImage, command: Command) -> ClusterImage {
    let (image, outcome) = apply(image, &command);
    outcome.expect("the command is good");
    image
}

fn with_brokers(count: i32) -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    for broker in (0..count).map(BrokerId) {
        let endpoints = vec![Endpoint { listener: "PLAINTEXT".into(), host: "h".into(), port: 1 }];
        let register = Command::RegisterBroker {
            broker,
            incarnation: uuid::Uuid::from_u128(7),
            rack: None,
            endpoints,
            feature_levels: (1, 1),
            directories: Vec::new(),
            in_sync_defaults: None,
        };
        let (next, outcome) = apply(&image, &register);
        let Ok(Output::BrokerRegistered { epoch, .. }) = outcome else { panic!("{outcome:?}") };
        image = step(&next, Command::UnfenceBroker { broker, epoch });
    }
    image
}

fn topic_id(n: u8) -> TopicId {
    TopicId::from_bytes([n; 16]).unwrap()
}

fn create(image: &ClusterImage, name: &str, id: u8, assignments: &[&[i32]]) -> ClusterImage {
    let assignments = assignments.iter().map(|a| a.iter().copied().map(BrokerId).collect()).collect();
    step(image, Command::CreateTopic { name: name.into(), id: topic_id(id), assignments, settings: vec![] })
}

/// Released and held partitions, as `topic-index`, the held ones with their role.
fn planned(viewer: &Viewer, old: &ClusterImage, new: &ClusterImage) -> (Vec<String>, Vec<String>) {
    let plan = viewer.plan(old, new);
    let name = |id: &PartitionId| format!("{}-{}", id.topic, id.index);
    let role = |duty: &Duty| match duty.role {
        Role::Leader { epoch } => format!("leads {epoch}"),
        Role::Follower { epoch, leader } => format!("follows {leader} in {epoch}"),
        Role::NotLeader { epoch } => format!("waits in {epoch}"),
    };
    let held = plan.hold.iter().map(|(id, duty)| format!("{} {}", name(id), role(duty))).collect();
    (plan.release.iter().map(name).collect(), held)
}

#[test]
fn a_broker_holds_what_is_assigned_to_it_and_lets_go_of_what_is_deleted() {
    let empty = with_brokers(2);
    let made = create(&empty, "t", 5, &[&[0], &[1, 0], &[1]]);
    let nothing: Vec<String> = vec![];
    assert_eq!(
        planned(&viewer(0), &empty, &made),
        (nothing.clone(), vec!["t-0 leads 0".to_owned(), "t-1 follows 1 in 0".to_owned()])
    );
    assert_eq!(planned(&viewer(1), &empty, &made).1, ["t-1 leads 0", "t-2 leads 0"]);
    assert_eq!(planned(&viewer(0), &made, &made), (nothing.clone(), nothing.clone()));
    let deleted = step(&made, Command::DeleteTopic { topic: topic_id(5) });
    assert_eq!(planned(&viewer(0), &made, &deleted), (vec!["t-0".to_owned(), "t-1".to_owned()], nothing));
}

#[test]
fn a_name_that_another_topic_took_is_released_and_held() {
    let old = create(&with_brokers(1), "t", 5, &[&[0]]);
    let new = create(&step(&old, Command::DeleteTopic { topic: topic_id(5) }), "t", 6, &[&[0]]);
    let plan = viewer(0).plan(&old, &new);
    assert_eq!(plan.release[0].topic_id, topic_id(5));
    assert_eq!(plan.hold[0].0.topic_id, topic_id(6));
    assert_eq!(plan.hold[0].1.role, Role::Leader { epoch: LeaderEpoch(1) });
}

#[test]
fn only_partitions_that_changed_are_told_of_it() {
    let old = create(&with_brokers(1), "t", 5, &[&[0], &[0]]);
    let assignments = vec![vec![BrokerId(0)]];
    let more = Command::AddPartitions { topic: topic_id(5), count_now: 2, assignments };
    assert_eq!(planned(&viewer(0), &old, &step(&old, more)).1, ["t-2 leads 0"]);
}

#[test]
fn settings_reach_the_topic_or_all_topics() {
    let old = create(&create(&with_brokers(1), "t", 5, &[&[0], &[0]]), "u", 6, &[&[0]]);
    let change = |resource, name: &str, value: &str| Command::SetConfig {
        resource,
        changes: vec![ConfigChange {
            name: name.into(),
            value: Some(value.into()),
            only_over: ExpectedValue::Any,
        }],
    };
    let new = step(&old, change(ConfigResource::Topic(topic_id(5)), "retention.ms", "7"));
    let plan = viewer(0).plan(&old, &new);
    let retention: Vec<_> = plan.hold.iter().map(|(_, duty)| duty.settings.log.retention_ms).collect();
    assert_eq!(retention, [7, 7]);
    assert!(Arc::ptr_eq(&plan.hold[0].1.settings, &plan.hold[1].1.settings));
    let all = step(&new, change(ConfigResource::Cluster, "log.retention.ms", "9"));
    let plan = viewer(0).plan(&new, &all);
    let retention: Vec<_> = plan.hold.iter().map(|(_, duty)| duty.settings.log.retention_ms).collect();
    assert_eq!(retention, [7, 7, 9]);
    let file = Settings::from([("log.retention.ms".to_owned(), "11".to_owned())]);
    let from_file = Viewer { file, ..viewer(0) }.plan(&ClusterImage::new(old.cluster_id()), &old);
    assert!(from_file.hold.iter().all(|(_, duty)| duty.settings.log.retention_ms == 11));
}
