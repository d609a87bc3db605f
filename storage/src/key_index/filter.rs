//! The membership filter of a key index: lines of 64 bytes, of which a key uses one, so that asking costs one read. It may say that
//! a key is there which is not, never the opposite.

/// Bytes of a line: 512 bits.
pub(super) const LINE_BYTES: usize = 64;
/// Bits spent on a key. With six of them set, one unknown key in some two hundred passes.
const BITS_A_KEY: u64 = 12;
const BITS_SET: u32 = 6;

/// Lines of a filter for so many keys.
pub(super) fn lines_for(keys: u64) -> u64 {
    (keys * BITS_A_KEY).div_ceil(LINE_BYTES as u64 * 8).max(1)
}

/// The line of a hash, by its upper bits.
pub(super) fn line_of(hash: u64, lines: u64) -> u64 {
    ((u128::from(hash) * u128::from(lines)) >> 64) as u64
}

/// The bits of a hash within its line.
fn bits_of(hash: u64) -> impl Iterator<Item = usize> {
    // The line was chosen by the upper bits, so these must depend on all of them.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..BITS_SET).map(move |n| ((mixed >> (10 + 9 * n)) & 511) as usize)
}

pub(super) fn set(line: &mut [u8], hash: u64) {
    for bit in bits_of(hash) {
        line[bit / 8] |= 1 << (bit % 8);
    }
}

pub(super) fn may_hold(line: &[u8], hash: u64) -> bool {
    bits_of(hash).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    #[test]
    fn it_never_denies_a_key_and_seldom_takes_a_stranger_for_one() {
        let mut random = SplitMix::new(1);
        let keys: Vec<u64> = (0..20_000).map(|_| random.next_u64()).collect();
        let lines = lines_for(keys.len() as u64);
        let mut filter = vec![0u8; lines as usize * LINE_BYTES];
        let line = |hash| line_of(hash, lines) as usize * LINE_BYTES;
        for key in &keys {
            set(&mut filter[line(*key)..][..LINE_BYTES], *key);
        }
        assert!(keys.iter().all(|key| may_hold(&filter[line(*key)..][..LINE_BYTES], *key)));
        let passed = (0..100_000)
            .map(|_| random.next_u64())
            .filter(|key| may_hold(&filter[line(*key)..][..LINE_BYTES], *key))
            .count();
        assert!(passed < 1_000, "{passed} of 100000 strangers passed");
    }
}
