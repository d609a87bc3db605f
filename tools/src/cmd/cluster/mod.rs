//! `floodmark cluster`: how a cluster is, and what an operator does to it.
//!
//! - `status`: the cluster, its brokers, its quorum; `ready`: one broker, by its HTTP door
//! - `join`: the settings that a new broker needs
//! - `moves`: drain, move, moves, cancel; `progress` waits for them
//! - `elect`, `voters`, `remove`: leaders, voters, brokers that are gone

mod elect;
mod join;
mod moves;
mod progress;
mod ready;
mod remove;
mod status;
mod voters;

use clap::Subcommand;

use super::Outcome;
use crate::remote;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show brokers, the metadata quorum and what partitions lack.
    #[command(after_help = "Examples:
  floodmark cluster status
  floodmark cluster status --check && echo well        exit code 1 where a broker is missing or a partition lacks something")]
    Status(status::StatusArgs),
    /// List the brokers with their addresses and what they carry.
    #[command(after_help = "Example: floodmark cluster brokers --output json")]
    Brokers(status::BrokersArgs),
    /// Print the settings that a new broker needs to join this cluster.
    #[command(after_help = join::EXAMPLES)]
    Join(join::JoinArgs),
    /// Move everything away from a broker, before it is taken out.
    #[command(after_help = moves::DRAIN_EXAMPLES)]
    Drain(moves::DrainArgs),
    /// Move partitions to other brokers.
    #[command(after_help = moves::MOVE_EXAMPLES)]
    Move(moves::MoveArgs),
    /// List moves that are under way, with what the new replicas lack.
    #[command(after_help = "Examples:
  floodmark cluster moves
  floodmark cluster moves --wait                        until all have ended")]
    Moves(moves::MovesArgs),
    /// Take partitions back to where they were before their moves.
    #[command(after_help = "Examples:
  floodmark cluster cancel --all
  floodmark cluster cancel orders --partition 3")]
    Cancel(moves::CancelArgs),
    /// Give partitions their preferred leaders, or, at a loss, any.
    #[command(after_help = elect::EXAMPLES)]
    Elect(elect::ElectArgs),
    /// List and change the brokers that vote on the metadata.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark cluster voters list
  floodmark cluster voters add 4"
    )]
    Voters(voters::VotersCommand),
    /// Forget a broker that has been stopped for good.
    #[command(after_help = remove::EXAMPLES)]
    Remove(remove::RemoveArgs),
    /// Let the cluster use what programs of this feature level know. It never falls.
    #[command(after_help = "Example: floodmark cluster feature-level 2")]
    FeatureLevel(status::LevelArgs),
    /// Say whether one broker is ready: it serves, and has all that its replicas ought to have.
    #[command(after_help = ready::EXAMPLES)]
    Ready(ready::ReadyArgs),
}

pub(crate) fn run(command: ClusterCommand) -> anyhow::Result<Outcome> {
    remote::run(async {
        match command {
            ClusterCommand::Status(args) => return status::run(&args).await,
            ClusterCommand::Ready(args) => return ready::run(&args).await,
            ClusterCommand::Brokers(args) => status::brokers(&args).await,
            ClusterCommand::FeatureLevel(args) => status::feature_level(&args).await,
            ClusterCommand::Join(args) => join::run(&args).await,
            ClusterCommand::Drain(args) => moves::drain(&args).await,
            ClusterCommand::Move(args) => moves::run(&args).await,
            ClusterCommand::Moves(args) => moves::list(&args).await,
            ClusterCommand::Cancel(args) => moves::cancel(&args).await,
            ClusterCommand::Elect(args) => elect::run(&args).await,
            ClusterCommand::Voters(command) => voters::run(&command).await,
            ClusterCommand::Remove(args) => remove::run(&args).await,
        }?;
        Ok(Outcome::Good)
    })
}

/// `1, 2, 3`; `none` where there is nobody.
fn list(brokers: &[i32]) -> String {
    if brokers.is_empty() {
        return "none".to_owned();
    }
    brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// `1 partition`, `2 partitions`.
fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
