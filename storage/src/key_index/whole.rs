//! A `.keyindex` file from end to end, for who looks at it from outside: what it tells, and whether that is what the batches of its
//! segment make of it. Must not know which files a log has.

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::Offset;

use super::file::{BLOCK_BYTES, Blocks, Indexed, KeyIndex, ReadCost, Unusable};
use super::map::KeyMap;
use super::write::encode;
use super::{BatchKeys, KeySeed, Posting};
use crate::format_error::FormatError;

/// A place that an index names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPlace {
    /// The lower half of the hash of the record's key. Keys themselves are in no index.
    pub tag: u32,
    /// The record.
    pub offset: Offset,
    /// Where its batch begins in the segment.
    pub position: u32,
}

/// An index whose first block is in order.
#[derive(Debug)]
pub struct WholeKeyIndex(KeyIndex);

impl WholeKeyIndex {
    /// Takes the bytes of a file. Fails where they are no index of this version, or not as many as the first block says.
    pub fn parse(bytes: Vec<u8>) -> Result<WholeKeyIndex, FormatError> {
        let opened = KeyIndex::open_any(Blocks::Memory(bytes), &mut ReadCost::default());
        Ok(WholeKeyIndex(opened.map_err(damaged)?))
    }

    /// Base and end offset of the batches that it tells of, and their bytes.
    #[must_use]
    pub fn tells_of(&self) -> (Offset, Offset, u64) {
        let Indexed { base, end, bytes, .. } = self.0.indexed;
        (base, end, bytes)
    }

    /// Every place that it names, those of a key together and rising. Fails at the first block whose checksum is wrong.
    pub fn places(&self) -> Result<Vec<KeyPlace>, FormatError> {
        let base = self.0.indexed.base;
        let place = |(tag, posting): (u32, Posting)| KeyPlace {
            tag,
            offset: Offset(base.0.saturating_add(i64::from(posting.offset))),
            position: posting.position,
        };
        Ok(self.0.all().map_err(damaged)?.into_iter().map(place).collect())
    }
}

fn damaged(e: Unusable) -> FormatError {
    match e {
        Unusable::Damaged(e) => e,
        // Memory does not fail to be read.
        Unusable::Unread(_) => FormatError::CutShort { file: "key index", need_bytes: 0, have_bytes: 0 },
    }
}

/// What the batches of a segment make of its index, gathered as they go by.
#[derive(Debug)]
pub(crate) struct KeyIndexCheck {
    file: Vec<u8>,
    seed: KeySeed,
    indexed: Indexed,
    keys: KeyMap,
    /// The last batch of those that the file tells of: position, checksum, end.
    last: Option<(u64, u32, u64)>,
}

/// What is to be said of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is what the batches make of it.
    Right,
    /// It tells of other batches, as one does that was made before the segment grew or was cut.
    OfOthers,
    /// At this byte begins a block that is not as the batches make it. A look-up notices where its checksum is wrong.
    Differs {
        /// In the file.
        byte: u64,
        /// The block passes for one that was written so.
        is_believed: bool,
    },
}

impl KeyIndexCheck {
    /// Fails where the first block is of no use.
    pub(crate) fn begin(file: Vec<u8>) -> Result<KeyIndexCheck, FormatError> {
        let WholeKeyIndex(index) = WholeKeyIndex::parse(file.clone())?;
        Ok(KeyIndexCheck {
            file,
            seed: index.seed(),
            indexed: index.indexed,
            keys: KeyMap::new(None),
            last: None,
        })
    }

    /// The next batch of the segment, which is a whole one.
    pub(crate) fn on_batch(&mut self, position: u64, header: &BatchHeader, batch: &[u8]) {
        if position >= self.indexed.bytes {
            return;
        }
        let keys = BatchKeys::of_stored(batch, header, self.seed);
        for entry in keys.entries(self.indexed.base, header.base_offset, position) {
            self.keys.push(entry);
        }
        self.last = Some((position, header.crc, position + header.size_bytes() as u64));
    }

    /// All batches have gone by.
    pub(crate) fn finish(self, base: Offset) -> Verdict {
        let Indexed { last_position, last_crc, bytes, .. } = self.indexed;
        if self.indexed.base != base || self.last != Some((last_position, last_crc, bytes)) {
            return Verdict::OfOthers;
        }
        let right = encode(&self.keys.into_table(), self.seed, &self.indexed);
        let (rights, founds) = (right.chunks(BLOCK_BYTES), self.file.chunks(BLOCK_BYTES));
        let Some(block) = rights.zip(founds).position(|(right, found)| right != found) else {
            // The first block says how many there are, so both have as many.
            return Verdict::Right;
        };
        let is_believed = WholeKeyIndex::parse(self.file).is_ok_and(|index| index.0.passes(block as u64));
        Verdict::Differs { byte: (block * BLOCK_BYTES) as u64, is_believed }
    }
}
