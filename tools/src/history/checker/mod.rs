//! Judges a history. Knows nothing of how it came about. Where a client was not told what became of something, both are allowed;
//! everything else has one right outcome.
//!
//! Two passes: first what replicas held in the end, of which eight bytes a record stay in memory; then all that happened before, which
//! is compared with that as it comes by. Beside the records, memory grows with what was never answered and with nothing else.

mod end_state;
mod groups;
mod intervals;
mod sends;
mod staircase;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use super::stream::{Events, Wanted};
use super::{Anomaly, Event, Op, Partition, Value};
use end_state::{At, EndState};
use groups::Groups;
use sends::Sends;

/// So many anomalies are kept to be looked at; the others are counted.
const KEPT_MAX: usize = 1_000;

/// What was found, and what there was to be found in.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The first of them.
    pub anomalies: Vec<Anomaly>,
    /// All of them, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// How much was looked at.
    pub seen: Seen,
}

/// How much a history holds. One in which nothing happened shows nothing, so that a workload asks for these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events of all kinds.
    pub events: u64,
    /// Sends that were acknowledged.
    pub sends_acked: u64,
    /// Sends of idempotent producers that were not answered, or refused.
    pub sends_unknown_idempotent: u64,
    /// The same of other producers.
    pub sends_unknown_plain: u64,
    /// Records acknowledged.
    pub records_acked: u64,
    /// Reads of consumers.
    pub reads: u64,
    /// Commits that were acknowledged.
    pub commits_acked: u64,
    /// How often a group was told where it is.
    pub resumes: u64,
    /// How often a member was given partitions.
    pub assignments: u64,
    /// Records in the end, by the first replica of each partition that was read.
    pub records_final: u64,
    /// Replicas read to their end.
    pub replicas_read: u64,
}

impl Verdict {
    /// Whether no promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    fn is_full(&self) -> bool {
        self.anomalies.len() == KEPT_MAX
    }

    fn push(&mut self, anomaly: Anomaly) {
        *self.counts.entry(anomaly.kind()).or_default() += 1;
        if self.anomalies.len() < KEPT_MAX {
            self.anomalies.push(anomaly);
        }
    }
}

/// Takes a history in and judges it: all [`Op::Final`] first, then everything else by the moment it ended.
#[derive(Default)]
pub struct Checker {
    verdict: Verdict,
    partitions: BTreeMap<Partition, PartitionState>,
    /// Where each reader goes on.
    positions: BTreeMap<(u32, Partition), i64>,
    groups: Groups,
}

#[derive(Default)]
struct PartitionState {
    end: EndState,
    sends: Sends,
}

impl Checker {
    /// Takes in the next event.
    ///
    /// # Errors
    /// A history that this checker cannot hold: numbers beyond its limits.
    pub fn on_event(&mut self, event: &Event) -> Result<()> {
        let verdict = &mut self.verdict;
        verdict.seen.events += 1;
        match &event.did {
            Op::Send { partition, .. } => {
                let PartitionState { end, sends } = self.partitions.entry(*partition).or_default();
                sends.on_send(event, end, verdict);
            }
            Op::Seek { reader, partition, offset } => {
                self.positions.insert((*reader, *partition), *offset);
            }
            Op::Read { reader, partition, from, records } => {
                verdict.seen.reads += 1;
                let state = self.partitions.entry(*partition).or_default();
                let position = self.positions.entry((*reader, *partition)).or_insert(*from);
                let (reader, partition) = (*reader, *partition);
                match (*from).cmp(position) {
                    std::cmp::Ordering::Less => {
                        let (position, from) = (*position, *from);
                        verdict.push(Anomaly::PositionWentBack { reader, partition, position, from });
                    }
                    std::cmp::Ordering::Greater => {
                        let (expected, found) = (*position, *from);
                        verdict.push(Anomaly::Skipped { reader, partition, expected, found });
                    }
                    std::cmp::Ordering::Equal => {}
                }
                *position = on_read(reader, partition, *from, records, state, verdict);
            }
            Op::Commit { .. } | Op::Resume { .. } | Op::Own { .. } => self.groups.on_event(event, verdict),
            Op::Final { partition, replica, from, records, ends } => {
                let end = &mut self.partitions.entry(*partition).or_default().end;
                end.on_piece(*partition, (*replica, *from), records, *ends, verdict)?;
            }
        }
        Ok(())
    }

    /// What all of it comes to.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        for (partition, state) in &self.partitions {
            state.sends.finish(*partition, &state.end, &mut self.verdict);
        }
        self.groups.finish(&mut self.verdict);
        self.verdict
    }
}

/// Where the reader is after it.
fn on_read(
    reader: u32,
    partition: Partition,
    from: i64,
    records: &[(i64, Value)],
    state: &mut PartitionState,
    verdict: &mut Verdict,
) -> i64 {
    for ((offset, value), expected) in records.iter().zip(from..) {
        let (offset, value) = (*offset, *value);
        if offset != expected {
            verdict.push(Anomaly::Skipped { reader, partition, expected, found: offset });
        } else if let At::Behind = state.end.compare(partition, offset, value, verdict) {
            verdict.push(Anomaly::LostRead { partition, value, read_at: offset });
        }
    }
    records.last().map_or(from, |(last, _)| last + 1)
}

/// Judges a history that is in memory. An event's place in the list means nothing, its moments do.
///
/// # Errors
/// As [`Checker::on_event`].
pub fn check(events: &[Event]) -> Result<Verdict> {
    let mut checker = Checker::default();
    let is_final = |event: &&Event| matches!(event.did, Op::Final { .. });
    let mut others: Vec<&Event> = events.iter().filter(|event| !is_final(event)).collect();
    others.sort_by_key(|event| event.ended);
    for event in events.iter().filter(is_final).chain(others) {
        checker.on_event(event)?;
    }
    Ok(checker.finish())
}

/// Judges the history that several files hold together.
///
/// # Errors
/// A file that cannot be read or is no history.
pub fn check_files(paths: &[PathBuf]) -> Result<Verdict> {
    let mut checker = Checker::default();
    for wanted in [Wanted::Finals, Wanted::Others] {
        let mut events = Events::open(paths, wanted)?;
        while let Some(event) = events.next_event()? {
            checker.on_event(&event)?;
        }
    }
    Ok(checker.finish())
}
