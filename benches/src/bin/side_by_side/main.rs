//! Floodmark and Apache Kafka on one machine under one client, in turns: Kafka's own performance tools, and librdkafka's where it is
//! given. Floodmark syncs before it answers; Kafka runs as it comes, which answers from memory.
#![allow(clippy::disallowed_methods, reason = "a load measures time, and writes the peer's settings")]

mod brokers;
mod clients;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use floodmark_benches::measure::Compared;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::BrokerProgram;
use floodmark_benches::workload::Setup;

use brokers::Broker;
use clients::{Clients, Latency};

/// Floodmark beside Apache Kafka under the same clients.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    #[command(flatten)]
    program: BrokerProgram,
    /// Folder with the jars of Kafka's broker and tools; `cargo test -p floodmark-tools --test kafka_interop` leaves one
    #[arg(long, default_value = "target/kafka-4.3.1/lib")]
    kafka: PathBuf,
    /// librdkafka's `rdkafka_performance`, an example of its sources; without it its rows are left out
    #[arg(long)]
    rdkafka_performance: Option<PathBuf>,
    /// MiB produced and consumed in a run
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Records sent one at a time in a run of latency
    #[arg(long, default_value_t = 3000)]
    records: u64,
    /// Sizes of records
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    record_bytes: Vec<u64>,
    /// Only rows that have this in their name
    #[arg(long, default_value = "")]
    rows: String,
}

/// One figure of a broker.
type Figure<'a> = dyn Fn(&Broker, &str) -> anyhow::Result<f64> + 'a;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let scratch = args.setup.scratch()?;
    let clients = Clients::new(&args.kafka, args.rdkafka_performance.as_deref());
    let mut report = Report::new("Floodmark (synced answers) beside Apache Kafka 4.3 (as it comes)");
    let ran = args.record_bytes.iter().try_for_each(|&record_bytes| {
        let records = (args.mib << 20) / record_bytes;
        rows(&args, scratch.path(), &clients, record_bytes, records, &mut report)
    });
    // Also what was found before a failure.
    report.print(args.setup.output);
    ran
}

fn rows(
    args: &Args,
    scratch: &Path,
    clients: &Clients,
    bytes: u64,
    records: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = |what: &str| format!("{bytes} B, {what}");
    let more = Aim::AtLeast(1.0);
    let less = Aim::AtMost(1.0);
    let mut row = |what: &str, aim, unit, figure: &Figure<'_>| -> anyhow::Result<()> {
        if !what.contains(&args.rows) {
            return Ok(());
        }
        let compared = in_turns(args, scratch, figure).with_context(|| name(what))?;
        report.compared(name(what), aim, &compared, unit);
        Ok(())
    };
    row("Java: produce", more, "records/s", &|broker, topic| clients.produce(broker, topic, bytes, records))?;
    row("Java: consume", more, "records/s", &|broker, topic| {
        clients.produce(broker, topic, bytes, records)?;
        clients.consume(broker, topic, records)
    })?;
    let latency = |quantile: fn(&Latency) -> f64| {
        move |broker: &Broker, topic: &str| {
            Ok(quantile(&clients.latency(broker, topic, bytes, args.records)?))
        }
    };
    row("Java: 1,000 records/s, mean", less, "ms", &latency(|l| l.mean))?;
    row("Java: 1,000 records/s, p99", less, "ms", &latency(|l| l.p99))?;
    row("Java: end to end, mean", less, "ms", &|broker, topic| {
        clients.end_to_end(broker, topic, bytes, args.records)
    })?;
    if clients.has_librdkafka() {
        row("librdkafka: produce", more, "records/s", &|broker, topic| {
            clients.rdkafka_produce(broker, topic, bytes, records)
        })?;
        row("librdkafka: consume", more, "records/s", &|broker, topic| {
            clients.rdkafka_produce(broker, topic, bytes, records)?;
            clients.rdkafka_consume(broker, topic, records)
        })?;
    }
    Ok(())
}

/// One figure of both, in turns; each run on a broker of its own with an empty directory, the other one stopped.
fn in_turns(args: &Args, scratch: &Path, figure: &Figure<'_>) -> anyhow::Result<Compared> {
    let mut pairs = Vec::new();
    for pair in 0..args.setup.pairs {
        let ours = || -> anyhow::Result<f64> {
            let dir = scratch.join("floodmark");
            let figure = figure(&Broker::floodmark(&args.program.path()?, &dir)?, "bench")?;
            std::fs::remove_dir_all(dir)?;
            Ok(figure)
        };
        let theirs = || -> anyhow::Result<f64> {
            let dir = scratch.join("kafka");
            let figure = figure(&Broker::kafka(&args.kafka, &dir)?, "bench")?;
            std::fs::remove_dir_all(dir)?;
            Ok(figure)
        };
        pairs.push(if pair % 2 == 0 {
            let ours = ours()?;
            (ours, theirs()?)
        } else {
            let theirs = theirs()?;
            (ours()?, theirs)
        });
    }
    Ok(Compared::of_pairs(&pairs))
}
