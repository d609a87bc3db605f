//! A replica's log as the model has it: records in memory, of which a part is synced.

use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_replication::partition::LogView;
use floodmark_storage::leader_epochs::LeaderEpochs;

/// One record; producer and sequence say which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) epoch: i32,
    pub(crate) producer: u8,
    pub(crate) sequence: u32,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) start: i64,
    records: Vec<Record>,
    pub(crate) durable: i64,
    pub(crate) high_watermark: i64,
    pub(crate) epochs: LeaderEpochs,
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.start + self.records.len() as i64
    }

    pub(crate) fn get(&self, offset: i64) -> Option<Record> {
        self.records.get(usize::try_from(offset - self.start).ok()?).copied()
    }

    pub(crate) fn from(&self, offset: i64) -> &[Record] {
        let skipped = usize::try_from(offset - self.start).unwrap_or(0);
        self.records.get(skipped..).unwrap_or(&[])
    }

    pub(crate) fn view(&self) -> LogView<'_> {
        LogView {
            start: Offset(self.start),
            end: Offset(self.end()),
            durable: Offset(self.durable),
            high_watermark: Offset(self.high_watermark),
            epochs: &self.epochs,
        }
    }

    pub(crate) fn last_sequence(&self, producer: u8) -> Option<(i64, u32)> {
        let at = self.records.iter().rposition(|r| r.producer == producer)?;
        Some((self.start + at as i64, self.records[at].sequence))
    }

    /// Where the last record of the producer is that is known to be committed.
    pub(crate) fn last_committed(&self, producer: u8) -> Option<i64> {
        (self.start..self.high_watermark)
            .rev()
            .find(|at| self.get(*at).is_some_and(|r| r.producer == producer))
    }

    pub(crate) fn append(&mut self, record: Record) {
        self.epochs.assign(LeaderEpoch(record.epoch), Offset(self.end()));
        self.records.push(record);
    }

    pub(crate) fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.epochs.assign(epoch, Offset(self.end()));
    }

    pub(crate) fn forget_epochs_without_records(&mut self) {
        self.epochs.truncate_from_end(Offset(self.end()));
    }

    pub(crate) fn sync(&mut self) {
        self.durable = self.end();
    }

    pub(crate) fn raise_watermark(&mut self, to: i64) {
        self.high_watermark = self.high_watermark.max(to.min(self.end()));
    }

    pub(crate) fn cut(&mut self, to: i64) {
        if to <= self.start {
            return self.reset(to);
        }
        self.records.truncate(usize::try_from(to - self.start).unwrap_or(0));
        self.epochs.truncate_from_end(Offset(to));
        self.durable = self.durable.min(self.end());
        self.high_watermark = self.high_watermark.min(self.end());
    }

    pub(crate) fn reset(&mut self, at: i64) {
        let high_watermark = self.high_watermark.min(at);
        *self = Log { start: at, durable: at, high_watermark, ..Log::default() };
    }

    /// Up to the high watermark at most.
    pub(crate) fn delete_before(&mut self, offset: i64) {
        let offset = offset.min(self.high_watermark);
        if offset > self.start {
            self.sync();
            self.records.drain(..usize::try_from(offset - self.start).unwrap_or(0));
            self.start = offset;
            self.epochs.truncate_from_start(Offset(offset));
        }
    }

    /// What a power cut leaves: all that is synced, and of the rest the first `lucky` records. What was known of the watermark is gone.
    pub(crate) fn power_cut(&mut self, lucky: i64) {
        let kept = self.durable.max(self.start).saturating_add(lucky).min(self.end());
        self.cut_records(kept);
        self.sync();
        self.high_watermark = self.start;
    }

    fn cut_records(&mut self, to: i64) {
        self.records.truncate(usize::try_from(to - self.start).unwrap_or(0));
        self.epochs.truncate_from_end(Offset(to));
    }
}
