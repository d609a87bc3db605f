//! Batches as a client sends them, logs on the real disk, and directories that go away after use.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use bytes::BytesMut;
use clap::Args;
use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_proto::ids::LeaderEpoch;
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::{Disk, OpenMode, RealDisk, read_full_at};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::recovery::RecoveryReport;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};
use rustix::fs::MemfdFlags;
use tempfile::TempDir;

use crate::report::Output;

/// What every program of this crate can be told.
#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// Directory on the disk to measure; files in it are removed afterwards
    #[arg(long, default_value = "target")]
    pub dir: PathBuf,
    /// Pairs of runs; the median counts
    #[arg(long, default_value_t = 5)]
    pub pairs: usize,
    /// How figures are printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

impl Setup {
    /// A directory of its own on the disk to measure, removed with its content when dropped.
    pub fn scratch(&self) -> anyhow::Result<TempDir> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("make {}", self.dir.display()))?;
        let made = tempfile::Builder::new().prefix("floodmark-bench-").tempdir_in(&self.dir);
        made.with_context(|| format!("make a directory in {}", self.dir.display()))
    }
}

/// A leader that appends what plain clients sent.
pub const LEADER: AppendAs = AppendAs::Leader { epoch: LeaderEpoch(1), origin: Origin::Client };

/// One encoded batch, to be copied as often as it is sent.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: BytesMut,
    records: i64,
}

impl Template {
    /// A batch of at most `batch_bytes`, of records that are 1 KiB with everything, or smaller where one would not fit.
    pub fn of_bytes(batch_bytes: usize) -> anyhow::Result<Template> {
        Template::of_records(batch_bytes, 1 << 10)
    }

    /// A batch of at most `batch_bytes` that holds records of about `record_bytes`, at least one.
    pub fn of_records(batch_bytes: usize, record_bytes: usize) -> anyhow::Result<Template> {
        // Header of the batch, and lengths, deltas and key of a record at most.
        const BATCH_OVERHEAD: usize = 61;
        const RECORD_OVERHEAD: usize = 24;
        let record_bytes = record_bytes.min(batch_bytes.saturating_sub(BATCH_OVERHEAD));
        anyhow::ensure!(record_bytes > RECORD_OVERHEAD, "a batch of {batch_bytes} bytes holds no record");
        let records = (batch_bytes - BATCH_OVERHEAD) / record_bytes;
        let mut builder = BatchBuilder::new();
        let mut value = vec![0; record_bytes - RECORD_OVERHEAD];
        for n in 0..records {
            for (at, byte) in value.iter_mut().enumerate() {
                *byte = ((n * 31 + at) % 251) as u8;
            }
            let key = (n as u64).to_be_bytes();
            let timestamp = 1_700_000_000_000 + n as i64;
            builder.push(&NewRecord { timestamp, key: Some(&key), value: Some(&value), headers: &[] })?;
        }
        let batch = builder.build()?;
        Ok(Template { bytes: BytesMut::from(batch.as_bytes()), records: records as i64 })
    }

    /// Bytes of the batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Records in the batch.
    #[must_use]
    pub fn records(&self) -> i64 {
        self.records
    }

    /// The encoded batch.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as they arrive: a buffer of their own, as large as they are.
    #[must_use]
    pub fn arrive(&self) -> BytesMut {
        BytesMut::from(&self.bytes[..])
    }

    /// `count` arrivals.
    #[must_use]
    pub fn arrivals(&self, count: usize) -> Vec<BytesMut> {
        (0..count).map(|_| self.arrive()).collect()
    }

    /// An arrival, checked as a broker checks it.
    pub fn batch(&self) -> anyhow::Result<RecordBatch> {
        Ok(RecordBatch::from_client(self.arrive(), self.bytes.len())?)
    }

    /// How many batches make up `bytes`, one at least.
    #[must_use]
    pub fn count_in(&self, bytes: u64) -> usize {
        (bytes / self.bytes.len() as u64).max(1) as usize
    }
}

/// What a process gives its logs, with the machine's disk, clock and chance.
#[must_use]
pub fn real_context(tail_bytes: u64) -> LogContext {
    context_on(Arc::new(RealDisk), tail_bytes)
}

/// The same on another disk.
#[must_use]
pub fn context_on(disk: Arc<dyn Disk>, tail_bytes: u64) -> LogContext {
    LogContext {
        disk,
        clock: Clock::System,
        random: Random::System,
        tail_budget: TailBudget::new(tail_bytes),
    }
}

/// Opens a log that keeps nothing in memory.
pub fn open_log(dir: &Path, config: &LogConfig) -> anyhow::Result<(Log, RecoveryReport)> {
    Ok(Log::open(real_context(0), dir, config.clone())?)
}

/// Appends copies of the template one by one, until at least `bytes` are there.
pub fn fill(log: &mut Log, template: &Template, bytes: u64) -> anyhow::Result<()> {
    for _ in 0..template.count_in(bytes) {
        append_one(log, template.batch()?)?;
    }
    Ok(())
}

/// Appends one batch, which must be taken.
pub fn append_one(log: &mut Log, batch: RecordBatch) -> anyhow::Result<()> {
    for outcome in log.append([batch], LEADER)? {
        outcome?;
    }
    Ok(())
}

/// Has as much memory touched, and given back, as a run will fill the page cache with: that of a file which is in memory alone. A virtual machine
/// pays for the first touch of a page that its host has taken back, and whoever runs after a pause would pay for both sides.
pub fn renew_memory(bytes: usize) -> anyhow::Result<()> {
    let touched =
        rustix::fs::memfd_create("touched", MemfdFlags::CLOEXEC).context("make a file in memory")?;
    let touched = File::from(touched);
    let piece = vec![1; 1 << 20];
    for at in 0..bytes.div_ceil(piece.len()) {
        touched.write_all_at(&piece, (at * piece.len()) as u64)?;
    }
    Ok(())
}

/// A run that writes less says nothing, and need not wait for memory to be full.
const FILLED_FROM_BYTES: u64 = 128 << 20;

/// Fills the memory that is free with what the page cache can let go of: pages of a file below `dir` that is all hole, so that no disk is asked for
/// them. It is the state of a machine that has been at work for a while, and its host takes no memory back that is not free. To be called before
/// each run, with what that is to write, and before anything that the run needs and only reads, which would be the first to be let go of. Takes as
/// long as what the run before has freed; the files go with their directory.
pub fn fill_page_cache(dir: &Path, run_bytes: u64) -> anyhow::Result<()> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    if run_bytes < FILLED_FROM_BYTES {
        return Ok(());
    }
    let path = dir.join(format!("pages-{}", FILES.fetch_add(1, Ordering::Relaxed)));
    let file = RealDisk.open(&path, OpenMode::Create).with_context(|| format!("make {}", path.display()))?;
    let about = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let free_kib = about.lines().find_map(|line| line.strip_prefix("MemFree:")?.trim().strip_suffix(" kB"));
    let free_kib = free_kib.context("no MemFree in /proc/meminfo")?.parse::<u64>()?;
    file.set_size(free_kib << 10)?;
    let mut piece = vec![0; 1 << 20];
    for at in (0..free_kib << 10).step_by(piece.len()) {
        read_full_at(&*file, &mut piece, at)?;
    }
    Ok(())
}

/// Fills `bytes` of the file with zeros from `at` on, and syncs them: what the log does ahead of its end.
pub fn prewrite(file: &File, at: u64, bytes: u64) -> std::io::Result<()> {
    static PIECE: [u8; 256 << 10] = [0; 256 << 10];
    let mut done = 0;
    while done < bytes {
        let piece = (bytes - done).min(PIECE.len() as u64);
        file.write_all_at(&PIECE[..piece as usize], at + done)?;
        done += piece;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_batches_of_the_size_asked_for() {
        for batch_bytes in [1 << 10, 16 << 10, 1 << 20] {
            let template = Template::of_bytes(batch_bytes).unwrap();
            let missing = batch_bytes - template.size_bytes();
            assert!(missing < 1100 + template.records() as usize * 24, "{batch_bytes}: {missing} missing");
            assert_eq!(template.batch().unwrap().header().record_count as i64, template.records());
        }
        assert!(Template::of_bytes(80).is_err());
    }
}
