//! What is built is valid, decodes to what was pushed, and encodes again to the same bytes.

use proptest::prelude::*;

use super::*;
use crate::batch::{
    DecompressLimits, RecordRules, Records, TransactionResult, check_from_client, check_records, check_stored,
};

const LIMITS: DecompressLimits = DecompressLimits { max_bytes: usize::MAX, max_ratio: usize::MAX };

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedRecord {
    offset: i64,
    timestamp: TimestampMs,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

fn decoded(batch: &[u8]) -> Vec<OwnedRecord> {
    let mut scratch = Vec::new();
    Records::open(batch, &LIMITS, &mut scratch).unwrap().map(|record| owned(&record.unwrap())).collect()
}

fn owned(record: &Record<'_>) -> OwnedRecord {
    let header =
        |header: crate::batch::RecordHeader<'_>| (header.key.to_vec(), header.value.map(<[u8]>::to_vec));
    OwnedRecord {
        offset: record.offset.0,
        timestamp: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.map(|found| header(found.unwrap())).collect(),
    }
}

fn push_at(builder: &mut BatchBuilder, delta: i32, record: &OwnedRecord) -> Result<(), BatchError> {
    let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    builder.push_at(delta, &NewRecord { timestamp: record.timestamp, key, value, headers: &headers })
}

/// A batch rebuilt record by record from what it decodes to; codecs are left out, whose bytes no format fixes.
fn rebuilt(batch: &[u8]) -> Vec<u8> {
    let header = BatchHeader::parse(batch).unwrap();
    let mut builder = BatchBuilder::like(&header).max_timestamp(header.max_timestamp);
    for record in decoded(batch) {
        let delta = (record.offset - header.base_offset.0) as i32;
        push_at(&mut builder, delta, &record).unwrap();
    }
    builder.build().unwrap().freeze().to_vec()
}

#[test]
fn a_known_batch_has_known_bytes() {
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None), (b"h", Some(b""))];
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 100, key: Some(b"k"), value: None, headers }).unwrap();
    builder.push(&NewRecord { timestamp: 99, key: None, value: Some(b"v"), headers: &[] }).unwrap();
    let batch = builder.build().unwrap();
    let first = [34, 0, 0, 0, 2, b'k', 1, 6, 2, b'h', 2, b'1', 2, b'h', 1, 2, b'h', 0];
    let second = [14, 0, 1, 2, 1, 2, b'v', 0];
    assert_eq!(batch.as_bytes()[HEADER_LEN..], [&first[..], &second].concat());
    let header = batch.header();
    assert_eq!((header.base_timestamp, header.max_timestamp), (100, 100));
    assert_eq!((header.record_count, header.last_offset_delta), (2, 1));
    assert_eq!(rebuilt(batch.as_bytes()), batch.as_bytes());
}

#[test]
fn what_is_refused_leaves_the_builder_as_it_was() {
    let record = NewRecord { timestamp: 5, ..NewRecord::default() };
    let mut builder = BatchBuilder::new();
    builder.push_at(4, &record).unwrap();
    let before = builder.clone().build().unwrap();
    for delta in [4, 3, -1, i32::MIN] {
        let reason = "the offset delta does not rise";
        assert_eq!(builder.push_at(delta, &record), Err(BatchError::Record { index: 1, reason }));
    }
    let far = NewRecord { timestamp: i64::MIN, ..record };
    let reason = "the timestamp lies too far from the base";
    assert_eq!(builder.push(&far), Err(BatchError::Record { index: 1, reason }));
    assert_eq!(builder.clone().build().unwrap(), before);
    builder.push_at(i32::MAX, &record).unwrap();
    let reason = "the offset delta overflows";
    assert_eq!(builder.push(&record), Err(BatchError::Record { index: 2, reason }));
}

#[test]
fn the_last_offset_is_judged() {
    let empty = BatchBuilder::new();
    assert!(matches!(empty.clone().build(), Err(BatchError::Field { field: "record count", .. })));
    assert!(matches!(empty.last_offset_delta(-1).build(), Err(BatchError::Field { value: -1, .. })));
    let mut builder = BatchBuilder::new().last_offset_delta(2);
    builder.push_at(3, &NewRecord::default()).unwrap();
    assert!(matches!(builder.build(), Err(BatchError::Field { value: 2, .. })));
    let odd = BatchBuilder::new().attributes(Attributes(6)).last_offset_delta(0);
    assert!(odd.build().is_ok(), "an empty batch has no codec");
    let mut odd = BatchBuilder::new().attributes(Attributes(6));
    odd.push(&NewRecord::default()).unwrap();
    assert!(matches!(odd.build(), Err(BatchError::UnknownCompression(6))));
}

#[test]
fn a_level_the_codec_lacks_is_told_at_build() {
    let mut builder = BatchBuilder::new().compression(CompressionType::Gzip, Some(77));
    builder.push(&NewRecord::default()).unwrap();
    assert!(matches!(builder.build(), Err(BatchError::Compress { codec: "gzip", .. })));
}

#[test]
fn an_empty_batch_keeps_its_place_and_its_producer() {
    let mut builder = BatchBuilder::new()
        .base_offset(Offset(70))
        .leader_epoch(LeaderEpoch(3))
        .producer(ProducerId(8), 2, 11)
        .compression(CompressionType::Zstd, None);
    for timestamp in [10, 12] {
        builder.push(&NewRecord { timestamp, ..NewRecord::default() }).unwrap();
    }
    let full = builder.build().unwrap();
    let empty = BatchBuilder::like(full.header()).build().unwrap();
    let header = *empty.header();
    assert_eq!(check_stored(empty.as_bytes()), Ok(header));
    assert_eq!(empty.size_bytes(), HEADER_LEN);
    assert_eq!((header.record_count, header.next_offset()), (0, Offset(72)));
    assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (ProducerId(8), 2, 12));
    assert_eq!(header.attributes.compression(), Some(CompressionType::None));
    assert_eq!(rebuilt(empty.as_bytes()), empty.as_bytes());
}

#[test]
fn markers_round_trip() {
    let marker = EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 9 };
    let mut builder = BatchBuilder::new().base_offset(Offset(4)).producer(ProducerId(5), 1, -1);
    builder.push_marker(1234, &marker).unwrap();
    let batch = builder.build().unwrap();
    assert!(batch.header().attributes.is_control() && batch.header().attributes.is_transactional());
    let record = &decoded(batch.as_bytes())[0];
    let found = EndTransactionMarker::decode(record.key.as_deref(), record.value.as_deref());
    assert_eq!(found, Ok(Some(marker)));
    assert_eq!(rebuilt(batch.as_bytes()), batch.as_bytes());
}

#[test]
fn stored_records_are_kept_byte_for_byte_even_where_they_are_padded() {
    // A record whose length takes two bytes where one would do: legal to read, never written here.
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 3, ..NewRecord::default() }).unwrap();
    let source = builder.build().unwrap();
    let padded = [&[0x8c, 0x00][..], &source.as_bytes()[HEADER_LEN + 1..]].concat();
    let header = BatchHeader { batch_length: 49 + padded.len() as i32, ..*source.header() };
    let records = Records::over_bytes(&padded, &header).unwrap();
    let mut kept = BatchBuilder::like(&header);
    for record in records {
        kept.push_stored(&record.unwrap()).unwrap();
    }
    assert_eq!(kept.build().unwrap().as_bytes()[HEADER_LEN..], padded);
}

#[test]
fn a_delete_horizon_keeps_every_time() {
    for append_time in [None, Some(999)] {
        let mut builder = BatchBuilder::new().base_offset(Offset(10));
        for timestamp in [100, 250, 90] {
            builder.push(&NewRecord { timestamp, key: Some(b"k"), value: None, headers: &[] }).unwrap();
        }
        let mut source = builder.build().unwrap();
        if let Some(now) = append_time {
            source.set_log_append_time(now);
        }
        let mut cleaned = BatchBuilder::like(source.header()).delete_horizon(1_000_000);
        let mut scratch = Vec::new();
        for record in source.records(&LIMITS, &mut scratch).unwrap().skip(1) {
            cleaned.push_stored(&record.unwrap()).unwrap();
        }
        let cleaned = cleaned.build().unwrap();
        assert_eq!(cleaned.header().delete_horizon_ms(), Some(1_000_000));
        assert_eq!(cleaned.header().max_timestamp, append_time.unwrap_or(250));
        assert_eq!(decoded(cleaned.as_bytes()), decoded(source.as_bytes())[1..]);
        let mut scratch = Vec::new();
        let created: Vec<_> =
            cleaned.records(&LIMITS, &mut scratch).unwrap().map(|record| record.unwrap().created()).collect();
        assert_eq!(created, [250, 90]);
    }
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..40))
}

fn any_record() -> impl Strategy<Value = (i32, OwnedRecord)> {
    // Few header keys, so that duplicates are common.
    let header = (prop::sample::select(vec![vec![], b"a".to_vec(), "ключ".into()]), any_bytes());
    let headers = prop::collection::vec(header, 0..5);
    let timestamp = prop_oneof![Just(-1), 0..2_000_000_000_000i64];
    (1..200i32, timestamp, any_bytes(), any_bytes(), headers).prop_map(
        |(gap, timestamp, key, value, headers)| {
            (gap, OwnedRecord { offset: 0, timestamp, key, value, headers })
        },
    )
}

/// Records with their deltas: dense, or with gaps.
fn any_records(is_dense: bool) -> impl Strategy<Value = Vec<(i32, OwnedRecord)>> {
    prop::collection::vec(any_record(), 1..20).prop_map(move |mut records| {
        let mut delta = -1;
        for (gap, _) in &mut records {
            delta += if is_dense { 1 } else { *gap };
            *gap = delta;
        }
        records
    })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        codec in prop::sample::select(CompressionType::ALL.to_vec()),
        records in any_records(true),
    ) {
        let mut builder = BatchBuilder::new().compression(codec, None);
        for (delta, record) in &records {
            push_at(&mut builder, *delta, record).unwrap();
        }
        let batch = builder.build().unwrap();
        prop_assert_eq!(check_from_client(batch.as_bytes(), usize::MAX), Ok(*batch.header()));
        let mut scratch = Vec::new();
        let summary = check_records(batch.as_bytes(), RecordRules::FromClient, &LIMITS, &mut scratch).unwrap();
        prop_assert_eq!(summary.record_count, records.len());
        let latest = records.iter().map(|(_, record)| record.timestamp).max().unwrap();
        prop_assert_eq!((summary.max_timestamp, batch.header().max_timestamp), (latest, latest));
        let first_latest = records.iter().position(|(_, record)| record.timestamp == latest).unwrap();
        prop_assert_eq!(summary.max_timestamp_offset, Offset(first_latest as i64));
        prop_assert_eq!(summary.has_null_key, records.iter().any(|(_, record)| record.key.is_none()));
        let expected: Vec<_> =
            records.into_iter().map(|(delta, record)| OwnedRecord { offset: i64::from(delta), ..record }).collect();
        prop_assert_eq!(decoded(batch.as_bytes()), expected);
    }

    #[test]
    fn decoding_and_encoding_again_gives_equal_bytes(
        base in 0..i64::MAX / 2,
        records in any_records(false),
        tail_gap in 0..100i32,
        bits in 0..4i16,
        producer: Option<(u32, u16)>,
    ) {
        let mut builder = BatchBuilder::new()
            .base_offset(Offset(base))
            .leader_epoch(LeaderEpoch(6))
            .attributes(Attributes(bits << 4))
            .last_offset_delta(records.last().unwrap().0 + tail_gap);
        if let Some((id, epoch)) = producer {
            builder = builder.producer(ProducerId(i64::from(id)), (epoch >> 1) as i16, 5);
        }
        for (delta, record) in &records {
            push_at(&mut builder, *delta, record).unwrap();
        }
        let batch = builder.build().unwrap();
        prop_assert_eq!(check_stored(batch.as_bytes()), Ok(*batch.header()));
        prop_assert!(check_records(batch.as_bytes(), RecordRules::Stored, &LIMITS, &mut Vec::new()).is_ok());
        prop_assert_eq!(rebuilt(batch.as_bytes()), batch.as_bytes());
    }

    #[test]
    fn compaction_keeps_what_it_keeps(
        codec in prop::sample::select(CompressionType::ALL.to_vec()),
        records in any_records(false),
        keep in prop::collection::vec(any::<bool>(), 20),
        horizon in prop::option::of(0..4_000_000_000_000i64),
    ) {
        let mut builder = BatchBuilder::new().base_offset(Offset(33)).compression(codec, None);
        for (delta, record) in &records {
            push_at(&mut builder, *delta, record).unwrap();
        }
        let source = builder.build().unwrap();
        let mut cleaned = BatchBuilder::like(source.header());
        if let Some(horizon) = horizon {
            cleaned = cleaned.delete_horizon(horizon);
        }
        let mut scratch = Vec::new();
        let kept = source.records(&LIMITS, &mut scratch).unwrap().zip(&keep).filter(|(_, keep)| **keep);
        for (record, _) in kept {
            cleaned.push_stored(&record.unwrap()).unwrap();
        }
        let cleaned = cleaned.build().unwrap();
        prop_assert_eq!(check_stored(cleaned.as_bytes()), Ok(*cleaned.header()));
        prop_assert_eq!(cleaned.header().last_offset(), source.header().last_offset());
        let expected: Vec<_> = decoded(source.as_bytes())
            .into_iter()
            .zip(keep)
            .filter_map(|(record, keep)| keep.then_some(record))
            .collect();
        prop_assert_eq!(decoded(cleaned.as_bytes()), expected);
    }

    #[test]
    fn damaged_batches_never_panic(
        codec in prop::sample::select(CompressionType::ALL.to_vec()),
        records in any_records(true),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut builder = BatchBuilder::new().compression(codec, None);
        for (delta, record) in &records {
            push_at(&mut builder, *delta, record).unwrap();
        }
        let mut bytes = builder.build().unwrap().freeze().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // The CRC would catch it; here the decoder stands alone.
        let _ = check_records(&bytes, RecordRules::Stored, &DecompressLimits::DEFAULT, &mut Vec::new());
    }
}

#[test]
fn used_memory_is_built_in_anew() {
    let build = |builder: BatchBuilder| {
        let mut builder = builder;
        builder.push(&NewRecord { timestamp: 5, key: None, value: Some(b"v"), headers: &[] }).unwrap();
        builder.build().unwrap().freeze()
    };
    let memory = vec![7; 1000];
    let at = memory.as_ptr();
    let batch = build(BatchBuilder::in_memory(memory));
    assert_eq!(batch, build(BatchBuilder::new()));
    assert_eq!(batch.as_ptr(), at);
}
