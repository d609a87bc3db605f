//! Our messages held against two codecs of other hands, `kafka-wire` and `kafka-protocol`: the same bytes, both ways, in every version.

#![allow(clippy::unwrap_used)]

mod tables;

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use floodmark_proto::kafka::header::decode_response_header;
use floodmark_proto::kafka::messages as ours;
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message, RequestHeader, start_response};
use kafka_protocol::protocol::{Decodable, Encodable, Message as _};
use kafka_wire::KafkaMessage;
use kafka_wire_core::{ApiVersion, KafkaDecode, KafkaEncode};
use tables::{Chance, Sample};

/// Random messages of each kind and version.
const SAMPLES: u64 = 200;

/// Versions of ours that an oracle lacks.
const NOT_IN_KAFKA_PROTOCOL: &[(&str, i16)] = &[
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
];
const NOT_IN_KAFKA_WIRE: &[(&str, i16)] = &[];

/// One message in three codecs.
trait Codecs {
    const NAME: &'static str;
    fn versions() -> RangeInclusive<i16>;
    /// Decodes and encodes again, and says how a default encodes.
    fn ours(bytes: &[u8], version: i16) -> Vec<u8>;
    fn our_default(version: i16) -> Vec<u8>;
    fn kafka_wire_has(version: i16) -> bool;
    fn kafka_wire(bytes: &[u8], version: i16) -> Vec<u8>;
    fn kafka_wire_default(version: i16) -> Vec<u8>;
    fn kafka_protocol_has(version: i16) -> bool;
    fn kafka_protocol(bytes: &[u8], version: i16) -> Vec<u8>;
    fn kafka_protocol_default(version: i16) -> Vec<u8>;
}

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version);
    encoder.finish().unwrap().concat()
}

macro_rules! codecs {
    ($($module:ident: $($message:ident)*;)*) => {
        $($(
            struct $message;

            impl Codecs for $message {
                const NAME: &'static str = stringify!($message);

                fn versions() -> RangeInclusive<i16> {
                    ours::$module::$message::VERSIONS
                }

                fn ours(bytes: &[u8], version: i16) -> Vec<u8> {
                    let mut decoder = Decoder::new(bytes);
                    let message = ours::$module::$message::decode(&mut decoder, version).unwrap();
                    decoder.finish().unwrap();
                    encoded(&message, version)
                }

                fn our_default(version: i16) -> Vec<u8> {
                    encoded(&ours::$module::$message::default(), version)
                }

                fn kafka_wire_has(version: i16) -> bool {
                    kafka_wire::$message::supports(ApiVersion::new(version))
                }

                fn kafka_wire(bytes: &[u8], version: i16) -> Vec<u8> {
                    let version = ApiVersion::new(version);
                    let bytes = Bytes::copy_from_slice(bytes);
                    let message = kafka_wire::$message::decode_from_bytes(bytes, version, Default::default());
                    message.unwrap().encode_to_bytes(version).unwrap().to_vec()
                }

                fn kafka_wire_default(version: i16) -> Vec<u8> {
                    kafka_wire::$message::default().encode_to_bytes(ApiVersion::new(version)).unwrap().to_vec()
                }

                fn kafka_protocol_has(version: i16) -> bool {
                    let versions = kafka_protocol::messages::$message::VERSIONS;
                    (versions.min..=versions.max).contains(&version)
                }

                fn kafka_protocol(bytes: &[u8], version: i16) -> Vec<u8> {
                    let mut bytes = Bytes::copy_from_slice(bytes);
                    let message = kafka_protocol::messages::$message::decode(&mut bytes, version).unwrap();
                    assert!(bytes.is_empty());
                    let mut out = BytesMut::new();
                    message.encode(&mut out, version).unwrap();
                    out.to_vec()
                }

                fn kafka_protocol_default(version: i16) -> Vec<u8> {
                    let mut out = BytesMut::new();
                    kafka_protocol::messages::$message::default().encode(&mut out, version).unwrap();
                    out.to_vec()
                }
            }
        )*)*

        /// Every message that an oracle knows.
        fn check_all(checks: &mut Checks) {
            $($( checks.message::<$message>(); )*)*
        }
    };
}

codecs! {
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
    offset_delete: OffsetDeleteRequest OffsetDeleteResponse;
    offset_fetch: OffsetFetchRequest OffsetFetchResponse;
    offset_for_leader_epoch: OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    produce: ProduceRequest ProduceResponse;
    sync_group: SyncGroupRequest SyncGroupResponse;
    unregister_broker: UnregisterBrokerRequest UnregisterBrokerResponse;
}

struct Checks {
    tables: Vec<tables::schema::Table>,
    seen: Vec<&'static str>,
    not_in_kafka_wire: Vec<(&'static str, i16)>,
    not_in_kafka_protocol: Vec<(&'static str, i16)>,
}

impl Checks {
    fn message<C: Codecs>(&mut self) {
        self.seen.push(C::NAME);
        for version in C::versions() {
            let (wire, protocol) = (C::kafka_wire_has(version), C::kafka_protocol_has(version));
            if !wire {
                self.not_in_kafka_wire.push((C::NAME, version));
            }
            if !protocol {
                self.not_in_kafka_protocol.push((C::NAME, version));
            }
            self.defaults::<C>(version, wire, protocol);
            for seed in 0..SAMPLES {
                let bytes = self.sample(C::NAME, version, Some(Chance::new(seed)));
                let what = format!("{} version {version} seed {seed}", C::NAME);
                assert_eq!(C::ours(&bytes, version), bytes, "ours: {what}");
                if wire {
                    assert_eq!(C::kafka_wire(&bytes, version), bytes, "kafka-wire: {what}");
                }
                if protocol {
                    assert_eq!(C::kafka_protocol(&bytes, version), bytes, "kafka-protocol: {what}");
                }
            }
        }
    }

    fn defaults<C: Codecs>(&self, version: i16, wire: bool, protocol: bool) {
        let bytes = self.sample(C::NAME, version, None);
        let what = format!("default {} version {version}", C::NAME);
        assert_eq!(C::our_default(version), bytes, "ours: {what}");
        assert_eq!(C::ours(&bytes, version), bytes, "ours again: {what}");
        if wire {
            assert_eq!(C::kafka_wire_default(version), bytes, "kafka-wire: {what}");
        }
        if protocol {
            assert_eq!(C::kafka_protocol_default(version), bytes, "kafka-protocol: {what}");
        }
    }

    fn sample(&self, name: &str, version: i16, chance: Option<Chance>) -> Vec<u8> {
        let table = self.tables.iter().find(|table| table.messages.iter().any(|m| m == name)).unwrap();
        Sample { table, version, chance }.message(name)
    }
}

#[test]
fn three_codecs_agree_byte_for_byte() {
    let mut checks = Checks {
        tables: tables::all(),
        seen: Vec::new(),
        not_in_kafka_wire: Vec::new(),
        not_in_kafka_protocol: Vec::new(),
    };
    check_all(&mut checks);
    // No API is forgotten, and no gap of an oracle is taken for agreement.
    for key in ApiKey::ALL {
        for suffix in ["Request", "Response"] {
            let name = format!("{}{suffix}", key.name());
            assert!(checks.seen.contains(&&*name), "{name} is compared with nothing");
        }
    }
    assert_eq!(checks.not_in_kafka_wire, NOT_IN_KAFKA_WIRE);
    assert_eq!(checks.not_in_kafka_protocol, NOT_IN_KAFKA_PROTOCOL);
}

#[test]
fn headers_are_those_of_another_codec() {
    let mut encoder = Encoder::new();
    for &key in ApiKey::ALL {
        let theirs = kafka_protocol::messages::ApiKey::try_from(key.code()).unwrap();
        for version in key.versions() {
            let header = RequestHeader {
                api_key: key.code(),
                api_version: version,
                correlation_id: 0x0102_0304,
                client_id: Some("client"),
            };
            header.start_request(&mut encoder);
            let ours = encoder.finish().unwrap().concat();
            let mut bytes = BytesMut::new();
            kafka_protocol::messages::RequestHeader::default()
                .with_request_api_key(key.code())
                .with_request_api_version(version)
                .with_correlation_id(0x0102_0304)
                .with_client_id(Some("client".into()))
                .encode(&mut bytes, theirs.request_header_version(version))
                .unwrap();
            assert_eq!(ours[4..], bytes, "request header of {} version {version}", key.name());
            assert_eq!(RequestHeader::decode(&mut Decoder::new(&bytes)), Ok(header));

            start_response(&mut encoder, key, version, -5);
            let ours = encoder.finish().unwrap().concat();
            let mut bytes = BytesMut::new();
            kafka_protocol::messages::ResponseHeader::default()
                .with_correlation_id(-5)
                .encode(&mut bytes, theirs.response_header_version(version))
                .unwrap();
            assert_eq!(ours[4..], bytes, "response header of {} version {version}", key.name());
            assert_eq!(decode_response_header(&mut Decoder::new(&bytes), key, version), Ok(-5));
        }
    }
}
