//! How much a broker sends at a time: what costs least, and less where the line is slow. Pure: knows no connection and no clock.

use std::time::Duration;

use super::config::{Commit, ConsumerConfig};

/// Larger messages wake whoever reads less often; no broker makes them larger than this.
const MESSAGE_BYTES: u32 = 1 << 20;
/// A message that is committed before it is handed out is lost with a reader that dies then.
const MESSAGE_BYTES_AT_MOST_ONCE: u32 = 256 << 10;
/// Room for several messages under way is worth more than large ones.
const SHARE_OF_PREFETCH: usize = 8;
/// What a message has beside its records, so that it comes in one frame.
const BESIDE_RECORDS_BYTES: u32 = 16 << 10;
/// A line on which this takes longer than a connection may be silent is of no use.
const SLOWEST_BYTES: u32 = 64 << 10;

/// What subscriptions to one broker are made with, one after the other.
///
/// Nothing is heard of a connection while a frame comes in, and an answer to a sign of life that was asked for comes behind it. So a frame
/// that takes too long on its way ends the connection, and would again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pieces {
    bytes_max: u32,
}

impl Pieces {
    pub(super) fn new() -> Pieces {
        Pieces { bytes_max: MESSAGE_BYTES }
    }

    /// Bytes after which the broker sends a message though there is more.
    pub(super) fn message_bytes(self, config: &ConsumerConfig) -> u32 {
        let wanted = match config.message_bytes_max {
            0 if config.commit == Commit::AtMostOnce => MESSAGE_BYTES_AT_MOST_ONCE,
            0 => {
                let share = u32::try_from(config.prefetch_bytes / SHARE_OF_PREFETCH).unwrap_or(u32::MAX);
                share.max(SLOWEST_BYTES)
            }
            bytes => bytes,
        };
        wanted.min(self.bytes_max)
    }

    /// Largest frame of HTTP/2 that is taken; a batch that is larger comes in several.
    pub(super) fn frame_bytes(self, config: &ConsumerConfig) -> u32 {
        self.message_bytes(config) + BESIDE_RECORDS_BYTES
    }

    /// What the next subscription is made with, after one that ended with nothing heard for so long.
    pub(super) fn after(self, silence: Duration, keep_alive: Duration) -> Pieces {
        match silence >= keep_alive {
            true => Pieces { bytes_max: (self.bytes_max / 4).max(SLOWEST_BYTES) },
            false => Pieces::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1 << 10;

    #[test]
    fn messages_are_large_unless_there_is_a_reason() {
        let usual = ConsumerConfig::assigned();
        let asked = |config: &ConsumerConfig| Pieces::new().message_bytes(config);
        assert_eq!(asked(&usual), 1024 * KIB);
        assert_eq!(Pieces::new().frame_bytes(&usual), 1040 * KIB);
        assert_eq!(asked(&usual.clone().at_most_once()), 256 * KIB);
        for (prefetch_bytes, message) in [(4 << 20, 512 * KIB), (1000, 64 * KIB), (usize::MAX, 1024 * KIB)] {
            assert_eq!(
                asked(&ConsumerConfig { prefetch_bytes, ..usual.clone() }),
                message,
                "{prefetch_bytes}"
            );
        }
        for (message_bytes_max, message) in [(1000, 1000), (300 * KIB, 300 * KIB), (u32::MAX, 1024 * KIB)] {
            let config = ConsumerConfig { message_bytes_max, ..usual.clone().at_most_once() };
            assert_eq!(asked(&config), message);
            // What HTTP/2 allows.
            assert!((1 << 14..1 << 24).contains(&Pieces::new().frame_bytes(&config)));
        }
    }

    #[test]
    fn a_line_that_falls_silent_is_asked_for_less() {
        let (keep_alive, usual) = (Duration::from_secs(3), ConsumerConfig::assigned());
        let mut pieces = Pieces::new();
        let mut asked = Vec::new();
        for _ in 0..4 {
            pieces = pieces.after(keep_alive, keep_alive);
            asked.push(pieces.message_bytes(&usual) / KIB);
        }
        assert_eq!(asked, [256, 64, 64, 64]);
        // Whoever asked for less already goes on with that.
        assert_eq!(pieces.message_bytes(&ConsumerConfig { message_bytes_max: 10, ..usual }), 10);
        assert_eq!(pieces.after(Duration::from_secs(2), keep_alive), Pieces::new());
    }
}
