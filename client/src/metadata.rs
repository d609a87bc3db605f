//! What the client knows of the cluster: where brokers are, who leads which partition. Kept until it is too old or found to be wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use floodmark_proto::ids::TopicId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// One topic as it was when it was asked for.
#[derive(Debug)]
pub(crate) struct TopicMetadata {
    pub(crate) name: Arc<str>,
    /// None where the broker tells none.
    pub(crate) id: Option<TopicId>,
    pub(crate) partitions: Vec<PartitionMetadata>,
    asked_at: Instant,
}

/// One partition of it; its number is its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionMetadata {
    pub(crate) leader: Option<i32>,
}

#[derive(Debug)]
pub(crate) struct Metadata {
    known: RwLock<Known>,
    bootstrap: Vec<String>,
    /// Which address is asked when any will do.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// gRPC addresses.
    brokers: HashMap<i32, String>,
    topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
}

impl Metadata {
    pub(crate) fn new(bootstrap: Vec<String>) -> Metadata {
        Metadata { known: RwLock::default(), bootstrap, turn: AtomicUsize::new(0) }
    }

    /// Somebody to ask: the same as long as he answers.
    pub(crate) fn anyone(&self) -> Result<String> {
        let known = self.known.read();
        let mut learned: Vec<&String> = known.brokers.values().collect();
        learned.sort();
        let turn = self.turn.load(Ordering::Relaxed) % (self.bootstrap.len() + learned.len()).max(1);
        let address = self.bootstrap.get(turn).or_else(|| learned.get(turn - self.bootstrap.len()).copied());
        address.cloned().ok_or_else(|| Error::Invalid("no broker is known".to_owned()))
    }

    /// Whoever was asked does not answer.
    pub(crate) fn turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn address(&self, broker: i32) -> Option<String> {
        self.known.read().brokers.get(&broker).cloned()
    }

    pub(crate) fn brokers(&self) -> Vec<i32> {
        self.known.read().brokers.keys().copied().collect()
    }

    pub(crate) fn topic(&self, name: &str, age_max: Duration) -> Option<Arc<TopicMetadata>> {
        let known = self.known.read();
        known.topics.get(name).filter(|topic| topic.asked_at.elapsed() < age_max).cloned()
    }

    /// What is known of it is wrong.
    pub(crate) fn forget(&self, name: &str) {
        self.known.write().topics.remove(name);
    }

    /// Those that are there; a fenced one is asked nothing.
    pub(crate) fn learn_brokers(&self, brokers: &[pb::Broker]) {
        let mut known = self.known.write();
        let is_there =
            |broker: &&pb::Broker| !broker.is_fenced && !broker.host.is_empty() && broker.port != 0;
        let reachable = brokers.iter().filter(is_there);
        known.brokers =
            reachable.map(|broker| (broker.broker_id, address(&broker.host, broker.port))).collect();
    }

    /// Takes what a broker said about topics; the error is the first that it had. Answers with what was learned: others may find it wrong
    /// and forget it at once.
    pub(crate) fn learn(&self, reply: &pb::DescribeTopicsReply) -> Result<Vec<Arc<TopicMetadata>>> {
        self.learn_brokers(&reply.brokers);
        let mut known = self.known.write();
        let (mut told, mut refused) = (Vec::new(), None);
        for topic in &reply.topics {
            if let Some(error) = &topic.error {
                known.topics.remove(topic.name.as_str());
                refused.get_or_insert_with(|| Error::from(error));
                continue;
            }
            let name: Arc<str> = Arc::from(topic.name.as_str());
            let partitions = in_order(topic)?;
            let id = <[u8; 16]>::try_from(&*topic.topic_id).ok();
            let id = id.and_then(|bytes| TopicId::from_bytes(bytes).ok());
            let learned = TopicMetadata { name: Arc::clone(&name), id, partitions, asked_at: Instant::now() };
            let learned = Arc::new(learned);
            told.push(Arc::clone(&learned));
            known.topics.insert(name, learned);
        }
        refused.map_or(Ok(told), Err)
    }
}

impl TopicMetadata {
    /// Fails where the topic has no such partition.
    pub(crate) fn partition(&self, partition: i32) -> Result<PartitionMetadata> {
        let found = usize::try_from(partition).ok().and_then(|at| self.partitions.get(at));
        found.copied().ok_or_else(|| {
            Error::from(&pb::Error {
                reason: ErrorCode::UnknownTopicOrPartition.name().to_owned(),
                code: i32::from(ErrorCode::UnknownTopicOrPartition.code()),
                message: format!(
                    "{} has no partition {partition}, only {}",
                    self.name,
                    self.partitions.len()
                ),
                retryable: false,
                leader: None,
            })
        })
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn in_order(topic: &pb::DescribedTopic) -> Result<Vec<PartitionMetadata>> {
    let mut partitions = vec![None; topic.partitions.len()];
    for described in &topic.partitions {
        let place = usize::try_from(described.partition).ok().and_then(|at| partitions.get_mut(at));
        *place.ok_or_else(|| {
            Error::Protocol(format!("the partitions of {} are not counted from 0", topic.name))
        })? = Some(PartitionMetadata { leader: described.leader });
    }
    let complete: Option<Vec<PartitionMetadata>> = partitions.into_iter().collect();
    complete.ok_or_else(|| Error::Protocol(format!("a partition of {} is described twice", topic.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(partitions: &[i32]) -> pb::DescribeTopicsReply {
        let describe =
            |&partition| pb::DescribedPartition { partition, leader: Some(1), ..Default::default() };
        pb::DescribeTopicsReply {
            topics: vec![pb::DescribedTopic {
                name: "t".to_owned(),
                partitions: partitions.iter().map(describe).collect(),
                ..Default::default()
            }],
            brokers: vec![pb::Broker { broker_id: 1, host: "::1".to_owned(), port: 7, ..Default::default() }],
        }
    }

    #[test]
    fn partitions_are_kept_in_order_and_holes_refused() {
        let metadata = Metadata::new(vec!["a:1".to_owned()]);
        metadata.learn(&reply(&[1, 0, 2])).unwrap();
        let topic = metadata.topic("t", Duration::from_secs(9)).unwrap();
        assert_eq!(topic.partitions.len(), 3);
        assert!(topic.partition(2).is_ok() && topic.partition(3).is_err() && topic.partition(-1).is_err());
        assert_eq!(metadata.address(1).as_deref(), Some("[::1]:7"));
        for broken in [&[0, 2][..], &[0, 0], &[-1]] {
            assert!(matches!(metadata.learn(&reply(broken)), Err(Error::Protocol(_))), "{broken:?}");
        }
    }

    #[test]
    fn who_asked_has_the_answer_though_others_find_it_wrong() {
        let metadata = Metadata::new(vec!["a:1".to_owned()]);
        let learned = metadata.learn(&reply(&[0, 1])).unwrap();
        metadata.forget("t");
        assert!(metadata.topic("t", Duration::from_secs(9)).is_none());
        assert_eq!(
            learned.iter().map(|topic| (&*topic.name, topic.partitions.len())).collect::<Vec<_>>(),
            [("t", 2)]
        );
    }

    #[test]
    fn who_does_not_answer_is_followed_by_the_next() {
        let metadata = Metadata::new(vec!["a:1".to_owned(), "b:1".to_owned()]);
        metadata.learn(&reply(&[0])).unwrap();
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push(metadata.anyone().unwrap());
            metadata.turn();
        }
        assert_eq!(asked, ["a:1", "b:1", "[::1]:7", "a:1"]);
    }
}
