//! Brokers in one process that form a cluster, and those that must not be in it.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use floodmark_broker::{Broker, BrokerConfig, HostPort, StartError, VoterAddress};

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn voters(ports: &[u16]) -> Vec<VoterAddress> {
    (1..).zip(ports).map(|(id, port)| VoterAddress { id, address: HostPort::loopback(*port) }).collect()
}

fn config(id: i32, port: u16, voters: &[VoterAddress]) -> BrokerConfig {
    let mut config = BrokerConfig::temporary().unwrap();
    config.node_id = id;
    config.cluster_listen = Some(HostPort::loopback(port));
    config.cluster_voters = voters.to_vec();
    config.runtime_threads = 1;
    config.shutdown_timeout.0 = 1000;
    config
}

fn start_all(configs: Vec<BrokerConfig>) -> Vec<Result<Broker, StartError>> {
    let starting: Vec<_> =
        configs.into_iter().map(|config| thread::spawn(move || Broker::start(config))).collect();
    starting.into_iter().map(|starting| starting.join().unwrap()).collect()
}

#[test]
fn three_brokers_form_a_cluster_and_come_back_to_it() {
    let ports = free_ports::<3>();
    let voters = voters(&ports);
    let configs: Vec<BrokerConfig> = (1..).zip(ports).map(|(id, port)| config(id, port, &voters)).collect();
    for _ in 0..2 {
        let brokers = start_all(configs.clone());
        for (broker, port) in brokers.iter().zip(ports) {
            assert_eq!(broker.as_ref().unwrap().peer_address().unwrap().port(), port);
        }
        let stopping: Vec<_> =
            brokers.into_iter().map(|broker| thread::spawn(move || broker.unwrap().stop())).collect();
        stopping.into_iter().for_each(|stopping| stopping.join().unwrap());
    }
}

#[test]
fn a_broker_whose_peers_are_not_there_waits_until_it_is_stopped() {
    let ports = free_ports::<2>();
    let config = config(1, ports[0], &voters(&ports));
    let began = Instant::now();
    let stop = async { tokio::time::sleep(Duration::from_millis(500)).await };
    match Broker::start_until(config, stop) {
        Err(StartError::Stopped) => assert!(began.elapsed() >= Duration::from_millis(500)),
        other => panic!("{other:?}"),
    }
}
