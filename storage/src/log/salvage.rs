//! Gives up what is damaged below the durable point, and keeps the rest: first a plan that says what would be lost, then the
//! plan carried out. Nothing is deleted: damaged bytes go aside, under names that no log reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::files::{self, Found};
use super::members::{Member, members};
pub use super::set_aside::SetAside;
use super::set_aside::{copy_tail, free_name};
use super::{MANIFEST_FILE, recovery::MANIFEST_BYTES_MAX};
use crate::error::LogError;
use crate::format_error::FormatError;
use crate::fs::{Disk, OpenMode, read_small_file};
use crate::index::TimestampOffset;
use crate::manifest::{Manifest, SegmentRecord};
use crate::segment::name::{FileKind, path_of};
use crate::segment::scan::{BatchScan, ScanEnd};
use crate::segment::survey::{Piece, Survey};

/// What must be given up for the log to open again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagePlan {
    dir: PathBuf,
    /// The first damage.
    pub path: PathBuf,
    /// Where in that file it begins.
    pub position: u64,
    /// What is wrong there.
    pub reason: String,
    /// Where the log will end.
    pub end: Offset,
    /// Where it ended, as far as anything still tells.
    pub known_end: Offset,
    /// Good batches behind the damage; they go aside with it and can still be dumped.
    pub batches_behind: u64,
    /// Bytes that go aside.
    pub set_aside: Vec<SetAside>,
    /// A compacted copy that was about to take this segment's place.
    swap: Option<Offset>,
    manifest: Manifest,
}

/// Where a walk from the log's start meets damage.
struct Damage {
    /// Index of the damaged member.
    at: usize,
    position: u64,
    reason: String,
}

/// Good bytes from the log's start on.
#[derive(Default)]
struct Walked {
    /// Facts of the members that were walked through, the damaged one included.
    records: Vec<SegmentRecord>,
    next: Offset,
}

/// Reads the whole log in `dir` as far as it is durable; `None` where nothing in it is damaged, so that opening it loses nothing.
/// Changes nothing. Blocks for as long as reading takes; tells `on_bytes` how many bytes were read since the last call.
pub fn plan(
    disk: &dyn Disk,
    dir: &Path,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Option<SalvagePlan>, LogError> {
    let found = files::look(disk, dir)?;
    let manifest = read_manifest(disk, dir)?;
    let (members, _) = members(dir, &found, manifest.as_ref());
    let Some((damage, walked)) = find_damage(disk, manifest.as_ref(), &members, on_bytes)? else {
        return Ok(None);
    };
    plan_around(disk, dir, &found, manifest.as_ref(), &members, damage, walked).map(Some)
}

fn read_manifest(disk: &dyn Disk, dir: &Path) -> Result<Option<Manifest>, LogError> {
    let path = dir.join(MANIFEST_FILE);
    let content = read_small_file(disk, &path, MANIFEST_BYTES_MAX).map_err(LogError::io("read", &path))?;
    match content.map(|bytes| Manifest::parse(&bytes)) {
        Some(Err(source @ FormatError::NewerVersion { .. })) => Err(LogError::BadFile { path, source }),
        Some(Ok(manifest)) => Ok(Some(manifest)),
        _ => Ok(None),
    }
}

fn find_damage(
    disk: &dyn Disk,
    manifest: Option<&Manifest>,
    members: &[Member],
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Option<(Damage, Walked)>, LogError> {
    let mut walked = Walked { next: members.first().map_or(Offset::ZERO, |m| m.base), ..Walked::default() };
    for (at, member) in members.iter().enumerate() {
        let reason = if manifest.is_some() && member.record.is_none() {
            // Behind the recovery point: opening cuts what is wrong there.
            return Ok(None);
        } else if member.base < walked.next {
            Some(format!(
                "the segment begins at offset {}, before the end of the one before at {}",
                member.base, walked.next
            ))
        } else if member.file_bytes.is_none() && member.durable_bytes > 0 {
            Some(format!("the file is missing; it held {} bytes", member.durable_bytes))
        } else {
            None
        };
        walked.next = walked.next.max(member.base);
        if let Some(reason) = reason {
            walked.records.push(SegmentRecord {
                base_offset: member.base,
                end_offset: walked.next,
                ..SegmentRecord::default()
            });
            return Ok(Some((Damage { at, position: 0, reason }, walked)));
        }
        let successor = members.get(at + 1).map(|m| m.base);
        let limit = manifest.map(|_| member.durable_bytes);
        if let Some((position, reason)) = walk(disk, limit, member, successor, &mut walked, on_bytes)? {
            return Ok(Some((Damage { at, position, reason }, walked)));
        }
    }
    Ok(None)
}

/// Walks through the first `limit` bytes of one member, or all of it where no manifest sets one; says where and why it is damaged.
fn walk(
    disk: &dyn Disk,
    limit: Option<u64>,
    member: &Member,
    successor: Option<Offset>,
    walked: &mut Walked,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Option<(u64, String)>, LogError> {
    if member.file_bytes.is_none() {
        walked.records.extend(member.record);
        return Ok(None);
    }
    let file = disk.open(&member.path, OpenMode::Read).map_err(LogError::io("open", &member.path))?;
    let mut scan = BatchScan::new(file, &member.path, 0, walked.next)?.of_segment(member.base, successor);
    let mut largest: Option<TimestampOffset> = None;
    while scan.position() < limit.unwrap_or(u64::MAX)
        && let Some(batch) = scan.step()?
    {
        let header = batch.header;
        on_bytes(batch.bytes.len() as u64);
        if header.max_timestamp > largest.map_or(-1, |l| l.timestamp) {
            largest = Some(TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() });
        }
    }
    walked.next = scan.next_offset();
    let facts = SegmentRecord {
        base_offset: member.base,
        size_bytes: scan.position(),
        end_offset: scan.next_offset(),
        largest_timestamp: largest,
        aborted: None,
    };
    let end = scan.end();
    let is_damaged = if let Some(limit) = limit {
        scan.position() < limit
    } else {
        // Without a manifest nothing says how far the log was durable: the rule that opening a log goes by.
        let is_gap = successor.is_some_and(|next| end != ScanEnd::Zeros || next != scan.next_offset());
        let is_misplaced = matches!(end, ScanEnd::OutOfRange { .. });
        end != ScanEnd::Complete && (is_gap || is_misplaced || scan.good_batch_follows()?)
    };
    if is_damaged {
        walked.records.push(facts);
        return Ok(Some((facts.size_bytes, end.to_string())));
    }
    walked.next = member.record.map_or(walked.next, |record| walked.next.max(record.end_offset));
    walked.records.push(member.record.unwrap_or(facts));
    Ok(None)
}

fn plan_around(
    disk: &dyn Disk,
    dir: &Path,
    found: &Found,
    manifest: Option<&Manifest>,
    members: &[Member],
    damage: Damage,
    mut walked: Walked,
) -> Result<SalvagePlan, LogError> {
    let member = &members[damage.at];
    let first_base = members.first().map_or(Offset::ZERO, |m| m.base);
    let log_start = manifest.map_or(first_base, |m| m.log_start.max(first_base));
    let active = walked.records.pop().unwrap_or_default();
    let begins_again = active.end_offset < log_start;
    let (end, kept_bytes) = if begins_again { (log_start, 0) } else { (active.end_offset, damage.position) };
    let mut plan = SalvagePlan {
        dir: dir.to_owned(),
        path: member.path.clone(),
        position: damage.position,
        reason: damage.reason,
        end,
        known_end: manifest.map_or(end, |m| m.active.end_offset.max(end)),
        batches_behind: 0,
        set_aside: Vec::new(),
        swap: manifest.and_then(|m| m.replacing).filter(|base| found.cleaned.contains_key(base)),
        manifest: Manifest {
            log_start,
            first_dirty: manifest.map_or(log_start, |m| m.first_dirty.min(end)),
            is_closed: false,
            // Those behind the damage are given up; opening the log makes its checksum anew.
            epochs: None,
            // Whatever is left of the files behind `end` goes when the log is opened.
            truncating_to: Some(end),
            replacing: None,
            sealed: if begins_again { Vec::new() } else { walked.records },
            active: if begins_again {
                SegmentRecord { base_offset: log_start, end_offset: log_start, ..SegmentRecord::default() }
            } else {
                active
            },
        },
    };
    let first = if begins_again { 0 } else { damage.at };
    for (n, member) in members.iter().enumerate().skip(first) {
        let from_byte = if n == damage.at { kept_bytes } else { 0 };
        let Some(bytes) = member.file_bytes else { continue };
        let survey_from = if n == damage.at { damage.position } else { 0 };
        plan.look_behind(disk, member, if n < damage.at { u64::MAX } else { survey_from })?;
        if bytes > from_byte {
            // The compacted copy has its final name by then.
            let from = path_of(dir, member.base, FileKind::Data);
            let to = free_name(disk, dir, &from)?;
            plan.set_aside.push(SetAside { from, from_byte, bytes: bytes - from_byte, to });
        }
    }
    Ok(plan)
}

impl SalvagePlan {
    /// Offsets that are lost.
    #[must_use]
    pub fn lost_offsets(&self) -> u64 {
        (self.known_end - self.end).unsigned_abs()
    }

    /// Counts good batches behind the damage, and learns how far the log went.
    fn look_behind(&mut self, disk: &dyn Disk, member: &Member, from: u64) -> Result<(), LogError> {
        self.known_end = self.known_end.max(member.base);
        let file = disk.open(&member.path, OpenMode::Read).map_err(LogError::io("open", &member.path))?;
        let mut survey = Survey::new(file, &member.path, member.base)?;
        while let Some(piece) = survey.step()? {
            if let Piece::Batch(batch) = piece
                && batch.position >= from
            {
                self.batches_behind += 1;
                self.known_end = self.known_end.max(batch.header.next_offset());
            }
        }
        Ok(())
    }

    /// Does what the plan says: sets bytes aside, then names the new end in the manifest. The log is to be opened next, which cuts
    /// what is left. After a crash in between, a new plan goes on where this one stopped. The caller holds the directory's lock.
    pub fn carry_out(&self, disk: &Arc<dyn Disk>) -> Result<(), LogError> {
        if let Some(base) = self.swap {
            let from = path_of(&self.dir, base, FileKind::Cleaned);
            let to = path_of(&self.dir, base, FileKind::Data);
            disk.rename(&from, &to).map_err(LogError::io("rename", &from))?;
        }
        for part in &self.set_aside {
            if part.from_byte == 0 {
                disk.rename(&part.from, &part.to).map_err(LogError::io("rename", &part.from))?;
            } else {
                copy_tail(&**disk, part)?;
            }
        }
        files::settle_names(&**disk, &self.dir)?;
        files::replace_manifest(&**disk, &self.dir, &self.manifest)
    }
}

#[cfg(test)]
mod tests;
