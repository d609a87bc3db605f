//! Several nodes under faults: what was answered stays, one leads at a time, and who comes back fits in again.

use openraft::ChangeMembers;

use super::cluster::*;
use super::*;
use crate::cluster::CommandError;
use crate::quorum::types::broker_id;

/// A proposal that has to be answered, whoever leads when.
async fn create(quorum: &QuorumHandle, n: u64) {
    match quorum.propose(create_topic(n)).await {
        Ok(_) => {}
        // It was carried out, and the first answer was lost.
        Err(ProposeError::Refused(CommandError::TopicExists { .. })) => {}
        Err(e) => panic!("topic {n}: {e}"),
    }
}

/// Every node comes to the same image, with these topics in it.
async fn agree(cluster: &Cluster, topics: impl IntoIterator<Item = u64> + Clone) {
    let newest = cluster.any().read_barrier().await.unwrap();
    for node in cluster.nodes.values() {
        let image = eventually("the newest image", || {
            Some(node.quorum.image()).filter(|image| image.version() >= newest.version())
        })
        .await;
        for n in topics.clone() {
            assert!(image.topic_by_id(topic_id(n)).is_some(), "topic {n} on broker {}", node.id);
        }
    }
}

#[test]
fn a_leader_that_loses_power_is_replaced_and_nothing_that_was_answered_is_lost() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        let mut made = 0;
        for _ in 0..3 {
            for _ in 0..5 {
                made += 1;
                create(cluster.any(), made).await;
            }
            let leader = cluster.leader().await;
            let term = cluster.at(leader).leadership().borrow().unwrap().term;
            let disk = cluster.kill(leader).await;
            let next = cluster.leader().await;
            assert_ne!(next, leader);
            assert!(cluster.at(next).leadership().borrow().unwrap().term > term);
            made += 1;
            create(cluster.any(), made).await;
            cluster.start(leader, disk).await.unwrap();
            agree(&cluster, 1..=made).await;
        }
        cluster.stop().await;
    });
}

#[test]
fn r42_power_cuts_of_every_broker_in_turn_and_of_all_at_once_lose_nothing() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        let mut made = 0;
        for cut in [vec![1], vec![2], vec![3], vec![1, 2], vec![1, 2, 3]] {
            made += 1;
            create(cluster.any(), made).await;
            let mut disks = Vec::new();
            for id in cut {
                disks.push((id, cluster.kill(id).await));
            }
            // The one that comes back first decides nothing by itself.
            for (id, disk) in disks {
                cluster.start(id, disk).await.unwrap();
            }
            agree(&cluster, 1..=made).await;
        }
        cluster.stop().await;
    });
}

#[test]
fn r34_a_leader_that_is_cut_off_in_one_direction_does_not_lead() {
    for cuts_outward in [true, false] {
        block_on_cluster(async {
            let cluster = three().await;
            join(cluster.any()).await;
            let leader = cluster.leader().await;
            let others: BTreeSet<i32> = (1..=3).filter(|id| *id != leader).collect();
            for other in &others {
                let (from, to) = if cuts_outward { (leader, *other) } else { (*other, leader) };
                cluster.gate().cut(from, to);
            }
            let next = cluster.leader_among(&others).await;
            eventually("the end of the old leadership", || {
                cluster.at(leader).leadership().borrow().is_none().then_some(())
            })
            .await;
            create(cluster.at(next), 1).await;
            // Nor does it say so when it has kept quiet for long enough to speak again, and hears no better.
            let lease = cluster.at(leader).leader_lease();
            for _ in 0..60 {
                tokio::time::sleep(lease / 10).await;
                assert_eq!(*cluster.at(leader).leadership().borrow(), None);
            }
            // What the old one is asked it does not answer from what it has.
            let within = Duration::from_millis(300);
            let read = cluster.at(leader).read_barrier_within(within).await;
            assert!(read.is_err() || read.unwrap().topic_by_id(topic_id(1)).is_some());
            cluster.gate().heal();
            agree(&cluster, [1]).await;
            // The one that is back may have had them elect anew.
            eventually("one that leads", || {
                let leading = cluster.nodes.values().filter(|n| n.quorum.leadership().borrow().is_some());
                (leading.count() == 1).then_some(())
            })
            .await;
            cluster.stop().await;
        });
    }
}

#[test]
fn r38_what_an_isolated_leader_wrote_gives_way_to_what_was_agreed() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        create(cluster.any(), 1).await;
        let leader = cluster.leader().await;
        let others: BTreeSet<i32> = (1..=3).filter(|id| *id != leader).collect();
        cluster.gate().isolate(leader, others.iter().copied());
        // It is in the log of the old leader alone.
        let metrics = cluster.at(leader).shared.raft.metrics();
        let before = metrics.borrow().last_log_index;
        let alone = cluster.at(leader).propose_within(create_topic(2), Duration::from_millis(200)).await;
        // It knows that it does not lead where the machine stood still for so long.
        assert!(
            matches!(alone, Err(ProposeError::TimedOut(_) | ProposeError::NotLeader { .. })),
            "{alone:?}"
        );
        assert!(metrics.borrow().last_log_index > before, "it was not even written there");
        let next = cluster.leader_among(&others).await;
        create(cluster.at(next), 3).await;
        create(cluster.at(next), 4).await;
        cluster.gate().heal();
        agree(&cluster, [1, 3, 4]).await;
        for node in cluster.nodes.values() {
            assert!(node.quorum.image().topic_by_id(topic_id(2)).is_none(), "broker {}", node.id);
        }
        // The queue of the one that was alone is not held up by what it could not carry out.
        create(cluster.at(leader), 5).await;
        cluster.stop().await;
    });
}

/// A controller that was cut off, or stood still, decides by what it last heard. Fails where the next leader carries that out: it has granted
/// leases since, which such a fence would break.
#[test]
fn r37_what_an_isolated_leader_decided_is_not_carried_out_by_the_next() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let others: BTreeSet<i32> = (1..=3).filter(|id| *id != leader).collect();
        cluster.gate().isolate(leader, others.iter().copied());
        let quorum = cluster.at(leader).clone();
        let decided = tokio::spawn(async move { quorum.propose_as_leader(create_topic(2), PATIENCE).await });
        let next = cluster.leader_among(&others).await;
        create(cluster.at(next), 3).await;
        cluster.gate().heal();
        let outcome = decided.await.unwrap();
        assert!(matches!(outcome, Err(ProposeError::NotLeader { .. })), "{outcome:?}");
        // Nor what it decides before it has heard of the other.
        let late = cluster.at(leader).propose_as_leader(create_topic(2), PATIENCE).await;
        assert!(matches!(late, Err(ProposeError::NotLeader { .. })), "{late:?}");
        create(cluster.any(), 4).await;
        agree(&cluster, [3, 4]).await;
        for node in cluster.nodes.values() {
            assert!(node.quorum.image().topic_by_id(topic_id(2)).is_none(), "broker {}", node.id);
        }
        cluster.stop().await;
    });
}

#[test]
fn r41_a_minority_of_five_commits_nothing() {
    block_on_cluster(async {
        let cluster = Cluster::form(5, SnapshotRule::default()).await;
        join(cluster.any()).await;
        create(cluster.any(), 1).await;
        let leader = cluster.leader().await;
        let companion = (1..=5).find(|id| *id != leader).unwrap();
        let majority: BTreeSet<i32> = (1..=5).filter(|id| ![leader, companion].contains(id)).collect();
        for few in [leader, companion] {
            cluster.gate().isolate(few, majority.iter().copied());
        }
        let few = cluster.at(leader).propose_within(create_topic(2), Duration::from_secs(1)).await;
        assert!(matches!(few, Err(ProposeError::TimedOut(_) | ProposeError::NotLeader { .. })), "{few:?}");
        for id in [leader, companion] {
            assert!(cluster.at(id).image().topic_by_id(topic_id(2)).is_none(), "openraft #1802");
        }
        let next = cluster.leader_among(&majority).await;
        create(cluster.at(next), 3).await;
        cluster.gate().heal();
        agree(&cluster, [1, 3]).await;
        cluster.stop().await;
    });
}

/// A program that asks nobody before it stands would do so again and again, under higher and higher terms.
#[test]
fn a_follower_that_hears_nothing_does_not_bring_a_healthy_leader_down() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        // On a machine that stands still for a lease another may be elected.
        for _ in 0..TRIES {
            let leader = cluster.leader().await;
            let deaf = (1..=3).find(|id| *id != leader).unwrap();
            // It knows that it votes.
            cluster.at(deaf).read_barrier().await.unwrap();
            for other in (1..=3).filter(|id| *id != deaf) {
                cluster.gate().cut(other, deaf);
            }
            let mut leadership = cluster.at(leader).leadership();
            let still = *leadership.borrow_and_update();
            let shared = &cluster.at(deaf).shared;
            eventually("the end of the lease", || (!shared.holds_still()).then_some(())).await;
            for _ in 0..3 {
                shared.raft.trigger().elect().await.unwrap();
                tokio::time::sleep(shared.election_timeout).await;
            }
            let has_stayed = still.is_some() && !leadership.has_changed().unwrap();
            create(cluster.any(), 1).await;
            cluster.gate().heal();
            create(cluster.at(deaf), 2).await;
            agree(&cluster, [1, 2]).await;
            if has_stayed {
                cluster.stop().await;
                return;
            }
        }
        panic!("voters that hear their leader elect another");
    });
}

#[test]
fn r41_a_follower_far_behind_gets_a_snapshot_in_pieces() {
    block_on_cluster(async {
        // openraft #1828: nothing of the log is left that it could get instead.
        let rule = SnapshotRule { log_bytes: 1 << 20, keep_entries: 0 };
        let mut cluster = Cluster::form(3, rule).await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let behind = (1..=3).find(|id| *id != leader).unwrap();
        let disk = cluster.kill(behind).await;
        // A hundred times the metadata of a small cluster, and more than a piece of a snapshot.
        for n in 1..=60 {
            let large = Command::CreateTopic {
                name: format!("topic{n}"),
                id: topic_id(n),
                assignments: vec![vec![BrokerId(1)]; 2000],
                settings: vec![("note".to_owned(), "x".repeat(30_000))],
            };
            cluster.at(leader).propose(large).await.unwrap();
        }
        let metrics = cluster.at(leader).shared.raft.metrics();
        eventually("a log without its head", || metrics.borrow().purged.map(|_| ())).await;
        cluster.start(behind, disk).await.unwrap();
        agree(&cluster, 1..=60).await;
        let snapshot = cluster.at(behind).shared.raft.metrics().borrow().snapshot;
        assert!(snapshot.is_some_and(|last| last.index > 10), "{snapshot:?}");
        // And goes on from there, also after another power cut.
        let disk = cluster.kill(behind).await;
        create(cluster.at(leader), 61).await;
        cluster.start(behind, disk).await.unwrap();
        agree(&cluster, 1..=61).await;
        cluster.stop().await;
    });
}

#[test]
fn r41_commands_under_way_are_answered_while_the_log_is_replaced_by_snapshots() {
    block_on_cluster(async {
        // openraft #1761.
        let cluster = Cluster::form(3, SnapshotRule { log_bytes: 1000, keep_entries: 0 }).await;
        join(cluster.any()).await;
        for round in 0..5 {
            let leader = cluster.leader().await;
            let proposing: Vec<_> = (0..60)
                .zip([1, 2, 3].iter().cycle())
                .map(|(n, at)| {
                    let quorum = cluster.at(*at).clone();
                    let n = round * 60 + n + 1;
                    tokio::spawn(async move {
                        quorum.propose_within(create_topic(n), Duration::from_secs(5)).await
                    })
                })
                .collect();
            if round % 2 == 1 {
                cluster.gate().isolate(leader, (1..=3).filter(|id| *id != leader));
                tokio::time::sleep(Duration::from_millis(1500)).await;
                cluster.gate().heal();
            }
            let mut answered = Vec::new();
            for (n, proposal) in (round * 60 + 1..).zip(proposing) {
                match proposal.await.unwrap() {
                    Ok(_) => answered.push(n),
                    // Its leader went away with the answer.
                    Err(ProposeError::TimedOut(_)) if round % 2 == 1 => {}
                    Err(e) => panic!("{n}: {e}"),
                }
            }
            agree(&cluster, answered).await;
        }
        cluster.stop().await;
    });
}

/// A controller that stood still for a while and takes everybody for dead would else have its successor fence brokers that live.
#[test]
fn what_a_leader_decides_is_not_carried_out_by_another() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let other = (1..=3).find(|id| *id != leader).unwrap();
        let within = Duration::from_secs(5);
        let passed_on = cluster.at(other).propose_as_leader(create_topic(1), within).await;
        assert!(matches!(passed_on, Err(ProposeError::NotLeader { .. })), "{passed_on:?}");
        cluster.at(leader).propose_as_leader(create_topic(2), within).await.unwrap();
        create(cluster.at(other), 3).await;
        agree(&cluster, [2, 3]).await;
        assert!(cluster.any().image().topic_by_id(topic_id(1)).is_none());
        cluster.stop().await;
    });
}

/// openraft #1808: a snapshot takes the place of a change of voters that only the follower which gets it had ever written. Were that change
/// to count on, two majorities that have nobody in common could decide.
#[test]
fn r41_a_change_of_voters_that_came_to_nothing_does_not_outlive_a_snapshot() {
    block_on_cluster(async {
        let rule = SnapshotRule { log_bytes: 1000, keep_entries: 0 };
        let mut cluster = Cluster::form(3, rule).await;
        cluster.start(4, new_disk()).await.unwrap();
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let others: BTreeSet<i32> = (1..=4).filter(|id| *id != leader).collect();
        caught_up(&cluster, leader, 3).await;
        cluster.gate().isolate(leader, others.iter().copied());
        // The old leader writes a change that nobody else hears of.
        let change = tokio::spawn(changing(&cluster, leader, [leader, 4]));
        let metrics = cluster.at(leader).shared.raft.metrics();
        eventually("a change of voters in the old leader's log", || {
            (metrics.borrow().membership_config.membership().get_joint_config().len() == 2).then_some(())
        })
        .await;
        let next = cluster.leader_among(&others).await;
        // Enough that nothing is left of the log which it could get instead of the snapshot.
        let goal = metrics.borrow().last_log_index.unwrap_or(0) + 20;
        let mut made = 0;
        let ahead = cluster.at(next).shared.raft.metrics();
        while ahead.borrow().purged.is_none_or(|purged| purged.index < goal) {
            made += 1;
            create(cluster.at(next), made).await;
        }
        change.abort();
        cluster.gate().heal();
        agree(&cluster, 1..=made).await;
        let voters = |id: i32| {
            let metrics = cluster.at(id).shared.raft.metrics();
            let membership = metrics.borrow().membership_config.membership().clone();
            membership.get_joint_config().clone()
        };
        for id in 1..=4 {
            eventually("the voters that were agreed on", || (voters(id) == voters(next)).then_some(())).await;
            assert_eq!(cluster.at(id).membership().voters.len(), 3, "broker {id}");
        }
        cluster.stop().await;
    });
}

/// A change of voters is two entries, and while it is under way it takes majorities of the old voters and of the new. Its leader loses power
/// behind the first: the change comes to nothing, or whoever leads next ends it, and nothing that was answered is lost.
#[test]
fn r42_a_change_of_voters_whose_leader_dies_half_way_is_whole_or_nothing() {
    for reaches in [Reaches::Nobody, Reaches::OneOldVoter, Reaches::OneOfEither] {
        block_on_cluster(async {
            let mut cluster = three().await;
            for id in [4, 5] {
                cluster.start(id, new_disk()).await.unwrap();
            }
            join(cluster.any()).await;
            create(cluster.any(), 1).await;
            let leader = cluster.leader().await;
            let old: Vec<i32> = (1..=3).filter(|id| *id != leader).collect();
            let target = BTreeSet::from([leader, 4, 5]);
            caught_up(&cluster, leader, 4).await;
            let (deaf, knows) = match reaches {
                Reaches::Nobody => (vec![old[0], old[1], 4, 5], leader),
                Reaches::OneOldVoter => (vec![old[1], 4, 5], old[0]),
                Reaches::OneOfEither => (vec![old[1], 5], 4),
            };
            cluster.gate().isolate(leader, deaf.iter().copied());
            let change = tokio::spawn(changing(&cluster, leader, target.clone()));
            let heard = cluster.at(knows).shared.raft.metrics();
            eventually("the first entry of the change", || {
                let membership = heard.borrow().membership_config.membership().clone();
                let is_joint = membership.get_joint_config().len() == 2;
                let is_done = membership.voter_ids().map(broker_id).all(|voter| target.contains(&voter.0));
                (is_joint || is_done).then_some(())
            })
            .await;
            if reaches == Reaches::OneOfEither {
                assert!(change.await.unwrap());
            } else {
                assert!(!change.is_finished());
                change.abort();
            }
            let disk = cluster.kill(leader).await;
            for id in deaf {
                cluster.gate().rejoin(id);
            }
            cluster.gate().isolate(leader, 1..=5);
            create(cluster.any(), 2).await;
            cluster.start(leader, disk).await.unwrap();
            create(cluster.any(), 3).await;
            agree(&cluster, 1..=3).await;
            let expected = if reaches == Reaches::Nobody { BTreeSet::from([1, 2, 3]) } else { target };
            for node in cluster.nodes.values() {
                let metrics = node.quorum.shared.raft.metrics();
                eventually("one set of voters", || {
                    let membership = metrics.borrow().membership_config.membership().clone();
                    let voters: BTreeSet<i32> =
                        membership.voter_ids().map(|node| broker_id(node).0).collect();
                    (membership.get_joint_config().len() == 1 && voters == expected).then_some(())
                })
                .await;
            }
            cluster.stop().await;
        });
    }
}

/// Fails when only another leader ends a change of voters whose asker has given up between its two entries: until then it takes majorities of
/// the old voters and of the new.
#[test]
fn a_change_of_voters_that_was_given_up_half_way_is_ended_by_the_leader_that_began_it() {
    block_on_cluster(async {
        let mut cluster = three().await;
        cluster.start(4, new_disk()).await.unwrap();
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        caught_up(&cluster, leader, 3).await;
        let leads = cluster.at(leader).clone();
        let target: BTreeSet<i32> = (1..=4).filter(|id| *id != leader % 3 + 1).collect();
        // Nobody answers before the asker is gone, so the second entry is never asked for.
        cluster.gate().isolate(leader, (1..=4).filter(|id| *id != leader));
        let asking = tokio::spawn(changing(&cluster, leader, target.clone()));
        let is_joint = || leads.shared.membership().get_joint_config().len() == 2;
        eventually("the first entry of the change", || is_joint().then_some(())).await;
        asking.abort();
        cluster.gate().rejoin(leader);
        eventually("one set of voters", || {
            let voters: BTreeSet<i32> =
                leads.membership().voters.iter().map(|(broker, _)| broker.0).collect();
            (!is_joint() && voters == target).then_some(())
        })
        .await;
        drop(leads);
        cluster.stop().await;
    });
}

/// A change of voters that has begun: that a majority of them answered was seen before they fell silent. True where it is done.
fn changing<V: IntoIterator<Item = i32>>(
    cluster: &Cluster,
    leader: i32,
    voters: V,
) -> impl Future<Output = bool> + Send + use<V> {
    let raft = cluster.at(leader).shared.raft.clone();
    let nodes: BTreeSet<_> = voters.into_iter().map(|id| cluster.at(id).shared.node).collect();
    async move { raft.change_membership(ChangeMembers::ReplaceAllVoters(nodes), true).await.is_ok() }
}

/// So many others have all that the leader has, and it knows.
async fn caught_up(cluster: &Cluster, leader: i32, others: usize) {
    let metrics = cluster.at(leader).shared.raft.metrics();
    eventually("followers that have everything", || {
        let metrics = metrics.borrow();
        let matched = metrics.replication.as_ref()?.iter().filter(|(node, _)| **node != metrics.id);
        let has_all = matched.filter(|(_, last)| last.map(|last| last.index) == metrics.last_log_index);
        (has_all.count() == others).then_some(())
    })
    .await;
}

/// Whom the first entry of a change reaches before its leader dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reaches {
    Nobody,
    OneOldVoter,
    /// Then it is agreed on.
    OneOfEither,
}

#[test]
fn a_voter_that_was_started_again_stands_still_for_a_lease() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let voter = (1..=3).find(|id| *id != leader).unwrap();
        let disk = cluster.kill(voter).await;
        let begun = Instant::now();
        cluster.start(voter, disk).await.unwrap();
        cluster.gate().isolate(voter, (1..=3).filter(|id| *id != voter));
        let shared = &cluster.at(voter).shared;
        let holds_still = shared.holds_still();
        assert!(holds_still || begun.elapsed() >= shared.lease(), "the lease has not ended");
        eventually("the end of the lease", || (!shared.holds_still()).then_some(())).await;
        cluster.gate().heal();
        agree(&cluster, []).await;
        cluster.stop().await;
    });
}

/// Leases of brokers rest on it: what the next leader takes for the last moment must not be before it.
#[test]
fn whoever_leads_next_knows_when_the_one_before_was_followed_last() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        for is_killed in [true, false, true, false] {
            let leader = cluster.leader().await;
            let others: BTreeSet<i32> = (1..=3).filter(|id| *id != leader).collect();
            let deaf = *others.first().unwrap();
            let mut disk = None;
            let before = cluster.at(leader).leadership().borrow().unwrap().term;
            let mut followed = Instant::now() - cluster.at(leader).since_quorum_ack().unwrap();
            if is_killed {
                disk = Some(cluster.kill(leader).await);
            } else {
                // One that hears nothing stands, as nobody does of itself any more; the leader goes when it meets a higher term, with a majority
                // behind it.
                for other in (1..=3).filter(|id| *id != deaf) {
                    cluster.gate().cut(other, deaf);
                }
                let shared = &cluster.at(deaf).shared;
                eventually("the end of the lease", || (!shared.holds_still()).then_some(())).await;
                shared.raft.trigger().elect().await.unwrap();
                let metrics = shared.raft.metrics();
                eventually("a candidacy", || (metrics.borrow().current_term > before).then_some(())).await;
                followed = Instant::now() - cluster.at(leader).since_quorum_ack().unwrap();
                cluster.gate().heal();
            }
            let (next, term) = eventually("another term", || {
                cluster.nodes.values().find_map(|node| {
                    let leads = (*node.quorum.leadership().borrow())?;
                    (leads.term > before).then_some((node.id, leads.term))
                })
            })
            .await;
            let elected = Instant::now();
            let known = cluster.at(next).followed_before(term).expect("it was elected by others");
            assert!(known >= followed, "{:?} too early", followed - known);
            assert!(
                elected - followed >= cluster.at(next).leader_lease(),
                "nobody is elected within a lease"
            );
            if let Some(disk) = disk {
                cluster.start(leader, disk).await.unwrap();
            }
            agree(&cluster, []).await;
        }
        cluster.stop().await;
    });
}

#[test]
fn the_leader_knows_how_long_ago_a_majority_followed_it() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        // On a machine that stands still for a lease another may be elected.
        for _ in 0..TRIES {
            cluster.gate().heal();
            let leader = cluster.leader().await;
            let lease = cluster.at(leader).leader_lease();
            let since = || cluster.at(leader).since_quorum_ack();
            let leads = || cluster.at(leader).leadership().borrow().is_some();
            let others: Vec<i32> = (1..=3).filter(|id| *id != leader).collect();
            // One of two is enough.
            cluster.gate().isolate(leader, [others[0]]);
            tokio::time::sleep(lease * 3 / 2).await;
            if since().is_none_or(|since| since > lease) || !leads() {
                continue;
            }
            cluster.gate().isolate(leader, [others[1]]);
            let began = Instant::now();
            eventually("the end of the leadership", || (!leads()).then_some(())).await;
            if let Some(since) = since() {
                assert!(since + Duration::from_millis(1) >= began.elapsed().min(lease));
            }
            cluster.stop().await;
            return;
        }
        panic!("a leader that one of two follows does not lead");
    });
}
