//! Drives a log through everything that changes files, keeps an image of the disk after each change, and says beside each
//! image what a log opened from it must and may hold.

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::compaction::choose::CompactWhen;
use floodmark_storage::fs::sim::{DiskImage, Fault, FaultKind, FaultOn};
use floodmark_storage::fs::{Disk, SimDisk, SyncPoint};
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::{CompactionControl, Log};
use floodmark_storage::producers::Origin;
use floodmark_storage::random::SplitMix;
use floodmark_storage::{CompactionConfig, LogConfig, LogError};

use super::check::{Alternative, Failure, check, failure, open};
use super::compacted::Compacted;
use crate::batches::{Kind, Recipe, Sent, replay};

/// A disk at one moment, and the states that a log opened from it may be in.
pub(crate) struct Moment {
    pub(crate) image: DiskImage,
    pub(crate) alternatives: Arc<Vec<Alternative>>,
    pub(crate) step: &'static str,
}

pub(crate) struct Workload {
    pub(crate) disk: SimDisk,
    pub(crate) config: LogConfig,
    pub(crate) tail_bytes: u64,
    pub(crate) moments: Vec<Moment>,
    /// Skipped syncs that were asked for on disks that a power cut has replaced since.
    skips_before: u64,
    skip: Option<SyncPoint>,
    log: Option<Log>,
    chance: SplitMix,
    state: Alternative,
    epoch: i32,
    time: i64,
    /// End of what was compacted: it was committed, so no cut of the tail goes there.
    compacted_end: i64,
    /// Compacted segments that took their places.
    pub(crate) swaps: u64,
    /// Times that the next segment's file was there, filled ahead.
    pub(crate) spares: u64,
    /// Batches that waited and found no space.
    pub(crate) taken_back: u64,
}

/// Steps by weight.
const STEPS: [(&str, u64); 20] = [
    ("append", 20),
    ("append a group", 10),
    ("append as replica", 4),
    ("retry", 3),
    ("append without space", 4),
    ("sync", 14),
    ("checkpoint", 6),
    ("close and open", 4),
    ("kill and open", 4),
    ("power cut and open", 4),
    ("truncate", 5),
    ("reset", 1),
    ("delete", 4),
    ("compact", 10),
    ("assign epoch", 4),
    ("prewrite", 6),
    ("release idle", 2),
    ("roll by time", 2),
    ("stage", 8),
    ("sync without space", 4),
];

pub(crate) fn config_of(seed: u64) -> LogConfig {
    LogConfig {
        segment_bytes: 700 + 300 * (seed % 4) as u32,
        segment_ms: 100_000,
        index_interval_bytes: 150,
        prewrite_bytes: if seed.is_multiple_of(2) { 0 } else { 250 },
        key_index: seed % 3 == 1,
        compaction: Some(CompactionConfig {
            delete_retention_ms: 0,
            map_bytes: 1 << 10,
            ..CompactionConfig::default()
        }),
        ..LogConfig::default()
    }
}

impl Workload {
    pub(crate) fn run(seed: u64, steps: usize, skip: Option<SyncPoint>) -> Result<Workload, Failure> {
        let disk = SimDisk::new();
        // The parent of the log's directory is the data directory's to make durable, not the log's.
        disk.create_dir_all(Path::new("logs")).unwrap();
        disk.sync_dir(Path::new("."), SyncPoint::PartitionRemoved).unwrap();
        if let Some(point) = skip {
            disk.skip_sync(point);
        }
        let mut work = Workload {
            disk,
            config: config_of(seed),
            tail_bytes: if seed.is_multiple_of(3) { 1 << 20 } else { 0 },
            moments: Vec::new(),
            skips_before: 0,
            skip,
            log: None,
            chance: SplitMix::new(seed),
            state: Alternative::default(),
            epoch: 1,
            time: 1_000,
            compacted_end: 0,
            swaps: 0,
            spares: 0,
            taken_back: 0,
        };
        work.open_on(None)?;
        for _ in 0..steps {
            let step = work.pick();
            work.step(step).map_err(|e| Failure { detail: format!("in step {step}: {}", e.detail), ..e })?;
            work.write_key_indexes()?;
        }
        Ok(work)
    }

    pub(crate) fn syncs_skipped(&self) -> u64 {
        self.skips_before + self.disk.syncs_skipped()
    }

    fn pick(&mut self) -> &'static str {
        let mut n = self.chance.below(STEPS.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in STEPS {
            if n < weight {
                return step;
            }
            n -= weight;
        }
        unreachable!("the weights add up")
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    /// Runs `call`; images taken in it may be in any of `alternatives`.
    /// Writes all zeros that are due, here and in the next segment's file.
    fn prewrite(&mut self, step: &'static str) -> Result<(), LogError> {
        let now = vec![self.state.clone()];
        let outcome = self.during(step, now, |w| {
            while let Some(job) = w.log().prewrite_job() {
                job.run()?;
            }
            Ok(())
        });
        self.spares += u64::from(self.disk.files().keys().any(|p| p.ends_with("next-segment.tmp")));
        outcome
    }

    fn during<R>(
        &mut self,
        step: &'static str,
        alternatives: Vec<Alternative>,
        call: impl FnOnce(&mut Workload) -> R,
    ) -> R {
        let outcome = call(self);
        let alternatives = Arc::new(alternatives);
        for image in self.disk.take_images() {
            self.moments.push(Moment { image, alternatives: Arc::clone(&alternatives), step });
        }
        outcome
    }

    /// What the step did is acknowledged from here on.
    fn settle(&mut self, step: &'static str) {
        let alternatives = Arc::new(vec![self.state.clone()]);
        self.moments.push(Moment { image: self.disk.image(), alternatives, step });
    }

    fn settle_durable(&mut self, step: &'static str) {
        self.state.must = self.state.batches.len();
        self.settle(step);
    }

    /// Opens the log on `disk`, or on the present one; what it then holds is what goes on.
    fn open_on(&mut self, disk: Option<SimDisk>) -> Result<(), Failure> {
        if let Some(disk) = disk {
            self.skips_before += self.disk.syncs_skipped();
            self.disk = disk;
            if let Some(point) = self.skip {
                self.disk.skip_sync(point);
            }
        }
        self.disk.record_images();
        let before = self.state.clone();
        let opened = self.during("open", vec![before.clone()], |w| open(&w.disk, &w.config, w.tail_bytes));
        let log = opened?;
        let (state, _) = check(&self.disk, &log, &[before], true)?;
        self.state = state;
        self.log = Some(log);
        self.settle_durable("open");
        Ok(())
    }

    fn step(&mut self, step: &'static str) -> Result<(), Failure> {
        match step {
            "append" => self.append(step, 1, false),
            "append a group" => {
                let batches = 2 + self.chance.below(3) as usize;
                self.append(step, batches, false)
            }
            "append as replica" => self.append(step, 1, true),
            "retry" => self.retry(),
            "append without space" => self.append_without_space(step),
            "sync" => {
                let now = vec![self.state.clone()];
                self.during(step, now, |w| w.log().sync()).map_err(fail)?;
                self.settle_durable(step);
                // As a disk thread does once a sync has ended.
                self.prewrite(step).map_err(fail)
            }
            "checkpoint" => {
                let now = vec![self.state.clone()];
                self.during(step, now, |w| w.log().checkpoint()).map_err(fail)?;
                self.settle_durable(step);
                Ok(())
            }
            "close and open" => {
                let now = vec![self.state.clone()];
                self.during(step, now, |w| w.log.take().unwrap().close()).map_err(fail)?;
                self.settle_durable(step);
                self.open_on(None)
            }
            "kill and open" => {
                self.log = None;
                self.open_on(None)
            }
            "power cut and open" => {
                self.log = None;
                let cut = self.disk.image().power_cut(self.chance.next_u64());
                self.open_on(Some(cut))
            }
            "truncate" => self.truncate(step),
            "reset" => self.reset(step),
            "delete" => self.delete(step),
            "compact" => self.compact(step),
            "assign epoch" => self.assign(step),
            "prewrite" => self.prewrite(step).map_err(fail),
            "release idle" => {
                let now = vec![self.state.clone()];
                self.during(step, now, |w| w.log().release_idle());
                Ok(())
            }
            "stage" => self.stage(step),
            "sync without space" => self.sync_without_space(step),
            "roll by time" => {
                self.time += 200_000;
                self.append(step, 1, false)
            }
            other => unreachable!("{other}"),
        }
    }

    /// What is appended next waits for a sync, and is lost where the process is killed before.
    fn stage(&mut self, step: &'static str) -> Result<(), Failure> {
        let now = vec![self.state.clone()];
        self.during(step, now, |w| w.log().begin_staging()).map_err(fail)?;
        let durable = self.log().durable().0;
        let must = self.state.batches.partition_point(|s| s.next <= durable);
        self.state.must = self.state.must.max(must);
        self.settle(step);
        Ok(())
    }

    /// Where batches wait for the sync, it finds no space for them, or for some; and they are not in the log any more.
    fn sync_without_space(&mut self, step: &'static str) -> Result<(), Failure> {
        self.stage(step)?;
        self.append(step, 2, false)?;
        if self.chance.below(3) == 0 {
            let used: usize = self.disk.files().values().map(Vec::len).sum();
            self.disk.limit_capacity(used as u64);
        } else {
            self.disk.inject(no_space_in_log());
        }
        let now = vec![self.state.clone()];
        let outcome = self.during(step, now, |w| {
            let outcome = w.log().sync();
            w.disk.heal();
            outcome
        });
        match outcome {
            Ok(()) => {
                self.settle_durable(step);
                return Ok(());
            }
            Err(LogError::Full { .. }) => {}
            Err(other) => return Err(failure("no space", other.to_string())),
        }
        let (end, durable) = (self.log().end().0, self.log().durable().0);
        let kept = self.state.batches.partition_point(|s| s.next <= end);
        if end != self.state.end_of(kept) || kept < self.state.must || durable > end {
            return Err(failure("no space", format!("the log ends at {end}, durable {durable}")));
        }
        self.taken_back += (self.state.batches.len() - kept) as u64;
        self.state.batches.truncate(kept);
        // A leader that goes on at the end, and one that begins there, are not told apart in memory alone.
        self.assign(step)
    }

    /// As a disk thread does when a segment was rolled.
    fn write_key_indexes(&mut self) -> Result<(), Failure> {
        let now = vec![self.state.clone()];
        let outcome = self.during("write key indexes", now, |w| {
            let Some(log) = &mut w.log else { return Ok(()) };
            std::iter::from_fn(|| log.key_index_job()).try_for_each(|job| job.run())
        });
        outcome.map_err(fail)
    }

    fn recipe(&mut self, sent: &[Arc<Sent>]) -> Recipe {
        let known = replay(sent.iter().map(|s| &**s));
        let id = 10 + self.chance.below(3) as i64;
        let is_open = known.producers.get(&id).is_some_and(|k| k.open.is_some());
        let kind = match self.chance.below(10) {
            0..=3 => Kind::Plain,
            4..=5 => Kind::Idempotent(1 + self.chance.below(3) as i64),
            6..=7 => Kind::Transactional(id),
            _ if is_open => Kind::End { id, abort: self.chance.below(3) > 0 },
            _ => Kind::Transactional(id),
        };
        // Times go back now and then.
        self.time += self.chance.below(20) as i64;
        let time = self.time - if self.chance.below(5) == 0 { 15 } else { 0 };
        Recipe {
            kind,
            records: 1 + self.chance.below(3) as usize,
            value_bytes: self.chance.below(90) as usize,
            time,
        }
    }

    fn make(&mut self, batches: usize, gap: i64) -> Vec<Arc<Sent>> {
        let mut sent = self.state.batches.clone();
        let before = sent.len();
        let mut base = self.state.end() + gap;
        for _ in 0..batches {
            let recipe = self.recipe(&sent);
            let made = recipe.at(base, self.epoch, sent.iter().map(|s| &**s));
            base = made.next;
            sent.push(Arc::new(made));
        }
        sent.split_off(before)
    }

    fn with(&self, more: &[Arc<Sent>]) -> Alternative {
        let mut state = self.state.clone();
        state.batches.extend(more.iter().cloned());
        state
    }

    fn append(&mut self, step: &'static str, batches: usize, as_replica: bool) -> Result<(), Failure> {
        let begun = self.state.assigned.is_some_and(|(_, at)| at == self.state.end());
        let gap =
            if as_replica && !begun { self.chance.below(2) as i64 * self.chance.below(5) as i64 } else { 0 };
        let group = self.make(batches, gap);
        let after = self.with(&group);
        let append_as = self.role(as_replica);
        let given: Vec<_> = group.iter().map(|s| if as_replica { s.stored() } else { s.fresh() }).collect();
        let outcomes =
            self.during(step, vec![after.clone()], |w| w.log().append(given, append_as)).map_err(fail)?;
        for (outcome, sent) in outcomes.iter().zip(&group) {
            match outcome {
                Ok(appended) if appended.base_offset.0 == sent.base && !appended.is_duplicate => {}
                other => return Err(failure("workload", format!("{other:?} for {sent:?}"))),
            }
        }
        self.state = after;
        self.settle(step);
        Ok(())
    }

    fn role(&self, as_replica: bool) -> AppendAs {
        if as_replica {
            AppendAs::Replica
        } else {
            AppendAs::Leader { epoch: LeaderEpoch(self.epoch), origin: Origin::Client }
        }
    }

    fn retry(&mut self) -> Result<(), Failure> {
        let last = self.state.batches.iter().rev();
        let retried = last.map(Arc::clone).find(|s| s.producer.is_some_and(|p| !p.transactional));
        let Some(sent) = retried else { return Ok(()) };
        let append_as = self.role(false);
        let now = vec![self.state.clone()];
        let outcomes =
            self.during("retry", now, |w| w.log().append([sent.fresh()], append_as)).map_err(fail)?;
        match &outcomes[0] {
            Ok(a) if a.is_duplicate && a.base_offset.0 == sent.base => Ok(()),
            other => Err(failure("duplicates answered", format!("{other:?} for {sent:?}"))),
        }
    }

    /// The disk takes part of the group, or none of it.
    fn append_without_space(&mut self, step: &'static str) -> Result<(), Failure> {
        let group = self.make(3, 0);
        let during = self.with(&group);
        let bytes: usize = group.iter().map(|s| s.bytes.len()).sum();
        let used: usize = self.disk.files().values().map(Vec::len).sum();
        if self.chance.below(3) == 0 {
            self.disk.inject(no_space_in_log());
        } else {
            self.disk.limit_capacity((used + self.chance.below(bytes as u64) as usize) as u64);
        }
        let append_as = self.role(false);
        let given: Vec<_> = group.iter().map(|s| s.fresh()).collect();
        let outcome = self.during(step, vec![during.clone()], |w| {
            let outcome = w.log().append(given, append_as);
            w.disk.heal();
            outcome
        });
        match outcome {
            Err(LogError::Full { .. }) => {}
            // What was filled with zeros ahead takes no more space.
            Ok(_) => self.state = during,
            Err(other) => return Err(failure("no space", other.to_string())),
        }
        self.settle(step);
        Ok(())
    }

    fn truncate(&mut self, step: &'static str) -> Result<(), Failure> {
        let (first, end) = (self.state.start, self.state.end());
        if end <= first {
            return Ok(());
        }
        let target = first + 1 + self.chance.below((end - first) as u64) as i64;
        let target = target.max(self.compacted_end);
        let kept = self.state.batches.iter().take_while(|s| s.next <= target).count();
        let straddles = self.state.batches.get(kept).is_some_and(|s| s.base < target);
        let new_end = if straddles { self.state.batches[kept].base } else { target };
        // Where a batch straddles the log's start, it cannot be cut in the middle of what is still readable.
        if new_end < first {
            return Ok(());
        }
        let before = self.state.clone();
        let mut after = Alternative {
            batches: before.batches[..kept].to_vec(),
            must: kept,
            floor: new_end,
            epochs_since: if new_end == first { kept } else { before.epochs_since },
            ..before.clone()
        };
        if new_end == before.end() {
            after = before.clone();
        } else if after.assigned.is_some_and(|(_, at)| at >= new_end) {
            after.assigned = None;
        }
        // Where nothing stays, not even what is hidden before the log's start, a truncation is a reset.
        let emptied =
            Alternative { origin: new_end, floor: new_end, start: new_end, ..Alternative::default() };
        let mut both = vec![before, after.clone()];
        if new_end == first {
            both.push(emptied.clone());
        }
        let ended = self.during(step, both, |w| w.log().truncate_to(Offset(target))).map_err(fail)?;
        if ended.0 != new_end {
            return Err(failure("workload", format!("cut to {ended}, expected {new_end}")));
        }
        self.state = if new_end == first && self.log().producers().is_empty() { emptied } else { after };
        self.settle(step);
        Ok(())
    }

    fn reset(&mut self, step: &'static str) -> Result<(), Failure> {
        let origin = self.state.end() + self.chance.below(20) as i64;
        let after = Alternative { origin, floor: origin, start: origin, ..Alternative::default() };
        let both = vec![self.state.clone(), after.clone()];
        self.during(step, both, |w| w.log().reset_to(Offset(origin))).map_err(fail)?;
        self.state = after;
        self.compacted_end = origin;
        self.settle(step);
        Ok(())
    }

    fn delete(&mut self, step: &'static str) -> Result<(), Failure> {
        let (start, end) = (self.state.start, self.state.end());
        if end <= start {
            return Ok(());
        }
        let to_the_end = self.chance.below(4) == 0;
        let offset =
            if to_the_end { end } else { start + 1 + self.chance.below((end - start) as u64) as i64 };
        let before = self.state.clone();
        let must = before.must.max(before.batches.iter().filter(|s| s.base < offset).count());
        let after = Alternative { start: offset, floor: before.floor.max(offset), must, ..before.clone() };
        let both = vec![before, after.clone()];
        self.during(step, both, |w| {
            w.log().on_high_watermark(Offset(end));
            w.log().delete_before(Offset(offset))
        })
        .map_err(fail)?;
        self.state = after;
        self.settle(step);
        Ok(())
    }

    /// Each group of segments takes its place at once; before and after, the log is what it was.
    fn compact(&mut self, step: &'static str) -> Result<(), Failure> {
        let now = vec![self.state.clone()];
        self.during(step, now, |w| w.log().checkpoint()).map_err(fail)?;
        self.settle_durable(step);
        let end = self.state.end();
        self.log().on_high_watermark(Offset(end));
        let control = CompactionControl::new(|_| {});
        let begun = self.log().begin_compaction(CompactWhen::Asked, control).map_err(fail)?;
        let Some(mut pass) = begun else { return Ok(()) };
        loop {
            let now = vec![self.state.clone()];
            let Some(group) = self.during(step, now, |_| pass.clean_next()).map_err(fail)? else { break };
            let covered = pass.progress().covered.0;
            self.log().install_cleaned(&mut pass, group).map_err(fail)?;
            self.swaps += 1;
            let before = self.state.clone();
            let compacted = Compacted::after_pass(self.log(), &before, covered)?;
            let after = Alternative { compacted: Arc::new(compacted), ..before.clone() };
            self.during(step, vec![before, after.clone()], |_| {});
            self.state = after;
            self.settle(step);
        }
        self.compacted_end = self.compacted_end.max(pass.progress().covered.0);
        let now = vec![self.state.clone()];
        self.during(step, now, |w| w.log().finish_compaction(pass)).map_err(fail)?;
        Ok(())
    }

    fn assign(&mut self, step: &'static str) -> Result<(), Failure> {
        self.epoch += 1 + self.chance.below(2) as i32;
        let after = Alternative { assigned: Some((self.epoch, self.state.end())), ..self.state.clone() };
        let both = vec![self.state.clone(), after.clone()];
        let epoch = LeaderEpoch(self.epoch);
        self.during(step, both, |w| w.log().assign_epoch(epoch)).map_err(fail)?;
        self.state = after;
        self.settle(step);
        Ok(())
    }
}

fn no_space_in_log() -> Fault {
    Fault { on: FaultOn::Write, path_ends: ".log".into(), after: 0, times: 1, kind: FaultKind::NoSpace }
}

fn fail(e: LogError) -> Failure {
    failure("workload", e.to_string())
}
