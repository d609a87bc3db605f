//! Replies of one connection on their way out, in the order of the requests, several in one write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Pieces that one write call gets.
const SLICES_A_WRITE: usize = 64;

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes of each reply that are not written.
    replies: VecDeque<usize>,
    /// Whole size of the first reply, and since when it is the first.
    first: (usize, Duration),
}

impl Outbound {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that are not written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The reply that leaves now: its size, and since when it is waited for that it is gone.
    pub(super) fn first(&self) -> Option<(usize, Duration)> {
        (!self.replies.is_empty()).then_some(self.first)
    }

    pub(super) fn push(&mut self, reply: Vec<Bytes>, now: Duration) {
        let bytes = reply.iter().map(Bytes::len).sum();
        if bytes == 0 {
            return;
        }
        if self.replies.is_empty() {
            self.first = (bytes, now);
        }
        self.bytes += bytes;
        self.replies.push_back(bytes);
        self.pieces.extend(reply.into_iter().filter(|piece| !piece.is_empty()));
    }

    /// Writes until nothing is left or the socket takes no more. Ready with whether anything was written.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
        now: Duration,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_A_WRITE];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let socket = Pin::new(&mut *socket);
            let written = match &slices[..count] {
                [one] => socket.poll_write(cx, one),
                many => socket.poll_write_vectored(cx, many),
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.on_written(written, now),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn on_written(&mut self, written: usize, now: Duration) {
        self.bytes -= written;
        let mut rest = written;
        while let Some(piece) = self.pieces.front_mut() {
            if rest < piece.len() {
                piece.advance(rest);
                break;
            }
            rest -= piece.len();
            self.pieces.pop_front();
        }
        let mut rest = written;
        while let Some(reply) = self.replies.front_mut() {
            if rest < *reply {
                *reply -= rest;
                break;
            }
            rest -= *reply;
            self.replies.pop_front();
            self.first = (self.replies.front().copied().unwrap_or(0), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes a call, then no more.
    struct Socket {
        taken: Vec<u8>,
        a_call: usize,
        calls: usize,
        calls_max: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(from)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            from: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            if self.calls == self.calls_max {
                return Poll::Pending;
            }
            self.calls += 1;
            let all: Vec<u8> = from.iter().flat_map(|slice| slice.to_vec()).take(self.a_call).collect();
            self.taken.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn replies_leave_in_order_however_they_are_cut() {
        for a_call in [1, 2, 3, 7, 1000] {
            let mut outbound = Outbound::default();
            let mut all: Vec<u8> = Vec::new();
            for n in 0..100u8 {
                let pieces =
                    vec![Bytes::from(vec![n; 3]), Bytes::new(), Bytes::from(vec![n; usize::from(n)])];
                all.extend(pieces.iter().flatten());
                outbound.push(pieces, Duration::ZERO);
            }
            let mut socket = Socket { taken: Vec::new(), a_call, calls: 0, calls_max: usize::MAX };
            let mut cx = Context::from_waker(Waker::noop());
            assert!(outbound.poll_write(&mut cx, &mut socket, Duration::ZERO).is_ready());
            assert_eq!(socket.taken, all);
            assert!(outbound.is_empty() && outbound.first().is_none() && outbound.pieces.is_empty());
        }
    }

    #[test]
    fn the_clock_of_a_reply_starts_when_it_is_the_first() {
        let mut cx = Context::from_waker(Waker::noop());
        let [at_0, at_5] = [0, 5].map(Duration::from_secs);
        let mut outbound = Outbound::default();
        outbound.push(vec![Bytes::from_static(&[1; 10])], at_0);
        outbound.push(vec![Bytes::from_static(&[2; 20])], at_0);
        assert_eq!(outbound.first(), Some((10, at_0)));
        let mut socket = Socket { taken: Vec::new(), a_call: 9, calls: 0, calls_max: 1 };
        assert!(outbound.poll_write(&mut cx, &mut socket, at_5).is_pending());
        assert_eq!(outbound.first(), Some((10, at_0)), "a byte is still missing");
        socket.calls = 0;
        assert!(outbound.poll_write(&mut cx, &mut socket, at_5).is_pending());
        assert_eq!(outbound.first(), Some((20, at_5)));
        assert_eq!(outbound.bytes(), 12);
    }

    #[test]
    fn a_reply_of_nothing_is_none() {
        let mut outbound = Outbound::default();
        outbound.push(Vec::new(), Duration::ZERO);
        outbound.push(vec![Bytes::new()], Duration::ZERO);
        assert!(outbound.is_empty() && outbound.first().is_none());
    }
}
