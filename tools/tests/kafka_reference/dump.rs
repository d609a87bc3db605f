//! Kafka's `DumpLogSegments` over any files, ours included, and its answer in parts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{self, Finished};
use super::toolchain::Kafka;

const DEADLINE: Duration = Duration::from_secs(120);

/// What the tool prints where something is wrong; it ends with success all the same.
const COMPLAINTS: [&str; 6] = [
    "isvalid: false",
    "Mismatches in",
    "Found timestamp mismatch",
    "Found out of order timestamp",
    "Found invalid",
    "invalid bytes at the end",
];

/// How files are looked at. Snapshots and transaction indexes are printed in every mode.
#[derive(Clone, Copy)]
pub(crate) enum DumpMode {
    /// All batches and records of `.log` files, all entries of the indexes, each checked against its log.
    Contents,
    /// Only whether the entries of `.index` and `.timeindex` point at the right batches.
    VerifyIndexes,
    /// Only what a broker checks of indexes when it starts.
    IndexSanity,
}

/// What `DumpLogSegments` said.
pub(crate) struct Dump {
    /// Its standard output.
    pub(crate) text: String,
    /// Its standard error.
    pub(crate) errors: String,
    succeeded: bool,
}

/// A batch as Kafka sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DumpedBatch {
    /// Name of the folder, `<topic>-<partition>`.
    pub(crate) folder: String,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) count: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i64,
    pub(crate) base_sequence: i64,
    pub(crate) leader_epoch: i64,
    pub(crate) is_transactional: bool,
    pub(crate) is_control: bool,
    /// From the start of its file.
    pub(crate) position: i64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) is_append_time: bool,
    pub(crate) size: i64,
    /// Kafka's name of it: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub(crate) codec: String,
    pub(crate) crc: i64,
}

/// A record as Kafka sees it; keys and values as text, so only for records whose bytes are text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DumpedRecord {
    /// Name of the folder, `<topic>-<partition>`.
    pub(crate) folder: String,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    /// Names alone; the tool prints no header values, and nothing at all for an empty name.
    pub(crate) header_names: String,
    /// `COMMIT` or `ABORT` for a transaction marker.
    pub(crate) marker: Option<String>,
}

impl Kafka {
    /// Runs `DumpLogSegments --deep-iteration --print-data-log` or its index checks over `files`: `.log`, `.index`, `.timeindex`,
    /// `.snapshot`, `.txnindex`. An index is compared with the `.log` beside it.
    pub(crate) fn dump(&self, files: &[PathBuf], mode: DumpMode) -> Dump {
        assert!(!files.is_empty(), "no files to dump");
        let names: Vec<&str> = files.iter().map(|f| f.to_str().unwrap()).collect();
        let mut command = self.java();
        command.arg("org.apache.kafka.tools.DumpLogSegments");
        match mode {
            DumpMode::Contents => command.args(["--deep-iteration", "--print-data-log"]),
            DumpMode::VerifyIndexes => command.arg("--verify-index-only"),
            DumpMode::IndexSanity => command.arg("--index-sanity-check"),
        };
        command.arg("--files").arg(names.join(","));
        let dir = tempfile::tempdir().unwrap();
        let Finished { status, stdout, stderr } = process::run(command, dir.path(), "dump", DEADLINE);
        Dump { text: stdout, errors: stderr, succeeded: status.success() }
    }
}

impl Dump {
    /// All lines in which Kafka finds fault, empty for good files. Gaps between offsets are no fault, since compaction leaves them.
    pub(crate) fn faults(&self) -> Vec<String> {
        let complaints = self.text.lines().chain(self.errors.lines());
        let mut faults: Vec<String> = complaints
            .filter(|line| COMPLAINTS.iter().any(|c| line.contains(c)))
            .map(|line| line.chars().take(400).collect())
            .collect();
        if !self.succeeded {
            faults.push(format!("DumpLogSegments failed: {}", self.errors));
        }
        faults
    }

    /// Panics where Kafka finds fault.
    #[track_caller]
    pub(crate) fn assert_good(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "Kafka finds fault:\n{}", faults.join("\n"));
    }

    /// All batches, file by file in the order in which Kafka printed them.
    pub(crate) fn batches(&self) -> Vec<DumpedBatch> {
        self.lines_by_folder().filter_map(|(folder, line)| batch(folder, line)).collect()
    }

    /// All records, file by file in the order in which Kafka printed them.
    pub(crate) fn records(&self) -> Vec<DumpedRecord> {
        self.lines_by_folder().filter_map(|(folder, line)| record(folder, line)).collect()
    }

    /// Offset and time of every record, markers included, whatever its bytes.
    pub(crate) fn places(&self) -> Vec<(i64, i64)> {
        let sizes = self.text.lines().filter(|line| line.starts_with("| offset: "));
        sizes.map(|line| (number(line, "offset"), number(line, "CreateTime"))).collect()
    }

    fn lines_by_folder(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut folder = "";
        self.text.lines().map(move |line| {
            if let Some(path) = line.strip_prefix("Dumping ") {
                folder =
                    Path::new(path).parent().and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("");
            }
            (folder, line)
        })
    }
}

/// A line `baseOffset: 0 lastOffset: 2 count: 3 …`.
fn batch(folder: &str, line: &str) -> Option<DumpedBatch> {
    line.strip_prefix("baseOffset: ")?;
    let is_append_time = line.contains(" LogAppendTime: ");
    let time = if is_append_time { "LogAppendTime" } else { "CreateTime" };
    Some(DumpedBatch {
        folder: folder.to_owned(),
        base_offset: number(line, "baseOffset"),
        last_offset: number(line, "lastOffset"),
        count: number(line, "count"),
        producer_id: number(line, "producerId"),
        producer_epoch: number(line, "producerEpoch"),
        base_sequence: number(line, "baseSequence"),
        leader_epoch: number(line, "partitionLeaderEpoch"),
        is_transactional: field(line, "isTransactional") == "true",
        is_control: field(line, "isControl") == "true",
        position: number(line, "position"),
        max_timestamp_ms: number(line, time),
        is_append_time,
        size: number(line, "size"),
        codec: field(line, "compresscodec").to_owned(),
        crc: number(line, "crc"),
    })
}

/// A line `| offset: 3 CreateTime: 17 keySize: 5 valueSize: 7 sequence: 0 headerKeys: [] key: one payload: two`.
fn record(folder: &str, line: &str) -> Option<DumpedRecord> {
    let line = line.strip_prefix("| ")?;
    let (sizes, rest) = line.split_once(" headerKeys: [").unwrap();
    let (header_names, content) = rest.split_once(']').unwrap();
    let time = if sizes.contains("LogAppendTime: ") { "LogAppendTime" } else { "CreateTime" };
    let marker = content.strip_prefix(" endTxnMarker: ").map(|m| m.split(' ').next().unwrap().to_owned());
    let (mut key, mut value) = (None, None);
    if marker.is_none() {
        // The sizes tell a missing key from an empty one, and where the key ends.
        let mut content = content;
        if let Ok(bytes) = usize::try_from(number(sizes, "keySize")) {
            let text = content.strip_prefix(" key: ").unwrap();
            key = Some(text[..bytes].to_owned());
            content = &text[bytes..];
        }
        if number(sizes, "valueSize") >= 0 {
            value = Some(content.strip_prefix(" payload: ").unwrap().to_owned());
        }
    }
    Some(DumpedRecord {
        folder: folder.to_owned(),
        offset: number(sizes, "offset"),
        timestamp_ms: number(sizes, time),
        key,
        value,
        header_names: header_names.to_owned(),
        marker,
    })
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start = if line.starts_with(name) { format!("{name}: ") } else { format!(" {name}: ") };
    let (_, rest) = line.split_once(&start).unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.split(' ').next().unwrap_or(rest)
}

fn number(line: &str, name: &str) -> i64 {
    field(line, name).parse().unwrap_or_else(|e| panic!("{name} in {line}: {e}"))
}
