//! Brokers in one process that form a cluster, and those that must not be in it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod free_ports;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig, HostPort, StartError, VoterAddress};
use free_ports::free_ports;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

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

/// Nothing takes as long that goes well.
const PATIENCE: Duration = Duration::from_secs(60);

async fn late() {
    tokio::time::sleep(PATIENCE).await;
}

fn start_all(configs: Vec<BrokerConfig>) -> Vec<Result<Broker, StartError>> {
    let starting: Vec<_> = configs
        .into_iter()
        .map(|config| thread::spawn(move || Broker::start_until(config, late())))
        .collect();
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
    let was_told = Arc::new(AtomicBool::new(false));
    let tells = Arc::clone(&was_told);
    let stop = async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tells.store(true, Ordering::SeqCst);
    };
    match Broker::start_until(config, stop) {
        Err(StartError::Stopped) => assert!(was_told.load(Ordering::SeqCst), "it gave up by itself"),
        other => panic!("{other:?}"),
    }
}

/// What a door says to bytes, until it ends the connection.
fn said_to(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let _ = socket.write_all(bytes);
    let mut said = Vec::new();
    // A reset is an end as well.
    match socket.read_to_end(&mut said) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it stays open"),
        _ => said,
    }
}

/// Keeps what is told as a warning, by any thread of this process.
struct Warnings;

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        WARNINGS.lock().unwrap().push(words.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Words(String);

impl tracing::field::Visit for Words {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

/// How many warnings have all of these words.
fn warned_of(words: &[&str]) -> usize {
    let warnings = WARNINGS.lock().unwrap();
    warnings.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn the_door_for_brokers_ends_what_is_no_broker_tells_it_once_and_serves_nothing_else() {
    tracing::subscriber::set_global_default(Warnings).unwrap();
    let ports = free_ports::<1>();
    let broker = Broker::start_until(config(1, ports[0], &[]), late()).unwrap();
    let port = broker.peer_address().unwrap().port();
    let garbage = [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0, 0, 0, 16, 0, 18, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        // It begins well.
        b"PRI * HTTP/2.0\r\n\r\nGET /",
        // So well that only who reads frames sees that no broker speaks so.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\0garbage",
    ];
    // It connects and says nothing, or too little.
    for came in garbage.into_iter().chain([&b""[..], b"PRI * HTTP/2.0"]) {
        said_to(port, came);
    }
    // There, one that is told that it broke HTTP/2 has until the next ping to go.
    let at_grpc = garbage.map(|came| {
        let mut socket = TcpStream::connect(broker.grpc_address().unwrap()).unwrap();
        let _ = socket.write_all(came);
        socket
    });
    let ended = "a connection to the listener for brokers was ended";
    for reason in ["not HTTP/2", "did not begin to speak", "breaks HTTP/2"] {
        assert_eq!(warned_of(&[ended, reason]), 1, "{reason}: {:?}", WARNINGS.lock().unwrap());
    }
    let ended = "a connection to the listener for gRPC was ended";
    for reason in ["not HTTP/2", "breaks HTTP/2"] {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if warned_of(&[ended, reason]) > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    drop(at_grpc);
    for reason in ["not HTTP/2", "breaks HTTP/2"] {
        assert_eq!(warned_of(&[ended, reason]), 1, "{reason}: {:?}", WARNINGS.lock().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Clients get nothing at the door for brokers, brokers nothing at the door for clients.
        for (port, path, code) in [
            (port, "/floodmark.v1.Admin/DescribeTopics", Code::InvalidArgument),
            (port, "/floodmark.quorum.Quorum/RequestVote", Code::InvalidArgument),
            (port, "/floodmark.quorum.Forming/Introduce", Code::InvalidArgument),
            (
                broker.grpc_address().unwrap().port(),
                "/floodmark.quorum.Forming/Introduce",
                Code::Unimplemented,
            ),
            (
                broker.grpc_address().unwrap().port(),
                "/floodmark.quorum.Quorum/RequestVote",
                Code::Unimplemented,
            ),
        ] {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
            let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await.unwrap();
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let answer = client.unary(Request::new(()), path.parse().unwrap(), codec).await;
            assert_eq!(answer.unwrap_err().code(), code, "{path} on {port}");
        }
    });
    assert_eq!(warned_of(&["a call between brokers was refused", "listener is for brokers"]), 1);
    broker.stop();
}
