//! Memory that was used and will be again. Fresh memory costs as much as a copy of what is written to it, page by page, and allocators give
//! large pieces back to the system soon.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Memory that waits to be used.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// What allocators keep at hand themselves.
const PIECE_BYTES_MIN: usize = 16 << 10;

/// More than what is free at the end of an allocator's memory between two messages.
const LEARNT_BYTES: usize = 8 << 20;

/// Has the system's allocator keep the memory that HTTP/2 frames are read into, which is not ours to keep. glibc's gives back what is free at
/// the end of its memory beyond twice the largest piece that ever went back to the system, 128 KiB at first, and then every other message is
/// read into fresh pages. Elsewhere nothing happens but that a piece is taken and given back, untouched.
pub(crate) fn have_memory_kept() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LEARNT_BYTES)));
}

#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    memory: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// Empty memory that has room for so many bytes at least; what came back last is first, for the cores' caches may hold it.
    pub(crate) fn take(&self, bytes: usize) -> Option<Vec<u8>> {
        let mut kept = self.0.lock();
        let at = kept.memory.iter().rposition(|memory| memory.capacity() >= bytes)?;
        let memory = kept.memory.remove(at);
        kept.bytes -= memory.capacity();
        Some(memory)
    }

    pub(crate) fn give_back(&self, mut memory: Vec<u8>) {
        memory.clear();
        if memory.capacity() < PIECE_BYTES_MIN {
            return;
        }
        let mut kept = self.0.lock();
        if kept.bytes + memory.capacity() <= KEPT_BYTES_MAX {
            kept.bytes += memory.capacity();
            kept.memory.push(memory);
        }
    }

    /// The memory of these bytes, where nobody else has them.
    pub(crate) fn give_back_bytes(&self, bytes: Bytes) {
        if let Ok(mut bytes) = bytes.try_into_mut() {
            bytes.clear();
            self.give_back(bytes.into());
        }
    }

    /// The bytes of `memory`, which comes back when the last of them is dropped.
    pub(crate) fn lend(self: &Arc<Spares>, memory: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { memory, home: Arc::downgrade(self) })
    }
}

struct Lent {
    memory: Vec<u8>,
    home: Weak<Spares>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.give_back(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_memory_comes_back_with_the_last_slice() {
        let spares = Arc::<Spares>::default();
        let mut memory = Vec::with_capacity(PIECE_BYTES_MIN);
        memory.extend_from_slice(&[1; 100]);
        let at = memory.as_ptr();
        let message = spares.lend(memory);
        let slice = message.slice(10..20);
        drop(message);
        assert!(spares.take(0).is_none());
        assert_eq!(slice, [1; 10][..]);
        drop(slice);
        let again = spares.take(PIECE_BYTES_MIN).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        let late = spares.lend(again);
        drop(spares);
        drop(late);
    }

    #[test]
    fn bytes_come_back_whole_and_only_from_their_last_owner() {
        let spares = Spares::default();
        let mut memory = Vec::with_capacity(PIECE_BYTES_MIN * 2);
        memory.extend_from_slice(&[1; 100]);
        let at = memory.as_ptr();
        let bytes = Bytes::from(memory);
        spares.give_back_bytes(bytes.clone());
        assert!(spares.take(0).is_none());
        spares.give_back_bytes(bytes);
        let again = spares.take(PIECE_BYTES_MIN * 2).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_use() {
        let spares = Spares::default();
        for _ in 0..3 {
            spares.give_back(Vec::with_capacity(KEPT_BYTES_MAX / 2));
        }
        spares.give_back(vec![1]);
        assert_eq!(spares.0.lock().memory.len(), 2);
        assert!(spares.take(KEPT_BYTES_MAX).is_none());
        assert!(spares.take(0).is_some() && spares.take(0).is_some() && spares.take(0).is_none());
        assert_eq!(spares.0.lock().bytes, 0);
    }
}
