//! When a voter wants to lead: openraft's own clock draws its wait once for the life of a process and looks rarely, so that the same node is
//! the first each time.

use std::sync::Arc;

use floodmark_storage::random::Random;
use openraft::{Raft, ServerState};
use tokio::time::{Instant, sleep};

use super::QuorumTiming;
use super::contact::Contact;
use super::network::jitter;
use super::types::TypeConfig;

/// Has this node elected whenever it has heard no leader for a lease and a wait that is drawn anew each time: a heartbeat at least, by which
/// others may have heard the leader later, and the time until an election at most. Ends with Raft.
pub(crate) async fn stand(
    raft: Raft<TypeConfig>,
    contact: Arc<Contact>,
    timing: QuorumTiming,
    random: Random,
) {
    let QuorumTiming { heartbeat, election_timeout } = timing;
    let metrics = raft.metrics();
    loop {
        let wait = heartbeat + election_timeout.saturating_sub(heartbeat).mul_f64(jitter(&random));
        loop {
            let left = (contact.free_from() + wait).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            sleep(left).await;
        }
        let may_stand = {
            let metrics = metrics.borrow();
            let is_idle = matches!(metrics.state, ServerState::Follower | ServerState::Candidate);
            is_idle && metrics.membership_config.voter_ids().any(|voter| voter == metrics.id)
        };
        if may_stand && raft.trigger().elect().await.is_err() {
            return;
        }
        // Who stands for an election waits for votes; who leads or only learns looks again.
        contact.rest_until(Instant::now() + election_timeout);
    }
}
