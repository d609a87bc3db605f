//! CPU time of a sequential read of sealed segments, over a bare scan of memory maps of the same files.
#![allow(clippy::disallowed_methods, reason = "the bare scan lists its files itself")]

mod allocations;

use std::hint::black_box;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Parser;
use floodmark_benches::measure::{Compared, take_turns, thread_cpu};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{Setup, Template, fill, open_log};
use floodmark_proto::ids::Offset;
use floodmark_storage::fs::{Disk, FileMap, OpenMode, RealDisk};
use floodmark_storage::{LogConfig, LogReader, ReadLimits};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// CPU per GiB of reading sealed segments through the log, over a bare scan of their memory maps.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// MiB of log
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// MiB of a segment
    #[arg(long, default_value_t = 128)]
    segment_mib: u32,
    /// KiB of a read
    #[arg(long, default_value_t = 1024)]
    read_kib: usize,
    /// KiB of a batch; may be given several times
    #[arg(long, default_values_t = [1024, 16, 1])]
    batch_kib: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("sequential read of sealed segments: CPU over a scan of their maps");
    for &batch_kib in &args.batch_kib {
        measure(&args, batch_kib, &mut report)?;
    }
    report.print(args.setup.output);
    Ok(())
}

/// A log on the disk, and how its offsets follow from its bytes: all batches are alike.
struct Written {
    dir: PathBuf,
    config: LogConfig,
    /// Base offset of the last segment; only those before it are read.
    end: Offset,
    bytes: u64,
    batch_bytes: usize,
    batch_records: i64,
}

/// What a pass over the log found and took.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    seconds: f64,
    bytes: u64,
    sum: u64,
    reads: u64,
    allocations: u64,
}

fn measure(args: &Args, batch_kib: usize, report: &mut Report) -> anyhow::Result<()> {
    let scratch = args.setup.scratch()?;
    let written = write(args, batch_kib << 10, scratch.path())?;
    let (first, again, allocations) = compare(args, &written)?;
    let aim = Aim::AtMost(1.2);
    report.compared(format!("{batch_kib} KiB batches, maps made"), aim, &first, "CPU s/GiB");
    report.compared(format!("{batch_kib} KiB batches, maps there"), aim, &again, "CPU s/GiB");
    let records = args.read_kib.max(batch_kib) * 1024 / written.batch_bytes * written.batch_records as usize;
    let detail = format!("of about {records} records each");
    report.value(format!("{batch_kib} KiB batches, allocations a read"), Aim::None, allocations, detail);
    Ok(())
}

fn write(args: &Args, batch_bytes: usize, dir: &Path) -> anyhow::Result<Written> {
    let template = Template::of_bytes(batch_bytes)?;
    let config = LogConfig { segment_bytes: args.segment_mib << 20, ..LogConfig::default() };
    let (mut log, _) = open_log(dir, &config)?;
    fill(&mut log, &template, args.mib << 20)?;
    log.close()?;
    let segments = segment_files(dir)?;
    let (last, sealed) = segments.split_last().context("the log wrote no segment")?;
    ensure!(!sealed.is_empty(), "{} MiB fill one segment only: nothing is sealed", args.mib);
    let end = last.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
    let bytes = sealed.iter().map(|path| Ok(std::fs::metadata(path)?.len())).sum::<std::io::Result<u64>>()?;
    Ok(Written {
        dir: dir.to_path_buf(),
        config,
        end: Offset(end.context("a segment's name is no offset")?),
        bytes,
        batch_bytes: template.size_bytes(),
        batch_records: template.records(),
    })
}

fn segment_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Ratios of a first pass, which makes the maps, and of a second one; and our allocations a read in the latter.
fn compare(args: &Args, written: &Written) -> anyhow::Result<(Compared, Compared, f64)> {
    let mut passes: Vec<[Pass; 2]> = Vec::new();
    let mut bare_passes: Vec<[Pass; 2]> = Vec::new();
    let mut both = (&mut passes, &mut bare_passes);
    take_turns(
        args.setup.pairs,
        &mut both,
        |(passes, _)| {
            let (log, _) = open_log(&written.dir, &written.config)?;
            let reader = log.reader();
            passes.push([read_ours(args, written, &reader)?, read_ours(args, written, &reader)?]);
            Ok(1.0)
        },
        |(_, bare_passes)| {
            bare_passes.push(scan_bare(args, written)?);
            Ok(1.0)
        },
    )?;
    let gib = written.bytes as f64 / f64::from(1 << 30);
    let mut compared = Vec::new();
    for n in [0, 1] {
        let pairs = passes.iter().zip(&bare_passes).skip(1);
        for (ours, bare) in pairs.clone() {
            ensure!(
                ours[n].bytes == bare[n].bytes,
                "the log gave {} bytes, the files hold {}",
                ours[n].bytes,
                bare[n].bytes
            );
            ensure!(ours[n].sum == bare[n].sum, "the log gave other bytes than the files hold");
        }
        let pairs: Vec<_> = pairs.map(|(o, b)| (o[n].seconds / gib, b[n].seconds / gib)).collect();
        compared.push(Compared::of_pairs(&pairs));
    }
    let last = passes.last().map(|p| p[1]).unwrap_or_default();
    let [first, again] = compared.try_into().ok().context("two passes")?;
    Ok((first, again, last.allocations as f64 / last.reads.max(1) as f64))
}

fn read_ours(args: &Args, written: &Written, reader: &LogReader) -> anyhow::Result<Pass> {
    let limits = ReadLimits { max_bytes: args.read_kib << 10, below: written.end };
    let mut pass = Pass::default();
    let allocations = allocations::count();
    let mut from = reader.start();
    let start = thread_cpu();
    while from < written.end {
        let pieces = reader.read(from, limits)?;
        let mut bytes = 0;
        for piece in &pieces {
            pass.sum = pass.sum.wrapping_add(sum(piece));
            bytes += piece.len();
        }
        ensure!(bytes > 0, "nothing to read at offset {from}");
        from = Offset(from.0 + (bytes / written.batch_bytes) as i64 * written.batch_records);
        pass.bytes += bytes as u64;
        pass.reads += 1;
    }
    pass.seconds = (thread_cpu() - start).as_secs_f64();
    pass.allocations = allocations::count() - allocations;
    Ok(pass)
}

/// Maps each file and goes over it in pieces as large as our reads; then once more over the maps.
fn scan_bare(args: &Args, written: &Written) -> anyhow::Result<[Pass; 2]> {
    let mut files = segment_files(&written.dir)?;
    files.pop();
    let mut passes = [Pass::default(); 2];
    let mut maps: Vec<FileMap> = Vec::new();
    let start = thread_cpu();
    for path in &files {
        let file = RealDisk.open(path, OpenMode::Read)?;
        let map = file.map(file.size()?)?;
        passes[0].add(map.as_ref(), args.read_kib << 10);
        maps.push(map);
    }
    passes[0].seconds = (thread_cpu() - start).as_secs_f64();
    let start = thread_cpu();
    for map in &maps {
        passes[1].add(map.as_ref(), args.read_kib << 10);
    }
    passes[1].seconds = (thread_cpu() - start).as_secs_f64();
    Ok(passes)
}

impl Pass {
    fn add(&mut self, bytes: &[u8], read_bytes: usize) {
        for piece in bytes.chunks(read_bytes) {
            self.sum = self.sum.wrapping_add(sum(piece));
            self.bytes += piece.len() as u64;
            self.reads += 1;
        }
    }
}

/// Touches every byte. A sum of bytes does not depend on where a piece begins, so both sides must come to the same.
#[inline(never)]
fn sum(bytes: &[u8]) -> u64 {
    black_box(bytes).iter().map(|&byte| u64::from(byte)).sum()
}
