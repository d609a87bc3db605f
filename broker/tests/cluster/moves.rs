//! What Kafka's tools do with a cluster: leaders elected, partitions moved, brokers forgotten.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignableTopic,
};
use floodmark_proto::kafka::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, TopicPartitions,
};
use floodmark_proto::kafka::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use floodmark_proto::kafka::messages::unregister_broker::{
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};

use crate::kafka_client::batch;
use crate::setup::Three;

/// Asks for a partition of "t" to lie on these brokers; none ends its move.
fn reassign(three: &Three, partition: i32, replicas: Option<Vec<i32>>, may_differ: bool) -> i16 {
    let partitions = vec![ReassignablePartition { partition_index: partition, replicas }];
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: 30_000,
        allow_replication_factor_change: may_differ,
        topics: vec![ReassignableTopic { name: "t", partitions }],
    };
    let answer = three.kafka(1).ask(1, &request).unwrap();
    let response = answer.read::<AlterPartitionReassignmentsResponse<'_>>();
    assert_eq!(response.error_code, 0);
    response.responses[0].partitions[0].error_code
}

fn moving(three: &Three) -> usize {
    let request = ListPartitionReassignmentsRequest { timeout_ms: 30_000, topics: None };
    let answer = three.kafka(2).ask(0, &request).unwrap();
    let response = answer.read::<ListPartitionReassignmentsResponse<'_>>();
    assert_eq!(response.error_code, 0);
    response.topics.iter().map(|topic| topic.partitions.len()).sum()
}

#[test]
fn partitions_move_by_kafkas_own_request_with_their_records() {
    let three = Three::start();
    let leader = three.topic(1, "t", 1)[0];
    assert_eq!(three.kafka(leader).produce("t", 0, -1, &batch(&[b"a", b"b"])).unwrap().error_code, 0);
    let to = leader % 3 + 1;
    let code = |code: ErrorCode| code.code();
    assert_eq!(reassign(&three, 0, None, true), code(ErrorCode::NoReassignmentInProgress));
    assert_eq!(reassign(&three, 9, Some(vec![to]), true), code(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(reassign(&three, 0, Some(vec![to, to]), true), code(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(reassign(&three, 0, Some(vec![to]), false), code(ErrorCode::InvalidReplicationFactor));
    assert_eq!(reassign(&three, 0, Some(vec![to]), true), 0);
    three.until("the move is over", || {
        let metadata = three.metadata(1, &["t"]);
        let partition = &metadata.partitions[&("t".to_owned(), 0)];
        (partition.replica_nodes == [to] && partition.leader_id == to && moving(&three) == 0).then_some(())
    });
    assert_eq!(three.leader("t", 0), to);
    three.is_served(to, "t", 0);
    let read = three.kafka(to).read_from("t", 0, 0).unwrap();
    assert_eq!(read, [(0, b"a".to_vec()), (1, b"b".to_vec())]);
}

#[test]
fn preferred_leaders_come_back_when_they_are_asked_for() {
    let mut three = Three::start();
    let preferred = three.topic(1, "t", 1)[0];
    let other = preferred % 3 + 1;
    let elect = |three: &Three, partition: i32| {
        let named = TopicPartitions { topic: "t", partitions: vec![partition] };
        let request =
            ElectLeadersRequest { election_type: 0, topic_partitions: Some(vec![named]), timeout_ms: 30_000 };
        let answer = three.kafka(other).ask(2, &request).unwrap();
        let response = answer.read::<ElectLeadersResponse<'_>>();
        assert_eq!(response.error_code, 0);
        response.replica_election_results[0].partition_result[0].error_code
    };
    assert_eq!(elect(&three, 0), ErrorCode::ElectionNotNeeded.code());
    assert_eq!(elect(&three, 7), ErrorCode::UnknownTopicOrPartition.code());
    three.drop_broker(preferred);
    three.leader_after(preferred, "t", 0);
    assert_eq!(elect(&three, 0), ErrorCode::PreferredLeaderNotAvailable.code());
    three.start_again(preferred);
    three
        .until("it is in sync and leads again once it is asked to", || (elect(&three, 0) == 0).then_some(()));
    three.until("all know it", || (three.leader("t", 0) == preferred).then_some(()));
    // Whoever serves is not forgotten.
    let answer = three.kafka(other).ask(0, &UnregisterBrokerRequest { broker_id: preferred }).unwrap();
    let response = answer.read::<UnregisterBrokerResponse<'_>>();
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    assert!(response.error_message.is_some());
}
