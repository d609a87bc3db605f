//! The brokers, each with an address of its own for the others, and what tests ask of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_proto::kafka::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use floodmark_proto::kafka::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponsePartition,
};
use floodmark_storage::clock::Stopwatch;
use tonic::transport::{Channel, Endpoint};

use crate::free_ports::free_ports;
use crate::kafka_client::{FetchOf, Kafka};

/// A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// Brokers 1 to 3; a place is empty while its broker is down.
pub(crate) struct Three {
    configs: Vec<BrokerConfig>,
    brokers: Vec<Option<Broker>>,
    /// Last, so that the next cluster finds this one gone.
    _turn: MutexGuard<'static, ()>,
}

/// One cluster at a time: several of them on a small machine are no test of any.
static TURN: Mutex<()> = Mutex::new(());

impl Three {
    pub(crate) fn start() -> Three {
        Three::start_with(|_, _| {})
    }

    /// Each with settings of its own, by its number.
    pub(crate) fn start_with(set: impl Fn(i32, &mut BrokerConfig)) -> Three {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = free_ports::<3>();
        let voters: Vec<String> =
            (1..).zip(&ports).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let config = |(id, port): (i32, &u16)| {
            let mut config = BrokerConfig::temporary().unwrap();
            let listen = format!("127.0.0.1:{port}");
            let voters = voters.join(",");
            let id_text = id.to_string();
            // The same addresses when it starts again.
            let [kafka, grpc] = free_ports::<2>().map(|port| format!("127.0.0.1:{port}"));
            for (key, value) in [
                ("node.id", &*id_text),
                ("cluster.listen", &listen),
                ("cluster.voters", &voters),
                ("kafka.listen", &kafka),
                ("grpc.listen", &grpc),
                ("group.initial.rebalance.delay.ms", "0"),
                ("offsets.topic.num.partitions", "6"),
                // A machine that stands still for some seconds is no broker that has died: those of these tests say that they go. Nor does
                // anybody else lead because half a minute is over.
                ("broker.session.timeout.ms", "10000"),
                ("replica.lag.time.max.ms", "30000"),
                ("quorum.election.timeout.ms", "600"),
                ("leader.rebalance.interval.ms", "0"),
            ] {
                config.set(key, value).unwrap();
            }
            set(id, &mut config);
            config
        };
        let configs: Vec<BrokerConfig> = (1..).zip(&ports).map(config).collect();
        // None of them is there before a majority is.
        let starting: Vec<_> = configs
            .iter()
            .map(|config| {
                let config = config.clone();
                thread::spawn(|| started(config))
            })
            .collect();
        let brokers: Vec<Broker> = starting.into_iter().map(|starting| starting.join().unwrap()).collect();
        let three = Three { configs, brokers: brokers.into_iter().map(Some).collect(), _turn: turn };
        // A broker is not counted among those that can hold replicas before it has said that it serves.
        for id in 1..=3 {
            three.until("all brokers serve", || (three.metadata(id, &[]).brokers.len() == 3).then_some(()));
        }
        three
    }

    pub(crate) fn ids(&self) -> Vec<i32> {
        (1..).zip(&self.brokers).filter(|(_, broker)| broker.is_some()).map(|(id, _)| id).collect()
    }

    pub(crate) fn broker(&self, id: i32) -> &Broker {
        self.brokers[place(id)].as_ref().unwrap()
    }

    /// It is gone, with all its connections.
    pub(crate) fn drop_broker(&mut self, id: i32) {
        drop(self.brokers[place(id)].take().unwrap());
    }

    pub(crate) fn start_again(&mut self, id: i32) {
        self.brokers[place(id)] = Some(started(self.configs[place(id)].clone()));
    }

    pub(crate) fn kafka(&self, id: i32) -> Kafka {
        Kafka::connect(self.broker(id).kafka_address()).unwrap()
    }

    pub(crate) async fn grpc(&self, id: i32) -> Channel {
        channel(self.broker(id).grpc_address().unwrap()).await
    }

    /// Where other brokers reach it.
    pub(crate) fn peer_address(&self, id: i32) -> String {
        self.configs[place(id)].cluster_listen.as_ref().unwrap().to_string()
    }

    /// What a broker says about brokers and topics; with no names, about no topic.
    pub(crate) fn metadata(&self, at: i32, topics: &[&str]) -> Metadata {
        let topics =
            topics.iter().map(|name| MetadataRequestTopic { name: Some(name), ..Default::default() });
        let request = MetadataRequest {
            topics: Some(topics.collect()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let answer = self.kafka(at).ask(12, &request).unwrap();
        let response = answer.read::<MetadataResponse<'_>>();
        let brokers = response.brokers.iter().map(|b| (b.node_id, (b.host.to_owned(), b.port)));
        let partitions = response.topics.iter().flat_map(|topic| {
            let name = topic.name.unwrap_or_default().to_owned();
            topic.partitions.iter().map(move |p| ((name.clone(), p.partition_index), p.clone()))
        });
        Metadata {
            brokers: brokers.collect(),
            controller: response.controller_id,
            topic_ids: response.topics.iter().map(|t| t.topic_id).collect(),
            partitions: partitions.collect(),
        }
    }

    /// A topic with a replica on each broker, of which all live ones know its leaders, and these serve it. Answers who leads each partition.
    pub(crate) fn topic(&self, at: i32, name: &str, partitions: i32) -> Vec<i32> {
        let code = self.kafka(at).create_topic(name, partitions, &[]).unwrap();
        assert_eq!(code, 0, "{name} is made");
        for id in self.ids() {
            self.until("all know the topic", || {
                (self.metadata(id, &[name]).partitions.len() == partitions as usize).then_some(())
            });
        }
        let leaders: Vec<i32> = (0..partitions).map(|partition| self.leader(name, partition)).collect();
        for (partition, leader) in (0..).zip(&leaders) {
            self.is_served(*leader, name, partition);
        }
        leaders
    }

    /// Waits until a broker serves a partition that it leads: it knows that it does before its log is open.
    pub(crate) fn is_served(&self, leader: i32, topic: &str, partition: i32) {
        let mut kafka = self.kafka(leader);
        self.until("the leader serves", || {
            let fetched = kafka.fetch(FetchOf::new(topic, partition, 0)).unwrap();
            (fetched.error_code == 0).then_some(())
        });
    }

    /// Waits until another broker than `gone` leads, by all live ones alike: they hear of it one after the other.
    pub(crate) fn leader_after(&self, gone: i32, topic: &str, partition: i32) -> i32 {
        self.until("another leader", || Some(self.leader(topic, partition)).filter(|leader| *leader != gone))
    }

    /// Who leads a partition now, by all live brokers alike.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> i32 {
        self.until("a leader", || {
            let told: Vec<Option<(i32, i32)>> = self
                .ids()
                .iter()
                .map(|id| {
                    let metadata = self.metadata(*id, &[topic]);
                    metadata
                        .partitions
                        .get(&(topic.to_owned(), partition))
                        .map(|p| (p.leader_id, p.leader_epoch))
                })
                .collect();
            let first = told[0]?;
            (first.0 > 0 && told.iter().all(|other| *other == Some(first))).then_some(first.0)
        })
    }

    /// Who coordinates a group, by the broker `at`; asked again while it is not available.
    pub(crate) fn coordinator(&self, at: i32, group: &str) -> (i32, i32) {
        self.until("a coordinator", || {
            let request = FindCoordinatorRequest { coordinator_keys: vec![group], ..Default::default() };
            let answer = self.kafka(at).ask(4, &request).unwrap();
            let response = answer.read::<FindCoordinatorResponse<'_>>();
            let found = &response.coordinators[0];
            (found.error_code == 0).then_some((found.node_id, found.port))
        })
    }

    /// Asks again and again, up to the patience of a test.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let since = Stopwatch::start();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(since.elapsed() < PATIENCE, "waited in vain for: {what}");
            thread::sleep(POLL);
        }
    }
}

/// What Metadata says.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) brokers: BTreeMap<i32, (String, i32)>,
    pub(crate) controller: i32,
    pub(crate) topic_ids: Vec<[u8; 16]>,
    pub(crate) partitions: BTreeMap<(String, i32), MetadataResponsePartition>,
}

/// A broker that finds the others in time.
fn started(config: BrokerConfig) -> Broker {
    let late = async { tokio::time::sleep(PATIENCE).await };
    Broker::start_until(config, late).expect("a broker starts")
}

fn place(id: i32) -> usize {
    usize::try_from(id - 1).unwrap()
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await.unwrap()
}

/// Runs a test of the gRPC door.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends in time") })
}
