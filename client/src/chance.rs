//! Chance: jitter of waits, identities of appends and messages. From the keys that the system gives to hash maps, so that no crate is
//! needed for it; not for secrets.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// 64 bits that no other call has seen.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(CALLS.fetch_add(1, Ordering::Relaxed))
}

/// 16 bytes for something that wants a name of its own.
pub(crate) fn random_id() -> [u8; 16] {
    let bits = u128::from(random_u64()) << 64 | u128::from(random_u64());
    bits.to_be_bytes()
}
