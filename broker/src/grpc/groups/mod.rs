//! The Groups service, over the coordinators that the Kafka door has too.

mod admin;
mod members;
mod offsets;

use std::sync::Arc;

use floodmark_proto::pb::v1 as pb;
use tonic::{Request, Response, Status};

use super::call::{Api, Call};
use super::generated::groups_server::Groups;
use crate::shared::Shared;

/// Serves calls about groups.
#[derive(Debug)]
pub(super) struct GroupsService {
    shared: Arc<Shared>,
}

impl GroupsService {
    pub(super) fn new(shared: Arc<Shared>) -> GroupsService {
        GroupsService { shared }
    }
}

/// One line a method: its row in the table of metrics, who answers it, and whether that waits for other members.
macro_rules! answers {
    ($($method:ident: $request:ident => $reply:ident, $api:ident, $how:ident $answer:path;)*) => {
        #[tonic::async_trait]
        impl Groups for GroupsService {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                let call = Call::begin(&self.shared, Api::$api, &request);
                call.$how($answer(&call, request.into_inner())).await
            })*
        }
    };
}

answers! {
    find_coordinator: FindCoordinatorRequest => FindCoordinatorReply, FindCoordinator, answer members::find_coordinator;
    join: JoinRequest => JoinReply, Join, answer_waiting members::join;
    sync: SyncRequest => SyncReply, Sync, answer_waiting members::sync;
    heartbeat: HeartbeatRequest => HeartbeatReply, Heartbeat, answer members::heartbeat;
    leave: LeaveRequest => LeaveReply, Leave, answer members::leave;
    commit_offsets: CommitOffsetsRequest => CommitOffsetsReply, CommitOffsets, answer offsets::commit;
    fetch_offsets: FetchOffsetsRequest => FetchOffsetsReply, FetchOffsets, answer offsets::fetch;
    delete_offsets: DeleteOffsetsRequest => DeleteOffsetsReply, DeleteOffsets, answer offsets::delete;
    list_groups: ListGroupsRequest => ListGroupsReply, ListGroups, answer admin::list;
    describe_group: DescribeGroupRequest => DescribeGroupReply, DescribeGroup, answer admin::describe;
    delete_groups: DeleteGroupsRequest => DeleteGroupsReply, DeleteGroups, answer admin::delete;
}
