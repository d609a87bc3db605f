//! What compacting a log costs in CPU, over a bare loop that reads and writes the same bytes on the same disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord, RecordBatch};
use floodmark_proto::ids::LeaderEpoch;
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::RealDisk;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::{Random, SplitMix};
use floodmark_storage::{CompactionConfig, LogConfig, TailBudget};

/// Bytes that the bare loop moves with one call.
const PIECE_BYTES: usize = 1 << 20;
/// The median of these counts.
const BARE_ROUNDS: usize = 5;
const BATCH_BYTES: usize = 64 << 10;

/// Ratio of the CPU of one compaction pass to that of reading and writing the same bytes. The aim is 3 at most.
#[derive(Parser)]
struct Options {
    /// Bytes of log.
    #[arg(long, default_value_t = 64 << 20)]
    bytes: u64,
    /// Distinct keys; every record gets one of them by chance. By default as many as a record in 1 KiB of log.
    #[arg(long)]
    keys: Option<u64>,
    /// Bytes of each value.
    #[arg(long, default_value_t = 1000)]
    value_bytes: usize,
    /// Codec of the batches.
    #[arg(long, default_value = "none")]
    codec: String,
    /// Where the log is made; by default the system's directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let options = Options::parse();
    let home = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut log = build(&options, &home.path().join("t-0"))?;
    // Before and after the pass: memory that a virtual machine touches for the first time costs whoever does it, by turns.
    let mut bare = vec![bare_loop(home.path(), options.bytes)?];
    let before = cpu_seconds()?;
    let report = log.compact(CompactWhen::Due, CompactionControl::default())?.context("no pass was due")?;
    let pass = cpu_seconds()? - before;
    for _ in 1..BARE_ROUNDS {
        bare.push(bare_loop(home.path(), options.bytes)?);
    }
    bare.sort_by(f64::total_cmp);
    let median = bare[BARE_ROUNDS / 2];
    println!(
        "{}",
        serde_json::json!({
            "bench": "compaction",
            "log_bytes": options.bytes,
            "keys": report.keys,
            "records_kept": report.counts.records_kept,
            "records_dropped": report.counts.records_dropped,
            "batches_rewritten": report.counts.batches_rewritten,
            "bytes_read": report.bytes_read,
            "bytes_written": report.bytes_written,
            "cpu_seconds_pass": pass,
            "cpu_seconds_bare": bare,
            "cpu_seconds_bare_median": median,
            "ratio": pass / median,
            "ratio_max": 3.0,
        })
    );
    Ok(())
}

/// A log of `bytes`, settled, so that all but its last segment may be compacted.
fn build(options: &Options, dir: &Path) -> Result<Log> {
    let context = LogContext {
        disk: Arc::new(RealDisk),
        clock: Clock::System,
        random: Random::System,
        tail_budget: TailBudget::new(0),
    };
    let config = LogConfig {
        segment_bytes: 128 << 20,
        prewrite_bytes: 0,
        compaction: Some(CompactionConfig::default()),
        ..LogConfig::default()
    };
    // Small logs have segments too.
    let segment_bytes = config.segment_bytes.min(u32::try_from(options.bytes / 8)?.max(1 << 20));
    let (mut log, _) = Log::open(context, dir, LogConfig { segment_bytes, ..config })?;
    let codec = CompressionType::ALL.into_iter().find(|c| c.name() == options.codec);
    let codec = codec.with_context(|| format!("no codec is called {}", options.codec))?;
    let keys = options.keys.unwrap_or(options.bytes >> 10).max(1);
    let mut chance = SplitMix::new(1);
    let leader = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
    let mut written = 0;
    while written < options.bytes {
        let batch = batch(options, codec, keys, &mut chance)?;
        written += batch.size_bytes() as u64;
        for outcome in log.append([batch], leader)? {
            outcome?;
        }
    }
    log.on_high_watermark(log.end());
    log.checkpoint()?;
    Ok(log)
}

fn batch(options: &Options, codec: CompressionType, keys: u64, chance: &mut SplitMix) -> Result<RecordBatch> {
    let mut builder = BatchBuilder::new().compression(codec, None);
    let mut value = vec![0; options.value_bytes];
    while builder.size_bytes() < BATCH_BYTES {
        let key = format!("key-{:012}", chance.below(keys));
        for word in value.chunks_mut(8) {
            // Half of it by chance: neither all noise nor all zeros for a codec.
            let noise = chance.next_u64() & 0xffff_ffff;
            word.copy_from_slice(&noise.to_le_bytes()[..word.len()]);
        }
        let record = NewRecord { timestamp: 1, key: Some(key.as_bytes()), value: Some(&value), headers: &[] };
        builder.push(&record)?;
    }
    Ok(builder.build()?)
}

/// Reads as many bytes as the log has, and writes them, in large pieces, to a new file that it syncs.
#[allow(clippy::disallowed_methods)]
fn bare_loop(dir: &Path, log_bytes: u64) -> Result<f64> {
    let (from_path, to_path) = (dir.join("bare-in"), dir.join("bare-out"));
    let mut piece = vec![1u8; PIECE_BYTES];
    let from = File::options().create(true).truncate(true).read(true).write(true).open(&from_path)?;
    for at in (0..log_bytes).step_by(PIECE_BYTES) {
        from.write_all_at(&piece, at)?;
    }
    from.sync_data()?;
    let before = cpu_seconds()?;
    let to = File::create(&to_path)?;
    for at in (0..log_bytes).step_by(PIECE_BYTES) {
        from.read_exact_at(&mut piece, at)?;
        to.write_all_at(&piece, at)?;
    }
    to.sync_data()?;
    let seconds = cpu_seconds()? - before;
    fs::remove_file(from_path)?;
    fs::remove_file(to_path)?;
    Ok(seconds)
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}
