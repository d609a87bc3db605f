//! The `floodmark log` commands as a user runs them, on logs that storage wrote and on files that Kafka wrote.
#![allow(clippy::disallowed_methods, reason = "the test damages files from outside")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

#[allow(dead_code, reason = "the fixture is shared with another test, which uses the rest of it")]
mod log_fixture;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use floodmark_storage::LogConfig;
use floodmark_storage::data_dir::DataDir;
use log_fixture::Content;
use serde_json::Value;
use tempfile::TempDir;

/// What a run left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn floodmark(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_floodmark")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ran {
    #[track_caller]
    fn with_code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Each line of standard output must be an object.
    fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(
                self.stdout.contains(word) || self.stderr.contains(word),
                "no {word:?} in\n{}\n{}",
                self.stdout,
                self.stderr
            );
        }
        assert!(
            !self.stderr.contains("panicked") && !self.stderr.contains("stack backtrace"),
            "{}",
            self.stderr
        );
    }
}

/// A closed log of several segments in a data directory of ours.
struct Fixture {
    root: TempDir,
    dir: PathBuf,
    written: Vec<(i64, Content)>,
}

impl Fixture {
    fn new() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let data = log_fixture::data_dir(root.path());
        let (mut log, dir) = log_fixture::open(&data, "ours");
        let written = log_fixture::fill(&mut log);
        log.close().unwrap();
        log_fixture::let_go(data);
        Fixture { root, dir, written }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|path| {
            path.extension().is_some_and(|e| e == ending) && fs::metadata(path).unwrap().len() > 0
        });
        files.sort();
        files
    }

    fn run(&self, command: &str, options: &[&str]) -> Ran {
        let mut args = vec!["log", command, self.dir.to_str().unwrap()];
        args.extend(options);
        floodmark(&args)
    }

    /// Opens it once more as a broker would; returns what it holds.
    fn end(&self) -> i64 {
        let data: DataDir = log_fixture::data_dir(self.root.path());
        let (log, _) = log_fixture::open(&data, "ours");
        let end = log.end().0;
        log.close().unwrap();
        log_fixture::let_go(data);
        end
    }
}

/// Name to bytes of all files.
fn image(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn flip(path: &Path, at: usize, bits: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= bits;
    fs::write(path, bytes).unwrap();
}

/// Start of batch `n` of a data file.
fn batch_start(path: &Path, n: usize) -> usize {
    let bytes = fs::read(path).unwrap();
    let size = |at: usize| 12 + u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    (0..n).fold(0, |at, _| at + size(at))
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match (value["utf8"].as_str(), value["base64"].as_str()) {
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(text)) => Some(log_fixture::from_base64(text)),
        _ => {
            assert!(value.is_null());
            None
        }
    }
}

fn content_of(row: &Value) -> (i64, Content) {
    let headers = row["headers"].as_array().unwrap().iter();
    let headers = headers
        .map(|h| (String::from_utf8(bytes_of(&h["name"]).unwrap()).unwrap(), bytes_of(&h["value"])))
        .collect();
    let time = row["timestamp_ms"].as_i64().unwrap();
    (row["offset"].as_i64().unwrap(), (time, bytes_of(&row["key"]), bytes_of(&row["value"]), headers))
}

#[test]
fn json_has_every_byte_of_every_record() {
    let fixture = Fixture::new();
    let rows = fixture.run("dump", &["--records", "--output", "json"]).with_code(0).objects();
    assert!(rows.iter().all(|row| row["kind"] == "record"));
    let data: Vec<_> = rows.iter().filter(|row| row["control"].is_null()).map(content_of).collect();
    assert_eq!(data, fixture.written);
    let markers: Vec<&str> = rows.iter().filter_map(|row| row["control"].as_str()).collect();
    assert!(markers.contains(&"abort") && markers.contains(&"commit"));

    let batches = fixture.run("dump", &["--output", "json"]).with_code(0).objects();
    assert!(batches.iter().all(|b| b["kind"] == "batch" && b["is_crc_ok"] == true));
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert!(batches.iter().any(|b| b["codec"] == codec), "{codec}");
    }
    assert!(batches.iter().any(|b| b["producer_id"] == 100 && b["is_transactional"] == false));
    assert!(batches.iter().any(|b| b["producer_id"] == 200 && b["is_transactional"] == true));
    assert!(batches.iter().any(|b| b["producer_id"].is_null()));
}

#[test]
fn a_range_is_cut_out_to_the_record() {
    let fixture = Fixture::new();
    let offsets = |options: &[&str]| -> Vec<i64> {
        let mut all = vec!["--records", "--output", "json"];
        all.extend(options);
        fixture
            .run("dump", &all)
            .with_code(0)
            .objects()
            .iter()
            .map(|r| r["offset"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(offsets(&["--from", "101", "--to", "104"]), [101, 102, 103]);
    assert_eq!(offsets(&["--from", "150", "--max", "2"]), [150, 151]);
    assert!(offsets(&["--max", "0"]).is_empty());
    assert!(offsets(&["--from", "100000"]).is_empty());
    let all = offsets(&[]);
    assert_eq!(all, (0..all.len() as i64).collect::<Vec<_>>());
}

#[test]
fn tables_tell_text_from_bytes_and_null() {
    let fixture = Fixture::new();
    let short = fixture.run("dump", &["--records"]).with_code(0);
    short.says(&[
        "│ offset ┆",
        "2023-11-14T22:13:20.000Z",
        "null",
        "base64:/v7+/v4=",
        "\"key-3\"",
        "…",
        "\"twice\"=",
        "abort",
        "commit",
    ]);
    let full = fixture.run("dump", &["--records", "--full"]).with_code(0);
    assert!(!full.stdout.contains('…'));
    assert_eq!(full.stdout, fixture.run("dump", &["--records", "--full"]).stdout, "output is stable");
    let widths: std::collections::BTreeSet<usize> = full
        .stdout
        .lines()
        .filter(|l| l.starts_with('│') && l.len() > 400)
        .map(|l| l.chars().count())
        .collect();
    assert!(widths.len() <= fixture.files("log").len());
}

#[test]
fn every_file_beside_the_batches_is_shown() {
    let fixture = Fixture::new();
    let shown = |path: &Path, kind: &str| {
        let path = path.to_str().unwrap();
        let rows = floodmark(&["log", "dump", path, "--output", "json"]).with_code(0).objects();
        assert!(rows.iter().any(|row| row["kind"] == kind), "{path}: {rows:?}");
        floodmark(&["log", "dump", path]).with_code(0).says(&[]);
        rows
    };
    for (ending, kind) in [
        ("log", "batch"),
        ("index", "offset_index_entry"),
        ("timeindex", "time_index_entry"),
        ("txnindex", "aborted_transaction"),
        ("snapshot", "producer"),
    ] {
        shown(fixture.files(ending).last().unwrap(), kind);
    }
    let epochs = shown(&fixture.dir.join("leader-epoch-checkpoint"), "leader_epoch");
    assert_eq!((&epochs[0]["leader_epoch"], &epochs[0]["start_offset"]), (&3.into(), &0.into()));
    let metadata = shown(&fixture.dir.join("partition.metadata"), "partition_metadata");
    assert_eq!(metadata[0]["topic_id"], "ASNFZ4mrze_-3LqYdlQyEA");
    let manifest = shown(&fixture.dir.join("log.manifest"), "manifest");
    assert_eq!(
        manifest.iter().filter(|row| row["state"] == "sealed").count(),
        fixture.files("log").len() - 1
    );
    let kafkas = fixture.root.path().join("recovery-point-offset-checkpoint");
    fs::write(&kafkas, "0\n1\norders 0 42\n").unwrap();
    assert_eq!(shown(&kafkas, "line")[2]["text"], "orders 0 42");
}

#[test]
fn a_key_index_is_shown_and_verified() {
    let root = tempfile::tempdir().unwrap();
    let data = log_fixture::data_dir(root.path());
    let (mut log, dir) = log_fixture::open(&data, "keyed");
    log.set_config(LogConfig { key_index: true, ..log_fixture::config() });
    log_fixture::fill(&mut log);
    while let Some(job) = log.key_index_job() {
        job.run().unwrap();
    }
    log.close().unwrap();
    log_fixture::let_go(data);
    let first = dir.join("00000000000000000000.keyindex");
    let shown = |args: &[&str]| {
        let args = [&["log", "dump", first.to_str().unwrap(), "--output", "json"], args].concat();
        floodmark(&args).with_code(0).objects()
    };
    let rows = shown(&[]);
    assert!(rows.len() > 1 && rows.iter().all(|row| row["kind"] == "key_index_entry"), "{rows:?}");
    let one = shown(&["--from", "1", "--to", "2"]);
    assert!(one.len() == 1 && one[0]["offset"] == 1, "{one:?}");
    let verify =
        |code| floodmark(&["log", "verify", dir.to_str().unwrap(), "--output", "json"]).with_code(code);
    let found =
        |rows: Vec<Value>| rows.into_iter().filter(|row| row["kind"] == "finding").collect::<Vec<_>>();
    assert_eq!(found(verify(0).objects()), Vec::<Value>::new());
    flip(&first, 1030, 1);
    let found = found(verify(0).objects());
    assert!(found.len() == 1 && found[0]["severity"] == "warning", "{found:?}");
}

#[test]
fn a_clean_log_verifies_and_a_golden_of_kafkas_too() {
    let fixture = Fixture::new();
    for path in [fixture.dir.clone(), fixture.data()] {
        let ran = floodmark(&["log", "verify", path.to_str().unwrap(), "--output", "json"]).with_code(0);
        let rows = ran.objects();
        assert!(rows.iter().all(|row| row["kind"] != "finding"), "{rows:?}");
        assert_eq!(rows.last().unwrap()["damage"], 0);
        assert_eq!(rows.last().unwrap()["records"].as_u64().unwrap(), fixture.end() as u64);
    }
    fixture.run("verify", &[]).with_code(0).says(&["ours-0", "nothing is damaged"]);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = tests.join("storage/tests/golden/kafka-4.3.1");
    let rows =
        floodmark(&["log", "verify", golden.to_str().unwrap(), "--output", "json"]).with_code(0).objects();
    assert!(rows.iter().all(|row| row["kind"] != "finding"), "{rows:?}");
    assert_eq!((&rows[0]["segments"], &rows[0]["records"]), (&2.into(), &54.into()));
    let told = floodmark(&["log", "verify", golden.to_str().unwrap()]).with_code(0);
    told.says(&["1 of the partitions have no log.manifest"]);
}

#[test]
fn batches_of_three_clients_are_dumped() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tests/golden");
    let dir = tempfile::tempdir().unwrap();
    let mut files = 0;
    for client in fs::read_dir(golden).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
        for file in fs::read_dir(client).unwrap().map(|e| e.unwrap().path()) {
            if file.extension().is_none_or(|e| e != "batch") {
                continue;
            }
            let log = dir.path().join("00000000000000000000.log");
            fs::copy(&file, &log).unwrap();
            let rows = floodmark(&["log", "dump", log.to_str().unwrap(), "--records", "--output", "json"]);
            let rows = rows.with_code(0).objects();
            assert!(rows.iter().all(|row| row["kind"] == "record"), "{}: {rows:?}", file.display());
            files += 1;
        }
    }
    assert!(files > 10, "{files}");
}

/// The findings of a run that must find damage.
#[track_caller]
fn damage(fixture: &Fixture) -> Vec<Value> {
    let rows = fixture.run("verify", &["--output", "json"]).with_code(1).objects();
    rows.into_iter().filter(|row| row["kind"] == "finding" && row["severity"] == "damage").collect()
}

#[test]
fn a_flipped_bit_is_found_in_every_kind_of_file() {
    let fixture = Fixture::new();
    let before = image(&fixture.dir);
    let log = fixture.files("log")[1].clone();
    let (second, third) = (batch_start(&log, 1), batch_start(&log, 2));
    // Base offset and leader epoch lie outside the checksum, so their neighbours must give them away.
    let mut cases = vec![
        (log.clone(), second + 5, 1, "where the next batch begins"),
        (log.clone(), second + 15, 8, "epoch"),
        (log.clone(), second + 11, 1, "a batch"),
        (log.clone(), second + 16, 1, "a batch"),
        (log, third - 1, 0x10, "a batch"),
    ];
    let transactions = fixture.files("txnindex")[0].clone();
    cases.extend([
        (transactions.clone(), 9, 1, "marker"),
        (transactions.clone(), 17, 1, "transaction"),
        (transactions, 25, 1, "marker"),
    ]);
    cases.push((fixture.files("snapshot")[1].clone(), 20, 1, "producers"));
    for name in ["leader-epoch-checkpoint", "partition.metadata", "log.manifest"] {
        let path = fixture.dir.join(name);
        let last = fs::read(&path).unwrap().len() - 2;
        // The topic's id carries no checksum: a flip to another letter is for no one to see.
        cases.push((path, last, 0x80, ""));
    }
    for (path, at, bits, expected) in cases {
        flip(&path, at, bits);
        let found = damage(&fixture);
        let here: Vec<&Value> = found
            .iter()
            .filter(|f| {
                f["file"].as_str().unwrap().ends_with(path.file_name().unwrap().to_str().unwrap())
                    || expected.contains("epoch")
            })
            .collect();
        assert!(!here.is_empty(), "{} byte {at}: {found:#?}", path.display());
        assert!(
            here.iter().any(|f| f["expected"].as_str().unwrap().contains(expected)),
            "{expected:?}: {here:#?}"
        );
        // Batches go on being found behind the damage.
        assert!(found.len() < 8, "{found:#?}");
        fs::write(&path, &before[&path]).unwrap();
    }
    fixture.run("verify", &[]).with_code(0);
}

#[test]
fn wrong_index_entries_of_ours_cost_time_and_are_rebuilt_where_the_file_is_deleted() {
    let fixture = Fixture::new();
    let before = image(&fixture.dir);
    let index = fixture.files("index")[1].clone();
    let time_index = fixture.files("timeindex")[1].clone();
    for (path, at, bits, expected) in [
        (&index, 3, 1, "last offset"),
        (&index, 7, 1, "batch"),
        (&time_index, 7, 1, "largest time"),
        (&time_index, 11, 0x40, ""),
    ] {
        flip(path, at, bits);
        let rows = fixture.run("verify", &["--output", "json"]).with_code(0).objects();
        let name = path.file_name().unwrap().to_str().unwrap();
        let told = rows.iter().filter(|row| row["kind"] == "finding").any(|f| {
            let text = f["expected"].as_str().unwrap();
            f["severity"] == "warning"
                && f["file"].as_str().unwrap().ends_with(name)
                && text.contains(expected)
                && text.contains("costs look-ups time")
        });
        assert!(told, "{name} {at}: {rows:#?}");
        fs::remove_file(path).unwrap();
        fixture.run("recover", &[]).with_code(0).says(&["rebuilt", ".index"]);
        // As dense as the settings of who rebuilds it.
        let rows = fixture.run("verify", &["--output", "json"]).with_code(0).objects();
        assert!(path.exists() && rows.iter().all(|row| row["kind"] != "finding"), "{name} {at}: {rows:#?}");
        before.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
    // In a directory that Kafka may read again the same entry is damage: Kafka believes it.
    fs::remove_file(fixture.dir.join("log.manifest")).unwrap();
    flip(&index, 7, 1);
    assert!(damage(&fixture).iter().any(|f| f["file"].as_str().unwrap().ends_with(".index")));
}

#[test]
fn all_damage_is_told_with_its_place() {
    let fixture = Fixture::new();
    let logs = fixture.files("log");
    let mut places = Vec::new();
    for (log, batch) in [(&logs[0], 2), (&logs[0], 5), (&logs[2], 1)] {
        let at = batch_start(log, batch);
        flip(log, at + 70, 0xff);
        places.push((log.to_str().unwrap().to_owned(), at as u64));
    }
    let found = damage(&fixture);
    let found: Vec<_> = found
        .iter()
        .filter(|f| f["expected"] == "a batch")
        .map(|f| (f["file"].as_str().unwrap().to_owned(), f["byte"].as_u64().unwrap()))
        .collect();
    let ends = |places: &[(String, u64)]| -> Vec<(String, u64)> {
        places.iter().map(|(p, at)| (p.rsplit('/').next().unwrap().to_owned(), *at)).collect()
    };
    assert_eq!(ends(&found), ends(&places));
    let told = fixture.run("verify", &[]).with_code(1);
    told.says(&["damage: ", "checksum mismatch", "expected: a batch", "places are damaged"]);
    let dumped = fixture.run("dump", &["--output", "json"]).with_code(1).objects();
    assert_eq!(dumped.iter().filter(|row| row["kind"] == "damage").count(), 3);
    assert_eq!(dumped.iter().filter(|row| row["is_crc_ok"] == false).count(), 3);
    fixture.run("dump", &[]).with_code(1).says(&["WRONG", "damage: "]);
}

#[test]
fn half_deleted_logs_are_told_file_by_file() {
    let fixture = Fixture::new();
    let before = image(&fixture.dir);
    let restore = || before.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let log = fixture.files("log")[1].clone();
    fs::remove_file(&log).unwrap();
    let found = damage(&fixture);
    assert!(found.iter().any(|f| f["found"] == "no such file"), "{found:#?}");
    fixture.run("recover", &[]).with_code(1).says(&["the file is missing", "would be lost"]);
    restore();

    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 10]).unwrap();
    assert!(damage(&fixture).iter().any(|f| f["found"] == "the file ends here"));
    restore();

    // What can be rebuilt is worth a warning.
    for path in [
        fixture.files("index")[0].clone(),
        fixture.files("timeindex")[0].clone(),
        fixture.dir.join("leader-epoch-checkpoint"),
    ] {
        fs::remove_file(&path).unwrap();
        let rows = fixture.run("verify", &["--output", "json"]).with_code(0).objects();
        assert!(rows.iter().any(|row| row["severity"] == "warning"), "{rows:?}");
        restore();
    }
    // Readers of the log as it stands would take aborted records for committed ones, so this is more.
    fs::remove_file(&fixture.files("txnindex")[0]).unwrap();
    assert!(damage(&fixture).iter().any(|f| f["found"] == "the file is missing"));
    restore();

    for path in before.keys() {
        fs::remove_file(path).unwrap();
    }
    fixture.run("verify", &[]).with_code(2).says(&["holds no log"]);
}

#[test]
fn files_of_kafkas_that_carry_no_checksum_are_known_by_the_manifest_and_rebuilt() {
    let fixture = Fixture::new();
    let before = image(&fixture.dir);
    let epochs = fixture.dir.join("leader-epoch-checkpoint");
    let transactions = fixture.files("txnindex")[0].clone();
    let digit = before[&epochs].len() - 2;
    // The last bit of a last stable offset: no batch contradicts it at once.
    for (path, at) in [(&epochs, digit), (&epochs, 4), (&transactions, 33)] {
        flip(path, at, 1);
        let name = path.file_name().unwrap().to_str().unwrap();
        let found = damage(&fixture);
        assert!(found.iter().any(|f| f["file"].as_str().unwrap().ends_with(name)), "{name} {at}: {found:#?}");
        fixture.run("recover", &[]).with_code(0).says(&["rebuilt", name]);
        fixture.run("verify", &[]).with_code(0).says(&["nothing is damaged"]);
        assert_eq!(&fs::read(path).unwrap(), &before[path], "{name} {at}");
    }
    fs::remove_file(&transactions).unwrap();
    fixture.run("recover", &["--dry-run"]).with_code(0).says(&["would be rebuilt", "txnindex"]);
    assert!(!transactions.exists());
    fixture.run("recover", &[]).with_code(0).says(&["rebuilt", "txnindex"]);
    assert_eq!(fs::read(&transactions).unwrap(), before[&transactions]);
    fixture.run("recover", &[]).with_code(0).says(&["nothing to do"]);
}

#[test]
fn a_torn_tail_is_a_warning_and_recovery_cuts_it() {
    let fixture = Fixture::new();
    let end = fixture.end();
    let log = fixture.files("log").last().unwrap().clone();
    let whole = fs::read(&log).unwrap();
    let torn = [whole.as_slice(), &fs::read(&fixture.files("log")[0]).unwrap()[..64]].concat();
    fs::write(&log, &torn).unwrap();
    let rows = fixture.run("verify", &["--output", "json"]).with_code(0).objects();
    assert!(rows.iter().any(|r| r["severity"] == "warning" && r["byte"] == whole.len()), "{rows:?}");

    let before = image(&fixture.dir);
    fixture.run("recover", &["--dry-run"]).with_code(0).says(&[
        "64 bytes",
        "would be cut off",
        "nothing was changed",
    ]);
    assert_eq!(image(&fixture.dir), before);
    fixture.run("recover", &[]).with_code(0).says(&["64 bytes", "cut off"]);
    assert_eq!(fs::read(&log).unwrap(), whole);
    assert_eq!(fixture.end(), end);
    fixture.run("recover", &[]).with_code(0).says(&["nothing to do"]);
    fixture.run("verify", &[]).with_code(0);
}

/// What a crash left of it is proof of what was answered to other brokers.
#[test]
fn a_brokers_log_of_metadata_is_left_to_the_broker() {
    let fixture = Fixture::new();
    let log = fixture.files("log").last().unwrap().clone();
    fs::write(&log, [fs::read(&log).unwrap().as_slice(), &[1; 64]].concat()).unwrap();
    let metadata = fixture.data().join("metadata");
    let dir = metadata.join("log");
    fs::create_dir_all(&dir).unwrap();
    fs::write(metadata.join("node.state"), "").unwrap();
    for path in image(&fixture.dir).keys() {
        fs::copy(path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let before = image(&dir);
    let recover = |dir: &Path, option: &[&str]| {
        floodmark(&[&["log", "recover", dir.to_str().unwrap()], option].concat())
    };
    recover(&dir, &[]).with_code(2).says(&["log of metadata", "the broker alone"]);
    recover(&dir, &["--accept-loss"]).with_code(2).says(&["log of metadata"]);
    recover(&dir, &["--dry-run"]).with_code(0).says(&["64 bytes", "would be cut off"]);
    recover(&fixture.data(), &[]).with_code(0).says(&["64 bytes", "cut off"]);
    assert_eq!(image(&dir), before);
}

#[test]
fn zeros_written_ahead_are_no_damage() {
    let fixture = Fixture::new();
    let log = fixture.files("log").last().unwrap().clone();
    let mut bytes = fs::read(&log).unwrap();
    let end = bytes.len();
    bytes.resize(end + 100_000, 0);
    fs::write(&log, bytes).unwrap();
    let index = fixture.files("index").last().unwrap().clone();
    let mut bytes = fs::read(&index).unwrap();
    bytes.resize(bytes.len() + 800, 0);
    fs::write(&index, bytes).unwrap();
    fixture.run("verify", &[]).with_code(0).says(&["100000 zeros written ahead"]);
    let rows = fixture.run("dump", &["--output", "json"]).with_code(0).objects();
    let last = rows.last().unwrap();
    assert_eq!((&last["kind"], &last["position"]), (&"written_ahead".into(), &end.into()));
    floodmark(&["log", "dump", index.to_str().unwrap()])
        .with_code(0)
        .says(&["800 zeros behind the last entry"]);
}

#[test]
fn damage_is_given_up_only_when_told_and_never_deleted() {
    let fixture = Fixture::new();
    let logs = fixture.files("log");
    let damaged = logs[1].clone();
    let at = batch_start(&damaged, 2);
    flip(&damaged, at + 70, 0xff);
    let before = image(&fixture.dir);
    let cut: i64 = {
        let bytes = fs::read(&damaged).unwrap();
        i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    let end = fixture.written.last().unwrap().0 + 1;

    for options in [&[][..], &["--dry-run"]] {
        let refused = fixture.run("recover", options).with_code(1);
        refused.says(&["checksum mismatch", "would be lost", &format!("{cut} to "), "--accept-loss"]);
        assert_eq!(image(&fixture.dir), before, "nothing was changed");
    }
    fixture
        .run("recover", &["--accept-loss", "--dry-run"])
        .with_code(0)
        .says(&["would be lost", "nothing was changed"]);
    assert_eq!(image(&fixture.dir), before);
    let data = fixture.data();
    floodmark(&["log", "recover", data.to_str().unwrap(), "--accept-loss"])
        .with_code(2)
        .says(&["one partition at a time"]);

    let done = fixture.run("recover", &["--accept-loss"]).with_code(0);
    done.says(&["lost:", "set aside", &format!("offsets 0 to {cut} (exclusive)")]);
    fixture.run("verify", &[]).with_code(0);
    assert_eq!(fixture.end(), cut);
    let rows = fixture.run("dump", &["--records", "--output", "json"]).with_code(0).objects();
    let kept: Vec<_> = rows.iter().filter(|r| r["control"].is_null()).map(content_of).collect();
    let expected: Vec<_> = fixture.written.iter().filter(|(offset, _)| *offset < cut).cloned().collect();
    assert_eq!(kept, expected);

    // Every byte that went is in a file set aside.
    let aside = |log: &Path| PathBuf::from(format!("{}.damaged-1", log.display()));
    assert_eq!(fs::read(aside(&damaged)).unwrap(), before[&damaged][at..]);
    for log in &logs[2..] {
        assert_eq!(fs::read(aside(log)).unwrap(), before[log]);
    }
    let seen =
        floodmark(&["log", "dump", aside(&logs[2]).to_str().unwrap(), "--output", "json"]).with_code(0);
    assert!(seen.objects().iter().any(|row| row["kind"] == "batch"));
    assert!(end > cut);

    // A second time the next number is taken.
    flip(&damaged, 70, 0xff);
    fixture.run("recover", &["--accept-loss"]).with_code(0);
    assert!(PathBuf::from(format!("{}.damaged-2", damaged.display())).exists());
    assert_eq!(fs::read(aside(&damaged)).unwrap(), before[&damaged][at..]);
    fixture.run("verify", &[]).with_code(0);
}

#[test]
fn recovery_is_told_to_programs_as_well() {
    let fixture = Fixture::new();
    let end = fixture.end();
    let told = |options: &[&str], code| {
        let mut all = vec!["--output", "json"];
        all.extend(options);
        let mut rows = fixture.run("recover", &all).with_code(code).objects();
        let summary = rows.pop().unwrap();
        assert_eq!((&summary["kind"], &summary["partitions"]), (&Value::from("summary"), &Value::from(1)));
        assert_eq!(summary["left_damaged"], u8::from(code == 1));
        rows.pop().unwrap()
    };
    let clean = told(&[], 0);
    assert_eq!(
        (&clean["kind"], &clean["was_closed_cleanly"]),
        (&Value::from("partition"), &Value::from(true))
    );
    assert_eq!((&clean["start_offset"], &clean["end_offset"]), (&Value::from(0), &Value::from(end)));
    assert!(clean["damage"].is_null());

    fs::remove_file(&fixture.files("txnindex")[0]).unwrap();
    let log = fixture.files("log").last().unwrap().clone();
    fs::write(&log, [fs::read(&log).unwrap().as_slice(), b"torn"].concat()).unwrap();
    let dry = told(&["--dry-run"], 0);
    assert_eq!((&dry["is_dry_run"], &dry["cut_bytes"]), (&Value::from(true), &Value::from(4)));
    let recovered = told(&[], 0);
    assert_eq!(recovered["rebuilt"].as_array().unwrap().len(), 1);
    assert!(recovered["cut_reason"].as_str().unwrap().contains("cut short"), "{recovered}");

    let log = fixture.files("log")[2].clone();
    flip(&log, 70, 1);
    let refused = told(&[], 1);
    assert_eq!((&refused["is_left_damaged"], &refused["end_offset"]), (&Value::from(true), &Value::Null));
    let given_up = told(&["--accept-loss"], 0);
    assert_eq!(given_up["damage"]["is_given_up"], true);
    assert_eq!(given_up["damage"]["lost_to_offset"], end);
    assert_eq!(given_up["damage"]["lost_from_offset"], given_up["end_offset"]);
    assert!(!given_up["damage"]["set_aside"].as_array().unwrap().is_empty());
}

/// A log directory like Kafka's with one partition in it, whose directory is named.
fn kafka_log_dir(root: &Path) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/golden/kafka-4.3.1");
    let dir = root.join("orders-0");
    fs::create_dir(&dir).unwrap();
    for (path, bytes) in image(&golden) {
        fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
    }
    fs::write(root.join("meta.properties"), "version=1\n").unwrap();
    dir
}

#[test]
fn the_start_of_an_adopted_log_is_where_kafka_had_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = kafka_log_dir(root.path());
    let path = dir.to_str().unwrap();
    let starts = root.path().join("log-start-offset-checkpoint");
    fs::write(&starts, "0\n2\nother 0 3\norders 0 x\n").unwrap();
    floodmark(&["log", "recover", path, "--adopt", "--dry-run"])
        .with_code(2)
        .says(&["names no offset for orders 0"]);
    fs::write(&starts, "0\n2\nother 0 3\norders 0 20\n").unwrap();
    let told = ["before offset 20 were deleted in Kafka", "offsets 20 to 54"];
    floodmark(&["log", "recover", path, "--adopt", "--dry-run"]).with_code(0).says(&told);
    assert!(dir.join("00000000000000000000.log").exists());
    floodmark(&["log", "recover", path, "--adopt"]).with_code(0).says(&told);
    assert!(!dir.join("00000000000000000000.log").exists(), "the first segment ends before 20");
    floodmark(&["log", "verify", path]).with_code(0);
    // Later on the log's own manifest tells.
    fs::write(&starts, "0\n1\norders 0 30\n").unwrap();
    floodmark(&["log", "recover", path]).with_code(0).says(&["offsets 20 to 54"]);
}

#[test]
fn directories_of_kafkas_are_adopted_only_when_told() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/golden/kafka-4.3.1");
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("orders-0");
    fs::create_dir(&dir).unwrap();
    for (path, bytes) in image(&golden) {
        fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
    }
    let before = image(&dir);
    let path = dir.to_str().unwrap();
    floodmark(&["log", "recover", path]).with_code(2).says(&["no log.manifest", "Kafka wrote it", "--adopt"]);
    floodmark(&["log", "recover", path, "--adopt", "--dry-run"]).with_code(0).says(&["offsets 0 to 54"]);
    assert_eq!(image(&dir), before);
    floodmark(&["log", "recover", path, "--adopt"]).with_code(0).says(&["offsets 0 to 54"]);
    let after = image(&dir);
    for (file, bytes) in before.iter().filter(|(file, _)| !file.ends_with("README.md")) {
        let ending = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if matches!(ending, "log" | "txnindex" | "index" | "timeindex") {
            assert_eq!(after.get(file), Some(bytes), "{}", file.display());
        }
    }
    assert!(dir.join("log.manifest").exists());
    floodmark(&["log", "verify", path]).with_code(0);
    floodmark(&["log", "recover", path]).with_code(0).says(&["nothing to do"]);
}

#[test]
fn a_directory_in_use_is_dumped_and_verified_but_not_recovered() {
    let root = tempfile::tempdir().unwrap();
    let data = log_fixture::data_dir(root.path());
    let (mut log, dir) = log_fixture::open(&data, "ours");
    log_fixture::fill(&mut log);
    let dir = dir.to_str().unwrap();
    let before = image(Path::new(dir));
    let rows = floodmark(&["log", "dump", dir, "--records", "--output", "json"]).with_code(0).objects();
    assert_eq!(rows.len() as i64, log.end().0);
    floodmark(&["log", "verify", dir]).with_code(0);
    for options in [&["log", "recover", dir][..], &["log", "recover", dir, "--dry-run"]] {
        floodmark(options).with_code(2).says(&["another process uses this data directory"]);
    }
    assert_eq!(image(Path::new(dir)), before);
    drop(log);
    log_fixture::let_go(data);
    floodmark(&["log", "recover", dir]).with_code(0).says(&["read and checked"]);
}

#[test]
fn newer_formats_are_left_alone() {
    let fixture = Fixture::new();
    let manifest = fixture.dir.join("log.manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("floodmark log manifest 2", "floodmark log manifest 3")).unwrap();
    let before = image(&fixture.dir);
    for command in ["verify", "recover"] {
        fixture.run(command, &[]).with_code(2).says(&["version 3, newer than 2", "log.manifest"]);
    }
    assert_eq!(image(&fixture.dir), before);
    fs::write(&manifest, text).unwrap();
    let marker = fixture.data().join("floodmark.dir");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("floodmark data directory 1", "floodmark data directory 9")).unwrap();
    let data = fixture.data();
    for command in ["verify", "recover"] {
        floodmark(&["log", command, data.to_str().unwrap()]).with_code(2).says(&["format 9, newer than 1"]);
    }
}

#[test]
fn what_is_no_log_is_refused_in_words() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    for command in ["dump", "verify", "recover"] {
        floodmark(&["log", command, path]).with_code(2).says(&["error: ", "holds no log"]);
        let missing = root.path().join("missing");
        floodmark(&["log", command, missing.to_str().unwrap()])
            .with_code(2)
            .says(&["cannot look at", "No such file"]);
    }
    let note = root.path().join("notes.txt");
    fs::write(&note, "x").unwrap();
    floodmark(&["log", "dump", note.to_str().unwrap()]).with_code(2).says(&["is no file of a log"]);
    let snapshot = root.path().join("00000000000000000005.snapshot");
    fs::write(&snapshot, "x").unwrap();
    floodmark(&["log", "dump", snapshot.to_str().unwrap()]).with_code(2).says(&["cut short", "cannot show"]);
    // A data directory without a partition is in order.
    log_fixture::let_go(log_fixture::data_dir(root.path()));
    let data = root.path().join("data");
    floodmark(&["log", "verify", data.to_str().unwrap()]).with_code(0).says(&["no partitions yet"]);
    floodmark(&["log", "recover", data.to_str().unwrap()]).with_code(0);
}

#[test]
fn an_empty_log_is_in_order() {
    let root = tempfile::tempdir().unwrap();
    let data = log_fixture::data_dir(root.path());
    let (log, dir) = log_fixture::open(&data, "empty");
    log.close().unwrap();
    log_fixture::let_go(data);
    let dir = dir.to_str().unwrap();
    assert_eq!(floodmark(&["log", "dump", dir, "--output", "json"]).with_code(0).stdout, "");
    floodmark(&["log", "verify", dir]).with_code(0).says(&["nothing is damaged"]);
    floodmark(&["log", "recover", dir]).with_code(0).says(&["offsets 0 to 0"]);
}

#[test]
fn a_read_only_log_is_looked_into_and_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let mode = |mode| fs::set_permissions(&fixture.dir, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    fixture.run("dump", &[]).with_code(0);
    fixture.run("verify", &[]).with_code(0);
    let probe = fixture.dir.join("probe");
    // A superuser may write all the same.
    if fs::write(&probe, "").is_err() {
        fs::remove_file(fixture.dir.join("log.manifest")).unwrap_err();
    }
    mode(0o755);
}

#[test]
fn recovering_on_a_read_only_file_system_is_refused_but_for_a_dry_run() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.dir.join("log.manifest")).unwrap();
    let (before, data, dir) = (image(&fixture.dir), fixture.data(), fixture.dir.display().to_string());
    let recover = |options: &str| {
        let script = format!(
            "mount --bind '{data}' '{data}' && mount -o remount,bind,ro '{data}' || exit 77; exec '{program}' log recover '{dir}' {options}",
            data = data.display(),
            program = env!("CARGO_BIN_EXE_floodmark"),
        );
        // In a name space of its own, so that any user may mount and nobody else sees it.
        let output = Command::new("unshare").args(["-rm", "sh", "-c", &script]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        // Where the system lets nobody have such a name space, there is nothing to be tried.
        let is_barred = ran.code == 77 || ran.stderr.starts_with("unshare:");
        (!is_barred).then_some(ran)
    };
    let Some(refused) = recover("") else { return };
    let refused = refused.with_code(2);
    assert!(refused.stderr.contains("mounted read-only; remount it for writing"), "{}", refused.stderr);
    let Some(told) = recover("--dry-run") else { return };
    told.with_code(0).says(&["would be rebuilt", "log.manifest", "nothing was changed"]);
    assert_eq!(image(&fixture.dir), before);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let fixture = Fixture::new();
    for _ in 0..20 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_floodmark"))
            .args(["log", "dump", fixture.data().to_str().unwrap(), "--records", "--full"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn help_and_version_tell_how() {
    floodmark(&["--version"]).with_code(0).says(&["floodmark 0.1.0"]);
    floodmark(&["log", "--help"]).with_code(0).says(&["dump", "verify", "recover"]);
    for command in ["dump", "verify", "recover"] {
        floodmark(&["log", command, "--help"])
            .with_code(0)
            .says(&["Examples:", &format!("floodmark log {command} ")]);
    }
    for wrong in [&["log"][..], &["log", "burn"], &["log", "dump"], &["log", "dump", "x", "--from", "-1"]] {
        assert_eq!(floodmark(wrong).code, 2, "{wrong:?}");
    }
}
