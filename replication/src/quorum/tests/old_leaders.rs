//! Leaders that others may have followed, or replaced, without their knowing: what they found on their disk and what they last heard counts
//! for nothing until a majority has answered (R37).

use std::sync::atomic::{AtomicBool, Ordering};

use floodmark_proto::pb::quorum as pb;
use openraft::EntryPayload;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::*;
use super::obligations::opened;
use super::*;
use crate::controller::{Controller, ControllerRules, Heartbeat, HeartbeatAnswer, Wants};
use crate::quorum::generated::quorum_server::{Quorum, QuorumServer};
use crate::quorum::types::{Entry, Membership, Proposal, Vote, log_id};

/// A voter that follows whoever leads, and takes entries once it may.
struct Voter {
    takes_entries: Arc<AtomicBool>,
}

type Answer<T> = Result<Response<T>, Status>;

fn unasked<T>() -> Answer<T> {
    Err(Status::unimplemented("nobody asks this voter for that"))
}

#[tonic::async_trait]
impl Quorum for Voter {
    async fn append_entries(&self, request: Request<pb::AppendRequest>) -> Answer<pb::AppendReply> {
        use pb::append_reply::{Outcome, Success};
        if !request.into_inner().entries.is_empty() && !self.takes_entries.load(Ordering::Relaxed) {
            return Err(Status::unavailable("not yet"));
        }
        let success = Success { up_to: None, is_partial: false };
        Ok(Response::new(pb::AppendReply { outcome: Some(Outcome::Success(success)) }))
    }

    async fn request_vote(&self, _: Request<pb::VoteRequest>) -> Answer<pb::VoteReply> {
        unasked()
    }

    async fn canvass(&self, _: Request<pb::CanvassRequest>) -> Answer<pb::CanvassReply> {
        unasked()
    }

    async fn install_snapshot(&self, _: Request<Streaming<pb::SnapshotPart>>) -> Answer<pb::SnapshotReply> {
        unasked()
    }

    async fn propose(&self, _: Request<pb::ProposeRequest>) -> Answer<pb::ProposeReply> {
        unasked()
    }

    async fn read_index(&self, _: Request<pb::ReadIndexRequest>) -> Answer<pb::ReadIndexReply> {
        unasked()
    }

    async fn change_voters(&self, _: Request<pb::ChangeVotersRequest>) -> Answer<pb::ChangeReply> {
        unasked()
    }

    async fn remove_node(&self, _: Request<pb::RemoveNodeRequest>) -> Answer<pb::ChangeReply> {
        unasked()
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusReply> {
        unasked()
    }
}

/// A program of before the question is asked for its vote itself, as one always was. One that refuses the question with a reason refuses the vote
/// as well.
#[test]
fn a_voter_whose_program_does_not_know_the_question_is_taken_to_vote() {
    block_on_cluster(async {
        let voter = QuorumServer::new(Voter { takes_entries: Arc::default() });
        let without_the_call = Routes::builder().routes();
        let with_a_reason = Routes::new(voter);
        for (routes, would_vote) in [(without_the_call, true), (with_a_reason, false)] {
            let (listener, address) = listen().await;
            let server = Server::builder().add_routes(routes);
            let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
            let identity = PeerIdentity { cluster_id: ClusterId::from_bytes([5; 16]), broker: BrokerId(1) };
            let network = Network {
                peers: Peers::new(identity, [(BrokerId(2), address)].into()),
                acks: Arc::default(),
                silence: Arc::default(),
                contact: Arc::new(Contact::new(Instant::now(), false, Duration::ZERO)),
                lease: Duration::ZERO,
                reach: Arc::default(),
                random: Random::seeded(1),
            };
            let said = network.peer(2).canvass(None, PATIENCE).await;
            assert_eq!(said.as_ref().is_ok_and(|yes| *yes), would_vote, "{said:?}");
            serving.abort();
        }
    });
}

/// A leader is killed and comes back as the leader that it was, before anybody has elected another. All in its log may have been answered,
/// and its disk says of one entry only that it is committed.
#[test]
fn r37_a_leader_that_comes_back_among_several_shows_nothing_before_all_that_it_may_have_answered() {
    const COMMANDS: u64 = 20;
    let disk = new_disk();
    block_on_cluster(async {
        let (mut store, _, closed) = opened(&disk).await.unwrap();
        let members = Membership::new(
            vec![[1, 2].into()],
            BTreeMap::from([(1, Node::default()), (2, Node::default())]),
        );
        let first = [EntryPayload::Membership(members), EntryPayload::Blank];
        let terms = [0, 2];
        let first = first.into_iter().zip(terms).zip(0..);
        let first = first.map(|((payload, term), at)| Entry { log_id: log_id(term, 1, at), payload });
        store.blocking_append(first.collect::<Vec<_>>()).await.unwrap();
        store.save_committed(Some(log_id(2, 1, 1))).await.unwrap();
        let answered = (0..COMMANDS).map(|n| Entry {
            log_id: log_id(2, 1, n + 2),
            payload: EntryPayload::Normal(Proposal(Arc::new([register(n.into())]))),
        });
        store.blocking_append(answered.collect::<Vec<_>>()).await.unwrap();
        store.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
        drop(store);
        closed.await.unwrap().unwrap();

        let (listener, other) = listen().await;
        let takes_entries = Arc::new(AtomicBool::new(false));
        let voter = QuorumServer::new(Voter { takes_entries: Arc::clone(&takes_entries) });
        let serving = Server::builder().add_service(voter).serve_with_incoming(TcpIncoming::from(listener));
        let serving = tokio::spawn(serving);
        let (_unused, own) = listen().await;
        let quorum = QuorumHandle::start(QuorumOptions {
            voters: vec![(BrokerId(1), own.clone()), (BrokerId(2), other)],
            address: Some(own),
            deadline: PATIENCE,
            ..options(&disk)
        })
        .await
        .unwrap();
        for _ in 0..3 {
            let early = quorum.read_barrier_within(Duration::from_millis(150)).await;
            assert!(early.is_err(), "what it has answered may not be there: {early:?}");
            assert_eq!(*quorum.leadership().borrow(), None, "nor does it decide");
        }
        takes_entries.store(true, Ordering::Relaxed);
        let image = quorum.read_barrier().await.unwrap();
        assert_eq!(image.version(), COMMANDS);
        eventually("that it decides", || quorum.leadership().borrow().map(|_| ())).await;
        quorum.shutdown().await.unwrap();
        serving.abort();
    });
}

#[test]
fn r37_a_leader_that_hears_no_majority_answers_no_read() {
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let read = |within| cluster.at(leader).read_barrier_within(within);
        read(PATIENCE).await.unwrap();
        // It knows nothing of it yet, and leads in the eyes of everybody here.
        cluster.gate().isolate(leader, (1..=3).filter(|id| *id != leader));
        assert!(cluster.at(leader).leadership().borrow().is_some());
        let alone = read(Duration::from_millis(500)).await;
        assert!(alone.is_err(), "another may have been elected and have answered somebody: {alone:?}");
        cluster.gate().heal();
        read(PATIENCE).await.unwrap();
        cluster.stop().await;
    });
}

/// Raft names the last leader for ever.
#[test]
fn who_is_left_without_a_majority_names_no_leader() {
    for survivor_led in [true, false] {
        block_on_cluster(async move {
            let mut cluster = three().await;
            join(cluster.any()).await;
            let leader = cluster.leader().await;
            let survivor = if survivor_led { leader } else { leader % 3 + 1 };
            eventually("all know the leader", || {
                let knows = |node: &Member| node.quorum.heard_leader().is_some();
                cluster.nodes.values().all(knows).then_some(())
            })
            .await;
            for gone in (1..=3).filter(|id| *id != survivor) {
                cluster.kill(gone).await;
            }
            let quorum = cluster.at(survivor);
            eventually("nobody is named", || quorum.heard_leader().is_none().then_some(())).await;
            assert_eq!(quorum.local_status().leader, None);
            // Also while it asks, after a silence, whether anybody follows it again.
            let until = Instant::now() + quorum.leader_lease() * 6;
            while Instant::now() < until {
                assert_eq!(quorum.heard_leader(), None);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            cluster.stop().await;
        });
    }
}

/// Two of five follow a leader that the others do not hear: it may not decide, and neither names it.
#[test]
fn a_leader_without_a_majority_says_so_to_those_that_hear_it() {
    block_on_cluster(async {
        let mut cluster = Cluster::form(5, SnapshotRule::default()).await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let follower = leader % 5 + 1;
        for gone in (1..=5).filter(|id| ![leader, follower].contains(id)) {
            cluster.kill(gone).await;
        }
        let nobody = || [leader, follower].iter().all(|id| cluster.at(*id).heard_leader().is_none());
        eventually("nobody is named", || nobody().then_some(())).await;
        let until = Instant::now() + cluster.any().leader_lease() * 8;
        while Instant::now() < until {
            assert!(nobody());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.stop().await;
    });
}

/// A machine stands still, and with it all that would tell the controller that it leads no more.
#[test]
fn r37_a_controller_that_stood_still_decides_nothing_before_a_majority_answers_again() {
    const SESSION: Duration = Duration::from_secs(30);
    block_on_cluster(async {
        let cluster = three().await;
        join(cluster.any()).await;
        let leader = cluster.leader().await;
        let quorum = cluster.at(leader);
        let rules = ControllerRules {
            own: BrokerId(leader),
            session: SESSION,
            rebalance_interval: None,
            feature_level_max: FEATURE_LEVELS.1,
        };
        let controller = Controller::spawn(quorum.clone(), rules);
        let image = quorum.read_barrier().await.unwrap();
        let epoch = image.broker(BrokerId(1)).unwrap().epoch;
        let beat =
            Heartbeat { broker: BrokerId(1), epoch, image_version: image.version(), wants: Wants::Serve };
        let is_granted =
            || matches!(controller.heartbeat(&beat), HeartbeatAnswer::Lease(lease) if !lease.is_zero());
        eventually("a lease", || is_granted().then_some(())).await;
        // On the only thread: nobody else comes to run either.
        std::thread::sleep(quorum.leader_lease() + Duration::from_millis(100));
        assert!(quorum.leadership().borrow().is_some(), "nobody has told it");
        assert_eq!(
            controller.heartbeat(&beat),
            HeartbeatAnswer::NotController { leader: Some(BrokerId(leader)) }
        );
        cluster.stop().await;
    });
}
