//! The bytes of a `.keyindex` file, from a table of the keys: what `file` reads. Must not know which files a log has.

use super::file::{
    BLOCK_BYTES, Indexed, KEYS_A_BLOCK, LINES_A_BLOCK, MAGIC, PAYLOAD_BYTES, POSTING_BYTES, POSTINGS_A_BLOCK,
    VERSION, checksum,
};
use super::filter::{LINE_BYTES, line_of, lines_for, set};
use super::table::{Held, KeyTable, Slot};
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
    for key in table.keys() {
        set(blocks.filter_line(line_of(key.hash, lines) as usize), key.hash);
    }
    let mut postings = Vec::new();
    let mut waiting = Vec::new();
    let mut order = Vec::new();
    let mut key_blocks = 0;
    let by_bucket = ByBucket::new(table, buckets);
    for bucket in 0..buckets as usize {
        encode_bucket(table, by_bucket.of(bucket), &mut order, &mut waiting, &mut postings);
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

/// Makes the entries of a bucket's keys, in the order of their tags.
fn encode_bucket(
    table: &KeyTable,
    keys: &[Slot],
    order: &mut Vec<u64>,
    waiting: &mut Vec<[u32; 4]>,
    postings: &mut Vec<Posting>,
) {
    // Numbers are sorted faster than slots: the tag, and behind it which key it is.
    order.clear();
    order.extend((0u64..).zip(keys).map(|(n, key)| key.hash << 32 | n));
    order.sort_unstable();
    for of_tag in order.chunk_by(|a, b| a >> 32 == b >> 32) {
        let same = of_tag.iter().map(|tagged| keys[*tagged as u32 as usize]);
        let tag = (of_tag[0] >> 32) as u32;
        if let ([_], Some(Held::One(only))) = (of_tag, same.clone().next().map(Slot::held)) {
            waiting.push([tag, 1, only.offset, only.position]);
            continue;
        }
        // Two keys of one tag cannot be told apart; then their records stand together, in order.
        let first = postings.len();
        same.for_each(|key| table.append_records(key, postings));
        postings[first..].sort_unstable();
        waiting.push([tag, (postings.len() - first) as u32, first as u32, 0]);
    }
}

/// The keys of a table, those of a bucket together.
struct ByBucket {
    keys: Vec<Slot>,
    /// Where each bucket ends.
    ends: Vec<u32>,
}

impl ByBucket {
    fn new(table: &KeyTable, buckets: u64) -> ByBucket {
        let mut ends = vec![0u32; buckets as usize];
        table.keys().for_each(|key| ends[line_of(key.hash, buckets) as usize] += 1);
        // First where each begins; as its keys are put there, that moves on to where it ends.
        let mut start = 0;
        for end in &mut ends {
            start += std::mem::replace(end, start);
        }
        let mut keys = vec![Slot::default(); start as usize];
        for key in table.keys() {
            let at = &mut ends[line_of(key.hash, buckets) as usize];
            keys[*at as usize] = key;
            *at += 1;
        }
        ByBucket { keys, ends }
    }

    fn of(&self, bucket: usize) -> &[Slot] {
        let start = if bucket == 0 { 0 } else { self.ends[bucket - 1] };
        &self.keys[start as usize..self.ends[bucket] as usize]
    }
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
    fn push_keys(&mut self, waiting: &mut Vec<[u32; 4]>) {
        let count = waiting.len().min(KEYS_A_BLOCK);
        let block = self.extend_by(1);
        block[..2].copy_from_slice(&(count as u16).to_be_bytes());
        let fields = block[2..].as_chunks_mut::<4>().0.iter_mut();
        for (into, field) in fields.zip(waiting.drain(..count).flatten()) {
            *into = field.to_be_bytes();
        }
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
