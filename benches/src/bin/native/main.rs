//! The native door and the native client beside Kafka's: bytes per second of one broker by both doors, round trips over a bare tonic echo,
//! and our client beside librdkafka.
#![allow(clippy::disallowed_methods, reason = "a load measures time")]

mod client;
mod echo;
mod http2;
mod latency;
mod load;
mod throughput;
mod verbatim;

use clap::{Parser, Subcommand};
use floodmark_benches::report::Report;
use floodmark_benches::server::{BrokerProgram, Server};
use floodmark_benches::workload::Setup;

/// The native door and the native client beside Kafka's.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Bytes per second and CPU per GiB through the gRPC door over those through the Kafka door
    Throughput(throughput::Args),
    /// Round trips of one record at a time over a bare tonic echo
    Latency(latency::Args),
    /// Our client over the gRPC door beside librdkafka over the Kafka door
    Client(client::Args),
    /// A bare server; the others start it
    #[command(hide = true)]
    Echo(echo::Args),
    /// Our client in a process of its own; the others start it
    #[command(hide = true)]
    Load(load::Args),
}

/// What every comparison needs.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    program: BrokerProgram,
}

impl Common {
    fn broker(&self, scratch: &std::path::Path) -> anyhow::Result<Server> {
        Server::floodmark(&self.program.path()?, &scratch.join("data"))
    }
}

fn main() -> anyhow::Result<()> {
    let what = Args::parse().what;
    let mut report = Report::new("the native door and client beside Kafka's");
    let (common, ran) = match &what {
        What::Throughput(args) => (&args.common, args.run(&mut report)),
        What::Latency(args) => (&args.common, args.run(&mut report)),
        What::Client(args) => (&args.common, args.run(&mut report)),
        What::Echo(args) => return args.run(),
        What::Load(args) => return args.run(),
    };
    // Also what was found before a failure.
    report.print(common.setup.output);
    ran
}
