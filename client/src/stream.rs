//! The calls that carry records, below the generated code: batches leave from where they lie, without a copy, and messages come in into
//! memory that is used again. Knows how messages are framed, and nothing of what they say.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;

use crate::spares::Spares;

/// Compression flag and length, before each message.
const HEAD_BYTES: usize = 5;
/// Memory of messages is taken in steps of this, so that one may take what another had.
const STEP_BYTES: usize = 64 << 10;

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    head: Bytes,
    payload: Bytes,
}

impl Outgoing {
    pub(crate) fn new(message: &impl Message) -> Outgoing {
        let mut head = head_of(message, message.encoded_len());
        message.encode_raw(&mut head);
        Outgoing { head: head.freeze(), payload: Bytes::new() }
    }

    /// A message that has these bytes as a field of its own, which `message` leaves out.
    pub(crate) fn with_payload(message: &impl Message, tag: u32, payload: Bytes) -> Outgoing {
        let field_bytes = key_len(tag) + encoded_len_varint(payload.len() as u64);
        let mut head = head_of(message, message.encoded_len() + field_bytes + payload.len());
        message.encode_raw(&mut head);
        encode_key(tag, WireType::LengthDelimited, &mut head);
        encode_varint(payload.len() as u64, &mut head);
        Outgoing { head: head.freeze(), payload }
    }
}

fn head_of(message: &impl Message, bytes: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(HEAD_BYTES + message.encoded_len() + 16);
    head.put_u8(0);
    // Whoever makes a message holds it far below 4 GiB.
    head.put_u32(bytes as u32);
    head
}

/// The body of a request: messages as they come.
pub(crate) struct Requests {
    messages: mpsc::Receiver<Outgoing>,
    payload: Bytes,
}

impl Requests {
    pub(crate) fn new(messages: mpsc::Receiver<Outgoing>) -> Requests {
        Requests { messages, payload: Bytes::new() }
    }
}

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.payload.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.payload)))));
        }
        let message = ready!(self.messages.poll_recv(cx));
        Poll::Ready(message.map(|message| {
            self.payload = message.payload;
            Ok(Frame::data(message.head))
        }))
    }
}

/// The messages of an answer.
#[derive(Debug)]
pub(crate) struct Replies {
    body: Body,
    /// Received, and not part of a message yet.
    piece: Bytes,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// A message that came in part, and how many bytes it will have.
    partial: Option<(Vec<u8>, usize)>,
    message_bytes_max: usize,
    spares: Arc<Spares>,
    has_ended: bool,
}

impl Replies {
    pub(crate) fn new(body: Body, message_bytes_max: usize) -> Replies {
        Replies {
            body,
            piece: Bytes::new(),
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            partial: None,
            message_bytes_max,
            spares: Arc::default(),
            has_ended: false,
        }
    }

    /// The next message; none once the other side has ended the call well. Dropped before it is ready, nothing is lost.
    pub(crate) async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.take_message()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.has_ended = true;
                continue;
            };
            match frame?.into_data() {
                Ok(piece) => self.piece = piece,
                Err(frame) => {
                    self.has_ended = true;
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    if let Some(status) = status.filter(|status| status.code() != tonic::Code::Ok) {
                        return Poll::Ready(Err(status));
                    }
                }
            }
        }
    }

    /// A message, where the piece at hand ends one.
    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.piece.is_empty() {
            if let Some((message, size_bytes)) = &mut self.partial {
                let taken = self.piece.len().min(*size_bytes - message.len());
                message.extend_from_slice(&self.piece[..taken]);
                self.piece.advance(taken);
                if message.len() < *size_bytes {
                    return Ok(None);
                }
                let memory = self.partial.take().map_or_else(Vec::new, |(message, _)| message);
                return Ok(Some(self.spares.lend(memory)));
            }
            let taken = self.piece.len().min(HEAD_BYTES - self.head_bytes);
            self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&self.piece[..taken]);
            self.head_bytes += taken;
            self.piece.advance(taken);
            if self.head_bytes < HEAD_BYTES {
                return Ok(None);
            }
            self.head_bytes = 0;
            let size_bytes = self.announced()?;
            if size_bytes <= self.piece.len() {
                return Ok(Some(self.piece.split_to(size_bytes)));
            }
            let fresh = || Vec::with_capacity(size_bytes.next_multiple_of(STEP_BYTES));
            self.partial = Some((self.spares.take(size_bytes).unwrap_or_else(fresh), size_bytes));
        }
        Ok(None)
    }

    /// The size of the message whose head is there.
    fn announced(&self) -> Result<usize, Status> {
        let [flag, a, b, c, d] = self.head;
        if flag != 0 {
            return Err(Status::internal("a message is compressed, which was not asked for"));
        }
        let size_bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        if size_bytes > self.message_bytes_max {
            let limit = self.message_bytes_max;
            return Err(Status::out_of_range(format!(
                "a message of {size_bytes} bytes is larger than the client takes: {limit}"
            )));
        }
        Ok(size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::pb::v1 as pb;

    use super::*;

    /// Everything that a body of these messages gives, and in how many pieces.
    async fn sent(messages: Vec<Outgoing>) -> (Vec<u8>, usize) {
        let (sender, receiver) = mpsc::channel(messages.len().max(1));
        for message in messages {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        let mut body = Requests::new(receiver);
        let (mut bytes, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
            pieces += 1;
        }
        (bytes, pieces)
    }

    fn request(payload: Option<Bytes>) -> pb::ProduceRequest {
        pb::ProduceRequest {
            id: 7,
            topic: "t".to_owned(),
            partition: Some(0),
            timeout_ms: 9,
            payload: payload.map(pb::produce_request::Payload::Batch),
            ..Default::default()
        }
    }

    /// A body in pieces, and the status at its end.
    struct InPieces(Vec<Bytes>, Option<Status>);

    impl http_body::Body for InPieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if !self.0.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.0.remove(0)))));
            }
            Poll::Ready(self.1.take().map(|status| {
                let mut trailers = tonic::codegen::http::HeaderMap::new();
                status.add_header(&mut trailers)?;
                Ok(Frame::trailers(trailers))
            }))
        }
    }

    #[tokio::test]
    async fn a_payload_leaves_as_it_lies_and_is_read_as_part_of_its_message() {
        let batch = Bytes::from(vec![5; 300]);
        let (bytes, pieces) = sent(vec![
            Outgoing::with_payload(&request(None), 6, batch.clone()),
            Outgoing::new(&request(None)),
        ])
        .await;
        assert_eq!(pieces, 3);
        let mut replies = Replies::new(Body::new(InPieces(vec![bytes.into()], None)), 1000);
        let first = replies.message().await.unwrap().unwrap();
        assert_eq!(pb::ProduceRequest::decode(first).unwrap(), request(Some(batch)));
        let second = replies.message().await.unwrap().unwrap();
        assert_eq!(pb::ProduceRequest::decode(second).unwrap(), request(None));
        assert!(replies.message().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn messages_are_whole_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        for size in [0_usize, 1, 300, 0, 7] {
            bytes.put_u8(0);
            bytes.put_u32(size as u32);
            bytes.extend(vec![size as u8; size]);
        }
        for piece in 1..bytes.len() {
            let pieces = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
            let body = Body::new(InPieces(pieces, Some(Status::unavailable("over"))));
            let mut replies = Replies::new(body, 300);
            let mut sizes = Vec::new();
            let end = loop {
                match replies.message().await {
                    Ok(Some(message)) => {
                        assert!(message.iter().all(|byte| *byte == message.len() as u8));
                        sizes.push(message.len());
                    }
                    other => break other,
                }
            };
            assert_eq!(sizes, [0, 1, 300, 0, 7], "pieces of {piece}");
            assert_eq!(end.unwrap_err().code(), tonic::Code::Unavailable);
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_compressed_is_refused() {
        for (head, code) in
            [([0, 0, 0, 1, 45], tonic::Code::OutOfRange), ([1, 0, 0, 0, 1], tonic::Code::Internal)]
        {
            let body = Body::new(InPieces(vec![Bytes::copy_from_slice(&head)], None));
            assert_eq!(Replies::new(body, 300).message().await.unwrap_err().code(), code);
        }
    }
}
