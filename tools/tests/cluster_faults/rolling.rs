//! Unmodified clients with nothing set but an address, while brokers are restarted one after the other: no error may reach their
//! application, and nothing may be lost or doubled.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use floodmark_tools::history::{Op, Value};
use serde_json::json;

use crate::adapter::{Adapter, Polled, parse};
use crate::faults::Nemesis;
use crate::ground::tell;
use crate::install::Client;
use crate::load::{Load, PARTITIONS, TOPIC, value_in};

/// What is tried: the client of the JVM, and librdkafka.
const CLIENTS: [&str; 2] = ["kafka-clients", "confluent-kafka-python"];
const PER_SECOND: u64 = 200;
/// Longer than a client tries to deliver a record.
const ANSWER_WITHIN: Duration = Duration::from_secs(400);
/// A consumer that was given nothing for so long after all was sent has read everything, or has missed it.
const QUIET: Duration = Duration::from_secs(5);
/// What both clients have unless told.
const SESSION_MS: u64 = 45_000;

/// Programs of the clients, installed where they are not yet. Needs a network.
pub(crate) fn install() -> Result<Vec<Vec<String>>, String> {
    CLIENTS.iter().map(|name| Client::named(name).install()).collect()
}

/// What a producer was told.
struct Streamed {
    sent: u64,
    errors: Vec<String>,
}

impl Nemesis {
    /// Restarts all brokers in turn, again and again for so long.
    pub(crate) fn roll(
        &mut self,
        programs: &[Vec<String>],
        time: Duration,
        dir: &Path,
    ) -> Result<(), String> {
        let addresses: Vec<_> = (0..self.brokers.count())
            .map(|place| self.brokers.ground.places[place].kafka().to_string())
            .collect();
        let start = |program: &[String], what: &str, nth: usize| {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]).arg(addresses.join(","));
            Adapter::start(command, &dir.join(format!("{what}-{nth}.err")))
        };
        let seconds = time.as_secs();
        let is_over = Arc::new(AtomicBool::new(false));
        let consumers: Vec<_> = programs
            .iter()
            .zip(0..)
            .map(|(program, nth)| {
                let consumer = start(program, "consumer", nth);
                consume(self.load.clone(), consumer, nth as u32, Arc::clone(&is_over))
            })
            .collect();
        let producers: Vec<_> = programs
            .iter()
            .zip(0..)
            .map(|(program, nth)| {
                let producer = start(program, "producer", nth);
                produce(self.load.clone(), producer, nth as u32, seconds)
            })
            .collect();
        let begun = Instant::now();
        let mut rounds = 0;
        // The last round ends while producers are at work.
        while rounds == 0 || begun.elapsed() < time.mul_f64(0.7) {
            for place in 0..self.brokers.count() {
                self.restart(place)?;
            }
            rounds += 1;
        }
        let is_early = begun.elapsed() < time;
        let streamed: Vec<_> = join(producers)?;
        is_over.store(true, Ordering::Release);
        let read: Vec<_> = join(consumers)?;
        for ((name, streamed), read) in CLIENTS.iter().zip(&streamed).zip(&read) {
            tell(
                self.load.since,
                &format!("{name}: {} sent, {} errors, {read} read", streamed.sent, streamed.errors.len()),
            );
            if let Some(error) = streamed.errors.first() {
                return Err(format!(
                    "{name}: {} records failed, the first with {error}",
                    streamed.errors.len()
                ));
            }
        }
        let sent: u64 = streamed.iter().map(|streamed| streamed.sent).sum();
        if read.iter().any(|read| *read != sent) {
            return Err(format!("{sent} records were sent, and consumers read {read:?}"));
        }
        if !is_early {
            return Err(format!(
                "a rolling restart takes longer than {time:?}: nothing was produced during the rest of it"
            ));
        }
        tell(self.load.since, &format!("{rounds} rolling restarts of {} brokers", self.brokers.count()));
        Ok(())
    }

    fn restart(&mut self, place: usize) -> Result<(), String> {
        let begun = Instant::now();
        self.brokers.stop(place)?;
        let stopped = begun.elapsed().as_millis();
        self.brokers.start(place);
        self.brokers.await_up(place)?;
        self.await_in_sync()?;
        let whole = begun.elapsed().as_millis();
        // Somebody who restarts brokers looks around before the next one.
        thread::sleep(Duration::from_millis(500));
        tell(
            self.load.since,
            &format!("broker {}: stopped in {stopped} ms, in sync again after {whole} ms", place + 1),
        );
        Ok(())
    }
}

fn join<T>(threads: Vec<JoinHandle<Result<T, String>>>) -> Result<Vec<T>, String> {
    threads.into_iter().map(|thread| thread.join().map_err(|_| "a client panicked")?).collect()
}

fn produce(
    load: Load,
    mut adapter: Adapter,
    producer: u32,
    seconds: u64,
) -> JoinHandle<Result<Streamed, String>> {
    thread::spawn(move || {
        let request = json!({"op": "stream", "topic": TOPIC, "partitions": PARTITIONS, "producer": producer,
            "seconds": seconds, "per_second": PER_SECOND});
        let begun = load.recorder.begin();
        let answer = adapter.call(&request, Duration::from_secs(seconds) + ANSWER_WITHIN);
        let answer = answer.map_err(|failure| format!("producer {producer}: {failure:?}"))?;
        let offsets: Vec<Option<(u32, i64)>> =
            parse(answer["offsets"].clone()).map_err(|e| format!("{e:?}"))?;
        for (nth, told) in (0..).zip(&offsets) {
            let (partition, first) = (nth % PARTITIONS, u64::from(nth / PARTITIONS));
            let acked_at = told.map(|(_, offset)| offset);
            // Without idempotence, as librdkafka has it unless told; sent once by the application all the same.
            let op = Op::Send { producer, idempotent: false, partition, first, count: 1, acked_at };
            load.recorder.end(begun, op);
        }
        let errors = parse(answer["errors"].clone()).map_err(|e| format!("{e:?}"))?;
        Ok(Streamed { sent: offsets.len() as u64, errors })
    })
}

/// Reads until nothing comes any more after the end of the load, and counts.
fn consume(
    load: Load,
    mut adapter: Adapter,
    reader: u32,
    is_over: Arc<AtomicBool>,
) -> JoinHandle<Result<u64, String>> {
    thread::spawn(move || {
        let mut call = |request: &serde_json::Value| {
            adapter.call(request, ANSWER_WITHIN).map_err(|failure| format!("consumer {reader}: {failure:?}"))
        };
        call(
            &json!({"op": "subscribe", "topic": TOPIC, "group": format!("rolling-{reader}"), "strategy": "eager",
            "instance": null, "session_ms": SESSION_MS}),
        )?;
        let (mut count, mut last) = (0, Instant::now());
        while !is_over.load(Ordering::Acquire) || last.elapsed() < QUIET {
            let begun = load.recorder.begin();
            let polled: Polled =
                parse(call(&json!({"op": "poll", "ms": 200}))?).map_err(|e| format!("{e:?}"))?;
            if polled.records.is_empty() {
                continue;
            }
            last = Instant::now();
            count += polled.records.len() as u64;
            let mut partitions: BTreeMap<u32, Vec<(i64, Value)>> = BTreeMap::new();
            for record in &polled.records {
                let value = value_in(record.value.as_deref().unwrap_or_default());
                partitions.entry(record.partition as u32).or_default().push((record.offset, value));
            }
            for (partition, records) in partitions {
                let from = records[0].0;
                load.recorder.end(begun, Op::Read { reader, partition, from, records });
            }
            call(&json!({"op": "commit"}))?;
        }
        Ok(count)
    })
}
