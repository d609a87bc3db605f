//! Two or three replicas in one process that fetch from each other by plain calls.

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, EndTransactionMarker, NewRecord, TransactionResult};
use floodmark_proto::ids::ProducerId;
use floodmark_storage::clock::{Clock, Stopwatch};
use floodmark_storage::fs::SimDisk;
use floodmark_storage::group_commit::DiskThreads;
use floodmark_storage::key_index::Direction;
use floodmark_storage::log::LogContext;
use floodmark_storage::log::condition::{Condition, Expected, KeyCheck};
use floodmark_storage::log::reader::StreamQuery;
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{AppendError, LogConfig, TailBudget};

use super::*;
use crate::cluster::settings::{Layers, SyncPolicy, TopicSettings};
use crate::partition::{AppendOptions, DirtySet, Duty, Isolation, PartitionId, Role};

fn settings(min_insync_replicas: u32) -> Arc<TopicSettings> {
    let nothing = std::collections::BTreeMap::new();
    let layers = Layers { topic: &nothing, broker: &nothing, cluster: &nothing, file: &nothing };
    let log = LogConfig { segment_bytes: 20_000, prewrite_bytes: 0, key_index: true, ..LogConfig::default() };
    let settings = TopicSettings::resolve(&layers, &LogConfig::default());
    Arc::new(TopicSettings { sync: SyncPolicy::Ack, log, min_insync_replicas, ..settings })
}

/// How long anything may take that has to happen at all.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

struct Runtime(tokio::runtime::Runtime);

impl Runtime {
    fn new() -> Runtime {
        Runtime(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(async {
            tokio::time::timeout(PATIENCE, future).await.expect("nobody was told in time")
        })
    }
}

/// The partition on brokers 1, 2, 3, and what the cluster says of it.
struct Cluster {
    runtime: Runtime,
    replicas: Vec<PartitionHandle>,
    leader: i32,
    epoch: i32,
    partition_epoch: i32,
    isr: Vec<i32>,
    min_isr: u32,
    now_ms: u64,
}

impl Cluster {
    /// Broker 1 leads in epoch 0.
    fn new(count: i32) -> Cluster {
        let mut cluster = Cluster {
            runtime: Runtime::new(),
            replicas: Vec::new(),
            leader: 1,
            epoch: 0,
            partition_epoch: 0,
            isr: (1..=count).collect(),
            min_isr: 1,
            now_ms: 0,
        };
        for node in 1..=count {
            let context = LogContext {
                disk: Arc::new(SimDisk::new()),
                clock: Clock::System,
                random: Random::seeded(1),
                tail_budget: TailBudget::new(10_000),
            };
            let duty = cluster.duty(node, count);
            let log = Log::open(context, Path::new("t-0"), duty.settings.log.clone()).unwrap().0;
            let topic_id = TopicId::from_bytes([7; 16]).unwrap();
            let name = PartitionId { topic_id, topic: "t".into(), index: 0 };
            cluster.replicas.push(PartitionHandle::new(name, log, &DiskThreads::start(1).unwrap(), duty));
        }
        cluster
    }

    fn duty(&self, node: i32, count: i32) -> Duty {
        let epoch = LeaderEpoch(self.epoch);
        let role = match self.leader {
            leader if leader == node => Role::Leader { epoch },
            leader => Role::Follower { epoch, leader: BrokerId(leader) },
        };
        Duty {
            node: BrokerId(node),
            role,
            replicas: (1..=count).map(BrokerId).collect(),
            isr: self.isr.iter().copied().map(BrokerId).collect(),
            partition_epoch: self.partition_epoch,
            settings: settings(self.min_isr),
        }
    }

    fn on(&self, node: i32) -> &PartitionHandle {
        &self.replicas[node as usize - 1]
    }

    /// Brokers that hear of it do as the image says now.
    fn tell(&self, nodes: &[i32]) {
        for node in nodes {
            self.on(*node).take_up(self.duty(*node, self.replicas.len() as i32), PATIENCE);
        }
    }

    fn elect(&mut self, leader: i32, isr: &[i32]) {
        (self.leader, self.epoch, self.partition_epoch) = (leader, self.epoch + 1, self.partition_epoch + 1);
        self.isr = isr.to_vec();
        let all: Vec<i32> = (1..=self.replicas.len() as i32).collect();
        self.tell(&all);
    }

    fn append(&self, batches: Vec<RecordBatch>) -> super::super::Appended {
        let appending = self.on(self.leader).append(batches, AppendOptions::CLIENT);
        self.runtime.block_on(appending).unwrap()
    }

    fn said_by(&self, node: i32) -> ReplicaFetch {
        let position = self.on(node).follower_position().unwrap();
        position.said_by(BrokerId(node), BrokerEpoch(i64::from(node)))
    }

    /// One exchange: what was read is what the follower asked for, and is applied.
    fn fetch(&self, node: i32) -> Result<FollowerPosition, PartitionError> {
        let said = self.said_by(node);
        let leader = self.on(self.leader);
        leader.on_replica_position(&said, self.now_ms)?;
        let read = leader.replica_fetch(&said, 3_000)?;
        let fetched = fetched(self.leader, &said, read);
        self.runtime.block_on(async { self.on(node).on_fetched(fetched).await })
    }

    /// Until the follower has everything, on its disk, and the leader knows.
    fn catch_up(&self, node: i32) {
        let begun = Stopwatch::start();
        while begun.elapsed() < PATIENCE {
            let position = self.fetch(node).unwrap();
            let end = self.on(self.leader).log_end();
            if position.fetch_offset == end && self.said_by(node).synced_end == end {
                self.on(self.leader).on_replica_position(&self.said_by(node), self.now_ms).unwrap();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("broker {node} does not catch up: {:?}", self.said_by(node));
    }

    fn until_committed(&self, end: i64) {
        let begun = Stopwatch::start();
        while begun.elapsed() < PATIENCE {
            if self.on(self.leader).high_watermark() >= Offset(end) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{} of {end} are committed", self.on(self.leader).high_watermark());
    }

    fn bytes(&self, node: i32) -> Vec<u8> {
        let partition = self.on(node);
        let limits = ReadLimits { max_bytes: usize::MAX, below: Offset::MAX };
        let (mut from, mut found) = (partition.log_start(), Vec::new());
        while from < partition.log_end() {
            for piece in partition.reader().read(from, limits).unwrap() {
                found.extend_from_slice(&piece);
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let header = BatchHeader::parse(rest).unwrap();
                    from = header.next_offset();
                    rest = &rest[header.size_bytes()..];
                }
            }
        }
        found
    }
}

fn fetched(leader: i32, said: &ReplicaFetch, read: ReplicaRead) -> Fetched {
    Fetched {
        leader: BrokerId(leader),
        leader_epoch: said.leader_epoch,
        fetch_offset: said.fetch_offset,
        last_fetched_epoch: said.last_fetched_epoch,
        batches: read.batches,
        high_watermark: read.high_watermark,
        log_start: read.log_start,
        diverging: read.diverging,
    }
}

fn record(key: &str, value: &str) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    builder.push(&NewRecord { timestamp: 1, key, value, headers: &[] }).unwrap();
    builder.build().unwrap()
}

fn of_producer(sequence: i32, transactional: bool) -> RecordBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(5), 0, sequence).transactional(transactional);
    builder.push(&NewRecord { timestamp: 1, key: Some(b"p"), value: Some(b"v"), headers: &[] }).unwrap();
    builder.build().unwrap()
}

#[test]
fn a_follower_copies_byte_for_byte_and_the_watermark_follows_what_is_synced_everywhere() {
    let cluster = Cluster::new(3);
    let batches = || (0..40).map(|n| record("k", &"x".repeat(n * 20))).collect();
    let appended = cluster.append(batches());
    let leader = cluster.on(1);
    let committed = leader.committed(appended.end, appended.epoch);
    cluster.catch_up(2);
    assert_eq!(leader.high_watermark(), Offset(0), "broker 3 has said nothing");
    cluster.catch_up(3);
    cluster.runtime.block_on(committed).unwrap();
    assert_eq!(leader.high_watermark(), Offset(40));
    cluster.fetch(2).unwrap();
    assert_eq!(cluster.on(2).high_watermark(), Offset(40), "told with the next answer");
    assert!(cluster.on(2).read(Offset(0), 100, Isolation::Uncommitted).unwrap().high_watermark == Offset(40));
    for node in [2, 3] {
        assert!(cluster.bytes(node) == cluster.bytes(1) && !cluster.bytes(1).is_empty());
        assert_eq!(cluster.on(node).reader().leader_epochs(), leader.reader().leader_epochs());
    }
    let refused = cluster.on(2).append(vec![record("k", "v")], AppendOptions::CLIENT);
    assert!(matches!(cluster.runtime.block_on(refused), Err(PartitionError::NotLeader { .. })));
}

#[test]
fn what_was_not_committed_is_cut_when_another_leads_back_and_forth() {
    let mut cluster = Cluster::new(3);
    cluster.append(vec![record("a", "kept"), record("b", "kept")]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    cluster.until_committed(2);
    // Nobody copies these.
    let lost = cluster.append(vec![record("a", "lost"), record("c", "lost"), record("d", "lost")]);
    let waiting = cluster.on(1).committed(lost.end, lost.epoch);
    cluster.elect(2, &[1, 2, 3]);
    assert!(matches!(cluster.runtime.block_on(waiting), Err(PartitionError::NotLeader { .. })));
    cluster.append(vec![record("a", "other"), record("e", "other")]);
    cluster.catch_up(1);
    cluster.catch_up(3);
    cluster.until_committed(4);
    let late = cluster.on(1).committed(lost.end, lost.epoch);
    let late = cluster.runtime.block_on(late);
    assert!(
        matches!(late, Err(PartitionError::NotLeader { .. })),
        "another record is committed there: {late:?}"
    );
    // A leader that appends nothing, one that is not heard of by broker 3, and back.
    cluster.elect(3, &[1, 2, 3]);
    cluster.elect(1, &[1, 2, 3]);
    cluster.append(vec![record("a", "last")]);
    cluster.catch_up(2);
    cluster.catch_up(3);
    cluster.until_committed(5);
    for node in [2, 3] {
        assert!(cluster.bytes(node) == cluster.bytes(1));
        let epochs = cluster.on(node).reader().leader_epochs();
        let starts: Vec<_> = epochs.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect();
        assert_eq!(starts, [(0, 0), (1, 2), (3, 4)], "on {node}");
    }
    assert_eq!(cluster.on(1).log_end(), Offset(5));
}

#[test]
fn producers_transactions_and_keys_are_right_on_whoever_leads_next() {
    let mut cluster = Cluster::new(2);
    cluster.append(vec![of_producer(0, true)]);
    cluster.append(vec![record("s", "1"), record("s", "2")]);
    cluster.catch_up(2);
    cluster.until_committed(3);
    cluster.fetch(2).unwrap();
    for node in [1, 2] {
        assert_eq!(cluster.on(node).last_stable_offset(), Offset(0), "a transaction is open");
    }
    // In the log of broker 1 alone, and cut there later: as if it had never been.
    cluster.append(vec![of_producer(1, true), record("s", "lost")]);
    cluster.elect(2, &[1, 2]);
    let retry = cluster.append(vec![of_producer(0, true)]);
    assert!(retry.batches[0].as_ref().unwrap().is_duplicate, "{retry:?}");
    let looked = cluster.on(2).look_at_stream(b"s", Expected::Exactly(Offset(2)), None).unwrap();
    let check = KeyCheck {
        record: 0,
        key: Bytes::from_static(b"s"),
        expected: Expected::Exactly(Offset(2)),
        earlier: None,
    };
    let condition = Condition { checks: vec![check], append_id: None, seen: Some(looked) };
    let appending = cluster.on(2).append_one(record("s", "3"), Some(condition), AppendOptions::CLIENT);
    cluster.runtime.block_on(appending).unwrap().batches[0].clone().unwrap();
    let mut marker = BatchBuilder::new().producer(ProducerId(5), 0, -1);
    let end = EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 0 };
    marker.push_marker(1, &end).unwrap();
    let options = AppendOptions { origin: Origin::Coordinator, ..AppendOptions::CLIENT };
    let ended = cluster.on(2).append(vec![marker.build().unwrap()], options);
    cluster.runtime.block_on(ended).unwrap().batches[0].clone().unwrap();
    cluster.catch_up(1);
    cluster.until_committed(5);
    cluster.fetch(1).unwrap();
    for node in [1, 2] {
        let partition = cluster.on(node);
        assert_eq!(partition.last_stable_offset(), Offset(5), "on {node}");
        let query = StreamQuery {
            key: b"s",
            from: Offset(0),
            direction: Direction::Forward,
            below: Offset::MAX,
            max_records: 10,
            max_bytes: 10_000,
        };
        let (stream, _) = partition.read_stream(&query, Isolation::Uncommitted).unwrap();
        let offsets: Vec<i64> = stream.records.iter().map(|r| r.offset.0).collect();
        assert_eq!(offsets, [1, 2, 3], "on {node}");
        let producers = cluster.runtime.block_on(partition.describe_producers()).unwrap();
        assert_eq!(producers.len(), 1);
    }
    assert!(cluster.bytes(1) == cluster.bytes(2));
    // What was cut is no duplicate: its sequence number is the next one.
    cluster.elect(1, &[1, 2]);
    let again = cluster.append(vec![of_producer(1, false)]);
    assert!(!again.batches[0].as_ref().unwrap().is_duplicate);
    let gap = cluster.append(vec![of_producer(3, false)]);
    assert!(matches!(gap.batches[0], Err(AppendError::Producer(_))), "{gap:?}");
}

#[test]
fn the_in_sync_set_shrinks_and_grows_and_acknowledgements_ask_for_enough() {
    let mut cluster = Cluster::new(3);
    cluster.min_isr = 2;
    cluster.tell(&[1, 2, 3]);
    let leader = cluster.on(1).clone();
    let proposes = |now_ms: u64| {
        let proposal = leader.isr_proposal(now_ms, 1_000)?;
        let command = proposal.command(|broker| Some(BrokerEpoch(i64::from(broker.0)))).unwrap();
        let Command::ChangeIsr { isr, partition: 0, .. } = command else { panic!("{command:?}") };
        assert!(isr.iter().all(|(broker, epoch)| i64::from(broker.0) == epoch.0));
        Some(isr.iter().map(|(broker, _)| broker.0).collect::<Vec<_>>())
    };
    let set = DirtySet::default();
    let _registration = leader.on_replica_progress(set.mark_of(4));
    cluster.append(vec![record("k", "v")]);
    assert_eq!(set.take(9), [4], "the log has grown");
    assert!(leader.needs_isr_watch());
    cluster.catch_up(2);
    assert_eq!(proposes(0), None);
    assert_eq!(proposes(1_000), Some(vec![1, 2]));
    assert_eq!(leader.high_watermark(), Offset(0), "3 counts until the cluster has agreed");
    leader.on_isr_answer(&Ok(1));
    (cluster.partition_epoch, cluster.isr) = (1, vec![1, 2]);
    cluster.tell(&[1, 2]);
    cluster.until_committed(1);
    let progress = leader.replicas_progress(1_500);
    assert_eq!(
        progress.iter().map(|p| (p.broker.0, p.is_in_sync)).collect::<Vec<_>>(),
        [(2, true), (3, false)]
    );
    assert!(progress[1].caught_up_ms_ago >= 1_500 && progress[0].caught_up_ms_ago == 0);
    // Broker 3 has not heard of it, and is believed again once it speaks of this state.
    cluster.catch_up(3);
    assert_eq!(proposes(2_000), None);
    cluster.tell(&[3]);
    assert_eq!(set.take(9), [4], "the in-sync set is another");
    cluster.catch_up(3);
    assert_eq!(set.take(9), [4], "it could join");
    assert_eq!(proposes(2_000), Some(vec![1, 2, 3]));
    leader.on_isr_unanswered();
    assert_eq!(proposes(2_001), None);
    // Too few for what is asked: refused before, and what is in the log already is not acknowledged.
    let appended = cluster.append(vec![record("k", "w")]);
    (cluster.partition_epoch, cluster.isr) = (3, vec![1]);
    let committed = leader.committed(appended.end, appended.epoch);
    cluster.tell(&[1]);
    let committed = cluster.runtime.block_on(committed);
    assert!(matches!(committed, Err(PartitionError::NotEnoughReplicasAfterAppend { in_sync: 1, min: 2 })));
    let refused = cluster.runtime.block_on(leader.append(vec![record("k", "x")], AppendOptions::CLIENT));
    assert!(matches!(refused, Err(PartitionError::NotEnoughReplicas { in_sync: 1, min: 2 })), "{refused:?}");
}

#[test]
fn a_follower_that_is_behind_the_leaders_start_begins_again_there() {
    let mut cluster = Cluster::new(2);
    let mut three = BatchBuilder::new();
    for n in 0..3 {
        three.push(&NewRecord { timestamp: n, key: Some(b"k"), value: None, headers: &[] }).unwrap();
    }
    cluster.append(vec![record("k", "0"), record("k", "1")]);
    cluster.catch_up(2);
    cluster.until_committed(2);
    cluster.isr = vec![1];
    cluster.partition_epoch = 1;
    cluster.tell(&[1]);
    cluster.append(vec![record("k", "2"), three.build().unwrap(), record("k", "6")]);
    cluster.until_committed(7);
    // Within the batch of three.
    let deleted = cluster.on(1).delete_before(Some(Offset(4)));
    cluster.runtime.block_on(async { deleted.await.unwrap() });
    let said = cluster.said_by(2);
    let read = cluster.on(1).replica_fetch(&said, 1_000).unwrap();
    assert_eq!((read.batches.len(), read.log_start), (0, Offset(4)));
    let position = cluster.fetch(2).unwrap();
    assert_eq!(
        (position.fetch_offset, position.synced_end, position.log_start),
        (Offset(4), Offset(4), Offset(4))
    );
    assert_eq!(cluster.on(2).high_watermark(), Offset(4), "R12");
    cluster.tell(&[2]);
    cluster.catch_up(2);
    cluster.fetch(2).unwrap();
    let follower = cluster.on(2);
    assert_eq!(
        (follower.log_start(), follower.log_end(), follower.high_watermark()),
        (Offset(4), Offset(7), Offset(7))
    );
    assert!(cluster.on(1).isr_proposal(0, 1_000).is_some());
}

#[test]
fn answers_of_the_past_and_bad_bytes_change_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.append(vec![record("k", "0"), record("k", "1")]);
    let said = cluster.said_by(2);
    let read = cluster.on(1).replica_fetch(&said, 10_000).unwrap();
    let apply = |cluster: &Cluster, fetched: Fetched| {
        cluster.runtime.block_on(async { cluster.on(2).on_fetched(fetched).await })
    };
    let good = fetched(1, &said, read);
    let mut damaged = good.clone();
    let mut bytes = damaged.batches[0].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged.batches[0] = bytes.into();
    let cut_short =
        Fetched { batches: vec![good.batches[0].slice(..good.batches[0].len() - 1)], ..good.clone() };
    for bad in [damaged, cut_short] {
        let refused = apply(&cluster, bad);
        assert!(matches!(refused, Err(PartitionError::BadCopy { .. })), "{refused:?}");
    }
    assert_eq!(cluster.on(2).log_end(), Offset(0));
    // Two calls in a row: the order of the calls is the order in the log.
    let (first, second) = cluster.runtime.block_on(async {
        let follower = cluster.on(2);
        let empty = Fetched { batches: Vec::new(), ..good.clone() };
        let (first, second) = (follower.on_fetched(good.clone()), follower.on_fetched(empty));
        (first.await, second.await)
    });
    assert_eq!(first.unwrap().fetch_offset, Offset(2));
    assert!(matches!(second, Err(PartitionError::NotTheNext { expected: Offset(2), found: Offset(0) })));
    cluster.elect(1, &[1, 2]);
    let old = apply(&cluster, good);
    assert!(matches!(old, Err(PartitionError::FencedEpoch { .. })), "{old:?}");
    let late = cluster.on(1).on_replica_position(&said, 0);
    assert!(matches!(late, Err(PartitionError::FencedEpoch { .. })), "{late:?}");
    let stranger = ReplicaFetch { replica: BrokerId(9), ..cluster.said_by(2) };
    assert!(matches!(cluster.on(1).replica_fetch(&stranger, 1), Err(PartitionError::UnknownReplica { .. })));
    let wrong_way = cluster.on(2).replica_fetch(&cluster.said_by(2), 1);
    assert!(matches!(wrong_way, Err(PartitionError::NotLeader { .. })), "{wrong_way:?}");
    assert!(cluster.on(1).follower_position().is_none());
    assert_eq!(cluster.on(2).log_end(), Offset(2));
}

#[test]
fn a_replica_that_is_far_behind_keeps_nothing_in_memory_and_syncs_when_it_has_come_up() {
    let mut cluster = Cluster::new(3);
    cluster.isr = vec![1, 2];
    cluster.partition_epoch += 1;
    cluster.tell(&[1, 2, 3]);
    cluster.append((0..40).map(|n| record("k", &"x".repeat(n * 20))).collect());
    cluster.catch_up(2);
    cluster.until_committed(40);
    let in_memory = |cluster: &Cluster, from| {
        let limits = ReadLimits { max_bytes: 1, below: Offset::MAX };
        cluster.on(3).reader().read_in_memory(Offset(from), limits).unwrap().is_some()
    };
    let wants_sync = |cluster: &Cluster| {
        let replica = &cluster.on(3).0;
        replica.log.with_log(|log| (log.is_behind(), replica.progress.on_moved(log)))
    };
    let position = cluster.fetch(3).unwrap();
    assert!(position.fetch_offset > Offset(0) && position.fetch_offset < Offset(40), "{position:?}");
    assert_eq!(wants_sync(&cluster), (true, false), "of a sync now nobody has anything");
    assert!(!in_memory(&cluster, 0));
    assert_eq!(cluster.said_by(3).synced_end, Offset(0), "what is not synced is not said to be (R39)");
    cluster.catch_up(3);
    assert!(!wants_sync(&cluster).0 && in_memory(&cluster, 39));
    assert!(cluster.bytes(3) == cluster.bytes(1));
    // One that the cluster has in sync has its leader wait for it, whatever that has told.
    cluster.isr = vec![1, 2, 3];
    cluster.partition_epoch += 1;
    cluster.tell(&[1, 2, 3]);
    let said = cluster.said_by(3);
    cluster.append(vec![record("k", "v")]);
    let mut read = cluster.on(1).replica_fetch(&said, 3_000).unwrap();
    read.high_watermark = Offset(1_000);
    cluster.runtime.block_on(cluster.on(3).on_fetched(fetched(1, &said, read))).unwrap();
    assert!(!wants_sync(&cluster).0);
}

#[test]
fn a_replica_that_is_far_behind_has_the_disk_work_while_more_comes() {
    let mut cluster = Cluster::new(2);
    cluster.isr = vec![1];
    cluster.partition_epoch += 1;
    cluster.tell(&[1, 2]);
    let value = "x".repeat(1 << 20);
    let pieces = BEHIND_SYNC_BYTES >> 20;
    for n in 0..=pieces as i64 {
        let said = cluster.said_by(2);
        let mut batch = record("k", &value);
        batch.stamp(Offset(n), LeaderEpoch(0));
        let batches = vec![batch.freeze()];
        let (high_watermark, log_end) = (Offset(1_000), Offset(1_000));
        let read = ReplicaRead { batches, high_watermark, log_start: Offset(0), log_end, diverging: None };
        cluster.runtime.block_on(cluster.on(2).on_fetched(fetched(1, &said, read))).unwrap();
    }
    let begun = Stopwatch::start();
    while cluster.said_by(2).synced_end == Offset(0) {
        assert!(begun.elapsed() < PATIENCE, "nothing is synced");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(cluster.on(2).0.log.with_log(|log| log.is_behind()));
}
