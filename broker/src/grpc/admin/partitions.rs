//! Partitions of this broker: where they begin and end, what lies where, who wrote to them.

use floodmark_proto::ids::Offset;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::partition::{Isolation, PartitionHandle, ReplicaProgress};
use floodmark_storage::producers;
use tokio::time::Instant;

use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::ops::error::code_of_partition;
use crate::ops::offsets::{self, Sought};
use crate::ops::records;
use crate::ops::topics::TopicKey;

fn partition(call: &Call, topic: &str, index: i32) -> Result<PartitionHandle, Refused> {
    Ok(call.shared.cluster.led(TopicKey::Name(topic), index)?)
}

pub(super) async fn offsets(
    call: &Call,
    request: pb::DescribeOffsetsRequest,
) -> Result<pb::DescribeOffsetsReply, Refused> {
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for asked in request.partitions {
        let told = match offsets_of(call, &asked, request.timestamp_ms).await {
            Ok(told) => told,
            Err(e) => {
                let refused = call.hint(e, TopicKey::Name(&asked.topic), asked.partition);
                pb::PartitionOffsets { error: Some(call.refuse_part(refused)), ..Default::default() }
            }
        };
        partitions.push(pb::PartitionOffsets { topic: asked.topic, partition: asked.partition, ..told });
    }
    Ok(pb::DescribeOffsetsReply { partitions })
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
    let now_ms = u64::try_from(call.shared.clock.now_ms()).unwrap_or(0);
    let progress = partition.replicas_progress(now_ms);
    // Nobody to look for, or nothing that anybody lacks: no thread is needed to find that out.
    if progress.is_empty() {
        return Ok(Vec::new());
    }
    let looked = tokio::task::spawn_blocking(move || {
        progress.iter().map(|replica| replica_state(&partition, replica)).collect()
    });
    looked.await.map_err(|_| Refused::from(floodmark_proto::kafka::ErrorCode::UnknownServerError))
}

pub(super) async fn delete_records(
    call: &Call,
    request: pb::DeleteRecordsRequest,
) -> Result<pb::DeleteRecordsReply, Refused> {
    let deadline = Instant::now() + call.within(request.timeout_ms);
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for asked in request.partitions {
        let outcome = match partition(call, &asked.topic, asked.partition) {
            Ok(partition) => {
                let deleted = records::delete_before(&partition, asked.before.map(Offset), deadline).await;
                deleted.map_err(Refused::from)
            }
            Err(refused) => Err(refused),
        };
        partitions.push(match outcome {
            Ok(start) => pb::DeletedRecords { start: start.0, error: None },
            Err(refused) => {
                let refused = call.hint(refused, TopicKey::Name(&asked.topic), asked.partition);
                pb::DeletedRecords { start: 0, error: Some(call.refuse_part(refused)) }
            }
        });
    }
    Ok(pb::DeleteRecordsReply { partitions })
}

pub(super) async fn log_dirs(
    call: &Call,
    _request: pb::DescribeLogDirsRequest,
) -> Result<pb::DescribeLogDirsReply, Refused> {
    let shared = std::sync::Arc::clone(&call.shared);
    let asked = tokio::task::spawn_blocking(move || shared.cluster.log_dirs());
    let dirs =
        asked.await.map_err(|_| Refused::from(floodmark_proto::kafka::ErrorCode::UnknownServerError))?;
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

pub(super) async fn producers(
    call: &Call,
    request: pb::DescribeProducersRequest,
) -> Result<pb::DescribeProducersReply, Refused> {
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for asked in &request.partitions {
        let outcome = match partition(call, &asked.topic, asked.partition) {
            Ok(partition) => {
                let known = partition.describe_producers().await;
                known.map_err(|e| Refused::new(code_of_partition(&e), e.to_string()))
            }
            Err(refused) => Err(refused),
        };
        partitions.push(match outcome {
            Ok(known) => {
                pb::PartitionProducers { producers: known.iter().map(producer).collect(), error: None }
            }
            Err(e) => {
                let refused = call.hint(e, TopicKey::Name(&asked.topic), asked.partition);
                pb::PartitionProducers { producers: Vec::new(), error: Some(call.refuse_part(refused)) }
            }
        });
    }
    Ok(pb::DescribeProducersReply { partitions })
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
    let lag = partition.log_end().0.saturating_sub(replica.log_end.0).max(0);
    pb::ReplicaState {
        broker_id: replica.broker.0,
        end: replica.log_end.0,
        lag_records: lag,
        lag_bytes: if lag > 0 { partition.reader().bytes_from(replica.log_end) } else { 0 },
        behind_for_ms: replica.caught_up_ms_ago,
    }
}
