//! Opens a log after whatever happened to it. What the manifest calls durable is taken as it is, and reported as damage where
//! it is not there; what lies behind is read, checked, and cut at the first bytes that are no batch.

mod aborted;
mod aside;
mod durable;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Weak};

pub use aside::{Proves, TailDamage};

use arc_swap::ArcSwap;
use floodmark_proto::ids::{LeaderEpoch, Offset};

use super::files::{self, Found};
use super::keys::LogKeys;
use super::pace::{Pace, Stretch};
use super::reader::LogShared;
use super::spare::Spare;
use super::staging::Staging;
use super::tail_cache::TailWriter;
use super::{Log, LogContext, Unsynced};
use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs::Disk;
use crate::index::{offset_index, time_index};
use crate::key_index::KeySeed;
use crate::leader_epochs::LeaderEpochs;
use crate::log::active::Active;
use crate::manifest::{Manifest, SegmentRecord};
use crate::producers::ProducerStates;
use crate::segment::name::{FileKind, path_of};
use crate::segment::{Segment, SegmentFacts};

/// A manifest line is some 60 bytes: a million segments.
pub(super) const MANIFEST_BYTES_MAX: u64 = 64 << 20;
const EPOCHS_BYTES_MAX: u64 = 64 << 20;

/// What opening a log found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The log was closed, and nothing had to be read.
    pub was_clean: bool,
    /// There was no log here before.
    pub was_new: bool,
    /// Bytes of batches read and checked.
    pub scanned_bytes: u64,
    /// Bytes cut off the tail that were neither batches nor zeros written ahead.
    pub cut_bytes: u64,
    /// Why the tail was cut.
    pub cut_reason: Option<String>,
    /// What no unfinished write explains; good batches among it were set aside. Worth a warning, for records may be lost.
    pub damage: Vec<TailDamage>,
    /// What lay set aside in the log's directory before: each opening tells it, until somebody has removed it.
    pub set_aside_before: Vec<PathBuf>,
    /// Offset from which producer state had to be replayed; `None` where a snapshot said it all.
    pub producers_replayed_from: Option<Offset>,
    /// Small files that were missing or damaged and were made anew.
    pub rebuilt: Vec<PathBuf>,
}

impl Log {
    /// Opens the log in `dir`, or makes one where there is none. Recovers it where it was not closed: the cost follows the
    /// bytes behind the recovery point, not the size of the log.
    ///
    /// Fails with [`LogError::Damaged`], and changes nothing, where bytes that were durable are missing or wrong. Behind the recovery
    /// point the log ends at the first bytes that are no batch; what lies behind them is deleted only where no batch is among it.
    pub fn open(
        context: LogContext,
        dir: &Path,
        config: LogConfig,
    ) -> Result<(Log, RecoveryReport), LogError> {
        Log::open_judging(context, dir, config, None)
    }

    /// [`Log::open`] of a log in which batches say how far it was durable when they were written: fails, each time and without another
    /// change, where `proves` says of one behind the place where the log would end that it was durable beyond that.
    pub fn open_with_proof(
        context: LogContext,
        dir: &Path,
        config: LogConfig,
        proves: Proves,
    ) -> Result<(Log, RecoveryReport), LogError> {
        Log::open_judging(context, dir, config, Some(proves))
    }

    fn open_judging(
        context: LogContext,
        dir: &Path,
        config: LogConfig,
        proves: Option<Proves>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let dir: Arc<Path> = Arc::from(dir);
        let disk = Arc::clone(&context.disk);
        match disk.list(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                disk.create_dir_all(&dir).map_err(LogError::io("create", &dir))?;
            }
            Err(e) => return Err(LogError::io("list", &dir)(e)),
            Ok(_) => {}
        }
        let found = files::look(&*disk, &dir)?;
        let set_aside_before = found.set_aside.iter().map(|name| dir.join(name)).collect();
        let mut opening = Opening {
            found,
            disk,
            dir,
            report: RecoveryReport { set_aside_before, ..RecoveryReport::default() },
            manifest: None,
            start_by_epochs: None,
            segments: Vec::new(),
            snapshots: Vec::new(),
            producers: ProducerStates::default(),
            epochs: LeaderEpochs::new(),
            epochs_read: LeaderEpochs::new(),
            epochs_changed: false,
            scanned: Vec::new(),
            without_index: None,
            changed_indexes: Vec::new(),
            touched: false,
            removed: false,
            proves,
        };
        let noting = (Arc::clone(&opening.disk), Arc::clone(&opening.dir));
        opening.recover(&config).and_then(|()| opening.into_log(context, config)).inspect_err(|e| {
            // A sync failed, perhaps: the next opening must not find it forgotten.
            if matches!(e, LogError::Io { .. }) {
                files::note_failure(&*noting.0, &noting.1);
            }
        })
    }
}

struct Opening {
    disk: Arc<dyn Disk>,
    dir: Arc<Path>,
    found: Found,
    report: RecoveryReport,
    /// `None` where it was missing or damaged: then everything is read.
    manifest: Option<Manifest>,
    /// Where the log may have started before its manifest was damaged, as the epochs tell.
    start_by_epochs: Option<Offset>,
    segments: Vec<Arc<Segment>>,
    snapshots: Vec<Offset>,
    producers: ProducerStates,
    epochs: LeaderEpochs,
    /// As the file had them, or the durable batches.
    epochs_read: LeaderEpochs,
    epochs_changed: bool,
    /// Segments with bytes that no sync has covered yet.
    scanned: Vec<Arc<Segment>>,
    /// Segment whose indexes were removed, because they may be those of bytes that compaction replaced.
    without_index: Option<Offset>,
    /// Transaction indexes that were changed and not synced yet.
    changed_indexes: Vec<PathBuf>,
    /// Something differs from what the manifest says, so a new one must be written.
    touched: bool,
    /// Files were removed that must not come back.
    removed: bool,
    /// Whether a batch proves a loss.
    proves: Option<Proves>,
}

impl Opening {
    fn recover(&mut self, config: &LogConfig) -> Result<(), LogError> {
        self.read_manifest()?;
        self.finish_changes()?;
        self.take_durable_part()?;
        self.check_transaction_indexes()?;
        self.read_epochs()?;
        self.note_missing_files();
        self.recover_tail(config)?;
        self.settle_start_by_epochs();
        self.complete_epochs();
        self.sweep_indexes()?;
        self.sweep_key_indexes(config)?;
        self.report.was_clean = !self.touched && self.manifest.as_ref().is_some_and(|m| m.is_closed);
        self.check_indexes(config)?;
        self.read_producers()?;
        Ok(())
    }

    fn path(&self, base: Offset, kind: FileKind) -> PathBuf {
        path_of(&self.dir, base, kind)
    }

    fn segment_of(&self, record: &SegmentRecord, settled: bool) -> Arc<Segment> {
        let indexes = self.found.indexes.get(&record.base_offset).copied().unwrap_or_default();
        let entries = |bytes: Option<u64>, len: usize| (bytes.unwrap_or(0) / len as u64) as u32;
        let facts = SegmentFacts {
            base: record.base_offset,
            end: record.end_offset,
            bytes: record.size_bytes,
            largest_timestamp: record.largest_timestamp,
            offset_entries: entries(indexes.offset, offset_index::ENTRY_LEN),
            time_entries: entries(indexes.time, time_index::ENTRY_LEN),
            aborted: record.aborted.unwrap_or_default(),
            settled,
        };
        Arc::new(Segment::new(Arc::clone(&self.disk), Arc::clone(&self.dir), facts))
    }

    fn into_log(mut self, context: LogContext, config: LogConfig) -> Result<(Log, RecoveryReport), LogError> {
        if self.removed {
            files::settle_names(&*self.disk, &self.dir)?;
        }
        let start_by_epochs = self.start_by_epochs.unwrap_or_default();
        let manifest =
            self.manifest.take().unwrap_or(Manifest { log_start: start_by_epochs, ..Manifest::default() });
        let Some(active) = self.segments.last().cloned() else {
            return Err(LogError::damaged(&self.dir, 0, "no segment was found or made"));
        };
        let first_base = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        let start = manifest.log_start.max(first_base);
        let end = active.end();
        let tail = TailWriter::new(context.tail_budget.clone());
        let durable = if self.touched { manifest.recovery_point().min(end) } else { end };
        let key_seed = KeySeed(context.random.next_u64(), context.random.next_u64());
        let shared = Arc::new(LogShared {
            dir: Arc::clone(&self.dir),
            segments: ArcSwap::from_pointee(self.segments),
            epochs: ArcSwap::from_pointee(self.epochs.clone()),
            start: AtomicI64::new(start.0),
            end: AtomicI64::new(end.0),
            durable: AtomicI64::new(durable.0),
            high_watermark: AtomicI64::new(start.0),
            first_unstable: AtomicI64::new(i64::MAX),
            cuts: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
            tail: tail.readers(),
            keys: LogKeys::new(config.key_index, key_seed),
            poison: std::sync::OnceLock::new(),
            was_read_from_files: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            syncing: parking_lot::Mutex::new(()),
        });
        let (disk, now_ms) = (Arc::clone(&context.disk), context.clock.now_ms());
        let writer = Active::new(disk, Arc::clone(&active), &config, now_ms, config.segment_ms);
        let (scanned_active, scanned_sealed) =
            self.scanned.into_iter().partition::<Vec<_>, _>(|s| s.base == active.base);
        let mut log = Log {
            pace: Pace::new(context.clock.steady_ms()),
            stretch: Stretch::new(active.base),
            context,
            config,
            shared,
            tail,
            active: writer,
            spare: Spare::default(),
            producers: self.producers,
            epochs: self.epochs,
            epochs_unsaved: self.epochs_changed,
            first_leader: LeaderEpoch(0),
            next: end,
            accepted: Vec::new(),
            unsynced: Unsynced { sealed: scanned_sealed, ..Unsynced::default() },
            manifest: Manifest { log_start: start, truncating_to: None, replacing: None, ..manifest },
            snapshots: self.snapshots,
            generation: 0,
            compacting: Weak::new(),
            to_index: Vec::new(),
            bytes_since_checkpoint: 0,
            is_behind: false,
            staging: Staging::default(),
        };
        if !scanned_active.is_empty() {
            log.unsynced.active.change();
        }
        if self.touched {
            // Names that the crash left may not be durable either.
            log.unsynced.directory.change();
        }
        for path in self.changed_indexes {
            log.unsynced.transaction_index(path);
        }
        log.begin_keys(None);
        if log.config.key_index && active.bytes() > 0 {
            log.to_index.push(active);
        }
        log.publish_first_unstable();
        if self.touched {
            log.checkpoint()?;
        }
        if self.found.has_failed {
            files::forget_failure(&*log.context.disk, &self.dir)?;
        }
        Ok((log, self.report))
    }
}
