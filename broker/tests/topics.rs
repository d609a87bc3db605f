//! Topics and their settings as clients see them, over a socket: made, told of, extended, changed, removed.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::alter_configs;
use floodmark_proto::kafka::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use floodmark_proto::kafka::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest, CreateTopicsResponse,
};
use floodmark_proto::kafka::messages::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use floodmark_proto::kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use floodmark_proto::kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};

use kafka_client::{FetchOf, Kafka, batch};
use wire::broker;

use ErrorCode::{
    InvalidConfig, InvalidPartitions, InvalidReplicaAssignment, InvalidReplicationFactor, InvalidRequest,
    InvalidTopicException, None as Well, PolicyViolation, TopicAlreadyExists, UnknownTopicId,
    UnknownTopicOrPartition,
};

const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap()
}

fn create(kafka: &mut Kafka, topic: CreatableTopic<'_>) -> ErrorCode {
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let answer = kafka.ask(7, &request).unwrap();
    code(answer.read::<CreateTopicsResponse<'_>>().topics[0].error_code)
}

fn topic(name: &str) -> CreatableTopic<'_> {
    CreatableTopic { name, num_partitions: 1, replication_factor: 1, ..Default::default() }
}

/// Code, id and number of partitions, by name or id.
fn described(kafka: &mut Kafka, name: Option<&str>, topic_id: [u8; 16]) -> (ErrorCode, [u8; 16], usize) {
    let topics = Some(vec![MetadataRequestTopic { name, topic_id }]);
    let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
    let answer = kafka.ask(12, &request).unwrap();
    let topic = &answer.read::<MetadataResponse<'_>>().topics[0];
    (code(topic.error_code), topic.topic_id, topic.partitions.len())
}

#[test]
fn names_that_no_topic_can_have_are_refused() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    let long = "a".repeat(249);
    let too_long = "a".repeat(250);
    let enormous = "a".repeat(32_000);
    let bad = [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "../a",
        "%2e",
        "a\0b",
        "a b",
        "a:b",
        "a\\b",
        "a\nb",
        "ä",
        "аdmin",
        "a\u{202e}b",
        &too_long,
        &enormous,
    ];
    for name in bad {
        assert_eq!(create(&mut kafka, topic(name)), InvalidTopicException, "{name:?}");
        assert_eq!(described(&mut kafka, Some(name), [0; 16]).0, InvalidTopicException, "{name:?}");
    }
    for name in [&long, "...", "a", "A", "0", "-", "_", "a-b", "con"] {
        assert_eq!(create(&mut kafka, topic(name)), Well, "{name:?}");
        assert_eq!(create(&mut kafka, topic(name)), TopicAlreadyExists, "{name:?}");
    }
    // Names of metrics would be the same.
    assert_eq!(create(&mut kafka, topic("x.y")), Well);
    assert_eq!(create(&mut kafka, topic("x_y")), InvalidTopicException);
    assert_eq!(kafka.delete_topic("x.y").unwrap(), 0);
    assert_eq!(create(&mut kafka, topic("x_y")), Well);
    // A topic that a client asks for in passing is judged alike.
    let topics =
        ["auto", "../auto", "x.y"].map(|name| MetadataRequestTopic { name: Some(name), topic_id: [0; 16] });
    let request = MetadataRequest {
        topics: Some(topics.to_vec()),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let answer = kafka.ask(12, &request).unwrap();
    let codes: Vec<ErrorCode> =
        answer.read::<MetadataResponse<'_>>().topics.iter().map(|topic| code(topic.error_code)).collect();
    assert_eq!(codes[..2], [Well, InvalidTopicException]);
    assert_ne!(codes[2], Well);
}

#[test]
fn topics_are_made_as_asked_or_not_at_all() {
    let broker = broker(&[("num.partitions", "3")]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    let placed = |all: &[(i32, &[i32])]| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: all
            .iter()
            .map(|(partition_index, brokers)| CreatableReplicaAssignment {
                partition_index: *partition_index,
                broker_ids: brokers.to_vec(),
            })
            .collect(),
        ..topic("t")
    };
    let (partitions, factor) = (
        |num_partitions| CreatableTopic { num_partitions, ..topic("t") },
        |replication_factor| CreatableTopic { replication_factor, ..topic("t") },
    );
    for (what, wanted, expected) in [
        ("no partitions", partitions(0), InvalidPartitions),
        ("-2 partitions", partitions(-2), InvalidPartitions),
        ("2^31-1 partitions", partitions(i32::MAX), PolicyViolation),
        ("no replicas", factor(0), InvalidReplicationFactor),
        ("-2 replicas", factor(-2), InvalidReplicationFactor),
        ("more replicas than brokers", factor(2), InvalidReplicationFactor),
        ("placed with a gap", placed(&[(0, &[1]), (2, &[1])]), InvalidReplicaAssignment),
        ("placed twice", placed(&[(0, &[1]), (0, &[1])]), InvalidReplicaAssignment),
        ("placed nowhere", placed(&[(0, &[])]), InvalidReplicaAssignment),
        ("placed on nobody", placed(&[(0, &[9])]), InvalidReplicaAssignment),
        ("placed on one broker twice", placed(&[(0, &[1, 1])]), InvalidReplicaAssignment),
        ("placed and counted", CreatableTopic { num_partitions: 1, ..placed(&[(0, &[1])]) }, InvalidRequest),
    ] {
        let tried =
            CreateTopicsRequest { topics: vec![wanted.clone()], timeout_ms: 30_000, validate_only: true };
        let answer = kafka.ask(7, &tried).unwrap();
        let told = answer.read::<CreateTopicsResponse<'_>>().topics[0].error_code;
        assert_eq!(code(told), expected, "{what}, only asked");
        assert_eq!(create(&mut kafka, wanted), expected, "{what}");
        assert_eq!(described(&mut kafka, Some("t"), [0; 16]).0, UnknownTopicOrPartition, "{what}");
    }
    let create_with =
        |kafka: &mut Kafka, settings: &[(&str, &str)]| code(kafka.create_topic("t", 1, settings).unwrap());
    for settings in [
        ("no.such.setting", "1"),
        ("retention.ms", "soon"),
        ("segment.bytes", "-1"),
        ("cleanup.policy", "burn"),
    ] {
        assert_eq!(create_with(&mut kafka, &[settings]), InvalidConfig, "{settings:?}");
    }
    // Twice in one request: neither.
    let request = CreateTopicsRequest {
        topics: vec![topic("t"), topic("u"), topic("t")],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let answer = kafka.ask(7, &request).unwrap();
    let codes: Vec<ErrorCode> =
        answer.read::<CreateTopicsResponse<'_>>().topics.iter().map(|t| code(t.error_code)).collect();
    assert_eq!(codes, [InvalidRequest, Well, InvalidRequest]);
    // Only to see what would come of it.
    let request = CreateTopicsRequest { topics: vec![topic("t")], timeout_ms: 30_000, validate_only: true };
    let answer = kafka.ask(7, &request).unwrap();
    assert_eq!(code(answer.read::<CreateTopicsResponse<'_>>().topics[0].error_code), Well);
    assert_eq!(described(&mut kafka, Some("t"), [0; 16]).0, UnknownTopicOrPartition);
    // As the broker has it, and written to at once.
    assert_eq!(
        create(&mut kafka, CreatableTopic { num_partitions: -1, replication_factor: -1, ..topic("t") }),
        Well
    );
    let (_, id, count) = described(&mut kafka, Some("t"), [0; 16]);
    assert_eq!(count, 3);
    assert_eq!(described(&mut kafka, None, id), (Well, id, 3));
    assert_eq!(kafka.produce("t", 2, -1, &batch(&[b"a"])).unwrap().error_code, 0);
}

#[test]
fn a_topic_is_extended_and_never_shrunk() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic("t", 2, &[]).unwrap(), 0);
    let extend = |kafka: &mut Kafka, name, count, brokers: Option<&[i32]>, validate_only| {
        let assignments = brokers
            .map(|ids| ids.iter().map(|id| CreatePartitionsAssignment { broker_ids: vec![*id] }).collect());
        let topics = vec![CreatePartitionsTopic { name, count, assignments }];
        let answer =
            kafka.ask(3, &CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only }).unwrap();
        code(answer.read::<CreatePartitionsResponse<'_>>().results[0].error_code)
    };
    for (name, count, brokers, expected) in [
        ("t", 2, None, InvalidPartitions),
        ("t", 1, None, InvalidPartitions),
        ("t", 0, None, InvalidPartitions),
        ("t", -1, None, InvalidPartitions),
        ("t", i32::MAX, None, PolicyViolation),
        ("t", 3, Some(&[1, 1][..]), InvalidReplicaAssignment),
        ("t", 3, Some(&[9][..]), InvalidReplicaAssignment),
        ("missing", 3, None, UnknownTopicOrPartition),
    ] {
        for validate_only in [true, false] {
            let told = extend(&mut kafka, name, count, brokers, validate_only);
            assert_eq!(told, expected, "{name} to {count}, {brokers:?}, validate_only={validate_only}");
        }
    }
    assert_eq!(extend(&mut kafka, "t", 4, None, true), Well);
    assert_eq!(described(&mut kafka, Some("t"), [0; 16]).2, 2, "it was only asked");
    assert_eq!(
        kafka.produce("t", 3, -1, &batch(&[b"a"])).unwrap().error_code,
        UnknownTopicOrPartition.code()
    );
    assert_eq!(extend(&mut kafka, "t", 4, None, false), Well);
    assert_eq!(kafka.produce("t", 3, -1, &batch(&[b"a"])).unwrap().error_code, 0);
    assert_eq!(extend(&mut kafka, "t", 5, Some(&[1]), false), Well);
    assert_eq!(described(&mut kafka, Some("t"), [0; 16]).2, 5);
}

#[test]
fn a_topic_that_is_made_again_is_another_one() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic("t", 1, &[]).unwrap(), 0);
    let (_, first, _) = described(&mut kafka, Some("t"), [0; 16]);
    assert_eq!(kafka.produce("t", 0, -1, &batch(&[b"old"])).unwrap().error_code, 0);
    let delete = |kafka: &mut Kafka, topics: Vec<DeleteTopicState<'_>>| {
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let answer = kafka.ask(6, &request).unwrap();
        let response = answer.read::<DeleteTopicsResponse<'_>>();
        response.responses.iter().map(|t| code(t.error_code)).collect::<Vec<_>>()
    };
    let named = |name, topic_id| DeleteTopicState { name, topic_id };
    assert_eq!(delete(&mut kafka, vec![named(Some("missing"), [0; 16])]), [UnknownTopicOrPartition]);
    assert_eq!(delete(&mut kafka, vec![named(None, [7; 16])]), [UnknownTopicId]);
    assert_eq!(delete(&mut kafka, vec![named(None, [0; 16])]), [InvalidRequest]);
    assert_eq!(delete(&mut kafka, vec![named(Some("t"), first)]), [InvalidRequest]);
    assert_eq!(delete(&mut kafka, vec![named(Some("t"), [0; 16]), named(None, first)]), [InvalidRequest; 2]);
    assert_eq!(delete(&mut kafka, vec![named(None, first)]), [Well]);
    assert_eq!(delete(&mut kafka, vec![named(None, first)]), [UnknownTopicId]);
    assert_eq!(kafka.fetch(FetchOf::new("t", 0, 0)).unwrap().error_code, UnknownTopicOrPartition.code());
    assert_eq!(kafka.create_topic("t", 1, &[]).unwrap(), 0);
    assert_ne!(described(&mut kafka, Some("t"), [0; 16]).1, first);
    assert_eq!(described(&mut kafka, None, first).0, UnknownTopicId);
    assert_eq!(kafka.read_from("t", 0, 0).unwrap(), []);
    assert_eq!(kafka.produce("t", 0, -1, &batch(&[b"new"])).unwrap().base_offset, 0);
}

/// Value and source of one setting of a topic.
fn setting(kafka: &mut Kafka, topic: &str, name: &str) -> (String, i8) {
    let resource = DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: topic,
        configuration_keys: Some(vec![name]),
    };
    let answer =
        kafka.ask(4, &DescribeConfigsRequest { resources: vec![resource], ..Default::default() }).unwrap();
    let response = answer.read::<DescribeConfigsResponse<'_>>();
    let [entry] = &response.results[0].configs[..] else { panic!("{response:?}") };
    (entry.value.unwrap().to_owned(), entry.config_source)
}

#[test]
fn settings_are_changed_all_or_none_and_take_effect() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    assert_eq!(kafka.create_topic("t", 1, &[("max.message.bytes", "2000")]).unwrap(), 0);
    let change = |kafka: &mut Kafka, name, changes: &[(&str, i8, Option<&str>)], validate_only| {
        let configs = changes.iter().map(|(name, operation, value)| AlterableConfig {
            name,
            config_operation: *operation,
            value: *value,
        });
        let resources = vec![AlterConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: name,
            configs: configs.collect(),
        }];
        let answer = kafka.ask(1, &IncrementalAlterConfigsRequest { resources, validate_only }).unwrap();
        code(answer.read::<IncrementalAlterConfigsResponse<'_>>().responses[0].error_code)
    };
    // Of the topic, and a default.
    assert_eq!(setting(&mut kafka, "t", "max.message.bytes"), ("2000".to_owned(), 1));
    assert_eq!(setting(&mut kafka, "t", "cleanup.policy"), ("delete".to_owned(), 5));
    let large = batch(&[&[7; 3000]]);
    let too_large = ErrorCode::MessageTooLarge.code();
    assert_eq!(kafka.produce("t", 0, -1, &large).unwrap().error_code, too_large);
    for (what, changes, expected) in [
        ("unknown", &[("no.such.setting", SET, Some("1"))][..], InvalidConfig),
        ("of another kind", &[("max.message.bytes", SET, Some("many"))], InvalidConfig),
        ("out of bounds", &[("max.message.bytes", SET, Some("-1"))], InvalidConfig),
        ("null", &[("max.message.bytes", SET, None)], InvalidRequest),
        (
            "good and bad",
            &[("max.message.bytes", SET, Some("9000")), ("retention.ms", SET, Some("x"))],
            InvalidConfig,
        ),
        ("twice", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))], InvalidRequest),
        ("appended to what is no list", &[("retention.ms", APPEND, Some("1"))], InvalidConfig),
        ("an operation that there is not", &[("retention.ms", 9, Some("1"))], InvalidRequest),
    ] {
        assert_eq!(change(&mut kafka, "t", changes, false), expected, "{what}");
        assert_eq!(setting(&mut kafka, "t", "max.message.bytes").0, "2000", "{what}");
    }
    assert_eq!(
        change(&mut kafka, "missing", &[("retention.ms", SET, Some("1"))], false),
        UnknownTopicOrPartition
    );
    let raise = &[("max.message.bytes", SET, Some("9000"))][..];
    assert_eq!(change(&mut kafka, "t", raise, true), Well);
    assert_eq!(kafka.produce("t", 0, -1, &large).unwrap().error_code, too_large, "it was only asked");
    assert_eq!(change(&mut kafka, "t", raise, false), Well);
    assert_eq!(kafka.produce("t", 0, -1, &large).unwrap().error_code, 0);
    assert_eq!(change(&mut kafka, "t", &[("cleanup.policy", APPEND, Some("compact"))], false), Well);
    assert_eq!(setting(&mut kafka, "t", "cleanup.policy"), ("delete,compact".to_owned(), 1));
    assert_eq!(change(&mut kafka, "t", &[("cleanup.policy", SUBTRACT, Some("delete"))], false), Well);
    assert_eq!(setting(&mut kafka, "t", "cleanup.policy").0, "compact");
    assert_eq!(kafka.produce("t", 0, -1, &batch(&[b"no key"])).unwrap().blamed, [0]);
    assert_eq!(change(&mut kafka, "t", &[("cleanup.policy", DELETE, None)], false), Well);
    assert_eq!(setting(&mut kafka, "t", "cleanup.policy"), ("delete".to_owned(), 5));
    // The old request replaces everything.
    let configs = vec![alter_configs::AlterableConfig { name: "retention.ms", value: Some("60000") }];
    let resources = vec![alter_configs::AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: "t",
        configs,
    }];
    let request = alter_configs::AlterConfigsRequest { resources, validate_only: false };
    let answer = kafka.ask(2, &request).unwrap();
    assert_eq!(answer.read::<alter_configs::AlterConfigsResponse<'_>>().responses[0].error_code, 0);
    assert_eq!(setting(&mut kafka, "t", "retention.ms"), ("60000".to_owned(), 1));
    assert_eq!(setting(&mut kafka, "t", "max.message.bytes"), ("1048588".to_owned(), 5));
}
