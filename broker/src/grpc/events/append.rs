//! AppendIf: events for one stream, under a condition on where it ends.

use floodmark_proto::batch::event_headers::{APPEND_ID, EXPECTED_OFFSET};
use floodmark_proto::ids::Offset;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use tonic::Code;

use super::{index_of, partition_at};
use crate::grpc::call::Call;
use crate::grpc::data::wire::{WireError, each_record};
use crate::grpc::forward;
use crate::grpc::refused::Refused;
use crate::ops::events::{self, AppendEvents, EventsError, Expected, NewEvent};
use crate::ops::produce::Acks;
use crate::ops::topics::TopicKey;

/// Events of one append.
const EVENTS_MAX: usize = 10_000;

/// Headers that mean something to the broker where a producer sends them. An event that was read has those with which it came; of an append
/// the request says what it expects and by which id it is known, so they are left out.
const OWN_HEADERS: [&[u8]; 2] = [EXPECTED_OFFSET, APPEND_ID];

/// The tag of each record in a request.
const RECORD_TAG: u32 = 5;

/// `floodmark.v1.AppendIfRequest`, with its records as they came: as messages they could be many times larger.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AppendIfRequest {
    head: Head,
    /// Fields with their tags.
    records: Vec<u8>,
}

/// All but the records.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(int32, optional, tag = "2")]
    partition: Option<i32>,
    #[prost(bytes = "bytes", tag = "3")]
    key: Bytes,
    #[prost(message, optional, tag = "4")]
    expected: Option<pb::Expected>,
    #[prost(bytes = "bytes", tag = "6")]
    append_id: Bytes,
    #[prost(uint32, tag = "7")]
    timeout_ms: u32,
}

impl Message for AppendIfRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.head.encode_raw(buf);
        buf.put_slice(&self.records);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != RECORD_TAG {
            return self.head.merge_field(tag, wire_type, buf, ctx);
        }
        let mut record = Bytes::new();
        encoding::bytes::merge(wire_type, &mut record, buf, ctx)?;
        encoding::bytes::encode(RECORD_TAG, &record, &mut self.records);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.head.encoded_len() + self.records.len()
    }

    fn clear(&mut self) {
        *self = AppendIfRequest::default();
    }
}

pub(super) async fn append_if(call: &Call, request: AppendIfRequest) -> Result<pb::AppendIfReply, Refused> {
    let index = index_of(call, &request.head.topic, request.head.partition, &request.head.key)?;
    if let Some(broker) = forward::other_leader(call, &request.head.topic, index) {
        return forward::unary(call, broker, call.api, request).await;
    }
    let AppendIfRequest { head: request, records } = request;
    let partition = partition_at(call, &request.topic, index)?;
    let append_id = match request.append_id.len() {
        0 => None,
        _ => Some(<[u8; 16]>::try_from(&request.append_id[..]).map_err(|_| {
            Refused::invalid(format!("an append id has 16 bytes, not {}", request.append_id.len()))
        })?),
    };
    let append = AppendEvents {
        expected: expected(request.expected.as_ref())?,
        events: events(&records, &request.key)?,
        stream: request.key,
        append_id,
        producer: None,
        acks: Acks::All,
        within: call.within(request.timeout_ms),
    };
    let appended = events::append_if(partition, append, call.shared.clock.now_ms()).await;
    let told = |error| call.hint(refused_of(error), TopicKey::Name(&request.topic), index);
    let appended = appended.map_err(told)?;
    Ok(pb::AppendIfReply {
        partition: index,
        base_offset: appended.base_offset.0,
        last_offset: appended.last_offset.0,
        durability: pb::Durability::SyncedInSyncSet.into(),
        is_repeat: appended.is_duplicate,
    })
}

fn expected(expected: Option<&pb::Expected>) -> Result<Expected, Refused> {
    use pb::expected::{Last, Special};
    match expected.and_then(|expected| expected.last.as_ref()) {
        Some(Last::Offset(offset)) if *offset >= 0 => Ok(Expected::Exactly(Offset(*offset))),
        Some(Last::Special(special)) => match Special::try_from(*special) {
            Ok(Special::Any) => Ok(Expected::Any),
            Ok(Special::NoStream) => Ok(Expected::NoStream),
            Ok(Special::StreamExists) => Ok(Expected::StreamExists),
            Ok(Special::Unspecified) | Err(_) => Err(no_expectation()),
        },
        Some(Last::Offset(_)) | None => Err(no_expectation()),
    }
}

fn no_expectation() -> Refused {
    Refused::invalid(
        "an append says what it expects: an offset, no stream, any stream that exists, or anything",
    )
}

fn events(records: &[u8], stream: &[u8]) -> Result<Vec<NewEvent>, Refused> {
    let mut events = Vec::new();
    let read = each_record(records, RECORD_TAG, |place, record, headers| {
        if place >= EVENTS_MAX {
            return Err(NotTaken::Records);
        }
        if record.key.is_some_and(|key| key != stream) {
            return Err(NotTaken::Key(place));
        }
        let owned = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let kept = headers.iter().filter(|(key, _)| !OWN_HEADERS.contains(key));
        events.push(NewEvent {
            value: record.value.map(owned),
            headers: kept.map(|(key, value)| (owned(key), value.map(owned))).collect(),
            timestamp: record.timestamp_ms,
        });
        Ok(())
    });
    match read {
        Ok(()) => Ok(events),
        Err(NotTaken::Records) => {
            Err(Refused::invalid(format!("one append has {EVENTS_MAX} records at most")))
        }
        Err(NotTaken::Key(place)) => Err(Refused::invalid(format!(
            "record {place} has another key than the stream; keys of records are left out here"
        ))),
        Err(NotTaken::Wire(e)) => Err(Refused::new(ErrorCode::InvalidRecord, e.to_string())),
    }
}

/// Why records are not taken.
enum NotTaken {
    Records,
    /// Of the record at this place.
    Key(usize),
    Wire(WireError),
}

impl From<WireError> for NotTaken {
    fn from(error: WireError) -> NotTaken {
        NotTaken::Wire(error)
    }
}

/// A conflict has the number that Kafka's clients get for it; who lost is told where the stream ends.
fn refused_of(error: EventsError) -> Refused {
    match error {
        EventsError::Refused(refused) => refused.into(),
        EventsError::Conflict { actual, .. } => {
            let message = match actual {
                Some(last) => {
                    format!("the stream does not end as expected: its last record is at offset {last}")
                }
                None => "the stream does not end as expected: it has no record".to_owned(),
            };
            let refused = Refused::new(ErrorCode::InvalidRecord, message);
            let refused = Refused { reason: "STREAM_CONFLICT", status: Code::FailedPrecondition, ..refused };
            match actual {
                Some(last) => refused.with("last_offset", last.0),
                None => refused,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_public_one() {
        let public = pb::AppendIfRequest {
            topic: "t".to_owned(),
            partition: Some(3),
            key: "k".into(),
            expected: Some(pb::Expected { last: Some(pb::expected::Last::Offset(7)) }),
            records: vec![
                pb::Record { value: Some("a".into()), ..Default::default() },
                pb::Record { timestamp_ms: Some(5), ..Default::default() },
            ],
            append_id: "id".into(),
            timeout_ms: 9,
        };
        let ours = AppendIfRequest::decode(&public.encode_to_vec()[..]).unwrap();
        let events = events(&ours.records, b"k").unwrap();
        assert_eq!((events.len(), events[0].value.as_deref()), (2, Some(&b"a"[..])));
        assert_eq!((&events[1].value, events[1].timestamp), (&None, Some(5)));
        assert_eq!(pb::AppendIfRequest::decode(&ours.encode_to_vec()[..]).unwrap(), public);
    }
}
