//! Kafka's answers by table; every change against a log that is a plain list of (offset, epoch).

use proptest::prelude::*;

use super::*;

fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::new();
    for (epoch, start) in entries {
        assert!(epochs.assign(LeaderEpoch(*epoch), Offset(*start)), "{entries:?}");
    }
    epochs
}

fn pairs(epochs: &LeaderEpochs) -> Vec<(i32, i64)> {
    epochs.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect()
}

#[test]
fn assigning_makes_conflicting_entries_give_way() {
    let three: &[_] = &[(1, 10), (3, 20), (5, 30)];
    for (assigned, changed, expected) in [
        ((5, 30), false, three.to_vec()),
        ((5, 40), false, three.to_vec()),
        ((5, 25), true, vec![(1, 10), (3, 20), (5, 25)]),
        ((5, 20), true, vec![(1, 10), (5, 20)]),
        ((6, 40), true, vec![(1, 10), (3, 20), (5, 30), (6, 40)]),
        ((6, 30), true, vec![(1, 10), (3, 20), (6, 30)]),
        ((6, 15), true, vec![(1, 10), (6, 15)]),
        ((2, 40), true, vec![(1, 10), (2, 40)]),
        ((0, 0), true, vec![(0, 0)]),
        ((-1, 40), false, three.to_vec()),
        ((6, -1), false, three.to_vec()),
    ] {
        let mut epochs = epochs(three);
        assert_eq!(epochs.assign(LeaderEpoch(assigned.0), Offset(assigned.1)), changed, "{assigned:?}");
        assert_eq!(pairs(&epochs), expected, "{assigned:?}");
    }
}

#[test]
fn ends_of_epochs_are_kafkas() {
    let epochs = epochs(&[(2, 10), (4, 20), (7, 30)]);
    for (requested, expected) in [
        (-1, None),
        (0, Some((0, 10))),
        (1, Some((1, 10))),
        (2, Some((2, 20))),
        (3, Some((2, 20))),
        (4, Some((4, 30))),
        (6, Some((4, 30))),
        (7, Some((7, 99))),
        (8, None),
    ] {
        let end = epochs.end_offset_for(LeaderEpoch(requested), Offset(99));
        assert_eq!(end.map(|e| (e.epoch.0, e.end_offset.0)), expected, "epoch {requested}");
    }
    assert_eq!(LeaderEpochs::new().end_offset_for(LeaderEpoch(0), Offset(0)), None);
    for (offset, expected) in [(9, None), (10, Some(2)), (19, Some(2)), (20, Some(4)), (1_000, Some(7))] {
        assert_eq!(epochs.epoch_for_offset(Offset(offset)).map(|e| e.0), expected, "offset {offset}");
    }
}

#[test]
fn truncating_keeps_the_epoch_that_spans_the_cut() {
    let all: &[_] = &[(2, 10), (4, 20), (7, 30)];
    for (end, changed, expected) in [
        (31, false, all.to_vec()),
        (30, true, vec![(2, 10), (4, 20)]),
        (10, true, vec![]),
        (0, true, vec![]),
        (-1, false, all.to_vec()),
    ] {
        let mut epochs = epochs(all);
        assert_eq!(epochs.truncate_from_end(Offset(end)), changed, "end {end}");
        assert_eq!(pairs(&epochs), expected, "end {end}");
    }
    for (start, changed, expected) in [
        (9, false, all.to_vec()),
        (10, false, all.to_vec()),
        (15, true, vec![(2, 15), (4, 20), (7, 30)]),
        (20, true, vec![(4, 20), (7, 30)]),
        (99, true, vec![(7, 99)]),
    ] {
        let mut epochs = epochs(all);
        assert_eq!(epochs.truncate_from_start(Offset(start)), changed, "start {start}");
        assert_eq!(pairs(&epochs), expected, "start {start}");
    }
}

#[test]
fn the_text_is_kafkas() {
    assert_eq!(LeaderEpochs::new().format(), "0\n0\n");
    assert_eq!(epochs(&[(0, 0), (3, 12)]).format(), "0\n2\n0 0\n3 12\n");
}

#[test]
fn bad_files_are_told_apart() {
    for (text, message) in [
        ("", "line 1: expected version 0"),
        ("0", "line 1: expected version 0"),
        ("x\n0\n", "line 1: version is not a number"),
        ("1\n0\n", "has version 1, newer than 0"),
        ("-1\n0\n", "has version -1, which does not exist"),
        ("0\n", "line 2: expected the number of entries"),
        ("0\n-1\n", "line 2: number of entries is not a number or out of range"),
        ("0\n9223372036854775807\n0 0\n", "cut short"),
        ("0\n2\n0 0\n3 12", "line 4: expected an epoch"),
        ("0\n1\n0 0\n3 12\n", "goes on at line 4 after its end"),
        ("0\n1\n0  0\n", "line 3: expected an epoch"),
        ("0\n1\n0 0 0\n", "line 3: expected an epoch"),
        ("0\n1\n+1 0\n", "line 3: epoch is not a number"),
        ("0\n1\n0 00\n", "line 3: start offset is not a number"),
        ("0\n1\n2147483648 0\n", "line 3: epoch is not a number or out of range"),
        ("0\n1\n-1 0\n", "line 3: epoch is -1, out of range"),
        ("0\n1\n0 -5\n", "line 3: start offset is -5, out of range"),
        ("0\n2\n3 0\n3 1\n", "line 4: epoch is 3, out of order after 3"),
        ("0\n2\n3 5\n4 5\n", "line 4: start offset is 5, out of order after 5"),
    ] {
        let error = LeaderEpochs::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(message), "{text:?} gives {error:?}, not {message:?}");
    }
    assert!(LeaderEpochs::parse(b"0\n1\n\xff 0\n").is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Append { records: i64, epoch_rise: i32 },
    CutTail(i64),
    CutHead(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1i64..5, 0i32..3).prop_map(|(records, epoch_rise)| Step::Append { records, epoch_rise }),
        1 => (0i64..15).prop_map(Step::CutTail),
        1 => (0i64..15).prop_map(Step::CutHead),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_list_of_records(steps in prop::collection::vec(step(), 0..40)) {
        // The log as (offset, epoch), one a record; the epoch never falls, as leaders follow each other.
        let mut log: Vec<(i64, i32)> = Vec::new();
        let (mut start, mut end, mut epoch) = (0, 0, 0);
        let mut epochs = LeaderEpochs::new();
        for step in steps {
            match step {
                Step::Append { records, epoch_rise } => {
                    epoch += epoch_rise;
                    epochs.assign(LeaderEpoch(epoch), Offset(end));
                    log.extend((0..records).map(|n| (end + n, epoch)));
                    end += records;
                }
                Step::CutTail(back) => {
                    end = (end - back).max(start);
                    log.retain(|(offset, _)| *offset < end);
                    epochs.truncate_from_end(Offset(end));
                }
                Step::CutHead(forward) => {
                    start = (start + forward).min(end);
                    log.retain(|(offset, _)| *offset >= start);
                    epochs.truncate_from_start(Offset(start));
                }
            }
            for (offset, epoch) in &log {
                prop_assert_eq!(epochs.epoch_for_offset(Offset(*offset)), Some(LeaderEpoch(*epoch)));
            }
            for asked in 0..=epoch {
                let Some(answer) = epochs.end_offset_for(LeaderEpoch(asked), Offset(end)) else { continue };
                let records_up_to = log.iter().filter(|(_, e)| *e <= asked).count() as i64;
                prop_assert!(answer.epoch.0 <= asked);
                if records_up_to > 0 {
                    prop_assert_eq!(answer.end_offset.0, start + records_up_to, "epoch {}", asked);
                }
            }
            prop_assert_eq!(LeaderEpochs::parse(epochs.format().as_bytes()), Ok(epochs.clone()));
        }
    }

    #[test]
    fn what_parses_formats_to_the_same_bytes(text in "0\n[0-3]\n([0-9] [0-9]\n){0,3}") {
        if let Ok(epochs) = LeaderEpochs::parse(text.as_bytes()) {
            prop_assert_eq!(epochs.format(), text);
        }
    }

    #[test]
    fn no_torn_file_parses(starts in prop::collection::btree_set(0i64..100_000, 1..6), cut in 0usize..60) {
        let mut whole = LeaderEpochs::new();
        for (epoch, start) in starts.into_iter().enumerate() {
            whole.assign(LeaderEpoch(epoch as i32), Offset(start));
        }
        let text = whole.format();
        let cut = cut % text.len();
        prop_assert!(LeaderEpochs::parse(&text.as_bytes()[..cut]).is_err());
    }
}
