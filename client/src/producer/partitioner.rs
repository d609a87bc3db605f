//! Which partition a record goes to. Equal to Kafka's Java client for keys, so that all clients agree where a key lives.

use std::sync::atomic::{AtomicUsize, Ordering};

use floodmark_proto::murmur2;

use crate::chance::random_u64;

/// The partition of a key among `partitions`, as Kafka's Java client chooses it.
#[must_use]
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    murmur2::partition_of_key(key, u32::try_from(partitions).unwrap_or(0)) as i32
}

/// Where records without a key go: one partition until it was given a batch's worth of bytes, then another by chance.
#[derive(Debug)]
pub(super) struct Sticky {
    current: AtomicUsize,
    bytes: AtomicUsize,
}

impl Sticky {
    pub(super) fn new() -> Sticky {
        Sticky { current: AtomicUsize::new(random_u64() as usize), bytes: AtomicUsize::new(0) }
    }

    /// The place among `partitions` for a record of so many bytes. Where several ask at once the switch may come a record early or late.
    pub(super) fn next(&self, partitions: usize, size_bytes: usize, batch_bytes: usize) -> usize {
        let before = self.bytes.fetch_add(size_bytes, Ordering::Relaxed);
        if before >= batch_bytes {
            self.bytes.store(size_bytes, Ordering::Relaxed);
            self.current.fetch_add(
                1 + random_u64() as usize % partitions.saturating_sub(1).max(1),
                Ordering::Relaxed,
            );
        }
        self.current.load(Ordering::Relaxed) % partitions.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_keys_are_kafkas() {
        // Hashes computed by org.apache.kafka.common.utils.Utils.murmur2 of Kafka 4.3.1.
        for (key, hash) in VECTORS {
            for partitions in [1, 3, 12, 1000] {
                let expected = (hash & i32::MAX) % partitions;
                assert_eq!(partition_of_key(key.as_bytes(), partitions), expected, "{key:?} of {partitions}");
            }
        }
    }

    const VECTORS: &[(&str, i32)] = &[
        ("", 275_646_681),
        ("a", -1_563_381_124),
        ("ab", 316_155_434),
        ("abc", 479_470_107),
        ("abcd", -1_323_649_548),
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("k\u{f6}ln", -663_642_723),
        ("\u{0}\u{1}", -2_112_343_979),
        ("order-42", 501_153_024),
    ];

    #[test]
    fn records_without_a_key_stay_together_for_a_batch_and_reach_every_partition() {
        let sticky = Sticky::new();
        let mut counts = [0; 4];
        let mut switches = 0;
        let mut last = None;
        for _ in 0..10_000 {
            let partition = sticky.next(4, 100, 1000);
            counts[partition] += 1;
            switches += usize::from(last.replace(partition).is_some_and(|last| last != partition));
        }
        assert!(counts.iter().all(|count| *count > 1000), "{counts:?}");
        assert!((800..=1000).contains(&switches), "{switches}");
    }
}
