//! `floodmark produce`: records from standard input or files into a topic.

mod missed;
mod tally;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use floodmark_client::{Acks, Client, Compression, Delivery, Producer, ProducerConfig};

use self::missed::Missed;
use self::tally::Tally;
use super::{Outcome, OutputArgs};
use crate::input::escapes::{self, Separator};
use crate::input::quantity;
use crate::output::note;
use crate::records::NewRecord;
use crate::records::feed::{Chunks, InputArgs, InputForm};
use crate::records::read::{Form, LineForm};
use crate::remote::{self, Interrupts, ServerArgs};

pub(crate) const EXAMPLES: &str = "Examples:
  seq 10 | floodmark produce numbers                                 a record for each line
  echo 'k1=v1' | floodmark produce accounts --key-separator =        with keys
  echo 'k1=' | floodmark produce accounts --key-separator = --null ''      delete a key: its value is null
  floodmark produce images --input whole --key cat --header type=image/png --file cat.png
  find . -print0 | floodmark produce paths --delimiter '\\0'
  floodmark consume orders --output json | floodmark produce copy --input json --as-copies

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
    /// The records are copies: what headers of theirs asked of an event store when they were new is kept, and not asked again.
    #[arg(long)]
    as_copies: bool,
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
    pending: VecDeque<Sent>,
    /// Records that were sent.
    sent: u64,
    tally: Tally,
    missed: Missed,
}

/// A record on its way.
struct Sent {
    delivery: Delivery,
    /// Its place in the whole input, from 1 on.
    record: u64,
    source: Arc<str>,
    line: u64,
}

impl<'a> Run<'a> {
    fn new(args: &'a ProduceArgs, client: &Client) -> anyhow::Result<Run<'a>> {
        let producer = client.producer(ProducerConfig {
            acks: args.acks.acks(),
            compression: args.compression.compression(),
            linger: args.linger,
            record_bytes_max: RECORD_BYTES_MAX,
            buffer_bytes: RECORD_BYTES_MAX,
            are_copies: args.as_copies,
            delivery_timeout: args.server.timeout,
            ..ProducerConfig::default()
        })?;
        Ok(Run {
            args,
            producer,
            pending: VecDeque::new(),
            sent: 0,
            tally: Tally::new(args.topic.clone(), args.output.format),
            missed: Missed::default(),
        })
    }

    /// Ctrl-C ends the input: what was read is written. Once the input has ended, it ends the waiting for that.
    async fn until_the_end(mut self, chunks: Chunks) -> anyhow::Result<()> {
        let mut interrupts = Interrupts::new()?;
        let ended = self.send_all(chunks, &mut interrupts).await;
        let settled = tokio::select! {
            settled = self.settle() => Some(settled),
            () = interrupts.next() => None,
        };
        let settled = settled.unwrap_or_else(|| {
            Err(anyhow!(
                "interrupted while {} of the records sent had no answer; whether they are written is not known",
                self.pending.len()
            ))
        });
        let finished = self.tally.finish();
        // What was refused came before whatever else went wrong.
        if let Err(e) = self.missed.take_first().and(ended).and(settled) {
            return Err(e).with_context(|| self.missed.told(&self.tally.written()));
        }
        finished
    }

    /// Ends early where a record is refused.
    async fn send_all(&mut self, mut chunks: Chunks, interrupts: &mut Interrupts) -> anyhow::Result<()> {
        while !self.missed.is_any() {
            tokio::select! {
                chunk = chunks.recv() => match chunk {
                    None => return Ok(()),
                    Some(chunk) => {
                        for record in chunk.records {
                            self.send(&record, &chunk.source).await?;
                            if self.missed.is_any() {
                                return Ok(());
                            }
                        }
                        if let Some(failure) = chunk.failure {
                            return Err(failure);
                        }
                    }
                },
                settled = settle_some(&mut self.pending, &mut self.tally, &mut self.missed), if !self.pending.is_empty() => settled?,
                () = interrupts.next() => return Ok(()),
            }
        }
        Ok(())
    }

    async fn send(&mut self, record: &NewRecord, source: &Arc<str>) -> anyhow::Result<()> {
        while self.pending.len() >= PENDING_MAX {
            settle_some(&mut self.pending, &mut self.tally, &mut self.missed).await?;
        }
        if self.missed.is_any() {
            return Ok(());
        }
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|header| (&header.name[..], header.value.as_deref())).collect();
        let sent = self.producer.send(floodmark_client::NewRecord {
            topic: &self.args.topic,
            partition: if self.args.keep_partitions { record.partition } else { self.args.partition },
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms,
        });
        let delivery = sent.await.with_context(|| place(source, record.line))?;
        self.sent += 1;
        let (record, line) = (self.sent, record.line);
        self.pending.push_back(Sent { delivery, record, source: Arc::clone(source), line });
        Ok(())
    }

    /// Waits for all that was sent.
    async fn settle(&mut self) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            settle_some(&mut self.pending, &mut self.tally, &mut self.missed).await?;
        }
        self.tally.flush()
    }
}

/// Waits for the oldest record, and takes all that have their outcome by then, in the order in which they were sent. What lies behind a
/// record that was refused may have been written, so it is asked for as well.
async fn settle_some(
    pending: &mut VecDeque<Sent>,
    tally: &mut Tally,
    missed: &mut Missed,
) -> anyhow::Result<()> {
    let settled = poll_fn(|context| {
        let mut is_any = false;
        while let Some(oldest) = pending.front_mut() {
            let Poll::Ready(outcome) = Pin::new(&mut oldest.delivery).poll(context) else { break };
            is_any = true;
            let Some(sent) = pending.pop_front() else { break };
            match outcome {
                Ok(placed) => {
                    missed.on_acknowledged();
                    if let Err(e) = tally.add(sent.record, &placed) {
                        return Poll::Ready(Err(e));
                    }
                }
                Err(e) => {
                    missed.add(sent.record, || anyhow::Error::new(e).context(place(&sent.source, sent.line)));
                }
            }
        }
        if is_any || pending.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    settled.await?;
    tally.flush()
}

fn place(source: &str, line: u64) -> String {
    if line == 0 { source.to_owned() } else { format!("{source}, line {line}") }
}
