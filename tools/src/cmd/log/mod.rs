//! `floodmark log`: dump, verify and recover, offline.

mod batch_rows;
mod dump;
mod place;
mod recover;
mod recovered;
mod small_files;
mod verify;

use clap::Subcommand;

use super::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show what is in a log, an index, a snapshot or a checkpoint.
    #[command(after_help = dump::EXAMPLES)]
    Dump(dump::DumpArgs),
    /// Check every byte of logs, and say what is damaged and where.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// Bring a log back into order after a crash; give up damaged bytes only when told to.
    #[command(after_help = recover::EXAMPLES)]
    Recover(recover::RecoverArgs),
}

pub(crate) fn run(command: LogCommand) -> anyhow::Result<Outcome> {
    match command {
        LogCommand::Dump(args) => dump::run(&args),
        LogCommand::Verify(args) => verify::run(&args),
        LogCommand::Recover(args) => recover::run(&args),
    }
}
