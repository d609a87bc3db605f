//! `floodmark produce`: records from standard input or files into a topic.

mod tally;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use floodmark_client::{Acks, Client, Compression, Delivery, Producer, ProducerConfig};

use self::tally::Tally;
use super::{Outcome, OutputArgs};
use crate::input::escapes::{self, Separator};
use crate::input::quantity;
use crate::output::note;
use crate::records::NewRecord;
use crate::records::feed::{Chunks, InputArgs, InputForm};
use crate::records::read::{Form, LineForm};
use crate::remote::{self, ServerArgs};

pub(crate) const EXAMPLES: &str = "Examples:
  seq 10 | floodmark produce numbers                                 a record for each line
  echo 'k1=v1' | floodmark produce accounts --key-separator =        with keys
  echo 'k1=' | floodmark produce accounts --key-separator = --null ''      delete a key: its value is null
  floodmark produce images --input whole --key cat --header type=image/png --file cat.png
  find . -print0 | floodmark produce paths --delimiter '\\0'
  floodmark consume orders --output json | floodmark produce copy --input json

Every byte is taken as it is: lines may hold anything but the delimiter. A line of JSON is an object with \"value\" and, if wanted, \"key\",
\"headers\", \"timestamp_ms\" and \"partition\"; bytes are null, a string, {\"utf8\": \"…\"} or {\"base64\": \"…\"}.
With --output json, each record is told on a line of its own once it is acknowledged.";

/// Records that may wait for their acknowledgement; bytes have a limit of their own, in the client.
const PENDING_MAX: usize = 1 << 16;

/// Larger than any broker takes, so that it is the broker's limit that is told.
const RECORD_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// Name of the topic.
    topic: String,
    #[command(flatten)]
    input: InputArgs,
    /// Key and value of a line, with this between them; escapes such as \t are understood.
    #[arg(long, value_name = "S", value_parser = escapes::separator, allow_hyphen_values = true)]
    key_separator: Option<Separator>,
    /// A key for every record.
    #[arg(long, conflicts_with = "key_separator", allow_hyphen_values = true)]
    key: Option<String>,
    /// A key or a value of a line that is this text is null.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    null: Option<String>,
    /// Where all records go [default: where the hash of the key sends them].
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Each line of JSON goes to the partition that it names.
    #[arg(long, conflicts_with = "partition")]
    keep_partitions: bool,
    /// When a record counts as written: once it is on the disks of all replicas in sync, or once its leader has it in memory.
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t = CompressionArg::None)]
    compression: CompressionArg,
    /// How long a batch waits for more records.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = quantity::duration)]
    linger: Duration,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// When a record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcksArg {
    /// On the disks of all replicas in sync.
    All,
    /// In the memory of its leader.
    Leader,
}

impl AcksArg {
    pub(crate) fn acks(self) -> Acks {
        match self {
            AcksArg::All => Acks::All,
            AcksArg::Leader => Acks::Leader,
        }
    }
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CompressionArg {
    pub(crate) fn compression(self) -> Compression {
        match self {
            CompressionArg::None => Compression::None,
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Snappy => Compression::Snappy,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}

pub(crate) fn run(args: &ProduceArgs) -> anyhow::Result<Outcome> {
    let form = args.form()?;
    remote::run(async {
        let client = args.server.connect().await?;
        // Asked before anything is read: whoever types records wants to know at once that there is no such topic.
        let partitions =
            client.partition_count(&args.topic).await.with_context(|| unknown_topic(&args.topic))?;
        if let Some(partition) = args.partition.filter(|partition| *partition >= partitions) {
            bail!("topic {} has no partition {partition}; it has {partitions}, from 0 on", args.topic);
        }
        if args.input.is_typed() {
            note(&format!("a record for each line, into {}; Ctrl-D ends", args.topic));
        }
        let chunks = args.input.start(form)?;
        Run::new(args, &client)?.until_the_end(chunks).await
    })?;
    Ok(Outcome::Good)
}

pub(crate) fn unknown_topic(topic: &str) -> String {
    format!("topic {topic} cannot be used; `floodmark topic create {topic}` makes one that is not there")
}

impl ProduceArgs {
    fn form(&self) -> anyhow::Result<Form> {
        let key = self.key.clone().map(String::into_bytes);
        if self.input.input != InputForm::Lines && (self.key_separator.is_some() || self.null.is_some()) {
            bail!("--key-separator and --null are for lines; leave --input out");
        }
        if self.input.input != InputForm::Json && self.keep_partitions {
            bail!("--keep-partitions is for --input json, whose lines name partitions");
        }
        Ok(match self.input.input {
            InputForm::Json if key.is_some() => {
                bail!("--key is for lines and whole files; a line of JSON has its own")
            }
            InputForm::Json => Form::Json,
            InputForm::Whole => Form::Whole { key },
            InputForm::Lines => Form::Lines(LineForm {
                delimiter: self.input.delimiter,
                key_separator: self.key_separator.clone(),
                null: self.null.clone().map(String::into_bytes),
                key,
            }),
        })
    }
}

/// Records on their way.
struct Run<'a> {
    args: &'a ProduceArgs,
    producer: Producer,
    pending: VecDeque<Delivery>,
    tally: Tally,
}

impl<'a> Run<'a> {
    fn new(args: &'a ProduceArgs, client: &Client) -> anyhow::Result<Run<'a>> {
        let producer = client.producer(ProducerConfig {
            acks: args.acks.acks(),
            compression: args.compression.compression(),
            linger: args.linger,
            record_bytes_max: RECORD_BYTES_MAX,
            buffer_bytes: RECORD_BYTES_MAX,
            delivery_timeout: args.server.timeout,
            ..ProducerConfig::default()
        })?;
        Ok(Run {
            args,
            producer,
            pending: VecDeque::new(),
            tally: Tally::new(args.topic.clone(), args.output.format),
        })
    }

    /// Ctrl-C ends the input: what was read is written.
    async fn until_the_end(mut self, chunks: Chunks) -> anyhow::Result<()> {
        let ended = self.send_all(chunks).await;
        let settled = self.settle().await;
        let finished = self.tally.finish();
        if let Err(e) = ended.and(settled) {
            return Err(e).with_context(|| format!("{} written before this", self.tally.written()));
        }
        finished
    }

    async fn send_all(&mut self, mut chunks: Chunks) -> anyhow::Result<()> {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                chunk = chunks.recv() => match chunk {
                    None => return Ok(()),
                    Some(chunk) => {
                        for record in chunk.records {
                            self.send(&record).await?;
                        }
                        if let Some(failure) = chunk.failure {
                            return Err(failure);
                        }
                    }
                },
                settled = settle_some(&mut self.pending, &mut self.tally), if !self.pending.is_empty() => settled?,
                _ = &mut interrupted => return Ok(()),
            }
        }
    }

    async fn send(&mut self, record: &NewRecord) -> anyhow::Result<()> {
        while self.pending.len() >= PENDING_MAX {
            settle_some(&mut self.pending, &mut self.tally).await?;
        }
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|header| (header.name.as_bytes(), header.value.as_deref())).collect();
        let sent = self.producer.send(floodmark_client::NewRecord {
            topic: &self.args.topic,
            partition: if self.args.keep_partitions { record.partition } else { self.args.partition },
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms,
        });
        self.pending.push_back(sent.await?);
        Ok(())
    }

    /// Waits for all that was sent.
    async fn settle(&mut self) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            settle_some(&mut self.pending, &mut self.tally).await?;
        }
        self.tally.flush()
    }
}

/// Waits for the oldest record, and takes all that is acknowledged by then, in the order in which they were sent.
async fn settle_some(pending: &mut VecDeque<Delivery>, tally: &mut Tally) -> anyhow::Result<()> {
    let settled = poll_fn(|context| {
        let mut is_any = false;
        while let Some(oldest) = pending.front_mut() {
            let Poll::Ready(placed) = Pin::new(oldest).poll(context) else { break };
            pending.pop_front();
            if let Err(e) = placed.map_err(anyhow::Error::new).and_then(|placed| tally.add(&placed)) {
                return Poll::Ready(Err(e));
            }
            is_any = true;
        }
        if is_any || pending.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    settled.await?;
    tally.flush()
}
