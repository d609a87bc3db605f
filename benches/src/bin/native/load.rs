//! Our client as a program that uses it: it produces as fast as the producer takes records, with a look at what became of each, or reads a
//! topic from its start. Prints records per second.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use clap::ValueEnum;
use floodmark_client::{Begin, Client, ConsumerConfig, NewRecord, ProducerConfig, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What it does
    what: What,
    /// The broker's gRPC door
    address: SocketAddr,
    topic: String,
    /// Bytes of a record's value
    record_bytes: usize,
    records: u64,
    /// Batches of so many KiB, where not the producer's default
    #[arg(long)]
    batch_kib: Option<usize>,
    /// Messages of so many KiB to a consumer, where not its default
    #[arg(long)]
    message_kib: Option<u32>,
    /// Everything on one thread
    #[arg(long)]
    one_thread: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Sends records, with the producer's defaults
    Produce,
    /// Reads records one at a time
    Consume,
    /// Reads records as many at a time as are there
    ConsumeBatches,
}

/// Records whose fate is open.
const OPEN_MAX: usize = 100_000;

impl Args {
    #[allow(clippy::print_stdout, reason = "whoever started it reads the figure")]
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let runtime = match self.one_thread {
            true => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            false => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        };
        let seconds = runtime.block_on(async {
            let client = Client::connect(self.address.to_string()).await?;
            match self.what {
                What::Produce => self.produce(&client).await,
                What::Consume | What::ConsumeBatches => self.consume(&client).await,
            }
        })?;
        println!("{} records/s", self.records as f64 / seconds);
        Ok(())
    }

    async fn produce(&self, client: &Client) -> Result<f64> {
        let mut config = ProducerConfig::default();
        if let Some(kib) = self.batch_kib {
            config.batch_bytes = kib << 10;
        }
        let producer = client.producer(config)?;
        let value = vec![b'x'; self.record_bytes];
        let mut open = VecDeque::with_capacity(OPEN_MAX);
        let start = Instant::now();
        for _ in 0..self.records {
            if open.len() == OPEN_MAX
                && let Some(delivery) = open.pop_front()
            {
                placed(delivery).await?;
            }
            open.push_back(producer.send(NewRecord::to(&self.topic).value(&value)).await?);
        }
        for delivery in open {
            placed(delivery).await?;
        }
        let seconds = start.elapsed().as_secs_f64();
        producer.close().await?;
        Ok(seconds)
    }

    async fn consume(&self, client: &Client) -> Result<f64> {
        let mut config = ConsumerConfig::assigned();
        if let Some(kib) = self.message_kib {
            config.message_bytes_max = kib << 10;
        }
        let mut consumer = client.consumer(config).await?;
        consumer.assign_topic(&self.topic, Begin::Start).await?;
        let (mut records, mut bytes) = (0, 0);
        // With the first record, as `rdkafka_performance` does: what it takes to find and reach the leader is on neither side.
        let mut start = None;
        while records < self.records {
            if self.what == What::Consume {
                let record = consumer.recv().await?;
                start.get_or_insert_with(Instant::now);
                bytes += record.value.map_or(0, |value| value.len());
                records += 1;
            } else {
                let batch = consumer.recv_batch().await?;
                start.get_or_insert_with(Instant::now);
                bytes +=
                    batch.iter().map(|record| record.value.as_ref().map_or(0, |v| v.len())).sum::<usize>();
                records += batch.len() as u64;
            }
        }
        std::hint::black_box(bytes);
        let seconds = start.map_or(0.0, |start| start.elapsed().as_secs_f64());
        consumer.close().await?;
        Ok(seconds)
    }
}

async fn placed(delivery: floodmark_client::Delivery) -> Result<()> {
    delivery.await.map(|placed| {
        std::hint::black_box(placed.offset);
    })
}
