//! A partition that Apache Kafka 4.3.1 wrote: what we compute from its batches must be, byte for byte, what it wrote
//! beside them.

#![allow(clippy::expect_used, reason = "helpers of tests, which may panic")]

use floodmark_proto::batch::{BatchHeader, HEADER_LEN};
use floodmark_proto::ids::Offset;
use floodmark_storage::index::{IndexPolicy, Indexer, offset_index, time_index, transaction_index};
use floodmark_storage::leader_epochs::LeaderEpochs;
use floodmark_storage::partition_metadata;
use floodmark_storage::producers::{EndMarker, ProducerStates};

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("golden/kafka-4.3.1/", $name)).as_slice()
    };
}

struct Segment {
    base_offset: Offset,
    log: &'static [u8],
    index: &'static [u8],
    timeindex: &'static [u8],
}

const SEGMENTS: [Segment; 2] = [
    Segment {
        base_offset: Offset(0),
        log: golden!("00000000000000000000.log"),
        index: golden!("00000000000000000000.index"),
        timeindex: golden!("00000000000000000000.timeindex"),
    },
    Segment {
        base_offset: Offset(17),
        log: golden!("00000000000000000017.log"),
        index: golden!("00000000000000000017.index"),
        timeindex: golden!("00000000000000000017.timeindex"),
    },
];
const TXNINDEX: &[u8] = golden!("00000000000000000017.txnindex");
const SNAPSHOT_17: &[u8] = golden!("00000000000000000017.snapshot");
const SNAPSHOT_54: &[u8] = golden!("00000000000000000054.snapshot");

/// The batches of a segment: header, marker, position.
fn batches(log: &[u8]) -> Vec<(BatchHeader, Option<EndMarker>, u32)> {
    let mut batches = Vec::new();
    let mut position = 0;
    while position < log.len() {
        let header = BatchHeader::parse(&log[position..]).expect("a batch of Kafka's");
        let records = &log[position + HEADER_LEN..position + header.size_bytes()];
        // A marker's record, all of whose varints take one byte: length, attributes, two deltas, key length, key
        // (version and type, i16 each, 0 for abort), value length, value (version i16, coordinator epoch i32), header
        // count.
        let marker = header.attributes.is_control().then(|| EndMarker {
            is_abort: records[7..9] == [0, 0],
            coordinator_epoch: i32::from_be_bytes(records[12..16].try_into().expect("four bytes")),
        });
        batches.push((header, marker, position as u32));
        position += header.size_bytes();
    }
    batches
}

#[test]
fn rebuilt_indexes_are_kafkas() {
    for segment in SEGMENTS {
        let policy = IndexPolicy { interval_bytes: 1_000, max_index_bytes: 10 << 20 };
        let mut indexer = Indexer::new(segment.base_offset, policy);
        let (mut index, mut timeindex) = (Vec::new(), Vec::new());
        for (header, _, position) in batches(segment.log) {
            let entries = indexer.on_batch(&header, position).expect("fits");
            index.extend(entries.offset.iter().flat_map(|e| e.encode()));
            timeindex.extend(entries.time.iter().flat_map(|e| e.encode()));
        }
        timeindex.extend(indexer.final_time_entry().iter().flat_map(|e| e.encode()));
        assert_eq!(index, segment.index, "segment {}", segment.base_offset);
        assert_eq!(timeindex, segment.timeindex, "segment {}", segment.base_offset);
        assert_eq!(offset_index::valid_prefix(&index) * offset_index::ENTRY_LEN, index.len());
        assert_eq!(time_index::valid_prefix(&timeindex) * time_index::ENTRY_LEN, timeindex.len());
    }
}

/// A snapshot without the earlier batches of each producer, of which Kafka keeps none.
fn as_kafka_keeps_it(states: &ProducerStates) -> Vec<u8> {
    let bytes = states.to_snapshot();
    let (rows, rest) = bytes[10..].as_chunks::<46>();
    assert!(rest.is_empty());
    let last_of_each: Vec<&[u8; 46]> =
        rows.chunk_by(|a, b| a[..8] == b[..8]).filter_map(|of_one| of_one.last()).collect();
    let mut body = (last_of_each.len() as u32).to_be_bytes().to_vec();
    body.extend(last_of_each.into_iter().flatten());
    let crc = floodmark_proto::batch::crc32c::crc32c(&body);
    [&bytes[..2], &crc.to_be_bytes(), &body].concat()
}

#[test]
fn replayed_producers_are_kafkas() {
    let mut states = ProducerStates::new(Offset(0));
    let mut txnindex = Vec::new();
    for segment in SEGMENTS {
        if segment.base_offset == Offset(17) {
            assert_eq!(as_kafka_keeps_it(&states), SNAPSHOT_17);
        }
        for (header, marker, _) in batches(segment.log) {
            let completed = states.record(&header, marker.as_ref());
            txnindex.extend(completed.and_then(|c| c.index_entry()).iter().flat_map(|e| e.encode()));
        }
    }
    assert_eq!(states.end_offset(), Offset(54));
    assert_eq!(as_kafka_keeps_it(&states), SNAPSHOT_54);
    assert_eq!(txnindex, TXNINDEX);
    // Producer 3 was killed inside its transaction, which began at 43.
    assert_eq!(states.first_open_offset(), Some(Offset(43)));
    states.on_high_watermark(Offset(54));
    assert_eq!(states.last_stable_offset(Offset(54), Offset(0)), Offset(43));
}

#[test]
fn replay_from_the_snapshot_gives_the_same() {
    let mut states = ProducerStates::from_snapshot(SNAPSHOT_17, Offset(17)).expect("written by Kafka");
    assert_eq!(states.first_open_offset(), Some(Offset(7)));
    for (header, marker, _) in batches(SEGMENTS[1].log) {
        states.record(&header, marker.as_ref());
    }
    assert_eq!(as_kafka_keeps_it(&states), SNAPSHOT_54);
}

#[test]
fn small_files_read_and_write_the_same() {
    let aborted = transaction_index::parse(TXNINDEX).expect("written by Kafka");
    assert_eq!(aborted.len(), 4);
    assert_eq!(aborted.iter().flat_map(|e| e.encode()).collect::<Vec<u8>>(), TXNINDEX);

    let epochs = golden!("leader-epoch-checkpoint");
    assert_eq!(LeaderEpochs::parse(epochs).expect("written by Kafka").format().as_bytes(), epochs);

    let metadata = golden!("partition.metadata");
    let topic_id = partition_metadata::parse(metadata).expect("written by Kafka");
    assert_eq!(partition_metadata::format(topic_id).as_bytes(), metadata);
}
