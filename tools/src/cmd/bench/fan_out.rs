//! `floodmark bench end-to-end` and `floodmark bench fan-out`: from the moment a record is due to its readers, one or many.

use anyhow::Context as _;
use clap::Args;
use floodmark_client::Client;
use tokio::task::JoinSet;

use super::figures::{Latencies, Report, Throughput};
use super::latency::{schedule, warm_up};
use super::pace::{self, Pacer};
use super::topic::BenchTopic;
use super::{BenchArgs, Progress, produce, reading};

#[derive(Debug, Args)]
pub(crate) struct EndToEndArgs {
    #[command(flatten)]
    pub(super) bench: BenchArgs,
    /// Records a second.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
}

#[derive(Debug, Args)]
pub(crate) struct FanOutArgs {
    #[command(flatten)]
    pub(super) bench: BenchArgs,
    /// Readers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    readers: u16,
    /// Records a second.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
}

/// What is to be done.
struct Plan<'a> {
    name: &'static str,
    bench: &'a BenchArgs,
    readers: u16,
    rate: u64,
}

pub(super) async fn end_to_end(args: &EndToEndArgs) -> anyhow::Result<Report> {
    run_plan(&Plan { name: "end-to-end", bench: &args.bench, readers: 1, rate: args.rate }).await
}

pub(super) async fn run(args: &FanOutArgs) -> anyhow::Result<Report> {
    run_plan(&Plan { name: "fan-out", bench: &args.bench, readers: args.readers, rate: args.rate }).await
}

async fn run_plan(plan: &Plan<'_>) -> anyhow::Result<Report> {
    let client = plan.bench.server.connect().await?;
    let topic = BenchTopic::open(&client, plan.bench).await?;
    topic.while_there(measure(plan, &client, &topic.name)).await
}

async fn measure(plan: &Plan<'_>, client: &Client, topic: &str) -> anyhow::Result<Report> {
    let bench = plan.bench;
    let producer = client.producer(produce::config(bench))?;
    warm_up(&producer, topic, bench).await?;
    let mut consumers = Vec::new();
    for _ in 0..plan.readers {
        consumers.push(reading::at_the_end(&bench.server.connect().await?, topic).await?);
    }
    let schedule = schedule(bench, plan.rate);
    let mut readers = JoinSet::new();
    for consumer in consumers {
        readers.spawn(reading::read_all(consumer, schedule));
    }
    let value = pace::filler(bench.record_size, 1);
    let mut pacer = Pacer::start(producer.clone(), topic.to_owned(), schedule, value)?;
    let progress = Progress::start(plan.name, bench);
    let mut written = 0;
    let mut failure = None;
    while let Some(sent) = pacer.sent.recv().await {
        if let Err(e) = sent.delivery.await {
            failure = Some(e);
            break;
        }
        written += 1;
        if written % schedule.per_second.div_ceil(10) == 0 {
            progress.show(schedule.start.elapsed(), written, written * bench.record_size as u64);
        }
    }
    let written_in = schedule.start.elapsed();
    let lateness = pacer.finish()?;
    if let Some(e) = failure {
        return Err(e.into());
    }
    let mut latencies = Latencies::new()?;
    let (mut records, mut bytes, mut last) = (0, 0, schedule.start);
    while let Some(seen) = readers.join_next().await {
        let seen = seen.context("a reader has failed")??;
        latencies.add_all(&seen.latencies)?;
        records += seen.records;
        bytes += seen.bytes;
        last = last.max(seen.last);
    }
    producer.close().await?;
    let mut report = super::report(plan.name, topic, bench);
    report.setting("rate", format!("{}/s", plan.rate));
    report.setting("readers", plan.readers);
    report.setting("acks", format!("{:?}", bench.acks).to_lowercase());
    report.written = Some(Throughput::new(written, written * bench.record_size as u64, written_in));
    report.read = Some(Throughput::new(records, bytes, last - schedule.start));
    report.times("due to read", &latencies);
    report.times("due to written, by this program", &lateness);
    let missing = (written * u64::from(plan.readers)).saturating_sub(records);
    if missing > 0 {
        report
            .warnings
            .push(format!("{missing} records were written and not read in time; percentiles leave them out"));
    }
    Ok(report)
}
