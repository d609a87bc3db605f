//! Our client over the gRPC door beside librdkafka over the Kafka door of the same broker: records per second, and CPU of the client's
//! process and of the broker's for each record.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use floodmark_benches::kafka_wire as wire;
use floodmark_benches::measure::{Compared, median, pairs_in_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::{Placement, Server};
use floodmark_benches::workload::{Template, renew_memory};

use crate::Common;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// librdkafka's `rdkafka_performance`, an example of its sources; without it our side is told alone
    #[arg(long)]
    rdkafka_performance: Option<PathBuf>,
    /// MiB of values that each side moves in each run
    #[arg(long, default_value_t = 256)]
    mib: u64,
    /// Sizes of values
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    record_bytes: Vec<u64>,
    /// Where the client and the broker run
    #[arg(long, value_enum, default_value = "free")]
    placement: Placement,
    /// Our client on a runtime of one thread
    #[arg(long)]
    one_thread: bool,
    /// Only rows that have this in their name
    #[arg(long, default_value = "")]
    rows: String,
}

/// What a run of a client came to.
struct Ran {
    records_per_s: f64,
    cpu_ns: f64,
    broker_cpu_ns: f64,
}

/// A run by either side.
type Run<'r> = &'r dyn Fn() -> anyhow::Result<Ran>;

const SEGMENT_BYTES: &str = "268435456";
/// What lies in a topic that is read.
const BATCH_BYTES: usize = 64 << 10;
const SPARE_BYTES: usize = 256 << 20;
/// A topic's files are gone by then.
const DELETED_AFTER: std::time::Duration = std::time::Duration::from_millis(300);

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let broker = self.placement.serve(|| self.common.broker(scratch.path()))?;
        self.placement.load(|| {
            for &bytes in &self.record_bytes {
                for (sync, name) in [("none", "produce"), ("ack", "produce, each answer synced")] {
                    let ours = || {
                        self.to_new_topic(&broker, sync, bytes, |broker| self.load(broker, "produce", bytes))
                    };
                    let theirs = || {
                        self.to_new_topic(&broker, sync, bytes, |broker| {
                            self.rdkafka(broker, &["-P", "-s", &bytes.to_string(), "-a", "-1"], bytes)
                        })
                    };
                    self.row(report, &format!("{bytes} B, {name}"), &ours, &theirs)?;
                }
                self.fill(&broker, bytes)?;
                let theirs = || self.rdkafka(&broker, &["-C", "-p", "0", "-o", "beginning"], bytes);
                for (what, name) in
                    [("consume", "consume"), ("consume-batches", "consume, many records at a time")]
                {
                    let ours = || self.load(&broker, what, bytes);
                    self.row(report, &format!("{bytes} B, {name}"), &ours, &theirs)?;
                }
                delete(&broker)?;
            }
            Ok(())
        })
    }

    fn row(&self, report: &mut Report, name: &str, ours: Run<'_>, theirs: Run<'_>) -> anyhow::Result<()> {
        if !name.contains(&self.rows) {
            return Ok(());
        }
        let pairs = self.common.setup.pairs;
        if self.rdkafka_performance.is_none() {
            let runs = (0..pairs.max(1)).map(|_| ours()).collect::<anyhow::Result<Vec<Ran>>>()?;
            let of = |part: fn(&Ran) -> f64| median(runs.iter().map(part).collect());
            let alone = "ours alone: no rdkafka_performance was given to compare with";
            report.value(format!("{name}: records per second"), Aim::None, of(|r| r.records_per_s), alone);
            report.value(format!("{name}: client CPU, ns a record"), Aim::None, of(|r| r.cpu_ns), alone);
            let broker = of(|r| r.broker_cpu_ns);
            report.value(format!("{name}: broker CPU, ns a record"), Aim::None, broker, alone);
            return Ok(());
        }
        let ran =
            pairs_in_turns(pairs, &mut (), |()| ours(), |()| theirs()).with_context(|| name.to_owned())?;
        let rate = Compared::of_parts(&ran, |ran| ran.records_per_s);
        report.compared(format!("{name}: records per second"), Aim::AtLeast(1.0), &rate, "records/s");
        let cpu = Compared::of_parts(&ran, |ran| ran.cpu_ns);
        report.compared(format!("{name}: client CPU a record"), Aim::AtMost(1.0), &cpu, "ns");
        let broker = Compared::of_parts(&ran, |ran| ran.broker_cpu_ns);
        report.compared(format!("{name}: broker CPU a record"), Aim::None, &broker, "ns");
        Ok(())
    }

    fn records(&self, bytes: u64) -> u64 {
        (self.mib << 20) / bytes
    }

    fn to_new_topic(
        &self,
        broker: &Server,
        sync: &str,
        bytes: u64,
        run: impl FnOnce(&Server) -> anyhow::Result<Ran>,
    ) -> anyhow::Result<Ran> {
        create(broker, sync)?;
        renew_memory(((self.mib + self.records(bytes) * 40 / (1 << 20)) << 20) as usize + SPARE_BYTES)?;
        let ran = run(broker)?;
        delete(broker)?;
        Ok(ran)
    }

    /// A topic that holds at least as many records as are read.
    fn fill(&self, broker: &Server, bytes: u64) -> anyhow::Result<()> {
        create(broker, "none")?;
        let template = Template::of_records(BATCH_BYTES, bytes as usize)?;
        let mut connection = wire::Connection::open(broker.address)?;
        let frame = wire::produce(TOPIC, 0, 1, template.as_bytes());
        for _ in 0..self.records(bytes).div_ceil(template.records() as u64) {
            wire::produced_at(TOPIC, connection.ask(&frame)?)?;
        }
        Ok(())
    }

    fn load(&self, broker: &Server, what: &str, bytes: u64) -> anyhow::Result<Ran> {
        let address = broker.grpc.context("the broker has no gRPC door")?;
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(["load", what, &address.to_string(), TOPIC]);
        command.args([bytes.to_string(), self.records(bytes).to_string()]);
        if self.one_thread {
            command.arg("--one-thread");
        }
        self.ran(broker, command, bytes, " records/s")
    }

    fn rdkafka(&self, broker: &Server, arguments: &[&str], bytes: u64) -> anyhow::Result<Ran> {
        let program = self.rdkafka_performance.as_ref().context("no rdkafka_performance was given")?;
        let mut command = Command::new(program);
        command.args(["-b", &broker.address.to_string(), "-q", "-t", TOPIC]).args(arguments);
        command.args(["-c", &self.records(bytes).to_string()]);
        self.ran(broker, command, bytes, " msgs/s")
    }

    fn ran(&self, broker: &Server, mut command: Command, bytes: u64, unit: &str) -> anyhow::Result<Ran> {
        let broker_before = broker.cpu_ticked()?;
        let before = children_cpu_ns()?;
        let done = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
        let cpu_ns = (children_cpu_ns()? - before) / self.records(bytes) as f64;
        let broker_cpu = broker.cpu_ticked()?.saturating_sub(broker_before);
        let broker_cpu_ns = broker_cpu.as_nanos() as f64 / self.records(bytes) as f64;
        let text = [&done.stdout[..], &done.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        ensure!(done.status.success(), "{command:?}: {}\n{text}", done.status);
        let line = text.lines().rfind(|line| line.contains(unit));
        let rate = line.and_then(|line| number_before(line, unit));
        Ok(Ran {
            records_per_s: rate.with_context(|| format!("no rate in {text:?}"))?,
            cpu_ns,
            broker_cpu_ns,
        })
    }
}

const TOPIC: &str = "bench";

fn create(broker: &Server, sync: &str) -> anyhow::Result<()> {
    let settings = [("floodmark.sync", sync), ("segment.bytes", SEGMENT_BYTES)];
    let mut connection = wire::Connection::open(broker.address)?;
    wire::check_created(connection.ask(&wire::create_topic(TOPIC, 1, &settings))?)
}

fn delete(broker: &Server) -> anyhow::Result<()> {
    let mut connection = wire::Connection::open(broker.address)?;
    wire::check_deleted(connection.ask(&wire::delete_topic(TOPIC))?)?;
    std::thread::sleep(DELETED_AFTER);
    Ok(())
}

/// CPU time of all children that have ended, in steps of the system's ticks (10 ms).
fn children_cpu_ns() -> anyhow::Result<f64> {
    const USER_IN_CHILDREN: usize = 13;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may hold anything.
    let fields = stat.rsplit_once(')').context("no name in /proc/self/stat")?.1.split_whitespace();
    let ticks = fields.skip(USER_IN_CHILDREN).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 * 1e9 / rustix::param::clock_ticks_per_second() as f64)
}

/// The number that ends where `name` begins.
fn number_before(line: &str, name: &str) -> Option<f64> {
    let before = line.split_once(name)?.0;
    let start = before.rfind(|c: char| !c.is_ascii_digit() && c != '.').map_or(0, |at| at + 1);
    before[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_ended_is_counted() {
        let before = children_cpu_ns().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done"]);
        assert!(command.status().unwrap().success());
        assert!(children_cpu_ns().unwrap() > before);
        assert_eq!(number_before("% 5 messages in 2ms: 2500 msgs/s and 1 MB/s", " msgs/s"), Some(2500.0));
    }
}
