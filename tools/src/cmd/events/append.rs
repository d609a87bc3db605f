//! `floodmark events append`: all or nothing, and only where the stream is as expected.

use anyhow::bail;
use clap::Args;
use floodmark_client::events::{EventStore, Expected, NewEvent};
use floodmark_client::{Client, Error, Header};
use serde::Serialize;

use super::super::{Outcome, OutputArgs};
use crate::output::note;
use crate::records::feed::{InputArgs, InputForm};
use crate::records::read::{Form, LineForm};
use crate::records::{NewHeader, NewRecord};
use crate::remote::ServerArgs;

pub(super) const EXAMPLES: &str = "Examples:
  floodmark events append orders order-17 --expect no-stream --value placed
  floodmark events append orders order-17 --expect 41 --value paid --value sent --header by=shop
  floodmark events append orders order-17 --expect exists < events.txt           an event for each line

A conflict ends with exit code 1 and says what the offset of the last event is.";

/// Of all events of an append together: more than a broker takes.
const BYTES_MAX: usize = 128 << 20;

#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// A topic with floodmark.key.index=true.
    topic: String,
    /// The stream: a key of the topic.
    key: String,
    /// What the last event of the stream must be: any, no-stream, exists, or its offset.
    #[arg(long, default_value = "any", value_parser = expectation)]
    expect: Expected,
    /// An event; several are appended in their order. Without, events are read.
    #[arg(long, value_name = "VALUE", conflicts_with_all = ["input", "files", "delimiter"], allow_hyphen_values = true)]
    value: Vec<String>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

fn expectation(text: &str) -> Result<Expected, String> {
    match text {
        "any" => Ok(Expected::Any),
        "no-stream" => Ok(Expected::NoStream),
        "exists" => Ok(Expected::StreamExists),
        _ => text
            .parse()
            .ok()
            .filter(|offset| *offset >= 0)
            .map(Expected::Offset)
            .ok_or_else(|| "it is any, no-stream, exists, or the offset of the last event".to_owned()),
    }
}

#[derive(Serialize)]
struct Appended<'a> {
    topic: &'a str,
    stream: &'a str,
    partition: i32,
    base_offset: i64,
    last_offset: i64,
    /// This very append was made before, by an attempt whose answer was lost.
    is_repeat: bool,
}

#[derive(Serialize)]
struct Conflicted {
    conflict: Conflict,
}

#[derive(Serialize)]
struct Conflict {
    /// Null where the stream has no events.
    last_offset: Option<i64>,
}

pub(super) async fn run(args: &AppendArgs) -> anyhow::Result<Outcome> {
    let client = args.server.connect().await?;
    let events = args.events().await?;
    if events.is_empty() {
        bail!("there are no events to append; give --value, or write them to standard input");
    }
    let (topic, stream) = (args.topic.as_str(), args.key.as_str());
    let count = match events.len() {
        1 => "1 event".to_owned(),
        count => format!("{count} events"),
    };
    match append(&client, args, events).await {
        Ok(appended) => {
            let place = if appended.base_offset == appended.last_offset {
                format!("offset {}", appended.last_offset)
            } else {
                format!("offsets {} to {}", appended.base_offset, appended.last_offset)
            };
            let words =
                format!("{count} appended to stream {stream}: {topic}-{}, {place}", appended.partition);
            args.output.say(&words, &appended)?;
            Ok(Outcome::Good)
        }
        Err(Error::Conflict { last_offset }) => {
            let is = match last_offset {
                Some(offset) => format!("the last event of stream {stream} is at offset {offset}"),
                None => format!("stream {stream} has no events"),
            };
            let expected = match args.expect {
                Expected::Offset(offset) => format!("not {offset}"),
                Expected::NoStream => "not none".to_owned(),
                _ => "and some are expected".to_owned(),
            };
            note(&format!(
                "error: conflict: {is}, {expected}; nothing is appended. `floodmark events read {topic} {stream}` shows the stream"
            ));
            if args.output.format == crate::output::Format::Json {
                args.output.say("", &Conflicted { conflict: Conflict { last_offset } })?;
            }
            Ok(Outcome::Conflict)
        }
        Err(e) => Err(e.into()),
    }
}

impl AppendArgs {
    async fn events(&self) -> anyhow::Result<Vec<NewRecord>> {
        if !self.value.is_empty() {
            let event = |value: &String| NewRecord {
                value: Some(value.clone().into_bytes()),
                headers: self.input.headers(),
                ..NewRecord::default()
            };
            return Ok(self.value.iter().map(event).collect());
        }
        let form = match self.input.input {
            InputForm::Json => Form::Json,
            InputForm::Whole => Form::Whole { key: None },
            InputForm::Lines => Form::Lines(LineForm {
                delimiter: self.input.delimiter,
                key_separator: None,
                null: None,
                key: None,
            }),
        };
        if self.input.is_typed() {
            note("an event for each line; Ctrl-D ends, and appends them all");
        }
        let mut chunks = self.input.start(form)?;
        let mut events = Vec::new();
        let mut size_bytes = 0;
        while let Some(chunk) = chunks.recv().await {
            if let Some(failure) = chunk.failure {
                return Err(failure.context("nothing is appended"));
            }
            size_bytes +=
                chunk.records.iter().map(|event| event.value.as_ref().map_or(0, Vec::len)).sum::<usize>();
            if size_bytes > BYTES_MAX {
                bail!(
                    "more than {} MiB of events, which is too much for one append; nothing is appended",
                    BYTES_MAX >> 20
                );
            }
            events.extend(chunk.records);
        }
        Ok(events)
    }
}

async fn append<'a>(
    client: &Client,
    args: &'a AppendArgs,
    events: Vec<NewRecord>,
) -> Result<Appended<'a>, Error> {
    let event = |event: NewRecord| {
        Ok(NewEvent {
            value: event.value.map(Into::into),
            headers: event.headers.into_iter().map(header).collect::<Result<_, Error>>()?,
            timestamp_ms: event.timestamp_ms,
        })
    };
    let events = events.into_iter().map(event).collect::<Result<_, Error>>()?;
    let store = EventStore::new(client, args.topic.as_str());
    let appended = store.append_if(&args.key, args.expect, events).await?;
    Ok(Appended {
        topic: &args.topic,
        stream: &args.key,
        partition: appended.partition,
        base_offset: appended.base_offset,
        last_offset: appended.last_offset,
        is_repeat: appended.is_repeat,
    })
}

fn header(header: NewHeader) -> Result<Header, Error> {
    let name = String::from_utf8(header.name).map_err(|_| {
        Error::Invalid(
            "the name of a header is no UTF-8, which an append on a condition cannot carry".to_owned(),
        )
    })?;
    Ok(Header::of(name, header.value.map(Into::into)))
}
