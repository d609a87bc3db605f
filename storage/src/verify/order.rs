//! Offsets must rise from batch to batch. Base offsets lie outside the checksum, so where they do not, the neighbours tell which
//! batch is the wrong one.

use std::path::{Path, PathBuf};

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::Offset;

use super::{Finding, Severity};

/// Offsets seen so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Least offset that may follow.
    pub(super) next: Offset,
    /// Runs of offsets that no batch covers.
    pub(super) gaps: u64,
    /// Offsets in them.
    pub(super) gap_offsets: u64,
    /// Offsets behind damage are no gap.
    is_after_damage: bool,
    /// The last batch, where a gap lies before it.
    jump: Option<Jump>,
}

#[derive(Debug)]
struct Jump {
    path: PathBuf,
    position: u64,
    offsets: (Offset, Offset),
    /// What could have followed.
    before: Offset,
}

/// A batch that does not follow.
pub(super) struct Misplaced {
    pub(super) finding: Finding,
    /// False where it is the batch before this one that has the wrong offsets.
    pub(super) is_this_batch: bool,
}

impl Order {
    /// Damage was met: what is missing before the next batch says nothing.
    pub(super) fn lose_track(&mut self) {
        self.is_after_damage = true;
    }

    /// The next batch begins at `base` or later; true where that leaves a gap.
    pub(super) fn skip_to(&mut self, base: Offset) -> bool {
        let is_gap = base > self.next && !self.is_after_damage;
        if is_gap {
            self.gaps += 1;
            self.gap_offsets += (base - self.next).unsigned_abs();
        }
        if base > self.next {
            self.is_after_damage = false;
            self.next = base;
        }
        is_gap
    }

    /// The next batch; says whether it leaves a gap.
    pub(super) fn on_batch(
        &mut self,
        path: &Path,
        position: u64,
        header: &BatchHeader,
    ) -> Result<bool, Misplaced> {
        let before = self.next;
        if header.base_offset >= before {
            let is_gap = self.skip_to(header.base_offset);
            self.is_after_damage = false;
            self.jump = is_gap.then(|| Jump {
                path: path.to_owned(),
                position,
                offsets: (header.base_offset, header.last_offset()),
                before,
            });
            self.next = header.next_offset();
            return Ok(is_gap);
        }
        match self.jump.take().filter(|jump| header.base_offset >= jump.before) {
            Some(jump) => {
                self.gaps -= 1;
                self.gap_offsets -= (jump.offsets.0 - jump.before).unsigned_abs();
                self.next = header.next_offset();
                let expected = format!(
                    "offsets from {} on and before {}, where the next batch begins",
                    jump.before, header.base_offset
                );
                let finding = misplaced(&jump.path, jump.position, jump.offsets, expected);
                Err(Misplaced { finding, is_this_batch: false })
            }
            None => {
                let expected = format!("an offset from {before} on");
                let offsets = (header.base_offset, header.last_offset());
                Err(Misplaced { finding: misplaced(path, position, offsets, expected), is_this_batch: true })
            }
        }
    }
}

fn misplaced(path: &Path, position: u64, (base, last): (Offset, Offset), expected: String) -> Finding {
    Finding {
        severity: Severity::Damage,
        path: path.to_owned(),
        byte: Some(position),
        offset: Some(base),
        found: format!("a batch of offsets {base} to {last}"),
        expected,
    }
}
