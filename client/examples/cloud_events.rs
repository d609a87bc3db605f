//! CloudEvents in both modes, over one topic.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use floodmark_client::admin::NewTopic;
use floodmark_client::cloud_events::CloudEvent;
use floodmark_client::replay::ReplayConfig;
use floodmark_client::{Client, ProducerConfig, new_id};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let topic = format!("events-{}", new_id());
    client.admin().create_topic(NewTopic::new(&topic).partitions(1)).await?;
    let producer = client.producer(ProducerConfig::default())?;
    let event = |id: &str| {
        CloudEvent::new(id, "/shop", "order.paid").data("application/json", r#"{"order":42}"#).key("42")
    };
    event("1").to_binary(topic.as_str()).send(&producer).await?.await?;
    event("2").to_structured(topic.as_str()).send(&producer).await?.await?;

    let mut read = Vec::new();
    let mut replay = client.replay(ReplayConfig::of(&topic)).await?;
    while let Some(record) = replay.next().await? {
        read.push(CloudEvent::from_record(&record)?);
    }
    read.iter().for_each(|event| println!("{event}"));
    client.admin().delete_topic(&topic).await?;
    if read != [event("1"), event("2")] {
        return Err("an event came back as another".into());
    }
    Ok(())
}
