//! Damage is given up only by name, goes aside and not away, and stays aside through a power cut.

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::LeaderEpoch;

use super::*;
use crate::clock::Clock;
use crate::config::LogConfig;
use crate::fs::{SimDisk, SyncPoint};
use crate::log::append::AppendAs;
use crate::log::tail_cache::TailBudget;
use crate::log::{Log, LogContext};
use crate::producers::Origin;
use crate::random::Random;

fn open(disk: &SimDisk) -> Result<Log, LogError> {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(0),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    };
    let config = LogConfig { segment_bytes: 1_000, prewrite_bytes: 0, ..LogConfig::default() };
    Ok(Log::open(context, Path::new("t-0"), config)?.0)
}

/// A closed log of several segments, the second of which has a flipped bit in its middle.
fn damaged() -> (SimDisk, PathBuf, Vec<u8>) {
    let disk = SimDisk::new();
    let mut log = open(&disk).unwrap();
    for n in 0..40 {
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: n, key: None, value: Some(b"some value"), headers: &[] };
        builder.push(&record).unwrap();
        let leader = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
        log.append([builder.build().unwrap()], leader).unwrap();
    }
    log.close().unwrap();
    let second =
        disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "log")).nth(1).unwrap();
    disk.flip_bit(&second, 500, 3);
    let bytes = disk.files()[&second].clone();
    (disk, second, bytes)
}

#[test]
fn a_whole_log_needs_no_plan() {
    let disk = SimDisk::new();
    open(&disk).unwrap().close().unwrap();
    assert_eq!(plan(&disk, Path::new("t-0"), &mut |_| {}).unwrap(), None);
}

#[test]
fn the_log_opens_again_without_what_was_damaged_and_nothing_is_deleted() {
    let (disk, second, bytes) = damaged();
    let before = disk.files();
    let plan = plan(&disk, Path::new("t-0"), &mut |_| {}).unwrap().unwrap();
    assert_eq!(disk.files(), before, "planning changes nothing");
    assert_eq!((plan.path.clone(), plan.known_end), (second, Offset(40)));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    plan.carry_out(&shared).unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(log.end(), plan.end);
    assert_eq!(plan.lost_offsets(), (Offset(40) - plan.end) as u64);
    let files = disk.files();
    let aside: Vec<_> = plan.set_aside.iter().map(|part| (part.from_byte, &files[&part.to])).collect();
    assert_eq!(*aside[0].1, bytes[aside[0].0 as usize..]);
    let bytes_of = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>| -> usize {
        let is_data = |p: &Path| p.to_string_lossy().contains(".log") && !p.ends_with(MANIFEST_FILE);
        files.iter().filter(|(p, _)| is_data(p)).map(|(_, b)| b.len()).sum()
    };
    assert_eq!(bytes_of(&files), bytes_of(&before));
}

/// Whether bytes set aside are all there after a power cut once the log was opened without them.
fn survives(skipped: Option<SyncPoint>) -> bool {
    let (disk, _, bytes) = damaged();
    if let Some(point) = skipped {
        disk.skip_sync(point);
    }
    let plan = plan(&disk, Path::new("t-0"), &mut |_| {}).unwrap().unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    plan.carry_out(&shared).unwrap();
    open(&disk).unwrap().close().unwrap();
    let image = disk.image();
    let first = &plan.set_aside[0];
    (0..64).all(|seed| {
        image.power_cut(seed).files().get(&first.to).is_some_and(|b| *b == bytes[first.from_byte as usize..])
    })
}

#[test]
fn what_is_set_aside_stays_through_a_power_cut_and_its_sync_is_why() {
    assert!(survives(None));
    assert!(!survives(Some(SyncPoint::SetAside)));
}
