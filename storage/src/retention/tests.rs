//! Each rule by table, and by property what must hold whatever the log looks like.

use proptest::prelude::*;

use super::DeletionReason::{Age, BeforeLogStart, Size};
use super::*;

const NOW: i64 = 1_000_000;

/// Three sealed segments of 100 bytes and 10 offsets, an active one of 50 bytes: offsets 0 to 35, timestamps 100,
/// 200, 300, 400.
fn segments() -> (Vec<SegmentAge>, SegmentAge) {
    let segment = |n: i64, size_bytes| SegmentAge {
        base_offset: Offset(10 * n),
        size_bytes,
        largest_timestamp: Some(100 * (n + 1)),
        last_modified_ms: NOW,
    };
    ((0..3).map(|n| segment(n, 100)).collect(), segment(3, 50))
}

struct Case {
    name: &'static str,
    policy: RetentionPolicy,
    log_start: i64,
    high_watermark: i64,
    now_ms: i64,
    delete: Vec<DeletionReason>,
    roll_active: Option<DeletionReason>,
}

#[test]
fn each_rule_by_itself() {
    let base = || Case {
        name: "nothing is limited",
        policy: RetentionPolicy::default(),
        log_start: 0,
        high_watermark: 35,
        now_ms: NOW,
        delete: vec![],
        roll_active: None,
    };
    let bytes = |n| RetentionPolicy { retention_bytes: Some(n), ..RetentionPolicy::default() };
    let ms = |n| RetentionPolicy { retention_ms: Some(n), ..RetentionPolicy::default() };
    for case in [
        base(),
        Case { name: "log start inside", log_start: 9, ..base() },
        Case { name: "log start at the next", log_start: 10, delete: vec![BeforeLogStart], ..base() },
        Case { name: "log start in the active", log_start: 35, delete: vec![BeforeLogStart; 3], ..base() },
        Case { name: "350 bytes, keep 251", policy: bytes(251), ..base() },
        Case { name: "350 bytes, keep 250", policy: bytes(250), delete: vec![Size], ..base() },
        Case { name: "350 bytes, keep 50", policy: bytes(50), delete: vec![Size; 3], ..base() },
        Case {
            name: "keep nothing",
            policy: bytes(0),
            delete: vec![Size; 3],
            roll_active: Some(Size),
            ..base()
        },
        Case { name: "keep more than there is", policy: bytes(9_999), ..base() },
        Case {
            name: "exactly old enough is not older",
            policy: ms(100),
            now_ms: 300,
            delete: vec![Age],
            ..base()
        },
        Case { name: "one older", policy: ms(100), now_ms: 301, delete: vec![Age; 2], ..base() },
        Case { name: "all old", policy: ms(100), delete: vec![Age; 3], roll_active: Some(Age), ..base() },
        Case { name: "watermark", policy: ms(100), high_watermark: 29, delete: vec![Age; 2], ..base() },
        Case {
            name: "watermark before log end",
            policy: ms(100),
            high_watermark: 34,
            delete: vec![Age; 3],
            ..base()
        },
        Case { name: "no watermark yet", policy: bytes(0), log_start: 30, high_watermark: 0, ..base() },
        Case { name: "retention past all clocks", policy: ms(u64::MAX), ..base() },
        Case {
            name: "start, size, then age",
            policy: RetentionPolicy { retention_bytes: Some(150), retention_ms: Some(699) },
            log_start: 10,
            now_ms: 1_000,
            delete: vec![BeforeLogStart, Size, Age],
            ..base()
        },
    ] {
        let (sealed, active) = segments();
        let log = LogView {
            sealed: &sealed,
            active,
            log_end: Offset(35),
            log_start: Offset(case.log_start),
            high_watermark: Offset(case.high_watermark),
        };
        let expected = RetentionPlan { delete: case.delete, roll_active: case.roll_active };
        assert_eq!(plan(&log, &case.policy, case.now_ms), expected, "{}", case.name);
    }
}

#[test]
fn timestamps_that_say_nothing_give_way_to_the_file() {
    let policy = RetentionPolicy { retention_ms: Some(1_000), ..RetentionPolicy::default() };
    let (_, empty) = segments();
    for (largest_timestamp, last_modified_ms, goes) in [
        (Some(NOW - 1_001), NOW, true),
        (Some(NOW - 1_000), 0, false),
        (None, NOW - 1_001, true),
        (None, NOW, false),
        (Some(-1), NOW - 1_001, true),
        (Some(NOW + 1), NOW - 1_001, true),
        (Some(NOW + 1), NOW, false),
        (Some(i64::MAX), NOW - 1_001, true),
        (Some(i64::MAX), NOW + 5, false),
        (None, i64::MAX, false),
        (None, i64::MIN, true),
    ] {
        let segment =
            SegmentAge { base_offset: Offset(0), size_bytes: 1, largest_timestamp, last_modified_ms };
        let log = LogView {
            sealed: &[segment],
            active: SegmentAge { size_bytes: 0, ..empty },
            log_end: Offset(30),
            log_start: Offset(0),
            high_watermark: Offset(30),
        };
        let deleted = plan(&log, &policy, NOW);
        assert_eq!(deleted.delete.len(), usize::from(goes), "{largest_timestamp:?}, {last_modified_ms}");
        assert_eq!(deleted.roll_active, None, "an empty active segment is not rolled");
    }
}

proptest! {
    #[test]
    fn whatever_the_log(
        sizes in prop::collection::vec((1i64..20, 0u64..1_000, -1i64..2_000), 1..10),
        log_start in 0i64..100,
        high_watermark in 0i64..200,
        retention_bytes in prop::option::of(0u64..5_000),
        retention_ms in prop::option::of(0u64..2_000),
    ) {
        let mut next = 0;
        let mut segments: Vec<SegmentAge> = sizes.iter().map(|(records, size_bytes, timestamp)| {
            let base_offset = Offset(next);
            next += records;
            let largest_timestamp = (*timestamp >= 0).then_some(*timestamp);
            SegmentAge { base_offset, size_bytes: *size_bytes, largest_timestamp, last_modified_ms: 500 }
        }).collect();
        let active = segments.pop().expect("one at least");
        let log = LogView {
            sealed: &segments,
            active,
            log_end: Offset(next),
            log_start: Offset(log_start),
            high_watermark: Offset(high_watermark),
        };
        let policy = RetentionPolicy { retention_ms, retention_bytes };
        let decided = plan(&log, &policy, 1_000);
        let gone = decided.delete.len();
        prop_assert!(gone <= segments.len());

        // The new start never passes the high watermark.
        let rest = segments.get(gone).unwrap_or(&active);
        prop_assert!(gone == 0 || rest.base_offset.0 <= high_watermark);
        // Size alone never takes the log below its limit.
        let left: u64 = segments[gone..].iter().map(|s| s.size_bytes).sum::<u64>() + active.size_bytes;
        if decided.delete.last() == Some(&Size) {
            prop_assert!(left >= retention_bytes.expect("a limit was breached"));
        }
        // Deciding again about what is left gives nothing more to delete: one pass is enough.
        let again = LogView { sealed: &segments[gone..], ..log };
        prop_assert_eq!(plan(&again, &policy, 1_000).delete, vec![]);
        if decided.roll_active.is_some() {
            prop_assert!(gone == segments.len() && next <= high_watermark);
        }
    }
}
