//! The native client among the others: a producer that writes to every partition, and two members of a group that share them. They are left
//! to themselves: what they are told is what an application is told, and none of it may be an error that lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use floodmark_client::admin::OffsetCommit;
use floodmark_client::{
    Client, ClientConfig, ConsumerConfig, ConsumerHandle, NewRecord, Producer, ProducerConfig, Rebalance,
    RebalanceChange, Record, TopicPartition,
};
use floodmark_proto::kafka::ErrorCode;
use floodmark_storage::random::SplitMix;
use floodmark_tools::history::{Op, Partition};
use tokio::time::{sleep, timeout};

use super::members::NATIVE_GROUP;
use super::producers::{value_in, value_of};
use super::{Load, PARTITIONS, PRODUCERS, TOPIC};

/// Its number among producers, and those of its members among readers.
const PRODUCER: u32 = PRODUCERS;
const MEMBERS: u32 = 2;
/// Between two bursts to a partition.
const BURST_EVERY: Duration = Duration::from_millis(60);
const BURST_MAX: u64 = 8;
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// Longer than any fault: a record that fails before has been given up for no good reason.
const DELIVERY_WITHIN: Duration = Duration::from_secs(600);
const CLOSED_WITHIN: Duration = Duration::from_secs(30);

/// What members know of each other.
#[derive(Default)]
struct Group {
    /// The largest offset that anybody has tried to commit.
    tried: Mutex<BTreeMap<Partition, i64>>,
}

/// One member.
struct Member {
    load: Load,
    reader: u32,
    group: Arc<Group>,
    /// Where it goes on.
    positions: BTreeMap<Partition, i64>,
    /// Given to it: it goes on where the group was, once. True where it went on from its own position, as far as it has read.
    given: Arc<Mutex<BTreeMap<Partition, bool>>>,
}

/// Works until the load is over.
pub(super) fn spawn(load: &Load, addresses: &[SocketAddr], seed: u64) -> JoinHandle<()> {
    let load = load.clone();
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            match Client::with(ClientConfig::new(addresses)).await {
                Ok(client) => work(&load, &client, seed).await,
                Err(e) => load.complain(format!("the native client does not connect: {e}")),
            }
        });
        runtime.shutdown_timeout(CLOSED_WITHIN);
    })
}

async fn work(load: &Load, client: &Client, seed: u64) {
    let config = ProducerConfig { delivery_timeout: DELIVERY_WITHIN, ..ProducerConfig::default() };
    let producer = match client.producer(config) {
        Ok(producer) => producer,
        Err(e) => return load.complain(format!("no native producer: {e}")),
    };
    let group = Arc::<Group>::default();
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..PARTITIONS {
        let random = SplitMix::new(seed ^ u64::from(partition + 1));
        tasks.spawn(produce(load.clone(), producer.clone(), partition, random));
    }
    for _ in 0..MEMBERS {
        let reader = load.readers.fetch_add(1, Ordering::Relaxed);
        let member = Member {
            load: load.clone(),
            reader,
            group: Arc::clone(&group),
            positions: BTreeMap::new(),
            given: Arc::default(),
        };
        tasks.spawn(member.run(client.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            load.complain(format!("a task of the native client: {e}"));
        }
    }
    match timeout(CLOSED_WITHIN, producer.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => load.complain(format!("the native producer closes with {e}")),
        Err(_) => load.complain(format!("the native producer does not close within {CLOSED_WITHIN:?}")),
    }
}

/// Bursts, each awaited before the next.
async fn produce(load: Load, producer: Producer, partition: Partition, mut random: SplitMix) {
    let mut sent = 0;
    while !load.is_over() {
        let mut under_way = Vec::new();
        let begun = load.recorder.begin();
        for _ in 0..=random.below(BURST_MAX) {
            let value = value_of(PRODUCER, sent, random.below(400) as usize);
            let record = NewRecord::to(TOPIC).partition(partition as i32).value(&value);
            match producer.send(record).await {
                Ok(delivery) => under_way.push((sent, delivery)),
                Err(e) => return load.complain(format!("the native producer takes no record: {e}")),
            }
            sent += 1;
        }
        for (first, delivery) in under_way {
            let placed = delivery.await;
            // A retry that the broker knows for one may be told without its place.
            let acked_at = placed.as_ref().ok().map(|placed| placed.offset).filter(|offset| *offset >= 0);
            let producer = PRODUCER;
            let op = Op::Send { producer, idempotent: true, partition, first, count: 1, acked_at };
            load.recorder.end(begun, op);
            match placed {
                Ok(_) => load.native_acked(partition, begun),
                Err(e) => load.complain(format!("the native producer in partition {partition}: {e}")),
            }
        }
        sleep(BURST_EVERY).await;
    }
}

impl Member {
    async fn run(mut self, client: Client) {
        let given = Arc::clone(&self.given);
        let config = ConsumerConfig::group(NATIVE_GROUP, [TOPIC]).manual().from_start();
        let config = config.on_rebalance(move |rebalance: Rebalance| {
            if rebalance.change == RebalanceChange::Assigned {
                let partitions = rebalance.partitions.iter().map(|place| place.partition as Partition);
                given.lock().unwrap().extend(partitions.map(|partition| (partition, false)));
            }
            async {}
        });
        let mut consumer = match client.consumer(config).await {
            Ok(consumer) => consumer,
            Err(e) => return self.load.complain(format!("no native consumer: {e}")),
        };
        let mut committed = tokio::time::Instant::now();
        while !self.load.is_over() {
            let begun = self.load.recorder.begin();
            match timeout(COMMIT_EVERY, consumer.recv_batch()).await {
                Ok(Ok(records)) => self.take(begun, &records),
                Ok(Err(e)) => {
                    let complaint = format!("native member {} is told: {e}", self.reader);
                    self.load.complain(complaint);
                    return;
                }
                Err(_) => {}
            }
            if committed.elapsed() >= COMMIT_EVERY {
                self.commit(consumer.handle()).await;
                committed = tokio::time::Instant::now();
            }
        }
        match timeout(CLOSED_WITHIN, consumer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.load.set_back(&format!("native member closes: {e}")),
            Err(_) => self.load.complain(format!("a native member does not close within {CLOSED_WITHIN:?}")),
        }
    }

    /// A batch, all of one partition.
    fn take(&mut self, begun: u64, records: &[Record]) {
        let Some(first) = records.first() else { return };
        let (reader, partition) = (self.reader, first.partition as Partition);
        let expected = self.positions.get(&partition).copied();
        if expected != Some(first.offset) {
            let was_given = self.given.lock().unwrap().remove(&partition).is_some();
            let tried = self.group.tried.lock().unwrap().get(&partition).copied().unwrap_or(0);
            // It goes on where some member has committed, or reads what was not committed again: nothing is left out.
            if !was_given || first.offset > tried {
                self.load.complain(format!(
                    "native member {reader} goes on in partition {partition} at {} after {expected:?}; given anew: {was_given}, \
                     committed at most {tried}",
                    first.offset
                ));
            }
            let offset = first.offset;
            self.load.recorder.end(begun, Op::Seek { reader, partition, offset });
        } else if let Some(goes_on) = self.given.lock().unwrap().get_mut(&partition) {
            // Perhaps what was on its way before: then it goes back with the next batch.
            *goes_on = true;
        }
        let value = |record: &Record| value_in(record.value.as_deref().unwrap_or_default());
        let told: Vec<_> = records.iter().map(|record| (record.offset, value(record))).collect();
        self.positions.insert(partition, records[records.len() - 1].offset + 1);
        self.load.recorder.end(begun, Op::Read { reader, partition, from: first.offset, records: told });
    }

    async fn commit(&mut self, handle: ConsumerHandle) {
        let owned: BTreeSet<Partition> =
            handle.assignment().iter().map(|place| place.partition as Partition).collect();
        let given = self.given.lock().unwrap().clone();
        // Of what was given to it and not read from since it knows nothing.
        let known = self.positions.iter().filter(|(p, _)| owned.contains(p) && given.get(p) != Some(&false));
        let offsets: Vec<(Partition, i64)> = known.map(|(partition, at)| (*partition, *at)).collect();
        if offsets.is_empty() {
            return;
        }
        for (partition, at) in &offsets {
            let mut tried = self.group.tried.lock().unwrap();
            let largest = tried.entry(*partition).or_default();
            *largest = (*largest).max(*at);
        }
        let begun = self.load.recorder.begin();
        let commits: Vec<_> = offsets
            .iter()
            .map(|(partition, at)| OffsetCommit::new(TopicPartition::new(TOPIC, *partition as i32), *at))
            .collect();
        let outcome = handle.commit_offsets(&commits).await;
        for (partition, offset) in offsets {
            let (group, acked) = (NATIVE_GROUP.to_owned(), outcome.is_ok());
            self.load.recorder.end(begun, Op::Commit { group, partition, offset, acked });
        }
        match outcome {
            Ok(()) => self.load.native_committed(),
            Err(e) => {
                let may_be = [
                    ErrorCode::UnknownMemberId,
                    ErrorCode::IllegalGeneration,
                    ErrorCode::RebalanceInProgress,
                ];
                self.load.set_back(&format!("native commit: {e}"));
                if !e.is_retryable() && !e.code().is_some_and(|code| may_be.contains(&code)) {
                    self.load.complain(format!("native member {} commits: {e}", self.reader));
                }
            }
        }
    }
}
