//! Replies on their way to a follower, below the generated code: batches leave from where they lie, without a copy. Knows how the message is
//! written, and nothing of what it says.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use floodmark_proto::pb::replica::{FetchReply, Part};
use http_body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use super::peers::FRAME_BYTES;

/// Compression flag and length, before each message.
pub(super) const HEAD_BYTES: usize = 5;
/// A payload of so many bytes leaves from where it lies, in a frame of its own. Smaller ones are gathered: a copy costs no more than a frame
/// and a call of the system for each.
pub(crate) const OWN_PIECE_BYTES_MIN: usize = 32 << 10;
/// `FetchReply.parts` and `Part.batches`.
const PARTS: u32 = 1;
const BATCHES: u32 = 4;

/// The body of the answer to a follower's call: replies as they come, and at the end how the call ended.
pub(super) struct Replies {
    replies: mpsc::Receiver<Result<FetchReply, Status>>,
    /// Of the reply that is on its way.
    pieces: VecDeque<Bytes>,
    has_ended: bool,
}

impl Replies {
    pub(super) fn new(replies: mpsc::Receiver<Result<FetchReply, Status>>) -> Replies {
        Replies { replies, pieces: VecDeque::new(), has_ended: false }
    }
}

impl http_body::Body for Replies {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            let status = match ready!(self.replies.poll_recv(cx)).map(|reply| reply.and_then(pieces_of)) {
                Some(Ok(pieces)) => {
                    self.pieces = pieces;
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.has_ended = true;
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended && self.pieces.is_empty()
    }
}

/// A reply as it goes over the wire. Each piece fits into a frame, where no payload is larger.
fn pieces_of(reply: FetchReply) -> Result<VecDeque<Bytes>, Status> {
    let parts: Vec<Measured> = reply.parts.into_iter().map(Measured::of).collect();
    let bytes: usize = parts.iter().map(|part| field_bytes(PARTS, part.bytes)).sum();
    let size = u32::try_from(bytes).map_err(|_| {
        Status::resource_exhausted(format!("a reply of {bytes} bytes is too large to be sent"))
    })?;
    let apart: usize = parts.iter().flat_map(|part| &part.batches).map(own_piece_bytes).sum();
    let mut pieces =
        Pieces { head: BytesMut::with_capacity(HEAD_BYTES + bytes - apart), done: VecDeque::new() };
    pieces.head.put_u8(0);
    pieces.head.put_u32(size);
    for part in &parts {
        pieces.begin_field(PARTS, part.bytes);
        part.part.encode_raw(&mut pieces.head);
        for batches in &part.batches {
            pieces.begin_field(BATCHES, batches.len());
            pieces.put(batches);
        }
    }
    pieces.cut();
    Ok(pieces.done)
}

/// A part without its batches, and the bytes of both.
struct Measured {
    part: Part,
    batches: Vec<Bytes>,
    bytes: usize,
}

impl Measured {
    fn of(mut part: Part) -> Measured {
        let batches = std::mem::take(&mut part.batches);
        let payload: usize = batches.iter().map(|batches| field_bytes(BATCHES, batches.len())).sum();
        let bytes = part.encoded_len() + payload;
        Measured { part, batches, bytes }
    }
}

fn field_bytes(tag: u32, bytes: usize) -> usize {
    key_len(tag) + encoded_len_varint(bytes as u64) + bytes
}

fn own_piece_bytes(payload: &Bytes) -> usize {
    if payload.len() < OWN_PIECE_BYTES_MIN { 0 } else { payload.len() }
}

struct Pieces {
    /// What was written since the last cut. With room for everything that is copied, so that all of it lies in one buffer.
    head: BytesMut,
    done: VecDeque<Bytes>,
}

impl Pieces {
    fn begin_field(&mut self, tag: u32, bytes: usize) {
        encode_key(tag, WireType::LengthDelimited, &mut self.head);
        encode_varint(bytes as u64, &mut self.head);
    }

    fn put(&mut self, payload: &Bytes) {
        if own_piece_bytes(payload) > 0 {
            self.cut();
            self.done.push_back(payload.clone());
        } else {
            // What lies in two frames is copied by whoever receives it.
            if self.head.len() + payload.len() > FRAME_BYTES as usize {
                self.cut();
            }
            self.head.extend_from_slice(payload);
        }
    }

    fn cut(&mut self) {
        if !self.head.is_empty() {
            self.done.push_back(self.head.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::pb::replica::{Diverging, Refusal};
    use http_body::Body as _;
    use tonic::Code;

    use super::*;

    fn part(batches: Vec<Bytes>) -> Part {
        Part {
            slot: 300,
            leader_epoch: 2,
            fetch_offset: 1 << 40,
            batches,
            high_watermark: 5,
            log_start: -1,
            log_end: i64::MAX,
            diverging: Some(Diverging { epoch: 1, end_offset: 4 }),
            refusal: Refusal::Storage.into(),
            is_catchup: true,
            last_fetched_epoch: Some(0),
        }
    }

    fn payload(bytes: usize) -> Bytes {
        (0..bytes).map(|n| (n % 251) as u8).collect()
    }

    fn sent(parts: Vec<Part>) -> Vec<Bytes> {
        pieces_of(FetchReply { parts }).unwrap().into()
    }

    /// Everything that a body gives: bytes, and trailers.
    async fn whole(mut body: Replies) -> (Vec<u8>, Vec<HeaderMap>) {
        let (mut bytes, mut trailers) = (Vec::new(), Vec::new());
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            assert!(!body.is_end_stream() || frame.as_ref().is_ok_and(Frame::is_trailers));
            match frame.unwrap().into_data() {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(frame) => trailers.push(frame.into_trailers().unwrap()),
            }
        }
        assert!(body.is_end_stream());
        (bytes, trailers)
    }

    #[test]
    fn a_reply_is_the_message_that_others_know_how_to_read() {
        let sizes = [0, 1, 127, 128, OWN_PIECE_BYTES_MIN - 1, OWN_PIECE_BYTES_MIN, 3 << 20];
        let mut replies = vec![vec![], vec![Part::default()], vec![part(vec![]), Part::default()]];
        replies.extend(sizes.map(|bytes| vec![part(vec![payload(bytes)])]));
        replies.push(vec![
            part(sizes.map(payload).to_vec()),
            part(vec![]),
            part(sizes.map(payload).to_vec()),
        ]);
        for parts in replies {
            let bytes = sent(parts.clone()).concat();
            let (head, message) = bytes.split_at(HEAD_BYTES);
            assert_eq!(head[0], 0);
            assert_eq!(head[1..], u32::try_from(message.len()).unwrap().to_be_bytes());
            let reply = FetchReply { parts };
            assert_eq!(message.len(), reply.encoded_len());
            assert!(FetchReply::decode(message).unwrap() == reply);
        }
    }

    #[test]
    fn a_payload_leaves_as_it_lies() {
        let payloads = [OWN_PIECE_BYTES_MIN, 1 << 20].map(payload);
        let pieces = sent(vec![part(payloads.to_vec()), part(vec![payload(3), payloads[0].clone()])]);
        let lies: Vec<_> = pieces.iter().map(|piece| piece.as_ptr()).collect();
        assert_eq!(pieces.len(), 6, "each behind the fields before it");
        assert_eq!([lies[1], lies[3], lies[5]], [0, 1, 0].map(|n| payloads[n].as_ptr()));
    }

    #[test]
    fn small_ones_leave_together_in_pieces_that_fit_into_a_frame() {
        assert_eq!(sent(vec![part(vec![payload(100); 5000])]).len(), 1);
        let pieces = sent(vec![part(vec![payload(10_000); 500]), part(vec![payload(10_000); 500])]);
        let largest = pieces.iter().map(Bytes::len).max().unwrap();
        assert!(largest <= FRAME_BYTES as usize, "{largest}");
        assert_eq!(pieces.len(), 10, "pieces of a MiB");
    }

    #[tokio::test]
    async fn a_call_ends_with_how_it_ended() {
        for (status, said) in [
            (None, (Code::Ok, "")),
            (Some(Status::unavailable("this broker stops: §")), (Code::Unavailable, "this broker stops: §")),
        ] {
            let (replies, taken) = mpsc::channel(4);
            let reply = FetchReply { parts: vec![part(vec![payload(20_000)])] };
            replies.send(Ok(reply.clone())).await.unwrap();
            replies.send(Ok(FetchReply::default())).await.unwrap();
            if let Some(status) = status {
                replies.send(Err(status)).await.unwrap();
            }
            drop(replies);
            let (bytes, trailers) = whole(Replies::new(taken)).await;
            assert_eq!(bytes.len(), 2 * HEAD_BYTES + reply.encoded_len());
            assert_eq!(trailers.len(), 1);
            let told = Status::from_header_map(&trailers[0]).unwrap();
            assert_eq!((told.code(), told.message()), said);
        }
    }

    #[tokio::test]
    async fn what_no_message_can_hold_ends_the_call() {
        let (replies, taken) = mpsc::channel(1);
        let large = vec![Bytes::from(vec![0; 64 << 20]); 64];
        replies.send(Ok(FetchReply { parts: vec![part(large)] })).await.unwrap();
        let (bytes, trailers) = whole(Replies::new(taken)).await;
        assert!(bytes.is_empty());
        assert_eq!(Status::from_header_map(&trailers[0]).unwrap().code(), Code::ResourceExhausted);
    }
}
