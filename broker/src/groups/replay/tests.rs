//! Logs as Kafka leaves them: compacted, with transactions, with records of kinds that are not kept here.

use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord, RecordBatch};
use floodmark_proto::ids::Offset;

use super::*;
use crate::groups::group::GroupState;
use crate::groups::offsets::CommittedOffset;
use crate::groups::records::{KeyValue, group_record, group_tombstone, offset_record};
use crate::groups::snapshot::MemberSnapshot;
use crate::groups::tests::settings;

/// A record with its offset, as compaction may leave it.
type At = (i64, KeyValue);

fn batch(records: &[At], builder: BatchBuilder) -> RecordBatch {
    let base = records[0].0;
    let mut builder = builder.base_offset(Offset(base));
    for (offset, KeyValue { key, value }) in records {
        let record = NewRecord { timestamp: 1, key: Some(key), value: value.as_deref(), headers: &[] };
        builder.push_at(i32::try_from(offset - base).expect("near"), &record).expect("a record");
    }
    builder.build().expect("a batch")
}

fn committed(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset,
        leader_epoch: -1,
        metadata: Arc::from(""),
        commit_timestamp_ms: 1,
        expire_timestamp_ms: None,
        topic_id: [0; 16],
    }
}

fn offset(group: &str, value: Option<i64>) -> KeyValue {
    offset_record(group, "t", 0, value.map(committed).as_ref()).expect("a record")
}

fn generation(group: &str, generation: i32, members: &[&str]) -> KeyValue {
    let member = |id: &&str| MemberSnapshot {
        id: Arc::from(*id),
        instance_id: None,
        client_id: Arc::from("c"),
        client_host: Arc::from("/h"),
        rebalance_timeout_ms: 2,
        session_timeout_ms: 1,
        metadata: bytes::Bytes::new(),
        assignment: bytes::Bytes::new(),
    };
    let snapshot = GroupSnapshot {
        group_id: Arc::from(group),
        protocol_type: Some(Arc::from("consumer")),
        generation,
        protocol: (!members.is_empty()).then(|| Arc::from("range")),
        leader: members.first().map(|id| Arc::from(*id)),
        state_since_ms: None,
        members: members.iter().map(member).collect(),
    };
    group_record(&snapshot).expect("a record")
}

fn replayed(batches: &[RecordBatch]) -> (HashMap<Arc<str>, Entry>, ReplayCounts) {
    let mut replay = Replay::default();
    for batch in batches {
        replay.batch(batch.header(), batch.as_bytes()).expect("records");
    }
    let counts = replay.counts;
    (replay.finish(&Arc::new(settings())), counts)
}

fn fetched(groups: &HashMap<Arc<str>, Entry>, group: &str) -> Option<i64> {
    let entry = groups.get(group)?;
    entry.offsets.fetch("t", 0, [0; 16], false).expect("not asked").map(|kept| kept.offset)
}

#[test]
fn the_last_record_of_a_key_counts_with_whatever_compaction_has_left() {
    let records = [
        (3, offset("g", Some(1))),
        (4, generation("g", 1, &["a"])),
        (9, offset("g", Some(2))),
        (20, generation("g", 2, &["a", "b"])),
    ];
    let (groups, counts) = replayed(&[batch(&records, BatchBuilder::new())]);
    assert_eq!(counts.records, 4);
    assert_eq!(fetched(&groups, "g"), Some(2));
    let entry = &groups["g"];
    assert_eq!((entry.group.generation(), entry.group.state()), (2, GroupState::Stable));
    assert!(entry.has_record);
}

#[test]
fn tombstones_end_groups_and_offsets() {
    let records = [
        (0, offset("g", Some(1))),
        (1, generation("g", 1, &[])),
        (2, offset("h", Some(1))),
        (3, generation("h", 4, &[])),
        (4, offset("g", None)),
        (5, group_tombstone("g").expect("a record")),
        (6, group_tombstone("h").expect("a record")),
    ];
    let (groups, _) = replayed(&[batch(&records, BatchBuilder::new())]);
    assert!(!groups.contains_key("g"));
    assert_eq!(fetched(&groups, "h"), Some(1), "an offset outlives its group's record");
    let h = &groups["h"];
    assert_eq!((h.group.generation(), h.has_record), (0, false));
}

#[test]
fn batches_may_be_compressed() {
    for codec in CompressionType::ALL {
        let records = [(0, offset("g", Some(1))), (1, offset("h", Some(2)))];
        let (groups, _) = replayed(&[batch(&records, BatchBuilder::new().compression(codec, None))]);
        assert_eq!((fetched(&groups, "g"), fetched(&groups, "h")), (Some(1), Some(2)), "{codec:?}");
    }
}

#[test]
fn what_is_of_other_kinds_is_counted_and_harms_nobody() {
    let other = KeyValue {
        key: bytes::Bytes::from_static(b"\0\x03\0\x01g"),
        value: Some(bytes::Bytes::from_static(b"\0\0whatever")),
    };
    let bad = KeyValue { key: bytes::Bytes::from_static(b"\0\x01\0\x7f"), value: None };
    let records = [(0, other), (1, bad), (2, offset("g", Some(1)))];
    let (groups, counts) = replayed(&[batch(&records, BatchBuilder::new())]);
    assert_eq!(counts, ReplayCounts { records: 3, of_other_kinds: 1, unreadable: 1 });
    assert_eq!(fetched(&groups, "g"), Some(1));
}

#[test]
fn a_transaction_counts_when_its_marker_says_so() {
    let producer = |id: i64| BatchBuilder::new().transactional(true).producer(ProducerId(id), 0, -1);
    let marker = |at: i64, id: i64, result| {
        let mut builder = BatchBuilder::new().base_offset(Offset(at)).producer(ProducerId(id), 0, -1);
        builder.push_marker(1, &EndTransactionMarker { result, coordinator_epoch: 0 }).expect("a marker");
        builder.build().expect("a batch")
    };
    let batches = [
        batch(&[(0, offset("g", Some(1)))], BatchBuilder::new()),
        batch(&[(1, offset("g", Some(2))), (2, offset("h", Some(2)))], producer(1)),
        batch(&[(3, offset("g", Some(3)))], producer(2)),
        batch(&[(4, offset("open", Some(4)))], producer(3)),
        marker(5, 2, TransactionResult::Abort),
        marker(6, 1, TransactionResult::Commit),
    ];
    let (groups, _) = replayed(&batches);
    assert_eq!((fetched(&groups, "g"), fetched(&groups, "h")), (Some(2), Some(2)));
    assert_eq!(fetched(&groups, "open"), None);
    assert!(groups["open"].offsets.has_transaction_of(ProducerId(3)));
}
