//! The power is cut at every write, sync, rename, removal and change of size of workloads that do everything a log does,
//! and again during recovery. Then every sync of the code is left out in turn, and the same test must notice.

#[allow(dead_code, reason = "other tests use what this one does not")]
mod batches;
mod crash;

use crash::check::Failure;
use crash::cuts::{Counts, cut_all};
use crash::workload::Workload;

const STEPS: usize = 60;

fn run(seed: u64, seeds: &[Option<u64>], counts: &Counts) -> Result<(), Failure> {
    let work = Workload::run(seed, STEPS, None)?;
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
                (first..8).step_by(2).filter_map(failed).collect::<Vec<_>>()
            }
        };
        let threads = [scope.spawn(half(0)), scope.spawn(half(1))];
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    println!("{counts:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
