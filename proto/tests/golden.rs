//! Batches that other programs wrote pass every check, decode to what Kafka's own consumer read, and encode again to the same bytes.

// Helpers count as test code only inside this file.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use floodmark_proto::batch::{
    Attributes, BatchBuilder, BatchHeader, CompressionType, DecompressLimits, EndTransactionMarker,
    HEADER_LEN, NewRecord, Record, RecordRules, Records, TransactionResult, check_from_client, check_records,
    check_stored,
};
use floodmark_proto::ids::ProducerId;
use serde_json::{Value, json};

const LIMITS: DecompressLimits = DecompressLimits::DEFAULT;
const CLIENTS: [&str; 6] = [
    "kafka-java-4.3.1",
    "kafka-python-3.0.12",
    "librdkafka-2.16.0",
    "franz-go-1.22.2",
    "kafka-go-0.4.51",
    "sarama-1.61.1",
];

struct Golden {
    file: String,
    bytes: Vec<u8>,
    records: Vec<Value>,
    end: i64,
}

impl Golden {
    fn is_straight_from_a_client(&self) -> bool {
        // The rest has been changed or written by the broker.
        !["compacted", "log-append-time", "transactional"].iter().any(|name| self.file.contains(name))
    }

    fn batches(&self) -> Vec<&[u8]> {
        let mut batches = Vec::new();
        let mut unread = &self.bytes[..];
        while !unread.is_empty() {
            let header = check_stored(unread).unwrap_or_else(|error| panic!("{}: {error}", self.file));
            let (batch, rest) = unread.split_at(header.size_bytes());
            batches.push(batch);
            unread = rest;
        }
        batches
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

// Test data, which no simulated disk needs to own.
#[allow(clippy::disallowed_methods)]
fn goldens() -> Vec<Golden> {
    let manifest = std::fs::read_to_string(folder().join("manifest.jsonl")).unwrap();
    let golden = |line: &str| {
        let told: Value = serde_json::from_str(line).unwrap();
        let file = told["file"].as_str().unwrap().to_owned();
        Golden {
            bytes: std::fs::read(folder().join(&file)).unwrap(),
            records: told["records"].as_array().unwrap().clone(),
            end: told["end"].as_i64().unwrap(),
            file,
        }
    };
    manifest.lines().map(golden).collect()
}

fn told_bytes(bytes: Option<&[u8]>) -> Value {
    match bytes {
        None => Value::Null,
        Some(bytes) if bytes.len() <= 1024 => {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
        }
        Some(bytes) => json!({"bytes": bytes.len(), "crc32c": crc32c::crc32c(bytes)}),
    }
}

fn told(record: &Record<'_>) -> Value {
    let headers: Vec<Value> = record
        .headers
        .map(|header| {
            let header = header.unwrap();
            json!([told_bytes(Some(header.key)), told_bytes(header.value)])
        })
        .collect();
    json!({
        "offset": record.offset.0,
        "timestamp": record.timestamp,
        "key": told_bytes(record.key),
        "value": told_bytes(record.value),
        "headers": headers,
    })
}

#[test]
fn every_codec_of_every_client_is_there() {
    let files: Vec<_> = goldens().into_iter().map(|golden| golden.file).collect();
    for client in CLIENTS {
        for codec in CompressionType::ALL {
            let file = format!("{client}/{}.batch", codec.name());
            assert!(files.contains(&file), "{file}");
        }
    }
    for golden in goldens() {
        let name = golden.file.split('/').next_back().unwrap();
        for codec in CompressionType::ALL.into_iter().filter(|codec| name.starts_with(codec.name())) {
            let headers = golden.batches().into_iter().map(|batch| BatchHeader::parse(batch).unwrap());
            let mut codecs: Vec<_> = headers.filter_map(|header| header.attributes.compression()).collect();
            // librdkafka sends a batch as it is where compression does not make it smaller.
            codecs.retain(|&found| codec == CompressionType::None || found != CompressionType::None);
            codecs.dedup();
            assert_eq!(codecs, [codec], "{}", golden.file);
        }
    }
}

/// librdkafka and franz-go write one raw snappy block, the other clients frame their blocks.
#[test]
fn both_snappy_framings_are_there() {
    for (client, is_framed) in CLIENTS.into_iter().zip([true, true, false, false, true, true]) {
        let golden = golden(&format!("{client}/snappy-large.batch"));
        assert_eq!(golden.batches()[0][HEADER_LEN..].starts_with(b"\x82SNAPPY\0"), is_framed, "{client}");
    }
}

#[test]
fn every_file_decodes_to_what_the_consumer_read() {
    for golden in goldens() {
        let mut found = Vec::new();
        let mut next_offset = 0;
        for batch in golden.batches() {
            let header = check_stored(batch).unwrap();
            let summary = check_records(batch, RecordRules::Stored, &LIMITS, &mut Vec::new()).unwrap();
            assert_eq!(summary.record_count, header.record_count as usize);
            if summary.record_count > 0 {
                assert_eq!(summary.max_timestamp, header.max_timestamp, "{}", golden.file);
            }
            assert!(header.base_offset.0 >= next_offset);
            next_offset = header.next_offset().0;
            if !header.attributes.is_control() {
                let mut scratch = Vec::new();
                let records = Records::open(batch, &LIMITS, &mut scratch).unwrap();
                found.extend(records.map(|record| told(&record.unwrap())));
            }
        }
        assert_eq!(found, golden.records, "{}", golden.file);
        assert_eq!(next_offset, golden.end, "{}", golden.file);
    }
}

#[test]
fn what_clients_sent_passes_as_from_a_client() {
    for golden in goldens().iter().filter(|golden| golden.is_straight_from_a_client()) {
        for batch in golden.batches() {
            assert_eq!(check_from_client(batch, batch.len()), check_stored(batch), "{}", golden.file);
            check_records(batch, RecordRules::FromClient, &LIMITS, &mut Vec::new()).unwrap();
        }
    }
}

/// The batch with each record encoded anew from its decoded fields, uncompressed.
fn encoded_again(batch: &[u8]) -> Vec<u8> {
    let header = BatchHeader::parse(batch).unwrap();
    let mut builder = BatchBuilder::like(&header)
        .attributes(header.attributes.with_compression(CompressionType::None))
        .max_timestamp(header.max_timestamp);
    let mut scratch = Vec::new();
    for record in Records::open(batch, &LIMITS, &mut scratch).unwrap() {
        let record = record.unwrap();
        let headers: Vec<_> =
            record.headers.map(|header| header.map(|h| (h.key, h.value)).unwrap()).collect();
        let new = NewRecord {
            timestamp: record.created(),
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        builder.push_at(record.offset_delta, &new).unwrap();
    }
    builder.build().unwrap().freeze().to_vec()
}

#[test]
fn encoding_again_gives_the_same_bytes() {
    for golden in goldens() {
        for batch in golden.batches() {
            let header = BatchHeader::parse(batch).unwrap();
            let again = encoded_again(batch);
            if header.attributes.compression() == Some(CompressionType::None) {
                assert_eq!(again, batch, "{}", golden.file);
            }
            let mut payload = Vec::new();
            if header.record_count > 0 {
                let codec = header.attributes.compression().unwrap();
                let stored = &batch[HEADER_LEN..];
                floodmark_proto::batch::compression::decompress(codec, stored, &LIMITS, &mut payload)
                    .unwrap();
            }
            assert_eq!(again[HEADER_LEN..], payload, "{}", golden.file);
        }
    }
}

#[test]
fn checksums_agree_with_another_implementation() {
    for golden in goldens() {
        for batch in golden.batches() {
            assert_eq!(
                crc32c::crc32c(&batch[21..]),
                BatchHeader::parse(batch).unwrap().crc,
                "{}",
                golden.file
            );
        }
    }
}

#[test]
fn clients_without_a_producer_id_send_either_sequence() {
    for (client, base_sequence) in [("kafka-java-4.3.1", -1), ("franz-go-1.22.2", 0), ("sarama-1.61.1", 0)] {
        let golden = golden(&format!("{client}/none.batch"));
        let header = check_from_client(golden.batches()[0], 1 << 20).unwrap();
        assert_eq!((header.producer_id, header.base_sequence), (ProducerId::NONE, base_sequence), "{client}");
        assert_eq!(header.last_sequence(), -1);
    }
}

fn golden(file: &str) -> Golden {
    goldens().into_iter().find(|golden| golden.file == file).unwrap()
}

#[test]
fn transactions_end_in_markers() {
    let golden = golden("kafka-java-4.3.1/transactional.batch");
    let mut results = Vec::new();
    for batch in golden.batches() {
        let header = BatchHeader::parse(batch).unwrap();
        assert!(header.attributes.is_transactional());
        if !header.attributes.is_control() {
            continue;
        }
        let mut scratch = Vec::new();
        let record = Records::open(batch, &LIMITS, &mut scratch).unwrap().next().unwrap().unwrap();
        let marker = EndTransactionMarker::decode(record.key, record.value).unwrap().unwrap();
        assert_eq!((record.key, record.value), (Some(&marker.key()[..]), Some(&marker.value()[..])));
        results.push(marker.result);
    }
    assert_eq!(results, [TransactionResult::Commit, TransactionResult::Abort, TransactionResult::Commit]);
}

#[test]
fn compaction_left_gaps_an_empty_batch_and_a_horizon() {
    let golden = golden("kafka-java-4.3.1/compacted.batch");
    let headers: Vec<_> =
        golden.batches().into_iter().map(|batch| BatchHeader::parse(batch).unwrap()).collect();
    assert!(headers.iter().any(|header| header.record_count == 0 && header.last_offset_delta > 0));
    assert!(headers.iter().any(|header| (1..=header.last_offset_delta).contains(&header.record_count)));
    let horizons: Vec<_> = headers.iter().filter_map(BatchHeader::delete_horizon_ms).collect();
    assert_eq!(horizons.len(), 1);
    assert!(horizons[0] > headers[0].max_timestamp);
}

#[test]
fn one_bit_of_damage_anywhere_is_found() {
    for golden in goldens().iter().filter(|golden| golden.bytes.len() < 600) {
        let batch = golden.batches()[0];
        for bit in 16 * 8..batch.len() * 8 {
            let mut bytes = batch.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check_stored(&bytes).is_err(), "{} bit {bit}", golden.file);
        }
    }
}

#[test]
fn log_append_time_hides_but_keeps_the_producers_time() {
    let golden = golden("kafka-java-4.3.1/log-append-time.batch");
    let batch = golden.batches()[0];
    let header = BatchHeader::parse(batch).unwrap();
    assert!(header.attributes.is_log_append_time());
    assert_ne!(header.attributes, Attributes::default());
    let mut scratch = Vec::new();
    let record = Records::open(batch, &LIMITS, &mut scratch).unwrap().next().unwrap().unwrap();
    assert_eq!((record.timestamp, record.created()), (header.max_timestamp, 1_700_000_000_000));
}
