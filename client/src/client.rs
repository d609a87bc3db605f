//! The client itself: what all others share. Finds whom to ask, and asks again where that can help.

use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::TopicId;
use floodmark_proto::pb::v1 as pb;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::admin::Admin;
use crate::channels::{Channels, Peer};
use crate::config::ClientConfig;
use crate::consumer::{Consumer, ConsumerConfig};
use crate::error::{Error, Result};
use crate::metadata::{Metadata, TopicMetadata, address};
use crate::producer::{Producer, ProducerConfig};
use crate::retry::retry;

/// A way into a cluster. Cheap to clone; clones share connections and what is known of topics.
///
/// Connections come up when they are first used and again after they were lost. Everything has a deadline, and every call may be
/// cancelled by dropping its future.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    channels: Channels,
    metadata: Metadata,
    /// One asks, the others wait for what he learns.
    asking: Mutex<()>,
}

impl Client {
    /// A client of the cluster that the broker at `bootstrap`, `host:port`, belongs to; several addresses, any of which will do, have
    /// commas between them. Returns once a broker has answered.
    pub async fn connect(bootstrap: impl AsRef<str>) -> Result<Client> {
        Client::with(ClientConfig::new(addresses(bootstrap.as_ref()))).await
    }

    /// The same with settings of the caller's. Fails where no address answers in [`ClientConfig::operation_timeout`].
    pub async fn with(config: ClientConfig) -> Result<Client> {
        let client = Client::lazy(config)?;
        client.ask_anyone("describing the cluster", |peer| client.meet(peer)).await?;
        Ok(client)
    }

    /// The same, but each address is asked once: for whoever would rather hear at once why nobody serves than wait until somebody does. Fails
    /// with what the last one said.
    pub async fn at_once(config: ClientConfig) -> Result<Client> {
        let client = Client::lazy(config)?;
        let mut left = client.inner.config.bootstrap.len();
        loop {
            left = left.saturating_sub(1);
            match client.meet(client.peer_at(&client.inner.metadata.anyone()?)?).await {
                Ok(()) => return Ok(client),
                Err(error) if left == 0 => return Err(error),
                Err(_) => client.inner.metadata.turn(),
            }
        }
    }

    /// Asks a broker for all brokers.
    async fn meet(&self, peer: Peer) -> Result<()> {
        let asked = peer.request(pb::DescribeClusterRequest {});
        let cluster = peer.answer("describing the cluster", peer.admin().describe_cluster(asked)).await?;
        self.inner.metadata.learn_brokers(&cluster.brokers);
        Ok(())
    }

    /// A client that connects when it is first used.
    pub fn lazy(config: ClientConfig) -> Result<Client> {
        config.check()?;
        let metadata = Metadata::new(config.bootstrap.clone());
        let inner = Inner { config, channels: Channels::default(), metadata, asking: Mutex::new(()) };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// Topics, settings, offsets, groups, the cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Something that writes records. To be called within a tokio runtime.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer> {
        Producer::new(self.clone(), config)
    }

    /// Something that reads records. To be called within a tokio runtime.
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer> {
        Consumer::start(self.clone(), config).await
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// How many partitions a topic has.
    pub async fn partition_count(&self, topic: &str) -> Result<i32> {
        let topic = self.topic(topic).await?;
        Ok(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
    }

    /// Which of the topics that had this name, one after the other, is there now; asked for each time. None where the broker does not tell.
    pub async fn topic_id(&self, topic: &str) -> Result<Option<TopicId>> {
        self.forget_topic(topic);
        Ok(self.topic(topic).await?.id)
    }

    /// Fails where the topic is another than the one with this id.
    pub(crate) async fn check_topic_id(&self, topic: &str, wanted: Option<TopicId>) -> Result<()> {
        made_anew(topic, wanted, self.topic_id(topic).await?)
    }

    /// What is known of a topic, asked for where nothing is, or where it is too old.
    pub(crate) async fn topic(&self, name: &str) -> Result<Arc<TopicMetadata>> {
        if let Some(known) = self.known_topic(name) {
            return Ok(known);
        }
        // Whoever waits here in a line in which nobody gets an answer waits no longer than it would ask for itself.
        let (what, limit) = ("finding a topic", self.inner.config.operation_timeout);
        let deadline = Instant::now() + limit;
        let waiting = timeout_at(deadline, self.inner.asking.lock()).await;
        let _asking = waiting.map_err(|_elapsed| Error::Deadline { what, limit, last: None })?;
        if let Some(known) = self.known_topic(name) {
            return Ok(known);
        }
        self.ask_topic(name, what, deadline.saturating_duration_since(Instant::now())).await
    }

    /// Without asking anybody.
    pub(crate) fn known_topic(&self, name: &str) -> Option<Arc<TopicMetadata>> {
        self.inner.metadata.topic(name, self.inner.config.metadata_age_max)
    }

    /// What is known of it turned out to be wrong.
    pub(crate) fn forget_topic(&self, name: &str) {
        self.inner.metadata.forget(name);
    }

    async fn ask_topic(&self, name: &str, what: &'static str, limit: Duration) -> Result<Arc<TopicMetadata>> {
        self.ask_anyone_within(what, limit, |peer| async move {
            let reply = peer.describe_topics(vec![name.to_owned()]).await?;
            let learned = self.inner.metadata.learn(&reply)?;
            let missing = || Error::Protocol(format!("the answer says nothing of {name}"));
            learned.into_iter().find(|topic| *topic.name == *name).ok_or_else(missing)
        })
        .await
    }

    /// Asks one broker after the other until one answers.
    pub(crate) async fn ask_anyone<T, F>(&self, what: &'static str, ask: impl Fn(Peer) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.ask_anyone_within(what, self.inner.config.operation_timeout, ask).await
    }

    async fn ask_anyone_within<T, F>(
        &self,
        what: &'static str,
        limit: Duration,
        ask: impl Fn(Peer) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        retry(&self.inner.config, what, limit, || async {
            let peer = self.peer_at(&self.inner.metadata.anyone()?)?;
            let answer = ask(peer).await;
            if answer.as_ref().is_err_and(Error::is_misdirected) {
                self.inner.metadata.turn();
            }
            // That a topic is not there is told by every broker: no use in asking on.
            match answer {
                Err(error) if is_unknown_topic(&error) => Err(lasting(error)),
                answer => answer,
            }
        })
        .await
    }

    /// Asks the leader of a partition, whoever that is by then.
    pub(crate) async fn ask_leader<T, F>(
        &self,
        what: &'static str,
        topic: &str,
        partition: i32,
        ask: impl Fn(Peer) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let config = &self.inner.config;
        retry(config, what, config.operation_timeout, || async {
            let peer = self.leader(topic, partition).await?.1;
            let answer = ask(peer).await;
            if answer.as_ref().is_err_and(Error::is_misdirected) {
                self.forget_topic(topic);
            }
            answer
        })
        .await
    }

    /// Asks one broker by its number.
    pub(crate) async fn ask_broker<T, F>(
        &self,
        what: &'static str,
        broker: i32,
        ask: impl Fn(Peer) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let config = &self.inner.config;
        let peer = self.broker(broker).await?;
        retry(config, what, config.operation_timeout, || ask(peer.clone())).await
    }

    /// Asks the coordinator of a group, whoever that is by then.
    pub(crate) async fn ask_coordinator<T, F>(
        &self,
        what: &'static str,
        group: &str,
        ask: impl Fn(Peer) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let config = &self.inner.config;
        retry(config, what, config.operation_timeout, || async {
            let peer = self.coordinator(group).await?;
            ask(peer).await
        })
        .await
    }

    /// Who coordinates a group now.
    pub(crate) async fn coordinator(&self, group: &str) -> Result<Peer> {
        let found = self
            .ask_anyone("finding a coordinator", |peer| async move {
                let asked = peer.request(pb::FindCoordinatorRequest { group: group.to_owned() });
                peer.answer("finding a coordinator", peer.groups().find_coordinator(asked)).await
            })
            .await?;
        self.peer_at(&address(&found.host, found.port))
    }

    /// The leader of a partition and how to reach it.
    pub(crate) async fn leader(&self, topic: &str, partition: i32) -> Result<(i32, Peer)> {
        let leader = self.topic(topic).await?.partition(partition)?.leader;
        let Some(leader) = leader else {
            self.forget_topic(topic);
            return Err(no_leader(topic, partition));
        };
        match self.broker(leader).await {
            Ok(peer) => Ok((leader, peer)),
            // It is down, and what is known of the topic is older than that.
            Err(Error::Invalid(_) | Error::Unreachable { .. }) => {
                self.forget_topic(topic);
                Err(no_leader(topic, partition))
            }
            Err(error) => Err(error),
        }
    }

    /// How to reach a broker.
    pub(crate) async fn broker(&self, broker: i32) -> Result<Peer> {
        if let Some(address) = self.inner.metadata.address(broker) {
            return self.peer_at(&address);
        }
        let cluster = self.admin().cluster().await?;
        self.inner.metadata.address(broker).map_or_else(
            || {
                if cluster.brokers.iter().any(|other| other.id == broker) {
                    let reason = "it is down, as the others say, or about to start".to_owned();
                    return Err(Error::Unreachable { address: format!("broker {broker}"), reason });
                }
                let others: Vec<String> = cluster.brokers.iter().map(|other| other.id.to_string()).collect();
                Err(Error::Invalid(format!("no broker {broker} is there, only {}", others.join(", "))))
            },
            |address| self.peer_at(&address),
        )
    }

    /// The same on a connection of its own, for a stream that carries much. Who asks was told of the broker by others: where it is not there
    /// any more, that passes.
    /// By a connection of its own, with frames of this size at most.
    pub(crate) async fn broker_apart(&self, broker: i32, frame_bytes_max: u32) -> Result<Peer> {
        let address = match self.broker(broker).await {
            Ok(peer) => peer.address,
            Err(Error::Invalid(reason)) => {
                return Err(Error::Unreachable { address: format!("broker {broker}"), reason });
            }
            Err(error) => return Err(error),
        };
        Channels::apart(&self.inner.config, &address, frame_bytes_max)
    }

    pub(crate) fn learn_brokers(&self, brokers: &[pb::Broker]) {
        self.inner.metadata.learn_brokers(brokers);
    }

    /// All brokers that are known.
    pub(crate) async fn broker_ids(&self) -> Result<Vec<i32>> {
        let mut known = self.inner.metadata.brokers();
        if known.is_empty() {
            self.admin().cluster().await?;
            known = self.inner.metadata.brokers();
        }
        known.sort_unstable();
        Ok(known)
    }

    fn peer_at(&self, address: &str) -> Result<Peer> {
        self.inner.channels.to(&self.inner.config, address)
    }

    /// How long one attempt of a call may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.config.request_timeout
    }
}

/// Addresses between commas.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|address| !address.is_empty())
}

/// Elections pass.
fn no_leader(topic: &str, partition: i32) -> Error {
    use floodmark_proto::kafka::ErrorCode::LeaderNotAvailable;
    Error::from(&pb::Error {
        reason: LeaderNotAvailable.name().to_owned(),
        code: i32::from(LeaderNotAvailable.code()),
        message: format!("{topic}-{partition} has no leader at the moment"),
        retryable: true,
        leader: None,
    })
}

/// Fails where both ids are known and differ.
pub(crate) fn made_anew(topic: &str, wanted: Option<TopicId>, found: Option<TopicId>) -> Result<()> {
    match (wanted, found) {
        (Some(wanted), Some(found)) if wanted != found => Err(Error::MadeAnew { topic: topic.to_owned() }),
        _ => Ok(()),
    }
}

pub(crate) fn is_unknown_topic(error: &Error) -> bool {
    use floodmark_proto::kafka::ErrorCode::{UnknownTopicId, UnknownTopicOrPartition};
    matches!(error.code(), Some(UnknownTopicOrPartition | UnknownTopicId))
}

/// Kafka counts it among what passes, because metadata spreads; here a broker that does not know a topic asks the cluster first.
fn lasting(error: Error) -> Error {
    match error {
        Error::Refused(mut refusal) => {
            refusal.is_retryable = false;
            Error::Refused(refusal)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::Begin;
    use crate::events::{EventStore, Expected, NewEvent};
    use crate::record::TopicPartition;
    use crate::tests::{StandIn, nobody, silent};

    /// For what must end by itself.
    const LONG: Duration = Duration::from_secs(60);

    async fn ends_late<T: std::fmt::Debug>(what: &str, call: impl Future<Output = Result<T>>) {
        let ended = tokio::time::timeout(LONG, call).await.unwrap_or_else(|_| panic!("{what} does not end"));
        assert!(matches!(ended, Err(Error::Deadline { .. })), "{what}: {ended:?}");
    }

    /// All leaders are of one kind, so that it is the same whichever is asked; the rest of the cluster answers.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_end_in_time_though_a_leader_refuses_connections_or_says_nothing_on_them() {
        let (_listener, says_nothing) = silent().await;
        for leader in [says_nothing, nobody().await] {
            let stand_in = StandIn::new(&[(1, &leader), (2, &leader)]).serve().await;
            let mut config = ClientConfig::new([stand_in]);
            config.operation_timeout = Duration::from_millis(500);
            let client = Client::lazy(config).unwrap();
            let (admin, at) = (client.admin(), TopicPartition::new("t", 1));
            ends_late("looking up offsets", admin.offsets_and_replicas(&at)).await;
            ends_late("removing records", admin.delete_records(&at, None)).await;
            ends_late("describing producers", admin.producers(&at)).await;
            ends_late("describing disks", admin.log_dirs()).await;
            let store = EventStore::new(&client, "t");
            ends_late("appending", store.append_if("k", Expected::Any, vec![NewEvent::new("v")])).await;
            let consumer = client.consumer(ConsumerConfig::assigned()).await.unwrap();
            ends_late("assigning", consumer.assign(&[(at, Begin::End)])).await;
            tokio::time::timeout(LONG, consumer.close()).await.expect("closing does not end").unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_asks_at_once_asks_each_address_once() {
        let serves = StandIn::new(&[(1, "127.0.0.1:1")]).serve().await;
        let config = ClientConfig::new([nobody().await, serves.clone()]);
        let client = Client::at_once(config).await.unwrap();
        assert_eq!(client.inner.metadata.anyone().unwrap(), serves);
        let config = ClientConfig::new([nobody().await, nobody().await]);
        let failed = tokio::time::timeout(config.operation_timeout, Client::at_once(config)).await;
        let failed = failed.expect("it is tried again and again").unwrap_err();
        assert!(matches!(failed, Error::Unreachable { .. }), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_others_for_a_topic_waits_as_long_as_for_itself() {
        let (_listener, address) = silent().await;
        let config = ClientConfig::new([address]);
        let limit = config.operation_timeout;
        let client = Client::lazy(config).unwrap();
        let asking: Vec<_> = (0..5)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move { client.partition_count(&format!("t{n}")).await.unwrap_err() })
            })
            .collect();
        let all = async {
            for asking in asking {
                assert!(matches!(asking.await.unwrap(), Error::Deadline { .. }));
            }
        };
        tokio::time::timeout(limit * 2, all).await.expect("some wait for the time of all before them");
    }
}
