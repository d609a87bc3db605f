//! Raft's calls as the messages of `quorum.proto`.

use std::time::Duration;

use floodmark_proto::pb::quorum as pb;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::types::{
    Known, NodeId, TypeConfig, entry_from_pb, entry_to_pb, log_id_from_pb, log_id_to_pb, vote_from_pb,
    vote_to_pb,
};
use crate::cluster::wire::WireError;

pub(crate) fn append_to_pb(to_node: NodeId, rpc: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        to_node,
        vote: Some(vote_to_pb(&rpc.vote)),
        previous: rpc.prev_log_id.as_ref().map(log_id_to_pb),
        // How many are committed is between a log and its disk.
        entries: rpc.entries.iter().map(|entry| entry_to_pb(entry, Known::default())).collect(),
        committed: rpc.leader_commit.as_ref().map(log_id_to_pb),
        is_alone: false,
    }
}

pub(crate) fn append_from_pb(
    message: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let entries = message.entries.into_iter().map(entry_from_pb).collect::<Result<Vec<_>, _>>()?;
    let previous = message.previous.as_ref().map(log_id_from_pb);
    // The log takes what openraft gives it, and openraft what a leader sends: a gap must end here.
    let first = previous.map_or(0, |previous| previous.index.saturating_add(1));
    for (entry, expected) in entries.iter().zip(first..) {
        if entry.log_id.index != expected {
            let value = i64::try_from(entry.log_id.index).unwrap_or(i64::MAX);
            return Err(WireError::Value { what: "the index of an entry that was sent", value });
        }
    }
    Ok(AppendEntriesRequest {
        vote: vote_from_pb(&message.vote.ok_or(WireError::Missing { what: "a leader's vote" })?),
        prev_log_id: previous,
        entries,
        leader_commit: message.committed.as_ref().map(log_id_from_pb),
    })
}

pub(crate) fn appended_to_pb(response: &AppendEntriesResponse<NodeId>) -> pb::AppendReply {
    use pb::append_reply::{Conflict, Outcome, Success};
    let outcome = match response {
        AppendEntriesResponse::Success => Outcome::Success(Success { up_to: None, is_partial: false }),
        AppendEntriesResponse::PartialSuccess(up_to) => {
            Outcome::Success(Success { up_to: up_to.as_ref().map(log_id_to_pb), is_partial: true })
        }
        AppendEntriesResponse::Conflict => Outcome::Conflict(Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(vote_to_pb(vote)),
    };
    pb::AppendReply { outcome: Some(outcome) }
}

pub(crate) fn appended_from_pb(
    message: &pb::AppendReply,
) -> Result<AppendEntriesResponse<NodeId>, WireError> {
    use pb::append_reply::Outcome;
    let outcome = message.outcome.as_ref().ok_or(WireError::Missing { what: "what came of entries" })?;
    Ok(match outcome {
        Outcome::Success(success) if success.is_partial => {
            AppendEntriesResponse::PartialSuccess(success.up_to.as_ref().map(log_id_from_pb))
        }
        Outcome::Success(_) => AppendEntriesResponse::Success,
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_pb(vote)),
    })
}

pub(crate) fn vote_request_to_pb(to_node: NodeId, rpc: &VoteRequest<NodeId>) -> pb::VoteRequest {
    pb::VoteRequest {
        to_node,
        vote: Some(vote_to_pb(&rpc.vote)),
        last: rpc.last_log_id.as_ref().map(log_id_to_pb),
    }
}

pub(crate) fn vote_request_from_pb(message: &pb::VoteRequest) -> Result<VoteRequest<NodeId>, WireError> {
    let vote = message.vote.as_ref().ok_or(WireError::Missing { what: "a candidate's vote" })?;
    Ok(VoteRequest::new(vote_from_pb(vote), message.last.as_ref().map(log_id_from_pb)))
}

pub(crate) fn voted_to_pb(response: &VoteResponse<NodeId>, silent: Duration) -> pb::VoteReply {
    pb::VoteReply {
        silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        vote: Some(vote_to_pb(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_to_pb),
    }
}

/// The answer, and how long ago the voter had heard a leader.
pub(crate) fn voted_from_pb(message: &pb::VoteReply) -> Result<(VoteResponse<NodeId>, Duration), WireError> {
    let vote = message.vote.as_ref().ok_or(WireError::Missing { what: "a voter's vote" })?;
    let response = VoteResponse {
        vote: vote_from_pb(vote),
        vote_granted: message.granted,
        last_log_id: message.last.as_ref().map(log_id_from_pb),
    };
    Ok((response, Duration::from_millis(message.silent_ms)))
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::quorum::types::{Entry, Vote, log_id};

    #[test]
    fn calls_come_back_as_they_went() {
        let blank = |index| Entry { log_id: log_id(3, 1 << 32 | 2, index), payload: EntryPayload::Blank };
        let append = AppendEntriesRequest {
            vote: Vote::new_committed(3, 1 << 32 | 2),
            prev_log_id: Some(log_id(2, 1, 6)),
            entries: vec![blank(7), blank(8)],
            leader_commit: Some(log_id(2, 1, 5)),
        };
        let back = append_from_pb(append_to_pb(9, &append)).unwrap();
        assert_eq!(format!("{append:?}"), format!("{back:?}"));
        for response in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(log_id(1, 1, 1))),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(Vote::new(4, 7)),
        ] {
            assert_eq!(appended_from_pb(&appended_to_pb(&response)), Ok(response));
        }
        for last in [None, Some(log_id(3, 2, 1))] {
            let request = VoteRequest::new(Vote::new(5, 1), last);
            assert_eq!(vote_request_from_pb(&vote_request_to_pb(1, &request)), Ok(request));
            let response = VoteResponse { vote: Vote::new(5, 1), vote_granted: true, last_log_id: last };
            let silent = Duration::from_millis(7);
            assert_eq!(voted_from_pb(&voted_to_pb(&response, silent)), Ok((response, silent)));
        }
    }

    /// openraft #1795: a leader that could not read its log may say that nothing comes before entries from its midst.
    #[test]
    fn r41_entries_with_a_gap_are_refused() {
        let blank = |index| Entry { log_id: log_id(3, 1, index), payload: EntryPayload::Blank };
        for (previous, entries, fits) in [
            (None, vec![blank(0), blank(1)], true),
            (None, vec![blank(1)], false),
            (Some(log_id(1, 1, 4)), vec![blank(5), blank(7)], false),
            (Some(log_id(1, 1, 4)), vec![blank(4)], false),
            (Some(log_id(1, 1, 4)), vec![], true),
        ] {
            let append = AppendEntriesRequest::<TypeConfig> {
                vote: Vote::new_committed(3, 1),
                prev_log_id: previous,
                entries,
                leader_commit: None,
            };
            assert_eq!(append_from_pb(append_to_pb(1, &append)).is_ok(), fits, "{append:?}");
        }
    }
}
