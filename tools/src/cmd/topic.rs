//! `floodmark topic`: make, list, describe, alter, extend and delete topics.

mod describe;
mod look;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use floodmark_client::admin::{ConfigChange, ConfigResource, NewTopic};
use serde::Serialize;

use super::{Outcome, OutputArgs, all_of};
use crate::input::pairs;
use crate::input::pairs::Pair;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};
use crate::remote::{self, ServerArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Make a topic.
    #[command(after_help = "Examples:
  floodmark topic create orders
  floodmark topic create orders --partitions 6 --set retention.ms=604800000
  floodmark topic create accounts --set cleanup.policy=compact --set floodmark.key.index=true")]
    Create(CreateArgs),
    /// List the topics.
    #[command(after_help = "Example: floodmark topic list --output json")]
    List(ListArgs),
    /// Show partitions, leaders, replicas, offsets and settings of topics.
    #[command(after_help = "Examples:
  floodmark topic describe orders
  floodmark topic describe orders --all-settings --output json")]
    Describe(DescribeArgs),
    /// Change settings of a topic: all of the changes or none.
    #[command(after_help = "Examples:
  floodmark topic alter orders --set retention.ms=86400000 --unset segment.bytes
  floodmark topic alter orders --append cleanup.policy=compact")]
    Alter(AlterArgs),
    /// Delete topics with all their records.
    #[command(after_help = "Example: floodmark topic delete orders invoices")]
    Delete(DeleteArgs),
    /// Give a topic more partitions. Records stay where they are; keys may go to other partitions from then on.
    #[command(after_help = "Example: floodmark topic extend orders 12")]
    Extend(ExtendArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the topic.
    topic: String,
    /// Number of partitions [default: the broker's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    replication_factor: Option<i32>,
    /// A setting of the topic.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pairs::argument)]
    settings: Vec<Pair>,
    /// Only say what would become of it.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Also those that the cluster keeps for itself.
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Names of topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Also settings that are as they are everywhere.
    #[arg(long)]
    all_settings: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Name of the topic.
    topic: String,
    /// Give a setting a value.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pairs::argument)]
    set: Vec<Pair>,
    /// Take a setting back to the broker's default.
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Add to a setting that is a list.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pairs::argument)]
    append: Vec<Pair>,
    /// Take out of a setting that is a list.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pairs::argument)]
    subtract: Vec<Pair>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Names of topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExtendArgs {
    /// Name of the topic.
    topic: String,
    /// Partitions in all, with those that it has.
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(command: TopicCommand) -> anyhow::Result<Outcome> {
    remote::run(async {
        match command {
            TopicCommand::Create(args) => create(&args).await?,
            TopicCommand::List(args) => list(&args).await?,
            TopicCommand::Describe(args) => return describe::run(&args).await,
            TopicCommand::Alter(args) => alter(&args).await?,
            TopicCommand::Delete(args) => delete(&args).await?,
            TopicCommand::Extend(args) => extend(&args).await?,
        }
        Ok(Outcome::Good)
    })
}

async fn create(args: &CreateArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Created {
        topic: String,
        partitions: i32,
        replication_factor: i32,
        is_dry_run: bool,
    }
    let admin = args.server.connect().await?.admin();
    let mut topic = NewTopic::new(&args.topic);
    if let Some(partitions) = args.partitions {
        topic = topic.partitions(partitions);
    }
    if let Some(copies) = args.replication_factor {
        topic = topic.replication_factor(copies);
    }
    for Pair { key, value } in &args.settings {
        topic = topic.setting(key, value);
    }
    let made =
        if args.dry_run { admin.check_new_topic(topic).await? } else { admin.create_topic(topic).await? };
    let would = if args.dry_run { "would be made" } else { "made" };
    let words = format!(
        "topic {} {would}: {}, {}",
        args.topic,
        counted(made.partitions, "partition"),
        counted(made.replication_factor, "copy of each")
    );
    args.output.say(
        &words,
        &Created {
            topic: args.topic.clone(),
            partitions: made.partitions,
            replication_factor: made.replication_factor,
            is_dry_run: args.dry_run,
        },
    )
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Listed<'a> {
        topic: &'a str,
        partitions: usize,
        replication_factor: usize,
        is_internal: bool,
        /// Partitions that nobody leads at the moment.
        offline: usize,
        /// Partitions that have copies behind the others.
        under_replicated: usize,
    }
    let admin = args.server.connect().await?.admin();
    let mut topics = if args.internal { admin.topics_with_internal().await? } else { admin.topics().await? };
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partitions"),
        Column::Number("copies"),
        Column::Number("offline"),
        Column::Number("copies behind"),
    ]);
    for topic in &topics {
        let row = Listed {
            topic: &topic.name,
            partitions: topic.partitions.len(),
            replication_factor: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
            is_internal: topic.is_internal,
            offline: topic.partitions.iter().filter(|partition| partition.leader.is_none()).count(),
            under_replicated: topic.partitions.iter().filter(|p| p.is_under_replicated()).count(),
        };
        match args.output.format {
            Format::Json => sink.json(&row)?,
            Format::Table => {
                let counts = [row.partitions, row.replication_factor, row.offline, row.under_replicated];
                let cells = [row.topic.to_owned()].into_iter().chain(counts.map(|count| count.to_string()));
                table.row(&mut sink, cells.collect())?;
            }
        }
    }
    if topics.is_empty() && args.output.format == Format::Table {
        sink.line("no topics; `floodmark topic create NAME` makes one")?;
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}

async fn alter(args: &AlterArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Altered {
        topic: String,
        settings: Vec<describe::DescribedSetting>,
    }
    let pair = |pair: &Pair| (pair.key.clone(), pair.value.clone());
    let set = args.set.iter().map(pair).map(|(key, value)| ConfigChange::Set(key, value));
    let unset = args.unset.iter().cloned().map(ConfigChange::Remove);
    let append = args.append.iter().map(pair).map(|(key, value)| ConfigChange::Append(key, value));
    let subtract = args.subtract.iter().map(pair).map(|(key, value)| ConfigChange::Subtract(key, value));
    let changes: Vec<ConfigChange> = set.chain(unset).chain(append).chain(subtract).collect();
    anyhow::ensure!(!changes.is_empty(), "nothing to change; give --set, --unset, --append or --subtract");
    let names: Vec<&str> = [&args.set, &args.append, &args.subtract]
        .into_iter()
        .flatten()
        .map(|pair| pair.key.as_str())
        .chain(args.unset.iter().map(String::as_str))
        .collect();
    let admin = args.server.connect().await?.admin();
    let resource = ConfigResource::Topic(args.topic.clone());
    admin.alter_settings(resource.clone(), changes).await?;
    let settings = admin.settings(resource, &names).await?;
    let shown = settings.iter().map(|s| format!("{} = {} ({})", s.name, s.value, s.source));
    let words = format!("topic {} altered: {}", args.topic, shown.collect::<Vec<_>>().join(", "));
    let settings = settings.into_iter().map(Into::into).collect();
    args.output.say(&words, &Altered { topic: args.topic.clone(), settings })
}

async fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Deleted<'a> {
        topic: &'a str,
    }
    let admin = args.server.connect().await?.admin();
    all_of(&args.topics, async |topic| {
        admin.delete_topic(topic).await.with_context(|| format!("topic {topic} is not deleted"))?;
        args.output.say(&format!("topic {topic} deleted"), &Deleted { topic })
    })
    .await
}

async fn extend(args: &ExtendArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Extended<'a> {
        topic: &'a str,
        partitions: i32,
    }
    let admin = args.server.connect().await?.admin();
    admin.extend_topic(&args.topic, args.partitions).await?;
    let words = format!("topic {} has {} now", args.topic, counted(args.partitions, "partition"));
    args.output.say(&words, &Extended { topic: &args.topic, partitions: args.partitions })
}

/// `1 partition`, `2 partitions`; `1 copy of each`, `2 copies of each`.
fn counted(count: i32, what: &str) -> String {
    match (count, what.strip_prefix("copy")) {
        (1, _) => format!("1 {what}"),
        (_, Some(rest)) => format!("{count} copies{rest}"),
        (_, None) => format!("{count} {what}s"),
    }
}
