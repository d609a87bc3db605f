//! Three `floodmark serve` processes as one cluster: what many partitions cost them, how fast the dead are replaced, what a copy adds to an answer.
#![allow(clippy::disallowed_methods, reason = "a load measures time")]

mod latency;
mod size;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use floodmark_benches::echo;
use floodmark_benches::report::Report;
use floodmark_benches::server::BrokerProgram;
use floodmark_benches::workload::Setup;

/// A cluster of three processes on loopback.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Many partitions: made, at rest, without one broker, started again
    Size(size::Args),
    /// One record at a time: what acks=all adds to acks=1
    Latency(latency::Args),
    /// A bare server; the others start it
    #[command(hide = true)]
    Echo {
        /// Where it listens
        address: SocketAddr,
    },
}

/// What every part needs.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    program: BrokerProgram,
}

fn main() -> anyhow::Result<()> {
    let what = Args::parse().what;
    let mut report = Report::new("cluster: three processes");
    let (common, ran) = match &what {
        What::Size(args) => (&args.common, args.run(&mut report)),
        What::Latency(args) => (&args.common, args.run(&mut report)),
        What::Echo { address } => return echo::serve(*address),
    };
    // Also what was found before a failure.
    report.print(common.setup.output);
    ran
}
