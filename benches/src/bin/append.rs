//! CPU time of unsynced appends, over a bare loop that checks and writes the same buffers.
#![allow(clippy::disallowed_methods, reason = "the bare loop writes its file itself")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::ensure;
use clap::Parser;
use floodmark_benches::measure::{Compared, take_turns, thread_cpu};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{Setup, Template, append_one, prewrite, real_context};
use floodmark_proto::batch::crc32c::crc32c;
use floodmark_proto::batch::header::CRC_COVERS_FROM;
use floodmark_proto::batch::{BatchHeader, RecordBatch};
use floodmark_storage::LogConfig;
use floodmark_storage::log::Log;

/// CPU per GiB of appends without sync, over a bare loop of crc32c + write.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// MiB appended by each side in each run
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// KiB of a batch; may be given several times
    #[arg(long, default_values_t = [1024, 16])]
    batch_kib: Vec<usize>,
    /// MiB that the log keeps of its newest batches
    #[arg(long, default_value_t = 64)]
    tail_mib: u64,
}

/// What the file is like before the first byte is appended; the same for both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// Empty: the system finds room for every page.
    Growing,
    /// Filled with zeros and synced, so that little but the copy is left of a write: the stricter comparison.
    Prewritten,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("append without sync: CPU over crc32c + write");
    for &batch_kib in &args.batch_kib {
        let aim = if batch_kib >= 1024 { Aim::AtMost(1.3) } else { Aim::AtMost(1.6) };
        for (state, name) in [(FileState::Growing, "growing"), (FileState::Prewritten, "pre-written")] {
            let compared = compare(&args, batch_kib << 10, state)?;
            report.compared(format!("{batch_kib} KiB batches, {name} file"), aim, &compared, "CPU s/GiB");
        }
    }
    report.print(args.setup.output);
    Ok(())
}

fn compare(args: &Args, batch_bytes: usize, state: FileState) -> anyhow::Result<Compared> {
    let template = Template::of_bytes(batch_bytes)?;
    let count = template.count_in(args.mib << 20);
    let gib = (count * template.size_bytes()) as f64 / f64::from(1 << 30);
    let mut scratch = args.setup.scratch()?;
    take_turns(
        args.setup.pairs,
        &mut scratch,
        |scratch| {
            let dir = scratch.path().join("log");
            let seconds = run_ours(&dir, &template, count, args.tail_mib << 20, state)?;
            std::fs::remove_dir_all(&dir)?;
            Ok(seconds / gib)
        },
        |scratch| {
            let path = scratch.path().join("bare");
            let seconds = run_bare(&path, &template, count, state)?;
            std::fs::remove_file(&path)?;
            Ok(seconds / gib)
        },
    )
}

/// What a broker does with a request's bytes once it has them.
fn run_ours(
    dir: &Path,
    template: &Template,
    count: usize,
    tail_bytes: u64,
    state: FileState,
) -> anyhow::Result<f64> {
    let bytes = ((count + 1) * template.size_bytes()) as u32;
    let prewrite_bytes = if state == FileState::Prewritten { bytes } else { 0 };
    let config = LogConfig { prewrite_bytes, ..LogConfig::default() };
    let limit = config.max_batch_bytes as usize;
    let (mut log, _) = Log::open(real_context(tail_bytes), dir, config)?;
    // The first append makes the files.
    append_one(&mut log, template.batch()?)?;
    if let Some(job) = log.prewrite_job() {
        job.run()?;
    }
    let arrived = template.arrivals(count);
    let start = thread_cpu();
    for bytes in arrived {
        append_one(&mut log, RecordBatch::from_client(bytes, limit)?)?;
    }
    Ok((thread_cpu() - start).as_secs_f64())
}

/// Checks and writes, and gives each buffer back as the log does.
fn run_bare(path: &Path, template: &Template, count: usize, state: FileState) -> anyhow::Result<f64> {
    let file = File::create_new(path)?;
    let mut at = template.size_bytes() as u64;
    file.write_all_at(template.as_bytes(), 0)?;
    if state == FileState::Prewritten {
        prewrite(&file, at, at * count as u64)?;
    }
    let stored = BatchHeader::parse(template.as_bytes())?.crc;
    let arrived = template.arrivals(count);
    let start = thread_cpu();
    for bytes in arrived {
        ensure!(crc32c(&bytes[CRC_COVERS_FROM..]) == stored, "a prepared batch is damaged");
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok((thread_cpu() - start).as_secs_f64())
}
