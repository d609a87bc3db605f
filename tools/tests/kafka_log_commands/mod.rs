//! `floodmark log` over what Apache Kafka wrote, and Kafka's own dump tool over what we wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use crate::kafka_reference::{DumpMode, DumpedBatch, Kafka, Written, copy_dir, files_with, reference};
use crate::log_fixture;
use floodmark_proto::batch::{DecompressLimits, Records};
use floodmark_proto::ids::Offset;
use floodmark_storage::log::Log;
use floodmark_storage::{LogConfig, ReadLimits};
use serde_json::Value;

fn floodmark(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floodmark")).args(args).output().unwrap()
}

/// The objects that a command prints; it must end with success.
#[track_caller]
fn objects(args: &[&str]) -> Vec<Value> {
    let output = floodmark(args);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{text}\n{errors}", output.status);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    if value.is_null() {
        return None;
    }
    if let Some(text) = value["utf8"].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    Some(log_fixture::from_base64(value["base64"].as_str().unwrap()))
}

type Content = log_fixture::Content;

/// The data records that `dump` shows, by offset.
fn dumped(dir: &Path) -> BTreeMap<i64, Content> {
    let rows = objects(&["log", "dump", dir.to_str().unwrap(), "--records", "--output", "json"]);
    let data = rows.iter().filter(|row| row["kind"] == "record" && row["control"].is_null());
    data.map(|row| {
        let headers = row["headers"].as_array().unwrap().iter().map(|header| {
            let name = bytes_of(&header["name"]).unwrap();
            (String::from_utf8(name).unwrap(), bytes_of(&header["value"]))
        });
        let content = (
            row["timestamp_ms"].as_i64().unwrap(),
            bytes_of(&row["key"]),
            bytes_of(&row["value"]),
            headers.collect(),
        );
        (row["offset"].as_i64().unwrap(), content)
    })
    .collect()
}

fn content_of(written: &Written) -> Content {
    let headers = written.headers.iter().map(|h| (h.name.clone(), h.value.clone()));
    (written.timestamp_ms, written.key.clone(), written.value.clone(), headers.collect())
}

/// What was acknowledged, by folder and offset.
fn by_folder<'w>(written: impl Iterator<Item = &'w Written>) -> BTreeMap<String, BTreeMap<i64, Content>> {
    let mut folders: BTreeMap<String, BTreeMap<i64, Content>> = BTreeMap::new();
    for record in written {
        folders.entry(record.folder()).or_default().insert(record.offset, content_of(record));
    }
    folders
}

#[test]
fn verify_accepts_what_kafka_wrote() {
    let Some(reference) = reference() else { return };
    for dir in [&reference.clean, &reference.killed] {
        let rows = objects(&["log", "verify", dir.to_str().unwrap(), "--output", "json"]);
        let folders: BTreeSet<&str> = rows
            .iter()
            .filter(|row| row["kind"] == "partition")
            .map(|row| row["dir"].as_str().unwrap().rsplit('/').next().unwrap())
            .collect();
        for name in ["__consumer_offsets-0", "__transaction_state-0", "__cluster_metadata-0", "compacted-0"] {
            assert!(folders.contains(name), "{name} is missing in {folders:?}");
        }
        let findings: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "finding").collect();
        assert!(findings.iter().all(|f| f["severity"] == "warning"), "{findings:#?}");
        if dir == &reference.clean {
            assert!(findings.is_empty(), "{findings:#?}");
        }
        let compacted =
            rows.iter().find(|row| row["dir"].as_str().is_some_and(|d| d.ends_with("/compacted-0")));
        assert!(compacted.unwrap()["gaps"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_directory_that_a_broker_runs_on_is_not_adopted() {
    let Some(reference) = reference() else { return };
    let output = &reference.adopting_a_running_one;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("a Kafka broker runs on this log directory"), "{said}");
    assert!(!reference.clean.join("codec-none-0/log.manifest").exists());
    // Once it has ended, nothing is in the way.
    let root = tempfile::tempdir().unwrap();
    copy_dir(&reference.clean, root.path());
    let dir = root.path().join("codec-none-0");
    objects(&["log", "recover", "--adopt", "--output", "json", dir.to_str().unwrap()]);
    assert!(dir.join("log.manifest").exists());
}

#[test]
fn a_groups_offsets_and_transactions_are_shown() {
    let Some(reference) = reference() else { return };
    for (folder, keys) in
        [("__consumer_offsets-0", "reference-group"), ("__transaction_state-0", "tx-compacted")]
    {
        let rows = objects(&[
            "log",
            "dump",
            reference.clean.join(folder).to_str().unwrap(),
            "--records",
            "--output",
            "json",
        ]);
        // Kafka's keys begin with a version and a length, so they are bytes, not text.
        let holds = |row: &&Value| {
            bytes_of(&row["key"]).is_some_and(|key| key.windows(keys.len()).any(|w| w == keys.as_bytes()))
        };
        assert!(rows.iter().filter(holds).count() > 1, "{folder}: {rows:#?}");
    }
}

#[test]
fn dump_shows_what_kafka_acknowledged() {
    let Some(reference) = reference() else { return };
    for (folder, written) in by_folder(reference.written.iter()) {
        let dumped = dumped(&reference.clean.join(&folder));
        if folder == "compacted-0" {
            assert!(
                !dumped.is_empty()
                    && dumped.iter().all(|(offset, content)| written.get(offset) == Some(content))
            );
        } else {
            assert!(dumped == written, "{folder} differs");
        }
    }
    let both = reference.written.iter().chain(&reference.written_more);
    for (folder, written) in by_folder(both) {
        if folder != "compacted-0" {
            assert!(dumped(&reference.killed.join(&folder)) == written, "{folder} differs after the kill");
        }
    }
}

/// Everything that a log gives its readers, markers left out.
fn read_all(log: &Log) -> BTreeMap<i64, Content> {
    let reader = log.reader();
    let (mut from, mut found, mut scratch) = (reader.start(), BTreeMap::new(), Vec::new());
    loop {
        let pieces = reader.read(from, ReadLimits { max_bytes: 1 << 20, below: Offset::MAX }).unwrap();
        if pieces.is_empty() {
            return found;
        }
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let header = floodmark_proto::batch::BatchHeader::parse(rest).unwrap();
                from = header.next_offset();
                let records = Records::open(rest, &DecompressLimits::DEFAULT, &mut scratch).unwrap();
                for record in records.filter(|_| !header.attributes.is_control()) {
                    let record = record.unwrap();
                    let headers = record.headers.map(|header| {
                        let header = header.unwrap();
                        (header.key_str().unwrap().to_owned(), header.value.map(<[u8]>::to_vec))
                    });
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    let content =
                        (record.timestamp, owned(record.key), owned(record.value), headers.collect());
                    found.insert(record.offset.0, content);
                }
                rest = &rest[header.size_bytes()..];
            }
        }
    }
}

#[test]
fn a_directory_of_kafkas_opens_as_a_log_of_ours() {
    let Some(reference) = reference() else { return };
    let root = tempfile::tempdir().unwrap();
    for (name, from) in [("clean", &reference.clean), ("killed", &reference.killed)] {
        for folder in [
            "rolled-0",
            "transactional-0",
            "compacted-0",
            "codec-zstd-0",
            "__transaction_state-0",
            "__consumer_offsets-0",
        ] {
            let dir = root.path().join(name).join(folder);
            copy_dir(&from.join(folder), &dir);
            let before = dumped(&dir);
            let aborted_before = aborted_in(&dir);
            let (log, report) = Log::open(log_fixture::context(), &dir, LogConfig::default()).unwrap();
            assert_eq!(report.cut_bytes, 0, "{name}/{folder}");
            assert!(read_all(&log) == before, "{name}/{folder} reads other records");
            let aborted: Vec<_> = log
                .reader()
                .aborted_transactions(log.start(), log.end())
                .unwrap()
                .iter()
                .map(|a| (a.producer_id.0, a.first_offset.0, a.last_offset.0, a.last_stable_offset.0))
                .collect();
            if folder == "compacted-0" {
                // Kafka keeps entries of transactions of which compaction has left nothing.
                assert!(
                    !aborted.is_empty() && aborted.iter().all(|a| aborted_before.contains(a)),
                    "{aborted:?}"
                );
            } else {
                assert_eq!(aborted, aborted_before, "{name}/{folder}");
            }
            log.close().unwrap();
            objects(&["log", "verify", dir.to_str().unwrap(), "--output", "json"]);
            let (log, report) = Log::open(log_fixture::context(), &dir, LogConfig::default()).unwrap();
            assert!(report.was_clean && read_all(&log) == before, "{name}/{folder}");
        }
    }
}

/// Entries of all transaction indexes.
fn aborted_in(dir: &Path) -> Vec<(i64, i64, i64, i64)> {
    let mut found = Vec::new();
    for file in files_with(dir, &["txnindex"]) {
        for row in objects(&["log", "dump", file.to_str().unwrap(), "--output", "json"]) {
            let field = |name: &str| row[name].as_i64().unwrap();
            found.push((
                field("producer"),
                field("first_offset"),
                field("last_offset"),
                field("last_stable_offset"),
            ));
        }
    }
    found
}

/// Kafka's tool finds no fault with any file in `dir`, and sees in it what `dump` shows. Returns its batches.
fn agree(kafka: &Kafka, dir: &Path) -> Vec<DumpedBatch> {
    let logs = kafka.dump(&files_with(dir, &["log"]), DumpMode::Contents);
    logs.assert_good();
    let beside = files_with(dir, &["index", "timeindex", "snapshot", "txnindex"]);
    for mode in [DumpMode::Contents, DumpMode::VerifyIndexes, DumpMode::IndexSanity] {
        kafka.dump(&beside, mode).assert_good();
    }
    let rows = objects(&["log", "dump", dir.to_str().unwrap(), "--output", "json"]);
    let ours: Vec<DumpedBatch> = rows.iter().map(|row| batch_of(row, dir)).collect();
    assert_eq!(ours, logs.batches());
    // Kafka's text cannot carry every byte, so of records it is offsets and times that are compared here.
    let records = objects(&["log", "dump", dir.to_str().unwrap(), "--records", "--output", "json"]);
    let places: Vec<(i64, i64)> = records
        .iter()
        .map(|r| (r["offset"].as_i64().unwrap(), r["timestamp_ms"].as_i64().unwrap()))
        .collect();
    assert_eq!(places, logs.places());
    let verified = objects(&["log", "verify", dir.to_str().unwrap(), "--output", "json"]);
    assert!(verified.iter().all(|row| row["kind"] != "finding"), "{verified:#?}");
    ours
}

fn batch_of(row: &Value, dir: &Path) -> DumpedBatch {
    let number = |name: &str| row[name].as_i64().unwrap();
    DumpedBatch {
        folder: dir.file_name().unwrap().to_str().unwrap().to_owned(),
        base_offset: number("base_offset"),
        last_offset: number("last_offset"),
        count: number("record_count"),
        producer_id: row["producer_id"].as_i64().unwrap_or(-1),
        producer_epoch: number("producer_epoch"),
        base_sequence: number("base_sequence"),
        leader_epoch: number("leader_epoch"),
        is_transactional: row["is_transactional"].as_bool().unwrap(),
        is_control: !row["control"].is_null(),
        position: number("position"),
        max_timestamp_ms: number("max_timestamp_ms"),
        is_append_time: row["timestamp_type"] == "log_append",
        size: number("size_bytes"),
        codec: row["codec"].as_str().unwrap().to_owned(),
        crc: i64::from_str_radix(row["crc"].as_str().unwrap(), 16).unwrap(),
    }
}

#[test]
fn kafka_accepts_what_we_wrote() {
    let Some(reference) = reference() else { return };
    let root = tempfile::tempdir().unwrap();
    let data = log_fixture::data_dir(root.path());
    let (mut log, dir) = log_fixture::open(&data, "ours");
    let written = log_fixture::fill(&mut log);
    log.close().unwrap();

    let count = |ending| files_with(&dir, &[ending]).len();
    assert!(count("log") > 3 && count("txnindex") > 0 && count("snapshot") > 2);
    let batches = agree(&reference.kafka, &dir);
    let codecs: BTreeSet<&str> = batches.iter().map(|b| b.codec.as_str()).collect();
    assert_eq!(codecs, BTreeSet::from(["none", "gzip", "snappy", "lz4", "zstd"]));
    assert_eq!(dumped(&dir), written.into_iter().collect());
}

#[test]
fn kafka_accepts_what_we_compacted() {
    let Some(reference) = reference() else { return };
    let root = tempfile::tempdir().unwrap();
    let data = log_fixture::data_dir(root.path());
    let (mut log, dir) = log_fixture::open(&data, "compacted");
    let written: BTreeMap<i64, Content> = log_fixture::fill(&mut log).into_iter().collect();
    log_fixture::compact(&mut log);
    let held = read_all(&log);
    log.close().unwrap();
    assert!(held.len() < written.len() / 2, "{} of {} records are left", held.len(), written.len());
    let batches = agree(&reference.kafka, &dir);
    assert!(batches.iter().any(|b| b.last_offset - b.base_offset >= b.count), "a batch with gaps");
    let dumped = dumped(&dir);
    assert!(dumped == held && dumped.iter().all(|(offset, content)| written.get(offset) == Some(content)));
}
