//! `floodmark cluster drain`, `move`, `moves` and `cancel`: partitions that go to other brokers.

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use floodmark_client::admin::{Mode, MoveGoal, MoveUnderWay, Moved};
use floodmark_client::{Admin, Error, TopicPartition};
use floodmark_proto::kafka::ErrorCode;
use serde::Serialize;

use super::super::OutputArgs;
use super::progress::{self, Ended};
use super::{counted, list as brokers};
use crate::input::quantity;
use crate::input::quantity::show_bytes;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, note};
use crate::remote::ServerArgs;

pub(crate) const DRAIN_EXAMPLES: &str = "Examples:
  floodmark cluster drain 3 --dry-run                   what would go where
  floodmark cluster drain 3                             and wait until nothing is left on it
  floodmark cluster drain 3 --undo                      take back what has not arrived yet

What has arrived elsewhere comes back with `floodmark cluster move --balance-onto 3`. Settings of brokers bound how fast replicas are
copied: replica.catchup.bytes.per.second.";

pub(crate) const MOVE_EXAMPLES: &str = "Examples:
  floodmark cluster move orders --partition 3 --to 4,1,2         one partition; the first broker leads
  floodmark cluster move orders --to 1,2,4                       a whole topic over these brokers, leaders in turn
  floodmark cluster move --balance-onto 4                        a new broker's share of everything
  floodmark cluster move orders --to 1,2,4 --dry-run
  floodmark cluster cancel orders                                and back, as long as it has not arrived";

/// Moves of one call; a drain of many partitions is begun in parts, so that each call answers soon.
const BEGUN_AT_ONCE: usize = 200;

#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Only say what would move.
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
    /// Return once the moves have begun.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the moves to end.
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = quantity::positive_duration)]
    within: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Number of the broker.
    broker: i32,
    /// Take back the moves away from it that have not ended.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
#[group(id = "goal", required = true, multiple = false, args = ["to", "balance_onto"])]
pub(crate) struct MoveArgs {
    /// Name of the topic.
    #[arg(required_unless_present = "balance_onto", conflicts_with = "balance_onto")]
    topic: Option<String>,
    /// Only these partitions of the topic.
    #[arg(long, value_name = "P", value_delimiter = ',', requires = "topic")]
    partition: Vec<i32>,
    /// The brokers that shall hold it. Of several partitions each is led by another of them, in turn.
    #[arg(long, value_name = "BROKERS", value_delimiter = ',', requires = "topic")]
    to: Vec<i32>,
    /// Copies of each partition, where `--to` names more brokers than that [default: as many as it names].
    #[arg(long, value_name = "N", requires = "to")]
    copies: Option<usize>,
    /// Give this broker its share of all partitions.
    #[arg(long, value_name = "BROKER")]
    balance_onto: Option<i32>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MovesArgs {
    /// Wait until all have ended.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = quantity::positive_duration)]
    within: Duration,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false, args = ["topic", "all"])]
pub(crate) struct CancelArgs {
    /// Moves of this topic.
    topic: Option<String>,
    /// Only of these partitions.
    #[arg(long, value_name = "P", value_delimiter = ',', requires = "topic")]
    partition: Vec<i32>,
    /// All moves.
    #[arg(long)]
    all: bool,
    /// Only say what would be taken back.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// What becomes of one partition, as it is told.
#[derive(Serialize)]
struct ToldMove<'a> {
    topic: &'a str,
    partition: i32,
    from: &'a [i32],
    to: &'a [i32],
    is_begun: bool,
    error: Option<String>,
}

#[derive(Serialize)]
struct ToldUnderWay<'a> {
    topic: &'a str,
    partition: i32,
    from: &'a [i32],
    to: &'a [i32],
    in_sync: &'a [i32],
    leader: Option<i32>,
    /// What the new replicas lack; null where the leader does not know them yet.
    lag_bytes: Option<u64>,
    lag_records: Option<i64>,
}

pub(crate) async fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    let admin = args.server.connect().await?.admin();
    let mode = if args.wait.dry_run { Mode::Check } else { Mode::Change };
    if args.undo {
        let cancelled = admin.cancel_moves(&[], Some(args.broker), mode).await?;
        let cancelled = without_ended(cancelled, args.output);
        let nothing = format!("no move away from broker {} is under way", args.broker);
        return print(&cancelled, mode, args.output, &nothing);
    }
    let nothing = format!("broker {} holds nothing", args.broker);
    act(&admin, MoveGoal::AwayFrom(args.broker), &args.wait, args.output, &nothing).await
}

pub(crate) async fn run(args: &MoveArgs) -> anyhow::Result<()> {
    let admin = args.server.connect().await?.admin();
    let (goal, nothing) = match (&args.topic, args.balance_onto) {
        (_, Some(broker)) => (MoveGoal::Onto(broker), format!("broker {broker} has its share")),
        (Some(topic), None) => {
            (MoveGoal::To(targets(args, &admin, topic).await?), "nothing moves".to_owned())
        }
        (None, None) => bail!("give a topic and --to BROKERS, or --balance-onto BROKER"),
    };
    act(&admin, goal, &args.wait, args.output, &nothing).await
}

async fn targets(
    args: &MoveArgs,
    admin: &Admin,
    topic: &str,
) -> anyhow::Result<Vec<(TopicPartition, Vec<i32>)>> {
    let copies = args.copies.unwrap_or(args.to.len());
    ensure!(
        (1..=args.to.len()).contains(&copies),
        "--copies {copies} needs as many brokers; --to names {}",
        args.to.len()
    );
    let described = admin.topic(topic).await?;
    let all = described.partitions.iter().map(|partition| partition.partition);
    let wanted: Vec<i32> = if args.partition.is_empty() { all.collect() } else { args.partition.clone() };
    let target = |(n, partition): (usize, &i32)| {
        // Where one partition is named, the order is meant.
        let turned = args.to.iter().cycle().skip(if wanted.len() == 1 { 0 } else { n % args.to.len() });
        (TopicPartition::new(topic, *partition), turned.take(copies).copied().collect())
    };
    Ok(wanted.iter().enumerate().map(target).collect())
}

/// Plans first, then begins what was planned in parts, then waits.
async fn act(
    admin: &Admin,
    goal: MoveGoal,
    wait: &WaitArgs,
    output: OutputArgs,
    nothing: &str,
) -> anyhow::Result<()> {
    let planned = still_to_do(admin, admin.move_partitions(goal, Mode::Check).await?, output).await?;
    if wait.dry_run || planned.is_empty() || planned.iter().any(|moved| moved.error.is_some()) {
        return print(&planned, Mode::Check, output, nothing);
    }
    let mut begun = Vec::with_capacity(planned.len());
    for part in planned.chunks(BEGUN_AT_ONCE) {
        let part = part.iter().map(|moved| (moved.partition.clone(), moved.to.clone())).collect();
        begun.extend(admin.move_partitions(MoveGoal::To(part), Mode::Change).await?);
    }
    if wait.no_wait {
        return print(&begun, Mode::Change, output, nothing);
    }
    let moving: Vec<TopicPartition> =
        begun.iter().filter(|moved| moved.error.is_none()).map(|moved| moved.partition.clone()).collect();
    let ended = progress::wait(admin, &moving, wait.within).await?;
    print(&begun, Mode::Change, output, nothing)?;
    if ended == Ended::All && output.format == Format::Table {
        note(&format!("{} moved", counted(moving.len(), "partition")));
    }
    Ok(())
}

/// Without those that lie where they shall. What is on its way there is waited for.
async fn still_to_do(
    admin: &Admin,
    mut planned: Vec<Moved>,
    output: OutputArgs,
) -> anyhow::Result<Vec<Moved>> {
    let is_there = |moved: &Moved| moved.error.is_none() && moved.from == moved.to;
    if !planned.iter().any(is_there) {
        return Ok(planned);
    }
    let under_way = admin.moves().await?;
    let before = planned.len();
    planned.retain(|moved| !is_there(moved) || under_way.iter().any(|m| m.partition == moved.partition));
    let there = before - planned.len();
    if there > 0 && output.format == Format::Table {
        note(&format!("of {}, {there} lie where they shall", counted(before, "partition")));
    }
    Ok(planned)
}

/// Each with what becomes of it; fails where any does not move.
fn print(moves: &[Moved], mode: Mode, output: OutputArgs, nothing: &str) -> anyhow::Result<()> {
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Text("from"),
        Column::Text("to"),
        Column::Text("error"),
    ]);
    for moved in moves {
        let error = moved.error.as_ref().map(ToString::to_string);
        let (topic, partition) = (&*moved.partition.topic, moved.partition.partition);
        match output.format {
            Format::Json => sink.json(&ToldMove {
                topic,
                partition,
                from: &moved.from,
                to: &moved.to,
                is_begun: mode == Mode::Change && error.is_none(),
                error,
            })?,
            Format::Table => {
                let cells = vec![
                    topic.to_owned(),
                    partition.to_string(),
                    brokers(&moved.from),
                    brokers(&moved.to),
                    error.unwrap_or_default(),
                ];
                table.row(&mut sink, cells)?;
            }
        }
    }
    if moves.is_empty() && output.format == Format::Table {
        sink.line(nothing)?;
    }
    table.flush(&mut sink)?;
    sink.flush()?;
    let failed = moves.iter().filter(|moved| moved.error.is_some()).count();
    if mode == Mode::Check && output.format == Format::Table && !moves.is_empty() {
        note(if failed == 0 {
            "nothing has been done; without --dry-run it is"
        } else {
            "nothing has been done"
        });
    }
    match moves.iter().find_map(|moved| moved.error.as_ref()) {
        Some(first) => bail!("{failed} of {} cannot be done: {first}", moves.len()),
        None => Ok(()),
    }
}

pub(crate) async fn list(args: &MovesArgs) -> anyhow::Result<()> {
    let admin = args.server.connect().await?.admin();
    let moves = admin.moves().await?;
    if args.wait {
        let moving: Vec<TopicPartition> = moves.iter().map(|moved| moved.partition.clone()).collect();
        progress::wait(&admin, &moving, args.within).await?;
        return Ok(());
    }
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&[
        Column::Text("topic"),
        Column::Number("partition"),
        Column::Text("from"),
        Column::Text("to"),
        Column::Text("in sync"),
        Column::Number("leader"),
        Column::Number("to copy"),
    ]);
    for moved in &moves {
        let told = under_way(&admin, moved).await;
        match args.output.format {
            Format::Json => sink.json(&told)?,
            Format::Table => {
                let cells = vec![
                    told.topic.to_owned(),
                    told.partition.to_string(),
                    brokers(told.from),
                    brokers(told.to),
                    brokers(told.in_sync),
                    told.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                    told.lag_bytes.map_or("-".to_owned(), show_bytes),
                ];
                table.row(&mut sink, cells)?;
            }
        }
    }
    if moves.is_empty() && args.output.format == Format::Table {
        sink.line("nothing moves")?;
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}

async fn under_way<'a>(admin: &Admin, moved: &'a MoveUnderWay) -> ToldUnderWay<'a> {
    let replicas = progress::new_replicas(admin, moved).await;
    ToldUnderWay {
        topic: &moved.partition.topic,
        partition: moved.partition.partition,
        from: &moved.from,
        to: &moved.to,
        in_sync: &moved.in_sync,
        leader: moved.leader,
        // The leader may be on its way to know them, or to hear of them.
        lag_bytes: progress::lacking(&replicas),
        lag_records: progress::sum(replicas.iter().map(|replica| replica.lag_records)),
    }
}

pub(crate) async fn cancel(args: &CancelArgs) -> anyhow::Result<()> {
    let admin = args.server.connect().await?.admin();
    let mode = if args.dry_run { Mode::Check } else { Mode::Change };
    let moving = admin.moves().await?;
    let is_meant = |partition: &TopicPartition| match &args.topic {
        None => true,
        Some(topic) => {
            *partition.topic == **topic
                && (args.partition.is_empty() || args.partition.contains(&partition.partition))
        }
    };
    let meant: Vec<TopicPartition> =
        moving.into_iter().map(|moved| moved.partition).filter(is_meant).collect();
    let mut cancelled = Vec::with_capacity(meant.len());
    for part in meant.chunks(BEGUN_AT_ONCE) {
        cancelled.extend(admin.cancel_moves(part, None, mode).await?);
    }
    print(&without_ended(cancelled, args.output), mode, args.output, "nothing of that moves")
}

/// Those that were taken back, or could not be. Some may have ended between the look at them and their turn.
fn without_ended(mut cancelled: Vec<Moved>, output: OutputArgs) -> Vec<Moved> {
    let before = cancelled.len();
    cancelled.retain(|moved| match &moved.error {
        Some(Error::Refused(refusal)) => refusal.code != Some(ErrorCode::NoReassignmentInProgress),
        _ => true,
    });
    let ended = before - cancelled.len();
    if ended > 0 && output.format == Format::Table {
        note(&format!("{} had ended before, and stays where it went", counted(ended, "move")));
    }
    cancelled
}
