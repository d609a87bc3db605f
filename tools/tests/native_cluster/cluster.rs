//! Three brokers, and clients of them.

use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_client::{Client, ClientConfig};
use tokio::sync::{Mutex, MutexGuard};

use crate::free_ports::free_ports;

/// Longer than anything takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// One cluster at a time: several of them on a small machine are no test of any.
static TURN: Mutex<()> = Mutex::const_new(());

/// Brokers 1 to 3; a place is empty while its broker is down.
pub(crate) struct Three {
    configs: Vec<BrokerConfig>,
    brokers: Vec<Option<Broker>>,
    _turn: MutexGuard<'static, ()>,
}

impl Three {
    pub(crate) async fn start() -> Three {
        let turn = TURN.lock().await;
        let ports = free_ports::<3>();
        let voters: Vec<String> =
            (1..).zip(&ports).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let mut configs = Vec::new();
        for (id, port) in (1..).zip(&ports) {
            let mut config = BrokerConfig::temporary().unwrap();
            for (key, value) in [
                ("node.id", i32::to_string(&id)),
                ("cluster.listen", format!("127.0.0.1:{port}")),
                ("cluster.voters", voters.join(",")),
                // The same address when it starts again.
                ("grpc.listen", format!("127.0.0.1:{}", free_ports::<1>()[0])),
                ("group.initial.rebalance.delay.ms", "0".to_owned()),
                ("offsets.topic.num.partitions", "6".to_owned()),
            ] {
                config.set(key, &value).unwrap();
            }
            configs.push(config);
        }
        let starting: Vec<_> = configs
            .iter()
            .map(|config| {
                let config = config.clone();
                tokio::task::spawn_blocking(|| Broker::start(config).unwrap())
            })
            .collect();
        let mut brokers = Vec::new();
        for starting in starting {
            brokers.push(Some(starting.await.unwrap()));
        }
        let three = Three { configs, brokers, _turn: turn };
        let client = three.client(&[1]).await;
        in_time(async {
            while client.admin().cluster().await.unwrap().brokers.iter().filter(|b| !b.is_fenced).count() < 3
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        three
    }

    /// The gRPC addresses of all, also of those that are down.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.configs.iter().map(|config| config.grpc_listen.as_ref().unwrap().to_string()).collect()
    }

    /// A client that is told of these.
    pub(crate) async fn client(&self, ids: &[i32]) -> Client {
        let addresses = self.addresses();
        let of = |id: &i32| addresses[place(*id)].clone();
        in_time(Client::with(ClientConfig::new(ids.iter().map(of)))).await.unwrap()
    }

    /// It is gone, with all its connections.
    pub(crate) fn drop_broker(&mut self, id: i32) {
        let broker = self.brokers[place(id)].take().unwrap();
        // It waits for threads of its own.
        tokio::task::block_in_place(|| drop(broker));
    }

    pub(crate) async fn start_again(&mut self, id: i32) {
        let config = self.configs[place(id)].clone();
        let starting = tokio::task::spawn_blocking(|| Broker::start(config).unwrap());
        self.brokers[place(id)] = Some(in_time(starting).await.unwrap());
    }

    /// Returns once every replica of these topics is in sync.
    pub(crate) async fn until_in_sync(&self, client: &Client, topics: &[&str]) {
        in_time(async {
            for topic in topics {
                loop {
                    let described = client.admin().topic(topic).await.unwrap();
                    if described.partitions.iter().all(|p| p.in_sync.len() == p.replicas.len()) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await;
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        let brokers = std::mem::take(&mut self.brokers);
        tokio::task::block_in_place(|| drop(brokers));
    }
}

fn place(id: i32) -> usize {
    usize::try_from(id - 1).unwrap()
}

pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes no two minutes")
}
