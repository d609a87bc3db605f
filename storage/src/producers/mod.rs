//! What the log must know of its producers: retries, fences, open transactions, the last stable offset. No I/O, no
//! clock. Kafka's rules; where transactions need more (verification of a transaction's begin), that is the broker's
//! part.

mod entry;
pub mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, ProducerId, TimestampMs};

pub use entry::{BatchMetadata, ProducerState, RECENT_BATCHES};

use crate::index::AbortedTransaction;

/// Producers remembered per log, so that a flood of fresh producer ids cannot take more than some 25 MiB of memory a
/// log.
///
/// Kafka has no such cap. Beyond it the quarter that appended longest ago is forgotten, never one with an open
/// transaction, and last those of which only a marker's fence is left. Forgetting costs what expiry costs: a retry
/// that comes later still is taken for new data.
pub const PRODUCERS_MAX: usize = 100_000;
/// Transactions open at once in one log; a client that would begin another one is refused, as none of these may be
/// forgotten.
pub const OPEN_TRANSACTIONS_MAX: usize = 50_000;

/// Who appends; decides how much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer: everything is checked.
    Client,
    /// A coordinator that writes markers or offset commits, which carry no sequence numbers: epochs are checked.
    Coordinator,
    /// A replica, or the replay of this log: the leader has checked, nothing is refused.
    Replica,
}

/// The control record of a batch that ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// True for abort, false for commit.
    pub is_abort: bool,
    /// Epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

/// What to do with a batch that passed the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append it, then [`ProducerStates::record`] it.
    Append,
    /// It is in the log already: append nothing and answer with this.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// Its largest timestamp.
        timestamp: TimestampMs,
    },
}

/// Why a batch may not be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// A newer incarnation of the producer has written. Kafka: INVALID_PRODUCER_EPOCH.
    #[error("producer {producer_id} is fenced: its epoch {epoch} is older than {current}")]
    StaleEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// Epoch of the batch.
        epoch: i16,
        /// Newest epoch seen.
        current: i16,
    },
    /// Neither the next batch nor one of the last five. Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id} sent sequence {sequence} in epoch {epoch}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// Epoch of the batch.
        epoch: i16,
        /// Its first sequence number.
        sequence: i32,
        /// What it had to be.
        expected: i32,
    },
    /// A producer id needs sequence numbers. Kafka: INVALID_RECORD.
    #[error("producer {producer_id} sent a batch without sequence numbers")]
    NoSequence {
        /// The producer.
        producer_id: ProducerId,
    },
    /// Plain data while a transaction is open. Kafka: INVALID_TXN_STATE.
    #[error("producer {producer_id} sent data outside its transaction, open since offset {first_offset}")]
    NotTransactional {
        /// The producer.
        producer_id: ProducerId,
        /// Where its open transaction begins.
        first_offset: Offset,
    },
    /// A marker of a coordinator that has been replaced. Kafka: TRANSACTION_COORDINATOR_FENCED.
    #[error("marker for producer {producer_id} of coordinator epoch {epoch}, older than {current}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: ProducerId,
        /// The marker's coordinator epoch.
        epoch: i32,
        /// Newest epoch seen.
        current: i32,
    },
    /// See [`OPEN_TRANSACTIONS_MAX`]; may be tried again.
    #[error("the log has {limit} open transactions, no more may begin: try again when some have ended")]
    TooManyTransactions {
        /// The cap.
        limit: usize,
    },
}

/// A transaction that a marker has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedTransaction {
    /// Whose it was.
    pub producer_id: ProducerId,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Offset of its marker.
    pub last_offset: Offset,
    /// Aborted or committed.
    pub is_aborted: bool,
    /// First offset of the oldest transaction still open, or the offset after the marker.
    pub last_stable_offset: Offset,
}

impl CompletedTransaction {
    /// The transaction index entry, for an aborted one.
    #[must_use]
    pub fn index_entry(&self) -> Option<AbortedTransaction> {
        self.is_aborted.then_some(AbortedTransaction {
            producer_id: self.producer_id,
            first_offset: self.first_offset,
            last_offset: self.last_offset,
            last_stable_offset: self.last_stable_offset,
        })
    }
}

/// The state of all producers of one log. Its order is that of producer ids, so equal states give equal snapshots.
///
/// A leader runs `check` and then `record` for one batch after the other, in the order of the log. Recording may come
/// before the write: a write that fails closes the log for good. To cut the tail, load the last snapshot at or before
/// the cut and record what follows it.
///
/// A transactional batch that comes late, after its transaction was aborted, opens a transaction that no marker ends,
/// and the last stable offset stays there (R24). The log cannot tell it from a good one; the broker must ask the
/// coordinator before it appends the first batch of a transaction. The next marker of the producer, in whatever
/// epoch, ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<ProducerId, ProducerState>,
    /// First offset to producer.
    open: BTreeMap<Offset, ProducerId>,
    /// First offset to marker, of completed transactions whose marker the high watermark has not passed.
    unreplicated: BTreeMap<Offset, Offset>,
    end_offset: Offset,
}

impl ProducerStates {
    /// No producer at all, for a log that begins at `end_offset`.
    #[must_use]
    pub fn new(end_offset: Offset) -> ProducerStates {
        ProducerStates { end_offset, ..ProducerStates::default() }
    }

    /// Offset after the last batch recorded; a snapshot taken now belongs to it.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// The state of one producer.
    #[must_use]
    pub fn get(&self, producer_id: ProducerId) -> Option<&ProducerState> {
        self.producers.get(&producer_id)
    }

    /// All producers, in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ProducerState> {
        self.producers.values()
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True where no producer is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges a batch before it is appended. `marker` is the control record of a control batch; one that compaction
    /// left empty has none.
    ///
    /// Batches without a producer id, and all that replicas send, pass. The header's offsets are not looked at.
    pub fn check(
        &self,
        header: &BatchHeader,
        marker: Option<&EndMarker>,
        origin: Origin,
    ) -> Result<Verdict, ProducerError> {
        if header.producer_id.0 < 0 || origin == Origin::Replica {
            return Ok(Verdict::Append);
        }
        let state = self.producers.get(&header.producer_id);
        if header.attributes.is_control() {
            if let (Some(state), Some(marker)) = (state, marker) {
                check_marker(state, header, marker)?;
            }
            return Ok(Verdict::Append);
        }
        if origin == Origin::Client {
            if header.base_sequence < 0 {
                return Err(ProducerError::NoSequence { producer_id: header.producer_id });
            }
            if let Some(duplicate) = state.and_then(|state| find_duplicate(state, header)) {
                return Ok(duplicate);
            }
        }
        if let Some(state) = state {
            check_epoch(state, header)?;
            if origin == Origin::Client {
                check_sequence(state, header)?;
            }
        }
        self.check_transaction(state, header)?;
        Ok(Verdict::Append)
    }

    fn check_transaction(
        &self,
        state: Option<&ProducerState>,
        header: &BatchHeader,
    ) -> Result<(), ProducerError> {
        let is_transactional = header.attributes.is_transactional();
        match state.and_then(|state| state.open_transaction) {
            Some(first_offset) if !is_transactional => {
                Err(ProducerError::NotTransactional { producer_id: header.producer_id, first_offset })
            }
            None if is_transactional && self.open.len() >= OPEN_TRANSACTIONS_MAX => {
                Err(ProducerError::TooManyTransactions { limit: OPEN_TRANSACTIONS_MAX })
            }
            _ => Ok(()),
        }
    }

    /// Takes note of a batch with the offsets it has in the log; says which transaction it ended, if any.
    ///
    /// The transaction index entry of an aborted one must be written before the marker counts as appended (R16).
    pub fn record(
        &mut self,
        header: &BatchHeader,
        marker: Option<&EndMarker>,
    ) -> Option<CompletedTransaction> {
        self.end_offset = self.end_offset.max(header.next_offset());
        if header.producer_id.0 < 0 {
            return None;
        }
        if !header.attributes.is_control() {
            self.record_data(header);
            return None;
        }
        // A control batch without its record: compaction has removed the whole transaction.
        marker.and_then(|marker| self.record_marker(header, marker))
    }

    fn record_data(&mut self, header: &BatchHeader) {
        let state = self.entry(header);
        state.enter_epoch(header.producer_epoch);
        state.recent.push(BatchMetadata {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        state.last_timestamp = header.max_timestamp;
        if state.open_transaction.is_none() && header.attributes.is_transactional() {
            state.open_transaction = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
        self.forget_the_longest_silent();
    }

    fn record_marker(&mut self, header: &BatchHeader, marker: &EndMarker) -> Option<CompletedTransaction> {
        let state = self.entry(header);
        state.enter_epoch(header.producer_epoch);
        state.coordinator_epoch = marker.coordinator_epoch;
        state.last_timestamp = header.max_timestamp;
        let ended = state.open_transaction.take();
        self.forget_the_longest_silent();

        // A marker for a transaction that wrote nothing here leaves no trace but the epochs.
        let first_offset = ended?;
        self.open.remove(&first_offset);
        // Batch offsets are the marker's: a control batch holds one record.
        let last_offset = header.base_offset;
        self.unreplicated.insert(first_offset, last_offset);
        Some(CompletedTransaction {
            producer_id: header.producer_id,
            first_offset,
            last_offset,
            is_aborted: marker.is_abort,
            last_stable_offset: self.first_open_offset().unwrap_or(Offset(last_offset.0.saturating_add(1))),
        })
    }

    fn entry(&mut self, header: &BatchHeader) -> &mut ProducerState {
        self.producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerState::new(header.producer_id, header.producer_epoch))
    }

    /// Keeps the number of producers under its cap, a quarter at a time so that the cost stays small on average.
    fn forget_the_longest_silent(&mut self) {
        if self.producers.len() <= PRODUCERS_MAX {
            return;
        }
        let last_append = |state: &ProducerState| state.last_batch().map_or(Offset::MAX, |b| b.last_offset);
        let idle = self.producers.values().filter(|state| state.open_transaction.is_none());
        let mut idle: Vec<(Offset, ProducerId)> =
            idle.map(|state| (last_append(state), state.producer_id)).collect();
        idle.sort_unstable();
        for (_, producer_id) in idle.into_iter().take(PRODUCERS_MAX / 4) {
            self.producers.remove(&producer_id);
        }
    }

    /// First offset of the oldest open transaction.
    #[must_use]
    pub fn first_open_offset(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// First offset whose fate is not settled: its transaction is open, or ended by a marker not yet known to be
    /// replicated.
    #[must_use]
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let unreplicated = self.unreplicated.first_key_value().map(|(first, _)| *first);
        match (self.first_open_offset(), unreplicated) {
            (Some(open), Some(unreplicated)) => Some(open.min(unreplicated)),
            (open, unreplicated) => open.or(unreplicated),
        }
    }

    /// What a reader of committed data may read up to: never past the high watermark (R14), never before the log's
    /// start.
    #[must_use]
    pub fn last_stable_offset(&self, high_watermark: Offset, log_start: Offset) -> Offset {
        self.first_unstable_offset().map_or(high_watermark, |first| first.max(log_start).min(high_watermark))
    }

    /// Settles the completed transactions whose marker lies before the high watermark.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.unreplicated.retain(|_, marker| *marker >= high_watermark);
    }

    /// The log now begins at `log_start`: completed transactions before it no longer matter. Producers are kept, as
    /// their retries may come.
    pub fn on_log_start(&mut self, log_start: Offset) {
        self.on_high_watermark(log_start);
        self.end_offset = self.end_offset.max(log_start);
    }

    /// Forgets producers whose last batch or marker is `expiration_ms` old or older, never one with an open
    /// transaction.
    ///
    /// Returns how many. A producer that comes back is then unknown, and any sequence number is accepted from it (R29).
    pub fn expire(&mut self, now_ms: TimestampMs, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, state| {
            state.open_transaction.is_some() || now_ms.saturating_sub(state.last_timestamp) < expiration_ms
        });
        before - self.producers.len()
    }
}

fn check_epoch(state: &ProducerState, header: &BatchHeader) -> Result<(), ProducerError> {
    if header.producer_epoch < state.epoch {
        return Err(ProducerError::StaleEpoch {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            current: state.epoch,
        });
    }
    Ok(())
}

fn check_marker(
    state: &ProducerState,
    header: &BatchHeader,
    marker: &EndMarker,
) -> Result<(), ProducerError> {
    check_epoch(state, header)?;
    if marker.coordinator_epoch < state.coordinator_epoch {
        return Err(ProducerError::CoordinatorFenced {
            producer_id: header.producer_id,
            epoch: marker.coordinator_epoch,
            current: state.coordinator_epoch,
        });
    }
    Ok(())
}

/// Kafka's rule: same epoch, same first and last sequence number as one of the remembered batches.
fn find_duplicate(state: &ProducerState, header: &BatchHeader) -> Option<Verdict> {
    if state.epoch != header.producer_epoch {
        return None;
    }
    let is_same = |b: &&BatchMetadata| {
        b.first_sequence() == header.base_sequence && b.last_sequence == header.last_sequence()
    };
    state.recent_batches().iter().find(is_same).map(|batch| Verdict::Duplicate {
        base_offset: batch.base_offset(),
        last_offset: batch.last_offset,
        timestamp: batch.timestamp,
    })
}

/// A new epoch begins at 0, a known one goes on where it was. Retries of batches older than the remembered ones end
/// here too, as in Kafka.
fn check_sequence(state: &ProducerState, header: &BatchHeader) -> Result<(), ProducerError> {
    let expected = if header.producer_epoch == state.epoch { state.next_sequence() } else { 0 };
    // Without an epoch nothing is known of the producer but its id.
    if state.epoch >= 0 && header.base_sequence != expected {
        return Err(ProducerError::OutOfOrderSequence {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            sequence: header.base_sequence,
            expected,
        });
    }
    Ok(())
}
