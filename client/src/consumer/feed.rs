//! Fetching: for each broker a feed that keeps one subscription to it, and a conductor that tells each feed what to fetch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Shared;
use super::config::Isolation;
use super::pieces::Pieces;
use super::positions::{Progress, Wanted};
use crate::error::{Error, Result};
use crate::record::TopicPartition;
use crate::retry::Backoff;
use crate::stream::{Outgoing, Requests};

/// Messages to a broker that wait to be sent.
const OUTBOX: usize = 16;
const SUBSCRIBE: &str = "/floodmark.v1.Data/Subscribe";
/// A broker that may send less than this share of the budget is told of room.
const CREDIT_SHARE: u64 = 4;

/// What feeds hand to the consumer.
#[derive(Debug)]
pub(super) enum Fetched {
    Delivery(Box<Delivered>),
    /// Something that does not pass by itself.
    Failed(Error),
}

/// A message from a broker. Its bytes are given back to the budget when it is dropped.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) message: pb::Delivery,
    pub(super) partition: TopicPartition,
    pub(super) progress: Arc<Progress>,
    pub(super) epoch: u64,
    credit: Arc<Credit>,
}

impl Drop for Delivered {
    fn drop(&mut self) {
        self.credit.give_back(self.message.cost_bytes);
    }
}

/// Bytes that a broker may send again.
#[derive(Debug, Default)]
struct Credit {
    bytes: AtomicU64,
    threshold: u64,
    enough: Notify,
}

impl Credit {
    fn give_back(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before < self.threshold && before + bytes >= self.threshold {
            self.enough.notify_one();
        }
    }
}

/// Keeps the feeds in step with what is wanted and with who leads it, until the consumer ends.
pub(super) async fn conduct(shared: Arc<Shared>) {
    let mut feeds: HashMap<i32, watch::Sender<Vec<Wanted>>> = HashMap::new();
    let mut backoff = Backoff::new(shared.client.config());
    let mut asked = Asked::default();
    loop {
        let (wanted, again_at) = shared.positions.wanted(Instant::now());
        asked.begin_round();
        let mut plan: HashMap<i32, Vec<Wanted>> = feeds.keys().map(|broker| (*broker, Vec::new())).collect();
        let mut retry_at = again_at;
        for wanted in wanted {
            let partition = &wanted.partition;
            match shared.client.leader(&partition.topic, partition.partition).await {
                Ok((leader, _peer)) => {
                    // A leader of yesterday may come back to life with what it has of the partition, while the new one is asked for the
                    // same. The next round has it under an epoch of its own.
                    if asked.is_of_another(&wanted, leader)
                        && shared.positions.move_on(partition, wanted.epoch)
                    {
                        continue;
                    }
                    asked.ask(&wanted, leader);
                    plan.entry(leader).or_default().push(wanted);
                }
                Err(error) if error.is_retryable() => {
                    asked.keep(&wanted);
                    retry_at = Some(Instant::now() + backoff.next());
                }
                Err(error) => shared.fail(&wanted, error).await,
            }
        }
        for (broker, parts) in plan {
            let feed = feeds.entry(broker).or_insert_with(|| {
                let (feed, told) = watch::channel(Vec::new());
                shared.tasks.spawn(run(Arc::clone(&shared), broker, told));
                feed
            });
            feed.send_if_modified(|before| {
                let is_new = *before != parts;
                *before = parts;
                is_new
            });
        }
        let again_at = retry_at.unwrap_or_else(|| {
            backoff.reset();
            Instant::now() + shared.client.config().metadata_age_max
        });
        tokio::select! {
            () = shared.positions.changed.notified() => {}
            () = sleep_until(again_at) => {}
            () = shared.ending.cancelled() => return,
        }
    }
}

/// Who was asked for each partition, under which epoch: in this round, and in the one before.
#[derive(Debug, Default)]
struct Asked {
    now: HashMap<TopicPartition, (u64, i32)>,
    before: HashMap<TopicPartition, (u64, i32)>,
}

impl Asked {
    fn begin_round(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Another broker was asked for the same.
    fn is_of_another(&self, wanted: &Wanted, leader: i32) -> bool {
        let was = self.before.get(&wanted.partition);
        was.is_some_and(|(epoch, broker)| *epoch == wanted.epoch && *broker != leader)
    }

    fn ask(&mut self, wanted: &Wanted, leader: i32) {
        self.now.insert(wanted.partition.clone(), (wanted.epoch, leader));
    }

    /// Nobody knows whom to ask. Who was asked last is told to stop, and may send something till it hears that.
    fn keep(&mut self, wanted: &Wanted) {
        let was = self.before.get(&wanted.partition);
        self.now.extend(was.map(|was| (wanted.partition.clone(), *was)));
    }
}

/// One subscription after the other to one broker.
async fn run(shared: Arc<Shared>, broker: i32, mut told: watch::Receiver<Vec<Wanted>>) {
    let mut backoff = Backoff::new(shared.client.config());
    let mut pieces = Pieces::new();
    loop {
        let parts = told.borrow_and_update().clone();
        if parts.is_empty() {
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = shared.ending.cancelled() => return,
            }
            continue;
        }
        let mut feed = Feed {
            shared: &shared,
            broker,
            parts: HashMap::new(),
            is_used: HashMap::new(),
            pieces,
            has_answered: false,
            heard_at: None,
        };
        let ended = tokio::select! {
            ended = feed.run(&parts, &mut told) => ended,
            () = shared.ending.cancelled() => return,
        };
        if feed.has_answered {
            backoff.reset();
        }
        match ended {
            // Nothing of it is wanted as it was said any more; what is wanted instead is on its way here.
            Ok(()) if feed.is_used.is_empty() => {
                tokio::select! {
                    changed = told.changed() => if changed.is_err() { return },
                    () = sleep(backoff.next()) => {}
                    () = shared.ending.cancelled() => return,
                }
            }
            Ok(()) => {}
            Err(error) if error.is_retryable() => {
                tracing::debug!(broker, %error, "a subscription ended");
                if let Some(heard_at) = feed.heard_at {
                    pieces = pieces.after(heard_at.elapsed(), shared.client.config().keep_alive);
                }
                for part in &parts {
                    shared.client.forget_topic(&part.partition.topic);
                }
                sleep(backoff.next()).await;
                shared.positions.changed.notify_one();
            }
            Err(error) => {
                for part in &parts {
                    shared.fail(part, error.clone()).await;
                }
            }
        }
    }
}

/// One subscription.
struct Feed<'s> {
    shared: &'s Shared,
    broker: i32,
    /// What is subscribed to now.
    parts: HashMap<TopicPartition, Wanted>,
    /// What ever was. Messages do not say which of two subscriptions to one partition they belong to, so there is never a second in one stream.
    is_used: HashMap<TopicPartition, u64>,
    pieces: Pieces,
    has_answered: bool,
    /// When the broker was heard last; first when it took the call.
    heard_at: Option<Instant>,
}

impl Feed<'_> {
    /// Ends well where another subscription has to be made.
    async fn run(&mut self, parts: &[Wanted], told: &mut watch::Receiver<Vec<Wanted>>) -> Result<()> {
        let budget = self.shared.config.prefetch_bytes as u64;
        let credit = Arc::new(Credit { threshold: (budget / CREDIT_SHARE).max(1), ..Credit::default() });
        let (outbox, requests) = mpsc::channel(OUTBOX);
        let start = self.start(parts, budget);
        if start.parts.is_empty() {
            return Ok(());
        }
        let frame_bytes_max = self.pieces.frame_bytes(&self.shared.config);
        let peer = self.shared.client.broker_apart(self.broker, frame_bytes_max).await?;
        // Never full yet.
        let _ = outbox.try_send(request(pb::subscribe_request::Request::Start(start)));
        let limit = self.shared.client.request_timeout();
        let called = timeout(limit, peer.stream(SUBSCRIBE, Requests::new(requests))).await;
        let called = called.map_err(|_elapsed| Error::Deadline { what: "subscribing", limit, last: None })?;
        let failed = |status: tonic::Status| Error::from_status(&peer.address, &status);
        let mut replies = called.map_err(failed)?;
        self.heard_at = Some(Instant::now());
        loop {
            tokio::select! {
                reply = replies.message() => match reply.map_err(failed)? {
                    Some(reply) => {
                        let reply = pb::SubscribeReply::decode(reply).map_err(unreadable)?;
                        self.on_reply(reply, &credit).await?;
                    }
                    None => {
                        let reason = "the broker has ended the subscription".to_owned();
                        return Err(Error::Unreachable { address: peer.address.clone(), reason });
                    }
                },
                () = credit.enough.notified() => {
                    let bytes = credit.bytes.swap(0, Ordering::AcqRel);
                    send(&outbox, pb::subscribe_request::Request::CreditBytes(bytes)).await?;
                }
                changed = told.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let parts = told.borrow_and_update().clone();
                    match self.change(&parts) {
                        None => {
                            // Seen by whoever asks next, which is the loop that makes the next subscription.
                            told.mark_changed();
                            return Ok(());
                        }
                        Some(change) if change.add.is_empty() && change.remove.is_empty() => {}
                        Some(change) => send(&outbox, pb::subscribe_request::Request::Change(change)).await?,
                    }
                }
            }
        }
    }

    fn start(&mut self, parts: &[Wanted], credit_bytes: u64) -> pb::SubscribeStart {
        let config = &self.shared.config;
        let parts = parts.iter().filter_map(|wanted| self.add(wanted)).collect();
        pb::SubscribeStart {
            parts,
            credit_bytes,
            encoding: match config.filter {
                Some(_) => pb::Encoding::Records.into(),
                None => pb::Encoding::Batches.into(),
            },
            isolation: match config.isolation {
                Isolation::Uncommitted => pb::Isolation::Uncommitted.into(),
                Isolation::Committed => pb::Isolation::Committed.into(),
            },
            filter: config.filter.clone().unwrap_or_default(),
            message_bytes_max: self.pieces.message_bytes(config),
        }
    }

    fn add(&mut self, wanted: &Wanted) -> Option<pb::SubscribePart> {
        let offset = self.shared.positions.fetch_at(wanted)?;
        self.parts.insert(wanted.partition.clone(), wanted.clone());
        self.is_used.insert(wanted.partition.clone(), wanted.attempt);
        Some(pb::SubscribePart {
            topic: wanted.partition.topic.to_string(),
            partition: Some(wanted.partition.partition),
            from: Some(pb::Position { at: Some(pb::position::At::Offset(offset)) }),
        })
    }

    /// What leads from what is subscribed to to `parts`; none where only a new subscription does.
    fn change(&mut self, parts: &[Wanted]) -> Option<pb::SubscribeChange> {
        let mut change = pb::SubscribeChange::default();
        let gone: Vec<TopicPartition> = self
            .parts
            .keys()
            .filter(|partition| !parts.iter().any(|wanted| wanted.partition == **partition))
            .cloned()
            .collect();
        for partition in gone {
            self.parts.remove(&partition);
            change.remove.push(partition.into());
        }
        for wanted in parts {
            match self.is_used.get(&wanted.partition) {
                None => change.add.extend(self.add(wanted)),
                Some(attempt) if *attempt == wanted.attempt && self.parts.contains_key(&wanted.partition) => {
                }
                Some(_) => return None,
            }
        }
        Some(change)
    }

    async fn on_reply(&mut self, reply: pb::SubscribeReply, credit: &Arc<Credit>) -> Result<()> {
        self.has_answered = true;
        self.heard_at = Some(Instant::now());
        match reply.reply {
            Some(pb::subscribe_reply::Reply::Delivery(message)) => self.on_delivery(message, credit).await,
            Some(pb::subscribe_reply::Reply::Failure(failure)) => self.on_failure(&failure).await,
            None => return Err(Error::Protocol("an empty message of a subscription".to_owned())),
        }
        Ok(())
    }

    async fn on_delivery(&mut self, message: pb::Delivery, credit: &Arc<Credit>) {
        let at = TopicPartition::new(message.topic.as_str(), message.partition);
        let Some(wanted) = self.parts.get(&at) else {
            credit.give_back(message.cost_bytes);
            return;
        };
        wanted.progress.high_watermark.store(message.high_watermark, Ordering::Release);
        if !self.shared.positions.fetched(wanted, message.next_offset) {
            credit.give_back(message.cost_bytes);
            return;
        }
        let delivered = Delivered {
            message,
            partition: wanted.partition.clone(),
            progress: Arc::clone(&wanted.progress),
            epoch: wanted.epoch,
            credit: Arc::clone(credit),
        };
        // Waits while the consumer has enough to do; fails when it is gone, and then everything ends.
        let _ = self.shared.fetched.send(Fetched::Delivery(Box::new(delivered))).await;
    }

    async fn on_failure(&mut self, failure: &pb::SubscribeFailure) {
        let error = failure.error.as_ref().map_or_else(
            || Error::Protocol("a subscription failed without saying why".to_owned()),
            Error::from,
        );
        let of = |partition: &TopicPartition| {
            *partition.topic == *failure.topic
                && failure.partition.is_none_or(|number| number == partition.partition)
        };
        let failed: Vec<Wanted> =
            self.parts.values().filter(|wanted| of(&wanted.partition)).cloned().collect();
        for wanted in failed {
            self.parts.remove(&wanted.partition);
            if error.code() == Some(ErrorCode::OffsetOutOfRange) {
                self.shared.positions.lose(&wanted.partition, wanted.epoch);
            } else if error.is_of_storage() {
                self.shared.client.forget_topic(&failure.topic);
                self.shared.stall(&wanted, &error).await;
            } else if error.is_retryable() {
                self.shared.client.forget_topic(&failure.topic);
                let wait = self.shared.client.config().backoff_max;
                self.shared.positions.retry(&wanted.partition, wanted.epoch, wait);
            } else {
                self.shared.fail(&wanted, error.clone()).await;
            }
        }
    }
}

fn request(request: pb::subscribe_request::Request) -> Outgoing {
    Outgoing::new(&pb::SubscribeRequest { request: Some(request) })
}

fn unreadable(error: prost::DecodeError) -> Error {
    Error::Protocol(format!("a message of a subscription cannot be read: {error}"))
}

async fn send(outbox: &mpsc::Sender<Outgoing>, asked: pb::subscribe_request::Request) -> Result<()> {
    let gone = |_| Error::Unreachable {
        address: "the broker".to_owned(),
        reason: "the subscription has ended".to_owned(),
    };
    outbox.send(request(asked)).await.map_err(gone)
}

#[cfg(test)]
mod tests;
