//! Batches written past the memory that the system keeps of the segment being written, each group on the disk when its write returns: of a flood
//! that nobody reads the system would keep nothing of use, and what it costs to put it there is saved (adr/0020). Must know nothing of offsets,
//! nor of when this pays.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::tail_cache::TailBatch;
use crate::fs::{Block, DiskFile, is_out_of_descriptors, read_full_at, write_all_at};

/// The handle for it, and what is kept from group to group. One for each file.
#[derive(Debug, Default)]
pub(super) struct Through {
    file: Option<Arc<dyn DiskFile>>,
    /// There is no such way to this file.
    is_refused: bool,
    /// Where the last group was put together; as long as the largest so far.
    blocks: Vec<Block>,
    /// Where the last group ended, and the block there; of use only to what begins at just that place.
    last: Option<(u64, Box<Block>)>,
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It is on the disk.
    Through,
    /// It is still to be written, by the other way.
    Nowhere,
}

/// The end of the block in which `end` lies.
pub(super) fn whole_end(end: u64) -> u64 {
    end.next_multiple_of(Block::BYTES as u64)
}

impl Through {
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The handle, opened where it is not; none where that cannot be done.
    pub(super) fn handle(
        &mut self,
        open: impl FnOnce() -> io::Result<Arc<dyn DiskFile>>,
    ) -> Option<Arc<dyn DiskFile>> {
        if self.file.is_none() && !self.is_refused {
            match open() {
                Ok(file) => self.file = Some(file),
                // The next group may find one free.
                Err(e) if is_out_of_descriptors(&e) => {}
                // Should more be wrong with the file, the other way meets it, too.
                Err(_) => self.is_refused = true,
            }
        }
        self.file.clone()
    }

    /// Writes `batches` at `start`, and zeros up to the end of their last block. What lies before `start` is on the disk already, and is what
    /// `read` gives; behind it there is nothing but zeros.
    pub(super) fn write(
        &mut self,
        file: &dyn DiskFile,
        read: &dyn DiskFile,
        batches: &[TailBatch],
        start: u64,
    ) -> io::Result<Went> {
        let from = start - start % Block::BYTES as u64;
        let before_bytes = (start - from) as usize;
        let bytes = before_bytes + batches.iter().map(|b| b.bytes.len()).sum::<usize>();
        let count = bytes.div_ceil(Block::BYTES);
        if self.blocks.len() < count {
            self.blocks.resize(count, Block::ZERO);
        }
        let blocks = &mut self.blocks[..count];
        if let Some(first) = blocks.first_mut() {
            let first = &mut first.0[..before_bytes];
            match &self.last {
                Some((end, block)) if *end == start => first.copy_from_slice(&block.0[..before_bytes]),
                _ if read_full_at(read, first, from)? < before_bytes => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                _ => {}
            }
        }
        fill(blocks, before_bytes, batches);
        self.last = None;
        let mut slices: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(&block.0)).collect();
        match write_all_at(file, &mut slices, from) {
            Ok(()) => {}
            // Nothing of it counts: the other way writes all of it once more, or meets the want of space itself.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => return Ok(Went::Nowhere),
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                self.is_refused = true;
                return Ok(Went::Nowhere);
            }
            Err(e) => return Err(e),
        }
        let is_whole = bytes.is_multiple_of(Block::BYTES);
        self.last = blocks.last().filter(|_| !is_whole).map(|last| (from + bytes as u64, Box::new(last.clone())));
        Ok(Went::Through)
    }
}

/// Puts `batches` into `blocks` behind what is there, and zeros behind them.
fn fill(blocks: &mut [Block], before_bytes: usize, batches: &[TailBatch]) {
    let mut at = before_bytes;
    for batch in batches {
        let mut rest = &batch.bytes[..];
        while !rest.is_empty() {
            let into = &mut blocks[at / Block::BYTES].0[at % Block::BYTES..];
            let now = rest.len().min(into.len());
            into[..now].copy_from_slice(&rest[..now]);
            (rest, at) = (&rest[now..], at + now);
        }
    }
    if let Some(last) = blocks.last_mut()
        && !at.is_multiple_of(Block::BYTES)
    {
        last.0[at % Block::BYTES..].fill(0);
    }
}
