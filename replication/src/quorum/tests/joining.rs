//! Brokers that join, become voters, are removed and come back; and those that must not get in.

use floodmark_proto::pb::quorum as pb;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use super::cluster::*;
use super::*;
use crate::quorum::disk_pressure::DiskPressure;
use crate::quorum::raft_log::{self, RaftLog};
use crate::quorum::types::{log_id, vote_to_pb};
use crate::rpc::identity::{CLUSTER, FROM, TO, VERSION};
use crate::rpc::peers::connect_lazy;

fn brokers(ids: impl IntoIterator<Item = i32>) -> BTreeSet<BrokerId> {
    ids.into_iter().map(BrokerId).collect()
}

fn voters_of(quorum: &QuorumHandle) -> Vec<i32> {
    quorum.membership().voters.iter().map(|(broker, _)| broker.0).collect()
}

#[test]
fn a_broker_that_is_not_in_the_list_joins_and_can_become_a_voter() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        cluster.any().propose(create_topic(1)).await.unwrap();
        cluster.start(4, new_disk()).await.unwrap();
        let image = cluster.at(4).read_barrier().await.unwrap();
        assert!(image.topic("topic1").is_some());
        let membership = cluster.at(4).membership();
        assert_eq!(membership.learners.iter().map(|(broker, _)| broker.0).collect::<Vec<_>>(), [4]);
        assert!(membership.learners[0].1 > 1 << 32, "another Raft id than a founder's");
        // It proposes as any other.
        cluster.at(4).propose(create_topic(2)).await.unwrap();
        // Asked of a broker that does not lead; the leader itself goes, too.
        let leader = cluster.leader().await;
        let stay: Vec<i32> = (1..=4).filter(|id| *id != leader).collect();
        cluster.at(4).change_voters(brokers(stay.clone())).await.unwrap();
        assert_eq!(voters_of(cluster.at(4)), stay);
        let next = cluster.leader_among(&stay.iter().copied().collect()).await;
        cluster.at(leader).propose(create_topic(3)).await.unwrap();
        let status = cluster.at(leader).status().await.unwrap();
        assert_eq!(status.leader, BrokerId(next));
        let voting: Vec<i32> =
            status.nodes.iter().filter(|node| node.is_voter).map(|node| node.broker.0).collect();
        assert_eq!(voting, stay);
        assert_eq!(status.nodes.len(), 4);
        // One of the three that vote now may go.
        let (gone, stays) = (stay.iter().copied().find(|id| *id != next).unwrap(), 4);
        if gone != stays {
            cluster.kill(gone).await;
        }
        cluster.at(stays).propose(create_topic(4)).await.unwrap();
        cluster.stop().await;
    });
}

#[test]
fn changes_of_voters_that_cannot_be_are_refused() {
    block_on_cluster(async {
        let cluster = three().await;
        let any = cluster.any();
        let unknown = any.change_voters(brokers([1, 2, 9])).await;
        assert!(
            matches!(&unknown, Err(MembershipError::Refused { reason }) if reason.contains("broker 9 is no member")),
            "{unknown:?}"
        );
        let none = any.change_voters(BTreeSet::new()).await;
        assert!(matches!(none, Err(MembershipError::Refused { .. })), "{none:?}");
        // What is so already stays so.
        any.change_voters(brokers([1, 2, 3])).await.unwrap();
        any.remove_node(BrokerId(9)).await.unwrap();
        assert_eq!(voters_of(any), [1, 2, 3]);
        // One that leads, so that nobody has to be elected meanwhile.
        let leader = cluster.leader().await;
        any.change_voters(brokers([leader])).await.unwrap();
        let last = cluster.at(leader).remove_node(BrokerId(leader)).await;
        assert!(
            matches!(&last, Err(MembershipError::Refused { reason }) if reason.contains("only voter")),
            "{last:?}"
        );
        cluster.stop().await;
    });
}

/// A leader that is to go gives way to one that stays, not to another that has to go, which would give way to it again.
#[test]
fn each_voter_that_does_not_lead_can_become_the_only_one() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        for goes_by_way_of_three in [true, false] {
            for stays in 1..=3 {
                let asked = cluster.at(stays % 3 + 1);
                asked.change_voters(brokers([stays])).await.unwrap();
                assert_eq!(voters_of(asked), [stays]);
                if goes_by_way_of_three {
                    asked.change_voters(brokers([1, 2, 3])).await.unwrap();
                }
            }
        }
        cluster.stop().await;
    });
}

/// A voter that lacks much would hold up the others: until it has caught up nothing has changed.
#[test]
fn obligation_7_a_newcomer_that_is_behind_does_not_vote_yet() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        cluster.start(4, new_disk()).await.unwrap();
        let leader = cluster.leader().await;
        cluster.at(4).read_barrier().await.unwrap();
        cluster.gate().isolate(4, 1..=3);
        cluster.at(leader).propose(create_topic(1)).await.unwrap();
        let quorum = cluster.at(leader).clone();
        let change = tokio::spawn(async move { quorum.change_voters(brokers([1, 2, 3, 4])).await });
        let configs = || {
            let metrics = cluster.at(leader).shared.raft.metrics();
            let membership = metrics.borrow().membership_config.membership().clone();
            membership.get_joint_config().clone()
        };
        let before = configs();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(configs(), before, "broker 4 does not have what it needs to vote");
        }
        cluster.gate().heal();
        change.await.unwrap().unwrap();
        assert_eq!(voters_of(cluster.at(leader)), [1, 2, 3, 4]);
        cluster.stop().await;
    });
}

#[test]
fn a_leader_makes_voters_of_others_whom_nobody_could_elect_before() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        for id in [4, 5] {
            cluster.start(id, new_disk()).await.unwrap();
        }
        let mut topics = 1..;
        // One that could not lead; one of three by chance; all others.
        let follower = if cluster.leader().await == 3 { 2 } else { 3 };
        for wanted in [vec![5], vec![1, 2, 3], vec![follower], vec![1, 2, 3, 4, 5], vec![4], vec![1, 2, 5]] {
            cluster.at(1).change_voters(brokers(wanted.clone())).await.unwrap();
            assert_eq!(voters_of(cluster.at(1)), wanted);
            cluster.leader_among(&wanted.iter().copied().collect()).await;
            cluster.at(1).propose(create_topic(topics.next().unwrap())).await.unwrap();
        }
        cluster.stop().await;
    });
}

#[test]
fn voters_of_whom_most_are_away_are_refused_and_nothing_changes() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let away = (1..=3).find(|id| *id != leader).unwrap();
        let disk = cluster.kill(away).await;
        let refused = cluster.any().change_voters(brokers([away])).await;
        assert!(
            matches!(&refused, Err(MembershipError::Refused { reason }) if reason.contains("no majority")),
            "{refused:?}"
        );
        cluster.any().propose(create_topic(1)).await.unwrap();
        assert_eq!(voters_of(cluster.any()), [1, 2, 3]);
        cluster.start(away, disk).await.unwrap();
        cluster.any().change_voters(brokers([away])).await.unwrap();
        cluster.any().propose(create_topic(2)).await.unwrap();
        cluster.stop().await;
    });
}

#[test]
fn the_leader_is_taken_out_by_the_one_after_it() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let other = (1..=3).find(|id| *id != leader).unwrap();
        cluster.at(other).remove_node(BrokerId(leader)).await.unwrap();
        let membership = cluster.at(other).membership();
        assert!(membership.voters.iter().chain(&membership.learners).all(|(broker, _)| broker.0 != leader));
        cluster.at(other).propose(create_topic(1)).await.unwrap();
        cluster.stop().await;
    });
}

#[test]
fn obligation_8_an_empty_disk_under_an_old_id_is_refused_until_the_old_one_is_removed() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        cluster.any().propose(create_topic(1)).await.unwrap();
        let old_disk = cluster.kill(3).await;
        let refused = cluster.start(3, new_disk()).await;
        assert!(
            matches!(&refused, Err(QuorumError::Refused { reason }) if reason.contains("cluster remove 3")),
            "{refused:?}"
        );
        let was = cluster.any().membership().voters;
        let old_node = was.iter().find(|(broker, _)| broker.0 == 3).unwrap().1;
        cluster.any().remove_node(BrokerId(3)).await.unwrap();
        assert_eq!(voters_of(cluster.any()), [1, 2]);
        cluster.start(3, new_disk()).await.unwrap();
        assert!(cluster.at(3).read_barrier().await.unwrap().topic("topic1").is_some());
        let learners = cluster.any().membership().learners;
        assert_eq!(learners[0].0, BrokerId(3));
        assert_ne!(learners[0].1, old_node);
        // No number is used twice, however often a disk is lost.
        let node = learners[0].1;
        cluster.kill(3).await;
        cluster.any().remove_node(BrokerId(3)).await.unwrap();
        cluster.start(3, new_disk()).await.unwrap();
        let again = cluster.any().membership().learners[0].1;
        assert!(![old_node, node].contains(&again), "{again}");
        cluster.any().change_voters(brokers([1, 2, 3])).await.unwrap();
        // The disk that was removed does not get in any more, neither as it was nor by asking anew.
        cluster.kill(3).await;
        let removed = cluster.starting(3, old_disk).await.await.unwrap();
        let told = removed.quorum.propose_within(create_topic(2), Duration::from_secs(5)).await;
        assert!(told.is_err(), "{told:?}");
        let read = removed.quorum.read_barrier_within(Duration::from_secs(5)).await;
        assert_eq!(read.unwrap_err(), ProposeError::Removed);
        removed.stop().await;
        cluster.stop().await;
    });
}

#[test]
fn founders_that_are_not_all_there_wait_and_are_asked_nothing_twice() {
    block_on_cluster(async {
        let (mut voters, mut listeners) = (Vec::new(), Vec::new());
        for id in 1..=3 {
            let (listener, address) = listen().await;
            voters.push((BrokerId(id), address));
            listeners.push(listener);
        }
        let mut cluster = Cluster { voters, nodes: BTreeMap::new(), snapshots: SnapshotRule::default() };
        let third = listeners.pop().unwrap();
        drop(third);
        let mut starting = Vec::new();
        for (id, listener) in (1..).zip(listeners) {
            let disk = new_disk();
            let options = cluster.options(id, &disk, &listener);
            starting.push(tokio::spawn(Member::start(options, disk, listener)));
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert!(starting.iter().all(|starting| !starting.is_finished()), "two of three form nothing");
        let third = cluster.starting(3, new_disk()).await;
        starting.push(tokio::spawn(third));
        for started in starting {
            let node = started.await.unwrap().unwrap();
            cluster.nodes.insert(node.id, node);
        }
        let ids: BTreeSet<_> = cluster.nodes.values().map(|node| node.quorum.image().cluster_id()).collect();
        assert_eq!(ids.len(), 1);
        join(cluster.any()).await;
        cluster.stop().await;
    });
}

#[test]
fn the_lowest_with_an_empty_disk_forms_no_second_cluster() {
    block_on_cluster(async {
        let mut cluster = three().await;
        join(cluster.any()).await;
        let id = cluster.any().image().cluster_id();
        cluster.kill(1).await;
        let refused = cluster.start(1, new_disk()).await;
        assert!(matches!(&refused, Err(QuorumError::Refused { .. })), "{refused:?}");
        assert_eq!(cluster.at(2).read_barrier().await.unwrap().cluster_id(), id);
        cluster.stop().await;
    });
}

#[test]
fn a_broker_that_wants_another_cluster_is_refused() {
    block_on_cluster(async {
        let cluster = three().await;
        let (listener, _) = listen().await;
        let disk = new_disk();
        let mut options = cluster.options(4, &disk, &listener);
        options.cluster_id = Some(ClusterId::from_bytes([9; 16]));
        let refused = Member::start(options, disk, listener).await.err();
        assert!(
            matches!(&refused, Some(QuorumError::Refused { reason }) if reason.contains("cluster.id is")),
            "{refused:?}"
        );
        cluster.stop().await;
    });
}

#[test]
fn one_voter_grows_to_three() {
    block_on_cluster(async {
        let mut cluster = Cluster::form(1, SnapshotRule { log_bytes: 500, keep_entries: 0 }).await;
        join(cluster.any()).await;
        for n in 1..=20 {
            cluster.any().propose(create_topic(n)).await.unwrap();
        }
        for id in [2, 3] {
            cluster.start(id, new_disk()).await.unwrap();
        }
        cluster.at(3).change_voters(brokers([1, 2, 3])).await.unwrap();
        cluster.kill(1).await;
        cluster.at(2).propose(create_topic(21)).await.unwrap();
        let image = cluster.at(3).read_barrier().await.unwrap();
        assert_eq!(image.topic_count(), 21);
        cluster.stop().await;
    });
}

#[test]
fn obligation_6_calls_carry_whom_they_are_for_and_strangers_change_nothing() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let before = cluster.at(1).shared.raft.metrics().borrow().vote;
        let id = cluster.any().image().cluster_id();
        let other = ClusterId::from_bytes([9; 16]);
        let channel = connect_lazy(&cluster.voters[0].1).unwrap();
        let mut client = generated::quorum_client::QuorumClient::new(channel.clone());
        let vote = |to_node| pb::VoteRequest {
            to_node,
            vote: Some(vote_to_pb(&types::Vote::new(1000, 3))),
            last: Some(types::log_id_to_pb(&log_id(1000, 3, 1000))),
        };
        for (cluster_id, to, to_node, version, code) in [
            (other, "1", 1, "1", Code::FailedPrecondition),
            (id, "2", 1, "1", Code::FailedPrecondition),
            (id, "1", 5 << 32 | 1, "1", Code::FailedPrecondition),
            (id, "1", 1, "2", Code::Unimplemented),
        ] {
            let mut request = tonic::Request::new(vote(to_node));
            for (name, value) in
                [(CLUSTER, &*cluster_id.to_string()), (FROM, "3"), (TO, to), (VERSION, version)]
            {
                request.metadata_mut().insert(name, value.parse().unwrap());
            }
            let refused = client.request_vote(request).await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
        }
        // A broker of the cluster that leads in the name of another.
        let mut append = tonic::Request::new(pb::AppendRequest {
            to_node: 1,
            vote: Some(vote_to_pb(&types::Vote::new_committed(1000, 3))),
            ..pb::AppendRequest::default()
        });
        for (name, value) in [(CLUSTER, &*id.to_string()), (FROM, "2"), (TO, "1"), (VERSION, "1")] {
            append.metadata_mut().insert(name, value.parse().unwrap());
        }
        let refused = client.append_entries(append).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let unmarked = client.request_vote(vote(1)).await.unwrap_err();
        assert_eq!(unmarked.code(), Code::InvalidArgument);
        let mut forming = generated::forming_client::FormingClient::new(channel);
        let nobody = forming.introduce(pb::Introduction::default()).await.unwrap_err();
        assert_eq!(nobody.code(), Code::InvalidArgument, "no version");
        let mut bad_join = tonic::Request::new(pb::JoinRequest {
            broker: 7,
            directory_id: vec![1; 3].into(),
            host: "h".to_owned(),
            ..pb::JoinRequest::default()
        });
        bad_join.metadata_mut().insert(VERSION, "1".parse().unwrap());
        assert_eq!(forming.join(bad_join).await.unwrap_err().code(), Code::InvalidArgument);
        let after = cluster.at(1).shared.raft.metrics().borrow().vote;
        assert_eq!(
            (after.leader_id.term, after.leader_id.node_id),
            (before.leader_id.term, before.leader_id.node_id)
        );
        assert!(cluster.any().membership().learners.is_empty());
        cluster.stop().await;
    });
}

#[test]
fn garbage_at_the_listener_ends_its_connection_and_nothing_else() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let address = &cluster.voters[0].1;
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            // A Kafka client that mistook the port.
            &[0, 0, 0, 16, 0, 18, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut socket = TcpStream::connect((&*address.host, address.port)).await.unwrap();
            let _ = socket.write_all(garbage).await;
            let _ = socket.shutdown().await;
            let mut said = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "the connection stays open");
        }
        cluster.at(1).propose(create_topic(1)).await.unwrap();
        cluster.stop().await;
    });
}

/// A disk that a broker has begun to use, as it is before the first entry.
async fn begun(cluster: &Cluster, id: i32, part: Part) -> SimDisk {
    let disk = new_disk();
    let (listener, _) = listen().await;
    let place = place(&cluster.options(id, &disk, &listener));
    raft_log::begin(&place, part).unwrap();
    disk
}

#[test]
fn a_founder_that_lost_power_before_its_first_entry_forms_the_same_cluster() {
    block_on_cluster(async {
        let (mut voters, mut listeners) = (Vec::new(), Vec::new());
        for id in 1..=3 {
            let (listener, address) = listen().await;
            voters.push((BrokerId(id), address));
            listeners.push(listener);
        }
        let mut cluster = Cluster { voters, nodes: BTreeMap::new(), snapshots: SnapshotRule::default() };
        let others: Vec<SimDisk> = (2..=3).map(|_| new_disk()).collect();
        let founders = (1..=3).zip(&cluster.voters).map(|(id, (_, address))| {
            let disk = usize::try_from(id).unwrap().checked_sub(2).map(|n| &others[n]);
            let directory_id = disk.map(|disk| options_of(1, disk).directory_id);
            (id, types::Node { directory_id, address: Some(address.clone()) })
        });
        let cluster_id = ClusterId::from_bytes([5; 16]);
        let part = Part { cluster_id, node: 1, founders: founders.collect(), is_newcomer: false };
        let mut disks = vec![begun(&cluster, 1, part).await];
        disks.extend(others);
        let mut starting = Vec::new();
        for ((id, listener), disk) in (1..).zip(listeners).zip(disks) {
            let options = cluster.options(id, &disk, &listener);
            starting.push(tokio::spawn(Member::start(options, disk, listener)));
        }
        for started in starting {
            let node = started.await.unwrap().unwrap();
            cluster.nodes.insert(node.id, node);
        }
        join(cluster.any()).await;
        for node in cluster.nodes.values() {
            assert_eq!(node.quorum.read_barrier().await.unwrap().cluster_id(), cluster_id);
        }
        cluster.stop().await;
    });
}

#[test]
fn a_newcomer_may_vote_with_an_empty_log_but_not_lose_one() {
    block_on_cluster(async {
        let cluster =
            Cluster { voters: Vec::new(), nodes: BTreeMap::new(), snapshots: SnapshotRule::default() };
        let part = Part {
            cluster_id: ClusterId::from_bytes([5; 16]),
            node: 2,
            founders: BTreeMap::new(),
            is_newcomer: true,
        };
        let disk = begun(&cluster, 2, part).await;
        let (listener, _) = listen().await;
        let place = place(&cluster.options(2, &disk, &listener));
        let open = || RaftLog::open(&place, raft_log::find(&place).unwrap().unwrap());
        let vote = types::Vote::new(3, 1);
        let mut log = open().unwrap();
        log.save_vote(vote).unwrap();
        log.close().unwrap();
        let mut log = open().unwrap();
        assert_eq!(log.vote(), Some(vote));
        let first = types::Entry { log_id: log_id(0, 0, 0), payload: openraft::EntryPayload::Blank };
        log.append(&[first]).unwrap();
        assert!(!log.state().is_newcomer);
        log.truncate(0).unwrap();
        log.close().unwrap();
        assert!(matches!(open(), Err(QuorumError::Lost { .. })), "what it had is gone");
    });
}

#[test]
fn a_newcomer_whose_first_entry_found_room_and_whose_state_did_not_goes_on_when_there_is_some() {
    block_on_cluster(async {
        let cluster =
            Cluster { voters: Vec::new(), nodes: BTreeMap::new(), snapshots: SnapshotRule::default() };
        let part = Part {
            cluster_id: ClusterId::from_bytes([5; 16]),
            node: 2,
            founders: BTreeMap::new(),
            is_newcomer: true,
        };
        let disk = begun(&cluster, 2, part).await;
        let (listener, _) = listen().await;
        let place = place(&cluster.options(2, &disk, &listener));
        let mut log = RaftLog::open(&place, raft_log::find(&place).unwrap().unwrap()).unwrap();
        let entries = [0, 1].map(|index| types::Entry {
            log_id: log_id(1, 1, index),
            payload: openraft::EntryPayload::Blank,
        });
        let full = FaultKind::NoSpace;
        let path_ends = "node.state.tmp".to_owned();
        disk.inject(Fault { on: FaultOn::Write, path_ends, after: 0, times: 3, kind: full });
        let mut failures = 0;
        DiskPressure::default()
            .until_space(|| log.append(&entries).inspect_err(|_| failures += 1))
            .expect("there is room by now");
        assert!(failures > 0 && !log.state().is_newcomer);
        let kept = log.read(0, u64::MAX, usize::MAX).unwrap();
        assert_eq!(kept.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [0, 1]);
        log.close().unwrap();
    });
}

#[test]
fn a_broker_that_began_alone_before_members_had_addresses_opens_and_lets_others_join() {
    block_on_cluster(async {
        // As programs wrote it that knew one voter: no founders, and a membership of numbers.
        let disk = new_disk();
        let alone = QuorumOptions { voters: Vec::new(), ..options_of(1, &disk) };
        let part = Part {
            cluster_id: ClusterId::from_bytes([5; 16]),
            node: 1,
            founders: BTreeMap::new(),
            is_newcomer: false,
        };
        raft_log::begin(&place(&alone), part).unwrap();
        let quorum = QuorumHandle::start(alone).await.unwrap();
        join(&quorum).await;
        quorum.propose(create_topic(1)).await.unwrap();
        let membership = quorum.shared.membership();
        assert_eq!(membership.get_node(&1), Some(&types::Node::default()));
        assert!(types::membership_to_pb(&membership).members.is_empty(), "the same bytes as ever");
        quorum.shutdown().await.unwrap();
        drop(quorum);
        let (listener, address) = listen().await;
        let mut cluster = Cluster {
            voters: vec![(BrokerId(1), address)],
            nodes: BTreeMap::new(),
            snapshots: SnapshotRule::default(),
        };
        let options = cluster.options(1, &disk, &listener);
        let node = Member::start(options, disk, listener).await.unwrap();
        cluster.nodes.insert(1, node);
        cluster.start(2, new_disk()).await.unwrap();
        assert!(cluster.at(2).read_barrier().await.unwrap().topic("topic1").is_some());
        cluster.stop().await;
    });
}
