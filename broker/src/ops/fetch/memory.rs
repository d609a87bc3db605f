//! Memory for what was read out of files for fetches and is not written to its readers yet. It is refused to nobody: the more of it is out,
//! the less a further answer holds, down to one batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::Part;

/// Of all answers together, as long as none of them has to hold a batch that is larger than what it is allowed.
const BYTES_MAX: usize = 256 << 20;
/// One answer gets this part of what is left.
const SHARE: usize = 4;
/// So much an answer is always allowed.
const FREE_BYTES: usize = 64 << 10;

/// What is out.
#[derive(Debug, Default)]
pub(crate) struct AnswerMemory {
    held: AtomicUsize,
}

impl AnswerMemory {
    /// Sets aside what is allowed of `wanted` bytes.
    pub(super) fn take(self: &Arc<AnswerMemory>, wanted: usize) -> Share {
        let mut bytes = 0;
        let taken = |held| {
            bytes = allowed(wanted, held);
            Some(held + bytes)
        };
        // It always takes something, if only nothing.
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        Share { memory: Arc::clone(self), bytes }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

fn allowed(wanted: usize, held: usize) -> usize {
    wanted.min((BYTES_MAX.saturating_sub(held) / SHARE).max(FREE_BYTES))
}

/// What one answer holds; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Arc<AnswerMemory>,
    bytes: usize,
}

impl Share {
    /// So many may be read.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// From here on it is held by what was read, until the last piece of that is gone.
    pub(super) fn attach(mut self, parts: &mut [Part]) {
        let bytes = parts.iter().map(Part::size_bytes).sum();
        self.memory.held.fetch_add(bytes, Ordering::Relaxed);
        self.memory.held.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
        let share = Arc::new(self);
        for piece in parts.iter_mut().flat_map(|part| &mut part.batches) {
            let held = Held { bytes: std::mem::take(piece), _share: Arc::clone(&share) };
            *piece = Bytes::from_owner(held);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A piece of an answer with its part in the share.
struct Held {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_shrink_as_more_is_out_and_nobody_gets_nothing() {
        let memory = Arc::new(AnswerMemory::default());
        let shares: Vec<Share> = (0..60).map(|_| memory.take(55 << 20)).collect();
        assert_eq!(shares[0].bytes(), 55 << 20);
        assert!(shares.windows(2).all(|pair| pair[1].bytes() <= pair[0].bytes()));
        assert_eq!(shares[59].bytes(), FREE_BYTES);
        assert!(memory.held() <= BYTES_MAX + 60 * FREE_BYTES);
        drop(shares);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn what_was_read_is_held_until_its_last_piece_is_written() {
        let memory = Arc::new(AnswerMemory::default());
        let share = memory.take(1 << 20);
        let batches = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        let mut parts = [Part { batches, ..Part::default() }];
        share.attach(&mut parts);
        assert_eq!(memory.held(), 5);
        let [part] = parts;
        let slice = part.batches[1].slice(1..);
        drop(part);
        assert_eq!((memory.held(), &slice[..]), (5, &b"e"[..]));
        drop(slice);
        assert_eq!(memory.held(), 0);
    }
}
