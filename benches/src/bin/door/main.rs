//! The Kafka door in a process of its own, over bare servers that move the same bytes: CPU time per GiB, round trips, memory.
#![allow(
    clippy::disallowed_methods,
    reason = "a load measures time, and makes the files that the bare servers send"
)]

mod bare;
mod footprint;
mod latency;
mod layout;
mod sustained;
mod throughput;

use clap::{Parser, Subcommand};
use floodmark_benches::report::Report;
use floodmark_benches::server::BrokerProgram;
use floodmark_benches::workload::Setup;

/// The broker's side of the socket over bare servers that move the same bytes.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU per GiB produced and fetched, and what a sync before the answer costs
    Throughput(throughput::Args),
    /// What a sync before the answer costs once the page cache has to let go; writes much
    Sustained(sustained::Args),
    /// Round trips of one record at a time, and from producer to consumer
    Latency(latency::Args),
    /// Memory and time to start
    Footprint(footprint::Args),
    /// A bare server; the others start it
    #[command(hide = true)]
    Bare(bare::Bare),
}

/// What every comparison needs.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    program: BrokerProgram,
}

fn main() -> anyhow::Result<()> {
    let what = Args::parse().what;
    let mut report = Report::new("the Kafka door over bare servers");
    let (common, ran) = match &what {
        What::Throughput(args) => (&args.common, args.run(&mut report)),
        What::Sustained(args) => (&args.common, args.run(&mut report)),
        What::Latency(args) => (&args.common, args.run(&mut report)),
        What::Footprint(args) => (&args.common, args.run(&mut report)),
        What::Bare(bare) => return bare.run(),
    };
    // Also what was found before a failure.
    report.print(common.setup.output);
    ran
}
