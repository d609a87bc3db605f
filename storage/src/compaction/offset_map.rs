//! Key to newest offset in bounded memory: a table of keyed 128-bit hashes, so that a key costs 24 bytes whatever its length,
//! and nobody who does not know the hash keys can make two keys collide. Where keys need not be asked for any more, the same memory is a list.

use std::hint::black_box;

use floodmark_proto::ids::Offset;
use siphasher::sip128::SipHasher13;

/// Words of a slot: two of hash, one of offset plus one (0: free).
const SLOT_WORDS: usize = 3;
const SLOT_BYTES: usize = SLOT_WORDS * size_of::<u64>();
/// Slots in use, of eight, up to which probing stays short.
const LOAD_EIGHTHS: usize = 7;

/// The newest offset of each key.
#[derive(Debug)]
pub struct OffsetMap {
    hasher: SipHasher13,
    slots: Vec<[u64; SLOT_WORDS]>,
    len: usize,
    len_max: usize,
}

/// A key as one map knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u64; 2]);

/// The map has no room for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapFull;

impl OffsetMap {
    /// A map of at most `budget_bytes` (room for one key at least), no larger than `keys` keys need. `hash_keys` must not be
    /// guessable.
    #[must_use]
    pub fn new(budget_bytes: usize, keys: u64, hash_keys: (u64, u64)) -> OffsetMap {
        let affordable = (budget_bytes / SLOT_BYTES).max(2);
        let needed = usize::try_from(keys)
            .unwrap_or(usize::MAX)
            .saturating_mul(8)
            .div_ceil(LOAD_EIGHTHS)
            .saturating_add(1);
        let slots = affordable.min(needed.max(2));
        OffsetMap {
            hasher: SipHasher13::new_with_keys(hash_keys.0, hash_keys.1),
            // Zeros from the operating system: memory that is never used is never taken.
            slots: vec![[0; SLOT_WORDS]; slots],
            len: 0,
            len_max: (slots / 8 * LOAD_EIGHTHS + slots % 8 * LOAD_EIGHTHS / 8).max(1),
        }
    }

    /// Keys held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where no key is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the map knows a key by.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let hash = self.hasher.hash(key);
        KeyHash([hash.h1, hash.h2])
    }

    /// Brings the slots of keys that will be asked for at once into the caches. The table is far larger than those, so that each look into it
    /// waits for memory; looks that do not wait for one another wait at the same time.
    pub fn approach(&self, keys: impl Iterator<Item = KeyHash>) {
        let mut seen = 0;
        for hash in keys {
            seen |= self.slots[self.place(hash)][2];
        }
        black_box(seen);
    }

    /// Notes that a key was written at `offset`; a lower one than noted before changes nothing. Fails, changing nothing,
    /// where the key is new and there is no room.
    pub fn put(&mut self, key: KeyHash, offset: Offset) -> Result<(), MapFull> {
        let at = self.find(key);
        let stored = offset.0 as u64 + 1;
        if self.slots[at][2] == 0 {
            if self.len == self.len_max {
                return Err(MapFull);
            }
            self.len += 1;
            self.slots[at] = [key.0[0], key.0[1], stored];
        } else {
            self.slots[at][2] = self.slots[at][2].max(stored);
        }
        Ok(())
    }

    /// The newest offset noted for a key.
    #[must_use]
    pub fn newest(&self, key: KeyHash) -> Option<Offset> {
        if self.len == 0 {
            return None;
        }
        self.slots[self.find(key)][2].checked_sub(1).map(|offset| Offset(offset as i64))
    }

    /// The newest offsets of all keys, in the memory of the table.
    #[must_use]
    pub fn into_newest_offsets(self) -> NewestOffsets {
        let mut words = self.slots.into_flattened();
        // What is written lies never behind what is read: one word for each slot of three.
        let mut len = 0;
        for slot in 0..words.len() / SLOT_WORDS {
            if let Some(offset) = words[slot * SLOT_WORDS + 2].checked_sub(1) {
                words[len] = offset;
                len += 1;
            }
        }
        words.truncate(len);
        words.sort_unstable();
        NewestOffsets { rising: words, next: 0 }
    }

    /// The slot of a key, or the free one where it belongs. There is always a free one.
    fn find(&self, key: KeyHash) -> usize {
        let mut at = self.place(key);
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 || slot[..2] == key.0 {
                return at;
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
    }

    /// Where looking for a key begins. A hash as a fraction of the table: any number of slots serves, not only powers of two.
    fn place(&self, key: KeyHash) -> usize {
        ((u128::from(key.0[0]) * self.slots.len() as u128) >> 64) as usize
    }
}

/// The offsets of an [`OffsetMap`] without their keys. Of a record that was put into the map its offset alone tells whether it is the newest of
/// its key, and records come in the order of their offsets: so asking costs a comparison, where the map costs a hash and a wait for memory.
#[derive(Debug, Default)]
pub struct NewestOffsets {
    rising: Vec<u64>,
    /// The first that is not below what was asked for last.
    next: usize,
}

impl NewestOffsets {
    /// True where a key's newest record lies at `offset`, which is no lower than any asked for before.
    #[inline]
    pub fn holds(&mut self, offset: Offset) -> bool {
        let offset = offset.0 as u64;
        while self.rising.get(self.next).is_some_and(|next| *next < offset) {
            self.next += 1;
        }
        self.rising.get(self.next) == Some(&offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_map_says_so_and_still_takes_keys_it_knows() {
        let mut map = OffsetMap::new(24 * 16, 1_000, (1, 2));
        let mut taken = 0;
        while map.put(map.hash(&[taken]), Offset(i64::from(taken))).is_ok() {
            taken += 1;
        }
        assert_eq!((taken, map.len()), (14, 14));
        assert_eq!(map.put(map.hash(&[3]), Offset(99)), Ok(()));
        assert_eq!(map.newest(map.hash(&[3])), Some(Offset(99)));
        assert_eq!(map.put(map.hash(&[200]), Offset(100)), Err(MapFull));
        assert_eq!(map.newest(map.hash(&[200])), None);
    }

    #[test]
    fn the_smallest_budget_holds_a_key() {
        let mut map = OffsetMap::new(0, u64::MAX, (1, 2));
        assert_eq!(map.put(map.hash(b""), Offset(i64::MAX)), Ok(()));
        assert_eq!(map.put(map.hash(b"a"), Offset(1)), Err(MapFull));
        assert_eq!(map.newest(map.hash(b"")), Some(Offset(i64::MAX)));
    }

    #[test]
    fn memory_follows_the_smaller_of_budget_and_need() {
        assert!(OffsetMap::new(1 << 30, 10, (0, 0)).slots.len() < 20);
        assert!(OffsetMap::new(2_400, 1 << 40, (0, 0)).slots.len() <= 100);
        let mut exact = OffsetMap::new(1 << 30, 1_000, (5, 6));
        assert!((0..1_000i64).all(|n| exact.put(exact.hash(&n.to_le_bytes()), Offset(n)).is_ok()));
    }

    proptest! {
        #[test]
        fn it_answers_as_a_plain_map_does(puts in prop::collection::vec((0u8..60, 0i64..1_000), 0..300), seed: u64) {
            let mut map = OffsetMap::new(24 * 100, 60, (seed, !seed));
            let mut model = HashMap::new();
            for (key, offset) in puts {
                prop_assert_eq!(map.put(map.hash(&[key]), Offset(offset)), Ok(()));
                let newest = model.entry(key).or_insert(offset);
                *newest = offset.max(*newest);
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..60 {
                prop_assert_eq!(map.newest(map.hash(&[key])), model.get(&key).copied().map(Offset));
            }
        }

        /// Keys of one hash are one key to both. Most hashes here share their slot with others.
        #[test]
        fn the_list_knows_the_newest_as_the_map_does(
            keys in prop::collection::vec((0u64..3, 0u64..12), 0..200),
            gap in 1i64..4,
            slots in 2usize..60,
        ) {
            let mut map = OffsetMap::new(SLOT_BYTES * slots, 60, (1, 2));
            let place = u64::MAX / 2;
            let records = keys.iter().zip(0..).map(|((high, low), n)| (KeyHash([place + high, *low]), Offset(n * gap)));
            let put: Vec<_> = records.take_while(|(key, offset)| map.put(*key, *offset).is_ok()).collect();
            let newest: Vec<bool> = put.iter().map(|(key, offset)| map.newest(*key) == Some(*offset)).collect();
            let (bytes, keys) = (map.slots.len() * SLOT_BYTES, map.len());
            let mut list = map.into_newest_offsets();
            prop_assert_eq!(list.rising.len(), keys);
            prop_assert!(list.rising.capacity() * size_of::<u64>() <= bytes);
            for ((_, offset), newest) in put.iter().zip(newest) {
                prop_assert_eq!(list.holds(*offset), newest);
            }
            prop_assert!(!list.holds(Offset(i64::MAX)));
        }
    }
}
