//! Routing slip: each message carries the steps that it still has to take, and each step sends it on to the next.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::time::Duration;

use floodmark_client::admin::NewTopic;
use floodmark_client::{Begin, Client, ConsumerConfig, Message, ProducerConfig, Record, new_id};
use tokio::time::timeout;

const SLIP: &str = "slip";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let run = new_id();
    let topics: Vec<String> =
        ["weigh", "pack", "stamp", "out"].iter().map(|step| format!("{step}-{run}")).collect();
    for topic in &topics {
        client.admin().create_topic(NewTopic::new(topic).partitions(1)).await?;
    }
    let mut steps = Vec::new();
    for topic in &topics[..3] {
        steps.push(tokio::spawn(step(client.clone(), topic.clone())));
    }

    // One parcel needs no stamp.
    let producer = client.producer(ProducerConfig::default())?;
    for (parcel, slip) in [("a", vec![0, 1, 2, 3]), ("b", vec![1, 3])] {
        let slip: Vec<&str> = slip.into_iter().map(|step: usize| topics[step].as_str()).collect();
        follow(Message::to("").key(parcel), &slip).send(&producer).await?.await?;
    }

    let mut consumer = client.consumer(ConsumerConfig::assigned()).await?;
    consumer.assign_topic(&topics[3], Begin::Start).await?;
    let mut parcels = Vec::new();
    while parcels.len() < 2 {
        let parcel = timeout(Duration::from_secs(20), consumer.recv()).await??;
        let seen: Vec<&str> = parcel
            .headers
            .iter()
            .filter(|h| h.name == "seen")
            .filter_map(|h| h.value.as_deref().and_then(|v| std::str::from_utf8(v).ok()))
            .collect();
        let seen: Vec<&str> = seen.iter().filter_map(|step| step.split('-').next()).collect();
        parcels.push(format!(
            "{}: {}",
            String::from_utf8_lossy(parcel.key.as_deref().unwrap_or_default()),
            seen.join(" ")
        ));
    }
    parcels.sort();
    println!("{}", parcels.join("\n"));
    steps.iter().for_each(tokio::task::JoinHandle::abort);
    for topic in &topics {
        client.admin().delete_topic(topic).await?;
    }
    if parcels != ["a: weigh pack stamp", "b: pack"] {
        return Err("a parcel took a wrong way".into());
    }
    Ok(())
}

/// To the first step, with the others on the slip.
fn follow(message: Message, steps: &[&str]) -> Message {
    match steps.split_first() {
        Some((next, rest)) => Message { topic: (*next).into(), ..message.set(SLIP, rest.join(" ")) },
        None => message,
    }
}

async fn step(client: Client, topic: String) -> floodmark_client::Result<()> {
    let producer = client.producer(ProducerConfig::default())?;
    let mut consumer = client.consumer(ConsumerConfig::assigned()).await?;
    consumer.assign_topic(&topic, Begin::Start).await?;
    loop {
        let record: Record = consumer.recv().await?;
        let slip: Vec<&str> = record.header_str(SLIP).unwrap_or_default().split_whitespace().collect();
        let done = Message::forward(&record, topic.as_str()).header("seen", topic.clone());
        if !slip.is_empty() {
            follow(done, &slip).send(&producer).await?.await?;
        }
    }
}
