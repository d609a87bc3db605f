//! Streams: what reading one costs in a large log, and what the key index adds to the CPU time of appends.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use clap::Parser;
use floodmark_benches::measure::{Compared, median, take_turns, thread_cpu};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{LEADER, Setup, append_one, real_context};
use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord, RecordBatch};
use floodmark_proto::ids::Offset;
use floodmark_storage::LogConfig;
use floodmark_storage::clock::Stopwatch;
use floodmark_storage::key_index::Direction;
use floodmark_storage::log::Log;
use floodmark_storage::log::reader::{LogReader, StreamQuery};
use floodmark_storage::random::SplitMix;

/// The one that the `floodmark` binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes and time of reading one stream among many, and CPU time of appends with a key index over those without.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// Events in the log that is read; 50,000,000 are those of the aim, and take some 12 GB
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Streams among them, drawn by chance for each event
    #[arg(long, default_value_t = 40_000)]
    streams: u64,
    /// Events of the stream that is read, spread over the whole log
    #[arg(long, default_value_t = 100)]
    length: u64,
    /// Bytes of an event's value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Appends of each side in each run, where CPU time is compared
    #[arg(long, default_value_t = 400_000)]
    appends: usize,
    /// Keep the log that is read here, and use it where it is there already, if it was closed
    #[arg(long)]
    at: Option<PathBuf>,
    /// Leave out the comparison of CPU time
    #[arg(long)]
    only_read: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("event store: reading a stream, and what its index costs");
    let scratch = args.setup.scratch()?;
    let at = args.at.clone().unwrap_or_else(|| scratch.path().join("read"));
    read_streams(&args, &at, &mut report)?;
    if !args.only_read {
        compare_appends(&args, &mut report)?;
    }
    report.print(args.setup.output);
    Ok(())
}

fn config(key_index: bool) -> LogConfig {
    LogConfig { key_index, prewrite_bytes: 0, ..LogConfig::default() }
}

/// The stream that is read. Others have the same length of key.
const WANTED: &[u8] = b"order-wanted-0000000";

fn key(stream: u64) -> Vec<u8> {
    format!("order-{stream:014}").into_bytes()
}

fn event(key: &[u8], value: &[u8], n: u64) -> anyhow::Result<BatchBuilder> {
    let mut builder = BatchBuilder::new();
    let timestamp = 1_700_000_000_000 + n as i64;
    builder.push(&NewRecord { timestamp, key: Some(key), value: Some(value), headers: &[] })?;
    Ok(builder)
}

fn write_indexes(log: &mut Log) -> anyhow::Result<()> {
    while let Some(job) = log.key_index_job() {
        job.run()?;
    }
    Ok(())
}

/// Appends events one by one, as an event store gets them.
fn fill(args: &Args, log: &mut Log) -> anyhow::Result<()> {
    let mut random = SplitMix::new(1);
    let value = vec![b'v'; args.value_bytes];
    let every = (args.events / args.length).max(1);
    for n in 0..args.events {
        let drawn = key(random.below(args.streams));
        let key = if n % every == every / 2 { WANTED } else { &drawn };
        append_one(log, event(key, &value, n)?.build()?)?;
        write_indexes(log)?;
        if log.is_checkpoint_due() {
            log.checkpoint()?;
        }
    }
    Ok(())
}

fn read_streams(args: &Args, at: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (mut log, _) = Log::open(real_context(0), at, config(true))?;
    if log.end() == Offset::ZERO {
        fill(args, &mut log)?;
        log.close()?;
        (log, _) = Log::open(real_context(0), at, config(true))?;
    }
    let end = log.end();
    ensure!(end.0 as u64 == args.events, "{} holds {end} events, not {}", at.display(), args.events);
    let reader = log.reader();
    // The first one opens the indexes; of the segment that was not rolled it is built.
    let opening = Stopwatch::start();
    let first = read(&reader, Direction::Forward, WANTED, args)?;
    let opening_ms = opening.elapsed().as_secs_f64() * 1e3;
    ensure!(first.0 as u64 == args.length, "{} events of {}", first.0, args.length);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (direction, name) in [(Direction::Forward, "forward"), (Direction::Backward, "backward")] {
        let (ms, (_, bytes, calls)) = timed(21, || read(&reader, direction, WANTED, args))?;
        let what = format!("a stream of {} among {} events, {name}", args.length, args.events);
        report.value(format!("{what}: MiB read"), Aim::AtMost(1.0), mib(bytes), format!("{calls} reads"));
        report.value(format!("{what}: ms, warm"), Aim::AtMost(5.0), ms, "median of 21");
    }
    let detail = format!("{:.3} MiB, indexes opened", mib(first.1));
    report.value("the first read of all after opening the log: ms", Aim::None, opening_ms, detail);
    let (ms, (_, bytes, calls)) = timed(21, || read(&reader, Direction::Forward, b"nobody", args))?;
    report.value("a stream that is not there: ms", Aim::None, ms, format!("{bytes} bytes, {calls} reads"));
    let (ms, _) = timed(21, || Ok(reader.last_of_key(WANTED, Offset::MAX)?))?;
    report.value("the last offset of the stream: ms", Aim::None, ms, "median of 21");
    Ok(())
}

/// Records, bytes and reads.
fn read(
    reader: &LogReader,
    direction: Direction,
    key: &[u8],
    args: &Args,
) -> anyhow::Result<(usize, u64, u64)> {
    let from = if direction == Direction::Forward { Offset::ZERO } else { Offset::MAX };
    let (below, max_records, max_bytes) = (Offset::MAX, 2 * args.length as usize, 64 << 20);
    let read = reader.read_stream(&StreamQuery { key, from, direction, below, max_records, max_bytes })?;
    Ok((read.records.len(), read.cost.bytes, read.cost.calls))
}

fn timed<T>(times: usize, call: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut taken = Vec::with_capacity(times);
    let mut last = None;
    for _ in 0..times {
        let start = Stopwatch::start();
        last = Some(call()?);
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((median(taken), last.context("nothing was measured")?))
}

/// A kind of append whose CPU time is compared.
struct Appends {
    name: &'static str,
    events: usize,
    value_bytes: usize,
    codec: CompressionType,
    aim: Aim,
}

fn compare_appends(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let kind = |name, events, value_bytes, codec, aim| Appends { name, events, value_bytes, codec, aim };
    let aim = Aim::AtMost(1.15);
    let kinds = [
        kind("one event of 100 bytes", 1, 100, CompressionType::None, aim),
        kind("one event of 1 KiB", 1, 1024, CompressionType::None, aim),
        kind("16 events of 1 KiB", 16, 1024, CompressionType::None, Aim::None),
        kind("16 events of 1 KiB, lz4", 16, 1024, CompressionType::Lz4, Aim::None),
    ];
    for kind in kinds {
        let appends = args.appends / kind.events;
        let compared = compare(args, &kind, appends.max(1))?;
        report.compared(
            format!("appends of {}: CPU with index over without", kind.name),
            kind.aim,
            &compared,
            "µs",
        );
    }
    Ok(())
}

fn compare(args: &Args, kind: &Appends, appends: usize) -> anyhow::Result<Compared> {
    let mut scratch = args.setup.scratch()?;
    let streams = args.streams;
    let run = |dir: &Path, key_index: bool| {
        let seconds = run_appends(dir, kind, appends, streams, key_index)?;
        std::fs::remove_dir_all(dir)?;
        Ok(seconds * 1e6 / appends as f64)
    };
    take_turns(
        args.setup.pairs,
        &mut scratch,
        |scratch| run(&scratch.path().join("with"), true),
        |scratch| run(&scratch.path().join("without"), false),
    )
}

/// CPU time of what a broker does with requests once it has their bytes; of the index everything, also what other threads do there.
fn run_appends(
    dir: &Path,
    kind: &Appends,
    appends: usize,
    streams: u64,
    key_index: bool,
) -> anyhow::Result<f64> {
    // Segments small enough that several are rolled, and their indexes written.
    let config = LogConfig { segment_bytes: 32 << 20, ..config(key_index) };
    let limit = config.max_batch_bytes as usize;
    let (mut log, _) = Log::open(real_context(64 << 20), dir, config)?;
    let (mut random, value) = (SplitMix::new(2), vec![b'v'; kind.value_bytes]);
    let mut arrived = Vec::with_capacity(appends);
    for n in 0..appends as u64 {
        let mut builder = event(&key(random.below(streams)), &value, n)?.compression(kind.codec, None);
        for _ in 1..kind.events {
            let key = key(random.below(streams));
            let record = NewRecord {
                timestamp: 1_700_000_000_000,
                key: Some(&key),
                value: Some(&value),
                headers: &[],
            };
            builder.push(&record)?;
        }
        arrived.push(BytesMut::from(builder.build()?.as_bytes()));
    }
    let start = thread_cpu();
    for bytes in arrived {
        for outcome in log.append([RecordBatch::from_client(bytes, limit)?], LEADER)? {
            outcome?;
        }
        write_indexes(&mut log)?;
    }
    Ok((thread_cpu() - start).as_secs_f64())
}
