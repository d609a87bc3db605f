//! The `floodmark` command: what was asked, what came of it as an exit code, and errors in words.

mod cmd;
mod input;
mod output;
mod records;
mod remote;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use cmd::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "Examples:
  floodmark serve                                    a broker, in ./floodmark-data
  floodmark topic create orders --partitions 4
  seq 10 | floodmark produce orders
  floodmark consume orders --follow";

/// A distributed append-only log that keeps Kafka's format.
#[derive(Debug, Parser)]
#[command(name = "floodmark", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Broker(BrokerCommand),
    /// Run a whole cluster on loopback, in one process.
    #[command(after_help = cmd::dev::EXAMPLES)]
    Dev(cmd::dev::DevArgs),
    /// Make, list, describe, alter, extend and delete topics.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark topic create orders --partitions 6
  floodmark topic describe orders"
    )]
    Topic(cmd::topic::TopicCommand),
    /// Write records from standard input or files.
    #[command(after_help = cmd::produce::EXAMPLES)]
    Produce(cmd::produce::ProduceArgs),
    /// Print records, by themselves or as a member of a group.
    #[command(after_help = cmd::consume::EXAMPLES)]
    Consume(cmd::consume::ConsumeArgs),
    /// Show how far the partitions of a topic reach, and where a time lies in them.
    #[command(after_help = cmd::offsets::EXAMPLES)]
    Offsets(cmd::offsets::OffsetsArgs),
    /// List, describe, reset and delete groups.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark group describe billing
  floodmark group reset billing --to start"
    )]
    Group(cmd::group::GroupCommand),
    /// Read a range of a topic again, at a chosen speed, into another topic or a file.
    #[command(after_help = cmd::replay::EXAMPLES)]
    Replay(cmd::replay::ReplayArgs),
    /// Use a topic as an event store: append to a stream on a condition, and read it.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark events append orders order-17 --expect no-stream --value placed
  floodmark events read orders order-17"
    )]
    Events(cmd::events::EventsCommand),
    /// Look after a cluster: status, new brokers, moves, leaders, voters.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark cluster status
  floodmark cluster drain 3 --dry-run"
    )]
    Cluster(cmd::cluster::ClusterCommand),
    /// Measure a cluster, within bounds of time and bytes.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark bench produce
  floodmark bench latency --rate 1000"
    )]
    Bench(cmd::bench::BenchCommand),
    /// Watch topics, rates, groups and lag.
    #[command(after_help = cmd::top::EXAMPLES)]
    Top(cmd::top::TopArgs),
    /// Show and explain the settings of a broker.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark config show
  floodmark config explain log.retention.ms"
    )]
    Config(cmd::config::ConfigCommand),
    /// Look into logs that lie on this machine, ours and Kafka's, without a broker.
    #[command(
        subcommand,
        after_help = "Examples:
  floodmark log verify floodmark-data
  floodmark log dump floodmark-data/logs/orders-0"
    )]
    Log(cmd::log::LogCommand),
    /// Print a script that teaches a shell these commands.
    #[command(after_help = cmd::completions::EXAMPLES)]
    Completions(cmd::completions::CompletionsArgs),
}

#[derive(Debug, Subcommand)]
enum BrokerCommand {
    /// Run a broker. Without arguments: complete, in ./floodmark-data, on loopback.
    #[command(after_help = cmd::serve::EXAMPLES)]
    Serve(cmd::serve::ServeArgs),
}

/// The one command that goes on running, without the others: to describe them all takes memory that a broker would keep.
#[derive(Debug, Parser)]
#[command(name = "floodmark", version, propagate_version = true)]
struct BrokerCli {
    #[command(subcommand)]
    command: BrokerCommand,
}

/// What was asked. Ends the program where that is unclear, or was an explanation.
fn asked() -> Command {
    if std::env::args_os().nth(1).is_some_and(|word| word == "serve") {
        Command::Broker(BrokerCli::parse().command)
    } else {
        Cli::parse().command
    }
}

fn main() -> ExitCode {
    let ran = match asked() {
        Command::Broker(BrokerCommand::Serve(args)) => cmd::serve::run(&args),
        Command::Dev(args) => cmd::dev::run(&args),
        Command::Cluster(command) => cmd::cluster::run(command),
        Command::Config(command) => cmd::config::run(command),
        Command::Log(command) => cmd::log::run(command),
        Command::Topic(command) => cmd::topic::run(command),
        Command::Produce(args) => cmd::produce::run(&args),
        Command::Consume(args) => cmd::consume::run(&args),
        Command::Offsets(args) => cmd::offsets::run(&args),
        Command::Group(command) => cmd::group::run(command),
        Command::Replay(args) => cmd::replay::run(&args),
        Command::Events(command) => cmd::events::run(command),
        Command::Bench(command) => cmd::bench::run(command),
        Command::Top(args) => cmd::top::run(&args),
        Command::Completions(args) => cmd::completions::run(&args, Cli::command()),
    };
    match ran {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Damaged | Outcome::Conflict | Outcome::Unwell) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            // Where even this cannot be written, the exit code is all that is left to say.
            let _ = writeln!(io::stderr(), "error: {}", output::sentence(&e));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_pipe))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

    use super::*;

    fn check(command: &clap::Command, path: &str) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(
            help.contains("Example") && help.contains("floodmark "),
            "{path} has no example in its --help"
        );
        for inner in command.get_subcommands() {
            check(inner, &format!("{path} {}", inner.get_name()));
        }
    }

    #[test]
    fn every_help_has_an_example() {
        check(&Cli::command(), "floodmark");
    }

    #[test]
    fn serve_alone_is_told_as_among_all() {
        let help = |mut all: clap::Command| {
            all.build();
            all.find_subcommand_mut("serve").map(|serve| serve.render_long_help().to_string()).unwrap()
        };
        assert_eq!(help(BrokerCli::command()), help(Cli::command()));
    }
}
