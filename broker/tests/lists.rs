//! Things that one request names again and again: each is answered once, however long its name is. One test program, since it looks at
//! the process's memory.
#![allow(clippy::disallowed_methods, reason = "the test looks at the process from outside")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use floodmark_proto::kafka::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse,
};
use floodmark_proto::kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use floodmark_proto::kafka::messages::delete_groups::DeleteGroupsRequest;
use floodmark_proto::kafka::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use floodmark_proto::kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use floodmark_proto::kafka::messages::describe_groups::DescribeGroupsRequest;
use floodmark_proto::kafka::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use floodmark_proto::kafka::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use floodmark_proto::kafka::messages::fetch::FetchRequest;
use floodmark_proto::kafka::messages::find_coordinator::FindCoordinatorRequest;
use floodmark_proto::kafka::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_proto::kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use floodmark_proto::kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use floodmark_proto::kafka::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use floodmark_proto::kafka::{ErrorCode, Message};

use kafka_client::{FetchOf, Kafka, batch};
use wire::broker;

const TOPIC: &str = "t";
const GROUP: &str = "g";
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
/// How often things are named.
const TIMES: usize = 500;

/// The same request, with whatever it names named so often, in one entry and in several.
fn hold<'a, Q: Message<'a>>(kafka: &mut Kafka, version: i16, request: impl Fn(usize, usize) -> Q) {
    let expected = kafka.ask(version, &request(1, 1)).unwrap().size_bytes();
    for (entries, inside) in [(TIMES, 1), (1, TIMES), (2, 2)] {
        let size = kafka.ask(version, &request(entries, inside)).unwrap().size_bytes();
        assert_eq!(size, expected, "{} in version {version}, {entries} entries of {inside}", Q::NAME);
    }
}

#[test]
fn what_is_named_again_is_not_answered_again() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic(TOPIC, 1, &[]).unwrap(), 0);
    assert_eq!(kafka.produce(TOPIC, 0, -1, &batch(&[b"v"])).unwrap().error_code, 0);
    kafka.await_coordinator(GROUP);
    assert_eq!(kafka.commit(GROUP, TOPIC, 0, 1).unwrap(), 0);
    about_groups(&mut kafka);
    about_partitions(&mut kafka);
    about_the_cluster(&mut kafka);
    doubles_that_are_refused(&mut kafka);
    the_last_of_several_offsets_counts(&mut kafka);
    long_names(&mut kafka);
}

fn about_groups(kafka: &mut Kafka) {
    hold(kafka, 5, |entries, inside| DescribeGroupsRequest {
        groups: vec![GROUP; entries * inside],
        ..Default::default()
    });
    hold(kafka, 4, |entries, inside| FindCoordinatorRequest {
        coordinator_keys: vec![GROUP; entries * inside],
        ..Default::default()
    });
    hold(kafka, 2, |entries, inside| DeleteGroupsRequest {
        groups_names: vec!["no group"; entries * inside],
    });
    hold(kafka, 0, |entries, inside| {
        let partition = OffsetDeleteRequestPartition { partition_index: 0 };
        let topic = OffsetDeleteRequestTopic { name: TOPIC, partitions: vec![partition; inside] };
        OffsetDeleteRequest { group_id: "no group", topics: vec![topic; entries] }
    });
    hold(kafka, 7, |entries, inside| {
        let topic = OffsetFetchRequestTopic { name: TOPIC, partition_indexes: vec![0; inside] };
        OffsetFetchRequest { group_id: GROUP, topics: Some(vec![topic; entries]), ..Default::default() }
    });
    for topics in [None, Some(vec![0])] {
        hold(kafka, 8, |entries, inside| {
            let topic = |indexes: &Vec<i32>| OffsetFetchRequestTopics {
                name: TOPIC,
                partition_indexes: indexes.repeat(inside),
                ..Default::default()
            };
            let topics = topics.as_ref().map(|indexes| vec![topic(indexes); inside]);
            let group = OffsetFetchRequestGroup { group_id: GROUP, topics, ..Default::default() };
            OffsetFetchRequest { groups: vec![group; entries], ..Default::default() }
        });
    }
}

fn about_partitions(kafka: &mut Kafka) {
    hold(kafka, 0, |entries, inside| {
        let topic = TopicRequest { name: TOPIC, partition_indexes: vec![0; inside] };
        DescribeProducersRequest { topics: vec![topic; entries] }
    });
    hold(kafka, 4, |entries, inside| {
        let partition = OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch: 0 };
        let topic = OffsetForLeaderTopic { topic: TOPIC, partitions: vec![partition; inside] };
        OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic; entries] }
    });
    hold(kafka, 2, |entries, inside| {
        let partition = DeleteRecordsPartition { partition_index: 0, offset: 0 };
        let topic = DeleteRecordsTopic { name: TOPIC, partitions: vec![partition; inside] };
        DeleteRecordsRequest { topics: vec![topic; entries], timeout_ms: 0 }
    });
    hold(kafka, 12, |entries, inside| {
        let mut request: FetchRequest<'_> = FetchOf::new(TOPIC, 0, 0).request();
        let partition = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = vec![partition; inside];
        request.topics = vec![request.topics[0].clone(); entries];
        request
    });
}

fn about_the_cluster(kafka: &mut Kafka) {
    let resource = |resource_type, resource_name| DescribeConfigsResource {
        resource_type,
        resource_name,
        configuration_keys: None,
    };
    for (kind, name) in [(TOPIC_RESOURCE, TOPIC), (BROKER_RESOURCE, "1")] {
        hold(kafka, 4, |entries, inside| DescribeConfigsRequest {
            resources: vec![resource(kind, name); entries * inside],
            include_synonyms: true,
            include_documentation: true,
        });
    }
    // The broker under other names is none.
    for name in ["01", "+1"] {
        let resources = vec![resource(BROKER_RESOURCE, name)];
        let answer = kafka.ask(4, &DescribeConfigsRequest { resources, ..Default::default() }).unwrap();
        let told = answer.read::<DescribeConfigsResponse<'_>>();
        assert_eq!(told.results[0].error_code, ErrorCode::InvalidRequest.code(), "{name}");
    }
    // An empty list of names asks for all, as none does.
    let [all, empty] = [None, Some(Vec::new())].map(|configuration_keys| {
        let resources =
            vec![DescribeConfigsResource { configuration_keys, ..resource(TOPIC_RESOURCE, TOPIC) }];
        let request = DescribeConfigsRequest { resources, ..Default::default() };
        kafka.ask(4, &request).unwrap().size_bytes()
    });
    assert_eq!(all, empty);
    hold(kafka, 2, |entries, inside| {
        let topic = TopicPartitions { topic: TOPIC, partitions: vec![0; inside] };
        ElectLeadersRequest {
            election_type: 0,
            topic_partitions: Some(vec![topic; entries]),
            timeout_ms: 30_000,
        }
    });
    hold(kafka, 0, |entries, inside| {
        let partition = ReassignablePartition { partition_index: 0, replicas: None };
        let topic = ReassignableTopic { name: TOPIC, partitions: vec![partition; inside] };
        let topics = vec![topic; entries];
        AlterPartitionReassignmentsRequest { timeout_ms: 30_000, topics, ..Default::default() }
    });
    // One topic by its id, under ever another name.
    let by_name = MetadataRequestTopic { name: Some(TOPIC), topic_id: [0; 16] };
    let request = MetadataRequest { topics: Some(vec![by_name]), ..Default::default() };
    let topic_id = kafka.ask(12, &request).unwrap().read::<MetadataResponse<'_>>().topics[0].topic_id;
    let names: Vec<String> = (0..TIMES).map(|n| n.to_string()).collect();
    let topics = names.iter().map(|name| MetadataRequestTopic { name: Some(name), topic_id }).collect();
    let answer = kafka.ask(12, &MetadataRequest { topics: Some(topics), ..Default::default() }).unwrap();
    assert_eq!(answer.read::<MetadataResponse<'_>>().topics.len(), 1);
}

/// As Kafka does it.
fn doubles_that_are_refused(kafka: &mut Kafka) {
    let invalid = ErrorCode::InvalidRequest.code();
    for (entries, inside) in [(2, 1), (1, 2)] {
        let partition = ListOffsetsPartition { partition_index: 0, timestamp: -1, ..Default::default() };
        let topic = ListOffsetsTopic { name: TOPIC, partitions: vec![partition; inside] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic; entries], ..Default::default() };
        let answer = kafka.ask(8, &request).unwrap();
        let told = answer.read::<ListOffsetsResponse<'_>>();
        let codes: Vec<i16> = told.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
        assert_eq!(codes, [invalid; 2], "{entries} entries");
    }
    let resource =
        AlterConfigsResource { resource_type: TOPIC_RESOURCE, resource_name: TOPIC, ..Default::default() };
    let request = AlterConfigsRequest { resources: vec![resource; 2], validate_only: true };
    let answer = kafka.ask(2, &request).unwrap();
    let told = answer.read::<AlterConfigsResponse<'_>>();
    assert_eq!(told.responses.iter().map(|r| r.error_code).collect::<Vec<_>>(), [invalid; 2]);
}

fn the_last_of_several_offsets_counts(kafka: &mut Kafka) {
    let offsets = [(0, 5, ""), (0, 6, ""), (0, 7, "")];
    assert_eq!(kafka.commit_as(GROUP, ("", -1), TOPIC, &offsets).unwrap(), 0);
    assert_eq!(kafka.committed(GROUP, TOPIC, 0).unwrap(), Ok(7));
}

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// A name of 32,000 bytes for many partitions: nothing holds or says it once for each.
fn long_names(kafka: &mut Kafka) {
    let long = "n".repeat(32_000);
    let indexes: Vec<i32> = (0..20_000).collect();
    let topics = vec![OffsetFetchRequestTopic { name: &long, partition_indexes: indexes.clone() }];
    let fetch = OffsetFetchRequest { group_id: GROUP, topics: Some(topics), ..Default::default() };
    let topics = vec![TopicPartitions { topic: &long, partitions: indexes.clone() }];
    let elect = ElectLeadersRequest { election_type: 0, topic_partitions: Some(topics), timeout_ms: 30_000 };
    let partition = |partition_index| ReassignablePartition { partition_index, replicas: Some(vec![1]) };
    let partitions = indexes.into_iter().map(partition).collect();
    let topics = vec![ReassignableTopic { name: &long, partitions }];
    let reassign = AlterPartitionReassignmentsRequest { timeout_ms: 30_000, topics, ..Default::default() };
    // A write of this kind has the kernel begin the peak anew (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_bytes();
    let sizes = [
        kafka.ask(7, &fetch).unwrap().size_bytes(),
        kafka.ask(2, &elect).unwrap().size_bytes(),
        kafka.ask(0, &reassign).unwrap().size_bytes(),
    ];
    assert!(sizes.iter().all(|size| *size < 2 << 20), "{sizes:?}");
    let taken = peak_bytes().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes");
}
