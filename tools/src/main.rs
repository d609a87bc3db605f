//! The `floodmark` command: what was asked, what came of it as an exit code, and errors in words.

mod cmd;
mod output;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cmd::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed append-only log that keeps Kafka's format.
#[derive(Debug, Parser)]
#[command(name = "floodmark", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker. Without arguments: complete, in ./floodmark-data, on loopback.
    #[command(after_help = cmd::serve::EXAMPLES)]
    Serve(cmd::serve::ServeArgs),
    /// Show and explain the settings of a broker.
    #[command(subcommand)]
    Config(cmd::config::ConfigCommand),
    /// Look into logs that lie on this machine, ours and Kafka's, without a broker.
    #[command(subcommand)]
    Log(cmd::log::LogCommand),
}

fn main() -> ExitCode {
    let ran = match Cli::parse().command {
        Command::Serve(args) => cmd::serve::run(&args),
        Command::Config(command) => cmd::config::run(command),
        Command::Log(command) => cmd::log::run(command),
    };
    match ran {
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
