//! A follower against a leader that says what the test wants: what comes late, of another epoch, or of a partition that is gone; and what the
//! follower says when nothing moves.

use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::{LeaderEpoch, Offset, TopicId};
use floodmark_proto::pb::replica::{Diverging, FetchReply, FetchRequest, Part, Position, Refusal};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::nodes::{Cluster, Node, PATIENCE, Setup, append, bytes_of_log, run, until, value};
use crate::cluster::Command;
use crate::partition::PartitionHandle;
use crate::rpc::generated::replica::replica_server::{Replica, ReplicaServer};

/// A leader's end in the test's hands, call by call.
struct Script(mpsc::Sender<Conversation>);

struct Conversation {
    requests: Streaming<FetchRequest>,
    replies: mpsc::Sender<Result<FetchReply, Status>>,
}

#[tonic::async_trait]
impl Replica for Script {
    type FetchStream = ReceiverStream<Result<FetchReply, Status>>;

    async fn fetch(
        &self,
        request: Request<Streaming<FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let (replies, taken) = mpsc::channel(16);
        let conversation = Conversation { requests: request.into_inner(), replies };
        self.0.send(conversation).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(taken)))
    }
}

impl Conversation {
    async fn next(&mut self) -> FetchRequest {
        let next = tokio::time::timeout(PATIENCE, self.requests.message()).await;
        next.expect("the follower says nothing").unwrap().expect("the follower ended the call")
    }

    /// Hears requests until one mentions a partition, or says where one is; gives that, and whether a reply is asked for by then.
    async fn next_position(&mut self) -> (Position, bool) {
        let mut wants_reply = false;
        loop {
            let mut request = self.next().await;
            wants_reply |= request.wants_reply;
            if let Some(position) = request.positions.pop() {
                return (position, wants_reply);
            }
        }
    }

    async fn reply(&self, parts: Vec<Part>) {
        self.replies.send(Ok(FetchReply { parts })).await.unwrap();
    }
}

/// The leader may be silent for as long as the test: it answers when it is played, not in time.
fn patient() -> Setup {
    Setup { wait_max: 2 * PATIENCE, ..Setup::default() }
}

/// Broker 1, which the test plays, leads; broker 2 is real.
async fn start(cluster: &Cluster) -> (mpsc::Receiver<Conversation>, Node) {
    start_with(cluster, patient()).await
}

async fn start_with(cluster: &Cluster, setup: Setup) -> (mpsc::Receiver<Conversation>, Node) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cluster.register(1, listener.local_addr().unwrap().port());
    let (sender, calls) = mpsc::channel(4);
    let server = Server::builder().add_service(ReplicaServer::new(Script(sender)));
    tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    (calls, Node::start(cluster, 2, setup).await)
}

async fn call(calls: &mut mpsc::Receiver<Conversation>) -> Conversation {
    tokio::time::timeout(PATIENCE, calls.recv()).await.expect("nobody calls").unwrap()
}

fn stored(base: i64, epoch: i32, value: &[u8]) -> Bytes {
    let builder = BatchBuilder::new().base_offset(Offset(base)).leader_epoch(LeaderEpoch(epoch));
    let mut builder = builder;
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(value), headers: &[] }).unwrap();
    builder.build().unwrap().freeze()
}

/// What a leader says of one batch behind what `said` has.
fn part(said: &Position, batches: &[Bytes]) -> Part {
    Part {
        slot: said.slot,
        leader_epoch: said.leader_epoch,
        fetch_offset: said.fetch_offset,
        last_fetched_epoch: said.last_fetched_epoch,
        batches: batches.to_vec(),
        high_watermark: 0,
        log_end: said.fetch_offset + batches.len() as i64,
        ..Part::default()
    }
}

async fn end_is(partition: &PartitionHandle, end: i64) {
    until("the log ends there", || partition.log_end() == Offset(end)).await;
}

#[test]
fn r5_a_reply_for_a_partition_that_is_gone_is_dropped() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let gone = cluster.create("t", 1, 1, &[1, 2]);
        let other = cluster.create("other", 3, 1, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let mut said = std::collections::BTreeMap::new();
        while said.len() < 2 {
            for position in leader.next().await.positions {
                said.insert(TopicId::from_bytes((*position.topic_id).try_into().unwrap()).unwrap(), position);
            }
        }
        // It goes, and comes again under its name, while the answer is on its way.
        cluster.change(Command::DeleteTopic { topic: gone });
        let again = cluster.create("t", 2, 1, &[1, 2]);
        let (now, _) = loop {
            let next = leader.next_position().await;
            if !next.0.topic_id.is_empty() {
                break next;
            }
        };
        assert_eq!(&*now.topic_id, again.to_bytes());
        assert!(said.values().all(|before| before.slot != now.slot), "a slot is never another partition's");
        leader
            .reply(vec![
                part(&said[&gone], &[stored(0, 0, b"old")]),
                part(&said[&other], &[stored(0, 0, b"x")]),
            ])
            .await;
        end_is(&node.partition(&cluster, other, 0).await, 1).await;
        assert_eq!(node.partition(&cluster, again, 0).await.log_end(), Offset(0));
        // What is meant for it gets there.
        let mut asked = false;
        while !asked {
            asked = leader.next().await.wants_reply;
        }
        leader.reply(vec![part(&now, &[stored(0, now.leader_epoch, b"new")])]).await;
        end_is(&node.partition(&cluster, again, 0).await, 1).await;
    });
}

/// The leader is of the generated code here, which cuts messages wherever a frame is full.
#[test]
fn what_comes_in_many_frames_is_put_together() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let (said, _) = leader.next_position().await;
        let values = [10, 3 << 20, 100, 700_000, 700_000, 5];
        let batches: Vec<_> = (0..)
            .zip(values)
            .map(|(base, bytes)| stored(base, said.leader_epoch, &value(base as u64, bytes)))
            .collect();
        // Several batches in an entry, and several entries.
        let entries = [batches[..4].concat().into(), batches[4].clone(), batches[5].clone()];
        leader.reply(vec![Part { log_end: 6, ..part(&said, &entries) }]).await;
        let copy = node.partition(&cluster, topic, 0).await;
        end_is(&copy, 6).await;
        assert!(bytes_of_log(&copy) == batches.concat());
    });
}

#[test]
fn r3_r5_a_reply_of_an_older_epoch_is_dropped_and_cuts_nothing() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let (first, _) = leader.next_position().await;
        leader.reply(vec![part(&first, &[stored(0, first.leader_epoch, b"a")])]).await;
        let copy = node.partition(&cluster, topic, 0).await;
        end_is(&copy, 1).await;
        let (before, _) = leader.next_position().await;
        // The same broker leads again, in another epoch.
        cluster.change_isr(topic, &[1]);
        cluster.lead_anew(1);
        let now = loop {
            let (now, _) = leader.next_position().await;
            if now.leader_epoch > before.leader_epoch {
                break now;
            }
        };
        assert!(now.slot != before.slot && !now.topic_id.is_empty());
        let late = Part {
            diverging: Some(Diverging { epoch: before.leader_epoch, end_offset: 0 }),
            high_watermark: 1,
            ..part(&before, &[])
        };
        // One that says it is of this slot, too: its epoch gives it away.
        let mixed = Part { slot: now.slot, ..late.clone() };
        leader.reply(vec![late, mixed]).await;
        let (after, _) = loop {
            let next = leader.next_position().await;
            if !next.0.topic_id.is_empty() {
                break next;
            }
        };
        assert_eq!(
            (after.leader_epoch, after.fetch_offset),
            (now.leader_epoch, 1),
            "it says anew where it is"
        );
        assert_eq!((copy.log_end(), copy.high_watermark()), (Offset(1), Offset(0)));
        leader.reply(vec![part(&after, &[stored(1, after.leader_epoch, b"b")])]).await;
        end_is(&copy, 2).await;
    });
}

#[test]
fn r6_a_follower_is_cut_before_it_believes_a_watermark() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let (said, _) = leader.next_position().await;
        let epoch = said.leader_epoch;
        let three: Vec<_> = (0..3).map(|base| stored(base, epoch, b"a")).collect();
        leader.reply(vec![Part { high_watermark: 1, ..part(&said, &three) }]).await;
        let copy = node.partition(&cluster, topic, 0).await;
        end_is(&copy, 3).await;
        until("the watermark", || copy.high_watermark() == Offset(1)).await;
        let (mut said, _) = leader.next_position().await;
        said.last_fetched_epoch = Some(epoch);
        said.fetch_offset = 3;
        // The leader has committed more, of which this log has the wrong records from offset 2 on.
        let cut = Diverging { epoch, end_offset: 2 };
        leader.reply(vec![Part { high_watermark: 3, diverging: Some(cut), ..part(&said, &[]) }]).await;
        let anew = loop {
            let (anew, _) = leader.next_position().await;
            if !anew.topic_id.is_empty() {
                break anew;
            }
        };
        assert_eq!((anew.fetch_offset, copy.log_end()), (2, Offset(2)));
        assert_eq!(copy.high_watermark(), Offset(1), "nothing else of that answer counts");
        let right: Vec<_> = (2..3).map(|base| stored(base, epoch, b"b")).collect();
        leader.reply(vec![Part { high_watermark: 3, ..part(&anew, &right) }]).await;
        end_is(&copy, 3).await;
        until("committed", || copy.high_watermark() == Offset(3)).await;
    });
}

#[test]
fn a_partition_that_is_refused_waits_alone() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let topics = [1, 2].map(|id| cluster.create(&format!("t{id}"), id, 1, &[1, 2]));
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let mut said = Vec::new();
        while said.len() < 2 {
            said.extend(leader.next().await.positions);
        }
        said.sort_by_key(|position| position.topic_id.clone());
        let refused = Part { refusal: Refusal::UnknownPartition.into(), ..part(&said[0], &[]) };
        leader.reply(vec![refused, part(&said[1], &[stored(0, 0, b"a")])]).await;
        end_is(&node.partition(&cluster, topics[1], 0).await, 1).await;
        // It is mentioned again after a while, and served then.
        let anew = loop {
            let (anew, _) = leader.next_position().await;
            if !anew.topic_id.is_empty() {
                break anew;
            }
        };
        assert_eq!(&*anew.topic_id, topics[0].to_bytes());
        leader.reply(vec![part(&anew, &[stored(0, 0, b"b")])]).await;
        end_is(&node.partition(&cluster, topics[0], 0).await, 1).await;
    });
}

#[test]
fn a_thousand_idle_partitions_are_said_once_and_then_one_reply_is_asked_for_at_a_time() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        cluster.create("t", 1, 1000, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let mut said = std::collections::BTreeSet::new();
        let mut asked = 0;
        while said.len() < 1000 {
            let request = leader.next().await;
            asked += u32::from(request.wants_reply);
            said.extend(request.positions.iter().map(|position| position.slot));
        }
        while asked == 0 {
            asked += u32::from(leader.next().await.wants_reply);
        }
        assert_eq!(asked, 1);
        for _ in 0..5 {
            leader.reply(Vec::new()).await;
            let next = leader.next().await;
            assert!(next.wants_reply && next.positions.is_empty() && next.forgotten.is_empty(), "{next:?}");
        }
        let unasked = tokio::time::timeout(Duration::from_millis(300), leader.requests.message()).await;
        assert!(unasked.is_err(), "nobody asked for {unasked:?}");
    });
}

#[test]
fn what_is_synced_is_said_without_being_asked() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        cluster.create("t", 1, 1, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let (said, _) = leader.next_position().await;
        leader.reply(vec![part(&said, &[stored(0, 0, b"a")])]).await;
        let synced = loop {
            let (now, _) = leader.next_position().await;
            assert_eq!((now.slot, now.fetch_offset), (said.slot, 1));
            if now.synced_end == 1 {
                break now;
            }
        };
        assert!(synced.topic_id.is_empty(), "the slot says which one");
    });
}

/// Fails when what comes for a slot that is gone is not counted as caught up: the leader has counted it, and would be granted less and less.
#[test]
fn what_comes_for_nobody_takes_nothing_from_what_is_granted_next() {
    run(async {
        let cluster = Cluster::new();
        // A fifth of a second ahead is granted: 20,000 bytes.
        let setup = Setup { catchup_bytes_per_second: 100_000, ..patient() };
        let (mut calls, mut node) = start_with(&cluster, setup).await;
        cluster.create("t", 1, 1, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let (said, _) = leader.next_position().await;
        let (mut granted, mut sent) = (0, 0);
        while granted < 60_000 {
            granted = leader.next().await.catchup_bytes_granted.unwrap_or(granted);
            if granted >= sent + 20_000 {
                let stray = Part { slot: 77, is_catchup: true, ..part(&said, &[stored(0, 0, &[1; 19_000])]) };
                sent += stray.batches[0].len() as u64;
                leader.reply(vec![stray]).await;
            }
        }
    });
}

#[test]
fn granted_bytes_keep_to_the_rate() {
    run(async {
        let cluster = Cluster::new();
        let rate = 100_000;
        let setup = Setup { catchup_bytes_per_second: rate, ..patient() };
        let (mut calls, mut node) = start_with(&cluster, setup).await;
        cluster.create("t", 1, 1, &[1, 2]);
        let begun = floodmark_storage::clock::Stopwatch::start();
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let (mut said, mut granted, mut sent, mut limited) = (None, 0, 0, false);
        let piece = stored(0, 0, &[1; 9_000]).len() as u64;
        while sent < 10 * piece {
            let mut request = leader.next().await;
            if let Some(bytes) = request.catchup_bytes_granted {
                assert!(bytes >= granted, "what was granted is not taken back");
                granted = bytes;
                limited = true;
            }
            let most = begun.elapsed().as_secs_f64() * rate as f64 + 0.2 * rate as f64;
            assert!(granted as f64 <= most, "{granted} after {:?}", begun.elapsed());
            said = request.positions.pop().or(said);
            let Some(at) = said.as_ref().filter(|_| limited && granted >= sent + piece) else { continue };
            if at.fetch_offset as u64 * piece != sent {
                continue;
            }
            let batch = stored(at.fetch_offset, 0, &[1; 9_000]);
            let at = Position { last_fetched_epoch: (sent > 0).then_some(0), ..at.clone() };
            sent += piece;
            leader.reply(vec![Part { is_catchup: true, ..part(&at, &[batch]) }]).await;
        }
    });
}

#[test]
fn a_leader_that_hangs_up_is_called_again_and_hears_everything_again() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        node.copy(&cluster);
        for round in 0..3 {
            let mut leader = call(&mut calls).await;
            let (said, _) = leader.next_position().await;
            assert!(!said.topic_id.is_empty() && said.fetch_offset == round, "{said:?}");
            leader.reply(vec![part(&said, &[stored(round, 0, b"a")])]).await;
            end_is(&node.partition(&cluster, topic, 0).await, round + 1).await;
        }
        // Its own log takes no writes of clients meanwhile.
        let copy = node.partition(&cluster, topic, 0).await;
        assert!(copy.append(Vec::new(), crate::partition::AppendOptions::CLIENT).await.is_err());
        cluster.fence(1);
        let copy = node.partition(&cluster, topic, 0).await;
        append(&copy, b"leads now").await;
        end_is(&copy, 4).await;
    });
}

/// Fails when a call is not made again before all that came by the last one is applied: one log whose disk hangs would hold up every partition
/// that has the same leader.
#[test]
fn a_log_that_hangs_does_not_keep_its_leader_from_being_called_again() {
    run(async {
        let cluster = Cluster::new();
        let (mut calls, mut node) = start(&cluster).await;
        let topic = cluster.create("t", 1, 2, &[1, 2]);
        node.copy(&cluster);
        let mut leader = call(&mut calls).await;
        let mut said = std::collections::BTreeMap::new();
        while said.len() < 2 {
            said.extend(
                leader.next().await.positions.into_iter().map(|position| (position.partition, position)),
            );
        }
        let hanging = node.partition(&cluster, topic, 0).await;
        let (taken, is_taken) = std::sync::mpsc::sync_channel(1);
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let holds = tokio::task::spawn_blocking(move || {
            hanging.hold_log(|| {
                taken.send(()).unwrap();
                let _ = released.recv();
            });
        });
        is_taken.recv_timeout(PATIENCE).unwrap();
        leader
            .reply(vec![part(&said[&0], &[stored(0, 0, b"a")]), part(&said[&1], &[stored(0, 0, b"b")])])
            .await;
        end_is(&node.partition(&cluster, topic, 1).await, 1).await;
        drop(leader);
        let mut leader = call(&mut calls).await;
        let other = loop {
            let positions = leader.next().await.positions;
            assert!(
                positions.iter().all(|position| position.partition == 1),
                "it comes back behind its disk"
            );
            if let Some(other) = positions.into_iter().next() {
                break other;
            }
        };
        leader.reply(vec![part(&other, &[stored(1, 0, b"c")])]).await;
        end_is(&node.partition(&cluster, topic, 1).await, 2).await;
        release.send(()).unwrap();
        holds.await.unwrap();
        // And what was begun is done.
        end_is(&node.partition(&cluster, topic, 0).await, 1).await;
    });
}
