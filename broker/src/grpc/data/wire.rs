//! A request whose records stay as they came, and a reader of them: a message of many tiny records must not become many times its size,
//! and no record costs memory of its own. Pure.

use prost::bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};

const WRONG_TYPE: &str = "a field has another type than it should";
/// Headers of one record.
const HEADERS_MAX: usize = 10_000;

/// `floodmark.v1.ProduceRequest`, with the bytes of `Records` for the records.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProduceRequest {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) topic: String,
    #[prost(int32, optional, tag = "3")]
    pub(crate) partition: Option<i32>,
    #[prost(int32, tag = "4")]
    pub(crate) acks: i32,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(crate) records: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) batch: Option<Bytes>,
    #[prost(uint32, tag = "7")]
    pub(crate) timeout_ms: u32,
    #[prost(bool, tag = "8")]
    pub(crate) are_copies: bool,
}

/// One record of `Records`, borrowed from it. An offset means nothing in what a producer sends.
#[derive(Debug, Default)]
pub(crate) struct WireRecord<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp_ms: Option<i64>,
}

/// A header's key and value.
pub(crate) type WireHeader<'a> = (&'a [u8], Option<&'a [u8]>);

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("record {place}: {reason}")]
    Record { place: usize, reason: &'static str },
    #[error("the records are no message: {0}")]
    Malformed(&'static str),
}

/// The tag of each record in `Records`.
pub(crate) const RECORD_TAG: u32 = 1;

/// Calls `each` with every record among the fields of a message that has them under `tag`, and its headers in their order.
pub(crate) fn each_record<'a, E: From<WireError>>(
    records: &'a [u8],
    tag: u32,
    mut each: impl FnMut(usize, &WireRecord<'a>, &[WireHeader<'a>]) -> Result<(), E>,
) -> Result<(), E> {
    let mut headers = Vec::new();
    let mut place = 0;
    for field in Fields(records) {
        let (found, value) = field.map_err(WireError::Malformed)?;
        if found != tag {
            continue;
        }
        let Value::Bytes(record) = value else { return Err(WireError::Malformed(WRONG_TYPE).into()) };
        headers.clear();
        let record =
            read_record(record, &mut headers).map_err(|reason| WireError::Record { place, reason })?;
        each(place, &record, &headers)?;
        place += 1;
    }
    Ok(())
}

fn read_record<'a>(
    bytes: &'a [u8],
    headers: &mut Vec<WireHeader<'a>>,
) -> Result<WireRecord<'a>, &'static str> {
    let mut record = WireRecord::default();
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(key)) => record.key = Some(key),
            (2, Value::Bytes(value)) => record.value = Some(value),
            (3, Value::Bytes(header)) if headers.len() < HEADERS_MAX => headers.push(read_header(header)?),
            (3, Value::Bytes(_)) => return Err("it has more than 10000 headers"),
            (4, Value::Varint(timestamp)) => record.timestamp_ms = Some(timestamp as i64),
            (5, Value::Varint(_)) => {}
            (1..=5, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    Ok(record)
}

fn read_header(bytes: &[u8]) -> Result<WireHeader<'_>, &'static str> {
    let mut header: WireHeader<'_> = (&[], None);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(key)) => header.0 = key,
            (2, Value::Bytes(value)) => header.1 = Some(value),
            (1 | 2, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    std::str::from_utf8(header.0).map_err(|_| "the key of a header is not UTF-8")?;
    Ok(header)
}

/// The fields of a message, one after the other.
pub(in crate::grpc) struct Fields<'a>(&'a [u8]);

/// What one of them is.
pub(in crate::grpc) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field here has.
    Other,
}

impl<'a> Fields<'a> {
    pub(in crate::grpc) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), &'static str> {
        let (tag, wire_type) = decode_key(&mut self.0).map_err(|_| "a field has no valid key")?;
        let value = match wire_type {
            WireType::Varint => {
                Value::Varint(decode_varint(&mut self.0).map_err(|_| "a number is cut short")?)
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).map_err(|_| "a length is cut short")?;
                Value::Bytes(self.split(length)?)
            }
            WireType::ThirtyTwoBit => self.split(4).map(|_| Value::Other)?,
            WireType::SixtyFourBit => self.split(8).map(|_| Value::Other)?,
            WireType::StartGroup | WireType::EndGroup => return Err("groups are not part of it"),
        };
        Ok((tag, value))
    }

    fn split(&mut self, length: u64) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| "a length passes the message")?;
        let (field, rest) = self.0.split_at_checked(length).ok_or("a length passes the message")?;
        self.0 = rest;
        Ok(field)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::pb::v1 as pb;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn records() -> impl Strategy<Value = pb::Records> {
        let bytes = || proptest::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from));
        let header = (".{0,5}", bytes()).prop_map(|(key, value)| pb::Header { key, value });
        let record = (bytes(), bytes(), prop::collection::vec(header, 0..4), any::<Option<i64>>()).prop_map(
            |(key, value, headers, timestamp_ms)| pb::Record {
                key,
                value,
                headers,
                timestamp_ms,
                offset: None,
            },
        );
        prop::collection::vec(record, 0..6).prop_map(|records| pb::Records { records })
    }

    fn read(bytes: &[u8]) -> Result<pb::Records, WireError> {
        let mut read = pb::Records::default();
        each_record(bytes, RECORD_TAG, |_, record, headers| {
            let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
            let header = |(key, value): &WireHeader<'_>| pb::Header {
                key: String::from_utf8(key.to_vec()).unwrap(),
                value: owned(*value),
            };
            read.records.push(pb::Record {
                key: owned(record.key),
                value: owned(record.value),
                headers: headers.iter().map(header).collect(),
                timestamp_ms: record.timestamp_ms,
                offset: None,
            });
            Ok::<(), WireError>(())
        })?;
        Ok(read)
    }

    proptest! {
        #[test]
        fn records_are_read_as_the_generated_code_reads_them(records in records()) {
            prop_assert_eq!(read(&records.encode_to_vec()).unwrap(), records);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let ours = read(&bytes).is_ok();
            // Ours knows no groups; nothing else may be read that the generated code refuses.
            if ours {
                prop_assert!(pb::Records::decode(&bytes[..]).is_ok());
            }
        }
    }

    #[test]
    fn a_request_is_the_public_one() {
        let public = pb::ProduceRequest {
            id: 7,
            topic: "t".to_owned(),
            partition: Some(0),
            acks: 1,
            timeout_ms: 9,
            are_copies: true,
            payload: Some(pb::produce_request::Payload::Records(pb::Records {
                records: vec![pb::Record { value: Some("v".into()), ..Default::default() }],
            })),
        };
        let ours = ProduceRequest::decode(&public.encode_to_vec()[..]).unwrap();
        assert_eq!(
            (ours.id, &*ours.topic, ours.partition, ours.acks, ours.timeout_ms, ours.are_copies),
            (7, "t", Some(0), 1, 9, true)
        );
        assert_eq!(read(&ours.records.unwrap()).unwrap().records[0].value.as_deref(), Some(&b"v"[..]));
        let batch = pb::ProduceRequest {
            payload: Some(pb::produce_request::Payload::Batch("b".into())),
            ..Default::default()
        };
        assert_eq!(
            ProduceRequest::decode(&batch.encode_to_vec()[..]).unwrap().batch.as_deref(),
            Some(&b"b"[..])
        );
    }
}
