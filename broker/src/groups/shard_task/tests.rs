//! Groups over real partitions on simulated disks: what is acknowledged survives, what the log refuses is not acknowledged, and
//! whoever waits is answered.

use std::path::Path;

use bytes::Bytes;
use floodmark_proto::ids::{BrokerId, ProducerId, TopicId};
use floodmark_replication::cluster::settings::{Layers, TopicSettings};
use floodmark_replication::lease::Lease;
use floodmark_replication::partition::{Duty, PartitionId, Role};
use floodmark_replication::vital::Vitals;
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::group_commit::DiskThreads;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};

use super::*;
use crate::groups::coordinator::{Coordinator, TransactionEnd, WhichOffsets};
use crate::groups::group::{CommitFrom, GroupState, Joined};
use crate::groups::join::Join;
use crate::groups::records::OFFSETS_TOPIC;
use crate::groups::shard_offsets::{OffsetCommit, OffsetToCommit};
use crate::groups::sync::Sync;
use crate::groups::tests::{consumer, plain_sync, settings};

struct Broker {
    disk: SimDisk,
    clock: Clock,
    lease: Lease,
    partition: PartitionHandle,
    coordinator: Coordinator,
}

/// A broker that leads the one partition of the offsets topic.
fn start(disk: &SimDisk, epoch: i32) -> Broker {
    start_with(disk, epoch, settings())
}

fn start_with(disk: &SimDisk, epoch: i32, settings: GroupSettings) -> Broker {
    let clock = Clock::manual(1_000_000_000);
    let partition = open(disk, epoch, &clock);
    start_on(disk, partition, clock, settings)
}

fn start_on(disk: &SimDisk, partition: PartitionHandle, clock: Clock, settings: GroupSettings) -> Broker {
    let lease = held();
    let coordinator =
        Coordinator::new(settings, clock.clone(), Random::seeded(7), lease.clone(), Vitals::default());
    coordinator.set_partition_count(1);
    coordinator.follow(&partition);
    Broker { disk: disk.clone(), clock, lease, partition, coordinator }
}

/// A lease that nobody takes away.
fn held() -> Lease {
    let lease = Lease::default();
    lease.hold();
    lease
}

fn open(disk: &SimDisk, epoch: i32, clock: &Clock) -> PartitionHandle {
    let nothing = std::collections::BTreeMap::new();
    let layers = Layers { topic: &nothing, broker: &nothing, cluster: &nothing, file: &nothing };
    let log = LogConfig { segment_bytes: 100_000, prewrite_bytes: 0, ..LogConfig::default() };
    let topic = TopicSettings { log: log.clone(), ..TopicSettings::resolve(&layers, &LogConfig::default()) };
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: clock.clone(),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(10_000),
    };
    let log = Log::open(context, Path::new("__consumer_offsets-0"), log).expect("a log").0;
    let topic_id = TopicId::from_bytes([7; 16]).expect("an id");
    let name = PartitionId { topic_id, topic: OFFSETS_TOPIC.into(), index: 0 };
    let role = Role::Leader { epoch: LeaderEpoch(epoch) };
    let duty = Duty {
        node: BrokerId(1),
        role,
        replicas: Arc::new([BrokerId(1)]),
        isr: Arc::new([BrokerId(1)]),
        partition_epoch: 0,
        settings: Arc::new(topic),
    };
    PartitionHandle::new(name, log, &DiskThreads::start(1).expect("threads"), duty)
}

/// From now on, for ever, in the log's own files.
fn fault(on: FaultOn, kind: FaultKind) -> Fault {
    Fault { on, path_ends: ".log".to_owned(), after: 0, times: u64::MAX, kind }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("nobody was told in time")
    })
}

impl Broker {
    async fn commit(&self, group: &str, offset: i64) -> Result<(), GroupError> {
        self.commit_in(group, offset, None).await
    }

    async fn commit_in(
        &self,
        group: &str,
        offset: i64,
        transaction: Option<(ProducerId, i16)>,
    ) -> Result<(), GroupError> {
        let from = CommitFrom {
            member_id: "",
            instance_id: None,
            generation: -1,
            is_transactional: transaction.is_some(),
        };
        let offsets = [OffsetToCommit {
            topic: "t",
            topic_id: [0; 16],
            partition: 0,
            offset,
            leader_epoch: 2,
            metadata: "m",
        }];
        let commit = OffsetCommit { from, retention_ms: None, offsets: &offsets, transaction };
        self.coordinator.commit_offsets(group, &commit).await.and_then(|verdicts| verdicts[0])
    }

    fn fetch(&self, group: &str) -> Result<Option<i64>, GroupError> {
        let which = [("t", [0; 16], 0)];
        let fetched = self.coordinator.fetch_offsets(group, WhichOffsets::Of(&which), false)?;
        fetched[0].offset.clone().map(|found| found.map(|kept| kept.offset))
    }

    /// Loading takes a moment.
    async fn ready(&self) {
        while self.coordinator.list_groups() == Err(GroupError::CoordinatorLoading) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn member(&self, group: &str) -> Joined {
        let join = Join { needs_known_member_id: false, ..consumer("c") };
        self.coordinator.join(group, join).await.expect("a member")
    }

    async fn assign(&self, group: &str, joined: &Joined) -> Result<Bytes, GroupError> {
        let assignments = vec![(Arc::clone(&joined.member_id), Bytes::from_static(b"all"))];
        let sync = Sync { assignments, ..plain_sync(&joined.member_id, joined.generation) };
        self.coordinator.sync(group, sync).await.map(|synced| synced.assignment)
    }
}

#[test]
fn acknowledged_commits_survive_a_power_cut_and_an_unacknowledged_one_may() {
    let disk = SimDisk::new();
    for seed in 0..10 {
        let (acknowledged, cut) = run(async {
            let broker = start(&disk.image().power_cut(seed), 1);
            broker.ready().await;
            for n in 0..20 {
                assert_eq!(broker.commit("g", n).await, Ok(()));
                assert_eq!(broker.fetch("g"), Ok(Some(n)));
            }
            // Nobody waits for the answer; the connection was closed.
            let late = broker.commit("g", 20);
            tokio::select! { biased; _ = late => {}, () = std::future::ready(()) => {} }
            (19, broker.disk.image().power_cut(seed))
        });
        run(async {
            let broker = start(&cut, 2);
            broker.ready().await;
            let found = broker.fetch("g").expect("loaded").expect("an offset");
            assert!(found >= acknowledged, "{found}");
        });
    }
}

#[test]
fn a_commit_whose_sync_fails_is_not_acknowledged() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
        broker.disk.inject(fault(FaultOn::Sync, FaultKind::Eio));
        assert_eq!(broker.commit("g", 2).await, Err(GroupError::CoordinatorNotAvailable));
        assert!(broker.disk.faults_taken() > 0);
        assert_ne!(broker.fetch("g"), Ok(Some(2)), "what may not be there tomorrow is told to nobody");
    });
}

#[test]
fn a_full_disk_refuses_commits_and_is_forgotten_when_there_is_space() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
        broker.disk.inject(fault(FaultOn::Write, FaultKind::NoSpace));
        assert_eq!(broker.commit("g", 2).await, Err(GroupError::CoordinatorNotAvailable));
        assert_eq!(broker.fetch("g"), Ok(Some(1)));
        broker.disk.heal();
        assert_eq!(broker.commit("g", 3).await, Ok(()));
        assert_eq!(broker.fetch("g"), Ok(Some(3)));
    });
}

#[test]
fn a_group_goes_on_after_a_restart() {
    let disk = SimDisk::new();
    let joined = run(async {
        let broker = start(&disk, 1);
        broker.ready().await;
        let joined = broker.member("g").await;
        assert_eq!(broker.assign("g", &joined).await, Ok(Bytes::from_static(b"all")));
        joined
    });
    run(async {
        let broker = start(&disk.image().power_cut(3), 2);
        broker.ready().await;
        assert_eq!(broker.coordinator.heartbeat("g", &joined.member_id, None, joined.generation), Ok(()));
        let sync = plain_sync(&joined.member_id, joined.generation);
        let synced = broker.coordinator.sync("g", sync).await.expect("stable");
        assert_eq!(synced.assignment, Bytes::from_static(b"all"));
        let described = broker.coordinator.describe_group("g").expect("a group");
        assert_eq!((described.state, described.members.len()), (GroupState::Stable, 1));
    });
}

#[test]
fn r30_a_leader_of_the_past_is_not_listened_to() {
    run(async {
        let broker = start(&SimDisk::new(), 5);
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
        let older = open(&SimDisk::new(), 4, &broker.clock);
        broker.coordinator.follow(&older);
        broker.coordinator.resign(0, LeaderEpoch(4));
        broker.coordinator.follow(&broker.partition);
        assert_eq!(broker.fetch("g"), Ok(Some(1)));
        broker.coordinator.resign(0, LeaderEpoch(6));
        assert_eq!(broker.fetch("g"), Err(GroupError::NotCoordinator));
    });
}

/// Whoever carries images to the coordinator waits for partitions, and they for disks.
#[test]
fn a_coordinator_whose_successor_is_known_answers_nobody_before_it_is_told_to_resign() {
    run(async {
        let broker = start(&SimDisk::new(), 5);
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
        broker.partition.hear_of_leader(LeaderEpoch(5));
        assert_eq!(broker.fetch("g"), Ok(Some(1)));
        broker.partition.hear_of_leader(LeaderEpoch(6));
        assert_eq!(broker.fetch("g"), Err(GroupError::NotCoordinator));
        assert_eq!(broker.commit("g", 2).await, Err(GroupError::NotCoordinator));
        assert!(broker.coordinator.list_groups().unwrap().is_empty());
    });
}

#[test]
fn with_too_few_replicas_for_new_commits_the_old_ones_are_told() {
    run(async {
        let disk = SimDisk::new();
        let broker = start(&disk, 1);
        broker.ready().await;
        broker.commit("g", 7).await.unwrap();
        broker.coordinator.stop();
        broker.partition.close().unwrap();
        let clock = Clock::manual(1_000_000_000);
        let partition = open(&disk, 2, &clock);
        let duty = Duty::clone(&partition.duty());
        let settings_of_topic =
            TopicSettings { min_insync_replicas: 2, ..TopicSettings::clone(&duty.settings) };
        partition.take_up(Duty { settings: Arc::new(settings_of_topic), ..duty }, Duration::from_secs(60));
        let broker = start_on(&disk, partition, clock, settings());
        broker.ready().await;
        assert_eq!(broker.fetch("g"), Ok(Some(7)));
        assert_eq!(broker.commit("g", 8).await, Err(GroupError::CoordinatorNotAvailable));
        assert_eq!(broker.fetch("g"), Ok(Some(7)));
    });
}

/// As with a disk that hangs: nothing fails, and nothing comes of it.
#[test]
fn whoever_commits_or_deletes_into_a_log_that_does_not_answer_is_told_in_time_to_come_back() {
    run(async {
        let settings = GroupSettings { commit_timeout: Duration::from_millis(50), ..settings() };
        let broker = start_with(&SimDisk::new(), 1, settings);
        broker.ready().await;
        // On a machine that stands still these may be told to come back as well.
        for group in ["g", "h"] {
            let _ = broker.commit(group, 7).await;
            while broker.fetch(group) != Ok(Some(7)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // In sync, and never heard of.
        let silent = Arc::new([BrokerId(1), BrokerId(2)]);
        let duty = Duty::clone(&broker.partition.duty());
        broker.partition.take_up(
            Duty { replicas: silent.clone(), isr: silent, partition_epoch: 1, ..duty },
            Duration::from_secs(60),
        );
        let late = Err(GroupError::CoordinatorNotAvailable);
        assert_eq!(broker.commit("g", 8).await, late);
        assert_eq!(broker.coordinator.delete_offsets("g", &[("t", 0)]).await, Ok(vec![late]));
        assert_eq!(broker.coordinator.delete_group("h").await, late);
        let end = TransactionEnd { producer: ProducerId(1), epoch: 0, coordinator_epoch: 0, is_commit: true };
        assert_eq!(broker.coordinator.end_transaction(0, end).await, late);
        assert_eq!(broker.fetch("g"), Ok(Some(7)), "and others are answered");
        // What was decided happens once the log goes on.
        let alone = Arc::new([BrokerId(1)]);
        let duty = Duty::clone(&broker.partition.duty());
        broker.partition.take_up(Duty { isr: alone, partition_epoch: 2, ..duty }, Duration::from_secs(60));
        while broker.fetch("g") != Ok(None) || broker.fetch("h") != Ok(None) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn whoever_waits_is_answered_when_leadership_is_lost() {
    run(async {
        let delay = GroupSettings { initial_rebalance_delay_ms: 3_600_000, ..settings() };
        let broker = start_with(&SimDisk::new(), 1, delay);
        broker.ready().await;
        let join = Join { needs_known_member_id: false, ..consumer("c") };
        let waiting = tokio::spawn({
            let coordinator = broker.coordinator.clone();
            async move { coordinator.join("g", join).await }
        });
        while broker.coordinator.list_groups() == Ok(Vec::new()) {
            tokio::task::yield_now().await;
        }
        broker.coordinator.resign(0, LeaderEpoch(2));
        let refused = waiting.await.expect("a task").expect_err("an answer");
        assert_eq!(refused.error, GroupError::NotCoordinator);
    });
}

#[test]
fn requests_are_turned_away_while_the_log_is_read() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        // On one thread, the shard's task has not had its turn yet.
        assert_eq!(broker.fetch("g"), Err(GroupError::CoordinatorLoading));
        assert_eq!(broker.commit("g", 1).await, Err(GroupError::CoordinatorLoading));
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
    });
}

/// Another broker may have these groups by now, and a commit newer than the newest here.
#[test]
fn a_coordinator_without_its_lease_answers_nothing() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
        broker.lease.give_up();
        let gone = GroupError::NotCoordinator;
        assert_eq!(broker.fetch("g"), Err(gone));
        assert_eq!(broker.commit("g", 2).await, Err(gone));
        assert_eq!(broker.coordinator.list_groups(), Err(gone));
        assert_eq!(broker.coordinator.describe_group("g"), Err(gone));
        assert_eq!(broker.coordinator.heartbeat("g", "m", None, 1), Err(gone));
        assert_eq!(broker.coordinator.leave("g", &[]), Err(gone));
        assert_eq!(broker.coordinator.delete_group("g").await, Err(gone));
        assert_eq!(broker.coordinator.delete_offsets("g", &[("t", 0)]).await, Err(gone));
        let refused = broker.coordinator.join("g", consumer("c")).await.expect_err("an answer");
        assert_eq!(refused.error, gone);
        // It was only slow to hear that nothing has changed.
        broker.lease.hold();
        assert_eq!(broker.fetch("g"), Ok(Some(1)));
    });
}

/// R30: what is heard of leaders out of order neither unloads the newer one nor loads the older one.
#[test]
fn r30_groups_follow_the_newest_leader_epoch_in_whatever_order_they_are_told() {
    run(async {
        let disk = SimDisk::new();
        let broker = start(&disk, 5);
        broker.ready().await;
        assert_eq!(broker.commit("g", 1).await, Ok(()));
        // The end of an earlier leadership is told late.
        broker.coordinator.resign(0, LeaderEpoch(4));
        assert_eq!(broker.commit("g", 2).await, Ok(()), "it leads in epoch 5");
        // So is its beginning.
        let old = open(&SimDisk::new(), 3, &broker.clock);
        broker.coordinator.follow(&old);
        assert_eq!(broker.fetch("g"), Ok(Some(2)));
        // The end of this one counts, and the same beginning told again does not undo it.
        broker.coordinator.resign(0, LeaderEpoch(6));
        assert_eq!(broker.fetch("g"), Err(GroupError::NotCoordinator));
        broker.coordinator.follow(&broker.partition);
        assert_eq!(broker.fetch("g"), Err(GroupError::NotCoordinator), "epoch 6 is somebody else's");
    });
}

#[test]
fn without_an_offsets_topic_there_is_no_coordinator() {
    let coordinator =
        Coordinator::new(settings(), Clock::System, Random::seeded(1), held(), Vitals::default());
    assert_eq!(coordinator.find("g"), Err(GroupError::CoordinatorNotAvailable));
    coordinator.set_partition_count(50);
    assert_eq!(coordinator.find("a"), Ok(97 % 50));
    assert_eq!(coordinator.heartbeat("g", "m", None, 1), Err(GroupError::NotCoordinator));
    assert_eq!(coordinator.heartbeat("", "m", None, 1), Err(GroupError::InvalidGroupId));
}

#[test]
fn sessions_end_without_anybody_asking() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        broker.ready().await;
        let joined = broker.member("g").await;
        assert_eq!(broker.assign("g", &joined).await, Ok(Bytes::from_static(b"all")));
        broker.clock.advance_ms(10_000);
        broker.coordinator.wake();
        while broker.coordinator.describe_group("g").expect("a group").state != GroupState::Empty {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn offsets_of_transactions_survive_a_restart_open_and_ended() {
    let disk = SimDisk::new();
    let producer = ProducerId(9);
    let end = TransactionEnd { producer, epoch: 0, coordinator_epoch: 1, is_commit: true };
    run(async {
        let broker = start(&disk, 1);
        broker.ready().await;
        assert_eq!(broker.commit_in("g", 5, Some((producer, 0))).await, Ok(()));
        assert_eq!(broker.fetch("g"), Ok(None));
    });
    run(async {
        let broker = start(&disk.image().power_cut(1), 2);
        broker.ready().await;
        assert_eq!(broker.fetch("g"), Ok(None));
        let which = [("t", [0; 16], 0)];
        let fetched = broker.coordinator.fetch_offsets("g", WhichOffsets::Of(&which), true).expect("loaded");
        assert_eq!(fetched[0].offset, Err(GroupError::UnstableOffset));
        assert_eq!(broker.coordinator.end_transaction(0, end).await, Ok(()));
        assert_eq!(broker.fetch("g"), Ok(Some(5)));
        let disk = broker.disk.image().power_cut(2);
        drop(broker);
        let broker = start(&disk, 3);
        broker.ready().await;
        assert_eq!(broker.fetch("g"), Ok(Some(5)));
    });
}

#[test]
fn an_older_incarnation_of_a_producer_commits_nothing() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        broker.ready().await;
        assert_eq!(broker.commit_in("g", 5, Some((ProducerId(9), 4))).await, Ok(()));
        let old = broker.commit_in("g", 6, Some((ProducerId(9), 3))).await;
        assert_eq!(old, Err(GroupError::InvalidProducerEpoch));
    });
}

#[test]
fn a_group_that_does_not_fit_a_record_is_refused_and_rebalances() {
    run(async {
        let broker = start(&SimDisk::new(), 1);
        broker.ready().await;
        let joined = broker.member("g").await;
        let assignments = vec![(Arc::clone(&joined.member_id), Bytes::from(vec![0; 2 << 20]))];
        let sync = Sync { assignments, ..plain_sync(&joined.member_id, joined.generation) };
        assert_eq!(broker.coordinator.sync("g", sync).await, Err(GroupError::RecordTooLarge));
        let state = broker.coordinator.describe_group("g").expect("a group").state;
        assert_eq!(state, GroupState::PreparingRebalance);
    });
}

/// As many as one batch of this log has no room for (`segment_bytes`).
#[test]
fn a_group_with_more_offsets_than_a_batch_has_room_for_can_be_deleted_and_expires() {
    let partitions: Vec<i32> = (0..10_000).collect();
    let disk = SimDisk::new();
    run(async {
        let broker = start(&disk, 1);
        broker.ready().await;
        let from = CommitFrom { member_id: "", instance_id: None, generation: -1, is_transactional: false };
        for group in ["deleted", "left"] {
            for some in partitions.chunks(500) {
                let offset = |partition: &i32| OffsetToCommit {
                    topic: "t",
                    topic_id: [0; 16],
                    partition: *partition,
                    offset: 1,
                    leader_epoch: -1,
                    metadata: "",
                };
                let offsets: Vec<_> = some.iter().map(offset).collect();
                let commit = OffsetCommit { from, retention_ms: None, offsets: &offsets, transaction: None };
                assert!(broker.coordinator.commit_offsets(group, &commit).await.is_ok());
            }
        }
        assert_eq!(broker.coordinator.delete_group("deleted").await, Ok(()));
        assert_eq!(broker.coordinator.list_groups().map(|groups| groups.len()), Ok(1));
        broker.clock.advance_ms(8 * 24 * 60 * 60 * 1000);
        broker.coordinator.wake();
        while broker.coordinator.list_groups() != Ok(Vec::new()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    run(async {
        let broker = start(&disk.image().power_cut(1), 2);
        broker.ready().await;
        assert_eq!(broker.coordinator.list_groups(), Ok(Vec::new()));
    });
}

#[test]
fn r33_one_record_larger_than_a_read_does_not_stop_the_load() {
    let disk = SimDisk::new();
    let members = 40;
    run(async {
        let broker = start_with(&disk, 1, GroupSettings { initial_rebalance_delay_ms: 50, ..settings() });
        broker.ready().await;
        let join = || Join { needs_known_member_id: false, ..consumer(&"c".repeat(200)) };
        let joins: Vec<_> = (0..members)
            .map(|_| {
                let coordinator = broker.coordinator.clone();
                tokio::spawn(async move { coordinator.join("g", join()).await })
            })
            .collect();
        while broker.coordinator.describe_group("g").map_or(0, |g| g.members.len()) < members {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        broker.clock.advance_ms(100);
        broker.coordinator.wake();
        tokio::time::sleep(Duration::from_millis(10)).await;
        broker.clock.advance_ms(100);
        broker.coordinator.wake();
        for join in joins {
            let joined = join.await.expect("a task").expect("a member");
            if !joined.members.is_empty() {
                let assignment = Bytes::from(vec![1; 1_500]);
                let assignments =
                    joined.members.iter().map(|m| (Arc::clone(&m.id), assignment.clone())).collect();
                let sync = Sync { assignments, ..plain_sync(&joined.member_id, joined.generation) };
                assert!(broker.coordinator.sync("g", sync).await.is_ok());
            }
        }
        let mut replay = Replay::default();
        let read = broker.partition.read(Offset(0), 10, Isolation::Uncommitted).expect("readable");
        let next = replay_batches(&mut replay, &read.batches[0], Offset(0)).expect("batches");
        assert!(read.batches[0].len() > 60_000 && next == broker.partition.log_end());
    });
    run(async {
        let broker = start(&disk.image().power_cut(1), 2);
        broker.ready().await;
        assert_eq!(broker.coordinator.describe_group("g").expect("a group").members.len(), members);
    });
}

#[test]
fn stopping_answers_everybody() {
    run(async {
        let delay = GroupSettings { initial_rebalance_delay_ms: 3_600_000, ..settings() };
        let broker = start_with(&SimDisk::new(), 1, delay);
        broker.ready().await;
        let join = Join { needs_known_member_id: false, ..consumer("c") };
        let waiting = broker.coordinator.join("g", join);
        let stop = async {
            tokio::task::yield_now().await;
            broker.coordinator.stop();
        };
        let (refused, ()) = tokio::join!(waiting, stop);
        assert_eq!(refused.expect_err("an answer").error, GroupError::NotCoordinator);
    });
}
