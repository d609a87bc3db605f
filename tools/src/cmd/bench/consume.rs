//! `floodmark bench consume`: a topic from its start to its end, as fast as the cluster gives it.

use clap::Args;
use floodmark_client::{Begin, Client, ConsumerConfig, TopicPartition};
use tokio::time::{Instant, timeout_at};

use super::figures::{Report, Throughput};
use super::produce::{self, Until};
use super::topic::BenchTopic;
use super::{BenchArgs, Progress};

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    pub(super) bench: BenchArgs,
}

pub(super) async fn run(args: &ConsumeArgs) -> anyhow::Result<Report> {
    let bench = &args.bench;
    let client = bench.server.connect().await?;
    let topic = BenchTopic::open(&client, bench).await?;
    topic
        .while_there(async {
            if bench.topic.is_none() {
                let producer = client.producer(produce::config(bench))?;
                produce::write(bench, &producer, &topic.name, Until::Bytes).await?;
                producer.close().await?;
            }
            read(bench, &client, &topic.name).await
        })
        .await
}

async fn read(bench: &BenchArgs, client: &Client, topic: &str) -> anyhow::Result<Report> {
    let ends = client.admin().topic_offsets(topic, None).await?;
    let begin: Vec<(TopicPartition, Begin)> = ends
        .iter()
        .map(|end| (TopicPartition::new(topic, end.partition), Begin::Offset(end.start)))
        .collect();
    let mut consumer = client.consumer(ConsumerConfig::assigned()).await?;
    let progress = Progress::start("reading", bench);
    let start = Instant::now();
    let give_up = start + bench.duration;
    consumer.assign(&begin).await?;
    let handle = consumer.handle();
    let is_at_the_end = || {
        ends.iter().all(|end| {
            let position = handle.position(&TopicPartition::new(topic, end.partition));
            position.is_some_and(|position| position >= end.high_watermark)
        })
    };
    let (mut records, mut bytes, mut last) = (0, 0, start);
    let mut is_cut = false;
    while !is_at_the_end() && bytes < bench.bytes {
        let Ok(batch) = timeout_at(give_up, consumer.recv_batch()).await else {
            is_cut = true;
            break;
        };
        for record in batch? {
            records += 1;
            bytes += record.value.map_or(0, |value| value.len() as u64);
        }
        last = Instant::now();
        progress.show(last - start, records, bytes);
    }
    consumer.close().await?;
    let mut report = super::report("consume", topic, bench);
    report.read = Some(Throughput::new(records, bytes, last - start));
    if is_cut {
        report.warnings.push("the time was used up before the end of the topic was reached".to_owned());
    }
    Ok(report)
}
