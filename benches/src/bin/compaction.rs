//! What compacting a log costs in CPU, over a bare loop that reads and writes the same bytes on the same disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use floodmark_benches::measure::{Compared, median};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{Setup, fill_page_cache};
use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord, RecordBatch};
use floodmark_proto::ids::LeaderEpoch;
use floodmark_storage::clock::Clock;
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::RealDisk;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, CompactionReport, Log, LogContext};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::{Random, SplitMix};
use floodmark_storage::{CompactionConfig, LogConfig, TailBudget};

/// The one that the `floodmark` binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes that the bare loop moves with one call.
const PIECE_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 64 << 10;

/// Ratio of the CPU of one compaction pass to that of reading and writing the same bytes. The aim is 3 at most.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    setup: Setup,
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
}

/// CPU seconds outside the kernel and in it.
#[derive(Debug, Clone, Copy)]
struct Cpu {
    user: f64,
    kernel: f64,
}

impl Cpu {
    fn all(self) -> f64 {
        self.user + self.kernel
    }
}

/// Each pair has a log of its own, whose bytes the bare loop reads before the pass does, or after. Which goes first changes, and memory is
/// full before each: what a virtual machine touches for the first time costs whoever does it.
fn main() -> Result<()> {
    let options = Options::parse();
    let home = options.setup.scratch()?;
    fill_page_cache(home.path(), options.bytes)?;
    let (mut pairs, mut last) = (Vec::new(), None);
    for turn in 0..=options.setup.pairs.max(1) {
        let dir = home.path().join("t-0");
        let mut log = build(&options, &dir)?;
        let (pass, bare);
        if turn % 2 == 0 {
            bare = bare_loop(home.path(), &dir, &options)?;
            pass = compact(home.path(), &mut log, &options)?;
        } else {
            // The pass takes the old segments away; the bare loop reads the same bytes from a copy made like the log was.
            let copy = home.path().join("copy");
            copy_log(&dir, &copy)?;
            pass = compact(home.path(), &mut log, &options)?;
            bare = bare_loop(home.path(), &copy, &options)?;
            fs::remove_dir_all(copy)?;
        }
        drop(log);
        fs::remove_dir_all(&dir)?;
        if turn > 0 {
            pairs.push((pass.0, bare));
        }
        last = Some(pass.1);
    }
    let report = last.context("no pass was made")?;
    print(&options, &pairs, &report);
    Ok(())
}

fn print(options: &Options, pairs: &[(Cpu, Cpu)], pass: &CompactionReport) {
    let mut report = Report::new("compaction: CPU of a pass over reading and writing the log's bytes");
    let of = |part: fn(Cpu) -> f64| {
        pairs.iter().map(|(ours, bare)| (part(*ours), part(*bare))).collect::<Vec<_>>()
    };
    let seconds = "CPU s";
    report.compared("all CPU", Aim::AtMost(3.0), &Compared::of_pairs(&of(Cpu::all)), seconds);
    let least =
        |side: fn(&(Cpu, Cpu)) -> Cpu| pairs.iter().map(|p| side(p).all()).fold(f64::INFINITY, f64::min);
    let (ours, bare) = (least(|pair| pair.0), least(|pair| pair.1));
    // What was not paid for memory touched for the first time, as far as a side ever went without.
    let detail = format!("{ours:.3} against {bare:.3} {seconds}");
    report.value("all CPU, the least of each side", Aim::AtMost(3.0), ours / bare, detail);
    report.compared("in the kernel", Aim::None, &Compared::of_pairs(&of(|cpu| cpu.kernel)), seconds);
    let user = median(pairs.iter().map(|(ours, _)| ours.user).collect());
    let bare = median(pairs.iter().map(|(_, bare)| bare.all()).collect());
    let detail = format!("{user:.3} CPU s of the pass over {bare:.3}, all that the other side takes");
    report.value("outside the kernel", Aim::None, user / bare, detail);
    let counts = pass.counts;
    let detail = format!(
        "{} of {} records dropped, {} batches rewritten; {} bytes read, {} written",
        counts.records_dropped,
        counts.records_dropped + counts.records_kept,
        counts.batches_rewritten,
        pass.bytes_read,
        pass.bytes_written
    );
    report.value("keys met", Aim::None, pass.keys as f64, detail);
    report.print(options.setup.output);
}

fn compact(home: &Path, log: &mut Log, options: &Options) -> Result<(Cpu, CompactionReport)> {
    fill_page_cache(home, options.bytes)?;
    let before = cpu()?;
    let report = log.compact(CompactWhen::Due, CompactionControl::default())?.context("no pass was due")?;
    Ok((cpu_since(before)?, report))
}

#[allow(clippy::disallowed_methods)]
fn copy_log(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
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

/// Reads the segments of a log, and writes as many bytes, in large pieces, to new files that it syncs.
#[allow(clippy::disallowed_methods)]
fn bare_loop(home: &Path, log: &Path, options: &Options) -> Result<Cpu> {
    let mut segments: Vec<_> = fs::read_dir(log)?.collect::<Result<Vec<_>, _>>()?;
    segments.retain(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    let to_dir = home.join("bare");
    fs::create_dir(&to_dir)?;
    let mut piece = vec![1u8; PIECE_BYTES];
    fill_page_cache(home, options.bytes)?;
    let before = cpu()?;
    for segment in segments {
        let (from, to) = (File::open(segment.path())?, File::create(to_dir.join(segment.file_name()))?);
        let mut at = 0;
        loop {
            let read = from.read_at(&mut piece, at)?;
            if read == 0 {
                break;
            }
            to.write_all_at(&piece[..read], at)?;
            at += read as u64;
        }
        to.sync_data()?;
    }
    let spent = cpu_since(before)?;
    fs::remove_dir_all(to_dir)?;
    Ok(spent)
}

/// CPU time of the calling thread so far, by the kernel's own split, whose unit is a hundredth of a second.
#[allow(clippy::disallowed_methods)]
fn cpu() -> Result<Cpu> {
    let stat = fs::read_to_string("/proc/thread-self/stat")?;
    // The name before it, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |n: usize| -> Result<f64> { Ok(fields.get(n).context("a short stat")?.parse::<f64>()? / 100.0) };
    Ok(Cpu { user: ticks(11)?, kernel: ticks(12)? })
}

fn cpu_since(before: Cpu) -> Result<Cpu> {
    let now = cpu()?;
    Ok(Cpu { user: now.user - before.user, kernel: now.kernel - before.kernel })
}
