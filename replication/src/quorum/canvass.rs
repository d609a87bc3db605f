//! The vote before the vote: whether enough voters would vote for this node, asked before it stands. Who only asks raises no term, and so
//! disturbs no leader: neither while it is cut off from one nor afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::Raft;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::network::Network;
use super::types::{LogId, NodeId, TypeConfig};

/// What the answers so far say.
#[derive(Debug, PartialEq, Eq)]
enum Prospect {
    /// A majority of every set of voters would vote for this node.
    Enough,
    /// No majority of one of them can any more.
    TooFew,
    Open,
}

/// Whether a voter would vote for one whose log ends with `candidate`: neither a leader that it holds still for nor a vote that it has not given
/// yet keeps it from it, and its own log has nothing newer.
pub(crate) fn would_vote(is_held: bool, own: Option<LogId>, candidate: Option<LogId>) -> bool {
    !is_held && candidate >= own
}

/// Asks all other voters at once. False where too few would vote for this node, or do not say so in time.
pub(crate) async fn would_win(raft: &Raft<TypeConfig>, network: &Network, within: Duration) -> bool {
    let until = Instant::now() + within;
    let last = raft.data_metrics().borrow().last_log;
    let (own, membership) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        (metrics.id, metrics.membership_config.membership().clone())
    };
    let configs = membership.get_joint_config();
    let (mut yes, mut no) = (BTreeSet::from([own]), BTreeSet::new());
    // Those that are not heard in time are asked no further.
    let mut asked = JoinSet::new();
    for voter in membership.voter_ids().filter(|voter| *voter != own) {
        let peer = network.peer(voter);
        asked.spawn(async move { (voter, peer.canvass(last, within).await.unwrap_or(false)) });
    }
    loop {
        match prospect(configs, &yes, &no) {
            Prospect::Enough => return true,
            Prospect::TooFew => return false,
            Prospect::Open => {}
        }
        let Ok(Some(Ok((voter, would_vote)))) = timeout_at(until, asked.join_next()).await else {
            return false;
        };
        if would_vote {
            yes.insert(voter)
        } else {
            no.insert(voter)
        };
    }
}

fn prospect(configs: &[BTreeSet<NodeId>], yes: &BTreeSet<NodeId>, no: &BTreeSet<NodeId>) -> Prospect {
    let missing =
        |voters: &BTreeSet<NodeId>| (voters.len() / 2 + 1).saturating_sub(voters.intersection(yes).count());
    let open = |voters: &BTreeSet<NodeId>| {
        voters.len() - voters.intersection(yes).count() - voters.intersection(no).count()
    };
    if configs.iter().all(|voters| missing(voters) == 0) {
        Prospect::Enough
    } else if configs.iter().any(|voters| missing(voters) > open(voters)) {
        Prospect::TooFew
    } else {
        Prospect::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::types::log_id;

    #[test]
    fn a_voter_says_what_it_would_do() {
        for (is_held, own, candidate, would) in [
            (false, None, None, true),
            (false, Some((3, 10)), Some((3, 10)), true),
            (false, Some((3, 10)), Some((3, 11)), true),
            (false, Some((3, 10)), Some((4, 9)), true),
            (false, Some((3, 10)), Some((3, 9)), false),
            (false, Some((3, 10)), Some((2, 99)), false),
            (false, Some((3, 10)), None, false),
            (true, None, Some((9, 99)), false),
        ] {
            let id = |(term, index)| log_id(term, 1, index);
            let said = would_vote(is_held, own.map(id), candidate.map(id));
            assert_eq!(said, would, "{is_held} {own:?} {candidate:?}");
        }
    }

    #[test]
    fn a_majority_of_every_set_of_voters_is_enough() {
        use Prospect::{Enough, Open, TooFew};
        for (configs, yes, no, expected) in [
            (&[&[1][..]][..], &[1][..], &[][..], Enough),
            (&[&[1, 2]], &[1], &[], Open),
            (&[&[1, 2]], &[1], &[2], TooFew),
            (&[&[1, 2, 3]], &[1, 3], &[2], Enough),
            (&[&[1, 2, 3]], &[1], &[2], Open),
            (&[&[1, 2, 3]], &[1], &[2, 3], TooFew),
            (&[&[1, 2, 3, 4]], &[1, 2], &[3], Open),
            (&[&[1, 2, 3, 4]], &[1, 2], &[3, 4], TooFew),
            (&[&[1, 2, 3, 4, 5]], &[1, 2], &[3, 4], Open),
            // While voters change, both sets count.
            (&[&[1, 2, 3], &[1, 4, 5]], &[1, 2], &[], Open),
            (&[&[1, 2, 3], &[1, 4, 5]], &[1, 2, 4], &[], Enough),
            (&[&[1, 2, 3], &[1, 4, 5]], &[1, 2, 3], &[4, 5], TooFew),
            // One that is to leave the voters needs others for both.
            (&[&[1, 2, 3], &[2, 3, 4]], &[1, 2], &[3], Open),
            (&[&[1, 2, 3], &[2, 3, 4]], &[1, 2], &[3, 4], TooFew),
        ] {
            let set = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<_>>();
            let sets: Vec<_> = configs.iter().map(|voters| set(voters)).collect();
            assert_eq!(prospect(&sets, &set(yes), &set(no)), expected, "{configs:?} {yes:?} {no:?}");
        }
    }
}
