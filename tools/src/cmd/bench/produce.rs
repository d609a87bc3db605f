//! `floodmark bench produce`: as fast as the cluster takes it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use clap::Args;
use floodmark_client::{Client, Delivery, NewRecord, Producer, ProducerConfig};
use tokio::time::Instant;

use super::figures::{Latencies, Report, Throughput};
use super::topic::BenchTopic;
use super::{BenchArgs, Progress, pace};
use crate::input::quantity;

/// Between two looks at the clock for the sake of the bar.
const SHOW_EVERY: u64 = 4_096;

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    pub(super) bench: BenchArgs,
    /// How long a batch waits for more records.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = quantity::duration)]
    linger: Duration,
    /// Bytes that may wait to be acknowledged: the more, the longer a record waits in here.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = quantity::bytes)]
    buffer: u64,
}

pub(super) async fn run(args: &ProduceArgs) -> anyhow::Result<Report> {
    let client = args.bench.server.connect().await?;
    let topic = BenchTopic::open(&client, &args.bench).await?;
    topic.while_there(produce(args, &client, &topic.name)).await
}

/// The settings of a run's producer.
pub(super) fn config(args: &BenchArgs) -> ProducerConfig {
    ProducerConfig {
        acks: args.acks.acks(),
        compression: args.compression.compression(),
        delivery_timeout: args.server.timeout,
        ..ProducerConfig::default()
    }
}

async fn produce(args: &ProduceArgs, client: &Client, topic: &str) -> anyhow::Result<Report> {
    let bench = &args.bench;
    let config = config(bench);
    let buffer_bytes = usize::try_from(args.buffer)?.max(config.record_bytes_max);
    let producer = client.producer(ProducerConfig { linger: args.linger, buffer_bytes, ..config })?;
    let written = write(bench, &producer, topic, Until::TimeOrBytes).await?;
    producer.close().await?;
    let mut report = super::report("produce", topic, bench);
    report.setting("acks", format!("{:?}", bench.acks).to_lowercase());
    report.setting("compression", format!("{:?}", bench.compression).to_lowercase());
    report.setting("linger", format!("{} ms", args.linger.as_millis()));
    report.setting("buffer", quantity::show_bytes(buffer_bytes as u64));
    report.written = Some(written.throughput);
    report.times("taken to acknowledged", &written.latencies);
    Ok(report)
}

/// What came of writing.
pub(super) struct Written {
    pub(super) throughput: Throughput,
    pub(super) latencies: Latencies,
}

/// When writing ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Whichever is used up first.
    TimeOrBytes,
    Bytes,
}

/// Writes until it ends, and waits for all acknowledgements.
pub(super) async fn write(
    args: &BenchArgs,
    producer: &Producer,
    topic: &str,
    until: Until,
) -> anyhow::Result<Written> {
    let mut value = pace::filler(args.record_size, 1);
    let mut flight = Flight { pending: VecDeque::new(), latencies: Latencies::new()? };
    let progress = Progress::start("writing", args);
    let records_max = args.bytes.div_ceil(args.record_size as u64).max(1);
    let start = Instant::now();
    let mut records = 0;
    while records < records_max {
        let now = Instant::now();
        if until == Until::TimeOrBytes && now - start >= args.duration {
            break;
        }
        // Another one each time, so that no codec sees the same twice.
        value[..8].copy_from_slice(&records.to_be_bytes());
        let delivery = producer.send(NewRecord::to(topic).value(&value)).await?;
        flight.pending.push_back((delivery, now));
        records += 1;
        flight.land_some(false).await?;
        if records.is_multiple_of(SHOW_EVERY) {
            progress.show(now - start, records, records * args.record_size as u64);
        }
    }
    flight.land_some(true).await?;
    let throughput = Throughput::new(records, records * args.record_size as u64, start.elapsed());
    Ok(Written { throughput, latencies: flight.latencies })
}

/// Records that have been taken and not acknowledged.
struct Flight {
    pending: VecDeque<(Delivery, Instant)>,
    latencies: Latencies,
}

impl Flight {
    /// Takes what is acknowledged, from the oldest on; with `all`, waits for the rest.
    async fn land_some(&mut self, all: bool) -> anyhow::Result<()> {
        poll_fn(|context| {
            while let Some((delivery, taken)) = self.pending.front_mut() {
                match Pin::new(delivery).poll(context) {
                    Poll::Pending if all => return Poll::Pending,
                    Poll::Pending => break,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e.into())),
                    Poll::Ready(Ok(_)) => self.latencies.add(taken.elapsed()),
                }
                self.pending.pop_front();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}
