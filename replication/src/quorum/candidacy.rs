//! When a voter wants to lead: openraft's own clock draws its wait once for the life of a process and looks rarely, so that the same node is
//! the first each time.

use openraft::{Raft, ServerState};
use tokio::time::{Instant, sleep};

use super::QuorumTiming;
use super::canvass::would_win;
use super::network::{Network, jitter};
use super::types::TypeConfig;

/// Has this node elected whenever it has heard no leader for a lease and a wait that is drawn anew each time, and enough voters say that they
/// would vote for it. The wait is a heartbeat at least, by which others may have heard the leader later, and the time until an election at
/// most. Ends with Raft.
pub(crate) async fn stand(raft: Raft<TypeConfig>, network: Network, timing: QuorumTiming) {
    let QuorumTiming { heartbeat, election_timeout } = timing;
    let (contact, metrics) = (&network.contact, raft.metrics());
    loop {
        let wait = heartbeat + election_timeout.saturating_sub(heartbeat).mul_f64(jitter(&network.random));
        loop {
            let left = (contact.free_from() + wait).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            sleep(left).await;
        }
        let may_stand = {
            let metrics = metrics.borrow();
            if metrics.running_state.is_err() {
                return;
            }
            let is_idle = matches!(metrics.state, ServerState::Follower | ServerState::Candidate);
            is_idle && metrics.membership_config.voter_ids().any(|voter| voter == metrics.id)
        };
        if may_stand {
            // Asking costs nobody anything, so one that would not win asks again after the next wait.
            let would_win = would_win(&raft, &network, election_timeout).await;
            if !would_win || !contact.is_free(Instant::now()) {
                contact.rest_until(Instant::now());
                continue;
            }
            if raft.trigger().elect().await.is_err() {
                return;
            }
            // Raft does one thing after the other. Where a disk holds up its vote for longer than an election takes, a second wish would lie behind
            // the first and raise the term of the leader that this one has made.
            if raft.with_raft_state(|_| ()).await.is_err() {
                return;
            }
        }
        // Who stands for an election waits for votes; who leads or only learns looks again.
        contact.rest_until(Instant::now() + election_timeout);
    }
}
