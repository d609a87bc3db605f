//! Which partition a key belongs to, as Kafka's Java client decides it, so that all clients and doors agree. Pure.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// The 32-bit MurmurHash2 with the seed that Kafka uses.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    // Kafka's arrays are no longer than 31 bits can tell.
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

/// The partition of a key among so many; 0 where there is none.
#[must_use]
pub fn partition_of_key(key: &[u8], partition_count: u32) -> u32 {
    // Java's remainder of a hash with its sign bit cleared.
    (murmur2(key) & 0x7fff_ffff).checked_rem(partition_count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked cases of Kafka's own test of its hash.
    #[test]
    fn hashes_are_those_of_kafkas_client() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_key_has_a_partition_whatever_their_number() {
        assert_eq!(partition_of_key(b"21", 0), 0);
        assert_eq!(partition_of_key(b"21", 1), 0);
        assert_eq!(partition_of_key(b"foobar", 1000), ((-790_332_482_i32 & 0x7fff_ffff) % 1000) as u32);
    }
}
