//! The forms of an index against a plain list, the bytes of the file against the format put down plainly, and what damage to it leads to.

use std::collections::BTreeMap;
use std::ops::Range;

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::Offset;
use proptest::prelude::*;

use super::file::{Blocks, Indexed, KeyIndex, ReadCost, Unusable};
use super::map::KeyMap;
use super::write::encode;
use super::*;
use crate::random::SplitMix;

const SEED: KeySeed = KeySeed(0x0123_4567_89ab_cdef, 42);
const ABOUT: Indexed =
    Indexed { base: Offset(1000), end: Offset(9000), bytes: 77, last_position: 60, last_crc: 0xdead_beef };

/// Records of keys, by the plainest means.
type Model = BTreeMap<u64, Vec<Posting>>;

fn encoded(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut map = KeyMap::new(None);
    entries.into_iter().for_each(|entry| map.push(entry));
    encode(&map.into_table(), SEED, &ABOUT)
}

fn index_of(entries: impl IntoIterator<Item = Entry>) -> KeyIndex {
    open(encoded(entries)).unwrap()
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

/// Asked of an index: number of the key, from, to, how many, whether forward.
type Asked = (u64, u32, u32, usize, bool);

fn asked() -> impl Strategy<Value = Asked> {
    (0u64..45, 0u32..2000, 0u32..2000, 0usize..9, any::<bool>())
}

fn question((key, from, to, max, forward): Asked) -> (u64, Range<u32>, usize, Direction) {
    let direction = if forward { Direction::Forward } else { Direction::Backward };
    (SEED.hash(&key.to_le_bytes()), from..to, max, direction)
}

proptest! {
    /// Pieces of a log, behind each of which it may be cut, and is looked into: so what is asked for lies in the table, or before it, or in both.
    #[test]
    fn all_forms_answer_as_a_list_does(
        pieces in prop::collection::vec(
            (
                prop::collection::vec((0u64..40, 1u32..4), 0..400),
                prop::option::of(0u32..300),
                prop::collection::vec(asked(), 0..8),
            ),
            1..4,
        ),
        last_asked in prop::collection::vec(asked(), 1..40),
        hot in any::<bool>(),
    ) {
        let (mut map, mut model, mut offset) = (KeyMap::new(None), Model::new(), 0);
        let (mut writer, mut bytes_max) = (map.tail_writer(), 0);
        for (keys, cut, asked) in pieces {
            for (n, (key, step)) in (0..).zip(keys) {
                // Of one key many records, of the others few: or all alike.
                let hash = SEED.hash(&(if hot && n % 2 == 0 { 0 } else { key }).to_le_bytes());
                offset += step;
                let keys = BatchKeys { first: Some((hash, 1)), ..BatchKeys::default() };
                match writer.as_ref().and_then(|writer| writer.add(&keys, offset - 1, n)) {
                    Some(more_bytes) => bytes_max += more_bytes,
                    None => {
                        map.add(&keys, offset - 1, n);
                        (bytes_max, writer) = (map.file_bytes(), map.tail_writer());
                    }
                }
                prop_assert_eq!(bytes_max, map.file_bytes());
                model.entry(hash).or_default().push(Posting { offset, position: n });
            }
            if let Some(cut) = cut {
                let end = offset.saturating_sub(cut);
                map.truncate(end);
                model.values_mut().for_each(|postings| postings.retain(|p| p.offset < end));
                (offset, bytes_max) = (end, map.file_bytes());
            }
            for (hash, within, max, direction) in asked.into_iter().map(question) {
                let expected = expected(&model, hash, &within, max, direction);
                prop_assert_eq!(&map.collect(hash, &within, max, direction), &expected);
            }
        }
        let table = map.into_table();
        let keys = BatchKeys { first: Some((1, 0)), ..BatchKeys::default() };
        prop_assert!(writer.is_none_or(|writer| writer.add(&keys, offset, 0).is_none()), "into a map that is no more");
        let bytes = encode(&table, SEED, &ABOUT);
        // Beside the keys there is a head, and the last block of each kind need not be full.
        prop_assert!(bytes.len() as u64 <= bytes_max * 1024 / 1000 + 4 * 1024, "{} of {bytes_max}", bytes.len());
        prop_assert!(bytes == put_down_plainly(&model));
        let index = open(bytes).unwrap();
        for (hash, within, max, direction) in last_asked.into_iter().map(question) {
            let expected = expected(&model, hash, &within, max, direction);
            prop_assert_eq!(&table.collect(hash, &within, max, direction), &expected);
            let found = index.collect(hash, &within, max, direction, &mut ReadCost::default()).unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}

/// The file as docs/RECORD_FORMAT.md has it, by the plainest means.
fn put_down_plainly(model: &Model) -> Vec<u8> {
    let hashes: Vec<u64> =
        model.iter().filter(|(_, postings)| !postings.is_empty()).map(|(h, _)| *h).collect();
    let scaled = |hash: u64, by: usize| ((u128::from(hash) * by as u128) >> 64) as usize;
    let (lines, buckets) = ((hashes.len() * 12).div_ceil(512).max(1), hashes.len().div_ceil(48).max(1));
    let mut filter = vec![[0u8; 64]; lines];
    let mut of_buckets: Vec<BTreeMap<u32, Vec<Posting>>> = vec![BTreeMap::new(); buckets];
    for hash in &hashes {
        super::filter::set(&mut filter[scaled(*hash, lines)], *hash);
        let of_tag = of_buckets[scaled(*hash, buckets)].entry(*hash as u32).or_default();
        of_tag.extend(&model[hash]);
        of_tag.sort_unstable();
    }
    let (mut key_blocks, mut waiting, mut postings) = (Vec::new(), Vec::new(), Vec::new());
    let mut take = |waiting: &mut Vec<[u32; 4]>| {
        let taken: Vec<[u32; 4]> = waiting.drain(..waiting.len().min(63)).collect();
        let count = (taken.len() as u16).to_be_bytes();
        key_blocks.push(
            [&count[..], &taken.into_iter().flatten().flat_map(u32::to_be_bytes).collect::<Vec<_>>()]
                .concat(),
        );
    };
    for (tag, of_tag) in of_buckets
        .into_iter()
        .flat_map(|of_bucket| of_bucket.into_iter().map(Some).chain([None]))
        .map(Option::unzip)
    {
        match (tag, of_tag.as_deref()) {
            (Some(tag), Some([only])) => waiting.push([tag, 1, only.offset, only.position]),
            (Some(tag), Some(many)) => {
                waiting.push([tag, many.len() as u32, postings.len() as u32, 0]);
                postings.extend_from_slice(many);
            }
            // The bucket's end.
            _ => take(&mut waiting),
        }
    }
    while !waiting.is_empty() {
        take(&mut waiting);
    }
    let mut head = [&b"FMKEYIDX\0\0\0\x01"[..], &SEED.0.to_be_bytes(), &SEED.1.to_be_bytes()].concat();
    head.extend([ABOUT.base.0, ABOUT.end.0].into_iter().flat_map(i64::to_be_bytes));
    head.extend([ABOUT.bytes, ABOUT.last_position].into_iter().flat_map(u64::to_be_bytes));
    let counts = [hashes.len(), lines, buckets, key_blocks.len(), postings.len()].map(|count| count as u32);
    head.extend([ABOUT.last_crc].into_iter().chain(counts).flat_map(u32::to_be_bytes));
    let posting_blocks = postings.chunks(127).map(|of_block| {
        of_block.iter().flat_map(|p| [p.offset, p.position]).flat_map(u32::to_be_bytes).collect()
    });
    let filter_blocks = filter.chunks(15).map(|lines| lines.concat());
    checked([head].into_iter().chain(filter_blocks).chain(key_blocks).chain(posting_blocks))
}

/// Blocks with their checksums.
fn checked(payloads: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let (mut bytes, mut salt) = (Vec::new(), 0u32);
    for (number, mut payload) in (0u32..).zip(payloads) {
        payload.resize(1020, 0);
        let crc = crc32fast::hash(&[&salt.to_be_bytes()[..], &number.to_be_bytes(), &payload].concat());
        if number == 0 {
            salt = crc;
        }
        bytes.extend(payload);
        bytes.extend(crc.to_be_bytes());
    }
    bytes
}

#[test]
fn a_newest_record_is_found_behind_older_ones_of_its_key() {
    let mut map = KeyMap::new(None);
    let mut newest = BTreeMap::new();
    // Each record is asked for at once, and again when others have followed: it goes from the list into the table meanwhile.
    for n in 0u32..2_000 {
        let hash = SEED.hash(&(n * n % 611).to_le_bytes());
        map.push(Entry { hash, posting: Posting { offset: n, position: n } });
        newest.insert(hash, n);
        for hash in [Some(&hash), newest.keys().nth(n as usize % newest.len())].into_iter().flatten() {
            let found = map.collect(*hash, &(0..u32::MAX), 1, Direction::Backward);
            assert_eq!(found.first().map(|p| p.offset), newest.get(hash).copied(), "after {n}");
        }
    }
    assert!(map.collect(SEED.hash(b"nobody"), &(0..u32::MAX), 1, Direction::Backward).is_empty());
}

#[test]
fn keys_that_find_the_end_of_the_table_full_are_in_the_file_as_well() {
    // Lines at either end overflow: those of the last one into the first ones, and those into the ones behind.
    for (last, first) in [(1, 0), (3, 40), (30, 0), (40, 3), (150, 150), (9, 1_000)] {
        let at_end = (0..last).map(|n| u64::MAX - n * 3);
        let hashes: Vec<u64> = at_end.chain((0..first).map(|n| 1 + n * 5)).collect();
        let mut model = Model::new();
        let entries = (0..).zip(hashes.iter().cycle()).take(hashes.len() * 2).map(|(n, hash)| {
            let posting = Posting { offset: n, position: n };
            model.entry(*hash).or_default().push(posting);
            Entry { hash: *hash, posting }
        });
        let bytes = encoded(entries);
        assert!(bytes == put_down_plainly(&model), "{last} and {first}");
    }
}

#[test]
fn a_table_as_large_as_another_and_one_that_grew_make_the_same_file() {
    let entries = |n: u32| Entry {
        hash: SEED.hash(&(n % 9_000).to_le_bytes()),
        posting: Posting { offset: n, position: n },
    };
    let mut grown = KeyMap::new(None);
    (0..20_000).for_each(|n| grown.push(entries(n)));
    let grown = grown.into_table();
    let mut like = KeyMap::new(Some(&grown));
    (0..20_000).for_each(|n| like.push(entries(n)));
    assert!(encode(&like.into_table(), SEED, &ABOUT) == encode(&grown, SEED, &ABOUT));
}

#[test]
fn every_key_of_a_large_index_is_found_with_a_few_blocks() {
    let mut random = SplitMix::new(7);
    let hashes: Vec<u64> = (0..30_000).map(|_| random.next_u64().max(1)).collect();
    let posting = |n: u32| Posting { offset: n, position: n * 3 };
    let entries = (0..90_000).map(|n| Entry { hash: hashes[n as usize % hashes.len()], posting: posting(n) });
    let bytes = encoded(entries);
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
    let index = index_of((0..6).map(entry));
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
    let good = encoded(entries);
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
    let bytes = encoded([entry(0xf000_0000_0000_00aa, 1), entry(1, 2), entry(1, 3)]);
    let mut head = b"FMKEYIDX\0\0\0\x01".to_vec();
    head.extend([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 0, 0, 0, 0, 0, 0, 42]);
    head.extend([0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0, 0x23, 0x28]);
    head.extend([0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 60, 0xde, 0xad, 0xbe, 0xef]);
    head.extend([0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
    // The bits of both keys, as `filter` chooses them: written down, so that no change of it goes unnoticed.
    let mut line = [0u8; 64];
    for bit in FILTER_BITS {
        line[bit / 8] |= 1 << (bit % 8);
    }
    let mut keys = vec![0, 2];
    keys.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    keys.extend([0, 0, 0, 0xaa, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 16]);
    let postings = vec![0, 0, 0, 2, 0, 0, 0, 32, 0, 0, 0, 3, 0, 0, 0, 48];
    let bits: Vec<usize> = (0..512).filter(|bit| bytes[1024 + bit / 8] & (1 << (bit % 8)) != 0).collect();
    assert_eq!(bits, FILTER_BITS);
    assert!(bytes == checked([head, line.to_vec(), keys, postings].into_iter()));
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
    let expected = [(SEED.hash(b"a"), 0), (SEED.hash(b""), 2), (SEED.hash(b"a"), 3)];
    assert_eq!(keys.hashes().collect::<Vec<_>>(), expected);
    let mut marker = BatchBuilder::new();
    let end = floodmark_proto::batch::EndTransactionMarker {
        result: floodmark_proto::batch::TransactionResult::Abort,
        coordinator_epoch: 1,
    };
    marker.push_marker(1, &end).unwrap();
    let marker = marker.build().unwrap();
    assert_eq!(BatchKeys::of(marker.as_bytes(), marker.header(), SEED).unwrap(), BatchKeys::default());
}
