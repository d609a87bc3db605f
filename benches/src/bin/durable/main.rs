//! Appends that are acknowledged once they are on the disk, over a bare loop of write + fdatasync in a pre-written file.
#![allow(clippy::disallowed_methods, reason = "the bare loop writes its file itself, and measures time")]

mod groups;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use floodmark_benches::measure::Compared;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{
    LEADER, Setup, Template, context_on, fill_page_cache, prewrite, real_context,
};
use floodmark_storage::LogConfig;
use floodmark_storage::group_commit::{DiskThreads, GroupCommit, Owner};
use floodmark_storage::log::{Log, LogContext};
use hdrhistogram::Histogram;

use groups::GroupsDisk;

/// The one that the `floodmark` binary has: buffers are made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes per second of durable appends over a bare loop of the same groups, and the latency of one caller.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// Appends under way at once
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Threads that hand them in, each the next one as soon as one of its own is durable
    #[arg(long, default_value_t = 2)]
    drivers: usize,
    /// KiB of a caller's batch; may be given several times
    #[arg(long, default_values_t = [1, 4, 16])]
    batch_kib: Vec<usize>,
    /// Milliseconds of a run with many callers
    #[arg(long, default_value_t = 1000)]
    run_ms: u64,
    /// Appends of one caller in a run
    #[arg(long, default_value_t = 1000)]
    appends: usize,
    /// MiB that the log fills with zeros ahead of its end
    #[arg(long, default_value_t = 8)]
    prewrite_mib: u32,
    /// MiB of a segment
    #[arg(long, default_value_t = 64)]
    segment_mib: u32,
    /// Segments that are filled before a run with many callers: from the second or third on, zeros are there before the log is
    #[arg(long, default_value_t = 2)]
    segments_before: u64,
}

/// Size of the bare loop's file; it starts again at the front when it is through.
const BARE_FILE_BYTES: u64 = 256 << 20;
/// Appends before latency counts: files are made, and the first zeros written, in these.
const WARM_UP: usize = 50;
/// As many as a broker has for its first disk.
const DISK_THREADS: usize = 2;
/// What a run may write in a millisecond, zeros and all. The bare loop's file is in memory since long, and where this machine has given memory
/// back, zeros go into new pages at a quarter of their speed: hence no run without full memory.
const BYTES_PER_MS: u64 = 1 << 20;
/// What the file system has to do after a large file was removed is over by then.
const SETTLE: Duration = Duration::from_millis(300);
const MIB: f64 = (1 << 20) as f64;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("durable appends: the log over write + fdatasync in a pre-written file");
    let scratch = args.setup.scratch()?;
    fill_page_cache(scratch.path(), args.run_ms * BYTES_PER_MS)?;
    let path = scratch.path().join("bare");
    let file = File::create_new(&path)?;
    prewrite(&file, 0, BARE_FILE_BYTES)?;
    for &batch_kib in &args.batch_kib {
        let template = Template::of_bytes(batch_kib << 10)?;
        let (compared, group_kib) = compare_throughput(&args, scratch.path(), &file, &template)?;
        let name = format!("{} callers, {batch_kib} KiB each: bytes per second", args.callers);
        report.compared(name, Aim::AtLeast(0.8), &compared, &format!("MiB/s, groups of {group_kib:.0} KiB"));
    }
    let template = Template::of_bytes(1 << 10)?;
    let compared = compare_latency(&args, scratch.path(), &file, &template)?;
    report.compared("one caller, 1 KiB: p50", Aim::AtMost(1.2), &compared[0], "us");
    report.compared("one caller, 1 KiB: p99", Aim::None, &compared[1], "us");
    report.print(args.setup.output);
    Ok(())
}

fn config(args: &Args) -> LogConfig {
    LogConfig {
        prewrite_bytes: args.prewrite_mib << 20,
        segment_bytes: args.segment_mib << 20,
        ..LogConfig::default()
    }
}

struct Side {
    /// Bytes between two syncs of the log's last run.
    groups: Vec<u64>,
    group_kib: f64,
}

/// The bare loop writes the groups that the log made in its last run, so our side begins each pair.
fn compare_throughput(
    args: &Args,
    scratch: &Path,
    file: &File,
    template: &Template,
) -> anyhow::Result<(Compared, f64)> {
    let mut side = Side { groups: Vec::new(), group_kib: 0.0 };
    let mut pairs = Vec::new();
    for pair in 0..=args.setup.pairs {
        let dir = scratch.join("log");
        fill_page_cache(scratch, args.run_ms * BYTES_PER_MS)?;
        let ours = run_callers(args, &dir, template, &mut side)?;
        remove(&dir)?;
        // The disk is told of freed blocks in its own time, which is neither side's.
        File::open(scratch)?.sync_all()?;
        thread::sleep(SETTLE);
        let bare = run_groups(file, &side.groups)?;
        if pair > 0 {
            pairs.push((ours, bare));
        }
    }
    Ok((Compared::of_pairs(&pairs), side.group_kib))
}

/// Removes a log that was given up: a disk thread may still be about to make a file in there.
fn remove(dir: &Path) -> std::io::Result<()> {
    let since = Instant::now();
    loop {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty && since.elapsed() < SETTLE => {}
            other => return other,
        }
    }
}

/// MiB per second that all callers together have got acknowledged.
fn run_callers(args: &Args, dir: &Path, template: &Template, side: &mut Side) -> anyhow::Result<f64> {
    let disk = Arc::new(GroupsDisk::default());
    let (log, _) = Log::open(context(Arc::clone(&disk)), dir, config(args))?;
    let log = GroupCommit::new(log, &DiskThreads::start(DISK_THREADS)?, owner());
    for _ in 0..WARM_UP {
        append(&log, template)?;
    }
    let before = args.segments_before * (u64::from(args.segment_mib) << 20);
    let reader = log.reader();
    drive_all(args, &log, template, || reader.size_bytes() < before)?;
    disk.take();
    let (start, run) = (Instant::now(), Duration::from_millis(args.run_ms));
    let appends = drive_all(args, &log, template, || start.elapsed() < run)?;
    let seconds = start.elapsed().as_secs_f64();
    side.groups = disk.take();
    log.abandon();
    let bytes: u64 = side.groups.iter().sum();
    side.group_kib = bytes as f64 / 1024.0 / side.groups.len().max(1) as f64;
    Ok((appends * template.size_bytes() as u64) as f64 / MIB / seconds)
}

/// All callers, shared out to the drivers; counts the appends that became durable.
fn drive_all(
    args: &Args,
    log: &GroupCommit,
    template: &Template,
    goes_on: impl Fn() -> bool + Sync,
) -> anyhow::Result<u64> {
    let drivers = args.drivers.clamp(1, args.callers);
    let driver = |n: usize| {
        let callers = args.callers / drivers + usize::from(n < args.callers % drivers);
        drive(log, template, callers, &goes_on)
    };
    let driver = &driver;
    thread::scope(|scope| {
        let drivers: Vec<_> = (0..drivers).map(|n| scope.spawn(move || driver(n))).collect();
        drivers.into_iter().map(|d| d.join().ok().context("a driver panicked")?).sum()
    })
}

/// Keeps `callers` appends under way as long as `goes_on`; counts those that became durable.
fn drive(
    log: &GroupCommit,
    template: &Template,
    callers: usize,
    goes_on: impl Fn() -> bool,
) -> anyhow::Result<u64> {
    // Room for all that are under way, so that no disk thread ever waits for a driver.
    let (done, outcomes) = sync_channel(callers);
    let submit = || -> anyhow::Result<()> {
        let (waiter, done) = (log.clone(), done.clone());
        log.submit(vec![template.batch()?], LEADER, move |receipt| match receipt {
            Ok(receipt) => waiter.when_synced(receipt.end, move |outcome| drop(done.try_send(outcome))),
            Err(e) => drop(done.try_send(Err(e))),
        });
        Ok(())
    };
    for _ in 0..callers {
        submit()?;
    }
    let (mut appends, mut under_way) = (0, callers);
    while under_way > 0 {
        outcomes.recv()??;
        appends += 1;
        if goes_on() {
            submit()?;
        } else {
            under_way -= 1;
        }
    }
    Ok(appends)
}

fn context(disk: Arc<GroupsDisk>) -> LogContext {
    context_on(disk, 64 << 20)
}

fn append(log: &GroupCommit, template: &Template) -> anyhow::Result<()> {
    for outcome in log.append_synced(vec![template.batch()?], LEADER)?.outcomes {
        outcome?;
    }
    Ok(())
}

/// MiB per second of one write and one fdatasync a group.
fn run_groups(file: &File, groups: &[u64]) -> anyhow::Result<f64> {
    let largest = groups.iter().max().copied().context("the log synced nothing")?;
    let buffer = vec![7; largest as usize];
    let (mut at, mut bytes) = (0, 0);
    let start = Instant::now();
    for &group in groups {
        if at + group > BARE_FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&buffer[..group as usize], at)?;
        file.sync_data()?;
        at += group;
        bytes += group;
    }
    Ok(bytes as f64 / MIB / start.elapsed().as_secs_f64())
}

/// p50 and p99 of one caller, in microseconds.
fn compare_latency(
    args: &Args,
    scratch: &Path,
    file: &File,
    template: &Template,
) -> anyhow::Result<[Compared; 2]> {
    let dir = scratch.join("log");
    let (log, _) = Log::open(real_context(64 << 20), &dir, config(args))?;
    let log = GroupCommit::new(log, &DiskThreads::start(DISK_THREADS)?, owner());
    let mut at = 0;
    let mut pairs = Vec::new();
    for pair in 0..=args.setup.pairs {
        for _ in 0..WARM_UP {
            append(&log, template)?;
        }
        let ours = latency_of(args.appends, || append(&log, template))?;
        let bare = latency_of(args.appends, || {
            file.write_all_at(template.as_bytes(), at)?;
            file.sync_data()?;
            at = (at + template.size_bytes() as u64) % (BARE_FILE_BYTES / 2);
            Ok(())
        })?;
        if pair > 0 {
            pairs.push((ours, bare));
        }
    }
    log.abandon();
    drop(log);
    std::fs::remove_dir_all(&dir)?;
    let of = |n: usize| {
        Compared::of_pairs(
            &pairs.iter().map(|(ours, bare): &([f64; 2], [f64; 2])| (ours[n], bare[n])).collect::<Vec<_>>(),
        )
    };
    Ok([of(0), of(1)])
}

fn latency_of(times: usize, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<[f64; 2]> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for _ in 0..times {
        let start = Instant::now();
        call()?;
        histogram.record(start.elapsed().as_nanos() as u64)?;
    }
    Ok([0.5, 0.99].map(|quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0))
}

/// Wants everything durable, as the leader of a partition does.
fn owner() -> Owner {
    Owner { on_moved: Box::new(|log| log.durable() < log.end()), announce: Box::new(|| {}) }
}
