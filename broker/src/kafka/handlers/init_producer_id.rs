//! InitProducerId: an id that nobody else has. Transactions are not served, so a transactional id is refused for good.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use crate::kafka::request::{Refusal, Reply, RequestContext};

pub(crate) async fn handle(
    ctx: &RequestContext,
    request: InitProducerIdRequest<'_>,
) -> Result<Reply, Refusal> {
    let outcome = if request.transactional_id.is_some() {
        // A retriable code would have the client ask for ever.
        Err(ErrorCode::TransactionalIdAuthorizationFailed)
    } else if (request.producer_id == -1) != (request.producer_epoch == -1) {
        // Half of an identity is none.
        Err(ErrorCode::InvalidRequest)
    } else {
        ctx.shared().producer_ids.next(ctx.shared()).await
    };
    let response = match outcome {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(code) => {
            ctx.count_error(code);
            InitProducerIdResponse {
                error_code: code.code(),
                producer_id: -1,
                producer_epoch: -1,
                ..Default::default()
            }
        }
    };
    ctx.reply(&response)
}
