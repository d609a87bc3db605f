//! `floodmark log recover`: what opening a log does after a crash, told; and giving up damaged bytes, where that is ordered.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir;
use floodmark_storage::fs::{Disk, DiskLock, OverlayDisk, RealDisk};
use floodmark_storage::log::recovery::RecoveryReport;
use floodmark_storage::log::salvage::{self, SalvagePlan};
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};

use super::place;
use crate::cmd::Outcome;
use crate::output::Sink;

pub(super) const EXAMPLES: &str = "\
Examples:
  floodmark log recover data                              every partition, as a broker's start would do it
  floodmark log recover data/logs/orders-0 --dry-run      only say what would be done
  floodmark log recover data/logs/orders-0 --accept-loss  give up what is damaged and all behind it
  floodmark log recover /old/kafka/orders-0 --adopt       make a log that Kafka wrote one of ours

A torn tail, which a crash leaves, is cut; indexes and the like are rebuilt. Bytes that were durable and are damaged stay as they
are unless --accept-loss is given, and even then they are set aside, not deleted. No broker may use the directory meanwhile.
Exit code: 0 where the logs are in order, 1 where one is damaged and was left alone, 2 where something could not be done.";

const MANIFEST_FILE: &str = "log.manifest";

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// A partition's directory, or a directory with many.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Cut the log where its durable part is damaged; needs the partition's own directory. The bytes behind that place are set
    /// aside as SEGMENT.damaged-N.
    #[arg(long)]
    accept_loss: bool,
    /// Take over a directory that Kafka wrote, by writing a manifest into it. Stop Kafka for good first.
    #[arg(long)]
    adopt: bool,
}

pub(super) fn run(args: &RecoverArgs) -> anyhow::Result<Outcome> {
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let partitions = match place::partitions(&*real, &args.dir) {
        Err(_) if data_dir::identity(&*real, &args.dir)?.is_some() => Vec::new(),
        found => found?,
    };
    let is_named =
        partitions.len() == 1 && std::fs::canonicalize(&args.dir).ok().as_ref() == partitions.first();
    if args.accept_loss && !is_named {
        bail!(
            "--accept-loss gives up records, so it takes one partition at a time: name the partition's own directory below {}",
            args.dir.display()
        );
    }
    let mut recover = Recover { args, real, sink: Sink::stdout(), lock: None, damaged: 0 };
    for dir in &partitions {
        recover.partition(dir)?;
        recover.sink.flush()?;
    }
    Ok(if recover.damaged > 0 { Outcome::Damaged } else { Outcome::Good })
}

struct Recover<'a> {
    args: &'a RecoverArgs,
    real: Arc<dyn Disk>,
    sink: Sink,
    /// Of the data directory that the last partition lay in.
    lock: Option<(PathBuf, DiskLock)>,
    damaged: u64,
}

impl Recover<'_> {
    fn partition(&mut self, dir: &Path) -> anyhow::Result<()> {
        let is_ours = self.take_lock(dir)?;
        let has_manifest = self
            .real
            .list(dir)
            .with_context(|| format!("cannot list {}", dir.display()))?
            .iter()
            .any(|e| e.name == MANIFEST_FILE);
        if !has_manifest && !is_ours && !self.args.adopt {
            bail!(
                "{} has no {MANIFEST_FILE}, so Kafka wrote it, or that file was deleted. Recovering it would write into it; if it is to be a log of Floodmark's from now on, stop Kafka and give --adopt",
                dir.display()
            );
        }
        self.say(&dir.display().to_string())?;
        let plan =
            salvage::plan(&*self.real, dir).with_context(|| format!("cannot recover {}", dir.display()))?;
        if let Some(plan) = &plan {
            self.tell_loss(plan)?;
            if !self.args.accept_loss {
                self.damaged += 1;
                self.say("  left as it is. Take the partition from another broker if there is one; else --accept-loss gives these up")?;
                return Ok(());
            }
            if self.args.dry_run {
                return self.say("  dry run: nothing was changed");
            }
            plan.carry_out(&self.real)
                .with_context(|| format!("cannot set aside the damage of {}", dir.display()))?;
        }
        let disk: Arc<dyn Disk> = if self.args.dry_run {
            Arc::new(OverlayDisk::new(Arc::clone(&self.real)))
        } else {
            Arc::clone(&self.real)
        };
        let context = LogContext {
            disk,
            clock: Clock::System,
            random: Random::System,
            tail_budget: TailBudget::new(0),
        };
        let (log, report) = Log::open(context, dir, LogConfig::default())
            .with_context(|| format!("cannot recover {}", dir.display()))?;
        let (start, end) = (log.start(), log.end());
        log.close().with_context(|| format!("cannot close {} after recovery", dir.display()))?;
        self.tell_report(&report)?;
        self.say(&format!("  the log holds offsets {start} to {end} (exclusive)"))?;
        if self.args.dry_run { self.say("  dry run: nothing was changed") } else { Ok(()) }
    }

    /// Locks the data directory that `dir` lies in; true where there is one of ours.
    fn take_lock(&mut self, dir: &Path) -> anyhow::Result<bool> {
        let Some(data_dir) = data_dir::around(dir) else { return Ok(false) };
        if data_dir::identity(&*self.real, data_dir)?.is_none() {
            return Ok(false);
        }
        if self.lock.as_ref().is_none_or(|(held, _)| held != data_dir) {
            self.lock = None;
            self.lock = Some((data_dir.to_owned(), data_dir::lock(&*self.real, data_dir)?));
        }
        Ok(true)
    }

    fn tell_loss(&mut self, plan: &SalvagePlan) -> anyhow::Result<()> {
        self.say(&format!("  damaged: {} at byte {}: {}", plan.path.display(), plan.position, plan.reason))?;
        let verb = if self.args.accept_loss && !self.args.dry_run { "lost" } else { "would be lost" };
        self.say(&format!(
            "  {verb}: {} offsets, {} to {} (exclusive), among them {} batches that are good themselves",
            plan.lost_offsets(),
            plan.end,
            plan.known_end,
            plan.batches_behind
        ))?;
        let verb =
            if self.args.accept_loss && !self.args.dry_run { "set aside" } else { "would be set aside" };
        for part in &plan.set_aside {
            self.say(&format!(
                "  {verb}: {} bytes of {} from byte {} on, as {}",
                part.bytes,
                part.from.display(),
                part.from_byte,
                part.to.display()
            ))?;
        }
        Ok(())
    }

    fn tell_report(&mut self, report: &RecoveryReport) -> anyhow::Result<()> {
        if report.was_clean {
            return self.say("  was closed cleanly; there was nothing to do");
        }
        let done = if self.args.dry_run { "would be" } else { "were" };
        self.say(&format!(
            "  {} bytes behind the recovery point {done} read and checked",
            report.scanned_bytes
        ))?;
        if report.cut_bytes > 0 {
            let reason = report.cut_reason.as_deref().unwrap_or("no batch");
            self.say(&format!("  {} bytes of unfinished writes {done} cut off: {reason}", report.cut_bytes))?;
        }
        if let Some(from) = report.producers_replayed_from {
            self.say(&format!("  producer state {done} replayed from offset {from} on"))?;
        }
        let done = if self.args.dry_run { "would be rebuilt" } else { "rebuilt" };
        for path in &report.rebuilt {
            self.say(&format!("  {done}: {}", path.display()))?;
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.sink.line(text)?)
    }
}
