//! Writes records: encodes each at once into the batch of its partition, and sends batches in order, each of them once.
//!
//! The parts: [`partition`] holds what waits and decides what may be sent next; `link` carries it to one broker and back; `delivery` tells
//! each record's future; `buffer` holds callers back; `partitioner` chooses.

mod buffer;
mod config;
mod delivery;
mod link;
mod partition;
mod partitioner;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use floodmark_proto::batch::NewRecord as BatchRecord;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Acks, Compression, ProducerConfig};
pub use delivery::Delivery;
pub use partitioner::partition_of_key;

use crate::channels::Peer;
use crate::client::Client;
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::record::{NewRecord, Placed};
use crate::retry::Backoff;
use buffer::Buffer;
use link::Link;
use partition::{Identity, Partition, Wake};
use partitioner::Sticky;

/// What a record takes beside key, value and headers, at most: seven varints and the attributes.
const RECORD_OVERHEAD: usize = 40;
/// What a header takes beside its name and value, at most.
const HEADER_OVERHEAD: usize = 10;
/// How often records are looked at that may have waited too long.
const EXPIRY_CHECK: Duration = Duration::from_millis(500);

/// Writes records to any topics. Cheap to clone; clones share batches, connections and the buffer.
///
/// Records of one partition are written in the order in which [`Producer::send`] took them. When the last clone is dropped, what was taken is
/// still sent, as long as the runtime runs; [`Producer::close`] waits for it.
///
/// ```no_run
/// # async fn example() -> floodmark_client::Result<()> {
/// use floodmark_client::{Client, NewRecord, ProducerConfig};
///
/// let client = Client::connect("127.0.0.1:9093").await?;
/// let producer = client.producer(ProducerConfig::default())?;
/// let delivery = producer.send(NewRecord::to("orders").key("42").value("paid")).await?;
/// println!("offset {}", delivery.await?.offset);
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Producer {
    owner: Arc<Owner>,
}

/// Shared by the clones alone, so that the last of them is noticed.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Shared with the tasks.
#[derive(Debug)]
struct Shared {
    client: Client,
    config: ProducerConfig,
    buffer: Arc<Buffer>,
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    links: Mutex<HashMap<i32, Arc<Link>>>,
    identity: Mutex<Option<Identity>>,
    /// No record is taken any more.
    closing: CancellationToken,
    /// And nobody waits for one that was: whatever still asks a broker for something ends.
    over: CancellationToken,
    is_closed: AtomicBool,
    runtime: Handle,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Topic {
    partitions: RwLock<Arc<[Arc<Partition>]>>,
    sticky: Sticky,
}

impl Producer {
    pub(crate) fn new(client: Client, config: ProducerConfig) -> Result<Producer> {
        config.check()?;
        let runtime = Handle::try_current()
            .map_err(|_| Error::Invalid("a producer needs a tokio runtime around its making".to_owned()))?;
        let shared = Arc::new(Shared {
            client,
            buffer: Arc::new(Buffer::new(config.buffer_bytes)),
            config,
            topics: RwLock::default(),
            links: Mutex::default(),
            identity: Mutex::default(),
            closing: CancellationToken::new(),
            over: CancellationToken::new(),
            is_closed: AtomicBool::new(false),
            runtime,
            tasks: TaskTracker::new(),
        });
        shared.spawn(Shared::follow_topics(Arc::clone(&shared)));
        shared.spawn(Shared::follow_deadlines(Arc::clone(&shared)));
        Ok(Producer { owner: Arc::new(Owner { shared }) })
    }

    /// Takes a record, waiting while the buffer is full; the returned future tells what became of it.
    ///
    /// Fails where the topic is not there, the record is too large or the producer closed. Dropped before it is ready, the record was not
    /// taken.
    pub async fn send(&self, record: NewRecord<'_>) -> Result<Delivery> {
        let shared = &self.owner.shared;
        loop {
            match shared.take(&record) {
                Ok(Some(delivery)) => return Ok(delivery),
                Ok(None) => shared.topic(record.topic).await?,
                Err(Error::BufferFull { .. }) => shared.buffer.room(size_bytes(&record)).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes a record and waits until it is acknowledged.
    pub async fn deliver(&self, record: NewRecord<'_>) -> Result<Placed> {
        self.send(record).await?.await
    }

    /// Takes a record without waiting. Fails also where the buffer is full, or the topic is not known yet because nothing was sent to it
    /// so far.
    pub fn try_send(&self, record: NewRecord<'_>) -> Result<Delivery> {
        self.owner.shared.take(&record)?.ok_or_else(|| {
            let topic = record.topic;
            Error::Invalid(format!(
                "nothing is known of {topic} yet: send the first record with `send`, which asks"
            ))
        })
    }

    /// Waits until everything that was taken before has its outcome; the first failure among it is returned.
    pub async fn flush(&self) -> Result<()> {
        let shared = &self.owner.shared;
        let topics: Vec<Arc<Topic>> = shared.topics.read().values().cloned().collect();
        let mut pending = Vec::new();
        for partition in topics.iter().flat_map(|topic| topic.partitions.read().to_vec()) {
            pending.append(&mut partition.flush());
            if let Some(link) = partition.link() {
                link.poke();
            }
        }
        let mut first = Ok(());
        for delivery in pending {
            let outcome = delivery.await.map(|_placed| ());
            first = first.and(outcome);
        }
        first
    }

    /// Takes no more, of this producer's clones either, and waits as [`Producer::flush`] does.
    pub async fn close(&self) -> Result<()> {
        self.owner.shared.is_closed.store(true, Ordering::Release);
        let flushed = self.flush().await;
        self.owner.shared.close();
        self.owner.shared.tasks.wait().await;
        flushed
    }

    /// Bytes that wait to be acknowledged.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.owner.shared.buffer.used_bytes()
    }
}

impl Shared {
    /// Encodes a record into its batch; none where nothing is known of its topic.
    fn take(self: &Arc<Self>, record: &NewRecord<'_>) -> Result<Option<Delivery>> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Error::Closed("the producer"));
        }
        let size_bytes = size_bytes(record);
        if size_bytes > self.config.record_bytes_max {
            let limit_bytes = self.config.record_bytes_max;
            return Err(Error::TooLarge { size_bytes, limit_bytes });
        }
        let Some(partition) = self.choose(record, size_bytes)? else { return Ok(None) };
        self.buffer.try_take(size_bytes)?;
        let encoded = BatchRecord {
            timestamp: record.timestamp_ms.unwrap_or_else(now_ms),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        match partition.append(&self.config, &encoded, size_bytes) {
            Ok((delivery, wake)) => {
                self.wake(wake, partition);
                Ok(Some(delivery))
            }
            Err(error) => {
                self.buffer.give_back(size_bytes);
                Err(error)
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        for topic in self.topics.read().values() {
            for partition in topic.partitions.read().iter() {
                // What they would tell is told to whoever holds the futures.
                drop(partition.flush());
            }
        }
        self.tasks.close();
        self.closing.cancel();
        for link in self.links.lock().values() {
            link.poke();
        }
    }

    /// Waits for one of the two; that it closes is told only once.
    async fn woken_or_closing(&self, woken: &Notify) {
        tokio::select! {
            () = woken.notified() => {}
            () = self.closing.cancelled(), if !self.closing.is_cancelled() => {}
        }
    }

    fn wake(self: &Arc<Self>, wake: Wake, partition: Arc<Partition>) {
        match wake {
            Wake::Nobody => {}
            Wake::Poke(link) => link.poke(),
            Wake::List(link) => {
                if let Err(partition) = link.list(partition) {
                    self.spawn(Shared::home(Arc::clone(self), partition));
                }
            }
            Wake::Home => self.spawn(Shared::home(Arc::clone(self), partition)),
        }
    }

    /// The partition for a record; none where nothing is known of its topic.
    fn choose(&self, record: &NewRecord<'_>, size_bytes: usize) -> Result<Option<Arc<Partition>>> {
        let topics = self.topics.read();
        let Some(topic) = topics.get(record.topic) else { return Ok(None) };
        let partitions = topic.partitions.read();
        let at = match (record.partition, record.key) {
            (Some(stated), _) => usize::try_from(stated).unwrap_or(usize::MAX),
            (None, Some(key)) => partition_of_key(key, partitions.len() as i32) as usize,
            (None, None) => topic.sticky.next(partitions.len(), size_bytes, self.config.sent_at_bytes()),
        };
        partitions.get(at).cloned().map(Some).ok_or_else(|| {
            let (name, count) = (record.topic, partitions.len());
            Error::Invalid(format!("{name} has no partition {at}, only {count}"))
        })
    }

    /// Makes a topic known, or finds that it has more partitions by now.
    async fn topic(&self, name: &str) -> Result<()> {
        let described = self.client.topic(name).await?;
        let mut topics = self.topics.write();
        let topic = topics.entry(Arc::clone(&described.name)).or_insert_with(|| {
            Arc::new(Topic { partitions: RwLock::new(Arc::from(Vec::new())), sticky: Sticky::new() })
        });
        let mut partitions = topic.partitions.write();
        if described.partitions.len() > partitions.len() {
            let more = (partitions.len()..described.partitions.len()).map(|number| {
                let backoff = Backoff::new(self.client.config());
                let (name, buffer) = (Arc::clone(&described.name), Arc::clone(&self.buffer));
                Arc::new(Partition::new(name, number as i32, buffer, backoff))
            });
            *partitions = partitions.iter().cloned().chain(more).collect();
        }
        Ok(())
    }

    /// Looks from time to time whether topics have more partitions.
    async fn follow_topics(shared: Arc<Shared>) {
        let follow = async {
            loop {
                sleep(shared.client.config().metadata_age_max).await;
                let names: Vec<Arc<str>> = shared.topics.read().keys().cloned().collect();
                for name in names {
                    if let Err(error) = shared.topic(&name).await {
                        tracing::debug!(topic = &*name, %error, "a topic could not be described");
                    }
                }
            }
        };
        // Also while nobody answers: whoever closes waits for this.
        tokio::select! {
            () = follow => {}
            () = shared.closing.cancelled() => {}
        }
    }

    /// Tells records in time that they were not delivered, wherever their partitions wait. Ends once nobody waits for any.
    async fn follow_deadlines(shared: Arc<Shared>) {
        loop {
            tokio::select! {
                () = sleep(EXPIRY_CHECK) => {}
                () = shared.closing.cancelled(), if !shared.closing.is_cancelled() => {}
            }
            let is_awaited = shared.tell_overdue();
            if shared.closing.is_cancelled() && !is_awaited {
                shared.over.cancel();
                return;
            }
        }
    }

    /// Whether anybody waits on.
    fn tell_overdue(&self) -> bool {
        if self.buffer.used_bytes() == 0 {
            return false;
        }
        let (now, mut is_awaited) = (Instant::now(), false);
        for topic in self.topics.read().values() {
            for partition in topic.partitions.read().iter() {
                is_awaited |= partition.tell_overdue(&self.config, now);
            }
        }
        is_awaited
    }

    /// Brings a partition to the link of its leader, however long it takes to find out; without a leader, its records expire.
    async fn home(shared: Arc<Shared>, partition: Arc<Partition>) {
        tokio::select! {
            () = shared.find_home(&partition) => {}
            () = shared.over.cancelled() => partition.fail(&Error::Closed("the producer")),
        }
    }

    async fn find_home(self: &Arc<Self>, partition: &Arc<Partition>) {
        let shared = self;
        let mut backoff = Backoff::new(shared.client.config());
        loop {
            let asking = shared.client.leader(&partition.topic, partition.number);
            tokio::pin!(asking);
            let found = loop {
                tokio::select! {
                    found = &mut asking => break found,
                    () = sleep(EXPIRY_CHECK) => {
                        if shared.expire_homeless(partition, None) {
                            return;
                        }
                    }
                }
            };
            match found {
                Ok((leader, _peer)) => {
                    let link = shared.link(leader);
                    partition.set_link(Arc::clone(&link));
                    if link.list(Arc::clone(partition)).is_ok() {
                        return;
                    }
                }
                Err(error) if error.is_retryable() => {
                    shared.client.forget_topic(&partition.topic);
                    if shared.expire_homeless(partition, Some(&error)) {
                        return;
                    }
                    sleep(backoff.next()).await;
                }
                Err(error) => {
                    partition.fail(&error);
                    return;
                }
            }
        }
    }

    /// Whether nothing is left that needs a leader.
    fn expire_homeless(&self, partition: &Partition, error: Option<&Error>) -> bool {
        partition.on_homeless(&self.config, error, Instant::now())
    }

    fn link(self: &Arc<Self>, broker: i32) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&broker).filter(|link| !link.has_ended()) {
            return Arc::clone(link);
        }
        let link = Link::start(broker, self);
        links.insert(broker, Arc::clone(&link));
        link
    }

    /// The producer's identity, which all partitions share until one needs its own; none where it writes without.
    async fn identity(&self, peer: &Peer) -> Result<Option<Identity>> {
        if !self.config.is_idempotent {
            return Ok(None);
        }
        let known = *self.identity.lock();
        if known.is_some() {
            return Ok(known);
        }
        // Several links may ask at the same time, and the first to be answered gives it to all: none waits for a broker that says nothing.
        let allocated = link::allocate(peer).await?;
        Ok(Some(*self.identity.lock().get_or_insert(allocated)))
    }
}

/// What a record takes in a batch, at most.
fn size_bytes(record: &NewRecord<'_>) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD)
        .sum();
    RECORD_OVERHEAD + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;
    use crate::tests::{StandIn, nobody, silent};

    /// For what must end by itself.
    const LONG: Duration = Duration::from_secs(60);

    async fn in_time<F: Future>(what: F) -> F::Output {
        tokio::time::timeout(LONG, what).await.expect("it does not end")
    }

    /// The rest of the cluster answers, so that the leader is found each time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_record_fails_in_time_whose_leader_refuses_connections_or_says_nothing_on_them() {
        let (_listener, says_nothing) = silent().await;
        let refuses = nobody().await;
        let stand_in = StandIn::new(&[(1, &refuses), (2, &says_nothing)]).serve().await;
        let client = Client::connect(&stand_in).await.unwrap();
        let limit = Duration::from_secs(1);
        let config = ProducerConfig { delivery_timeout: limit, ..ProducerConfig::default() };
        let producer = client.producer(config).unwrap();
        let mut deliveries = Vec::new();
        for partition in [0, 1] {
            let record = NewRecord::to("t").partition(partition).value("v");
            deliveries.push((partition, in_time(producer.send(record)).await.unwrap()));
        }
        for (partition, delivery) in deliveries {
            let failed = in_time(delivery).await.unwrap_err();
            let Error::Deadline { last: Some(last), .. } = &failed else { panic!("{partition}: {failed}") };
            assert!(matches!(**last, Error::Unreachable { .. }), "{partition}: {failed}");
        }
        assert_eq!(producer.buffered_bytes(), 0);
        let _unheard = in_time(producer.send(NewRecord::to("t").partition(1).value("v"))).await.unwrap();
        assert!(matches!(in_time(producer.close()).await, Err(Error::Deadline { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_does_not_wait_for_what_a_silent_broker_says_of_topics() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let second = Duration::from_secs(1);
        let mut config = ClientConfig::new([listener.local_addr().unwrap().to_string()]);
        config.metadata_age_max = second;
        let producer = Client::lazy(config).unwrap().producer(ProducerConfig::default()).unwrap();
        let topic = Topic { partitions: RwLock::new(Arc::from(Vec::new())), sticky: Sticky::new() };
        producer.owner.shared.topics.write().insert(Arc::from("t"), Arc::new(topic));
        // It asks by then.
        sleep(2 * second).await;
        tokio::time::timeout(second, producer.close()).await.expect("it waits for an answer").unwrap();
    }
}
