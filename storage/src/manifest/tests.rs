//! Text by hand, every refusal by table, round trips and bit flips by property.

use proptest::prelude::*;

use super::*;

fn sample() -> Manifest {
    Manifest {
        recovery_point: Offset(17),
        log_start: Offset(3),
        first_dirty: Offset(5),
        clean_end: Some(CleanEnd { end_offset: Offset(54), active_size_bytes: 11_096 }),
        segments: vec![
            SealedSegment {
                base_offset: Offset(0),
                size_bytes: 5_775,
                end_offset: Offset(17),
                largest_timestamp: Some(TimestampOffset { timestamp: 1_700_000_000_503, offset: Offset(16) }),
            },
            SealedSegment {
                base_offset: Offset(20),
                size_bytes: 0,
                end_offset: Offset(20),
                largest_timestamp: None,
            },
        ],
    }
}

fn with_crc(text: &str) -> String {
    format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()))
}

#[test]
fn the_text_is_as_documented() {
    let text = with_crc(
        "floodmark log manifest 1\nrecovery_point 17\nlog_start 3\nfirst_dirty 5\nclean_end 54 11096\n\
         segment 0 5775 17 1700000000503 16\nsegment 20 0 20 -1 -1\n",
    );
    assert_eq!(sample().format(), text);
    assert_eq!(Manifest::parse(text.as_bytes()), Ok(sample()));
    let empty = Manifest::default();
    assert_eq!(Manifest::parse(empty.format().as_bytes()), Ok(empty));
}

#[test]
fn bad_files_are_told_apart() {
    let head = "floodmark log manifest 1\nrecovery_point 0\nlog_start 0\nfirst_dirty 0\n";
    let lines = |more: &str| with_crc(&format!("{head}{more}"));
    for (text, message) in [
        (String::new(), "line 1: expected floodmark log manifest"),
        ("something else\n".to_owned(), "line 1: expected floodmark log manifest"),
        ("floodmark log manifest 2\nanything".to_owned(), "has version 2, newer than 1"),
        ("floodmark log manifest 0\n".to_owned(), "has version 0, which does not exist"),
        (with_crc("floodmark log manifest 1\nlog_start 0\n"), "line 2: expected recovery_point"),
        (with_crc("floodmark log manifest 1\nrecovery_point -1\n"), "line 2: recovery_point is -1"),
        (lines("surprise 1\n"), "line 5: expected crc"),
        (lines("clean_end 5\n"), "line 5: expected clean_end"),
        (lines("clean_end 5 -1\n"), "line 5: bytes of the active segment is not a number"),
        (lines("segment 0 1 2 3\n"), "line 5: expected segment"),
        (lines("segment 0 1 2 -2 0\n"), "line 5: largest timestamp is -2"),
        (lines("segment 0 1 2 5 2\n"), "line 5: offset of the largest timestamp is 2"),
        (lines("segment 0 1 2 -1 0\n"), "line 5: offset of the largest timestamp is 0"),
        (lines("segment 5 1 4 -1 -1\n"), "line 5: end offset is 4, out of order after 5"),
        (
            lines("segment 5 1 9 -1 -1\nsegment 8 1 9 -1 -1\n"),
            "line 6: base offset is 8, out of order after 9",
        ),
        (
            lines("segment 5 0 5 -1 -1\nsegment 5 1 9 -1 -1\n"),
            "line 6: base offset is 5, out of order after 5",
        ),
        (format!("{head}crc 00000000\n"), "its checksum says 00000000"),
        (format!("{head}crc 0000000G\n"), "line 5: expected crc"),
        (format!("{head}crc +0000000\n"), "line 5: expected crc"),
        (format!("{}more\n", lines("")), "goes on at line 6"),
    ] {
        let error = Manifest::parse(text.as_bytes()).expect_err(&text).to_string();
        assert!(error.contains(message), "{text:?} gives {error:?}, not {message:?}");
    }
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let segment = (0i64..3, 1i64..100, any::<u32>(), -1i64..1_000, any::<prop::sample::Index>());
    let clean_end = prop::option::of((0i64..1_000, any::<u32>()));
    (0i64..=i64::MAX, 0i64..1_000, 0i64..1_000, clean_end, prop::collection::vec(segment, 0..8)).prop_map(
        |(recovery_point, log_start, first_dirty, clean_end, segments)| {
            let mut next = 0;
            let segments = segments
                .into_iter()
                .map(|(gap, records, size_bytes, timestamp, at)| {
                    let base = next + gap;
                    next = base + records;
                    SealedSegment {
                        base_offset: Offset(base),
                        size_bytes: u64::from(size_bytes),
                        end_offset: Offset(next),
                        largest_timestamp: (timestamp >= 0).then(|| TimestampOffset {
                            timestamp,
                            offset: Offset(base + at.index(records as usize) as i64),
                        }),
                    }
                })
                .collect();
            Manifest {
                recovery_point: Offset(recovery_point),
                log_start: Offset(log_start),
                first_dirty: Offset(first_dirty),
                clean_end: clean_end.map(|(end, bytes)| CleanEnd {
                    end_offset: Offset(end),
                    active_size_bytes: u64::from(bytes),
                }),
                segments,
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
