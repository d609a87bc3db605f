//! `floodmark cluster elect`: the preferred leaders, or, where an operator accepts the loss, a leader that lacks something.

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use floodmark_client::admin::{Elected, Mode};
use floodmark_client::{Admin, TopicPartition};
use serde::Serialize;

use super::super::OutputArgs;
use super::list;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, note};
use crate::remote::ServerArgs;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark cluster elect                                        every preferred leader that could lead and does not
  floodmark cluster elect orders --partition 0,1
  floodmark cluster elect orders --partition 3 --unclean         what would be lost, and by whom it would be led
  floodmark cluster elect orders --partition 3 --unclean --accept-data-loss

Brokers do the first by themselves every leader.rebalance.interval.ms. The last gives up records that were acknowledged: those that only
the replicas that were in sync have. Bring one of these back instead, if there is any way to.";

#[derive(Debug, Args)]
pub(crate) struct ElectArgs {
    /// Name of the topic [default: all topics].
    topic: Option<String>,
    /// Only these partitions of the topic.
    #[arg(long, value_name = "P", value_delimiter = ',', requires = "topic")]
    partition: Vec<i32>,
    /// A replica that is not in sync may lead one partition that nobody can lead. Says what that loses, and does it with
    /// --accept-data-loss.
    #[arg(long, requires = "partition")]
    unclean: bool,
    /// Lose what the new leader lacks.
    #[arg(long, requires = "unclean", conflicts_with = "dry_run")]
    accept_data_loss: bool,
    /// Only say who would lead.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Told<'a> {
    topic: &'a str,
    partition: i32,
    before: Option<i32>,
    leader: Option<i32>,
    in_sync: &'a [i32],
    is_unclean: bool,
    is_done: bool,
    error: Option<String>,
}

pub(crate) async fn run(args: &ElectArgs) -> anyhow::Result<()> {
    let admin = args.server.connect().await?.admin();
    if args.unclean {
        return unclean(args, &admin).await;
    }
    let named: Vec<TopicPartition> = match &args.topic {
        None => Vec::new(),
        Some(topic) if args.partition.is_empty() => {
            let described = admin.topic(topic).await?;
            described.partitions.iter().map(|p| TopicPartition::new(topic.as_str(), p.partition)).collect()
        }
        Some(topic) => args.partition.iter().map(|p| TopicPartition::new(topic.as_str(), *p)).collect(),
    };
    let mode = if args.dry_run { Mode::Check } else { Mode::Change };
    let mut elected = admin.elect_preferred(&named, mode).await?;
    if args.partition.is_empty() {
        // Of a whole topic, those that are as they should be are no news.
        elected.retain(|e| !e.error.as_ref().is_some_and(is_not_needed));
    }
    print(&elected, mode, args.output)?;
    match elected.iter().find_map(|e| e.error.as_ref()) {
        Some(first) => bail!("not all could be done: {first}"),
        None => Ok(()),
    }
}

fn is_not_needed(error: &floodmark_client::Error) -> bool {
    error.code() == Some(floodmark_proto::kafka::ErrorCode::ElectionNotNeeded)
}

async fn unclean(args: &ElectArgs, admin: &Admin) -> anyhow::Result<()> {
    let (Some(topic), [partition]) = (&args.topic, &args.partition[..]) else {
        bail!("an unclean election is ordered for one partition: give a topic and one --partition");
    };
    let place = TopicPartition::new(topic.as_str(), *partition);
    let would = admin.elect_and_lose(&place, Mode::Check).await?;
    if let Some(e) = would.error {
        return Err(e).with_context(|| format!("{place} needs no unclean election, or nobody can lead it"));
    }
    let leader = would.leader.context("the answer does not say who would lead")?;
    let loss = format!(
        "{place}: broker {leader} would lead. Everything acknowledged that it has not got is lost for good; in sync were: {}. Where one of \
         these can be brought back, do that instead.",
        list(&would.in_sync)
    );
    if !args.accept_data_loss {
        if args.output.format == Format::Table {
            note(&loss);
        }
        print(&[would], Mode::Check, args.output)?;
        ensure!(
            args.dry_run,
            "nothing has been done: --accept-data-loss is needed to lose what broker {leader} lacks"
        );
        return Ok(());
    }
    note(&loss);
    let elected = admin.elect_and_lose(&place, Mode::Change).await?;
    let error = elected.error.clone();
    print(&[elected], Mode::Change, args.output)?;
    error.map_or(Ok(()), |e| Err(e.into()))
}

fn print(elected: &[Elected], mode: Mode, output: OutputArgs) -> anyhow::Result<()> {
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("led by"),
        Column::Number(if mode == Mode::Check { "would be led by" } else { "is led by" }),
        Column::Text("in sync"),
        Column::Text("error"),
    ]);
    let or_none = |broker: Option<i32>| broker.map_or("none".to_owned(), |broker| broker.to_string());
    for election in elected {
        let told = Told {
            topic: &election.partition.topic,
            partition: election.partition.partition,
            before: election.before,
            leader: election.leader,
            in_sync: &election.in_sync,
            is_unclean: election.leader.is_some_and(|leader| !election.in_sync.contains(&leader)),
            is_done: mode == Mode::Change && election.error.is_none(),
            error: election.error.as_ref().map(ToString::to_string),
        };
        match output.format {
            Format::Json => sink.json(&told)?,
            Format::Table => {
                let cells = vec![
                    told.topic.to_owned(),
                    told.partition.to_string(),
                    or_none(told.before),
                    or_none(told.leader),
                    list(told.in_sync),
                    told.error.unwrap_or_default(),
                ];
                table.row(&mut sink, cells)?;
            }
        }
    }
    if elected.is_empty() && output.format == Format::Table {
        sink.line(
            "every partition is led by its preferred replica, or by one that has to lead in its place",
        )?;
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}
