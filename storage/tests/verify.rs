//! Verification finds nothing wrong with any state that a log of ours can be in: written, rolled, cut, emptied, deleted from,
//! compacted, killed, cut off from power and recovered.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, EndTransactionMarker, NewRecord, RecordBatch, TransactionResult};
use floodmark_proto::ids::{LeaderEpoch, ProducerId};
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::{Disk, SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::{Random, SplitMix};
use floodmark_storage::verify::{Finding, Severity, Summary, Watch, verify_partition};
use floodmark_storage::{CompactionConfig, LogConfig, TailBudget};

const DIR: &str = "logs/t-0";

fn open(disk: &SimDisk) -> Log {
    disk.create_dir_all(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(10_000),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    };
    let config = LogConfig {
        segment_bytes: 1_200,
        index_interval_bytes: 150,
        prewrite_bytes: 0,
        compaction: Some(CompactionConfig { min_dirty_ratio: 0.0, map_bytes: 1 << 20, ..Default::default() }),
        ..LogConfig::default()
    };
    Log::open(context, Path::new(DIR), config).unwrap().0
}

fn verify(disk: &SimDisk) -> (Summary, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut on_finding = |finding: &Finding| findings.push(finding.clone());
    let watch = Watch { on_finding: &mut on_finding, on_bytes: &mut |_| {} };
    let summary = verify_partition(disk, Path::new(DIR), watch).unwrap();
    (summary, findings)
}

#[track_caller]
fn assert_whole(disk: &SimDisk, when: &str) -> Summary {
    let (summary, findings) = verify(disk);
    let damage: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Damage).collect();
    assert!(damage.is_empty(), "{when}: {damage:#?}");
    summary
}

/// Appends batches of plain, idempotent and transactional producers.
struct Writer {
    dice: SplitMix,
    sequences: [i32; 3],
    is_open: bool,
    epoch: i32,
    time: i64,
}

impl Writer {
    fn batch(&mut self) -> (RecordBatch, Origin) {
        self.time += (self.dice.next_u64() % 50) as i64;
        let who = self.dice.next_u64() as usize % 4;
        if who == 3 && self.is_open {
            let result = match self.dice.next_u64() % 2 {
                0 => TransactionResult::Abort,
                _ => TransactionResult::Commit,
            };
            self.is_open = false;
            let mut builder = BatchBuilder::new().producer(ProducerId(2), 0, -1);
            builder.push_marker(self.time, &EndTransactionMarker { result, coordinator_epoch: 1 }).unwrap();
            return (builder.build().unwrap(), Origin::Coordinator);
        }
        let who = who % 3;
        let records = 1 + (self.dice.next_u64() % 4) as i32;
        let mut builder = BatchBuilder::new();
        if who > 0 {
            builder =
                builder.producer(ProducerId(who as i64), 0, self.sequences[who]).transactional(who == 2);
            self.sequences[who] += records;
            self.is_open |= who == 2;
        }
        for n in 0..records {
            let key = format!("key {}", self.dice.next_u64() % 9);
            let value = vec![b'v'; self.dice.next_u64() as usize % 60];
            let record = NewRecord {
                timestamp: self.time - i64::from(n),
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &[],
            };
            builder.push(&record).unwrap();
        }
        (builder.build().unwrap(), Origin::Client)
    }

    fn append(&mut self, log: &mut Log) {
        let (batch, origin) = self.batch();
        let append_as = AppendAs::Leader { epoch: LeaderEpoch(self.epoch), origin };
        let refused = log.append([batch], append_as).unwrap()[0].is_err();
        if refused {
            // A cut took the producers' batches: they begin anew, in a life of their own.
            self.sequences = [0; 3];
        }
    }
}

fn run(seed: u64, steps: usize) {
    let disk = SimDisk::new();
    let mut log = open(&disk);
    let mut writer =
        Writer { dice: SplitMix::new(seed), sequences: [0; 3], is_open: false, epoch: 1, time: 1_000 };
    for step in 0..steps {
        let choice = writer.dice.next_u64() % 40;
        let span = (log.end() - log.start()).max(1);
        let somewhere = log.start() + (writer.dice.next_u64() >> 1) as i64 % span;
        match choice {
            0 => log.sync().unwrap(),
            1 => log.checkpoint().unwrap(),
            2 => drop(log.truncate_to(somewhere).unwrap()),
            3 => {
                log.on_high_watermark(log.end());
                log.delete_before(somewhere).unwrap();
            }
            4 => {
                log.on_high_watermark(log.end());
                log.checkpoint().unwrap();
                log.compact(CompactWhen::Asked, CompactionControl::new(|_| {})).unwrap();
            }
            5 => writer.epoch += 1,
            6 => {
                log.close().unwrap();
                log = open(&disk);
            }
            7 => {
                drop(log);
                log = open(&disk);
            }
            8 if step % 5 == 0 => log.reset_to(log.end() + 7).unwrap(),
            _ => writer.append(&mut log),
        }
        let summary = assert_whole(&disk, &format!("seed {seed}, step {step}, choice {choice}"));
        assert_eq!(summary.start, log.start(), "seed {seed}, step {step}, choice {choice}");
    }
    // Whatever a power cut leaves is whole once it is recovered.
    for cut in 0..6 {
        let left = disk.image().power_cut(cut);
        let log = open(&left);
        assert_whole(&left, &format!("seed {seed}, power cut {cut}"));
        log.close().unwrap();
        assert_whole(&left, &format!("seed {seed}, power cut {cut}, closed"));
    }
}

#[test]
fn no_state_of_a_log_looks_damaged() {
    for seed in 0..60 {
        run(seed, 120);
    }
}
