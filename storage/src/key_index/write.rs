//! The bytes of a `.keyindex` file, from a table of the keys: what `file` reads. Must not know which files a log has.

use super::file::{
    BLOCK_BYTES, Indexed, KEY_BYTES, KEYS_A_BLOCK, LINES_A_BLOCK, MAGIC, PAYLOAD_BYTES, POSTING_BYTES,
    POSTINGS_A_BLOCK, VERSION, checksum,
};
use super::filter::{LINE_BYTES, line_of, lines_for, set};
use super::table::{Held, KeyTable};
use super::{KeySeed, Posting};

/// What a block of keys holds on average, so that few overflow.
const KEYS_A_BUCKET: u64 = 48;

/// Makes the bytes of an index. The same records make the same bytes, in whatever order the table has come to hold them.
pub(crate) fn encode(table: &KeyTable, seed: KeySeed, indexed: &Indexed) -> Vec<u8> {
    let keys = table.key_count() as u64;
    let (lines, buckets) = (lines_for(keys), keys.div_ceil(KEYS_A_BUCKET).max(1));
    let filter_blocks = lines.div_ceil(LINES_A_BLOCK as u64);
    let blocks_about = 1 + filter_blocks + buckets + table.record_count() / u64::from(POSTINGS_A_BLOCK);
    let mut blocks = BlockWriter::new(blocks_about as usize);
    // The head is written when everything is counted.
    blocks.extend_by(1 + filter_blocks as usize);
    let (mut room, mut waiting, mut postings) = (Vec::new(), Vec::new(), Vec::new());
    let mut key_blocks = 0;
    // The table has its keys nearly in the order of buckets, so this goes through it once, and what a bucket needs stays at hand.
    for bucket in 0..buckets {
        let (first, next) = (first_of(bucket, buckets), first_of(bucket + 1, buckets));
        let of_bucket = table.gather(first as u64, (next - 1) as u64, &mut room);
        of_bucket.sort_unstable();
        for of_tag in of_bucket.chunk_by(|a, b| a >> 32 == b >> 32) {
            for key in of_tag {
                let hash = table.key(*key as u32).hash;
                set(blocks.filter_line(line_of(hash, lines) as usize), hash);
            }
            waiting.push(entry(table, of_tag, &mut postings));
        }
        blocks.push_keys(&mut waiting);
        key_blocks += 1;
    }
    while !waiting.is_empty() {
        blocks.push_keys(&mut waiting);
        key_blocks += 1;
    }
    postings.chunks(POSTINGS_A_BLOCK as usize).for_each(|of_block| blocks.push_postings(of_block));
    let counts = [keys as u32, lines as u32, buckets as u32, key_blocks, postings.len() as u32];
    blocks.finish(seed, indexed, counts)
}

/// The first hash of a bucket, of so many.
fn first_of(bucket: u64, buckets: u64) -> u128 {
    (u128::from(bucket) << 64).div_ceil(u128::from(buckets))
}

/// Makes the entry of the keys of a bucket that share a tag, nearly always one. Their records, where there are several, go to `postings`.
fn entry(table: &KeyTable, of_tag: &[u64], postings: &mut Vec<Posting>) -> [u8; KEY_BYTES] {
    let held = |key: &u64| table.key(*key as u32).held;
    let (count, a, b) = match (of_tag, of_tag.first().map(held)) {
        ([_], Some(Held::One(only))) => (1, only.offset, only.position),
        _ => {
            let first = postings.len();
            of_tag.iter().for_each(|key| table.append_records(held(key), postings));
            if of_tag.len() > 1 {
                // Such keys cannot be told apart; then their records stand together, in order.
                postings[first..].sort_unstable();
            }
            (postings.len() - first, first as u32, 0)
        }
    };
    // The tag is in the upper half.
    let tag_and_count = of_tag.first().map_or(0, |key| key >> 32 << 32) | count as u64;
    let place = u64::from(a) << 32 | u64::from(b);
    (u128::from(tag_and_count) << 64 | u128::from(place)).to_be_bytes()
}

/// Blocks one behind the other, the checksums of which are set last: they depend on the head's.
struct BlockWriter {
    bytes: Vec<u8>,
}

impl BlockWriter {
    fn new(blocks_about: usize) -> BlockWriter {
        BlockWriter { bytes: Vec::with_capacity(blocks_about * BLOCK_BYTES) }
    }

    /// Appends blocks of zeros; gives the first of them.
    fn extend_by(&mut self, blocks: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + blocks * BLOCK_BYTES, 0);
        &mut self.bytes[start..]
    }

    fn filter_line(&mut self, line: usize) -> &mut [u8] {
        let at = (1 + line / LINES_A_BLOCK) * BLOCK_BYTES + line % LINES_A_BLOCK * LINE_BYTES;
        &mut self.bytes[at..at + LINE_BYTES]
    }

    /// A block of the first keys of those that wait for one.
    fn push_keys(&mut self, waiting: &mut Vec<[u8; KEY_BYTES]>) {
        let count = waiting.len().min(KEYS_A_BLOCK);
        let block = self.extend_by(1);
        block[..2].copy_from_slice(&(count as u16).to_be_bytes());
        block[2..2 + count * KEY_BYTES].copy_from_slice(waiting[..count].as_flattened());
        waiting.drain(..count);
    }

    fn push_postings(&mut self, postings: &[Posting]) {
        let into = self.extend_by(1).as_chunks_mut::<POSTING_BYTES>().0.iter_mut();
        for (into, posting) in into.zip(postings) {
            into[..4].copy_from_slice(&posting.offset.to_be_bytes());
            into[4..].copy_from_slice(&posting.position.to_be_bytes());
        }
    }

    /// Writes the head and all checksums.
    fn finish(mut self, seed: KeySeed, indexed: &Indexed, counts: [u32; 5]) -> Vec<u8> {
        let mut head = Vec::with_capacity(PAYLOAD_BYTES);
        head.extend(MAGIC);
        head.extend(VERSION.to_be_bytes());
        head.extend(seed.0.to_be_bytes());
        head.extend(seed.1.to_be_bytes());
        head.extend(indexed.base.0.to_be_bytes());
        head.extend(indexed.end.0.to_be_bytes());
        head.extend(indexed.bytes.to_be_bytes());
        head.extend(indexed.last_position.to_be_bytes());
        head.extend(indexed.last_crc.to_be_bytes());
        head.extend(counts.into_iter().flat_map(u32::to_be_bytes));
        self.bytes[..head.len()].copy_from_slice(&head);
        let mut salt = 0;
        for (number, block) in (0u32..).zip(self.bytes.as_chunks_mut::<BLOCK_BYTES>().0) {
            let (payload, at_end) = block.split_at_mut(PAYLOAD_BYTES);
            let crc = checksum(salt, number, payload);
            at_end.copy_from_slice(&crc.to_be_bytes());
            if number == 0 {
                salt = crc;
            }
        }
        self.bytes
    }
}
