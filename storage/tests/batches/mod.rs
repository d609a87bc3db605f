//! Batches that tests hand to a log, and what a plain replay of them says about producers and epochs. Knows the record
//! format; shares no code with what it is held against.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use floodmark_proto::batch::{BatchBuilder, EndTransactionMarker, NewRecord, RecordBatch, TransactionResult};
use floodmark_proto::ids::{LeaderEpoch, Offset, ProducerId};
use floodmark_storage::index::AbortedTransaction;
use floodmark_storage::producers::ProducerStates;

/// A batch with the place it has, or is to get, in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) epoch: i32,
    /// As the log must store it.
    pub(crate) bytes: Bytes,
    /// Of each record, in order.
    pub(crate) times: Vec<i64>,
    pub(crate) producer: Option<Producer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) first_sequence: i32,
    pub(crate) transactional: bool,
    /// Abort or commit, for a marker.
    pub(crate) marker: Option<bool>,
}

/// What a batch is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Idempotent(i64),
    Transactional(i64),
    End { id: i64, abort: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) kind: Kind,
    pub(crate) records: usize,
    pub(crate) value_bytes: usize,
    pub(crate) time: i64,
}

const COORDINATOR_EPOCH: i32 = 4;

impl Recipe {
    /// The batch at `base`, after `before`.
    pub(crate) fn at<'a>(
        self,
        base: i64,
        epoch: i32,
        before: impl DoubleEndedIterator<Item = &'a Sent> + Clone,
    ) -> Sent {
        let producer = match self.kind {
            Kind::Plain => None,
            Kind::Idempotent(id) | Kind::Transactional(id) => Some(Producer {
                id,
                epoch: 1,
                first_sequence: next_sequence(id, before),
                transactional: matches!(self.kind, Kind::Transactional(_)),
                marker: None,
            }),
            Kind::End { id, abort } => {
                Some(Producer { id, epoch: 1, first_sequence: -1, transactional: true, marker: Some(abort) })
            }
        };
        let mut builder = BatchBuilder::new();
        if let Some(p) = producer {
            builder =
                builder.producer(ProducerId(p.id), p.epoch, p.first_sequence).transactional(p.transactional);
        }
        let mut times = Vec::new();
        if let Kind::End { abort, .. } = self.kind {
            let result = if abort { TransactionResult::Abort } else { TransactionResult::Commit };
            let marker = EndTransactionMarker { result, coordinator_epoch: COORDINATOR_EPOCH };
            builder.push_marker(self.time, &marker).unwrap();
            times.push(self.time);
        } else {
            for n in 0..self.records.max(1) as i64 {
                let mut value = format!("{base}+{n} of epoch {epoch} at {} ", self.time).into_bytes();
                value.resize(value.len().max(self.value_bytes), b'.');
                let time = self.time + n;
                // Few keys, so that compaction finds records that later ones supersede.
                let key = [b'a' + ((base + n) * 7 % 3) as u8];
                let record =
                    NewRecord { timestamp: time, key: Some(&key), value: Some(&value), headers: &[] };
                builder.push(&record).unwrap();
                times.push(time);
            }
        }
        let mut batch = builder.build().unwrap();
        batch.stamp(Offset(base), LeaderEpoch(epoch));
        let next = batch.header().next_offset().0;
        Sent { base, next, epoch, bytes: batch.freeze(), times, producer }
    }
}

fn next_sequence<'a>(id: i64, before: impl DoubleEndedIterator<Item = &'a Sent>) -> i32 {
    let last = before.rev().find(|s| s.producer.is_some_and(|p| p.id == id && p.marker.is_none()));
    last.map_or(0, |s| s.producer.unwrap().first_sequence + s.times.len() as i32)
}

impl Sent {
    pub(crate) fn last(&self) -> i64 {
        self.next - 1
    }

    pub(crate) fn max_time(&self) -> i64 {
        self.times.iter().copied().max().unwrap_or(-1)
    }

    /// As a replica gets it.
    pub(crate) fn stored(&self) -> RecordBatch {
        RecordBatch::from_stored(BytesMut::from(&self.bytes[..])).unwrap()
    }

    /// As a client sends it: without offset and epoch.
    pub(crate) fn fresh(&self) -> RecordBatch {
        let mut batch = self.stored();
        batch.stamp(Offset(0), LeaderEpoch::UNKNOWN);
        batch
    }
}

/// What is known of a producer after a replay from the first batch on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp: i64,
    pub(crate) open: Option<i64>,
    /// First and last sequence, first and last offset.
    pub(crate) recent: Vec<(i32, i32, i64, i64)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) producers: BTreeMap<i64, Known>,
    pub(crate) aborted: Vec<AbortedTransaction>,
}

/// Kafka's rules, as plainly as they can be put.
pub(crate) fn replay<'a>(batches: impl Iterator<Item = &'a Sent>) -> Replayed {
    let mut all = Replayed::default();
    for sent in batches {
        let Some(p) = sent.producer else { continue };
        let known = all.producers.entry(p.id).or_insert_with(|| Known {
            epoch: p.epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            open: None,
            recent: Vec::new(),
        });
        known.last_timestamp = sent.max_time();
        if p.epoch != known.epoch {
            known.epoch = p.epoch;
            known.recent.clear();
        }
        let Some(abort) = p.marker else {
            let last_sequence = p.first_sequence + sent.times.len() as i32 - 1;
            known.recent.push((p.first_sequence, last_sequence, sent.base, sent.last()));
            if p.transactional {
                known.open.get_or_insert(sent.base);
            }
            continue;
        };
        known.coordinator_epoch = COORDINATOR_EPOCH;
        let Some(first) = known.open.take() else { continue };
        let oldest_open = all.producers.values().filter_map(|k| k.open).min();
        if abort {
            all.aborted.push(AbortedTransaction {
                producer_id: ProducerId(p.id),
                first_offset: Offset(first),
                last_offset: Offset(sent.base),
                last_stable_offset: Offset(oldest_open.unwrap_or(sent.base + 1)),
            });
        }
    }
    all
}

impl Replayed {
    /// Says what differs. Of the last batches a log that was opened anew may know fewer, never others, and always the last.
    pub(crate) fn compare(&self, states: &ProducerStates) -> Result<(), String> {
        let ids: Vec<i64> = states.iter().map(|s| s.producer_id.0).collect();
        let expected: Vec<i64> = self.producers.keys().copied().collect();
        if ids != expected {
            return Err(format!("producers {ids:?}, expected {expected:?}"));
        }
        for (state, (id, known)) in states.iter().zip(&self.producers) {
            let recent: Vec<_> = state
                .recent_batches()
                .iter()
                .map(|b| (b.first_sequence(), b.last_sequence, b.base_offset().0, b.last_offset.0))
                .collect();
            let found = Known {
                epoch: state.epoch,
                coordinator_epoch: state.coordinator_epoch,
                last_timestamp: state.last_timestamp,
                open: state.open_transaction.map(|o| o.0),
                recent: Vec::new(),
            };
            let enough = recent.is_empty() == known.recent.is_empty();
            if found != (Known { recent: Vec::new(), ..known.clone() })
                || !enough
                || !known.recent.ends_with(&recent)
            {
                return Err(format!("producer {id}: {found:?} with {recent:?}, expected {known:?}"));
            }
        }
        Ok(())
    }
}

/// Epochs and their first offsets, of batches from the first on.
pub(crate) fn epochs_of<'a>(batches: impl Iterator<Item = &'a Sent>) -> Vec<(i32, i64)> {
    let mut epochs: Vec<(i32, i64)> = Vec::new();
    for sent in batches {
        if epochs.last().is_none_or(|(epoch, _)| *epoch < sent.epoch) {
            epochs.push((sent.epoch, sent.base));
        }
    }
    epochs
}

/// The same once everything before `start` is gone.
pub(crate) fn epochs_from(mut epochs: Vec<(i32, i64)>, start: i64) -> Vec<(i32, i64)> {
    let spanning = epochs.iter().rposition(|(_, at)| *at <= start);
    if let Some(spanning) = spanning {
        epochs.drain(..spanning);
        epochs[0].1 = start;
    }
    epochs
}
