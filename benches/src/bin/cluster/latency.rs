//! What acks=all adds to acks=1, one record at a time, over what it cannot do without: a way there and back, and a sync.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use floodmark_benches::line;
use floodmark_benches::nodes::Nodes;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::round_trips::{RoundTrips, Times, row};
use floodmark_benches::server::{Placement, Server};
use floodmark_benches::workload::Template;

use crate::{Common, size};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Round trips in each run
    #[arg(long, default_value_t = 2000)]
    round_trips: usize,
    /// Where load and brokers run, one report after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["one-core", "two-cores", "free"])]
    placement: Vec<Placement>,
    /// Microseconds each way between brokers in one more report, for which the system puts everybody where it likes; 0 leaves it out
    #[arg(long, default_value_t = 250)]
    line_us: u64,
}

/// A topic as it comes: records are synced before they are acknowledged by all.
const SYNCED: &str = "synced";
const UNSYNCED: &str = "unsynced";
/// Round trips of a network that an acknowledgement by all may add.
const ROUND_TRIPS_ADDED: f64 = 2.5;

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        for &placement in &self.placement {
            self.run_at(placement, placement.name(), Duration::ZERO, report)?;
        }
        if self.line_us > 0 {
            let name = format!("lines of {} us", self.line_us);
            self.run_at(Placement::Free, &name, Duration::from_micros(self.line_us), report)?;
        }
        Ok(())
    }

    fn run_at(
        &self,
        placement: Placement,
        name: &str,
        each_way: Duration,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let (nodes, echo, echo_at) = placement.serve(|| {
            let mut nodes = Nodes::new(&self.common.program.path()?, &scratch.path().join("nodes"), &[])?;
            let echo = Server::bare(&["echo"], &[])?;
            let mut echo_at = echo.address;
            if !each_way.is_zero() {
                nodes.lay_lines(each_way)?;
                echo_at = line::lay(echo.address, each_way)?;
            }
            nodes.start_missing()?;
            Ok((nodes, echo, echo_at))
        })?;
        placement.load(|| self.compare(report, name, &nodes, echo_at, scratch.path()))?;
        drop(echo);
        Ok(())
    }

    fn compare(
        &self,
        report: &mut Report,
        name: &str,
        nodes: &Nodes,
        echo: SocketAddr,
        dir: &Path,
    ) -> anyhow::Result<()> {
        let template = Template::of_records(200, 100)?;
        size::create(nodes, SYNCED, 1)?;
        nodes.connect_any()?.create_with(UNSYNCED, 1, &[("floodmark.sync", "none")])?;
        let placed = size::wait_in_sync(nodes)?.partitions;
        let leader_of = |topic: &str| {
            let leader = placed.iter().find(|p| &*p.of.0 == topic).and_then(|p| p.leader);
            Ok::<_, anyhow::Error>(nodes.server(leader.context("a partition has no leader")?)?.address)
        };
        let (synced, unsynced) = (leader_of(SYNCED)?, leader_of(UNSYNCED)?);
        let trips = RoundTrips(self.round_trips);
        let (mut added, mut strictly, mut copied, mut at_once) = (vec![], vec![], vec![], vec![]);
        let (mut by_one, mut by_all) = (vec![], vec![]);
        for pair in 0..=self.common.setup.pairs {
            let echoed = trips.echo(echo, template.size_bytes())?;
            let one = trips.produce(synced, SYNCED, 1, &template)?;
            let on_disk = trips.sync(&dir.join("bare"), &template)?;
            let all = trips.produce(synced, SYNCED, -1, &template)?;
            let on_one_disk = syncs_at_once(trips, dir, &template)?;
            let one_alone = trips.produce(unsynced, UNSYNCED, 1, &template)?;
            let all_unsynced = trips.produce(unsynced, UNSYNCED, -1, &template)?;
            if pair > 0 {
                added.push((less(all, one), allowed(echoed, on_disk)));
                strictly.push((less(all, one_alone), allowed(echoed, on_disk)));
                at_once.push((less(all, one_alone), allowed(echoed, on_one_disk)));
                copied.push((less(all_unsynced, one_alone), allowed(echoed, (0.0, 0.0))));
                by_one.push((one, one_alone));
                by_all.push((all, (echoed.0 + on_disk.0, echoed.1 + on_disk.1)));
            }
        }
        let rows = [
            ("acks=all less acks=1, over 2.5 echoes + fdatasync", Aim::AtMost(1.0), added),
            ("acks=all less acks=1 in a topic that is not synced, over the same", Aim::AtMost(1.0), strictly),
            ("the same over 2.5 echoes + one of three fdatasyncs at once", Aim::None, at_once),
            ("both in a topic that is not synced, over 2.5 echoes", Aim::AtMost(1.0), copied),
            ("acks=1 over acks=1 in a topic that is not synced", Aim::None, by_one),
            ("acks=all over an echo + fdatasync", Aim::None, by_all),
        ];
        for (what, aim, pairs) in rows {
            row(report, &format!("{name}: {what}"), aim, &pairs);
        }
        Ok(())
    }
}

fn less(all: Times, one: Times) -> Times {
    (all.0 - one.0, all.1 - one.1)
}

fn allowed(echoed: Times, synced: Times) -> Times {
    (ROUND_TRIPS_ADDED * echoed.0 + synced.0, ROUND_TRIPS_ADDED * echoed.1 + synced.1)
}

/// Three brokers on one disk wait for it at the same time, which brokers on disks of their own would not.
fn syncs_at_once(trips: RoundTrips, dir: &Path, template: &Template) -> anyhow::Result<Times> {
    std::thread::scope(|scope| {
        let files = ["bare-1", "bare-2", "bare-3"].map(|name| dir.join(name));
        let syncing = files.map(|file| scope.spawn(move || trips.sync(&file, template)));
        let mut all = Vec::new();
        for one in syncing {
            all.push(one.join().ok().context("syncing panicked")??);
        }
        let mean = |part: fn(&Times) -> f64| all.iter().map(part).sum::<f64>() / all.len() as f64;
        Ok((mean(|t| t.0), mean(|t| t.1)))
    })
}
