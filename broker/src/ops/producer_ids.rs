//! Producer ids for those who ask: taken from the cluster in blocks, so that most are given without a word to anybody.

use std::time::Duration;

use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::{Command, Output};
use tokio::sync::Mutex;

use crate::shared::Shared;

/// Ids taken at a time, as in Kafka. What a stop leaves of a block is never given.
const BLOCK: u32 = 1000;
const WITHIN: Duration = Duration::from_secs(10);

/// What is left of this broker's block.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    /// Held while a new block is asked for, so that a crowd asks once.
    left: Mutex<std::ops::Range<i64>>,
}

impl ProducerIds {
    /// An id that nobody else has or had.
    pub(crate) async fn next(&self, shared: &Shared) -> Result<ProducerId, ErrorCode> {
        let mut left = self.left.lock().await;
        if let Some(id) = left.next() {
            return Ok(ProducerId(id));
        }
        let epoch = shared.cluster.broker_epoch();
        let command = Command::AllocateProducerIds { broker: shared.cluster.node_id(), epoch, count: BLOCK };
        let deadline = tokio::time::Instant::now() + WITHIN;
        match shared.cluster.propose(command, deadline).await {
            Ok(Output::ProducerIds { first, count }) => {
                *left = first.0..first.0 + i64::from(count);
                left.next().map(ProducerId).ok_or(ErrorCode::CoordinatorNotAvailable)
            }
            // Asked again, the client may meet a cluster that can answer.
            Ok(_) | Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }
}
