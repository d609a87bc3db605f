//! Where chance comes from, so that a test or a simulation can own it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

/// A source of chance; clones draw from the same.
#[derive(Debug, Clone, Default)]
pub enum Random {
    /// The machine's.
    #[default]
    System,
    /// A sequence that a seed decides.
    Seeded(Arc<Mutex<SplitMix>>),
}

impl Random {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Random {
        Random::Seeded(Arc::new(Mutex::new(SplitMix::new(seed))))
    }

    /// The next number. From the machine it is unpredictable enough for identities and hash keys, not for secrets.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        match self {
            // The standard library keys its hashers from the operating system; hashing nothing gives one such draw.
            Random::System => RandomState::new().hash_one(()),
            Random::Seeded(sequence) => sequence.lock().next_u64(),
        }
    }
}

/// The SplitMix64 sequence: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct SplitMix(u64);

impl SplitMix {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next_u64() % limit }
    }
}
