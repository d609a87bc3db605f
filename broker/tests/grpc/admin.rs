//! Admin: each call, on a broker of its own.

use floodmark_proto::pb::v1 as pb;
use pb::config_change::Change;
use pb::config_resource::Resource;

use crate::setup::{admin, broker, data, groups, reason, record, records, topic};

fn of_topic(name: &str) -> Option<pb::ConfigResource> {
    Some(pb::ConfigResource { resource: Some(Resource::Topic(name.to_owned())) })
}

#[tokio::test]
async fn the_cluster_is_told_with_both_doors() {
    let broker = broker(&[("node.id", "7")]);
    let reply =
        admin(&broker).await.describe_cluster(pb::DescribeClusterRequest {}).await.unwrap().into_inner();
    let [told] = &reply.brokers[..] else { panic!("{reply:?}") };
    assert_eq!((told.broker_id, reply.broker_id, reply.controller_id), (7, 7, Some(7)));
    let (grpc, kafka) = (broker.grpc_address().unwrap(), broker.kafka_address());
    assert_eq!((&*told.host, told.port), ("127.0.0.1", u32::from(grpc.port())));
    assert_eq!((&*told.kafka_host, told.kafka_port), ("127.0.0.1", u32::from(kafka.port())));
    assert!(!told.is_fenced);
    assert_eq!(reply.version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn topics_are_made_told_extended_and_removed() {
    let broker = broker(&[("num.partitions", "3")]);
    let mut client = admin(&broker).await;
    let new = |name: &str, partitions| pb::NewTopic {
        name: name.to_owned(),
        partitions,
        settings: [("retention.ms".to_owned(), "5000".to_owned())].into(),
        ..Default::default()
    };
    let mut request = pb::CreateTopicsRequest {
        topics: vec![new("one", Some(1)), new("three", None), new("a/b", None), new("none", Some(0))],
        validate_only: true,
        ..Default::default()
    };
    for validate_only in [true, false] {
        request.validate_only = validate_only;
        let reply = client.create_topics(request.clone()).await.unwrap().into_inner();
        let told: Vec<_> = reply
            .topics
            .iter()
            .map(|t| (&*t.name, t.partitions, t.error.as_ref().map_or("", |e| &*e.reason)))
            .collect();
        let expected = [
            ("one", 1, ""),
            ("three", 3, ""),
            ("a/b", 0, "INVALID_TOPIC_EXCEPTION"),
            ("none", 0, "INVALID_PARTITIONS"),
        ];
        assert_eq!(told, expected);
        assert_eq!(reply.topics[0].topic_id.len(), 16);
    }
    let again = client.create_topics(request).await.unwrap().into_inner();
    assert_eq!(again.topics[0].error.as_ref().unwrap().reason, "TOPIC_ALREADY_EXISTS");

    let more = pb::ExtendTopicRequest { topic: "one".to_owned(), partitions: 4, ..Default::default() };
    client.extend_topic(more.clone()).await.unwrap();
    let (_, refused, _) = reason(&client.extend_topic(more).await.unwrap_err());
    assert_eq!(refused, "INVALID_PARTITIONS");
    let all = client.describe_topics(pb::DescribeTopicsRequest::default()).await.unwrap().into_inner();
    let told: Vec<_> = all.topics.iter().map(|t| (&*t.name, t.partitions.len(), t.is_internal)).collect();
    assert_eq!(told, [("one", 4, false), ("three", 3, false)]);
    assert_eq!((all.topics[0].partitions[3].leader, all.brokers.len()), (Some(1), 1));

    let topics = vec!["one".to_owned(), "missing".to_owned()];
    let request = pb::DeleteTopicsRequest { topics: topics.clone(), ..Default::default() };
    let reply = client.delete_topics(request).await.unwrap().into_inner();
    assert_eq!(reply.outcomes[0].error, None);
    assert_eq!(reply.outcomes[1].error.as_ref().unwrap().reason, "UNKNOWN_TOPIC_OR_PARTITION");
    let request = pb::DescribeTopicsRequest { topics, ..Default::default() };
    let reply = client.describe_topics(request).await.unwrap().into_inner();
    assert!(reply.topics.iter().all(|t| t.error.as_ref().unwrap().code == 3));
}

#[tokio::test]
async fn settings_are_told_and_changed() {
    let broker = broker(&[]);
    topic(&broker, "t", 1, &[]).await;
    let mut client = admin(&broker).await;
    let change = |name: &str, change| pb::ConfigChange { name: name.to_owned(), change: Some(change) };
    for (changes, expected) in [
        (vec![change("retention.ms", Change::Set("1000".to_owned()))], ("1000", "topic")),
        (vec![change("cleanup.policy", Change::Append("compact".to_owned()))], ("1000", "topic")),
        (vec![change("retention.ms", Change::Remove(true))], ("604800000", "default")),
    ] {
        let request = pb::AlterConfigsRequest { resource: of_topic("t"), changes, ..Default::default() };
        client.alter_configs(request).await.unwrap();
        let names = vec!["retention.ms".to_owned()];
        let request = pb::DescribeConfigsRequest { resource: of_topic("t"), names };
        let reply = client.describe_configs(request).await.unwrap().into_inner();
        assert_eq!((&*reply.entries[0].value, &*reply.entries[0].source), expected);
        assert!(!reply.entries[0].documentation.is_empty());
    }
    let bad = pb::AlterConfigsRequest {
        resource: of_topic("t"),
        changes: vec![change("retention.ms", Change::Set("soon".to_owned()))],
        ..Default::default()
    };
    assert_eq!(reason(&client.alter_configs(bad).await.unwrap_err()).1, "INVALID_CONFIG");
    let misspelt = pb::AlterConfigsRequest {
        resource: of_topic("t"),
        changes: vec![change("retention.mss", Change::Remove(true))],
        ..Default::default()
    };
    let refused = client.alter_configs(misspelt).await.unwrap_err();
    assert_eq!(reason(&refused).1, "INVALID_CONFIG");
    assert!(refused.message().contains("retention.ms?"), "{refused:?}");
    let resource = Some(pb::ConfigResource { resource: Some(Resource::BrokerId(1)) });
    let request = pb::DescribeConfigsRequest { resource, names: vec!["node.id".to_owned()] };
    let reply = client.describe_configs(request).await.unwrap().into_inner();
    assert_eq!((&*reply.entries[0].value, reply.entries[0].is_read_only), ("1", true));
}

#[tokio::test]
async fn offsets_sizes_and_producers_are_told_and_records_removed() {
    let broker = broker(&[]);
    topic(&broker, "t", 1, &[]).await;
    let mut client = admin(&broker).await;
    for n in 0..5 {
        let sent = pb::Record { timestamp_ms: Some(n * 100), ..record(None, "v") };
        data(&broker).await.append(records("t", Some(0), vec![sent])).await.unwrap();
    }
    let at = |partition| pb::TopicPartition { topic: "t".to_owned(), partition };
    let request = pb::DescribeOffsetsRequest { partitions: vec![at(0), at(9)], timestamp_ms: Some(150) };
    let reply = client.describe_offsets(request).await.unwrap().into_inner();
    let told = &reply.partitions[0];
    assert_eq!((told.start, told.last_stable, told.high_watermark, told.end), (0, 5, 5, 5));
    assert_eq!((told.at_offset, told.at_timestamp_ms), (Some(2), Some(200)));
    assert!(told.size_bytes > 0);
    assert_eq!(reply.partitions[1].error.as_ref().unwrap().code, 3);

    let before = pb::DeleteBefore { topic: "t".to_owned(), partition: 0, before: Some(3) };
    let beyond = pb::DeleteBefore { before: Some(100), ..before.clone() };
    let all = pb::DeleteBefore { before: None, ..before.clone() };
    let request = pb::DeleteRecordsRequest { partitions: vec![before, beyond, all], ..Default::default() };
    let reply = client.delete_records(request).await.unwrap().into_inner();
    assert_eq!(reply.partitions.iter().map(|p| p.start).collect::<Vec<_>>(), [3, 0, 5]);
    assert_eq!(reply.partitions[1].error.as_ref().unwrap().reason, "OFFSET_OUT_OF_RANGE");

    let reply = client.describe_log_dirs(pb::DescribeLogDirsRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.dirs[0].partitions[0].topic, "t");
    assert!(reply.dirs[0].available_bytes.is_some());
    let request = pb::DescribeProducersRequest { partitions: vec![at(0), at(1)] };
    let reply = client.describe_producers(request).await.unwrap().into_inner();
    assert_eq!((reply.partitions[0].producers.len(), &reply.partitions[0].error), (0, &None));
    assert!(reply.partitions[1].error.is_some());
}

#[tokio::test]
async fn a_cluster_of_one_is_told_and_refuses_what_needs_more() {
    let broker = broker(&[("node.id", "7"), ("broker.rack", "a")]);
    topic(&broker, "t", 2, &[]).await;
    let mut client = admin(&broker).await;
    let status = client.cluster_status(pb::ClusterStatusRequest {}).await.unwrap().into_inner();
    let [told] = &status.brokers[..] else { panic!("{status:?}") };
    assert_eq!((told.leaders, told.replicas, told.replicas_behind, told.is_stopping), (2, 2, 0, false));
    assert_eq!(told.broker.as_ref().unwrap().rack.as_deref(), Some("a"));
    let counts = status.partitions.unwrap();
    assert_eq!((counts.all, counts.offline, counts.under_replicated, counts.moving), (2, 0, 0, 0));
    let quorum = status.quorum.unwrap();
    assert_eq!(quorum.leader, Some(7));
    assert_eq!(quorum.members.iter().map(|m| (m.broker_id, m.is_voter)).collect::<Vec<_>>(), [(7, true)]);
    assert_eq!(quorum.members[0].matched_index, quorum.last_index);

    let to = |replicas: Vec<i32>| pb::MovePartitionsRequest {
        goal: Some(pb::move_partitions_request::Goal::To(pb::Targets {
            targets: vec![pb::Target { topic: "t".to_owned(), partition: 1, replicas }],
        })),
        ..Default::default()
    };
    let moved = client.move_partitions(to(vec![7])).await.unwrap().into_inner().moves;
    assert_eq!((&moved[0].from, &moved[0].error), (&vec![7], &None));
    let moved = client.move_partitions(to(vec![8])).await.unwrap().into_inner().moves;
    assert_eq!(moved[0].error.as_ref().unwrap().reason, "INVALID_REPLICA_ASSIGNMENT");
    assert!(client.list_moves(pb::ListMovesRequest {}).await.unwrap().into_inner().moves.is_empty());
    let cancel = pb::CancelMovesRequest {
        partitions: vec![pb::TopicPartition { topic: "t".to_owned(), partition: 0 }],
        ..Default::default()
    };
    let cancelled = client.cancel_moves(cancel).await.unwrap().into_inner().moves;
    assert_eq!(cancelled[0].error.as_ref().unwrap().reason, "NO_REASSIGNMENT_IN_PROGRESS");
    let away = pb::MovePartitionsRequest {
        goal: Some(pb::move_partitions_request::Goal::AwayFrom(7)),
        ..Default::default()
    };
    assert_eq!(reason(&client.move_partitions(away).await.unwrap_err()).1, "INVALID_REPLICA_ASSIGNMENT");

    let place = pb::TopicPartition { topic: "t".to_owned(), partition: 0 };
    let elect = |kind: pb::ElectionKind, partitions: Vec<pb::TopicPartition>| pb::ElectLeadersRequest {
        kind: kind.into(),
        partitions,
        accept_data_loss: true,
        ..Default::default()
    };
    let all = elect(pb::ElectionKind::ElectionPreferred, Vec::new());
    assert!(client.elect_leaders(all).await.unwrap().into_inner().elections.is_empty());
    let one = elect(pb::ElectionKind::ElectionUnclean, vec![place]);
    let elected = client.elect_leaders(one).await.unwrap().into_inner().elections;
    assert_eq!((elected[0].leader, &elected[0].in_sync), (Some(7), &vec![7]));
    assert_eq!(elected[0].error.as_ref().unwrap().reason, "ELECTION_NOT_NEEDED");
    let nowhere = pb::TopicPartition { topic: "missing".to_owned(), partition: 3 };
    for kind in [pb::ElectionKind::ElectionPreferred, pb::ElectionKind::ElectionUnclean] {
        let reply = client.elect_leaders(elect(kind, vec![nowhere.clone()])).await.unwrap().into_inner();
        let message = &reply.elections[0].error.as_ref().unwrap().message;
        assert_eq!(message, "missing-3: there is no such topic");
    }
    let nameless = elect(pb::ElectionKind::ElectionUnclean, Vec::new());
    assert_eq!(reason(&client.elect_leaders(nameless).await.unwrap_err()).1, "INVALID_REQUEST");

    let voters = pb::ChangeVotersRequest { voters: vec![7, 8, 9], ..Default::default() };
    assert_eq!(reason(&client.change_voters(voters).await.unwrap_err()).1, "INVALID_REQUEST");
    let remove = pb::RemoveBrokerRequest { broker_id: 7, ..Default::default() };
    assert_eq!(reason(&client.remove_broker(remove).await.unwrap_err()).1, "INVALID_REQUEST");
    let level = pb::SetFeatureLevelRequest { level: 60_000, timeout_ms: 0 };
    let invalid = (tonic::Code::InvalidArgument, "INVALID_UPDATE_VERSION".to_owned(), false);
    assert_eq!(reason(&client.set_feature_level(level).await.unwrap_err()), invalid);
    for level in [0, 999] {
        let level = pb::SetFeatureLevelRequest { level, timeout_ms: 0 };
        assert_eq!(reason(&client.set_feature_level(level).await.unwrap_err()), invalid);
    }
    let unknown = pb::RemoveBrokerRequest { broker_id: 9, ..Default::default() };
    let not_found = (tonic::Code::NotFound, "BROKER_ID_NOT_REGISTERED".to_owned(), false);
    assert_eq!(reason(&client.remove_broker(unknown).await.unwrap_err()), not_found);
}

#[tokio::test]
async fn a_topic_that_is_named_often_is_told_once_and_lists_end_somewhere() {
    let broker = broker(&[]);
    topic(&broker, "t", 1, &[]).await;
    let mut client = admin(&broker).await;
    let named = |names: &[&str], times: usize| {
        let topics = names.iter().cycle().take(names.len() * times).map(|name| (*name).to_owned());
        pb::DescribeTopicsRequest { topics: topics.collect(), ..Default::default() }
    };
    let told = client.describe_topics(named(&["t", "missing"], 5_000)).await.unwrap().into_inner().topics;
    assert_eq!(told.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["t", "missing"]);
    let refused = client.describe_topics(named(&["t"], 10_001)).await.unwrap_err();
    let too_many = (tonic::Code::InvalidArgument, "TOO_MANY_ENTRIES".to_owned(), false);
    assert_eq!(reason(&refused), too_many);
    assert!(refused.message().contains("topics") && refused.message().contains("10000"), "{refused:?}");
    // As many as may be are answered, one by one.
    let partitions = vec![pb::TopicPartition { topic: "t".to_owned(), partition: 0 }; 10_000];
    let request = pb::DescribeProducersRequest { partitions };
    let told = client.describe_producers(request).await.unwrap().into_inner().partitions;
    assert!(told.len() == 10_000 && told.iter().all(|partition| partition.error.is_none()));
}

#[tokio::test]
async fn what_keeps_the_offsets_of_groups_stays() {
    let broker = broker(&[]);
    let internal = "__consumer_offsets";
    let find = pb::FindCoordinatorRequest { group: "g".to_owned() };
    groups(&broker).await.find_coordinator(find).await.unwrap();
    let mut client = admin(&broker).await;
    let delete = pb::DeleteTopicsRequest { topics: vec![internal.to_owned()], ..Default::default() };
    let refused = client.delete_topics(delete).await.unwrap().into_inner().outcomes;
    assert_eq!(refused[0].error.as_ref().unwrap().reason, "INVALID_TOPIC_EXCEPTION");
    let more = pb::ExtendTopicRequest { topic: internal.to_owned(), partitions: 9, ..Default::default() };
    assert_eq!(reason(&client.extend_topic(more).await.unwrap_err()).1, "INVALID_TOPIC_EXCEPTION");
    let changes = |name: &str, change| pb::AlterConfigsRequest {
        resource: of_topic(internal),
        changes: vec![pb::ConfigChange { name: name.to_owned(), change: Some(change) }],
        ..Default::default()
    };
    for change in
        [Change::Remove(true), Change::Set("delete".to_owned()), Change::Append("delete".to_owned())]
    {
        let refused = client.alter_configs(changes("cleanup.policy", change)).await.unwrap_err();
        assert_eq!(reason(&refused).1, "INVALID_CONFIG");
    }
    client.alter_configs(changes("segment.bytes", Change::Set("1048576".to_owned()))).await.unwrap();
}
