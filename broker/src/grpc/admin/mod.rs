//! The Admin service: topics, their settings and offsets, and the cluster.

mod cluster;
mod cluster_changes;
mod cluster_status;
mod configs;
pub(super) mod partitions;
mod topics;

use std::sync::Arc;

use floodmark_proto::pb::v1 as pb;
use tonic::{Request, Response, Status};

use super::call::{Api, Call};
use super::generated::admin_server::Admin;
use super::refused::Refused;
use crate::shared::Shared;

/// Serves calls about topics and the cluster.
#[derive(Debug)]
pub(super) struct AdminService {
    shared: Arc<Shared>,
}

impl AdminService {
    pub(super) fn new(shared: Arc<Shared>) -> AdminService {
        AdminService { shared }
    }
}

/// One line a method: its row in the table of metrics, and who answers it.
macro_rules! answers {
    ($($method:ident: $request:ident => $reply:ident, $api:ident, $answer:path;)*) => {
        #[tonic::async_trait]
        impl Admin for AdminService {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                let call = Call::begin(&self.shared, Api::$api, &request);
                call.answer($answer(&call, request.into_inner())).await
            })*
        }
    };
}

answers! {
    describe_cluster: DescribeClusterRequest => DescribeClusterReply, DescribeCluster, cluster::describe;
    describe_topics: DescribeTopicsRequest => DescribeTopicsReply, DescribeTopics, topics::describe;
    create_topics: CreateTopicsRequest => CreateTopicsReply, CreateTopics, topics::create;
    delete_topics: DeleteTopicsRequest => DeleteTopicsReply, DeleteTopics, topics::delete;
    extend_topic: ExtendTopicRequest => ExtendTopicReply, ExtendTopic, topics::extend;
    describe_configs: DescribeConfigsRequest => DescribeConfigsReply, DescribeConfigs, configs::describe;
    alter_configs: AlterConfigsRequest => AlterConfigsReply, AlterConfigs, configs::alter;
    describe_offsets: DescribeOffsetsRequest => DescribeOffsetsReply, DescribeOffsets, partitions::offsets;
    delete_records: DeleteRecordsRequest => DeleteRecordsReply, DeleteRecords, partitions::delete_records;
    describe_log_dirs: DescribeLogDirsRequest => DescribeLogDirsReply, DescribeLogDirs, partitions::log_dirs;
    describe_producers: DescribeProducersRequest => DescribeProducersReply, DescribeProducers, partitions::producers;
    cluster_status: ClusterStatusRequest => ClusterStatusReply, ClusterStatus, cluster_status::status;
    move_partitions: MovePartitionsRequest => MovePartitionsReply, MovePartitions, cluster_changes::move_partitions;
    list_moves: ListMovesRequest => ListMovesReply, ListMoves, cluster_status::moves;
    cancel_moves: CancelMovesRequest => CancelMovesReply, CancelMoves, cluster_changes::cancel_moves;
    elect_leaders: ElectLeadersRequest => ElectLeadersReply, ElectLeaders, cluster_changes::elect_leaders;
    change_voters: ChangeVotersRequest => ChangeVotersReply, ChangeVoters, cluster_changes::voters;
    remove_broker: RemoveBrokerRequest => RemoveBrokerReply, RemoveBroker, cluster_changes::remove;
    set_feature_level: SetFeatureLevelRequest => SetFeatureLevelReply, SetFeatureLevel, cluster_changes::feature_level;
}

/// What became of things that were named, in their order.
pub(super) fn named<'a, T>(
    call: &Call,
    names: impl Iterator<Item = &'a str>,
    outcomes: impl IntoIterator<Item = Result<T, impl Into<Refused>>>,
) -> Vec<pb::NamedOutcome> {
    let outcome = |(name, outcome): (&str, Result<T, _>)| pb::NamedOutcome {
        name: name.to_owned(),
        error: outcome.err().map(|e| call.refuse_part(e)),
    };
    names.zip(outcomes).map(outcome).collect()
}
