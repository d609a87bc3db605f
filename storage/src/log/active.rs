//! The segment being written: where its next byte goes, what its indexes get, and how far it is filled with zeros ahead.
//! Must know nothing of other segments.

use std::io::{self, IoSlice};
use std::sync::Arc;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, TimestampMs};

use super::prewrite::Prewrite;
use super::stage::{Reach, Stage, StageFile};
use super::tail_cache::TailBatch;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::format_error::FormatError;
use crate::fs::{
    BLOCK_BYTES, Blocks, Disk, DiskFile, OpenMode, SyncPoint, read_full_at, write_all_at,
    write_all_passing_at,
};
use crate::index::{
    AbortedTransaction, IndexPolicy, Indexer, fits, offset_index, time_index, transaction_index,
};
use crate::key_index::BatchKeys;
use crate::key_index::map::TailWriter;
use crate::manifest::SegmentRecord;
use crate::segment::Segment;
use crate::segment::name::FileKind;
use crate::segment::walk::HeaderWalk;

/// Index entries gathered before they are written. They matter only for the speed of look-ups, so they may be behind; and
/// 64 entries are 256 KiB of log at the default interval, which a look-up walks in four reads.
const GATHER_ENTRIES: usize = 64;

/// Zeros ahead for each byte that came, and the least that is worth a write and a sync of its own.
const ZEROS_PER_BYTE: u64 = 4;
const ZEROS_MIN_BYTES: u64 = 16 << 10;

/// The writer's view of the segment being written. Files are opened when the first append needs them.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    disk: Arc<dyn Disk>,
    /// Where the next batch goes, counting batches that are accepted but not written yet.
    pub(super) position: u64,
    indexer: Indexer,
    files: Option<Files>,
    /// Where the file ended when it was opened, and what was written to the segments before it since the log was.
    opened_at: u64,
    written_before: u64,
    gathered_offsets: Vec<u8>,
    gathered_times: Vec<u8>,
    gathered_aborts: Vec<u8>,
    first_timestamp: Option<TimestampMs>,
    opened_ms: TimestampMs,
    roll_after_ms: i64,
    /// What a file of the segment's keys would hold by now.
    key_bytes: u64,
    /// Takes keys without the segment's lock, until it is full.
    key_tail: Option<TailWriter>,
    pub(super) prewrite: Prewrite,
    /// Most of the zeros that it needs were there before it was.
    pub(super) was_spare: bool,
}

/// The indexes are opened when the first entries are written: of many partitions that get little, each keeps one file open.
#[derive(Debug)]
struct Files {
    data: Arc<dyn DiskFile>,
    offsets: Option<Arc<dyn DiskFile>>,
    times: Option<Arc<dyn DiskFile>>,
}

impl Active {
    /// `roll_after_ms` is the segment's life with its jitter taken off.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        segment: Arc<Segment>,
        config: &LogConfig,
        now_ms: TimestampMs,
        roll_after_ms: i64,
    ) -> Active {
        let policy = index_policy(config);
        let position = segment.bytes();
        Active {
            indexer: Indexer::new(segment.base, policy),
            segment,
            disk,
            position,
            files: None,
            opened_at: position,
            written_before: 0,
            gathered_offsets: Vec::new(),
            gathered_times: Vec::new(),
            gathered_aborts: Vec::new(),
            first_timestamp: None,
            opened_ms: now_ms,
            roll_after_ms,
            key_bytes: 0,
            key_tail: None,
            prewrite: Prewrite::new(position),
            was_spare: false,
        }
    }

    /// Makes the files of a new segment.
    pub(super) fn create_files(&mut self) -> Result<(), LogError> {
        let path = self.segment.path(FileKind::Data);
        let data = self.disk.open(&path, OpenMode::Create).map_err(LogError::io("create", &path))?;
        self.take_new_files(data)
    }

    fn take_new_files(&mut self, data: Arc<dyn DiskFile>) -> Result<(), LogError> {
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            self.open_index(kind, OpenMode::Create)?;
        }
        self.segment.adopt_data_file(Arc::clone(&data));
        self.files = Some(Files { data, offsets: None, times: None });
        Ok(())
    }

    /// Takes over from the segment before it, to which no more is written.
    pub(super) fn follow(&mut self, before: &Active) {
        self.written_before = before.written();
    }

    /// Bytes that came since the log was opened, or was last idle.
    fn written(&self) -> u64 {
        self.written_before + (self.position - self.opened_at)
    }

    /// Zeros to keep ahead of the end, `max` at most: a multiple of what came, so that a partition that gets a record now and then
    /// does not fill the disk with them.
    pub(super) fn zeros_ahead(&self, max: u64) -> u64 {
        let ahead = self.written().saturating_mul(ZEROS_PER_BYTE).min(max);
        if ahead < max.min(ZEROS_MIN_BYTES) { 0 } else { ahead }
    }

    /// Makes the files of a new segment, whose data file is there already and holds nothing but zeros.
    pub(super) fn adopt_spare(
        &mut self,
        data: Arc<dyn DiskFile>,
        config: &LogConfig,
    ) -> Result<(), LogError> {
        let bytes = data.size().map_err(LogError::io("look at", &self.segment.path(FileKind::Data)))?;
        self.prewrite = Prewrite::new(bytes);
        self.was_spare = bytes >= u64::from(config.segment_bytes) / 2;
        self.take_new_files(data)
    }

    /// Opens the files and takes up the indexes where they end; makes the files of a segment that has none yet. Says true
    /// where their names may not be durable.
    pub(super) fn wake(&mut self, config: &LogConfig) -> Result<bool, LogError> {
        if self.files.is_some() {
            return Ok(false);
        }
        let data = match self.segment.data_file() {
            Err(LogError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && self.segment.bytes() == 0 =>
            {
                self.create_files()?;
                return Ok(true);
            }
            other => other?,
        };
        self.prewrite =
            Prewrite::new(data.size().map_err(LogError::io("look at", &self.segment.path(FileKind::Data)))?);
        self.opened_at = self.position;
        self.written_before = 0;
        self.files = Some(Files { data, offsets: None, times: None });
        if let Err(e) = self.resume_indexes(config) {
            // Half awake it would write entries where others are.
            self.files = None;
            return Err(e);
        }
        // The name of a file without a batch may be as new as the first one to come, if who made it was killed.
        Ok(self.segment.bytes() == 0)
    }

    fn open_index(&self, kind: FileKind, mode: OpenMode) -> Result<Arc<dyn DiskFile>, LogError> {
        let path = self.segment.path(kind);
        match self.disk.open(&path, mode) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.open(&path, OpenMode::Create),
            other => other,
        }
        .map_err(LogError::io("open", &path))
    }

    /// Keeps the leading entries that are in order and lie below the published end, and feeds the batches after them.
    /// Indexes are not synced and have no checksum: where what is kept does not fit the batches, all of them are fed.
    fn resume_indexes(&mut self, config: &LogConfig) -> Result<(), LogError> {
        let known = self.segment.largest_timestamp();
        let resumed = self.resume_from_kept(config)?;
        if !resumed || known.is_some_and(|known| self.indexer.largest_timestamp() != Some(known)) {
            self.gathered_offsets.clear();
            self.gathered_times.clear();
            self.indexer = Indexer::new(self.segment.base, index_policy(config));
            self.segment.publish_index(0, 0);
            self.feed_from(0)?;
        }
        self.segment.publish(self.segment.bytes(), self.segment.end(), self.indexer.largest_timestamp());
        Ok(())
    }

    fn resume_from_kept(&mut self, config: &LogConfig) -> Result<bool, LogError> {
        let offsets = self.read_index(FileKind::OffsetIndex, config)?;
        let times = self.read_index(FileKind::TimeIndex, config)?;
        let end = self.segment.end() - self.segment.base;
        let bytes = self.segment.bytes();
        let kept_offsets = (0..offset_index::valid_prefix(&offsets) as u32)
            .map_while(|n| offset_index::entry_at(&offsets, n))
            .take_while(|e| i64::from(e.relative_offset) < end && u64::from(e.position) < bytes)
            .count() as u32;
        let kept_times = (0..time_index::valid_prefix(&times) as u32)
            .map_while(|n| time_index::entry_at(&times, n))
            .take_while(|e| i64::from(e.relative_offset) < end)
            .count() as u32;
        let last_offset = kept_offsets.checked_sub(1).and_then(|n| offset_index::entry_at(&offsets, n));
        let last_time = kept_times.checked_sub(1).and_then(|n| time_index::entry_at(&times, n));
        self.segment.publish_index(kept_offsets, kept_times);
        if !self.segment.holds_entries(last_offset, last_time)? {
            return Ok(false);
        }
        self.indexer = Indexer::resume(
            self.segment.base,
            index_policy(config),
            last_offset.map(|e| (kept_offsets, e)),
            last_time.map(|e| (kept_times, e)),
        );
        self.gathered_offsets.clear();
        self.gathered_times.clear();
        self.feed_from(last_offset.map_or(0, |e| u64::from(e.position)))?;
        Ok(true)
    }

    fn feed_from(&mut self, position: u64) -> Result<(), LogError> {
        let source = self.segment.source()?;
        let path = self.segment.path(FileKind::Data);
        let mut walk = HeaderWalk::new(&source, &path, 0, self.segment.bytes());
        if let Some((_, first)) = walk.step()? {
            self.first_timestamp = Some(first.max_timestamp);
        }
        let mut walk = HeaderWalk::new(&source, &path, position, self.segment.bytes());
        while let Some((position, header)) = walk.step()? {
            self.index(&header, position).map_err(|e| LogError::damaged(&path, position, e.to_string()))?;
        }
        Ok(())
    }

    fn read_index(&self, kind: FileKind, config: &LogConfig) -> Result<Vec<u8>, LogError> {
        let file = self.open_index(kind, OpenMode::Write)?;
        let path = self.segment.path(kind);
        let size = file.size().map_err(LogError::io("look at", &path))?;
        let mut bytes = vec![0; size.min(u64::from(config.segment_index_bytes)) as usize];
        let read = read_full_at(&*file, &mut bytes, 0).map_err(LogError::io("read", &path))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// True where `header` must go to a new segment instead.
    pub(super) fn must_roll(&self, header: &BatchHeader, config: &LogConfig, now_ms: TimestampMs) -> bool {
        if self.position == 0 {
            return !fits(self.segment.base, header.last_offset());
        }
        let age_ms = match self.first_timestamp {
            Some(first) if first >= 0 && header.max_timestamp >= 0 => {
                header.max_timestamp.saturating_sub(first)
            }
            _ => now_ms.saturating_sub(self.opened_ms),
        };
        self.position + header.size_bytes() as u64 > u64::from(config.segment_bytes)
            || !fits(self.segment.base, header.last_offset())
            || self.indexer.is_full()
            || self.key_bytes >= u64::from(config.segment_index_bytes)
            || self.aborted_entries() >= transaction_index::ENTRIES_MAX as usize
            || age_ms > self.roll_after_ms
    }

    fn aborted_entries(&self) -> usize {
        self.segment.aborted().entries as usize + self.gathered_aborts.len() / transaction_index::ENTRY_LEN
    }

    /// Counts an accepted batch in; it is written by the next [`Active::write`].
    pub(super) fn accept(
        &mut self,
        header: &BatchHeader,
        keys: Option<&BatchKeys>,
    ) -> Result<(), FormatError> {
        self.index(header, self.position)?;
        if let Some(keys) = keys {
            self.add_keys(keys, header);
        }
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.position += header.size_bytes() as u64;
        Ok(())
    }

    fn add_keys(&mut self, keys: &BatchKeys, header: &BatchHeader) {
        // A segment is rolled before either would not fit.
        let offset = u32::try_from(header.base_offset - self.segment.base).unwrap_or(u32::MAX);
        let position = u32::try_from(self.position).unwrap_or(u32::MAX);
        match self.key_tail.as_ref().and_then(|tail| tail.add(keys, offset, position)) {
            Some(more_bytes) => self.key_bytes += more_bytes,
            None => (self.key_bytes, self.key_tail) = self.segment.add_keys(keys, offset, position),
        }
    }

    fn index(&mut self, header: &BatchHeader, position: u64) -> Result<(), FormatError> {
        let entries = self.indexer.on_batch(header, position as u32)?;
        if let Some(entry) = entries.offset {
            self.gathered_offsets.extend_from_slice(&entry.encode());
        }
        if let Some(entry) = entries.time {
            self.gathered_times.extend_from_slice(&entry.encode());
        }
        Ok(())
    }

    pub(super) fn accept_abort(&mut self, aborted: &AbortedTransaction) {
        self.gathered_aborts.extend_from_slice(&aborted.encode());
    }

    /// Writes accepted batches in one call and publishes them; true where aborted transactions were written too. `are_passing` where nobody
    /// reads them soon.
    pub(super) fn write(&mut self, batches: &[TailBatch], are_passing: bool) -> Result<bool, LogError> {
        let Some(last) = batches.last() else { return Ok(false) };
        let path = || self.segment.path(FileKind::Data);
        let Some(files) = &self.files else {
            return Err(LogError::damaged(&path(), 0, "the segment is not open for writing"));
        };
        let start = self.segment.bytes();
        self.prewrite.claim(self.position);
        let write = if are_passing { write_all_passing_at } else { write_all_at };
        let written = match batches {
            [one] => write(&*files.data, &mut [IoSlice::new(&one.bytes)], start),
            many => {
                let mut slices: Vec<IoSlice<'_>> = many.iter().map(|b| IoSlice::new(&b.bytes)).collect();
                write(&*files.data, &mut slices, start)
            }
        };
        written.map_err(LogError::io("append to", &path()))?;
        let aborts = self.flush_gathered()?;
        self.segment.publish(self.position, last.next, self.indexer.largest_timestamp());
        Ok(aborts)
    }

    /// Writes what belongs to accepted batches beside their bytes, as far as it is needed or has become much; true where aborted transactions were
    /// written. Their index is read as soon as the batches are, so it goes before these are published.
    pub(super) fn flush_gathered(&mut self) -> Result<bool, LogError> {
        let aborts = self.flush_aborts()?;
        if self.gathered_offsets.len() >= GATHER_ENTRIES * offset_index::ENTRY_LEN {
            self.flush_indexes(false)?;
        }
        Ok(aborts)
    }

    /// Where accepted batches wait from here on; none where zeros are on their way to the file.
    pub(super) fn stage(&mut self, free: Vec<Blocks>) -> io::Result<Option<Stage>> {
        let Some(files) = &self.files else { return Ok(None) };
        if self.prewrite.filled_to().is_none() {
            return Ok(None);
        }
        let path = self.segment.path(FileKind::Data);
        let through = self.disk.open(&path, OpenMode::Through(SyncPoint::AppendThrough))?;
        let file = StageFile { through, cached: Arc::clone(&files.data), path };
        Stage::new(file, self.position, free).map(Some)
    }

    /// Where the segment is with all accepted batches, the last of which ends before `next`.
    pub(super) fn reach(&self, next: Offset) -> Reach {
        Reach { position: self.position, next, largest: self.indexer.largest_timestamp() }
    }

    /// Makes staged batches readable that are on the disk.
    pub(super) fn publish(&mut self, reach: Reach) {
        self.prewrite.extend_to(reach.position.next_multiple_of(BLOCK_BYTES as u64));
        self.segment.publish(reach.position, reach.next, reach.largest);
    }

    /// What the manifest says of the segment once it reaches so far.
    pub(super) fn record(&self, reach: Reach) -> SegmentRecord {
        SegmentRecord {
            size_bytes: reach.position,
            end_offset: reach.next,
            largest_timestamp: reach.largest,
            ..super::record_of(&self.segment)
        }
    }

    fn flush_aborts(&mut self) -> Result<bool, LogError> {
        if self.gathered_aborts.is_empty() {
            return Ok(false);
        }
        let path = self.segment.path(FileKind::TransactionIndex);
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.open(&path, OpenMode::Create),
            other => other,
        }
        .map_err(LogError::io("open", &path))?;
        let end = file.size().map_err(LogError::io("look at", &path))?;
        write_all_at(&*file, &mut [IoSlice::new(&self.gathered_aborts)], end)
            .map_err(LogError::io("append to", &path))?;
        self.segment.publish_aborted(self.segment.aborted().and(&self.gathered_aborts));
        self.gathered_aborts.clear();
        Ok(true)
    }

    /// Writes gathered index entries; `last` adds the entry that a sealed or closed segment ends with.
    pub(super) fn flush_indexes(&mut self, last: bool) -> Result<(), LogError> {
        if self.files.is_none() {
            return Ok(());
        }
        if last && let Some(entry) = self.indexer.final_time_entry() {
            self.gathered_times.extend_from_slice(&entry.encode());
        }
        self.open_indexes(!self.gathered_offsets.is_empty(), !self.gathered_times.is_empty())?;
        let Some(files) = &self.files else { return Ok(()) };
        let (offsets, times) = self.segment.index_entries();
        let write = |file: &Option<Arc<dyn DiskFile>>, kind, bytes: &[u8], at: u64| match file {
            Some(file) if !bytes.is_empty() => write_all_at(&**file, &mut [IoSlice::new(bytes)], at)
                .map_err(LogError::io("append to", &self.segment.path(kind))),
            _ => Ok(()),
        };
        let offsets_at = u64::from(offsets) * offset_index::ENTRY_LEN as u64;
        let times_at = u64::from(times) * time_index::ENTRY_LEN as u64;
        write(&files.offsets, FileKind::OffsetIndex, &self.gathered_offsets, offsets_at)?;
        write(&files.times, FileKind::TimeIndex, &self.gathered_times, times_at)?;
        let offsets = offsets + (self.gathered_offsets.len() / offset_index::ENTRY_LEN) as u32;
        let times = times + (self.gathered_times.len() / time_index::ENTRY_LEN) as u32;
        self.gathered_offsets.clear();
        self.gathered_times.clear();
        self.segment.publish_index(offsets, times);
        Ok(())
    }

    /// Opens those of the indexes that are named, unless they are.
    fn open_indexes(&mut self, offsets: bool, times: bool) -> Result<(), LogError> {
        let Some(files) = &self.files else { return Ok(()) };
        let open = |wanted: bool, file: &Option<Arc<dyn DiskFile>>, kind| match file {
            None if wanted => self.open_index(kind, OpenMode::Write).map(Some),
            known => Ok(known.clone()),
        };
        let offsets = open(offsets, &files.offsets, FileKind::OffsetIndex)?;
        let times = open(times, &files.times, FileKind::TimeIndex)?;
        if let Some(files) = &mut self.files {
            (files.offsets, files.times) = (offsets, times);
        }
        Ok(())
    }

    /// Ends the segment: indexes complete, zeros behind the last batch cut off. Nothing is synced here.
    pub(super) fn seal(&mut self) -> Result<(), LogError> {
        self.flush_indexes(true)?;
        self.open_indexes(true, true)?;
        let Some(files) = &self.files else { return Ok(()) };
        let path = |kind| self.segment.path(kind);
        let (offsets, times) = self.segment.index_entries();
        let trim = |file: &Arc<dyn DiskFile>, kind, bytes: u64| {
            if file.size().map_err(LogError::io("look at", &path(kind)))? > bytes {
                file.set_size(bytes).map_err(LogError::io("trim", &path(kind)))?;
            }
            Ok(())
        };
        self.prewrite.stop();
        trim(&files.data, FileKind::Data, self.segment.bytes())?;
        let entries = [
            (&files.offsets, FileKind::OffsetIndex, u64::from(offsets) * offset_index::ENTRY_LEN as u64),
            (&files.times, FileKind::TimeIndex, u64::from(times) * time_index::ENTRY_LEN as u64),
        ];
        for (file, kind, bytes) in entries {
            if let Some(file) = file {
                trim(file, kind, bytes)?;
            }
        }
        Ok(())
    }

    pub(super) fn is_awake(&self) -> bool {
        self.files.is_some()
    }

    /// Lets go of the files of a segment to which nothing is being written.
    pub(super) fn sleep(&mut self) {
        self.prewrite.stop();
        self.files = None;
        self.gathered_offsets = Vec::new();
        self.gathered_times = Vec::new();
        self.gathered_aborts = Vec::new();
    }
}

pub(super) fn index_policy(config: &LogConfig) -> IndexPolicy {
    IndexPolicy { interval_bytes: config.index_interval_bytes, max_index_bytes: config.segment_index_bytes }
}
