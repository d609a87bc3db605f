//! Groups: members of both doors in one group, offsets, lag.

use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::kafka::messages::consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition,
};
use floodmark_proto::kafka::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use floodmark_proto::kafka::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use floodmark_proto::kafka::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use floodmark_proto::kafka::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message};
use floodmark_proto::pb::v1 as pb;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::generated::groups_client::GroupsClient;
use crate::kafka::Client;
use crate::setup::{PATIENCE, broker, data, groups, reason, record, records, stop, topic};

const REBALANCE_IN_PROGRESS: i16 = 27;

/// A version, then the message, as Kafka's consumers send each other.
fn embedded<'a>(message: &impl Message<'a>) -> Bytes {
    let mut encoder = Encoder::new();
    encoder.i16(0);
    message.encode(&mut encoder, 0);
    encoder.finish().unwrap().concat().into()
}

fn subscription() -> Bytes {
    embedded(&ConsumerProtocolSubscription { topics: vec!["shared"], ..Default::default() })
}

fn assignment(partitions: &[i32]) -> Bytes {
    let topic = TopicPartition { topic: "shared", partitions: partitions.to_vec() };
    embedded(&ConsumerProtocolAssignment { assigned_partitions: vec![topic], ..Default::default() })
}

fn assigned(bytes: &[u8]) -> Vec<i32> {
    let mut decoder = Decoder::new(bytes);
    decoder.i16("version").unwrap();
    let assignment = ConsumerProtocolAssignment::decode(&mut decoder, 0).unwrap();
    assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

fn join_request(member_id: &str) -> pb::JoinRequest {
    pb::JoinRequest {
        group: "g".to_owned(),
        member_id: member_id.to_owned(),
        client_id: "grpc".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![pb::GroupProtocol { name: "range".to_owned(), metadata: subscription() }],
        session_timeout_ms: 20_000,
        rebalance_timeout_ms: 20_000,
        ..Default::default()
    }
}

/// Waits until the broker serves a group, which may take seconds where the disk is busy. What says so is what every client tries again after.
async fn await_coordinator(client: &mut GroupsClient<Channel>, group: &str) {
    for _ in 0..3000 {
        let request = pb::FindCoordinatorRequest { group: group.to_owned() };
        let found = client.find_coordinator(request).await;
        let asked = pb::FetchOffsetsRequest { group: group.to_owned(), ..Default::default() };
        let status = match (found, client.fetch_offsets(asked).await) {
            (Ok(found), Ok(_)) => return assert_eq!(found.into_inner().broker_id, 1),
            (Err(status), _) | (_, Err(status)) => status,
        };
        assert!(reason(&status).2, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("group {group} has no coordinator");
}

/// Joins for the first time: with the id that the refusal names.
async fn join_first(client: &mut GroupsClient<Channel>) -> pb::JoinReply {
    await_coordinator(client, "g").await;
    let refused = client.join(join_request("")).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "MEMBER_ID_REQUIRED".to_owned(), false));
    let member_id = refused.get_error_details().error_info().unwrap().metadata["member_id"].clone();
    client.join(join_request(&member_id)).await.unwrap().into_inner()
}

fn sync_request(joined: &pb::JoinReply, assignments: Vec<(&str, Bytes)>) -> pb::SyncRequest {
    let assignments = assignments
        .into_iter()
        .map(|(member_id, assignment)| pb::MemberAssignment { member_id: member_id.to_owned(), assignment });
    pb::SyncRequest {
        group: "g".to_owned(),
        member_id: joined.member_id.clone(),
        generation: joined.generation,
        protocol_type: "consumer".to_owned(),
        protocol: joined.protocol.clone(),
        assignments: assignments.collect(),
        ..Default::default()
    }
}

fn heartbeat(joined: &pb::JoinReply) -> pb::HeartbeatRequest {
    pb::HeartbeatRequest {
        group: "g".to_owned(),
        member_id: joined.member_id.clone(),
        generation: joined.generation,
        ..Default::default()
    }
}

/// What the Kafka member does: joins, is told, and then comes back when it is asked to.
fn kafka_join(client: &mut Client, member_id: &str) -> (String, i32, String) {
    let metadata = subscription();
    let protocol = JoinGroupRequestProtocol { name: "range", metadata: &metadata };
    let request = JoinGroupRequest {
        group_id: "g",
        session_timeout_ms: 20_000,
        rebalance_timeout_ms: 20_000,
        member_id,
        protocol_type: "consumer",
        protocols: vec![protocol],
        ..Default::default()
    };
    let response = client.ask(ApiKey::JoinGroup, 3, &request);
    let joined: JoinGroupResponse<'_> = response.message();
    assert_eq!(joined.error_code, 0);
    (joined.member_id.to_owned(), joined.generation_id, joined.leader.to_owned())
}

fn kafka_sync(client: &mut Client, member_id: &str, generation: i32) -> Vec<i32> {
    let request =
        SyncGroupRequest { group_id: "g", generation_id: generation, member_id, ..Default::default() };
    let response = client.ask(ApiKey::SyncGroup, 3, &request);
    let synced: SyncGroupResponse<'_> = response.message();
    assert_eq!(synced.error_code, 0);
    assigned(synced.assignment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_has_members_of_both_doors() {
    let broker = broker(&[]);
    topic(&broker, "shared", 4, &[]).await;
    let mut client = groups(&broker).await;
    let alone = join_first(&mut client).await;
    assert_eq!(alone.leader_id, alone.member_id);
    let everything = sync_request(&alone, vec![(&alone.member_id, assignment(&[0, 1, 2, 3]))]);
    let synced = client.sync(everything).await.unwrap().into_inner();
    assert_eq!(assigned(&synced.assignment), [0, 1, 2, 3]);
    client.heartbeat(heartbeat(&alone)).await.unwrap();

    // One comes by the other door: it waits until the first has come back.
    let mut kafka = Client::connect(&broker);
    let other = tokio::task::spawn_blocking(move || {
        let joined = kafka_join(&mut kafka, "");
        (kafka, joined)
    });
    let asked_to_come_back = async {
        loop {
            match client.heartbeat(heartbeat(&alone)).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, asked_to_come_back).await.expect("nobody asks it back");
    assert_eq!(reason(&status), (Code::Aborted, "REBALANCE_IN_PROGRESS".to_owned(), false));
    let together = client.join(join_request(&alone.member_id)).await.unwrap().into_inner();
    let (mut kafka, (kafka_id, generation, leader)) = other.await.unwrap();
    assert_eq!((generation, &leader), (together.generation, &together.member_id));
    assert_eq!(together.members.len(), 2);
    let halves = vec![(&*together.member_id, assignment(&[0, 1])), (&*kafka_id, assignment(&[2, 3]))];
    let mine = client.sync(sync_request(&together, halves)).await.unwrap().into_inner();
    assert_eq!(assigned(&mine.assignment), [0, 1]);
    let id = kafka_id.clone();
    let (theirs, mut kafka) =
        tokio::task::spawn_blocking(move || (kafka_sync(&mut kafka, &id, generation), kafka)).await.unwrap();
    assert_eq!(theirs, [2, 3]);

    let request = pb::DescribeGroupRequest { group: "g".to_owned() };
    let told = client.describe_group(request).await.unwrap().into_inner();
    assert_eq!((&*told.state, &*told.protocol, told.members.len()), ("Stable", "range", 2));
    let of = |client_id: &str| {
        let member = told.members.iter().find(|member| member.client_id == client_id).unwrap();
        member.partitions.iter().map(|p| p.partition).collect::<Vec<_>>()
    };
    assert_eq!((of("grpc"), of("kafka")), (vec![0, 1], vec![2, 3]));

    // It goes, and the other is asked to come back.
    let leave = pb::LeaveRequest { group: "g".to_owned(), member_id: together.member_id, instance_id: None };
    client.leave(leave).await.unwrap();
    let request = HeartbeatRequest {
        group_id: "g",
        generation_id: generation,
        member_id: &kafka_id,
        ..Default::default()
    };
    let response = kafka.ask(ApiKey::Heartbeat, 3, &request);
    assert_eq!(response.message::<HeartbeatResponse>().error_code, REBALANCE_IN_PROGRESS);
    let (_, next, leader) = kafka_join(&mut kafka, &kafka_id);
    assert_eq!((next, leader), (generation + 1, kafka_id));
}

#[tokio::test]
async fn offsets_are_kept_and_lag_is_told() {
    let broker = broker(&[]);
    topic(&broker, "t", 2, &[]).await;
    let sent = (0..10).map(|n| record(None, &n.to_string())).collect();
    data(&broker).await.append(records("t", Some(0), sent)).await.unwrap();
    let mut client = groups(&broker).await;
    let group = || "reader".to_owned();
    await_coordinator(&mut client, "reader").await;
    let offset = |topic: &str, partition, offset| pb::OffsetToCommit {
        topic: topic.to_owned(),
        partition,
        offset,
        leader_epoch: None,
        metadata: "here".to_owned(),
    };
    let request = pb::CommitOffsetsRequest {
        group: group(),
        generation: -1,
        offsets: vec![offset("t", 0, 4), offset("missing", 0, 1), offset("t", 1, -7)],
        ..Default::default()
    };
    let reply = client.commit_offsets(request).await.unwrap().into_inner();
    assert_eq!(reply.outcomes[0].error, None);
    assert_eq!(reply.outcomes[1].error.as_ref().unwrap().reason, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(reply.outcomes[2].error.as_ref().unwrap().reason, "INVALID_REQUEST");

    let at = |partition| pb::TopicPartition { topic: "t".to_owned(), partition };
    for (partitions, expected) in [(vec![], vec![Some(4)]), (vec![at(0), at(1)], vec![Some(4), None])] {
        let request = pb::FetchOffsetsRequest { group: group(), partitions, ..Default::default() };
        let reply = client.fetch_offsets(request).await.unwrap().into_inner();
        assert_eq!(reply.offsets.iter().map(|o| o.offset).collect::<Vec<_>>(), expected);
        assert_eq!((&*reply.offsets[0].metadata, &reply.offsets[0].error), ("here", &None));
    }
    let told = client.describe_group(pb::DescribeGroupRequest { group: group() }).await.unwrap().into_inner();
    let [lag] = &told.offsets[..] else { panic!("{told:?}") };
    assert_eq!((lag.committed, lag.end, lag.lag), (Some(4), Some(10), Some(6)));
    assert_eq!(told.state, "Empty");
    let all = client.list_groups(pb::ListGroupsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.groups.iter().map(|g| &*g.group).collect::<Vec<_>>(), ["reader"]);
    let stable = pb::ListGroupsRequest { states: vec!["Stable".to_owned()] };
    assert!(client.list_groups(stable).await.unwrap().into_inner().groups.is_empty());

    let request = pb::DeleteOffsetsRequest { group: group(), partitions: vec![at(0), at(9)] };
    let reply = client.delete_offsets(request).await.unwrap().into_inner();
    assert_eq!(reply.outcomes[0].error, None);
    assert!(reply.outcomes[1].error.is_some());
    let commit = pb::CommitOffsetsRequest {
        group: group(),
        generation: -1,
        offsets: vec![offset("t", 1, 0)],
        ..Default::default()
    };
    client.commit_offsets(commit).await.unwrap();
    let request = pb::DeleteGroupsRequest { groups: vec![group(), "none".to_owned()] };
    let reply = client.delete_groups(request).await.unwrap().into_inner();
    assert_eq!(reply.outcomes[0].error, None);
    assert_eq!(reply.outcomes[1].error.as_ref().unwrap().reason, "GROUP_ID_NOT_FOUND");
    let gone = client.describe_group(pb::DescribeGroupRequest { group: group() }).await.unwrap_err();
    assert_eq!(reason(&gone), (Code::NotFound, "GROUP_ID_NOT_FOUND".to_owned(), false));
}

#[tokio::test]
async fn a_member_that_waits_does_not_keep_the_broker_from_stopping() {
    let broker = broker(&[("group.initial.rebalance.delay.ms", "60000")]);
    let mut client = groups(&broker).await;
    await_coordinator(&mut client, "g").await;
    let refused = client.join(join_request("")).await.unwrap_err();
    let member_id = refused.get_error_details().error_info().unwrap().metadata["member_id"].clone();
    let mut joining = client.clone();
    let waiting = tokio::spawn(async move { joining.join(join_request(&member_id)).await });
    let is_waiting = async {
        let request = || pb::DescribeGroupRequest { group: "g".to_owned() };
        while client.describe_group(request()).await.unwrap().into_inner().members.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_waiting).await.expect("it is no member");
    stop(broker).await;
    let status = waiting.await.unwrap().unwrap_err();
    let (code, _, is_retryable) = reason(&status);
    assert_eq!((code, is_retryable), (Code::Unavailable, true));
}
