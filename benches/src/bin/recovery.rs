//! How long a log takes to open after its process was killed, and what partitions cost that nobody uses.
#![allow(
    clippy::disallowed_methods,
    reason = "figures need the time, and a killed child says by a file that it is ready"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use floodmark_benches::measure::{Compared, median};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{Setup, Template, append_one, fill, open_log, real_context};
use floodmark_storage::LogConfig;
use floodmark_storage::log::Log;

/// Time to open logs: after kill -9 large beside small, and many partitions; memory and files of idle ones.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// MiB of the large log; 10240 is what the aim speaks of
    #[arg(long, default_value_t = 2048)]
    large_mib: u64,
    /// MiB of the small log; 1024 is what the aim speaks of
    #[arg(long, default_value_t = 256)]
    small_mib: u64,
    /// MiB appended behind the recovery point before the kill
    #[arg(long, default_value_t = 64)]
    unsynced_mib: u64,
    /// Partitions that are opened together
    #[arg(long, default_value_t = 1000)]
    partitions: usize,
    /// Segments of each of them
    #[arg(long, default_value_t = 10)]
    segments: usize,
    /// Threads that open partitions
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[command(subcommand)]
    child: Option<Role>,
}

/// What a child process does until it is killed.
#[derive(Debug, Subcommand)]
enum Role {
    /// Appends behind the recovery point of one log, and waits to be killed
    #[command(hide = true)]
    AppendUnsynced { dir: PathBuf, ready: PathBuf, bytes: u64 },
    /// Appends a batch to each of many partitions, and waits to be killed
    #[command(hide = true)]
    TouchPartitions { dir: PathBuf, ready: PathBuf, partitions: usize },
}

const BATCH_BYTES: usize = 64 << 10;
const PARTITION_BATCH_BYTES: usize = 4 << 10;
const MIB: u64 = 1 << 20;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match &args.child {
        Some(Role::AppendUnsynced { dir, ready, bytes }) => append_unsynced(dir, ready, *bytes),
        Some(Role::TouchPartitions { dir, ready, partitions }) => touch_partitions(dir, ready, *partitions),
        None => {
            let mut report = Report::new("opening logs");
            after_a_kill(&args, &mut report)?;
            many_partitions(&args, &mut report)?;
            report.print(args.setup.output);
            Ok(())
        }
    }
}

fn after_a_kill(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let scratch = args.setup.scratch()?;
    let (large, small) = (scratch.path().join("large"), scratch.path().join("small"));
    let template = Template::of_bytes(BATCH_BYTES)?;
    for (dir, mib) in [(&large, args.large_mib), (&small, args.small_mib)] {
        let (mut log, _) = open_log(dir, &LogConfig::default())?;
        for _ in 0..mib.div_ceil(256) {
            fill(&mut log, &template, MIB * mib.min(256))?;
            log.checkpoint()?;
        }
        log.close()?;
    }
    let mut pairs = Vec::new();
    for pair in 0..=args.setup.pairs {
        let seconds = (open_after_kill(args, &large)?, open_after_kill(args, &small)?);
        if pair > 0 {
            pairs.push((seconds.0 * 1000.0, seconds.1 * 1000.0));
        }
    }
    let name = format!("{} MiB over {} MiB, {} unsynced", args.large_mib, args.small_mib, args.unsynced_mib);
    report.compared(name, Aim::AtMost(1.2), &Compared::of_pairs(&pairs), "ms");
    Ok(())
}

/// Seconds to open the log after a child that appended to it was killed. The page cache stays.
fn open_after_kill(args: &Args, dir: &Path) -> anyhow::Result<f64> {
    let bytes = args.unsynced_mib * MIB;
    kill_when_ready(dir, |ready| {
        vec!["append-unsynced".into(), dir.into(), ready.into(), bytes.to_string().into()]
    })?;
    let start = Instant::now();
    let (log, report) = open_log(dir, &LogConfig::default())?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(!report.was_clean, "the child was killed, but the log says it was closed");
    ensure!(
        (bytes / 2..=bytes + MIB).contains(&report.scanned_bytes),
        "recovery read {} bytes, where {bytes} were not synced",
        report.scanned_bytes
    );
    log.close()?;
    Ok(seconds)
}

fn append_unsynced(dir: &Path, ready: &Path, bytes: u64) -> anyhow::Result<()> {
    let (mut log, _) = open_log(dir, &LogConfig::default())?;
    fill(&mut log, &Template::of_bytes(BATCH_BYTES)?, bytes)?;
    wait_for_the_kill(ready)
}

fn touch_partitions(dir: &Path, ready: &Path, partitions: usize) -> anyhow::Result<()> {
    let template = Template::of_bytes(PARTITION_BATCH_BYTES)?;
    let mut logs = Vec::new();
    for n in 0..partitions {
        let (mut log, _) = open_log(&partition_dir(dir, n), &partition_config())?;
        append_one(&mut log, template.batch()?)?;
        log.release_idle();
        logs.push(log);
    }
    wait_for_the_kill(ready)
}

fn wait_for_the_kill(ready: &Path) -> anyhow::Result<()> {
    std::fs::write(ready, "ready")?;
    thread::sleep(Duration::from_secs(60));
    bail!("nobody came to kill this process");
}

fn kill_when_ready(dir: &Path, arguments: impl Fn(&Path) -> Vec<std::ffi::OsString>) -> anyhow::Result<()> {
    let ready = dir.with_extension("ready");
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments(&ready))
        .stdin(Stdio::null())
        .spawn()
        .context("start a child")?;
    let outcome = wait_until_ready(&mut child, &ready);
    // SIGKILL: no destructor runs, nothing is flushed.
    child.kill()?;
    child.wait()?;
    outcome?;
    Ok(std::fs::remove_file(&ready)?)
}

fn wait_until_ready(child: &mut Child, ready: &Path) -> anyhow::Result<()> {
    while !ready.exists() {
        if let Some(status) = child.try_wait()? {
            bail!("the child that appends ended with {status}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn partition_dir(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("topic-{n}"))
}

/// Three batches fill a segment.
fn partition_config() -> LogConfig {
    LogConfig { segment_bytes: 3 * PARTITION_BATCH_BYTES as u32, prewrite_bytes: 0, ..LogConfig::default() }
}

fn many_partitions(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let scratch = args.setup.scratch()?;
    let template = Template::of_bytes(PARTITION_BATCH_BYTES)?;
    for n in 0..args.partitions {
        let (mut log, _) = open_log(&partition_dir(scratch.path(), n), &partition_config())?;
        fill(&mut log, &template, (args.segments * 3 * template.size_bytes()) as u64)?;
        log.close()?;
    }
    let shape = format!("{} partitions of {} segments", args.partitions, args.segments);

    let mut clean = Vec::new();
    let mut idle = None;
    for _ in 0..args.setup.pairs {
        let before = Resources::now()?;
        let start = Instant::now();
        let logs = open_all(args, scratch.path(), true)?;
        clean.push(start.elapsed().as_secs_f64());
        // Memory that an earlier round has given back hides what a partition costs, so the first round counts.
        idle.get_or_insert(Resources::now()?.since(&before, args.partitions));
        logs.into_iter().try_for_each(Log::close)?;
    }
    report.value(format!("{shape}, clean: seconds"), Aim::AtMost(2.0), median(clean), threads(args));

    let mut killed = Vec::new();
    for _ in 0..args.setup.pairs {
        kill_when_ready(scratch.path(), |ready| {
            let partitions = args.partitions.to_string();
            vec!["touch-partitions".into(), scratch.path().into(), ready.into(), partitions.into()]
        })?;
        let start = Instant::now();
        let logs = open_all(args, scratch.path(), false)?;
        killed.push(start.elapsed().as_secs_f64());
        logs.into_iter().try_for_each(Log::close)?;
    }
    report.value(
        format!("{shape}, all written to, killed: seconds"),
        Aim::AtMost(2.0),
        median(killed),
        threads(args),
    );
    if let Some(idle) = idle {
        report.value(
            "idle partition: KiB of memory",
            Aim::AtMost(10.0),
            idle.kib,
            "resident, opened cleanly",
        );
        report.value("idle partition: open files", Aim::AtMost(0.0), idle.files, "of /proc/self/fd");
        report.value("idle partition: maps", Aim::AtMost(0.0), idle.maps, "of files of the partition");
    }
    Ok(())
}

fn threads(args: &Args) -> String {
    format!("by {} threads, median of {}", args.threads, args.setup.pairs)
}

fn open_all(args: &Args, dir: &Path, must_be_clean: bool) -> anyhow::Result<Vec<Log>> {
    let context = real_context(0);
    let open = |first: usize| -> anyhow::Result<Vec<Log>> {
        let mut logs = Vec::new();
        for n in (first..args.partitions).step_by(args.threads.max(1)) {
            let (mut log, report) = Log::open(context.clone(), &partition_dir(dir, n), partition_config())?;
            ensure!(report.was_clean == must_be_clean, "partition {n}: {report:?}");
            log.release_idle();
            logs.push(log);
        }
        Ok(logs)
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..args.threads.max(1)).map(|first| scope.spawn(move || open(first))).collect();
        let mut logs = Vec::new();
        for opened in threads {
            logs.extend(opened.join().ok().context("a thread that opens partitions panicked")??);
        }
        Ok(logs)
    })
}

/// What this process holds, by /proc.
struct Resources {
    resident_kib: f64,
    files: f64,
    maps: f64,
}

/// What one partition holds.
struct Idle {
    kib: f64,
    files: f64,
    maps: f64,
}

impl Resources {
    fn now() -> anyhow::Result<Resources> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        Ok(Resources {
            resident_kib: resident.context("no VmRSS in /proc/self/status")?.trim().parse()?,
            files: std::fs::read_dir("/proc/self/fd")?.count() as f64,
            maps: maps.lines().filter(|line| line.contains("/topic-")).count() as f64,
        })
    }

    fn since(&self, before: &Resources, partitions: usize) -> Idle {
        let each = |now: f64, before: f64| (now - before) / partitions.max(1) as f64;
        Idle {
            kib: each(self.resident_kib, before.resident_kib),
            files: each(self.files, before.files),
            maps: each(self.maps, before.maps),
        }
    }
}
