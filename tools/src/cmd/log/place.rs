//! What a path stands for: one file, one partition's directory, or a directory with many.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use floodmark_proto::ids::Offset;
use floodmark_storage::fs::Disk;

/// Deeper than any layout of data directories.
const DEPTH_MAX: usize = 8;

/// Kinds of single files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Data,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    KeyIndex,
    Snapshot,
    LeaderEpochs,
    PartitionMetadata,
    Manifest,
    /// Kafka's small text files of a whole data directory.
    Lines,
}

/// What a path stands for.
#[derive(Debug)]
pub(crate) enum Place {
    File(PathBuf, FileKind, Offset),
    Partitions(Vec<PathBuf>),
}

/// Looks at `path`. Fails where it does not exist, and where it is nothing of a log's.
pub(crate) fn find(disk: &dyn Disk, path: &Path) -> anyhow::Result<Place> {
    let path = absolute(path)?;
    if path.is_dir() {
        return Ok(Place::Partitions(partitions(disk, &path)?));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match kind_of(name) {
        Some((kind, base)) => Ok(Place::File(path, kind, base)),
        None => bail!(
            "{} is no file of a log; name a partition's directory, or a .log, .index, .timeindex, .txnindex, .keyindex, .snapshot or checkpoint file in it",
            path.display()
        ),
    }
}

/// The directories of partitions at or below `dir`: those that hold data files or a manifest. Never empty.
pub(crate) fn partitions(disk: &dyn Disk, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let dir = absolute(dir)?;
    if !dir.is_dir() {
        bail!("{} is a file; name a partition's directory, or one with many", dir.display());
    }
    let mut found = Vec::new();
    collect(disk, &dir, DEPTH_MAX, &mut found)?;
    if found.is_empty() {
        bail!("{} holds no log: neither it nor a directory below it has .log files", dir.display());
    }
    Ok(found)
}

/// With links followed here, so that storage need not follow any.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("cannot look at {}", path.display()))
}

fn collect(disk: &dyn Disk, dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = disk.list(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let is_log = |name: &str| {
        name == "log.manifest"
            || (name.len() == "00000000000000000000.log".len()
                && kind_of(name).is_some_and(|(kind, _)| kind == FileKind::Data))
    };
    if entries.iter().any(|entry| !entry.is_dir && is_log(&entry.name)) {
        found.push(dir.to_owned());
        return Ok(());
    }
    if depth > 0 {
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            collect(disk, &dir.join(&entry.name), depth - 1, found)?;
        }
    }
    Ok(())
}

/// By name alone. Suffixes behind the kind, as of files set aside or about to be deleted, do not matter.
fn kind_of(name: &str) -> Option<(FileKind, Offset)> {
    let by_whole_name = match name {
        "leader-epoch-checkpoint" => Some(FileKind::LeaderEpochs),
        "partition.metadata" => Some(FileKind::PartitionMetadata),
        "log.manifest" => Some(FileKind::Manifest),
        "recovery-point-offset-checkpoint"
        | "replication-offset-checkpoint"
        | "log-start-offset-checkpoint"
        | "cleaner-offset-checkpoint"
        | "meta.properties"
        | "quorum-state"
        | "floodmark.dir" => Some(FileKind::Lines),
        _ => None,
    };
    if let Some(kind) = by_whole_name {
        return Some((kind, Offset::ZERO));
    }
    let (digits, rest) = name.split_at_checked(20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let base = Offset(digits.parse().ok()?);
    let kind = match rest.strip_prefix('.')?.split('.').next()? {
        "log" => FileKind::Data,
        "index" => FileKind::OffsetIndex,
        "timeindex" => FileKind::TimeIndex,
        "txnindex" => FileKind::TransactionIndex,
        "keyindex" => FileKind::KeyIndex,
        "snapshot" => FileKind::Snapshot,
        _ => return None,
    };
    Some((kind, base))
}
