//! The two forms of an index against a plain list, the golden bytes of the file, and what damage to it leads to.

use std::collections::BTreeMap;
use std::ops::Range;

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::Offset;
use proptest::prelude::*;

use super::file::{Blocks, Indexed, KeyIndex, ReadCost, Unusable, encode};
use super::map::KeyMap;
use super::*;
use crate::random::SplitMix;

const SEED: KeySeed = KeySeed(0x0123_4567_89ab_cdef, 42);
const ABOUT: Indexed =
    Indexed { base: Offset(1000), end: Offset(9000), bytes: 77, last_position: 60, last_crc: 0xdead_beef };

/// Records of keys, by the plainest means.
type Model = BTreeMap<u64, Vec<Posting>>;

fn index_of(entries: Vec<Entry>) -> KeyIndex {
    open(encode(entries, SEED, &ABOUT)).unwrap()
}

fn open(bytes: Vec<u8>) -> Result<KeyIndex, Unusable> {
    KeyIndex::open(Blocks::Memory(bytes), (ABOUT.base, ABOUT.end, ABOUT.bytes), &mut ReadCost::default())
}

fn expected(model: &Model, hash: u64, within: &Range<u32>, max: usize, direction: Direction) -> Vec<Posting> {
    let all = model.get(&hash).cloned().unwrap_or_default();
    let wanted = all.into_iter().filter(|p| within.contains(&p.offset));
    match direction {
        Direction::Forward => wanted.take(max).collect(),
        Direction::Backward => wanted.rev().take(max).collect(),
    }
}

proptest! {
    #[test]
    fn both_forms_answer_as_a_list_does(
        keys in prop::collection::vec((0u64..40, 1u32..4), 0..600),
        asked in prop::collection::vec((0u64..45, 0u32..2000, 0u32..2000, 0usize..9, any::<bool>()), 1..40),
        hot in any::<bool>(),
        cut in prop::option::of(0u32..2000),
    ) {
        let (mut map, mut model, mut offset) = (KeyMap::new(None), Model::new(), 0);
        for (n, (key, step)) in (0..).zip(keys) {
            // Of one key many records, of the others few: or all alike.
            let hash = SEED.hash(&(if hot && n % 2 == 0 { 0 } else { key }).to_le_bytes());
            offset += step;
            let posting = Posting { offset, position: n };
            map.add(&BatchKeys { hashes: vec![(hash, 1)] }, offset - 1, n);
            model.entry(hash).or_default().push(posting);
        }
        if let Some(cut) = cut {
            map.truncate(cut);
            model.values_mut().for_each(|postings| postings.retain(|p| p.offset < cut));
        }
        let index = index_of(map.entries());
        for (key, from, to, max, forward) in asked {
            let (hash, within) = (SEED.hash(&key.to_le_bytes()), from..to);
            let direction = if forward { Direction::Forward } else { Direction::Backward };
            let expected = expected(&model, hash, &within, max, direction);
            prop_assert_eq!(&map.collect(hash, &within, max, direction), &expected);
            let found = index.collect(hash, &within, max, direction, &mut ReadCost::default()).unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn every_key_of_a_large_index_is_found_with_a_few_blocks() {
    let mut random = SplitMix::new(7);
    let hashes: Vec<u64> = (0..30_000).map(|_| random.next_u64().max(1)).collect();
    let posting = |n: u32| Posting { offset: n, position: n * 3 };
    let entries = (0..90_000).map(|n| Entry { hash: hashes[n as usize % hashes.len()], posting: posting(n) });
    let bytes = encode(entries.collect(), SEED, &ABOUT);
    let file: std::sync::Arc<dyn crate::fs::DiskFile> = {
        use crate::fs::{Disk as _, OpenMode, SimDisk, write_all_at};
        let disk = SimDisk::new();
        disk.create_dir_all(std::path::Path::new("d")).unwrap();
        let file = disk.open(std::path::Path::new("d/x"), OpenMode::Create).unwrap();
        write_all_at(&*file, &mut [std::io::IoSlice::new(&bytes)], 0).unwrap();
        file
    };
    let about = (ABOUT.base, ABOUT.end, ABOUT.bytes);
    let index = KeyIndex::open(Blocks::File(file), about, &mut ReadCost::default()).unwrap();
    for (n, hash) in (0u32..).zip(&hashes) {
        let mut cost = ReadCost::default();
        let found = index.collect(*hash, &(0..u32::MAX), 9, Direction::Backward, &mut cost).unwrap();
        assert_eq!(found, [posting(n + 60_000), posting(n + 30_000), posting(n)]);
        assert!(cost.bytes <= 8 * 1024, "{cost:?}");
    }
    let mut cost = ReadCost::default();
    for _ in 0..1_000 {
        let _ = index.collect(random.next_u64(), &(0..u32::MAX), 9, Direction::Backward, &mut cost).unwrap();
    }
    assert!(cost.calls < 1_050, "a stranger costs one block nearly always, not {cost:?} for a thousand");
}

#[test]
fn keys_that_share_their_tag_and_bucket_are_found_together() {
    let hashes = [0x1000_0000_dead_beef, 0x1000_0001_dead_beef];
    let entry = |n: u32| Entry { hash: hashes[n as usize % 2], posting: Posting { offset: n, position: n } };
    let index = index_of((0..6).map(entry).collect());
    for hash in hashes {
        let found = index.collect(hash, &(1..5), 9, Direction::Forward, &mut ReadCost::default()).unwrap();
        assert_eq!(found.iter().map(|p| p.offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}

#[test]
fn no_flipped_bit_and_no_missing_byte_passes() {
    let entries = (0..2_000u32).map(|n| Entry {
        hash: SEED.hash(&(n % 700).to_le_bytes()),
        posting: Posting { offset: n, position: n },
    });
    let good = encode(entries.collect(), SEED, &ABOUT);
    let read_all = |index: &KeyIndex| {
        let hash = |n: u32| SEED.hash(&n.to_le_bytes());
        (0..700).try_for_each(|n| {
            let within = 0..u32::MAX;
            index.collect(hash(n), &within, 99, Direction::Forward, &mut ReadCost::default()).map(|found| {
                assert!(found.len() >= 2);
            })
        })
    };
    read_all(&open(good.clone()).unwrap()).unwrap();
    let mut random = SplitMix::new(3);
    for block in 0..good.len() / 1024 {
        let mut flipped = good.clone();
        flipped[block * 1024 + random.below(1024) as usize] ^= 1 << random.below(8);
        let found = open(flipped).and_then(|index| read_all(&index));
        assert!(matches!(found, Err(Unusable::Damaged(_))), "block {block}");
        assert!(open(good[..good.len() - 1 - random.below(1024) as usize].to_vec()).is_err());
    }
    let mut swapped = good.clone();
    let (first, second) = swapped.split_at_mut(2048);
    first[1024..].swap_with_slice(&mut second[..1024]);
    assert!(open(swapped).and_then(|index| read_all(&index)).is_err(), "blocks in each other's places");
    let other = (Offset(1000), Offset(9001), 77);
    assert!(KeyIndex::open(Blocks::Memory(good), other, &mut ReadCost::default()).is_err());
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let entry = |hash, offset| Entry { hash, posting: Posting { offset, position: 16 * offset } };
    let bytes = encode(vec![entry(0xf000_0000_0000_00aa, 1), entry(1, 3), entry(1, 2)], SEED, &ABOUT);
    let mut golden = Vec::new();
    let mut salt = 0u32;
    let mut block = |payload: &[u8]| {
        let number = (golden.len() / 1024) as u32;
        let mut padded = payload.to_vec();
        padded.resize(1020, 0);
        let crc = crc32fast::hash(&[&salt.to_be_bytes()[..], &number.to_be_bytes(), &padded].concat());
        if number == 0 {
            salt = crc;
        }
        golden.extend(padded);
        golden.extend(crc.to_be_bytes());
    };
    let mut head = b"FMKEYIDX\0\0\0\x01".to_vec();
    head.extend([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 0, 0, 0, 0, 0, 0, 42]);
    head.extend([0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0, 0x23, 0x28]);
    head.extend([0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 60, 0xde, 0xad, 0xbe, 0xef]);
    head.extend([0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
    block(&head);
    // The bits of both keys, as `filter` chooses them: written down, so that no change of it goes unnoticed.
    let mut line = [0u8; 64];
    for bit in FILTER_BITS {
        line[bit / 8] |= 1 << (bit % 8);
    }
    block(&line);
    let mut keys = vec![0, 2];
    keys.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    keys.extend([0, 0, 0, 0xaa, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 16]);
    block(&keys);
    block(&[0, 0, 0, 2, 0, 0, 0, 32, 0, 0, 0, 3, 0, 0, 0, 48]);
    let bits: Vec<usize> = (0..512).filter(|bit| bytes[1024 + bit / 8] & (1 << (bit % 8)) != 0).collect();
    assert_eq!(bits, FILTER_BITS);
    assert!(bytes == golden);
}

const FILTER_BITS: [usize; 12] = [35, 159, 178, 221, 238, 316, 332, 336, 407, 409, 461, 489];

#[test]
fn a_batch_gives_the_keys_of_its_records_and_a_control_batch_none() {
    let mut builder = BatchBuilder::new();
    for key in [Some(&b"a"[..]), None, Some(b""), Some(b"a")] {
        builder.push(&NewRecord { timestamp: 1, key, value: None, headers: &[] }).unwrap();
    }
    let batch = builder.build().unwrap();
    let keys = BatchKeys::of(batch.as_bytes(), batch.header(), SEED).unwrap();
    assert_eq!(keys.hashes, [(SEED.hash(b"a"), 0), (SEED.hash(b""), 2), (SEED.hash(b"a"), 3)]);
    let mut marker = BatchBuilder::new();
    let end = floodmark_proto::batch::EndTransactionMarker {
        result: floodmark_proto::batch::TransactionResult::Abort,
        coordinator_epoch: 1,
    };
    marker.push_marker(1, &end).unwrap();
    let marker = marker.build().unwrap();
    assert_eq!(BatchKeys::of(marker.as_bytes(), marker.header(), SEED).unwrap(), BatchKeys::default());
}
