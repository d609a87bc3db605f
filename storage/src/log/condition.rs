//! Appends under a condition: each record only where its stream ends as expected. Decided by the log's only writer, against what is
//! appended, so that of two who expect the same one at most succeeds.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use floodmark_proto::ids::Offset;

use super::Log;
use super::append::Appended;
use crate::error::{AppendError, LogError};

/// How a stream must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// In whatever way, also not at all.
    Any,
    /// It has no record.
    NoStream,
    /// It has a record.
    StreamExists,
    /// This is the offset of its last record.
    Exactly(Offset),
}

/// What must hold for one record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCheck {
    /// The record: its distance to the batch's first offset.
    pub record: i32,
    /// Its key, which is its stream.
    pub key: Bytes,
    /// How the stream must end before it.
    pub expected: Expected,
    /// The record of the same batch and key that comes last before it, likewise.
    pub earlier: Option<i32>,
}

/// What must hold for a batch. With one check that fails, nothing of the batch is appended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// In the order of records.
    pub checks: Vec<KeyCheck>,
    /// Value of the header by which a retry is known, where its sender gave one.
    pub append_id: Option<Bytes>,
    /// What a look at the first check's stream gave, before this waits for the log: then no file is read under its lock.
    pub seen: Option<StreamSeen>,
}

/// How a stream was at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSeen {
    /// Everything before it was looked at.
    pub below: Offset,
    /// The stream's last record there.
    pub last: Option<Offset>,
    /// The batch that an earlier try of the same append left there.
    pub landed: Option<Landed>,
    /// The log's count of cuts then: with another one, what was seen may be gone.
    pub(crate) cuts: u64,
}

/// A batch that is in the log already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Its largest timestamp.
    pub timestamp: i64,
}

/// What is to be done with a batch.
pub(super) enum Decision {
    Append,
    Landed(Appended),
    Refuse(AppendError),
}

impl Expected {
    /// True where a stream with this last record is as expected.
    #[must_use]
    pub fn holds(self, last: Option<Offset>) -> bool {
        match self {
            Expected::Any => true,
            Expected::NoStream => last.is_none(),
            Expected::StreamExists => last.is_some(),
            Expected::Exactly(offset) => last == Some(offset),
        }
    }

    /// First offset at which an earlier try of an append that expects this can have landed.
    pub(crate) fn lands_from(self) -> Offset {
        match self {
            Expected::Exactly(offset) => Offset(offset.0.saturating_add(1)),
            _ => Offset::ZERO,
        }
    }
}

impl From<Landed> for Appended {
    fn from(landed: Landed) -> Appended {
        let Landed { base_offset, last_offset, timestamp } = landed;
        Appended { base_offset, last_offset, timestamp, is_duplicate: true }
    }
}

impl Log {
    /// Decides a batch that passed every other check. Reads files only where `seen` does not tell enough.
    pub(super) fn decide(&mut self, condition: &Condition) -> Result<Decision, LogError> {
        if !self.config.key_index {
            return Ok(Decision::Refuse(AppendError::NoKeyIndex));
        }
        for (n, check) in condition.checks.iter().enumerate() {
            let id = condition.append_id.as_deref().filter(|_| n == 0);
            if check.expected == Expected::Any && id.is_none() {
                continue;
            }
            let seen = condition.seen.as_ref().filter(|_| n == 0).filter(|seen| self.still_holds(seen));
            if check.earlier.is_none() {
                self.write_what_may_count(&check.key)?;
            }
            // What cannot be read concerns whoever asked for it, not the log.
            let (last, landed) = match self.look(check, id, seen.copied().as_ref()) {
                Ok(found) => found,
                Err(e) => return Ok(Decision::Refuse(AppendError::StreamUnread { reason: e.to_string() })),
            };
            if let Some(landed) = landed {
                return Ok(Decision::Landed(landed.into()));
            }
            if !check.expected.holds(last) {
                let (record, expected) = (check.record, check.expected);
                return Ok(Decision::Refuse(AppendError::Conflict { record, expected, actual: last }));
            }
        }
        Ok(Decision::Append)
    }

    fn still_holds(&self, seen: &StreamSeen) -> bool {
        self.shared.cuts.load(Ordering::Acquire) == seen.cuts
    }

    /// Has accepted batches written where one may hold a record of the stream: whether it is of this key or shares its hash is read
    /// from the record.
    fn write_what_may_count(&mut self, key: &[u8]) -> Result<(), LogError> {
        let newest =
            self.shared.keys.seed().and_then(|seed| self.active.segment.newest_in_map(seed.hash(key)));
        if newest.is_some_and(|newest| newest >= self.end_written()) {
            self.write_accepted()?;
        }
        Ok(())
    }

    /// The last record before the one that is checked, and the batch that an earlier try left.
    fn look(
        &self,
        check: &KeyCheck,
        id: Option<&[u8]>,
        seen: Option<&StreamSeen>,
    ) -> Result<(Option<Offset>, Option<Landed>), LogError> {
        let last = match check.earlier {
            Some(earlier) => Some(Offset(self.next.0 + i64::from(earlier))),
            None => self.last_of(&check.key, seen)?,
        };
        match id {
            Some(id) => Ok((last, self.find_landed(check, id, last, seen)?)),
            None => Ok((last, None)),
        }
    }

    /// The last record of a stream that is written.
    fn last_of(&self, key: &[u8], seen: Option<&StreamSeen>) -> Result<Option<Offset>, LogError> {
        let reader = self.reader();
        let from = seen.map_or(Offset::ZERO, |seen| seen.below);
        if let Some(newer) = reader.last_of_key_within(key, from..self.end_written())? {
            return Ok(Some(newer));
        }
        Ok(seen.and_then(|seen| seen.last).filter(|last| *last >= self.start()))
    }

    fn find_landed(
        &self,
        check: &KeyCheck,
        id: &[u8],
        last: Option<Offset>,
        seen: Option<&StreamSeen>,
    ) -> Result<Option<Landed>, LogError> {
        let from = check.expected.lands_from();
        if last.is_none_or(|last| last < from) {
            return Ok(None);
        }
        if let Some(landed) = seen.and_then(|seen| seen.landed).filter(|l| l.base_offset >= self.start()) {
            return Ok(Some(landed));
        }
        let from = from.max(seen.map_or(Offset::ZERO, |seen| seen.below));
        self.reader().find_landed(&check.key, id, from..self.end_written())
    }
}
