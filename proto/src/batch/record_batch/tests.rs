//! Fields are written in place, the batch stays valid, and no byte is copied on the way through.

use super::*;
use crate::batch::{BatchBuilder, CompressionType, NewRecord};
use crate::ids::ProducerId;

fn batch(codec: CompressionType) -> RecordBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(1), 0, 0).compression(codec, None);
    for timestamp in [50, 70, 60] {
        builder
            .push(&NewRecord { timestamp, key: Some(b"k"), value: Some(&[7; 200]), headers: &[] })
            .unwrap();
    }
    builder.build().unwrap()
}

fn assert_consistent(batch: &RecordBatch) {
    assert_eq!(BatchHeader::parse(batch.as_bytes()).as_ref(), Ok(batch.header()));
    assert_eq!(check_stored(batch.as_bytes()).as_ref(), Ok(batch.header()));
}

#[test]
fn stamping_leaves_the_crc_alone() {
    let mut stamped = batch(CompressionType::Lz4);
    let before = stamped.as_bytes().to_vec();
    stamped.stamp(Offset(1 << 40), LeaderEpoch(17));
    assert_consistent(&stamped);
    assert_eq!(stamped.header().base_offset, Offset(1 << 40));
    assert_eq!(stamped.header().leader_epoch, LeaderEpoch(17));
    let changed: Vec<_> = (0..before.len()).filter(|&at| before[at] != stamped.as_bytes()[at]).collect();
    assert!(changed.iter().all(|at| (0..8).contains(at) || (12..16).contains(at)), "{changed:?}");
}

#[test]
fn log_append_time_counts_for_every_record_and_keeps_the_deltas() {
    for codec in CompressionType::ALL {
        let mut timed = batch(codec);
        let payload = timed.as_bytes()[HEADER_LEN..].to_vec();
        timed.set_log_append_time(12_345);
        assert_consistent(&timed);
        assert_eq!(timed.as_bytes()[HEADER_LEN..], payload);
        let mut scratch = Vec::new();
        let records = timed.records(&DecompressLimits::DEFAULT, &mut scratch).unwrap();
        let times: Vec<_> =
            records.map(|record| record.map(|record| (record.timestamp, record.created()))).collect();
        assert_eq!(times, [Ok((12_345, 50)), Ok((12_345, 70)), Ok((12_345, 60))]);
    }
}

#[test]
fn an_unset_maximum_is_corrected_from_the_records() {
    let mut sent = batch(CompressionType::Gzip);
    sent.set_max_timestamp(-1);
    assert_consistent(&sent);
    let bytes = BytesMut::from(sent.as_bytes());
    let mut taken = RecordBatch::from_client(bytes, 1 << 20).unwrap();
    let summary =
        taken.check_records(RecordRules::FromClient, &DecompressLimits::DEFAULT, &mut Vec::new()).unwrap();
    taken.set_max_timestamp(summary.max_timestamp);
    assert_consistent(&taken);
    assert_eq!(taken, batch(CompressionType::Gzip));
}

#[test]
fn bytes_pass_through_without_a_copy() {
    let mut received = BytesMut::from(batch(CompressionType::None).as_bytes());
    received.extend_from_slice(b"the rest of a request");
    let own = received.split_to(received.len() - 21);
    let at = own.as_ptr();
    let mut taken = RecordBatch::from_client(own, 1 << 20).unwrap();
    taken.stamp(Offset(9), LeaderEpoch(2));
    taken.set_log_append_time(5);
    assert_eq!(taken.freeze().as_ptr(), at);
}

#[test]
fn constructors_check() {
    let good = batch(CompressionType::None);
    let len = good.size_bytes();
    let bytes = || BytesMut::from(good.as_bytes());
    assert_eq!(RecordBatch::from_stored(bytes()).as_ref(), Ok(&good));
    let mut longer = bytes();
    longer.extend_from_slice(b"xy");
    assert_eq!(RecordBatch::from_stored(longer.clone()), Err(BatchError::TrailingBytes(2)));
    assert_eq!(RecordBatch::from_client(longer, len), Err(BatchError::TrailingBytes(2)));
    let too_large = BatchError::TooLarge { size_bytes: len, limit_bytes: len - 1 };
    assert_eq!(RecordBatch::from_client(bytes(), len - 1), Err(too_large));
    let mut damaged = bytes();
    damaged[len - 1] ^= 1;
    assert!(matches!(RecordBatch::from_stored(damaged), Err(BatchError::CrcMismatch { .. })));
}

#[test]
fn a_batch_within_something_larger_stays_there_until_it_is_changed() {
    let (first, second) = (batch(CompressionType::None).freeze(), batch(CompressionType::None).freeze());
    let whole = Bytes::from([&first[..], &second[..]].concat());
    let at = whole.slice(first.len()..);
    let within = RecordBatch::from_stored_within(at.clone()).unwrap();
    assert_eq!(within, RecordBatch::from_stored(BytesMut::from(&at[..])).unwrap());
    assert_eq!(within.freeze().as_ptr(), at.as_ptr(), "not copied");
    assert!(RecordBatch::from_stored_within(whole).is_err(), "two are not one");
    let mut changed = RecordBatch::from_stored_within(at.clone()).unwrap();
    changed.stamp(Offset(77), LeaderEpoch(3));
    assert_consistent(&changed);
    assert_eq!(at, second, "what lies around it, and others have, is as it was");
}
