//! `floodmark cluster remove`: a broker that is gone for good.

use clap::Args;
use floodmark_client::admin::Mode;
use serde::Serialize;

use super::super::OutputArgs;
use crate::output::note;
use crate::remote::ServerArgs;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark cluster remove 3 --dry-run                  whether it can be done
  floodmark cluster remove 3                            after it was drained and stopped
  floodmark cluster remove 3 --keep-replicas            its disk is gone: a broker 3 with an empty one shall take its place

Until it is removed, a broker of the same number with another disk is refused: it would not have what this one promised.";

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Number of the broker.
    broker: i32,
    /// Its replicas stay assigned to its number: the next broker of that number gets them back from the others.
    #[arg(long)]
    keep_replicas: bool,
    /// Only say whether it can be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: &RemoveArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Removed {
        broker: i32,
        /// Still assigned to its number.
        replicas: u32,
        is_dry_run: bool,
    }
    let admin = args.server.connect().await?.admin();
    let mode = if args.dry_run { Mode::Check } else { Mode::Change };
    let replicas = admin.remove_broker(args.broker, args.keep_replicas, mode).await?;
    let would = if args.dry_run { "would be forgotten" } else { "is forgotten" };
    let words = format!("broker {} {would}; {replicas} replicas wait for another of its number", args.broker);
    args.output.say(&words, &Removed { broker: args.broker, replicas, is_dry_run: args.dry_run })?;
    if replicas > 0 && !args.dry_run {
        note("start one with the same node.id and an empty data directory: it is filled from the others");
    }
    Ok(())
}
