//! How a log is written and read lately, and what follows of it: whether zeros ahead of its end pay, how often the recovery point should move,
//! and what of the segment being written the system need not keep in memory. Must know nothing of files.

use std::ops::Range;

use floodmark_proto::ids::Offset;

/// Bytes of a sync from which on zeros ahead cost more than they save: the disk moves each byte twice for them, and what they save, the
/// change of the file's size, costs a sync the same whatever it covers (docs/PERFORMANCE.md).
const LARGE_SYNC_BYTES: u64 = 768 << 10;

/// Who writes so much has gone once through the memory of a common machine within a minute: what it holds is gone before anybody comes who is
/// late. And a disk that takes this much gives it back as fast.
const FAST_BYTES_PER_S: u64 = 256 << 20;
/// Over how long the pace is taken.
const WINDOW_MS: u64 = 100;
/// What has to come at that pace before it counts: a burst is better kept for whoever comes for it.
const FLOOD_BYTES: u64 = 1 << 30;
/// Moving the recovery point has appends wait, for its own syncs and for the manifest's. A log that gets so much that they would do so many times a
/// second leaves what comes in this time to a recovery: the disk that synced it gives it back about as fast.
const MOMENT_MS: u64 = 250;
/// Once so much has been synced since anybody last read from files, nobody is thought to: a minute's worth at the least of that pace.
const UNREAD_BYTES: u64 = 16 << 30;
/// What is let go of at a time. Less is in the way of whoever writes, more leaves the caches before it is used again.
const LET_GO_STEP_BYTES: u64 = 8 << 20;
/// And at most: what has come to lie there before is left to the system, so that no call takes long.
const LET_GO_MAX_BYTES: u64 = 64 << 20;

/// What is known of the syncs of one log.
#[derive(Debug)]
pub(super) struct Pace {
    /// What one covers lately; the newest makes an eighth of it.
    recent_bytes: u64,
    window_began_ms: u64,
    window_bytes: u64,
    /// What came in the last whole window.
    bytes_per_ms: u64,
    /// What has come since the pace was last slower.
    fast_bytes: u64,
    /// Synced since somebody read from files.
    unread_bytes: u64,
}

impl Pace {
    pub(super) fn new(now_ms: u64) -> Pace {
        Pace {
            recent_bytes: 0,
            window_began_ms: now_ms,
            window_bytes: 0,
            bytes_per_ms: 0,
            fast_bytes: 0,
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
            self.bytes_per_ms = self.window_bytes / window_ms;
            let is_fast = self.bytes_per_ms >= FAST_BYTES_PER_S / 1000;
            self.fast_bytes = if is_fast { self.fast_bytes.saturating_add(self.window_bytes) } else { 0 };
            (self.window_began_ms, self.window_bytes) = (now_ms, 0);
        }
    }

    /// What came so far says nothing of what comes.
    pub(super) fn forget_flood(&mut self) {
        self.fast_bytes = 0;
    }

    /// True where zeros ahead pay.
    pub(super) fn has_small_syncs(&self) -> bool {
        self.recent_bytes < LARGE_SYNC_BYTES
    }

    /// What is synced in a moment at the pace of late.
    pub(super) fn moment_bytes(&self) -> u64 {
        self.bytes_per_ms.saturating_mul(MOMENT_MS)
    }

    /// True where what is on the disk is not worth the memory that it takes: so much comes that it would push out everything else, itself
    /// too, and nobody reads it there.
    pub(super) fn outruns_memory(&self) -> bool {
        self.fast_bytes >= FLOOD_BYTES && !self.has_small_syncs() && self.unread_bytes >= UNREAD_BYTES
    }
}

/// The part of the segment being written that is durable and was not let go of yet.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Of the segment.
    pub(super) base: Offset,
    let_go_to: u64,
    durable_to: u64,
}

impl Stretch {
    pub(super) fn new(base: Offset) -> Stretch {
        Stretch { base, let_go_to: 0, durable_to: 0 }
    }

    /// What lies before `bytes` in the segment that begins at `base` is durable.
    pub(super) fn on_durable(&mut self, base: Offset, bytes: u64) {
        if base > self.base {
            *self = Stretch::new(base);
        }
        if base == self.base {
            self.durable_to = bytes;
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.durable_to.saturating_sub(self.let_go_to) >= LET_GO_STEP_BYTES
    }

    /// What to let go of.
    pub(super) fn take(&mut self) -> Range<u64> {
        let from = self.let_go_to.max(self.durable_to.saturating_sub(LET_GO_MAX_BYTES));
        self.let_go_to = self.durable_to;
        from..self.durable_to
    }
}

#[cfg(test)]
impl Pace {
    /// As it is where so much comes, for as long as the clock stands still.
    pub(super) fn coming(bytes_per_s: u64, now_ms: u64) -> Pace {
        Pace { bytes_per_ms: bytes_per_s / 1000, ..Pace::new(now_ms) }
    }

    /// As it is once a flood has come and nobody read, for as long as the clock stands still.
    pub(super) fn in_flood(now_ms: u64) -> Pace {
        Pace { recent_bytes: LARGE_SYNC_BYTES * 2, fast_bytes: FLOOD_BYTES, ..Pace::new(now_ms) }
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
            ("slow", 8_000, slow, false, false),
            ("a burst", 3_000, fast, false, false),
            ("slow again", 200, slow, false, false),
            ("another burst", 3_000, fast, false, false),
            ("a flood", 2_000, fast, false, true),
            ("somebody reads files", 8, fast, true, false),
            ("he has not been seen for half a minute", 30_000, fast, false, false),
            ("nor for a whole one", 35_000, fast, false, true),
            ("slow once more", 300, slow, false, false),
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
        assert!(pace.fast_bytes > FLOOD_BYTES && !pace.outruns_memory());
        let mut pace = Pace::new(0);
        for n in 0..400 {
            pace.on_sync(4 << 20, false, n);
        }
        assert!(pace.outruns_memory());
        // 4 MiB each millisecond.
        assert!((950 << 20..1050 << 20).contains(&pace.moment_bytes()), "{}", pace.moment_bytes());
        pace.on_sync(4 << 20, false, 60_000);
        assert!(!pace.outruns_memory());
        assert!(pace.moment_bytes() < 4 << 20);
    }

    #[test]
    fn a_stretch_is_let_go_of_once_and_in_steps() {
        let mut stretch = Stretch::new(Offset(0));
        let step = LET_GO_STEP_BYTES;
        stretch.on_durable(Offset(0), step - 1);
        assert!(!stretch.is_due());
        stretch.on_durable(Offset(0), step + 5);
        assert!(stretch.is_due());
        assert_eq!(stretch.take(), 0..step + 5);
        assert!(!stretch.is_due());
        // Cut in between, and not yet as long as it was.
        stretch.on_durable(Offset(0), step / 2);
        assert!(!stretch.is_due());
        // Nothing of it for a long time.
        stretch.on_durable(Offset(0), LET_GO_MAX_BYTES * 3);
        assert_eq!(stretch.take(), LET_GO_MAX_BYTES * 2..LET_GO_MAX_BYTES * 3);
        stretch.on_durable(Offset(90), step);
        assert_eq!((stretch.base, stretch.take()), (Offset(90), 0..step));
        stretch.on_durable(Offset(0), LET_GO_MAX_BYTES * 4);
        assert!(!stretch.is_due(), "of a segment before");
    }
}
