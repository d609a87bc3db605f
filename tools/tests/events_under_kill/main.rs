//! An event store under contention: 64 writers on 1,000 streams, each append under an exact expectation, kill -9 in the middle, ten
//! times. In the end every stream is a gapless chain of accepted appends, and no two were accepted on one expectation.
#![allow(clippy::disallowed_methods, reason = "real clocks and files, from outside the broker")]
#![allow(clippy::print_stdout, reason = "what was done, for whoever asks for it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod chain;
#[path = "../../../broker/tests/free_ports/mod.rs"]
mod free_ports;
mod served;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chain::{AppendId, Attempt, Read, Told, check};
use floodmark_client::events::{EventStore, Expected, NewEvent, ReadStream};
use floodmark_client::{Client, ClientConfig, Error};
use served::Served;
use tokio::time::{Instant, sleep, timeout};

const KILLS: u64 = 10;
const WRITERS: u32 = 64;
const STREAMS: u32 = 1000;
/// Every other append goes to one of so few that writers meet there.
const HOT_STREAMS: u32 = 24;
const PARTITIONS: i32 = 4;
/// What must be accepted between two kills, so that each of them has something to lose.
const ACCEPTED_BETWEEN: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Load {
    attempts: Mutex<Vec<Attempt>>,
    accepted: AtomicU64,
    conflicts: AtomicU64,
    is_over: AtomicBool,
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(bound)).unwrap()
    }
}

#[test]
fn every_stream_is_a_chain_after_ten_kills() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // It comes back to the same place, which nobody takes while it is gone.
    let [port] = free_ports::free_ports();
    let mut served = Served::start(dir.path(), &format!("127.0.0.1:{port}"));
    let address = served.grpc.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = ClientConfig {
        // A writer whose answer is lost asks again until the broker is back, with the same identity.
        operation_timeout: Duration::from_secs(60),
        backoff_max: Duration::from_millis(200),
        ..ClientConfig::new([address.clone()])
    };
    let client = runtime.block_on(Client::with(config)).unwrap();
    let store = EventStore::new(&client, "contended");
    runtime.block_on(store.create(PARTITIONS)).unwrap();
    let load = Arc::new(Load::default());
    let writers: Vec<_> =
        (0..WRITERS).map(|n| runtime.spawn(write(n, store.clone(), Arc::clone(&load)))).collect();
    let mut numbers = Numbers(11);
    for _ in 0..KILLS {
        runtime.block_on(progress(&load));
        std::thread::sleep(Duration::from_millis(u64::from(numbers.below(40))));
        served.kill();
        served = Served::start(dir.path(), &address);
    }
    runtime.block_on(progress(&load));
    load.is_over.store(true, Ordering::Release);
    let streams = runtime.block_on(async {
        for writer in writers {
            timeout(PATIENCE, writer).await.unwrap().unwrap();
        }
        read_all(&store).await
    });
    let attempts = load.attempts.lock().unwrap();
    let wrong = check(&attempts, &streams);
    assert!(
        wrong.is_empty(),
        "{} things are wrong, of which {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
    let [accepted, conflicts] = [&load.accepted, &load.conflicts].map(|count| count.load(Ordering::Acquire));
    let silent = attempts.iter().filter(|a| a.told == Told::Nothing).count();
    println!("{accepted} appends accepted, {conflicts} conflicts, {silent} without an answer");
    // A run without contention, or without anything to lose, shows nothing.
    assert!(accepted >= KILLS * ACCEPTED_BETWEEN && conflicts > KILLS, "{accepted}, {conflicts}");
}

async fn progress(load: &Load) {
    let before = load.accepted.load(Ordering::Acquire);
    let since = Instant::now();
    while load.accepted.load(Ordering::Acquire) < before + ACCEPTED_BETWEEN {
        assert!(since.elapsed() < PATIENCE, "nothing is accepted any more");
        sleep(Duration::from_millis(1)).await;
    }
}

async fn write(writer: u32, store: EventStore, load: Arc<Load>) {
    let mut numbers = Numbers(u64::from(writer) + 1000);
    // What this writer believes of streams; others prove it wrong.
    let mut last_seen: BTreeMap<u32, Option<i64>> = BTreeMap::new();
    for n in 0.. {
        if load.is_over.load(Ordering::Acquire) {
            return;
        }
        let among = if numbers.below(2) == 0 { HOT_STREAMS } else { STREAMS };
        let stream = numbers.below(among);
        let expected = match last_seen.get(&stream) {
            Some(last) => *last,
            None => last_of(&store, stream).await,
        };
        let id = AppendId { writer, n };
        let events = 1 + numbers.below(3) as usize;
        let told = append(&store, stream, expected, id, events).await;
        match told {
            Told::Accepted { last } => {
                load.accepted.fetch_add(1, Ordering::AcqRel);
                last_seen.insert(stream, Some(last));
            }
            Told::Conflict { last } => {
                load.conflicts.fetch_add(1, Ordering::AcqRel);
                last_seen.insert(stream, last);
            }
            Told::Nothing => {
                last_seen.remove(&stream);
            }
        }
        load.attempts.lock().unwrap().push(Attempt { id, stream, expected, events, told });
    }
}

async fn append(store: &EventStore, stream: u32, expected: Option<i64>, id: AppendId, events: usize) -> Told {
    let written = (0..events).map(|at| NewEvent::new(format!("{} {} {at}", id.writer, id.n))).collect();
    let expected = expected.map_or(Expected::NoStream, Expected::Offset);
    match store.append_if(name(stream), expected, written).await {
        Ok(appended) => Told::Accepted { last: appended.last_offset },
        Err(Error::Conflict { last_offset }) => Told::Conflict { last: last_offset },
        Err(error) if error.is_retryable() || error.is_ambiguous() => Told::Nothing,
        Err(error) => panic!("{error}"),
    }
}

async fn last_of(store: &EventStore, stream: u32) -> Option<i64> {
    let since = Instant::now();
    loop {
        let read =
            async { store.read_stream(name(stream), ReadStream::backward().max(1)).await?.collect().await };
        match read.await {
            Ok(events) => return events.first().map(|event| event.offset),
            Err(error) => assert!(error.is_retryable() && since.elapsed() < PATIENCE, "{error}"),
        }
    }
}

async fn read_all(store: &EventStore) -> BTreeMap<u32, Vec<Read>> {
    let mut streams = BTreeMap::new();
    for stream in 0..STREAMS {
        let events = store.read(name(stream)).await.unwrap();
        let read = events.iter().map(|event| {
            let value = std::str::from_utf8(event.value.as_deref().unwrap()).unwrap().to_owned();
            let numbers: Vec<u64> = value.split(' ').map(|part| part.parse().unwrap()).collect();
            let id = AppendId { writer: u32::try_from(numbers[0]).unwrap(), n: numbers[1] };
            Read { offset: event.offset, id, at: usize::try_from(numbers[2]).unwrap() }
        });
        streams.insert(stream, read.collect());
    }
    streams
}

fn name(stream: u32) -> String {
    format!("stream-{stream}")
}
