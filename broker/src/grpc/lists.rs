//! How long the lists of a request may be, counted in its bytes before anything is made of them: two million empty messages come in 4 MiB,
//! and take a hundred times that. Pure; which fields are lists is generated from the .proto files by `build/lists.rs`.

use std::fmt::Display;

use super::data::ProduceRequest;
use super::data::wire::{Fields, Value};
use super::events::AppendIfRequest;
use super::limits::{ENTRIES_MAX, LIST_ENTRIES_MAX};
use super::refused::Refused;

/// A field of a request that may stand there many times, or has such fields inside.
pub(super) struct Field {
    number: u32,
    /// With the names of those it is inside of.
    name: &'static str,
    list: List,
    inside: &'static [Field],
}

/// How a list is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    /// It is none.
    No,
    /// Each entry by itself.
    Apart,
    /// Numbers, in one piece or by themselves.
    Packed,
}

/// What a method takes.
pub(super) trait Listed {
    /// Its lists.
    const FIELDS: &'static [Field];
}

mod generated {
    use floodmark_proto::pb::v1 as pb;

    use super::{Field, List, Listed};

    include!(concat!(env!("OUT_DIR"), "/server/lists.rs"));
}

/// Its records stay bytes until they are looked at, one by one.
impl Listed for ProduceRequest {
    const FIELDS: &'static [Field] = &[];
}

/// Likewise.
impl Listed for AppendIfRequest {
    const FIELDS: &'static [Field] = &[];
}

/// Fails for a request one of whose lists is too long, or all of them together.
pub(super) fn check(message: &[u8], fields: &'static [Field]) -> Result<(), Refused> {
    if fields.is_empty() { Ok(()) } else { count(message, fields, &mut 0) }
}

fn count(message: &[u8], fields: &'static [Field], all: &mut usize) -> Result<(), Refused> {
    let mut counts = vec![0; fields.len()];
    for found in Fields::of(message) {
        let (number, value) = found.map_err(|reason| no_message(&reason))?;
        let Some(place) = fields.iter().position(|field| field.number == number) else { continue };
        let field = &fields[place];
        if field.list != List::No {
            let more = match value {
                // The last byte of each number alone has no high bit.
                Value::Bytes(numbers) if field.list == List::Packed => {
                    numbers.iter().filter(|byte| **byte < 0x80).count()
                }
                _ => 1,
            };
            counts[place] += more;
            *all += more;
            if counts[place] > LIST_ENTRIES_MAX {
                return Err(too_many(field.name, LIST_ENTRIES_MAX));
            }
            if *all > ENTRIES_MAX {
                return Err(too_many("all lists together", ENTRIES_MAX));
            }
        }
        if let Value::Bytes(inside) = value
            && !field.inside.is_empty()
        {
            count(inside, field.inside, all)?;
        }
    }
    Ok(())
}

/// What is told of bytes that are no message of the call.
pub(super) fn no_message(reason: &dyn Display) -> Refused {
    Refused::invalid(format!("what was sent is no message of this call: {reason}"))
}

fn too_many(what: &str, max: usize) -> Refused {
    let message = format!("{what}: more than the {max} entries that one request may have; send several");
    let refused = Refused::invalid(message).with("field", what).with("entries_max", max);
    Refused { reason: "TOO_MANY_ENTRIES", ..refused }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::pb::v1 as pb;
    use prost::Message;

    use super::*;

    fn checked<R: Message + Listed>(request: &R) -> Result<(), String> {
        check(&request.encode_to_vec(), R::FIELDS).map_err(|refused| {
            assert_eq!((refused.reason, refused.status), ("TOO_MANY_ENTRIES", tonic::Code::InvalidArgument));
            refused.facts[0].1.clone()
        })
    }

    fn targets(count: usize, replicas: usize) -> pb::MovePartitionsRequest {
        let target = pb::Target { topic: "t".to_owned(), partition: 0, replicas: vec![300; replicas] };
        let targets = vec![target; count];
        let goal = pb::move_partitions_request::Goal::To(pb::Targets { targets });
        pb::MovePartitionsRequest { goal: Some(goal), ..Default::default() }
    }

    #[test]
    fn a_list_has_so_many_entries_and_no_more() {
        let topics =
            |count| pb::DescribeTopicsRequest { topics: vec![String::new(); count], ..Default::default() };
        assert_eq!(checked(&topics(LIST_ENTRIES_MAX)), Ok(()));
        assert_eq!(checked(&topics(LIST_ENTRIES_MAX + 1)), Err("topics".to_owned()));
        let voters = |count| pb::ChangeVotersRequest { voters: vec![300; count], ..Default::default() };
        assert_eq!(checked(&voters(LIST_ENTRIES_MAX)), Ok(()));
        assert_eq!(checked(&voters(LIST_ENTRIES_MAX + 1)), Err("voters".to_owned()));
    }

    #[test]
    fn lists_inside_others_count_by_themselves_and_all_together() {
        assert_eq!(checked(&targets(10_000, 3)), Ok(()));
        assert_eq!(checked(&targets(1, LIST_ENTRIES_MAX + 1)), Err("to.targets.replicas".to_owned()));
        assert_eq!(checked(&targets(LIST_ENTRIES_MAX + 1, 0)), Err("to.targets".to_owned()));
        assert_eq!(checked(&targets(10_000, 5)), Err("all lists together".to_owned()));
        // A message that stands there twice is one with the lists of both.
        let twice = targets(9_000, 3).encode_to_vec().repeat(2);
        assert!(check(&twice, pb::MovePartitionsRequest::FIELDS).is_err());
        let settings = (0..=LIST_ENTRIES_MAX).map(|n| (n.to_string(), String::new())).collect();
        let topic = pb::NewTopic { settings, ..Default::default() };
        let create = pb::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        assert_eq!(checked(&create), Err("topics.settings".to_owned()));
        let part = pb::SubscribePart::default();
        let change = pb::SubscribeChange { add: vec![part; LIST_ENTRIES_MAX + 1], ..Default::default() };
        let request = Some(pb::subscribe_request::Request::Change(change));
        assert_eq!(checked(&pb::SubscribeRequest { request }), Err("change.add".to_owned()));
    }

    #[test]
    fn every_request_with_a_list_is_in_the_table() {
        for (name, fields) in [
            ("CommitOffsets", pb::CommitOffsetsRequest::FIELDS),
            ("FetchOffsets", pb::FetchOffsetsRequest::FIELDS),
            ("DeleteOffsets", pb::DeleteOffsetsRequest::FIELDS),
            ("Join", pb::JoinRequest::FIELDS),
            ("Sync", pb::SyncRequest::FIELDS),
            ("DeleteRecords", pb::DeleteRecordsRequest::FIELDS),
            ("DescribeProducers", pb::DescribeProducersRequest::FIELDS),
            ("AlterConfigs", pb::AlterConfigsRequest::FIELDS),
            ("ElectLeaders", pb::ElectLeadersRequest::FIELDS),
            ("CancelMoves", pb::CancelMovesRequest::FIELDS),
        ] {
            assert!(fields.iter().any(|field| field.list != List::No), "{name}");
        }
        assert!(pb::DescribeGroupRequest::FIELDS.is_empty());
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_and_never_passed_on_uncounted() {
        let fields = pb::DescribeTopicsRequest::FIELDS;
        // A group, behind which nothing would be counted, and a length that passes the end.
        for bytes in [&[0x0b, 0x0c][..], &[0x0a, 5, 1]] {
            assert_eq!(check(bytes, fields).unwrap_err().reason, "INVALID_REQUEST");
        }
    }
}
