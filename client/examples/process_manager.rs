//! Process manager: keeps the state of each order in a compacted topic, decides by it what comes next, and knows after a restart where each
//! order stands.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use std::collections::BTreeMap;

use floodmark_client::admin::NewTopic;
use floodmark_client::replay::ReplayConfig;
use floodmark_client::{Begin, Client, ConsumerConfig, NewRecord, Producer, ProducerConfig, new_id};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Placed,
    Paid,
    Shipped,
}

impl State {
    const ALL: [(&str, State); 3] =
        [("placed", State::Placed), ("paid", State::Paid), ("shipped", State::Shipped)];

    fn of(text: &[u8]) -> Option<State> {
        State::ALL.into_iter().find(|(name, _)| name.as_bytes() == text).map(|(_, state)| state)
    }

    fn name(self) -> &'static str {
        State::ALL.into_iter().find(|(_, state)| *state == self).map_or("", |(name, _)| name)
    }
}

struct Manager {
    states: BTreeMap<String, State>,
    topic: String,
    producer: Producer,
}

impl Manager {
    /// Reads the states that are there.
    async fn open(client: &Client, topic: &str) -> floodmark_client::Result<Manager> {
        let mut states = BTreeMap::new();
        let mut replay = client.replay(ReplayConfig::of(topic)).await?;
        while let Some(record) = replay.next().await? {
            if let (Some(key), Some(state)) = (record.key, record.value.and_then(|value| State::of(&value))) {
                states.insert(String::from_utf8_lossy(&key).into_owned(), state);
            }
        }
        Ok(Manager { states, topic: topic.to_owned(), producer: client.producer(ProducerConfig::default())? })
    }

    /// The pure part: an event out of turn changes nothing.
    fn next(state: Option<State>, event: State) -> Option<State> {
        let is_next = match event {
            State::Placed => state.is_none(),
            State::Paid => state == Some(State::Placed),
            State::Shipped => state == Some(State::Paid),
        };
        is_next.then_some(event)
    }

    async fn on_event(&mut self, order: &str, event: State) -> floodmark_client::Result<bool> {
        let Some(next) = Manager::next(self.states.get(order).copied(), event) else { return Ok(false) };
        self.producer.deliver(NewRecord::to(&self.topic).key(order).value(next.name())).await?;
        self.states.insert(order.to_owned(), next);
        Ok(true)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let (events, states) = (format!("order-events-{}", new_id()), format!("order-states-{}", new_id()));
    client.admin().create_topic(NewTopic::new(&events).partitions(1)).await?;
    client
        .admin()
        .create_topic(NewTopic::new(&states).partitions(1).setting("cleanup.policy", "compact"))
        .await?;
    let producer = client.producer(ProducerConfig::default())?;
    for (order, event) in
        [("1", "placed"), ("2", "placed"), ("1", "paid"), ("2", "shipped"), ("1", "shipped")]
    {
        producer.deliver(NewRecord::to(&events).key(order).value(event)).await?;
    }

    let mut consumer = client.consumer(ConsumerConfig::assigned()).await?;
    consumer.assign_topic(&events, Begin::Start).await?;
    let mut manager = Manager::open(&client, &states).await?;
    for n in 0..5 {
        if n == 3 {
            // As after a crash: what it knew is read again.
            manager = Manager::open(&client, &states).await?;
        }
        let record = consumer.recv().await?;
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let event = State::of(&value).ok_or("an event of no kind")?;
        let order = String::from_utf8_lossy(&key).into_owned();
        if !manager.on_event(&order, event).await? {
            println!("order {order} cannot be {} yet", event.name());
        }
    }
    println!("{:?}", manager.states);
    for topic in [&events, &states] {
        client.admin().delete_topic(topic).await?;
    }
    if manager.states != BTreeMap::from([("1".to_owned(), State::Shipped), ("2".to_owned(), State::Placed)]) {
        return Err("an order stands where it should not".into());
    }
    Ok(())
}
