//! One group with a member that is an unmodified Kafka client and one that is the native client: they share, take over from each other when
//! one leaves or is killed, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use floodmark_client::admin::NewTopic;
use floodmark_client::{Client, ConsumerConfig, ConsumerHandle, NewRecord, ProducerConfig, TopicPartition};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::adapter::{Failure, Polled, parse};
use crate::ensure;
use crate::session::{Session, Size, Start};

const PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest that brokers allow.
const SESSION_MS: u64 = 6000;
/// Records that each member must get while they share.
const SHARED: usize = 100;

/// What was read, by partition and offset, with how often and what.
type Seen = BTreeMap<(i32, i64), (u64, Vec<u8>)>;

/// One group at work.
struct Mixed {
    runtime: Runtime,
    client: Client,
    kafka: Session,
    topic: String,
    group: String,
    strategy: &'static str,
    kafka_holds: Option<BTreeSet<i32>>,
    kafka_count: usize,
    native: Option<Native>,
    native_count: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
}

/// The native member.
struct Native {
    handle: ConsumerHandle,
    stop: oneshot::Sender<()>,
    reading: JoinHandle<Result<(), String>>,
}

/// Writes numbers until it is told to stop.
struct Writing {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Result<u64, floodmark_client::Error>>,
}

fn note(seen: &Mutex<Seen>, partition: i32, offset: i64, value: &[u8]) -> Result<(), String> {
    let mut seen = seen.lock().unwrap();
    let (count, before) = seen.entry((partition, offset)).or_insert_with(|| (0, value.to_vec()));
    *count += 1;
    if before == value { Ok(()) } else { Err(format!("two values at {partition}@{offset}")) }
}

fn told(error: impl std::fmt::Display) -> Failure {
    Failure::wrong(format!("the native client: {error}"))
}

impl Mixed {
    fn open(name: &str, start: Start, grpc: &str, strategy: &'static str) -> Result<Mixed, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(told)?;
        let client = runtime.block_on(Client::connect(grpc)).map_err(told)?;
        let prefix = format!("fm{}-{name}-mixed-{strategy}", std::process::id());
        let size = Size { many_prefix: String::new(), many_count: 0, serves_transactions: false };
        let kafka = Session::open(start, None, &prefix, size)?;
        let (topic, group) = (prefix.clone(), format!("{prefix}-group"));
        runtime
            .block_on(client.admin().create_topic(NewTopic::new(&topic).partitions(PARTITIONS)))
            .map_err(told)?;
        Ok(Mixed {
            runtime,
            client,
            kafka,
            topic,
            group,
            strategy,
            kafka_holds: None,
            kafka_count: 0,
            native: None,
            native_count: Arc::default(),
            seen: Arc::default(),
        })
    }

    fn write(&self) -> Result<Writing, Failure> {
        let is_over: Arc<AtomicBool> = Arc::default();
        let producer = {
            let _within = self.runtime.enter();
            self.client.producer(ProducerConfig::default()).map_err(told)?
        };
        let (topic, until) = (self.topic.clone(), Arc::clone(&is_over));
        let task = self.runtime.spawn(async move {
            let mut number = 0_u64;
            while !until.load(Ordering::Acquire) {
                let value = number.to_string();
                let partition = (number % PARTITIONS as u64) as i32;
                producer.deliver(NewRecord::to(&topic).partition(partition).value(&value)).await?;
                number += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            producer.close().await?;
            Ok(number)
        });
        Ok(Writing { is_over, task })
    }

    fn native_joins(&mut self) -> Result<(), Failure> {
        let config = ConsumerConfig {
            heartbeat_interval: Duration::from_millis(500),
            ..ConsumerConfig::group(&self.group, [&self.topic]).from_start()
        };
        let mut consumer = self.runtime.block_on(self.client.consumer(config)).map_err(told)?;
        let handle = consumer.handle();
        let (stop, mut stopped) = oneshot::channel();
        let (seen, count) = (Arc::clone(&self.seen), Arc::clone(&self.native_count));
        let reading = self.runtime.spawn(async move {
            loop {
                let record = tokio::select! {
                    record = consumer.recv() => record.map_err(|error| error.to_string())?,
                    _ = &mut stopped => return consumer.close().await.map_err(|error| error.to_string()),
                };
                note(&seen, record.partition, record.offset, record.value.as_deref().unwrap_or_default())?;
                count.fetch_add(1, Ordering::AcqRel);
            }
        });
        self.native = Some(Native { handle, stop, reading });
        Ok(())
    }

    /// With a word to the group.
    fn native_leaves(&mut self) -> Result<(), Failure> {
        let Some(native) = self.native.take() else { return Err(told("it never joined")) };
        let _ = native.stop.send(());
        self.runtime.block_on(native.reading).map_err(told)?.map_err(told)
    }

    fn kafka_joins(&mut self) -> Result<(), Failure> {
        let request = json!({
            "op": "subscribe", "topic": self.topic, "group": self.group, "strategy": self.strategy,
            "instance": null, "session_ms": SESSION_MS
        });
        self.kafka.call(request)?;
        self.kafka_holds = Some(BTreeSet::new());
        Ok(())
    }

    fn kafka_leaves(&mut self) -> Result<(), Failure> {
        self.kafka_holds = None;
        self.kafka.call(json!({"op": "close"})).map(drop)
    }

    /// Without a word.
    fn kafka_is_killed(&mut self) {
        self.kafka_holds = None;
        self.kafka.kill_from(0);
    }

    fn native_holds(&self) -> BTreeSet<i32> {
        let holds = |native: &Native| native.handle.assignment().iter().map(|at| at.partition).collect();
        self.native.as_ref().map(holds).unwrap_or_default()
    }

    /// Reads with both until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Mixed) -> bool) -> Result<(), Failure> {
        let since = Instant::now();
        while !is_so(self) {
            if self.native.as_ref().is_some_and(|native| native.reading.is_finished()) {
                return Err(told(format!("it has ended before {what}")));
            }
            ensure!(
                since.elapsed() < PATIENCE,
                "{what}: not after {PATIENCE:?}; Kafka's holds {:?}, the native one {:?}, {} and {} records",
                self.kafka_holds,
                self.native_holds(),
                self.kafka_count,
                self.native_count.load(Ordering::Acquire)
            );
            if self.kafka_holds.is_none() {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let polled: Polled = parse(self.kafka.call(json!({"op": "poll", "ms": 200}))?)?;
            for got in &polled.records {
                let value = got.value.as_deref().unwrap_or_default();
                note(&self.seen, got.partition, got.offset, value).map_err(Failure::wrong)?;
            }
            self.kafka_count += polled.records.len();
            self.kafka_holds = Some(polled.assignment.into_iter().collect());
            if !polled.records.is_empty() {
                match self.kafka.call(json!({"op": "commit"})) {
                    // What a rebalance got in the way of is read again by whoever has it then.
                    Ok(_) | Err(Failure::Refused { .. }) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        Ok(())
    }

    fn shares(&mut self, when: &str) -> Result<(), Failure> {
        let each = PARTITIONS as usize / 2;
        self.until(&format!("both have their half {when}"), |mixed| {
            let (native, kafka) = (mixed.native_holds(), mixed.kafka_holds.clone().unwrap_or_default());
            native.len() == each && kafka.len() == each && native.is_disjoint(&kafka)
        })?;
        let (kafka, native) = (self.kafka_count, self.native_count.load(Ordering::Acquire) as usize);
        self.until(&format!("both read {when}"), |mixed| {
            mixed.kafka_count >= kafka + SHARED
                && mixed.native_count.load(Ordering::Acquire) as usize >= native + SHARED
        })
    }

    fn native_has_all(&mut self, when: &str) -> Result<(), Failure> {
        self.until(&format!("the native one has everything {when}"), |mixed| {
            mixed.native_holds().len() == PARTITIONS as usize
        })
    }

    /// Everything that happens to such a group.
    fn live(&mut self) -> Result<(), Failure> {
        self.native_joins()?;
        self.native_has_all("at first")?;
        self.kafka_joins()?;
        self.shares("once Kafka's joined")?;
        self.native_leaves()?;
        self.until("Kafka's has everything", |mixed| {
            mixed.kafka_holds.as_ref().is_some_and(|holds| holds.len() == PARTITIONS as usize)
        })?;
        self.native_joins()?;
        self.shares("once the native one came back")?;
        self.kafka_is_killed();
        self.native_has_all("once Kafka's was killed")?;
        self.kafka_joins()?;
        self.shares("once Kafka's came back")?;
        self.kafka_leaves()?;
        self.native_has_all("once Kafka's left")
    }

    /// Each record was read, most of them once, and the group knows it.
    fn lost_nothing(&mut self, written: u64) -> Result<String, Failure> {
        self.until("everything is read", |mixed| mixed.seen.lock().unwrap().len() as u64 >= written)?;
        self.native_leaves()?;
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        for number in 0..written {
            let of = PARTITIONS as u64;
            let place = ((number % of) as i32, (number / of) as i64);
            let value = seen.get(&place).map(|(_, value)| value.as_slice());
            ensure!(value == Some(number.to_string().as_bytes()), "{place:?} holds {value:?}, not {number}");
        }
        ensure!(seen.len() as u64 == written, "{} records read of {written}", seen.len());
        let again: u64 = seen.values().map(|(count, _)| count - 1).sum();
        ensure!(again < written / 10, "{again} of {written} records came again");
        let parts: Vec<TopicPartition> =
            (0..PARTITIONS).map(|partition| TopicPartition::new(self.topic.as_str(), partition)).collect();
        let admin = self.client.admin();
        let committed = self.runtime.block_on(admin.committed(&self.group, &parts)).map_err(told)?;
        for (at, committed) in (0_u64..).zip(&committed) {
            let count = (written + PARTITIONS as u64 - 1 - at) / PARTITIONS as u64;
            ensure!(committed.offset == Some(count as i64), "{committed:?} where {count} were read");
        }
        let (kafka, native) = (self.kafka_count, self.native_count.load(Ordering::Acquire));
        Ok(format!("{written} records, {kafka} read by Kafka's, {native} by the native one, {again} again"))
    }
}

/// Runs one group from its first member to its last; what there is to say about it.
pub(crate) fn run(name: &str, start: Start, grpc: &str, strategy: &'static str) -> Result<String, Failure> {
    let mut mixed = Mixed::open(name, start, grpc, strategy)?;
    let writing = mixed.write()?;
    let lived = mixed.live();
    writing.is_over.store(true, Ordering::Release);
    lived?;
    let written = mixed.runtime.block_on(writing.task).map_err(told)?.map_err(told)?;
    mixed.lost_nothing(written)
}
