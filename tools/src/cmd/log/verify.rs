//! `floodmark log verify`: every byte of every log below some directories, and all that is wrong with them.

use std::path::{Path, PathBuf};

use clap::Args;
use floodmark_storage::data_dir;
use floodmark_storage::fs::RealDisk;
use floodmark_storage::verify::{Finding, Severity, Summary, Watch, data_bytes, verify_partition};
use indicatif::ProgressBar;
use serde::Serialize;

use super::place;
use crate::cmd::Outcome;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, note, progress_bar};

pub(super) const EXAMPLES: &str = "\
Examples:
  floodmark log verify data                       every partition of a data directory
  floodmark log verify data/logs/orders-0 --output json
  floodmark log verify /var/lib/kafka/data        Kafka's own directories as well

Exit code: 0 where nothing is damaged, 1 where something is, 2 where something could not be looked at.
Warnings are no damage: opening the log puts them right. The log may be in use: nothing is written and no lock is taken.";

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Directories of partitions, or directories with many.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Serialize)]
struct FindingObject<'a> {
    kind: &'static str,
    severity: &'static str,
    file: &'a Path,
    byte: Option<u64>,
    offset: Option<i64>,
    found: &'a str,
    expected: &'a str,
}

#[derive(Serialize)]
struct PartitionObject<'a> {
    kind: &'static str,
    dir: &'a Path,
    has_manifest: bool,
    segments: u64,
    batches: u64,
    records: u64,
    batch_bytes: u64,
    written_ahead_bytes: u64,
    start_offset: i64,
    end_offset: i64,
    gaps: u64,
    gap_offsets: u64,
    damage: u64,
    warnings: u64,
}

#[derive(Default, Serialize)]
struct Total {
    kind: &'static str,
    partitions: u64,
    batches: u64,
    records: u64,
    batch_bytes: u64,
    damage: u64,
    warnings: u64,
    not_checked: u64,
}

const COLUMNS: [Column; 10] = [
    Column::Text("partition"),
    Column::Number("segments"),
    Column::Number("batches"),
    Column::Number("records"),
    Column::Number("bytes"),
    Column::Number("start"),
    Column::Number("end"),
    Column::Number("gaps"),
    Column::Number("damage"),
    Column::Number("warnings"),
];

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let disk = RealDisk;
    let mut partitions = Vec::new();
    for dir in &args.dirs {
        // A directory that a newer Floodmark wrote is not for this one to judge.
        let identity = data_dir::identity(&disk, dir)?;
        match place::partitions(&disk, dir) {
            Err(_) if identity.is_some() => note(&format!("{} holds no partitions yet", dir.display())),
            found => partitions.extend(found?),
        }
    }
    partitions.sort();
    partitions.dedup();
    let bytes: u64 = partitions.iter().map(|dir| data_bytes(&disk, dir).unwrap_or(0)).sum();
    let mut verify = Verify {
        sink: Sink::stdout(),
        format: args.output,
        pages: Pages::new(&COLUMNS),
        bar: progress_bar(bytes),
        total: Total { kind: "summary", ..Total::default() },
        without_manifest: 0,
    };
    for dir in &partitions {
        verify.partition(&disk, dir)?;
    }
    verify.finish()
}

struct Verify {
    sink: Sink,
    format: Format,
    pages: Pages,
    bar: ProgressBar,
    total: Total,
    /// Partitions with batches and no manifest.
    without_manifest: u64,
}

impl Verify {
    fn partition(&mut self, disk: &RealDisk, dir: &Path) -> anyhow::Result<()> {
        // A line that cannot be written is told at the end; the walk does not know of output.
        let mut written = Ok(());
        let (sink, bar, format) = (&mut self.sink, &self.bar, self.format);
        let mut on_finding = |finding: &Finding| {
            if written.is_ok() {
                written = bar.suspend(|| show(finding, format, sink).and_then(|()| sink.flush()));
            }
        };
        let mut on_bytes = |bytes| bar.inc(bytes);
        let watch = Watch { on_finding: &mut on_finding, on_bytes: &mut on_bytes };
        let outcome = verify_partition(disk, dir, watch);
        written?;
        self.total.partitions += 1;
        match outcome {
            Ok(summary) => self.summary(dir, &summary),
            Err(e) => {
                self.total.not_checked += 1;
                self.bar.suspend(|| note(&format!("error: cannot check {}: {e}", dir.display())));
                Ok(())
            }
        }
    }

    fn summary(&mut self, dir: &Path, summary: &Summary) -> anyhow::Result<()> {
        self.total.batches += summary.batches;
        self.total.records += summary.records;
        self.total.batch_bytes += summary.batch_bytes;
        self.total.damage += summary.damage;
        self.total.warnings += summary.warnings;
        self.without_manifest += u64::from(!summary.has_manifest && summary.batches > 0);
        if self.format == Format::Json {
            return Ok(self.sink.json(&PartitionObject {
                kind: "partition",
                dir,
                has_manifest: summary.has_manifest,
                segments: summary.segments,
                batches: summary.batches,
                records: summary.records,
                batch_bytes: summary.batch_bytes,
                written_ahead_bytes: summary.written_ahead_bytes,
                start_offset: summary.start.0,
                end_offset: summary.end.0,
                gaps: summary.gaps,
                gap_offsets: summary.gap_offsets,
                damage: summary.damage,
                warnings: summary.warnings,
            })?);
        }
        let name =
            dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
        let gaps = match summary.gaps {
            0 => "-".to_owned(),
            gaps => format!("{gaps} ({} offsets)", summary.gap_offsets),
        };
        let cells = vec![
            name,
            summary.segments.to_string(),
            summary.batches.to_string(),
            summary.records.to_string(),
            summary.batch_bytes.to_string(),
            summary.start.to_string(),
            summary.end.to_string(),
            gaps,
            summary.damage.to_string(),
            summary.warnings.to_string(),
        ];
        if summary.written_ahead_bytes > 0 {
            let text = format!(
                "note: {}: {} zeros written ahead of the log's end: a broker has the log open, or did not close it",
                dir.display(),
                summary.written_ahead_bytes
            );
            self.bar.suspend(|| note(&text));
        }
        Ok(self.pages.row(&mut self.sink, cells)?)
    }

    fn finish(mut self) -> anyhow::Result<Outcome> {
        self.bar.finish_and_clear();
        self.pages.flush(&mut self.sink)?;
        if self.without_manifest > 0 {
            note(&format!(
                "note: {} of the partitions have no log.manifest, as Kafka's have none: whether batches are missing at their end cannot be told",
                self.without_manifest
            ));
        }
        let total = &self.total;
        match self.format {
            Format::Json => self.sink.json(total)?,
            Format::Table => {
                let verdict = match total.damage {
                    0 => "nothing is damaged".to_owned(),
                    1 => "1 place is damaged".to_owned(),
                    n => format!("{n} places are damaged"),
                };
                self.sink.line(&format!(
                    "{} partitions, {} batches, {} records, {} bytes: {verdict}, {} warnings",
                    total.partitions, total.batches, total.records, total.batch_bytes, total.warnings
                ))?;
            }
        }
        self.sink.flush()?;
        if total.damage > 0 {
            return Ok(Outcome::Damaged);
        }
        anyhow::ensure!(
            total.not_checked == 0,
            "{} partitions could not be checked, see above",
            total.not_checked
        );
        Ok(Outcome::Good)
    }
}

fn show(finding: &Finding, format: Format, sink: &mut Sink) -> std::io::Result<()> {
    let severity = match finding.severity {
        Severity::Damage => "damage",
        Severity::Warning => "warning",
    };
    if format == Format::Json {
        return sink.json(&FindingObject {
            kind: "finding",
            severity,
            file: &finding.path,
            byte: finding.byte,
            offset: finding.offset.map(|offset| offset.0),
            found: &finding.found,
            expected: &finding.expected,
        });
    }
    let mut place = finding.path.display().to_string();
    if let Some(byte) = finding.byte {
        place += &format!(", byte {byte}");
    }
    if let Some(offset) = finding.offset {
        place += &format!(", offset {offset}");
    }
    sink.line(&format!("{severity}: {place}"))?;
    sink.line(&format!("  found:    {}", finding.found))?;
    sink.line(&format!("  expected: {}", finding.expected))
}
