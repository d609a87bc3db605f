//! Damage behind the recovery point: a flipped bit or a missing file in what was acknowledged and not yet part of the manifest. The log
//! ends before it, says so, and deletes no good batch.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, BatchHeader, NewRecord};
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::fs::{Disk, OpenMode, SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::recovery::RecoveryReport;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::verify::{Watch, verify_partition};
use floodmark_storage::{LogConfig, LogError, TailBudget};

const DIR: &str = "logs/t-0";
const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
const BATCHES: i64 = 40;

fn context(disk: &SimDisk) -> LogContext {
    LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(0),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1_000, index_interval_bytes: 150, prewrite_bytes: 0, ..LogConfig::default() }
}

fn open(disk: &SimDisk) -> Result<(Log, RecoveryReport), LogError> {
    Log::open(context(disk), Path::new(DIR), config())
}

/// A process killed when it had appended batches of a record each, to several segments, none of which the manifest knows of.
fn killed() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("logs")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    let (mut log, _) = open(&disk).unwrap();
    for n in 0..BATCHES {
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: n, key: None, value: Some(b"some value"), headers: &[] };
        builder.push(&record).unwrap();
        log.append([builder.build().unwrap()], LEADER).unwrap().remove(0).unwrap();
    }
    drop(log);
    disk.image().killed()
}

fn data_files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "log")).collect()
}

fn batch_bytes(disk: &SimDisk) -> usize {
    BatchHeader::parse(&disk.files()[&data_files(disk)[0]]).unwrap().size_bytes()
}

/// Where good batches of each offset lie, whatever the file's name.
fn places(files: &BTreeMap<PathBuf, Vec<u8>>, size: usize) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    let is_data = |p: &Path| p.to_string_lossy().contains(".log") && !p.ends_with("log.manifest");
    for bytes in files.iter().filter(|(p, _)| is_data(p)).map(|(_, bytes)| bytes) {
        for batch in bytes.chunks(size).filter(|b| floodmark_proto::batch::check_stored(b).is_ok()) {
            *found.entry(BatchHeader::parse(batch).unwrap().base_offset.0).or_default() += 1;
        }
    }
    found
}

fn damage_found(disk: &SimDisk) -> u64 {
    let watch = Watch { on_finding: &mut |_| {}, on_bytes: &mut |_| {} };
    verify_partition(disk, Path::new(DIR), watch).unwrap().damage
}

fn remove(disk: &SimDisk, path: &Path) {
    disk.remove_file(path).unwrap();
}

#[test]
fn batches_behind_a_flipped_bit_are_kept_and_told_of() {
    let disk = killed();
    let (files, size) = (data_files(&disk), batch_bytes(&disk));
    assert!(files.len() > 3);
    let before = disk.files();
    disk.flip_bit(&files[0], 3 * size as u64 - 2, 4);
    assert!(damage_found(&disk) > 0);
    let (log, report) = open(&disk).unwrap();
    assert_eq!((log.end(), report.cut_bytes), (Offset(2), 0));
    assert_eq!(report.damage.len(), files.len());
    let first = &report.damage[0];
    assert_eq!((&first.path, first.position, first.end), (&files[0], 2 * size as u64, Offset(2)));
    let after = disk.files();
    let aside = first.set_aside.as_ref().unwrap();
    assert_eq!(after[&aside.to][size..], before[&files[0]][3 * size..]);
    for (damage, file) in report.damage.iter().zip(&files).skip(1) {
        assert_eq!(after[&damage.set_aside.as_ref().unwrap().to], before[file]);
    }
    let kept = places(&after, size);
    assert!((0..BATCHES).filter(|n| *n != 2).all(|n| kept.get(&n) == Some(&1)), "{kept:?}");
    drop(log);
    // What was set aside is told as long as it is there, by clean starts too.
    let kept: Vec<PathBuf> = report.damage.into_iter().filter_map(|d| d.set_aside).map(|a| a.to).collect();
    let (log, report) = open(&disk).unwrap();
    assert_eq!((log.end(), report.damage, &report.set_aside_before), (Offset(2), Vec::new(), &kept));
    log.close().unwrap();
    kept[1..].iter().for_each(|path| remove(&disk, path));
    let (_, report) = open(&disk).unwrap();
    assert_eq!((report.was_clean, &*report.set_aside_before), (true, &kept[..1]));
}

#[test]
fn segments_behind_a_missing_one_are_kept_and_told_of() {
    for missing in [0, 1] {
        let disk = killed();
        let (files, size) = (data_files(&disk), batch_bytes(&disk));
        let lost = places(&disk.files(), size);
        let of_file = disk.files()[&files[missing]].len() / size;
        remove(&disk, &files[missing]);
        assert!(damage_found(&disk) > 0);
        let (log, report) = open(&disk).unwrap();
        assert_eq!(files[missing], Path::new(DIR).join(format!("{:020}.log", log.end().0)));
        assert_eq!(report.damage.iter().filter(|d| d.set_aside.is_some()).count(), files.len() - 1 - missing);
        assert!(report.damage.iter().any(|d| d.path == files[missing] && d.set_aside.is_none()));
        assert_eq!(places(&disk.files(), size).len(), lost.len() - of_file);
    }
}

#[test]
fn a_missing_newest_file_is_told_of() {
    let disk = killed();
    let files = data_files(&disk);
    let newest = files.last().unwrap();
    remove(&disk, newest);
    let (_, report) = open(&disk).unwrap();
    let told: Vec<_> = report.damage.iter().map(|d| d.set_aside.is_none()).collect();
    assert_eq!(told, [true], "{:?}", report.damage);
}

#[test]
fn an_unfinished_write_is_cut_and_nothing_is_kept_of_it() {
    let disk = killed();
    let newest = data_files(&disk).pop().unwrap();
    let file = disk.open(&newest, OpenMode::Write).unwrap();
    let bytes = file.size().unwrap();
    // As a killed process leaves it: a part of a batch, then zeros that were there before.
    file.set_size(bytes - 7).unwrap();
    file.set_size(bytes + 5_000).unwrap();
    assert_eq!(damage_found(&disk), 0);
    let (log, report) = open(&disk).unwrap();
    assert_eq!(log.end(), Offset(BATCHES - 1));
    assert!(report.cut_bytes > 0 && report.damage.is_empty(), "{report:?}");
    assert!(disk.files().keys().all(|p| !p.to_string_lossy().contains("damaged")));
}

#[test]
fn without_room_for_what_must_be_kept_the_log_stays_shut_and_whole() {
    let disk = killed();
    let (files, size) = (data_files(&disk), batch_bytes(&disk));
    disk.flip_bit(&files[0], size as u64 + 70, 0);
    let before = disk.files();
    disk.inject(Fault {
        on: FaultOn::Write,
        path_ends: ".damaged-1.tmp".to_owned(),
        after: 0,
        times: u64::MAX,
        kind: FaultKind::NoSpace,
    });
    assert!(matches!(open(&disk), Err(LogError::Io { .. })));
    let after = disk.files();
    assert!(files.iter().all(|path| before[path] == after[path]));
    assert!(after.keys().all(|p| !p.to_string_lossy().contains("damaged")));
    disk.heal();
    assert_eq!(open(&disk).unwrap().0.end(), Offset(1));
}

#[test]
fn a_crash_while_batches_are_set_aside_neither_loses_nor_doubles_them() {
    let disk = killed();
    let (files, size) = (data_files(&disk), batch_bytes(&disk));
    for path in &files {
        disk.open(path, OpenMode::Write).unwrap().sync(SyncPoint::AppendData).unwrap();
    }
    disk.sync_dir(Path::new(DIR), SyncPoint::SegmentCreated).unwrap();
    disk.flip_bit(&files[0], size as u64 + 70, 0);
    let all = places(&disk.files(), size).len();
    assert_eq!(all as i64, BATCHES - 1);
    disk.record_images();
    open(&disk).unwrap();
    let images = disk.take_images();
    assert!(images.len() > 10);
    for image in images {
        for disk in [image.killed(), image.power_cut(0), image.power_cut(5)] {
            let (log, _) = open(&disk).unwrap();
            assert_eq!(log.end(), Offset(1));
            let kept = places(&disk.files(), size);
            assert_eq!(kept.len(), all, "operation {}", image.operation());
            assert!(kept.values().all(|times| *times == 1), "operation {}: {kept:?}", image.operation());
        }
    }
}

/// Guard: `BatchScan::of_segment`. The base offset lies outside the checksum.
#[test]
fn an_offset_that_the_segment_cannot_hold_ends_the_log_there() {
    let disk = killed();
    let (files, size) = (data_files(&disk), batch_bytes(&disk));
    let before = places(&disk.files(), size).len();
    disk.flip_bit(&files[0], 0, 4);
    let (log, report) = open(&disk).unwrap();
    assert_eq!((log.end(), report.cut_bytes), (Offset(0), 0));
    assert_eq!(places(&disk.files(), size).len(), before);
}

#[test]
fn a_batch_whose_offset_jumped_is_the_one_that_goes() {
    let disk = killed();
    let (files, size) = (data_files(&disk), batch_bytes(&disk));
    // Bit 1 of the lowest byte: offset 4 becomes 6, and 5 would not follow.
    disk.flip_bit(&files[0], 4 * size as u64 + 7, 1);
    let (log, report) = open(&disk).unwrap();
    assert_eq!((log.end(), report.cut_bytes), (Offset(4), 0));
    assert_eq!(report.damage[0].position, 4 * size as u64);
}

#[test]
fn another_logs_manifest_costs_no_segment() {
    let disk = killed();
    open(&disk).unwrap().0.close().unwrap();
    let other = killed();
    {
        let (mut log, _) = open(&other).unwrap();
        log.on_high_watermark(Offset(20));
        log.reset_to(Offset(500)).unwrap();
        for n in 0..30 {
            let mut builder = BatchBuilder::new();
            let record = NewRecord { timestamp: n, key: None, value: Some(b"another"), headers: &[] };
            builder.push(&record).unwrap();
            log.append([builder.build().unwrap()], LEADER).unwrap().remove(0).unwrap();
        }
        log.close().unwrap();
    }
    let manifest = PathBuf::from(DIR).join("log.manifest");
    let file = disk.open(&manifest, OpenMode::Create).unwrap();
    let bytes = other.files()[&manifest].clone();
    floodmark_storage::fs::write_all_at(&*file, &mut [std::io::IoSlice::new(&bytes)], 0).unwrap();
    let before = disk.files();
    assert!(matches!(open(&disk), Err(LogError::Damaged { .. })));
    let after = disk.files();
    assert!(data_files(&disk).iter().all(|path| before[path] == after[path]));
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_segment_that_the_manifest_does_not_list_is_kept() {
    let disk = killed();
    open(&disk).unwrap().0.close().unwrap();
    let size = batch_bytes(&disk);
    let first = disk.files()[&data_files(&disk)[0]].clone();
    let stray = PathBuf::from(DIR).join("00000000000000000005.log");
    let file = disk.open(&stray, OpenMode::Create).unwrap();
    let bytes = &first[5 * size..];
    floodmark_storage::fs::write_all_at(&*file, &mut [std::io::IoSlice::new(bytes)], 0).unwrap();
    let (log, report) = open(&disk).unwrap();
    assert_eq!(log.end(), Offset(BATCHES));
    assert_eq!(disk.files()[&report.damage[0].set_aside.as_ref().unwrap().to], bytes);
    assert!(!disk.files().contains_key(&stray));
}

#[test]
fn a_proven_loss_keeps_the_log_shut_each_time() {
    let disk = killed();
    let (files, size) = (data_files(&disk), batch_bytes(&disk));
    disk.flip_bit(&files[0], 3 * size as u64 - 2, 4);
    let before = disk.files();
    let proves = |end: Offset, batch: &[u8]| BatchHeader::parse(batch).is_ok_and(|h| h.base_offset > end);
    for _ in 0..2 {
        let opened = Log::open_with_proof(context(&disk), Path::new(DIR), config(), proves);
        assert!(matches!(opened, Err(LogError::Damaged { position, .. }) if position == 2 * size as u64));
        let after = disk.files();
        assert!(files.iter().all(|path| before[path] == after[path]));
        assert!(after.keys().all(|p| !p.to_string_lossy().contains("damaged")));
    }
    let opened = Log::open_with_proof(context(&disk), Path::new(DIR), config(), |_, _| false);
    assert_eq!(opened.unwrap().0.end(), Offset(2));
}
