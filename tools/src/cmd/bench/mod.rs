//! `floodmark bench`: what a cluster does under load, within bounds of time and bytes, and what was done to find out.

mod consume;
mod fan_out;
mod figures;
mod latency;
mod pace;
mod produce;
mod reading;
mod topic;

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::produce::{AcksArg, CompressionArg};
use super::{Outcome, OutputArgs};
use crate::input::quantity;
use crate::remote::{self, ServerArgs};
use figures::Report;

/// Open-loop commands say what their figures mean.
const OPEN_LOOP: &str = "Records are due at fixed times, whether earlier ones have come back or not, and every time is taken from the moment \
a record was due: a cluster that stands still for a second is charged with every record of that second.";

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Write as fast as the cluster takes it.
    #[command(after_help = "Examples:
  floodmark bench produce
  floodmark bench produce --duration 30s --record-size 1KiB --partitions 4 --compression lz4 --output json")]
    Produce(produce::ProduceArgs),
    /// Read a topic from its start, as fast as the cluster gives it.
    #[command(after_help = "Examples:
  floodmark bench consume                      fills a topic first, and deletes it afterwards
  floodmark bench consume --topic orders")]
    Consume(consume::ConsumeArgs),
    /// Time from a record that is due to its acknowledgement, at a fixed rate.
    #[command(after_help = format!("Example: floodmark bench latency --rate 500 --duration 20s\n\n{OPEN_LOOP}"))]
    Latency(latency::LatencyArgs),
    /// Time from a record that is due to its reader, at a fixed rate.
    #[command(after_help = format!("Example: floodmark bench end-to-end --rate 500 --duration 20s\n\n{OPEN_LOOP}"))]
    EndToEnd(fan_out::EndToEndArgs),
    /// One writer at a fixed rate, many readers who each read everything.
    #[command(after_help = format!("Example: floodmark bench fan-out --readers 10 --rate 1000 --record-size 1KiB\n\n{OPEN_LOOP}"))]
    FanOut(fan_out::FanOutArgs),
}

/// What all of them share.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Use this topic, which must be there [default: one of its own, deleted afterwards].
    #[arg(long)]
    topic: Option<String>,
    /// Partitions of a topic of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=1000), conflicts_with = "topic")]
    partitions: i32,
    /// Bytes of a record's value.
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = record_size)]
    record_size: usize,
    /// Ends after so long.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Ends after so many bytes of values.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = quantity::bytes)]
    bytes: u64,
    /// When a record counts as written.
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t = CompressionArg::None)]
    compression: CompressionArg,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Room for the number that tells a record from others, and no more than a broker takes by default.
fn record_size(text: &str) -> Result<usize, String> {
    let size = quantity::bytes(text)?;
    let allowed = pace::STAMP_LENGTH as u64..=1_000_000;
    match usize::try_from(size) {
        Ok(size_bytes) if allowed.contains(&size) => Ok(size_bytes),
        _ => Err(format!("it is from {} to 1000000 bytes", allowed.start())),
    }
}

/// Long enough to mean something, and with an end.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = quantity::positive_duration(text)?;
    if duration <= Duration::from_secs(86_400) { Ok(duration) } else { Err("it is 24h at most".to_owned()) }
}

pub(crate) fn run(command: BenchCommand) -> anyhow::Result<Outcome> {
    let (output, report) = remote::run_on_all_cores(async {
        Ok(match command {
            BenchCommand::Produce(args) => (args.bench.output, produce::run(&args).await?),
            BenchCommand::Consume(args) => (args.bench.output, consume::run(&args).await?),
            BenchCommand::Latency(args) => (args.bench.output, latency::run(&args).await?),
            BenchCommand::EndToEnd(args) => (args.bench.output, fan_out::end_to_end(&args).await?),
            BenchCommand::FanOut(args) => (args.bench.output, fan_out::run(&args).await?),
        })
    })?;
    report.print(output.format)?;
    Ok(Outcome::Good)
}

/// How far along it is, of its time or of its bytes, whichever ends first; on standard error and only where somebody looks at it.
struct Progress {
    bar: ProgressBar,
    duration: Duration,
    bytes: u64,
}

impl Progress {
    fn start(what: &str, args: &BenchArgs) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr());
        // Not drawn at all where standard error is no terminal.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:40} {percent}% {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        Progress { bar, duration: args.duration, bytes: args.bytes }
    }

    fn show(&self, elapsed: Duration, records: u64, bytes: u64) {
        let of_time = elapsed.as_secs_f64() / self.duration.as_secs_f64();
        let of_bytes = bytes as f64 / self.bytes.max(1) as f64;
        self.bar.set_position((of_time.max(of_bytes).min(1.0) * 1_000.0) as u64);
        let per_second = records as f64 / elapsed.as_secs_f64().max(0.001);
        self.bar.set_message(format!("{} records/s", quantity::show_count(per_second as u64)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One report, in the words that all share.
fn report(bench: &'static str, topic: &str, args: &BenchArgs) -> Report {
    Report::new(bench, topic, args.record_size)
}
