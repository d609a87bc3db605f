//! Content-based router, message filter and translator: one pipe each, at least once.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::cell::Cell;

use floodmark_client::admin::NewTopic;
use floodmark_client::patterns::Pipe;
use floodmark_client::{Client, Commit, ConsumerConfig, Message, ProducerConfig, Record, new_id};
use tokio::sync::Notify;

const ORDERS: usize = 60;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let run = new_id();
    let name = |what: &str| format!("{what}-{run}");
    let (orders, urgent, other, labels) = (name("orders"), name("urgent"), name("other"), name("labels"));
    for topic in [&orders, &urgent, &other, &labels] {
        client.admin().create_topic(NewTopic::new(topic).partitions(2)).await?;
    }
    let producer = client.producer(ProducerConfig::default())?;
    for n in 0..ORDERS {
        let priority = if n % 3 == 0 { "urgent" } else { "normal" };
        let order = Message::to(orders.as_str()).key(n.to_string()).value(format!("order {n}"));
        // Flushing tells whether all of them were taken.
        let _delivery = order.header("priority", priority).send(&producer).await?;
    }
    producer.flush().await?;

    let route = |record: &Record| {
        let is_urgent = record.header_str("priority") == Some("urgent");
        vec![Message::forward(record, if is_urgent { urgent.as_str() } else { other.as_str() })]
    };
    // A filter gives nothing for some, a translator something else.
    let label = |record: &Record| match record.header_str("priority") {
        Some("urgent") => {
            let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).to_uppercase();
            vec![Message::forward(record, labels.as_str()).value(text).content_type("text/plain")]
        }
        _ => Vec::new(),
    };
    let (mut router, mut labeller) =
        (pipe(&client, &orders, "router").await?, pipe(&client, &orders, "labels").await?);
    let (routed, labelled) = (Countdown::new(ORDERS), Countdown::new(ORDERS));
    tokio::try_join!(
        router.run(routed.is_over.notified(), |record| routed.counting(route(record))),
        labeller.run(labelled.is_over.notified(), |record| labelled.counting(label(record)))
    )?;

    let counts =
        [count(&client, &urgent).await?, count(&client, &other).await?, count(&client, &labels).await?];
    println!("{} urgent, {} other, {} labels", counts[0], counts[1], counts[2]);
    for topic in [&orders, &urgent, &other, &labels] {
        client.admin().delete_topic(topic).await?;
    }
    // At least once: nothing is missing.
    if counts[0] < ORDERS / 3 || counts[1] < ORDERS - ORDERS / 3 || counts[2] < ORDERS / 3 {
        return Err("orders are missing".into());
    }
    Ok(())
}

/// A router goes on for ever; these stop when the last order is through.
struct Countdown {
    left: Cell<usize>,
    is_over: Notify,
}

impl Countdown {
    fn new(left: usize) -> Countdown {
        Countdown { left: Cell::new(left), is_over: Notify::new() }
    }

    fn counting<T>(&self, outcome: T) -> T {
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() == 0 {
            self.is_over.notify_one();
        }
        outcome
    }
}

async fn pipe(client: &Client, from: &str, group: &str) -> floodmark_client::Result<Pipe> {
    let mut config = ConsumerConfig::group(format!("{group}-{from}"), [from]).from_start();
    config.commit = Commit::Manual;
    Ok(Pipe::new(client.consumer(config).await?, client.producer(ProducerConfig::default())?))
}

/// Records of a topic now, counted by a replay.
async fn count(client: &Client, topic: &str) -> floodmark_client::Result<usize> {
    let mut replay = client.replay(floodmark_client::replay::ReplayConfig::of(topic)).await?;
    let mut count = 0;
    while replay.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}
