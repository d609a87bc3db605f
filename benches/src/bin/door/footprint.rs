//! What a broker costs that does nothing, that holds many partitions, and that holds many idle connections.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use floodmark_benches::measure::median;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::Template;

use crate::process::Server;
use crate::{Common, wire};

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
/// Work that goes on after the start is over by then.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let program = &self.common.program;
        let mut ready = Vec::new();
        for n in 0..=self.common.setup.pairs {
            let server = Server::floodmark(program, &scratch.path().join(format!("empty-{n}")))?;
            ready.push(server.ready_after.as_secs_f64() * 1000.0);
        }
        let ready = median(ready);
        report.value(
            "ready on an empty directory",
            Aim::AtMost(50.0),
            ready,
            "ms until the port takes a connection",
        );

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
        let template = Template::of_records(200, 100)?;
        let started = Instant::now();
        for n in 0..topics {
            let topic = format!("many-{n}");
            for partition in 0..PARTITIONS_OF_A_TOPIC {
                let at = wire::produced_at(
                    &topic,
                    connection.ask(&wire::produce(&topic, partition, 1, template.as_bytes()))?,
                )?;
                anyhow::ensure!(at == 0, "partition {partition} of {topic} began at offset {at}");
            }
        }
        let last = topics.checked_sub(1).context("no topics")?;
        let topic = format!("many-{last}");
        let answer = connection.ask(&wire::fetch(&topic, 0, 0, 1 << 20, 5_000))?;
        anyhow::ensure!(!wire::fetched(&topic, answer)?.is_empty(), "what was produced is not served");
        let took = started.elapsed().as_secs_f64();
        report.value(format!("{} partitions: one record each", self.partitions), Aim::None, took, "s");
        thread::sleep(SETTLED_AFTER);
        report.value(
            format!("{} partitions: memory", self.partitions),
            Aim::None,
            broker.resident_mib()?,
            "MiB resident",
        );
        Ok(())
    }
}
