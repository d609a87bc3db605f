//! Aggregator by key and window of event time, behind a sequencer that puts readings in order again.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use floodmark_client::admin::NewTopic;
use floodmark_client::patterns::{Sequencer, Windows};
use floodmark_client::replay::ReplayConfig;
use floodmark_client::{Client, NewRecord, ProducerConfig, new_id};

const MINUTE_MS: i64 = 60_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let topic = format!("readings-{}", new_id());
    client.admin().create_topic(NewTopic::new(&topic).partitions(1)).await?;
    let producer = client.producer(ProducerConfig::default())?;
    // A reading every ten seconds for three minutes; each second one overtakes the one before it.
    for n in 0..18_i64 {
        let number = n ^ 1;
        let reading = NewRecord::to(&topic).key("sensor").value("1").timestamp_ms(number * 10_000);
        producer.deliver(reading.headers(&[(b"number", Some(number.to_string().as_bytes()))])).await?;
    }

    let mut sequencer = Sequencer::new(0, 10);
    let mut sums: Windows<String, u64> = Windows::new(MINUTE_MS, 0, 1000);
    let mut closed = Vec::new();
    let mut replay = client.replay(ReplayConfig::of(&topic)).await?;
    while let Some(record) = replay.next().await? {
        let number = record.header_str("number").unwrap_or_default().parse()?;
        for record in sequencer.push(number, record)? {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            closed.extend(sums.add(key, record.timestamp_ms, |sum| *sum += 1)?);
        }
    }
    closed.extend(sums.finish());
    for window in &closed {
        println!("{}, minute {}: {} readings", window.key, window.window_ms.start / MINUTE_MS, window.value);
    }
    client.admin().delete_topic(&topic).await?;
    if closed.iter().map(|window| window.value).collect::<Vec<_>>() != [6, 6, 6] {
        return Err("readings were counted wrongly".into());
    }
    Ok(())
}
