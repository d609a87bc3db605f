//! Work queue and fan-out: the members of one group share a topic's records, another group gets all of them once more.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::time::Duration;

use floodmark_client::admin::NewTopic;
use floodmark_client::{Client, ConsumerConfig, NewRecord, ProducerConfig, new_id};
use tokio::time::timeout;

const JOBS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let topic = format!("jobs-{}", new_id());
    client.admin().create_topic(NewTopic::new(&topic).partitions(4)).await?;

    let producer = client.producer(ProducerConfig::default())?;
    for n in 0..JOBS {
        // Closing tells whether all of them were taken.
        let _delivery = producer.send(NewRecord::to(&topic).key(&n.to_string()).value("work")).await?;
    }
    producer.close().await?;

    // Two workers of one group, and an audit that is a group of its own.
    let (workers, audit) = (format!("workers-{topic}"), format!("audit-{topic}"));
    let (one, two, all) = tokio::join!(
        count(&client, &workers, &topic),
        count(&client, &workers, &topic),
        count(&client, &audit, &topic)
    );
    let (one, two, all) = (one?, two?, all?);
    println!("workers did {one} and {two} of {JOBS} jobs; the audit saw {all}");
    client.admin().delete_topic(&topic).await?;
    if one + two != JOBS || all != JOBS {
        return Err("jobs were lost or done twice".into());
    }
    Ok(())
}

/// Records that a member is given until nothing comes any more.
async fn count(client: &Client, group: &str, topic: &str) -> floodmark_client::Result<usize> {
    let mut consumer = client.consumer(ConsumerConfig::group(group, [topic]).from_start()).await?;
    let mut count = 0;
    // The first wait includes joining the group.
    let mut patience = Duration::from_secs(15);
    while let Ok(record) = timeout(patience, consumer.recv()).await {
        record?;
        count += 1;
        patience = Duration::from_secs(5);
    }
    consumer.close().await?;
    Ok(count)
}
