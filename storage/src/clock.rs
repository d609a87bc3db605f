//! Where the time comes from, so that a test or a simulation can own it.
#![allow(clippy::disallowed_methods, reason = "this is the file the other files are sent to")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use floodmark_proto::ids::TimestampMs;

/// A source of time; clones tell the same time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// One that stands still until it is set.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that tells `now_ms` until it is set.
    #[must_use]
    pub fn manual(now_ms: TimestampMs) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(now_ms)))
    }

    /// Milliseconds since the Unix epoch; goes back where somebody sets the machine's clock back.
    #[must_use]
    pub fn now_ms(&self) -> TimestampMs {
        match self {
            Clock::Manual(now) => now.load(Ordering::Acquire),
            Clock::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                Err(_) => 0,
            },
        }
    }

    /// Milliseconds since a moment that is the same for all of this process; goes on evenly, whatever is done to the machine's clock. For how
    /// long something takes.
    #[must_use]
    pub fn steady_ms(&self) -> u64 {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        match self {
            // Who moves it means both.
            Clock::Manual(now) => u64::try_from(now.load(Ordering::Acquire)).unwrap_or(0),
            Clock::System => {
                u64::try_from(BEGUN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
            }
        }
    }

    /// Moves a manual clock; the machine's cannot be moved from here.
    pub fn advance_ms(&self, by: i64) {
        if let Clock::Manual(now) = self {
            now.fetch_add(by, Ordering::AcqRel);
        }
    }
}

/// Measures how long something took; never goes back, and belongs to no calendar.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}
