//! `floodmark cluster voters`: who votes on the metadata.

use anyhow::ensure;
use clap::{Args, Subcommand};
use floodmark_client::Admin;
use floodmark_client::admin::Mode;
use serde::Serialize;

use super::super::OutputArgs;
use super::{list, status};
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};
use crate::remote::ServerArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum VotersCommand {
    /// List voters and learners, with what each lacks of the metadata.
    #[command(after_help = "Example: floodmark cluster voters list")]
    List(ListArgs),
    /// Make these brokers the voters: 1, 3 or 5 of them.
    #[command(after_help = "Examples:
  floodmark cluster voters set 1 2 4 --dry-run
  floodmark cluster voters set 1 2 4                     broker 4 instead of 3

A new voter has caught up before it counts. Settings need no change: a broker knows from its disk whether it votes.")]
    Set(SetArgs),
    /// Add voters to those there are.
    #[command(after_help = "Example: floodmark cluster voters add 2 3")]
    Add(SetArgs),
    /// Take voters out.
    #[command(after_help = "Example: floodmark cluster voters remove 4 5")]
    Remove(SetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Numbers of brokers.
    #[arg(required = true, value_name = "BROKER")]
    brokers: Vec<i32>,
    /// Only say what would be.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(command: &VotersCommand) -> anyhow::Result<()> {
    match command {
        VotersCommand::List(args) => list_all(args).await,
        VotersCommand::Set(args) => change(args, |_| args.brokers.clone()).await,
        VotersCommand::Add(args) => {
            change(args, |before| before.iter().chain(&args.brokers).copied().collect()).await
        }
        VotersCommand::Remove(args) => {
            change(args, |before| before.iter().filter(|b| !args.brokers.contains(b)).copied().collect())
                .await
        }
    }
}

async fn list_all(args: &ListArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Member {
        broker: i32,
        is_voter: bool,
        is_leader: bool,
        lag_entries: Option<u64>,
    }
    let quorum = args.server.connect().await?.admin().status().await?.quorum;
    let mut sink = Sink::stdout();
    let mut table =
        Pages::new(&[Column::Number("broker"), Column::Text("role"), Column::Number("entries behind")]);
    for member in &quorum.members {
        let is_leader = quorum.leader == Some(member.broker);
        match args.output.format {
            Format::Json => sink.json(&Member {
                broker: member.broker,
                is_voter: member.is_voter,
                is_leader,
                lag_entries: member.lag,
            })?,
            Format::Table => {
                let role = match (is_leader, member.is_voter) {
                    (true, _) => "leader",
                    (false, true) => "voter",
                    (false, false) => "learner",
                };
                let lag = member.lag.map_or("-".to_owned(), |lag| lag.to_string());
                table.row(&mut sink, vec![member.broker.to_string(), role.to_owned(), lag])?;
            }
        }
    }
    table.flush(&mut sink)?;
    Ok(sink.flush()?)
}

async fn voters_now(admin: &Admin) -> anyhow::Result<Vec<i32>> {
    Ok(status::voters(&admin.status().await?).collect())
}

async fn change(args: &SetArgs, wanted: impl Fn(&[i32]) -> Vec<i32>) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Changed {
        before: Vec<i32>,
        voters: Vec<i32>,
        is_dry_run: bool,
    }
    let admin = args.server.connect().await?.admin();
    let before = voters_now(&admin).await?;
    let mut voters = wanted(&before);
    voters.sort_unstable();
    voters.dedup();
    ensure!(!voters.is_empty(), "a cluster without voters cannot change any more; leave one at least");
    let mode = if args.dry_run { Mode::Check } else { Mode::Change };
    let before = admin.change_voters(&voters, mode).await?;
    let are = if args.dry_run { "would be" } else { "are" };
    let words = format!("voters {are} {}; they were {}", list(&voters), list(&before));
    args.output.say(&words, &Changed { before, voters, is_dry_run: args.dry_run })
}
