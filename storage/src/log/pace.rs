//! How a log is written and read lately, and what follows of it: whether zeros ahead of its end pay, and whether the system shall keep
//! in memory what is on the disk. Must know nothing of files.

/// Bytes of a sync from which on zeros ahead cost more than they save: the disk moves each byte twice for them, and what they save, the
/// change of the file's size, costs a sync the same whatever it covers (docs/PERFORMANCE.md).
const LARGE_SYNC_BYTES: u64 = 768 << 10;

/// Who writes so much has gone once through the memory of a common machine within a minute: what it holds is gone before anybody comes who is
/// late. And a disk that takes this much gives it back as fast.
const FAST_BYTES_PER_S: u64 = 256 << 20;
/// Over how long the pace is taken, so that a burst of a few batches counts for nothing.
const WINDOW_MS: u64 = 100;
/// Once so much has been synced since anybody last read what was in files alone, nobody is thought to.
const UNREAD_BYTES: u64 = 256 << 20;

/// What is known of the syncs of one log.
#[derive(Debug)]
pub(super) struct Pace {
    /// What one covers lately; the newest makes an eighth of it.
    recent_bytes: u64,
    window_began_ms: u64,
    window_bytes: u64,
    is_fast: bool,
    /// Synced since somebody read from files.
    unread_bytes: u64,
}

impl Pace {
    pub(super) fn new(now_ms: u64) -> Pace {
        Pace {
            recent_bytes: 0,
            window_began_ms: now_ms,
            window_bytes: 0,
            is_fast: false,
            unread_bytes: UNREAD_BYTES,
        }
    }

    /// A sync begins, and so much was written since the one before. `was_read` where somebody has read from files meanwhile.
    pub(super) fn on_sync(&mut self, bytes: u64, was_read: bool, now_ms: u64) {
        match bytes {
            0 => {}
            bytes if self.recent_bytes == 0 => self.recent_bytes = bytes,
            bytes => self.recent_bytes = self.recent_bytes - self.recent_bytes / 8 + bytes / 8,
        }
        self.unread_bytes = if was_read { 0 } else { self.unread_bytes.saturating_add(bytes) };
        self.window_bytes += bytes;
        let window_ms = now_ms.saturating_sub(self.window_began_ms);
        if window_ms >= WINDOW_MS {
            self.is_fast = self.window_bytes / window_ms >= FAST_BYTES_PER_S / 1000;
            (self.window_began_ms, self.window_bytes) = (now_ms, 0);
        }
    }

    /// True where zeros ahead pay.
    pub(super) fn has_small_syncs(&self) -> bool {
        self.recent_bytes < LARGE_SYNC_BYTES
    }

    /// True where what is on the disk is not worth the memory that it takes: so much comes that it would push out everything else, itself
    /// too, and nobody reads it there.
    pub(super) fn outruns_memory(&self) -> bool {
        self.is_fast && !self.has_small_syncs() && self.unread_bytes >= UNREAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_pay_again_once_syncs_are_small_again() {
        let mut pace = Pace::new(0);
        let mut sync = |bytes| {
            pace.on_sync(bytes, false, 0);
            pace.has_small_syncs()
        };
        assert!(sync(1000));
        assert!(!(0..20).map(|_| sync(2 << 20)).last().unwrap());
        assert!(!sync(0), "a sync of nothing says nothing");
        assert!(!sync(1000), "one is a chance");
        assert!((0..20).map(|_| sync(1000)).last().unwrap());
    }

    /// Syncs for `for_ms`, one every 4 ms.
    fn run(pace: &mut Pace, now_ms: &mut u64, for_ms: u64, bytes_per_s: u64, was_read: bool) -> bool {
        for _ in 0..for_ms / 4 {
            *now_ms += 4;
            pace.on_sync(bytes_per_s / 250, was_read, *now_ms);
        }
        pace.outruns_memory()
    }

    #[test]
    fn what_is_synced_stays_in_memory_unless_it_comes_fast_and_is_for_nobody() {
        let (mut pace, mut now_ms) = (Pace::new(5_000), 5_000);
        let mut run =
            |for_ms, bytes_per_s, was_read| run(&mut pace, &mut now_ms, for_ms, bytes_per_s, was_read);
        let (slow, fast) = (FAST_BYTES_PER_S * 9 / 10, FAST_BYTES_PER_S * 11 / 10);
        let steps = [
            ("slow", 1_000, slow, false, false),
            ("a burst", 60, fast, false, false),
            ("fast", 240, fast, false, true),
            ("somebody reads files", 8, fast, true, false),
            ("he has not been seen for a moment", 500, fast, false, false),
            ("nor for long", 1_000, fast, false, true),
            ("slow again", 300, slow, false, false),
        ];
        for (name, for_ms, bytes_per_s, was_read, expected) in steps {
            assert_eq!(run(for_ms, bytes_per_s, was_read), expected, "{name}");
        }
    }

    #[test]
    fn small_syncs_however_many_stay_in_memory_and_a_pause_is_no_pace() {
        let mut pace = Pace::new(0);
        for n in 0..10_000 {
            pace.on_sync(500 << 10, false, n / 10);
        }
        assert!(pace.is_fast && !pace.outruns_memory());
        let mut pace = Pace::new(0);
        for n in 0..200 {
            pace.on_sync(4 << 20, false, n);
        }
        assert!(pace.outruns_memory());
        pace.on_sync(4 << 20, false, 60_000);
        assert!(!pace.outruns_memory());
    }
}
