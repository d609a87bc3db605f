//! What is said of partitions that cannot be had while they are tried again and again: of each once, of all of them together now and then,
//! and of each when it can be had. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::UnusablePartition;
use crate::lasting::APART;
use crate::partition::PartitionId;

/// What is to be said now.
#[derive(Debug)]
pub(super) enum Complaint {
    /// One cannot be had.
    Begins(UnusablePartition),
    /// Tries for those of which that was said have failed so often since, this one among the last.
    Lasts { failures: u64, last: UnusablePartition },
    /// One of which it was said can be had.
    Over { id: PartitionId },
}

/// How it is with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    /// It can be had.
    Held,
    /// It cannot.
    Missing,
    /// Nobody wants it any more.
    Unwanted,
}

/// Of which partitions it was said that they cannot be had.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: BTreeSet<PartitionId>,
    failures: u64,
    said: Duration,
}

impl Complaints {
    /// Somebody else has just said it of those.
    pub(super) fn after_telling(told: BTreeSet<PartitionId>, now: Duration) -> Complaints {
        Complaints { told, failures: 0, said: now }
    }

    /// After a round of tries in which `failed` could not be had.
    pub(super) fn after(
        &mut self,
        failed: Vec<UnusablePartition>,
        present: impl Fn(&PartitionId) -> Present,
        now: Duration,
    ) -> Vec<Complaint> {
        let mut said = Vec::new();
        let mut last = None;
        for failed in failed {
            if self.told.insert(failed.id.clone()) {
                self.said = now;
                said.push(Complaint::Begins(failed));
            } else {
                self.failures += 1;
                last = Some(failed);
            }
        }
        if let Some(last) = last
            && now >= self.said + APART
        {
            self.said = now;
            said.push(Complaint::Lasts { failures: std::mem::take(&mut self.failures), last });
        }
        for id in std::mem::take(&mut self.told) {
            match present(&id) {
                Present::Held => said.push(Complaint::Over { id }),
                Present::Unwanted => {}
                Present::Missing => drop(self.told.insert(id)),
            }
        }
        said
    }
}

impl Complaint {
    /// Says it.
    pub(super) fn tell(self) {
        match self {
            Complaint::Begins(partition) => {
                tracing::error!(error = %partition, "a partition cannot be used");
            }
            Complaint::Lasts { failures, last } => {
                tracing::error!(failures, error = %last, "partitions still cannot be used; they are tried again");
            }
            Complaint::Over { id } => tracing::info!(partition = %id, "the partition can be used now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use floodmark_proto::ids::TopicId;
    use floodmark_storage::LogError;

    use super::*;

    fn id(index: i32) -> PartitionId {
        PartitionId { topic_id: TopicId::from_bytes([7; 16]).unwrap(), topic: "t".into(), index }
    }

    fn failed(indexes: &[i32]) -> Vec<UnusablePartition> {
        let source = LogError::Refused { path: PathBuf::new(), reason: "full".to_owned() };
        indexes.iter().map(|index| UnusablePartition { id: id(*index), source: source.clone() }).collect()
    }

    fn words(said: Vec<Complaint>) -> Vec<String> {
        let word = |complaint| match complaint {
            Complaint::Begins(partition) => format!("{} begins", partition.id),
            Complaint::Lasts { failures, last } => format!("{} lasts, {failures}", last.id),
            Complaint::Over { id } => format!("{id} over"),
        };
        said.into_iter().map(word).collect()
    }

    #[test]
    fn of_each_it_is_said_once_of_all_now_and_then_and_of_each_when_it_is_over() {
        let mut complaints = Complaints::after_telling([id(0)].into(), Duration::ZERO);
        let mut said = Vec::new();
        for round in 1..=13 {
            let present = |id: &PartitionId| match (id.index, round) {
                (0, 13) => Present::Held,
                (1, 13) => Present::Unwanted,
                _ => Present::Missing,
            };
            let tried: &[i32] = if round == 13 { &[2] } else { &[0, 1, 2] };
            let now = Duration::from_secs(10 * round);
            said.extend(words(complaints.after(failed(tried), present, now)).into_iter().map(|w| (round, w)));
        }
        let expected = [
            (1, "t-1 begins"),
            (1, "t-2 begins"),
            (7, "t-2 lasts, 19"),
            (13, "t-2 lasts, 16"),
            (13, "t-0 over"),
        ];
        assert_eq!(said, expected.map(|(round, word)| (round, word.to_owned())));
        // One that was deleted and made again is another.
        let again = complaints.after(failed(&[1, 2]), |_| Present::Missing, Duration::from_secs(131));
        assert_eq!(words(again), ["t-1 begins"]);
    }
}
