//! A partition whose log cannot be opened: everybody who asks how the broker is hears of it.
#![allow(clippy::disallowed_methods, reason = "the test breaks files behind the broker's back")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_proto::kafka::ApiKey;
use floodmark_proto::kafka::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicRequest,
};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataResponse};
use floodmark_proto::pb::v1 as pb;

use crate::kafka;
use crate::setup::{PATIENCE, admin, data, record, records, stop, topic};

const LEADER_NOT_AVAILABLE: i16 = 5;

fn get(broker: &Broker, path: &str) -> String {
    let mut socket = TcpStream::connect(broker.http_address().unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_partition_that_cannot_be_opened_is_told_by_everything_that_is_asked() {
    let mut config = BrokerConfig::temporary().unwrap();
    config.set("http.listen", "127.0.0.1:0").unwrap();
    let first = Broker::start(config.clone()).unwrap();
    topic(&first, "t", 2, &[]).await;
    data(&first).await.append(records("t", Some(1), vec![record(None, "v")])).await.unwrap();
    assert!(get(&first, "/readyz").starts_with("HTTP/1.1 200"));
    stop(first).await;
    let log = config.data_dirs[0].join("logs/t-1/00000000000000000000.log");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();

    let broker = Broker::start(config).unwrap();
    let ready = get(&broker, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("cannot use partition t-1: "), "{ready}");
    let metrics = get(&broker, "/metrics");
    assert!(metrics.contains("floodmark_partitions{state=\"stopped\"} 1"), "{metrics}");

    let mut client = admin(&broker).await;
    let status = client.cluster_status(pb::ClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.brokers[0].replicas_failed, Some(1));
    assert!(status.brokers[0].failure.starts_with("partition t-1: "), "{status:?}");
    let at = |partition| pb::TopicPartition { topic: "t".to_owned(), partition };
    let asked = pb::DescribeOffsetsRequest { partitions: vec![at(0), at(1)], ..Default::default() };
    let told = client.describe_offsets(asked).await.unwrap().into_inner().partitions;
    assert_eq!(told[0].error, None);
    let message = &told[1].error.as_ref().unwrap().message;
    assert!(message.contains("cannot use partition t-1: "), "{message}");

    let asked = MetadataRequest { topics: None, ..Default::default() };
    let mut kafka = kafka::Client::connect(&broker);
    let answer = kafka.ask(ApiKey::Metadata, 9, &asked);
    let told: MetadataResponse<'_> = answer.message();
    let found = told.topics.iter().find(|topic| topic.name == Some("t")).unwrap();
    let leaders: Vec<_> = found
        .partitions
        .iter()
        .map(|p| (p.partition_index, p.error_code, p.leader_id, p.offline_replicas.clone()))
        .collect();
    assert_eq!(leaders, [(0, 0, 1, vec![]), (1, LEADER_NOT_AVAILABLE, -1, vec![1])]);

    let asked = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "t" }],
        response_partition_limit: 10,
        ..Default::default()
    };
    let answer = kafka.ask(ApiKey::DescribeTopicPartitions, 0, &asked);
    let told: DescribeTopicPartitionsResponse<'_> = answer.message();
    let described: Vec<_> = told.topics[0]
        .partitions
        .iter()
        .map(|p| (p.partition_index, p.error_code, p.leader_id, p.offline_replicas.clone()))
        .collect();
    assert_eq!(described, leaders);
    stop(broker).await;
}
