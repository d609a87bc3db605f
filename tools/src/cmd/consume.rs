//! `floodmark consume`: records of a topic on standard output, read alone or as a member of a group.

mod alone;
mod member;
mod printer;
mod stops;
mod stuck;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::Outcome;
use super::produce::unknown_topic;
use crate::input::position::{self, Position};
use crate::records::write::RecordOutputArgs;
use crate::remote::{self, Interrupts, ServerArgs};

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark consume orders                                   everything that is there now
  floodmark consume orders --follow --from end               what comes from now on, until Ctrl-C
  floodmark consume orders --from -2h --to -1h --output json
  floodmark consume orders --from -10                        the last ten of each partition
  floodmark consume orders --group billing --follow          as a member of a group, which goes on where it stopped
  floodmark consume orders --format '{partition}:{offset} {key} {header:source} {value|json}'
  floodmark consume orders --key-separator '\\t' --delimiter '\\0' | xargs -0 -n1 echo
  floodmark consume orders --filter 'header(\"source\") == \"web\"'

Positions are start, end, an offset, -N for N records before the end, or a time: 2026-11-28T10:00:00Z, 2026-11-28, -2h, \"2h ago\".
Without --follow it ends where the topic ends when it begins. A group's offsets are committed once the records are printed, each second
and in the end.";

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// Name of the topic.
    topic: String,
    /// Read as a member of this group, which begins where it stopped.
    #[arg(long)]
    group: Option<String>,
    /// Where to begin; with --group, where it begins that has no offset yet: start or end.
    #[arg(long, value_name = "POSITION", default_value = "start", value_parser = position::argument, allow_hyphen_values = true)]
    from: Position,
    /// Where to end, before this position [default: where the topic ends now].
    #[arg(long, value_name = "POSITION", value_parser = position::argument, allow_hyphen_values = true, conflicts_with_all = ["follow", "group"])]
    to: Option<Position>,
    /// Only these partitions.
    #[arg(long, value_name = "P", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "group")]
    partition: Vec<i32>,
    /// End after so many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Go on with what is written, until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// Only records for which this expression is true; the broker leaves the others out.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Which records of transactions are read.
    #[arg(long, value_enum, default_value_t = IsolationArg::Uncommitted)]
    isolation: IsolationArg,
    #[command(flatten)]
    output: RecordOutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which records of transactions are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationArg {
    /// All, whatever becomes of their transactions.
    Uncommitted,
    /// Those of transactions that are decided and not aborted.
    Committed,
}

pub(crate) fn run(args: &ConsumeArgs) -> anyhow::Result<Outcome> {
    let printer = printer::Printer::new(args.output.writer()?, args.max);
    if args.group.is_some() && !matches!(args.from, Position::Start | Position::End) {
        bail!(
            "a group begins where it stopped, and without an offset at start or end; `floodmark group reset` sets its offsets"
        );
    }
    remote::run(async {
        let client = args.server.connect().await?;
        let partitions =
            client.partition_count(&args.topic).await.with_context(|| unknown_topic(&args.topic))?;
        // From here on there is something to end in good order.
        let interrupts = Interrupts::new()?;
        match &args.group {
            Some(group) => member::run(args, group, &client, printer, interrupts).await,
            None => alone::run(args, partitions, &client, printer, interrupts).await,
        }
    })?;
    Ok(Outcome::Good)
}
