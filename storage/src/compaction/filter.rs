//! One batch in; kept byte for byte, rewritten, or dropped. Kafka's rules (KIP-534 among them), where it has them.
//! Judges checked batches in log order, from the first of the log on; knows no files.

use bytes::Bytes;
use floodmark_proto::batch::{
    BatchBuilder, BatchError, BatchHeader, DecompressLimits, EndTransactionMarker, Records, TransactionResult,
};
use floodmark_proto::ids::{Offset, TimestampMs};

use super::offset_map::{KeyHash, MapFull, NewestOffsets, OffsetMap};
use super::transactions::{AbortedTransactions, LastOfProducers, MetTransactions};
use crate::index::AbortedTransaction;

/// Records decoded at a time; a batch that needs more was not written through this log.
const DECODED_MAX: DecompressLimits = DecompressLimits { max_bytes: 1 << 30, max_ratio: 1 << 20 };

/// Of records whose order no log has. Their batch is kept as it is.
const OUT_OF_ORDER: BatchError =
    BatchError::Record { index: 0, reason: "its offset is not where its batch lies" };

/// Records whose places in the key map are brought into the caches together; so few that they are there still when they are used, and that what
/// is kept of them is small, however many records a batch unpacks to.
const RECORDS_A_LOOK: usize = 1024;

/// Notes the newest offset of each key of a log's dirty part.
#[derive(Debug)]
pub struct KeyMapper<'a> {
    map: OffsetMap,
    first_dirty: Offset,
    aborted: &'a AbortedTransactions,
    covered: Offset,
    /// The keys to be noted next; kept for their memory, as `scratch` is.
    next_keys: Vec<(KeyHash, Offset)>,
    scratch: Vec<u8>,
    unreadable: u64,
}

/// The keys of the dirty part, as far as the memory went.
#[derive(Debug)]
pub struct MappedKeys {
    /// Newest offsets.
    pub map: OffsetMap,
    /// Where mapping began: from here on the offset of a record tells whether it is the newest of its key.
    pub first_dirty: Offset,
    /// Records before this offset are covered: the pass may judge them, and only them.
    pub covered: Offset,
    /// Batches whose records could not be decoded, and which are kept as they are.
    pub unreadable_batches: u64,
}

impl<'a> KeyMapper<'a> {
    /// Maps records at and after `first_dirty` into `map`.
    #[must_use]
    pub fn new(map: OffsetMap, first_dirty: Offset, aborted: &'a AbortedTransactions) -> KeyMapper<'a> {
        KeyMapper {
            map,
            first_dirty,
            aborted,
            covered: first_dirty,
            next_keys: Vec::with_capacity(RECORDS_A_LOOK),
            scratch: Vec::new(),
            unreadable: 0,
        }
    }

    /// Takes the keys of the next batch. Where the map is full, coverage ends before the record that found no room, and nothing
    /// more may be added.
    pub fn add(&mut self, batch: &[u8], header: &BatchHeader) -> Result<(), MapFull> {
        if !header.attributes.is_control() && !self.aborted.holds(header) {
            match self.add_keys(batch) {
                Ok(full) => full?,
                Err(_) => self.unreadable += 1,
            }
        }
        self.covered = self.covered.max(header.next_offset());
        Ok(())
    }

    /// The outer error is the batch's, the inner one the map's.
    fn add_keys(&mut self, batch: &[u8]) -> Result<Result<(), MapFull>, BatchError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let added = self.add_records(batch, &mut scratch);
        self.scratch = scratch;
        added
    }

    fn add_records(
        &mut self,
        batch: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Result<(), MapFull>, BatchError> {
        let mut records = Records::open(batch, &DECODED_MAX, scratch)?;
        loop {
            self.next_keys.clear();
            let (mut count, mut read) = (0, Ok(()));
            for record in records.by_ref().take(RECORDS_A_LOOK) {
                count += 1;
                match record {
                    Ok(record) => {
                        if let Some(key) = record.key.filter(|_| record.offset >= self.first_dirty) {
                            self.next_keys.push((self.map.hash(key), record.offset));
                        }
                    }
                    Err(e) => {
                        read = Err(e);
                        break;
                    }
                }
            }
            if let Err(full) = self.note_keys() {
                return Ok(Err(full));
            }
            read?;
            if count < RECORDS_A_LOOK {
                return Ok(Ok(()));
            }
        }
    }

    fn note_keys(&mut self) -> Result<(), MapFull> {
        self.map.approach(self.next_keys.iter().map(|(key, _)| *key));
        for (key, offset) in &self.next_keys {
            if let Err(full) = self.map.put(*key, *offset) {
                self.covered = *offset;
                return Err(full);
            }
        }
        Ok(())
    }

    /// Ends the mapping.
    #[must_use]
    pub fn finish(self) -> MappedKeys {
        MappedKeys {
            map: self.map,
            first_dirty: self.first_dirty,
            covered: self.covered,
            unreadable_batches: self.unreadable,
        }
    }
}

/// What becomes of a batch.
#[derive(Debug)]
pub enum Fate {
    /// It stays as it is, byte for byte.
    Keep,
    /// This takes its place.
    Replace(BatchHeader, Bytes),
    /// It goes.
    Drop,
}

/// Counts of records, batches and what was wrong with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterCounts {
    /// Records that stay, markers included.
    pub records_kept: u64,
    /// Records that go, markers included.
    pub records_dropped: u64,
    /// Of those, records without a key, which a compacted log has no place for.
    pub keyless_dropped: u64,
    /// Batches kept byte for byte.
    pub batches_kept: u64,
    /// Batches written anew.
    pub batches_rewritten: u64,
    /// Batches that went whole.
    pub batches_dropped: u64,
    /// Batches whose records could not be decoded, or are out of order; kept as they are, so that one of them cannot end cleaning for good (R23).
    pub batches_unreadable: u64,
}

/// What a filter must know beside the batches.
#[derive(Debug)]
pub struct FilterFacts {
    /// The keys of the dirty part.
    pub keys: MappedKeys,
    /// Transactions whose data goes.
    pub aborted: AbortedTransactions,
    /// What must stay for producers.
    pub producers: LastOfProducers,
    /// The time of the pass.
    pub now_ms: TimestampMs,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The last of its output segment: it stays, emptied if need be, so that the segment's end stays exact (R21).
    pub is_last_of_segment: bool,
    /// It may become larger: there is room for new timestamp deltas.
    pub may_grow: bool,
}

/// What must be known of a record to judge it by its key.
#[derive(Debug, Clone, Copy)]
struct BatchRecord {
    offset: Offset,
    key: Option<KeyHash>,
    is_tombstone: bool,
}

/// Which records of one batch stay; kept for its memory.
#[derive(Debug, Default)]
struct Verdicts {
    stays: Vec<bool>,
    kept: usize,
    keyless_dropped: u64,
    keeps_tombstone: bool,
    /// From here on every record stays.
    covered: Offset,
    /// The time of the batch's tombstones is over.
    is_past_horizon: bool,
}

impl Verdicts {
    fn begin(&mut self, covered: Offset, is_past_horizon: bool) {
        let mut stays = std::mem::take(&mut self.stays);
        stays.clear();
        *self = Verdicts { stays, covered, is_past_horizon, ..Verdicts::default() };
    }

    #[inline]
    fn judge(&mut self, offset: Offset, has_key: bool, is_tombstone: bool, is_newest: impl FnOnce() -> bool) {
        let is_over = is_tombstone && self.is_past_horizon;
        let stays = offset >= self.covered || has_key && is_newest() && !is_over;
        self.kept += usize::from(stays);
        self.keyless_dropped += u64::from(!has_key && !stays);
        self.keeps_tombstone |= stays && is_tombstone;
        self.stays.push(stays);
    }
}

/// Judges the batches of one pass, in log order from the first batch of the log on.
#[derive(Debug)]
pub struct BatchFilter {
    /// Tells which records before the part that was mapped are newest; made into the list where that part begins.
    map: Option<OffsetMap>,
    newest: NewestOffsets,
    first_dirty: Offset,
    covered: Offset,
    /// The least offset that the list may be asked for.
    unasked: Offset,
    aborted: AbortedTransactions,
    producers: LastOfProducers,
    now_ms: TimestampMs,
    delete_retention_ms: i64,
    met: MetTransactions,
    /// The records to be judged next; kept for their memory.
    next_records: Vec<BatchRecord>,
    verdicts: Verdicts,
    scratch: Vec<u8>,
    counts: FilterCounts,
    /// Entries for the transaction index of the output.
    still_aborted: Vec<AbortedTransaction>,
}

impl BatchFilter {
    /// A filter that has met nothing yet.
    #[must_use]
    pub fn new(facts: FilterFacts) -> BatchFilter {
        let keys = facts.keys;
        BatchFilter {
            map: Some(keys.map),
            newest: NewestOffsets::default(),
            first_dirty: keys.first_dirty,
            covered: keys.covered,
            unasked: keys.first_dirty,
            aborted: facts.aborted,
            producers: facts.producers,
            now_ms: facts.now_ms,
            delete_retention_ms: facts.delete_retention_ms,
            met: MetTransactions::default(),
            next_records: Vec::with_capacity(RECORDS_A_LOOK),
            verdicts: Verdicts::default(),
            scratch: Vec::new(),
            counts: FilterCounts::default(),
            still_aborted: Vec::new(),
        }
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> FilterCounts {
        self.counts
    }

    /// Aborted transactions whose marker was met since the last call and must stay in the index.
    pub fn take_aborted(&mut self) -> Vec<AbortedTransaction> {
        std::mem::take(&mut self.still_aborted)
    }

    /// Judges `batch`, whose checksum holds. Decodes its records, in memory that is used again; writes none that stays whole.
    pub fn judge(&mut self, batch: &[u8], header: &BatchHeader, standing: Standing) -> Fate {
        let unreadable_before = self.counts.batches_unreadable;
        let judged = if header.attributes.is_control() {
            self.judge_control(batch, header, standing)
        } else {
            self.judge_data(batch, header, standing)
        };
        let fate = judged.unwrap_or_else(|_| {
            self.counts.batches_unreadable = unreadable_before + 1;
            Fate::Keep
        });
        self.count(header, &fate);
        fate
    }

    fn judge_data(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        standing: Standing,
    ) -> Result<Fate, BatchError> {
        self.met.on_data(header);
        if header.base_offset >= self.covered {
            return Ok(Fate::Keep);
        }
        let must_stay = standing.is_last_of_segment || self.producers.includes(header);
        if header.record_count == 0 || self.aborted.holds(header) {
            return empty_or_drop(header, must_stay);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let fate = self.judge_records(batch, header, must_stay, standing.may_grow, &mut scratch);
        self.scratch = scratch;
        fate
    }

    fn judge_records(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        must_stay: bool,
        may_grow: bool,
        scratch: &mut Vec<u8>,
    ) -> Result<Fate, BatchError> {
        let records = Records::open(batch, &DECODED_MAX, scratch)?;
        self.verdicts.begin(self.covered, self.is_past_horizon(header));
        if header.base_offset >= self.first_dirty {
            self.judge_by_offset(records.clone(), header)?;
        } else {
            self.judge_by_key(records.clone())?;
        }
        let Verdicts { ref stays, kept, keyless_dropped, keeps_tombstone, .. } = self.verdicts;
        self.counts.keyless_dropped += keyless_dropped;
        if kept == 0 {
            return empty_or_drop(header, must_stay);
        }
        // A tombstone's time runs from the first pass that has removed what it deletes: not before its batch is covered whole.
        let is_covered = header.next_offset() <= self.covered;
        let starts_clock = keeps_tombstone && is_covered && header.delete_horizon_ms().is_none() && may_grow;
        if kept == stays.len() && !starts_clock {
            return Ok(Fate::Keep);
        }
        let horizon = starts_clock.then(|| self.new_horizon());
        match rewrite(header, horizon, records.clone(), stays) {
            // Times so far off that they cannot be told as distances to the horizon: the tombstone stays without one.
            Err(_) if horizon.is_some() && kept == stays.len() => Ok(Fate::Keep),
            Err(_) if horizon.is_some() => rewrite(header, None, records, stays),
            other => other,
        }
    }

    /// Some record of the batch may lie before the part that was mapped, so that its key must be asked for.
    fn judge_by_key(&mut self, mut records: Records<'_>) -> Result<(), BatchError> {
        let Some(map) = &self.map else { return Err(OUT_OF_ORDER) };
        loop {
            self.next_records.clear();
            for record in records.by_ref().take(RECORDS_A_LOOK) {
                let record = record?;
                self.next_records.push(BatchRecord {
                    offset: record.offset,
                    key: record.key.map(|key| map.hash(key)),
                    is_tombstone: record.value.is_none(),
                });
            }
            map.approach(self.next_records.iter().filter_map(|record| record.key));
            for BatchRecord { offset, key, is_tombstone } in &self.next_records {
                let newest = || key.and_then(|key| map.newest(key));
                let is_newest = || newest().is_none_or(|newest| *offset >= newest);
                self.verdicts.judge(*offset, key.is_some(), *is_tombstone, is_newest);
            }
            if self.next_records.len() < RECORDS_A_LOOK {
                return Ok(());
            }
        }
    }

    /// No record of this batch, or of a later one, lies before the part that was mapped. Every record in there that has a key was put into the
    /// map, so one is its key's newest where its offset is in it. Behind that part all stay.
    fn judge_by_offset(&mut self, records: Records<'_>, header: &BatchHeader) -> Result<(), BatchError> {
        if let Some(map) = self.map.take() {
            self.newest = map.into_newest_offsets();
        }
        for record in records {
            let record = record?;
            // One that is not where its batch says would be told by what was noted of another.
            if record.offset < self.unasked || record.offset > header.last_offset() {
                return Err(OUT_OF_ORDER);
            }
            self.unasked = record.offset.next();
            let is_newest = || self.newest.holds(record.offset);
            self.verdicts.judge(record.offset, record.key.is_some(), record.value.is_none(), is_newest);
        }
        Ok(())
    }

    fn judge_control(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        standing: Standing,
    ) -> Result<Fate, BatchError> {
        if header.record_count == 0 {
            return if header.base_offset >= self.covered {
                Ok(Fate::Keep)
            } else {
                empty_or_drop(header, standing.is_last_of_segment)
            };
        }
        let mut scratch = Vec::new();
        let records = Records::open(batch, &DECODED_MAX, &mut scratch)?;
        let Some(first) = records.clone().next() else { return Ok(Fate::Keep) };
        let first = first?;
        // Control records of other kinds are not about transactions, and not ours to judge.
        let Some(marker) = EndTransactionMarker::decode(first.key, first.value)? else {
            return Ok(Fate::Keep);
        };
        let has_data = self.met.on_marker(header);
        let is_covered = header.next_offset() <= self.covered;
        if has_data || !is_covered {
            // As long as a batch of the transaction is there, emptied or not, a replay needs the marker to end it, and
            // readers need the entry to skip it.
            if marker.result == TransactionResult::Abort
                && let Some(entry) = self.aborted.of(header)
            {
                self.still_aborted.push(*entry);
            }
            return Ok(Fate::Keep);
        }
        if header.delete_horizon_ms().is_none() && standing.may_grow {
            let stays = &mut self.verdicts.stays;
            stays.clear();
            stays.resize(header.record_count.max(0) as usize, true);
            let rewritten = rewrite(header, Some(self.new_horizon()), records, &self.verdicts.stays);
            return Ok(rewritten.unwrap_or(Fate::Keep));
        }
        // The epochs of a live producer that has written nothing else are in the marker itself, so that one is not emptied.
        if !self.is_past_horizon(header) || self.producers.includes(header) {
            return Ok(Fate::Keep);
        }
        empty_or_drop(header, standing.is_last_of_segment)
    }

    fn new_horizon(&self) -> TimestampMs {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }

    fn is_past_horizon(&self, header: &BatchHeader) -> bool {
        header.delete_horizon_ms().is_some_and(|horizon| self.now_ms >= horizon)
    }

    fn count(&mut self, header: &BatchHeader, fate: &Fate) {
        let had = header.record_count.max(0) as u64;
        let has = match fate {
            Fate::Keep => had,
            Fate::Replace(header, _) => header.record_count.max(0) as u64,
            Fate::Drop => 0,
        };
        self.counts.records_kept += has;
        self.counts.records_dropped += had.saturating_sub(has);
        let batches = match fate {
            Fate::Keep => &mut self.counts.batches_kept,
            Fate::Replace(..) => &mut self.counts.batches_rewritten,
            Fate::Drop => &mut self.counts.batches_dropped,
        };
        *batches += 1;
    }
}

/// A batch without records, where it must stay. It keeps its largest timestamp, from which its producer's expiry counts.
fn empty_or_drop(header: &BatchHeader, must_stay: bool) -> Result<Fate, BatchError> {
    if !must_stay {
        return Ok(Fate::Drop);
    }
    if header.record_count == 0 {
        return Ok(Fate::Keep);
    }
    let emptied = BatchBuilder::like(header)
        .attributes(header.attributes.with_delete_horizon(false))
        .base_timestamp(-1)
        .max_timestamp(header.max_timestamp)
        .build()?;
    Ok(Fate::Replace(*emptied.header(), emptied.freeze()))
}

/// The records of a batch that stay, under its own header fields; offsets and codec are kept.
fn rewrite(
    header: &BatchHeader,
    horizon: Option<TimestampMs>,
    records: Records<'_>,
    stays: &[bool],
) -> Result<Fate, BatchError> {
    let mut builder = BatchBuilder::like(header).room_for(header.size_bytes());
    if let Some(horizon) = horizon {
        builder = builder.delete_horizon(horizon);
    }
    for (record, stays) in records.zip(stays) {
        let record = record?;
        if *stays {
            builder.push_stored(&record)?;
        }
    }
    let batch = builder.build()?;
    Ok(Fate::Replace(*batch.header(), batch.freeze()))
}

#[cfg(test)]
mod tests;
