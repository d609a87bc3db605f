//! What groups committed and were told, and who of them owned what.

use std::collections::BTreeMap;

use super::Verdict;
use super::staircase::Staircase;
use crate::history::{Anomaly, Event, Op, Partition};

/// So many of a partition's commits are remembered as having been tried; older ones may not be told any more anyhow.
const TRIED_MAX: usize = 1 << 16;
/// So many generations of a group are remembered.
const GENERATIONS_MAX: usize = 64;

/// One partition of one group.
#[derive(Default)]
struct Committed {
    acked: Staircase,
    /// Offsets that were committed, whether or not anybody was told so, and when that was begun first.
    tried: BTreeMap<i64, u64>,
    /// Offsets that the group was told though nobody had committed them yet as far as is known, and when.
    not_tried: Vec<(i64, u64)>,
}

type Owners = BTreeMap<Partition, String>;

#[derive(Default)]
pub(super) struct Groups {
    committed: BTreeMap<(String, Partition), Committed>,
    owners: BTreeMap<String, BTreeMap<i32, Owners>>,
}

impl Groups {
    pub(super) fn on_event(&mut self, event: &Event, verdict: &mut Verdict) {
        match &event.did {
            Op::Commit { group, partition, offset, acked } => {
                let committed = self.committed.entry((group.clone(), *partition)).or_default();
                committed.on_commit(event, *offset, *acked);
                verdict.seen.commits_acked += u64::from(*acked);
            }
            Op::Resume { group, partition, offset } => {
                let committed = self.committed.entry((group.clone(), *partition)).or_default();
                if let Some(acked) = committed.on_resume(event, *offset) {
                    let (group, partition, told) = (group.clone(), *partition, *offset);
                    verdict.push(Anomaly::CommitWentBack { group, partition, acked, told });
                }
                verdict.seen.resumes += u64::from(offset.is_some());
            }
            Op::Own { group, generation, member, partitions } => {
                verdict.seen.assignments += 1;
                let generations = self.owners.entry(group.clone()).or_default();
                let owners = generations.entry(*generation).or_default();
                for &partition in partitions {
                    if owners.entry(partition).or_insert_with(|| member.clone()) != member {
                        let (group, generation) = (group.clone(), *generation);
                        verdict.push(Anomaly::TwoOwners { group, generation, partition });
                    }
                }
                if generations.len() > GENERATIONS_MAX {
                    generations.pop_first();
                }
            }
            _ => {}
        }
    }

    pub(super) fn finish(self, verdict: &mut Verdict) {
        for ((group, partition), committed) in self.committed {
            for (told, _) in committed.not_tried {
                verdict.push(Anomaly::CommitInvented { group: group.clone(), partition, told });
            }
        }
    }
}

impl Committed {
    fn on_commit(&mut self, event: &Event, offset: i64, acked: bool) {
        let begun = self.tried.entry(offset).or_insert(event.begun);
        *begun = event.begun.min(*begun);
        if self.tried.len() > TRIED_MAX {
            self.tried.pop_first();
        }
        // It was on its way already when the group was told of it.
        self.not_tried.retain(|(told, when)| *told != offset || *when < event.begun);
        if acked {
            self.acked.rise(event.ended, offset);
        }
    }

    /// What had been acknowledged, where that is more than what was told.
    fn on_resume(&mut self, event: &Event, told: Option<i64>) -> Option<i64> {
        if let Some(told) = told {
            let oldest = self.tried.first_key_value().filter(|_| self.tried.len() == TRIED_MAX);
            let is_forgotten = oldest.is_some_and(|(oldest, _)| told < *oldest);
            let is_tried = self.tried.get(&told).is_some_and(|begun| *begun < event.ended);
            if !is_tried && !is_forgotten {
                self.not_tried.push((told, event.ended));
            }
        }
        self.acked.before(event.begun).filter(|acked| told.is_none_or(|told| told < *acked))
    }
}
