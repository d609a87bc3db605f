//! The event store: conditions, streams, aggregates, projections.

use std::collections::BTreeMap;

use floodmark_client::events::{
    Aggregate, Aggregates, Checkpoints, EventStore, ExecuteError, Expected, NewEvent, Projection,
    ProjectionConfig, ReadStream, Snapshot, Update,
};
use floodmark_client::{Error, NewRecord, Record};

use super::{Served, in_time, numbers, texts};

async fn store(served: &Served) -> EventStore {
    let store = EventStore::new(&served.client, "accounts");
    store.create(3).await.unwrap();
    store.create(3).await.unwrap();
    store
}

fn event(text: &str) -> Vec<NewEvent> {
    vec![NewEvent::new(text.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_happen_only_as_expected() {
    let served = Served::start().await;
    let store = store(&served).await;
    let missing = store.append_if("a", Expected::StreamExists, event("0")).await;
    assert!(matches!(missing, Err(Error::Conflict { last_offset: None })), "{missing:?}");
    let first = store.append_if("a", Expected::NoStream, event("0")).await.unwrap();
    let again = store.append_if("a", Expected::NoStream, event("0")).await;
    assert!(
        matches!(again, Err(Error::Conflict { last_offset: Some(last) }) if last == first.last_offset),
        "{again:?}"
    );
    let two = vec![NewEvent::new("1"), NewEvent::new("2").header("h", "v")];
    let second = store.append_if("a", Expected::Offset(first.last_offset), two).await.unwrap();
    assert_eq!(second.last_offset, second.base_offset + 1);
    store.append_if("a", Expected::Any, event("3")).await.unwrap();
    store.append_if("b", Expected::Any, event("other")).await.unwrap();
    let events = store.read("a").await.unwrap();
    assert_eq!(texts(&events), numbers(0, 4));
    assert_eq!(events[2].header_str("h"), Some("v"));
    assert_eq!(store.read("nobody").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_read_both_ways_in_part_and_live() {
    let served = Served::start().await;
    let store = store(&served).await;
    for number in numbers(0, 30) {
        store.append_if("a", Expected::Any, event(&number)).await.unwrap();
        store.append_if("b", Expected::Any, event("other")).await.unwrap();
    }
    let store = &store;
    let read = |how| async move {
        let reader = store.read_stream("a", how).await.unwrap();
        texts(&reader.collect().await.unwrap())
    };
    let mut backward = numbers(0, 30);
    backward.reverse();
    assert_eq!(read(ReadStream::backward()).await, backward);
    assert_eq!(read(ReadStream::backward().max(2)).await, backward[..2]);
    let tenth = store.read("a").await.unwrap()[10].offset;
    assert_eq!(read(ReadStream::forward().from(tenth)).await, numbers(10, 30));
    assert_eq!(read(ReadStream::forward().from(tenth).max(5)).await, numbers(10, 15));
    assert_eq!(read(ReadStream::backward().from(tenth).max(2)).await, ["10", "9"]);
    let mut live = store.read_stream("a", ReadStream::forward().from(tenth).follow()).await.unwrap();
    for number in numbers(30, 40) {
        store.append_if("a", Expected::Any, event(&number)).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.push(in_time(live.next()).await.unwrap().unwrap());
    }
    assert_eq!(texts(&seen), numbers(10, 40));
}

/// An account that refuses to be overdrawn.
#[derive(Debug, Default, PartialEq)]
struct Account {
    balance: i64,
    folded: u64,
}

impl Aggregate for Account {
    type Event = i64;
    type Command = i64;
    type Refusal = String;

    fn apply(&mut self, change: &i64) {
        self.balance += change;
        self.folded += 1;
    }

    fn decide(&self, change: &i64) -> Result<Vec<i64>, String> {
        if self.balance + change < 0 {
            return Err(format!("only {} left", self.balance));
        }
        Ok(vec![*change])
    }

    fn encode(change: &i64) -> NewEvent {
        NewEvent::new(change.to_string())
    }

    fn decode(record: &Record) -> Result<i64, String> {
        let text = std::str::from_utf8(record.value.as_deref().unwrap_or_default());
        text.map_err(|error| error.to_string())?.parse().map_err(|_| "no number".to_owned())
    }
}

impl Snapshot for Account {
    fn to_bytes(&self) -> Vec<u8> {
        self.balance.to_string().into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Account, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let balance = text.parse().map_err(|_| "no number".to_owned())?;
        Ok(Account { balance, folded: 0 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_decided_by_the_newest_state_however_many_decide_at_once() {
    let served = Served::start().await;
    let accounts: Aggregates<Account> = Aggregates::new(store(&served).await);
    accounts.execute("a", &10).await.unwrap();
    let withdrawing: Vec<_> = (0..8)
        .map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.execute("a", &-3).await })
        })
        .collect();
    let mut done = 0;
    for withdrawal in withdrawing {
        match in_time(withdrawal).await.unwrap() {
            Ok(executed) => done += executed.events.len(),
            Err(ExecuteError::Refused(reason)) => assert_eq!(reason, "only 1 left"),
            Err(ExecuteError::Store(error)) => panic!("{error}"),
        }
    }
    assert_eq!(done, 3);
    assert_eq!(accounts.load("a").await.unwrap().state.balance, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_spare_the_fold() {
    let served = Served::start().await;
    let store = store(&served).await;
    let accounts: Aggregates<Account> = Aggregates::with_snapshots(&served.client, store, 10).await.unwrap();
    for _ in 0..25 {
        accounts.execute_restored("a", &1).await.unwrap();
    }
    let restored = accounts.restore("a").await.unwrap();
    assert_eq!(restored.state, Account { balance: 25, folded: 5 });
    assert_eq!(accounts.load("a").await.unwrap().state, Account { balance: 25, folded: 25 });
    assert_eq!(accounts.restore("b").await.unwrap().state, Account::default());
}

/// Counts records until everything old is there, and then so many more.
async fn count(projection: &mut Projection, live: usize) -> (usize, usize) {
    let (mut old, mut new, mut is_live) = (0, 0, false);
    while !is_live || new < live {
        match in_time(projection.next()).await.unwrap() {
            Update::Record(_) if is_live => new += 1,
            Update::Record(_) => old += 1,
            Update::CaughtUp => is_live = true,
        }
    }
    (old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_catch_up_go_live_and_resume_each_by_itself() {
    let served = Served::start().await;
    served.topic("t", 2).await;
    let all = &served;
    let write = |from, to| async move {
        for partition in 0..2 {
            all.write("t", partition, numbers(from, to)).await;
        }
    };
    write(0, 10).await;
    let topic = ProjectionConfig::new("b", "t").checkpoints(Checkpoints::Topic("checkpoints".to_owned()));
    for config in [ProjectionConfig::new("a", "t"), topic.clone()] {
        let mut projection = Projection::start(&served.client, config.clone()).await.unwrap();
        assert_eq!(count(&mut projection, 0).await, (20, 0));
        projection.checkpoint().await.unwrap();
        let next = projection.positions();
        drop(projection);
        let mut projection = Projection::start(&served.client, config).await.unwrap();
        assert_eq!(count(&mut projection, 0).await, (0, 0));
        assert_eq!(next.len(), 2);
    }
    let mut projection = Projection::start(&served.client, topic.clone()).await.unwrap();
    assert_eq!(count(&mut projection, 0).await, (0, 0));
    write(10, 15).await;
    let mut more = 0;
    while more < 10 {
        if let Update::Record(_) = in_time(projection.next()).await.unwrap() {
            more += 1;
        }
    }
    let mut rebuilt = Projection::rebuild(&served.client, topic).await.unwrap();
    assert_eq!(count(&mut rebuilt, 0).await, (30, 0));
    let own = Checkpoints::Own(BTreeMap::from([(0, 12)]));
    let config = ProjectionConfig::new("c", "t").checkpoints(own);
    let mut projection = Projection::start(&served.client, config).await.unwrap();
    assert_eq!(count(&mut projection, 0).await, (3 + 15, 0));
    let producer = served.producer();
    in_time(producer.deliver(NewRecord::to("t").value("live"))).await.unwrap();
    assert!(matches!(in_time(projection.next()).await.unwrap(), Update::Record(_)));
}
