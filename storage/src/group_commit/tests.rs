//! Many threads against one log, on disks that work and disks that fail.

use std::path::Path;

use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord};
use floodmark_proto::ids::LeaderEpoch;

use super::*;
use crate::clock::Clock;
use crate::config::LogConfig;
use crate::fs::sim::{Fault, FaultKind, FaultOn};
use crate::fs::{Disk, RealDisk, SimDisk};
use crate::log::LogContext;
use crate::log::tail_cache::TailBudget;
use crate::producers::Origin;
use crate::random::Random;
use crate::segment::ReadLimits;

const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };

fn open(disk: Arc<dyn Disk>, dir: &Path) -> GroupCommit {
    let context = LogContext {
        disk,
        clock: Clock::System,
        random: Random::seeded(1),
        tail_budget: TailBudget::new(10_000),
    };
    let config = LogConfig {
        segment_bytes: 20_000,
        prewrite_bytes: 8_192,
        checkpoint_interval_bytes: 10_000,
        ..LogConfig::default()
    };
    GroupCommit::new(Log::open(context, dir, config).unwrap().0)
}

fn batch(value: &str) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: 1, key: None, value: Some(value.as_bytes()), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

fn values(reader: &LogReader) -> Vec<(Offset, String)> {
    let mut found = Vec::new();
    let mut from = reader.start();
    loop {
        let pieces = reader.read(from, ReadLimits { max_bytes: 4_000, below: Offset::MAX }).unwrap();
        if pieces.is_empty() {
            return found;
        }
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                let mut scratch = Vec::new();
                let limits = floodmark_proto::batch::DecompressLimits { max_bytes: 1_000, max_ratio: 10 };
                for record in floodmark_proto::batch::Records::open(rest, &limits, &mut scratch).unwrap() {
                    let record = record.unwrap();
                    found.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
                }
                from = header.next_offset();
                rest = &rest[header.size_bytes()..];
            }
        }
    }
}

#[test]
fn every_caller_gets_the_offset_of_its_own_batch_and_keeps_it_through_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(Arc::new(RealDisk), &dir.path().join("t-0"));
    let mut acknowledged = thread::scope(|scope| {
        let callers: Vec<_> = (0..16)
            .map(|caller| {
                let log = log.clone();
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for n in 0..50 {
                        let value = format!("{caller}-{n}-{}", "x".repeat(n * 7));
                        let receipt = log.append_synced(vec![batch(&value)], LEADER).unwrap();
                        let appended = receipt.outcomes[0].clone().unwrap();
                        assert!(log.reader().durable() > appended.last_offset);
                        mine.push((appended.base_offset, value));
                    }
                    mine
                })
            })
            .collect();
        callers.into_iter().flat_map(|c| c.join().unwrap()).collect::<Vec<_>>()
    });
    acknowledged.sort();
    assert_eq!(values(&log.reader()), acknowledged);
    drop(log);
    let log = open(Arc::new(RealDisk), &dir.path().join("t-0"));
    assert_eq!(values(&log.reader()), acknowledged);
}

#[test]
fn a_failed_sync_reaches_every_caller_and_nobody_waits_for_ever() {
    let disk = SimDisk::new();
    let log = open(Arc::new(disk.clone()), Path::new("t-0"));
    log.append_synced(vec![batch("good")], LEADER).unwrap();
    disk.inject(Fault {
        on: FaultOn::Sync,
        path_ends: ".log".into(),
        after: 3,
        times: 1,
        kind: FaultKind::Eio,
    });
    let failures: usize = thread::scope(|scope| {
        let caller = |_| {
            let log = log.clone();
            scope.spawn(move || {
                (0..20).filter(|_| log.append_synced(vec![batch("x")], LEADER).is_err()).count()
            })
        };
        let callers: Vec<_> = (0..8).map(caller).collect();
        callers.into_iter().map(|c| c.join().unwrap()).sum()
    });
    assert_eq!(disk.faults_taken(), 1);
    assert!(failures > 100, "{failures}");
    assert!(matches!(log.append(vec![batch("late")], LEADER), Err(LogError::Poisoned(_))));
}

#[test]
fn waiting_for_what_was_cut_off_fails_instead_of_hanging() {
    let disk = SimDisk::new();
    let log = open(Arc::new(disk), Path::new("t-0"));
    let receipt = log.append(vec![batch("a"), batch("b")], LEADER).unwrap();
    log.with_log(|log| log.truncate_to(Offset(1))).unwrap();
    assert!(matches!(log.wait_synced(receipt.end), Err(LogError::OutOfRange { .. })));
}
