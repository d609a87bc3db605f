//! Memory for what goes past the system's ([`OpenMode::Through`](super::OpenMode::Through)): it begins where a block may, and lies in large pages
//! where the system has them, for each part of a write that lies apart in memory is handed to the disk by itself (docs/PERFORMANCE.md). Must know
//! nothing of files.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

/// What processors and systems have beside pages of 4 KiB.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Zeros at first. What is never touched takes no memory.
pub struct Blocks {
    memory: Memory,
    skip: usize,
    bytes: usize,
}

enum Memory {
    Mapped(MmapMut),
    /// Slower where pages lie apart, and as good.
    Boxed(Box<[u8]>),
}

impl Blocks {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Blocks {
        let with_begin = bytes + LARGE_PAGE_BYTES;
        let memory = match MmapMut::map_anon(with_begin) {
            Ok(map) => {
                // A wish: where it is not heard, pages are small.
                let _ = map.advise(Advice::HugePage);
                Memory::Mapped(map)
            }
            // There is a limit to the number of maps.
            Err(_) => Memory::Boxed(vec![0; with_begin].into_boxed_slice()),
        };
        let mut blocks = Blocks { memory, skip: 0, bytes };
        // Were this not to be had, a write would be refused, and be made the other way.
        blocks.skip = blocks.as_ptr().align_offset(LARGE_PAGE_BYTES).min(LARGE_PAGE_BYTES);
        blocks
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.memory {
            Memory::Mapped(map) => map,
            Memory::Boxed(bytes) => bytes,
        };
        &all[self.skip..self.skip + self.bytes]
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [u8] {
        let all: &mut [u8] = match &mut self.memory {
            Memory::Mapped(map) => map,
            Memory::Boxed(bytes) => bytes,
        };
        &mut all[self.skip..self.skip + self.bytes]
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({} bytes)", self.bytes)
    }
}
