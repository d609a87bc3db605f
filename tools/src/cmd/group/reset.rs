//! `floodmark group reset`: other offsets for a group, shown before they are set.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Args;
use floodmark_client::admin::{Group, OffsetCommit};
use floodmark_client::{Admin, TopicPartition};
use floodmark_proto::kafka::ErrorCode;
use serde::Serialize;

use super::super::OutputArgs;
use crate::input::position::{self, Bounds, Position};
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, note};
use crate::remote::ServerArgs;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark group reset billing --to start                     what would change
  floodmark group reset billing --to start --execute           change it
  floodmark group reset billing --topic orders --to -2h --execute
  floodmark group reset billing --topic orders --partition 3 --to 1200
  floodmark group reset billing --by -100                      read the last 100 of each partition again";

#[derive(Debug, Args)]
#[group(id = "goal", required = true, multiple = false, args = ["to", "by"])]
pub(crate) struct ResetArgs {
    /// Name of the group.
    group: String,
    /// Where reading goes on: start, end, an offset, -N for N records before the end, or a time such as -2h.
    #[arg(long, value_name = "POSITION", value_parser = position::argument, allow_hyphen_values = true)]
    to: Option<Position>,
    /// Moves each offset by so many records, back or forth.
    #[arg(long, value_name = "RECORDS", allow_hyphen_values = true)]
    by: Option<i64>,
    /// Only this topic, which may be one that the group has not read yet [default: all that it has offsets of].
    #[arg(long)]
    topic: Vec<String>,
    /// Only these partitions of the topic.
    #[arg(long, value_name = "P", value_delimiter = ',', requires = "topic")]
    partition: Vec<i32>,
    /// Do it; else it is only shown.
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    To(Position),
    By(i64),
}

/// What becomes of one partition.
#[derive(Debug, PartialEq, Serialize)]
struct Change {
    topic: String,
    partition: i32,
    before: Option<i64>,
    after: i64,
    /// Records that the group has not read yet, afterwards.
    lag: i64,
    is_done: bool,
}

pub(crate) async fn run(args: &ResetArgs) -> anyhow::Result<()> {
    let goal = match (args.to, args.by) {
        (Some(position), _) => Goal::To(position),
        (None, Some(records)) => Goal::By(records),
        (None, None) => bail!("give --to POSITION or --by RECORDS"),
    };
    let admin = args.server.connect().await?.admin();
    match admin.group(&args.group).await {
        Ok(group) => refuse_with_members(&group)?,
        // One that is not there yet has no members, and is made by its first offset.
        Err(e) if e.code() == Some(ErrorCode::GroupIdNotFound) => {}
        Err(e) => return Err(e.into()),
    }
    let mut changes = Vec::new();
    for (topic, committed) in partitions(args, &admin).await? {
        changes.extend(planned(&admin, &topic, committed, goal).await?);
    }
    if args.execute {
        execute(&admin, &args.group, &mut changes).await?;
    }
    print(&changes, args.output.format)?;
    if !args.execute && args.output.format == Format::Table {
        note("nothing is changed yet; --execute does it");
    }
    Ok(())
}

/// Members have offsets of their own in hand, and would commit them over new ones.
fn refuse_with_members(group: &Group) -> anyhow::Result<()> {
    let name = &group.group;
    let Some(first) = group.members.first() else { return Ok(()) };
    let who = match group.members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    bail!(
        "group {name} has {who} ({} at {}{}), who would commit their own offsets over these; stop them first, \
         `floodmark group describe {name}` lists them",
        first.client_id,
        first.client_host,
        if group.members.len() > 1 { ", …" } else { "" }
    )
}

/// By topic, the partitions to change and what is committed there.
async fn partitions(
    args: &ResetArgs,
    admin: &Admin,
) -> anyhow::Result<BTreeMap<String, Vec<(i32, Option<i64>)>>> {
    let mut by_topic: BTreeMap<String, BTreeMap<i32, Option<i64>>> = BTreeMap::new();
    for topic in &args.topic {
        let partitions = admin.topic(topic).await?.partitions;
        by_topic.insert(topic.clone(), partitions.iter().map(|p| (p.partition, None)).collect());
    }
    for committed in admin.committed(&args.group, &[]).await? {
        let Some(offset) = committed.offset else { continue };
        let topic = committed.partition.topic.to_string();
        if args.topic.is_empty() || args.topic.contains(&topic) {
            by_topic.entry(topic).or_default().insert(committed.partition.partition, Some(offset));
        }
    }
    if by_topic.is_empty() {
        bail!(
            "group {} has committed nothing; --topic TOPIC chooses a topic that it has not read yet",
            args.group
        );
    }
    if !args.partition.is_empty() {
        for (topic, partitions) in &mut by_topic {
            if let Some(missing) = args.partition.iter().find(|p| !partitions.contains_key(p)) {
                bail!("topic {topic} has no partition {missing}; it has {}", partitions.len());
            }
            partitions.retain(|partition, _| args.partition.contains(partition));
        }
    }
    Ok(by_topic.into_iter().map(|(topic, partitions)| (topic, partitions.into_iter().collect())).collect())
}

async fn planned(
    admin: &Admin,
    topic: &str,
    committed: Vec<(i32, Option<i64>)>,
    goal: Goal,
) -> anyhow::Result<Vec<Change>> {
    let time = match goal {
        Goal::To(position) => position.time(),
        Goal::By(_) => None,
    };
    let mut changes = Vec::new();
    for (partition, before) in committed {
        let offsets = admin.offsets(&TopicPartition::new(topic, partition), time).await?;
        let bounds = Bounds {
            start: offsets.start,
            end: offsets.high_watermark,
            at_time: offsets.at.map(|(offset, _)| offset),
        };
        let after = goal.offset_within(before, bounds).ok_or_else(|| {
            anyhow::anyhow!(
                "nothing is committed for {topic}-{partition}, so there is nothing to move; use --to"
            )
        })?;
        changes.push(Change {
            topic: topic.to_owned(),
            partition,
            before,
            after,
            lag: bounds.end - after,
            is_done: false,
        });
    }
    Ok(changes)
}

impl Goal {
    /// Between the ends of the partition; `None` where there is nothing to move.
    fn offset_within(self, before: Option<i64>, bounds: Bounds) -> Option<i64> {
        let position = match self {
            Goal::To(position) => position,
            Goal::By(records) => Position::Offset(before?.saturating_add(records)),
        };
        Some(position.offset_within(bounds))
    }
}

async fn execute(admin: &Admin, group: &str, changes: &mut [Change]) -> anyhow::Result<()> {
    let commits: Vec<OffsetCommit> = changes
        .iter()
        .map(|change| {
            OffsetCommit::new(TopicPartition::new(change.topic.as_str(), change.partition), change.after)
        })
        .collect();
    let outcomes = admin.commit_offsets(group, &commits).await?;
    for (change, outcome) in changes.iter_mut().zip(outcomes) {
        outcome.map_err(|e| anyhow::anyhow!("{}-{} is not reset: {e}", change.topic, change.partition))?;
        change.is_done = true;
    }
    Ok(())
}

fn print(changes: &[Change], format: Format) -> anyhow::Result<()> {
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("before"),
        Column::Text(""),
        Column::Number("after"),
        Column::Number("lag"),
    ]);
    for change in changes {
        match format {
            Format::Json => sink.json(change)?,
            Format::Table => table.row(
                &mut sink,
                vec![
                    change.topic.clone(),
                    change.partition.to_string(),
                    change.before.map_or("none".to_owned(), |offset| offset.to_string()),
                    "->".to_owned(),
                    change.after.to_string(),
                    change.lag.to_string(),
                ],
            )?,
        }
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_stays_within_the_partition() {
        let bounds = Bounds { start: 10, end: 20, at_time: None };
        for (goal, before, after) in [
            (Goal::By(-3), Some(15), Some(12)),
            (Goal::By(-100), Some(15), Some(10)),
            (Goal::By(i64::MAX), Some(15), Some(20)),
            (Goal::By(1), None, None),
            (Goal::To(Position::Start), None, Some(10)),
            (Goal::To(Position::Time(1)), Some(15), Some(20)),
        ] {
            assert_eq!(goal.offset_within(before, bounds), after, "{goal:?}");
        }
    }
}
