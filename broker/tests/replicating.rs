//! Three brokers in one process that copy from each other: what was acknowledged by all is on all, and the death of one loses none of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]
#![allow(clippy::disallowed_methods, reason = "real clocks, from outside the brokers")]

mod free_ports;
mod kafka_client;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use floodmark_broker::{Broker, BrokerConfig, HostPort, VoterAddress};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use free_ports::free_ports;
use kafka_client::{Kafka, batch};

const TOPIC: &str = "t";

/// Patience of the tests; nothing takes as long that goes well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Brokers 1 to 3.
fn configs() -> Vec<BrokerConfig> {
    let ports = free_ports::<3>();
    let voter = |(id, port): (i32, &u16)| VoterAddress { id, address: HostPort::loopback(*port) };
    let voters: Vec<_> = (1..).zip(&ports).map(voter).collect();
    let config = |(id, port): (i32, &u16)| {
        let mut config = BrokerConfig::temporary().unwrap();
        config.node_id = id;
        config.cluster_listen = Some(HostPort::loopback(*port));
        config.cluster_voters = voters.clone();
        config.runtime_threads = 1;
        // A machine that stands still for some seconds is no broker that has died: those of these tests say that they go.
        config.broker_session_timeout.0 = 10_000;
        config.replica_lag_time_max.0 = 30_000;
        config.leader_rebalance_interval.0 = 0;
        config
    };
    (1..).zip(&ports).map(config).collect()
}

/// A broker that finds the others in time.
fn started(config: BrokerConfig) -> Broker {
    let late = async { tokio::time::sleep(PATIENCE).await };
    Broker::start_until(config, late).unwrap()
}

fn start_all(configs: Vec<BrokerConfig>) -> Vec<Broker> {
    let start = |config| thread::spawn(move || started(config));
    let starting: Vec<_> = configs.into_iter().map(start).collect();
    starting.into_iter().map(|starting| starting.join().unwrap()).collect()
}

/// What one broker says of the only partition: its leader's address, and how many are in sync.
fn partition(asked: SocketAddr) -> Option<(SocketAddr, usize)> {
    let mut kafka = Kafka::connect(asked).ok()?;
    let topics = Some(vec![MetadataRequestTopic { name: Some(TOPIC), ..Default::default() }]);
    let answer = kafka.ask(12, &MetadataRequest { topics, ..Default::default() }).ok()?;
    let response = answer.read::<MetadataResponse<'_>>();
    let partition = response.topics.first()?.partitions.first()?;
    let leader = response.brokers.iter().find(|broker| broker.node_id == partition.leader_id)?;
    let address = format!("{}:{}", leader.host, leader.port).parse().ok()?;
    Some((address, partition.isr_nodes.len()))
}

/// Asks until the answer is the one that is waited for.
fn until<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Produces with all in sync to acknowledge, wherever the leader is by then.
fn produce(asked: &[SocketAddr], value: &str) {
    until("a leader takes it", || {
        let (leader, _) = asked.iter().find_map(|at| partition(*at))?;
        let mut kafka = Kafka::connect(leader).ok()?;
        let produced = kafka.produce(TOPIC, 0, -1, &batch(&[value.as_bytes()])).ok()?;
        (produced.error_code == 0).then_some(())
    });
}

#[test]
fn what_all_have_acknowledged_is_there_when_its_leader_is_gone() {
    let mut brokers: Vec<Option<Broker>> = start_all(configs()).into_iter().map(Some).collect();
    let addresses: Vec<SocketAddr> =
        brokers.iter().flatten().map(floodmark_broker::Broker::kafka_address).collect();
    let create = || Kafka::connect(addresses[0]).ok()?.create_topic(TOPIC, 1, &[]).ok();
    until("the topic is made on three brokers", || create().filter(|code| [0, 36].contains(code)));
    for n in 0..20 {
        produce(&addresses, &format!("v{n}"));
    }
    let in_sync = |count| move |(_, in_sync): &(SocketAddr, usize)| *in_sync == count;
    let (leader, _) = until("all are in sync", || partition(addresses[0]).filter(in_sync(3)));
    let gone = addresses.iter().position(|address| *address == leader).unwrap();
    drop(brokers[gone].take());
    let left: Vec<SocketAddr> = addresses.iter().filter(|address| **address != leader).copied().collect();
    produce(&left, "after");
    let is_another = |(leader, _): &(SocketAddr, usize)| *leader != addresses[gone];
    let (leader, _) =
        until("another one leads two", || partition(left[0]).filter(in_sync(2)).filter(is_another));
    let read = until("everything is committed", || {
        let read = Kafka::connect(leader).ok()?.read_from(TOPIC, 0, 0).ok()?;
        (read.len() >= 21).then_some(read)
    });
    let mut values: Vec<String> =
        read.into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect();
    // What was tried again for want of an answer may be there twice.
    values.dedup();
    let expected: Vec<String> = (0..20).map(|n| format!("v{n}")).chain(["after".to_owned()]).collect();
    assert_eq!(values, expected);
}

#[test]
fn a_broker_that_was_away_is_in_sync_again_once_it_has_everything() {
    let configs = configs();
    let mut brokers: Vec<Option<Broker>> = start_all(configs.clone()).into_iter().map(Some).collect();
    let addresses: Vec<SocketAddr> =
        brokers.iter().flatten().map(floodmark_broker::Broker::kafka_address).collect();
    let create = || Kafka::connect(addresses[0]).ok()?.create_topic(TOPIC, 1, &[]).ok();
    until("the topic is made on three brokers", || create().filter(|code| [0, 36].contains(code)));
    produce(&addresses, "before");
    let (leader, _) = until("somebody leads", || partition(addresses[0]));
    let away = addresses.iter().position(|address| *address != leader).unwrap();
    if let Some(broker) = brokers[away].take() {
        broker.stop();
    }
    let left: Vec<SocketAddr> = (0..3).filter(|n| *n != away).map(|n| addresses[n]).collect();
    for n in 0..20 {
        produce(&left, &format!("v{n}"));
    }
    until("it is missed", || partition(left[0]).filter(|(_, in_sync)| *in_sync == 2));
    brokers[away] = Some(started(configs[away].clone()));
    until("it is in sync again", || partition(left[0]).filter(|(_, in_sync)| *in_sync == 3));
}
