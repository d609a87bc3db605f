//! A shard and a log that takes or refuses its writes, by hand: what shows when, what a deletion covers, and that reading the
//! log gives back what was known.

use std::collections::VecDeque;

use bytes::BytesMut;
use floodmark_proto::batch::RecordBatch;
use floodmark_proto::ids::LeaderEpoch;
use proptest::prelude::*;

use super::*;
use crate::groups::budget::Shared;
use crate::groups::group::CommitFrom;
use crate::groups::member::Protocol;
use crate::groups::replay::Replay;
use crate::groups::settings::{NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_JOIN_MS_MAX};
use crate::groups::shard_offsets::{OffsetCommit, OffsetToCommit};
use crate::groups::shard_task::encode;
use crate::groups::sync::Sync;
use crate::groups::tests::{consumer, plain_sync, settings, static_consumer};

mod deletions;
mod overdue;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// A shard with its log.
struct Desk {
    shard: ShardState,
    now: Now,
    unwritten: VecDeque<Write>,
    log: Vec<RecordBatch>,
    end: Offset,
}

impl Desk {
    fn new() -> Desk {
        Desk::with(settings())
    }

    fn with(settings: GroupSettings) -> Desk {
        let mut shard = ShardState::new(Arc::new(settings), Arc::default());
        let now = Now { steady_ms: 5_000, wall_ms: 1_000_000_000 };
        shard.loaded(HashMap::new(), now);
        Desk { shard, now, unwritten: VecDeque::new(), log: Vec::new(), end: Offset(0) }
    }

    fn pass(&mut self, ms: i64) {
        self.pass_untold(ms);
        self.shard.on_timer(self.now);
    }

    /// Time passes, and the task that tells it has not had its turn yet.
    fn pass_untold(&mut self, ms: i64) {
        self.now = Now { steady_ms: self.now.steady_ms + ms, wall_ms: self.now.wall_ms + ms };
    }

    /// The log takes the oldest write, or refuses it.
    fn write(&mut self, takes: bool) -> bool {
        self.unwritten.extend(self.shard.outbox.drain(..));
        let Some(write) = self.unwritten.pop_front() else { return false };
        let result = if takes {
            let base = self.end;
            let mut batch = encode(&write.batch, self.now.wall_ms).expect("a batch");
            batch.stamp(base, LeaderEpoch(0));
            self.end = batch.header().last_offset().next();
            self.log.push(batch);
            Ok(base)
        } else {
            Err(GroupError::CoordinatorNotAvailable)
        };
        self.shard.on_written(write.then, result, self.now);
        true
    }

    fn write_all(&mut self) {
        while self.write(true) {}
    }

    fn commit(
        &mut self,
        group: &str,
        partition: i32,
        offset: i64,
    ) -> oneshot::Receiver<Result<(), GroupError>> {
        self.commit_as(group, partition, offset, None)
    }

    fn commit_as(
        &mut self,
        group: &str,
        partition: i32,
        offset: i64,
        transaction: Option<(ProducerId, i16)>,
    ) -> oneshot::Receiver<Result<(), GroupError>> {
        let (reply, told) = oneshot::channel();
        let from = CommitFrom {
            member_id: "",
            instance_id: None,
            generation: -1,
            is_transactional: transaction.is_some(),
        };
        let offsets = [to_commit(partition, offset)];
        let commit = OffsetCommit { from, retention_ms: None, offsets: &offsets, transaction };
        // A group that is being deleted refuses; the receiver is told nothing then.
        let _ = self.shard.commit(group, &commit, self.now, reply);
        told
    }

    fn end_transaction(&mut self, producer: ProducerId, is_commit: bool) {
        let (reply, _) = oneshot::channel();
        let batch = Batch::EndTransaction { producer, epoch: 0, coordinator_epoch: 0, is_commit };
        self.shard.outbox.push(Write { batch, then: Then::TransactionEnded { producer, is_commit, reply } });
    }

    fn delete(&mut self, group: &str) -> (Result<(), GroupError>, oneshot::Receiver<Result<(), GroupError>>) {
        let (reply, told) = oneshot::channel();
        (self.shard.delete_group(group, self.now, reply), told)
    }

    fn fetch(&self, group: &str, partition: i32) -> Option<i64> {
        let offsets = self.shard.offsets_of(group).expect("an active shard")?;
        offsets
            .fetch("t", partition, [0; 16], false)
            .expect("no transaction asked for")
            .map(|kept| kept.offset)
    }

    fn join(&mut self, group: &str, join: Join) -> oneshot::Receiver<Result<Joined, JoinRefused>> {
        let (reply, told) = oneshot::channel();
        self.shard.join(group, join, self.now, reply).expect("taken");
        told
    }

    /// A member that joins at once.
    fn member(&mut self, group: &str) -> Joined {
        let mut told = self.join(group, Join { needs_known_member_id: false, ..consumer("c") });
        told.try_recv().expect("an answer").expect("a member")
    }

    /// The leader of a generation shares out.
    fn sync(&mut self, group: &str, joined: &Joined) {
        let (reply, _) = oneshot::channel();
        let assignments = vec![(Arc::clone(&joined.member_id), bytes::Bytes::from_static(b"all"))];
        let sync = Sync { assignments, ..plain_sync(&joined.member_id, joined.generation) };
        self.shard.sync(group, sync, self.now, reply).expect("taken");
    }

    fn state(&self, group: &str) -> GroupState {
        self.shard.groups[group].group.state()
    }

    /// Whether anything that was committed is to be forgotten by now.
    fn expires(&mut self) -> bool {
        self.shard.expire(self.now);
        self.shard.outbox.iter().any(|write| matches!(write.then, Then::Deleted(_)))
    }

    fn replayed(&self) -> HashMap<Arc<str>, Entry> {
        let mut replay = Replay::default();
        for batch in &self.log {
            // Through bytes, as a log gives them.
            let bytes = BytesMut::from(batch.as_bytes());
            let batch = RecordBatch::from_stored(bytes).expect("a batch");
            replay.batch(batch.header(), batch.as_bytes()).expect("records");
        }
        assert_eq!(replay.counts.unreadable + replay.counts.of_other_kinds, 0);
        replay.finish(&self.shard.settings)
    }
}

/// A consumer that says that it reads a topic with a name of one letter.
fn reader(topic: u8) -> Join {
    let metadata = [b"\0\0\0\0\0\x01\0\x01", &[topic][..], b"\xff\xff\xff\xff"].concat();
    let protocol =
        crate::groups::member::Protocol { name: Arc::from("range"), metadata: bytes::Bytes::from(metadata) };
    Join { protocols: vec![protocol], needs_known_member_id: false, ..consumer("c") }
}

fn to_commit(partition: i32, offset: i64) -> OffsetToCommit<'static> {
    OffsetToCommit { topic: "t", topic_id: [0; 16], partition, offset, leader_epoch: -1, metadata: "" }
}

#[test]
fn trap_23_a_commit_is_seen_and_acknowledged_when_it_is_written_and_not_before() {
    let mut desk = Desk::new();
    let mut told = desk.commit("g", 0, 7);
    assert!(told.try_recv().is_err());
    assert_eq!(desk.fetch("g", 0), None);
    desk.write_all();
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert_eq!(desk.fetch("g", 0), Some(7));
}

#[test]
fn trap_23_a_commit_that_cannot_be_written_is_not_acknowledged() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write_all();
    let mut told = desk.commit("g", 0, 8);
    desk.write(false);
    assert_eq!(told.try_recv(), Ok(Err(GroupError::CoordinatorNotAvailable)));
    assert_eq!(desk.fetch("g", 0), Some(7));
}

#[test]
fn a_group_that_a_refused_commit_would_have_made_is_not_there() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write(false);
    assert!(desk.shard.groups.is_empty());
    let long = "x".repeat(4_097);
    let offsets = [OffsetToCommit { metadata: &long, ..to_commit(0, 1) }];
    let from = CommitFrom { member_id: "", instance_id: None, generation: -1, is_transactional: false };
    let commit = OffsetCommit { from, retention_ms: None, offsets: &offsets, transaction: None };
    let (reply, mut told) = oneshot::channel();
    let verdicts = desk.shard.commit("g", &commit, desk.now, reply);
    assert_eq!(verdicts, Ok(vec![Err(GroupError::OffsetMetadataTooLarge)]));
    assert_eq!(told.try_recv(), Ok(Ok(())), "nothing has to be waited for");
    let commit = OffsetCommit { from: CommitFrom { generation: 1, ..from }, ..commit };
    let (reply, _) = oneshot::channel();
    assert_eq!(desk.shard.commit("g", &commit, desk.now, reply), Err(GroupError::GroupNotFound));
    assert!(desk.shard.groups.is_empty() && desk.shard.outbox.is_empty());
}

#[test]
fn trap_23_an_empty_commit_is_legal() {
    let mut desk = Desk::new();
    let from = CommitFrom { member_id: "", instance_id: None, generation: -1, is_transactional: false };
    let commit = OffsetCommit { from, retention_ms: None, offsets: &[], transaction: None };
    let (reply, mut told) = oneshot::channel();
    assert_eq!(desk.shard.commit("g", &commit, desk.now, reply), Ok(Vec::new()));
    assert_eq!(told.try_recv(), Ok(Ok(())));
}

#[test]
fn metadata_is_judged_offset_by_offset() {
    let mut desk = Desk::new();
    let (most, long) = ("x".repeat(4_096), "x".repeat(4_097));
    let offsets = [
        OffsetToCommit { metadata: &most, ..to_commit(0, 1) },
        OffsetToCommit { metadata: &long, ..to_commit(1, 1) },
        to_commit(2, 1),
    ];
    let from = CommitFrom { member_id: "", instance_id: None, generation: -1, is_transactional: false };
    let commit = OffsetCommit { from, retention_ms: None, offsets: &offsets, transaction: None };
    let (reply, _told) = oneshot::channel();
    let verdicts = desk.shard.commit("g", &commit, desk.now, reply).expect("a known committer");
    assert_eq!(verdicts, [Ok(()), Err(GroupError::OffsetMetadataTooLarge), Ok(())]);
    desk.write_all();
    assert_eq!([0, 1, 2].map(|p| desk.fetch("g", p)), [Some(1), None, Some(1)]);
}

#[test]
fn trap_26_a_deletion_covers_commits_on_their_way_and_survives_a_restart() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write_all();
    let mut late = desk.commit("g", 1, 8);
    let (accepted, mut told) = desk.delete("g");
    assert_eq!(accepted, Ok(()));
    // It may fail yet.
    assert_eq!(desk.delete("g").0, Err(GroupError::CoordinatorNotAvailable));
    desk.write_all();
    assert_eq!((late.try_recv(), told.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
    assert!(desk.shard.groups.is_empty());
    assert!(desk.replayed().is_empty());
    assert_eq!(desk.delete("g").0, Err(GroupError::GroupNotFound));
}

#[test]
fn a_deletion_that_cannot_be_written_is_taken_back() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write_all();
    let (_, mut told) = desk.delete("g");
    desk.write(false);
    assert_eq!(told.try_recv(), Ok(Err(GroupError::CoordinatorNotAvailable)));
    assert_eq!(desk.fetch("g", 0), Some(7));
    desk.commit("g", 0, 8);
    desk.write_all();
    assert_eq!(desk.fetch("g", 0), Some(8));
}

#[test]
fn trap_26_offsets_of_topics_that_are_read_are_not_deleted() {
    let mut desk = Desk::new();
    let joined = desk.join("g", reader(b't')).try_recv().expect("an answer").expect("a member");
    let from =
        CommitFrom { member_id: &joined.member_id, instance_id: None, generation: 1, is_transactional: true };
    let other = OffsetToCommit { topic: "u", ..to_commit(0, 5) };
    let offsets = [to_commit(0, 5), other];
    let commit = OffsetCommit { from, retention_ms: None, offsets: &offsets, transaction: None };
    let (reply, _told) = oneshot::channel();
    desk.shard.commit("g", &commit, desk.now, reply).expect("a member");
    desk.write_all();
    let (reply, mut told) = oneshot::channel();
    let verdicts = desk.shard.delete_offsets("g", &[("t", 0), ("u", 0), ("u", 9)], desk.now, reply);
    assert_eq!(verdicts, Ok(vec![Err(GroupError::SubscribedToTopic), Ok(()), Ok(())]));
    desk.write_all();
    assert_eq!(told.try_recv(), Ok(Ok(())));
    let left: Vec<i64> = desk.shard.groups["g"].offsets.committed().map(|(_, _, o)| o.offset).collect();
    assert_eq!(left, [5]);
    let (reply, _) = oneshot::channel();
    assert_eq!(desk.shard.delete_offsets("x", &[], desk.now, reply), Err(GroupError::GroupNotFound));
}

#[test]
fn groups_that_do_not_say_what_they_read_keep_their_offsets_while_they_have_members() {
    let mut desk = Desk::new();
    let join = Join { protocol_type: Arc::from("connect"), needs_known_member_id: false, ..consumer("c") };
    desk.commit("g", 0, 7);
    desk.write_all();
    let joined = desk.join("g", join).try_recv().expect("an answer").expect("a member");
    desk.sync("g", &joined);
    desk.write_all();
    assert_eq!(desk.state("g"), GroupState::Stable);
    let (reply, _) = oneshot::channel();
    assert_eq!(desk.shard.delete_offsets("g", &[("t", 0)], desk.now, reply), Err(GroupError::NonEmptyGroup));
    desk.now.wall_ms += WEEK_MS * 2;
    assert!(!desk.expires());
    assert_eq!(desk.fetch("g", 0), Some(7));
}

#[test]
fn a_group_is_forgotten_when_nothing_is_left_of_it() {
    let mut desk = Desk::new();
    desk.join("g", consumer("c"));
    assert_eq!(desk.shard.groups.len(), 1, "an id was given out");
    desk.pass(10_000);
    assert!(desk.shard.groups.is_empty() && desk.shard.deadlines.is_empty());
    assert!(desk.log.is_empty() && desk.shard.outbox.is_empty());
}

#[test]
fn groups_are_bounded_over_all_shards() {
    let mut desk = Desk::with(GroupSettings { groups_max: 1, ..settings() });
    desk.member("g");
    let (reply, _) = oneshot::channel();
    let join = Join { needs_known_member_id: false, ..consumer("c") };
    assert_eq!(desk.shard.join("h", join, desk.now, reply), Err(GroupError::TooManyGroups));
    desk.shard.unload(Status::Gone, GroupError::NotCoordinator, desk.now);
    assert_eq!(desk.shard.budget.groups(), 0);
    assert_eq!(desk.shard.budget.shared(), Shared { bytes: 0, groups_refused: 1, bytes_refused: 0 });
}

/// The id that a process is told to come back with.
fn asks(desk: &mut Desk, group: &str) -> Arc<str> {
    let (reply, mut told) = oneshot::channel();
    let join = Join { fresh: uuid::Uuid::from_u128(7), session_timeout_ms: 1_800_000, ..consumer("c") };
    desk.shard.join(group, join, desk.now, reply).expect("an id is told");
    told.try_recv().expect("an answer").expect_err("an id alone").member_id
}

/// Fails when whoever asks for ids and never joins takes the places of others.
#[test]
fn a_group_that_nobody_has_joined_takes_nobodys_place() {
    let mut desk = Desk::with(GroupSettings { groups_max: 1, ..settings() });
    for n in 0..3 * PENDING_GROUPS_MAX {
        asks(&mut desk, &format!("g{n}"));
    }
    assert_eq!((desk.shard.groups.len(), desk.shard.budget.groups()), (PENDING_GROUPS_MAX, 0));
    // The newest may still come, and counts from then on; for the next there is no place.
    for (n, taken) in [(1, Ok(())), (2, Err(GroupError::TooManyGroups))] {
        let group = format!("g{}", 3 * PENDING_GROUPS_MAX - n);
        let member_id = asks(&mut desk, &group);
        let (reply, _) = oneshot::channel();
        assert_eq!(desk.shard.join(&group, Join { member_id, ..consumer("c") }, desk.now, reply), taken);
    }
    assert_eq!(desk.shard.budget.groups(), 1);
    // Nobody's session is so long that an id is kept for it.
    desk.pass(PENDING_JOIN_MS_MAX);
    assert!(desk.shard.groups.values().all(|entry| entry.is_counted));
}

#[test]
fn bytes_of_members_are_bounded_over_all_groups() {
    let mut desk = Desk::with(GroupSettings { groups_bytes_max: 1_000, ..settings() });
    let large = |name: &str| {
        let protocols = vec![Protocol { name: "range".into(), metadata: vec![0; 700].into() }];
        Join { protocols, instance_id: Some(name.into()), ..consumer("c") }
    };
    let join = |desk: &mut Desk, group: &str, name: &str| {
        let (reply, _) = oneshot::channel();
        desk.shard.join(group, large(name), desk.now, reply)
    };
    assert_eq!(join(&mut desk, "g", "a"), Ok(()));
    assert_eq!(join(&mut desk, "h", "b"), Err(GroupError::GroupFull));
    // It has brought that before.
    assert_eq!(join(&mut desk, "g", "a"), Ok(()));
    desk.pass(NEW_MEMBER_JOIN_TIMEOUT_MS + 60_000);
    desk.write_all();
    desk.pass(3_600_000);
    assert_eq!(desk.shard.budget.shared().bytes, 0);
    assert_eq!(join(&mut desk, "h", "b"), Ok(()));
}

#[test]
fn trap_26_offsets_expire_and_then_the_group() {
    let mut desk = Desk::new();
    let joined = desk.member("g");
    desk.commit_as("g", 0, 7, Some((ProducerId(1), 0)));
    desk.end_transaction(ProducerId(1), true);
    desk.write_all();
    let leaving = [Leaving { member_id: &joined.member_id, instance_id: None }];
    desk.shard
        .leave("g", &leaving, desk.now)
        .expect("a member")
        .into_iter()
        .for_each(|r| assert_eq!(r, Ok(())));
    desk.write_all();
    desk.pass(WEEK_MS - 1);
    desk.shard.expire(desk.now);
    assert!(!desk.write(true), "not yet");
    desk.pass(1);
    desk.shard.expire(desk.now);
    desk.write_all();
    assert!(desk.shard.groups.is_empty());
    assert!(desk.replayed().is_empty(), "tombstones stay");
}

#[test]
fn r31_offsets_do_not_expire_in_a_rebalance() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write_all();
    let joined = desk.member("g");
    desk.pass(0);
    let again = Join { member_id: joined.member_id, ..consumer("c") };
    for _ in 0..3 {
        // In the middle of a rebalance that a second member holds up.
        desk.join("g", Join { needs_known_member_id: false, ..consumer("d") });
        desk.now.wall_ms += WEEK_MS * 2;
        assert!(!desk.expires());
        desk.join("g", again.clone());
    }
    assert_eq!(desk.fetch("g", 0), Some(7));
}

/// What members say between two generations is not all that the group reads: whoever reads the rest may be about to join.
#[test]
fn r31_offsets_of_topics_that_are_not_read_expire_between_no_two_generations() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write_all();
    let joined = desk.join("g", reader(b'u')).try_recv().expect("an answer").expect("a member");
    desk.now.wall_ms += WEEK_MS * 2;
    assert_eq!(desk.state("g"), GroupState::CompletingRebalance);
    assert!(!desk.expires());
    desk.join("g", Join { client_id: Arc::from("d"), ..reader(b'u') });
    assert_eq!(desk.state("g"), GroupState::PreparingRebalance);
    assert!(!desk.expires());
    let again = Join { member_id: joined.member_id, ..reader(b'u') };
    let joined = desk.join("g", again).try_recv().expect("an answer").expect("a member");
    desk.sync("g", &joined);
    desk.write_all();
    assert_eq!(desk.state("g"), GroupState::Stable);
    assert!(desk.expires(), "nobody reads it");
    desk.write_all();
    assert_eq!(desk.fetch("g", 0), None);
}

#[test]
fn an_expiry_that_cannot_be_written_is_tried_again() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.write_all();
    desk.pass(WEEK_MS);
    desk.shard.expire(desk.now);
    desk.write(false);
    assert_eq!(desk.fetch("g", 0), Some(7));
    desk.shard.expire(desk.now);
    desk.write_all();
    assert!(desk.shard.groups.is_empty());
}

#[test]
fn the_offsets_of_a_deleted_topic_go() {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    desk.commit("h", 0, 7);
    desk.write_all();
    desk.commit("h", 1, 8);
    assert_eq!(desk.shard.delete_orphans(&|topic, _| topic == "other"), Ok(()));
    assert_eq!(desk.shard.delete_orphans(&|topic, _| topic == "t"), Ok(()));
    desk.write_all();
    assert_eq!(desk.fetch("h", 1), Some(8), "what was on its way may belong to a newer topic");
    assert_eq!(desk.shard.delete_orphans(&|topic, _| topic == "t"), Ok(()));
    desk.write_all();
    assert!(desk.shard.groups.is_empty());
    assert!(desk.replayed().is_empty());
}

#[test]
fn an_unloaded_shard_answers_whoever_waits() {
    let mut desk = Desk::with(GroupSettings { initial_rebalance_delay_ms: 100, ..settings() });
    let mut join = desk.join("g", Join { needs_known_member_id: false, ..consumer("c") });
    assert!(join.try_recv().is_err());
    desk.shard.unload(Status::Gone, GroupError::NotCoordinator, desk.now);
    let refused = join.try_recv().expect("an answer").expect_err("gone");
    assert_eq!(refused.error, GroupError::NotCoordinator);
    assert_eq!(desk.shard.check_active(), Err(GroupError::NotCoordinator));
    assert!(desk.shard.deadlines.is_empty());
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Commit {
        group: usize,
        partition: i32,
    },
    CommitInTransaction {
        group: usize,
        partition: i32,
        producer: i64,
    },
    EndTransaction {
        producer: i64,
        is_commit: bool,
    },
    DeleteGroup {
        group: usize,
    },
    DeleteOffset {
        group: usize,
        partition: i32,
    },
    DeleteTopic,
    Join {
        group: usize,
        is_static: bool,
    },
    SyncAll {
        group: usize,
    },
    LeaveAll {
        group: usize,
    },
    /// Whether the task that tells the time has its turn.
    Pass {
        ms: i64,
        is_told: bool,
    },
    Expire,
    Write {
        takes: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (group, partition, producer) = (0..2usize, 0..2i32, 1..3i64);
    prop_oneof![
        6 => (group.clone(), partition.clone()).prop_map(|(group, partition)| Op::Commit { group, partition }),
        4 => (group.clone(), partition.clone(), producer.clone())
            .prop_map(|(group, partition, producer)| Op::CommitInTransaction { group, partition, producer }),
        3 => (producer, any::<bool>()).prop_map(|(producer, is_commit)| Op::EndTransaction { producer, is_commit }),
        2 => group.clone().prop_map(|group| Op::DeleteGroup { group }),
        2 => (group.clone(), partition).prop_map(|(group, partition)| Op::DeleteOffset { group, partition }),
        1 => Just(Op::DeleteTopic),
        4 => (group.clone(), any::<bool>()).prop_map(|(group, is_static)| Op::Join { group, is_static }),
        4 => group.clone().prop_map(|group| Op::SyncAll { group }),
        2 => group.prop_map(|group| Op::LeaveAll { group }),
        2 => (prop_oneof![Just(100), Just(61_000), Just(WEEK_MS)], any::<bool>())
            .prop_map(|(ms, is_told)| Op::Pass { ms, is_told }),
        1 => Just(Op::Expire),
        12 => prop::bool::weighted(0.85).prop_map(|takes| Op::Write { takes }),
    ]
}

fn run(desk: &mut Desk, op: Op, n: i64) {
    let name = |group: usize| ["g", "h"][group];
    match op {
        Op::Commit { group, partition } => drop(desk.commit(name(group), partition, n)),
        Op::CommitInTransaction { group, partition, producer } => {
            drop(desk.commit_as(name(group), partition, n, Some((ProducerId(producer), 0))));
        }
        Op::EndTransaction { producer, is_commit } => desk.end_transaction(ProducerId(producer), is_commit),
        Op::DeleteGroup { group } => drop(desk.delete(name(group))),
        Op::DeleteOffset { group, partition } => {
            let (reply, _) = oneshot::channel();
            drop(desk.shard.delete_offsets(name(group), &[("t", partition)], desk.now, reply));
        }
        Op::DeleteTopic => drop(desk.shard.delete_orphans(&|_, _| true)),
        Op::Join { group, is_static } => {
            let join = if is_static { static_consumer("i") } else { consumer("c") };
            let fresh = uuid::Uuid::from_u64_pair(0, n.unsigned_abs());
            drop(desk.join(name(group), Join { needs_known_member_id: false, fresh, ..join }));
        }
        Op::SyncAll { group } => {
            let Some(entry) = desk.shard.groups.get(name(group)) else { return };
            let snapshot = entry.group.snapshot();
            let assignments: Vec<_> = snapshot
                .members
                .iter()
                .map(|m| (Arc::clone(&m.id), bytes::Bytes::from(n.to_string())))
                .collect();
            for member in &snapshot.members {
                let (reply, _) = oneshot::channel();
                let sync = Sync {
                    member_id: Arc::clone(&member.id),
                    instance_id: member.instance_id.clone(),
                    generation: snapshot.generation,
                    protocol_type: None,
                    protocol: None,
                    assignments: assignments.clone(),
                };
                desk.shard.sync(name(group), sync, desk.now, reply).expect("a group");
            }
        }
        Op::LeaveAll { group } => {
            let Some(entry) = desk.shard.groups.get(name(group)) else { return };
            let snapshot = entry.group.snapshot();
            let leaving: Vec<Leaving<'_>> =
                snapshot.members.iter().map(|m| Leaving { member_id: &m.id, instance_id: None }).collect();
            drop(desk.shard.leave(name(group), &leaving, desk.now));
        }
        Op::Pass { ms, is_told: true } => desk.pass(ms),
        Op::Pass { ms, is_told: false } => desk.pass_untold(ms),
        Op::Expire => desk.shard.expire(desk.now),
        Op::Write { takes } => drop(desk.write(takes)),
    }
}

/// Does what is told, and holds what is known in the end against the log.
fn holds(ops: Vec<Op>) {
    let mut desk = Desk::new();
    for (n, op) in (1..).zip(ops) {
        run(&mut desk, op, n);
        let scheduled = |(id, entry): (&Arc<str>, &Entry)| Some((entry.scheduled_at?, Arc::clone(id)));
        assert_eq!(desk.shard.deadlines, desk.shard.groups.iter().filter_map(scheduled).collect());
        for entry in desk.shard.groups.values() {
            let deadline = entry.group.deadline();
            assert!(deadline.is_none_or(|at| entry.scheduled_at.is_some_and(|scheduled| scheduled <= at)));
        }
        let counted = desk.shard.groups.values().filter(|entry| entry.is_counted).count();
        assert_eq!(desk.shard.budget.groups(), counted);
        let bytes: usize = desk.shard.groups.values().map(|entry| entry.group.members_bytes()).sum();
        assert_eq!(desk.shard.budget.shared().bytes, bytes);
    }
    desk.write_all();
    let replayed = desk.replayed();
    for (id, entry) in &desk.shard.groups {
        let found = replayed.get(id);
        let offsets = found.map(|found| found.offsets.clone()).unwrap_or_default();
        assert_eq!(entry.offsets, offsets, "{}", id);
        let is_written = entry.group.state() == GroupState::Stable
            || (entry.group.state() == GroupState::Empty && entry.has_record);
        if is_written && let Some(found) = found.filter(|found| found.has_record) {
            let (known, read) = (entry.group.snapshot(), found.group.snapshot());
            // Generations that nobody was assigned anything in are not written.
            if known.generation == read.generation {
                assert_eq!(known.members, read.members);
                assert_eq!(known.leader, read.leader);
            }
        }
    }
    for id in replayed.keys() {
        assert!(desk.shard.groups.contains_key(id), "{id} comes back from the dead");
    }
}

proptest! {
    /// Offsets and the last generation that was written are what reading the log gives, whatever was refused on the way.
    #[test]
    fn what_is_known_is_what_the_log_says(ops in prop::collection::vec(op(), 1..150)) {
        holds(ops);
    }
}

#[test]
fn a_static_member_that_came_back_twice_unwritten_is_the_one_that_the_log_has() {
    let join = || Op::Join { group: 0, is_static: true };
    let refused = || Op::Write { takes: false };
    holds(vec![
        join(),
        Op::SyncAll { group: 0 },
        Op::Write { takes: true },
        join(),
        join(),
        refused(),
        refused(),
    ]);
    holds(vec![
        join(),
        Op::SyncAll { group: 0 },
        Op::Write { takes: true },
        join(),
        join(),
        join(),
        refused(),
        refused(),
        refused(),
    ]);
}
