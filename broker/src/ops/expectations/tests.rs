//! Headers to conditions, and what is refused.

use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord};

use super::*;

type Headers<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];

fn batch(records: &[(Option<&[u8]>, Headers<'_>)], codec: CompressionType) -> RecordBatch {
    let mut builder = BatchBuilder::new().compression(codec, None);
    for (key, headers) in records {
        builder.push(&NewRecord { timestamp: 1, key: *key, value: Some(b"v"), headers }).unwrap();
    }
    builder.build().unwrap()
}

fn condition(records: &[(Option<&[u8]>, Headers<'_>)]) -> Result<Option<Condition>, Refusal> {
    let plain = condition_of(&batch(records, CompressionType::None), &mut Vec::new());
    let compressed = condition_of(&batch(records, CompressionType::Lz4), &mut Vec::new());
    assert_eq!(plain, compressed);
    plain
}

#[test]
fn each_record_that_says_so_is_checked_behind_those_before_it() {
    let expects = |value: &'static [u8]| [(EXPECTED_OFFSET, Some(value))];
    let (no_stream, exists, exact, any) =
        (expects(b"no-stream"), expects(b"stream-exists"), expects(b"41"), expects(b"any"));
    let found = condition(&[
        (Some(b"x"), &[(b"other", None)]),
        (Some(b"a"), &no_stream),
        (None, &[]),
        (Some(b"a"), &exists),
        (Some(b"x"), &exact),
        (Some(b"b"), &any),
    ]);
    let check = |record, key: &'static [u8], expected, earlier| KeyCheck {
        record,
        key: Bytes::from_static(key),
        expected,
        earlier,
    };
    let checks = vec![
        check(1, b"a", Expected::NoStream, None),
        check(3, b"a", Expected::StreamExists, Some(1)),
        check(4, b"x", Expected::Exactly(Offset(41)), Some(0)),
        check(5, b"b", Expected::Any, None),
    ];
    assert_eq!(found, Ok(Some(Condition { checks, ..Condition::default() })));
    assert_eq!(condition(&[(Some(b"a"), &[]), (None, &[(b"floodmark-expected", Some(b"1"))])]), Ok(None));
}

#[test]
fn the_first_of_them_says_by_which_id_a_retry_is_known() {
    let found = condition(&[(Some(b"a"), &[(EXPECTED_OFFSET, Some(b"any")), (APPEND_ID, Some(b"0123"))])]);
    assert_eq!(found.unwrap().unwrap().append_id.as_deref(), Some(&b"0123"[..]));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let long = [7; APPEND_ID_BYTES_MAX + 1];
    let expected = |value: &'static [u8]| [(EXPECTED_OFFSET, Some(value))];
    let no_key: [(&[u8], Option<&[u8]>); 1] = [(EXPECTED_OFFSET, Some(b"any"))];
    let twice: [(&[u8], Option<&[u8]>); 2] = [(EXPECTED_OFFSET, Some(b"1")), (EXPECTED_OFFSET, Some(b"1"))];
    let null: [(&[u8], Option<&[u8]>); 1] = [(EXPECTED_OFFSET, None)];
    let long_id: [(&[u8], Option<&[u8]>); 2] = [(EXPECTED_OFFSET, Some(b"1")), (APPEND_ID, Some(&long))];
    let a: Option<&[u8]> = Some(b"a");
    let cases = [
        (None, no_key.to_vec()),
        (a, twice.to_vec()),
        (a, null.to_vec()),
        (a, long_id.to_vec()),
        (a, expected(b"").to_vec()),
        (a, expected(b"-1").to_vec()),
        (a, expected(b"+1").to_vec()),
        (a, expected(b"Any").to_vec()),
        (a, expected(b"9223372036854775808").to_vec()),
        (a, expected(b"\xff").to_vec()),
    ];
    for (key, headers) in cases {
        let refused = condition(&[(Some(b"good"), &[]), (key, &headers)]).unwrap_err();
        let Refusal::Expectation(named) = &refused else { panic!("{refused:?}") };
        assert_eq!(named.index, 1, "{refused:?}");
    }
}

#[test]
fn a_batch_of_expectations_without_end_is_refused() {
    let no_stream: [(&[u8], Option<&[u8]>); 1] = [(EXPECTED_OFFSET, Some(b"no-stream"))];
    let keys: Vec<_> = (0..=EXPECTING_MAX).map(|n| n.to_string()).collect();
    let of = |count: usize| {
        // Others beside them do not count.
        let plain = (Some(&b"0"[..]), &[][..]);
        let expecting = keys[..count].iter().map(|key| (Some(key.as_bytes()), &no_stream[..]));
        let records: Vec<_> = [plain; 500].into_iter().chain(expecting).collect();
        condition(&records)
    };
    let taken = of(EXPECTING_MAX).unwrap().unwrap();
    assert_eq!(taken.checks.len(), EXPECTING_MAX);
    assert_eq!(taken.checks[0].earlier, Some(499));
    assert!(taken.checks[1..].iter().all(|check| check.earlier.is_none()));
    let refused = of(EXPECTING_MAX + 1).unwrap_err();
    let Refusal::Expectation(named) = &refused else { panic!("{refused:?}") };
    assert_eq!(named.index as usize, 500 + EXPECTING_MAX);
}
