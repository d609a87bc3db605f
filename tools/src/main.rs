//! The `floodmark` command: what was asked, what came of it as an exit code, and errors in words.

mod cmd;
mod output;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cmd::Outcome;

/// A distributed append-only log that keeps Kafka's format.
#[derive(Debug, Parser)]
#[command(name = "floodmark", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look into logs that lie on this machine, ours and Kafka's, without a broker.
    #[command(subcommand)]
    Log(cmd::log::LogCommand),
}

fn main() -> ExitCode {
    let Command::Log(command) = Cli::parse().command;
    match cmd::log::run(command) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Damaged) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            // Where even this cannot be written, the exit code is all that is left to say.
            let _ = writeln!(io::stderr(), "error: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_pipe))
}
