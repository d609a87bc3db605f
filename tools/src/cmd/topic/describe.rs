//! `floodmark topic describe`: who leads each partition, who has it, who is behind, and the settings. What is wrong is red.

use std::collections::HashMap;

use anyhow::Context as _;
use floodmark_client::admin::{ConfigResource, Partition, ReplicaState, Setting, Topic};
use floodmark_client::{Admin, TopicId, TopicPartition};
use serde::Serialize;

use super::look::{self, Told};
use super::{DescribeArgs, counted};
use crate::cmd::{Outcome, all_of};
use crate::input::quantity::show_bytes;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, alarming, note};

#[derive(Serialize)]
struct Described {
    topic: String,
    /// As Kafka's tools show it; null where the broker tells none.
    topic_id: Option<String>,
    is_internal: bool,
    min_in_sync: i32,
    partitions: Vec<DescribedPartition>,
    settings: Vec<DescribedSetting>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    /// Those that a move adds, and those that it takes away.
    adding: Vec<i32>,
    removing: Vec<i32>,
    is_under_replicated: bool,
    is_below_minimum: bool,
    /// The followers, as the leader knows them.
    followers: Vec<DescribedFollower>,
    /// Null while nobody leads it, or its leader does not answer.
    start: Option<i64>,
    high_watermark: Option<i64>,
    size_bytes: Option<u64>,
    /// Why its leader did not tell these; null where it did, and where nobody leads.
    untold: Option<String>,
}

#[derive(Serialize)]
struct DescribedFollower {
    broker: i32,
    /// Null, as what it lacks, where its leader has not heard of it since it leads.
    end: Option<i64>,
    lag_records: Option<i64>,
    lag_bytes: Option<u64>,
    behind_for_ms: u64,
}

#[derive(Serialize)]
pub(super) struct DescribedSetting {
    name: String,
    value: String,
    source: String,
}

impl From<Setting> for DescribedSetting {
    fn from(setting: Setting) -> DescribedSetting {
        DescribedSetting { name: setting.name, value: setting.value, source: setting.source }
    }
}

/// All is asked before anything is shown, so that leaders that do not answer are waited for once. Where any does not, the exit code says so.
pub(super) async fn run(args: &DescribeArgs) -> anyhow::Result<Outcome> {
    let admin = args.server.connect().await?.admin();
    let mut found = Vec::with_capacity(args.topics.len());
    for name in &args.topics {
        found.push(look_up(&admin, name, args.all_settings).await);
    }
    let topics = found.iter().filter_map(|found| found.as_ref().ok()).map(|(topic, _)| topic);
    let mut told = look::at_leaders(&admin, topics, args.server.timeout).await;
    let (mut sink, mut found, mut outcome) = (Sink::stdout(), found.into_iter(), Outcome::Good);
    all_of(&args.topics, async |_name| {
        let Some(found) = found.next() else { return Ok(()) };
        let (topic, settings) = found?;
        let described = described(topic, settings, &mut told);
        match args.output.format {
            Format::Json => sink.json(&described)?,
            Format::Table => in_tables(&described, &mut sink)?,
        }
        sink.flush()?;
        for line in untold(&described) {
            note(&line);
            outcome = Outcome::Unwell;
        }
        Ok(())
    })
    .await?;
    Ok(outcome)
}

async fn look_up(admin: &Admin, name: &str, all_settings: bool) -> anyhow::Result<(Topic, Vec<Setting>)> {
    let topic = admin.topic(name).await.with_context(|| format!("topic {name} cannot be described"))?;
    let mut settings = admin.settings(ConfigResource::Topic(topic.name.clone()), &[]).await?;
    settings.retain(|setting| all_settings || is_own(setting));
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((topic, settings))
}

fn described(topic: Topic, settings: Vec<Setting>, told: &mut HashMap<TopicPartition, Told>) -> Described {
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for partition in topic.partitions {
        let looked = told.remove(&TopicPartition::new(topic.name.as_str(), partition.partition));
        partitions.push(described_partition(partition, topic.min_in_sync, looked));
    }
    let id = <[u8; 16]>::try_from(topic.id.as_slice()).ok().and_then(|id| TopicId::from_bytes(id).ok());
    Described {
        topic: topic.name,
        topic_id: id.map(|id| id.to_string()),
        is_internal: topic.is_internal,
        min_in_sync: topic.min_in_sync,
        partitions,
        settings: settings.into_iter().map(Into::into).collect(),
    }
}

/// A line for each reason for which offsets are not told.
fn untold(topic: &Described) -> Vec<String> {
    let mut by_reason: Vec<(Option<i32>, &str, Vec<String>)> = Vec::new();
    for partition in &topic.partitions {
        let Some(reason) = &partition.untold else { continue };
        let number = partition.partition.to_string();
        match by_reason.iter_mut().find(|(leader, r, _)| *leader == partition.leader && r == reason) {
            Some((_, _, partitions)) => partitions.push(number),
            None => by_reason.push((partition.leader, reason.as_str(), vec![number])),
        }
    }
    let line = |(leader, reason, partitions): (Option<i32>, &str, Vec<String>)| {
        let leader = leader.map_or("nobody".to_owned(), |leader| format!("broker {leader}"));
        let (name, partitions) = (&topic.topic, partitions.join(", "));
        format!("{name} {partitions}: {leader}, who leads, does not tell offsets: {reason}")
    };
    by_reason.into_iter().map(line).collect()
}

fn described_partition(partition: Partition, min_in_sync: i32, looked: Option<Told>) -> DescribedPartition {
    let (offsets, followers, untold) = match looked {
        Some(Ok((offsets, followers))) => (Some(offsets), followers, None),
        Some(Err(reason)) => (None, Vec::new(), Some(reason)),
        None => (None, Vec::new(), None),
    };
    let follower = |state: ReplicaState| DescribedFollower {
        broker: state.broker,
        end: state.end,
        lag_records: state.lag_records,
        lag_bytes: state.lag_bytes,
        behind_for_ms: state.behind_for_ms,
    };
    let in_sync = i32::try_from(partition.in_sync.len()).unwrap_or(i32::MAX);
    DescribedPartition {
        partition: partition.partition,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        is_under_replicated: partition.is_under_replicated(),
        is_below_minimum: in_sync < min_in_sync,
        replicas: partition.replicas,
        in_sync: partition.in_sync,
        adding: partition.adding,
        removing: partition.removing,
        followers: followers.into_iter().map(follower).collect(),
        start: offsets.map(|offsets| offsets.start),
        high_watermark: offsets.map(|offsets| offsets.high_watermark),
        size_bytes: offsets.map(|offsets| offsets.size_bytes),
        untold,
    }
}

/// Set for this topic, not taken over from the broker.
fn is_own(setting: &Setting) -> bool {
    setting.source == "topic"
}

fn in_tables(topic: &Described, sink: &mut Sink) -> std::io::Result<()> {
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let internal = if topic.is_internal { ", internal" } else { "" };
    let id = topic.topic_id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
    let counted = counted(count, "partition");
    sink.line(&format!("topic {}: {counted}{internal}{id}{}", topic.topic, lacks(topic)))?;
    let mut table = Pages::new(&[
        Column::Number("partition"),
        Column::Number("leader"),
        Column::Number("epoch"),
        Column::Text("replicas"),
        Column::Text("in sync"),
        Column::Text("behind"),
        Column::Number("start"),
        Column::Number("high watermark"),
        Column::Number("size"),
    ]);
    let or_dash = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let list = |brokers: &[i32]| brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    let calm = |text: String| (text, false);
    for partition in &topic.partitions {
        let is_alarming = partition.is_under_replicated || partition.is_below_minimum;
        let cells = vec![
            calm(partition.partition.to_string()),
            (
                partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                partition.leader.is_none(),
            ),
            calm(partition.leader_epoch.to_string()),
            calm(replicas(partition)),
            (list(&partition.in_sync), is_alarming),
            (behind(&partition.followers), is_alarming),
            calm(or_dash(partition.start)),
            calm(or_dash(partition.high_watermark)),
            calm(partition.size_bytes.map_or("-".to_owned(), show_bytes)),
        ];
        table.row_with_alarms(sink, cells)?;
    }
    table.flush(sink)?;
    let mut table = Pages::new(&["setting", "value", "source"].map(Column::Text));
    for setting in &topic.settings {
        table.row(sink, vec![setting.name.clone(), setting.value.clone(), setting.source.clone()])?;
    }
    table.flush(sink)
}

/// What is wrong with partitions of the topic, in red; nothing where nothing is.
fn lacks(topic: &Described) -> String {
    let counts = [
        (topic.partitions.iter().filter(|p| p.leader.is_none()).count(), "offline".to_owned()),
        (
            topic.partitions.iter().filter(|p| p.is_below_minimum).count(),
            format!("below min.insync.replicas={}", topic.min_in_sync),
        ),
        (topic.partitions.iter().filter(|p| p.is_under_replicated).count(), "under-replicated".to_owned()),
    ];
    let words = counts.into_iter().filter(|(count, _)| *count > 0);
    words.map(|(count, what)| format!(", {}", alarming(&format!("{count} {what}")))).collect()
}

/// `1, 2, +4, -3`: with what a move adds and takes away.
fn replicas(partition: &DescribedPartition) -> String {
    let sign = |id: &i32| match (partition.adding.contains(id), partition.removing.contains(id)) {
        (true, _) => format!("+{id}"),
        (_, true) => format!("-{id}"),
        _ => id.to_string(),
    };
    partition.replicas.iter().map(sign).collect::<Vec<_>>().join(", ")
}

/// `2: 15 records, 1.2 KiB, 3 s`, or `2: unknown, 3 s`; empty where nobody lacks anything.
fn behind(followers: &[DescribedFollower]) -> String {
    let lacking = followers.iter().filter(|follower| follower.lag_records != Some(0));
    let words = lacking.map(|follower| {
        let lacks = match (follower.lag_records, follower.lag_bytes) {
            (Some(records), Some(bytes)) => {
                let records = counted(i32::try_from(records).unwrap_or(i32::MAX), "record");
                format!("{records}, {}", show_bytes(bytes))
            }
            _ => "unknown".to_owned(),
        };
        format!("{}: {lacks}, {} s", follower.broker, follower.behind_for_ms / 1000)
    });
    words.collect::<Vec<_>>().join("; ")
}
