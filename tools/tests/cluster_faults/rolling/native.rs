//! The native client with nothing set but addresses: a producer, and a group of two.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use floodmark_client::{Client, ConsumerConfig, Delivery, NewRecord, ProducerConfig, Record};
use floodmark_tools::history::Op;

use super::{Course, Group, Joined, PER_SECOND, Sent};
use crate::faults::Nemesis;
use crate::load::{Load, PARTITIONS, TOPIC, value_in};

const NAME: &str = "native";
/// Between two looks at whether all is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn addresses(nemesis: &Nemesis) -> String {
    let addresses: Vec<_> = (0..nemesis.brokers.count())
        .map(|place| nemesis.brokers.ground.places[place].grpc().to_string())
        .collect();
    addresses.join(",")
}

/// Runs one client on a thread with a runtime of its own.
fn spawn<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Joined<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>>,
{
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| e.to_string())?.block_on(work())
    })
}

/// Two members of a group, which is added to `groups`.
pub(super) fn join(nemesis: &Nemesis, groups: &mut Vec<Group>, course: &Course) -> Vec<Joined<()>> {
    let group = Group::new(NAME, groups.len() as u32);
    groups.push(group.clone());
    let members = (0..2).map(|member| {
        let (load, group, course) = (nemesis.load.clone(), group.clone(), course.clone());
        let addresses = addresses(nemesis);
        spawn(move || async move {
            read(&load, &addresses, (&group, member), &course)
                .await
                .map_err(|e| format!("member {member} of {NAME}: {e}"))
        })
    });
    members.collect()
}

async fn read(
    load: &Load,
    addresses: &str,
    (group, member): (&Group, usize),
    course: &Course,
) -> floodmark_client::Result<()> {
    let client = Client::connect(addresses).await?;
    let mut consumer = client.consumer(ConsumerConfig::group("rolling-native", [TOPIC]).from_start()).await?;
    while !course.is_over.load(Ordering::Acquire) {
        let begun = load.recorder.begin();
        let received = tokio::time::timeout(LOOK_EVERY, consumer.recv_batch()).await;
        group.hold(member, consumer.handle().assignment().len());
        let Ok(records) = received else { continue };
        let records = records?;
        let (partition, from) = (records[0].partition as u32, records[0].offset);
        group.read.fetch_add(records.len() as u64, Ordering::AcqRel);
        let records = records.iter().map(|record| (record.offset, value_in(value(record)))).collect();
        load.recorder.end(begun, Op::Read { reader: group.reader, partition, from, records });
    }
    consumer.close().await
}

fn value(record: &Record) -> &[u8] {
    record.value.as_deref().unwrap_or_default()
}

/// A producer, which sends until the course says that all is sent.
pub(super) fn produce(nemesis: &Nemesis, number: u32, course: &Course) -> Joined<Sent> {
    let (load, course, addresses) = (nemesis.load.clone(), course.clone(), addresses(nemesis));
    spawn(move || async move {
        let outcome = stream(&load, &addresses, number, &course).await;
        outcome.map_err(|e| format!("producer {NAME}: {e}"))
    })
}

/// A record that is on its way.
struct OnItsWay {
    begun: u64,
    partition: u32,
    n: u64,
    delivery: Delivery,
}

async fn stream(
    load: &Load,
    addresses: &str,
    number: u32,
    course: &Course,
) -> floodmark_client::Result<Sent> {
    let producer = Client::connect(addresses).await?.producer(ProducerConfig::default())?;
    let mut sent = Sent { name: NAME, count: 0, errors: Vec::new() };
    let mut on_their_way = VecDeque::new();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / PER_SECOND));
    while !course.is_sent.load(Ordering::Acquire) {
        pace.tick().await;
        let (partition, n) =
            ((sent.count % u64::from(PARTITIONS)) as u32, sent.count / u64::from(PARTITIONS));
        let value = [&number.to_be_bytes()[..], &n.to_be_bytes()].concat();
        let begun = load.recorder.begin();
        let record = NewRecord::to(TOPIC).partition(partition as i32).value(&value);
        let delivery = producer.send(record).await?;
        sent.count += 1;
        on_their_way.push_back(OnItsWay { begun, partition, n, delivery });
        while let Some(first) = on_their_way.front_mut() {
            let Ok(outcome) = tokio::time::timeout(Duration::ZERO, &mut first.delivery).await else { break };
            note(load, (number, first), outcome.map(|placed| placed.offset), &mut sent.errors);
            on_their_way.pop_front();
        }
    }
    for mut last in on_their_way {
        let outcome = (&mut last.delivery).await;
        note(load, (number, &last), outcome.map(|placed| placed.offset), &mut sent.errors);
    }
    producer.close().await?;
    Ok(sent)
}

fn note(
    load: &Load,
    (producer, of): (u32, &OnItsWay),
    outcome: floodmark_client::Result<i64>,
    errors: &mut Vec<String>,
) {
    let acked_at = outcome.map_err(|e| errors.push(e.to_string())).ok();
    let &OnItsWay { begun, partition, n, .. } = of;
    load.recorder
        .end(begun, Op::Send { producer, idempotent: false, partition, first: n, count: 1, acked_at });
}
