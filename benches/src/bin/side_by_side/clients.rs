//! The clients that drive both brokers, and the figure that each prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::brokers::{Broker, java};

/// Kafka's performance tools, and librdkafka's.
pub(crate) struct Clients {
    jars: PathBuf,
    rdkafka: Option<PathBuf>,
}

/// Milliseconds.
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p99: f64,
}

impl Clients {
    pub(crate) fn new(jars: &Path, rdkafka: Option<&Path>) -> Clients {
        Clients { jars: jars.to_owned(), rdkafka: rdkafka.map(Path::to_owned) }
    }

    pub(crate) fn has_librdkafka(&self) -> bool {
        self.rdkafka.is_some()
    }

    /// Records per second, with the producer's defaults: idempotent, acks=all.
    pub(crate) fn produce(
        &self,
        broker: &Broker,
        topic: &str,
        bytes: u64,
        records: u64,
    ) -> anyhow::Result<f64> {
        let line = self.producer(broker, topic, bytes, records, -1)?;
        number_before(&line, " records/sec").with_context(|| format!("no rate in {line:?}"))
    }

    /// How long single records take that come 1,000 a second.
    pub(crate) fn latency(
        &self,
        broker: &Broker,
        topic: &str,
        bytes: u64,
        records: u64,
    ) -> anyhow::Result<Latency> {
        let line = self.producer(broker, topic, bytes, records, 1000)?;
        let of = |name: &str| number_before(&line, name).with_context(|| format!("no {name} in {line:?}"));
        Ok(Latency { mean: of(" ms avg latency")?, p99: of(" ms 99th")? })
    }

    /// The last line of ProducerPerformance, which sums up.
    fn producer(
        &self,
        broker: &Broker,
        topic: &str,
        bytes: u64,
        records: u64,
        throughput: i64,
    ) -> anyhow::Result<String> {
        let mut command = self.tool("ProducerPerformance");
        command.args(["--bootstrap-server", &broker.address(), "--topic", topic]);
        command.args(["--num-records", &records.to_string(), "--record-size", &bytes.to_string()]);
        command.args(["--throughput", &throughput.to_string()]);
        let out = output(command)?;
        out.lines()
            .rfind(|l| l.contains("99.9th"))
            .map(str::to_owned)
            .with_context(|| format!("no summary in {out:?}"))
    }

    /// Records per second from the start of the topic, the join of the group left out.
    pub(crate) fn consume(&self, broker: &Broker, topic: &str, records: u64) -> anyhow::Result<f64> {
        let mut command = self.tool("ConsumerPerformance");
        command.args(["--bootstrap-server", &broker.address(), "--topic", topic]);
        command.args(["--num-records", &records.to_string(), "--timeout", "60000"]);
        let out = output(command)?;
        let mut lines = out.lines().filter(|l| l.contains(", "));
        let (header, row) = (lines.next(), lines.next());
        let (header, row) = header.zip(row).with_context(|| format!("no table in {out:?}"))?;
        let column =
            header.split(", ").position(|name| name.starts_with("fetch.n") || name == "fetch.records.sec");
        let column = column.with_context(|| format!("no fetch rate in {header:?}"))?;
        let cell = row.split(", ").nth(column).with_context(|| format!("a short row: {row:?}"))?;
        Ok(cell.trim().parse()?)
    }

    /// Milliseconds from send to receive, one record at a time; the mean, because the tool rounds its percentiles to whole ones.
    pub(crate) fn end_to_end(
        &self,
        broker: &Broker,
        topic: &str,
        bytes: u64,
        records: u64,
    ) -> anyhow::Result<f64> {
        let mut command = self.tool("EndToEndLatency");
        command.args([&broker.address(), topic, &records.to_string(), "all", &bytes.to_string()]);
        let out = output(command)?;
        number_after(&out, "Avg latency: ").with_context(|| format!("no mean in {out:?}"))
    }

    pub(crate) fn rdkafka_produce(
        &self,
        broker: &Broker,
        topic: &str,
        bytes: u64,
        records: u64,
    ) -> anyhow::Result<f64> {
        let (bytes, records) = (bytes.to_string(), records.to_string());
        self.rdkafka(broker, &["-P", "-t", topic, "-s", &bytes, "-c", &records, "-a", "-1"])
    }

    pub(crate) fn rdkafka_consume(&self, broker: &Broker, topic: &str, records: u64) -> anyhow::Result<f64> {
        self.rdkafka(broker, &["-C", "-t", topic, "-p", "0", "-o", "beginning", "-c", &records.to_string()])
    }

    fn rdkafka(&self, broker: &Broker, arguments: &[&str]) -> anyhow::Result<f64> {
        let program = self.rdkafka.as_ref().context("no rdkafka_performance was given")?;
        let mut command = Command::new(program);
        command.args(["-b", &broker.address(), "-q"]).args(arguments);
        let out = output(command)?;
        let line =
            out.lines().rfind(|l| l.contains("msgs/s")).with_context(|| format!("no rate in {out:?}"))?;
        number_before(line, " msgs/s").with_context(|| format!("no rate in {line:?}"))
    }

    fn tool(&self, class: &str) -> Command {
        let mut command = java(&self.jars, &["-Xmx512m", "-XX:+UseG1GC"]);
        command.arg(format!("org.apache.kafka.tools.{class}"));
        command
    }
}

/// Both streams of a program that ends well.
fn output(mut command: Command) -> anyhow::Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {}\n{text}", done.status);
    Ok(text)
}

/// The number that begins where `name` ends.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let after = text.split_once(name)?.1;
    let end = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
    after[..end].parse().ok()
}

/// The number that ends where `name` begins.
fn number_before(line: &str, name: &str) -> Option<f64> {
    let before = line.split_once(name)?.0;
    let start = before.rfind(|c: char| !c.is_ascii_digit() && c != '.').map_or(0, |at| at + 1);
    before[start..].parse().ok()
}
