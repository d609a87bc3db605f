//! The way to one broker: one stream on which batches go out and outcomes come back in the same order. Asks each partition what it may send,
//! and brings those to another link that the broker no longer leads.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::ProducerId;
use floodmark_proto::pb::v1 as pb;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::Shared;
use super::config::Acks;
use super::delivery::BatchPlaced;
use super::partition::{Identity, Partition, Step};
use crate::channels::Peer;
use crate::error::{Error, Result};
use crate::record::Durability;
use crate::retry::Backoff;
use crate::stream::{self, Outgoing, Requests};

/// Requests that wait for the stream to take them. Few: what waits here is no longer gathered into larger batches.
const OUTBOX: usize = 8;
/// Requests under way on one stream.
const IN_FLIGHT_MAX: usize = 256;
const PRODUCE: &str = "/floodmark.v1.Data/Produce";
/// `batch` of `ProduceRequest`.
const BATCH_TAG: u32 = 6;
/// Nothing to wait for but what is told.
const LONG: Duration = Duration::from_secs(3600);

/// How partitions reach the task of a link.
#[derive(Debug)]
pub(super) struct Link {
    broker: i32,
    listed: Mutex<Listed>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Listed {
    /// Partitions that have something to send, and are not on the task's own list yet.
    partitions: Vec<Arc<Partition>>,
    /// The task is gone.
    has_ended: bool,
}

impl Link {
    /// A link with its task, which ends with the producer.
    pub(super) fn start(broker: i32, shared: &Arc<Shared>) -> Arc<Link> {
        let link = Arc::new(Link { broker, listed: Mutex::default(), woken: Notify::new() });
        shared.spawn(run(Arc::clone(shared), Arc::clone(&link)));
        link
    }

    /// This partition has something to send. Handed back where the link has ended.
    pub(super) fn list(&self, partition: Arc<Partition>) -> Result<(), Arc<Partition>> {
        let mut listed = self.listed.lock();
        if listed.has_ended {
            return Err(partition);
        }
        listed.partitions.push(partition);
        self.woken.notify_one();
        Ok(())
    }

    /// A partition on the list has something to send.
    pub(super) fn poke(&self) {
        self.woken.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.listed.lock().has_ended
    }

    fn take_listed(&self, active: &mut Vec<Arc<Partition>>) {
        active.append(&mut self.listed.lock().partitions);
    }

    /// Takes no partition any more; those that are listed.
    fn close(&self) -> Vec<Arc<Partition>> {
        let mut listed = self.listed.lock();
        listed.has_ended = true;
        std::mem::take(&mut listed.partitions)
    }

    /// Takes no partition any more, unless one was listed by now.
    fn end(&self) -> bool {
        let mut listed = self.listed.lock();
        listed.has_ended = listed.partitions.is_empty();
        listed.has_ended
    }
}

/// For as long as the producer lives and anybody waits for what it holds.
async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut active: Vec<Arc<Partition>> = Vec::new();
    tokio::select! {
        () = connect_again(&shared, &link, &mut active) => {}
        () = shared.over.cancelled() => {
            for partition in active.into_iter().chain(link.close()) {
                partition.fail(&Error::Closed("the producer"));
            }
        }
    }
}

/// One connection after the other.
async fn connect_again(shared: &Arc<Shared>, link: &Arc<Link>, active: &mut Vec<Arc<Partition>>) {
    let mut backoff = Backoff::new(shared.client.config());
    loop {
        link.take_listed(active);
        if active.is_empty() {
            if shared.closing.is_cancelled() && link.end() {
                return;
            }
            shared.woken_or_closing(&link.woken).await;
            continue;
        }
        let mut session =
            Session { shared, link, in_flight: VecDeque::new(), next_id: 0, has_answered: false };
        let ended = session.run(active).await;
        if session.has_answered {
            backoff.reset();
        }
        let lost = std::mem::take(&mut session.in_flight);
        let Err(error) = ended else { continue };
        tracing::debug!(broker = link.broker, %error, "the connection of a producer ended");
        let now = Instant::now();
        for flight in lost {
            flight.partition.on_lost(&error, now);
        }
        // Whoever leads them by then, this broker may be gone.
        for partition in active.iter() {
            partition.on_lost(&error, now);
            shared.client.forget_topic(&partition.topic);
        }
        sleep(backoff.next()).await;
        for partition in active.drain(..) {
            // One of which all is given up needs no leader, and this broker no connection for it.
            if !partition.on_homeless(&shared.config, None, Instant::now()) {
                shared.spawn(Shared::home(Arc::clone(shared), partition));
            }
        }
    }
}

/// A batch on its way.
struct Flight {
    id: u64,
    order: u64,
    partition: Arc<Partition>,
    sent_at: Instant,
}

struct Session<'s> {
    shared: &'s Arc<Shared>,
    link: &'s Link,
    in_flight: VecDeque<Flight>,
    next_id: u64,
    has_answered: bool,
}

/// What pumping found.
struct Pumped {
    /// When to look again, though nothing was told.
    again_at: Instant,
    /// The stream takes no more for now.
    is_full: bool,
    /// A partition that needs an identity of its own.
    identify: Option<Arc<Partition>>,
}

impl Session<'_> {
    /// Ends well only with the producer; else with what went wrong.
    async fn run(&mut self, active: &mut Vec<Arc<Partition>>) -> Result<()> {
        let frame_bytes_max = self.shared.client.config().frame_bytes_max;
        let peer = self.shared.client.broker_apart(self.link.broker, frame_bytes_max).await?;
        let identity = self.shared.identity(&peer).await?;
        let (outbox, requests) = mpsc::channel(OUTBOX);
        let mut replies = Replies::open(&peer, requests);
        loop {
            self.link.take_listed(active);
            let pumped = self.pump(active, identity, &outbox);
            if let Some(partition) = pumped.identify {
                partition.identify(allocate(&peer).await?);
                continue;
            }
            if active.is_empty() && self.shared.closing.is_cancelled() {
                return Ok(());
            }
            let limit = self.shared.client.request_timeout() + self.shared.config.delivery_timeout;
            let overdue = self.in_flight.front().map(|flight| flight.sent_at + limit);
            let again_at = overdue.map_or(pumped.again_at, |overdue| overdue.min(pumped.again_at));
            tokio::select! {
                reply = replies.next(&peer) => self.on_reply(reply?)?,
                () = self.shared.woken_or_closing(&self.link.woken) => {}
                _room = outbox.reserve(), if pumped.is_full => {}
                () = sleep_until(again_at) => {
                    if overdue.is_some_and(|overdue| overdue <= Instant::now()) {
                        return Err(Error::Deadline { what: "an answer to a batch", limit, last: None });
                    }
                }
            }
        }
    }

    /// Sends what may be sent; takes partitions off the list that have nothing more.
    fn pump(
        &mut self,
        active: &mut Vec<Arc<Partition>>,
        identity: Option<Identity>,
        outbox: &mpsc::Sender<Outgoing>,
    ) -> Pumped {
        let now = Instant::now();
        let mut pumped = Pumped { again_at: now + LONG, is_full: false, identify: None };
        let mut at = 0;
        while let Some(partition) = active.get(at).cloned() {
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                break;
            }
            let Ok(room) = outbox.try_reserve() else {
                pumped.is_full = true;
                break;
            };
            match partition.next(&self.shared.config, identity, now) {
                Step::Send { order, bytes } => {
                    room.send(self.request(&partition, order, bytes, now));
                    // The next one is somebody else's, so that none waits behind a partition that has much.
                    let partition = active.remove(at);
                    active.push(partition);
                    continue;
                }
                Step::Wait(until) => pumped.again_at = pumped.again_at.min(until),
                Step::Blocked => {}
                Step::Idle => {
                    active.swap_remove(at);
                    continue;
                }
                Step::Rehome => {
                    active.swap_remove(at);
                    // What led here is what is known of the topic.
                    self.shared.client.forget_topic(&partition.topic);
                    self.shared.spawn(Shared::home(Arc::clone(self.shared), partition));
                    continue;
                }
                Step::Identify => {
                    pumped.identify = Some(partition);
                    break;
                }
            }
            at += 1;
        }
        pumped
    }

    fn request(
        &mut self,
        partition: &Arc<Partition>,
        order: u64,
        bytes: bytes::Bytes,
        now: Instant,
    ) -> Outgoing {
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight.push_back(Flight { id, order, partition: Arc::clone(partition), sent_at: now });
        let acks = match self.shared.config.acks {
            Acks::All => pb::Acks::All,
            Acks::Leader => pb::Acks::Leader,
        };
        let timeout = self.shared.client.request_timeout();
        let request = pb::ProduceRequest {
            id,
            topic: partition.topic.to_string(),
            partition: Some(partition.number),
            acks: acks.into(),
            payload: None,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            are_copies: self.shared.config.are_copies,
        };
        Outgoing::with_payload(&request, BATCH_TAG, bytes)
    }

    fn on_reply(&mut self, reply: pb::ProduceReply) -> Result<()> {
        let flight = self.in_flight.pop_front().filter(|flight| flight.id == reply.id);
        let flight =
            flight.ok_or_else(|| Error::Protocol("an answer to a batch that was not next".to_owned()))?;
        self.has_answered = true;
        let outcome = placed(&reply);
        flight.partition.on_reply(&self.shared.config, flight.order, outcome, Instant::now());
        Ok(())
    }
}

type Called = Result<stream::Replies, Status>;

/// Answers, from the moment the call was made: some servers begin to answer only when something was asked.
struct Replies {
    call: Option<Pin<Box<dyn Future<Output = Called> + Send>>>,
    stream: Option<stream::Replies>,
}

impl Replies {
    fn open(peer: &Peer, requests: mpsc::Receiver<Outgoing>) -> Replies {
        let call = peer.stream(PRODUCE, Requests::new(requests));
        Replies { call: Some(Box::pin(call)), stream: None }
    }

    /// The next answer. Nothing is lost when its future is dropped.
    async fn next(&mut self, peer: &Peer) -> Result<pb::ProduceReply> {
        let failed = |status: Status| Error::from_status(&peer.address, &status);
        if let Some(call) = &mut self.call {
            let stream = call.await.map_err(failed);
            self.call = None;
            self.stream = Some(stream?);
        }
        let ended = || Error::Unreachable {
            address: peer.address.clone(),
            reason: "the broker has ended the stream".to_owned(),
        };
        let stream = self.stream.as_mut().ok_or_else(ended)?;
        let reply = stream.message().await.map_err(failed)?.ok_or_else(ended)?;
        pb::ProduceReply::decode(reply)
            .map_err(|error| Error::Protocol(format!("an answer to a batch cannot be read: {error}")))
    }
}

/// An identity that no other producer has.
pub(super) async fn allocate(peer: &Peer) -> Result<Identity> {
    let what = "getting an identity for a producer";
    let asked = peer.request(pb::InitProducerRequest {});
    let given = peer.answer(what, peer.data().init_producer(asked)).await?;
    let epoch = i16::try_from(given.producer_epoch)
        .map_err(|_| Error::Protocol(format!("a producer's epoch of {}", given.producer_epoch)))?;
    Ok(Identity { id: ProducerId(given.producer_id), epoch })
}

fn placed(reply: &pb::ProduceReply) -> Result<BatchPlaced> {
    use pb::partition_reply::Outcome;
    if let Some(error) = &reply.error {
        return Err(error.into());
    }
    let outcome = reply.partitions.first().and_then(|partition| partition.outcome.as_ref());
    match outcome {
        Some(Outcome::Produced(produced)) => Ok(BatchPlaced {
            base_offset: produced.base_offset,
            log_append_time_ms: produced.log_append_time_ms,
            durability: produced.durability().into(),
        }),
        Some(Outcome::Error(error)) if error.reason == "DUPLICATE_SEQUENCE_NUMBER" => {
            Ok(BatchPlaced { base_offset: -1, log_append_time_ms: None, durability: Durability::Unknown })
        }
        Some(Outcome::Error(error)) => Err(error.into()),
        None => Err(Error::Protocol("an answer to a batch says nothing of it".to_owned())),
    }
}
