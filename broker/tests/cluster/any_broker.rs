//! Clients that are pointed at one broker, whichever that is, and what the wrong one tells those that have to go to another.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
};
use floodmark_proto::kafka::messages::fetch::{FetchRequest, FetchResponse};
use floodmark_proto::kafka::messages::produce::ProduceResponse;
use floodmark_proto::pb::v1 as pb;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::generated::admin_client::AdminClient;
use crate::generated::data_client::DataClient;
use crate::generated::groups_client::GroupsClient;
use crate::kafka_client::{FetchOf, batch, produce_request};
use crate::setup::{Three, run};

const PARTITIONS: i32 = 6;

#[test]
fn a_topic_made_on_one_broker_is_used_from_all_and_the_wrong_one_names_the_right_one() {
    let three = Three::start();
    let leaders = three.topic(2, "t", PARTITIONS);
    for id in 1..=3 {
        assert!(leaders.contains(&id), "leaders are spread: {leaders:?}");
    }
    let metadata = three.metadata(3, &["t"]);
    for ((partition, leader), value) in (0..).zip(&leaders).zip(["a", "b", "c", "d", "e", "f"]) {
        let described = &metadata.partitions[&("t".to_owned(), partition)];
        let mut replicas = described.replica_nodes.clone();
        replicas.sort_unstable();
        assert_eq!(replicas, [1, 2, 3], "a topic of whose replicas nobody says how many");
        let batch = batch(&[value.as_bytes()]);
        let other = leader % 3 + 1;
        let mut wrong = three.kafka(other);
        // Produce, from the version on that has room for it.
        let answer = wrong.ask(10, &produce_request("t", partition, -1, Some(&batch))).unwrap();
        let response = answer.read::<ProduceResponse<'_>>();
        let refused = &response.responses[0].partition_responses[0];
        assert_eq!(refused.error_code, ErrorCode::NotLeaderOrFollower.code());
        let hint = (refused.current_leader.leader_id, refused.current_leader.leader_epoch);
        assert_eq!(hint, (*leader, described.leader_epoch));
        let endpoint = &response.node_endpoints[0];
        let port = i32::from(three.broker(*leader).kafka_address().port());
        assert_eq!((endpoint.node_id, endpoint.host, endpoint.port), (*leader, "127.0.0.1", port));
        // Before it there is none, and the error is the same.
        assert_eq!(wrong.produce("t", partition, -1, &batch).unwrap().error_code, 6);
        // Fetch of a version that only leaders answer.
        let answer = wrong.ask(10, &FetchOf::new("t", partition, 0).request()).unwrap();
        let response = answer.read::<FetchResponse<'_>>();
        assert_eq!(response.responses[0].partitions[0].error_code, 6);
        let mut right = three.kafka(*leader);
        assert_eq!(right.produce("t", partition, -1, &batch).unwrap().error_code, 0);
        let read = right.read_from("t", partition, 0).unwrap();
        assert_eq!(read, [(0, value.as_bytes().to_vec())]);
    }
}

/// Where a replica could answer, one that is none cannot, and says who can (KIP-951).
#[test]
fn a_fetch_from_a_broker_without_a_replica_is_told_whom_to_ask() {
    let three = Three::start();
    let placed = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![2] };
    let topic = CreatableTopic {
        name: "one",
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![placed],
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let answer = three.kafka(1).ask(7, &request).unwrap();
    assert_eq!(answer.read::<CreateTopicsResponse<'_>>().topics[0].error_code, 0);
    assert_eq!(three.leader("one", 0), 2);
    three.is_served(2, "one", 0);
    let metadata = three.metadata(3, &["one"]);
    let mut fetch = FetchOf::new("one", 0, 0).request();
    fetch.topics[0].topic_id = metadata.topic_ids[0];
    let answer = three.kafka(3).ask::<FetchRequest<'_>>(16, &fetch).unwrap();
    let response = answer.read::<FetchResponse<'_>>();
    let refused = &response.responses[0].partitions[0];
    assert_eq!(refused.error_code, ErrorCode::NotLeaderOrFollower.code());
    let epoch = metadata.partitions[&("one".to_owned(), 0)].leader_epoch;
    assert_eq!((refused.current_leader.leader_id, refused.current_leader.leader_epoch), (2, epoch));
    let endpoint = &response.node_endpoints[0];
    let port = i32::from(three.broker(2).kafka_address().port());
    assert_eq!((endpoint.node_id, endpoint.host, endpoint.port), (2, "127.0.0.1", port));
}

/// Everything that is no stream is carried out, whoever leads or coordinates.
#[test]
fn a_grpc_client_of_any_one_broker_reaches_what_all_of_them_have() {
    let three = Three::start();
    let leaders = three.topic(1, "t", PARTITIONS);
    let all = || -> Vec<pb::TopicPartition> {
        (0..PARTITIONS).map(|partition| pb::TopicPartition { topic: "t".to_owned(), partition }).collect()
    };
    run(async {
        for (id, round) in (1..=3).zip(1_i64..) {
            let channel = three.grpc(id).await;
            let (mut data, mut admin, mut groups) = (
                DataClient::new(channel.clone()),
                AdminClient::new(channel.clone()),
                GroupsClient::new(channel),
            );
            // One record for each partition, each by its number.
            for partition in 0..PARTITIONS {
                let request = pb::ProduceRequest { partition: Some(partition), ..keyed("t", &["k"]) };
                let reply = data.append(request).await.unwrap().into_inner();
                assert_eq!(
                    offset_of(&reply.partitions[0]),
                    round * 2 - 2,
                    "broker {id}, partition {partition}"
                );
            }
            let asked = pb::DescribeOffsetsRequest { partitions: all(), ..Default::default() };
            let offsets = admin.describe_offsets(asked).await.unwrap().into_inner().partitions;
            let named: Vec<i32> = offsets.iter().map(|o| o.partition).collect();
            assert_eq!(named, (0..PARTITIONS).collect::<Vec<_>>());
            assert!(offsets.iter().all(|o| o.error.is_none() && o.end == round * 2 - 1), "{offsets:?}");
            spread_by_key(id, &mut admin, &mut data).await;
            // Who wrote to partitions, and what is removed of them.
            let asked = pb::DescribeProducersRequest { partitions: all() };
            let producers = admin.describe_producers(asked).await.unwrap().into_inner().partitions;
            assert!(producers.iter().all(|p| p.error.is_none()), "{producers:?}");
            let before = |partition| pb::DeleteBefore {
                topic: "t".to_owned(),
                partition,
                before: Some(round * 2 - 1),
            };
            let partitions = (0..PARTITIONS).map(before).collect();
            let asked = pb::DeleteRecordsRequest { partitions, ..Default::default() };
            let deleted = admin.delete_records(asked).await.unwrap().into_inner().partitions;
            assert!(deleted.iter().all(|d| d.error.is_none() && d.start == round * 2 - 1), "{deleted:?}");
            for partition in 0..PARTITIONS {
                let request = pb::ProduceRequest { partition: Some(partition), ..keyed("t", &["k"]) };
                data.append(request).await.unwrap();
            }
            // Offsets of three groups, which different brokers coordinate.
            for group in ["g0", "g1", "g2", "g3", "g4"] {
                let offset =
                    pb::OffsetToCommit { topic: "t".to_owned(), offset: round, ..Default::default() };
                let commit = pb::CommitOffsetsRequest {
                    group: group.to_owned(),
                    generation: -1,
                    offsets: vec![offset],
                    ..Default::default()
                };
                let outcome = committed(&mut groups, commit).await;
                assert_eq!(outcome, None, "{group} at broker {id}");
                let asked = pb::FetchOffsetsRequest { group: group.to_owned(), ..Default::default() };
                let fetched = groups.fetch_offsets(asked).await.unwrap().into_inner().offsets;
                assert_eq!((fetched.len(), fetched[0].offset), (1, Some(round)), "{group} at broker {id}");
                let asked = pb::DescribeGroupRequest { group: group.to_owned() };
                let described = groups.describe_group(asked).await.unwrap().into_inner();
                assert_eq!(
                    described.offsets[0].end,
                    Some(round * 2),
                    "lag is told of partitions led elsewhere"
                );
            }
            let listed = loop {
                match groups.list_groups(pb::ListGroupsRequest::default()).await {
                    Ok(listed) => break listed.into_inner().groups,
                    // Some partition without any group is being loaded.
                    Err(status) => try_again_after(&status).await,
                }
            };
            let listed: Vec<&str> = listed.iter().map(|group| &*group.group).collect();
            assert_eq!(listed, ["g0", "g1", "g2", "g3", "g4"]);
        }
        let mut groups = GroupsClient::new(three.grpc(2).await);
        let names = ["g0", "g1", "g2", "g3", "g4"].map(str::to_owned).to_vec();
        let deleted =
            groups.delete_groups(pb::DeleteGroupsRequest { groups: names }).await.unwrap().into_inner();
        assert!(deleted.outcomes.iter().all(|outcome| outcome.error.is_none()), "{deleted:?}");
        a_stream_names_the_leader(&three, leaders[0]).await;
    });
}

async fn a_stream_names_the_leader(three: &Three, leads: i32) {
    // A stream is not carried elsewhere; whom to ask is told.
    let other = leads % 3 + 1;
    let mut data = DataClient::new(three.grpc(other).await);
    let requests = tokio_stream::iter([pb::ProduceRequest { partition: Some(0), ..keyed("t", &["k"]) }]);
    let mut replies = data.produce(requests).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    let Some(pb::partition_reply::Outcome::Error(error)) = &reply.partitions[0].outcome else {
        panic!("{reply:?}")
    };
    let leader = error.leader.as_ref().unwrap();
    let port = u32::from(three.broker(leads).grpc_address().unwrap().port());
    assert_eq!((&*error.reason, leader.broker_id, leader.port), ("NOT_LEADER_OR_FOLLOWER", leads, port));
}

/// Records by their keys, through the broker `id`.
async fn spread_by_key(id: i32, admin: &mut AdminClient<Channel>, data: &mut DataClient<Channel>) {
    // Records by their keys go to partitions of all leaders at once; every one has an outcome.
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    let reply = data.append(keyed("spread", &keys)).await;
    assert!(reply.is_err(), "there is no such topic yet");
    let made =
        pb::NewTopic { name: format!("spread-{id}"), partitions: Some(PARTITIONS), ..Default::default() };
    let request = pb::CreateTopicsRequest { topics: vec![made], ..Default::default() };
    assert_eq!(admin.create_topics(request).await.unwrap().into_inner().topics[0].error, None);
    let spread = format!("spread-{id}");
    let reply = until_placed(data, &spread, &keys).await;
    let placed: usize = reply.partitions.iter().map(|part| part.records.len()).sum();
    assert_eq!((placed, reply.partitions.len()), (60, PARTITIONS as usize));
}

/// A request without partition for these keys.
fn keyed(topic: &str, keys: &[&str]) -> pb::ProduceRequest {
    let record = |key: &&str| pb::Record {
        key: Some((*key).to_owned().into()),
        value: Some("v".into()),
        ..Default::default()
    };
    let records = pb::Records { records: keys.iter().map(record).collect() };
    pb::ProduceRequest {
        topic: topic.to_owned(),
        payload: Some(pb::produce_request::Payload::Records(records)),
        ..Default::default()
    }
}

/// A leader may learn a moment later than others that there is such a topic.
async fn until_placed(data: &mut DataClient<Channel>, topic: &str, keys: &[&str]) -> pb::ProduceReply {
    loop {
        let request = pb::ProduceRequest { partition: Some(0), ..keyed(topic, &["probe"]) };
        let probe = data.append(request).await;
        match probe.map(|reply| reply.into_inner()) {
            Ok(_) => return placed_all(data, topic, keys).await,
            Err(status) => try_again_after(&status).await,
        }
    }
}

/// Fails where a status is not one that passes.
async fn try_again_after(status: &Status) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(info.metadata["retryable"], "true", "{status:?}");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

async fn placed_all(data: &mut DataClient<Channel>, topic: &str, keys: &[&str]) -> pb::ProduceReply {
    loop {
        if let Ok(reply) = data.append(keyed(topic, keys)).await {
            let reply = reply.into_inner();
            let is_placed = |part: &pb::PartitionReply| {
                matches!(part.outcome, Some(pb::partition_reply::Outcome::Produced(_)))
            };
            if reply.partitions.iter().all(is_placed) {
                return reply;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The error of a commit; while the coordinator only comes up, it is made again.
async fn committed(
    groups: &mut GroupsClient<Channel>,
    commit: pb::CommitOffsetsRequest,
) -> Option<pb::Error> {
    loop {
        match groups.commit_offsets(commit.clone()).await {
            Ok(reply) => return reply.into_inner().outcomes.into_iter().next().and_then(|done| done.error),
            Err(status) => try_again_after(&status).await,
        }
    }
}

fn offset_of(part: &pb::PartitionReply) -> i64 {
    match &part.outcome {
        Some(pb::partition_reply::Outcome::Produced(produced)) => produced.base_offset,
        other => panic!("{other:?}"),
    }
}
