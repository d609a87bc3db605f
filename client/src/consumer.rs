//! Reads records: what it is told to, or its part of what a group shares.
//!
//! The parts: `feed` fetches from brokers under a budget, in `pieces` of what size; `positions` holds how far each partition is, `lost` finds out where that is not known; `decode` takes batches apart; `group`
//! is the membership, with `assignor` for the member that shares out and `protocol` for the bytes between members; `offsets` talks to
//! coordinators.

mod assignor;
mod config;
mod decode;
mod feed;
mod group;
mod handle;
mod lost;
mod offsets;
mod pieces;
mod positions;
mod protocol;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use assignor::Assignor;
pub use config::{
    Begin, Commit, ConsumerConfig, Isolation, Rebalance, RebalanceChange, RebalanceListener, Reset,
};
pub use handle::ConsumerHandle;
pub(crate) use offsets::Membership;

use crate::admin::OffsetCommit;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::{Record, TopicPartition};
use crate::spares::have_memory_kept;
pub(crate) use decode::Batches;
use feed::{Delivered, Fetched};
use offsets::PARTITIONS_A_REQUEST;
use positions::{Positions, Wanted};

/// Messages that wait for the consumer; their bytes are bounded by the budget of prefetching.
const FETCHED_MAX: usize = 4096;

/// Reads records, in the order of each partition; a [`Stream`] of them. What else can be done with it is done through
/// [`Consumer::handle`], which can be cloned and used from anywhere.
///
/// ```no_run
/// # async fn example() -> floodmark_client::Result<()> {
/// use floodmark_client::{Client, ConsumerConfig};
///
/// let client = Client::connect("127.0.0.1:9093").await?;
/// let mut consumer = client.consumer(ConsumerConfig::group("billing", ["orders"]).from_start()).await?;
/// loop {
///     let record = consumer.recv().await?;
///     println!("{}-{}@{}: {:?}", record.topic, record.partition, record.offset, record.value);
/// }
/// # }
/// ```
pub struct Consumer {
    shared: Arc<Shared>,
    fetched: mpsc::Receiver<Fetched>,
    current: Option<Current>,
    /// At most once: what is being committed before it is handed out.
    committing: Option<Committing>,
    /// Done once the next record is asked for.
    in_hand: Option<Arc<positions::Progress>>,
}

type Committing = Pin<Box<dyn Future<Output = (Box<Delivered>, Result<()>)> + Send>>;

/// A message that is being handed out.
struct Current {
    delivered: Box<Delivered>,
    batches: Option<Batches>,
    records: VecDeque<Record>,
}

/// Shared with the tasks and the handles.
#[derive(Debug)]
struct Shared {
    client: Client,
    config: ConsumerConfig,
    positions: Positions,
    fetched: mpsc::Sender<Fetched>,
    /// None without a group that shares topics, and while it is between two generations.
    membership: Mutex<Option<Membership>>,
    /// Held by one commit after the other: one that is made again late would go back behind another that was made meanwhile.
    committing: tokio::sync::Mutex<()>,
    /// Feeds end.
    ending: CancellationToken,
    /// The group is left; before feeds end.
    leaving: CancellationToken,
    tasks: TaskTracker,
    members: TaskTracker,
}

impl Consumer {
    pub(crate) async fn start(client: Client, config: ConsumerConfig) -> Result<Consumer> {
        config.check()?;
        have_memory_kept();
        let (sender, fetched) = mpsc::channel(FETCHED_MAX);
        let shared = Arc::new(Shared {
            client,
            config,
            positions: Positions::default(),
            fetched: sender,
            membership: Mutex::new(None),
            committing: tokio::sync::Mutex::new(()),
            ending: CancellationToken::new(),
            leaving: CancellationToken::new(),
            tasks: TaskTracker::new(),
            members: TaskTracker::new(),
        });
        shared.tasks.spawn(feed::conduct(Arc::clone(&shared)));
        shared.tasks.spawn(lost::find(Arc::clone(&shared)));
        if !shared.config.topics.is_empty() {
            shared.members.spawn(group::run(Arc::clone(&shared)));
        }
        if let Commit::AtLeastOnce { interval } = shared.config.commit {
            shared.members.spawn(group::commit_regularly(Arc::clone(&shared), interval));
        }
        Ok(Consumer { shared, fetched, current: None, committing: None, in_hand: None })
    }

    /// To pause, seek, commit and the like, from anywhere.
    #[must_use]
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle::new(Arc::clone(&self.shared))
    }

    /// Reads these, and only these, from now on. Returns once it is clear where each begins: records that are written after that are read.
    ///
    /// Fails for a member of a group, whose group assigns.
    pub async fn assign(&self, parts: &[(TopicPartition, Begin)]) -> Result<()> {
        self.handle().assign(parts).await
    }

    /// Reads all partitions that a topic has now, in place of what was read before.
    pub fn assign_topic(&self, topic: &str, from: Begin) -> impl Future<Output = Result<()>> + Send + use<> {
        // A consumer cannot be shared between threads, and what waits shall not be bound to one.
        let (handle, client, topic) = (self.handle(), self.shared.client.clone(), topic.to_owned());
        async move {
            let count = client.partition_count(&topic).await?;
            let parts: Vec<(TopicPartition, Begin)> =
                (0..count).map(|partition| (TopicPartition::new(topic.as_str(), partition), from)).collect();
            handle.assign(&parts).await
        }
    }

    /// The next record, however long it takes. Dropped before it is ready, no record is lost.
    ///
    /// An error does not end the consumer: a partition that failed is left out until somebody seeks, the others are read on. After
    /// [`Error::Unreadable`] it is not left out but tried on, and comes again by itself once its leader can read it.
    pub async fn recv(&mut self) -> Result<Record> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The records at hand, at least one, all of one partition: cheaper than one at a time.
    pub async fn recv_batch(&mut self) -> Result<Vec<Record>> {
        let first = self.recv().await?;
        let mut records = vec![first];
        if let Some(current) = &mut self.current {
            records.extend(current.records.drain(..));
            if let Some(last) = records.last() {
                current.delivered.progress.hand_out(last.offset + 1);
            }
        }
        Ok(records)
    }

    /// Commits what was handed out, unless commits are manual, for which it takes ten seconds at most, and as long
    /// again where another commit is under way; leaves the group; ends.
    pub async fn close(mut self) -> Result<()> {
        self.finish_in_hand();
        self.shared.leaving.cancel();
        self.shared.members.close();
        self.shared.members.wait().await;
        let committed = match self.shared.config.commit {
            // A member has committed when it left.
            Commit::AtLeastOnce { .. } if self.shared.config.topics.is_empty() => {
                self.shared.commit_within(Some(group::LAST_COMMIT)).await
            }
            _ => Ok(()),
        };
        self.shared.ending.cancel();
        committed
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Record>> {
        self.finish_in_hand();
        loop {
            if let Some(current) = &mut self.current {
                match current.next() {
                    Ok(Some(record)) => {
                        current.delivered.progress.hand_out(record.offset + 1);
                        self.in_hand = Some(Arc::clone(&current.delivered.progress));
                        return Poll::Ready(Ok(record));
                    }
                    Ok(None) => self.current = None,
                    Err(error) => {
                        // Bytes that cannot be read would be so again.
                        let delivered = &current.delivered;
                        self.shared.positions.fail(&delivered.partition, delivered.epoch);
                        self.current = None;
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if let Some(committing) = &mut self.committing {
                let (delivered, committed) = ready!(committing.as_mut().poll(context));
                self.committing = None;
                if let Err(error) = committed {
                    // Not handed out, so fetched once more.
                    let wait = self.shared.client.config().backoff_max;
                    self.shared.positions.retry(&delivered.partition, delivered.epoch, wait);
                    return Poll::Ready(Err(error));
                }
                self.current = Some(Current::new(delivered, &self.shared.config));
                continue;
            }
            match ready!(self.fetched.poll_recv(context)) {
                // The consumer holds a sender itself, so this is never the end.
                None => return Poll::Ready(Err(Error::Closed("the consumer"))),
                Some(Fetched::Failed(error)) => return Poll::Ready(Err(error)),
                Some(Fetched::Delivery(delivered)) => self.begin(delivered),
            }
        }
    }

    fn begin(&mut self, delivered: Box<Delivered>) {
        if !delivered.progress.is_current(delivered.epoch) {
            return;
        }
        if self.shared.config.commit != Commit::AtMostOnce || delivered.message.payload.is_none() {
            self.current = Some(Current::new(delivered, &self.shared.config));
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.committing = Some(Box::pin(async move {
            let offset = (delivered.partition.clone(), delivered.message.next_offset);
            let committed = shared.commit_these(vec![offset]).await;
            (delivered, committed)
        }));
    }

    /// Whoever asks for the next record is done with the one before.
    fn finish_in_hand(&mut self) {
        if let Some(progress) = self.in_hand.take() {
            progress.finish();
        }
    }
}

impl Current {
    fn new(mut delivered: Box<Delivered>, config: &ConsumerConfig) -> Current {
        use floodmark_proto::pb::v1::delivery::Payload;
        let (topic, partition) = (Arc::clone(&delivered.partition.topic), delivered.partition.partition);
        let (mut batches, mut records) = (None, VecDeque::new());
        let from = delivered.progress.position();
        match delivered.message.payload.take() {
            Some(Payload::Batches(bytes)) => {
                let aborted = std::mem::take(&mut delivered.message.aborted);
                let (isolation, batch_bytes_max) = (config.isolation, config.batch_bytes_max);
                batches =
                    Some(Batches::new(topic, partition, bytes, from, isolation, aborted, batch_bytes_max));
            }
            Some(Payload::Records(sent)) => {
                let sent =
                    sent.records.into_iter().map(|record| Record::from_message(record, &topic, partition));
                records = sent.filter(|record| record.offset >= from).collect();
            }
            None => {}
        }
        Current { delivered, batches, records }
    }

    /// None where everything was handed out, or is of no use any more.
    fn next(&mut self) -> Result<Option<Record>> {
        let progress = &self.delivered.progress;
        if !progress.is_current(self.delivered.epoch) {
            self.batches = None;
            return Ok(None);
        }
        if let Some(record) = self.records.pop_front() {
            return Ok(Some(record));
        }
        if let Some(batches) = &mut self.batches {
            match batches.next(&mut self.records) {
                Ok(true) => return Ok(self.records.pop_front()),
                Ok(false) => {}
                Err(error) => {
                    self.batches = None;
                    return Err(error);
                }
            }
        }
        // Offsets at the end may have no records.
        progress.hand_out(self.delivered.message.next_offset);
        progress.finish();
        Ok(None)
    }
}

/// As [`Consumer::recv`]; ends only with the consumer.
impl Stream for Consumer {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        self.poll_recv(context).map(Some)
    }
}

/// Leaves the group in the background; what was handed out last is not committed.
impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.leaving.cancel();
        self.shared.members.close();
        self.shared.tasks.close();
        if self.shared.config.topics.is_empty() {
            self.shared.ending.cancel();
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// A partition is not fetched until somebody seeks; the consumer is told why.
    async fn fail(&self, wanted: &Wanted, error: Error) {
        if self.positions.fail(&wanted.partition, wanted.epoch) {
            let _ = self.fetched.send(Fetched::Failed(error)).await;
        }
    }

    /// A partition is fetched again after a wait; where that has gone on for long, the consumer is told, once.
    async fn stall(&self, wanted: &Wanted, error: &Error) {
        let config = self.client.config();
        let limit = config.operation_timeout;
        let Some(offset) = self.positions.stall(wanted, config.backoff_max, limit) else { return };
        let TopicPartition { topic, partition } = &wanted.partition;
        let (topic, partition, last) = (topic.to_string(), *partition, Box::new(error.clone()));
        let stalled = Error::Unreadable { topic, partition, offset, limit, last };
        let _ = self.fetched.send(Fetched::Failed(stalled)).await;
    }

    /// Commits what is done, or everything that was handed out.
    async fn commit(&self, only_done: bool) -> Result<()> {
        let _turn = self.turn_to_commit().await?;
        self.commit_these(self.positions.uncommitted(only_done)).await
    }

    /// Commits what is done, in a time of its own where it has one.
    async fn commit_within(&self, limit: Option<Duration>) -> Result<()> {
        // Large, and part of every future that closes a consumer.
        let committing = Box::pin(self.commit(true));
        let Some(limit) = limit else { return committing.await };
        let late = |_elapsed| Error::Deadline { what: "the last commit", limit, last: None };
        timeout(limit, committing).await.map_err(late)?
    }

    /// Commits these, as who this consumer was when it was asked to. In a later generation their partitions may be others', who are further
    /// by then, and no coordinator would refuse it.
    async fn commit_offsets(&self, member: Option<Membership>, offsets: &[OffsetCommit]) -> Result<()> {
        let Some(group) = &self.config.group else {
            return Err(Error::Invalid("a consumer without a group has nowhere to commit to".to_owned()));
        };
        let _turn = self.turn_to_commit().await?;
        if *self.membership.lock() != member {
            return Err(Error::Closed("this membership of the group"));
        }
        let outcomes = self.client.commit_offsets(group, member.as_ref(), offsets).await?;
        outcomes.into_iter().collect()
    }

    /// Waits for the commits before. Not for ever: each of them may take as long as this.
    async fn turn_to_commit(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let limit = self.client.config().operation_timeout;
        let late = |_elapsed| Error::Deadline { what: "the commit before this one", limit, last: None };
        timeout(limit, self.committing.lock()).await.map_err(late)
    }

    /// Out of turn: what is committed before it is handed out is so only while somebody asks for it.
    async fn commit_these(&self, offsets: Vec<(TopicPartition, i64)>) -> Result<()> {
        let Some(group) = &self.config.group else {
            return Err(Error::Invalid("a consumer without a group has nowhere to commit to".to_owned()));
        };
        if offsets.is_empty() {
            return Ok(());
        }
        let member = self.membership.lock().clone();
        if member.is_none() && !self.config.topics.is_empty() {
            return Err(Error::Closed("this membership of the group"));
        }
        let asked: Vec<OffsetCommit> =
            offsets.iter().map(|(partition, offset)| OffsetCommit::new(partition.clone(), *offset)).collect();
        for some in asked.chunks(PARTITIONS_A_REQUEST) {
            let outcomes = self.client.commit_offsets(group, member.as_ref(), some).await?;
            outcomes.into_iter().collect::<Result<Vec<()>>>()?;
        }
        self.positions.committed(&offsets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    #[tokio::test(start_paused = true)]
    async fn a_commit_looks_at_what_is_done_when_the_one_before_has_ended() {
        let mut consuming = ConsumerConfig::assigned();
        consuming.group = Some("g".to_owned());
        let client = Client::lazy(ClientConfig::new(["127.0.0.1:1"])).unwrap();
        let consumer = Consumer::start(client, consuming).await.unwrap();
        let (shared, at) = (Arc::clone(&consumer.shared), TopicPartition::new("t", 0));
        shared.positions.add(&[(at.clone(), 5)]);
        shared.positions.progress(&at).unwrap().hand_out(9);
        let done = || shared.positions.uncommitted(true);
        let before = shared.committing.lock().await;
        let committing = Arc::clone(&shared);
        let committing = tokio::spawn(async move { committing.commit(false).await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(done(), [(at.clone(), 5)], "its turn has not come");
        drop(before);
        committing.await.unwrap().unwrap_err();
        assert_eq!(done(), [(at, 9)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_waits_for_the_last_commit_but_not_for_long() {
        let mut config = ClientConfig::new(["127.0.0.1:1"]);
        config.operation_timeout = Duration::from_secs(3600);
        let mut consuming = ConsumerConfig::assigned();
        consuming.group = Some("g".to_owned());
        consuming.commit = Commit::AtLeastOnce { interval: Duration::from_secs(5) };
        for is_committing in [false, true] {
            let consumer =
                Consumer::start(Client::lazy(config.clone()).unwrap(), consuming.clone()).await.unwrap();
            let (shared, at) = (Arc::clone(&consumer.shared), TopicPartition::new("t", 0));
            shared.positions.add(&[(at.clone(), 5)]);
            if is_committing {
                // The regular one, which nobody answers either.
                tokio::time::sleep(Duration::from_secs(60)).await;
                assert!(shared.committing.try_lock().is_err());
            }
            let closed = timeout(Duration::from_secs(60), consumer.close()).await.expect("it waits too long");
            let Err(Error::Deadline { what, .. }) = closed else { panic!("{closed:?}") };
            assert_eq!(what, "the last commit");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_its_caller_lets_lie_holds_up_no_other() {
        let mut config = ClientConfig::new(["127.0.0.1:1"]);
        config.operation_timeout = Duration::from_secs(1);
        let mut consuming = ConsumerConfig::assigned();
        consuming.group = Some("g".to_owned());
        let consumer = Consumer::start(Client::lazy(config.clone()).unwrap(), consuming).await.unwrap();
        let at = TopicPartition::new("t", 0);
        consumer.shared.positions.add(&[(at.clone(), 5)]);
        let handle = consumer.handle();
        let mut lying = Box::pin(handle.commit());
        timeout(config.operation_timeout / 2, &mut lying).await.expect_err("nobody answers");
        let refused = handle.commit_offsets(&[OffsetCommit::new(at, 7)]).await.unwrap_err();
        let Error::Deadline { what, .. } = refused else { panic!("{refused}") };
        assert_eq!(what, "committing offsets", "its turn has not come");
    }

    #[tokio::test(start_paused = true)]
    async fn offsets_are_not_committed_in_a_generation_after_that_in_which_it_was_asked_for() {
        let mut consuming = ConsumerConfig::assigned();
        consuming.group = Some("g".to_owned());
        let client = Client::lazy(ClientConfig::new(["127.0.0.1:1"])).unwrap();
        let consumer = Consumer::start(client, consuming).await.unwrap();
        let shared = Arc::clone(&consumer.shared);
        let member_in = |generation| Membership { member_id: "m".to_owned(), instance_id: None, generation };
        *shared.membership.lock() = Some(member_in(5));
        let before = shared.committing.lock().await;
        let handle = consumer.handle();
        let offsets = [OffsetCommit::new(TopicPartition::new("t", 0), 7)];
        let mut waiting = Box::pin(handle.commit_offsets(&offsets));
        timeout(Duration::from_millis(1), &mut waiting).await.expect_err("another is before it");
        *shared.membership.lock() = Some(member_in(6));
        drop(before);
        assert!(matches!(waiting.await, Err(Error::Closed(_))));
    }
}
