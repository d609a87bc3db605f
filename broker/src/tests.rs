//! Brokers in one process, each on a simulated disk that fails while it runs: what was acknowledged outlives the disk's error, the restart
//! of the process and the power cut after it.
//!
//! - `lost_logs`: what a broker finds missing when it starts

#[path = "../tests/free_ports/mod.rs"]
mod free_ports;
mod lost_logs;

use std::path::PathBuf;
use std::thread;

use floodmark_proto::batch::{BatchBuilder, BatchHeader, DecompressLimits, NewRecord, RecordBatch, Records};
use floodmark_proto::ids::{Offset, TopicId};
use floodmark_replication::cluster::{Command, Partition};
use floodmark_replication::partition::{AppendOptions, Isolation, PartitionError, PartitionHandle, Role};
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use free_ports::free_ports;
use tokio::runtime::Runtime;

use super::*;

const TOPIC: &str = "t";
/// Nothing takes as long that goes well.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one try of an append.
const A_TRY: Duration = Duration::from_secs(5);

struct Node {
    config: BrokerConfig,
    disk: SimDisk,
    broker: Option<Broker>,
}

/// Brokers 1 to n, and what they have acknowledged.
struct Brokers {
    nodes: Vec<Node>,
    runtime: Runtime,
    acknowledged: Vec<String>,
}

fn topic() -> TopicId {
    TopicId::from_bytes([9; 16]).unwrap()
}

fn configs(count: i32) -> Vec<BrokerConfig> {
    let ports = &free_ports::<3>()[..count as usize];
    let voter = |(id, port): (i32, &u16)| VoterAddress { id, address: HostPort::loopback(*port) };
    let voters: Vec<_> = (1..).zip(ports).map(voter).collect();
    let config = |(id, port): (i32, &u16)| {
        let mut config = BrokerConfig::temporary().unwrap();
        config.node_id = id;
        config.runtime_threads = 1;
        // A machine that stands still for some seconds is no broker that has died.
        config.broker_session_timeout.0 = 10_000;
        config.replica_lag_time_max.0 = 30_000;
        config.leader_rebalance_interval.0 = 0;
        if count > 1 {
            config.cluster_listen = Some(HostPort::loopback(*port));
            config.cluster_voters = voters.clone();
        }
        config
    };
    (1..).zip(ports).map(config).collect()
}

impl Brokers {
    /// With one topic of so many partitions, which all brokers hold.
    fn start(count: i32, partitions: usize) -> Brokers {
        Brokers::start_in(count, partitions, &[PathBuf::from("data")])
    }

    fn start_in(count: i32, partitions: usize, data_dirs: &[PathBuf]) -> Brokers {
        let mut brokers = Brokers::unstarted(count, data_dirs);
        brokers.begin(partitions);
        brokers
    }

    fn unstarted(count: i32, data_dirs: &[PathBuf]) -> Brokers {
        let node = |mut config: BrokerConfig| {
            config.data_dirs = data_dirs.to_vec();
            Node { config, disk: SimDisk::new(), broker: None }
        };
        Brokers {
            nodes: configs(count).into_iter().map(node).collect(),
            runtime: Runtime::new().unwrap(),
            acknowledged: Vec::new(),
        }
    }

    fn begin(&mut self, partitions: usize) {
        let count = self.nodes.len() as i32;
        self.start_all();
        let ids: Vec<BrokerId> = (1..=count).map(BrokerId).collect();
        self.until("all brokers are live", |brokers| {
            let image = brokers.quorum().image();
            ids.iter().all(|id| image.is_live(*id)).then_some(())
        });
        let assignments = (0..partitions).map(|_| ids.clone()).collect();
        let create = Command::CreateTopic {
            name: TOPIC.to_owned(),
            id: topic(),
            assignments,
            settings: vec![("min.insync.replicas".to_owned(), count.min(2).to_string())],
        };
        self.runtime.block_on(self.quorum().propose(create)).unwrap();
        self.until("all partitions are led", |brokers| {
            (0..partitions).all(|index| brokers.leading(index as i32).is_some()).then_some(())
        });
    }

    /// Starts those that do not run.
    fn start_all(&mut self) {
        let start = |node: &Node| {
            let (config, disk) = (node.config.clone(), node.disk.clone());
            let late = async { tokio::time::sleep(PATIENCE).await };
            thread::spawn(move || Broker::start_on(config, Arc::new(disk), late).unwrap())
        };
        let starting: Vec<_> =
            self.nodes.iter().map(|node| node.broker.is_none().then(|| start(node))).collect();
        for (node, starting) in self.nodes.iter_mut().zip(starting) {
            if let Some(starting) = starting {
                node.broker = Some(starting.join().unwrap());
            }
        }
    }

    /// Another process on the same system.
    fn restart(&mut self, id: i32) {
        let node = &mut self.nodes[id as usize - 1];
        node.broker = None;
        node.disk = node.disk.image().killed();
        self.start_all();
    }

    /// Nothing that was not synced is left anywhere.
    fn power_cut(&mut self) {
        let left: Vec<_> = self.nodes.iter().map(|node| node.disk.image()).collect();
        for (node, left) in self.nodes.iter_mut().zip(left) {
            node.broker = None;
            node.disk = left.power_cut(0);
        }
        self.start_all();
    }

    fn cluster(&self, id: i32) -> &Cluster {
        &self.nodes[id as usize - 1].broker.as_ref().unwrap().shared.cluster
    }

    fn quorum(&self) -> &floodmark_replication::quorum::QuorumHandle {
        self.cluster(1).quorum()
    }

    /// What the cluster has agreed on.
    fn state(&self, index: u32) -> Partition {
        self.quorum().image().topic_by_id(topic()).unwrap().partition(index).unwrap().clone()
    }

    fn until<T>(&self, what: &str, look: impl Fn(&Brokers) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The replica that leads, by its own knowledge.
    fn leading(&self, index: i32) -> Option<(i32, PartitionHandle)> {
        (1..).zip(&self.nodes).filter(|(_, node)| node.broker.is_some()).find_map(|(id, _)| {
            let partition = self.cluster(id).registry().get(topic(), index)?;
            let leads = matches!(partition.role(), Role::Leader { .. }) && partition.stopped().is_none();
            leads.then_some((id, partition))
        })
    }

    fn try_append(&self, partition: &PartitionHandle, value: &str) -> Result<(), PartitionError> {
        let trying = async {
            let appended = partition.append(vec![batch(value)], AppendOptions::CLIENT).await?;
            partition.committed(appended.end, appended.epoch).await
        };
        let tried = async { tokio::time::timeout(A_TRY, trying).await };
        self.runtime.block_on(tried).unwrap_or(Err(PartitionError::Abandoned))
    }

    /// Appends to the first partition wherever it is led by then, until it is acknowledged.
    fn produce(&mut self, count: usize) {
        for _ in 0..count {
            let value = format!("v{}", self.acknowledged.len());
            self.until("an append is acknowledged", |brokers| {
                let (_, partition) = brokers.leading(0)?;
                brokers.try_append(&partition, &value).ok()
            });
            self.acknowledged.push(value);
        }
    }

    fn fail_next_sync(&self, id: i32) {
        self.nodes[id as usize - 1].disk.inject(Fault {
            on: FaultOn::Sync,
            path_ends: "t-0/00000000000000000000.log".to_owned(),
            after: 0,
            times: 1,
            kind: FaultKind::Eio,
        });
    }

    fn faults_taken(&self, id: i32) -> u64 {
        self.nodes[id as usize - 1].disk.faults_taken()
    }

    /// All that was acknowledged is there, in its order.
    fn check(&self) {
        let committed = self.until("everything is committed", |brokers| {
            let (_, partition) = brokers.leading(0)?;
            (partition.high_watermark() == partition.log_end()).then_some(partition)
        });
        let read = committed.read(Offset::ZERO, 1 << 20, Isolation::Uncommitted).unwrap();
        let mut values = values_of(&read.batches);
        // What was tried again for want of an answer may be there twice.
        values.dedup();
        let mut rest = values.iter();
        for value in &self.acknowledged {
            assert!(rest.any(|found| found == value), "{value} is missing in {values:?}");
        }
    }
}

fn batch(value: &str) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder
        .push(&NewRecord { timestamp: 5, key: None, value: Some(value.as_bytes()), headers: &[] })
        .unwrap();
    builder.build().unwrap()
}

fn values_of(pieces: &[bytes::Bytes]) -> Vec<String> {
    let mut values = Vec::new();
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let batch = rest.split_to(BatchHeader::parse(&rest).unwrap().size_bytes());
            let (mut scratch, limits) = (Vec::new(), DecompressLimits { max_bytes: 1 << 20, max_ratio: 100 });
            for record in Records::open(&batch, &limits, &mut scratch).unwrap() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
    }
    values
}

#[test]
fn a_leader_whose_log_fails_gives_way_and_is_in_sync_again_after_a_restart() {
    let mut brokers = Brokers::start(3, 2);
    brokers.produce(10);
    let (leader, _) = brokers.leading(0).unwrap();
    brokers.fail_next_sync(leader);
    brokers.produce(10);
    assert_eq!(brokers.faults_taken(leader), 1);
    // Broker 1, which is asked, may hear of it after the others.
    brokers.until("it has given way", |brokers| {
        let state = brokers.state(0);
        (state.leader != Some(BrokerId(leader)) && !state.isr.contains(&BrokerId(leader))).then_some(())
    });
    // Only that log is concerned.
    assert!(brokers.state(1).isr.contains(&BrokerId(leader)));
    brokers.check();
    brokers.restart(leader);
    brokers.until("it is in sync again", |brokers| (brokers.state(0).isr.len() == 3).then_some(()));
    brokers.produce(10);
    brokers.power_cut();
    brokers.check();
    brokers.produce(1);
}

#[test]
fn a_follower_whose_log_fails_leaves_the_set_and_does_not_hold_up_the_others() {
    let mut brokers = Brokers::start(3, 1);
    brokers.produce(10);
    let (leader, _) = brokers.leading(0).unwrap();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    brokers.fail_next_sync(follower);
    brokers.produce(10);
    assert_eq!(brokers.faults_taken(follower), 1);
    brokers.until("it has left the set", |brokers| (brokers.state(0).isr.len() == 2).then_some(()));
    brokers.restart(follower);
    brokers.until("it is in sync again", |brokers| (brokers.state(0).isr.len() == 3).then_some(()));
    brokers.produce(5);
    brokers.power_cut();
    brokers.check();
}

/// Nobody else has what it has, so nobody else leads. It refuses writes until it is started again: in the same leader epoch other records could
/// come to lie where those are that the disk has lost and a follower has.
#[test]
fn the_last_replica_in_sync_refuses_once_its_log_has_failed_and_goes_on_after_a_restart() {
    let mut brokers = Brokers::start(1, 2);
    brokers.produce(10);
    let (id, partition) = brokers.leading(0).unwrap();
    brokers.fail_next_sync(id);
    let refused = brokers.try_append(&partition, "refused");
    assert!(matches!(refused, Err(PartitionError::Offline(_))), "{refused:?}");
    assert!(matches!(brokers.try_append(&partition, "refused"), Err(PartitionError::Offline(_))));
    assert_eq!(partition.high_watermark(), Offset(10));
    let (_, other) = brokers.leading(1).unwrap();
    brokers.try_append(&other, "neighbour").unwrap();
    brokers.restart(id);
    brokers.produce(10);
    brokers.check();
    brokers.power_cut();
    brokers.check();
    brokers.produce(1);
}

/// A partition that a running broker is given, and that its disk does not take, is led by another one.
#[test]
fn a_leader_whose_log_cannot_be_made_gives_way() {
    let brokers = Brokers::start(3, 1);
    brokers.nodes[0].disk.inject(Fault {
        on: FaultOn::Open,
        path_ends: "u-0/log.manifest.tmp".to_owned(),
        after: 0,
        times: 1,
        kind: FaultKind::Eio,
    });
    let id = TopicId::from_bytes([10; 16]).unwrap();
    let assignments = vec![[1, 2, 3].map(BrokerId).to_vec()];
    let create = Command::CreateTopic { name: "u".to_owned(), id, assignments, settings: Vec::new() };
    brokers.runtime.block_on(brokers.quorum().propose(create)).unwrap();
    let partition = brokers.until("another broker leads", |brokers| {
        let image = brokers.quorum().image();
        let leader = image.topic_by_id(id)?.partition(0)?.leader?;
        if leader == BrokerId(1) { None } else { brokers.cluster(leader.0).registry().get(id, 0) }
    });
    assert_eq!(brokers.faults_taken(1), 1);
    brokers.until("it takes records", |brokers| brokers.try_append(&partition, "v").ok());
}

/// What has panicked may be half done and is not done again: a broker without it would be unfenced, and of no use.
#[test]
fn a_broker_fails_where_something_that_it_cannot_be_without_panics() {
    let mut brokers = Brokers::start(1, 1);
    brokers.produce(1);
    let failed = brokers.nodes[0].broker.as_ref().unwrap().failed();
    let early =
        brokers.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(1), failed).await });
    assert!(early.is_err(), "{early:?}");
    brokers.nodes[0].disk.inject(Fault {
        on: FaultOn::Open,
        path_ends: "u-0/log.manifest.tmp".to_owned(),
        after: 0,
        times: 1,
        kind: FaultKind::Panic,
    });
    let id = TopicId::from_bytes([10; 16]).unwrap();
    let assignments = vec![vec![BrokerId(1)]];
    let create = Command::CreateTopic { name: "u".to_owned(), id, assignments, settings: Vec::new() };
    brokers.runtime.block_on(brokers.quorum().propose(create)).unwrap();
    let failed = brokers.nodes[0].broker.as_ref().unwrap().failed();
    let failed = brokers.runtime.block_on(async { tokio::time::timeout(PATIENCE, failed).await }).unwrap();
    assert!(failed.starts_with("having partitions follow the metadata panicked"), "{failed}");
    // A new start makes the partition, and everything else is there.
    brokers.restart(1);
    brokers.until("it is made", |brokers| brokers.cluster(1).registry().get(id, 0));
    brokers.produce(1);
    brokers.check();
}
