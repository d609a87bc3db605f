//! The Groups service, over the coordinators that the Kafka door has too.

mod admin;
mod members;
mod offsets;

use std::sync::Arc;

use floodmark_proto::pb::v1 as pb;
use tonic::{Request, Response, Status};

use super::call::{Api, Call};
use super::forward;
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

/// One line a method: its row in the table of metrics, where it is answered, who answers it there, and whether that waits for other
/// members. What belongs to the group's coordinator goes there (`coordinator`, or `maker` where the group may be the first of all).
macro_rules! answers {
    ($($method:ident: $request:ident => $reply:ident, $api:ident, $where:ident $how:ident $answer:path;)*) => {
        #[tonic::async_trait]
        impl Groups for GroupsService {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                let call = Call::begin(&self.shared, Api::$api, &request);
                call.$how(answers!(@$where $answer, call, request.into_inner())).await
            })*
        }
    };
    (@here $answer:path, $call:ident, $request:expr) => { $answer(&$call, $request) };
    (@coordinator $answer:path, $call:ident, $request:expr) => { answers!(@at false, $answer, $call, $request) };
    (@maker $answer:path, $call:ident, $request:expr) => { answers!(@at true, $answer, $call, $request) };
    (@at $make:expr, $answer:path, $call:ident, $request:expr) => {
        async {
            let request = $request;
            match forward::other_coordinator(&$call, &request.group, $make).await? {
                Some(broker) => forward::unary(&$call, broker, $call.api, request).await,
                None => $answer(&$call, request).await,
            }
        }
    };
}

answers! {
    find_coordinator: FindCoordinatorRequest => FindCoordinatorReply, FindCoordinator, here answer members::find_coordinator;
    join: JoinRequest => JoinReply, Join, maker answer_waiting members::join;
    sync: SyncRequest => SyncReply, Sync, coordinator answer_waiting members::sync;
    heartbeat: HeartbeatRequest => HeartbeatReply, Heartbeat, coordinator answer members::heartbeat;
    leave: LeaveRequest => LeaveReply, Leave, coordinator answer members::leave;
    commit_offsets: CommitOffsetsRequest => CommitOffsetsReply, CommitOffsets, maker answer offsets::commit;
    fetch_offsets: FetchOffsetsRequest => FetchOffsetsReply, FetchOffsets, coordinator answer offsets::fetch;
    delete_offsets: DeleteOffsetsRequest => DeleteOffsetsReply, DeleteOffsets, coordinator answer offsets::delete;
    list_groups: ListGroupsRequest => ListGroupsReply, ListGroups, here answer admin::list;
    describe_group: DescribeGroupRequest => DescribeGroupReply, DescribeGroup, coordinator answer admin::describe;
    delete_groups: DeleteGroupsRequest => DeleteGroupsReply, DeleteGroups, here answer admin::delete;
}
