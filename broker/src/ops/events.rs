//! Streams: a record's key is its stream, on topics with `floodmark.key.index=true`. Appended under a condition on where the stream
//! ends, read by key, followed as they grow. Must never know wire types.
//!
//! A stream lies in one partition; which one that is, the caller knows. What is promised across retention, compaction and retries is in
//! docs/adr/0011.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::batch::event_headers::APPEND_ID;
use floodmark_proto::batch::{BatchBuilder, BatchError, NewRecord, RecordBatch};
use floodmark_proto::ids::{Offset, ProducerId, TimestampMs};
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::lease::Lease;
use floodmark_replication::partition::{AppendOptions, Isolation, PartitionError, PartitionHandle};
use floodmark_storage::AppendError;
use floodmark_storage::key_index::Direction;
pub(crate) use floodmark_storage::log::condition::Expected;
use floodmark_storage::log::condition::{Condition, KeyCheck};
use floodmark_storage::log::reader::StreamQuery;
pub(crate) use floodmark_storage::log::reader::StreamRecord;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::error::{OpError, code_of_partition};
use super::intake::{SentWith, take_in};
use super::lookout::look_out_for;
use super::produce::{Acks, NotProduced, not_taken, refused_batch, rules_of};

/// Records that one read returns at most, whatever is asked for.
pub(crate) const STREAM_RECORDS_MAX: usize = 10_000;
/// Bytes of records that one read returns at most, whatever is asked for; a single record may be larger.
pub(crate) const STREAM_BYTES_MAX: usize = 16 << 20;

/// A record to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NewEvent {
    pub(crate) value: Option<Bytes>,
    /// In their order; duplicates are kept.
    pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
    /// The broker's time where the caller has none.
    pub(crate) timestamp: Option<TimestampMs>,
}

/// By what the log knows a retry of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerSequence {
    pub(crate) id: ProducerId,
    pub(crate) epoch: i16,
    /// Of the first event.
    pub(crate) sequence: i32,
}

/// Events for one stream: all of them are appended, next to each other, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppendEvents {
    pub(crate) stream: Bytes,
    pub(crate) expected: Expected,
    pub(crate) events: Vec<NewEvent>,
    /// The same for every try of one append, and for no other: it is kept in a header of each record, and a try that finds it among the
    /// stream's newest records is answered as the one that put it there.
    pub(crate) append_id: Option<[u8; 16]>,
    pub(crate) producer: Option<ProducerSequence>,
    pub(crate) acks: Acks,
    pub(crate) within: Duration,
}

/// Where the events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventsAppended {
    /// Of the first one.
    pub(crate) base_offset: Offset,
    /// Of the last one, which the next append may expect.
    pub(crate) last_offset: Offset,
    /// The latest of their times, or the broker's.
    pub(crate) timestamp: TimestampMs,
    /// An earlier try had put them there.
    pub(crate) is_duplicate: bool,
}

/// Why they are nowhere, or may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventsError {
    /// The stream does not end as expected. Nothing was appended; no retry of the same helps.
    Conflict {
        /// What was expected.
        expected: Expected,
        /// The stream's last offset; `None` where it has no record.
        actual: Option<Offset>,
    },
    /// Anything else.
    Refused(OpError),
}

/// What is wanted of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadStream {
    pub(crate) stream: Bytes,
    pub(crate) direction: Direction,
    /// The first offset that may be returned, or, backward, the last; the stream's end in that direction where `None`.
    pub(crate) from: Option<Offset>,
    pub(crate) max_records: usize,
    pub(crate) max_bytes: usize,
    pub(crate) isolation: Isolation,
}

/// Part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPart {
    /// In the order asked for; committed ones only.
    pub(crate) records: Vec<StreamRecord>,
    /// Forward: where to go on; every record of the stream before it was returned, now or by the reads that led here. Backward: every
    /// record from here on was returned; to go on, read from the offset before it.
    pub(crate) reached: Offset,
    /// More is there already. Where it is false, a forward read has come to the end of what is committed.
    pub(crate) has_more: bool,
    pub(crate) high_watermark: Offset,
    pub(crate) log_start: Offset,
}

impl From<OpError> for EventsError {
    fn from(error: OpError) -> EventsError {
        EventsError::Refused(error)
    }
}

/// Appends events where their stream ends as expected. Decided against all that is appended, answered when the events are where `acks`
/// wants them. The future may be dropped; what it had begun stays begun.
pub(crate) async fn append_if(
    partition: PartitionHandle,
    append: AppendEvents,
    now_ms: TimestampMs,
) -> Result<EventsAppended, EventsError> {
    let deadline = Instant::now() + append.within;
    check_is_event_store(&partition)?;
    let batch = batch_of(&append, &partition, now_ms)?;
    let id = append.append_id.map(|id| Bytes::copy_from_slice(&id));
    let check = KeyCheck { record: 0, key: append.stream, expected: append.expected, earlier: None };
    let mut condition = Condition { checks: vec![check], append_id: id, seen: None };
    if append.expected != Expected::Any || condition.append_id.is_some() {
        condition = look(&partition, condition, deadline).await?;
    }
    let options = AppendOptions { needs_min_isr: append.acks == Acks::All, ..AppendOptions::CLIENT };
    let appending = partition.append_one(batch, Some(condition), options);
    let in_doubt = || timed_out("the events may still be appended: ask again with the same append id");
    let appended =
        timeout_at(deadline, appending).await.map_err(|_| in_doubt())?.map_err(|e| refused_by(&e))?;
    let placed = match appended.batches.into_iter().next() {
        Some(Ok(placed)) => placed,
        Some(Err(AppendError::Conflict { expected, actual, .. })) => {
            return Err(EventsError::Conflict { expected, actual });
        }
        Some(Err(e)) => return Err(told_of(refused_batch(&e))),
        None => return Err(abandoned().into()),
    };
    if append.acks == Acks::All {
        let committed = partition.committed(appended.end, appended.epoch);
        let committed = timeout_at(deadline, committed);
        // Where others are waited for, it takes longer than a look-out.
        let committed = match partition.duty().isr.len() {
            0 | 1 => look_out_for(committed).await,
            _ => committed.await,
        };
        committed.map_err(|_| in_doubt())?.map_err(|e| refused_by(&e))?;
    }
    Ok(EventsAppended {
        base_offset: placed.base_offset,
        last_offset: placed.last_offset,
        timestamp: placed.timestamp,
        is_duplicate: placed.is_duplicate,
    })
}

/// Looks at what lies in files of the first check's stream; the log itself then only looks at what has come since.
async fn look(
    partition: &PartitionHandle,
    mut condition: Condition,
    deadline: Instant,
) -> Result<Condition, OpError> {
    let looking = partition.clone();
    let look = spawn_blocking(move || {
        if let Some(check) = condition.checks.first() {
            let id = condition.append_id.as_deref();
            condition.seen = Some(looking.look_at_stream(&check.key, check.expected, id)?);
        }
        Ok(condition)
    });
    let looked = timeout_at(deadline, look).await.map_err(|_| timed_out("nothing was appended"))?;
    looked.map_err(|_| abandoned())?.map_err(|e: PartitionError| refused_by(&e))
}

/// Reads part of a stream, as far as it is committed.
pub(crate) async fn read_stream(
    partition: PartitionHandle,
    wanted: ReadStream,
) -> Result<StreamPart, OpError> {
    check_is_event_store(&partition)?;
    partition.role().lead(None).map_err(|e| refused_by(&e))?;
    spawn_blocking(move || read_now(&partition, &wanted)).await.map_err(|_| abandoned())?
}

/// The same, forward; where the stream has nothing behind `wanted.from` yet, it is waited for that, until `deadline`. An empty answer
/// tells how far was looked all the same. Fails where nothing more would come: the log takes no more, or without `lease` others may lead
/// already what is read here.
pub(crate) async fn follow_stream(
    partition: PartitionHandle,
    mut wanted: ReadStream,
    deadline: Instant,
    lease: Lease,
) -> Result<StreamPart, OpError> {
    wanted.direction = Direction::Forward;
    let progress = Arc::new(Notify::new());
    // Registered before the first look, so that nothing that comes in between is slept over.
    let _registration = partition.on_progress(Arc::clone(&progress));
    loop {
        let part = read_stream(partition.clone(), wanted.clone()).await?;
        if !part.records.is_empty() {
            return Ok(part);
        }
        if let Some(stopped) = partition.stopped() {
            return Err(refused_by(&stopped));
        }
        tokio::select! {
            moved = timeout_at(deadline, progress.notified()) => if moved.is_err() { return Ok(part) },
            () = lease.lost() => {
                return Err(refused_by(&PartitionError::NotLeader { epoch: partition.leader_epoch() }));
            }
        }
        wanted.from = Some(part.reached);
    }
}

fn read_now(partition: &PartitionHandle, wanted: &ReadStream) -> Result<StreamPart, OpError> {
    let from = match (wanted.from, wanted.direction) {
        (Some(from), _) => from,
        (None, Direction::Forward) => Offset::ZERO,
        (None, Direction::Backward) => Offset::MAX,
    };
    let query = StreamQuery {
        key: &wanted.stream,
        from,
        direction: wanted.direction,
        below: Offset::MAX,
        max_records: wanted.max_records.min(STREAM_RECORDS_MAX),
        max_bytes: wanted.max_bytes.min(STREAM_BYTES_MAX),
    };
    let (read, seen) = partition.read_stream(&query, wanted.isolation).map_err(|e| refused_by(&e))?;
    Ok(StreamPart {
        records: read.records,
        reached: read.reached,
        has_more: read.is_cut_short,
        high_watermark: seen.high_watermark,
        log_start: seen.log_start,
    })
}

fn check_is_event_store(partition: &PartitionHandle) -> Result<(), OpError> {
    if partition.settings().log.key_index {
        return Ok(());
    }
    let message = format!(
        "topic {} has no streams: set floodmark.key.index=true to make it an event store",
        partition.id().topic
    );
    Err(OpError::new(ErrorCode::InvalidRequest, message))
}

/// One batch of all events, by the rules of the topic.
fn batch_of(
    append: &AppendEvents,
    partition: &PartitionHandle,
    now_ms: TimestampMs,
) -> Result<RecordBatch, EventsError> {
    let rules = rules_of(&partition.settings());
    let (codec, level) = rules.compression.unwrap_or((floodmark_proto::batch::CompressionType::None, None));
    let mut builder = BatchBuilder::new().compression(codec, level);
    if let Some(producer) = append.producer {
        builder = builder.producer(producer.id, producer.epoch, producer.sequence);
    }
    let wrong = |e: BatchError| OpError::new(ErrorCode::InvalidRecord, e.to_string());
    for event in &append.events {
        let own = event.headers.iter().map(|(key, value)| (&key[..], value.as_deref()));
        let id = append.append_id.as_ref().map(|id| (APPEND_ID, Some(&id[..])));
        let headers: Vec<_> = own.chain(id).collect();
        let timestamp = event.timestamp.unwrap_or(now_ms);
        let (key, value) = (Some(&append.stream[..]), event.value.as_deref());
        builder.push(&NewRecord { timestamp, key, value, headers: &headers }).map_err(wrong)?;
    }
    if append.events.is_empty() {
        return Err(OpError::new(ErrorCode::InvalidRequest, "there is no event to append").into());
    }
    let made = bytes::BytesMut::from(builder.build().map_err(wrong)?.as_bytes());
    let sent = SentWith { may_use_zstd: true, in_transaction: false, are_copies: false };
    take_in(Some(made), sent, &rules, now_ms, &mut Vec::new()).map_err(|r| told_of(not_taken(r)))
}

fn told_of(refused: NotProduced) -> EventsError {
    let message = refused.message.unwrap_or_else(|| refused.code.name().to_owned());
    OpError::new(refused.code, message).into()
}

fn refused_by(error: &PartitionError) -> OpError {
    OpError::new(code_of_partition(error), error.to_string())
}

fn timed_out(what_then: &str) -> OpError {
    OpError::new(ErrorCode::RequestTimedOut, format!("the time that the caller gave is over; {what_then}"))
}

/// A thread of ours failed; the caller may try again.
fn abandoned() -> OpError {
    OpError::new(ErrorCode::UnknownServerError, "the call was abandoned before its outcome was known")
}

#[cfg(test)]
pub(super) mod tests;
