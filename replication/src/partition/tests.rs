//! Handles over a simulated disk: what is acknowledged, seen and refused, and what a power cut leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord};
use floodmark_proto::ids::BrokerId;
use floodmark_storage::clock::{Clock, Stopwatch};
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::fs::{SimDisk, SyncPoint};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::{Random, SplitMix};
use floodmark_storage::{LogConfig, TailBudget};
use parking_lot::Mutex;

use super::*;
use crate::cluster::settings::{Layers, SyncPolicy};

fn settings(sync: SyncPolicy) -> TopicSettings {
    let nothing = std::collections::BTreeMap::new();
    let layers = Layers { topic: &nothing, broker: &nothing, cluster: &nothing, file: &nothing };
    let log = LogConfig {
        segment_bytes: 20_000,
        prewrite_bytes: 8_192,
        checkpoint_interval_bytes: 10_000,
        ..LogConfig::default()
    };
    TopicSettings { sync, log, ..TopicSettings::resolve(&layers, &LogConfig::default()) }
}

fn leader(epoch: i32, sync: SyncPolicy) -> Duty {
    let role = Role::Leader { epoch: LeaderEpoch(epoch) };
    Duty {
        node: BrokerId(1),
        role,
        replicas: Arc::new([BrokerId(1)]),
        isr: Arc::new([BrokerId(1)]),
        partition_epoch: 0,
        settings: Arc::new(settings(sync)),
    }
}

fn open(disk: &SimDisk, duty: Duty) -> PartitionHandle {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::System,
        random: Random::seeded(1),
        tail_budget: TailBudget::new(10_000),
    };
    let log = Log::open(context, Path::new("t-0"), duty.settings.log.clone()).unwrap().0;
    let topic_id = TopicId::from_bytes([7; 16]).unwrap();
    let name = PartitionId { topic_id, topic: "t".into(), index: 0 };
    PartitionHandle::new(name, log, &DiskThreads::start(2).unwrap(), duty)
}

fn batch(value: &str) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: 1, key: None, value: Some(value.as_bytes()), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("nobody was told in time")
    })
}

/// What consumers see, as (offset, bytes).
fn seen(partition: &PartitionHandle) -> Vec<(Offset, Bytes)> {
    let mut from = partition.log_start();
    let mut found = Vec::new();
    loop {
        let read = partition.read(from, 3_000, Isolation::Uncommitted).unwrap();
        if read.batches.is_empty() {
            return found;
        }
        for piece in read.batches {
            let mut rest = piece;
            while !rest.is_empty() {
                let header = BatchHeader::parse(&rest).unwrap();
                assert!(header.next_offset() <= read.high_watermark);
                found.push((header.base_offset, rest.split_to(header.size_bytes())));
                from = header.next_offset();
            }
        }
    }
}

#[test]
fn what_is_appended_is_committed_stamped_and_seen() {
    let partition = open(&SimDisk::new(), leader(4, SyncPolicy::Ack));
    let first = partition.append(vec![batch("a"), batch("b")], AppendOptions::CLIENT);
    let second = partition.append(vec![batch("c")], AppendOptions::CLIENT);
    let second = now(second).unwrap();
    assert_eq!(second.batches[0].clone().unwrap().base_offset, Offset(2), "in the order of the calls");
    let first = now(first).unwrap();
    assert_eq!((first.batches.len(), first.end), (2, Offset(2)));
    now(partition.committed(second.end, second.epoch)).unwrap();
    assert_eq!(partition.high_watermark(), Offset(3));
    let seen = seen(&partition);
    assert_eq!(seen.len(), 3);
    assert_eq!(BatchHeader::parse(&seen[2].1).unwrap().leader_epoch, LeaderEpoch(4));
}

#[test]
fn the_watermark_follows_the_disk_only_where_the_topic_asks_for_it() {
    for (sync, expected) in [(SyncPolicy::Ack, 0), (SyncPolicy::Interval, 1), (SyncPolicy::None, 1)] {
        let partition = open(&SimDisk::new(), leader(0, sync));
        // With the log taken no disk thread comes to its sync.
        partition.0.log.with_log(|log| {
            let append_as = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
            log.append([batch("a")], append_as).unwrap();
            partition.0.progress.on_moved(log);
            assert_eq!(partition.high_watermark(), Offset(expected), "{sync:?}");
        });
    }
}

#[test]
fn what_nobody_waits_for_gets_committed_too() {
    let partition = open(&SimDisk::new(), leader(0, SyncPolicy::Ack));
    let notify = Arc::new(Notify::new());
    let _registration = partition.on_progress(Arc::clone(&notify));
    drop(partition.append(vec![batch("a")], AppendOptions::CLIENT));
    now(async {
        while partition.high_watermark() < Offset(1) {
            notify.notified().await;
        }
    });
}

#[test]
fn an_append_for_another_leader_or_too_few_replicas_is_refused() {
    let partition = open(&SimDisk::new(), leader(5, SyncPolicy::Ack));
    let append = |expected: i32| {
        let options = AppendOptions { expected_epoch: Some(LeaderEpoch(expected)), ..AppendOptions::CLIENT };
        now(partition.append(vec![batch("a")], options))
    };
    assert!(matches!(append(4), Err(PartitionError::FencedEpoch { current: LeaderEpoch(5), .. })));
    assert!(matches!(append(6), Err(PartitionError::UnknownEpoch { .. })));
    append(5).unwrap();
    let two = TopicSettings { min_insync_replicas: 2, ..settings(SyncPolicy::Ack) };
    partition
        .take_up(Duty { settings: Arc::new(two), ..leader(5, SyncPolicy::Ack) }, Duration::from_secs(60));
    assert!(matches!(append(5), Err(PartitionError::NotEnoughReplicas { in_sync: 1, min: 2 })));
    let alone = AppendOptions { needs_min_isr: false, ..AppendOptions::CLIENT };
    let appended = now(partition.append(vec![batch("b")], alone)).unwrap();
    let committed = now(partition.committed(appended.end, appended.epoch));
    assert!(matches!(committed, Err(PartitionError::NotEnoughReplicasAfterAppend { .. })));
    assert_eq!(partition.log_end(), Offset(2));
}

#[test]
fn who_waits_learns_that_leadership_was_lost() {
    let partition = open(&SimDisk::new(), leader(5, SyncPolicy::Ack));
    let notify = Arc::new(Notify::new());
    let registration = partition.on_progress(Arc::clone(&notify));
    let waiting = partition.committed(Offset(1), LeaderEpoch(5));
    let role = Role::NotLeader { epoch: LeaderEpoch(6) };
    partition.take_up(Duty { role, ..leader(5, SyncPolicy::Ack) }, Duration::from_secs(60));
    assert!(matches!(now(waiting), Err(PartitionError::NotLeader { epoch: LeaderEpoch(6) })));
    now(notify.notified());
    let late = now(partition.append(vec![batch("late")], AppendOptions::CLIENT));
    assert!(matches!(late, Err(PartitionError::NotLeader { .. })));
    partition.take_up(leader(5, SyncPolicy::Ack), Duration::from_secs(60));
    assert_eq!(partition.leader_epoch(), LeaderEpoch(6), "an older duty comes too late");
    drop(registration);
    partition.take_up(leader(7, SyncPolicy::Ack), Duration::from_secs(60));
    let told = now(async { tokio::time::timeout(Duration::from_millis(10), notify.notified()).await });
    assert!(told.is_err(), "who is no longer registered is told no more");
}

/// What was let in before is written, where nobody keeps the log from it, and is for the next leader to cut: it may not be told as done.
#[test]
fn what_was_let_in_before_a_later_leader_was_known_of_is_not_acknowledged() {
    let partition = open(&SimDisk::new(), leader(5, SyncPolicy::Ack));
    let (goes_on, held) = (std::sync::mpsc::sync_channel::<()>(1), std::sync::mpsc::sync_channel(1));
    let hanging = partition.clone();
    let holder = thread::spawn(move || {
        hanging.hold_log(|| {
            held.0.send(()).unwrap();
            let _ = goes_on.1.recv();
        });
    });
    held.1.recv().unwrap();
    let written = partition.append(vec![batch("a")], AppendOptions::CLIENT);
    partition.hear_of_leader(LeaderEpoch(6));
    goes_on.0.send(()).unwrap();
    holder.join().unwrap();
    let told = now(written);
    assert!(matches!(told, Err(PartitionError::NotLeader { epoch: LeaderEpoch(6) })), "{told:?}");
    assert_eq!((partition.log_end(), partition.leader_epoch()), (Offset(1), LeaderEpoch(6)));
    partition.hear_of_leader(LeaderEpoch(4));
    assert_eq!(partition.leader_epoch(), LeaderEpoch(6), "what was heard is not taken back");
    partition.take_up(leader(6, SyncPolicy::Ack), Duration::from_secs(60));
    now(partition.append(vec![batch("b")], AppendOptions::CLIENT)).unwrap();
}

/// In between another may have led, and put other records there. Fails where only the end of leading is told, not that of the epoch.
#[test]
fn who_waits_for_one_leadership_is_not_answered_by_the_next_on_the_same_broker() {
    let partition = open(&SimDisk::new(), leader(5, SyncPolicy::Ack));
    let waiting = partition.committed(Offset(1), LeaderEpoch(5));
    partition.take_up(leader(7, SyncPolicy::Ack), Duration::from_secs(60));
    now(partition.append(vec![batch("other")], AppendOptions::CLIENT)).unwrap();
    assert!(matches!(now(waiting), Err(PartitionError::NotLeader { epoch: LeaderEpoch(7) })));
    assert!(matches!(
        now(partition.committed(Offset(1), LeaderEpoch(5))),
        Err(PartitionError::NotLeader { .. })
    ));
}

#[test]
fn a_leader_that_takes_its_leave_takes_nothing_more_from_clients() {
    let duty = leader(2, SyncPolicy::Ack);
    let partition = open(&SimDisk::new(), duty.clone());
    assert!(!partition.take_leave(), "nobody else could lead");
    let taken = now(partition.append(vec![batch("a")], AppendOptions::CLIENT)).unwrap();
    now(partition.committed(taken.end, taken.epoch)).unwrap();
    let both: Arc<[BrokerId]> = Arc::new([BrokerId(1), BrokerId(2)]);
    partition.take_up(
        Duty { replicas: Arc::clone(&both), isr: both, partition_epoch: 1, ..duty },
        Duration::from_secs(60),
    );
    now(partition.append(vec![batch("b")], AppendOptions::CLIENT)).unwrap();
    assert!(partition.take_leave());
    let late = now(partition.append(vec![batch("c")], AppendOptions::CLIENT));
    assert!(matches!(late, Err(PartitionError::NotLeader { epoch: LeaderEpoch(2) })), "{late:?}");
    now(partition.append(vec![batch("d")], AppendOptions::COORDINATOR)).unwrap();
    assert_eq!(partition.log_end(), Offset(3));
}

#[test]
fn ends_of_epochs_are_told_also_of_leaders_that_appended_nothing() {
    let partition = open(&SimDisk::new(), leader(3, SyncPolicy::None));
    let append = || now(partition.append(vec![batch("a")], AppendOptions::CLIENT)).unwrap();
    append();
    partition.take_up(leader(5, SyncPolicy::None), Duration::from_secs(60));
    append();
    partition.take_up(leader(8, SyncPolicy::None), Duration::from_secs(60));
    for (requested, expected) in [
        (-1, None),
        (2, Some((2, 0))),
        (3, Some((3, 1))),
        (4, Some((3, 1))),
        (5, Some((5, 2))),
        (6, Some((5, 2))),
        (8, Some((8, 2))),
        (9, None),
    ] {
        let found = partition.end_of_epoch(LeaderEpoch(requested));
        let expected = expected.map(|(epoch, end)| (LeaderEpoch(epoch), Offset(end)));
        assert_eq!(found, expected, "{requested}");
    }
}

#[test]
fn records_are_deleted_up_to_the_watermark_and_no_further() {
    let partition = open(&SimDisk::new(), leader(0, SyncPolicy::Ack));
    let appended = now(partition.append(vec![batch("a"), batch("b")], AppendOptions::CLIENT)).unwrap();
    now(partition.committed(appended.end, appended.epoch)).unwrap();
    let too_far = now(partition.delete_before(Some(Offset(3))));
    assert!(matches!(too_far, Err(PartitionError::OutOfRange { .. })), "{too_far:?}");
    assert_eq!(now(partition.delete_before(Some(Offset(1)))).unwrap(), Offset(1));
    assert_eq!(now(partition.delete_before(None)).unwrap(), Offset(2));
    assert!(matches!(
        partition.read(Offset(1), 1_000, Isolation::Uncommitted),
        Err(PartitionError::OutOfRange { start: Offset(2), .. })
    ));
    assert!(now(partition.describe_producers()).unwrap().is_empty());
}

#[test]
fn a_closed_partition_refuses_writes_and_is_read_on() {
    let disk = SimDisk::new();
    let partition = open(&disk, leader(0, SyncPolicy::None));
    now(partition.append(vec![batch("a")], AppendOptions::CLIENT)).unwrap();
    let waiting = partition.committed(Offset(2), LeaderEpoch(0));
    partition.close().unwrap();
    partition.close().unwrap();
    assert!(matches!(now(waiting), Err(PartitionError::Closed)));
    let late = now(partition.append(vec![batch("late")], AppendOptions::CLIENT));
    assert!(matches!(late, Err(PartitionError::Closed)));
    assert_eq!(seen(&partition).len(), 1);
    drop(partition);
    assert_eq!(seen(&open(&disk, leader(1, SyncPolicy::Ack))).len(), 1);
}

/// Producers on many threads, a consumer that follows, a sync that may fail and a power cut, all by a seed.
#[test]
fn acknowledged_records_outlive_failed_syncs_and_power_cuts_and_are_seen_in_one_order() {
    for seed in 0..16 {
        let disk = SimDisk::new();
        let partition = open(&disk, leader(0, SyncPolicy::Ack));
        let mut chance = SplitMix::new(seed);
        if seed % 4 != 0 {
            let after = chance.below(80);
            disk.inject(Fault {
                on: FaultOn::Sync,
                path_ends: ".log".into(),
                after,
                times: 1,
                kind: FaultKind::Eio,
            });
        }
        let acknowledged: Mutex<Vec<Offset>> = Mutex::default();
        let ended = AtomicBool::new(false);
        let watched = thread::scope(|scope| {
            let consumer = scope.spawn(|| follow(&partition, &ended));
            let producers: Vec<_> = (0..4)
                .map(|n| {
                    scope.spawn({
                        let (partition, acknowledged) = (&partition, &acknowledged);
                        move || produce(partition, SplitMix::new(seed * 10 + n), acknowledged)
                    })
                })
                .collect();
            producers.into_iter().for_each(|p| p.join().unwrap());
            ended.store(true, Ordering::Release);
            consumer.join().unwrap()
        });
        let before = seen(&partition);
        assert_eq!(watched, before[..watched.len()], "seed {seed}: what was seen changed");
        // Of zeros that could not be synced nobody hears, until the batches in that file are synced next.
        if disk.failed_syncs().iter().any(|point| *point != SyncPoint::Prewritten) {
            // It may have been a sync that nobody waits for.
            let begun = Stopwatch::start();
            while partition.stopped().is_none() && begun.elapsed() < Duration::from_secs(60) {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(matches!(partition.stopped(), Some(PartitionError::Offline(_))), "seed {seed}");
        }
        let acknowledged = acknowledged.into_inner();
        let high_watermark = partition.high_watermark();
        assert!(acknowledged.iter().all(|offset| *offset < high_watermark), "seed {seed}");
        partition.abandon(Duration::from_secs(60));
        let after = open(&disk.image().power_cut(seed), leader(1, SyncPolicy::Ack));
        let kept = seen(&after);
        assert!(kept.len() >= before.len(), "seed {seed}: what consumers saw is gone");
        assert_eq!(kept[..before.len()], before, "seed {seed}");
    }
}

fn produce(partition: &PartitionHandle, mut chance: SplitMix, acknowledged: &Mutex<Vec<Offset>>) {
    let mut latest = Offset(-1);
    for _ in 0..20 {
        let under_way: Vec<_> = (0..1 + chance.below(5))
            .map(|_| {
                let value = "x".repeat(chance.below(400) as usize);
                partition.append(vec![batch(&value)], AppendOptions::CLIENT)
            })
            .collect();
        for append in under_way {
            let Ok(appended) = now(append) else { continue };
            assert!(appended.end > latest, "in the order of the calls");
            latest = appended.end;
            if now(partition.committed(appended.end, appended.epoch)).is_ok() {
                acknowledged.lock().push(Offset(appended.end.0 - 1));
            }
        }
    }
}

/// Reads at the tail as it grows.
fn follow(partition: &PartitionHandle, ended: &AtomicBool) -> Vec<(Offset, Bytes)> {
    let notify = Arc::new(Notify::new());
    let _registration = partition.on_progress(Arc::clone(&notify));
    let (mut found, mut high_watermark) = (Vec::new(), Offset::ZERO);
    while !ended.load(Ordering::Acquire) {
        let now_at = partition.high_watermark();
        assert!(now_at >= high_watermark, "the high watermark went back");
        high_watermark = now_at;
        found = seen(partition);
        let told = async { tokio::time::timeout(Duration::from_millis(5), notify.notified()).await };
        let _ = now(told);
    }
    found
}
