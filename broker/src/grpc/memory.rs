//! Memory for what a call sends, out of the broker's one budget: taken as bytes arrive, given back as messages are answered.
//!
//! Bytes are counted on their way to the decoder, which stores them. What it stores is cut into messages here as well, by the five bytes
//! that stand before each, so that what an answered message took is known exactly.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use floodmark_proto::kafka::ErrorCode;
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

use super::refused::Refused;
use crate::admission::Share;

/// Compression flag and length.
const PREFIX_BYTES: usize = 5;

/// What one call holds; clones are the same.
#[derive(Clone)]
pub(super) struct RequestMemory(Arc<Mutex<Held>>);

struct Held {
    share: Share,
    /// Largest message of the call.
    bytes_max: usize,
    bytes: usize,
    framing: Framing,
    /// Sizes of messages that have arrived and were not taken.
    messages: VecDeque<usize>,
}

/// Where the next message ends.
#[derive(Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Of the message whose prefix is there.
    left: usize,
    size: usize,
}

impl RequestMemory {
    pub(super) fn new(share: Share, bytes_max: usize) -> RequestMemory {
        RequestMemory(Arc::new(Mutex::new(Held {
            share,
            bytes_max,
            bytes: 0,
            framing: Framing::default(),
            messages: VecDeque::new(),
        })))
    }

    /// The message that the decoder gave last; its memory is given back when the answer is dropped.
    pub(super) fn take(&self) -> Taken {
        let bytes = self.0.lock().messages.pop_front().unwrap_or(0);
        Taken { memory: self.clone(), bytes }
    }

    fn poll_hold(&self, cx: &mut Context<'_>, more: usize) -> Poll<()> {
        let mut held = self.0.lock();
        let bytes = held.bytes + more;
        held.share.poll_hold(cx, bytes)
    }

    /// Fails where a message is announced that is larger than it may be, before a decoder takes memory for it.
    fn on_arrived(&self, bytes: &[u8]) -> Result<(), Refused> {
        let mut held = self.0.lock();
        let held = &mut *held;
        held.bytes += bytes.len();
        held.framing.cut(bytes, held.bytes_max, &mut held.messages).map_err(|size| {
            let message =
                format!("a message of {size} bytes is larger than this call takes: {} bytes", held.bytes_max);
            Refused::new(ErrorCode::MessageTooLarge, message)
        })
    }

    /// A message has begun to arrive and has not ended.
    fn is_partial(&self) -> bool {
        let held = self.0.lock();
        held.framing.prefix_bytes > 0
    }

    fn release(&self, bytes: usize) {
        let mut held = self.0.lock();
        held.bytes = held.bytes.saturating_sub(bytes);
        let left = held.bytes;
        held.share.shrink_to(left);
    }
}

impl Framing {
    /// Fails with the size of a message that is larger than `bytes_max`.
    fn cut(
        &mut self,
        mut bytes: &[u8],
        bytes_max: usize,
        messages: &mut VecDeque<usize>,
    ) -> Result<(), usize> {
        while !bytes.is_empty() {
            if self.prefix_bytes < PREFIX_BYTES {
                let taken = bytes.len().min(PREFIX_BYTES - self.prefix_bytes);
                self.prefix[self.prefix_bytes..self.prefix_bytes + taken].copy_from_slice(&bytes[..taken]);
                self.prefix_bytes += taken;
                bytes = &bytes[taken..];
                if self.prefix_bytes < PREFIX_BYTES {
                    return Ok(());
                }
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.left > bytes_max {
                    return Err(self.left);
                }
                self.size = PREFIX_BYTES + self.left;
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            bytes = &bytes[taken..];
            if self.left == 0 {
                messages.push_back(self.size);
                self.prefix_bytes = 0;
            }
        }
        Ok(())
    }
}

/// A message that is being answered.
pub(super) struct Taken {
    memory: RequestMemory,
    bytes: usize,
}

impl Taken {
    /// With the five bytes before it.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}

/// The pieces of a request's body, counted. A message that stands still on its way ends its call: what has come of it may be what all
/// others wait for.
pub(super) struct Counted {
    pieces: BodyDataStream,
    memory: RequestMemory,
    /// Arrived, and waiting for memory.
    waiting: Option<Bytes>,
    /// How long a message may stand still.
    patience: Duration,
    /// Until then, while one does.
    late: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    pub(super) fn new(body: Body, memory: RequestMemory, patience: Duration) -> Counted {
        Counted { pieces: body.into_data_stream(), memory, waiting: None, patience, late: None }
    }

    /// Ready where the client has let the rest of a message wait for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Refused> {
        if !self.memory.is_partial() {
            self.late = None;
            return Poll::Pending;
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        ready!(late.as_mut().poll(cx));
        let ms = self.patience.as_millis();
        let message = format!("nothing came of the rest of a message for {ms} ms; send it whole");
        Poll::Ready(Refused::new(ErrorCode::RequestTimedOut, message))
    }
}

impl Stream for Counted {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let piece = match this.waiting.take() {
            Some(piece) => piece,
            None => match Pin::new(&mut this.pieces).poll_next(cx) {
                Poll::Ready(Some(Ok(piece))) => piece,
                Poll::Ready(other) => return Poll::Ready(other),
                Poll::Pending => {
                    let late = ready!(this.poll_late(cx));
                    return Poll::Ready(Some(Err(axum::Error::new(late.to_status()))));
                }
            },
        };
        this.late = None;
        if this.memory.poll_hold(cx, piece.len()).is_pending() {
            this.waiting = Some(piece);
            return Poll::Pending;
        }
        match this.memory.on_arrived(&piece) {
            Ok(()) => Poll::Ready(Some(Ok(piece))),
            // Whoever decodes finds the status in it.
            Err(refused) => Poll::Ready(Some(Err(axum::Error::new(refused.to_status())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[test]
    fn messages_are_told_apart_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        for size in [0_usize, 1, 300, 0, 7] {
            bytes.push(0);
            bytes.extend((size as u32).to_be_bytes());
            bytes.extend(vec![9; size]);
        }
        for piece in 1..bytes.len() {
            let (mut framing, mut messages) = (Framing::default(), VecDeque::new());
            for part in bytes.chunks(piece) {
                framing.cut(part, 300, &mut messages).unwrap();
            }
            assert_eq!(messages, [5, 6, 305, 5, 12], "pieces of {piece}");
        }
    }

    #[test]
    fn what_an_answered_message_took_is_given_back() {
        let budget = crate::admission::ByteBudget::new(1 << 20);
        let memory = RequestMemory::new(budget.share(), 100_000);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut message = vec![0, 0, 1, 0x86, 0xa0];
        message.resize(PREFIX_BYTES + 100_000, 1);
        for _ in 0..2 {
            assert!(memory.poll_hold(&mut cx, message.len()).is_ready());
            memory.on_arrived(&message).unwrap();
        }
        let both = budget.available_bytes();
        let first = memory.take();
        assert_eq!(first.size_bytes(), message.len());
        assert_eq!(budget.available_bytes(), both);
        drop(first);
        assert!(budget.available_bytes() > both);
        drop(memory.take());
        assert_eq!(budget.available_bytes(), 1 << 20);
        let refused = memory.on_arrived(&[0, 0, 1, 0x86, 0xa1]).unwrap_err();
        assert_eq!(refused.reason, "MESSAGE_TOO_LARGE");
    }

    #[test]
    fn a_message_that_stands_still_ends_its_call_and_a_call_without_one_does_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let budget = crate::admission::ByteBudget::new(1 << 20);
            let patience = Duration::from_millis(20);
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            let pieces = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let body = Body::from_stream(pieces.map(Ok::<Bytes, std::convert::Infallible>));
            let mut counted = Counted::new(body, RequestMemory::new(budget.share(), 100_000), patience);
            let quiet = tokio::time::timeout(patience * 3, counted.next());
            assert!(quiet.await.is_err(), "nothing is owed before a message begins");
            // The whole of one and the beginning of another.
            for piece in [&[0, 0, 0, 0, 1, 7][..], &[0]] {
                sender.send(Bytes::from_static(piece)).await.unwrap();
                assert_eq!(counted.next().await.unwrap().unwrap(), piece);
            }
            let late = tokio::time::timeout(Duration::from_secs(20), counted.next());
            let late = late.await.expect("it is waited for without end").unwrap().unwrap_err();
            assert!(late.to_string().contains("send it whole"), "{late}");
        });
    }
}
