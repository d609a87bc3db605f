//! Back-pressure: bytes that wait to be acknowledged, taken for each record and given back for each batch. Holds the memory of batches that
//! were delivered, too, for those that come.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::spares::Spares;

#[derive(Debug)]
pub(super) struct Buffer {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    freed: Notify,
    pub(super) spares: Spares,
}

impl Buffer {
    pub(super) fn new(limit_bytes: usize) -> Buffer {
        Buffer {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            freed: Notify::new(),
            spares: Spares::default(),
        }
    }

    /// Takes so many bytes, or fails where there is no room: then nothing was taken, so that nobody is told of room that was there for
    /// nobody. Told so, those who wait would wake each other without end.
    pub(super) fn try_take(&self, bytes: usize) -> Result<()> {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit_bytes);
        match self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(()),
            Err(buffered_bytes) => Err(Error::BufferFull { buffered_bytes }),
        }
    }

    /// Waits until something was given back since this was called; the caller then tries again.
    pub(super) async fn room(&self, bytes: usize) {
        let freed = self.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        // Given back between the caller's try and now.
        if self.used_bytes.load(Ordering::Acquire) + bytes > self.limit_bytes {
            freed.await;
        }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_waiters();
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_goes_on_when_bytes_come_back() {
        let buffer = Arc::new(Buffer::new(100));
        buffer.try_take(60).unwrap();
        assert!(matches!(buffer.try_take(50), Err(Error::BufferFull { buffered_bytes: 60 })));
        let waiter = Arc::clone(&buffer);
        let waiting = tokio::spawn(async move {
            while waiter.try_take(50).is_err() {
                waiter.room(50).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        buffer.give_back(60);
        waiting.await.unwrap();
        assert_eq!(buffer.used_bytes(), 50);
    }

    #[tokio::test]
    async fn those_who_wait_do_not_wake_each_other() {
        let buffer = Arc::new(Buffer::new(100));
        buffer.try_take(60).unwrap();
        let tries = Arc::new(AtomicUsize::new(0));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (buffer, tries) = (Arc::clone(&buffer), Arc::clone(&tries));
                tokio::spawn(async move {
                    while buffer.try_take(50).is_err() {
                        tries.fetch_add(1, Ordering::Relaxed);
                        buffer.room(50).await;
                    }
                    buffer.give_back(50);
                })
            })
            .collect();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tries.load(Ordering::Relaxed), waiting.len(), "each has seen once that there is no room");
        buffer.give_back(60);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(buffer.used_bytes(), 0);
    }
}
