//! A reader on a real disk, all along while the log is written and compacted.

use std::sync::atomic::{AtomicBool, AtomicU32};

use super::*;
use crate::clock::Stopwatch;
use crate::fs::RealDisk;

#[test]
fn readers_are_never_disturbed_by_swaps() {
    let dir = tempfile::tempdir().unwrap();
    let context = LogContext {
        disk: Arc::new(RealDisk),
        clock: Clock::manual(1),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(4 << 10),
    };
    let config = LogConfig { segment_bytes: 20_000, ..config() };
    let (mut log, _) = Log::open(context, &dir.path().join("t-0"), config).unwrap();
    let is_over = AtomicBool::new(false);
    let rounds_read = [AtomicU32::new(0), AtomicU32::new(0)];
    std::thread::scope(|scope| {
        // However this thread ends, the readers must end, too.
        let _over = Over(&is_over);
        for rounds in &rounds_read {
            let (reader, is_over) = (log.reader(), &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    read_round(&reader);
                    reader.release_idle();
                    rounds.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let mut swaps = 0;
        for round in 0..12u32 {
            // Readers that are not given a core must not miss it all.
            let begun = Stopwatch::start();
            while rounds_read.iter().any(|rounds| rounds.load(Ordering::Acquire) < round) {
                assert!(begun.elapsed() < std::time::Duration::from_secs(60), "a reader has stopped");
                std::thread::yield_now();
            }
            for n in 0..400u32 {
                let value = format!("{} {}", round, "v".repeat((n % 97) as usize));
                let key = format!("key {}", n % 50);
                let sent = batch(BatchBuilder::new(), i64::from(round), &[(&key, Some(&value))]);
                assert!(log.append([sent], LEADER).unwrap()[0].is_ok());
            }
            log.on_high_watermark(log.end());
            log.checkpoint().unwrap();
            let report = log.compact(CompactWhen::Asked, CompactionControl::default()).unwrap().unwrap();
            swaps += report.segments_out;
        }
        assert!(swaps > 12, "{swaps}");
    });
    assert_eq!(newest(&committed(&log.reader())).len(), 50);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Every batch whole, in order; each key's values in the order they were written; look-ups by time answer.
fn read_round(reader: &LogReader) {
    let end = reader.end();
    let rows = committed(reader);
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
    if end > Offset(50) {
        let keys: std::collections::BTreeSet<_> = rows.iter().map(|r| &r.1).collect();
        assert_eq!(keys.len(), 50, "every key has a value at any moment");
        assert!(reader.first_at_or_after(0).unwrap().is_some());
        assert!(reader.largest_timestamp().unwrap().is_some());
    }
}
