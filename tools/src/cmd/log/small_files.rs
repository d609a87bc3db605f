//! Dumps of the files beside the batches: indexes, snapshots, checkpoints.

use std::path::Path;

use anyhow::{Context as _, bail};
use floodmark_proto::ids::Offset;
use floodmark_storage::fs::{Disk, OpenMode, read_full_at, read_small_file};
use floodmark_storage::index::{
    AbortedTransaction, OffsetEntry, TimeEntry, offset_index, time_index, transaction_index,
};
use floodmark_storage::key_index::WholeKeyIndex;
use floodmark_storage::leader_epochs::LeaderEpochs;
use floodmark_storage::manifest::{Manifest, SegmentRecord};
use floodmark_storage::partition_metadata;
use floodmark_storage::producers::ProducerStates;
use serde_json::json;

use super::place::FileKind;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, time};

/// As much as the log itself reads of such a file.
const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
/// Entries read at a time.
const CHUNK_ENTRIES: usize = 8192;

/// Which rows to show.
pub(super) struct Range {
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) left: u64,
}

impl Range {
    /// True where a row at `offset` is to be shown; counts it.
    fn takes(&mut self, offset: Offset) -> bool {
        let is_in = offset >= self.from && offset < self.to && self.left > 0;
        self.left -= u64::from(is_in);
        is_in
    }
}

/// A table or objects, as asked.
struct Rows<'a> {
    sink: &'a mut Sink,
    format: Format,
    pages: Pages,
    names: Vec<&'static str>,
    kind: &'static str,
}

impl<'a> Rows<'a> {
    fn new(sink: &'a mut Sink, format: Format, kind: &'static str, columns: &[Column]) -> Rows<'a> {
        let names = columns.iter().map(|(Column::Number(name) | Column::Text(name))| *name).collect();
        Rows { sink, format, pages: Pages::new(columns), names, kind }
    }

    /// `null` for what is not there.
    fn row(&mut self, values: &[serde_json::Value]) -> anyhow::Result<()> {
        if self.format == Format::Json {
            let mut object = serde_json::Map::new();
            object.insert("kind".to_owned(), json!(self.kind));
            for (name, value) in self.names.iter().zip(values) {
                object.insert(name.replace(' ', "_"), value.clone());
            }
            return Ok(self.sink.json(&object)?);
        }
        let cells = values.iter().map(|value| match value {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Ok(self.pages.row(self.sink, cells.collect())?)
    }

    fn end(mut self) -> anyhow::Result<()> {
        Ok(self.pages.flush(self.sink)?)
    }
}

/// Shows one file. Fails where it cannot be read, or is not what its name says.
pub(super) fn dump(
    disk: &dyn Disk,
    path: &Path,
    (kind, base): (FileKind, Offset),
    range: Range,
    format: Format,
    sink: &mut Sink,
) -> anyhow::Result<()> {
    match kind {
        FileKind::OffsetIndex => return offset_entries(disk, path, base, range, format, sink),
        FileKind::TimeIndex => return time_entries(disk, path, base, range, format, sink),
        _ => {}
    }
    let content = read_small_file(disk, path, SMALL_FILE_BYTES_MAX);
    let content = content.with_context(|| format!("cannot read {}", path.display()))?.unwrap_or_default();
    let outcome = match kind {
        FileKind::TransactionIndex => transactions(&content, range, format, sink),
        FileKind::KeyIndex => keys(content, range, format, sink),
        FileKind::Snapshot => producers(&content, base, format, sink),
        FileKind::LeaderEpochs => epochs(&content, range, format, sink),
        FileKind::PartitionMetadata => metadata(&content, format, sink),
        FileKind::Manifest => manifest(&content, format, sink),
        FileKind::Data | FileKind::OffsetIndex | FileKind::TimeIndex | FileKind::Lines => {
            lines(&content, format, sink)
        }
    };
    outcome.with_context(|| format!("cannot show {}", path.display()))
}

/// Calls `each` with every entry but the zeros at the end, with which Kafka fills an index ahead of time; returns how many of
/// these there are.
fn entries<const N: usize>(
    disk: &dyn Disk,
    path: &Path,
    mut each: impl FnMut(u64, &[u8; N]) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    let context = || format!("cannot read {}", path.display());
    let file = disk.open(path, OpenMode::Read).with_context(context)?;
    let mut chunk = vec![0; CHUNK_ENTRIES * N];
    let (mut n, mut zeros) = (0, 0);
    loop {
        let read = read_full_at(&*file, &mut chunk, n * N as u64).with_context(context)?;
        let (whole, rest) = chunk[..read].as_chunks::<N>();
        for entry in whole {
            if entry == &[0; N] {
                zeros += 1;
            } else {
                // Zeros between entries are entries, if wrong ones.
                for skipped in n - zeros..n {
                    each(skipped, &[0; N])?;
                }
                zeros = 0;
                if !each(n, entry)? {
                    return Ok(0);
                }
            }
            n += 1;
        }
        if read < chunk.len() {
            if !rest.is_empty() {
                bail!("{} ends with {} bytes that are no whole entry", path.display(), rest.len());
            }
            return Ok(zeros);
        }
    }
}

fn offset_entries(
    disk: &dyn Disk,
    path: &Path,
    base: Offset,
    mut range: Range,
    format: Format,
    sink: &mut Sink,
) -> anyhow::Result<()> {
    let columns = [Column::Number("entry"), Column::Number("offset"), Column::Number("position")];
    let mut rows = Rows::new(sink, format, "offset_index_entry", &columns);
    let zeros = entries(disk, path, |n, bytes| {
        let entry = OffsetEntry::decode(bytes);
        let offset = entry.offset(base);
        if range.takes(offset) {
            rows.row(&[json!(n), json!(offset.0), json!(entry.position)])?;
        }
        Ok(range.left > 0)
    });
    rows.end()?;
    preallocated(zeros?, offset_index::ENTRY_LEN, format, sink)
}

fn time_entries(
    disk: &dyn Disk,
    path: &Path,
    base: Offset,
    mut range: Range,
    format: Format,
    sink: &mut Sink,
) -> anyhow::Result<()> {
    let columns = [
        Column::Number("entry"),
        Column::Number("timestamp ms"),
        Column::Text("timestamp"),
        Column::Number("offset"),
    ];
    let mut rows = Rows::new(sink, format, "time_index_entry", &columns);
    let zeros = entries(disk, path, |n, bytes| {
        let entry = TimeEntry::decode(bytes);
        let offset = entry.offset(base);
        if range.takes(offset) {
            let time = json!(time::rfc3339(entry.timestamp));
            rows.row(&[json!(n), json!(entry.timestamp), time, json!(offset.0)])?;
        }
        Ok(range.left > 0)
    });
    rows.end()?;
    preallocated(zeros?, time_index::ENTRY_LEN, format, sink)
}

fn preallocated(zeros: u64, entry_len: usize, format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let bytes = zeros * entry_len as u64;
    match format {
        _ if zeros == 0 => {}
        Format::Json => sink.json(&json!({ "kind": "written_ahead", "bytes": bytes }))?,
        Format::Table => {
            sink.line(&format!(
                "  {bytes} zeros behind the last entry, as a broker keeps them while it runs"
            ))?;
        }
    }
    Ok(())
}

fn transactions(content: &[u8], mut range: Range, format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let columns = [
        Column::Number("producer"),
        Column::Number("first offset"),
        Column::Number("last offset"),
        Column::Number("last stable offset"),
    ];
    let mut rows = Rows::new(sink, format, "aborted_transaction", &columns);
    let whole = transaction_index::valid_prefix(content) * transaction_index::ENTRY_LEN;
    for entry in transaction_index::parse(&content[..whole])? {
        if range.takes(entry.last_offset) {
            let AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset } = entry;
            rows.row(&[
                json!(producer_id.0),
                json!(first_offset.0),
                json!(last_offset.0),
                json!(last_stable_offset.0),
            ])?;
        }
    }
    rows.end()?;
    transaction_index::parse(content)?;
    Ok(())
}

/// Keys are in no index: records with one tag have the same key, as good as always.
fn keys(content: Vec<u8>, mut range: Range, format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let columns = [Column::Text("key tag"), Column::Number("offset"), Column::Number("position")];
    let index = WholeKeyIndex::parse(content)?;
    let mut rows = Rows::new(sink, format, "key_index_entry", &columns);
    for place in index.places()? {
        if range.takes(place.offset) {
            rows.row(&[json!(format!("{:08x}", place.tag)), json!(place.offset.0), json!(place.position)])?;
        }
    }
    rows.end()
}

fn producers(content: &[u8], at: Offset, format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let columns = [
        Column::Number("producer"),
        Column::Number("epoch"),
        Column::Number("last sequence"),
        Column::Number("last offset"),
        Column::Number("offset delta"),
        Column::Number("timestamp ms"),
        Column::Text("timestamp"),
        Column::Number("coordinator epoch"),
        Column::Number("open since"),
    ];
    let states = ProducerStates::from_snapshot(content, at)?;
    let mut rows = Rows::new(sink, format, "producer", &columns);
    for state in states.iter() {
        let last = state.last_batch();
        rows.row(&[
            json!(state.producer_id.0),
            json!(state.epoch),
            json!(last.map(|b| b.last_sequence)),
            json!(last.map(|b| b.last_offset.0)),
            json!(last.map(|b| b.offset_delta)),
            json!(state.last_timestamp),
            json!(time::rfc3339(state.last_timestamp)),
            json!(state.coordinator_epoch),
            json!(state.open_transaction.map(|first| first.0)),
        ])?;
    }
    rows.end()
}

fn epochs(content: &[u8], mut range: Range, format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let columns = [Column::Number("leader epoch"), Column::Number("start offset")];
    let mut rows = Rows::new(sink, format, "leader_epoch", &columns);
    for entry in LeaderEpochs::parse(content)?.entries() {
        if range.takes(entry.start_offset) {
            rows.row(&[json!(entry.epoch.0), json!(entry.start_offset.0)])?;
        }
    }
    rows.end()
}

fn metadata(content: &[u8], format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let topic_id = match content {
        // Reserved, so it is not one of the topic ids.
        c if c == partition_metadata::OF_METADATA_LOG.as_bytes() => "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        other => partition_metadata::parse(other)?.to_string(),
    };
    let mut rows = Rows::new(sink, format, "partition_metadata", &[Column::Text("topic id")]);
    rows.row(&[json!(topic_id)])?;
    rows.end()
}

fn manifest(content: &[u8], format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    let manifest = Manifest::parse(content)?;
    let facts = [
        Column::Number("log start"),
        Column::Number("first dirty"),
        Column::Number("recovery point"),
        Column::Text("closed"),
        Column::Text("epochs crc"),
        Column::Number("truncating to"),
        Column::Number("replacing"),
    ];
    let mut rows = Rows::new(sink, format, "manifest", &facts);
    rows.row(&[
        json!(manifest.log_start.0),
        json!(manifest.first_dirty.0),
        json!(manifest.recovery_point().0),
        json!(manifest.is_closed),
        json!(manifest.epochs.map(|crc| format!("{crc:08x}"))),
        json!(manifest.truncating_to.map(|o| o.0)),
        json!(manifest.replacing.map(|o| o.0)),
    ])?;
    rows.end()?;
    let columns = [
        Column::Text("state"),
        Column::Number("base offset"),
        Column::Number("bytes"),
        Column::Number("end offset"),
        Column::Number("largest timestamp ms"),
        Column::Text("largest timestamp"),
        Column::Number("at offset"),
        Column::Number("aborted"),
        Column::Text("aborted crc"),
    ];
    let mut rows = Rows::new(sink, format, "manifest_segment", &columns);
    let mut row = |state: &str, segment: &SegmentRecord| {
        let largest = segment.largest_timestamp;
        rows.row(&[
            json!(state),
            json!(segment.base_offset.0),
            json!(segment.size_bytes),
            json!(segment.end_offset.0),
            json!(largest.map(|l| l.timestamp)),
            json!(largest.and_then(|l| time::rfc3339(l.timestamp))),
            json!(largest.map(|l| l.offset.0)),
            json!(segment.aborted.map(|a| a.entries)),
            json!(segment.aborted.map(|a| format!("{:08x}", a.crc))),
        ])
    };
    for segment in &manifest.sealed {
        row("sealed", segment)?;
    }
    row("active", &manifest.active)?;
    rows.end()
}

/// Text that is shown as it is.
fn lines(content: &[u8], format: Format, sink: &mut Sink) -> anyhow::Result<()> {
    for (n, line) in (1..).zip(String::from_utf8_lossy(content).lines()) {
        match format {
            Format::Table => sink.line(line)?,
            Format::Json => sink.json(&json!({ "kind": "line", "line": n, "text": line }))?,
        }
    }
    Ok(())
}
