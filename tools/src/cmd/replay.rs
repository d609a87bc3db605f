//! `floodmark replay`: a range of a topic once more, at a chosen speed, to standard output, a file or another topic.

mod checkpoint;
mod copy;
mod file;
mod print;
mod progress;
mod rate;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use floodmark_client::replay::{Rate, ReplayConfig, Span};
use floodmark_client::{Client, Record, TopicPartition, partition_of_key};
use serde::Serialize;

use super::Outcome;
use super::consume::IsolationArg;
use super::produce::unknown_topic;
use crate::input::position::{self, Bounds, Position};
use crate::output::Sink;
use crate::output::table::{Column, Pages};
use crate::records::write::RecordOutputArgs;
use crate::remote::{self, Interrupts, ServerArgs};
use checkpoint::{Checkpoint, Target};

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark replay orders --from -2h --to -1h                          to standard output, as fast as it goes
  floodmark replay orders --rate 10x --into orders-again               ten times as fast as it was written
  floodmark replay orders --rate 500/s --key 42 --output json
  floodmark replay orders --into orders-again --checkpoint orders.job  stopped and started again it goes on where it was
  floodmark replay orders --file orders.jsonl --checkpoint orders.job  as JSON lines, which `floodmark produce --input json` takes
  floodmark replay orders --from 2026-11-28T10:00:00Z --dry-run        says what would be read

Positions are those of `floodmark consume`. The range is fixed when it begins; what is written meanwhile is not in it. Several
partitions come in the order of their timestamps, each in its own order, the same each time. Offsets of groups are never touched.";

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Name of the topic.
    topic: String,
    /// Where to begin.
    #[arg(long, value_name = "POSITION", default_value = "start", value_parser = position::argument, allow_hyphen_values = true)]
    from: Position,
    /// Where to end, before this position [default: where the topic ends now].
    #[arg(long, value_name = "POSITION", default_value = "end", value_parser = position::argument, allow_hyphen_values = true)]
    to: Position,
    /// Only these partitions.
    #[arg(long, value_name = "P", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Only records with this key, of the partition that it belongs to.
    #[arg(long, value_name = "KEY", conflicts_with = "partition", allow_hyphen_values = true)]
    key: Option<String>,
    /// Only records for which this expression is true; the broker leaves the others out.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Which records of transactions are read.
    #[arg(long, value_enum, default_value_t = IsolationArg::Uncommitted)]
    isolation: IsolationArg,
    /// How fast: max, records a second as in 500/s, or times the original speed as in 10x or 0.5x.
    #[arg(long, value_name = "RATE", default_value = "max", value_parser = rate::argument)]
    rate: Rate,
    /// Write to this topic, which must be there: key, value, headers and time as they are, and a header that says where each comes from.
    #[arg(long, value_name = "TOPIC", conflicts_with = "file")]
    into: Option<String>,
    /// Write to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep how far it is in this file, and go on from there if it is there already.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Say what would be read, and read nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: RecordOutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<Outcome> {
    if args.checkpoint.is_some() && args.into.is_none() && args.file.is_none() {
        bail!("what was printed cannot be taken back, so --checkpoint needs --into or --file");
    }
    let kept = args.checkpoint.as_deref().map(Checkpoint::read).transpose()?.flatten();
    if let Some(kept) = &kept {
        kept.check(args)?;
    }
    remote::run(async {
        let client = args.server.connect().await?;
        let topic_id = client.topic_id(&args.topic).await.with_context(|| unknown_topic(&args.topic))?;
        let count = client.partition_count(&args.topic).await?;
        if let (Some(kept), Some(path)) = (&kept, &args.checkpoint) {
            let target_id = match &args.into {
                Some(into) => client.topic_id(into).await.with_context(|| unknown_topic(into))?,
                None => None,
            };
            kept.check_topics(path, topic_id, target_id)?;
        }
        let spans = match &kept {
            Some(kept) => kept.spans(),
            None => spans(args, &client, count).await?,
        };
        if args.dry_run {
            return Ok(describe(args, &spans)?);
        }
        let config = ReplayConfig {
            topic_id,
            filter: args.filter.clone(),
            rate: args.rate,
            isolation: args.isolation.isolation(),
            ..ReplayConfig::of(&args.topic)
        };
        let interrupts = Interrupts::new()?;
        let job = Job { args, client: &client, config, spans, kept, interrupts };
        match (&args.into, &args.file) {
            (Some(into), _) => copy::run(job, into).await,
            (None, Some(path)) => file::run(job, path).await,
            (None, None) => print::run(job).await,
        }
    })?;
    Ok(Outcome::Good)
}

/// What is to be done, wherever the records go.
struct Job<'a> {
    args: &'a ReplayArgs,
    client: &'a Client,
    config: ReplayConfig,
    spans: Vec<Span>,
    /// It goes on from there.
    kept: Option<Checkpoint>,
    interrupts: Interrupts,
}

/// Which of the records that are read are given out.
struct Wanted<'a> {
    key: Option<&'a [u8]>,
}

impl Wanted<'_> {
    /// The record has the key that is asked for, if one is.
    fn wants(&self, record: &Record) -> bool {
        self.key.is_none_or(|wanted| record.key.as_deref() == Some(wanted))
    }
}

impl<'a> Job<'a> {
    fn wanted(&self) -> Wanted<'a> {
        Wanted { key: self.args.key.as_ref().map(String::as_bytes) }
    }

    fn keep(&self, left: Vec<Span>, target: Target) -> anyhow::Result<()> {
        match &self.args.checkpoint {
            Some(path) => Checkpoint::of(self.args, self.config.topic_id, left, target).write(path),
            None => Ok(()),
        }
    }

    /// What to say to somebody who stopped it.
    fn stopped(&self) -> anyhow::Error {
        match &self.args.checkpoint {
            Some(path) => anyhow::anyhow!("stopped; the same command goes on from {}", path.display()),
            None => anyhow::anyhow!(
                "stopped; with --checkpoint FILE the same command would have gone on from here"
            ),
        }
    }
}

async fn spans(args: &ReplayArgs, client: &Client, count: i32) -> anyhow::Result<Vec<Span>> {
    if let Some(missing) = args.partition.iter().find(|partition| **partition >= count) {
        bail!("topic {} has no partition {missing}; it has {count}, from 0 on", args.topic);
    }
    let partitions: Vec<i32> = match &args.key {
        Some(key) => vec![partition_of_key(key.as_bytes(), count)],
        None => (0..count).filter(|p| args.partition.is_empty() || args.partition.contains(p)).collect(),
    };
    let mut spans = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let from = offset_of(args, client, partition, args.from).await?;
        let to = offset_of(args, client, partition, args.to).await?;
        spans.push(Span { partition, from, to: to.max(from) });
    }
    Ok(spans)
}

async fn offset_of(
    args: &ReplayArgs,
    client: &Client,
    partition: i32,
    position: Position,
) -> anyhow::Result<i64> {
    let place = TopicPartition::new(args.topic.as_str(), partition);
    let offsets = client.admin().offsets(&place, position.time()).await?;
    let end = match args.isolation {
        IsolationArg::Uncommitted => offsets.high_watermark,
        IsolationArg::Committed => offsets.last_stable,
    };
    let at_time = offsets.at.map(|(offset, _)| offset);
    Ok(position.offset_within(Bounds { start: offsets.start, end, at_time }))
}

fn describe(args: &ReplayArgs, spans: &[Span]) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Described<'a> {
        topic: &'a str,
        partition: i32,
        from: i64,
        to: i64,
    }
    let mut sink = Sink::stdout();
    if args.output.is_json() {
        for &Span { partition, from, to } in spans {
            sink.json(&Described { topic: &args.topic, partition, from, to })?;
        }
        return sink.flush();
    }
    let columns = ["partition", "from", "to", "offsets"].map(Column::Number);
    let mut pages = Pages::new(&columns);
    for span in spans {
        let cells = [i64::from(span.partition), span.from, span.to, span.to - span.from];
        pages.row(&mut sink, cells.iter().map(ToString::to_string).collect())?;
    }
    pages.flush(&mut sink)?;
    sink.flush()
}
