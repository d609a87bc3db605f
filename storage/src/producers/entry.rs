//! What the log remembers of one producer. Must not know other producers.

use floodmark_proto::ids::{Offset, ProducerId, TimestampMs};

/// How many batches of a producer are remembered to tell a retry from a gap: as many as a client may have in flight.
pub const RECENT_BATCHES: usize = 5;

/// One appended batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchMetadata {
    /// Sequence number of its last record; -1 for batches of coordinators, which carry none.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Last offset minus base offset.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: TimestampMs,
}

impl BatchMetadata {
    /// Sequence number of its first record; sequences wrap from `i32::MAX` to 0.
    #[must_use]
    pub fn first_sequence(&self) -> i32 {
        if self.last_sequence < 0 {
            -1
        } else {
            self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
        }
    }

    /// Offset of its first record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        Offset(self.last_offset.0.saturating_sub(i64::from(self.offset_delta)))
    }
}

/// The last few batches, oldest first, without a heap allocation of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RecentBatches {
    batches: [BatchMetadata; RECENT_BATCHES],
    len: u8,
}

impl RecentBatches {
    pub(super) fn as_slice(&self) -> &[BatchMetadata] {
        &self.batches[..usize::from(self.len)]
    }

    pub(super) fn push(&mut self, batch: BatchMetadata) {
        if usize::from(self.len) == RECENT_BATCHES {
            self.batches.rotate_left(1);
            self.batches[RECENT_BATCHES - 1] = batch;
        } else {
            self.batches[usize::from(self.len)] = batch;
            self.len += 1;
        }
    }

    fn clear(&mut self) {
        *self = RecentBatches::default();
    }
}

/// The state of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// Who.
    pub producer_id: ProducerId,
    /// Its newest incarnation; older ones are fenced.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote its last marker, -1 before the first; older ones are fenced.
    pub coordinator_epoch: i32,
    /// Timestamp of its last batch or marker; expiry counts from it.
    pub last_timestamp: TimestampMs,
    /// First offset of its open transaction.
    pub open_transaction: Option<Offset>,
    pub(super) recent: RecentBatches,
}

impl ProducerState {
    pub(super) fn new(producer_id: ProducerId, epoch: i16) -> ProducerState {
        ProducerState {
            producer_id,
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            open_transaction: None,
            recent: RecentBatches::default(),
        }
    }

    /// Batches of the current epoch that are still remembered, oldest first.
    #[must_use]
    pub fn recent_batches(&self) -> &[BatchMetadata] {
        self.recent.as_slice()
    }

    /// The last batch of the current epoch.
    #[must_use]
    pub fn last_batch(&self) -> Option<&BatchMetadata> {
        self.recent_batches().last()
    }

    /// Sequence number that the next batch of the current epoch must begin with: 0 where none is remembered.
    #[must_use]
    pub fn next_sequence(&self) -> i32 {
        self.last_batch().map_or(0, |last| last.last_sequence.wrapping_add(1) & i32::MAX)
    }

    /// Enters an epoch, forgetting the batches of another one: their sequence numbers mean nothing any more.
    pub(super) fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.recent.clear();
        }
    }
}
