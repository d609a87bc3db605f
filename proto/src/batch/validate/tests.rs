//! One row for every way a batch can be wrong, each with its exact error; what is right passes.

use super::*;
use crate::batch::crc32c::batch_crc;
use crate::batch::header::put_crc;
use crate::batch::{
    Attributes, BatchBuilder, EndTransactionMarker, HEADER_LEN, NewRecord, TransactionResult,
};
use crate::ids::LeaderEpoch;

const LIMITS: DecompressLimits = DecompressLimits::DEFAULT;

fn record(timestamp: TimestampMs) -> NewRecord<'static> {
    NewRecord { timestamp, key: Some(b"key"), value: Some(b"value"), headers: &[] }
}

fn client_batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new().producer(ProducerId(9), 3, 40);
    for timestamp in [1000, 1002, 1001] {
        builder.push(&record(timestamp)).unwrap();
    }
    builder.build().unwrap().freeze().to_vec()
}

/// The batch with its header changed and its CRC made right again.
fn with_header(batch: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    let mut header = BatchHeader::parse(&bytes).unwrap();
    change(&mut header);
    header.write(bytes.first_chunk_mut::<HEADER_LEN>().unwrap());
    with_crc(bytes)
}

fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = batch_crc(&bytes);
    put_crc(bytes.first_chunk_mut::<HEADER_LEN>().unwrap(), crc);
    bytes
}

/// A batch around hand-made record bytes.
fn around(records: &[u8], record_count: i32, last_offset_delta: i32) -> Vec<u8> {
    let batch = [&client_batch()[..HEADER_LEN], records].concat();
    with_header(&batch, |header| {
        header.batch_length = (batch.len() - 12) as i32;
        header.record_count = record_count;
        header.last_offset_delta = last_offset_delta;
    })
}

fn field_of(error: Result<BatchHeader, BatchError>) -> (&'static str, i64) {
    match error {
        Err(BatchError::Field { field, value, .. }) => (field, value),
        other => panic!("expected a field error, got {other:?}"),
    }
}

#[test]
fn a_good_batch_passes_every_check() {
    let batch = client_batch();
    let header = check_from_client(&batch, batch.len()).unwrap();
    assert_eq!(header, check_stored(&batch).unwrap());
    let summary = check_records(&batch, RecordRules::FromClient, &LIMITS, &mut Vec::new()).unwrap();
    let expected = RecordsSummary {
        record_count: 3,
        max_timestamp: 1002,
        max_timestamp_offset: Offset(1),
        has_null_key: false,
    };
    assert_eq!(summary, expected);
}

#[test]
fn sizes_are_exact() {
    let batch = client_batch();
    let len = batch.len();
    for cut in 0..len {
        let need_bytes = if cut < HEADER_LEN { HEADER_LEN } else { len };
        let expected = Err(BatchError::Truncated { need_bytes, have_bytes: cut });
        assert_eq!(check_from_client(&batch[..cut], len), expected);
        assert_eq!(check_stored(&batch[..cut]), expected);
    }
    assert_eq!(
        check_from_client(&batch, len - 1),
        Err(BatchError::TooLarge { size_bytes: len, limit_bytes: len - 1 })
    );
    let longer = [&batch[..], b"x"].concat();
    assert_eq!(check_from_client(&longer, 1000), Err(BatchError::TrailingBytes(1)));
    assert!(check_stored(&longer).is_ok());
    for batch_length in [i32::MIN, -1, 0, 48] {
        let lying = with_header(&batch, |header| header.batch_length = batch_length);
        assert_eq!(check_from_client(&lying, len), Err(BatchError::LengthTooSmall(batch_length)));
        assert_eq!(check_stored(&lying), Err(BatchError::LengthTooSmall(batch_length)));
    }
    let endless = with_header(&batch, |header| header.batch_length = i32::MAX);
    assert!(matches!(check_from_client(&endless, len), Err(BatchError::TooLarge { .. })));
    assert!(matches!(check_stored(&endless), Err(BatchError::Truncated { .. })));
}

#[test]
fn magic_and_crc_are_judged() {
    for magic in [0u8, 1, 3, 0xff] {
        let mut bytes = client_batch();
        bytes[16] = magic;
        let expected = Err(BatchError::UnsupportedMagic(magic as i8));
        assert_eq!(check_from_client(&bytes, 1000), expected);
        assert_eq!(check_stored(&bytes), expected);
    }
    assert_eq!(
        check_stored(&[0; 4096]),
        Err(BatchError::UnsupportedMagic(0)),
        "pre-written zeros are no batch"
    );
    let batch = client_batch();
    for at in (17..21).chain(61..batch.len()) {
        let mut bytes = batch.clone();
        bytes[at] ^= 0x10;
        assert!(matches!(check_from_client(&bytes, 1000), Err(BatchError::CrcMismatch { .. })), "{at}");
        assert!(matches!(check_stored(&bytes), Err(BatchError::CrcMismatch { .. })), "{at}");
    }
}

#[test]
fn no_flipped_bit_under_the_crc_passes() {
    let batch = client_batch();
    for bit in 21 * 8..batch.len() * 8 {
        let mut bytes = batch.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(check_from_client(&bytes, 1000).is_err(), "bit {bit}");
        assert!(check_stored(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn client_fields_are_judged() {
    type Change = fn(&mut BatchHeader);
    let rows: [(&str, i64, Change); 20] = [
        ("attributes", 0x20, |h| h.attributes = h.attributes.with_control(true)),
        ("attributes", 0x40, |h| h.attributes = h.attributes.with_delete_horizon(true)),
        ("attributes", 0x08, |h| h.attributes = h.attributes.with_log_append_time(true)),
        ("attributes", 0x80, |h| h.attributes = Attributes(0x80)),
        ("attributes", i64::from(i16::MIN), |h| h.attributes = Attributes(i16::MIN)),
        ("attributes", 0x10, |h| {
            h.attributes = h.attributes.with_transactional(true);
            h.producer_id = ProducerId::NONE;
        }),
        ("record count", 0, |h| h.record_count = 0),
        ("record count", -1, |h| h.record_count = -1),
        ("last offset delta", 3, |h| h.last_offset_delta = 3),
        ("last offset delta", 1, |h| h.last_offset_delta = 1),
        ("last offset delta", i64::from(i32::MIN), |h| h.last_offset_delta = i32::MIN),
        ("record count", 1 << 30, |h| (h.record_count, h.last_offset_delta) = (1 << 30, (1 << 30) - 1)),
        ("max timestamp", -2, |h| h.max_timestamp = -2),
        ("max timestamp", i64::MIN, |h| h.max_timestamp = i64::MIN),
        ("base timestamp", i64::MIN, |h| h.base_timestamp = i64::MIN),
        ("producer id", -2, |h| h.producer_id = ProducerId(-2)),
        ("producer id", i64::MIN, |h| h.producer_id = ProducerId(i64::MIN)),
        ("producer epoch", -1, |h| h.producer_epoch = -1),
        ("base sequence", -1, |h| h.base_sequence = -1),
        ("base sequence", i64::from(i32::MIN), |h| h.base_sequence = i32::MIN),
    ];
    for (field, value, change) in rows {
        let bytes = with_header(&client_batch(), change);
        assert_eq!(field_of(check_from_client(&bytes, 1000)), (field, value));
    }
    for code in 5..8 {
        let bytes = with_header(&client_batch(), |h| h.attributes = Attributes(i16::from(code)));
        assert_eq!(check_from_client(&bytes, 1000), Err(BatchError::UnknownCompression(code)));
        assert_eq!(check_stored(&bytes), Err(BatchError::UnknownCompression(code)));
    }
}

#[test]
fn what_clients_really_send_passes() {
    type Change = fn(&mut BatchHeader);
    let rows: [Change; 7] = [
        // Base offset and epoch are the broker's to write.
        |h| (h.base_offset, h.leader_epoch) = (Offset(-1), LeaderEpoch(-1)),
        |h| (h.base_offset, h.leader_epoch) = (Offset(i64::MAX), LeaderEpoch(i32::MIN)),
        // Sarama leaves the maximum unset, and sends sequence 0 without a producer.
        |h| h.max_timestamp = -1,
        |h| (h.producer_id, h.producer_epoch, h.base_sequence) = (ProducerId::NONE, -1, 0),
        |h| (h.producer_id, h.producer_epoch, h.base_sequence) = (ProducerId::NONE, -1, -1),
        // Sequences wrap within a batch.
        |h| h.base_sequence = i32::MAX,
        |h| h.attributes = h.attributes.with_transactional(true),
    ];
    for (row, change) in rows.into_iter().enumerate() {
        let bytes = with_header(&client_batch(), change);
        assert!(check_from_client(&bytes, 1000).is_ok(), "row {row}");
    }
}

#[test]
fn counts_are_bounded_by_what_the_codec_can_do() {
    for (codec, per_byte) in [(0i16, 1), (1, 1032), (2, 22), (3, 255), (4, 32768)] {
        let payload = [0u8; 100];
        let most = 100 * per_byte / 7;
        for (count, good) in [(most, true), (most + 1, false)] {
            let batch = around(&payload, count, count - 1);
            let batch = with_header(&batch, |h| h.attributes = Attributes(codec));
            assert_eq!(check_from_client(&batch, 1000).is_ok(), good, "codec {codec}, {count} records");
            assert_eq!(check_stored(&batch).is_ok(), good, "codec {codec}, {count} records");
        }
    }
}

#[test]
fn stored_fields_are_judged() {
    type Change = fn(&mut BatchHeader);
    let rows: [(&str, i64, Change); 7] = [
        ("last offset delta", -1, |h| h.last_offset_delta = -1),
        ("base offset", -1, |h| h.base_offset = Offset(-1)),
        ("base offset", i64::MAX - 2, |h| h.base_offset = Offset(i64::MAX - 2)),
        ("record count", -1, |h| h.record_count = -1),
        ("record count", 3, |h| h.last_offset_delta = 1),
        ("record count", i64::from(i32::MAX), |h| {
            (h.record_count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1);
        }),
        ("record count", 1, |h| {
            // One record in no bytes.
            h.batch_length = 49;
            h.record_count = 1;
        }),
    ];
    for (field, value, change) in rows {
        let mut bytes = with_header(&client_batch(), change);
        let size_bytes = BatchHeader::parse(&bytes).unwrap().size_bytes();
        bytes.truncate(size_bytes);
        assert_eq!(field_of(check_stored(&with_crc(bytes))), (field, value));
    }
}

#[test]
fn what_logs_really_hold_passes() {
    type Change = fn(&mut BatchHeader);
    let rows: [Change; 7] = [
        |h| h.base_offset = Offset(i64::MAX - 3),
        |h| h.last_offset_delta = 100,
        |h| h.last_offset_delta = i32::MAX,
        |h| h.attributes = h.attributes.with_control(true).with_transactional(true),
        |h| h.attributes = h.attributes.with_delete_horizon(true).with_log_append_time(true),
        |h| h.attributes = Attributes(0x100),
        |h| h.max_timestamp = -1,
    ];
    for (row, change) in rows.into_iter().enumerate() {
        let bytes = with_header(&client_batch(), change);
        assert!(check_stored(&bytes).is_ok(), "row {row}");
    }
    let empty = BatchBuilder::new().base_offset(Offset(5)).last_offset_delta(7).build().unwrap();
    assert_eq!(check_stored(empty.as_bytes()).unwrap().next_offset(), Offset(13));
    let summary = empty.check_records(RecordRules::Stored, &LIMITS, &mut Vec::new()).unwrap();
    assert_eq!((summary.record_count, summary.max_timestamp), (0, -1));
}

fn records_error(batch: &[u8], rules: RecordRules) -> BatchError {
    check_records(batch, rules, &LIMITS, &mut Vec::new()).unwrap_err()
}

#[test]
fn malformed_records_are_refused() {
    // Length, attributes, timestamp delta, offset delta, key length, value length, header count; numbers are zigzag.
    let rows: [(&[u8], &str); 17] = [
        (&[], "varint ends early"),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0], "varint is too long"),
        (&[1, 0, 0, 0, 1, 1, 0], "record length is negative"),
        (&[0, 0, 0, 0, 1, 1, 0], "record ends early"),
        (&[14, 0, 0, 0, 1, 1, 0], "length passes the end"),
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0], "length passes the end"),
        (&[2, 0], "varint ends early"),
        (&[12, 0, 0, 0, 3, 1, 0], "length is negative"),
        (&[12, 0, 0, 0, 4, 1, 0], "varint ends early"),
        (&[12, 0, 0, 0, 1, 8, 0], "length passes the end"),
        (&[10, 0, 0, 0, 1, 1], "varint ends early"),
        (&[12, 0, 0, 0, 1, 1, 1], "header count is negative"),
        (&[12, 0, 0, 0, 1, 1, 2], "header count passes the record"),
        (&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], "header count passes the record"),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "bytes follow the last header"),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], "header key is null"),
        (&[18, 0, 0, 0, 1, 1, 2, 0, 1, 0], "bytes follow the last header"),
    ];
    for (records, reason) in rows {
        for rules in [RecordRules::FromClient, RecordRules::Stored] {
            let error = records_error(&around(records, 1, 0), rules);
            let index = 0;
            let expected = BatchError::Record { index, reason };
            assert_eq!(error, expected, "{records:?}");
        }
    }
}

#[test]
fn overflowing_deltas_are_refused() {
    let late: &[u8] = &[30, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 1, 1, 0];
    let batch = around(late, 1, 0);
    let expected = BatchError::Record { index: 0, reason: "timestamp overflows" };
    assert_eq!(records_error(&batch, RecordRules::Stored), expected);
    let one: &[u8] = &[12, 0, 0, 2, 1, 1, 0];
    let batch = with_header(&around(one, 1, 1), |h| h.base_offset = Offset(i64::MAX));
    let expected = BatchError::Record { index: 0, reason: "offset overflows" };
    assert_eq!(records_error(&batch, RecordRules::Stored), expected);
}

#[test]
fn records_must_agree_with_the_header() {
    const fn at(delta: u8) -> [u8; 7] {
        [12, 0, 0, delta << 1, 1, 1, 0]
    }
    // Records, last offset delta, reason for a client, reason for a log.
    type Row<'r> = (&'r [[u8; 7]], i32, Option<&'r str>, Option<&'r str>);
    let rows: [Row<'_>; 6] = [
        (&[at(0), at(1)], 1, None, None),
        (&[at(0), at(2)], 2, Some("offset delta leaves a gap"), None),
        (&[at(1), at(2)], 2, Some("offset delta leaves a gap"), None),
        (&[at(0), at(0)], 1, Some("offset delta does not rise"), Some("offset delta does not rise")),
        (&[at(1), at(0)], 1, Some("offset delta leaves a gap"), Some("offset delta does not rise")),
        (
            &[at(0), at(1)],
            0,
            Some("offset delta passes the last offset of the batch"),
            Some("offset delta passes the last offset of the batch"),
        ),
    ];
    for (records, last, client, stored) in rows {
        let batch = around(&records.concat(), records.len() as i32, last);
        for (rules, expected) in [(RecordRules::FromClient, client), (RecordRules::Stored, stored)] {
            let found = check_records(&batch, rules, &LIMITS, &mut Vec::new()).err();
            let reason = found.map(|error| match error {
                BatchError::Record { reason, .. } => reason,
                other => panic!("{other:?}"),
            });
            assert_eq!(reason, expected, "{records:?} {rules:?}");
        }
    }
    let negative: &[u8] = &[12, 0, 0, 1, 1, 1, 0];
    let expected = BatchError::Record { index: 0, reason: "offset delta does not rise" };
    assert_eq!(records_error(&around(negative, 1, 0), RecordRules::Stored), expected);
    let early: &[u8] = &[18, 0, 0xff, 0xff, 0xff, 0x0f, 0, 1, 1, 0];
    let expected = BatchError::Record { index: 0, reason: "timestamp lies before the epoch" };
    assert_eq!(records_error(&around(early, 1, 0), RecordRules::FromClient), expected);
    assert!(check_records(&around(early, 1, 0), RecordRules::Stored, &LIMITS, &mut Vec::new()).is_ok());
}

#[test]
fn a_wrong_count_is_found_in_both_directions() {
    let batch = client_batch();
    let more = with_header(&batch, |h| (h.record_count, h.last_offset_delta) = (4, 3));
    let expected = BatchError::Record { index: 3, reason: "varint ends early" };
    assert_eq!(records_error(&more, RecordRules::FromClient), expected);
    let fewer = with_header(&batch, |h| (h.record_count, h.last_offset_delta) = (2, 1));
    assert_eq!(records_error(&fewer, RecordRules::FromClient), BatchError::TrailingBytes(15));
    let none = with_header(&batch, |h| h.record_count = 0);
    assert_eq!(records_error(&none, RecordRules::Stored), BatchError::TrailingBytes(45));
    let negative = with_header(&batch, |h| h.record_count = -1);
    assert!(matches!(records_error(&negative, RecordRules::Stored), BatchError::Field { value: -1, .. }));
}

#[test]
fn an_empty_compressed_payload_is_refused_unless_the_batch_is_empty() {
    for codec in 1..5 {
        let batch = with_header(&around(&[], 0, 2), |h| h.attributes = Attributes(codec));
        assert!(check_stored(&batch).is_ok());
        assert!(check_records(&batch, RecordRules::Stored, &LIMITS, &mut Vec::new()).is_ok());
        let claiming = with_header(&batch, |h| h.record_count = 1);
        assert_eq!(field_of(check_stored(&claiming)), ("record count", 1));
        let error = records_error(&claiming, RecordRules::Stored);
        assert!(matches!(error, BatchError::Decompress { .. }), "{codec} {error:?}");
    }
}

#[test]
fn the_summary_tells_of_null_keys_and_the_latest_record() {
    let mut builder = BatchBuilder::new().base_offset(Offset(50));
    for (timestamp, key) in [(7, Some(&b"a"[..])), (9, None), (9, Some(b"b")), (8, Some(b"c"))] {
        builder.push(&NewRecord { timestamp, key, value: None, headers: &[] }).unwrap();
    }
    let mut batch = builder.build().unwrap();
    let check = |batch: &crate::batch::RecordBatch| {
        batch.check_records(RecordRules::FromClient, &LIMITS, &mut Vec::new()).unwrap()
    };
    let expected = RecordsSummary {
        record_count: 4,
        max_timestamp: 9,
        max_timestamp_offset: Offset(51),
        has_null_key: true,
    };
    assert_eq!(check(&batch), expected);
    batch.set_log_append_time(77);
    assert_eq!(
        check(&batch),
        RecordsSummary { max_timestamp: 77, max_timestamp_offset: Offset(50), ..expected }
    );
}

#[test]
fn markers_pass_as_stored_and_not_from_a_client() {
    let marker = EndTransactionMarker { result: TransactionResult::Abort, coordinator_epoch: 4 };
    let mut builder = BatchBuilder::new().producer(ProducerId(1), 0, -1);
    builder.push_marker(5, &marker).unwrap();
    let batch = builder.build().unwrap();
    assert!(check_stored(batch.as_bytes()).is_ok());
    assert_eq!(field_of(check_from_client(batch.as_bytes(), 1000)), ("attributes", 0x30));
}
