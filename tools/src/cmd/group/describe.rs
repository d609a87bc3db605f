//! `floodmark group describe`: members, what each reads, and the lag of every partition.

use anyhow::Context as _;
use clap::Args;
use floodmark_client::admin::{Group, GroupMember, PartitionLag};
use serde::Serialize;

use super::super::OutputArgs;
use crate::input::quantity::show_count;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};
use crate::remote::ServerArgs;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark group describe billing
  floodmark group describe billing --output json";

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Name of the group.
    group: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Described {
    group: String,
    state: String,
    protocol_type: String,
    protocol: String,
    members: Vec<Member>,
    partitions: Vec<Lag>,
    /// Of the partitions whose lag is known.
    total_lag: i64,
}

#[derive(Serialize)]
struct Member {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    partitions: Vec<Place>,
    /// Of its partitions.
    lag: i64,
}

#[derive(Serialize)]
struct Place {
    topic: String,
    partition: i32,
}

#[derive(Serialize)]
struct Lag {
    topic: String,
    partition: i32,
    /// Null where nothing was committed.
    committed: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    /// Null where nobody reads it.
    member_id: Option<String>,
    metadata: String,
}

pub(crate) async fn run(args: &DescribeArgs) -> anyhow::Result<()> {
    let group = args.server.connect().await?.admin().group(&args.group).await;
    let group = group.with_context(|| format!("group {} cannot be described", args.group))?;
    let described = described(group);
    let mut sink = Sink::stdout();
    match args.output.format {
        Format::Json => sink.json(&described)?,
        Format::Table => in_tables(&described, &mut sink)?,
    }
    Ok(sink.flush()?)
}

fn described(group: Group) -> Described {
    let mut partitions: Vec<Lag> = group.partitions.into_iter().map(lag).collect();
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let mut members: Vec<Member> =
        group.members.into_iter().map(|member| described_member(member, &partitions)).collect();
    members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
    Described {
        group: group.group,
        state: group.state,
        protocol_type: group.protocol_type,
        protocol: group.protocol,
        total_lag: partitions.iter().filter_map(|partition| partition.lag).sum(),
        members,
        partitions,
    }
}

fn lag(of: PartitionLag) -> Lag {
    Lag {
        topic: of.partition.topic.to_string(),
        partition: of.partition.partition,
        committed: of.committed,
        end: of.end,
        lag: of.lag,
        member_id: (!of.member_id.is_empty()).then_some(of.member_id),
        metadata: of.metadata,
    }
}

fn described_member(member: GroupMember, lags: &[Lag]) -> Member {
    let mut partitions: Vec<Place> = member
        .partitions
        .iter()
        .map(|place| Place { topic: place.topic.to_string(), partition: place.partition })
        .collect();
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let its = |lag: &&Lag| partitions.iter().any(|p| p.topic == lag.topic && p.partition == lag.partition);
    Member {
        lag: lags.iter().filter(its).filter_map(|lag| lag.lag).sum(),
        member_id: member.member_id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.client_host,
        partitions,
    }
}

fn in_tables(group: &Described, sink: &mut Sink) -> std::io::Result<()> {
    let members = match group.members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    let protocol =
        if group.protocol.is_empty() { String::new() } else { format!(", assigned by {}", group.protocol) };
    let lag = if group.partitions.iter().any(|partition| partition.lag.is_some()) {
        format!("lag {}", show_count(u64::try_from(group.total_lag).unwrap_or(0)))
    } else {
        "nothing committed yet".to_owned()
    };
    sink.line(&format!("group {}: {}, {members}{protocol}, {lag}", group.group, group.state))?;
    let mut table = Pages::new(&[
        Column::Text("member"),
        Column::Text("client"),
        Column::Text("host"),
        Column::Text("partitions"),
        Column::Number("lag"),
    ]);
    for member in &group.members {
        let static_name =
            member.instance_id.as_ref().map_or(String::new(), |name| format!(" (static: {name})"));
        table.row(
            sink,
            vec![
                member.member_id.clone() + &static_name,
                member.client_id.clone(),
                member.host.clone(),
                places(&member.partitions),
                member.lag.to_string(),
            ],
        )?;
    }
    table.flush(sink)?;
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Number("committed"),
        Column::Number("end"),
        Column::Number("lag"),
        Column::Text("member"),
    ]);
    let or_dash = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    for partition in &group.partitions {
        table.row(
            sink,
            vec![
                partition.topic.clone(),
                partition.partition.to_string(),
                or_dash(partition.committed),
                or_dash(partition.end),
                or_dash(partition.lag),
                partition.member_id.clone().unwrap_or_else(|| "-".to_owned()),
            ],
        )?;
    }
    table.flush(sink)
}

/// `orders 0-2, 5; audit 1`, partitions in order.
fn places(partitions: &[Place]) -> String {
    let mut topics: Vec<(&str, Vec<(i32, i32)>)> = Vec::new();
    for place in partitions {
        match topics.last_mut() {
            Some((topic, ranges)) if *topic == place.topic => match ranges.last_mut() {
                Some((_, last)) if *last + 1 == place.partition => *last = place.partition,
                _ => ranges.push((place.partition, place.partition)),
            },
            _ => topics.push((&place.topic, vec![(place.partition, place.partition)])),
        }
    }
    let range = |(first, last): &(i32, i32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let topic = |(topic, ranges): &(&str, Vec<(i32, i32)>)| {
        format!("{topic} {}", ranges.iter().map(range).collect::<Vec<_>>().join(", "))
    };
    topics.iter().map(topic).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_told_in_ranges() {
        let place = |topic: &str, partition: i32| Place { topic: topic.to_owned(), partition };
        assert_eq!(places(&[]), "");
        assert_eq!(places(&[place("a", 3)]), "a 3");
        let several =
            [place("a", 0), place("a", 1), place("a", 2), place("a", 5), place("b", 6), place("b", 7)];
        assert_eq!(places(&several), "a 0-2, 5; b 6-7");
    }
}
