//! `floodmark group`: who reads what, how far, and how to set that.

mod describe;
mod reset;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use floodmark_client::TopicPartition;
use serde::Serialize;

use super::{Outcome, OutputArgs, all_of};
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};
use crate::remote::{self, ServerArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups.
    #[command(after_help = "Examples:
  floodmark group list
  floodmark group list --state Empty --output json")]
    List(ListArgs),
    /// Show members of a group, and how far behind it is.
    #[command(after_help = describe::EXAMPLES)]
    Describe(describe::DescribeArgs),
    /// Show the offsets that a group has committed.
    #[command(after_help = "Example: floodmark group offsets billing --output json")]
    Offsets(OffsetsArgs),
    /// Set the offsets of a group that has no members. Shows what would change, and does it with --execute.
    #[command(after_help = reset::EXAMPLES)]
    Reset(reset::ResetArgs),
    /// Delete groups that have no members, with their offsets.
    #[command(after_help = "Examples:
  floodmark group delete billing search
  floodmark group delete billing --topic orders       forget the offsets of one topic alone")]
    Delete(DeleteArgs),
}

/// As brokers name them.
const STATES: [&str; 5] = ["Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Dead"];

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only groups in this state.
    #[arg(long, value_name = "STATE", ignore_case = true, value_parser = STATES)]
    state: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OffsetsArgs {
    /// Name of the group.
    group: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Names of groups.
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Only forget the offsets of this topic, and keep the group.
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(command: GroupCommand) -> anyhow::Result<Outcome> {
    remote::run(async {
        match command {
            GroupCommand::List(args) => list(&args).await,
            GroupCommand::Describe(args) => describe::run(&args).await,
            GroupCommand::Offsets(args) => offsets(&args).await,
            GroupCommand::Reset(args) => reset::run(&args).await,
            GroupCommand::Delete(args) => delete(&args).await,
        }
    })?;
    Ok(Outcome::Good)
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Listed {
        group: String,
        state: String,
        protocol_type: String,
    }
    let mut groups = args.server.connect().await?.admin().groups().await?;
    let is_wanted =
        |state: &str| args.state.is_empty() || args.state.iter().any(|s| s.eq_ignore_ascii_case(state));
    groups.retain(|group| is_wanted(&group.state));
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&["group", "state", "protocol type"].map(Column::Text));
    if groups.is_empty() && args.output.format == Format::Table {
        sink.line(match args.state.is_empty() {
            true => "no groups; `floodmark consume TOPIC --group NAME` makes one",
            false => "no groups in such a state",
        })?;
    }
    for group in groups {
        match args.output.format {
            Format::Table => table.row(&mut sink, vec![group.group, group.state, group.protocol_type])?,
            Format::Json => sink.json(&Listed {
                group: group.group,
                state: group.state,
                protocol_type: group.protocol_type,
            })?,
        }
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}

async fn offsets(args: &OffsetsArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Committed {
        group: String,
        topic: String,
        partition: i32,
        offset: Option<i64>,
        leader_epoch: Option<i32>,
        metadata: String,
    }
    let mut offsets = args.server.connect().await?.admin().committed(&args.group, &[]).await?;
    offsets.retain(|committed| committed.offset.is_some());
    offsets.sort_by(|a, b| {
        (&a.partition.topic, a.partition.partition).cmp(&(&b.partition.topic, b.partition.partition))
    });
    let mut sink = Sink::stdout();
    if offsets.is_empty() && args.output.format == Format::Table {
        sink.line(&format!("group {} has committed nothing", args.group))?;
    }
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("offset"),
        Column::Number("leader epoch"),
        Column::Text("metadata"),
    ]);
    for committed in offsets {
        let row = Committed {
            group: args.group.clone(),
            topic: committed.partition.topic.to_string(),
            partition: committed.partition.partition,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata,
        };
        match args.output.format {
            Format::Json => sink.json(&row)?,
            Format::Table => table.row(
                &mut sink,
                vec![
                    row.topic,
                    row.partition.to_string(),
                    row.offset.map_or("-".to_owned(), |offset| offset.to_string()),
                    row.leader_epoch.map_or("-".to_owned(), |epoch| epoch.to_string()),
                    row.metadata,
                ],
            )?,
        }
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}

async fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Deleted<'a> {
        group: &'a str,
        topic: Option<&'a str>,
    }
    let admin = args.server.connect().await?.admin();
    all_of(&args.groups, async |group| {
        let topic = args.topic.as_deref();
        let words = match topic {
            None => {
                admin.delete_group(group).await.with_context(|| format!("group {group} is not deleted"))?;
                format!("group {group} deleted")
            }
            Some(topic) => {
                let committed = admin.committed(group, &[]).await?;
                let partitions: Vec<TopicPartition> = committed
                    .into_iter()
                    .filter(|committed| *committed.partition.topic == *topic && committed.offset.is_some())
                    .map(|committed| committed.partition)
                    .collect();
                anyhow::ensure!(!partitions.is_empty(), "group {group} has no offsets of topic {topic}");
                for outcome in admin.delete_offsets(group, &partitions).await? {
                    outcome?;
                }
                format!("group {group} has no offsets of topic {topic} any more")
            }
        };
        args.output.say(&words, &Deleted { group, topic })
    })
    .await
}
