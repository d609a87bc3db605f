//! What a broker costs that does nothing, that holds many partitions, and that holds many idle connections.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use floodmark_benches::kafka_wire as wire;
use floodmark_benches::measure::median;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::Server;
use floodmark_benches::workload::Template;

use crate::Common;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Partitions created in topics of 100
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
    /// Connections that say nothing
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
}

const PARTITIONS_OF_A_TOPIC: i32 = 100;
/// Records on their way at once where each partition gets one.
const RECORDS_UNDER_WAY: usize = 64;
/// Work that goes on after the start is over by then.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let program = &self.common.program.path()?;
        let template = Template::of_records(200, 100)?;
        let (mut ready, mut first) = (Vec::new(), Vec::new());
        for n in 0..=self.common.setup.pairs {
            let started = Instant::now();
            let server = Server::floodmark(program, &scratch.path().join(format!("empty-{n}")))?;
            let mut connection = wire::Connection::open(server.address)?;
            // It is refused, for there is no such topic, by the code that will take others.
            connection.ask(&wire::produce("none", 0, 1, template.as_bytes()))?;
            ready.push(started.elapsed().as_secs_f64() * 1000.0);
            wire::check_created(connection.ask(&wire::create_topic("first", 1, &[]))?)?;
            wire::produced_at("first", connection.ask(&wire::produce("first", 0, -1, template.as_bytes()))?)?;
            first.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        let ready_within = format!("ms from exec, slowest {:.1}", ready.iter().copied().fold(0.0, f64::max));
        report.value("empty directory: produce is answered", Aim::AtMost(50.0), median(ready), ready_within);
        let name = "empty directory: a topic made, a record in it synced";
        report.value(name, Aim::None, median(first), "ms from exec");

        crate::layout::report(report, program)?;
        let broker = Server::floodmark(program, &scratch.path().join("idle"))?;
        thread::sleep(SETTLED_AFTER);
        report.value("idle: memory", Aim::AtMost(12.0), broker.resident_mib()?, "MiB resident");
        let cpu = broker.cpu()?;
        thread::sleep(SETTLED_AFTER);
        let share = (broker.cpu()? - cpu).as_secs_f64() / SETTLED_AFTER.as_secs_f64() * 100.0;
        report.value("idle: CPU", Aim::None, share, "percent of a core");

        let before = broker.resident_mib()?;
        let mut idle = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            idle.push(wire::Connection::open(broker.address)?);
        }
        thread::sleep(SETTLED_AFTER);
        let held = broker.resident_mib()?;
        let detail = format!(
            "MiB resident, {:.1} KiB a connection",
            (held - before) * 1024.0 / self.connections as f64
        );
        report.value(
            format!("{} idle connections: memory", self.connections),
            Aim::AtMost(200.0),
            held,
            detail,
        );
        drop(idle);
        drop(broker);

        self.partitions(report, &Server::floodmark(program, &scratch.path().join("partitions"))?)
    }

    fn partitions(&self, report: &mut Report, broker: &Server) -> anyhow::Result<()> {
        let mut connection = wire::Connection::open(broker.address)?;
        let started = Instant::now();
        let topics = self.partitions / PARTITIONS_OF_A_TOPIC;
        for n in 0..topics {
            let frame = wire::create_topic(&format!("many-{n}"), PARTITIONS_OF_A_TOPIC, &[]);
            wire::check_created(connection.ask(&frame)?)?;
        }
        let took = started.elapsed().as_secs_f64();
        report.value(format!("{} partitions: created", self.partitions), Aim::None, took, "s");
        report.value(
            format!("{} partitions: memory before the first record", self.partitions),
            Aim::None,
            broker.resident_mib()?,
            "MiB resident",
        );
        let template = Template::of_records(200, 100)?;
        let started = Instant::now();
        let mut waiting = VecDeque::new();
        for (topic, partition) in self.each_partition() {
            connection.send(&wire::produce(&topic, partition, -1, template.as_bytes()))?;
            waiting.push_back(topic);
            if waiting.len() == RECORDS_UNDER_WAY {
                first_record(&mut connection, &mut waiting)?;
            }
        }
        while !waiting.is_empty() {
            first_record(&mut connection, &mut waiting)?;
        }
        let took = started.elapsed().as_secs_f64();
        report.value(
            format!("{} partitions: one record in each, synced", self.partitions),
            Aim::None,
            took,
            "s",
        );
        let started = Instant::now();
        for (topic, partition) in self.each_partition() {
            let answer = connection.ask(&wire::fetch(&topic, partition, 0, 1 << 20, 0))?;
            let bytes = wire::fetched(&topic, answer)?.len();
            anyhow::ensure!(bytes == template.size_bytes(), "{topic}-{partition} serves {bytes} bytes");
        }
        let took = started.elapsed().as_secs_f64();
        report.value(format!("{} partitions: each read", self.partitions), Aim::None, took, "s");
        thread::sleep(SETTLED_AFTER);
        report.value(
            format!("{} partitions: memory", self.partitions),
            Aim::None,
            broker.resident_mib()?,
            "MiB resident",
        );
        Ok(())
    }

    fn each_partition(&self) -> impl Iterator<Item = (String, i32)> {
        (0..self.partitions)
            .map(|n| (format!("many-{}", n / PARTITIONS_OF_A_TOPIC), n % PARTITIONS_OF_A_TOPIC))
    }
}

/// Takes the answer to the oldest record under way, which must be the first of its partition.
fn first_record(connection: &mut wire::Connection, waiting: &mut VecDeque<String>) -> anyhow::Result<()> {
    let topic = waiting.pop_front().context("nothing is under way")?;
    let at =
        wire::produced_at(&topic, connection.receive()?).with_context(|| format!("produce to {topic}"))?;
    anyhow::ensure!(at == 0, "a partition of {topic} began at offset {at}");
    Ok(())
}
