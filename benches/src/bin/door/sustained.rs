//! Bytes per second with and without a sync before the answer, over runs so long that the page cache has to let go on both sides: what is
//! not synced is then written back as fast as it comes, too. Memory is full of other files' pages, as it is where a broker has long run.

use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use floodmark_benches::measure::{Compared, pairs_in_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::Server;
use floodmark_benches::workload::{Template, fill_page_cache};
use floodmark_storage::fs::{Disk as _, RealDisk};

use crate::Common;
use crate::throughput::{BATCH_BYTES, DELETED_AFTER, LARGE, Topic};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// GiB sent by each side in each run, and so the most that lies on the disk. The second half counts: the first should be more than
    /// the system keeps unwritten, by default 20 % of the memory that is free
    #[arg(long, default_value_t = 8.0)]
    gib: f64,
    /// Requests on their way at once; Kafka's clients have five
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
}

const MIB: f64 = (1u64 << 20) as f64;
/// Zeros ahead, and what others put on the disk meanwhile.
const ROOM_BESIDE_BYTES: u64 = 1 << 30;
/// A run ends by itself however slow the disk is.
const BYTES_MAX: f64 = (64u64 << 30) as f64;

/// MiB per second in the half that does not count and in the one that does.
type Rates = (f64, f64);

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let bytes = (self.gib * MIB * 1024.0).clamp(0.0, BYTES_MAX) as u64;
        let scratch = self.common.setup.scratch()?;
        let room = RealDisk.available_bytes(scratch.path())?;
        ensure!(
            room > bytes + ROOM_BESIDE_BYTES,
            "{} MiB are free in {}, {} are needed: say a smaller --gib or another --dir",
            room >> 20,
            scratch.path().display(),
            (bytes + ROOM_BESIDE_BYTES) >> 20
        );
        let mut broker = Server::floodmark(&self.common.program.path()?, &scratch.path().join("data"))?;
        let template = Template::of_records(BATCH_BYTES, LARGE)?;
        let halves = |broker: &mut Server, sync| self.halves(scratch.path(), broker, &template, sync, bytes);
        let pairs = pairs_in_turns(
            self.common.setup.pairs,
            &mut broker,
            |b| halves(b, "ack"),
            |b| halves(b, "none"),
        )?;
        let of = |part: fn(&Rates) -> f64| {
            Compared::of_pairs(&pairs.iter().map(|(ours, bare)| (part(ours), part(bare))).collect::<Vec<_>>())
        };
        let name = format!("synced over unsynced, {:.1} GiB: bytes per second", self.gib);
        report.compared(format!("{name}, first half"), Aim::None, &of(|r| r.0), "MiB/s");
        report.compared(format!("{name}, second half"), Aim::AtLeast(0.7), &of(|r| r.1), "MiB/s");
        Ok(())
    }

    fn halves(
        &self,
        scratch: &Path,
        broker: &mut Server,
        template: &Template,
        sync: &str,
        bytes: u64,
    ) -> anyhow::Result<Rates> {
        std::thread::sleep(DELETED_AFTER);
        fill_page_cache(scratch, bytes)?;
        let mut topic = Topic::create(broker, "sustained", template, sync)?;
        let requests = template.count_in(bytes / 2);
        let mut half = || -> anyhow::Result<f64> {
            let started = Instant::now();
            topic.send(requests, self.in_flight)?;
            Ok((requests * template.size_bytes()) as f64 / MIB / started.elapsed().as_secs_f64())
        };
        let rates = (half()?, half()?);
        topic.delete()?;
        Ok(rates)
    }
}
