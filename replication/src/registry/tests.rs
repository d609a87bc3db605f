//! Partitions follow images, on a simulated disk.
//!
//! - `missing`: what is found out of logs that are gone, before anything is made in their place

use std::path::Path;
use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_proto::ids::{ClusterId, LeaderEpoch, Offset};
use floodmark_storage::TailBudget;
use floodmark_storage::clock::{Clock, Stopwatch};
use floodmark_storage::fs::{Disk, OpenMode, SimDisk};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;

mod missing;

use super::*;
use crate::cluster::command::{ConfigChange, ConfigResource, ExpectedValue};
use crate::cluster::{Command, Output, apply};
use crate::partition::{AppendOptions, PartitionError, Role};

const NODE: BrokerId = BrokerId(1);

/// How long anything may take that has to happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

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
            directories: Vec::new(),
            in_sync_defaults: None,
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
        self.create_with(name, id, partitions, &[])
    }

    fn create_with(&mut self, name: &str, id: u8, partitions: usize, settings: &[(&str, &str)]) -> TopicId {
        let id = TopicId::from_bytes([id; 16]).unwrap();
        let assignments = vec![vec![NODE]; partitions];
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.change(Command::CreateTopic { name: name.to_owned(), id, assignments, settings });
        id
    }
}

const OFTEN: Periods = Periods {
    flush: Duration::from_millis(2),
    release: Duration::from_millis(5),
    retention: Duration::from_millis(5),
    urgent_retention: Duration::from_millis(5),
    expiry: Duration::from_millis(5),
    compaction: Duration::from_millis(5),
};

fn open(disk: &SimDisk, cluster: &Cluster) -> Registry {
    let (registry, unusable) = open_all(disk, cluster);
    assert!(unusable.is_empty(), "{unusable:?}");
    registry
}

fn open_all(disk: &SimDisk, cluster: &Cluster) -> (Registry, Vec<UnusablePartition>) {
    open_with(disk, cluster, OFTEN)
}

fn data_dirs(disk: &SimDisk) -> Arc<[DataDir]> {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000),
        random: Random::seeded(3),
        tail_budget: TailBudget::new(1 << 20),
    };
    ["a", "b"].map(|dir| open_once_free(&context, dir)).into()
}

fn open_with(disk: &SimDisk, cluster: &Cluster, periods: Periods) -> (Registry, Vec<UnusablePartition>) {
    let options = RegistryOptions {
        node: NODE,
        data_dirs: data_dirs(disk),
        disk_threads: 2,
        log: LogConfig { prewrite_bytes: 0, ..LogConfig::default() },
        file_settings: Settings::new(),
        periods,
        vitals: crate::vital::Vitals::default(),
    };
    Registry::open(options, &cluster.0).unwrap()
}

/// A registry that is dropped lives on while one of its threads is at work, and so does the lock.
fn open_once_free(context: &LogContext, dir: &str) -> DataDir {
    let begun = Stopwatch::start();
    loop {
        match DataDir::open(context.clone(), Path::new(dir)) {
            Err(e) if begun.elapsed() < PATIENCE => {
                tracing::debug!(error = %e, "not free yet");
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn set(resource: ConfigResource, name: &str, value: &str) -> Command {
    let (name, value) = (name.to_owned(), Some(value.to_owned()));
    Command::SetConfig {
        resource,
        changes: vec![ConfigChange { name, value, only_over: ExpectedValue::Any }],
    }
}

fn runtime() -> Runtime {
    Runtime(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

struct Runtime(tokio::runtime::Runtime);

impl Runtime {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it takes too long") })
    }
}

fn batch() -> RecordBatch {
    batch_of(b"v")
}

fn batch_of(value: &[u8]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 5, key: Some(b"k"), value: Some(value), headers: &[] }).unwrap();
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
    append_value(partition, b"v").await
}

async fn append_value(partition: &PartitionHandle, value: &[u8]) -> Offset {
    let appended = partition.append(vec![batch_of(value)], AppendOptions::CLIENT).await.unwrap();
    partition.committed(appended.end, appended.epoch).await.unwrap();
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
    registry.close(PATIENCE);
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
        tokio::time::timeout(PATIENCE, registry.reconciled(cluster.0.version())).await.unwrap();
        assert!((0..40).all(|n| registry.get(id, n).is_some()));
        follower.abort();
    });
}

/// A broker is let in again on the strength of an image that it has, and holds its lease then. Partitions that a disk keeps from following
/// that image, their own or a neighbour's, must not answer under that lease in the name of a leader of the past.
#[test]
fn a_leader_of_the_past_answers_nobody_though_a_disk_keeps_it_from_its_duty() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let id = cluster.create("t", 1, 3);
    let registry = open(&disk, &cluster);
    let (sender, images) = watch::channel(Arc::clone(&cluster.0));
    let entered = runtime.0.enter();
    let follower = registry.spawn_follower(images);
    drop(entered);
    let partitions = [0, 1, 2].map(|n| registry.get(id, n).unwrap());
    let old = partitions[2].leader_epoch();
    runtime.block_on(append(&partitions[2]));
    // Neither the log that hangs nor the one behind it is told of its duty.
    let hanging = partitions[1].clone();
    let (goes_on, held) = (std::sync::mpsc::sync_channel::<()>(1), std::sync::mpsc::sync_channel(1));
    let holder = std::thread::spawn(move || {
        hanging.hold_log(|| {
            held.0.send(()).unwrap();
            let _ = goes_on.1.recv();
        });
    });
    held.1.recv().unwrap();
    let behind = [1, 2].map(|n| &partitions[n]);
    let waiting = behind.map(|partition| partition.committed(Offset(5), old));
    let queued = partitions[1].append(vec![batch()], AppendOptions::CLIENT);
    let broker = cluster.0.broker(NODE).unwrap().epoch;
    let mut heard = registry.heard();
    for command in [
        Command::FenceBroker { broker: NODE, epoch: broker },
        Command::UnfenceBroker { broker: NODE, epoch: broker },
    ] {
        cluster.change(command);
        sender.send(Arc::clone(&cluster.0)).unwrap();
        let version = cluster.0.version();
        runtime.block_on(async { drop(heard.wait_for(|heard| *heard >= version).await.unwrap()) });
    }
    for (partition, waiting) in behind.into_iter().zip(waiting) {
        assert_eq!(partition.duty().role, Role::Leader { epoch: old }, "its duty has reached it after all");
        assert!(matches!(partition.role(), Role::NotLeader { epoch } if epoch > old));
        let written = runtime.block_on(partition.append(vec![batch()], AppendOptions::CLIENT));
        assert!(matches!(written, Err(PartitionError::NotLeader { .. })), "{written:?}");
        assert!(matches!(runtime.block_on(waiting), Err(PartitionError::NotLeader { .. })));
        let told = runtime.block_on(partition.committed(Offset(0), old));
        assert!(matches!(told, Err(PartitionError::NotLeader { .. })), "{told:?}");
    }
    goes_on.0.send(()).unwrap();
    holder.join().unwrap();
    let told = runtime.block_on(queued);
    assert!(
        matches!(told, Err(PartitionError::NotLeader { .. } | PartitionError::FencedEpoch { .. })),
        "{told:?}"
    );
    runtime.block_on(registry.reconciled(cluster.0.version()));
    for partition in &partitions {
        assert!(matches!(partition.role(), Role::Leader { epoch } if epoch > old));
        runtime.block_on(append(partition));
    }
    follower.abort();
}

/// What is opened while images go on hears of them, too.
#[test]
fn a_partition_that_is_opened_late_knows_of_leaders_since() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 1);
    let old = Arc::clone(&cluster.0);
    let registry = open(&disk, &Cluster(Arc::new(ClusterImage::new(old.cluster_id()))));
    let broker = cluster.0.broker(NODE).unwrap().epoch;
    cluster.change(Command::FenceBroker { broker: NODE, epoch: broker });
    registry.0.hear_of(&cluster.0);
    registry.0.follow(&old);
    let partition = registry.get(id, 0).unwrap();
    assert!(matches!(partition.duty().role, Role::Leader { .. }));
    assert!(matches!(partition.role(), Role::NotLeader { .. }));
}

#[test]
fn a_folder_of_no_topic_is_left_alone() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    runtime().block_on(append(&registry.get(id, 0).unwrap()));
    registry.close(PATIENCE);
    drop(registry);
    // Metadata that was lost, or another cluster's.
    let registry = open(&disk, &Cluster::new());
    assert!(registry.all().is_empty());
    let left = ["a/logs/t-0", "b/logs/t-0"].iter().filter(|path| disk.list(Path::new(path)).is_ok()).count();
    assert_eq!(left, 1);
}

#[test]
fn a_folder_of_another_topic_makes_room_and_is_kept() {
    let (disk, mut before) = (SimDisk::new(), Cluster::new());
    let id = before.create("t", 1, 1);
    let registry = open(&disk, &before);
    runtime().block_on(append_value(&registry.get(id, 0).unwrap(), b"precious"));
    drop(registry);
    let mut after = Cluster::new();
    let again = after.create("t", 2, 1);
    let registry = open(&disk, &after);
    assert_eq!(registry.get(again, 0).unwrap().log_end(), Offset::ZERO);
    let strays = registry.strays();
    let holds_data = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        path.starts_with(&strays[0]) && bytes.windows(8).any(|window| window == b"precious")
    };
    assert!(strays.len() == 1 && disk.files().iter().any(holds_data), "{strays:?}");
}

#[test]
fn what_was_not_closed_in_time_is_recovered() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let id = cluster.create("t", 1, 8);
    let registry = open(&disk, &cluster);
    registry.all().iter().for_each(|partition| assert_eq!(runtime.block_on(append(partition)), Offset(0)));
    assert_eq!(registry.close(Duration::ZERO), Closed { cleanly: 0, uncleanly: 8 });
    let registry = open(&disk.image().power_cut(4), &cluster);
    for partition in (0..8).map(|n| registry.get(id, n).unwrap()) {
        assert_eq!(partition.high_watermark(), Offset(1), "what was acknowledged is there");
    }
    assert_eq!(registry.close(PATIENCE), Closed { cleanly: 8, uncleanly: 0 });
    let late = runtime.block_on(registry.get(id, 0).unwrap().append(vec![batch()], AppendOptions::CLIENT));
    assert!(matches!(late, Err(PartitionError::Closed)), "{late:?}");
}

#[test]
fn a_partition_for_which_there_is_no_space_is_made_once_there_is() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let registry = open(&disk, &cluster);
    disk.limit_capacity(disk.files().values().map(Vec::len).sum::<usize>() as u64);
    let id = cluster.create("t", 1, 1);
    assert_eq!(registry.0.follow(&cluster.0).len(), 1);
    assert!(registry.get(id, 0).is_none() && registry.unusable(id, 0).is_some());
    assert!(registry.0.has_to_retry() && registry.strays().is_empty());
    let out_of_order = registry.out_of_order();
    assert_eq!(out_of_order.count, 1);
    assert!(out_of_order.first.starts_with("partition t-0: "), "{out_of_order:?}");
    // It stays known while it is tried again in vain.
    assert_eq!(registry.0.follow(&cluster.0).len(), 1);
    assert_eq!(registry.out_of_order().count, 1);
    disk.limit_capacity(u64::MAX);
    assert!(registry.0.follow(&cluster.0).is_empty());
    assert!(registry.get(id, 0).is_some() && registry.unusable(id, 0).is_none());
    assert_eq!(registry.out_of_order(), OutOfOrder::default());
}

#[test]
fn appends_that_find_no_space_are_noted_until_one_finds_some() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    let partition = registry.get(id, 0).unwrap();
    disk.limit_capacity(disk.files().values().map(Vec::len).sum::<usize>() as u64);
    let refused = runtime.block_on(partition.append(vec![batch()], AppendOptions::CLIENT));
    assert!(matches!(refused, Err(PartitionError::Full(_))), "{refused:?}");
    assert!(registry.0.full_disk.is_known());
    disk.limit_capacity(u64::MAX);
    runtime.block_on(append(&partition));
    assert!(!registry.0.full_disk.is_known());
}

/// It is opened, and ends before the damage: whoever counts it as a copy has to know.
#[test]
fn a_log_that_is_damaged_behind_its_last_checkpoint_is_told_once() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let (well, bad) = (cluster.create("well", 1, 1), cluster.create("bad", 2, 1));
    let registry = open(&disk, &cluster);
    for id in [well, bad, bad, bad] {
        runtime.block_on(append(&registry.get(id, 0).unwrap()));
    }
    assert!(registry.take_damaged().is_empty());
    drop(registry);
    let is_data = |path: &Path| {
        path.extension().is_some_and(|e| e == "log") && path.to_string_lossy().contains("bad-0")
    };
    let (path, content) = disk.files().into_iter().find(|(path, _)| is_data(path)).unwrap();
    let file = disk.open(&path, OpenMode::Write).unwrap();
    // In the first batch, behind its header.
    file.write_at(&[std::io::IoSlice::new(&[content[64] ^ 1])], 64).unwrap();
    let registry = open(&disk, &cluster);
    assert_eq!(registry.get(bad, 0).unwrap().log_end(), Offset(0));
    assert_eq!(registry.take_damaged(), [(bad, 0)].into());
    assert!(registry.take_damaged().is_empty());
}

#[test]
fn a_partition_that_lies_in_two_directories_is_left_as_it_is() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    runtime.block_on(append(&registry.get(id, 0).unwrap()));
    let (dir, other) = match disk.list(Path::new("a/logs/t-0")).is_ok() {
        true => ("a/logs/t-0", "b/logs/t-0"),
        false => ("b/logs/t-0", "a/logs/t-0"),
    };
    drop(registry);
    disk.create_dir_all(Path::new(other)).unwrap();
    for entry in disk.list(Path::new(dir)).unwrap() {
        let content = disk.files()[&Path::new(dir).join(&entry.name)].clone();
        let copy = disk.open(&Path::new(other).join(entry.name), OpenMode::Create).unwrap();
        copy.write_at(&[std::io::IoSlice::new(&content)], 0).unwrap();
    }
    let files = disk.files();
    let (registry, unusable) = open_all(&disk, &cluster);
    assert!(unusable[0].to_string().contains("lies in"), "{unusable:?}");
    assert!(registry.get(id, 0).is_none() && !registry.0.has_to_retry());
    assert_eq!(disk.files().len(), files.len());
}

/// Runs `condition` again until it holds.
fn until(condition: impl Fn() -> bool) {
    let begun = Stopwatch::start();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn old_segments_go_and_what_nobody_waits_for_is_flushed_in_the_background() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let settings = [("segment.bytes", "1048576"), ("retention.bytes", "1"), ("retention.ms", "-1")];
    let old = cluster.create_with("old", 1, 1, &settings);
    let lazy = cluster.create_with("lazy", 2, 1, &[("floodmark.sync", "none"), ("flush.ms", "1")]);
    let registry = open(&disk, &cluster);
    let old = registry.get(old, 0).unwrap();
    for _ in 0..3 {
        runtime.block_on(append_value(&old, &[7; 600_000]));
    }
    until(|| old.log_start() > Offset::ZERO);
    let lazy = registry.get(lazy, 0).unwrap();
    runtime.block_on(append(&lazy));
    until(|| lazy.reader().durable() == Offset(1));
}

/// Retention whose turn comes long after the test: what goes does so because it was asked for.
#[test]
fn settings_that_change_and_a_full_disk_have_old_segments_go_at_once() {
    let seldom = Periods { retention: Duration::from_secs(3600), ..OFTEN };
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let settings = [("segment.bytes", "1048576"), ("retention.ms", "-1")];
    let (lowered, full) =
        (cluster.create_with("l", 1, 1, &settings), cluster.create_with("f", 2, 1, &settings));
    let registry = open_with(&disk, &cluster, seldom).0;
    let [lowered, full] = [lowered, full].map(|id| registry.get(id, 0).unwrap());
    let value = vec![7; 400_000];
    for _ in 0..8 {
        runtime.block_on(append_value(&lowered, &value));
        runtime.block_on(append_value(&full, &value));
    }
    cluster.change(set(ConfigResource::Topic(lowered.id().topic_id), "retention.bytes", "1000000"));
    registry.0.follow(&cluster.0);
    until(|| lowered.log_start() > Offset(0));
    assert_eq!(full.log_start(), Offset(0));

    for _ in 0..8 {
        runtime.block_on(append_value(&lowered, &value));
    }
    let start = lowered.log_start();
    // Of what is to go, a few lines have to be written first.
    disk.limit_capacity(disk.files().values().map(Vec::len).sum::<usize>() as u64 + 100_000);
    let append = full.append(vec![batch_of(&vec![7; 900_000])], AppendOptions::CLIENT);
    let refused = runtime.block_on(append);
    assert!(matches!(refused, Err(PartitionError::Full(_))), "{refused:?}");
    until(|| lowered.log_start() > start);
}

#[test]
fn a_log_is_compacted_in_the_background_and_a_pass_ends_with_its_topic() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let settings =
        [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.0")];
    let id = cluster.create_with("c", 1, 1, &settings);
    let registry = open(&disk, &cluster);
    let partition = registry.get(id, 0).unwrap();
    let append = || runtime.block_on(append_value(&partition, &[7; 500_000]));
    for _ in 0..4 {
        append();
    }
    until(|| partition.size_bytes() < 4 * 500_000);
    for _ in 0..10 {
        append();
    }
    cluster.change(Command::DeleteTopic { topic: id });
    registry.0.follow(&cluster.0);
    let files = disk.files();
    assert!(!files.keys().any(|path| path.to_string_lossy().contains("c-0")), "{:?}", files.keys());
}
