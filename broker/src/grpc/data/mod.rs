//! The Data service: records in and out.
//!
//! - [`produce`]: appends, pipelined; [`wire`] reads what comes, [`records`] makes batches of records that come by themselves
//! - [`subscribe`]: pushes; [`reply`] writes what is pushed straight from stored batches

mod produce;
mod records;
mod reply;
mod subscribe;
pub(super) mod wire;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use floodmark_proto::pb::v1 as pb;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Api, Call};
use super::generated::data_server::Data;
use super::refused::Refused;
use crate::shared::Shared;

pub(crate) use reply::Reply;
pub(crate) use wire::ProduceRequest;

/// Serves calls about records.
#[derive(Debug)]
pub(super) struct DataService {
    shared: Arc<Shared>,
    /// Spreads what has no key.
    next_partition: Arc<AtomicU64>,
}

impl DataService {
    pub(super) fn new(shared: Arc<Shared>) -> DataService {
        DataService { shared, next_partition: Arc::default() }
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Data for DataService {
    type ProduceStream = produce::Pipeline;

    async fn produce(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<produce::Pipeline>, Status> {
        let call = Call::begin(&self.shared, Api::Produce, &request);
        let producer = produce::Producer::new(call, Arc::clone(&self.next_partition));
        Ok(Response::new(produce::Pipeline::new(producer, request.into_inner())))
    }

    async fn append(&self, request: Request<ProduceRequest>) -> Result<Response<pb::ProduceReply>, Status> {
        let call = Call::begin(&self.shared, Api::Append, &request);
        let producer = produce::Producer::new(call.clone(), Arc::clone(&self.next_partition));
        call.answer(producer.append(request.into_inner())).await
    }

    type SubscribeStream = Replies<Reply>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::SubscribeRequest>>,
    ) -> Result<Response<Replies<Reply>>, Status> {
        let call = Call::begin(&self.shared, Api::Subscribe, &request);
        Ok(Response::new(Box::pin(subscribe::subscribe(call, request.into_inner()))))
    }

    async fn init_producer(
        &self,
        request: Request<pb::InitProducerRequest>,
    ) -> Result<Response<pb::InitProducerReply>, Status> {
        let call = Call::begin(&self.shared, Api::InitProducer, &request);
        let shared = &self.shared;
        call.answer(async move {
            let id = shared.producer_ids.next(shared).await.map_err(Refused::from)?;
            Ok(pb::InitProducerReply { producer_id: id.0, producer_epoch: 0 })
        })
        .await
    }
}
