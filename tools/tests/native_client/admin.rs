//! Topics, settings, offsets, the cluster.

use floodmark_client::admin::{ConfigChange, ConfigResource, NewTopic};
use floodmark_client::{Client, ClientConfig, Error, TopicPartition};

use super::{Served, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_described_changed_and_deleted() {
    let served = Served::start().await;
    let admin = served.client.admin();
    let cluster = admin.cluster().await.unwrap();
    assert_eq!(cluster.brokers.len(), 1);
    assert!(!cluster.id.is_empty());
    let topic = NewTopic::new("t").partitions(3).setting("retention.ms", "1234567");
    assert_eq!(admin.check_new_topic(topic.clone()).await.unwrap().partitions, 3);
    assert_eq!(admin.topics().await.unwrap(), []);
    assert_eq!(admin.create_topic(topic.clone()).await.unwrap().partitions, 3);
    let again = admin.create_topic(topic).await.unwrap_err();
    assert_eq!(again.code().map(|code| code.name()), Some("TOPIC_ALREADY_EXISTS"));
    assert!(!again.is_retryable());
    let described = admin.topic("t").await.unwrap();
    assert_eq!(
        described.partitions.iter().map(|partition| partition.leader).collect::<Vec<_>>(),
        [Some(cluster.answered_by); 3]
    );
    admin.extend_topic("t", 5).await.unwrap();
    assert_eq!(served.client.partition_count("t").await.unwrap(), 5);
    let of_topic = ConfigResource::Topic("t".to_owned());
    let change = ConfigChange::Set("retention.ms".to_owned(), "7654321".to_owned());
    admin.alter_settings(of_topic.clone(), vec![change]).await.unwrap();
    let settings = admin.settings(of_topic, &["retention.ms"]).await.unwrap();
    assert_eq!(settings[0].value, "7654321");
    admin.delete_topic("t").await.unwrap();
    let gone = admin.topic("t").await.unwrap_err();
    assert_eq!(gone.code().map(|code| code.name()), Some("UNKNOWN_TOPIC_OR_PARTITION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_times_removals_sizes_and_producers() {
    let served = Served::start().await;
    let admin = served.client.admin();
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 100)).await;
    let partition = TopicPartition::new("t", 0);
    let offsets = admin.offsets(&partition, Some(0)).await.unwrap();
    assert_eq!((offsets.start, offsets.high_watermark, offsets.end), (0, 100, 100));
    assert_eq!(offsets.at.map(|(offset, _)| offset), Some(0));
    let later = admin.offsets(&partition, Some(i64::MAX)).await.unwrap();
    assert_eq!(later.at, None);
    assert_eq!(admin.delete_records(&partition, Some(40)).await.unwrap(), 40);
    assert_eq!(admin.offsets(&partition, None).await.unwrap().start, 40);
    let producers = admin.producers(&partition).await.unwrap();
    assert_eq!(producers.iter().map(|producer| producer.last_sequence).collect::<Vec<_>>(), [Some(99)]);
    let dirs = admin.log_dirs().await.unwrap();
    let sizes = dirs.values().flatten().flat_map(|dir| &dir.partitions);
    assert!(sizes.into_iter().any(|size| size.topic == "t" && size.size_bytes > 0));
    assert!(admin.offsets(&TopicPartition::new("t", 7), None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_of_several_is_enough_and_none_is_told() {
    let served = Served::start().await;
    let address = served.client.config().bootstrap[0].clone();
    let settings = ClientConfig::new(["127.0.0.1:1".to_owned(), address]);
    assert!(Client::with(settings).await.unwrap().admin().topics().await.is_ok());
    let mut settings = ClientConfig::new(["127.0.0.1:1"]);
    settings.operation_timeout = std::time::Duration::from_millis(300);
    let error = Client::with(settings).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(matches!(error, Error::Deadline { last: Some(_), .. }), "{error}");
    assert!(Client::lazy(ClientConfig::new(Vec::<String>::new())).is_err());
    assert!(Client::connect("no address").await.is_err());
}
