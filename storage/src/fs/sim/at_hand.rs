//! How much of a file a simulated disk has in memory, for reads that may not wait: by chance, or all of it.

use crate::random::SplitMix;

/// What [`crate::fs::DiskFile::read_at_hand`] finds.
#[derive(Debug, Clone)]
pub(super) struct AtHand {
    pub(super) all: bool,
    /// The same on every disk: a test has the same luck each time.
    chance: SplitMix,
}

impl Default for AtHand {
    fn default() -> AtHand {
        AtHand { all: false, chance: SplitMix::new(1) }
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
