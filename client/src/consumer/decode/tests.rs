//! Worked cases: what of a message's batches a reader sees.

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::{Offset, ProducerId};

use super::*;

fn batch(base_offset: i64, values: &[&str], shape: impl FnOnce(BatchBuilder) -> BatchBuilder) -> Bytes {
    let mut builder = shape(BatchBuilder::new().base_offset(Offset(base_offset)));
    for value in values {
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", None), (b"h", Some(b"2"))];
        builder.push(&NewRecord { timestamp: 5, key: None, value: Some(value.as_bytes()), headers }).unwrap();
    }
    builder.build().unwrap().freeze()
}

fn marker(offset: i64, producer: i64, result: TransactionResult) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(Offset(offset)).producer(ProducerId(producer), 0, -1);
    builder.push_marker(5, &EndTransactionMarker { result, coordinator_epoch: 0 }).unwrap();
    builder.build().unwrap().freeze()
}

fn read(bytes: Vec<Bytes>, from: i64, isolation: Isolation, aborted: &[(i64, i64)]) -> Vec<(i64, String)> {
    let aborted = aborted
        .iter()
        .map(|&(producer_id, first_offset)| pb::AbortedTransaction { producer_id, first_offset })
        .collect();
    let mut batches =
        Batches::new(Arc::from("t"), 0, Bytes::from(bytes.concat()), from, isolation, aborted, 1 << 20);
    let (mut all, mut records) = (Vec::new(), VecDeque::new());
    while batches.next(&mut records).unwrap() {
        for record in records.drain(..) {
            assert_eq!(record.headers.len(), 2);
            assert_eq!((record.headers[0].value.as_deref(), record.header("h")), (None, Some(&b"2"[..])));
            all.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    all
}

#[test]
fn records_before_the_position_are_left_out_whatever_the_codec() {
    for codec in CompressionType::ALL {
        let compressed = |builder: BatchBuilder| builder.compression(codec, None);
        let bytes = vec![batch(3, &["a", "b", "c"], compressed), batch(6, &["d"], compressed)];
        let seen = read(bytes, 5, Isolation::Uncommitted, &[]);
        assert_eq!(seen, [(5, "c".to_owned()), (6, "d".to_owned())], "{codec:?}");
    }
}

#[test]
fn markers_are_never_seen_and_aborted_records_only_by_those_who_ask_for_all() {
    let of = |producer| {
        move |builder: BatchBuilder| builder.transactional(true).producer(ProducerId(producer), 0, 0)
    };
    let bytes = vec![
        batch(0, &["aborted"], of(1)),
        batch(1, &["kept"], of(2)),
        batch(2, &["plain"], |builder| builder),
        marker(3, 1, TransactionResult::Abort),
        batch(4, &["kept too"], of(1)),
        marker(5, 1, TransactionResult::Commit),
        marker(6, 2, TransactionResult::Commit),
    ];
    let offsets = |seen: Vec<(i64, String)>| seen.into_iter().map(|(offset, _)| offset).collect::<Vec<i64>>();
    assert_eq!(offsets(read(bytes.clone(), 0, Isolation::Uncommitted, &[])), [0, 1, 2, 4]);
    assert_eq!(offsets(read(bytes, 0, Isolation::Committed, &[(1, 0)])), [1, 2, 4]);
}

#[test]
fn damage_is_told() {
    let mut bytes = [batch(3, &["a"], |builder| builder), batch(4, &["b"], |builder| builder)].concat();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let mut batches =
        Batches::new(Arc::from("t"), 2, Bytes::from(bytes), 3, Isolation::Uncommitted, Vec::new(), 1 << 20);
    assert!(batches.next(&mut VecDeque::new()).unwrap());
    let damaged = batches.next(&mut VecDeque::new()).unwrap_err();
    let text = damaged.to_string();
    assert!(text.starts_with("t-2 is damaged at offset 4: checksum mismatch"), "{text}");
    let Error::Damaged { reason, .. } = damaged else { panic!("{text}") };
    assert!(matches!(*reason, Error::Batch(_)));
}
