//! Records in, in two stages: the call fixes the order of everything it is given, the future that it returns tells what became of it.
//! `acks` only decides when that is. Must never know wire types.

use bytes::BytesMut;
use floodmark_proto::ids::{Offset, TimestampMs};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::settings::{Compression, SyncPolicy, TimestampType, TopicSettings};
use floodmark_replication::partition::{AppendOptions, Appended, PartitionError, PartitionHandle};
use floodmark_storage::AppendError;
use floodmark_storage::producers::ProducerError;

use super::deadline::Deadline;
use super::error::code_of_partition;
use super::expectations::condition_of;
use super::intake::{IntakeRules, NamedRecord, Refusal, SentWith, take_in};
use super::lookout::look_out_for;
use super::turns::let_the_woken_go_first;

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// Once the leader has written it; also where nobody wants to know.
    Leader,
    /// Once it is committed: on the disks of all replicas in sync.
    All,
}

/// Until when a producer is answered.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    /// Where this broker's own log is all that is waited for.
    pub(crate) here: Deadline,
    /// Where other replicas are.
    pub(crate) elsewhere: Deadline,
}

/// Where acknowledged records are, by what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// In the leader's memory.
    Memory,
    /// On the leader's disk.
    SyncedHere,
    /// On the disks of all replicas in sync.
    SyncedInSyncSet,
}

/// What came for one partition.
#[derive(Debug)]
pub(crate) struct Part {
    /// The partition, or why there is none.
    pub(crate) partition: Result<PartitionHandle, ErrorCode>,
    pub(crate) records: Option<BytesMut>,
}

/// Where records are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Produced {
    pub(crate) base_offset: Offset,
    /// The broker's time, where the topic's records carry that.
    pub(crate) log_append_time: Option<TimestampMs>,
    pub(crate) log_start: Offset,
    pub(crate) durability: Durability,
}

/// Why they are nowhere, or may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotProduced {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
    pub(crate) records: Vec<NamedRecord>,
    pub(crate) log_start: Option<Offset>,
}

impl From<ErrorCode> for NotProduced {
    fn from(code: ErrorCode) -> NotProduced {
        NotProduced { code, message: None, records: Vec::new(), log_start: None }
    }
}

/// Appends every part to its partition, in their order. The future may be dropped; the records stay where they are. The deadlines are those
/// of the call, though the answer may be asked for much later, and the same for all: partition after partition, each with its own, they would
/// add up.
pub(crate) fn produce(
    parts: Vec<Part>,
    acks: Acks,
    sent: SentWith,
    until: Until,
    now_ms: TimestampMs,
) -> impl Future<Output = Vec<Result<Produced, NotProduced>>> + Send + 'static {
    let mut scratch = Vec::new();
    let begun: Vec<_> = parts.into_iter().map(|part| begin(part, acks, sent, now_ms, &mut scratch)).collect();
    async move {
        let mut outcomes = Vec::with_capacity(begun.len());
        for begun in begun {
            outcomes.push(match begun {
                Ok((partition, appending)) => finish(&partition, appending, acks, &until).await,
                Err(refused) => Err(refused),
            });
        }
        outcomes
    }
}

type Begun<F> = Result<(PartitionHandle, F), NotProduced>;

fn begin(
    part: Part,
    acks: Acks,
    sent: SentWith,
    now_ms: TimestampMs,
    scratch: &mut Vec<u8>,
) -> Begun<impl Future<Output = Result<Appended, PartitionError>> + Send + use<>> {
    let partition = part.partition?;
    let rules = rules_of(&partition.settings());
    let refused = |refusal| NotProduced { log_start: Some(partition.log_start()), ..not_taken(refusal) };
    let batch = take_in(part.records, sent, &rules, now_ms, scratch).map_err(refused)?;
    // Elsewhere the header is one like any other, as it is on a copy.
    let asks = rules.is_event_store && !sent.are_copies;
    let condition = if asks { condition_of(&batch, scratch).map_err(refused)? } else { None };
    let options = AppendOptions { needs_min_isr: acks == Acks::All, ..AppendOptions::CLIENT };
    let appending = partition.append_one(batch, condition, options);
    Ok((partition, appending))
}

async fn finish(
    partition: &PartitionHandle,
    appending: impl Future<Output = Result<Appended, PartitionError>>,
    acks: Acks,
    until: &Until,
) -> Result<Produced, NotProduced> {
    let timed_out = || NotProduced {
        message: Some("the records were not committed in time; they may still be".to_owned()),
        log_start: Some(partition.log_start()),
        ..ErrorCode::RequestTimedOut.into()
    };
    let appended = look_out_for(until.here.bound(appending)).await.ok_or_else(timed_out)?;
    let appended = appended.map_err(|e| refused_by(partition, &e))?;
    let outcome = appended.batches.into_iter().next();
    let appended_batch = outcome
        .ok_or_else(|| NotProduced::from(ErrorCode::UnknownServerError))?
        .map_err(|e| NotProduced { log_start: Some(partition.log_start()), ..refused_batch(&e) })?;
    if acks == Acks::All {
        let committed = partition.committed(appended.end, appended.epoch);
        // Where others are waited for, it takes longer than a look-out.
        let committed = if partition.duty().isr.len() > 1 {
            until.elsewhere.bound(committed).await
        } else {
            look_out_for(until.here.bound(committed)).await
        };
        let committed = committed.ok_or_else(timed_out)?;
        committed.map_err(|e| refused_by(partition, &e))?;
    }
    // Where they may see it already. Behind a sync they hear of it as soon as the producer.
    if acks == Acks::Leader && partition.high_watermark() >= appended.end && partition.is_watched() {
        let_the_woken_go_first().await;
    }
    let settings = partition.settings();
    let durability = if acks == Acks::All && settings.sync == SyncPolicy::Ack {
        Durability::SyncedInSyncSet
    } else if partition.reader().durable() >= appended.end {
        Durability::SyncedHere
    } else {
        Durability::Memory
    };
    let is_by_broker = settings.timestamp_type == TimestampType::LogAppendTime;
    Ok(Produced {
        base_offset: appended_batch.base_offset,
        log_append_time: is_by_broker.then_some(appended_batch.timestamp),
        log_start: partition.log_start(),
        durability,
    })
}

pub(super) fn rules_of(settings: &TopicSettings) -> IntakeRules {
    IntakeRules {
        max_batch_bytes: settings.log.max_batch_bytes as usize,
        is_compacted: settings.cleanup.compact,
        is_event_store: settings.log.key_index,
        is_log_append_time: settings.timestamp_type == TimestampType::LogAppendTime,
        before_max_ms: settings.timestamp_before_max_ms,
        after_max_ms: settings.timestamp_after_max_ms,
        compression: match settings.compression {
            Compression::Producer => None,
            Compression::Codec(codec, level) => Some((codec, level)),
        },
    }
}

pub(super) fn not_taken(refusal: Refusal) -> NotProduced {
    let message = Some(refusal.to_string());
    let code = match &refusal {
        Refusal::Invalid(_) | Refusal::NoKey(_) | Refusal::Expectation(_) => ErrorCode::InvalidRecord,
        Refusal::Corrupt(_) => ErrorCode::CorruptMessage,
        Refusal::TooLarge(_) => ErrorCode::MessageTooLarge,
        // As Kafka says it: nobody may use a transaction that has no name.
        Refusal::Transaction => ErrorCode::TransactionalIdAuthorizationFailed,
        Refusal::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
        Refusal::Timestamp { .. } => ErrorCode::InvalidTimestamp,
    };
    let records = match refusal {
        Refusal::NoKey(records) => records,
        Refusal::Expectation(record) => vec![record],
        _ => Vec::new(),
    };
    NotProduced { code, message, records, log_start: None }
}

/// A batch that the log did not take.
pub(crate) fn refused_batch(error: &AppendError) -> NotProduced {
    let code = match error {
        AppendError::Producer(ProducerError::StaleEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendError::Producer(ProducerError::OutOfOrderSequence { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        AppendError::Producer(ProducerError::NoSequence { .. }) | AppendError::Batch(_) => {
            ErrorCode::InvalidRecord
        }
        AppendError::Producer(ProducerError::CoordinatorFenced { .. }) => {
            ErrorCode::TransactionCoordinatorFenced
        }
        AppendError::Producer(_) => ErrorCode::InvalidTxnState,
        // Neither is tried again by anybody: what the stream holds has to be looked at first.
        AppendError::Conflict { .. } | AppendError::NoKeyIndex => ErrorCode::InvalidRecord,
        AppendError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        _ => ErrorCode::KafkaStorageError,
    };
    let records = match error {
        AppendError::Conflict { record, .. } => {
            vec![NamedRecord { index: *record, reason: error.to_string().into() }]
        }
        _ => Vec::new(),
    };
    NotProduced { message: Some(error.to_string()), records, ..code.into() }
}

fn refused_by(partition: &PartitionHandle, error: &PartitionError) -> NotProduced {
    NotProduced {
        message: Some(error.to_string()),
        log_start: Some(partition.log_start()),
        ..code_of_partition(error).into()
    }
}
