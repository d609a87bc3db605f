//! What all calls have in common: who calls, until when, what it holds, and how it is counted.

use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::cluster::ClusterImage;
use floodmark_storage::clock::Stopwatch;
use prometheus_client::metrics::gauge::Gauge;
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::forward::Forwarded;
use super::limits;
use super::memory::{RequestMemory, Taken};
use super::refused::{LeaderHint, Refused};
use super::socket::Peer;
use crate::GRPC_LISTENER;
use crate::metrics;
use crate::ops::leaders::{endpoint, is_misdirected, leader_of};
use crate::ops::topics::{TopicKey, find};
use crate::shared::Shared;

/// So much before a deadline, a call is answered: what comes later nobody reads.
const BEFORE_DEADLINE: Duration = Duration::from_millis(5);

/// One row a method, in the order of the table of metrics.
macro_rules! apis {
    ($($name:ident = $text:literal;)*) => {
        /// A method of the door.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Api {
            $($name,)*
        }

        impl Api {
            /// All of them.
            pub(crate) const ALL: &'static [Api] = &[$(Api::$name,)*];

            /// Service and method.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Api::$name => $text,)*
                }
            }
        }
    };
}

apis! {
    Produce = "Data.Produce";
    Append = "Data.Append";
    Subscribe = "Data.Subscribe";
    InitProducer = "Data.InitProducer";
    AppendIf = "Events.AppendIf";
    ReadStream = "Events.ReadStream";
    FindCoordinator = "Groups.FindCoordinator";
    Join = "Groups.Join";
    Sync = "Groups.Sync";
    Heartbeat = "Groups.Heartbeat";
    Leave = "Groups.Leave";
    CommitOffsets = "Groups.CommitOffsets";
    FetchOffsets = "Groups.FetchOffsets";
    ListGroups = "Groups.ListGroups";
    DescribeGroup = "Groups.DescribeGroup";
    DeleteGroups = "Groups.DeleteGroups";
    DeleteOffsets = "Groups.DeleteOffsets";
    DescribeCluster = "Admin.DescribeCluster";
    DescribeTopics = "Admin.DescribeTopics";
    CreateTopics = "Admin.CreateTopics";
    DeleteTopics = "Admin.DeleteTopics";
    ExtendTopic = "Admin.ExtendTopic";
    DescribeConfigs = "Admin.DescribeConfigs";
    AlterConfigs = "Admin.AlterConfigs";
    DescribeOffsets = "Admin.DescribeOffsets";
    DeleteRecords = "Admin.DeleteRecords";
    DescribeLogDirs = "Admin.DescribeLogDirs";
    DescribeProducers = "Admin.DescribeProducers";
    ClusterStatus = "Admin.ClusterStatus";
    MovePartitions = "Admin.MovePartitions";
    ListMoves = "Admin.ListMoves";
    CancelMoves = "Admin.CancelMoves";
    ElectLeaders = "Admin.ElectLeaders";
    ChangeVoters = "Admin.ChangeVoters";
    RemoveBroker = "Admin.RemoveBroker";
    SetFeatureLevel = "Admin.SetFeatureLevel";
}

/// One call.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) api: Api,
    /// Another broker has passed it on; it is answered here.
    pub(super) forwarded: Option<Forwarded>,
    pub(super) peer: Option<Peer>,
    memory: Option<RequestMemory>,
    /// The client's, where it gave one.
    pub(super) deadline: Option<Instant>,
    since: Stopwatch,
}

impl Call {
    /// Begins a call; the clock runs from here.
    pub(super) fn begin<T>(shared: &Arc<Shared>, api: Api, request: &Request<T>) -> Call {
        Call {
            shared: Arc::clone(shared),
            api,
            forwarded: request.extensions().get::<Forwarded>().cloned(),
            peer: request.extensions().get::<Peer>().cloned(),
            memory: request.extensions().get::<RequestMemory>().cloned(),
            deadline: timeout_of(request.metadata()).map(|timeout| Instant::now() + timeout),
            since: Stopwatch::start(),
        }
    }

    /// Where the client is, whichever broker it came through.
    pub(super) fn client_host(&self) -> Option<String> {
        match &self.forwarded {
            Some(forwarded) => forwarded.client_host.clone(),
            None => self.peer.as_ref().map(|peer| peer.address.ip().to_string()),
        }
    }

    /// The same call, as one that may be passed on: for a question of its own that an answer takes.
    pub(super) fn first_hand(&self) -> Call {
        Call { forwarded: None, ..self.clone() }
    }

    /// The message that the decoder gave last.
    pub(super) fn taken(&self) -> Option<Taken> {
        self.memory.as_ref().map(RequestMemory::take)
    }

    /// How long something may take: what the request says, or the usual time, within the call's deadline.
    pub(super) fn within(&self, timeout_ms: u32) -> Duration {
        let asked = match timeout_ms {
            0 => limits::TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)).min(limits::TIMEOUT_MAX),
        };
        self.deadline.map_or(asked, |deadline| asked.min(deadline.saturating_duration_since(Instant::now())))
    }

    /// Answers a call of one request and one reply.
    pub(super) async fn answer<R: Message>(
        &self,
        reply: impl Future<Output = Result<R, Refused>>,
    ) -> Result<Response<R>, Status> {
        let taken = self.taken();
        let reply = match self.deadline {
            None => reply.await,
            Some(deadline) => timeout_at(deadline, reply).await.unwrap_or_else(|_| Err(Refused::too_late())),
        };
        let request_bytes = taken.as_ref().map_or(0, Taken::size_bytes);
        match reply {
            Ok(reply) => {
                self.on_answered(self.since.elapsed(), request_bytes, reply.encoded_len());
                Ok(Response::new(reply))
            }
            Err(refused) => {
                self.on_answered(self.since.elapsed(), request_bytes, 0);
                Err(self.refuse(&refused))
            }
        }
    }

    /// The same for a call that waits for events of the world: a broker that stops does not wait with it.
    pub(super) async fn answer_waiting<R: Message>(
        &self,
        reply: impl Future<Output = Result<R, Refused>>,
    ) -> Result<Response<R>, Status> {
        let drain = self.shared.ground.drain.clone();
        self.answer(async move {
            tokio::select! {
                reply = reply => reply,
                () = drain.begun() => Err(Refused::stopping()),
            }
        })
        .await
    }

    /// The status of a call that is refused as a whole.
    pub(super) fn refuse(&self, refused: &Refused) -> Status {
        self.count(refused);
        refused.to_status()
    }

    /// What a reply says of a part that is refused.
    pub(super) fn refuse_part(&self, refused: impl Into<Refused>) -> pb::Error {
        let refused = refused.into();
        self.count(&refused);
        refused.to_part()
    }

    /// A refusal that concerns a partition: with whom to ask instead where that is the reason, and with what there is where that is.
    pub(super) fn hint(&self, refused: impl Into<Refused>, topic: TopicKey<'_>, index: i32) -> Refused {
        let refused = refused.into();
        let image = self.shared.cluster.image();
        if let Some(better) = self.what_there_is(&refused, &image, topic, index) {
            return refused.saying(better);
        }
        if !is_misdirected(refused.code) || refused.leader.is_some() {
            return refused;
        }
        let leader = leader_of(&image, topic, index).map(|leader| LeaderHint {
            id: leader.id.0,
            epoch: leader.epoch.0,
            address: image
                .broker(leader.id)
                .and_then(|broker| endpoint(broker, GRPC_LISTENER))
                .map(|endpoint| (endpoint.host.clone(), endpoint.port)),
        });
        Refused { leader, ..refused }
    }

    /// Better words than that something is not there, where the topic is.
    fn what_there_is(
        &self,
        refused: &Refused,
        image: &ClusterImage,
        topic: TopicKey<'_>,
        index: i32,
    ) -> Option<String> {
        if !matches!(refused.code, ErrorCode::UnknownTopicOrPartition | ErrorCode::OffsetOutOfRange) {
            return None;
        }
        let found = find(image, topic).ok()?;
        if refused.code == ErrorCode::UnknownTopicOrPartition {
            let (name, count) = (&found.name, found.partitions.len());
            return Some(format!("topic '{name}' has no partition {index}; it has {count}, from 0 on"));
        }
        let partition = self.shared.cluster.led(topic, index).ok()?;
        let (start, end) = (partition.log_start().0, partition.log_end().0);
        Some(format!(
            "the offset is not in {}-{index}, which begins at {start} and ends before {end}",
            found.name
        ))
    }

    fn count(&self, refused: &Refused) {
        self.shared.ground.metrics.grpc.on_error(self.api.name(), refused.reason);
    }

    pub(super) fn metrics(&self) -> &metrics::ApiMetrics {
        &self.shared.ground.metrics.grpc.apis[self.api as usize]
    }

    pub(super) fn on_answered(&self, took: Duration, request_bytes: usize, reply_bytes: usize) {
        self.metrics().on_answered(took, request_bytes, reply_bytes);
    }

    /// Counts the call as an open stream until the answer is dropped.
    pub(super) fn open_stream(&self) -> OpenStream {
        let label = metrics::Api { api: self.api.name() };
        let gauge = self.shared.ground.metrics.grpc_streams.get_or_create_owned(&label);
        gauge.inc();
        OpenStream(gauge)
    }
}

/// A stream that is counted as open.
pub(super) struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The client's time-out: up to eight digits and a unit.
fn timeout_of(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(timeout.saturating_sub(BEFORE_DEADLINE.min(timeout / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_read_as_clients_write_them() {
        for (text, ms) in [("1S", Some(995)), ("100m", Some(95)), ("4m", Some(2)), ("2H", Some(7_199_995))] {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout_of(&metadata), ms.map(Duration::from_millis), "{text}");
        }
        for text in ["", "S", "1", "123456789S", "-1S", "1s", "é"] {
            let mut metadata = tonic::metadata::MetadataMap::new();
            if let Ok(value) = text.parse() {
                metadata.insert("grpc-timeout", value);
            }
            assert_eq!(timeout_of(&metadata), None, "{text}");
        }
        assert!(timeout_of(&tonic::metadata::MetadataMap::new()).is_none());
    }
}
