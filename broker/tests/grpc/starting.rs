//! A broker that starts and cannot serve yet, because most of its cluster is not there: what callers are told, and what becomes of their
//! connections when it serves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig, HostPort, StartError, VoterAddress};
use floodmark_proto::pb::v1 as pb;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::free_ports::free_ports;
use crate::generated::admin_client::AdminClient;
use crate::generated::data_client::DataClient;
use crate::setup::{PATIENCE, next, reason, record, records, stop};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Two voters, both of which are needed. Their doors are at fixed ports.
struct Pair {
    configs: [BrokerConfig; 2],
}

/// A start that goes on until it is through, or told to stop.
struct Starting {
    stop: oneshot::Sender<()>,
    started: JoinHandle<Result<Broker, StartError>>,
}

impl Pair {
    fn new(settings: &[(&str, &str)]) -> Pair {
        let peers = free_ports::<2>();
        let voters: Vec<VoterAddress> = (1..)
            .zip(peers)
            .map(|(id, port)| VoterAddress { id, address: HostPort::loopback(port) })
            .collect();
        let config = |id: i32| {
            let [kafka, grpc, http] = free_ports();
            let mut config = BrokerConfig::temporary().unwrap();
            config.node_id = id;
            config.cluster_listen = Some(HostPort::loopback(peers[id as usize - 1]));
            config.cluster_voters = voters.clone();
            config.kafka_listen = HostPort::loopback(kafka);
            config.grpc_listen = Some(HostPort::loopback(grpc));
            config.http_listen = Some(HostPort::loopback(http));
            for (key, value) in settings {
                config.set(key, value).unwrap();
            }
            config
        };
        Pair { configs: [config(1), config(2)] }
    }

    fn start(&self, at: usize) -> Starting {
        let (stop, stopped) = oneshot::channel::<()>();
        let config = self.configs[at].clone();
        let until = async {
            // Nobody takes longer that does well.
            let _ = tokio::time::timeout(PATIENCE, stopped).await;
        };
        Starting { stop, started: std::thread::spawn(move || Broker::start_until(config, until)) }
    }

    fn address(&self, door: fn(&BrokerConfig) -> Option<&HostPort>) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], door(&self.configs[0]).unwrap().port))
    }

    fn grpc(&self) -> SocketAddr {
        self.address(|config| config.grpc_listen.as_ref())
    }

    /// A channel to the first of them, which listens soon.
    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc())).unwrap();
        let connect = async {
            loop {
                match endpoint.connect().await {
                    Ok(channel) => return channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, connect).await.expect("nobody listens")
    }

    /// The value of a metric of the first of them.
    fn metric(&self, name: &str) -> String {
        let mut socket = TcpStream::connect(self.address(|config| config.http_listen.as_ref())).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }
}

async fn joined(started: JoinHandle<Result<Broker, StartError>>) -> Result<Broker, StartError> {
    tokio::task::spawn_blocking(|| started.join().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_told_at_once_what_is_waited_for_and_connections_go_over_to_service() {
    let pair = Pair::new(&[]);
    let first = pair.start(0);
    let channel = pair.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let ask = || HealthCheckRequest { service: "floodmark.v1.Data".to_owned() };
    assert_eq!(health.check(ask()).await.unwrap().into_inner().status, NOT_SERVING);
    let mut watched = health.watch(ask()).await.unwrap().into_inner();
    assert_eq!(next(&mut watched).await.unwrap().unwrap().status, NOT_SERVING);

    // Whatever is asked, with one message or a stream of them.
    let expected = (Code::Unavailable, "BROKER_NOT_AVAILABLE".to_owned(), true);
    let mut admin = AdminClient::new(channel.clone());
    let mut data = DataClient::new(channel.clone());
    let described = admin.describe_cluster(pb::DescribeClusterRequest {}).await.unwrap_err();
    assert_eq!(reason(&described), expected);
    assert!(described.message().starts_with("this broker starts, and serves nobody yet: "), "{described}");
    let request = || records("t", Some(0), vec![record(None, "v")]);
    assert_eq!(reason(&data.append(request()).await.unwrap_err()), expected);
    let (sender, requests) = mpsc::channel(1);
    sender.send(request()).await.unwrap();
    let streamed = data.produce(ReceiverStream::new(requests)).await.unwrap_err();
    assert_eq!(reason(&streamed), expected);
    assert_eq!(
        pair.metric(r#"floodmark_grpc_errors_total{api="Data.Produce",error="BROKER_NOT_AVAILABLE"}"#),
        "1"
    );
    // Kafka's protocol has no words for it, but every client takes a refused connection for a broker that is not there yet.
    let kafka = TcpStream::connect(pair.address(|config| Some(&config.kafka_listen)));
    assert_eq!(kafka.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);

    let second = pair.start(1);
    let brokers = [joined(first.started).await.unwrap(), joined(second.started).await.unwrap()];
    // On the connection that was there all the time.
    assert_eq!(next(&mut watched).await.unwrap().unwrap().status, SERVING);
    let described = admin.describe_cluster(pb::DescribeClusterRequest {}).await.unwrap().into_inner();
    assert_eq!(described.brokers.len(), 2);
    assert_eq!(pair.metric("floodmark_grpc_connections_opened_total"), "1");
    TcpStream::connect(brokers[0].kafka_address()).unwrap();
    for broker in brokers {
        stop(broker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bounds_connections_bounds_them_before_the_broker_serves() {
    let pair = Pair::new(&[("max.connections.per.ip", "3"), ("request.timeout.ms", "1000")]);
    let first = pair.start(0);
    let channel = pair.channel().await;
    let mut health = HealthClient::new(channel);
    let ask = || HealthCheckRequest { service: String::new() };
    let mut watched = health.watch(ask()).await.unwrap().into_inner();
    assert_eq!(next(&mut watched).await.unwrap().unwrap().status, NOT_SERVING);
    let at = pair.grpc();
    // What is no HTTP/2, and what says nothing, is ended; so is the connection behind the last that may be there.
    let ended = tokio::task::spawn_blocking(move || {
        let connect = || {
            let socket = TcpStream::connect(at).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let [mut silent, mut garbage, mut over] = [connect(), connect(), connect()];
        let ends = |socket: &mut TcpStream| match socket.read_to_end(&mut Vec::new()) {
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
            Ok(_) => true,
        };
        let over = ends(&mut over);
        let _ = garbage.write_all(&[0xff; 4096]);
        [over, ends(&mut garbage), ends(&mut silent)]
    });
    assert_eq!(ended.await.unwrap(), [true; 3]);
    assert_eq!(pair.metric(r#"floodmark_grpc_connections_closed_total{reason="address_limit"}"#), "1");
    assert_eq!(pair.metric(r#"floodmark_grpc_connections_closed_total{reason="handshake"}"#), "2");
    // It is stopped before it has served anybody: who is connected is let go in good order.
    first.stop.send(()).unwrap();
    assert!(matches!(joined(first.started).await, Err(StartError::Stopped)));
    assert_eq!(next(&mut watched).await.unwrap(), None);
}
