//! `floodmark bench latency`: from the moment a record is due to its acknowledgement.

use clap::Args;
use floodmark_client::{Client, NewRecord, Producer};
use floodmark_storage::random::Random;

use super::figures::{Latencies, Report, Throughput};
use super::pace::{self, Pacer, Schedule};
use super::topic::BenchTopic;
use super::{BenchArgs, Progress, produce};

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    pub(super) bench: BenchArgs,
    /// Records a second.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
}

pub(super) async fn run(args: &LatencyArgs) -> anyhow::Result<Report> {
    let client = args.bench.server.connect().await?;
    let topic = BenchTopic::open(&client, &args.bench).await?;
    topic.while_there(measure(args, &client, &topic.name)).await
}

async fn measure(args: &LatencyArgs, client: &Client, topic: &str) -> anyhow::Result<Report> {
    let bench = &args.bench;
    let producer = client.producer(produce::config(bench))?;
    warm_up(&producer, topic, bench).await?;
    let schedule = schedule(bench, args.rate);
    let mut latencies = Latencies::new()?;
    let value = pace::filler(bench.record_size, 1);
    let mut pacer = Pacer::start(producer.clone(), topic.to_owned(), schedule, value)?;
    let progress = Progress::start("latency", bench);
    let mut records = 0;
    let mut failure = None;
    while let Some(sent) = pacer.sent.recv().await {
        if let Err(e) = sent.delivery.await {
            failure = Some(e);
            break;
        }
        latencies.add(schedule.due(sent.number).elapsed());
        records += 1;
        if records % schedule.per_second.div_ceil(10) == 0 {
            progress.show(schedule.start.elapsed(), records, records * bench.record_size as u64);
        }
    }
    let elapsed = schedule.start.elapsed();
    let lateness = pacer.finish()?;
    if let Some(e) = failure {
        return Err(e.into());
    }
    producer.close().await?;
    let mut report = super::report("latency", topic, bench);
    report.setting("rate", format!("{}/s", args.rate));
    report.setting("acks", format!("{:?}", bench.acks).to_lowercase());
    report.written = Some(Throughput::new(records, records * bench.record_size as u64, elapsed));
    report.times("due to acknowledged", &latencies);
    report.times("due to written, by this program", &lateness);
    Ok(report)
}

pub(super) fn schedule(bench: &BenchArgs, rate: u64) -> Schedule {
    let records_max = bench.bytes / bench.record_size as u64;
    // Never 0, the number of what is written beforehand.
    Schedule::new(Random::System.next_u64().max(1), rate, bench.duration, records_max)
}

/// A record of no run, so that connections and identities are there when the first one is due.
pub(super) async fn warm_up(producer: &Producer, topic: &str, bench: &BenchArgs) -> anyhow::Result<()> {
    let value = vec![0; bench.record_size];
    producer.deliver(NewRecord::to(topic).value(&value)).await?;
    Ok(())
}
