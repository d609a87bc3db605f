//! A broker with both doors, and clients of the gRPC one.

use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_proto::pb::v1 as pb;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::generated::admin_client::AdminClient;
use crate::generated::data_client::DataClient;
use crate::generated::groups_client::GroupsClient;

/// A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn broker(settings: &[(&str, &str)]) -> Broker {
    let mut config = BrokerConfig::temporary().unwrap();
    config.set("group.initial.rebalance.delay.ms", "0").unwrap();
    // Each partition is a few syncs of a disk that all tests share.
    config.set("offsets.topic.num.partitions", "4").unwrap();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    Broker::start(config).unwrap()
}

pub(crate) async fn channel(broker: &Broker) -> Channel {
    let address = format!("http://{}", broker.grpc_address().unwrap());
    // An answer has to begin in this time.
    let endpoint = Endpoint::from_shared(address).unwrap().connect_timeout(PATIENCE).timeout(PATIENCE);
    endpoint.connect().await.unwrap()
}

/// What a call that streams says next.
pub(crate) async fn next<T>(replies: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(PATIENCE, replies.message()).await.expect("nothing came")
}

/// Stops a broker, which must not take longer than anything else. On a thread that is left alone where it does: a runtime would wait for it.
pub(crate) async fn stop(broker: Broker) {
    let (stopped, has_stopped) = oneshot::channel();
    std::thread::spawn(move || {
        broker.stop();
        // Nobody waits any more.
        let _ = stopped.send(());
    });
    tokio::time::timeout(PATIENCE, has_stopped).await.expect("the broker does not stop").unwrap();
}

pub(crate) async fn data(broker: &Broker) -> DataClient<Channel> {
    DataClient::new(channel(broker).await).max_decoding_message_size(64 << 20)
}

pub(crate) async fn admin(broker: &Broker) -> AdminClient<Channel> {
    AdminClient::new(channel(broker).await)
}

pub(crate) async fn groups(broker: &Broker) -> GroupsClient<Channel> {
    GroupsClient::new(channel(broker).await)
}

/// Makes a topic.
pub(crate) async fn topic(broker: &Broker, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let topic = pb::NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..Default::default()
    };
    let request = pb::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let reply = admin(broker).await.create_topics(request).await.unwrap().into_inner();
    assert_eq!(reply.topics[0].error, None);
}

pub(crate) fn record(key: Option<&str>, value: &str) -> pb::Record {
    pb::Record {
        key: key.map(|key| key.to_owned().into()),
        value: Some(value.to_owned().into()),
        ..Default::default()
    }
}

/// A request of records for one partition, or for where their keys send them.
pub(crate) fn records(topic: &str, partition: Option<i32>, records: Vec<pb::Record>) -> pb::ProduceRequest {
    pb::ProduceRequest {
        topic: topic.to_owned(),
        partition,
        payload: Some(pb::produce_request::Payload::Records(pb::Records { records })),
        ..Default::default()
    }
}

pub(crate) fn batch(topic: &str, partition: i32, batch: impl Into<bytes::Bytes>) -> pb::ProduceRequest {
    pb::ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        payload: Some(pb::produce_request::Payload::Batch(batch.into())),
        ..Default::default()
    }
}

/// The reason of a status, and whether to retry.
pub(crate) fn reason(status: &Status) -> (Code, String, bool) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(info.domain, "floodmark");
    (status.code(), info.reason.clone(), info.metadata["retryable"] == "true")
}

/// A Subscribe that is open.
pub(crate) struct Subscribed {
    pub(crate) requests: mpsc::Sender<pb::SubscribeRequest>,
    pub(crate) replies: Streaming<pb::SubscribeReply>,
}

impl Subscribed {
    pub(crate) async fn open(client: &mut DataClient<Channel>, start: pb::SubscribeStart) -> Subscribed {
        let (requests, receiver) = mpsc::channel(16);
        let first = pb::SubscribeRequest { request: Some(pb::subscribe_request::Request::Start(start)) };
        requests.send(first).await.unwrap();
        let replies = client.subscribe(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Subscribed { requests, replies }
    }

    pub(crate) async fn send(&self, request: pb::subscribe_request::Request) {
        self.requests.send(pb::SubscribeRequest { request: Some(request) }).await.unwrap();
    }

    pub(crate) fn say_no_more(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.requests = closed;
    }

    pub(crate) async fn has_ended(&mut self) {
        assert_eq!(next(&mut self.replies).await.unwrap(), None);
    }

    pub(crate) async fn next(&mut self) -> Result<pb::subscribe_reply::Reply, Status> {
        let reply = next(&mut self.replies).await?;
        Ok(reply.expect("the call has ended").reply.expect("a reply says something"))
    }

    pub(crate) async fn delivery(&mut self) -> pb::Delivery {
        match self.next().await.unwrap() {
            pb::subscribe_reply::Reply::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn failure(&mut self) -> pb::SubscribeFailure {
        match self.next().await.unwrap() {
            pb::subscribe_reply::Reply::Failure(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// So many records, with the partition of each.
    pub(crate) async fn records(&mut self, count: usize) -> Vec<(i32, pb::Record)> {
        let mut all = Vec::new();
        while all.len() < count {
            let delivery = self.delivery().await;
            if let Some(pb::delivery::Payload::Records(records)) = delivery.payload {
                all.extend(records.records.into_iter().map(|record| (delivery.partition, record)));
            }
        }
        all
    }

    pub(crate) async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(100), self.replies.message()).await.is_err()
    }
}

pub(crate) fn from_start(topic: &str, partition: Option<i32>) -> pb::SubscribePart {
    let special = pb::position::Special::Start.into();
    part(topic, partition, pb::position::At::Special(special))
}

pub(crate) fn part(topic: &str, partition: Option<i32>, at: pb::position::At) -> pb::SubscribePart {
    pb::SubscribePart { topic: topic.to_owned(), partition, from: Some(pb::Position { at: Some(at) }) }
}

/// With all the credit that there can be.
pub(crate) fn start(parts: Vec<pb::SubscribePart>) -> pb::SubscribeStart {
    pb::SubscribeStart { parts, credit_bytes: u64::MAX, ..Default::default() }
}
