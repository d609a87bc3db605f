//! Kafka's own client and librdkafka, as programs that nobody has told anything but an address.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use floodmark_tools::history::{Op, Value};
use serde_json::{Value as Json, json};

use super::{Course, Group, Joined, PER_SECOND, Sent};
use crate::adapter::{Adapter, Failure, Polled, parse};
use crate::faults::Nemesis;
use crate::ground::wait_until;
use crate::install::Client;
use crate::load::{Load, PARTITIONS, TOPIC, value_in};

/// What is tried: the client of the JVM, and librdkafka.
const CLIENTS: [&str; 2] = ["kafka-clients", "confluent-kafka-python"];
/// Longer than a client tries to deliver a record.
const ANSWER_WITHIN: Duration = Duration::from_secs(400);
/// Longer than any run.
const ROLLED_WITHIN: Duration = Duration::from_secs(3600);
const PRODUCERS: [Producer; 3] = [
    Producer { name: "kafka-clients", client: 0, config: &[], keeps_order: true },
    // Not idempotent unless told. What is sent again may lie behind what came later, whatever a broker does; that it lies there once is
    // the brokers' doing, who answer all they took before they go.
    Producer { name: "librdkafka", client: 1, config: &[], keeps_order: false },
    Producer {
        name: "librdkafka, idempotent",
        client: 1,
        config: &[("enable.idempotence", "true")],
        keeps_order: true,
    },
];

struct Producer {
    name: &'static str,
    /// Which client it is.
    client: usize,
    /// What it is told beside the address.
    config: &'static [(&'static str, &'static str)],
    keeps_order: bool,
}

/// Programs of the clients, installed where they are not yet. Needs a network.
pub(crate) fn install() -> Result<Vec<Vec<String>>, String> {
    CLIENTS.iter().map(|name| Client::named(name).install()).collect()
}

fn start(nemesis: &Nemesis, program: &[String], said: &Path) -> Adapter {
    let addresses: Vec<_> = (0..nemesis.brokers.count())
        .map(|place| nemesis.brokers.ground.places[place].kafka().to_string())
        .collect();
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).arg(addresses.join(","));
    Adapter::start(command, said)
}

/// Two members of a group of each client, which is added to `groups`.
pub(super) fn join(
    nemesis: &Nemesis,
    clients: &[Vec<String>],
    (groups, course): (&mut Vec<Group>, &Course),
    dir: &Path,
) -> Vec<Joined<()>> {
    let mut members = Vec::new();
    for (name, program) in CLIENTS.iter().zip(clients) {
        let group = Group::new(name, groups.len() as u32);
        for member in 0..2 {
            let adapter = start(nemesis, program, &dir.join(format!("logs/{name}-member-{member}.err")));
            let (load, group, course) = (nemesis.load.clone(), group.clone(), course.clone());
            members.push(thread::spawn(move || read(&load, adapter, (&group, member), &course)));
        }
        groups.push(group);
    }
    members
}

fn read(
    load: &Load,
    mut adapter: Adapter,
    (group, member): (&Group, usize),
    course: &Course,
) -> Result<(), String> {
    let mut call = |request: &Json| {
        let failed = |failure: Failure| format!("member {member} of {}: {failure:?}", group.name);
        adapter.call(request, ANSWER_WITHIN).map_err(failed)
    };
    call(&json!({"op": "join", "topic": TOPIC, "group": format!("rolling-{}", group.name)}))?;
    while !course.is_over.load(Ordering::Acquire) {
        let begun = load.recorder.begin();
        let polled: Polled = parse(call(&json!({"op": "poll", "ms": 200}))?).map_err(|e| format!("{e:?}"))?;
        group.hold(member, polled.assignment.iter().collect::<BTreeSet<_>>().len());
        let mut partitions: BTreeMap<u32, Vec<(i64, Value)>> = BTreeMap::new();
        for record in &polled.records {
            let value = value_in(record.value.as_deref().unwrap_or_default());
            partitions.entry(record.partition as u32).or_default().push((record.offset, value));
        }
        for (partition, records) in partitions {
            let (reader, from) = (group.reader, records[0].0);
            load.recorder.end(begun, Op::Read { reader, partition, from, records });
        }
        group.read.fetch_add(polled.records.len() as u64, Ordering::AcqRel);
    }
    call(&json!({"op": "close"})).map(drop)
}

/// Producers, which send until the course says that all is sent.
pub(super) fn produce(
    nemesis: &Nemesis,
    clients: &[Vec<String>],
    course: &Course,
    dir: &Path,
) -> Vec<Joined<Sent>> {
    let mut producers = Vec::new();
    for (producer, number) in PRODUCERS.into_iter().zip(0..) {
        let name = producer.name;
        let adapter =
            start(nemesis, &clients[producer.client], &dir.join(format!("logs/producer-{number}.err")));
        let (load, course) = (nemesis.load.clone(), course.clone());
        producers.push(thread::spawn(move || {
            let outcome = stream(&load, adapter, (number, &producer), &course);
            let (count, errors) = outcome.map_err(|failure| format!("producer {name}: {failure:?}"))?;
            Ok(Sent { name, count, errors })
        }));
    }
    producers
}

fn stream(
    load: &Load,
    mut adapter: Adapter,
    (producer, of): (u32, &Producer),
    course: &Course,
) -> Result<(u64, Vec<String>), Failure> {
    let config: BTreeMap<_, _> = of.config.iter().copied().collect();
    let request = json!({"op": "stream", "topic": TOPIC, "partitions": PARTITIONS, "producer": producer,
        "per_second": PER_SECOND, "config": config});
    let begun = load.recorder.begin();
    adapter.call(&request, ANSWER_WITHIN)?;
    wait_until(ROLLED_WITHIN, || course.is_sent.load(Ordering::Acquire));
    let answer = adapter.call(&json!({"op": "stream_end"}), ANSWER_WITHIN)?;
    let offsets: Vec<Option<(u32, i64)>> = parse(answer["offsets"].clone())?;
    for (nth, told) in (0..).zip(&offsets) {
        let (partition, first) = (nth % PARTITIONS, u64::from(nth / PARTITIONS));
        let acked_at = told.map(|(_, offset)| offset);
        // The application sends each once, whatever the client makes of it.
        let attempt =
            |acked_at| Op::Send { producer, idempotent: false, partition, first, count: 1, acked_at };
        if !of.keeps_order {
            // An attempt that nobody knows of: then the record may lie anywhere. How often is counted.
            load.recorder.end(begun, attempt(None));
        }
        load.recorder.end(begun, attempt(acked_at));
    }
    Ok((offsets.len() as u64, parse(answer["errors"].clone())?))
}
