//! `floodmark events`: a topic as an event store, from the shell.

mod append;
mod read;

use clap::Subcommand;

use super::Outcome;
use crate::remote;

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Append events to a stream if its last one is the expected one: all of them or none.
    #[command(after_help = append::EXAMPLES)]
    Append(append::AppendArgs),
    /// Print the events of a stream, without reading the rest of its topic.
    #[command(after_help = read::EXAMPLES)]
    Read(read::ReadArgs),
}

pub(crate) fn run(command: EventsCommand) -> anyhow::Result<Outcome> {
    remote::run(async {
        match command {
            EventsCommand::Append(args) => append::run(&args).await,
            EventsCommand::Read(args) => read::run(&args).await,
        }
    })
}
