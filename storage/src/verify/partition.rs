//! Walks through a partition segment by segment, and feeds each batch to everything that must agree with it.

use std::path::{Path, PathBuf};

use floodmark_proto::batch::{BatchHeader, DecompressLimits, RecordRules, check_records};
use floodmark_proto::ids::{LeaderEpoch, Offset};

use super::indexes::{Entry, IndexCheck};
use super::order::Order;
use super::producers::ProducerReplay;
use super::{Finding, Severity, Summary, Watch};
use crate::error::LogError;
use crate::fs::{Disk, OpenMode, read_small_file};
use crate::index::{TimestampOffset, transaction_index};
use crate::key_index::KeyIndexCheck;
use crate::leader_epochs::LeaderEpochs;
use crate::log::MANIFEST_FILE;
use crate::log::append::end_marker;
use crate::log::files::{self, Found};
use crate::log::members::{Member, members};
use crate::manifest::Manifest;
use crate::producers::ProducerStates;
use crate::segment::name::{FileKind, path_of};
use crate::segment::scan::Scanned;
use crate::segment::survey::{BadBytes, Piece, Survey};

pub(super) const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;
/// Kafka fills an index with zeros to `segment.index.bytes`, 10 MiB unless set; entries beyond this are not looked at.
pub(super) const INDEX_BYTES_MAX: u64 = 1 << 30;
/// Far more than any batch a broker takes unpacks to; it only keeps hostile bytes from taking all memory.
const UNPACKED: DecompressLimits = DecompressLimits { max_bytes: 1 << 30, max_ratio: 1 << 20 };

pub(super) struct PartitionCheck<'a> {
    disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    watch: Watch<'a>,
    pub(super) summary: Summary,
    pub(super) found: Found,
    pub(super) manifest: Option<Manifest>,
    pub(super) epochs: Option<LeaderEpochs>,
    /// The last pair of epochs that did not agree: a run of such batches is one finding.
    pub(super) epoch_reported: Option<(LeaderEpoch, Option<LeaderEpoch>)>,
    pub(super) latest_epoch: LeaderEpoch,
    pub(super) replay: ProducerReplay,
    /// Snapshots not compared yet, rising.
    snapshots: Vec<Offset>,
    pub(super) order: Order,
    pub(super) findings: Vec<Finding>,
    scratch: Vec<u8>,
}

/// What is known of the segment that is walked through.
pub(super) struct Walk {
    indexes: IndexCheck,
    /// Of all batches, and of those that hold records.
    pub(super) largest: Option<TimestampOffset>,
    pub(super) largest_with_records: Option<TimestampOffset>,
    /// End of the last good batch, or of bad bytes.
    position: u64,
    /// Offset at which the durable part of the segment ends, once met.
    pub(super) end_of_durable: Option<Offset>,
    has_damage: bool,
    keys: Option<KeyIndexCheck>,
}

impl<'a> PartitionCheck<'a> {
    pub(super) fn open(
        disk: &'a dyn Disk,
        dir: &'a Path,
        watch: Watch<'a>,
    ) -> Result<PartitionCheck<'a>, LogError> {
        let found = files::look(disk, dir)?;
        Ok(PartitionCheck {
            disk,
            dir,
            watch,
            summary: Summary::default(),
            snapshots: found.snapshots.clone(),
            found,
            manifest: None,
            epochs: None,
            epoch_reported: None,
            latest_epoch: LeaderEpoch::UNKNOWN,
            replay: ProducerReplay::new(Offset::ZERO, None),
            order: Order::default(),
            findings: Vec::new(),
            scratch: Vec::new(),
        })
    }

    pub(super) fn run(mut self) -> Result<Summary, LogError> {
        self.read_manifest()?;
        self.read_epochs()?;
        self.check_metadata()?;
        let (members, leftovers) = members(self.dir, &self.found, self.manifest.as_ref());
        for base in leftovers {
            let found = "a segment that the manifest does not list".to_owned();
            self.warn(
                path_of(self.dir, base, FileKind::Data),
                None,
                Some(base),
                found,
                "nothing; opening the log removes it",
            );
        }
        self.begin(&members)?;
        for base in self.found.missing_data(self.manifest.as_ref()) {
            let path = path_of(self.dir, base, FileKind::Data);
            self.damage(
                path,
                None,
                Some(base),
                "no such file".to_owned(),
                "the batches of the index that is there",
            );
        }
        for (n, member) in members.iter().enumerate() {
            self.check_segment(member, n + 1 == members.len())?;
            self.tell();
        }
        self.finish()?;
        self.tell();
        Ok(self.summary)
    }

    /// Takes up the replay where the log begins.
    fn begin(&mut self, members: &[Member]) -> Result<(), LogError> {
        let first = members.first().map_or(Offset::ZERO, |m| m.base);
        self.order.next = first;
        self.summary.start = self.manifest.as_ref().map_or(first, |m| m.log_start.max(first));
        let mut snapshot = None;
        while let Some(at) = self.snapshots.first().copied().filter(|at| *at <= first) {
            self.snapshots.remove(0);
            let states = self.read_snapshot(at)?;
            snapshot = states.filter(|_| at == first).or(snapshot);
        }
        self.replay = ProducerReplay::new(first, snapshot);
        Ok(())
    }

    fn check_segment(&mut self, member: &Member, is_last: bool) -> Result<(), LogError> {
        let Some(bytes) = member.file_bytes else {
            if member.durable_bytes > 0 {
                let expected = format!("{} bytes of batches", member.durable_bytes);
                self.damage(
                    member.path.clone(),
                    None,
                    Some(member.base),
                    "no such file".to_owned(),
                    &expected,
                );
                self.lose_track();
            }
            return Ok(());
        };
        self.summary.segments += 1;
        if member.record.is_none() && self.manifest.is_some() && member.base != self.order.next {
            let found = format!("a segment that begins at offset {}", member.base);
            let file =
                self.disk.open(&member.path, OpenMode::Read).map_err(LogError::io("open", &member.path))?;
            if Survey::new(file, &member.path, member.base)?.may_hold_batch()? {
                let expected =
                    format!("offset {}, the log's end; opening the log sets it aside", self.order.next);
                self.damage(member.path.clone(), None, Some(member.base), found, &expected);
            } else {
                let expected =
                    format!("offset {}, the log's end; opening the log removes it", self.order.next);
                self.warn(member.path.clone(), None, Some(member.base), found, &expected);
            }
            return Ok(());
        }
        // Before the batches, so that a log that is being written has the batches of all entries read here.
        let mut walk = self.begin_segment(member)?;
        let file =
            self.disk.open(&member.path, OpenMode::Read).map_err(LogError::io("open", &member.path))?;
        let mut survey = Survey::new(file, &member.path, member.base)?;
        while let Some(piece) = survey.step()? {
            match piece {
                Piece::Batch(batch) if member.is_sealed && batch.position >= member.durable_bytes => {
                    let found = "batches behind the segment's end".to_owned();
                    let expected = "nothing; opening the log cuts them off";
                    self.warn(member.path.clone(), Some(batch.position), None, found, expected);
                    break;
                }
                Piece::Batch(batch) => {
                    if !self.follows(member, &mut walk, batch.position, &batch.header) {
                        break;
                    }
                    self.on_batch(member, &mut walk, &batch)?;
                }
                Piece::Bad(bad) => self.on_bad_bytes(member, &mut walk, bad),
                Piece::Zeros { position, bytes } => {
                    self.on_zeros(member, &mut walk, (position, bytes), is_last)
                }
            }
            self.tell();
        }
        if bytes < member.durable_bytes {
            let expected = format!("{} bytes of batches", member.durable_bytes);
            self.damage(
                member.path.clone(),
                Some(bytes),
                Some(self.order.next),
                "the file ends here".to_owned(),
                &expected,
            );
            self.lose_track();
            walk.has_damage = true;
        }
        self.end_segment(member, walk)
    }

    fn begin_segment(&mut self, member: &Member) -> Result<Walk, LogError> {
        if self.order.skip_to(member.base) {
            self.replay.lose_track();
        }
        self.replay.begin_segment();
        let index = |kind| {
            let path = path_of(self.dir, member.base, kind);
            let content = if member.is_swap_under_way { None } else { self.read(&path, INDEX_BYTES_MAX)? };
            Ok::<_, LogError>((path, content))
        };
        let (offsets, times) = (index(FileKind::OffsetIndex)?, index(FileKind::TimeIndex)?);
        for (path, content) in [&offsets, &times] {
            if content.is_none() && member.durable_bytes > 0 && !member.is_swap_under_way {
                self.warn(
                    path.clone(),
                    None,
                    None,
                    "no such file".to_owned(),
                    "an index; opening the log rebuilds it, that of the last segment with the next append",
                );
            }
        }
        let present = |(path, content): (PathBuf, Option<Vec<u8>>)| content.map(|bytes| (path, bytes));
        let entries = if self.manifest.is_some() { Entry::IsHint } else { Entry::IsBelieved };
        let indexes =
            IndexCheck::new(member.base, present(offsets), present(times), entries, &mut self.findings);
        Ok(Walk {
            indexes,
            largest: None,
            largest_with_records: None,
            position: 0,
            end_of_durable: None,
            has_damage: false,
            keys: self.begin_keys(member)?,
        })
    }

    /// False for a batch that does not follow the log's end and lies behind the durable part: the log ends before it.
    fn follows(&mut self, member: &Member, walk: &mut Walk, position: u64, header: &BatchHeader) -> bool {
        self.at_durable_end(member, walk, position);
        match self.order.on_batch(&member.path, position, header) {
            Ok(false) => {}
            Ok(true) => self.replay.lose_track(),
            Err(misplaced) if misplaced.is_this_batch && position >= member.durable_bytes => {
                let expected = format!("{}; opening the log cuts it off", misplaced.finding.expected);
                self.findings.push(Finding { severity: Severity::Warning, expected, ..misplaced.finding });
                return false;
            }
            Err(misplaced) => {
                self.findings.push(misplaced.finding);
                self.replay.lose_track();
                walk.has_damage = true;
            }
        }
        true
    }

    fn on_batch(&mut self, member: &Member, walk: &mut Walk, batch: &Scanned<'_>) -> Result<(), LogError> {
        let (position, header) = (batch.position, &batch.header);
        let place =
            |finding: Finding| Finding { byte: Some(position), offset: Some(header.base_offset), ..finding };
        let records = check_records(batch.bytes, RecordRules::Stored, &UNPACKED, &mut self.scratch);
        if let Err(e) = records {
            let expected = format!("{} records as the header tells", header.record_count);
            self.findings.push(place(damaged(&member.path, e.to_string(), expected)));
        }
        let marker = match end_marker(batch.bytes, header) {
            Ok(marker) => marker,
            Err(e) => {
                self.findings.push(place(damaged(
                    &member.path,
                    e.to_string(),
                    "a control record".to_owned(),
                )));
                None
            }
        };
        if i64::from(header.record_count) <= i64::from(header.last_offset_delta) {
            self.replay.lose_track();
        }
        self.check_epoch(member, position, header);
        walk.indexes.on_batch(position, header, &mut self.findings);
        if let Some(keys) = &mut walk.keys {
            keys.on_batch(position, header, batch.bytes);
        }
        self.check_snapshots(header.base_offset)?;
        self.replay.on_batch(position, header, marker.as_ref());
        note_largest(&mut walk.largest, header);
        if header.record_count > 0 {
            note_largest(&mut walk.largest_with_records, header);
        }
        walk.position = position + batch.bytes.len() as u64;
        self.summary.batches += 1;
        self.summary.records += u64::from(header.record_count.unsigned_abs());
        self.summary.batch_bytes += batch.bytes.len() as u64;
        (self.watch.on_bytes)(batch.bytes.len() as u64);
        Ok(())
    }

    /// Notes at which offset the durable bytes end, where `position` is that place.
    fn at_durable_end(&self, member: &Member, walk: &mut Walk, position: u64) {
        if position == member.durable_bytes {
            walk.end_of_durable = Some(self.order.next);
        }
    }

    fn on_bad_bytes(&mut self, member: &Member, walk: &mut Walk, bad: BadBytes) {
        self.at_durable_end(member, walk, bad.position);
        let found = if bad.begins_with_zeros { "zeros".to_owned() } else { bad.reason.to_string() };
        let found = format!(
            "{found} ({} bytes up to {})",
            bad.bytes,
            if bad.batch_follows { "a good batch" } else { "the end of the file" }
        );
        if bad.position >= member.durable_bytes && !bad.batch_follows {
            let expected = "a batch; an unfinished write, which opening the log cuts off";
            self.warn(member.path.clone(), Some(bad.position), Some(self.order.next), found, expected);
        } else {
            self.damage(member.path.clone(), Some(bad.position), Some(self.order.next), found, "a batch");
            walk.has_damage = true;
        }
        self.lose_track();
        walk.position = bad.position + bad.bytes;
        walk.indexes.on_bad_bytes(walk.position);
        (self.watch.on_bytes)(bad.bytes);
    }

    fn on_zeros(&mut self, member: &Member, walk: &mut Walk, (position, bytes): (u64, u64), is_last: bool) {
        self.at_durable_end(member, walk, position);
        (self.watch.on_bytes)(bytes);
        let is_durable = self.manifest.is_some() && position < member.durable_bytes;
        if is_durable {
            let found = format!("{bytes} zeros up to the end of the file");
            self.damage(member.path.clone(), Some(position), Some(self.order.next), found, "batches");
            self.lose_track();
            walk.has_damage = true;
        } else {
            self.summary.written_ahead_bytes += bytes;
            if !is_last {
                let found = format!("{bytes} zeros at the end of a segment that is not the last");
                self.warn(
                    member.path.clone(),
                    Some(position),
                    None,
                    found,
                    "nothing; opening the log cuts them off",
                );
            }
        }
    }

    fn end_segment(&mut self, member: &Member, mut walk: Walk) -> Result<(), LogError> {
        let end = walk.position;
        self.at_durable_end(member, &mut walk, end);
        walk.indexes.finish(walk.has_damage, &mut self.findings);
        self.end_keys(member, walk.keys.take(), walk.has_damage);
        let path = path_of(self.dir, member.base, FileKind::TransactionIndex);
        if !member.is_swap_under_way {
            let content = self.read(&path, transaction_index::BYTES_MAX)?;
            let before = self.findings.len();
            self.replay.check_index(&path, content.as_deref(), member.durable_bytes, &mut self.findings);
            // What the batches say of it is more exact, where they still tell.
            if self.findings.len() == before {
                self.check_aborted(member, &path, content.as_deref().unwrap_or_default())?;
            }
        }
        if !walk.has_damage {
            self.check_record(member, &walk);
        }
        Ok(())
    }

    /// Compares the snapshots that belong to points up to `offset`.
    fn check_snapshots(&mut self, offset: Offset) -> Result<(), LogError> {
        while let Some(at) = self.snapshots.first().copied().filter(|at| *at <= offset) {
            self.snapshots.remove(0);
            if let Some(states) = self.read_snapshot(at)? {
                let path = path_of(self.dir, at, FileKind::Snapshot);
                self.replay.check_snapshot(&path, at, &states, &mut self.findings);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), LogError> {
        self.summary.end = self.order.next;
        (self.summary.gaps, self.summary.gap_offsets) = (self.order.gaps, self.order.gap_offsets);
        self.check_snapshots(self.order.next)?;
        self.check_epochs_known()?;
        for at in std::mem::take(&mut self.snapshots) {
            self.read_snapshot(at)?;
            let found = format!("a snapshot for offset {at}");
            let expected =
                format!("none behind the log's end at {}; opening the log removes it", self.order.next);
            self.warn(path_of(self.dir, at, FileKind::Snapshot), None, Some(at), found, &expected);
        }
        if let Some(start) =
            self.manifest.as_ref().map(|m| m.log_start).filter(|start| *start > self.order.next)
        {
            let found = format!("log start {start}");
            let expected = format!("at most {}, the log's end", self.order.next);
            self.damage(self.dir.join(MANIFEST_FILE), None, Some(start), found, &expected);
        }
        Ok(())
    }

    fn read_snapshot(&mut self, at: Offset) -> Result<Option<ProducerStates>, LogError> {
        let path = path_of(self.dir, at, FileKind::Snapshot);
        match self.read(&path, SMALL_FILE_BYTES_MAX)?.map(|bytes| ProducerStates::from_snapshot(&bytes, at)) {
            Some(Ok(states)) => return Ok(Some(states)),
            Some(Err(e)) => self.damage(path, None, Some(at), e.to_string(), "the producers at this offset"),
            // Removed by the log's writer since the listing.
            None => {}
        }
        Ok(None)
    }

    pub(super) fn read(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, LogError> {
        read_small_file(self.disk, path, limit_bytes).map_err(LogError::io("read", path))
    }

    fn lose_track(&mut self) {
        self.order.lose_track();
        self.replay.lose_track();
    }

    pub(super) fn damage(
        &mut self,
        path: PathBuf,
        byte: Option<u64>,
        offset: Option<Offset>,
        found: String,
        expected: &str,
    ) {
        self.findings.push(Finding { byte, offset, ..damaged(&path, found, expected.to_owned()) });
    }

    pub(super) fn warn(
        &mut self,
        path: PathBuf,
        byte: Option<u64>,
        offset: Option<Offset>,
        found: String,
        expected: &str,
    ) {
        let finding = damaged(&path, found, expected.to_owned());
        self.findings.push(Finding { severity: Severity::Warning, byte, offset, ..finding });
    }

    /// Hands on what was found since the last time.
    fn tell(&mut self) {
        for finding in self.findings.drain(..) {
            match finding.severity {
                Severity::Damage => self.summary.damage += 1,
                Severity::Warning => self.summary.warnings += 1,
            }
            (self.watch.on_finding)(&finding);
        }
    }
}

fn note_largest(largest: &mut Option<TimestampOffset>, header: &BatchHeader) {
    if header.max_timestamp > largest.map_or(-1, |l| l.timestamp) {
        *largest = Some(TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() });
    }
}

pub(super) fn damaged(path: &Path, found: String, expected: String) -> Finding {
    Finding { severity: Severity::Damage, path: path.to_owned(), byte: None, offset: None, found, expected }
}
