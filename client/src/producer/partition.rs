//! One partition as a producer sees it: the batch being filled, those that wait, those under way, and the rules of what may be sent next.
//! Knows no connection: a link asks what to send and tells what became of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use floodmark_proto::batch::crc32c::batch_crc;
use floodmark_proto::batch::header::put_crc;
use floodmark_proto::batch::{BatchBuilder, BatchHeader, HEADER_LEN, NewRecord as BatchRecord};
use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::buffer::Buffer;
use super::config::ProducerConfig;
use super::delivery::{BatchPlaced, Delivery, Promise};
use super::link::Link;
use crate::error::{Error, Result};
use crate::retry::Backoff;

/// Who writes: the pair that brokers know an idempotent producer by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: i16,
}

/// One partition, shared by those who append and the link to its leader.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    buffer: Arc<Buffer>,
    open: Option<Open>,
    /// Full, or closed by a flush; in order.
    queue: VecDeque<Batch>,
    /// Under way, in the order in which they were sent.
    flying: VecDeque<Batch>,
    /// Came back and will be sent again, once nothing is under way any more.
    returned: Vec<Batch>,
    /// The link to the leader, once it is known.
    link: Option<Arc<Link>>,
    /// Stands on the link's list.
    is_listed: bool,
    is_misdirected: bool,
    identity: Option<Identity>,
    next_sequence: i32,
    next_order: u64,
    /// A sequence number was given to a batch that will never be written: what follows needs a new identity.
    has_gap: bool,
    not_before: Option<Instant>,
    backoff: Backoff,
    /// Why something was tried again.
    last_error: Option<Box<Error>>,
}

#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    promise: Promise,
    opened_at: Instant,
    is_flushed: bool,
}

/// Records that travel together.
#[derive(Debug)]
struct Batch {
    content: Content,
    promise: Promise,
    deadline: Instant,
    order: u64,
    /// Nobody knows whether an earlier attempt was carried out.
    is_ambiguous: bool,
    /// Some broker may have kept it, though it said that it has not taken it. Under another identity it would be written twice then.
    may_be_kept: bool,
}

#[derive(Debug)]
enum Content {
    Records(BatchBuilder),
    Encoded(Bytes),
}

/// What a link shall do for a partition.
#[derive(Debug)]
pub(super) enum Step {
    /// Send these bytes; the number comes back with the outcome.
    Send { order: u64, bytes: Bytes },
    /// Nothing before this time, but for what appends and replies bring.
    Wait(Instant),
    /// Nothing before a reply comes.
    Blocked,
    /// Nothing is left: taken off the list.
    Idle,
    /// Another broker may lead it: find out.
    Rehome,
    /// Get a new identity for it.
    Identify,
}

/// Who has to hear of a record that was appended.
#[derive(Debug)]
pub(super) enum Wake {
    /// Nobody: the link knows, and has nothing to do yet.
    Nobody,
    /// The link has something to send.
    Poke(Arc<Link>),
    /// The link does not have the partition on its list.
    List(Arc<Link>),
    /// No link is known: find the leader.
    Home,
}

impl Partition {
    pub(super) fn new(topic: Arc<str>, number: i32, buffer: Arc<Buffer>, backoff: Backoff) -> Partition {
        let state = State {
            buffer,
            open: None,
            queue: VecDeque::new(),
            flying: VecDeque::new(),
            returned: Vec::new(),
            link: None,
            is_listed: false,
            is_misdirected: false,
            identity: None,
            next_sequence: 0,
            next_order: 0,
            has_gap: false,
            not_before: None,
            backoff,
            last_error: None,
        };
        Partition { topic, number, state: Mutex::new(state) }
    }

    /// Encodes a record into the batch being filled. `size_bytes`, at least what the record takes, was taken from the buffer and is given
    /// back with the batch.
    pub(super) fn append(
        &self,
        config: &ProducerConfig,
        record: &BatchRecord<'_>,
        size_bytes: usize,
    ) -> Result<(Delivery, Wake)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut is_due = false;
        // Where nothing can be sent, what comes makes this batch larger instead of the next one.
        let limit_bytes = if state.has_room(config) { config.sent_at_bytes() } else { config.batch_bytes };
        if state.open.as_ref().is_some_and(|open| open.builder.size_bytes() + size_bytes > limit_bytes) {
            state.close_open(config);
            is_due = true;
        }
        let open = state.open.get_or_insert_with(|| Open {
            builder: BatchBuilder::in_memory(state.buffer.spares.take(0).unwrap_or_default())
                .room_for(config.batch_bytes.min(16 << 10))
                .compression(config.compression, config.compression_level),
            promise: Promise::new(Arc::clone(&self.topic), self.number, Arc::clone(&state.buffer)),
            opened_at: Instant::now(),
            is_flushed: false,
        });
        let index = open.builder.push(record)?;
        open.promise.reserve(size_bytes);
        let delivery = open.promise.delivery(index);
        let was_listed = std::mem::replace(&mut state.is_listed, true);
        let wake = match (&state.link, was_listed) {
            (Some(link), false) => Wake::List(Arc::clone(link)),
            (Some(link), true) if is_due => Wake::Poke(Arc::clone(link)),
            (None, false) => Wake::Home,
            _ => Wake::Nobody,
        };
        Ok((delivery, wake))
    }

    /// The link to its leader, where one is known.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().link.clone()
    }

    /// Its leader is reached by this link from now on.
    pub(super) fn set_link(&self, link: Arc<Link>) {
        let mut state = self.state.lock();
        state.link = Some(link);
        state.is_misdirected = false;
    }

    /// Lets nothing wait for more records; the deliveries of everything that was appended so far, one for each batch.
    pub(super) fn flush(&self) -> Vec<Delivery> {
        let mut state = self.state.lock();
        if let Some(open) = &mut state.open {
            open.is_flushed = true;
        }
        let mut pending: Vec<Delivery> = state.batches().map(|batch| batch.promise.delivery(0)).collect();
        pending.extend(state.open.as_ref().map(|open| open.promise.delivery(0)));
        pending
    }

    /// What to do now. `identity` is the producer's own, where it has one.
    pub(super) fn next(&self, config: &ProducerConfig, identity: Option<Identity>, now: Instant) -> Step {
        let mut state = self.state.lock();
        if state.flying.is_empty() {
            if state.is_misdirected {
                return Step::Rehome;
            }
            state.expire(config, now);
            if let Some(at) = state.not_before.filter(|at| *at > now) {
                return Step::Wait(at);
            }
        } else if !state.returned.is_empty()
            || state.flying.len() >= config.in_flight_max
            // Told to have failed by now, or about to be: given up once nothing is under way.
            || state.queue.front().is_some_and(|batch| batch.deadline <= now)
        {
            return Step::Blocked;
        }
        state.next_batch(config, identity, now)
    }

    /// A batch under way has its outcome.
    pub(super) fn on_reply(
        &self,
        config: &ProducerConfig,
        order: u64,
        outcome: Result<BatchPlaced>,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        let place = state.flying.iter().position(|batch| batch.order == order);
        let Some(batch) = place.and_then(|at| state.flying.remove(at)) else { return };
        state.judge(config, batch, outcome, now);
        state.settle(now);
    }

    /// The connection is gone: whatever was under way may have been written or not.
    pub(super) fn on_lost(&self, error: &Error, now: Instant) {
        let mut state = self.state.lock();
        state.last_error = Some(Box::new(error.clone()));
        let flying = std::mem::take(&mut state.flying);
        state.returned.extend(flying.into_iter().map(|batch| Batch {
            is_ambiguous: true,
            may_be_kept: true,
            ..batch
        }));
        state.is_misdirected = true;
        state.settle(now);
    }

    /// Its leader cannot be found or reached at the moment. Returns whether nothing is left that needs a leader.
    pub(super) fn on_homeless(&self, config: &ProducerConfig, error: Option<&Error>, now: Instant) -> bool {
        let mut state = self.state.lock();
        if let Some(error) = error {
            state.last_error = Some(Box::new(error.clone()));
        }
        state.expire(config, now);
        let is_idle = state.open.is_none() && state.queue.is_empty();
        state.is_listed = !is_idle;
        if is_idle {
            // What comes next finds out anew.
            state.link = None;
        }
        is_idle
    }

    /// Tells whoever has waited too long, whatever the partition itself waits for: a leader, a connection, an answer. Returns whether anybody
    /// waits on.
    pub(super) fn tell_overdue(&self, config: &ProducerConfig, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.expire(config, now);
        state.open.is_some() || state.batches().any(|batch| !batch.promise.is_told())
    }

    /// A broker gave it an identity of its own.
    pub(super) fn identify(&self, identity: Identity) {
        let mut state = self.state.lock();
        state.identity = Some(identity);
        state.next_sequence = 0;
        state.has_gap = false;
    }

    /// Nothing will come of what it holds.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.state.lock();
        state.is_listed = false;
        if let Some(open) = state.open.take() {
            open.promise.keep(Err(error.clone()));
        }
        let mut batches: Vec<Batch> = std::mem::take(&mut state.queue).into();
        batches.extend(std::mem::take(&mut state.flying));
        batches.append(&mut state.returned);
        state.has_gap |= batches.iter().any(|batch| matches!(batch.content, Content::Encoded(_)));
        for batch in batches {
            batch.promise.keep(Err(error.clone()));
        }
    }
}

impl State {
    /// Whether a batch could be sent at once.
    fn has_room(&self, config: &ProducerConfig) -> bool {
        self.queue.is_empty() && self.returned.is_empty() && self.flying.len() < config.in_flight_max
    }

    /// The batch being filled takes no more.
    fn close_open(&mut self, config: &ProducerConfig) {
        let Some(open) = self.open.take() else { return };
        let order = self.next_order;
        self.next_order += 1;
        self.queue.push_back(Batch {
            content: Content::Records(open.builder),
            promise: open.promise,
            deadline: open.opened_at + config.delivery_timeout,
            order,
            is_ambiguous: false,
            may_be_kept: false,
        });
    }

    /// All that take no more records.
    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.flying.iter().chain(&self.returned).chain(&self.queue)
    }

    /// Gives up what has waited too long. While something is under way, all keep their places, so that replies find theirs, and only those who
    /// wait are told.
    fn expire(&mut self, config: &ProducerConfig, now: Instant) {
        if self.open.as_ref().is_some_and(|open| open.opened_at + config.delivery_timeout <= now) {
            self.close_open(config);
        }
        if !self.flying.is_empty() {
            for batch in self.batches().filter(|batch| batch.deadline <= now && !batch.promise.is_told()) {
                batch.promise.tell(Err(self.overdue(config, batch)));
            }
            return;
        }
        while self.queue.front().is_some_and(|batch| batch.deadline <= now) {
            let Some(batch) = self.queue.pop_front() else { break };
            self.has_gap |= matches!(batch.content, Content::Encoded(_));
            let overdue = self.overdue(config, &batch);
            batch.promise.keep(Err(overdue));
        }
    }

    /// What its records are told, with what was waited for.
    fn overdue(&self, config: &ProducerConfig, batch: &Batch) -> Error {
        let silent = || Error::Unreachable {
            address: format!("the leader of {}", batch.promise.place()),
            reason: "it was not found, or has said nothing so far".to_owned(),
        };
        let last = self.last_error.clone().unwrap_or_else(|| Box::new(silent()));
        Error::Deadline { what: "delivering a record", limit: config.delivery_timeout, last: Some(last) }
    }

    fn next_batch(&mut self, config: &ProducerConfig, identity: Option<Identity>, now: Instant) -> Step {
        if self.queue.is_empty()
            && let Err(step) = self.take_open(config, now)
        {
            return step;
        }
        if self.has_gap && config.is_idempotent {
            if !self.flying.is_empty() {
                return Step::Blocked;
            }
            // One that may have been written is cleared up under its old identity before the others get a new one.
            let Some(at) = self.queue.iter().position(|batch| batch.may_be_kept) else {
                return Step::Identify;
            };
            if let Some(batch) = self.queue.remove(at) {
                self.queue.push_front(batch);
            }
        }
        let Some(mut batch) = self.queue.pop_front() else { return Step::Blocked };
        match self.encode(&mut batch, identity.filter(|_| config.is_idempotent)) {
            Ok(bytes) => {
                let order = batch.order;
                self.flying.push_back(batch);
                Step::Send { order, bytes }
            }
            Err(error) => {
                // No sequence number was spent on it.
                batch.promise.keep(Err(error));
                Step::Wait(now)
            }
        }
    }

    /// Puts the batch being filled into the queue, where it is time; else says what there is to wait for.
    fn take_open(&mut self, config: &ProducerConfig, now: Instant) -> Result<(), Step> {
        let Some(open) = &self.open else {
            if !self.flying.is_empty() {
                return Err(Step::Blocked);
            }
            self.is_listed = false;
            return Err(Step::Idle);
        };
        let due = open.opened_at + config.linger;
        let lingers = config.linger > Duration::ZERO;
        let is_full = open.builder.size_bytes() >= config.sent_at_bytes();
        let is_due = is_full || if lingers { due <= now } else { self.flying.is_empty() };
        if !is_due && !open.is_flushed {
            return Err(if lingers { Step::Wait(due) } else { Step::Blocked });
        }
        self.close_open(config);
        Ok(())
    }

    /// The bytes to send, with the sequence number that is next; those that have one keep it under the same identity.
    fn encode(&mut self, batch: &mut Batch, identity: Option<Identity>) -> Result<Bytes> {
        if self.identity.is_none() {
            self.identity = identity;
        }
        let identity = self.identity.filter(|_| identity.is_some());
        let bytes = match std::mem::replace(&mut batch.content, Content::Encoded(Bytes::new())) {
            Content::Records(builder) => {
                let records = builder.record_count() as i32;
                let builder = match identity {
                    Some(identity) => builder.producer(identity.id, identity.epoch, self.next_sequence),
                    None => builder,
                };
                let bytes = builder.build()?.freeze();
                self.advance(records);
                bytes
            }
            Content::Encoded(bytes) => match identity {
                Some(identity) if !is_of(&bytes, identity) && !batch.is_ambiguous => {
                    let (bytes, records) = restamp(&bytes, identity, self.next_sequence)?;
                    self.advance(records);
                    bytes
                }
                _ => bytes,
            },
        };
        batch.content = Content::Encoded(bytes.clone());
        Ok(bytes)
    }

    fn advance(&mut self, records: i32) {
        self.next_sequence = self.next_sequence.wrapping_add(records) & i32::MAX;
    }

    /// Whether a batch is delivered, failed, or comes back.
    fn judge(
        &mut self,
        config: &ProducerConfig,
        mut batch: Batch,
        outcome: Result<BatchPlaced>,
        now: Instant,
    ) {
        let error = match outcome {
            Ok(placed) => {
                self.backoff.reset();
                batch.promise.keep(Ok(placed));
                if let Content::Encoded(bytes) = batch.content {
                    self.buffer.spares.give_back_bytes(bytes);
                }
                return;
            }
            Err(error) => error,
        };
        let is_behind_a_gap = self.has_gap || !self.returned.is_empty();
        let comes_back = if config.is_idempotent && has_lost_its_place(&error) {
            // Behind a batch that was not written, no batch is: it was not written either. At the front it means that the broker has
            // forgotten the producer, which is harmless where no earlier attempt can have been carried out.
            self.has_gap |= self.returned.is_empty();
            is_behind_a_gap || !batch.is_ambiguous
        } else {
            batch.is_ambiguous |= error.is_ambiguous();
            batch.may_be_kept |= error.may_be_of_kept();
            error.is_retryable()
        };
        if comes_back && now < batch.deadline {
            self.is_misdirected |= error.is_misdirected();
            if has_lost_its_place(&error) {
                batch.is_ambiguous = false;
                batch.may_be_kept = false;
            }
            self.last_error = Some(Box::new(error));
            self.returned.push(batch);
            return;
        }
        self.has_gap = true;
        batch.promise.keep(Err(error));
    }

    /// Once nothing is under way, what came back is first in line again, after a wait.
    fn settle(&mut self, now: Instant) {
        if !self.flying.is_empty() || self.returned.is_empty() {
            return;
        }
        self.queue.extend(self.returned.drain(..));
        self.queue.make_contiguous().sort_by_key(|batch| batch.order);
        self.not_before = Some(now + self.backoff.next());
    }
}

/// The broker has another sequence number in mind, or no longer knows the producer.
fn has_lost_its_place(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(
            ErrorCode::OutOfOrderSequenceNumber
                | ErrorCode::UnknownProducerId
                | ErrorCode::InvalidProducerEpoch
                | ErrorCode::InvalidProducerIdMapping
        )
    )
}

fn is_of(batch: &[u8], identity: Identity) -> bool {
    BatchHeader::parse(batch)
        .is_ok_and(|header| header.producer_id == identity.id && header.producer_epoch == identity.epoch)
}

/// The same batch under another identity, and how many records it has.
fn restamp(batch: &[u8], identity: Identity, sequence: i32) -> Result<(Bytes, i32)> {
    let mut header = BatchHeader::parse(batch)?;
    header.producer_id = identity.id;
    header.producer_epoch = identity.epoch;
    header.base_sequence = sequence;
    let mut bytes = BytesMut::from(batch);
    if let Some(head) = bytes.first_chunk_mut::<HEADER_LEN>() {
        header.write(head);
    }
    let crc = batch_crc(&bytes);
    if let Some(head) = bytes.first_chunk_mut::<HEADER_LEN>() {
        put_crc(head, crc);
    }
    Ok((bytes.freeze(), header.record_count))
}

#[cfg(test)]
mod tests;
