//! `floodmark.v1.SubscribeReply` as it is pushed: written straight from stored batches, so that no record costs memory of its own and
//! bytes are copied once, into what is sent.

use bytes::{BufMut, Bytes};
use floodmark_proto::batch::{BatchError, Record};
use floodmark_proto::pb::v1 as pb;
use prost::DecodeError;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint};

const DELIVERY_TAG: u32 = 1;
const FAILURE_TAG: u32 = 2;
const RECORDS_TAG: u32 = 3;
const BATCHES_TAG: u32 = 4;
const RECORD_TAG: u32 = 1;

/// One message of Subscribe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Delivery(Delivery),
    Failure(pb::SubscribeFailure),
}

/// `floodmark.v1.Delivery`, with its payload as bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Delivery {
    /// Without a payload.
    pub(super) head: pb::Delivery,
    pub(super) payload: Payload,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Payload {
    #[default]
    None,
    /// The fields of `Records`.
    Records(Vec<u8>),
    /// Batches one behind the other.
    Batches(Vec<Bytes>),
}

impl Payload {
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Payload::None => 0,
            Payload::Records(records) => records.len(),
            Payload::Batches(batches) => batches.iter().map(Bytes::len).sum(),
        }
    }

    fn tag(&self) -> Option<u32> {
        match self {
            Payload::None => None,
            Payload::Records(_) => Some(RECORDS_TAG),
            Payload::Batches(_) => Some(BATCHES_TAG),
        }
    }
}

impl Delivery {
    fn encoded_len(&self) -> usize {
        self.head.encoded_len() + self.payload.tag().map_or(0, |_| field_len(self.payload.size_bytes()))
    }

    fn encode(&self, buf: &mut impl BufMut) {
        self.head.encode_raw(buf);
        let Some(tag) = self.payload.tag() else { return };
        put_length(tag, self.payload.size_bytes(), buf);
        match &self.payload {
            Payload::None => {}
            Payload::Records(records) => buf.put_slice(records),
            Payload::Batches(batches) => batches.iter().for_each(|batch| buf.put_slice(batch)),
        }
    }
}

impl Default for Reply {
    fn default() -> Reply {
        Reply::Delivery(Delivery::default())
    }
}

impl Message for Reply {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        match self {
            Reply::Delivery(delivery) => {
                put_length(DELIVERY_TAG, delivery.encoded_len(), buf);
                delivery.encode(buf);
            }
            Reply::Failure(failure) => {
                put_length(FAILURE_TAG, failure.encoded_len(), buf);
                failure.encode_raw(buf);
            }
        }
    }

    /// Readers have the generated message; here it is only written.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl bytes::Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        field_len(match self {
            Reply::Delivery(delivery) => delivery.encoded_len(),
            Reply::Failure(failure) => failure.encoded_len(),
        })
    }

    fn clear(&mut self) {
        *self = Reply::default();
    }
}

/// Appends a record as a field of `Records`.
pub(super) fn put_record(buf: &mut Vec<u8>, record: &Record<'_>) -> Result<(), BatchError> {
    let timestamp = record.timestamp as u64;
    let offset = record.offset.0 as u64;
    let mut len = optional_len(record.key) + optional_len(record.value);
    for header in record.headers {
        let header = header?;
        len += field_len(header_len(&text(header.key), header.value));
    }
    len += 2 + encoded_len_varint(timestamp) + encoded_len_varint(offset);
    put_length(RECORD_TAG, len, buf);
    put_optional(1, record.key, buf);
    put_optional(2, record.value, buf);
    for header in record.headers {
        let header = header?;
        let key = text(header.key);
        put_length(3, header_len(&key, header.value), buf);
        if !key.is_empty() {
            put_optional(1, Some(key.as_bytes()), buf);
        }
        put_optional(2, header.value, buf);
    }
    for (tag, number) in [(4, timestamp), (5, offset)] {
        encode_key(tag, WireType::Varint, buf);
        encode_varint(number, buf);
    }
    Ok(())
}

/// Nobody enforces that the key of a header is text; here it has to be.
fn text(key: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(key)
}

fn header_len(key: &str, value: Option<&[u8]>) -> usize {
    let key = if key.is_empty() { None } else { Some(key.as_bytes()) };
    optional_len(key) + optional_len(value)
}

fn optional_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(0, |bytes| field_len(bytes.len()))
}

/// All tags here take one byte.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn put_optional(tag: u32, bytes: Option<&[u8]>, buf: &mut impl BufMut) {
    if let Some(bytes) = bytes {
        put_length(tag, bytes.len(), buf);
        buf.put_slice(bytes);
    }
}

fn put_length(tag: u32, len: usize, buf: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(len as u64, buf);
}

#[cfg(test)]
mod tests {
    use floodmark_proto::batch::{BatchBuilder, DecompressLimits, NewRecord};
    use floodmark_proto::ids::Offset;

    use super::*;

    fn decoded(reply: &Reply) -> pb::SubscribeReply {
        let bytes = reply.encode_to_vec();
        assert_eq!(bytes.len(), reply.encoded_len());
        pb::SubscribeReply::decode(&bytes[..]).unwrap()
    }

    fn head() -> pb::Delivery {
        pb::Delivery {
            topic: "t".to_owned(),
            partition: 3,
            next_offset: 12,
            high_watermark: 300,
            ..Default::default()
        }
    }

    #[test]
    fn readers_find_the_generated_message() {
        let mut builder = BatchBuilder::new().base_offset(Offset(10)).base_timestamp(1000);
        let headers: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"1")), (b"", None), (b"a", Some(b"")), (b"\xff", None)];
        let first = NewRecord { timestamp: 1000, key: Some(b"k"), value: None, headers: &headers };
        builder.push(&first).unwrap();
        builder.push(&NewRecord { timestamp: -5, key: None, value: Some(&[7; 300]), headers: &[] }).unwrap();
        let batch = builder.build().unwrap();
        let mut bytes = Vec::new();
        for record in batch.records(&DecompressLimits::DEFAULT, &mut Vec::new()).unwrap() {
            put_record(&mut bytes, &record.unwrap()).unwrap();
        }
        let header = |key: &str, value: Option<&'static [u8]>| pb::Header {
            key: key.to_owned(),
            value: value.map(Bytes::from_static),
        };
        let records = pb::Records {
            records: vec![
                pb::Record {
                    key: Some("k".into()),
                    value: None,
                    headers: vec![
                        header("a", Some(b"1")),
                        header("", None),
                        header("a", Some(b"")),
                        header("\u{fffd}", None),
                    ],
                    timestamp_ms: Some(1000),
                    offset: Some(10),
                },
                pb::Record {
                    value: Some(vec![7; 300].into()),
                    timestamp_ms: Some(-5),
                    offset: Some(11),
                    ..Default::default()
                },
            ],
        };
        let reply = Reply::Delivery(Delivery { head: head(), payload: Payload::Records(bytes) });
        let payload = Some(pb::delivery::Payload::Records(records));
        let expected = pb::subscribe_reply::Reply::Delivery(pb::Delivery { payload, ..head() });
        assert_eq!(decoded(&reply).reply, Some(expected));
    }

    #[test]
    fn batches_stand_one_behind_the_other() {
        let payload = Payload::Batches(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        let reply = Reply::Delivery(Delivery { head: head(), payload });
        let payload = Some(pb::delivery::Payload::Batches("abc".into()));
        let expected = pb::subscribe_reply::Reply::Delivery(pb::Delivery { payload, ..head() });
        assert_eq!(decoded(&reply).reply, Some(expected));
        let failure = pb::SubscribeFailure { topic: "t".to_owned(), ..Default::default() };
        let expected = pb::subscribe_reply::Reply::Failure(failure.clone());
        assert_eq!(decoded(&Reply::Failure(failure)).reply, Some(expected));
    }
}
