//! A line that takes longer for a large message than a connection may be silent.

use std::net::SocketAddr;
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_client::admin::NewTopic;
use floodmark_client::{Begin, Client, ClientConfig, ConsumerConfig, NewRecord, ProducerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};

use super::{free_ports, in_time, receive};

/// Of each connection: a message of 64 KiB takes 0.16 s, one of 256 KiB 0.66 s, one of 1 MiB 2.6 s.
const BYTES_PER_S: f64 = 400_000.0;
const KEEP_ALIVE: Duration = Duration::from_millis(300);
const VALUE_BYTES: usize = 10_000;
const RECORDS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_read_in_smaller_messages() {
    let [listen, slow] = free_ports::free_ports().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut config = BrokerConfig::temporary().unwrap();
    config.set("grpc.listen", &listen.to_string()).unwrap();
    config.set("grpc.advertised", &slow.to_string()).unwrap();
    let broker = Broker::start(config).unwrap();
    let lines = tokio::spawn(carry(TcpListener::bind(slow).await.unwrap(), listen));

    let settings = ClientConfig {
        keep_alive: KEEP_ALIVE,
        keep_alive_timeout: KEEP_ALIVE,
        ..ClientConfig::new([slow.to_string()])
    };
    let client = Client::with(settings).await.unwrap();
    client.admin().create_topic(NewTopic::new("t").partitions(1)).await.unwrap();
    let producer = client.producer(ProducerConfig::default()).unwrap();
    for _ in 0..RECORDS {
        drop(producer.send(NewRecord::to("t").value(&vec![b'x'; VALUE_BYTES])).await.unwrap());
    }
    in_time(producer.close()).await.unwrap();

    let mut consumer = client.consumer(ConsumerConfig::assigned()).await.unwrap();
    consumer.assign_topic("t", Begin::Start).await.unwrap();
    let offsets: Vec<i64> =
        receive(&mut consumer, RECORDS).await.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..RECORDS as i64).collect::<Vec<_>>());
    lines.abort();
    broker.stop();
}

/// Joins each connection with one to the broker, whose answers come slowly.
async fn carry(clients: TcpListener, broker: SocketAddr) {
    loop {
        let (client, _) = clients.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // What has not come over the line waits at the broker.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let broker = socket.connect(broker).await.unwrap();
        tokio::spawn(join(client, broker));
    }
}

async fn join(mut client: TcpStream, mut broker: TcpStream) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_broker, mut to_broker) = broker.split();
    let slowly = async {
        let mut piece = [0; 4 << 10];
        let mut next = Instant::now();
        while let Ok(bytes @ 1..) = from_broker.read(&mut piece).await {
            next = next.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / BYTES_PER_S);
            sleep_until(next).await;
            if to_client.write_all(&piece[..bytes]).await.is_err() {
                return;
            }
        }
    };
    // Either side that ends ends the connection.
    tokio::select! {
        () = slowly => {}
        _ = tokio::io::copy(&mut from_client, &mut to_broker) => {}
    }
}
