//! Subscribe: pushes what comes while the reader has credit, and while the connection takes it. Between two messages a call holds its
//! positions and nothing else.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::batch::BatchError;
use floodmark_proto::ids::Offset;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::partition::{Isolation, PartitionHandle};
use pb::position::At;
use pb::subscribe_request::Request;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::reply::{Delivery, Payload, Reply, put_record};
use crate::filter::{Filter, FilterError};
use crate::grpc::call::{Call, OpenStream};
use crate::grpc::limits;
use crate::grpc::pull::pull;
use crate::grpc::refused::Refused;
use crate::ops::offsets::{self, Sought};
use crate::ops::subscribe::{Chunk, Event, Subscription};
use crate::ops::topics::{TopicKey, find};
use crate::ops::visible::{Visible, end_of, has_compressed};

/// Bytes of messages that are made of one read, past which the rest of it is read again: a batch may be much larger decoded.
const MADE_BYTES_MAX: usize = 2 << 20;
/// A buffer for decoded batches that is larger is not kept.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// The replies of one call.
pub(super) fn subscribe(
    call: Call,
    requests: Streaming<pb::SubscribeRequest>,
) -> impl Stream<Item = Result<Reply, Status>> + Send {
    let _open = call.open_stream();
    let pusher = Pusher {
        call,
        requests,
        is_closed: false,
        reading: None,
        made: VecDeque::new(),
        unsent: None,
        _open,
    };
    pull(Some(Box::new(pusher)), |pusher| async move {
        let mut pusher = pusher?;
        match pusher.next().await {
            Ok(Some(reply)) => {
                pusher.call.metrics().on_pushed(prost::Message::encoded_len(&reply));
                Some((Some(pusher), Ok(reply)))
            }
            Ok(None) => None,
            Err(status) => Some((None, Err(status))),
        }
    })
}

struct Pusher {
    call: Call,
    requests: Streaming<pb::SubscribeRequest>,
    /// The reader sends nothing more.
    is_closed: bool,
    reading: Option<Reading>,
    /// Replies that are due.
    made: VecDeque<Reply>,
    /// For replies that were made and have not left.
    unsent: Option<OwnedSemaphorePermit>,
    _open: OpenStream,
}

/// What a call reads, since it said so.
struct Reading {
    subscription: Subscription,
    credit_bytes: i64,
    message_bytes_max: usize,
    encoding: pb::Encoding,
    filter: Option<Arc<Filter>>,
    scratch: Vec<u8>,
}

/// What woke the call.
enum Woken {
    Request(Option<pb::SubscribeRequest>),
    Event(Event),
    Ended(Refused),
}

impl Pusher {
    async fn next(&mut self) -> Result<Option<Reply>, Status> {
        loop {
            if let Some(reply) = self.made.pop_front() {
                return Ok(Some(reply));
            }
            // The one before has left.
            self.unsent = None;
            // Asked before each wait: a reader may have said all before what it has credit for was there.
            if self.is_closed && self.is_starved() {
                return Ok(None);
            }
            match self.wait().await? {
                Woken::Request(Some(request)) => {
                    self.on_request(request).await.map_err(|e| self.call.refuse(&e))?;
                }
                Woken::Request(None) => self.is_closed = true,
                Woken::Event(event) => {
                    self.on_event(event).await;
                    self.hold_unsent().await?;
                }
                Woken::Ended(refused) => return Err(self.call.refuse(&refused)),
            }
        }
    }

    fn is_starved(&self) -> bool {
        self.reading.as_ref().is_none_or(|r| !r.may_push() || r.subscription.part_count() == 0)
    }

    async fn wait(&mut self) -> Result<Woken, Status> {
        let ended = self.ended();
        let event = async {
            match &mut self.reading {
                Some(reading) if reading.may_push() => {
                    let credit = usize::try_from(reading.credit_bytes).unwrap_or(0);
                    reading.subscription.next(reading.message_bytes_max.min(credit)).await
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            refused = ended => Ok(Woken::Ended(refused)),
            request = self.requests.message(), if !self.is_closed => Ok(Woken::Request(request?)),
            event = event => Ok(Woken::Event(event)),
        }
    }

    /// Returns when the call is over, whatever it waits for.
    fn ended(&self) -> impl Future<Output = Refused> + Send + use<> {
        let (drain, deadline) = (self.call.shared.ground.drain.clone(), self.call.deadline);
        async move {
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drain.begun() => Refused::stopping(),
                () = late => Refused::too_late(),
            }
        }
    }

    /// What was made counts among what the connection has not taken; readers of one connection wait for each other there.
    async fn hold_unsent(&mut self) -> Result<(), Status> {
        let Some(unsent) = self.call.peer.as_ref().map(|peer| Arc::clone(&peer.unsent)) else {
            return Ok(());
        };
        let bytes: usize = self.made.iter().map(prost::Message::encoded_len).sum();
        let kib = (bytes >> 10).min(limits::UNSENT_BYTES_MAX >> 10);
        tokio::select! {
            // Nobody closes it.
            permit = unsent.acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX)) => self.unsent = permit.ok(),
            refused = self.ended() => return Err(self.call.refuse(&refused)),
        }
        Ok(())
    }

    async fn on_request(&mut self, request: pb::SubscribeRequest) -> Result<(), Refused> {
        // What it says is kept elsewhere.
        drop(self.call.taken());
        match (request.request, &mut self.reading) {
            (Some(Request::Start(start)), None) => {
                let parts = self.begin(&start)?;
                self.add(parts).await
            }
            (Some(Request::Start(_)), Some(_)) => Err(Refused::invalid("a call starts once")),
            (Some(_), None) => Err(Refused::invalid("the first message must be `start`")),
            (Some(Request::CreditBytes(bytes)), Some(reading)) => {
                reading.add_credit(bytes);
                Ok(())
            }
            (Some(Request::Change(change)), Some(reading)) => {
                for part in &change.remove {
                    reading.subscription.remove_named(&part.topic, part.partition);
                }
                self.add(change.add).await
            }
            (None, _) => Err(Refused::invalid("a message says nothing that this broker knows")),
        }
    }

    fn begin(&mut self, start: &pb::SubscribeStart) -> Result<Vec<pb::SubscribePart>, Refused> {
        let encoding = pb::Encoding::try_from(start.encoding)
            .map_err(|_| Refused::invalid("there is no such encoding"))?;
        let isolation = match pb::Isolation::try_from(start.isolation) {
            Ok(pb::Isolation::Uncommitted) => Isolation::Uncommitted,
            Ok(pb::Isolation::Committed) => Isolation::Committed,
            Err(_) => return Err(Refused::invalid("there is no such isolation")),
        };
        let filter = match &*start.filter {
            "" => None,
            _ if encoding == pb::Encoding::Batches => {
                return Err(Refused::invalid(
                    "a filter chooses records, and ENCODING_BATCHES gives whole batches",
                ));
            }
            expression => Some(Arc::new(Filter::compile(expression).map_err(no_filter)?)),
        };
        let mut reading = Reading {
            subscription: Subscription::new(isolation, self.call.shared.cluster.lease().clone()),
            credit_bytes: 0,
            message_bytes_max: match start.message_bytes_max as usize {
                0 => limits::PUSHED_BYTES,
                bytes => bytes.min(limits::PUSHED_BYTES_MAX),
            },
            encoding,
            filter,
            scratch: Vec::new(),
        };
        reading.add_credit(start.credit_bytes);
        self.reading = Some(reading);
        Ok(start.parts.clone())
    }

    /// Parts that cannot be read are told, and do not keep the others from it.
    async fn add(&mut self, parts: Vec<pb::SubscribePart>) -> Result<(), Refused> {
        for part in parts {
            let indexes = match part.partition {
                Some(index) => vec![index],
                None => match self.indexes_of(&part.topic) {
                    Ok(indexes) => indexes,
                    Err(refused) => {
                        self.fail(part.topic, None, refused);
                        continue;
                    }
                },
            };
            for index in indexes {
                if self.reading.as_ref().is_some_and(|r| r.subscription.part_count() >= limits::PARTS_MAX) {
                    let message = format!("one call reads {} partitions at most", limits::PARTS_MAX);
                    return Err(Refused::new(ErrorCode::PolicyViolation, message));
                }
                match self.locate(&part, index).await {
                    Ok((partition, from)) => {
                        if let Some(reading) = &mut self.reading {
                            reading.subscription.add(partition, from);
                        }
                    }
                    Err(refused) => self.fail(part.topic.clone(), Some(index), refused),
                }
            }
        }
        Ok(())
    }

    fn indexes_of(&self, topic: &str) -> Result<Vec<i32>, Refused> {
        let image = self.call.shared.cluster.image();
        let topic = find(&image, TopicKey::Name(topic))?;
        Ok(topic.partitions.iter().map(|(index, _)| *index as i32).collect())
    }

    async fn locate(
        &self,
        part: &pb::SubscribePart,
        index: i32,
    ) -> Result<(PartitionHandle, Offset), Refused> {
        let partition = self.call.shared.cluster.led(TopicKey::Name(&part.topic), index)?;
        let isolation = self.reading.as_ref().map_or(Isolation::Uncommitted, |r| r.subscription.isolation());
        let from = match part.from.as_ref().and_then(|from| from.at.as_ref()) {
            Some(At::Offset(offset)) => Offset(*offset),
            Some(At::TimestampMs(time)) => {
                let found =
                    offsets::find(&self.call.shared.cluster, &partition, Sought::At(*time), isolation, None)
                        .await?;
                found.offset.unwrap_or_else(|| end_for(&partition, isolation))
            }
            Some(At::Special(special)) => match pb::position::Special::try_from(*special) {
                Ok(pb::position::Special::Start) => partition.log_start(),
                Ok(pb::position::Special::End) => end_for(&partition, isolation),
                _ => return Err(Refused::invalid("a position is an offset, a time, the start or the end")),
            },
            None => return Err(Refused::invalid("each part needs a position")),
        };
        Ok((partition, from))
    }

    fn fail(&mut self, topic: String, partition: Option<i32>, refused: impl Into<Refused>) {
        let refused = match partition {
            Some(index) => self.call.hint(refused, TopicKey::Name(&topic), index),
            None => refused.into(),
        };
        let error = Some(self.call.refuse_part(refused));
        self.made.push_back(Reply::Failure(pb::SubscribeFailure { topic, partition, error }));
    }

    async fn on_event(&mut self, event: Event) {
        let Some(reading) = &mut self.reading else { return };
        let failed = match event {
            Event::Read(chunk) => {
                let id = chunk.partition.clone();
                match reading.make(chunk, &mut self.made).await {
                    Ok(()) => return,
                    Err(e) => {
                        reading.subscription.remove(&id);
                        let message = format!("a stored batch cannot be read record by record: {e}");
                        (id, Refused::new(ErrorCode::CorruptMessage, message))
                    }
                }
            }
            Event::Failed(id, code) => {
                // Of a partition that is gone it is worth knowing whether its topic is.
                let now = self.call.shared.cluster.partition(TopicKey::Id(id.topic_id), id.index).err();
                (id, now.unwrap_or(code).into())
            }
        };
        let (id, refused) = failed;
        self.fail(id.topic.to_string(), Some(id.index), refused);
    }
}

impl Reading {
    fn add_credit(&mut self, bytes: u64) {
        self.credit_bytes = self.credit_bytes.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn may_push(&self) -> bool {
        self.credit_bytes > 0
    }

    /// Makes messages of what was read.
    async fn make(&mut self, chunk: Chunk, made: &mut VecDeque<Reply>) -> Result<(), BatchError> {
        let id = chunk.partition.clone();
        let next = match self.encoding {
            pb::Encoding::Batches => {
                let next = end_of(&chunk.part.batches, chunk.from)?;
                let mut head = head_of(&chunk, next);
                let is_near = |t: &&floodmark_storage::index::AbortedTransaction| t.first_offset < next;
                head.aborted = chunk.part.aborted.iter().filter(is_near).map(aborted_pb).collect();
                let is_empty = chunk.part.batches.is_empty();
                let payload = if is_empty { Payload::None } else { Payload::Batches(chunk.part.batches) };
                self.push(head, payload, made);
                next
            }
            pb::Encoding::Records => {
                let messages = self.records_of(&chunk).await?;
                let next = messages.last().map_or(chunk.from, |(_, next)| *next);
                for (records, next) in messages {
                    let payload = if records.is_empty() { Payload::None } else { Payload::Records(records) };
                    self.push(head_of(&chunk, next), payload, made);
                }
                next
            }
        };
        self.subscription.stand_at(&id, next);
        Ok(())
    }

    fn push(&mut self, mut head: pb::Delivery, payload: Payload, made: &mut VecDeque<Reply>) {
        let cost = payload.size_bytes();
        head.cost_bytes = cost as u64;
        self.credit_bytes = self.credit_bytes.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        made.push_back(Reply::Delivery(Delivery { head, payload }));
    }

    /// Records of so many messages as may be made of one read, each with the offset behind it.
    async fn records_of(&mut self, chunk: &Chunk) -> Result<Vec<(Vec<u8>, Offset)>, BatchError> {
        let cutter = Cutter {
            batches: chunk.part.batches.clone(),
            from: chunk.from,
            aborted: if self.subscription.isolation() == Isolation::Committed {
                chunk.part.aborted.clone()
            } else {
                Vec::new()
            },
            filter: self.filter.clone(),
            message_bytes_max: self.message_bytes_max,
            credit_bytes: self.credit_bytes,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        // Decoding takes as long as it takes; other calls of this core go on meanwhile.
        let (messages, mut scratch) = if has_compressed(&cutter.batches) {
            let cut = spawn_blocking(move || (cutter.cut(&mut scratch), scratch)).await;
            cut.unwrap_or_else(|_| {
                (Err(BatchError::Record { index: 0, reason: "it could not be decoded" }), Vec::new())
            })
        } else {
            (cutter.cut(&mut scratch), scratch)
        };
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            scratch = Vec::new();
        }
        self.scratch = scratch;
        messages
    }
}

/// Cuts what was read into messages.
struct Cutter {
    batches: Vec<Bytes>,
    from: Offset,
    aborted: Vec<floodmark_storage::index::AbortedTransaction>,
    filter: Option<Arc<Filter>>,
    message_bytes_max: usize,
    credit_bytes: i64,
}

impl Cutter {
    fn cut(&self, scratch: &mut Vec<u8>) -> Result<Vec<(Vec<u8>, Offset)>, BatchError> {
        let visible = Visible {
            batches: &self.batches,
            from: self.from,
            aborted: &self.aborted,
            filter: self.filter.as_deref(),
        };
        let (mut messages, mut records) = (Vec::new(), Vec::new());
        let (mut credit, mut made_bytes) = (self.credit_bytes, 0);
        let next = visible.each(scratch, &mut |record| {
            put_record(&mut records, record)?;
            if records.len() >= self.message_bytes_max.min(usize::try_from(credit).unwrap_or(0)) {
                credit = credit.saturating_sub(records.len() as i64);
                made_bytes += records.len();
                messages.push((std::mem::take(&mut records), record.offset.next()));
                if made_bytes >= MADE_BYTES_MAX || credit <= 0 {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match messages.last_mut() {
            // The rest of the last batch may hold nothing that is seen.
            Some((_, last)) if records.is_empty() => *last = (*last).max(next),
            _ => messages.push((records, next)),
        }
        Ok(messages)
    }
}

fn no_filter(error: FilterError) -> Refused {
    let refused =
        Refused::invalid(format!("the filter is no expression: {error}")).with("position", error.at);
    Refused { reason: "INVALID_FILTER", ..refused }
}

fn end_for(partition: &PartitionHandle, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::Uncommitted => partition.high_watermark(),
        Isolation::Committed => partition.last_stable_offset(),
    }
}

fn head_of(chunk: &Chunk, next: Offset) -> pb::Delivery {
    pb::Delivery {
        topic: chunk.partition.topic.to_string(),
        partition: chunk.partition.index,
        next_offset: next.0,
        high_watermark: chunk.part.high_watermark.map_or(0, |offset| offset.0),
        log_start_offset: chunk.part.log_start.map_or(0, |offset| offset.0),
        ..Default::default()
    }
}

fn aborted_pb(transaction: &floodmark_storage::index::AbortedTransaction) -> pb::AbortedTransaction {
    pb::AbortedTransaction {
        producer_id: transaction.producer_id.0,
        first_offset: transaction.first_offset.0,
    }
}
