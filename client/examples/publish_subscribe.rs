//! Publish-subscribe: everybody who listens gets everything that is published from then on, or what their filter lets through; nobody is in a
//! group, and nothing is committed.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::time::Duration;

use floodmark_client::admin::NewTopic;
use floodmark_client::{Begin, Client, Consumer, ConsumerConfig, NewRecord, ProducerConfig, new_id};
use tokio::time::timeout;

const PRICES: usize = 40;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let topic = format!("prices-{}", new_id());
    client.admin().create_topic(NewTopic::new(&topic).partitions(3)).await?;
    let producer = client.producer(ProducerConfig::default())?;
    let publish = async |number: usize| {
        let (key, price) = (if number.is_multiple_of(4) { "pears" } else { "apples" }, number.to_string());
        producer.deliver(NewRecord::to(&topic).key(key).value(&price)).await
    };

    // Before anybody listens.
    publish(0).await?;
    let everything = ConsumerConfig::assigned();
    let pears = ConsumerConfig::assigned().filter("key == \"pears\"");
    let mut one = subscribe(&client, everything.clone(), &topic).await?;
    let mut two = subscribe(&client, everything, &topic).await?;
    let mut three = subscribe(&client, pears, &topic).await?;
    for number in 1..=PRICES {
        publish(number).await?;
    }

    let (one, two, three) =
        tokio::try_join!(take(&mut one, PRICES), take(&mut two, PRICES), take(&mut three, PRICES / 4))?;
    println!(
        "two subscribers saw {} and {} prices, a third one {} of pears",
        one.len(),
        two.len(),
        three.len()
    );
    client.admin().delete_topic(&topic).await?;
    if one != two || three.iter().any(|price| price % 4 != 0) || one.contains(&0) {
        return Err("a subscriber saw what was not for it".into());
    }
    Ok(())
}

/// Returns once it is clear where it begins: what is published after that is seen.
async fn subscribe(
    client: &Client,
    config: ConsumerConfig,
    topic: &str,
) -> floodmark_client::Result<Consumer> {
    let consumer = client.consumer(config).await?;
    consumer.assign_topic(topic, Begin::End).await?;
    Ok(consumer)
}

/// So many prices, in order.
async fn take(consumer: &mut Consumer, count: usize) -> Result<Vec<usize>, Box<dyn std::error::Error>> {
    let mut prices = Vec::new();
    while prices.len() < count {
        let record = timeout(Duration::from_secs(20), consumer.recv()).await??;
        prices.push(std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse()?);
    }
    prices.sort_unstable();
    Ok(prices)
}
