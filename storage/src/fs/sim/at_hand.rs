//! How much of a file a simulated disk has in memory, for reads that may not wait: by chance, or all of it.

use std::ops::Range;
use std::path::PathBuf;

use super::SimDisk;
use crate::random::SplitMix;

/// What [`crate::fs::DiskFile::read_at_hand`] finds.
#[derive(Debug, Clone)]
pub(super) struct AtHand {
    pub(super) all: bool,
    /// What need not be kept, as it was said. It stays all the same.
    pub(super) let_go: Vec<(PathBuf, Range<u64>)>,
    /// The same on every disk: a test has the same luck each time.
    chance: SplitMix,
}

impl Default for AtHand {
    fn default() -> AtHand {
        AtHand { all: false, let_go: Vec::new(), chance: SplitMix::new(1) }
    }
}

impl SimDisk {
    /// What of which file need not be kept in memory, in the order in which that was said.
    #[must_use]
    pub fn let_go(&self) -> Vec<(PathBuf, Range<u64>)> {
        self.state.lock().at_hand.let_go.clone()
    }
}

impl AtHand {
    /// How much of a read of `wanted` bytes is there; never nothing, which would mean the end of the file.
    pub(super) fn of(&mut self, wanted: usize) -> Option<usize> {
        match self.chance.below(3) {
            _ if self.all => Some(wanted),
            0 => None,
            1 => Some(self.chance.below(wanted as u64) as usize).map(|bytes| bytes.max(1).min(wanted)),
            _ => Some(wanted),
        }
    }
}
