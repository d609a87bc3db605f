//! One partition's part of a replay: its records from one offset to another, over as many subscriptions as it takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use pb::subscribe_request::Request;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::ReplayConfig;
use crate::client::{Client, made_anew};
use crate::consumer::{Batches, Isolation};
use crate::error::{Error, Result};
use crate::record::{Record, TopicPartition};
use crate::retry::Backoff;

/// Credit that waits to be sent.
const OUTBOX: usize = 4;

/// A partition from where it is read on.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: TopicPartition,
    /// Everything before it was given out by [`Lane::next`], or filtered.
    position: i64,
    to: i64,
    window_bytes: u64,
    open: Option<Open>,
    backoff: Backoff,
    /// Since when the leader cannot read on.
    stalled: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    address: String,
    replies: Streaming<pb::SubscribeReply>,
    credit: mpsc::Sender<pb::SubscribeRequest>,
    /// Credit that found the outbox full; it goes with the next.
    owed_bytes: u64,
}

impl Lane {
    /// Reads `from..to`, with so many bytes sent ahead.
    pub(super) fn new(
        client: &Client,
        partition: TopicPartition,
        from: i64,
        to: i64,
        window_bytes: u64,
    ) -> Lane {
        Lane {
            partition,
            position: from,
            to,
            window_bytes,
            open: None,
            backoff: Backoff::new(client.config()),
            stalled: None,
        }
    }

    /// The next records, perhaps none, and where reading goes on behind them; `None` once the end is reached. Cancelled, nothing is lost.
    pub(super) async fn next(
        &mut self,
        client: &Client,
        config: &ReplayConfig,
    ) -> Result<Option<Vec<Record>>> {
        while self.position < self.to {
            match self.delivery(client, config).await {
                Ok(delivery) => {
                    self.backoff.reset();
                    self.stalled = None;
                    return self.take(delivery, config).map(Some);
                }
                Err(error) => {
                    self.open = None;
                    if error.code() == Some(ErrorCode::OffsetOutOfRange) {
                        return Err(self.gone());
                    }
                    if !error.is_retryable() {
                        return Err(error);
                    }
                    if error.is_of_storage() {
                        self.stall(client.config().operation_timeout, &error)?;
                    }
                    tracing::debug!(partition = %self.partition, %error, "a replay's subscription ended");
                    client.forget_topic(&self.partition.topic);
                    sleep(self.backoff.next()).await;
                }
            }
        }
        self.open = None;
        Ok(None)
    }

    /// Fails where it has been so for long: nothing of a replay goes on without one of its partitions.
    fn stall(&mut self, limit: Duration, error: &Error) -> Result<()> {
        let since = *self.stalled.get_or_insert_with(Instant::now);
        if since.elapsed() < limit {
            return Ok(());
        }
        Err(Error::Unreadable {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            offset: self.position,
            limit,
            last: Box::new(error.clone()),
        })
    }

    /// Where reading goes on.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    fn gone(&self) -> Error {
        Error::NoPosition {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition,
            reason: format!(
                "offset {} is not there, because records were deleted or the topic was made anew",
                self.position
            ),
        }
    }

    async fn delivery(&mut self, client: &Client, config: &ReplayConfig) -> Result<pb::Delivery> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none
                .insert(subscribe(client, config, &self.partition, self.position, self.window_bytes).await?),
        };
        let reply =
            open.replies.message().await.map_err(|status| Error::from_status(&open.address, &status))?;
        match reply.and_then(|reply| reply.reply) {
            Some(pb::subscribe_reply::Reply::Delivery(delivery)) => {
                open.owed_bytes += delivery.cost_bytes;
                // Where it cannot be sent because the subscription has ended, the next message tells.
                if open.credit.try_send(request(Request::CreditBytes(open.owed_bytes))).is_ok() {
                    open.owed_bytes = 0;
                }
                Ok(delivery)
            }
            Some(pb::subscribe_reply::Reply::Failure(failure)) => Err(failure.error.as_ref().map_or_else(
                || Error::Protocol("a subscription failed without saying why".to_owned()),
                Error::from,
            )),
            None => {
                let reason = "the broker has ended the subscription".to_owned();
                Err(Error::Unreachable { address: open.address.clone(), reason })
            }
        }
    }

    fn take(&mut self, delivery: pb::Delivery, config: &ReplayConfig) -> Result<Vec<Record>> {
        let next = delivery.next_offset;
        if next < self.position {
            return Err(Error::Protocol(format!("a message of {} goes back to {next}", self.partition)));
        }
        let topic = Arc::clone(&self.partition.topic);
        let records = match delivery.payload {
            Some(pb::delivery::Payload::Records(records)) => {
                let number = self.partition.partition;
                records
                    .records
                    .into_iter()
                    .map(|record| Record::from_message(record, &topic, number))
                    .collect()
            }
            Some(pb::delivery::Payload::Batches(bytes)) => {
                let mut batches = Batches::new(
                    topic,
                    self.partition.partition,
                    bytes,
                    self.position,
                    config.isolation,
                    delivery.aborted,
                    config.batch_bytes_max,
                );
                let mut all = Vec::new();
                let mut some = VecDeque::new();
                while batches.next(&mut some)? {
                    all.extend(some.drain(..));
                }
                all
            }
            None => Vec::new(),
        };
        let (from, to) = (self.position, self.to);
        self.position = next;
        Ok(records.into_iter().filter(|record| (from..to).contains(&record.offset)).collect())
    }
}

async fn subscribe(
    client: &Client,
    config: &ReplayConfig,
    partition: &TopicPartition,
    from: i64,
    window_bytes: u64,
) -> Result<Open> {
    let (leader, _) = client.leader(&partition.topic, partition.partition).await?;
    // A topic that went while it was read was forgotten with the subscription that ended, so what is known now is of the one that is there.
    made_anew(&config.topic, config.topic_id, client.topic(&config.topic).await?.id)?;
    let peer = client.broker_apart(leader, client.config().frame_bytes_max).await?;
    let (credit, requests) = mpsc::channel(OUTBOX);
    let start = pb::SubscribeStart {
        parts: vec![pb::SubscribePart {
            topic: partition.topic.to_string(),
            partition: Some(partition.partition),
            from: Some(pb::Position { at: Some(pb::position::At::Offset(from)) }),
        }],
        credit_bytes: window_bytes,
        encoding: match config.filter {
            Some(_) => pb::Encoding::Records.into(),
            None => pb::Encoding::Batches.into(),
        },
        isolation: match config.isolation {
            Isolation::Uncommitted => pb::Isolation::Uncommitted.into(),
            Isolation::Committed => pb::Isolation::Committed.into(),
        },
        filter: config.filter.clone().unwrap_or_default(),
        message_bytes_max: 0,
    };
    // There is room: nothing was sent before.
    let _ = credit.try_send(request(Request::Start(start)));
    let limit = client.request_timeout();
    let called = timeout(limit, peer.data().subscribe(ReceiverStream::new(requests))).await;
    let called = called.map_err(|_elapsed| Error::Deadline { what: "subscribing", limit, last: None })?;
    let replies = called.map_err(|status: Status| Error::from_status(&peer.address, &status))?.into_inner();
    Ok(Open { address: peer.address, replies, credit, owed_bytes: 0 })
}

fn request(request: Request) -> pb::SubscribeRequest {
    pb::SubscribeRequest { request: Some(request) }
}
