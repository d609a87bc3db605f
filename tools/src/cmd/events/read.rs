//! `floodmark events read`: the events of one stream, forward or backward, or as they come.

use clap::Args;
use floodmark_client::events::{EventStore, ReadStream};

use super::super::Outcome;
use crate::records::SeenRecord;
use crate::records::write::RecordOutputArgs;
use crate::remote::{Interrupts, ServerArgs};

pub(super) const EXAMPLES: &str = "Examples:
  floodmark events read orders order-17
  floodmark events read orders order-17 --backward --max 1 --output json         the last event
  floodmark events read orders order-17 --from 42 --follow --format '{offset} {value}'";

#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// A topic with floodmark.key.index=true.
    topic: String,
    /// The stream: a key of the topic.
    key: String,
    /// The first offset that is read; with --backward, the last.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from: Option<i64>,
    /// From the newest event to the oldest.
    #[arg(long, conflicts_with = "follow")]
    backward: bool,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Go on with what is appended, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    output: RecordOutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: &ReadArgs) -> anyhow::Result<Outcome> {
    let mut writer = args.output.writer()?;
    let client = args.server.connect().await?;
    let mut interrupts = Interrupts::new()?;
    let mut how = if args.backward { ReadStream::backward() } else { ReadStream::forward() };
    if let Some(from) = args.from {
        how = how.from(from);
    }
    if let Some(max) = args.max {
        how = how.max(max);
    }
    if args.follow {
        how = how.follow();
    }
    let store = EventStore::new(&client, args.topic.as_str());
    let mut reader = store.read_stream(&args.key, how).await?;
    let mut is_dirty = false;
    loop {
        tokio::select! {
            biased;
            event = reader.next() => match event? {
                None => break,
                Some(event) => {
                    writer.write(&SeenRecord { key: Some(args.key.as_bytes()), ..SeenRecord::from(&event) })?;
                    is_dirty = true;
                }
            },
            // Nothing is at hand: what was printed is to be seen.
            () = std::future::ready(()), if is_dirty => {
                writer.flush()?;
                is_dirty = false;
            }
            () = interrupts.next() => break,
        }
    }
    writer.flush()?;
    Ok(Outcome::Good)
}
