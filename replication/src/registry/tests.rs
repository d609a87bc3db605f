//! Partitions follow images, on a simulated disk.

use std::path::Path;
use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_proto::ids::{ClusterId, LeaderEpoch, Offset};
use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::{Disk, SimDisk};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;

use super::*;
use crate::cluster::command::{ConfigChange, ConfigResource, ExpectedValue};
use crate::cluster::{Command, Output, apply};
use crate::partition::{AppendOptions, Role};

const NODE: BrokerId = BrokerId(1);

/// An image that commands change.
struct Cluster(Arc<ClusterImage>);

impl Cluster {
    /// One broker, registered and leading.
    fn new() -> Cluster {
        let mut cluster = Cluster(Arc::new(ClusterImage::new(ClusterId::from_bytes([7; 16]))));
        let register = Command::RegisterBroker {
            broker: NODE,
            incarnation: uuid::Uuid::from_u128(1),
            rack: None,
            endpoints: Vec::new(),
            feature_levels: (1, 1),
        };
        let Output::BrokerRegistered { epoch } = cluster.change(register) else { panic!("not registered") };
        cluster.change(Command::UnfenceBroker { broker: NODE, epoch });
        cluster
    }

    fn change(&mut self, command: Command) -> Output {
        let (next, outcome) = apply(&self.0, &command);
        self.0 = Arc::new(next);
        outcome.unwrap()
    }

    fn create(&mut self, name: &str, id: u8, partitions: usize) -> TopicId {
        let id = TopicId::from_bytes([id; 16]).unwrap();
        let assignments = vec![vec![NODE]; partitions];
        self.change(Command::CreateTopic { name: name.to_owned(), id, assignments, settings: Vec::new() });
        id
    }
}

fn open(disk: &SimDisk, cluster: &Cluster) -> Registry {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000),
        random: Random::seeded(3),
        tail_budget: TailBudget::new(1 << 20),
    };
    let data_dirs = ["a", "b"].map(|dir| DataDir::open(context.clone(), Path::new(dir)).unwrap());
    let options = RegistryOptions {
        node: NODE,
        data_dirs: data_dirs.into(),
        disk_threads: 2,
        log: LogConfig { prewrite_bytes: 0, ..LogConfig::default() },
        file_settings: Settings::new(),
    };
    let (registry, unusable) = Registry::open(options, &cluster.0).unwrap();
    assert!(unusable.is_empty(), "{unusable:?}");
    registry
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 5, key: None, value: Some(b"v"), headers: &[] }).unwrap();
    builder.build().unwrap()
}

fn names(registry: &Registry) -> Vec<String> {
    let mut names: Vec<String> =
        registry.all().iter().map(|p| format!("{}-{}", p.id().topic, p.id().index)).collect();
    names.sort();
    names
}

/// Appends and waits until it is committed.
async fn append(partition: &PartitionHandle) -> Offset {
    let appended = partition.append(vec![batch()], AppendOptions::CLIENT).await.unwrap();
    partition.committed(appended.end).await.unwrap();
    appended.batches[0].as_ref().unwrap().base_offset
}

#[test]
fn partitions_come_and_go_with_the_image() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let first = cluster.create("first", 1, 3);
    let registry = open(&disk, &cluster);
    assert_eq!(names(&registry), ["first-0", "first-1", "first-2"]);
    let places = [
        "a/logs/first-0",
        "a/logs/first-1",
        "a/logs/first-2",
        "b/logs/first-0",
        "b/logs/first-1",
        "b/logs/first-2",
    ];
    let there = |path: &&&str| disk.list(Path::new(**path)).is_ok();
    assert_eq!(places.iter().filter(there).count(), 3);
    assert!(places[3..].iter().any(|path| there(&path)), "both directories are used");

    let second = cluster.create("second", 2, 1);
    cluster.change(Command::AddPartitions { topic: first, count_now: 3, assignments: vec![vec![NODE]] });
    assert!(registry.0.follow(&cluster.0).is_empty());
    assert_eq!(names(&registry), ["first-0", "first-1", "first-2", "first-3", "second-0"]);

    cluster.change(Command::DeleteTopic { topic: first });
    registry.0.follow(&cluster.0);
    assert_eq!(names(&registry), ["second-0"]);
    assert!(registry.get(first, 0).is_none() && registry.get(second, 0).is_some());
    assert_eq!(places.iter().filter(there).count(), 0, "the files are gone");
}

#[test]
fn records_are_there_after_a_stop_and_a_topic_made_again_has_none_of_the_old_ones() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    let partition = registry.get(id, 0).unwrap();
    assert_eq!(runtime.block_on(append(&partition)), Offset(0));
    registry.close();
    drop((registry, partition));

    let registry = open(&disk, &cluster);
    let partition = registry.get(id, 0).unwrap();
    assert_eq!(runtime.block_on(append(&partition)), Offset(1));
    cluster.change(Command::DeleteTopic { topic: id });
    let again = cluster.create("t", 2, 1);
    registry.0.follow(&cluster.0);
    let renewed = registry.get(again, 0).unwrap();
    assert_eq!((renewed.log_end(), runtime.block_on(append(&renewed))), (Offset(0), Offset(0)));
    assert!(
        runtime.block_on(partition.append(vec![batch()], AppendOptions::CLIENT)).is_err(),
        "the old one is closed"
    );
}

#[test]
fn settings_and_leadership_reach_the_partition() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    let partition = registry.get(id, 0).unwrap();
    let set = |resource, name: &str, value: &str| Command::SetConfig {
        resource,
        changes: vec![ConfigChange {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            only_over: ExpectedValue::Any,
        }],
    };
    cluster.change(set(ConfigResource::Topic(id), "max.message.bytes", "77"));
    cluster.change(set(ConfigResource::Cluster, "log.retention.ms", "88"));
    registry.0.follow(&cluster.0);
    let log = &partition.settings().log;
    assert_eq!((log.max_batch_bytes, log.retention_ms), (77, 88));
    let epoch = partition.leader_epoch();
    let broker = cluster.0.broker(NODE).unwrap().epoch;
    cluster.change(Command::FenceBroker { broker: NODE, epoch: broker });
    registry.0.follow(&cluster.0);
    assert!(matches!(partition.duty().role, Role::NotLeader { .. }));
    cluster.change(Command::UnfenceBroker { broker: NODE, epoch: broker });
    registry.0.follow(&cluster.0);
    assert!(matches!(partition.duty().role, Role::Leader { epoch: LeaderEpoch(now) } if now > epoch.0));
}

#[test]
fn who_waits_for_an_image_is_told_when_its_partitions_are_open() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let registry = open(&disk, &cluster);
    let (sender, images) = watch::channel(Arc::clone(&cluster.0));
    runtime.block_on(async {
        let follower = registry.spawn_follower(images);
        let id = cluster.create("t", 1, 40);
        sender.send(Arc::clone(&cluster.0)).unwrap();
        tokio::time::timeout(Duration::from_secs(20), registry.reconciled(cluster.0.version()))
            .await
            .unwrap();
        assert!((0..40).all(|n| registry.get(id, n).is_some()));
        follower.abort();
    });
}

#[test]
fn a_folder_of_no_topic_is_left_alone() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    runtime().block_on(append(&registry.get(id, 0).unwrap()));
    registry.close();
    drop(registry);
    // Metadata that was lost, or another cluster's.
    let registry = open(&disk, &Cluster::new());
    assert!(registry.all().is_empty());
    let left = ["a/logs/t-0", "b/logs/t-0"].iter().filter(|path| disk.list(Path::new(path)).is_ok()).count();
    assert_eq!(left, 1);
}
