//! Compares what replicas of a partition have on their disks, batch by batch and byte for byte. To be asked when all is quiet: every
//! replica in sync, so that what it has ends at the high watermark, and its broker stopped or idle.
//!
//! Segments may begin at different offsets; batches may not. Topics of the brokers themselves are left out: each replica compacts its
//! own copy when it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use floodmark_proto::batch::BatchHeader;
use serde::Serialize;

/// No batch is larger.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// Base offset and length.
const PREFIX_BYTES: usize = 12;

/// Two replicas of a partition that are not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Topic and number, as the folder is called.
    pub partition: String,
    /// The two data directories.
    pub between: (PathBuf, PathBuf),
    /// The base offset of the first batch that differs on the one side and the other; nothing where the log has ended.
    pub at: (Option<i64>, Option<i64>),
}

/// What was compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Compared {
    /// Partitions that more than one directory holds.
    pub partitions: u64,
    /// Bytes of batches, counted once for each replica.
    pub bytes: u64,
    /// What is not the same; the first difference of each partition.
    pub differences: Vec<Difference>,
}

/// Compares all partitions that several of the data directories hold.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn compare(data_dirs: &[PathBuf]) -> Result<Compared> {
    let mut holders: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for dir in data_dirs {
        for partition in partitions_in(dir)? {
            holders.entry(partition).or_default().push(dir);
        }
    }
    let mut compared = Compared::default();
    for (partition, dirs) in holders.iter().filter(|(_, dirs)| dirs.len() > 1) {
        compared.partitions += 1;
        for (nth, other) in dirs[1..].iter().enumerate() {
            let mut batches = (Batches::of(dirs[0], partition)?, Batches::of(other, partition)?);
            let difference = first_difference(&mut batches)?;
            compared.bytes += batches.1.size_bytes + if nth == 0 { batches.0.size_bytes } else { 0 };
            if let Some(at) = difference {
                let between = (dirs[0].to_owned(), (*other).to_owned());
                compared.differences.push(Difference { partition: partition.clone(), between, at });
                break;
            }
        }
    }
    Ok(compared)
}

fn partitions_in(data_dir: &Path) -> Result<BTreeSet<String>> {
    let logs = data_dir.join("logs");
    let entries = fs::read_dir(&logs).with_context(|| format!("cannot list {}", logs.display()))?;
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        if number.is_some() && !name.starts_with("__") {
            found.insert(name);
        }
    }
    Ok(found)
}

/// Base offsets of the first batches that are not the same. A replica whose log starts later is compared from there on.
fn first_difference((one, other): &mut (Batches, Batches)) -> Result<Option<(Option<i64>, Option<i64>)>> {
    let (mut left, mut right) = (one.next_batch()?, other.next_batch()?);
    let start = |batch: &Option<Batch>| batch.as_ref().map_or(i64::MAX, |batch| batch.base_offset);
    let from = start(&left).max(start(&right));
    while left.is_some() && right.is_some() && start(&left) < from {
        left = one.next_batch()?;
    }
    while left.is_some() && right.is_some() && start(&right) < from {
        right = other.next_batch()?;
    }
    while left == right {
        if left.is_none() {
            return Ok(None);
        }
        (left, right) = (one.next_batch()?, other.next_batch()?);
    }
    let at = |batch: Option<Batch>| batch.map(|batch| batch.base_offset);
    Ok(Some((at(left), at(right))))
}

#[derive(PartialEq)]
struct Batch {
    base_offset: i64,
    bytes: Vec<u8>,
}

/// The batches of one replica, one after the other through its segments.
struct Batches {
    /// Those to come, the last one first.
    segments: Vec<PathBuf>,
    open: Option<(PathBuf, BufReader<File>)>,
    size_bytes: u64,
}

impl Batches {
    fn of(data_dir: &Path, partition: &str) -> Result<Batches> {
        let dir = data_dir.join("logs").join(partition);
        let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let mut segments = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        segments.sort();
        segments.reverse();
        Ok(Batches { segments, open: None, size_bytes: 0 })
    }

    #[expect(clippy::disallowed_methods, reason = "a program that reads the files it is given")]
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some((path, reader)) = &mut self.open {
                let batch = read_batch(reader).with_context(|| format!("cannot read {}", path.display()))?;
                if let Some(batch) = batch {
                    self.size_bytes += batch.bytes.len() as u64;
                    return Ok(Some(batch));
                }
            }
            let Some(path) = self.segments.pop() else { return Ok(None) };
            let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.open = Some((path, BufReader::with_capacity(1 << 18, file)));
        }
    }
}

/// The next batch of a segment; nothing at its end, or where only zeros follow that were written ahead.
fn read_batch(reader: &mut BufReader<File>) -> Result<Option<Batch>> {
    let mut bytes = vec![0; PREFIX_BYTES];
    match reader.read_exact(&mut bytes) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if length == 0 {
        return Ok(None);
    }
    let size = u64::from(length);
    if size > BATCH_BYTES_MAX || reader.take(size).read_to_end(&mut bytes)? as u64 != size {
        bail!("a batch of {length} bytes does not end");
    }
    let header = BatchHeader::parse(&bytes).map_err(|e| anyhow::anyhow!("what is no batch: {e}"))?;
    Ok(Some(Batch { base_offset: header.base_offset.0, bytes }))
}
