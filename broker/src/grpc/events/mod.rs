//! The Events service: streams of topics that are event stores.

mod append;
mod read;

use std::pin::Pin;
use std::sync::Arc;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::murmur2::partition_of_key;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::partition::PartitionHandle;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::call::{Api, Call};
use super::generated::events_server::Events;
use super::refused::Refused;
use crate::ops::topics::{TopicKey, find};
use crate::shared::Shared;

pub(crate) use append::AppendIfRequest;

/// Serves calls about streams.
#[derive(Debug)]
pub(super) struct EventsService {
    shared: Arc<Shared>,
}

impl EventsService {
    pub(super) fn new(shared: Arc<Shared>) -> EventsService {
        EventsService { shared }
    }
}

#[tonic::async_trait]
impl Events for EventsService {
    async fn append_if(
        &self,
        request: Request<AppendIfRequest>,
    ) -> Result<Response<pb::AppendIfReply>, Status> {
        let call = Call::begin(&self.shared, Api::AppendIf, &request);
        call.answer(append::append_if(&call, request.into_inner())).await
    }

    type ReadStreamStream = Pin<Box<dyn Stream<Item = Result<pb::ReadStreamReply, Status>> + Send>>;

    async fn read_stream(
        &self,
        request: Request<pb::ReadStreamRequest>,
    ) -> Result<Response<Self::ReadStreamStream>, Status> {
        let call = Call::begin(&self.shared, Api::ReadStream, &request);
        let read = read::begin(call.clone(), request.into_inner());
        Ok(Response::new(Box::pin(read.map_err(|refused| call.refuse(&refused))?)))
    }
}

/// The number of a stream's partition: the one that is named, or where the key's hash sends it.
fn index_of(call: &Call, topic: &str, partition: Option<i32>, key: &[u8]) -> Result<i32, Refused> {
    match partition {
        Some(index) => Ok(index),
        None => {
            let image = call.shared.cluster.image();
            let topic = find(&image, TopicKey::Name(topic))?;
            let count = u32::try_from(topic.partitions.iter().count()).unwrap_or(0);
            Ok(i32::try_from(partition_of_key(key, count)).unwrap_or(0))
        }
    }
}

/// A partition that is here.
fn partition_at(call: &Call, topic: &str, index: i32) -> Result<PartitionHandle, Refused> {
    let key = TopicKey::Name(topic);
    call.shared.cluster.led(key, index).map_err(|code| match code {
        ErrorCode::UnknownTopicOrPartition => {
            Refused::new(code, format!("there is no partition {index} of a topic '{topic}'"))
        }
        other => call.hint(other, key, index),
    })
}
