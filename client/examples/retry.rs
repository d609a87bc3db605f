//! Retry with delay and dead letters: work that fails is tried again after a while, and set aside with the reasons when it keeps failing.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::time::Duration;

use floodmark_client::admin::NewTopic;
use floodmark_client::patterns::{CAUSE_HEADER, ORIGIN_HEADER, RetryConfig, RetryQueue};
use floodmark_client::{Begin, Client, ConsumerConfig, NewRecord, ProducerConfig, new_id};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let topic = format!("payments-{}", new_id());
    let delays = [Duration::from_millis(200), Duration::from_millis(400)];
    let config = RetryConfig::new(format!("payers-{topic}"), &topic, delays);
    for topic in config.topics() {
        client.admin().create_topic(NewTopic::new(topic).partitions(1)).await?;
    }
    let producer = client.producer(ProducerConfig::default())?;
    for key in ["good", "late", "bad"] {
        producer.deliver(NewRecord::to(&topic).key(key)).await?;
    }

    let mut queue = RetryQueue::open(&client, producer, config.clone()).await?;
    let mut paid = Vec::new();
    let mut dead = 0;
    while paid.len() + dead < 3 {
        let attempt = queue.recv().await?;
        let key = attempt.record.key.clone().unwrap_or_default();
        match (&key[..], attempt.failures) {
            (b"good", _) | (b"late", 1) => {
                paid.push(key);
                queue.done(attempt).await?;
            }
            (_, failures) => {
                let is_tried_again =
                    queue.failed(attempt, &format!("attempt {failures}: the bank is closed")).await?;
                dead += usize::from(!is_tried_again);
            }
        }
    }
    queue.close().await?;
    println!("paid: {paid:?}");

    let mut consumer = client.consumer(ConsumerConfig::assigned()).await?;
    consumer.assign_topic(&config.dead_letters, Begin::Start).await?;
    let letter = consumer.recv().await?;
    let causes = letter.headers.iter().filter(|header| header.name == CAUSE_HEADER).count();
    println!(
        "given up: {:?}, read first at {:?}, failed {causes} times",
        letter.key,
        letter.header_str(ORIGIN_HEADER)
    );
    for topic in config.topics() {
        client.admin().delete_topic(topic).await?;
    }
    if paid != ["good", "late"] || causes != 3 {
        return Err("the work came to another end than it should".into());
    }
    Ok(())
}
