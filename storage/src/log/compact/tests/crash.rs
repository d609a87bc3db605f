//! The power is cut after every operation of a pass, and again during recovery.

use super::*;
use crate::fs::sim::DiskImage;

/// A log with superseded records, an aborted transaction a segment, tombstones past their time, and its answers.
fn prepared() -> Fixture {
    let mut f = Fixture::new();
    for n in 0..5 {
        let big = "x".repeat(200 + 40 * n);
        f.put(&[
            ("a", Some(&big)),
            (&format!("key {}", n % 3), Some(&format!("{n}"))),
            (&format!("gone {n}"), None),
        ]);
        f.transact(7, n as i32, &[("a", "never")], TransactionResult::Abort);
        f.put(&[("b", Some(&big))]);
        f.settle();
    }
    f.compact();
    f.clock.advance_ms(RETENTION_MS);
    for n in 0..4 {
        let big = "y".repeat(300 + 40 * n);
        f.put(&[("a", Some(&big)), ("b", Some("1")), ("c", None)]);
        f.transact(7, 5 + n as i32, &[("b", "never")], TransactionResult::Abort);
        f.transact(9, n as i32, &[("c", "2")], TransactionResult::Commit);
        f.settle();
    }
    f.put(&[("behind", Some("the pass"))]);
    f.log.checkpoint().unwrap();
    f
}

/// What must be the same whatever a crash did.
fn answers(log: &Log) -> (BTreeMap<String, String>, Offset, Option<Offset>) {
    let unstable = log.producers.first_open_offset();
    (newest(&committed(&log.reader())), log.end(), unstable)
}

/// Recovers from one cut; an error tells what is wrong with what came back.
fn survives(
    f: &Fixture,
    image: &DiskImage,
    seed: u64,
    expected: &impl PartialEq<(BTreeMap<String, String>, Offset, Option<Offset>)>,
) -> Result<(), String> {
    let name = format!("operation {}, seed {seed}", image.operation());
    let disk = image.power_cut(seed);
    disk.record_images();
    let check = |disk: &SimDisk| {
        let (log, _) = open(disk, &f.clock, &f.config).map_err(|e| format!("{name}: {e}"))?;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| answers(&log)));
        match found {
            Ok(found) if *expected == found => Ok(log),
            other => Err(format!("{name}: {other:?}")),
        }
    };
    let mut log = check(&disk)?;
    let during_recovery = disk.take_images();
    if let Some(image) = during_recovery.get(seed as usize % during_recovery.len().max(1)) {
        drop(check(&image.power_cut(seed / 2))?);
    }
    // The next pass finds nothing in its way.
    log.on_high_watermark(log.end());
    let report = log.compact(CompactWhen::Asked, CompactionControl::default());
    match report {
        Ok(Some(report)) if report.end == CompactionEnd::Complete => {}
        other => return Err(format!("{name}: {other:?}")),
    }
    drop(log);
    let files = disk.files();
    drop(check(&disk)?);
    drop(check(&disk)?);
    let data = |files: BTreeMap<std::path::PathBuf, Vec<u8>>| -> Vec<_> {
        files.into_iter().filter(|(p, _)| p.extension().is_some_and(|e| e == "log")).collect()
    };
    if data(files) == data(disk.files()) { Ok(()) } else { Err(format!("{name}: recovery changed the data")) }
}

fn run(skipped: Option<SyncPoint>) -> Result<usize, String> {
    let mut f = prepared();
    let expected = answers(&f.log);
    if let Some(point) = skipped {
        f.disk.skip_sync(point);
    }
    f.disk.record_images();
    let report = f.compact();
    assert!(report.segments_out > 1 && report.counts.records_dropped > 10, "{report:?}");
    assert_eq!(answers(&f.log), expected);
    let images = f.disk.take_images();
    let mut cuts = 0;
    for image in &images {
        // One of each kind of cut, and two more by chance.
        for kind in [0, 1, 2, 4, 5, 6] {
            survives(&f, image, image.operation() * 8 + kind, &expected)?;
            cuts += 1;
        }
    }
    Ok(cuts)
}

#[test]
fn a_power_cut_at_any_operation_of_a_pass_loses_and_invents_nothing() {
    let cuts = run(None).unwrap();
    assert!(cuts > 300, "{cuts}");
}

#[test]
fn each_sync_of_a_pass_is_missed_where_it_is_skipped() {
    for point in [SyncPoint::CompactedData, SyncPoint::CompactedCreated, SyncPoint::CompactedRenamed] {
        assert!(run(Some(point)).is_err(), "{point:?} can be skipped unnoticed");
    }
}
