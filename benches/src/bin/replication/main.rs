//! What copying costs: `acks=all` over three brokers beside the same bytes in three brokers that know nothing of each other, and a follower that
//! was down beside a bare copy of the files that it lacks.
#![allow(clippy::disallowed_methods, reason = "the bare copy reads and writes files itself")]

mod brokers;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use clap::Parser;
use floodmark_benches::kafka::Kafka;
use floodmark_benches::measure::{Compared, take_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{Setup, Template};
use floodmark_storage::clock::Stopwatch;

use brokers::{Brokers, TOPIC};

/// Partitions of the topic: one for each broker to lead.
const PARTITIONS: i32 = 3;
/// Bytes read and written at a time by the bare copy.
const COPY_BYTES: usize = 1 << 20;

/// Throughput of acks=all over three brokers, and the rate at which a follower that was down catches up.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// MiB produced in each run, three times that on disks
    #[arg(long, default_value_t = 384)]
    mib: u64,
    /// KiB of a batch
    #[arg(long, default_value_t = 256)]
    batch_kib: usize,
    /// Batches that a producer has under way
    #[arg(long, default_value_t = 4)]
    under_way: usize,
    /// MiB that a follower lacks when it starts again
    #[arg(long, default_value_t = 384)]
    lacks_mib: u64,
    /// Leave out throughput
    #[arg(long)]
    only_catch_up: bool,
    /// Leave out catching up
    #[arg(long)]
    only_throughput: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("replication: three brokers in one process");
    if !args.only_catch_up {
        compare_throughput(&args, &mut report)?;
    }
    if !args.only_throughput {
        compare_catch_up(&args, &mut report)?;
    }
    report.print(args.setup.output);
    Ok(())
}

fn compare_throughput(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let template = Template::of_bytes(args.batch_kib << 10)?;
    let batches = template.count_in((args.mib << 20) / PARTITIONS as u64);
    let mib = (batches * template.size_bytes()) as f64 * f64::from(PARTITIONS) / f64::from(1 << 20);
    let scratch = args.setup.scratch()?;
    let cluster = Brokers::cluster(&scratch.path().join("cluster"))?;
    cluster.create(PARTITIONS)?;
    let alone = Brokers::alone(&scratch.path().join("alone"))?;
    alone.create(PARTITIONS)?;
    let rate = |brokers: &Brokers| -> anyhow::Result<f64> {
        let begun = Stopwatch::start();
        produce(&brokers.leaders()?, &template, batches, args.under_way)?;
        Ok(mib / begun.elapsed().as_secs_f64())
    };
    let compared = take_turns(args.setup.pairs, &mut (), |()| rate(&cluster), |()| rate(&alone))?;
    report.compared(
        "acks=all over three brokers / three brokers alone",
        Aim::AtLeast(0.7),
        &compared,
        "MiB/s",
    );
    cluster.stop();
    alone.stop();
    Ok(())
}

/// Sends `batches` to each leader, all at once; returns when all are acknowledged.
fn produce(
    leaders: &[(i32, std::net::SocketAddr)],
    template: &Template,
    batches: usize,
    under_way: usize,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let send = |(partition, leader): &(i32, std::net::SocketAddr)| {
            let (partition, leader) = (*partition, *leader);
            scope.spawn(move || {
                Kafka::connect(leader)?.produce_all(TOPIC, partition, template, batches, under_way)
            })
        };
        let sending: Vec<_> = leaders.iter().map(send).collect();
        sending.into_iter().try_for_each(|sent| match sent.join() {
            Ok(sent) => sent,
            Err(_) => anyhow::bail!("a producer panicked"),
        })
    })
}

/// A start costs what has nothing to do with bytes. So a follower starts once lacking much and once lacking little, and the difference counts.
fn compare_catch_up(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let template = Template::of_bytes(args.batch_kib << 10)?;
    let scratch = args.setup.scratch()?;
    let folder = scratch.path().join("catch-up");
    let mut cluster = Brokers::cluster(&folder)?;
    cluster.create(1)?;
    let away = cluster.follower()?;
    let mut pairs = Vec::new();
    for turn in 0..=args.setup.pairs.max(1) {
        let little = lack(&mut cluster, away, &template, 16 << 20, args.under_way)?;
        let much = lack(&mut cluster, away, &template, args.lacks_mib << 20, args.under_way)?;
        let bytes = much.bytes.saturating_sub(little.bytes) as f64 / f64::from(1 << 20);
        let seconds = much.seconds - little.seconds;
        let copied = copy(&cluster.folder_of_leader(&folder)?, &folder.join("copy"), args.lacks_mib << 20)?;
        // Of a start that took longer than one with more to copy nothing can be told.
        if turn > 0 && seconds > 0.0 {
            pairs.push((bytes / seconds, copied));
        }
    }
    let compared = Compared::of_pairs(&pairs);
    report.compared("a follower catches up / bare copy", Aim::AtLeast(0.8), &compared, "MiB/s");
    cluster.stop();
    Ok(())
}

struct Lacked {
    bytes: u64,
    seconds: f64,
}

/// Stops a follower, has the others go on, and starts it again: until it is in sync.
fn lack(
    cluster: &mut Brokers,
    away: usize,
    template: &Template,
    bytes: u64,
    under_way: usize,
) -> anyhow::Result<Lacked> {
    cluster.stop_one(away);
    let batches = template.count_in(bytes);
    produce(&cluster.leaders()?, template, batches, under_way)?;
    let begun = Stopwatch::start();
    cluster.start_one(away)?;
    cluster.wait_in_sync(3)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Lacked { bytes: (batches * template.size_bytes()) as u64, seconds })
}

/// Reads the newest segments and writes them elsewhere, synced, up to `bytes`; MiB per second.
fn copy(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<f64> {
    let mut segments: Vec<PathBuf> = fs::read_dir(from)
        .with_context(|| format!("list {}", from.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    segments.sort();
    fs::create_dir_all(to)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    let begun = Stopwatch::start();
    for segment in segments.iter().rev() {
        let mut read = File::open(segment)?;
        let mut write = File::create(to.join(segment.file_name().unwrap_or_default()))?;
        while copied < bytes {
            let count = read.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            write.write_all(&buffer[..count])?;
            copied += count as u64;
        }
        write.sync_data()?;
    }
    let rate = copied as f64 / f64::from(1 << 20) / begun.elapsed().as_secs_f64();
    fs::remove_dir_all(to)?;
    Ok(rate)
}
