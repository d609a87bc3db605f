//! Who stands when: nobody behind a vote that it has just given, nobody that would not win, and nobody is held from it by a leader of the past.

use floodmark_proto::pb::quorum as pb;
use pb::append_reply::Outcome;

use super::cluster::*;
use super::*;
use crate::quorum::network::client;
use crate::quorum::types::{Vote, vote_to_pb};

/// The leader dies; the other two, of which neither stands before it is let go.
async fn two_survivors(cluster: &mut Cluster) -> (u64, [i32; 2], [contact::Weighing; 2]) {
    join(cluster.any()).await;
    for node in cluster.nodes.values() {
        node.quorum.read_barrier().await.unwrap();
    }
    let leader = cluster.leader().await;
    let others = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let held = others.map(|id| cluster.at(id).shared.contact.weigh());
    cluster.kill(leader).await;
    let terms = others.map(|id| cluster.at(id).shared.raft.metrics().borrow().current_term);
    (terms[0].max(terms[1]), others, held)
}

async fn end_of_lease(cluster: &Cluster, of: [i32; 2]) {
    let is_free = |id: &i32| !cluster.at(*id).shared.holds_still();
    eventually("the end of the lease", || of.iter().all(is_free).then_some(())).await;
}

fn has_stood(quorum: &QuorumHandle, behind: u64) -> bool {
    let last = quorum.shared.raft.metrics().borrow().current_term;
    (behind + 1..=last).any(|term| quorum.followed_before(term).is_some())
}

/// A voter decides that its wait is over while it gives another its vote, which takes until its disk has it. Were it to stand then, it would do
/// so behind that vote and refuse the leader that it has made, which would bind it all the same.
#[test]
fn who_is_asked_for_its_vote_does_not_stand_behind_it() {
    block_on_cluster(async {
        let mut cluster = three().await;
        let (before, [slow, quick], [slow_held, quick_held]) = two_survivors(&mut cluster).await;
        let (disk, lease) = (cluster.nodes[&slow].disk.clone(), cluster.at(slow).leader_lease());
        end_of_lease(&cluster, [slow, quick]).await;
        disk.limit_capacity(0);
        let pressure = Arc::clone(&cluster.at(slow).shared.pressure);
        // On a machine that stands still the wish for a vote is given up before it is heard.
        for _ in 0..TRIES {
            cluster.at(quick).shared.raft.trigger().elect().await.unwrap();
            let waits = eventually("a vote that waits for space", || pressure.is_full().then_some(()));
            if tokio::time::timeout(lease * 3, waits).await.is_ok() {
                break;
            }
        }
        assert!(pressure.is_full(), "no vote is asked for");
        drop(quick_held);
        // Who asked gives up after an election timeout, and does not stand again before it would get that vote.
        drop(slow_held);
        tokio::time::sleep(lease * 3).await;
        // Once it has given its vote it may stand in its turn, and does where the other is kept from the machine for so long. What it has begun
        // by now it goes on with.
        cluster.at(slow).contact().rest_until(Instant::now() + PATIENCE * 2);
        disk.limit_capacity(u64::MAX);
        assert_eq!(cluster.leader().await, quick);
        assert!(!has_stood(cluster.at(slow), before), "it stood behind the vote that it gave");
        cluster.stop().await;
    });
}

/// Its own disk holds up the vote that it gives itself, for longer than elections take. Were it to want to lead once more after each, all of that
/// would lie in a line before Raft, and raise the term as often.
#[test]
fn who_waits_for_its_own_vote_does_not_stand_again() {
    block_on_cluster(async {
        let mut cluster = three().await;
        let (before, [slow, other], held) = two_survivors(&mut cluster).await;
        end_of_lease(&cluster, [slow, other]).await;
        cluster.at(other).contact().rest_until(Instant::now() + PATIENCE * 2);
        let disk = cluster.nodes[&slow].disk.clone();
        let shared = Arc::clone(&cluster.at(slow).shared);
        disk.limit_capacity(0);
        drop(held);
        eventually("a vote that waits for space", || shared.pressure.is_full().then_some(())).await;
        tokio::time::sleep(shared.election_timeout * 8).await;
        disk.limit_capacity(u64::MAX);
        let freed = Instant::now();
        let term = || shared.raft.metrics().borrow().current_term;
        eventually("its vote", || (term() > before).then_some(())).await;
        tokio::time::sleep(shared.election_timeout / 8).await;
        let raised = term() - before;
        // On a machine that stands still an election may fail, and the next come.
        let in_their_turn = freed.elapsed().as_millis() / shared.election_timeout.as_millis();
        assert!(u128::from(raised) <= 1 + in_their_turn, "it stood {raised} times");
        assert_eq!(cluster.leader().await, slow);
        drop(shared);
        cluster.stop().await;
    });
}

#[test]
fn two_that_stand_in_the_same_moment_agree_in_that_term() {
    block_on_cluster(async {
        let mut cluster = three().await;
        let (_, others, held) = two_survivors(&mut cluster).await;
        end_of_lease(&cluster, others).await;
        // On a machine that stands still for a lease their wishes are not heard in time.
        let mut has_led = false;
        for _ in 0..TRIES {
            let rafts = others.map(|id| cluster.at(id).shared.raft.clone());
            let terms = rafts.each_ref().map(|raft| raft.metrics().borrow().current_term);
            for raft in &rafts {
                raft.trigger().elect().await.unwrap();
            }
            let patience = cluster.at(others[0]).leader_lease() * 5;
            let Ok(leader) = tokio::time::timeout(patience, cluster.leader()).await else { continue };
            let term = cluster.at(leader).leadership().borrow().map(|leads| leads.term);
            has_led = (leader, term) == (others[0].max(others[1]), Some(terms[0].max(terms[1]) + 1));
            if has_led {
                break;
            }
        }
        assert!(has_led, "two that stand in one term do not agree in it");
        drop(held);
        cluster.stop().await;
    });
}

#[test]
fn a_leader_of_the_past_counts_on_nobody() {
    block_on_cluster(async {
        let mut cluster = three().await;
        let (term, [past, voter], held) = two_survivors(&mut cluster).await;
        let shared = &cluster.at(voter).shared;
        eventually("the end of the lease", || (!shared.holds_still()).then_some(())).await;
        for (of, is_heard) in [(term - 1, false), (term + 1, true)] {
            let append = pb::AppendRequest {
                to_node: shared.node,
                vote: Some(vote_to_pb(&Vote::new_committed(of, cluster.at(past).shared.node))),
                ..pb::AppendRequest::default()
            };
            let peers = cluster.at(past).peers();
            let request = peers.request(BrokerId(voter), append);
            let reply = client(peers, shared.node).unwrap().append_entries(request).await.unwrap();
            let is_taken = !matches!(reply.into_inner().outcome, Some(Outcome::HigherVote(_)));
            assert_eq!((is_taken, shared.holds_still()), (is_heard, is_heard), "term {of} after {term}");
        }
        drop(held);
        cluster.stop().await;
    });
}

/// A leader that met its higher term afterwards would give way, with a majority behind it.
#[test]
fn who_is_cut_off_raises_no_term() {
    for hears_answers in [true, false] {
        block_on_cluster(async move {
            let cluster = three().await;
            join(cluster.any()).await;
            // On a machine that stands still for a lease others vote for it, and rightly so.
            let mut stood = true;
            for _ in 0..TRIES {
                let leader = cluster.leader().await;
                let deaf = leader % 3 + 1;
                // It knows that it votes.
                cluster.at(deaf).read_barrier().await.unwrap();
                // No leader's word comes through; voters answer what they are asked, or do not.
                for other in (1..=3).filter(|id| *id == leader || *id != deaf && !hears_answers) {
                    cluster.gate().cut(other, deaf);
                }
                let shared = &cluster.at(deaf).shared;
                eventually("the end of the lease", || (!shared.holds_still()).then_some(())).await;
                tokio::time::sleep(shared.lease() * 4).await;
                stood = shared.raft.metrics().borrow().vote.leader_id.node_id == shared.node;
                cluster.gate().heal();
                cluster.at(deaf).read_barrier().await.unwrap();
                if !stood {
                    break;
                }
            }
            assert!(!stood, "it stands where nobody would vote for it");
            cluster.stop().await;
        });
    }
}
