//! Says of a partition's directory what in it is damaged, and where: every finding, not the first alone. Reads only, takes no lock
//! and needs no log to be open, so it may look at a directory that a broker writes, and at Kafka's.

mod facts;
mod indexes;
mod keys;
mod order;
mod partition;
mod producers;

use std::path::{Path, PathBuf};

use floodmark_proto::ids::Offset;

use crate::error::LogError;
use crate::fs::Disk;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the next opening of the log puts it right, or it costs speed alone.
    Warning,
    /// Bytes that are not what was written.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which file.
    pub path: PathBuf,
    /// Where in the file.
    pub byte: Option<u64>,
    /// At which offset of the log.
    pub offset: Option<Offset>,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

/// What a partition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// True where a manifest of ours lies in the directory.
    pub has_manifest: bool,
    /// Data files.
    pub segments: u64,
    /// Good batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub batch_bytes: u64,
    /// Zeros behind the last batch.
    pub written_ahead_bytes: u64,
    /// First offset that may be read.
    pub start: Offset,
    /// Offset after the last batch.
    pub end: Offset,
    /// Runs of offsets that no batch covers, as compaction leaves them.
    pub gaps: u64,
    /// Offsets in them.
    pub gap_offsets: u64,
    /// Findings that are damage.
    pub damage: u64,
    /// Findings that are not.
    pub warnings: u64,
}

/// Who is told while a partition is looked at.
pub struct Watch<'a> {
    /// Called with each finding, in the order in which they are met.
    pub on_finding: &'a mut dyn FnMut(&Finding),
    /// Called with the number of bytes of data files read since the last call.
    pub on_bytes: &'a mut dyn FnMut(u64),
}

/// Looks at every byte of the partition in `dir`. Blocks for as long as reading it takes; memory follows the largest batch, the
/// indexes of one segment and the producers of the log, not its size.
///
/// Fails where the disk cannot be read, and where a newer Floodmark wrote the manifest; damage is no failure.
pub fn verify_partition<'a>(
    disk: &'a dyn Disk,
    dir: &'a Path,
    watch: Watch<'a>,
) -> Result<Summary, LogError> {
    partition::PartitionCheck::open(disk, dir, watch)?.run()
}

/// Bytes of data files in `dir`, to tell progress by; 0 where it is no partition's directory.
pub fn data_bytes(disk: &dyn Disk, dir: &Path) -> Result<u64, LogError> {
    Ok(crate::log::files::look(disk, dir)?.data.values().sum())
}
