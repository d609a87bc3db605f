//! What the fuzz targets of the Kafka protocol assert of one input, and the list of all messages that they and tests go through.

// The list names types of which some borrow and some do not.
#![allow(elided_lifetimes_in_paths)]

use std::ops::RangeInclusive;

use floodmark_proto::kafka::messages;
use floodmark_proto::kafka::{ApiKey, DecodeError, DecodeReason, Decoder, Encoder, Message, RequestHeader};

/// One message, as what can be done with any.
pub struct Entry {
    /// Kafka's name.
    pub name: &'static str,
    /// The versions of its table.
    pub versions: RangeInclusive<i16>,
    /// Decodes all of the bytes.
    pub decode: fn(&[u8], i16) -> Result<(), DecodeError>,
    /// Decodes, encodes and decodes again, and asserts that nothing was lost; whether the bytes were a message.
    pub round_trip: fn(&[u8], i16) -> bool,
}

macro_rules! entries {
    ($($module:ident: $($message:ident)*;)*) => {
        /// Every message that has a table.
        pub static ENTRIES: &[Entry] = &[$($({
            use messages::$module::$message;
            Entry {
                name: <$message as Message>::NAME,
                versions: <$message as Message>::VERSIONS,
                decode: |bytes, version| whole::<$message>(bytes, version).map(drop),
                round_trip: |bytes, version| {
                    let Ok(message) = whole::<$message>(bytes, version) else { return false };
                    let again = encoded(&message, version);
                    match whole::<$message>(&again, version) {
                        Ok(same) => {
                            assert_eq!(same, message);
                            assert_eq!(encoded(&same, version), again);
                        }
                        // Memory is allowed by the length of the frame, which was longer by tagged fields that nobody knows.
                        Err(error) => {
                            assert!(matches!(error.reason, DecodeReason::Memory { .. }), "{error}");
                            assert!(again.len() < bytes.len());
                        }
                    }
                    true
                },
            }
        },)*)*];
    };
}

entries! {
    alter_configs: AlterConfigsRequest AlterConfigsResponse;
    alter_partition_reassignments: AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse;
    api_versions: ApiVersionsRequest ApiVersionsResponse;
    consumer_protocol_assignment: ConsumerProtocolAssignment;
    consumer_protocol_subscription: ConsumerProtocolSubscription;
    create_partitions: CreatePartitionsRequest CreatePartitionsResponse;
    create_topics: CreateTopicsRequest CreateTopicsResponse;
    delete_groups: DeleteGroupsRequest DeleteGroupsResponse;
    delete_records: DeleteRecordsRequest DeleteRecordsResponse;
    delete_topics: DeleteTopicsRequest DeleteTopicsResponse;
    describe_cluster: DescribeClusterRequest DescribeClusterResponse;
    describe_configs: DescribeConfigsRequest DescribeConfigsResponse;
    describe_groups: DescribeGroupsRequest DescribeGroupsResponse;
    describe_log_dirs: DescribeLogDirsRequest DescribeLogDirsResponse;
    describe_producers: DescribeProducersRequest DescribeProducersResponse;
    describe_topic_partitions: DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
    elect_leaders: ElectLeadersRequest ElectLeadersResponse;
    fetch: FetchRequest FetchResponse;
    find_coordinator: FindCoordinatorRequest FindCoordinatorResponse;
    group_metadata_key: GroupMetadataKey;
    group_metadata_value: GroupMetadataValue;
    heartbeat: HeartbeatRequest HeartbeatResponse;
    incremental_alter_configs: IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
    init_producer_id: InitProducerIdRequest InitProducerIdResponse;
    join_group: JoinGroupRequest JoinGroupResponse;
    leave_group: LeaveGroupRequest LeaveGroupResponse;
    list_config_resources: ListConfigResourcesRequest ListConfigResourcesResponse;
    list_groups: ListGroupsRequest ListGroupsResponse;
    list_offsets: ListOffsetsRequest ListOffsetsResponse;
    list_partition_reassignments: ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse;
    metadata: MetadataRequest MetadataResponse;
    offset_commit: OffsetCommitRequest OffsetCommitResponse;
    offset_commit_key: OffsetCommitKey;
    offset_commit_value: OffsetCommitValue;
    offset_delete: OffsetDeleteRequest OffsetDeleteResponse;
    offset_fetch: OffsetFetchRequest OffsetFetchResponse;
    offset_for_leader_epoch: OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    produce: ProduceRequest ProduceResponse;
    sync_group: SyncGroupRequest SyncGroupResponse;
    unregister_broker: UnregisterBrokerRequest UnregisterBrokerResponse;
}

/// The whole of `bytes` as a message.
fn whole<'a, M: Message<'a>>(bytes: &'a [u8], version: i16) -> Result<M, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let message = M::decode(&mut decoder, version)?;
    decoder.finish()?;
    Ok(message)
}

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version);
    encoder.finish().unwrap().concat()
}

/// The request or response of an API.
fn entry(code: i16, suffix: &str) -> Option<&'static Entry> {
    let name = ApiKey::from_code(code)?.name();
    ENTRIES.iter().find(|entry| entry.name.strip_prefix(name) == Some(suffix))
}

/// A frame as a client would send it: header, then the request that the header names.
pub fn kafka_request(frame: &[u8]) {
    let mut decoder = Decoder::new(frame);
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return };
    assert_eq!(decoder.position() + decoder.remaining(), frame.len());
    let Some(entry) = entry(header.api_key, "Request") else { return };
    let _ = (entry.decode)(&frame[decoder.position()..], header.api_version);
}

/// A response body behind the API and the version that it answers.
pub fn kafka_response(input: &[u8]) {
    let Some((&[a, b, c, d], body)) = input.split_first_chunk::<4>() else { return };
    let Some(entry) = entry(i16::from_be_bytes([a, b]), "Response") else { return };
    let _ = (entry.decode)(body, i16::from_be_bytes([c, d]));
}

/// Any message behind its place in the list and its version, there and back.
pub fn kafka_round_trip(input: &[u8]) {
    let Some((&[place, version], body)) = input.split_first_chunk::<2>() else { return };
    let Some(entry) = ENTRIES.get(usize::from(place)) else { return };
    (entry.round_trip)(body, i16::from(version));
}
