//! Three brokers of this process, as a cluster or each alone.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use floodmark_benches::kafka::Kafka;
use floodmark_broker::{Broker, BrokerConfig, HostPort, VoterAddress};
use floodmark_storage::clock::Stopwatch;

/// The topic of all runs.
pub(crate) const TOPIC: &str = "bench";
/// What takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const COUNT: usize = 3;

pub(crate) struct Brokers {
    configs: Vec<BrokerConfig>,
    brokers: Vec<Option<Broker>>,
    is_cluster: bool,
}

impl Brokers {
    /// Brokers 1 to 3, each of which copies what the others lead.
    pub(crate) fn cluster(folder: &Path) -> anyhow::Result<Brokers> {
        let listeners: Vec<TcpListener> =
            (0..COUNT).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().map(|at| at.port()))
            .collect::<Result<_, _>>()?;
        drop(listeners);
        let voter = |(id, port): (i32, &u16)| VoterAddress { id, address: HostPort::loopback(*port) };
        let voters: Vec<_> = (1..).zip(&ports).map(voter).collect();
        let mut configs = Vec::new();
        for (id, port) in (1..).zip(&ports) {
            let mut config = config(folder, id)?;
            config.cluster_listen = Some(HostPort::loopback(*port));
            config.cluster_voters = voters.clone();
            configs.push(config);
        }
        Brokers::start(configs, true)
    }

    /// Three that know nothing of each other.
    pub(crate) fn alone(folder: &Path) -> anyhow::Result<Brokers> {
        Brokers::start((1..=3).map(|id| config(folder, id)).collect::<Result<_, _>>()?, false)
    }

    fn start(configs: Vec<BrokerConfig>, is_cluster: bool) -> anyhow::Result<Brokers> {
        let start = |config: BrokerConfig| thread::spawn(move || Broker::start(config));
        let starting: Vec<_> = configs.iter().cloned().map(start).collect();
        let mut brokers = Vec::new();
        for starting in starting {
            let Ok(started) = starting.join() else { bail!("a broker panicked") };
            brokers.push(Some(started?));
        }
        Ok(Brokers { configs, brokers, is_cluster })
    }

    fn address(&self, n: usize) -> anyhow::Result<SocketAddr> {
        self.brokers[n].as_ref().map(Broker::kafka_address).context("the broker is down")
    }

    /// The first broker that is up.
    fn any(&self) -> anyhow::Result<SocketAddr> {
        let up = self.brokers.iter().flatten().next();
        up.map(Broker::kafka_address).context("all brokers are down")
    }

    /// Makes the topic, where there are others in sync on all of them.
    pub(crate) fn create(&self, partitions: i32) -> anyhow::Result<()> {
        if self.is_cluster {
            Kafka::connect(self.any()?)?.create(TOPIC, partitions)?;
            return self.wait_in_sync(COUNT);
        }
        (0..COUNT).try_for_each(|n| Kafka::connect(self.address(n)?)?.create(TOPIC, partitions))
    }

    /// Where each partition is led; of brokers that are alone, all of each.
    pub(crate) fn leaders(&self) -> anyhow::Result<Vec<(i32, SocketAddr)>> {
        let mut leaders = Vec::new();
        let asked = if self.is_cluster {
            vec![self.any()?]
        } else {
            (0..COUNT).map(|n| self.address(n)).collect::<Result<_, _>>()?
        };
        for address in asked {
            let partitions = Kafka::connect(address)?.partitions(TOPIC)?;
            for partition in partitions {
                leaders.push((partition.index, partition.leader.context("a partition has no leader")?));
            }
        }
        Ok(leaders)
    }

    /// Waits until so many are in sync of every partition.
    pub(crate) fn wait_in_sync(&self, count: usize) -> anyhow::Result<()> {
        let mut kafka = Kafka::connect(self.any()?)?;
        let begun = Stopwatch::start();
        while kafka.partitions(TOPIC)?.iter().any(|p| p.in_sync < count || p.leader.is_none()) {
            ensure!(begun.elapsed() < PATIENCE, "{count} replicas did not get in sync");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// A broker that leads nothing of the topic.
    pub(crate) fn follower(&self) -> anyhow::Result<usize> {
        let leaders = self.leaders()?;
        let leads =
            |n: &usize| self.address(*n).is_ok_and(|at| leaders.iter().any(|(_, leader)| *leader == at));
        (0..COUNT).find(|n| !leads(n)).context("every broker leads something")
    }

    /// Where the leader of partition 0 has its files.
    pub(crate) fn folder_of_leader(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let leader = self.leaders()?.first().context("there is no partition")?.1;
        let n = (0..COUNT)
            .find(|n| self.address(*n).is_ok_and(|at| at == leader))
            .context("it is not one of ours")?;
        Ok(folder.join((n + 1).to_string()).join("logs").join(format!("{TOPIC}-0")))
    }

    pub(crate) fn stop_one(&mut self, n: usize) {
        if let Some(broker) = self.brokers[n].take() {
            broker.stop();
        }
    }

    pub(crate) fn start_one(&mut self, n: usize) -> anyhow::Result<()> {
        self.brokers[n] = Some(Broker::start(self.configs[n].clone())?);
        Ok(())
    }

    pub(crate) fn stop(self) {
        let stop = |broker: Broker| thread::spawn(move || broker.stop());
        let stopping: Vec<_> = self.brokers.into_iter().flatten().map(stop).collect();
        // One that panicked has nothing more to stop.
        stopping.into_iter().for_each(|stopping| drop(stopping.join()));
    }
}

fn config(folder: &Path, id: i32) -> anyhow::Result<BrokerConfig> {
    let mut config = BrokerConfig::temporary()?;
    config.node_id = id;
    config.data_dirs = vec![folder.join(id.to_string())];
    config.grpc_listen = None;
    config.runtime_threads = 1;
    Ok(config)
}
