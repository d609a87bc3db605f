//! The native client against a broker in the same process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may panic")]

mod admin;
mod consumer;
mod events;
#[path = "../../../broker/tests/free_ports/mod.rs"]
mod free_ports;
mod group;
mod producer;
mod replay;
mod selection;
mod slow_line;

use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_client::admin::NewTopic;
use floodmark_client::{Client, ClientConfig, Consumer, NewRecord, Producer, ProducerConfig, Record};

/// Longer than anything takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with a client of it.
struct Served {
    config: BrokerConfig,
    broker: Option<Broker>,
    client: Client,
}

impl Served {
    async fn start() -> Served {
        let mut config = BrokerConfig::temporary().unwrap();
        config.set("group.initial.rebalance.delay.ms", "0").unwrap();
        // The same address when it starts again; brokers of other tests start meanwhile, and are not given it.
        let [port] = free_ports::free_ports();
        let address = format!("127.0.0.1:{port}");
        config.set("grpc.listen", &address).unwrap();
        let broker = Broker::start(config.clone()).unwrap();
        let settings = ClientConfig { client_id: "test".to_owned(), ..ClientConfig::new([address]) };
        let client = Client::with(settings).await.unwrap();
        Served { config, broker: Some(broker), client }
    }

    fn stop(&mut self) {
        self.broker.take().unwrap().stop();
    }

    fn start_again(&mut self) {
        self.broker = Some(Broker::start(self.config.clone()).unwrap());
    }

    async fn topic(&self, name: &str, partitions: i32) {
        self.client.admin().create_topic(NewTopic::new(name).partitions(partitions)).await.unwrap();
    }

    fn producer(&self) -> Producer {
        self.client.producer(ProducerConfig::default()).unwrap()
    }

    /// Writes these values without keys to one partition.
    async fn write(&self, topic: &str, partition: i32, values: impl IntoIterator<Item = String>) {
        let producer = self.producer();
        for value in values {
            let record = NewRecord::to(topic).partition(partition).value(&value);
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await.unwrap();
    }
}

fn in_time<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    // Some are large, and tests wait for several.
    let waited_for = tokio::time::timeout(PATIENCE, Box::pin(what));
    async { waited_for.await.expect("it takes no minute") }
}

/// The next records, which must come.
async fn receive(consumer: &mut Consumer, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    while records.len() < count {
        records.push(in_time(consumer.recv()).await.unwrap());
    }
    records
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(text).collect()
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}
