//! What a partition held when all was over, as its replicas were read; eight bytes a record.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::Verdict;
use crate::history::{Anomaly, Partition, Value};

/// A place where no record is.
const NOTHING: u64 = u64::MAX;
const N_BITS: u32 = 48;
/// A hole that is wider ends the log: what lies behind it is not looked at.
const HOLE_MAX: i64 = 1 << 20;
/// What is kept of offsets that no replica was read at.
const ELSEWHERE_MAX: usize = 1 << 20;

/// What is at an offset, against what was said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// As it was said, or before the start, or in a log that nobody has read.
    Fine,
    /// Something else; that has been told.
    Other,
    /// The log ends before.
    Behind,
}

/// The records of the replica that was read first, and how the others differ.
#[derive(Default)]
pub(super) struct EndState {
    start: i64,
    /// By offset, from `start` on.
    values: Vec<u64>,
    first_replica: Option<u32>,
    /// Where each replica's next piece begins, and whether it has ended.
    replicas: BTreeMap<u32, (i64, bool)>,
    /// What was said of offsets that are not in the log.
    elsewhere: BTreeMap<i64, Value>,
}

impl EndState {
    /// Whether some replica was read to its end.
    pub(super) fn is_known(&self) -> bool {
        self.first_replica.is_some_and(|replica| self.replicas.get(&replica).is_some_and(|(_, ends)| *ends))
    }

    pub(super) fn on_piece(
        &mut self,
        partition: Partition,
        (replica, from): (u32, i64),
        records: &[(i64, Value)],
        ends: bool,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let is_first = *self.first_replica.get_or_insert(replica) == replica;
        let next = match self.replicas.get(&replica) {
            Some((_, true)) => bail!("replica {replica} of partition {partition} is read to its end twice"),
            Some((next, false)) if *next != from => {
                bail!("replica {replica} of partition {partition}: a piece from {from}, not from {next}")
            }
            Some((next, false)) => *next,
            None if is_first => {
                self.start = from;
                from
            }
            None => from,
        };
        let next = self.take_in(partition, (is_first, next), records, verdict)?;
        self.replicas.insert(replica, (next, ends));
        if ends {
            verdict.seen.replicas_read += 1;
            self.compare_ends(partition, (replica, next), verdict);
        }
        Ok(())
    }

    /// The first replica's records become what all else is held against.
    fn take_in(
        &mut self,
        partition: Partition,
        (is_first, mut next): (bool, i64),
        records: &[(i64, Value)],
        verdict: &mut Verdict,
    ) -> Result<i64> {
        for (offset, value) in records {
            let (offset, value) = (*offset, *value);
            if offset != next {
                verdict.push(Anomaly::Gap { partition, expected: next, found: offset });
                if !(0..HOLE_MAX).contains(&(offset - next)) {
                    return Ok(next);
                }
            }
            if is_first {
                self.values.resize(self.values.len() + (offset - next) as usize, NOTHING);
                self.values.push(pack(value)?);
                verdict.seen.records_final += 1;
            } else {
                self.compare(partition, offset, value, verdict);
            }
            next = offset + 1;
        }
        Ok(next)
    }

    fn compare_ends(&self, partition: Partition, other: (u32, i64), verdict: &mut Verdict) {
        let Some(first) = self.first_replica else { return };
        if let Some(&(end, true)) = self.replicas.get(&first)
            && end != other.1
        {
            verdict.push(Anomaly::UnevenReplicas { partition, first: (first, end), other });
        }
    }

    /// Holds what somebody said of an offset against the log.
    pub(super) fn compare(
        &mut self,
        partition: Partition,
        offset: i64,
        value: Value,
        verdict: &mut Verdict,
    ) -> At {
        let in_log = usize::try_from(offset - self.start).ok().and_then(|at| self.values.get(at)).copied();
        let otherwise =
            if self.first_replica.is_some() && offset >= self.start { At::Behind } else { At::Fine };
        let known = match in_log {
            Some(packed) if packed != NOTHING => unpack(packed),
            _ if self.elsewhere.len() < ELSEWHERE_MAX => *self.elsewhere.entry(offset).or_insert(value),
            _ => return otherwise,
        };
        let is_in_log = in_log.is_some_and(|packed| packed != NOTHING);
        let otherwise = if is_in_log { At::Fine } else { otherwise };
        if known == value {
            return otherwise;
        }
        // The log was read last.
        let values = if is_in_log { (value, known) } else { (known, value) };
        verdict.push(Anomaly::TwoValues { partition, offset, values });
        At::Other
    }

    /// All offsets and values.
    pub(super) fn records(&self) -> impl Iterator<Item = (i64, Value)> {
        let places = self.values.iter().zip(self.start..);
        places.filter(|(packed, _)| **packed != NOTHING).map(|(packed, offset)| (offset, unpack(*packed)))
    }

    /// Offsets and values that were told and are not in the log.
    pub(super) fn elsewhere(&self) -> impl Iterator<Item = (i64, Value)> {
        self.elsewhere.iter().map(|(offset, value)| (*offset, *value))
    }
}

fn pack(value: Value) -> Result<u64> {
    let Value { producer, n } = value;
    if producer >= u32::from(u16::MAX) || n >> N_BITS != 0 {
        bail!("{value:?}: a producer's number is below 65535, and a value's below 2^48");
    }
    Ok(u64::from(producer) << N_BITS | n)
}

fn unpack(packed: u64) -> Value {
    Value { producer: (packed >> N_BITS) as u32, n: packed & ((1 << N_BITS) - 1) }
}
