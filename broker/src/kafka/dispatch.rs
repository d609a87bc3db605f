//! The one match on the API key. What stands in its table is served, and nothing else is advertised.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::BytesMut;
use floodmark_proto::kafka::{ApiKey, Decoder, Message, RequestHeader};

use super::handlers;
use super::request::{Answer, ConnectionContext, Refusal, RequestContext};

/// An API that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) key: ApiKey,
    /// Versions, where not all that can be decoded are served.
    only: Option<RangeInclusive<i16>>,
    /// Its reply may wait for something to happen in the world.
    waits: bool,
}

impl Served {
    /// The versions that clients are told.
    pub(crate) fn advertised(&self) -> RangeInclusive<i16> {
        self.only.clone().unwrap_or_else(|| self.key.advertised())
    }

    fn takes(&self, version: i16) -> bool {
        self.key.versions().contains(&version)
            && self.only.as_ref().is_none_or(|only| only.contains(&version))
    }
}

/// A request whose first stage has run.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) answer: Answer,
    /// Its API's place in [`SERVED`].
    pub(super) served: usize,
    /// More of these may follow before this one is answered.
    pub(super) is_produce: bool,
    /// The reply may wait for something to happen in the world, so that a broker that stops does not wait for it.
    pub(super) waits: bool,
}

macro_rules! served {
    ($($key:ident $(in $only:expr)? => $how:ident $module:ident;)*) => {
        /// Everything that is served; what ApiVersions answers.
        pub(crate) const SERVED: &[Served] = &[
            $(Served { key: ApiKey::$key, only: served!(@only $($only)?), waits: served!(@waits $how) },)*
        ];

        fn call(ctx: RequestContext, frame: BytesMut, body_at: usize) -> Result<Answer, Refusal> {
            match ctx.api {
                $(ApiKey::$key => served!(@$how $module, ctx, frame, body_at),)*
                #[allow(unreachable_patterns, reason = "once all are served")]
                key => Err(Refusal::NotServed { key: key.code(), version: ctx.version }),
            }
        }
    };
    (@only) => { None };
    (@only $only:expr) => { Some($only) };
    (@waits waits) => { true };
    (@waits $how:ident) => { false };
    // Answered on the spot.
    (@now $module:ident, $ctx:ident, $frame:ident, $body_at:ident) => {
        handlers::$module::handle(&$ctx, message(&$frame[$body_at..], $ctx.version)?).map(Answer::Ready)
    };
    // Answered once its work is done.
    (@later $module:ident, $ctx:ident, $frame:ident, $body_at:ident) => {
        Ok(Answer::later(async move {
            let request = message(&$frame[$body_at..], $ctx.version)?;
            handlers::$module::handle(&$ctx, request).await
        }))
    };
    // The same, where it may wait for something to happen in the world.
    (@waits $module:ident, $ctx:ident, $frame:ident, $body_at:ident) => {
        served!(@later $module, $ctx, $frame, $body_at)
    };
    // In two stages: when the call returns the order is fixed. The handler owns the frame, whose bytes it may keep.
    (@frames $module:ident, $ctx:ident, $frame:ident, $body_at:ident) => {
        handlers::$module::handle($ctx, $frame, $body_at)
    };
}

// The busiest first.
served! {
    Produce => frames produce;
    Fetch => waits fetch;
    Metadata => later metadata;
    ListOffsets => later list_offsets;
    OffsetCommit => later offset_commit;
    Heartbeat => now heartbeat;
    OffsetFetch => now offset_fetch;
    JoinGroup => waits join_group;
    SyncGroup => waits sync_group;
    LeaveGroup => now leave_group;
    FindCoordinator => later find_coordinator;
    OffsetForLeaderEpoch => now offset_for_leader_epoch;
    InitProducerId => later init_producer_id;
    ApiVersions => now api_versions;
    DescribeCluster => now describe_cluster;
    DescribeTopicPartitions => now describe_topic_partitions;
    ListGroups => now list_groups;
    DescribeGroups => now describe_groups;
    DeleteGroups => later delete_groups;
    OffsetDelete => later offset_delete;
    DescribeConfigs => later describe_configs;
    DescribeLogDirs => later describe_log_dirs;
    DescribeProducers => later describe_producers;
    ListConfigResources => now list_config_resources;
    CreateTopics => later create_topics;
    DeleteTopics => later delete_topics;
    CreatePartitions => later create_partitions;
    AlterConfigs => later alter_configs;
    IncrementalAlterConfigs => later incremental_alter_configs;
    DeleteRecords => later delete_records;
    ElectLeaders => later elect_leaders;
    AlterPartitionReassignments => later alter_partition_reassignments;
    ListPartitionReassignments => now list_partition_reassignments;
    UnregisterBroker => later unregister_broker;
}

/// Hands a frame, without its length prefix, to its handler. Runs the handler's first stage: where it returns, the place of the request
/// among others is fixed.
pub(super) fn dispatch(
    connection: &Arc<ConnectionContext>,
    client_id: &mut Option<Arc<str>>,
    frame: BytesMut,
) -> Result<Begun, Refusal> {
    let mut decoder = Decoder::new(&frame);
    let header = RequestHeader::decode(&mut decoder)?;
    // A connection rarely changes its name, so requests share it. It is known before anything is refused, and told then.
    if client_id.as_deref() != header.client_id {
        *client_id = header.client_id.map(Arc::from);
    }
    let (code, version) = (header.api_key, header.api_version);
    let not_served = Refusal::NotServed { key: code, version };
    let at = SERVED.iter().position(|s| s.key.code() == code).ok_or(not_served.clone())?;
    let Served { key: api, waits, .. } = SERVED[at];
    let ctx = RequestContext {
        connection: Arc::clone(connection),
        client_id: client_id.clone(),
        correlation_id: header.correlation_id,
        api,
        version,
    };
    let answer = if SERVED[at].takes(version) {
        let body_at = decoder.position();
        call(ctx, frame, body_at)?
    } else if api == ApiKey::ApiVersions {
        handlers::api_versions::of_another_version(&ctx)?
    } else {
        return Err(not_served);
    };
    Ok(Begun { answer, served: at, is_produce: api == ApiKey::Produce, waits })
}

/// True for a frame that may be begun while produce requests before it are not answered.
pub(super) fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&ApiKey::Produce.code().to_be_bytes())
}

/// A body. Bytes behind it are left alone, as Kafka leaves them: some of librdkafka's Metadata requests carry three too many.
fn message<'a, M: Message<'a>>(body: &'a [u8], version: i16) -> Result<M, Refusal> {
    let mut decoder = Decoder::new(body);
    Ok(M::decode(&mut decoder, version)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::request::Endpoint;
    use crate::ops::deadline::Alarm;
    use crate::{Broker, BrokerConfig};

    #[test]
    fn who_asks_for_what_is_not_served_has_a_name() {
        let broker = Broker::start(BrokerConfig::temporary().unwrap()).unwrap();
        let connection = Arc::new(ConnectionContext {
            shared: Arc::clone(&broker.shared),
            peer: broker.kafka_address(),
            advertised: Arc::new(Endpoint { host: String::new(), port: 1 }),
            alarm: Arc::new(Alarm::new()),
        });
        for (key, version) in [(999_i16, 0_i16), (ApiKey::Metadata.code(), 999)] {
            let mut frame = BytesMut::new();
            for number in [key, version, 0, 7, 2] {
                frame.extend_from_slice(&number.to_be_bytes());
            }
            frame.extend_from_slice(b"me\0");
            let mut name = None;
            let refused = dispatch(&connection, &mut name, frame).unwrap_err();
            assert_eq!((refused, name.as_deref()), (Refusal::NotServed { key, version }, Some("me")));
        }
    }

    #[test]
    fn each_api_stands_in_the_table_once_with_versions_that_can_be_decoded() {
        for (n, served) in SERVED.iter().enumerate() {
            assert!(!SERVED[..n].iter().any(|s| s.key == served.key), "{:?} stands there twice", served.key);
            let (advertised, known) = (served.advertised(), served.key.advertised());
            assert!(known.contains(advertised.start()) && known.contains(advertised.end()), "{served:?}");
            assert!(!advertised.is_empty(), "{served:?}");
        }
    }
}
