//! What compaction has left of a log, and whether it was allowed to take the rest: the newest committed record of each key must
//! stay, and nothing may change or come back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use floodmark_proto::batch::{BatchHeader, DecompressLimits, Records};
use floodmark_storage::LogReader;
use floodmark_storage::log::Log;

use super::check::{Alternative, Failure, failure, read_all};
use crate::batches::{Sent, replay};

/// A record as a test compares it: offset, time, key and value.
type Row = (i64, i64, Option<Bytes>, Option<Bytes>);

/// What is left of one batch that was cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) bytes: Bytes,
    /// Offset and time of each record.
    pub(crate) times: Vec<(i64, i64)>,
}

/// Batches that are no longer as they were handed in, by base offset; `None` for those that are gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compacted {
    batches: BTreeMap<i64, Option<Left>>,
    /// Markers of aborted transactions that no batch is left of.
    aborted_gone: BTreeSet<i64>,
}

impl Compacted {
    /// The batch as a reader finds it, if it does.
    pub(crate) fn left_of(&self, sent: &Sent) -> Option<Left> {
        self.batches.get(&sent.base).cloned().unwrap_or_else(|| {
            let times = (sent.base..).zip(sent.times.iter().copied()).collect();
            Some(Left { bytes: sent.bytes.clone(), times })
        })
    }

    pub(crate) fn has_lost_transaction(&self, marker: i64) -> bool {
        self.aborted_gone.contains(&marker)
    }

    /// What the log holds now that a pass has replaced some segments of `before`. Records before `covered` were judged.
    pub(crate) fn after_pass(log: &Log, before: &Alternative, covered: i64) -> Result<Compacted, Failure> {
        let found: BTreeMap<i64, Bytes> =
            read_all(log)?.into_iter().map(|b| (BatchHeader::parse(&b).unwrap().base_offset.0, b)).collect();
        let mut after = before.compacted.as_ref().clone();
        let readable = before.batches.iter().filter(|s| s.next > before.start);
        for sent in readable.clone() {
            let was = before.compacted.left_of(sent);
            let is = found.get(&sent.base);
            if is == was.as_ref().map(|left| &left.bytes) {
                continue;
            }
            if was.is_none() || sent.base >= covered {
                return Err(failure("compaction", format!("the batch at {} changed", sent.base)));
            }
            let left = is.map(|bytes| {
                let times = rows(bytes).iter().map(|(offset, time, ..)| (*offset, *time)).collect();
                Left { bytes: bytes.clone(), times }
            });
            after.batches.insert(sent.base, left);
        }
        after.judge(before, covered)?;
        after.judge_transactions(before, &log.reader())?;
        Ok(after)
    }

    /// Of each key the newest committed record is there; what is there was there before, unchanged.
    fn judge(&self, before: &Alternative, covered: i64) -> Result<(), Failure> {
        let replayed = replay(before.batches.iter().map(|s| &**s));
        let is_aborted = |sent: &Sent| {
            sent.producer.is_some_and(|p| {
                let holds = |a: &&floodmark_storage::index::AbortedTransaction| {
                    a.producer_id.0 == p.id && (a.first_offset.0..a.last_offset.0).contains(&sent.base)
                };
                p.transactional && replayed.aborted.iter().any(|a| holds(&a))
            })
        };
        let readable = before.batches.iter().filter(|s| s.next > before.start);
        let data = readable.filter(|s| s.producer.is_none_or(|p| p.marker.is_none()));
        let mut newest: BTreeMap<Bytes, i64> = BTreeMap::new();
        for sent in data.clone().filter(|s| !is_aborted(s)) {
            for (offset, _, key, _) in rows(&sent.bytes).into_iter().filter(|row| row.0 < covered) {
                newest.insert(key.unwrap(), offset);
            }
        }
        for sent in data {
            let had = before.compacted.left_of(sent).map(|left| rows(&left.bytes)).unwrap_or_default();
            let has = self.left_of(sent).map(|left| rows(&left.bytes)).unwrap_or_default();
            if let Some(row) = has.iter().find(|row| !had.contains(row)) {
                return Err(failure("compaction invents nothing", format!("{row:?}")));
            }
            for row in had.iter().filter(|row| !has.contains(row) && !is_aborted(sent)) {
                if newest[row.2.as_ref().unwrap()] <= row.0 {
                    return Err(failure("compaction keeps the newest of a key", format!("{row:?} is gone")));
                }
            }
        }
        Ok(())
    }

    /// A transaction that is no longer known as aborted has no record left.
    fn judge_transactions(&mut self, before: &Alternative, reader: &LogReader) -> Result<(), Failure> {
        let found = reader.aborted_transactions(reader.start(), reader.end());
        let found = found.map_err(|e| failure("aborted transactions", e.to_string()))?;
        for aborted in replay(before.batches.iter().map(|s| &**s)).aborted {
            if found.contains(&aborted) || aborted.last_offset.0 < before.start {
                continue;
            }
            let of_it = |s: &&std::sync::Arc<Sent>| {
                s.producer.is_some_and(|p| p.id == aborted.producer_id.0 && p.transactional)
                    && (aborted.first_offset.0..aborted.last_offset.0).contains(&s.base)
                    && s.next > before.start
            };
            if let Some(sent) = before.batches.iter().filter(of_it).find(|s| self.left_of(s).is_some()) {
                let detail = format!("{aborted:?} is forgotten, and the batch at {} is there", sent.base);
                return Err(failure("aborted transactions", detail));
            }
            self.aborted_gone.insert(aborted.last_offset.0);
        }
        Ok(())
    }
}

fn rows(batch: &[u8]) -> Vec<Row> {
    let limits = DecompressLimits { max_bytes: 1 << 20, max_ratio: 1 << 10 };
    let mut scratch = Vec::new();
    let records = Records::open(batch, &limits, &mut scratch).unwrap();
    let row = |r: floodmark_proto::batch::Record<'_>| {
        let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        (r.offset.0, r.timestamp, owned(r.key), owned(r.value))
    };
    records.map(|record| row(record.unwrap())).collect()
}
