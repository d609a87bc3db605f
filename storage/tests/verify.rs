//! Verification finds nothing wrong with any state that a log of ours can be in: written, rolled, cut, emptied, deleted from,
//! compacted, killed, cut off from power and recovered.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, EndTransactionMarker, NewRecord, RecordBatch, TransactionResult};
use floodmark_proto::ids::{LeaderEpoch, ProducerId};
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::{Disk, OpenMode, SimDisk, SyncPoint, read_small_file, write_all_at};
use floodmark_storage::key_index::WholeKeyIndex;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::{Random, SplitMix};
use floodmark_storage::verify::{Finding, Severity, Summary, Watch, verify_partition};
use floodmark_storage::{CompactionConfig, LogConfig, TailBudget};

const DIR: &str = "logs/t-0";

fn open(disk: &SimDisk, key_index: bool) -> Log {
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
        key_index,
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
    let has_keys = seed.is_multiple_of(2);
    let mut log = open(&disk, has_keys);
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
                log = open(&disk, has_keys);
            }
            7 => {
                drop(log);
                log = open(&disk, has_keys);
            }
            8 if step % 5 == 0 => log.reset_to(log.end() + 7).unwrap(),
            9 => {
                while let Some(job) = log.key_index_job() {
                    job.run().unwrap();
                }
            }
            _ => writer.append(&mut log),
        }
        let summary = assert_whole(&disk, &format!("seed {seed}, step {step}, choice {choice}"));
        assert_eq!(summary.start, log.start(), "seed {seed}, step {step}, choice {choice}");
    }
    // Whatever a power cut leaves is whole once it is recovered.
    for cut in 0..6 {
        let left = disk.image().power_cut(cut);
        let log = open(&left, has_keys);
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

#[test]
fn a_key_index_that_leads_astray_is_damage_and_one_that_is_rebuilt_a_warning() {
    let disk = SimDisk::new();
    let mut log = open(&disk, true);
    for n in 0..60 {
        let mut builder = BatchBuilder::new();
        let key = [b'a' + n % 7];
        builder
            .push(&NewRecord {
                timestamp: i64::from(n),
                key: Some(&key),
                value: Some(&[n; 40]),
                headers: &[],
            })
            .unwrap();
        let append_as = AppendAs::Leader { epoch: LeaderEpoch(1), origin: Origin::Client };
        log.append([builder.build().unwrap()], append_as).unwrap()[0].as_ref().unwrap();
        while let Some(job) = log.key_index_job() {
            job.run().unwrap();
        }
    }
    log.close().unwrap();
    let entries = disk.list(Path::new(DIR)).unwrap();
    let mut files: Vec<_> = entries.into_iter().filter(|e| e.name.ends_with(".keyindex")).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(files.len() > 2, "{files:?}");
    let (first, second) = (Path::new(DIR).join(&files[0].name), Path::new(DIR).join(&files[1].name));
    let findings = || {
        let found = verify(&disk).1;
        found.into_iter().filter(|f| f.path == first).map(|f| (f.severity, f.byte)).collect::<Vec<_>>()
    };
    assert_eq!(findings(), []);
    let right = read(&disk, &first);
    let index = WholeKeyIndex::parse(right.clone()).unwrap();
    let (_, end, _) = index.tells_of();
    let mut offsets: Vec<_> = index.places().unwrap().iter().map(|place| place.offset.0).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..end.0).collect::<Vec<_>>(), "each record has a key");
    // That of another segment.
    write(&disk, &first, &read(&disk, &second));
    assert_eq!(findings(), [(Severity::Warning, Some(0))]);
    // A bit that flipped: in the first block, then in one behind it.
    for (at, byte) in [(30, None), (1024 + 17, Some(1024))] {
        let mut flipped = right.clone();
        flipped[at] ^= 1;
        write(&disk, &first, &flipped);
        assert_eq!(findings(), [(Severity::Warning, byte)]);
    }
    // A record is missing, and the checksum says that this is right.
    let mut lacks = right.clone();
    let keys = right.len() - 1024 * (1 + usize::from(right.len() > 3 * 1024));
    let block = &mut lacks[keys..keys + 1024];
    block[2..18].rotate_left(4);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&right[1020..1024]);
    hasher.update(&u32::try_from(keys / 1024).unwrap().to_be_bytes());
    hasher.update(&block[..1020]);
    block[1020..].copy_from_slice(&hasher.finalize().to_be_bytes());
    write(&disk, &first, &lacks);
    assert_eq!(findings(), [(Severity::Damage, Some(keys as u64))]);
    write(&disk, &first, &right);
    assert_eq!(findings(), []);
}

fn read(disk: &SimDisk, path: &Path) -> Vec<u8> {
    read_small_file(disk, path, 1 << 20).unwrap().unwrap()
}

fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    file.set_size(bytes.len() as u64).unwrap();
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
}
