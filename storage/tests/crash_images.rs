//! The power is cut at every write, sync, rename, removal and change of size of workloads that do everything a log does,
//! and again during recovery. Then every sync of the code is left out in turn, and the same test must notice.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic, and say what they counted")]

#[allow(dead_code, reason = "other tests use what this one does not")]
mod batches;
mod crash;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use floodmark_storage::fs::SyncPoint;

use crash::check::Failure;
use crash::cuts::{Counts, cut_all};
use crash::workload::Workload;

const STEPS: usize = 75;
const THREADS: usize = 2;
const WORKLOADS: u64 = 10;
const MUTANT_WORKLOADS: u64 = 12;

/// More workloads than usual, for a longer search.
fn workloads() -> u64 {
    std::env::var("FLOODMARK_CRASH_WORKLOADS").ok().and_then(|v| v.parse().ok()).unwrap_or(WORKLOADS)
}

fn run(seed: u64, seeds: &[Option<u64>], counts: &Counts) -> Result<(), Failure> {
    let work = Workload::run(seed, STEPS, None)?;
    counts.swaps.fetch_add(work.swaps, Ordering::Relaxed);
    counts.spares.fetch_add(work.spares, Ordering::Relaxed);
    counts.taken_back.fetch_add(work.taken_back, Ordering::Relaxed);
    cut_all(&work, None, seeds, counts)
}

#[test]
fn no_power_cut_loses_or_invents_a_record() {
    let counts = Counts::default();
    let seeds = [None, Some(0), Some(1), Some(2), Some(4), Some(5)];
    let failures: Vec<String> = std::thread::scope(|scope| {
        let half = |first: u64| {
            let (seeds, counts) = (&seeds, &counts);
            move || {
                let failed = |seed| {
                    run(seed, seeds, counts)
                        .err()
                        .map(|e| format!("workload {seed}: {}: {}", e.check, e.detail))
                };
                (first..workloads()).step_by(2).filter_map(failed).collect::<Vec<_>>()
            }
        };
        let threads = [scope.spawn(half(0)), scope.spawn(half(1))];
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    println!("{counts:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(counts.cuts.into_inner() >= 10_000);
    assert!(counts.swaps.into_inner() >= 5);
    assert!(counts.spares.into_inner() >= 3);
    assert!(counts.taken_back.into_inner() >= 3);
}

/// Syncs of calls that this workload does not make, and the tests that leave them out instead.
const PROVEN_ELSEWHERE: [(SyncPoint, &str); 13] = [
    (SyncPoint::AppendRefused, "no way past the system's memory: log/staging/tests.rs"),
    (SyncPoint::Prewritten, "for speed alone: nothing is promised by it"),
    (SyncPoint::IdentityData, "data directory: data_dir/tests.rs"),
    (SyncPoint::IdentityRenamed, "data directory: data_dir/tests.rs"),
    (SyncPoint::DataDirCreated, "data directory: data_dir/tests.rs"),
    (SyncPoint::PartitionRemoved, "data directory: data_dir/tests.rs"),
    (SyncPoint::SetAside, "salvage: log/salvage/tests.rs"),
    (SyncPoint::MetadataDirCreated, "metadata: replication/src/quorum/tests/raft_log.rs"),
    (SyncPoint::NodeStateData, "metadata: replication/src/quorum/tests/raft_log.rs"),
    (SyncPoint::NodeStateRenamed, "metadata: replication/src/quorum/tests/raft_log.rs"),
    (SyncPoint::NodeStateFound, "metadata: replication/src/quorum/tests/raft_log.rs"),
    (SyncPoint::ImageSnapshotData, "metadata: replication/src/quorum/tests/crash.rs"),
    (SyncPoint::ImageSnapshotRenamed, "metadata: replication/src/quorum/tests/crash.rs"),
];

/// The first failure with this sync left out, and how many cuts it took.
fn first_failure_without(point: SyncPoint) -> (Option<Failure>, u64, u64) {
    let counts = Counts::default();
    let mut asked = 0;
    for seed in 0..MUTANT_WORKLOADS {
        match Workload::run(seed, STEPS, Some(point)) {
            Err(e) => return (Some(e), counts.cuts.into_inner(), 1),
            // Where nobody asked for the sync, nothing is missing.
            Ok(work) if work.syncs_skipped() == 0 => {}
            Ok(work) => {
                asked += work.syncs_skipped();
                if let Err(e) = cut_all(&work, Some(point), &[Some(0), Some(4), Some(5), None], &counts) {
                    return (Some(e), counts.cuts.into_inner(), asked);
                }
            }
        }
    }
    (None, counts.cuts.into_inner(), asked)
}

#[test]
fn every_sync_that_is_left_out_is_missed() {
    let points: Vec<SyncPoint> = SyncPoint::ALL
        .into_iter()
        .filter(|p| !PROVEN_ELSEWHERE.iter().any(|(elsewhere, _)| elsewhere == p))
        .collect();
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (failure, cuts, asked) = first_failure_without(*point);
                    match failure {
                        Some(e) => println!("{point:?}: after {cuts} cuts: {}: {}", e.check, e.detail),
                        None => missed
                            .lock()
                            .unwrap()
                            .push(format!("{point:?}, left out {asked} times, {cuts} cuts")),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "nobody misses these syncs: {}", missed.join("; "));
}
