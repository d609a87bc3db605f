//! `floodmark offsets`: how far the partitions of a topic reach, and where a time lies in them.

use clap::Args;
use serde::Serialize;

use super::{Outcome, OutputArgs};
use crate::input::quantity::show_bytes;
use crate::input::time as times;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, time};
use crate::remote::{self, ServerArgs};

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark offsets orders
  floodmark offsets orders --at -2h
  floodmark offsets orders --at 2026-11-28T10:00:00Z --output json";

#[derive(Debug, Args)]
pub(crate) struct OffsetsArgs {
    /// Name of the topic.
    topic: String,
    /// Also tell the first record at or after this time: 2026-11-28T10:00:00Z, -2h, "2h ago".
    #[arg(long, value_name = "TIME", value_parser = times::argument, allow_hyphen_values = true)]
    at: Option<i64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    partition: i32,
    start: i64,
    last_stable: i64,
    high_watermark: i64,
    end: i64,
    size_bytes: u64,
    leader_epoch: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<At>,
}

/// Null for both where no record is that new.
#[derive(Serialize)]
struct At {
    offset: Option<i64>,
    timestamp_ms: Option<i64>,
}

pub(crate) fn run(args: &OffsetsArgs) -> anyhow::Result<Outcome> {
    let offsets = remote::run(async {
        let admin = args.server.connect().await?.admin();
        Ok(admin.topic_offsets(&args.topic, args.at).await?)
    })?;
    let mut sink = Sink::stdout();
    let mut columns = vec![
        Column::Number("partition"),
        Column::Number("start"),
        Column::Number("last stable"),
        Column::Number("high watermark"),
        Column::Number("end"),
        Column::Number("size"),
    ];
    if args.at.is_some() {
        columns.extend([Column::Number("at offset"), Column::Text("at time")]);
    }
    let mut table = Pages::new(&columns);
    for partition in offsets {
        let row = Row {
            topic: &args.topic,
            partition: partition.partition,
            start: partition.start,
            last_stable: partition.last_stable,
            high_watermark: partition.high_watermark,
            end: partition.end,
            size_bytes: partition.size_bytes,
            leader_epoch: partition.leader_epoch,
            at: args.at.map(|_| At {
                offset: partition.at.map(|(offset, _)| offset),
                timestamp_ms: partition.at.map(|(_, timestamp)| timestamp),
            }),
        };
        match args.output.format {
            Format::Json => sink.json(&row)?,
            Format::Table => table.row(&mut sink, cells(&row))?,
        }
    }
    table.flush(&mut sink)?;
    sink.flush()?;
    Ok(Outcome::Good)
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let mut cells: Vec<String> = vec![
        row.partition.to_string(),
        row.start.to_string(),
        row.last_stable.to_string(),
        row.high_watermark.to_string(),
        row.end.to_string(),
        show_bytes(row.size_bytes),
    ];
    if let Some(at) = &row.at {
        cells.push(at.offset.map_or("none".to_owned(), |offset| offset.to_string()));
        cells.push(at.timestamp_ms.map_or("-".to_owned(), time::cell));
    }
    cells
}
