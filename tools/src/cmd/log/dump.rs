//! `floodmark log dump`: what is in a log, row by row. Reads only, takes no lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use floodmark_proto::batch::BatchError;
use floodmark_proto::ids::Offset;
use floodmark_storage::fs::{Disk, OpenMode, RealDisk};
use floodmark_storage::segment::name;
use floodmark_storage::segment::scan::Scanned;
use floodmark_storage::segment::survey::{BadBytes, Piece, Survey};
use serde::Serialize;

use super::batch_rows::{BATCH_COLUMNS, BatchRow, Control, RECORD_COLUMNS, RecordRow, RecordStyle, records};
use super::place::{self, FileKind, Place};
use super::small_files;
use crate::cmd::Outcome;
use crate::output::table::Pages;
use crate::output::{Format, Sink};

pub(super) const EXAMPLES: &str = "\
Examples:
  floodmark log dump data/logs/orders-0                        batches of a partition
  floodmark log dump data/logs/orders-0 --records --from 1000 --max 20
  floodmark log dump data/logs/orders-0 --records --output json | jq .value
  floodmark log dump data/logs/orders-0/00000000000000000000.timeindex
  floodmark log dump /var/lib/kafka/data/orders-0              Kafka's own directories as well

In tables text stands in quotes, other bytes as base64:…, no bytes as null. In JSON bytes are {\"utf8\": …}, {\"base64\": …} or null.
The log may be in use: nothing is written and no lock is taken. The exit code is 1 where damage was shown.";

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// A partition's directory, a directory with many, or one file of a log.
    path: PathBuf,
    /// Show each record, not only each batch.
    #[arg(long)]
    records: bool,
    /// First offset to show.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    from: i64,
    /// Offset to stop before.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// Rows to show at most.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Show keys, values and headers in full length in tables.
    #[arg(long)]
    full: bool,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Characters of a key or value in a table without `--full`.
const CELL_WIDTH: usize = 40;

pub(super) fn run(args: &DumpArgs) -> anyhow::Result<Outcome> {
    let disk = RealDisk;
    let mut dump = Dump {
        disk: Arc::new(disk),
        sink: Sink::stdout(),
        format: args.output,
        from: Offset(args.from),
        to: args.to.map_or(Offset::MAX, Offset),
        left: args.max.unwrap_or(u64::MAX),
        records: args.records.then_some(RecordStyle { width: (!args.full).then_some(CELL_WIDTH) }),
        pages: Pages::new(if args.records { &RECORD_COLUMNS } else { &BATCH_COLUMNS }),
        scratch: Vec::new(),
        has_damage: false,
    };
    match place::find(&disk, &args.path)? {
        Place::File(path, FileKind::Data, base) => dump.data_file(&path, base)?,
        Place::File(path, kind, base) => {
            let rows = small_files::Range { from: dump.from, to: dump.to, left: dump.left };
            small_files::dump(&disk, &path, (kind, base), rows, args.output, &mut dump.sink)?;
        }
        Place::Partitions(partitions) => {
            for partition in partitions {
                dump.partition(&partition)?;
            }
        }
    }
    dump.sink.flush()?;
    Ok(if dump.has_damage { Outcome::Damaged } else { Outcome::Good })
}

struct Dump {
    disk: Arc<dyn Disk>,
    sink: Sink,
    format: Format,
    from: Offset,
    to: Offset,
    /// Rows that may still be shown.
    left: u64,
    /// How to show records; `None` for batches.
    records: Option<RecordStyle>,
    pages: Pages,
    scratch: Vec<u8>,
    /// Something that was shown is not what was written.
    has_damage: bool,
}

/// Bytes that are no batch.
#[derive(Serialize)]
struct OtherBytes<'a> {
    kind: &'static str,
    file: &'a Path,
    position: u64,
    bytes: u64,
    reason: Option<String>,
}

impl Dump {
    fn partition(&mut self, dir: &Path) -> anyhow::Result<()> {
        let entries = self.disk.list(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let data: Vec<(Offset, PathBuf)> = entries
            .iter()
            .filter_map(|entry| match name::parse(&entry.name) {
                Some((base, name::FileKind::Data)) => Some((base, dir.join(&entry.name))),
                _ => None,
            })
            .collect();
        for (n, (base, path)) in data.iter().enumerate() {
            let is_before = data.get(n + 1).is_some_and(|(next, _)| *next <= self.from);
            if is_before || *base >= self.to || self.left == 0 {
                continue;
            }
            self.data_file(path, *base)?;
        }
        Ok(())
    }

    fn data_file(&mut self, path: &Path, base: Offset) -> anyhow::Result<()> {
        let file = self
            .disk
            .open(path, OpenMode::Read)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if self.format == Format::Table {
            self.sink.line(&path.display().to_string())?;
        }
        let mut survey = Survey::new(file, path, base)?;
        while self.left > 0
            && let Some(piece) = survey.step()?
        {
            match piece {
                Piece::Batch(batch) if batch.header.base_offset >= self.to => break,
                Piece::Batch(batch) if batch.header.last_offset() < self.from => {}
                Piece::Batch(batch) => self.batch(path, &batch)?,
                Piece::Bad(bad) => self.bad_bytes(path, &bad)?,
                Piece::Zeros { position, bytes } => self.zeros(path, position, bytes)?,
            }
        }
        Ok(self.pages.flush(&mut self.sink)?)
    }

    fn batch(&mut self, path: &Path, batch: &Scanned<'_>) -> anyhow::Result<()> {
        let control = Control::of(batch.bytes, &batch.header);
        let row = BatchRow {
            file: path,
            position: batch.position,
            header: &batch.header,
            is_crc_ok: Some(true),
            control,
        };
        match self.records {
            None => self.batch_row(&row),
            Some(style) => match self.record_rows(&row, batch.bytes, style)? {
                None => Ok(()),
                Some(e) => {
                    let reason = format!(
                        "the records of the batch at offset {} do not decode: {e}",
                        batch.header.base_offset
                    );
                    self.other("damage", path, (batch.position, batch.bytes.len() as u64), Some(reason))
                }
            },
        }
    }

    fn batch_row(&mut self, row: &BatchRow<'_>) -> anyhow::Result<()> {
        self.left -= 1;
        match self.format {
            Format::Json => self.sink.json(&row.object())?,
            Format::Table => self.pages.row(&mut self.sink, row.cells())?,
        }
        Ok(())
    }

    /// Shows the records; returns what stopped that, where something is wrong with them.
    fn record_rows(
        &mut self,
        batch: &BatchRow<'_>,
        bytes: &[u8],
        style: RecordStyle,
    ) -> anyhow::Result<Option<BatchError>> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.record_rows_in(batch, bytes, style, &mut scratch);
        self.scratch = scratch;
        outcome
    }

    fn record_rows_in(
        &mut self,
        batch: &BatchRow<'_>,
        bytes: &[u8],
        style: RecordStyle,
        scratch: &mut Vec<u8>,
    ) -> anyhow::Result<Option<BatchError>> {
        let records = match records(bytes, scratch) {
            Ok(records) => records,
            Err(e) => return Ok(Some(e)),
        };
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(e) => return Ok(Some(e)),
            };
            if record.offset < self.from {
                continue;
            }
            if record.offset >= self.to || self.left == 0 {
                break;
            }
            let row = RecordRow { batch, record: &record };
            match self.format {
                Format::Json => match row.object() {
                    Ok(object) => self.sink.json(&object)?,
                    Err(e) => return Ok(Some(e)),
                },
                Format::Table => match row.cells(style) {
                    Ok(cells) => self.pages.row(&mut self.sink, cells)?,
                    Err(e) => return Ok(Some(e)),
                },
            }
            self.left -= 1;
        }
        Ok(None)
    }

    fn bad_bytes(&mut self, path: &Path, bad: &BadBytes) -> anyhow::Result<()> {
        // A batch whose checksum alone is wrong still has a header worth seeing.
        if let (Some(header), BatchError::CrcMismatch { .. }, None) = (&bad.header, &bad.reason, self.records)
        {
            let row = BatchRow {
                file: path,
                position: bad.position,
                header,
                is_crc_ok: Some(false),
                control: None,
            };
            self.batch_row(&row)?;
        }
        let reason = if bad.begins_with_zeros {
            "zeros where a batch should be".to_owned()
        } else {
            bad.reason.to_string()
        };
        self.other("damage", path, (bad.position, bad.bytes), Some(reason))
    }

    fn zeros(&mut self, path: &Path, position: u64, bytes: u64) -> anyhow::Result<()> {
        self.other("written_ahead", path, (position, bytes), None)
    }

    /// Tells of bytes that are no batch, in the place where they are.
    fn other(
        &mut self,
        kind: &'static str,
        path: &Path,
        (position, bytes): (u64, u64),
        reason: Option<String>,
    ) -> anyhow::Result<()> {
        self.has_damage |= reason.is_some();
        if self.format == Format::Json {
            return Ok(self.sink.json(&OtherBytes { kind, file: path, position, bytes, reason })?);
        }
        self.pages.flush(&mut self.sink)?;
        let text = match reason {
            Some(reason) => format!("  damage: {bytes} bytes from byte {position} on: {reason}"),
            None => format!(
                "  {bytes} zeros from byte {position} on, written ahead of the log's end: a broker has the log open, or did not close it"
            ),
        };
        Ok(self.sink.line(&text)?)
    }
}
