//! Batches that wait in the log's own memory until a sync writes them, past the memory that the system keeps of the file (adr/0020): put
//! together to pieces of whole blocks, which are written in their order and once each. Must know nothing of when this pays.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use floodmark_proto::ids::Offset;

use super::tail_cache::TailBatch;
use crate::error::LogError;
use crate::fs::{BLOCK_BYTES, Blocks, DiskFile, SyncPoint, read_full_at, write_all_at};
use crate::index::TimestampOffset;

/// What is put together at most while the disk works at the piece before: what it takes in some milliseconds. Memory that was never needed is
/// never taken.
const STAGE_BYTES: usize = 8 << 20;

/// Where the log is once a piece is on the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// End in the file.
    pub(super) position: u64,
    pub(super) next: Offset,
    pub(super) largest: Option<TimestampOffset>,
}

/// The file that pieces are written to.
#[derive(Debug)]
pub(super) struct StageFile {
    pub(super) through: Arc<dyn DiskFile>,
    /// By the system's memory.
    pub(super) cached: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
}

/// What is written in one call.
#[derive(Debug)]
pub(crate) struct Piece {
    file: Arc<StageFile>,
    at: u64,
    blocks: Blocks,
    bytes: usize,
    pub(super) reach: Reach,
    state: AtomicU8,
}

/// True where a file system says that it has no way past the system's memory.
pub(super) fn is_no_way(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// Changed under the lock of syncs alone.
mod state {
    pub(super) const WAITS: u8 = 0;
    pub(super) const WRITTEN: u8 = 1;
    /// By the system's memory and a sync.
    pub(super) const WRITTEN_OTHERWISE: u8 = 2;
    pub(super) const GIVEN_UP: u8 = 3;
}

impl Piece {
    /// Has it on the disk when it returns. Called under the lock of syncs, after the same was done of those before it.
    pub(super) fn write(&self) -> Result<(), LogError> {
        let bytes = &self.blocks[..self.bytes];
        let written = match self.state.load(Ordering::Acquire) {
            state::WAITS => write_all_at(&*self.file.through, &mut [IoSlice::new(bytes)], self.at),
            state::GIVEN_UP => return Err(LogError::Full { path: self.file.path.clone() }),
            _ => return Ok(()),
        };
        let state = match written {
            Ok(()) => state::WRITTEN,
            Err(e) if is_no_way(&e) => {
                let file = &self.file.cached;
                write_all_at(&**file, &mut [IoSlice::new(bytes)], self.at).map_err(|e| self.failed(e))?;
                file.sync(SyncPoint::AppendRefused).map_err(LogError::io("sync", &self.file.path))?;
                state::WRITTEN_OTHERWISE
            }
            Err(e) => return Err(self.failed(e)),
        };
        self.state.store(state, Ordering::Release);
        Ok(())
    }

    fn failed(&self, e: io::Error) -> LogError {
        match e.kind() {
            io::ErrorKind::StorageFull => LogError::Full { path: self.file.path.clone() },
            _ => LogError::io("append to", &self.file.path)(e),
        }
    }

    /// It is not written any more, if it was not. Under the lock of syncs.
    pub(super) fn give_up(&self) -> bool {
        let waits = self.state.load(Ordering::Acquire) == state::WAITS;
        if waits {
            self.state.store(state::GIVEN_UP, Ordering::Release);
        }
        waits
    }

    pub(super) fn was_refused(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::WRITTEN_OTHERWISE
    }
}

/// What waits to be written to one file.
#[derive(Debug)]
pub(super) struct Stage {
    file: Arc<StageFile>,
    /// Where the file goes on with `filling`.
    at: u64,
    filling: Blocks,
    filled: usize,
    /// Where the log is with all that is here; none where that is all in `pieces`.
    reach: Option<Reach>,
    /// With syncs, or to be: oldest first.
    pieces: Vec<Arc<Piece>>,
    free: Vec<Blocks>,
}

impl Stage {
    /// For what comes at `position` of `file`; what lies before that is on the disk.
    pub(super) fn new(file: StageFile, position: u64, mut free: Vec<Blocks>) -> io::Result<Stage> {
        let filled = (position % BLOCK_BYTES as u64) as usize;
        let at = position - filled as u64;
        let mut filling = free.pop().unwrap_or_else(|| Blocks::new(STAGE_BYTES));
        if read_full_at(&*file.cached, &mut filling[..filled], at)? < filled {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Stage { file: Arc::new(file), at, filling, filled, reach: None, pieces: Vec::new(), free })
    }

    /// Bytes that may be added before the next piece is taken.
    pub(super) fn room(&self) -> usize {
        STAGE_BYTES - self.filled
    }

    /// True where there is something that is in no piece yet.
    pub(super) fn has_new(&self) -> bool {
        self.reach.is_some()
    }

    /// True where there is something of which no sync was finished.
    pub(super) fn holds_any(&self) -> bool {
        self.has_new() || !self.pieces.is_empty()
    }

    /// Adds batches, for which there is room.
    pub(super) fn push(&mut self, batches: &[TailBatch], reach: Reach) {
        for batch in batches {
            let to = self.filled + batch.bytes.len();
            self.filling[self.filled..to].copy_from_slice(&batch.bytes);
            self.filled = to;
        }
        self.reach = Some(reach);
    }

    /// All that a sync begun now has to write, oldest first.
    pub(super) fn take(&mut self) -> Vec<Arc<Piece>> {
        if let Some(reach) = self.reach.take() {
            let bytes = self.filled.next_multiple_of(BLOCK_BYTES);
            self.filling[self.filled..bytes].fill(0);
            // The block in which it ends is begun anew by the next piece.
            let kept = self.filled % BLOCK_BYTES;
            let whole = self.filled - kept;
            let mut next = self.free.pop().unwrap_or_else(|| Blocks::new(STAGE_BYTES));
            next[..kept].copy_from_slice(&self.filling[whole..self.filled]);
            let blocks = std::mem::replace(&mut self.filling, next);
            let (file, at) = (Arc::clone(&self.file), self.at);
            let state = AtomicU8::new(state::WAITS);
            self.pieces.push(Arc::new(Piece { file, at, blocks, bytes, reach, state }));
            (self.at, self.filled) = (at + whole as u64, kept);
        }
        self.pieces.clone()
    }

    /// A sync that has written `piece` is finished. Says false where another one was before it.
    pub(super) fn finish(&mut self, piece: Arc<Piece>) -> bool {
        let before = self.pieces.len();
        self.pieces.retain(|p| !Arc::ptr_eq(p, &piece));
        // Where another sync has it too, its memory goes with that.
        self.free.extend(Arc::into_inner(piece).map(|piece| piece.blocks));
        self.pieces.len() < before
    }

    pub(super) fn holds(&self, piece: &Arc<Piece>) -> bool {
        self.pieces.iter().any(|p| Arc::ptr_eq(p, piece))
    }

    /// Memory for the next one.
    pub(super) fn into_free(mut self) -> Vec<Blocks> {
        self.free.push(self.filling);
        self.free
    }
}
