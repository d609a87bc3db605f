//! Bytes of one connection on their way in, and how much memory the next of them may take. Pure: who reads the socket is elsewhere.

use bytes::BytesMut;
use floodmark_proto::kafka::frame::{self, FrameError, LENGTH_PREFIX_LEN};

/// Room for one read of a connection that sends little, and of one that sends much.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// Of a connection that sends little, room that is left of the last read's and is worth a read. A piece of memory for each small request
/// would cost a fresh page for each, and keep it as long as the newest records are kept.
const LEFT_BYTES_MIN: usize = 1 << 10;
/// What a connection that has sent a frame so large may take ahead for the next one, at most.
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// What has arrived and is not taken.
#[derive(Debug)]
pub(super) struct Inbound {
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// Room for the next read; grows while reads fill it.
    read_bytes: usize,
    /// Size of recent frames: half of it is forgotten with each smaller one.
    recent_bytes: usize,
}

impl Inbound {
    pub(super) fn new(frame_bytes_max: usize) -> Inbound {
        Inbound { buffer: BytesMut::new(), frame_bytes_max, read_bytes: READ_BYTES_MIN, recent_bytes: 0 }
    }

    /// Bytes that have arrived and are not taken.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The buffer, which has at least [`Inbound::room`] bytes of room after [`Inbound::reserve`].
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes that the next read may bring.
    pub(super) fn room(&self) -> usize {
        let announced = self.announced().ok().flatten();
        let left = self.buffer.capacity() - self.buffer.len();
        room(self.buffer.len(), announced, self.read_bytes, self.recent_bytes, left)
    }

    /// Takes memory for the next read: a multiple of what has arrived or of what this connection lately sent, whatever it announces.
    pub(super) fn reserve(&mut self, room: usize) {
        self.buffer.reserve(room);
    }

    /// Gives back memory that is out of proportion for a connection that waits.
    pub(super) fn let_go(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > READ_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
    }

    /// To be told what a read brought.
    pub(super) fn on_read(&mut self, bytes: usize) {
        if bytes >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if bytes < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
    }

    /// The frame at the front, which may not have arrived to its end.
    pub(super) fn announced(&self) -> Result<Option<usize>, FrameError> {
        frame::announced(&self.buffer, self.frame_bytes_max)
    }

    /// The whole frame at the front, left where it is.
    pub(super) fn peek(&self) -> Result<Option<&[u8]>, FrameError> {
        let Some(bytes) = self.announced()? else { return Ok(None) };
        Ok(self.buffer.get(LENGTH_PREFIX_LEN..LENGTH_PREFIX_LEN + bytes))
    }

    /// Takes the frame at the front, if all of it is there.
    pub(super) fn take(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let frame = frame::split(&mut self.buffer, self.frame_bytes_max)?;
        if let Some(frame) = &frame {
            self.recent_bytes = frame.len().max(self.recent_bytes / 2);
        }
        Ok(frame)
    }

    /// True where a frame has begun to arrive and has not ended.
    pub(super) fn is_partial(&self) -> bool {
        !self.buffer.is_empty() && matches!(self.peek(), Ok(None))
    }
}

/// Room for a read where `arrived` bytes lie ahead of it, `announced` is the length of the frame they begin, and memory for `left` bytes is
/// there.
fn room(arrived: usize, announced: Option<usize>, read: usize, recent: usize, left: usize) -> usize {
    let ahead = recent.min(AHEAD_BYTES_MAX);
    let is_enough = |bytes: usize| bytes + LENGTH_PREFIX_LEN <= arrived + left;
    match announced {
        // No more than to its end, so that the next frame gets memory of its own and is not moved.
        Some(bytes) if bytes + LENGTH_PREFIX_LEN > arrived + read => {
            let missing = bytes + LENGTH_PREFIX_LEN - arrived;
            missing.min(arrived.max(ahead).max(READ_BYTES_MAX))
        }
        _ if arrived == 0 && ahead > read => ahead + LENGTH_PREFIX_LEN,
        _ if read == READ_BYTES_MIN
            && left >= LEFT_BYTES_MIN.max(2 * recent)
            && announced.is_none_or(is_enough) =>
        {
            left.min(read)
        }
        _ => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_arrived_and_not_what_is_announced() {
        const MIB: usize = 1 << 20;
        for (arrived, announced, recent, left, expected) in [
            (0, None, 0, 0, READ_BYTES_MIN),
            (3, None, 0, 0, READ_BYTES_MIN),
            (4, Some(100 * MIB), 0, 2_000, READ_BYTES_MAX),
            (READ_BYTES_MAX, Some(100 * MIB), 0, 2_000, READ_BYTES_MAX),
            (MIB, Some(100 * MIB), 0, 2_000, MIB),
            (60 * MIB, Some(100 * MIB), 0, 0, 40 * MIB + LENGTH_PREFIX_LEN),
            (4, Some(100 * MIB), 2 * MIB, 0, 2 * MIB),
            (4, Some(100 * MIB), 90 * MIB, 0, AHEAD_BYTES_MAX),
            (0, None, 2 * MIB, 3_000, 2 * MIB + LENGTH_PREFIX_LEN),
            (100, Some(96), 0, 0, READ_BYTES_MIN),
            (50, Some(96), 0, 0, READ_BYTES_MIN),
            // What is left is used up where the next request should fit, or the one that has begun does.
            (0, None, 0, LEFT_BYTES_MIN, LEFT_BYTES_MIN),
            (0, None, 0, LEFT_BYTES_MIN - 1, READ_BYTES_MIN),
            (0, None, 600, 1_200, 1_200),
            (0, None, 601, 1_200, READ_BYTES_MIN),
            (50, Some(1_096), 0, 1_050, 1_050),
            (50, Some(1_097), 0, 1_050, READ_BYTES_MIN),
            (0, None, 0, 100_000, READ_BYTES_MIN),
        ] {
            let seen = room(arrived, announced, READ_BYTES_MIN, recent, left);
            assert_eq!(seen, expected, "{arrived} {announced:?} {recent} {left}");
        }
        // Whoever sends much gets memory for whole reads.
        assert_eq!(room(0, None, READ_BYTES_MAX, 0, 20_000), READ_BYTES_MAX);
    }

    #[test]
    fn a_frame_is_taken_once_it_is_whole() {
        let mut inbound = Inbound::new(100);
        for byte in [0, 0, 0, 3, 1, 2] {
            inbound.buffer().extend_from_slice(&[byte]);
            assert_eq!(inbound.take().unwrap(), None);
            assert!(inbound.is_partial());
        }
        inbound.buffer().extend_from_slice(&[3, 0, 0]);
        assert!(!inbound.is_partial());
        assert_eq!(inbound.peek().unwrap().unwrap(), [1, 2, 3]);
        assert_eq!(inbound.take().unwrap().unwrap(), [1, 2, 3][..]);
        assert!(inbound.is_partial());
        inbound.buffer().extend_from_slice(&[0, 0]);
        assert_eq!(inbound.take().unwrap().unwrap(), [][..]);
        assert!(!inbound.is_partial());
        assert_eq!(inbound.len(), 0);
    }

    #[test]
    fn lengths_that_no_frame_has_are_errors() {
        for (announced, is_fine) in
            [(0, true), (100, true), (101, false), (-1, false), (i32::MAX, false), (i32::MIN, false)]
        {
            let mut inbound = Inbound::new(100);
            inbound.buffer().extend_from_slice(&i32::to_be_bytes(announced));
            assert_eq!(inbound.announced().is_ok(), is_fine, "{announced}");
            assert_eq!(inbound.take().is_ok(), is_fine, "{announced}");
        }
    }

    #[test]
    fn room_grows_while_it_is_filled_and_shrinks_again() {
        let mut inbound = Inbound::new(100);
        for _ in 0..10 {
            inbound.on_read(inbound.room());
        }
        assert_eq!(inbound.room(), READ_BYTES_MAX);
        for _ in 0..10 {
            inbound.on_read(100);
        }
        assert_eq!(inbound.room(), READ_BYTES_MIN);
    }
}
