//! Reading by key: the records of one stream, without reading those of the others.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use floodmark_proto::batch::event_headers::APPEND_ID;
use floodmark_proto::batch::{BatchHeader, CompressionType, Record, Records};
use floodmark_proto::ids::{LeaderEpoch, Offset, TimestampMs};

use super::LogReader;
use crate::error::LogError;
use crate::key_index::file::ReadCost;
use crate::key_index::{Direction, KeySeed, LOOK_INTO, Posting};
use crate::log::condition::{Expected, Landed, StreamSeen};
use crate::segment::Segment;
use crate::segment::name::FileKind;

/// Places asked of an index at a time.
const PLACES_A_TURN: usize = 128;
/// Of a stream's newest records so many are looked at for an append that landed before.
pub const LANDED_RECORDS_MAX: usize = 64;
/// Bytes of batches and indexes read for one call: of a stream whose records are small and lie in large batches, no more comes at a time.
const READ_BYTES_MAX: u64 = 64 << 20;
/// A record whose batch is so many times larger is copied out of it, so that it does not keep the whole batch in memory.
const SHARED_BATCH_MAX: usize = 4;
/// Looks at a batch that is not where an index says, before the log is taken for damaged.
const TRIES_MAX: usize = 2;

/// What is wanted of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamQuery<'k> {
    /// The stream.
    pub key: &'k [u8],
    /// Offset to begin with: the first that may be returned, or, backward, the last.
    pub from: Offset,
    /// Oldest or newest first.
    pub direction: Direction,
    /// Only records before this offset: the high watermark or the last stable offset.
    pub below: Offset,
    /// Records at most.
    pub max_records: usize,
    /// Bytes of keys, values and headers at most; the first record is returned even where it is larger.
    pub max_bytes: usize,
}

/// A record with its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its time.
    pub timestamp: TimestampMs,
    /// The epoch in which it was appended.
    pub leader_epoch: LeaderEpoch,
    /// The stream.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in their order, duplicates included.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRead {
    /// In the order asked for.
    pub records: Vec<StreamRecord>,
    /// Forward: every record of the stream from the beginning of the read up to here, exclusive, is in `records`. Backward: every
    /// record from here on, inclusive, back from where the read began.
    pub reached: Offset,
    /// There may be more behind `reached` (backward: before it) than was asked for.
    pub is_cut_short: bool,
    /// What it took.
    pub cost: ReadCost,
}

impl StreamRecord {
    /// Bytes that count against a limit.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + optional(value)).sum();
        self.key.len() + optional(&self.value) + headers
    }
}

/// What a scan meets: a record of the stream, in its batch.
struct Met<'r> {
    header: &'r BatchHeader,
    batch: &'r Bytes,
    record: &'r Record<'r>,
    /// By this scan until now.
    read_bytes: u64,
}

impl LogReader {
    /// The secret with which this log hashes keys, where it has a key index.
    #[must_use]
    pub fn key_seed(&self) -> Option<KeySeed> {
        self.shared.keys.seed()
    }

    /// The last record of a stream before `below`. Records of aborted transactions do not count. Blocks on the disk.
    pub fn last_of_key(&self, key: &[u8], below: Offset) -> Result<Option<Offset>, LogError> {
        self.last_of_key_within(key, Offset::ZERO..below)
    }

    pub(crate) fn last_of_key_within(
        &self,
        key: &[u8],
        within: Range<Offset>,
    ) -> Result<Option<Offset>, LogError> {
        self.undisturbed(|| {
            let mut last = None;
            self.scan_key(key, within.clone(), Direction::Backward, &mut ReadCost::default(), &mut |met| {
                last = Some(met.record.offset);
                Ok(false)
            })?;
            Ok(last)
        })
    }

    /// How a stream is now, for an append that expects something of it. Blocks on the disk, so that the append need not.
    pub fn look_at_stream(
        &self,
        key: &[u8],
        expected: Expected,
        append_id: Option<&[u8]>,
    ) -> Result<StreamSeen, LogError> {
        let cuts = self.shared.cuts.load(Ordering::Acquire);
        let below = self.end();
        let last = self.last_of_key(key, below)?;
        let from = expected.lands_from();
        let landed = match append_id {
            Some(id) if last.is_some_and(|last| last >= from) => self.find_landed(key, id, from..below)?,
            _ => None,
        };
        Ok(StreamSeen { below, last, landed, cuts })
    }

    /// The batch that an append of this id left among a stream's newest records.
    pub(crate) fn find_landed(
        &self,
        key: &[u8],
        id: &[u8],
        within: Range<Offset>,
    ) -> Result<Option<Landed>, LogError> {
        self.undisturbed(|| {
            let (mut landed, mut left) = (None, LANDED_RECORDS_MAX);
            self.scan_key(key, within.clone(), Direction::Backward, &mut ReadCost::default(), &mut |met| {
                left -= 1;
                let headers = &mut met.record.headers.clone();
                if headers.flatten().any(|h| h.key == APPEND_ID && h.value == Some(id)) {
                    landed = Some(Landed {
                        base_offset: met.header.base_offset,
                        last_offset: met.header.last_offset(),
                        timestamp: met.header.max_timestamp,
                    });
                }
                Ok(landed.is_none() && left > 0)
            })?;
            Ok(landed)
        })
    }

    /// Records of one stream, in their order or back from the newest. Reads the batches that hold them, and some blocks of each
    /// segment's index. Blocks on the disk, and for long where an index must be built first.
    pub fn read_stream(&self, query: &StreamQuery<'_>) -> Result<StreamRead, LogError> {
        self.undisturbed(|| self.read_stream_once(query))
    }

    fn read_stream_once(&self, query: &StreamQuery<'_>) -> Result<StreamRead, LogError> {
        let below = query.below.min(self.end());
        let within = match query.direction {
            Direction::Forward => query.from..below,
            Direction::Backward => Offset::ZERO..below.min(Offset(query.from.0.saturating_add(1))),
        };
        let (mut records, mut bytes, mut is_cut_short) = (Vec::new(), 0, false);
        let mut cost = ReadCost::default();
        self.scan_key(query.key, within.clone(), query.direction, &mut cost, &mut |met| {
            if records.len() >= query.max_records {
                is_cut_short = true;
                return Ok(false);
            }
            let record = own(&met)?;
            bytes += record.size_bytes();
            let is_enough = bytes > query.max_bytes || met.read_bytes > READ_BYTES_MAX;
            if is_enough && !records.is_empty() {
                is_cut_short = true;
                return Ok(false);
            }
            records.push(record);
            Ok(true)
        })?;
        let last = records.last().map(|record: &StreamRecord| record.offset);
        let reached = match (query.direction, is_cut_short) {
            (Direction::Forward, true) => last.map_or(query.from, Offset::next),
            (Direction::Forward, false) => within.end.max(query.from),
            (Direction::Backward, true) => last.unwrap_or(within.end),
            (Direction::Backward, false) => self.start(),
        };
        Ok(StreamRead { records, reached, is_cut_short, cost })
    }

    /// Shows `visit` every record of `key` within these offsets, until it says false. Records of aborted transactions are left out.
    fn scan_key(
        &self,
        key: &[u8],
        within: Range<Offset>,
        direction: Direction,
        cost: &mut ReadCost,
        visit: &mut dyn FnMut(Met<'_>) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        self.shared.key_seed()?;
        let within = within.start.max(self.start())..within.end;
        let segments = self.shared.segments.load();
        let is_wanted = |s: &&Arc<Segment>| s.base < within.end && s.end() > within.start;
        let mut wanted: Vec<&Arc<Segment>> = segments.iter().filter(is_wanted).collect();
        if direction == Direction::Backward {
            wanted.reverse();
        }
        for segment in wanted {
            let relative = |offset: Offset| u32::try_from(offset - segment.base).unwrap_or(u32::MAX);
            let rest = relative(within.start.max(segment.base))..relative(within.end.min(segment.end()));
            if !self.scan_segment(segment, key, rest, direction, cost, visit)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False where `visit` has seen enough.
    fn scan_segment(
        &self,
        segment: &Arc<Segment>,
        key: &[u8],
        mut rest: Range<u32>,
        direction: Direction,
        cost: &mut ReadCost,
        visit: &mut dyn FnMut(Met<'_>) -> Result<bool, LogError>,
    ) -> Result<bool, LogError> {
        let mut tries = 0;
        while !rest.is_empty() {
            let places = self.shared.places(segment, key, &rest, PLACES_A_TURN, direction, cost)?;
            let mut is_wrong = false;
            for of_batch in places.chunk_by(|a, b| a.position == b.position) {
                match self.visit_batch(segment, key, of_batch, cost, visit)? {
                    Some(true) => rest = behind(&rest, of_batch, direction),
                    Some(false) => return Ok(false),
                    None => {
                        is_wrong = true;
                        break;
                    }
                }
            }
            if is_wrong {
                if tries == TRIES_MAX {
                    let path = segment.path(FileKind::Data);
                    return Err(LogError::damaged(&path, 0, "a record is not where its key index says"));
                }
                tries += 1;
                self.shared.distrust(segment);
            } else if places.len() < PLACES_A_TURN {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Visits records of one batch, in the order of `places`. `None` where they are not there; false where `visit` has seen enough.
    fn visit_batch(
        &self,
        segment: &Segment,
        key: &[u8],
        places: &[Posting],
        cost: &mut ReadCost,
        visit: &mut dyn FnMut(Met<'_>) -> Result<bool, LogError>,
    ) -> Result<Option<bool>, LogError> {
        let Some(first) = places.first() else { return Ok(Some(true)) };
        let Some((header, batch)) = segment.read_batch_at(u64::from(first.position), cost)? else {
            return Ok(None);
        };
        let mut scratch = Vec::new();
        let offset_of = |place: &Posting| Offset(segment.base.0 + i64::from(place.offset));
        let Ok(records) = Records::open(&batch, &LOOK_INTO, &mut scratch) else { return Ok(None) };
        // A record that cannot be read ends what any reader can see of its batch.
        let records: Vec<Record<'_>> = records.map_while(Result::ok).collect();
        let is_aborted = header.attributes.is_transactional()
            && self.aborted_transactions_once(header.base_offset, header.next_offset())?.iter().any(
                |aborted| {
                    aborted.producer_id == header.producer_id
                        && (aborted.first_offset..=aborted.last_offset).contains(&header.base_offset)
                },
            );
        // All are looked for before one is shown: none may be shown twice.
        let holds = |place: &Posting| records.iter().any(|r| r.offset == offset_of(place));
        if !places.iter().all(holds) {
            return Ok(None);
        }
        for place in places.iter().filter(|_| !is_aborted) {
            let offset = offset_of(place);
            // There may be none: another key may have the same hash.
            let of_key = records.iter().find(|r| r.offset == offset && r.key == Some(key));
            let Some(record) = of_key else { continue };
            if !visit(Met { header: &header, batch: &batch, record, read_bytes: cost.bytes })? {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }
}

/// What is left to look at once the records at `done` were.
fn behind(rest: &Range<u32>, done: &[Posting], direction: Direction) -> Range<u32> {
    match (done.last(), direction) {
        (None, _) => rest.clone(),
        (Some(last), Direction::Forward) => last.offset.saturating_add(1)..rest.end,
        (Some(last), Direction::Backward) => rest.start..last.offset,
    }
}

/// A record that outlives the batch it was met in. Its parts share the batch's bytes, or are copied out of them.
fn own(met: &Met<'_>) -> Result<StreamRecord, LogError> {
    let record = met.record;
    let is_plain = met.header.attributes.compression() == Some(CompressionType::None);
    let is_shared = is_plain && met.batch.len() <= SHARED_BATCH_MAX * record.raw().len();
    let part = |bytes: &[u8]| {
        if is_shared { met.batch.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) }
    };
    let headers = record.headers.map(|header| header.map(|h| (part(h.key), h.value.map(part))));
    let headers: Result<Vec<_>, _> = headers.collect();
    Ok(StreamRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        leader_epoch: met.header.leader_epoch,
        key: part(record.key.unwrap_or_default()),
        value: record.value.map(part),
        headers: headers.map_err(|e| LogError::Refused {
            path: format!("record at offset {}", record.offset).into(),
            reason: e.to_string(),
        })?,
    })
}
