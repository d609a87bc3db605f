//! Produce and Append, in two stages as at the other door: the place of records is fixed when a request is taken, the reply is sent when
//! they are where it wants them. Replies leave in the order of requests.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use floodmark_proto::ids::{BrokerId, TimestampMs};
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use floodmark_storage::clock::Stopwatch;
use pb::partition_reply::Outcome;
use prost::Message as _;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::records::{self, Target};
use super::wire::ProduceRequest;
use crate::grpc::call::{Call, OpenStream};
use crate::grpc::forward;
use crate::grpc::limits;
use crate::grpc::memory::Taken;
use crate::grpc::refused::Refused;
use crate::ops::deadline::Deadline;
use crate::ops::intake::SentWith;
use crate::ops::produce::{self, Acks, Durability, NotProduced, Part, Produced, Until};
use crate::ops::topics::{TopicKey, find, is_internal};

/// Appends what requests of one call ask for.
pub(super) struct Producer {
    call: Call,
    next_partition: Arc<AtomicU64>,
}

/// A partition, and the places of its records in the request where it has not all of them.
type Places = (i32, Vec<u32>);

/// What is to be appended where.
struct Planned {
    topic: String,
    partitions: Vec<Places>,
    parts: Vec<Part>,
    acks: Acks,
    are_copies: bool,
    within: Duration,
    now_ms: TimestampMs,
}

/// What became of it.
struct Outcomes {
    topic: String,
    partitions: Vec<Places>,
    outcomes: Vec<Result<Produced, NotProduced>>,
    /// What became of what other brokers appended.
    elsewhere: Vec<pb::PartitionReply>,
}

type Appending = Pin<Box<dyn Future<Output = pb::ProduceReply> + Send>>;

impl Producer {
    pub(super) fn new(call: Call, next_partition: Arc<AtomicU64>) -> Producer {
        Producer { call, next_partition }
    }

    /// One request by itself: where nothing of it was appended, the call is refused.
    pub(super) async fn append(self, request: ProduceRequest) -> Result<pb::ProduceReply, Refused> {
        let id = request.id;
        // Where all of it goes to one partition, it goes there as it came.
        if let Some(index) = request.partition
            && let Some(broker) = forward::other_leader(&self.call, &request.topic, index)
        {
            return forward::unary(&self.call, broker, self.call.api, request).await;
        }
        let (planned, elsewhere) = self.plan(request)?.split(&self.call);
        let mut done = planned.begin().await;
        for batch in elsewhere {
            done.add(batch.append(&self.call).await);
        }
        let mut outcomes = done.partitions.iter().zip(&done.outcomes);
        match outcomes.find_map(|((index, _), outcome)| Some((*index, outcome.as_ref().err()?))) {
            Some((index, refused))
                if done.outcomes.iter().all(Result::is_err) && done.elsewhere.is_empty() =>
            {
                Err(self.call.hint(refused_of(refused), TopicKey::Name(&done.topic), index))
            }
            _ => Ok(done.reply(&self.call, id)),
        }
    }

    /// First stage: when this returns, the place of the records is fixed.
    fn begin(&self, request: ProduceRequest) -> Appending {
        let id = request.id;
        match self.plan(request) {
            Ok(planned) => {
                let (call, appending) = (self.call.clone(), planned.begin());
                Box::pin(async move { appending.await.reply(&call, id) })
            }
            Err(refused) => {
                let error = Some(self.call.refuse_part(refused));
                Box::pin(std::future::ready(pb::ProduceReply { id, error, ..Default::default() }))
            }
        }
    }

    fn plan(&self, request: ProduceRequest) -> Result<Planned, Refused> {
        let acks = match pb::Acks::try_from(request.acks) {
            Ok(pb::Acks::All) => Acks::All,
            Ok(pb::Acks::Leader) => Acks::Leader,
            Err(_) => {
                return Err(Refused::new(
                    ErrorCode::InvalidRequiredAcks,
                    "acks must be ACKS_ALL or ACKS_LEADER",
                ));
            }
        };
        let now_ms = self.call.shared.clock.now_ms();
        let topic = &*request.topic;
        let (partitions, parts) = match (&request.batch, &request.records, request.partition) {
            (Some(batch), None, Some(partition)) => {
                // The log keeps them for as long as they are new, and a buffer of the connection should not live that long.
                let records = BytesMut::from(&batch[..]);
                (vec![(partition, Vec::new())], vec![self.part(topic, partition, records)])
            }
            (Some(_), None, None) => return Err(Refused::invalid("an encoded batch needs its partition")),
            (None, Some(records), partition) => self.cut(topic, records, partition, now_ms)?,
            _ => return Err(Refused::invalid("a request has records or a batch")),
        };
        let within = self.call.within(request.timeout_ms);
        let are_copies = request.are_copies;
        Ok(Planned { topic: request.topic, partitions, parts, acks, are_copies, within, now_ms })
    }

    fn cut(
        &self,
        topic: &str,
        records: &Bytes,
        partition: Option<i32>,
        now_ms: TimestampMs,
    ) -> Result<(Vec<Places>, Vec<Part>), Refused> {
        let target = match partition {
            Some(partition) => Target::Partition(partition),
            None => self.by_key(topic)?,
        };
        let batches = records::batches(records, target, now_ms)
            .map_err(|e| Refused::new(ErrorCode::InvalidRecord, e.to_string()))?;
        let parts = batches.into_iter().map(|of| {
            let part = self.part(topic, of.partition, of.batch);
            ((of.partition, of.places), part)
        });
        Ok(parts.unzip())
    }

    fn part(&self, topic: &str, partition: i32, records: BytesMut) -> Part {
        // What brokers keep in topics of their own is not for clients to write.
        let partition = if is_internal(topic) {
            Err(ErrorCode::InvalidTopicException)
        } else {
            self.call.shared.cluster.led(TopicKey::Name(topic), partition)
        };
        Part { partition, records: Some(records) }
    }

    /// Records without a key go round the partitions that this broker leads, request by request.
    fn by_key(&self, topic: &str) -> Result<Target, Refused> {
        let image = self.call.shared.cluster.image();
        let topic = find(&image, TopicKey::Name(topic))?;
        let node = self.call.shared.cluster.node_id();
        let led: Vec<u32> = topic
            .partitions
            .iter()
            .filter(|(_, p)| p.leader == Some(node))
            .map(|(index, _)| *index)
            .collect();
        let turn = self.next_partition.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(turn).unwrap_or(0).checked_rem(led.len());
        let keyless = at.and_then(|at| led.get(at)).map_or(0, |index| *index as i32);
        Ok(Target::ByKey { partition_count: topic.partitions.len() as u32, keyless })
    }
}

/// A batch that another broker appends.
struct Elsewhere {
    broker: BrokerId,
    places: Vec<u32>,
    request: pb::ProduceRequest,
}

impl Elsewhere {
    /// What that broker says of it, the places of records as in the request that they came in.
    async fn append(self, call: &Call) -> pb::PartitionReply {
        let partition = self.request.partition.unwrap_or(0);
        let reply: Result<pb::ProduceReply, Refused> =
            forward::unary(call, self.broker, call.api, self.request).await;
        let outcome = match reply {
            Ok(reply) => reply.partitions.into_iter().next().and_then(|part| part.outcome),
            Err(refused) => Some(Outcome::Error(call.refuse_part(refused))),
        };
        pb::PartitionReply { partition, records: self.places, outcome }
    }
}

impl Planned {
    /// What is appended here, and what other brokers append.
    fn split(self, call: &Call) -> (Planned, Vec<Elsewhere>) {
        let (mut elsewhere, mut partitions, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for ((index, places), part) in self.partitions.into_iter().zip(self.parts) {
            match (forward::other_leader(call, &self.topic, index), part.records) {
                (Some(broker), Some(records)) => {
                    let request = pb::ProduceRequest {
                        topic: self.topic.clone(),
                        partition: Some(index),
                        payload: Some(pb::produce_request::Payload::Batch(records.freeze())),
                        acks: match self.acks {
                            Acks::All => pb::Acks::All.into(),
                            Acks::Leader => pb::Acks::Leader.into(),
                        },
                        timeout_ms: u32::try_from(self.within.as_millis()).unwrap_or(u32::MAX),
                        are_copies: self.are_copies,
                        ..Default::default()
                    };
                    elsewhere.push(Elsewhere { broker, places, request });
                }
                (_, records) => {
                    partitions.push((index, places));
                    parts.push(Part { records, ..part });
                }
            }
        }
        (Planned { partitions, parts, ..self }, elsewhere)
    }

    /// What this call does not do, the answer does.
    fn begin(self) -> impl Future<Output = Outcomes> + Send + 'static {
        // Over gRPC every codec may come, and no transaction.
        let sent = SentWith { may_use_zstd: true, in_transaction: false, are_copies: self.are_copies };
        let deadline = Deadline::after(self.within);
        let until = Until { here: deadline.clone(), elsewhere: deadline };
        let appending = produce::produce(self.parts, self.acks, sent, until, self.now_ms);
        let (topic, partitions) = (self.topic, self.partitions);
        async move { Outcomes { topic, partitions, outcomes: appending.await, elsewhere: Vec::new() } }
    }
}

impl Outcomes {
    fn add(&mut self, part: pb::PartitionReply) {
        self.elsewhere.push(part);
    }

    fn reply(self, call: &Call, id: u64) -> pb::ProduceReply {
        let partitions =
            self.partitions.into_iter().zip(self.outcomes).map(|((partition, records), outcome)| {
                let outcome = match outcome {
                    Ok(produced) => Outcome::Produced(produced_pb(&produced)),
                    Err(refused) => {
                        let key = TopicKey::Name(&self.topic);
                        let refused = call.hint(refused_of(&refused), key, partition);
                        Outcome::Error(call.refuse_part(refused))
                    }
                };
                pb::PartitionReply { partition, records, outcome: Some(outcome) }
            });
        let partitions = partitions.chain(self.elsewhere).collect();
        pb::ProduceReply { id, partitions, error: None }
    }
}

fn produced_pb(produced: &Produced) -> pb::Produced {
    let durability = match produced.durability {
        Durability::Memory => pb::Durability::Memory,
        Durability::SyncedHere => pb::Durability::SyncedHere,
        Durability::SyncedInSyncSet => pb::Durability::SyncedInSyncSet,
    };
    pb::Produced {
        base_offset: produced.base_offset.0,
        log_append_time_ms: produced.log_append_time,
        durability: durability.into(),
        log_start_offset: produced.log_start.0,
    }
}

fn refused_of(refused: &NotProduced) -> Refused {
    match &refused.message {
        Some(message) => Refused::new(refused.code, message.clone()),
        None => refused.code.into(),
    }
}

/// Requests of one Produce that are begun, and their replies as they are due. Takes a request only while the client reads replies.
pub(crate) struct Pipeline {
    producer: Producer,
    requests: Streaming<ProduceRequest>,
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
    /// Why no more requests are taken, if so: the client has sent all, or a status.
    end: Option<Result<(), Status>>,
    deadline: Option<Pin<Box<Sleep>>>,
    drain: Pin<Box<OwnedNotified>>,
    _open: OpenStream,
}

struct Unanswered {
    appending: Appending,
    request_bytes: usize,
    since: Stopwatch,
    _taken: Option<Taken>,
}

impl Pipeline {
    pub(super) fn new(producer: Producer, requests: Streaming<ProduceRequest>) -> Pipeline {
        let call = &producer.call;
        Pipeline {
            requests,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            end: None,
            deadline: call.deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            drain: Box::pin(call.shared.ground.drain.notified()),
            _open: call.open_stream(),
            producer,
        }
    }

    fn take_requests(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() && self.has_room() {
            match Pin::new(&mut self.requests).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Ready(Some(Err(status))) => self.end = Some(Err(status)),
                Poll::Ready(Some(Ok(request))) => self.take(request),
            }
        }
    }

    fn has_room(&self) -> bool {
        self.unanswered.len() < limits::PIPELINE_REQUESTS_MAX
            && self.unanswered_bytes < limits::PIPELINE_BYTES_MAX
    }

    fn take(&mut self, request: ProduceRequest) {
        let (taken, since) = (self.producer.call.taken(), Stopwatch::start());
        let request_bytes = taken.as_ref().map_or(0, Taken::size_bytes);
        self.unanswered_bytes += request_bytes;
        let appending = self.producer.begin(request);
        self.unanswered.push_back(Unanswered { appending, request_bytes, since, _taken: taken });
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<pb::ProduceReply> {
        let Some(first) = self.unanswered.front_mut() else { return Poll::Pending };
        let reply = std::task::ready!(first.appending.as_mut().poll(cx));
        let (took, request_bytes) = (first.since.elapsed(), first.request_bytes);
        self.producer.call.on_answered(took, request_bytes, reply.encoded_len());
        self.unanswered_bytes -= request_bytes;
        self.unanswered.pop_front();
        Poll::Ready(reply)
    }

    /// What ends the call from our side.
    fn poll_own_end(&mut self, cx: &mut Context<'_>) -> Option<Refused> {
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Some(Refused::too_late());
        }
        let is_told = self.drain.as_mut().poll(cx).is_ready();
        let has_begun = is_told || self.producer.call.shared.ground.drain.has_begun();
        // Requests in progress finish.
        (has_begun && self.unanswered.is_empty()).then(Refused::stopping)
    }
}

impl Stream for Pipeline {
    type Item = Result<pb::ProduceReply, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.producer.call.shared.ground.drain.has_begun() {
            this.take_requests(cx);
        }
        if let Poll::Ready(reply) = this.poll_first(cx) {
            return Poll::Ready(Some(Ok(reply)));
        }
        if this.unanswered.is_empty()
            && let Some(end) = &mut this.end
        {
            return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
        }
        if let Some(refused) = this.poll_own_end(cx) {
            this.unanswered.clear();
            this.end = Some(Ok(()));
            return Poll::Ready(Some(Err(this.producer.call.refuse(&refused))));
        }
        Poll::Pending
    }
}
