//! Headers, frames and the limits of the decoder, one by one; the messages are held against other codecs in `tests/`.

use bytes::{Bytes, BytesMut};

use super::header::decode_response_header;
use super::messages::api_versions::ApiVersionsRequest;
use super::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use super::messages::describe_topic_partitions::{Cursor, DescribeTopicPartitionsRequest};
use super::messages::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use super::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use super::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use super::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use super::*;

/// The body alone, in one piece.
fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version);
    encoder.finish().unwrap().concat()
}

fn decoded<'a, M: Message<'a>>(bytes: &'a [u8], version: i16) -> Result<M, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let message = M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(message)
}

fn reason<'a, M: Message<'a> + std::fmt::Debug>(
    bytes: &'a [u8],
    version: i16,
) -> (&'static str, usize, DecodeReason) {
    let error = decoded::<M>(bytes, version).unwrap_err();
    (error.field, error.position, error.reason)
}

#[test]
fn api_keys_are_found_by_number() {
    for &key in ApiKey::ALL {
        assert_eq!(ApiKey::from_code(key.code()), Some(key));
        assert!(key.versions().start() <= key.versions().end());
    }
    assert_eq!(ApiKey::from_code(7), None);
    assert_eq!(ApiKey::from_code(-1), None);
    assert_eq!((ApiKey::Fetch.code(), ApiKey::Fetch.name()), (1, "Fetch"));
    assert_eq!((ApiKey::Produce.versions(), ApiKey::Produce.advertised()), (3..=13, 0..=13));
    assert_eq!(ApiKey::Fetch.versions(), ApiKey::Fetch.advertised());
    assert_eq!(ApiKey::OffsetDelete.first_flexible(), None);
}

#[test]
fn error_codes_are_found_by_number() {
    for &error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(error.code()), Some(error));
    }
    assert_eq!(ErrorCode::ALL.len(), 135);
    assert_eq!(ErrorCode::from_code(134), None);
    assert_eq!(ErrorCode::NotLeaderOrFollower.to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
    assert!(ErrorCode::NotLeaderOrFollower.is_retriable() && !ErrorCode::InvalidRequest.is_retriable());
}

#[test]
fn frames_are_cut_off_a_stream() {
    let mut stream = BytesMut::from(&[0, 0, 0, 2, 8, 9, 0, 0, 0, 0, 0, 0][..]);
    assert_eq!(frame::split(&mut stream, 2).unwrap().unwrap(), &[8, 9][..]);
    assert_eq!(frame::split(&mut stream, 2).unwrap().unwrap(), &[][..]);
    assert_eq!(frame::split(&mut stream, 2).unwrap(), None);
    stream.extend_from_slice(&[0, 2, 1]);
    assert_eq!(frame::announced(&stream, 2), Ok(Some(2)));
    assert_eq!(frame::split(&mut stream, 2).unwrap(), None);
    stream.extend_from_slice(&[1]);
    assert_eq!(frame::split(&mut stream, 2).unwrap().unwrap(), &[1, 1][..]);
    for (len, prefix) in [(3, [0, 0, 0, 3]), (-1, [0xff; 4]), (i32::MAX, [0x7f, 0xff, 0xff, 0xff])] {
        assert_eq!(frame::announced(&prefix, 2), Err(frame::FrameError { len, max: 2 }));
    }
}

#[test]
fn a_list_that_grows_past_the_cap_is_left_and_costs_no_more() {
    let resources = |count| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource { resource_name: "0123456789", ..Default::default() }; count],
        ..Default::default()
    };
    let mut encoder = Encoder::limited(1000);
    let mut attempt = |count| {
        resources(count).encode(&mut encoder, 1);
        encoder.finish().map(|pieces| pieces.concat().len())
    };
    let a_resource = attempt(2).unwrap() - attempt(1).unwrap();
    let count = 1000 / a_resource;
    assert!(attempt(count).is_ok_and(|bytes| bytes <= 1000));
    assert_eq!(attempt(count * 1000), Err(EncodeError::Cap(1000)));
    // What was left does not count for the next.
    assert!(attempt(count).is_ok());
}

#[test]
fn request_headers_of_all_versions() {
    let plain = [0, 12, 0, 3, 0, 0, 0, 5, 0, 1, b'c'];
    let flexible = [&[0, 12, 0, 4], &plain[4..], &[0]].concat();
    // A tagged field that nobody knows is passed over.
    let tagged = [&[0, 12, 0, 4], &plain[4..], &[1, 9, 2, 0xaa, 0xbb]].concat();
    for (bytes, api_version) in [(&plain[..], 3), (&flexible, 4), (&tagged, 4)] {
        let mut decoder = Decoder::new(bytes);
        let header = RequestHeader::decode(&mut decoder).unwrap();
        decoder.finish().unwrap();
        let expected = RequestHeader { api_key: 12, api_version, correlation_id: 5, client_id: Some("c") };
        assert_eq!(header, expected);
    }
    // No client id at all, and a null one.
    let shutdown = [0, 7, 0, 0, 0, 0, 0, 5];
    let null = [0, 99, 0, 1, 0, 0, 0, 5, 0xff, 0xff];
    for (bytes, api_key) in [(&shutdown[..], 7), (&null[..], 99)] {
        let mut decoder = Decoder::new(bytes);
        let header = RequestHeader::decode(&mut decoder).unwrap();
        decoder.finish().unwrap();
        assert_eq!((header.api_key, header.correlation_id, header.client_id), (api_key, 5, None));
    }
}

#[test]
fn request_headers_are_read_as_they_are_written() {
    for api_key in ApiKey::ALL.iter().map(|key| key.code()).chain([7, 99]) {
        for api_version in 0..20 {
            let client_id = (api_key != 7 || api_version != 0).then_some("client");
            let header = RequestHeader { api_key, api_version, correlation_id: -2, client_id };
            let mut encoder = Encoder::new();
            header.start_request(&mut encoder);
            let chunks = encoder.finish().unwrap().concat();
            let mut decoder = Decoder::new(&chunks[4..]);
            assert_eq!(RequestHeader::decode(&mut decoder), Ok(header));
            decoder.finish().unwrap();
        }
    }
}

#[test]
fn an_api_versions_request_from_the_future_has_a_header() {
    let mut encoder = Encoder::new();
    let header = RequestHeader { api_key: 18, api_version: 99, correlation_id: 3, client_id: Some("x") };
    header.start_request(&mut encoder);
    let chunks = encoder.finish().unwrap().concat();
    let mut decoder = Decoder::new(&chunks[4..]);
    assert_eq!(RequestHeader::decode(&mut decoder), Ok(header));
    let error = ApiVersionsRequest::decode(&mut decoder, 99).unwrap_err();
    assert_eq!(error.reason, DecodeReason::Version(99));
}

#[test]
fn response_headers_have_tags_but_for_api_versions() {
    for (key, version, len) in [
        (ApiKey::Heartbeat, 3, 4),
        (ApiKey::Heartbeat, 4, 5),
        (ApiKey::ApiVersions, 4, 4),
        (ApiKey::DescribeCluster, 0, 5),
    ] {
        let mut encoder = Encoder::new();
        start_response(&mut encoder, key, version, 77);
        let chunks = encoder.finish().unwrap().concat();
        assert_eq!(chunks[..4], i32::to_be_bytes(len));
        let mut decoder = Decoder::new(&chunks[4..]);
        assert_eq!(decode_response_header(&mut decoder, key, version), Ok(77));
        decoder.finish().unwrap();
    }
}

#[test]
fn records_of_a_request_are_found_in_the_frame() {
    let partition = PartitionProduceData { index: 3, records: Some(b"batch") };
    let topic = TopicProduceData { name: "t", partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { topic_data: vec![topic], acks: -1, ..Default::default() };
    let bytes = encoded(&request, 9);
    let mut decoder = Decoder::new(&bytes);
    let again = ProduceRequest::decode(&mut decoder, 9).unwrap();
    assert_eq!(again, request);
    let records = again.topic_data[0].partition_data[0].records.unwrap();
    let range = decoder.range_of(records).unwrap();
    assert_eq!((&bytes[range.clone()], range.end), (&b"batch"[..], bytes.len() - 3));
    assert_eq!(decoder.range_of(&[1, 2, 3]), None);
}

#[test]
fn records_of_a_response_are_not_copied() {
    let batches = [Bytes::from(vec![1; 100]), Bytes::new(), Bytes::from(vec![2; 50])];
    let partition = |records| PartitionData { records, ..Default::default() };
    let partitions = vec![
        partition(Some(batches.to_vec())),
        partition(None),
        partition(Some(vec![])),
        partition(Some(batches[2..].to_vec())),
    ];
    let responses = vec![FetchableTopicResponse { topic: "t", partitions, ..Default::default() }];
    let response = FetchResponse { responses, ..Default::default() };
    let mut encoder = Encoder::new();
    for version in [4, 12] {
        start_response(&mut encoder, ApiKey::Fetch, version, 1);
        response.encode(&mut encoder, version);
        let chunks = encoder.finish().unwrap();
        let pieces = chunks.iter().map(|chunk| chunk.as_ptr()).collect::<Vec<_>>();
        assert_eq!(pieces.iter().filter(|&&at| at == batches[2].as_ptr()).count(), 2);
        assert_eq!(pieces.iter().filter(|&&at| at == batches[0].as_ptr()).count(), 1);
        let whole = chunks.concat();
        assert_eq!(whole[..4], i32::to_be_bytes(whole.len() as i32 - 4));
        let mut decoder = Decoder::new(&whole[4..]);
        assert_eq!(decode_response_header(&mut decoder, ApiKey::Fetch, version), Ok(1));
        let again = FetchResponse::decode(&mut decoder, version).unwrap();
        decoder.finish().unwrap();
        let records = again.responses[0].partitions.iter().map(|p| p.records.as_ref().map(|r| r.concat()));
        let whole = [vec![1; 100], vec![2; 50]].concat();
        assert_eq!(records.collect::<Vec<_>>(), [Some(whole), None, Some(vec![]), Some(vec![2; 50])]);
    }
}

#[test]
fn tagged_fields_are_left_out_at_their_default_and_have_their_length() {
    let plain = encoded(&FetchRequest::default(), 12);
    let cluster = "c".repeat(200);
    let request = FetchRequest { cluster_id: Some(&cluster), ..Default::default() };
    let tagged = encoded(&request, 12);
    // Number, two bytes of length, then a compact string with its own two bytes of length.
    let tag = [&[1, 0, 0xca, 0x01, 0xc9, 0x01], cluster.as_bytes()].concat();
    assert_eq!(tagged, [&plain[..plain.len() - 1], &tag].concat());
    assert_eq!(decoded(&tagged, 12), Ok(request));
}

#[test]
fn unknown_tags_are_passed_over_and_hostile_ones_refused() {
    let body = encoded(&HeartbeatResponse::default(), 4);
    let body = &body[..body.len() - 1];
    let with = |tags: &[u8]| [body, tags].concat();
    for tags in [&[0][..], &[2, 5, 0, 6, 1, 9], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]] {
        assert_eq!(decoded(&with(tags), 4), Ok(HeartbeatResponse::default()));
    }
    let refused = |tags: &[u8]| reason::<HeartbeatResponse>(&with(tags), 4);
    let at = body.len();
    let field = "HeartbeatResponse";
    assert_eq!(refused(&[]), (field, at, DecodeReason::Truncated { need_bytes: 1, have_bytes: 0 }));
    assert_eq!(refused(&[2, 5, 0, 5, 0]), (field, at + 4, DecodeReason::TagOrder(5)));
    assert_eq!(refused(&[2, 5, 0, 4, 0]), (field, at + 4, DecodeReason::TagOrder(4)));
    assert_eq!(
        refused(&[1, 5, 1]),
        (field, at + 3, DecodeReason::Truncated { need_bytes: 1, have_bytes: 0 })
    );
    let count = |count, have_bytes| DecodeReason::Count { count, have_bytes };
    assert_eq!(refused(&[3, 5, 0, 6, 0]), (field, at + 1, count(3, 4)));
    assert_eq!(refused(&[0xff, 0xff, 0xff, 0xff, 0x0f]), (field, at + 5, count(u32::MAX as usize, 0)));
    assert_eq!(refused(&[0, 7]), ("end of message", at + 1, DecodeReason::Trailing(1)));
}

#[test]
fn a_tagged_field_ends_where_it_says() {
    let state = |len: u8, inside: &[u8]| {
        let plain = encoded(&FetchRequest::default(), 15);
        [&plain[..plain.len() - 1], &[1, 1, len], inside].concat()
    };
    let inside = [&[0, 0, 0, 1], &[0; 8][..], &[0]].concat();
    let request = decoded::<FetchRequest<'_>>(&state(13, &inside), 15).map(|r| r.replica_state.replica_id);
    assert_eq!(request, Ok(1));
    let longer = state(14, &[&inside[..], &[7]].concat());
    let (field, _, why) = reason::<FetchRequest<'_>>(&longer, 15);
    assert_eq!((field, why), ("FetchRequest", DecodeReason::TagLength(1)));
    // What it lacks is not taken from the bytes behind it.
    let (field, _, why) = reason::<FetchRequest<'_>>(&state(12, &inside), 15);
    assert_eq!((field, why), ("ReplicaState", DecodeReason::Truncated { need_bytes: 1, have_bytes: 0 }));
    // A version that has no such tag passes over it.
    let older = state(3, &[1, 2, 3]);
    let older = [&older[..16], &[0; 4][..], &older[16..]].concat();
    assert!(decoded::<FetchRequest<'_>>(&older, 14).is_ok());
}

#[test]
fn lengths_and_counts_are_held_against_the_bytes_that_remain() {
    let refused = reason::<MetadataRequest<'_>>;
    let topics = "MetadataRequest.topics";
    let count = |count, have_bytes| DecodeReason::Count { count, have_bytes };
    assert_eq!(refused(&[0x7f, 0xff, 0xff, 0xff, 0], 1), (topics, 4, count(0x7fff_ffff, 1)));
    assert_eq!(refused(&[0, 0, 0, 2, 0, 0, 0], 1), (topics, 4, count(2, 3)));
    assert_eq!(refused(&[0xff, 0xff, 0xff, 0xfe], 1), (topics, 4, DecodeReason::Length(-2)));
    assert_eq!(refused(&[0xff; 4], 0), (topics, 4, DecodeReason::Null));
    assert_eq!(decoded(&[0xff; 4], 1), Ok(MetadataRequest { topics: None, ..Default::default() }));
    let name = "MetadataRequestTopic.name";
    let truncated = |need_bytes, have_bytes| DecodeReason::Truncated { need_bytes, have_bytes };
    assert_eq!(refused(&[0, 0, 0, 1, 0, 9, 1], 1), (name, 6, truncated(9, 1)));
    assert_eq!(refused(&[0, 0, 0, 1, 0xff, 0xff], 1), (name, 6, DecodeReason::Null));
    assert_eq!(refused(&[0, 0, 0, 1, 0, 1, 0xff], 1), (name, 6, DecodeReason::Utf8));
    assert_eq!(refused(&[0x80, 0x80, 0x80, 0x80, 0x10], 9), (topics, 0, DecodeReason::Varint));
    assert_eq!(refused(&[0x80, 0x80, 0x80, 0x80, 0x80, 0], 9), (topics, 0, DecodeReason::Varint));
    assert_eq!(refused(&[0x80, 0x80], 9), (topics, 0, truncated(3, 2)));
    // Kafka's limit of strings holds for compact ones too.
    let long = [&[2, 0x81, 0x80, 0x02], "x".repeat(0x8000).as_bytes()].concat();
    assert_eq!(refused(&long, 9), (name, 4, DecodeReason::Length(0x8000)));
}

#[test]
fn memory_is_bounded_by_the_length_of_the_frame() {
    // Topics with empty names: two bytes each, and sixteen times that in memory.
    for count in 4000..4200 {
        let mut encoder = Encoder::new();
        encoder.varint(count + 1);
        let head = encoder.finish().unwrap().concat();
        let bytes = [head, [1, 0].repeat(count as usize), vec![1, 1, 1, 0]].concat();
        let need_bytes = count as usize * size_of::<MetadataRequestTopic<'_>>();
        let have_bytes = 8 * bytes.len() + 64 * 1024;
        match decoded::<MetadataRequest<'_>>(&bytes, 9) {
            Ok(request) => {
                assert_eq!(request.topics.map(|topics| topics.len()), Some(count as usize));
                assert!(need_bytes <= have_bytes);
            }
            Err(error) => {
                assert_eq!(error.field, "MetadataRequest.topics");
                assert_eq!(error.reason, DecodeReason::Memory { need_bytes, have_bytes });
                assert!(need_bytes > have_bytes);
            }
        }
    }
}

/// What takes the most memory for its length of all that a client may ask in earnest.
#[test]
fn many_short_names_pass_the_bound_on_memory() {
    let names: Vec<String> = (0..20_000).map(|n| format!("{n:03x}")).collect();
    let topics = names.iter().map(|name| MetadataRequestTopic { name: Some(name), ..Default::default() });
    let request = MetadataRequest { topics: Some(topics.collect()), ..Default::default() };
    assert_eq!(decoded(&encoded(&request, 9), 9), Ok(request));
    let resources = names.iter().map(|name| DescribeConfigsResource {
        resource_type: 2,
        resource_name: name,
        configuration_keys: None,
    });
    let request = DescribeConfigsRequest { resources: resources.collect(), ..Default::default() };
    assert_eq!(decoded(&encoded(&request, 4), 4), Ok(request));
}

#[test]
fn a_nullable_struct_says_whether_it_is_there() {
    let cursor = Some(Cursor { topic_name: "t", partition_index: 4 });
    for (cursor, last) in [(cursor, &[1, 2, b't', 0, 0, 0, 4, 0, 0][..]), (None, &[0xff, 0])] {
        let request = DescribeTopicPartitionsRequest { cursor, ..Default::default() };
        let bytes = encoded(&request, 0);
        assert!(bytes.ends_with(last));
        assert_eq!(decoded(&bytes, 0), Ok(request));
    }
    let (field, _, why) = reason::<DescribeTopicPartitionsRequest<'_>>(&[1, 0, 0, 0, 0, 5, 0], 0);
    assert_eq!((field, why), ("DescribeTopicPartitionsRequest.cursor", DecodeReason::Presence(5)));
}

#[test]
fn what_cannot_be_written_is_told_at_the_end_and_forgotten_then() {
    let mut encoder = Encoder::new();
    let mut fails = |message: &MetadataRequest<'_>, version| {
        message.encode(&mut encoder, version);
        encoder.finish().map(|chunks| chunks.concat())
    };
    let null = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(fails(&null, 0), Err(EncodeError::Null { field: "MetadataRequest.topics" }));
    let message = "MetadataRequest";
    assert_eq!(fails(&null, 14), Err(EncodeError::Version { message, version: 14 }));
    let name = "n".repeat(0x8000);
    for version in [4, 9] {
        let topics = vec![MetadataRequestTopic { name: Some(&name), ..Default::default() }];
        let long = MetadataRequest { topics: Some(topics), ..Default::default() };
        let field = "MetadataRequestTopic.name";
        assert_eq!(fails(&long, version), Err(EncodeError::TooLong { field, len: 0x8000 }));
    }
    assert_eq!(fails(&null, 1), Ok(vec![0xff; 4]));
}

#[test]
fn a_frame_that_was_begun_and_left_is_forgotten() {
    let mut encoder = Encoder::new();
    let answer = HeartbeatResponse::default();
    start_response(&mut encoder, ApiKey::Heartbeat, 0, 1);
    HeartbeatRequest::default().encode(&mut encoder, 9);
    start_response(&mut encoder, ApiKey::Heartbeat, 0, 2);
    answer.encode(&mut encoder, 0);
    assert_eq!(encoder.finish().unwrap().concat(), [0, 0, 0, 6, 0, 0, 0, 2, 0, 0]);
}
