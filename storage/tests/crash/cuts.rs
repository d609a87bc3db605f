//! Cuts the power at every image, again while what is left recovers, and once more after it has; and kills the process in
//! place of the first cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use floodmark_proto::ids::LeaderEpoch;
use floodmark_storage::LogConfig;
use floodmark_storage::fs::{SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::producers::Origin;

use super::check::{Alternative, Failure, check, failure, open};
use super::workload::{Moment, Workload};
use crate::batches::{Kind, Recipe};

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Moments of workloads.
    pub(crate) images: AtomicU64,
    /// Images times the ways to cut the power, or to kill.
    pub(crate) cuts: AtomicU64,
    pub(crate) second_cuts: AtomicU64,
    pub(crate) records: AtomicU64,
    /// Compacted segments that took their places.
    pub(crate) swaps: AtomicU64,
    pub(crate) spares: AtomicU64,
    /// Batches that waited for a sync that found no space.
    pub(crate) taken_back: AtomicU64,
}

pub(crate) struct Cutter<'a> {
    pub(crate) config: &'a LogConfig,
    pub(crate) tail_bytes: u64,
    pub(crate) skip: Option<SyncPoint>,
    pub(crate) counts: &'a Counts,
}

/// Seed of the cut that leaves nothing unsynced.
const NOTHING_SURVIVES: u64 = 8;
const SECOND_CUTS: u64 = 2;

impl Cutter<'_> {
    /// `seed` decides what survives; `None` kills the process instead, so that everything does, yet nothing more is durable.
    pub(crate) fn cut(&self, moment: &Moment, seed: Option<u64>) -> Result<(), Failure> {
        let disk = match seed {
            Some(seed) => self.skipping(moment.image.power_cut(seed)),
            None => self.skipping(moment.image.killed()),
        };
        let twin = self.skipping(disk.image().killed());
        let choice = seed.unwrap_or(99);
        disk.record_images();
        let log = open(&disk, self.config, self.tail_bytes)?;
        let images = disk.take_images();
        // Looking for keys builds what is missing of their index.
        let recovered = disk.files();
        let (state, batches) = check(&disk, &log, &moment.alternatives, choice.is_multiple_of(2))?;
        self.counts.cuts.fetch_add(1, Ordering::Relaxed);
        self.counts.records.fetch_add(batches, Ordering::Relaxed);

        let twin_log = open(&twin, self.config, self.tail_bytes)?;
        if recovered != twin.files() {
            return Err(failure("recovery gives the same bytes", ""));
        }
        drop(twin_log);
        for n in 0..SECOND_CUTS.min(images.len() as u64) {
            let image = &images[((choice + n * 7919) * 31 % images.len() as u64) as usize];
            self.cut_again(&image.power_cut(choice * 5 + n * 3), &moment.alternatives)?;
        }
        // What was found is durable from here on, whatever it was before.
        self.cut_again(&disk.image().power_cut(choice + 3), std::slice::from_ref(&state))?;
        self.goes_on(&disk, log, &state)
    }

    fn skipping(&self, disk: SimDisk) -> SimDisk {
        if let Some(point) = self.skip {
            disk.skip_sync(point);
        }
        disk
    }

    fn cut_again(&self, disk: &SimDisk, alternatives: &[Alternative]) -> Result<(), Failure> {
        let disk = self.skipping(disk.clone());
        let again = |e: Failure| Failure { detail: format!("after a second cut: {}", e.detail), ..e };
        let log = open(&disk, self.config, self.tail_bytes).map_err(again)?;
        let (_, batches) = check(&disk, &log, alternatives, false).map_err(again)?;
        self.counts.second_cuts.fetch_add(1, Ordering::Relaxed);
        self.counts.records.fetch_add(batches, Ordering::Relaxed);
        Ok(())
    }

    /// A recovered log takes appends, answers retries, and keeps what it then acknowledges.
    fn goes_on(
        &self,
        disk: &SimDisk,
        mut log: floodmark_storage::log::Log,
        state: &Alternative,
    ) -> Result<(), Failure> {
        let stop = |e: floodmark_storage::LogError| failure("it goes on", e.to_string());
        let epoch = log.reader().leader_epochs().latest().map_or(1, |e| e.epoch.0);
        let append_as = AppendAs::Leader { epoch: LeaderEpoch(epoch), origin: Origin::Client };
        let before = || state.batches.iter().map(|s| &**s);
        if let Some(retried) = before().rev().find(|s| s.producer.is_some_and(|p| !p.transactional)) {
            let outcome = &log.append([retried.fresh()], append_as).map_err(stop)?[0];
            if !outcome.as_ref().is_ok_and(|a| a.is_duplicate && a.base_offset.0 == retried.base) {
                return Err(failure("duplicates answered", format!("{outcome:?} for {retried:?}")));
            }
        }
        let recipe = Recipe { kind: Kind::Plain, records: 2, value_bytes: 40, time: 900_000 };
        let sent = recipe.at(state.end(), epoch, before());
        let outcome = log.append([sent.fresh()], append_as).map_err(stop)?.remove(0);
        if !outcome.as_ref().is_ok_and(|a| a.base_offset.0 == sent.base) {
            return Err(failure("it goes on", format!("{outcome:?} for {sent:?}")));
        }
        log.sync().map_err(stop)?;
        drop(log);
        let mut after = state.clone();
        after.batches.push(Arc::new(sent));
        after.must = after.batches.len();
        self.cut_again(&disk.image().power_cut(NOTHING_SURVIVES), std::slice::from_ref(&after))
            .map_err(|e| Failure { detail: format!("after going on: {}", e.detail), ..e })
    }
}

/// All moments of one workload, cut in `cuts` ways each.
pub(crate) fn cut_all(
    work: &Workload,
    skip: Option<SyncPoint>,
    seeds: &[Option<u64>],
    counts: &Counts,
) -> Result<(), Failure> {
    let cutter = Cutter { config: &work.config, tail_bytes: work.tail_bytes, skip, counts };
    for (n, moment) in work.moments.iter().enumerate() {
        counts.images.fetch_add(1, Ordering::Relaxed);
        for seed in seeds {
            // Other sectors are torn in each image.
            let seed = seed.map(|seed| seed + 8 * n as u64);
            cutter.cut(moment, seed).map_err(|e| Failure {
                detail: format!(
                    "operation {} (in step {}), cut {seed:?}: {}",
                    moment.image.operation(),
                    moment.step,
                    e.detail
                ),
                ..e
            })?;
        }
    }
    Ok(())
}
