//! Request-reply and scatter-gather: shops are asked for a price, one of them first, then all at once.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::time::Duration;

use floodmark_client::admin::NewTopic;
use floodmark_client::patterns::{Requester, reply_to};
use floodmark_client::{Begin, Client, ConsumerConfig, Message, ProducerConfig, new_id};

const SHOPS: [(&str, &str); 3] = [("north", "7"), ("south", "5"), ("west", "9")];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let (asked, answered) = (format!("prices-{}", new_id()), format!("price-replies-{}", new_id()));
    for topic in [&asked, &answered] {
        client.admin().create_topic(NewTopic::new(topic).partitions(2)).await?;
    }
    let mut shops = Vec::new();
    for (shop, price) in SHOPS {
        shops.push(tokio::spawn(sell(client.clone(), asked.clone(), shop, price)));
    }

    let requester = Requester::open(&client, client.producer(ProducerConfig::default())?, &answered).await?;
    // Shops read from the topic's start, so it does not matter who is up first.
    let first =
        requester.request(Message::to(asked.as_str()).value("apples"), Duration::from_secs(20)).await?;
    println!("{} answered first", first.header_str("shop").unwrap_or("nobody"));

    let all = requester
        .gather(Message::to(asked.as_str()).value("pears"), SHOPS.len(), Duration::from_secs(20))
        .await?;
    let cheapest = all.iter().min_by_key(|reply| reply.value.clone());
    let cheapest = cheapest.and_then(|reply| reply.header_str("shop")).unwrap_or("nobody");
    println!("{} of {} shops answered; {cheapest} is the cheapest", all.len(), SHOPS.len());

    shops.iter().for_each(tokio::task::JoinHandle::abort);
    for topic in [&asked, &answered] {
        client.admin().delete_topic(topic).await?;
    }
    if all.len() != SHOPS.len() || cheapest != "south" {
        return Err("a reply is missing".into());
    }
    Ok(())
}

/// A shop answers every request that it sees.
async fn sell(
    client: Client,
    asked: String,
    shop: &'static str,
    price: &'static str,
) -> floodmark_client::Result<()> {
    let producer = client.producer(ProducerConfig::default())?;
    let mut consumer = client.consumer(ConsumerConfig::assigned()).await?;
    consumer.assign_topic(&asked, Begin::Start).await?;
    loop {
        let request = consumer.recv().await?;
        if let Some(reply) = reply_to(&request) {
            reply.header("shop", shop).value(price).send(&producer).await?.await?;
        }
    }
}
