//! Worked cases of the choice and of grouping.

use super::*;

fn segment(base: i64, end: i64, bytes: u64) -> SealedSegment {
    SealedSegment {
        base: Offset(base),
        end: Offset(end),
        bytes,
        largest_timestamp: Some(end.saturating_mul(10)),
        first_timestamp: Some(base.saturating_mul(10)),
        index_entries: (0, 1),
    }
}

fn four() -> Vec<SealedSegment> {
    vec![segment(0, 10, 100), segment(10, 20, 100), segment(20, 30, 100), segment(30, 40, 100)]
}

fn view(sealed: &[SealedSegment], first_dirty: i64, settled: i64) -> LogView<'_> {
    LogView {
        sealed,
        log_start: Offset(0),
        log_end: Offset(50),
        first_dirty: Offset(first_dirty),
        settled: Offset(settled),
        now_ms: 1_000,
    }
}

fn due(log: &LogView<'_>, config: &CompactionConfig) -> Option<(i64, i64, usize)> {
    choose(log, config, CompactWhen::Due).map(|p| (p.first_dirty.0, p.end.0, p.segments))
}

#[test]
fn the_ratio_counts_uncleaned_over_cleanable_bytes() {
    let (all, half) = (four(), CompactionConfig::default());
    assert_eq!(due(&view(&all, 0, 50), &half), Some((0, 40, 4)));
    assert_eq!(due(&view(&all, 20, 50), &half), Some((20, 40, 4)));
    assert_eq!(due(&view(&all, 30, 50), &half), None);
    assert_eq!(
        due(&view(&all, 30, 50), &CompactionConfig { min_dirty_ratio: 0.25, ..half }),
        Some((30, 40, 4))
    );
    let any = CompactionConfig { min_dirty_ratio: 0.0, ..CompactionConfig::default() };
    assert_eq!(due(&view(&all, 40, 50), &any), None, "nothing is dirty");
    let asked = choose(&view(&all, 40, 50), &any, CompactWhen::Asked).unwrap();
    assert_eq!((asked.first_dirty, asked.end, asked.dirty_ratio), (Offset(40), Offset(40), 0.0));
    assert_eq!(choose(&view(&[], 0, 50), &any, CompactWhen::Asked), None);
}

#[test]
fn nothing_unsettled_is_cleaned() {
    let (all, any) = (four(), CompactionConfig { min_dirty_ratio: 0.0, ..CompactionConfig::default() });
    assert_eq!(due(&view(&all, 0, 39), &any), Some((0, 30, 3)));
    assert_eq!(due(&view(&all, 0, 10), &any), Some((0, 10, 1)));
    assert_eq!(due(&view(&all, 0, 9), &any), None);
}

#[test]
fn young_records_are_left_alone_and_old_ones_are_overdue() {
    let all = four();
    let lag = CompactionConfig { min_lag_ms: 750, min_dirty_ratio: 0.9, ..CompactionConfig::default() };
    // Segments end at 100, 200, 300 and 400 ms; the limit lies at 250.
    assert_eq!(due(&view(&all, 0, 50), &lag), Some((0, 20, 2)));
    // A segment that is clean already does not hold back those before it.
    assert_eq!(choose(&view(&all, 40, 50), &lag, CompactWhen::Asked).map(|p| p.segments), Some(4));
    let overdue = CompactionConfig { max_lag_ms: 750, min_dirty_ratio: 1.0, ..CompactionConfig::default() };
    assert_eq!(
        due(&view(&all, 20, 50), &overdue),
        Some((20, 40, 4)),
        "first record of the dirty part is 800 ms old"
    );
    assert_eq!(due(&view(&all, 30, 50), &overdue), None, "700 ms");
}

#[test]
fn r23_a_first_dirty_offset_that_cannot_be_is_reset_and_one_inside_a_batch_serves() {
    let all = four();
    let any = CompactionConfig { min_dirty_ratio: 0.0, ..CompactionConfig::default() };
    let stale = choose(&view(&all, 51, 50), &any, CompactWhen::Due).unwrap();
    assert_eq!((stale.first_dirty, stale.end, stale.reset_from), (Offset(0), Offset(40), Some(Offset(51))));
    let started_later = LogView { log_start: Offset(12), ..view(&all, 3, 50) };
    let plan = choose(&started_later, &any, CompactWhen::Due).unwrap();
    assert_eq!((plan.first_dirty, plan.reset_from), (Offset(12), Some(Offset(3))));
    let plan = choose(&view(&all, 33, 50), &any, CompactWhen::Due).unwrap();
    assert_eq!((plan.first_dirty, plan.reset_from), (Offset(33), None));
    let largest = [segment(i64::MAX - 20, i64::MAX - 10, 100)];
    let far = LogView { log_end: Offset(i64::MAX - 1), ..view(&largest, i64::MAX - 15, i64::MAX - 1) };
    assert_eq!(due(&far, &any), Some((i64::MAX - 15, i64::MAX - 10, 1)));
}

#[test]
fn r19_groups_respect_bytes_indexes_and_relative_offsets() {
    let config = LogConfig { segment_bytes: 250, ..LogConfig::default() };
    assert_eq!(group(&four(), &config), [0..2, 2..4]);
    assert_eq!(group(&[segment(0, 10, 900), segment(10, 20, 10)], &config), [0..1, 1..2]);
    let far = i64::from(i32::MAX);
    let spread =
        [segment(0, 10, 1), segment(10, far, 1), segment(far, far + 1, 1), segment(far + 1, far + 2, 1)];
    assert_eq!(group(&spread, &config), [0..2, 2..4]);
    let indexed = [SealedSegment { index_entries: (3, 3), ..segment(0, 10, 1) }; 3];
    // Room for seven entries of either index, of which six and a last one are two segments'.
    let config = LogConfig { segment_index_bytes: 7 * 12, ..config };
    assert_eq!(group(&indexed, &config), [0..2, 2..3]);
    assert_eq!(group(&[], &config), []);
}
