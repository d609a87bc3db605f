//! Event store: accounts that are folded from their events, with snapshots; a view of all of them, built anew while another one is live.
#![allow(clippy::print_stdout, reason = "a program that says what it saw")]

use floodmark_client::events::{
    Aggregate, Aggregates, EventStore, ExecuteError, NewEvent, Projection, ProjectionConfig, Snapshot, Update,
};
use floodmark_client::{Client, Record, new_id};

/// An account that refuses to be overdrawn; its events and commands are what is paid in or out.
#[derive(Debug, Default)]
struct Account {
    balance: i64,
}

impl Aggregate for Account {
    type Event = i64;
    type Command = i64;
    type Refusal = String;

    fn apply(&mut self, change: &i64) {
        self.balance += change;
    }

    fn decide(&self, change: &i64) -> Result<Vec<i64>, String> {
        match self.balance + change {
            0.. => Ok(vec![*change]),
            _ => Err(format!("only {} left", self.balance)),
        }
    }

    fn encode(change: &i64) -> NewEvent {
        NewEvent::new(change.to_string())
    }

    fn decode(record: &Record) -> Result<i64, String> {
        number(record.value.as_deref().unwrap_or_default())
    }
}

impl Snapshot for Account {
    fn to_bytes(&self) -> Vec<u8> {
        self.balance.to_string().into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Account, String> {
        number(bytes).map(|balance| Account { balance })
    }
}

fn number(bytes: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("FLOODMARK_SERVER").unwrap_or_else(|_| "127.0.0.1:9093".to_owned());
    let client = Client::connect(server).await?;
    let topic = format!("accounts-{}", new_id());
    let store = EventStore::new(&client, topic.as_str());
    store.create(2).await?;

    // A stream for each account. Whoever decides on an old state is told, and decides anew.
    let accounts: Aggregates<Account> = Aggregates::with_snapshots(&client, store.clone(), 10).await?;
    for n in 0..25 {
        accounts.execute_restored(["anna", "bert"][n % 2], &4).await?;
    }
    let refused = accounts.execute_restored("bert", &-1000).await;
    let Err(ExecuteError::Refused(reason)) = refused else { return Err("bert is overdrawn".into()) };
    println!("bert may not draw 1000: {reason}");

    // A view of all accounts, live from here on, and the same once more from the start.
    let config = ProjectionConfig::new(format!("total-{topic}"), topic.as_str());
    let mut live = Projection::start(&client, config.clone()).await?;
    let before = total(&mut live, 0).await?;
    accounts.execute_restored("anna", &-20).await?;
    let now = total(&mut live, before).await?;
    live.checkpoint().await?;
    let rebuilt_config = ProjectionConfig::new(format!("rebuilt-{topic}"), topic.as_str());
    let mut rebuilt = Projection::rebuild(&client, rebuilt_config).await?;
    let rebuilt = total(&mut rebuilt, 0).await?;
    let anna = accounts.restore("anna").await?;
    println!(
        "anna has {}, {} events behind her snapshot; together they had {before} and have {now}, rebuilt {rebuilt}",
        anna.state.balance, anna.events_since_snapshot
    );

    client.admin().delete_topic(&topic).await?;
    client.admin().delete_topic(&format!("{topic}-snapshots")).await?;
    if (before, now, rebuilt, anna.state.balance) != (100, 80, 80, 32) || anna.events_since_snapshot >= 10 {
        return Err("money came or went".into());
    }
    Ok(())
}

/// What a view that stood at `sum` comes to with all that is there, or, once it is live, with the next event.
async fn total(view: &mut Projection, mut sum: i64) -> Result<i64, Box<dyn std::error::Error>> {
    let was_live = sum != 0;
    loop {
        match view.next().await? {
            Update::Record(event) => sum += Account::decode(&event)?,
            Update::CaughtUp => return Ok(sum),
        }
        if was_live {
            return Ok(sum);
        }
    }
}
