//! The `.keyindex` file: the keys of a sealed segment in blocks of 1 KiB, each with a checksum, so that a look-up reads and checks three
//! of them however large the file is. Must not know which files a log has.
//!
//! Numbers are big-endian. A block is 1,020 bytes and a CRC-32 (IEEE) over the salt, the block's number (4 bytes each) and those
//! bytes. The salt of the first block is 0, that of the others the first one's CRC: a block of another file, or of an older
//! one of the same name, does not pass.
//!
//! - Block 0: `FMKEYIDX`, version (u32, 1), seed of the key hashes (two u64), the segment's base and end offset (i64 each), its bytes
//!   (u64), position (u64) and CRC-32C (u32) of its last batch, then as u32 the numbers of keys, filter lines, buckets, key blocks and
//!   postings. The rest is zero.
//! - Filter blocks: 15 lines of 64 bytes (see `filter`); the line of a hash is `hash * lines / 2^64`.
//! - Key blocks: number of keys (u16), then for each its tag (u32, the lower half of its hash), number of records (u32), and of one record
//!   its posting, of more the number of the first posting and zero (u32 each). A key's bucket is `hash * buckets / 2^64`; it lies in
//!   the block of that number, or, where that one is full with 63 keys, in the next one.
//! - Posting blocks: 127 postings, those of a key together and rising: offset relative to the base (u32), position of the batch (u32).

use std::ops::Range;
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::filter::{LINE_BYTES, line_of, may_hold};
use super::{Direction, KeySeed, Posting};
use crate::format_error::{FormatError, Place};
use crate::fs::{DiskFile, read_full_at};

const FILE: &str = "key index";
pub(super) const MAGIC: &[u8; 8] = b"FMKEYIDX";
pub(super) const VERSION: u32 = 1;
pub(super) const BLOCK_BYTES: usize = 1024;
pub(super) const PAYLOAD_BYTES: usize = BLOCK_BYTES - 4;
pub(super) const LINES_A_BLOCK: usize = PAYLOAD_BYTES / LINE_BYTES;
pub(super) const KEY_BYTES: usize = 16;
pub(super) const KEYS_A_BLOCK: usize = 63;
pub(super) const POSTING_BYTES: usize = 8;
pub(super) const POSTINGS_A_BLOCK: u32 = 127;
/// A segment of 2 GiB has fewer records than this would need.
const BLOCKS_MAX: u64 = (64 << 30) / BLOCK_BYTES as u64;

/// Of which bytes of which segment an index tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub(crate) base: Offset,
    /// First offset after the batches.
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    pub(crate) last_position: u64,
    /// The checksum that the last batch carries.
    pub(crate) last_crc: u32,
}

/// What look-ups have read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCost {
    /// Bytes asked of the disk, or of the system's memory of it.
    pub bytes: u64,
    /// Calls that it took.
    pub calls: u64,
}

impl ReadCost {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.calls += 1;
    }
}

/// Why an index is of no use. It is made anew, so the reasons are for people only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// The disk did not give its bytes.
    #[error("it cannot be read: {0}")]
    Unread(std::io::Error),
    /// They are not what was written.
    #[error("{0}")]
    Damaged(FormatError),
}

impl From<FormatError> for Unusable {
    fn from(e: FormatError) -> Unusable {
        Unusable::Damaged(e)
    }
}

/// Where the blocks are.
#[derive(Debug)]
pub(crate) enum Blocks {
    /// Not written yet, or not to be written: the disk is full.
    Memory(Vec<u8>),
    File(Arc<dyn DiskFile>),
}

/// An open index.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    blocks: Blocks,
    pub(crate) indexed: Indexed,
    seed: KeySeed,
    salt: u32,
    lines: u32,
    buckets: u32,
    key_blocks: u32,
    postings: u32,
}

/// A key's records.
enum Found {
    One(Posting),
    Many { first: u32, count: u32 },
}

impl KeyIndex {
    /// Opens an index that must tell of the segment with this base, end and size. Reads one block.
    pub(crate) fn open(
        blocks: Blocks,
        (base, end, bytes): (Offset, Offset, u64),
        cost: &mut ReadCost,
    ) -> Result<KeyIndex, Unusable> {
        let index = KeyIndex::open_any(blocks, cost)?;
        let is = &index.indexed;
        if (is.base, is.end, is.bytes) != (base, end, bytes) {
            return Err(out_of_range("the segment's end", is.end.0));
        }
        Ok(index)
    }

    /// Opens an index whatever it tells of. Reads one block.
    pub(super) fn open_any(blocks: Blocks, cost: &mut ReadCost) -> Result<KeyIndex, Unusable> {
        let mut head = [0; BLOCK_BYTES];
        read_block(&blocks, 0, 0, &mut head, cost)?;
        if &head[..8] != MAGIC {
            return Err(FormatError::Malformed { file: FILE, line: 1, expected: "FMKEYIDX" }.into());
        }
        match u32_at(&head, 8) {
            VERSION => {}
            found if found > VERSION => {
                let (found, supported) = (i64::from(found), i64::from(VERSION));
                return Err(FormatError::NewerVersion { file: FILE, found, supported }.into());
            }
            found => return Err(FormatError::UnknownVersion { file: FILE, found: i64::from(found) }.into()),
        }
        let index = KeyIndex {
            indexed: Indexed {
                base: Offset(u64_at(&head, 28) as i64),
                end: Offset(u64_at(&head, 36) as i64),
                bytes: u64_at(&head, 44),
                last_position: u64_at(&head, 52),
                last_crc: u32_at(&head, 60),
            },
            seed: KeySeed(u64_at(&head, 12), u64_at(&head, 20)),
            salt: u32_at(&head, PAYLOAD_BYTES),
            lines: u32_at(&head, 68),
            buckets: u32_at(&head, 72),
            key_blocks: u32_at(&head, 76),
            postings: u32_at(&head, 80),
            blocks,
        };
        index.check_size()?;
        Ok(index)
    }

    fn check_size(&self) -> Result<(), Unusable> {
        if self.lines == 0 || self.buckets == 0 || self.key_blocks < self.buckets {
            return Err(out_of_range("number of key blocks", i64::from(self.key_blocks)));
        }
        let need_blocks = 1
            + u64::from(self.filter_blocks())
            + u64::from(self.key_blocks)
            + u64::from(self.postings.div_ceil(POSTINGS_A_BLOCK));
        if need_blocks > BLOCKS_MAX {
            let limit_bytes = BLOCKS_MAX * BLOCK_BYTES as u64;
            let size_bytes = need_blocks * BLOCK_BYTES as u64;
            return Err(FormatError::TooLarge { file: FILE, size_bytes, limit_bytes }.into());
        }
        let (need_bytes, have_bytes) = (need_blocks * BLOCK_BYTES as u64, self.size_bytes()?);
        if have_bytes != need_bytes {
            return Err(FormatError::CutShort { file: FILE, need_bytes, have_bytes }.into());
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, Unusable> {
        match &self.blocks {
            Blocks::Memory(bytes) => Ok(bytes.len() as u64),
            Blocks::File(file) => file.size().map_err(Unusable::Unread),
        }
    }

    /// The secret that its hashes were made with.
    pub(crate) fn seed(&self) -> KeySeed {
        self.seed
    }

    fn filter_blocks(&self) -> u32 {
        self.lines.div_ceil(LINES_A_BLOCK as u32)
    }

    fn first_key_block(&self) -> u64 {
        1 + u64::from(self.filter_blocks())
    }

    fn block(&self, number: u64, cost: &mut ReadCost) -> Result<[u8; BLOCK_BYTES], Unusable> {
        let mut block = [0; BLOCK_BYTES];
        read_block(&self.blocks, number, self.salt, &mut block, cost)?;
        Ok(block)
    }

    /// True where the checksum of a block is right.
    pub(super) fn passes(&self, number: u64) -> bool {
        self.block(number, &mut ReadCost::default()).is_ok()
    }

    fn find(&self, hash: u64, cost: &mut ReadCost) -> Result<Option<Found>, Unusable> {
        let line = line_of(hash, u64::from(self.lines));
        let block = self.block(1 + line / LINES_A_BLOCK as u64, cost)?;
        if !may_hold(&block[line as usize % LINES_A_BLOCK * LINE_BYTES..][..LINE_BYTES], hash) {
            return Ok(None);
        }
        let bucket = line_of(hash, u64::from(self.buckets));
        for number in bucket..u64::from(self.key_blocks) {
            let block = self.block(self.first_key_block() + number, cost)?;
            let count = usize::from(u16::from_be_bytes([block[0], block[1]])).min(KEYS_A_BLOCK);
            let keys = block[2..2 + count * KEY_BYTES].as_chunks::<KEY_BYTES>().0;
            if let Some(key) = keys.iter().find(|key| u32_at(&key[..], 0) == hash as u32) {
                let [count, a, b] = [4, 8, 12].map(|at| u32_at(key, at));
                return Ok(Some(match count {
                    1 => Found::One(Posting { offset: a, position: b }),
                    count => Found::Many { first: a, count: count.min(self.postings.saturating_sub(a)) },
                }));
            }
            if count < KEYS_A_BLOCK {
                break;
            }
        }
        Ok(None)
    }

    /// Every place that it names, with the tag of its key, in the order in which they lie.
    pub(super) fn all(&self) -> Result<Vec<(u32, Posting)>, Unusable> {
        let mut cost = ReadCost::default();
        let mut places = Vec::new();
        let mut reading = Reading { index: self, block: [0; BLOCK_BYTES], number: None, cost: &mut cost };
        for number in 0..u64::from(self.key_blocks) {
            let block = self.block(self.first_key_block() + number, reading.cost)?;
            let count = usize::from(u16::from_be_bytes([block[0], block[1]])).min(KEYS_A_BLOCK);
            for key in block[2..2 + count * KEY_BYTES].as_chunks::<KEY_BYTES>().0 {
                let [tag, count, a, b] = [0, 4, 8, 12].map(|at| u32_at(key, at));
                if count == 1 {
                    places.push((tag, Posting { offset: a, position: b }));
                    continue;
                }
                for n in (a..self.postings).take(count as usize) {
                    places.push((tag, reading.posting(n)?));
                }
            }
        }
        Ok(places)
    }

    /// Places of records whose key may have this hash, with relative offsets in `within`: `max` of them, the first or the last.
    pub(crate) fn collect(
        &self,
        hash: u64,
        within: &Range<u32>,
        max: usize,
        direction: Direction,
        cost: &mut ReadCost,
    ) -> Result<Vec<Posting>, Unusable> {
        let (first, count) = match self.find(hash, cost)? {
            None => return Ok(Vec::new()),
            Some(Found::One(only)) => {
                return Ok(Some(only).into_iter().filter(|p| within.contains(&p.offset)).take(max).collect());
            }
            Some(Found::Many { first, count }) => (first, first + count),
        };
        let mut reading = Reading { index: self, block: [0; BLOCK_BYTES], number: None, cost };
        let from = reading.partition(first..count, within.start)?;
        let to = reading.partition(from..count, within.end)?;
        let wanted = (to - from).min(u32::try_from(max).unwrap_or(u32::MAX));
        match direction {
            Direction::Forward => (from..from + wanted).map(|n| reading.posting(n)).collect(),
            Direction::Backward => (to - wanted..to).rev().map(|n| reading.posting(n)).collect(),
        }
    }
}

fn out_of_range(field: &'static str, value: i64) -> Unusable {
    FormatError::OutOfRange { file: FILE, place: Place::Byte(0), field, value }.into()
}

/// Reads postings, each block of them once in a row.
struct Reading<'i, 'c> {
    index: &'i KeyIndex,
    block: [u8; BLOCK_BYTES],
    number: Option<u32>,
    cost: &'c mut ReadCost,
}

impl Reading<'_, '_> {
    fn posting(&mut self, n: u32) -> Result<Posting, Unusable> {
        let number = n / POSTINGS_A_BLOCK;
        if self.number != Some(number) {
            let before = self.index.first_key_block() + u64::from(self.index.key_blocks);
            self.block = self.index.block(before + u64::from(number), self.cost)?;
            self.number = Some(number);
        }
        let at = (n % POSTINGS_A_BLOCK) as usize * POSTING_BYTES;
        Ok(Posting { offset: u32_at(&self.block, at), position: u32_at(&self.block, at + 4) })
    }

    /// The first of these postings that lies at `offset` or behind it.
    fn partition(&mut self, mut among: Range<u32>, offset: u32) -> Result<u32, Unusable> {
        while among.start < among.end {
            let middle = among.start + (among.end - among.start) / 2;
            if self.posting(middle)?.offset < offset { among.start = middle + 1 } else { among.end = middle }
        }
        Ok(among.start)
    }
}

fn read_block(
    blocks: &Blocks,
    number: u64,
    salt: u32,
    into: &mut [u8; BLOCK_BYTES],
    cost: &mut ReadCost,
) -> Result<(), Unusable> {
    let at = number * BLOCK_BYTES as u64;
    let read = match blocks {
        Blocks::Memory(bytes) => {
            let held = bytes.get(at as usize..).unwrap_or_default();
            let held = &held[..held.len().min(BLOCK_BYTES)];
            into[..held.len()].copy_from_slice(held);
            held.len()
        }
        Blocks::File(file) => {
            cost.add(BLOCK_BYTES);
            read_full_at(&**file, into, at).map_err(Unusable::Unread)?
        }
    };
    if read < BLOCK_BYTES {
        let (need_bytes, have_bytes) = (at + BLOCK_BYTES as u64, at + read as u64);
        return Err(FormatError::CutShort { file: FILE, need_bytes, have_bytes }.into());
    }
    let stored = u32_at(into, PAYLOAD_BYTES);
    let computed = checksum(salt, number as u32, &into[..PAYLOAD_BYTES]);
    if stored != computed {
        return Err(FormatError::Checksum { file: FILE, stored, computed }.into());
    }
    Ok(())
}

pub(super) fn checksum(salt: u32, number: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_be_bytes());
    hasher.update(&number.to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |field| u32::from_be_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |field| u64::from_be_bytes(*field))
}
