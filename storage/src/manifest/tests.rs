//! Text by hand, every refusal by table, round trips and bit flips by property.

use proptest::prelude::*;

use super::*;

fn sample() -> Manifest {
    Manifest {
        log_start: Offset(3),
        first_dirty: Offset(5),
        is_closed: true,
        epochs: Some(0x0000_00ff),
        truncating_to: Some(Offset(19)),
        replacing: Some(Offset(0)),
        sealed: vec![SegmentRecord {
            base_offset: Offset(0),
            size_bytes: 5_775,
            end_offset: Offset(17),
            largest_timestamp: Some(TimestampOffset { timestamp: 1_700_000_000_503, offset: Offset(16) }),
            aborted: Some(EntriesFacts { entries: 2, crc: 0x0a1b_2c3d }),
        }],
        active: SegmentRecord {
            base_offset: Offset(20),
            size_bytes: 0,
            end_offset: Offset(20),
            largest_timestamp: None,
            aborted: None,
        },
    }
}

fn with_crc(text: &str) -> String {
    format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()))
}

#[test]
fn the_text_is_as_documented() {
    let text = with_crc(
        "floodmark log manifest 2\nlog_start 3\nfirst_dirty 5\nclosed yes\nepochs 000000ff\ntruncating_to 19\n\
         replacing 0\nsegment 0 5775 17 1700000000503 16 2 0a1b2c3d\nactive 20 0 20 -1 -1 - -\n",
    );
    assert_eq!(sample().format(), text);
    assert_eq!(Manifest::parse(text.as_bytes()), Ok(sample()));
    let empty = Manifest::default();
    assert_eq!(Manifest::parse(empty.format().as_bytes()), Ok(empty));
}

#[test]
fn the_older_version_is_read_and_knows_less() {
    let text = with_crc(
        "floodmark log manifest 1\nlog_start 3\nfirst_dirty 5\nclosed yes\ntruncating_to 19\nreplacing 0\n\
         segment 0 5775 17 1700000000503 16\nactive 20 0 20 -1 -1\n",
    );
    let mut known = sample();
    known.epochs = None;
    known.sealed[0].aborted = None;
    let parsed = Manifest::parse(text.as_bytes());
    assert_eq!(parsed, Ok(known.clone()));
    assert_eq!(Manifest::parse(known.format().as_bytes()), Ok(known));
    let newer_line =
        with_crc("floodmark log manifest 1\nlog_start 0\nfirst_dirty 0\nclosed no\nepochs 00000000\n");
    assert!(Manifest::parse(newer_line.as_bytes()).is_err());
}

#[test]
fn bad_files_are_told_apart() {
    let head = "floodmark log manifest 2\nlog_start 0\nfirst_dirty 0\nclosed no\n";
    let active = "active 9 0 9 -1 -1 0 00000000\n";
    let lines = |more: &str| with_crc(&format!("{head}{more}"));
    for (text, message) in [
        (String::new(), "line 1: expected floodmark log manifest"),
        ("something else\n".to_owned(), "line 1: expected floodmark log manifest"),
        ("floodmark log manifest 3\nanything".to_owned(), "has version 3, newer than 2"),
        ("floodmark log manifest 0\n".to_owned(), "has version 0, which does not exist"),
        (with_crc("floodmark log manifest 2\nfirst_dirty 0\n"), "line 2: expected log_start"),
        (with_crc("floodmark log manifest 2\nlog_start -1\n"), "line 2: log_start is -1"),
        (
            with_crc("floodmark log manifest 2\nlog_start 0\nfirst_dirty 0\nclosed\n"),
            "line 4: expected closed",
        ),
        (lines("surprise 1\n"), "line 5: expected segment or active"),
        (lines("truncating_to\n"), "line 5: expected segment or active"),
        (lines("truncating_to -1\n"), "line 5: truncating_to is -1"),
        (lines("replacing x\n"), "line 5: replacing is not a number"),
        (lines("epochs 123\n"), "line 5: expected epochs and eight"),
        (lines("segment 0 1 2 5 1 -1 00000000\n"), "line 5: aborted transactions of the segment is -1"),
        (lines("segment 0 1 2 5 1 1 0000000\n"), "line 5: expected the checksum of aborted"),
        (
            lines("segment 0 1 2 5 1 - 00000000\n"),
            "line 5: aborted transactions of the segment is not a number",
        ),
        (lines("segment 0 1 2 5 1\n"), "line 5: expected segment"),
        (lines("segment 0 1 2 3\n"), "line 5: expected segment"),
        (lines("segment 0 1 2 -2 0 - -\n"), "line 5: largest timestamp is -2"),
        (lines("segment 0 1 2 5 2 - -\n"), "line 5: offset of the largest timestamp is 2"),
        (lines("segment 0 1 2 -1 0 - -\n"), "line 5: offset of the largest timestamp is 0"),
        (lines("segment 5 1 4 -1 -1 - -\n"), "line 5: end offset is 4, out of order after 5"),
        (lines("segment 0 -1 4 -1 -1 - -\n"), "line 5: bytes of the segment is not a number"),
        (
            lines("segment 5 1 9 -1 -1 - -\nsegment 8 1 9 -1 -1 - -\n"),
            "line 6: base offset is 8, out of order after 9",
        ),
        (
            lines("segment 5 0 5 -1 -1 - -\nactive 5 1 9 -1 -1 - -\n"),
            "line 6: base offset is 5, out of order after 5",
        ),
        (lines("segment 0 1 9 -1 -1 - -\n"), "line 6: expected segment or active"),
        (format!("{head}{active}crc 00000000\n"), "its checksum says 00000000"),
        (format!("{head}{active}crc 0000000G\n"), "line 6: expected crc"),
        (format!("{head}{active}crc +0000000\n"), "line 6: expected crc"),
        (format!("{}more\n", lines(active)), "goes on at line 7"),
    ] {
        let error = Manifest::parse(text.as_bytes()).expect_err(&text).to_string();
        assert!(error.contains(message), "{text:?} gives {error:?}, not {message:?}");
    }
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let aborted = prop::option::of((any::<u32>(), any::<u32>()));
    let segment = (0i64..3, 1i64..100, any::<u32>(), -1i64..1_000, any::<prop::sample::Index>(), aborted);
    let change = (prop::option::of(0i64..1_000), prop::option::of(0i64..1_000));
    let closed = (any::<bool>(), prop::option::of(any::<u32>()));
    (0i64..1_000, 0i64..1_000, closed, change, prop::collection::vec(segment, 1..8)).prop_map(
        |(log_start, first_dirty, (is_closed, epochs), (truncating_to, replacing), segments)| {
            let mut next = 0;
            let record = |(gap, records, size_bytes, timestamp, at, aborted): (
                _,
                i64,
                u32,
                i64,
                prop::sample::Index,
                _,
            )| {
                let base = next + gap;
                next = base + records;
                let offset = Offset(base + at.index(records as usize) as i64);
                SegmentRecord {
                    base_offset: Offset(base),
                    size_bytes: u64::from(size_bytes),
                    end_offset: Offset(next),
                    largest_timestamp: (timestamp >= 0).then_some(TimestampOffset { timestamp, offset }),
                    aborted: Option::map(aborted, |(entries, crc)| EntriesFacts { entries, crc }),
                }
            };
            let mut sealed: Vec<SegmentRecord> = segments.into_iter().map(record).collect();
            let active = sealed.pop().unwrap_or_default();
            Manifest {
                log_start: Offset(log_start),
                first_dirty: Offset(first_dirty),
                is_closed,
                epochs,
                truncating_to: truncating_to.map(Offset),
                replacing: replacing.map(Offset),
                sealed,
                active,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_manifest_comes_back(manifest in manifests()) {
        prop_assert_eq!(Manifest::parse(manifest.format().as_bytes()), Ok(manifest));
    }

    #[test]
    fn no_changed_byte_and_no_torn_file_parses(
        manifest in manifests(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let mut bytes = manifest.format().into_bytes();
        let at = at.index(bytes.len());
        prop_assert!(Manifest::parse(&bytes[..at]).is_err());
        bytes[at] ^= flip;
        prop_assert!(Manifest::parse(&bytes).is_err());
    }
}
