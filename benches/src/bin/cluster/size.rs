//! Many partitions on three brokers: made and filled, at rest, with a broker killed, and all started again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use floodmark_benches::kafka::{Everything, Kafka, PartitionOf, Placed};
use floodmark_benches::nodes::{COUNT, Nodes};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::Template;

use crate::Common;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Partitions, each with three replicas
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
    /// Partitions of a topic
    #[arg(long, default_value_t = 100)]
    of_a_topic: i32,
    /// How long rest is watched
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Kill the broker that decides for the cluster, too, after all have what they led before
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    kill_controller: bool,
}

/// What takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at all partitions, so that looking does not keep brokers from working.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Partitions of one produce request.
const PARTS_MAX: usize = 500;
/// Work that goes on after the last record is over by then.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let mut nodes = Nodes::new(&self.common.program.path()?, &scratch.path().join("nodes"), &[])?;
        let ran = self.run_on(report, &mut nodes);
        // Ended before their files go.
        drop(nodes);
        if ran.is_err() {
            // What the brokers said tells more.
            let kept = scratch.keep();
            return ran.with_context(|| format!("what the brokers left is in {}", kept.display()));
        }
        Ok(())
    }

    fn run_on(&self, report: &mut Report, nodes: &mut Nodes) -> anyhow::Result<()> {
        let many = self.partitions;
        let template = Template::of_records(200, 100)?;
        let begun = Instant::now();
        nodes.start_missing()?;
        create(nodes, "first", 1)?;
        report.value("three empty directories: a topic is made", Aim::None, seconds(begun), "s from exec");
        let begun = Instant::now();
        let mut left = many;
        for n in 0.. {
            let count = left.min(self.of_a_topic);
            if count <= 0 {
                break;
            }
            create(nodes, &format!("many-{n}"), count)?;
            left -= count;
        }
        report.value(format!("{many} partitions: made"), Aim::None, seconds(begun), "s");
        wait_in_sync(nodes)?;
        report.value(format!("{many} partitions: made and in sync"), Aim::None, seconds(begun), "s");
        let begun = Instant::now();
        fill(nodes, &template)?;
        report.value("a record in each, acks=all", Aim::None, seconds(begun), "s");
        self.at_rest(report, nodes)?;

        self.without(report, nodes, &template, Victim::Other)?;
        if self.kill_controller {
            let begun = Instant::now();
            wait_balanced(nodes)?;
            report.value("leaders are the preferred ones again", Aim::None, seconds(begun), "s");
            self.without(report, nodes, &template, Victim::Controller)?;
        }
        let (took, is_well) = nodes.terminate(PATIENCE)?;
        let told = if is_well { "s, all well" } else { "s, not all well" };
        report.value("all three told to stop: ended", Aim::None, took.as_secs_f64(), told);
        let begun = Instant::now();
        nodes.start_missing()?;
        wait_led(nodes)?;
        report.value("all three started: every partition led", Aim::None, seconds(begun), "s from exec");
        fill(nodes, &template)?;
        report.value("and each has taken a record, acks=all", Aim::None, seconds(begun), "s from exec");
        wait_in_sync(nodes)?;
        report.value("and all in sync", Aim::None, seconds(begun), "s from exec");
        Ok(())
    }

    fn at_rest(&self, report: &mut Report, nodes: &Nodes) -> anyhow::Result<()> {
        thread::sleep(SETTLED_AFTER);
        let cpu = || nodes.running().map(|(_, server)| server.cpu_ticked()).sum::<Result<Duration, _>>();
        let (begun, before) = (Instant::now(), cpu()?);
        thread::sleep(Duration::from_secs(self.idle_seconds));
        let share = (cpu()? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        report.value("at rest: CPU of all three", Aim::AtMost(10.0), share, "percent of one core");
        let mib: Vec<f64> = nodes.running().map(|(_, s)| s.resident_mib()).collect::<Result<_, _>>()?;
        report.value("at rest: memory of each", Aim::None, mean(&mib), format!("MiB resident; {mib:.0?}"));
        let files: Vec<usize> = nodes.running().map(|(_, s)| s.open_files()).collect::<Result<_, _>>()?;
        let most = files.iter().copied().max().unwrap_or(0);
        report.value("at rest: open files, at most", Aim::None, most as f64, format!("{files:?}"));
        Ok(())
    }

    /// Kills one, has the others take over, and starts it again.
    fn without(
        &self,
        report: &mut Report,
        nodes: &mut Nodes,
        template: &Template,
        victim: Victim,
    ) -> anyhow::Result<()> {
        let before = nodes.connect_any()?.everything()?;
        let dead = match victim {
            Victim::Controller => before.controller,
            Victim::Other => {
                nodes.running().map(|(id, _)| id).find(|id| *id != before.controller).unwrap_or(0)
            }
        };
        let orphans: Vec<PartitionOf> =
            before.partitions.into_iter().filter(|p| p.leader == Some(dead)).map(|p| p.of).collect();
        ensure!(!orphans.is_empty(), "broker {dead} leads nothing");
        let (name, count) = (victim.name(), orphans.len());
        let begun = Instant::now();
        nodes.kill(dead)?;
        let first_led = take_over(nodes, dead, &orphans, template)?;
        let detail = format!("s; {count} partitions; all had leaders after {:.2} s", first_led.as_secs_f64());
        let aim = Aim::AtMost(5.0);
        report.value(format!("{name} killed: each partition takes a record"), aim, seconds(begun), detail);
        produce_all(nodes, orphans, -1, template)?;
        report.value(format!("{name} killed: and one with acks=all"), Aim::None, seconds(begun), "s");

        let begun = Instant::now();
        nodes.start_missing()?;
        wait_in_sync(nodes)?;
        report.value(format!("{name} started again: all in sync"), Aim::None, seconds(begun), "s from exec");
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The broker that decides.
    Controller,
    /// One that does not.
    Other,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Victim::Controller => "the deciding broker",
            Victim::Other => "another broker",
        }
    }
}

/// Makes a topic, and tries again while brokers are not ready for it.
pub(crate) fn create(nodes: &Nodes, name: &str, partitions: i32) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        match nodes.connect_any()?.create(name, partitions) {
            Ok(()) => return Ok(()),
            Err(e) if begun.elapsed() > PATIENCE => return Err(e).context("it was tried for long"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Waits until every replica of every partition is in sync.
pub(crate) fn wait_in_sync(nodes: &Nodes) -> anyhow::Result<Everything> {
    wait(nodes, "in sync", |p| p.leader.is_some() && p.in_sync == COUNT)
}

fn wait_led(nodes: &Nodes) -> anyhow::Result<Everything> {
    wait(nodes, "led", |p| p.leader.is_some_and(|leader| nodes.runs(leader)))
}

fn wait_balanced(nodes: &Nodes) -> anyhow::Result<Everything> {
    wait(nodes, "led by the preferred replica", |p| p.leader == p.preferred)
}

fn wait(nodes: &Nodes, what: &str, is_well: impl Fn(&Placed) -> bool) -> anyhow::Result<Everything> {
    let mut kafka = nodes.connect_any()?;
    let begun = Instant::now();
    loop {
        let everything = kafka.everything()?;
        let missing = everything.partitions.iter().filter(|p| !is_well(p)).count();
        if missing == 0 && !everything.partitions.is_empty() {
            return Ok(everything);
        }
        ensure!(begun.elapsed() < PATIENCE, "{missing} partitions were not {what} in time");
        thread::sleep(LOOK_EVERY);
    }
}

/// Has every partition take a record.
fn fill(nodes: &Nodes, template: &Template) -> anyhow::Result<()> {
    let all = nodes.connect_any()?.everything()?.partitions.into_iter().map(|p| p.of).collect();
    produce_all(nodes, all, -1, template)
}

/// Returns once every orphan has taken a record under another leader; tells when all of them had one.
fn take_over(
    nodes: &Nodes,
    dead: i32,
    orphans: &[PartitionOf],
    template: &Template,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut kafka = nodes.connect_any()?;
    loop {
        let partitions = kafka.everything()?.partitions;
        let waits = |p: &Placed| p.leader.is_none_or(|leader| leader == dead);
        if !partitions.iter().any(waits) {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "the partitions of a dead broker have no leaders");
        thread::sleep(LOOK_EVERY);
    }
    let all_led = begun.elapsed();
    produce_all(nodes, orphans.to_vec(), 1, template)?;
    Ok(all_led)
}

/// Sends each partition a record where it is led, and again what was refused, until all have taken it.
fn produce_all(
    nodes: &Nodes,
    mut left: Vec<PartitionOf>,
    acks: i16,
    template: &Template,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut connections: BTreeMap<i32, Kafka> = BTreeMap::new();
    loop {
        let placed = nodes.connect_any()?.everything()?.partitions;
        let leaders: BTreeMap<PartitionOf, i32> =
            placed.into_iter().filter_map(|p| Some((p.of, p.leader?))).collect();
        let mut by_leader: BTreeMap<i32, Vec<PartitionOf>> = BTreeMap::new();
        let mut refused = Vec::new();
        for (topic, index) in left {
            let of = (Arc::clone(&topic), index);
            match leaders.get(&of).filter(|leader| nodes.runs(**leader)) {
                Some(leader) => by_leader.entry(*leader).or_default().push(of),
                None => refused.push(of),
            }
        }
        let mut last_code = 0;
        for (leader, parts) in by_leader {
            let connection = match connections.entry(leader) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(place) => place.insert(nodes.connect(leader)?),
            };
            for parts in parts.chunks(PARTS_MAX) {
                for (part, code) in connection.produce_each(parts, acks, template)? {
                    last_code = code;
                    refused.push(part);
                }
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let count = refused.len();
        ensure!(
            begun.elapsed() < PATIENCE,
            "{count} partitions take no record; the last code was {last_code}"
        );
        left = refused;
        thread::sleep(LOOK_EVERY);
    }
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
