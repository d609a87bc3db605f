//! Our files and Apache Kafka's, read by each other. Needs a JDK and Maven; skipped, and said so, where they are missing.
#![allow(
    clippy::disallowed_methods,
    reason = "the test looks at files from outside, and waits for other programs"
)]
#![allow(clippy::unwrap_used, reason = "the harness is test code as a whole; a panic is its answer")]

mod kafka_log_commands;
mod kafka_reference;
#[allow(dead_code, reason = "the fixture is shared with another test, which uses the rest of it")]
mod log_fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use floodmark_proto::batch::{DecompressLimits, RecordRules, Records, check_records, check_stored};
use kafka_reference::{
    Dump, DumpMode, DumpedRecord, Reference, Transaction, Written, WrittenHeader, files_with, reference,
};

/// Topics that no cleaner touches, so that each record stays where it was acknowledged.
const KEPT: [&str; 11] = [
    "codec-none",
    "codec-gzip",
    "codec-snappy",
    "codec-lz4",
    "codec-zstd",
    "recompressed",
    "append-time",
    "rolled",
    "headers",
    "edge-values",
    "idempotent",
];

fn dump_logs(reference: &Reference, log_dir: &Path, topics: &[&str]) -> Dump {
    let folders = topics.iter().map(|topic| log_dir.join(format!("{topic}-0")));
    reference
        .kafka
        .dump(&folders.flat_map(|f| files_with(&f, &["log"])).collect::<Vec<_>>(), DumpMode::Contents)
}

/// A record as the dump shows it.
fn as_dumped(written: &Written) -> DumpedRecord {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8(b.clone()).unwrap());
    let names = written.headers.iter().filter(|h| !h.name.is_empty()).map(|h| format!("{},", h.name));
    DumpedRecord {
        folder: written.folder(),
        offset: written.offset,
        timestamp_ms: written.timestamp_ms,
        key: text(&written.key),
        value: text(&written.value),
        header_names: names.collect(),
        marker: None,
    }
}

type ByPlace = BTreeMap<(String, i64), DumpedRecord>;

fn by_place(records: impl IntoIterator<Item = DumpedRecord>) -> ByPlace {
    records.into_iter().filter(|r| r.marker.is_none()).map(|r| ((r.folder.clone(), r.offset), r)).collect()
}

fn written_to(written: &[Written], topics: &[&str]) -> ByPlace {
    by_place(written.iter().filter(|w| topics.contains(&w.topic.as_str())).map(as_dumped))
}

#[test]
fn kafka_reads_its_own_files_as_they_were_written() {
    let Some(reference) = reference() else { return };
    let dump = dump_logs(reference, &reference.clean, &KEPT);
    dump.assert_good();
    assert_eq!(by_place(dump.records()), written_to(&reference.written, &KEPT));

    let codecs = |topic: &str| -> BTreeSet<String> {
        dump.batches().iter().filter(|b| b.folder == format!("{topic}-0")).map(|b| b.codec.clone()).collect()
    };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert_eq!(codecs(&format!("codec-{codec}")), BTreeSet::from([codec.to_owned()]));
    }
    assert_eq!(codecs("recompressed"), BTreeSet::from(["zstd".to_owned()]));
    assert!(dump.batches().iter().all(|b| b.is_append_time == (b.folder == "append-time-0")));
}

/// What a record is, apart from who wrote it.
type Content = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<WrittenHeader>);

/// The data records in a log file as our own code reads them, by offset. Every batch must pass our checks.
fn read_by_us(file: &Path) -> BTreeMap<i64, Content> {
    let bytes = fs::read(file).unwrap();
    let mut records = BTreeMap::new();
    let (mut rest, mut scratch) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let place = bytes.len() - rest.len();
        let header = check_stored(rest).unwrap_or_else(|e| panic!("{} at {place}: {e}", file.display()));
        check_records(rest, RecordRules::Stored, &DecompressLimits::DEFAULT, &mut scratch)
            .unwrap_or_else(|e| panic!("{} at {place}: {e}", file.display()));
        if !header.attributes.is_control() {
            for record in Records::open(rest, &DecompressLimits::DEFAULT, &mut scratch).unwrap() {
                let record = record.unwrap();
                let headers = record.headers.map(|header| {
                    let header = header.unwrap();
                    WrittenHeader {
                        name: header.key_str().unwrap().to_owned(),
                        value: header.value.map(<[u8]>::to_vec),
                    }
                });
                let content = (
                    record.timestamp,
                    record.key.map(<[u8]>::to_vec),
                    record.value.map(<[u8]>::to_vec),
                    headers.collect(),
                );
                records.insert(record.offset.0, content);
            }
        }
        rest = &rest[header.size_bytes()..];
    }
    records
}

#[test]
fn we_read_in_kafkas_logs_what_was_written() {
    let Some(reference) = reference() else { return };
    for topic in KEPT.iter().chain(&["transactional"]) {
        let files = files_with(&reference.clean.join(format!("{topic}-0")), &["log"]);
        let read: BTreeMap<i64, Content> = files.iter().flat_map(|file| read_by_us(file)).collect();
        let written = reference.written.iter().filter(|w| w.topic == *topic).cloned();
        let written: BTreeMap<_, _> =
            written.map(|w| (w.offset, (w.timestamp_ms, w.key, w.value, w.headers))).collect();
        assert_eq!(read, written, "{topic}");
    }
    for file in files_with(&reference.clean.join("compacted-0"), &["log"]) {
        read_by_us(&file);
    }
}

#[test]
fn the_reference_holds_every_kind_of_file() {
    let Some(reference) = reference() else { return };
    let count =
        |topic: &str, ending: &str| files_with(&reference.clean.join(format!("{topic}-0")), &[ending]).len();
    assert!(count("rolled", "log") > 5, "segments rolled");
    assert!(count("rolled", "index") > 5 && count("rolled", "timeindex") > 5, "indexes");
    assert!(count("rolled", "snapshot") > 5, "producer snapshots");
    assert!(count("transactional", "txnindex") > 0, "transaction indexes");

    let dump = dump_logs(reference, &reference.clean, &["transactional"]);
    dump.assert_good();
    assert_eq!(by_place(dump.records()), written_to(&reference.written, &["transactional"]));
    let markers: BTreeSet<String> = dump.records().into_iter().filter_map(|r| r.marker).collect();
    assert_eq!(markers, BTreeSet::from(["ABORT".to_owned(), "COMMIT".to_owned()]));
}

#[test]
fn the_compacted_topic_is_compacted() {
    let Some(reference) = reference() else { return };
    let dump = dump_logs(reference, &reference.clean, &["compacted"]);
    dump.assert_good();
    let left = by_place(dump.records());
    let written = written_to(&reference.written, &["compacted"]);
    assert!(left.len() < written.len() / 3, "{} of {} records are left", left.len(), written.len());
    assert!(left.iter().all(|(place, record)| written.get(place) == Some(record)));
    assert!(left.values().any(|record| record.value.is_none()), "tombstones are left");
    assert!(dump.batches().iter().any(|b| b.count == 0), "an empty batch is left");
    assert!(dump.batches().iter().any(|b| b.is_control), "markers are left");
    let committed = reference
        .written
        .iter()
        .filter(|w| w.topic == "compacted" && w.transaction != Some(Transaction::Aborted));
    let newest: BTreeMap<_, _> = committed.map(|w| (w.key.clone(), w.offset)).collect();
    assert!(
        newest.values().all(|&offset| left.contains_key(&("compacted-0".to_owned(), offset))),
        "newest records are left"
    );
}

#[test]
fn kafka_accepts_its_own_indexes_and_refuses_a_damaged_one() {
    let Some(reference) = reference() else { return };
    let endings = ["index", "timeindex", "snapshot", "txnindex"];
    let folders = ["rolled-0", "transactional-0"];
    let mut files: Vec<_> =
        folders.iter().flat_map(|f| files_with(&reference.clean.join(f), &endings)).collect();
    // Which time index entries Kafka's cleaner leaves depends on when it ran, and its own tool does not accept them all.
    files.extend(files_with(&reference.clean.join("compacted-0"), &["index", "snapshot", "txnindex"]));
    for mode in [DumpMode::Contents, DumpMode::VerifyIndexes, DumpMode::IndexSanity] {
        reference.kafka.dump(&files, mode).assert_good();
    }
    let snapshots = reference.kafka.dump(&files, DumpMode::IndexSanity).text;
    assert!(snapshots.contains("producerId: ") && snapshots.contains("lastStableOffset: "), "{snapshots}");

    let dir = tempfile::tempdir().unwrap();
    kafka_reference::copy_dir(&reference.clean.join("rolled-0"), dir.path());
    let index = &files_with(dir.path(), &["index"])[0];
    let mut bytes = fs::read(index).unwrap();
    bytes[7] ^= 1;
    fs::write(index, bytes).unwrap();
    assert!(
        !reference
            .kafka
            .dump(&files_with(dir.path(), &["index"]), DumpMode::VerifyIndexes)
            .faults()
            .is_empty()
    );
    let log = &files_with(dir.path(), &["log"])[0];
    let mut bytes = fs::read(log).unwrap();
    bytes[200] ^= 1;
    fs::write(log, bytes).unwrap();
    assert!(!reference.kafka.dump(&files_with(dir.path(), &["log"]), DumpMode::Contents).faults().is_empty());
}

#[test]
fn a_killed_broker_leaves_what_it_acknowledged() {
    let Some(reference) = reference() else { return };
    let topics = ["codec-none", "rolled"];
    let dump = dump_logs(reference, &reference.killed, &topics);
    let mut expected = written_to(&reference.written, &topics);
    expected.extend(written_to(&reference.written_more, &topics));
    assert_eq!(by_place(dump.records()), expected);
    let epochs: BTreeSet<i64> = dump.batches().iter().map(|b| b.leader_epoch).collect();
    assert!(epochs.len() > 1, "one leader epoch a start of the broker: {epochs:?}");
    assert!(!reference.killed.join(".kafka_cleanshutdown").exists());
    assert!(reference.clean.join(".kafka_cleanshutdown").exists());
}
