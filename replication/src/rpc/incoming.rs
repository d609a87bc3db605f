//! A leader's replies as they come in, below the generated code: batches stay where HTTP/2 has put them, without a copy. Knows how messages
//! are framed, and nothing of what they say.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use floodmark_proto::pb::replica::FetchReply;
use http_body::Body as _;
use prost::Message as _;
use tonic::body::Body;
use tonic::{Code, Status};

use super::outgoing::HEAD_BYTES;

/// Smaller messages are copied into memory of their own: frames share what they were read into, and a few bytes that wait for a disk must not
/// hold on to megabytes of it. What is applied of a larger message holds on to its frame; nothing of it is kept once it is in the log.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// The replies of one call.
#[derive(Debug)]
pub(crate) struct Replies {
    body: Body,
    received: Received,
    /// Size of the message whose head has come.
    awaited: Option<usize>,
    reply_bytes_max: usize,
    has_ended: bool,
}

impl Replies {
    pub(super) fn new(body: Body, reply_bytes_max: usize) -> Replies {
        Replies { body, received: Received::default(), awaited: None, reply_bytes_max, has_ended: false }
    }

    /// The next reply; none once the leader has ended the call well. Dropped before it is ready, nothing is lost.
    pub(crate) async fn message(&mut self) -> Result<Option<FetchReply>, Status> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<FetchReply>, Status>> {
        loop {
            if let Some(reply) = self.take_reply()? {
                return Poll::Ready(Ok(Some(reply)));
            }
            if self.has_ended {
                return Poll::Ready(self.ended_well());
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.has_ended = true;
                continue;
            };
            match frame?.into_data() {
                Ok(piece) => self.received.push(piece),
                Err(frame) => {
                    self.has_ended = true;
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
                        return Poll::Ready(Err(status));
                    }
                }
            }
        }
    }

    /// Nothing more comes.
    fn ended_well(&self) -> Result<Option<FetchReply>, Status> {
        match self.awaited.is_none() && !self.received.has_remaining() {
            true => Ok(None),
            false => Err(Status::internal("the call ended in the middle of a reply")),
        }
    }

    /// A reply, where all of it has come.
    fn take_reply(&mut self) -> Result<Option<FetchReply>, Status> {
        let size = match self.awaited {
            Some(size) => size,
            None if self.received.remaining() < HEAD_BYTES => return Ok(None),
            None => self.announced()?,
        };
        if self.received.remaining() < size {
            self.awaited = Some(size);
            return Ok(None);
        }
        self.awaited = None;
        let decoded = match size < COPIED_BYTES_MAX {
            true => FetchReply::decode(self.received.copied(size)),
            false => FetchReply::decode((&mut self.received).take(size)),
        };
        decoded.map(Some).map_err(|e| Status::internal(format!("a reply cannot be read: {e}")))
    }

    /// The size of the message whose head is there.
    fn announced(&mut self) -> Result<usize, Status> {
        let flag = self.received.get_u8();
        let size = self.received.get_u32() as usize;
        if flag != 0 {
            return Err(Status::internal("a reply is compressed, which was not asked for"));
        }
        if size > self.reply_bytes_max {
            let limit = self.reply_bytes_max;
            return Err(Status::out_of_range(format!("a reply of {size} bytes is larger than {limit}")));
        }
        Ok(size)
    }
}

/// Pieces as they came. What lies in one of them is handed out as a part of it.
#[derive(Debug, Default)]
struct Received {
    /// None of them is empty.
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Received {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The next `bytes`, which must be there, in memory of their own.
    fn copied(&mut self, bytes: usize) -> Bytes {
        let mut copy = BytesMut::with_capacity(bytes);
        copy.put(self.take(bytes));
        copy.freeze()
    }
}

impl Buf for Received {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "advanced by {bytes} bytes where {} are left", self.bytes);
        self.bytes -= bytes;
        let mut left = bytes;
        while left > 0
            && let Some(first) = self.pieces.front_mut()
        {
            let taken = left.min(first.len());
            left -= taken;
            first.advance(taken);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    fn copy_to_bytes(&mut self, bytes: usize) -> Bytes {
        match self.pieces.front_mut() {
            Some(first) if bytes < first.len() => {
                self.bytes -= bytes;
                first.split_to(bytes)
            }
            Some(first) if bytes == first.len() => {
                self.bytes -= bytes;
                self.pieces.pop_front().unwrap_or_default()
            }
            _ => self.copied(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::pb::replica::Part;
    use http_body::Frame;
    use tonic::codegen::http::HeaderMap;

    use super::*;

    /// A body in pieces, and the status at its end.
    struct InPieces(VecDeque<Bytes>, Option<Status>);

    impl http_body::Body for InPieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if let Some(piece) = self.0.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Poll::Ready(self.1.take().map(|status| {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers)?;
                Ok(Frame::trailers(trailers))
            }))
        }
    }

    fn received(pieces: impl IntoIterator<Item = Bytes>, end: Option<Status>) -> Replies {
        Replies::new(Body::new(InPieces(pieces.into_iter().collect(), end)), 10 << 20)
    }

    fn reply(batches: &[Bytes]) -> FetchReply {
        let of_slot = |slot: u32| Part { slot, log_end: 7, batches: batches.to_vec(), ..Part::default() };
        FetchReply { parts: vec![of_slot(1), Part::default(), of_slot(300)] }
    }

    fn payload(bytes: usize) -> Bytes {
        (0..bytes).map(|n| (n % 251) as u8).collect()
    }

    fn framed(reply: &FetchReply) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(reply.encoded_len() as u32);
        reply.encode(&mut bytes).unwrap();
        bytes.freeze()
    }

    fn lies_in(part: &Bytes, whole: &Bytes) -> bool {
        let whole = whole.as_ptr_range();
        part.as_ptr() >= whole.start && part.as_ptr_range().end <= whole.end
    }

    #[tokio::test]
    async fn replies_are_whole_wherever_they_are_cut() {
        let sizes = [&[][..], &[0], &[1, 300], &[], &[150, 150, 150]];
        let replies = sizes.map(|sizes| reply(&sizes.iter().copied().map(payload).collect::<Vec<_>>()));
        let bytes: Bytes = replies.iter().flat_map(framed).collect();
        for size in 1..=bytes.len() {
            let pieces = bytes.chunks(size).flat_map(|piece| [Bytes::copy_from_slice(piece), Bytes::new()]);
            let mut stream = received(pieces, Some(Status::unavailable("over")));
            for reply in &replies {
                let read = stream.message().await.unwrap();
                assert!(read.as_ref() == Some(reply), "pieces of {size}");
            }
            assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
        }
    }

    #[tokio::test]
    async fn large_ones_are_whole_wherever_they_are_cut() {
        let replies = [
            reply(&[payload(5), payload(COPIED_BYTES_MAX)]),
            reply(&[payload(9)]),
            reply(&[payload(40_000)]),
        ];
        let bytes: Bytes = replies.iter().flat_map(framed).collect();
        for size in (1..bytes.len()).step_by(997).chain([bytes.len()]) {
            let mut stream = received(bytes.chunks(size).map(Bytes::copy_from_slice), Some(Status::ok("")));
            for reply in &replies {
                let read = stream.message().await.unwrap();
                assert!(read.as_ref() == Some(reply), "pieces of {size}");
            }
            assert!(stream.message().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_payload_in_one_piece_stays_where_it_is_and_one_in_two_is_put_together() {
        let sent = reply(&[payload(COPIED_BYTES_MAX), payload(10_000)]);
        let bytes = framed(&sent);
        // Inside the second payload.
        let pieces = [bytes.slice(..70_000), bytes.slice(70_000..)];
        let read = received(pieces.clone(), None).message().await.unwrap().unwrap();
        assert!(read == sent);
        assert!(lies_in(&read.parts[0].batches[0], &pieces[0]));
        assert!(!lies_in(&read.parts[0].batches[1], &bytes));
        assert!(read.parts[2].batches.iter().all(|batches| lies_in(batches, &pieces[1])));
        // A piece that is the payload and nothing else.
        let at = read.parts[2].batches[0].as_ptr() as usize - bytes.as_ptr() as usize;
        let pieces = [0..at, at..at + COPIED_BYTES_MAX, at + COPIED_BYTES_MAX..bytes.len()];
        let pieces = pieces.map(|range| Bytes::copy_from_slice(&bytes[range]));
        let read = received(pieces.clone(), None).message().await.unwrap().unwrap();
        assert!(read == sent);
        assert_eq!(read.parts[2].batches[0].as_ptr(), pieces[1].as_ptr());
    }

    #[tokio::test]
    async fn a_small_reply_holds_on_to_nothing_else() {
        let sent = reply(&[payload(30_000)]);
        let bytes: Bytes = [framed(&sent), framed(&reply(&[payload(1 << 20)]))].concat().into();
        let read = received([bytes.clone()], None).message().await.unwrap().unwrap();
        assert!(read == sent);
        let mut batches = read.parts.iter().flat_map(|part| &part.batches);
        assert!(batches.all(|batches| !lies_in(batches, &bytes)));
    }

    #[tokio::test]
    async fn what_is_too_large_compressed_or_no_reply_is_refused() {
        let too_large = [&[0][..], &((10 << 20) + 1_u32).to_be_bytes()].concat();
        for (bytes, code) in [
            (too_large, Code::OutOfRange),
            (vec![1, 0, 0, 0, 0], Code::Internal),
            // A field that is longer than its message.
            (vec![0, 0, 0, 0, 2, 10, 9], Code::Internal),
        ] {
            let mut stream = received([Bytes::from(bytes)], None);
            assert_eq!(stream.message().await.unwrap_err().code(), code);
        }
    }

    #[tokio::test]
    async fn an_end_inside_a_reply_is_no_good_end() {
        let bytes = framed(&reply(&[payload(300)]));
        for end in [None, Some(Status::ok(""))] {
            for cut in 1..bytes.len() {
                let mut stream = received([bytes.slice(..cut)], end.clone());
                assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal, "cut at {cut}");
            }
            let mut stream = received([bytes.clone()], end);
            assert!(stream.message().await.unwrap().is_some());
            assert!(stream.message().await.unwrap().is_none());
            assert!(stream.message().await.unwrap().is_none(), "and so it stays");
        }
        // What the leader says of it counts more.
        let mut stream = received([bytes.slice(..9)], Some(Status::aborted("gone")));
        assert_eq!(stream.message().await.unwrap_err().code(), Code::Aborted);
    }
}
