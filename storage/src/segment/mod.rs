//! One segment as its readers see it: a data file and the sparse indexes beside it, opened and mapped when first needed.
//! Must know nothing of who writes it, nor of other segments.

mod keys;
pub mod name;
mod reading;
pub mod scan;
pub mod survey;
pub(crate) mod walk;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, TimestampMs};
use parking_lot::Mutex;

use crate::error::LogError;
use crate::fs::{Disk, DiskFile, FileMap, OpenMode, read_full_at};
use crate::index::transaction_index::EntriesFacts;
use crate::index::{
    AbortedTransaction, OffsetEntry, TimeEntry, TimestampOffset, offset_index, time_index, transaction_index,
};
pub(crate) use keys::Head;
use keys::SegmentKeys;
use name::FileKind;
use reading::ReadEnds;
use walk::{HeaderWalk, SegmentBytes};

/// One segment. The writer publishes into the atomics; readers take what is published and never wait.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: Offset,
    dir: Arc<Path>,
    disk: Arc<dyn Disk>,
    open: Mutex<OpenFiles>,
    /// Bytes of complete batches; what lies behind is nobody's to read.
    published_bytes: AtomicU64,
    end_offset: AtomicI64,
    largest_timestamp: AtomicI64,
    largest_timestamp_offset: AtomicI64,
    offset_entries: AtomicU32,
    time_entries: AtomicU32,
    /// Facts of the transaction index: entries, then CRC, 32 bits each.
    aborted: AtomicU64,
    /// No more bytes will come and all are synced: it may be mapped.
    settled: AtomicBool,
    /// Used since the last look; see [`Segment::release_if_idle`].
    touched: AtomicBool,
    keys: SegmentKeys,
    read_ends: ReadEnds,
    first_timestamp: OnceLock<TimestampMs>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    data: Option<Arc<dyn DiskFile>>,
    offset_index: Option<Arc<dyn DiskFile>>,
    time_index: Option<Arc<dyn DiskFile>>,
    map: Option<Mapped>,
}

#[derive(Debug, Clone)]
struct Mapped {
    map: Arc<FileMap>,
    /// The whole map as bytes that keep it alive; readers are handed slices.
    bytes: Bytes,
}

struct MapOwner(Arc<FileMap>);

impl AsRef<[u8]> for MapOwner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// What is known of a segment that is not opened yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentFacts {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    pub(crate) largest_timestamp: Option<TimestampOffset>,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
    pub(crate) aborted: EntriesFacts,
    pub(crate) settled: bool,
}

impl SegmentFacts {
    /// A segment that holds nothing yet.
    pub(crate) fn empty(base: Offset) -> SegmentFacts {
        SegmentFacts {
            base,
            end: base,
            bytes: 0,
            largest_timestamp: None,
            offset_entries: 0,
            time_entries: 0,
            aborted: EntriesFacts::default(),
            settled: false,
        }
    }
}

/// What a read may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Bytes of batches at most; the first batch is returned whole even where it is larger.
    pub max_bytes: usize,
    /// Only batches that end before this offset: the high watermark or the last stable offset.
    pub below: Offset,
}

impl Segment {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: Arc<Path>, facts: SegmentFacts) -> Segment {
        let largest = facts.largest_timestamp.unwrap_or(NO_TIMESTAMP);
        Segment {
            base: facts.base,
            dir,
            disk,
            open: Mutex::new(OpenFiles::default()),
            published_bytes: AtomicU64::new(facts.bytes),
            end_offset: AtomicI64::new(facts.end.0),
            largest_timestamp: AtomicI64::new(largest.timestamp),
            largest_timestamp_offset: AtomicI64::new(largest.offset.0),
            offset_entries: AtomicU32::new(facts.offset_entries),
            time_entries: AtomicU32::new(facts.time_entries),
            aborted: AtomicU64::new(packed(facts.aborted)),
            settled: AtomicBool::new(facts.settled),
            touched: AtomicBool::new(false),
            keys: SegmentKeys::new(facts.bytes, facts.end),
            read_ends: ReadEnds::default(),
            first_timestamp: OnceLock::new(),
        }
    }

    /// The largest timestamp of a sealed segment's first batch. Reads it once: who chooses what to compact asks all segments each time.
    pub(crate) fn first_timestamp(&self) -> Result<Option<TimestampMs>, LogError> {
        let first = match self.first_timestamp.get() {
            Some(first) => *first,
            None => {
                let (source, path) = (self.source_for_now()?, self.path(FileKind::Data));
                let first = HeaderWalk::new(&source, &path, 0, self.bytes()).step()?;
                let first = first.map_or(-1, |(_, header)| header.max_timestamp);
                *self.first_timestamp.get_or_init(|| first)
            }
        };
        Ok(Some(first).filter(|timestamp| *timestamp >= 0))
    }

    pub(crate) fn path(&self, kind: FileKind) -> PathBuf {
        name::path_of(&self.dir, self.base, kind)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.published_bytes.load(Ordering::Acquire)
    }

    /// First offset after the segment.
    pub(crate) fn end(&self) -> Offset {
        Offset(self.end_offset.load(Ordering::Acquire))
    }

    pub(crate) fn largest_timestamp(&self) -> Option<TimestampOffset> {
        let timestamp = self.largest_timestamp.load(Ordering::Acquire);
        let offset = Offset(self.largest_timestamp_offset.load(Ordering::Acquire));
        (timestamp >= 0).then_some(TimestampOffset { timestamp, offset })
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Makes `bytes` up to `end` readable. The writer's call, after the bytes are written.
    pub(crate) fn publish(&self, bytes: u64, end: Offset, largest: Option<TimestampOffset>) {
        let largest = largest.unwrap_or(NO_TIMESTAMP);
        // A reader that sees the bytes must find their offsets inside the segment.
        self.end_offset.store(end.0, Ordering::Release);
        // A reader between these two stores sees the old pair or a new offset with an old time: a look-up that starts early.
        self.largest_timestamp_offset.store(largest.offset.0, Ordering::Release);
        self.largest_timestamp.store(largest.timestamp, Ordering::Release);
        self.published_bytes.store(bytes, Ordering::Release);
    }

    pub(crate) fn publish_index(&self, offset_entries: u32, time_entries: u32) {
        self.offset_entries.store(offset_entries, Ordering::Release);
        self.time_entries.store(time_entries, Ordering::Release);
    }

    pub(crate) fn index_entries(&self) -> (u32, u32) {
        (self.offset_entries.load(Ordering::Acquire), self.time_entries.load(Ordering::Acquire))
    }

    /// Says what the transaction index holds. The writer's call, before it publishes the batches that the entries are of.
    pub(crate) fn publish_aborted(&self, facts: EntriesFacts) {
        self.aborted.store(packed(facts), Ordering::Release);
    }

    pub(crate) fn aborted(&self) -> EntriesFacts {
        let packed = self.aborted.load(Ordering::Acquire);
        EntriesFacts { entries: (packed >> 32) as u32, crc: packed as u32 }
    }

    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// The data file, opened if need be.
    pub(crate) fn data_file(&self) -> Result<Arc<dyn DiskFile>, LogError> {
        self.touched.store(true, Ordering::Relaxed);
        let mut open = self.open.lock();
        if let Some(file) = &open.data {
            return Ok(Arc::clone(file));
        }
        let path = self.path(FileKind::Data);
        let mode = if self.is_settled() { OpenMode::Read } else { OpenMode::Write };
        let file = self.disk.open(&path, mode).map_err(LogError::io("open", &path))?;
        open.data = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Gives the segment the file that its writer just made.
    pub(crate) fn adopt_data_file(&self, file: Arc<dyn DiskFile>) {
        self.open.lock().data = Some(file);
    }

    /// The bytes to walk: a map where that is allowed and to be had, else the file.
    pub(crate) fn source(&self) -> Result<SegmentBytes, LogError> {
        if self.is_settled()
            && let Some(mapped) = self.mapped()?
        {
            return Ok(SegmentBytes::Mapped(mapped.map));
        }
        Ok(SegmentBytes::File(self.data_file()?))
    }

    /// The same for whoever comes by once and goes over many segments: what this opens is closed with it. Maps that a pass over a large log
    /// left behind could be as many as a process may have, and memory is made of maps as well.
    pub(crate) fn source_for_now(&self) -> Result<SegmentBytes, LogError> {
        if !self.is_settled() {
            return self.source();
        }
        if let Some(mapped) = &self.open.lock().map {
            return Ok(SegmentBytes::Mapped(Arc::clone(&mapped.map)));
        }
        let path = self.path(FileKind::Data);
        let file = self.disk.open(&path, OpenMode::Read).map_err(LogError::io("open", &path))?;
        match file.map(self.bytes()) {
            Ok(map) => Ok(SegmentBytes::Mapped(Arc::new(map))),
            Err(_) => Ok(SegmentBytes::File(file)),
        }
    }

    fn mapped(&self) -> Result<Option<Mapped>, LogError> {
        self.touched.store(true, Ordering::Relaxed);
        let mut open = self.open.lock();
        if let Some(mapped) = &open.map {
            return Ok(Some(mapped.clone()));
        }
        let path = self.path(FileKind::Data);
        let file = match &open.data {
            Some(file) => Arc::clone(file),
            None => self.disk.open(&path, OpenMode::Read).map_err(LogError::io("open", &path))?,
        };
        // Where no map can be had (too many, or a disk that refuses), reading still serves.
        let Ok(map) = file.map(self.bytes()) else { return Ok(None) };
        let map = Arc::new(map);
        let mapped = Mapped { bytes: Bytes::from_owner(MapOwner(Arc::clone(&map))), map };
        // The map keeps the file; a second handle would only use up a descriptor.
        open.data = None;
        open.map = Some(mapped.clone());
        Ok(Some(mapped))
    }

    /// Closes files and maps that nobody used since the last call. Bytes handed out stay valid.
    pub(crate) fn release_if_idle(&self) {
        if self.is_settled() {
            self.close_if_idle();
        }
    }

    /// The same for the segment being written, whose bytes must all be synced.
    pub(crate) fn close_if_idle(&self) {
        if !self.touched.swap(false, Ordering::Relaxed) {
            *self.open.lock() = OpenFiles::default();
            self.keys.release();
        }
    }

    /// Forgets open files, because those of another name took their place.
    pub(crate) fn release(&self) {
        self.read_ends.forget();
        *self.open.lock() = OpenFiles::default();
    }

    fn index_file(&self, kind: FileKind) -> Result<Arc<dyn DiskFile>, LogError> {
        let mut open = self.open.lock();
        let slot = match kind {
            FileKind::TimeIndex => &mut open.time_index,
            _ => &mut open.offset_index,
        };
        if let Some(file) = slot {
            return Ok(Arc::clone(file));
        }
        let path = self.path(kind);
        let file = self.disk.open(&path, OpenMode::Read).map_err(LogError::io("open", &path))?;
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    fn read_entry<const N: usize>(&self, kind: FileKind, n: u32) -> Result<[u8; N], LogError> {
        let file = self.index_file(kind)?;
        let mut entry = [0; N];
        let path = || self.path(kind);
        match read_full_at(&*file, &mut entry, u64::from(n) * N as u64) {
            Ok(read) if read == N => Ok(entry),
            Ok(_) => Err(LogError::damaged(
                &path(),
                u64::from(n) * N as u64,
                "the index is shorter than its entries",
            )),
            Err(e) => Err(LogError::io("read", &path())(e)),
        }
    }

    /// A cheap look at index files of these sizes: do they end as those of this sealed segment must?
    pub(crate) fn indexes_look_whole(&self, offset_bytes: u64, time_bytes: u64) -> bool {
        let (offsets, times) = self.index_entries();
        if offset_bytes != u64::from(offsets) * offset_index::ENTRY_LEN as u64
            || time_bytes != u64::from(times) * time_index::ENTRY_LEN as u64
        {
            return false;
        }
        let last_offset_is_good = offsets == 0
            || self.read_entry(FileKind::OffsetIndex, offsets - 1).is_ok_and(|e| {
                let entry = OffsetEntry::decode(&e);
                entry.position > 0
                    && u64::from(entry.position) < self.bytes()
                    && entry.offset(self.base) < self.end()
            });
        // A sealed segment's time index ends with its largest timestamp.
        let last_time_is_good = match self.largest_timestamp() {
            None => true,
            Some(largest) => {
                times > 0
                    && self
                        .read_entry(FileKind::TimeIndex, times - 1)
                        .is_ok_and(|e| TimeEntry::decode(&e).timestamp == largest.timestamp)
            }
        };
        last_offset_is_good && last_time_is_good
    }

    /// The last offset entry at or before `target`, unchecked: an index that cannot be read has none.
    fn probe(&self, target: Offset) -> Option<OffsetEntry> {
        let relative = u32::try_from(target - self.base).ok()?;
        let entry_at = |n| self.read_entry(FileKind::OffsetIndex, n).map(|e| OffsetEntry::decode(&e));
        offset_index::find(self.index_entries().0, entry_at, relative).unwrap_or(None)
    }

    /// Where to begin walking to `target`.
    ///
    /// Kafka's indexes carry no checksum, so an entry counts only if the batch it points to is the one it names; otherwise
    /// the segment is walked from its start, which is slower and always right.
    fn start_of_walk(&self, source: &SegmentBytes, entry: Option<OffsetEntry>) -> Result<u64, LogError> {
        let Some(entry) = entry else { return Ok(0) };
        let path = self.path(FileKind::Data);
        let at = u64::from(entry.position);
        match HeaderWalk::new(source, &path, at, self.bytes()).step() {
            Ok(Some((_, header)))
                if header.last_offset() == entry.offset(self.base) && header.base_offset >= self.base =>
            {
                Ok(at)
            }
            Err(e @ LogError::Io { .. }) => Err(e),
            _ => Ok(0),
        }
    }

    /// True where the batches that the last entries of both indexes name are there and as the entries say. Without a time
    /// entry nothing tells the largest timestamp of what the offset entries pass over.
    pub(crate) fn holds_entries(
        &self,
        offset: Option<OffsetEntry>,
        time: Option<TimeEntry>,
    ) -> Result<bool, LogError> {
        let source = self.source()?;
        if offset.is_some() && (time.is_none() || self.start_of_walk(&source, offset)? == 0) {
            return Ok(false);
        }
        let Some(time) = time else { return Ok(true) };
        let named = self.locate(&source, time.offset(self.base))?;
        Ok(named.is_some_and(|(_, header)| {
            header.max_timestamp == time.timestamp && header.last_offset() == time.offset(self.base)
        }))
    }

    /// Position and header of the batch that holds `target`, or of the first after it where compaction left a gap.
    pub(crate) fn locate(
        &self,
        source: &SegmentBytes,
        target: Offset,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        self.locate_from(source, target, self.probe(target))
    }

    /// Where the batch that holds `target` begins, the end where there is none, 0 where that cannot be found out.
    pub(crate) fn position_of(&self, target: Offset) -> u64 {
        if target >= self.end() {
            return self.bytes();
        }
        let located = self.source().and_then(|source| self.locate(&source, target));
        match located {
            Ok(Some((position, _))) => position,
            Ok(None) => self.bytes(),
            Err(_) => 0,
        }
    }

    fn locate_from(
        &self,
        source: &SegmentBytes,
        target: Offset,
        entry: Option<OffsetEntry>,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let path = self.path(FileKind::Data);
        let start = self.start_of_walk(source, entry)?;
        let bytes = self.bytes();
        let mut walk = HeaderWalk::new(source, &path, start, bytes).within(self.base..self.end());
        while let Some((position, header)) = walk.step()? {
            if header.last_offset() >= target {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// One whole batch, whose header was met at `position`.
    pub(crate) fn read_batch(&self, position: u64, header: &BatchHeader) -> Result<Bytes, LogError> {
        if self.is_settled()
            && let Some(mapped) = self.mapped()?
        {
            let range = position as usize..position as usize + header.size_bytes();
            let path = self.path(FileKind::Data);
            mapped.map.populate(range.clone()).map_err(LogError::io("read", &path))?;
            return Ok(mapped.bytes.slice(range));
        }
        let mut batch = vec![0; header.size_bytes()];
        let path = self.path(FileKind::Data);
        let read =
            read_full_at(&*self.data_file()?, &mut batch, position).map_err(LogError::io("read", &path))?;
        if read < batch.len() {
            return Err(LogError::damaged(&path, position, "the file ends inside a batch"));
        }
        Ok(Bytes::from(batch))
    }

    /// The first batch at or after `from` whose largest timestamp reaches `target`.
    pub(crate) fn first_batch_reaching(
        &self,
        target: TimestampMs,
        from: Offset,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        if self.bytes() == 0 {
            return Ok(None);
        }
        let source = self.source()?;
        let entry_at = |n| self.read_entry(FileKind::TimeIndex, n).map(|e| TimeEntry::decode(&e));
        let entry =
            time_index::find(self.index_entries().1, entry_at, target.saturating_sub(1)).unwrap_or(None);
        // An entry counts only if its batch carries its timestamp: the index has no checksum.
        let mut start = from;
        if let Some(entry) = entry
            && let Some((_, header)) = self.locate(&source, entry.offset(self.base))?
            && header.max_timestamp == entry.timestamp
            && header.last_offset() == entry.offset(self.base)
        {
            start = start.max(entry.offset(self.base));
        }
        let Some((position, _)) = self.locate(&source, start)? else { return Ok(None) };
        let path = self.path(FileKind::Data);
        let bytes = self.bytes();
        let mut walk = HeaderWalk::new(&source, &path, position, bytes).within(self.base..self.end());
        while let Some((position, header)) = walk.step()? {
            if header.max_timestamp >= target {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// The largest timestamp by the batches themselves, of which all headers are read: indexes are not synced and may be
    /// behind.
    pub(crate) fn find_largest_timestamp(&self) -> Result<Option<TimestampOffset>, LogError> {
        let mut largest: Option<TimestampOffset> = None;
        if self.bytes() == 0 {
            return Ok(None);
        }
        let source = self.source()?;
        let path = self.path(FileKind::Data);
        let mut walk = HeaderWalk::new(&source, &path, 0, self.bytes()).within(self.base..self.end());
        while let Some((_, header)) = walk.step()? {
            if header.max_timestamp > largest.map_or(-1, |l| l.timestamp) {
                largest =
                    Some(TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() });
            }
        }
        Ok(largest)
    }

    /// The aborted transactions that ended in this segment.
    ///
    /// Fails with [`LogError::Damaged`] where the index is not what was written: without it, records of aborted transactions
    /// would pass for committed ones.
    pub(crate) fn aborted_transactions(&self) -> Result<Vec<AbortedTransaction>, LogError> {
        // Before the file is read: entries that are added meanwhile are of batches that nobody may read yet.
        let facts = self.aborted();
        if facts.entries == 0 {
            return Ok(Vec::new());
        }
        let path = self.path(FileKind::TransactionIndex);
        let content = crate::fs::read_small_file(&*self.disk, &path, transaction_index::BYTES_MAX)
            .map_err(LogError::io("read", &path))?
            .unwrap_or_default();
        let Some(entries) = facts.found_in(&content) else {
            let reason = format!(
                "its {} aborted transactions are missing or changed; opening the log anew rebuilds them",
                facts.entries
            );
            return Err(LogError::damaged(&path, 0, reason));
        };
        transaction_index::parse(entries).map_err(|source| LogError::BadFile { path, source })
    }
}

fn packed(facts: EntriesFacts) -> u64 {
    u64::from(facts.entries) << 32 | u64::from(facts.crc)
}

const NO_TIMESTAMP: TimestampOffset = TimestampOffset { timestamp: -1, offset: Offset(-1) };
