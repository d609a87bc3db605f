//! ReadStream: the records of one key, part by part, each only when there is room for it.

use std::time::Duration;

use floodmark_proto::ids::Offset;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::partition::{Isolation, PartitionHandle};
use floodmark_storage::key_index::Direction;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Status;

use super::{index_of, partition_at};
use crate::grpc::call::{Call, OpenStream};
use crate::grpc::limits;
use crate::grpc::pull::pull;
use crate::grpc::refused::Refused;
use crate::ops::error::OpError;
use crate::ops::events::{self, ReadStream, StreamPart, StreamRecord};
use crate::ops::topics::TopicKey;

/// How long one look at a stream that grows waits. Between two, a call may end.
const LOOK: Duration = Duration::from_secs(60);

/// A read that goes on.
struct Reader {
    call: Call,
    partition: PartitionHandle,
    wanted: ReadStream,
    /// Records that are wanted still; `None` for all.
    left: Option<u64>,
    follow: bool,
    /// The reader has had a part, so that one without records would tell it nothing.
    has_told: bool,
    /// The newest record of the stream, as far as this read can know.
    newest: Option<i64>,
    _open: OpenStream,
}

/// The parts of a stream.
pub(super) fn begin(
    call: Call,
    request: pb::ReadStreamRequest,
) -> Result<impl Stream<Item = Result<pb::ReadStreamReply, Status>> + Send, Refused> {
    // Its bytes are not kept.
    drop(call.taken());
    let index = index_of(&call, &request.topic, request.partition, &request.key)?;
    let partition = partition_at(&call, &request.topic, index)?;
    let direction = match pb::read_stream_request::Direction::try_from(request.direction) {
        Ok(pb::read_stream_request::Direction::Forward) => Direction::Forward,
        Ok(pb::read_stream_request::Direction::Backward) if request.follow => {
            return Err(Refused::invalid("a stream is followed forward"));
        }
        Ok(pb::read_stream_request::Direction::Backward) => Direction::Backward,
        Err(_) => return Err(Refused::invalid("a stream is read forward or backward")),
    };
    let wanted = ReadStream {
        stream: request.key,
        direction,
        from: request.from.map(Offset),
        max_records: usize::MAX,
        max_bytes: limits::PUSHED_BYTES,
        isolation: Isolation::Uncommitted,
    };
    let reader = Reader {
        _open: call.open_stream(),
        call,
        partition,
        wanted,
        left: (request.records_max > 0).then_some(request.records_max),
        follow: request.follow,
        has_told: false,
        newest: None,
    };
    Ok(pull(Some(Box::new(reader)), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok((reply, is_last)) => Some(((!is_last).then_some(reader), Ok(reply))),
            Err(refused) => {
                let id = reader.partition.id();
                let refused = reader.call.hint(refused, TopicKey::Id(id.topic_id), id.index);
                let status = reader.call.refuse(&refused);
                Some((None, Err(status)))
            }
        }
    }))
}

impl Reader {
    /// The next part, and whether it is the last.
    async fn next(&mut self) -> Result<(pb::ReadStreamReply, bool), Refused> {
        if let Some(left) = self.left {
            self.wanted.max_records = usize::try_from(left).unwrap_or(usize::MAX);
        }
        let is_from_end = self.wanted.from.is_none();
        let part = self.look().await?;
        match self.wanted.direction {
            Direction::Forward => {
                self.newest = part.records.last().map_or(self.newest, |record| Some(record.offset.0));
            }
            Direction::Backward if is_from_end => {
                self.newest = part.records.first().map(|record| record.offset.0);
            }
            Direction::Backward => {}
        }
        let is_known = self.wanted.direction == Direction::Backward || !part.has_more;
        self.left = self.left.map(|left| left.saturating_sub(part.records.len() as u64));
        let next = match self.wanted.direction {
            Direction::Forward => part.reached,
            Direction::Backward => Offset(part.reached.0.saturating_sub(1)),
        };
        self.wanted.from = Some(next);
        let is_last = self.left == Some(0) || (!part.has_more && !self.follow) || next < Offset::ZERO;
        let reply = pb::ReadStreamReply {
            last_offset: self.newest.filter(|_| is_known),
            partition: self.partition.id().index,
            next_offset: next.0,
            is_end: !part.has_more,
            records: part.records.into_iter().map(record).collect(),
        };
        self.has_told = true;
        self.call.metrics().on_pushed(prost::Message::encoded_len(&reply));
        Ok((reply, is_last))
    }

    /// Part of the stream; where it is followed and has been told to its end, as soon as it has grown.
    async fn look(&mut self) -> Result<StreamPart, Refused> {
        let drain = self.call.shared.ground.drain.clone();
        let until = self.call.deadline;
        let look = async {
            loop {
                let part = self.look_once().await?;
                if !self.follow || !self.has_told || !part.records.is_empty() {
                    return Ok::<_, OpError>(part);
                }
                self.wanted.from = Some(part.reached);
            }
        };
        let late = async {
            match until {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            part = look => Ok(part?),
            () = drain.begun() => Err(Refused::stopping()),
            () = late => Err(Refused::too_late()),
        }
    }

    async fn look_once(&self) -> Result<StreamPart, OpError> {
        let (partition, wanted) = (self.partition.clone(), self.wanted.clone());
        if self.follow && self.has_told {
            let lease = self.call.shared.cluster.lease().clone();
            events::follow_stream(partition, wanted, Instant::now() + LOOK, lease).await
        } else {
            events::read_stream(partition, wanted).await
        }
    }
}

fn record(record: StreamRecord) -> pb::Record {
    let header = |(key, value): (bytes::Bytes, Option<bytes::Bytes>)| pb::Header {
        key: String::from_utf8_lossy(&key).into_owned(),
        value,
    };
    pb::Record {
        key: Some(record.key),
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
        timestamp_ms: Some(record.timestamp),
        offset: Some(record.offset.0),
    }
}
