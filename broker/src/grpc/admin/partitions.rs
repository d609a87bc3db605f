//! Partitions, at their leaders: where they begin and end, who wrote to them; and what lies on this broker's disks.

use std::collections::BTreeMap;

use floodmark_proto::ids::{BrokerId, Offset};
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::partition::{Isolation, PartitionHandle, ReplicaProgress};
use floodmark_storage::producers;
use prost::Message;
use tokio::time::Instant;

use crate::grpc::call::{Api, Call};
use crate::grpc::forward;
use crate::grpc::limits;
use crate::grpc::refused::Refused;
use crate::ops::error::code_of_partition;
use crate::ops::offsets::{self, Sought};
use crate::ops::records;
use crate::ops::topics::TopicKey;

/// The partition that this broker leads.
fn partition(call: &Call, topic: &str, index: i32) -> Result<PartitionHandle, Refused> {
    call.shared.cluster.led(TopicKey::Name(topic), index).map_err(|code| match unusable(call, topic, index) {
        Some(reason) => Refused::new(code, reason),
        None => code.into(),
    })
}

/// What keeps this broker from holding a partition, in words.
fn unusable(call: &Call, topic: &str, index: i32) -> Option<String> {
    let cluster = &call.shared.cluster;
    let id = cluster.image().topic(topic)?.id;
    cluster.registry().unusable(id, index).map(|found| format!("it cannot use {found}"))
}

/// Partitions after which others have their turn: each may be told of without a wait.
const TURN: usize = 64;

/// A question about partitions that their leaders answer.
trait OfPartitions: Sync {
    type Asked: Clone + Send + Sync;
    type Told: Message;

    fn name(asked: &Self::Asked) -> (&str, i32);

    /// The answer of this broker.
    fn here(&self, call: &Call, asked: &Self::Asked) -> impl Future<Output = Self::Told> + Send;

    /// Those of another, in the order of the question.
    fn there(
        &self,
        call: &Call,
        broker: BrokerId,
        asked: Vec<Self::Asked>,
    ) -> impl Future<Output = Result<Vec<Self::Told>, Refused>> + Send;

    fn refused(error: pb::Error) -> Self::Told;

    fn failed(call: &Call, asked: &Self::Asked, refused: Refused) -> Self::Told {
        let (topic, index) = Self::name(asked);
        Self::refused(call.refuse_part(call.hint(refused, TopicKey::Name(topic), index)))
    }
}

/// Answers for partitions wherever they are led, in the order of the question: each broker that leads some is asked once, or again where
/// they are more than one request may name.
async fn at_leaders<P: OfPartitions>(call: &Call, question: P, asked: Vec<P::Asked>) -> Vec<P::Told> {
    let by_leader = forward::by_leader(call, asked.iter().map(P::name));
    let (mut answers, mut bytes): (BTreeMap<usize, P::Told>, usize) = Default::default();
    for (broker, places) in by_leader {
        // A partition that is named costs its asker a few bytes, and may have thousands of producers to tell of.
        let is_full = |bytes: usize| bytes >= limits::ANSWER_BYTES_MAX;
        for (n, place) in places.iter().filter(|_| broker.is_none()).enumerate() {
            if n % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let told = if is_full(bytes) {
                P::failed(call, &asked[*place], full())
            } else {
                question.here(call, &asked[*place]).await
            };
            bytes += told.encoded_len();
            answers.insert(*place, told);
        }
        let Some(broker) = broker else { continue };
        for places in places.chunks(limits::LIST_ENTRIES_MAX) {
            let theirs: Vec<P::Asked> = places.iter().map(|place| asked[*place].clone()).collect();
            let told = if is_full(bytes) { Err(full()) } else { question.there(call, broker, theirs).await };
            let told = told.and_then(|told| {
                let missing = || Refused::new(ErrorCode::UnknownServerError, "a broker left partitions out");
                if told.len() == places.len() { Ok(told) } else { Err(missing()) }
            });
            let told = told.unwrap_or_else(|e| {
                places.iter().map(|place| P::failed(call, &asked[*place], e.clone())).collect()
            });
            bytes += told.iter().map(Message::encoded_len).sum::<usize>();
            answers.extend(places.iter().copied().zip(told));
        }
    }
    answers.into_values().collect()
}

fn full() -> Refused {
    let message = format!(
        "the answer has {} MiB without this partition; ask for fewer at a time",
        limits::ANSWER_BYTES_MAX >> 20
    );
    Refused::new(ErrorCode::PolicyViolation, message)
}

/// Where partitions begin and end.
struct Offsets {
    timestamp_ms: Option<i64>,
}

impl OfPartitions for Offsets {
    type Asked = pb::TopicPartition;
    type Told = pb::PartitionOffsets;

    fn name(asked: &pb::TopicPartition) -> (&str, i32) {
        (&asked.topic, asked.partition)
    }

    async fn here(&self, call: &Call, asked: &pb::TopicPartition) -> pb::PartitionOffsets {
        let told = offsets_of(call, asked, self.timestamp_ms).await;
        told.unwrap_or_else(|refused| Self::failed(call, asked, refused))
    }

    async fn there(
        &self,
        call: &Call,
        broker: BrokerId,
        partitions: Vec<pb::TopicPartition>,
    ) -> Result<Vec<pb::PartitionOffsets>, Refused> {
        let request = pb::DescribeOffsetsRequest { partitions, timestamp_ms: self.timestamp_ms };
        let reply: pb::DescribeOffsetsReply =
            forward::unary(call, broker, Api::DescribeOffsets, request).await?;
        Ok(reply.partitions)
    }

    fn refused(error: pb::Error) -> pb::PartitionOffsets {
        pb::PartitionOffsets { error: Some(error), ..Default::default() }
    }
}

pub(in crate::grpc) async fn offsets(
    call: &Call,
    request: pb::DescribeOffsetsRequest,
) -> Result<pb::DescribeOffsetsReply, Refused> {
    let question = Offsets { timestamp_ms: request.timestamp_ms };
    let names = request.partitions.clone();
    let told = at_leaders(call, question, request.partitions).await;
    let named = names.into_iter().zip(told).map(|(asked, told)| pb::PartitionOffsets {
        topic: asked.topic,
        partition: asked.partition,
        ..told
    });
    Ok(pb::DescribeOffsetsReply { partitions: named.collect() })
}

async fn offsets_of(
    call: &Call,
    asked: &pb::TopicPartition,
    timestamp_ms: Option<i64>,
) -> Result<pb::PartitionOffsets, Refused> {
    let partition = partition(call, &asked.topic, asked.partition)?;
    let found = match timestamp_ms {
        Some(time) => Some(
            offsets::find(&call.shared.cluster, &partition, Sought::At(time), Isolation::Uncommitted, None)
                .await?,
        ),
        None => None,
    };
    Ok(pb::PartitionOffsets {
        start: partition.log_start().0,
        last_stable: partition.last_stable_offset().0,
        high_watermark: partition.high_watermark().0,
        end: partition.log_end().0,
        size_bytes: partition.size_bytes(),
        leader_epoch: partition.leader_epoch().0,
        at_offset: found.and_then(|found| found.offset).map(|offset| offset.0),
        at_timestamp_ms: found.and_then(|found| found.timestamp),
        replicas: replicas_of(call, partition).await?,
        ..Default::default()
    })
}

/// The followers as the leader knows them. Logs are looked into for the bytes they lack, on a thread that may wait for a disk.
async fn replicas_of(call: &Call, partition: PartitionHandle) -> Result<Vec<pb::ReplicaState>, Refused> {
    let progress = partition.replicas_progress(call.shared.clock.steady_ms());
    // Nobody to look for, or nothing that anybody lacks: no thread is needed to find that out.
    if progress.is_empty() {
        return Ok(Vec::new());
    }
    let looked = tokio::task::spawn_blocking(move || {
        progress.iter().map(|replica| replica_state(&partition, replica)).collect()
    });
    looked.await.map_err(|_| Refused::from(ErrorCode::UnknownServerError))
}

/// Records that go.
struct Deleting {
    timeout_ms: u32,
    deadline: Instant,
}

impl OfPartitions for Deleting {
    type Asked = pb::DeleteBefore;
    type Told = pb::DeletedRecords;

    fn name(asked: &pb::DeleteBefore) -> (&str, i32) {
        (&asked.topic, asked.partition)
    }

    async fn here(&self, call: &Call, asked: &pb::DeleteBefore) -> pb::DeletedRecords {
        let outcome = match partition(call, &asked.topic, asked.partition) {
            Ok(partition) => {
                let before = asked.before.map(Offset);
                records::delete_before(&partition, before, self.deadline).await.map_err(Refused::from)
            }
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(start) => pb::DeletedRecords { start: start.0, error: None },
            Err(refused) => Self::failed(call, asked, refused),
        }
    }

    async fn there(
        &self,
        call: &Call,
        broker: BrokerId,
        partitions: Vec<pb::DeleteBefore>,
    ) -> Result<Vec<pb::DeletedRecords>, Refused> {
        let request = pb::DeleteRecordsRequest { partitions, timeout_ms: self.timeout_ms };
        let reply: pb::DeleteRecordsReply = forward::unary(call, broker, Api::DeleteRecords, request).await?;
        Ok(reply.partitions)
    }

    fn refused(error: pb::Error) -> pb::DeletedRecords {
        pb::DeletedRecords { start: 0, error: Some(error) }
    }
}

pub(super) async fn delete_records(
    call: &Call,
    request: pb::DeleteRecordsRequest,
) -> Result<pb::DeleteRecordsReply, Refused> {
    let timeout_ms = request.timeout_ms;
    let question = Deleting { timeout_ms, deadline: Instant::now() + call.within(timeout_ms) };
    Ok(pb::DeleteRecordsReply { partitions: at_leaders(call, question, request.partitions).await })
}

pub(super) async fn log_dirs(
    call: &Call,
    _request: pb::DescribeLogDirsRequest,
) -> Result<pb::DescribeLogDirsReply, Refused> {
    let shared = std::sync::Arc::clone(&call.shared);
    let asked = tokio::task::spawn_blocking(move || shared.cluster.log_dirs());
    let dirs = asked.await.map_err(|_| Refused::from(ErrorCode::UnknownServerError))?;
    let all = call.shared.cluster.registry().all();
    let told = dirs.into_iter().map(|dir| {
        let here = all.iter().filter(|partition| partition.dir().starts_with(&dir.path));
        let sizes = here.map(|partition| pb::PartitionSize {
            topic: partition.id().topic.to_string(),
            partition: partition.id().index,
            size_bytes: partition.size_bytes(),
        });
        pb::LogDir {
            path: dir.path.display().to_string(),
            available_bytes: dir.available_bytes,
            partitions: sizes.collect(),
        }
    });
    Ok(pb::DescribeLogDirsReply { dirs: told.collect() })
}

/// Who wrote to partitions.
struct Producers;

impl OfPartitions for Producers {
    type Asked = pb::TopicPartition;
    type Told = pb::PartitionProducers;

    fn name(asked: &pb::TopicPartition) -> (&str, i32) {
        (&asked.topic, asked.partition)
    }

    async fn here(&self, call: &Call, asked: &pb::TopicPartition) -> pb::PartitionProducers {
        let outcome = match partition(call, &asked.topic, asked.partition) {
            Ok(partition) => {
                let known = partition.describe_producers().await;
                known.map_err(|e| Refused::new(code_of_partition(&e), e.to_string()))
            }
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(known) => {
                pb::PartitionProducers { producers: known.iter().map(producer).collect(), error: None }
            }
            Err(refused) => Self::failed(call, asked, refused),
        }
    }

    async fn there(
        &self,
        call: &Call,
        broker: BrokerId,
        partitions: Vec<pb::TopicPartition>,
    ) -> Result<Vec<pb::PartitionProducers>, Refused> {
        let request = pb::DescribeProducersRequest { partitions };
        let reply: pb::DescribeProducersReply =
            forward::unary(call, broker, Api::DescribeProducers, request).await?;
        Ok(reply.partitions)
    }

    fn refused(error: pb::Error) -> pb::PartitionProducers {
        pb::PartitionProducers { producers: Vec::new(), error: Some(error) }
    }
}

pub(super) async fn producers(
    call: &Call,
    request: pb::DescribeProducersRequest,
) -> Result<pb::DescribeProducersReply, Refused> {
    Ok(pb::DescribeProducersReply { partitions: at_leaders(call, Producers, request.partitions).await })
}

fn producer(state: &producers::ProducerState) -> pb::ProducerInfo {
    pb::ProducerInfo {
        producer_id: state.producer_id.0,
        producer_epoch: i32::from(state.epoch),
        last_sequence: state.last_batch().map(|batch| batch.last_sequence),
        last_timestamp_ms: (state.last_timestamp != -1).then_some(state.last_timestamp),
    }
}

/// Looks into the log for what the replica lacks.
fn replica_state(partition: &PartitionHandle, replica: &ReplicaProgress) -> pb::ReplicaState {
    let end = replica.log_end.unwrap_or(Offset::ZERO);
    let lag = partition.log_end().0.saturating_sub(end.0).max(0);
    pb::ReplicaState {
        broker_id: replica.broker.0,
        end: end.0,
        lag_records: lag,
        lag_bytes: if lag > 0 { partition.reader().bytes_from(end) } else { 0 },
        behind_for_ms: replica.caught_up_ms_ago,
        is_unknown: replica.log_end.is_none(),
    }
}
