//! `floodmark log recover`: what opening a log does after a crash, told; and giving up damaged bytes, where that is ordered.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use floodmark_proto::ids::Offset;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir;
use floodmark_storage::fs::{Disk, DiskLock, OverlayDisk, RealDisk};
use floodmark_storage::log::salvage::{self, SalvagePlan};
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::random::Random;
use floodmark_storage::verify::data_bytes;
use floodmark_storage::{LogConfig, TailBudget};
use indicatif::ProgressBar;

use super::place;
use super::recovered::{Ended, Recovered, Totals};
use crate::cmd::Outcome;
use crate::output::{Format, Sink, progress_bar};

pub(super) const EXAMPLES: &str = "\
Examples:
  floodmark log recover data                              every partition, as a broker's start would do it
  floodmark log recover data/logs/orders-0 --dry-run      only say what would be done
  floodmark log recover data/logs/orders-0 --accept-loss  give up what is damaged and all behind it
  floodmark log recover /old/kafka/orders-0 --adopt       make a log that Kafka wrote one of ours

A torn tail, which a crash leaves, is cut; good batches behind it are set aside as SEGMENT.damaged-N; indexes and the like are rebuilt.
Bytes that were durable and are damaged stay as they are unless --accept-loss is given, and even then they are set aside. No broker may use the directory meanwhile.
The log of metadata is left to the broker's next start.
Exit code: 0 where the logs are in order, 1 where one is damaged and was left alone, 2 where something could not be done.";

const MANIFEST_FILE: &str = "log.manifest";
/// Lies beside a broker's log of metadata.
const RAFT_STATE_FILE: &str = "node.state";
/// Where Kafka notes the log start of each partition, once records were deleted by offset: beside the partitions' directories.
const KAFKA_STARTS_FILE: &str = "log-start-offset-checkpoint";

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
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(super) fn run(args: &RecoverArgs) -> anyhow::Result<Outcome> {
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let partitions = match place::partitions(&*real, &args.dir) {
        Err(_) if data_dir::identity(&*real, &args.dir)?.is_some() => Vec::new(),
        found => found?,
    };
    let partitions = without_metadata(args, &*real, partitions)?;
    let is_named =
        partitions.len() == 1 && std::fs::canonicalize(&args.dir).ok().as_ref() == partitions.first();
    if args.accept_loss && !is_named {
        bail!(
            "--accept-loss gives up records, so it takes one partition at a time: name the partition's own directory below {}",
            args.dir.display()
        );
    }
    let bytes: u64 = partitions.iter().map(|dir| data_bytes(&*real, dir).unwrap_or(0)).sum();
    let mut recover = Recover { args, real, bar: progress_bar(bytes), lock: None };
    let (mut sink, mut totals) = (Sink::stdout(), Totals::default());
    for dir in &partitions {
        let recovered = recover.partition(dir)?;
        totals.count(&recovered);
        recover.bar.suspend(|| recovered.tell(args.output, &mut sink).and_then(|()| sink.flush()))?;
    }
    recover.bar.finish_and_clear();
    totals.tell(args.output, &mut sink)?;
    sink.flush()?;
    Ok(if totals.is_damaged() { Outcome::Damaged } else { Outcome::Good })
}

/// Leaves the broker's own log of metadata out. What is cut off there may have been answered to other brokers; at its start the broker looks
/// for proof of that, and must find what lies there as the crash left it.
fn without_metadata(
    args: &RecoverArgs,
    disk: &dyn Disk,
    partitions: Vec<PathBuf>,
) -> anyhow::Result<Vec<PathBuf>> {
    let is_of_metadata = |dir: &PathBuf| {
        let beside = dir.parent().and_then(|around| disk.list(around).ok()).unwrap_or_default();
        beside.iter().any(|entry| entry.name == RAFT_STATE_FILE)
    };
    if args.dry_run {
        return Ok(partitions);
    }
    let (left_alone, partitions): (Vec<_>, Vec<_>) = partitions.into_iter().partition(is_of_metadata);
    if let Some(dir) = left_alone.first()
        && partitions.is_empty()
    {
        bail!(
            "{} is a broker's log of metadata, which the broker alone recovers: it starts where nothing that it answered is missing, and says what to do where something is. --dry-run only tells what lies there",
            dir.display()
        );
    }
    Ok(partitions)
}

struct Recover<'a> {
    args: &'a RecoverArgs,
    real: Arc<dyn Disk>,
    bar: ProgressBar,
    /// Of the data directory that the last partition lay in, ours or Kafka's.
    lock: Option<(PathBuf, DiskLock)>,
}

impl Recover<'_> {
    fn partition(&mut self, dir: &Path) -> anyhow::Result<Recovered> {
        let is_ours = self.take_lock(dir)?;
        let has_manifest = self
            .real
            .list(dir)
            .with_context(|| format!("cannot list {}", dir.display()))?
            .iter()
            .any(|e| e.name == MANIFEST_FILE);
        let is_adopted = !has_manifest && !is_ours;
        if is_adopted && !self.args.adopt {
            bail!(
                "{} has no {MANIFEST_FILE}, so Kafka wrote it, or that file was deleted. Recovering it would write into it; if it is to be a log of Floodmark's from now on, stop Kafka and give --adopt",
                dir.display()
            );
        }
        if is_adopted {
            self.take_lock_of_kafka(dir)?;
        }
        let mut recovered = Recovered::new(dir, self.args.dry_run);
        if let Some(plan) = self.plan(dir)? {
            let is_given_up = self.args.accept_loss && !self.args.dry_run;
            if is_given_up {
                plan.carry_out(&self.real)
                    .with_context(|| format!("cannot set aside the damage of {}", dir.display()))?;
            }
            recovered.damage = Some((plan, is_given_up));
            if !is_given_up {
                recovered.is_refused = !self.args.accept_loss;
                return Ok(recovered);
            }
        }
        recovered.ended = Some(self.open(dir, is_adopted)?);
        Ok(recovered)
    }

    fn plan(&self, dir: &Path) -> anyhow::Result<Option<SalvagePlan>> {
        let mut on_bytes = |bytes| self.bar.inc(bytes);
        salvage::plan(&*self.real, dir, &mut on_bytes)
            .with_context(|| format!("cannot recover {}", dir.display()))
    }

    /// Opens the log as a broker would, and closes it.
    fn open(&self, dir: &Path, is_adopted: bool) -> anyhow::Result<Ended> {
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
        let (mut log, report) = Log::open(context, dir, LogConfig::default())
            .with_context(|| format!("cannot recover {}", dir.display()))?;
        let mut start_of_kafka = None;
        if is_adopted && let Some(start) = start_in_kafka(dir)?.filter(|start| *start > log.start()) {
            log.on_high_watermark(log.end());
            log.delete_before(start.min(log.end()))
                .with_context(|| format!("cannot move the start of {}", dir.display()))?;
            start_of_kafka = Some(log.start());
        }
        let (start, end) = (log.start(), log.end());
        log.close().with_context(|| format!("cannot close {} after recovery", dir.display()))?;
        Ok(Ended { report, start, end, start_of_kafka })
    }

    /// Locks the data directory that `dir` lies in; true where there is one of ours.
    fn take_lock(&mut self, dir: &Path) -> anyhow::Result<bool> {
        let Some(data_dir) = data_dir::around(dir) else { return Ok(false) };
        if data_dir::identity(&*self.real, data_dir)?.is_none() {
            return Ok(false);
        }
        self.hold(data_dir, |disk, dir| data_dir::lock(disk, dir).map(Some))?;
        Ok(true)
    }

    fn take_lock_of_kafka(&mut self, dir: &Path) -> anyhow::Result<()> {
        let Some(log_dir) = dir.parent() else { return Ok(()) };
        self.hold(log_dir, data_dir::lock_of_kafka)
    }

    fn hold(
        &mut self,
        dir: &Path,
        lock: impl FnOnce(&dyn Disk, &Path) -> Result<Option<DiskLock>, floodmark_storage::LogError>,
    ) -> anyhow::Result<()> {
        // What would be done can be told of a copy or a snapshot too, where nobody can do it.
        if self.args.dry_run && data_dir::is_read_only(&*self.real, dir) {
            return Ok(());
        }
        if self.lock.as_ref().is_none_or(|(held, _)| held != dir) {
            self.lock = None;
            self.lock = lock(&*self.real, dir)?.map(|lock| (dir.to_owned(), lock));
        }
        Ok(())
    }
}

/// Where Kafka says that the log in `dir` starts. Lines of topic, partition and offset, behind a version and a count.
fn start_in_kafka(dir: &Path) -> anyhow::Result<Option<Offset>> {
    let Some(path) = dir.parent().map(|log_dir| log_dir.join(KAFKA_STARTS_FILE)) else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
    let Some((topic, partition)) = name else { return Ok(None) };
    let line = text.lines().skip(2).find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next() == Some(topic) && fields.next() == Some(partition)).then(|| fields.next())
    });
    let Some(offset) = line else { return Ok(None) };
    let offset: Option<i64> = offset.and_then(|text| text.parse().ok());
    let offset = offset.filter(|offset| *offset >= 0);
    let offset = offset.with_context(|| {
        format!("{} names no offset for {topic} {partition}; correct or delete that line", path.display())
    })?;
    Ok(Some(Offset(offset)))
}
