//! Replays producers and transactions of a partition beside the walk through its batches, and holds snapshots and transaction
//! indexes against the replay, as far as the log still has what a replay needs.

use std::collections::BTreeMap;
use std::path::Path;

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, ProducerId};

use super::{Finding, Severity};
use crate::index::{AbortedTransaction, transaction_index};
use crate::producers::{EndMarker, PRODUCERS_MAX, ProducerState, ProducerStates};

/// Producers as of the batches seen so far.
pub(super) struct ProducerReplay {
    states: ProducerStates,
    /// True while the replay knows all that the log's writer knew: not where the log's head is gone and no snapshot tells of it,
    /// not behind compaction or damage.
    is_exact: bool,
    /// Aborted transactions that ended in the segment that is walked through, with the position of their marker.
    aborted: Vec<(AbortedTransaction, u64)>,
    /// Abort markers in that segment.
    markers: BTreeMap<Offset, ProducerId>,
}

impl ProducerReplay {
    /// From the first offset of the log, with what a snapshot at that offset says.
    pub(super) fn new(start: Offset, snapshot: Option<ProducerStates>) -> ProducerReplay {
        let is_exact = snapshot.is_some() || start == Offset::ZERO;
        ProducerReplay {
            states: snapshot.unwrap_or_else(|| ProducerStates::new(start)),
            is_exact,
            aborted: Vec::new(),
            markers: BTreeMap::new(),
        }
    }

    /// Something is missing from here on.
    pub(super) fn lose_track(&mut self) {
        self.is_exact = false;
    }

    pub(super) fn begin_segment(&mut self) {
        self.aborted.clear();
        self.markers.clear();
    }

    pub(super) fn on_batch(&mut self, position: u64, header: &BatchHeader, marker: Option<&EndMarker>) {
        if marker.is_some_and(|m| m.is_abort) {
            self.markers.insert(header.base_offset, header.producer_id);
        }
        if let Some(entry) = self.states.record(header, marker).and_then(|ended| ended.index_entry()) {
            self.aborted.push((entry, position));
        }
    }

    /// Compares a snapshot that belongs to the point reached.
    pub(super) fn check_snapshot(
        &self,
        path: &Path,
        at: Offset,
        snapshot: &ProducerStates,
        findings: &mut Vec<Finding>,
    ) {
        if !self.is_exact || self.states.end_offset() > at || self.states.len() > PRODUCERS_MAX / 2 {
            return;
        }
        for stored in snapshot.iter() {
            let replayed = self.states.get(stored.producer_id);
            if replayed.is_some_and(|replayed| agree(stored, replayed)) {
                continue;
            }
            findings.push(Finding {
                severity: Severity::Damage,
                path: path.to_owned(),
                byte: None,
                offset: Some(at),
                found: format!("producer {} with {}", stored.producer_id, describe(stored)),
                expected: replayed.map_or("no such producer".to_owned(), describe),
            });
        }
        let missing =
            |s: &&ProducerState| s.open_transaction.is_some() && snapshot.get(s.producer_id).is_none();
        for state in self.states.iter().filter(missing) {
            findings.push(Finding {
                severity: Severity::Damage,
                path: path.to_owned(),
                byte: None,
                offset: Some(at),
                found: format!("nothing of producer {}", state.producer_id),
                expected: describe(state),
            });
        }
    }

    /// Compares the transaction index of the segment that has been walked through. `durable` bytes of it must be covered.
    pub(super) fn check_index(
        &self,
        path: &Path,
        content: Option<&[u8]>,
        durable: u64,
        findings: &mut Vec<Finding>,
    ) {
        let mut report = |severity, byte: Option<usize>, offset, found: String, expected: String| {
            let byte = byte.map(|n| (n * transaction_index::ENTRY_LEN) as u64);
            findings.push(Finding { severity, path: path.to_owned(), byte, offset, found, expected });
        };
        let bytes = content.unwrap_or_default();
        let good = transaction_index::valid_prefix(bytes);
        let entries = match transaction_index::parse(bytes) {
            Ok(entries) => entries,
            Err(e) => {
                let expected = "aborted transactions in the order of their markers".to_owned();
                report(Severity::Damage, Some(good), None, e.to_string(), expected);
                let prefix = &bytes[..good * transaction_index::ENTRY_LEN];
                transaction_index::parse(prefix).unwrap_or_default()
            }
        };
        for (n, entry) in entries.iter().enumerate() {
            let offset = Some(entry.last_offset);
            if self.markers.get(&entry.last_offset) != Some(&entry.producer_id) {
                let found = format!("a transaction of producer {} aborted here", entry.producer_id);
                report(
                    Severity::Damage,
                    Some(n),
                    offset,
                    found,
                    "no abort marker of it lies there".to_owned(),
                );
                continue;
            }
            let replayed = self.aborted.binary_search_by_key(&entry.last_offset, |(a, _)| a.last_offset);
            let replayed = replayed.ok().and_then(|at| self.aborted.get(at));
            if self.is_exact && replayed.is_none_or(|(a, _)| a != entry) {
                let expected = replayed.map_or("no transaction ends there".to_owned(), |(a, _)| aborted(a));
                report(Severity::Damage, Some(n), offset, aborted(entry), expected);
            }
        }
        let is_missing = |(a, _): &&(AbortedTransaction, u64)| {
            entries.binary_search_by_key(&a.last_offset, |e| e.last_offset).is_err()
        };
        let missing = self.aborted.iter().filter(is_missing);
        for (entry, position) in missing.filter(|_| self.is_exact) {
            let found = match content {
                None => "the file is missing".to_owned(),
                Some(_) => "no entry for the abort marker at this offset".to_owned(),
            };
            let severity = if *position < durable { Severity::Damage } else { Severity::Warning };
            report(severity, None, Some(entry.last_offset), found, aborted(entry));
        }
    }
}

/// Kafka's snapshots hold the last batch alone, and not its time where a marker came later; and a producer that was forgotten for a while
/// has lost its coordinator's epoch.
fn agree(stored: &ProducerState, replayed: &ProducerState) -> bool {
    stored.epoch == replayed.epoch
        && stored.last_timestamp == replayed.last_timestamp
        && stored.open_transaction == replayed.open_transaction
        && last(stored) == last(replayed)
        && (stored.coordinator_epoch == replayed.coordinator_epoch || stored.coordinator_epoch == -1)
}

fn last(state: &ProducerState) -> Option<(i32, Offset, i32)> {
    state.last_batch().map(|b| (b.last_sequence, b.last_offset, b.offset_delta))
}

fn describe(state: &ProducerState) -> String {
    let mut text = format!("epoch {}, time {}", state.epoch, state.last_timestamp);
    if let Some(last) = state.last_batch() {
        text += &format!(
            ", last batch of offsets {} to {} and sequence {}",
            last.base_offset(),
            last.last_offset,
            last.last_sequence
        );
    }
    if let Some(first) = state.open_transaction {
        text += &format!(", transaction open since {first}");
    }
    text + &format!(", coordinator epoch {}", state.coordinator_epoch)
}

fn aborted(entry: &AbortedTransaction) -> String {
    format!(
        "a transaction of producer {} from {} to {}, last stable offset {}",
        entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset
    )
}
