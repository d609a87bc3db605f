//! A group on a table: processes act on it one by one, time passes when told, and every answer is kept.

mod joining;
mod leaving;
mod property;

mod static_members;
mod syncing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use super::group::{CommitFrom, Effect, Group, GroupState, JoinRefused, Joined, Persist, Synced};
use super::join::Join;
use super::leave::Leaving;
use super::member::{MemberId, Protocol, RequestId};
use super::settings::GroupSettings;
use super::snapshot::GroupSnapshot;
use super::sync::Sync;

pub(super) const SESSION_MS: i32 = 10_000;
pub(super) const REBALANCE_MS: i32 = 60_000;

/// Settings of most tests: no initial delay.
pub(super) fn settings() -> GroupSettings {
    GroupSettings { initial_rebalance_delay_ms: 0, ..GroupSettings::default() }
}

pub(super) struct Table {
    pub(super) group: Group,
    pub(super) now: i64,
    pub(super) joins: BTreeMap<RequestId, Option<Result<Joined, JoinRefused>>>,
    pub(super) syncs: BTreeMap<RequestId, Option<Result<Synced, GroupError>>>,
    pub(super) unwritten: VecDeque<(Persist, GroupSnapshot)>,
    /// What is in the log.
    pub(super) written: Vec<GroupSnapshot>,
    /// The log takes what it is given at once.
    pub(super) writes_at_once: bool,
    requests: u64,
}

pub(super) fn id(text: &str) -> MemberId {
    Arc::from(text)
}

pub(super) fn protocols(list: &[(&str, &str)]) -> Vec<Protocol> {
    let protocol = |(name, metadata): &(&str, &str)| Protocol {
        name: Arc::from(*name),
        metadata: Bytes::copy_from_slice(metadata.as_bytes()),
    };
    list.iter().map(protocol).collect()
}

/// A dynamic consumer that joins for the first time with a client of today.
pub(super) fn consumer(client_id: &str) -> Join {
    Join {
        member_id: id(""),
        instance_id: None,
        client_id: Arc::from(client_id),
        client_host: Arc::from("/127.0.0.1"),
        protocol_type: Arc::from("consumer"),
        protocols: protocols(&[("range", client_id), ("roundrobin", client_id)]),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        needs_known_member_id: true,
        may_skip_assignment: true,
        fresh: uuid::Uuid::nil(),
    }
}

pub(super) fn static_consumer(instance_id: &str) -> Join {
    Join { instance_id: Some(Arc::from(instance_id)), ..consumer(instance_id) }
}

impl Table {
    pub(super) fn new() -> Table {
        Table::with(settings())
    }

    pub(super) fn with(settings: GroupSettings) -> Table {
        Table::of(Group::new(Arc::from("g"), Arc::new(settings)))
    }

    pub(super) fn of(group: Group) -> Table {
        Table {
            group,
            now: 1_000_000,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            unwritten: VecDeque::new(),
            written: Vec::new(),
            writes_at_once: true,
            requests: 0,
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Join(request, answer) => {
                    let waiting = self.joins.get_mut(&request).expect("a join that was made");
                    assert!(waiting.replace(answer).is_none(), "{request:?} is answered once");
                }
                Effect::Sync(request, answer) => {
                    let waiting = self.syncs.get_mut(&request).expect("a sync that was made");
                    assert!(waiting.replace(answer).is_none(), "{request:?} is answered once");
                }
                Effect::Persist(persist, snapshot) => self.unwritten.push_back((persist, snapshot)),
            }
        }
        if self.writes_at_once {
            while !self.unwritten.is_empty() {
                self.write(Ok(()));
            }
        }
    }

    /// The log takes the oldest snapshot, or fails to.
    pub(super) fn write(&mut self, result: Result<(), GroupError>) {
        let (persist, snapshot) = self.unwritten.pop_front().expect("something to write");
        if result.is_ok() {
            self.written.push(snapshot);
        }
        let mut effects = Vec::new();
        self.group.on_persisted(&persist, result, self.now, &mut effects);
        self.take(effects);
    }

    pub(super) fn join(&mut self, mut join: Join) -> RequestId {
        let request = self.next_request();
        join.fresh = uuid::Uuid::from_u128(u128::from(request.0));
        self.joins.insert(request, None);
        let mut effects = Vec::new();
        self.group.on_join(request, join, self.now, &mut effects);
        self.take(effects);
        request
    }

    pub(super) fn sync_with(&mut self, sync: Sync) -> RequestId {
        let request = self.next_request();
        self.syncs.insert(request, None);
        let mut effects = Vec::new();
        self.group.on_sync(request, sync, self.now, &mut effects);
        self.take(effects);
        request
    }

    pub(super) fn sync(&mut self, member: &MemberId, generation: i32) -> RequestId {
        self.sync_with(plain_sync(member, generation))
    }

    /// The leader gives each member its own name as assignment.
    pub(super) fn lead(&mut self, joined: &Joined) -> RequestId {
        let assignments = joined.members.iter().map(|m| (Arc::clone(&m.id), own(&m.id))).collect();
        self.sync_with(Sync { assignments, ..plain_sync(&joined.member_id, joined.generation) })
    }

    pub(super) fn heartbeat(&mut self, member: &MemberId, generation: i32) -> Result<(), GroupError> {
        self.group.on_heartbeat(member, None, generation, self.now)
    }

    pub(super) fn leave(&mut self, leaving: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let leaving: Vec<Leaving<'_>> =
            leaving.iter().map(|&(member_id, instance_id)| Leaving { member_id, instance_id }).collect();
        let mut effects = Vec::new();
        let answers = self.group.on_leave(&leaving, self.now, &mut effects).expect("a group that is there");
        self.take(effects);
        answers
    }

    pub(super) fn commit(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let commit = CommitFrom { member_id, instance_id: None, generation, is_transactional: false };
        self.group.on_commit(&commit, self.now)
    }

    /// Time passes, and the timer goes off whenever the group has asked for it.
    pub(super) fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        while let Some(at) = self.group.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut effects = Vec::new();
            self.group.on_timer(self.now, &mut effects);
            self.take(effects);
            assert!(self.group.deadline().is_none_or(|next| next > self.now), "the timer makes progress");
        }
        self.now = end;
    }

    pub(super) fn join_answer(&self, request: RequestId) -> Option<&Result<Joined, JoinRefused>> {
        self.joins[&request].as_ref()
    }

    #[track_caller]
    pub(super) fn joined(&self, request: RequestId) -> Joined {
        self.join_answer(request).expect("an answer").clone().expect("a join that succeeded")
    }

    #[track_caller]
    pub(super) fn refused(&self, request: RequestId) -> JoinRefused {
        self.join_answer(request).expect("an answer").clone().expect_err("a join that was refused")
    }

    pub(super) fn sync_answer(&self, request: RequestId) -> Option<Result<Bytes, GroupError>> {
        self.syncs[&request].clone().map(|answer| answer.map(|synced| synced.assignment))
    }

    /// Both requests that a dynamic member of today makes.
    pub(super) fn join_twice(&mut self, join: Join) -> (MemberId, RequestId) {
        let first = self.join(join.clone());
        let refused = self.refused(first);
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        let member_id = refused.member_id;
        let second = self.join(Join { member_id: Arc::clone(&member_id), ..join });
        (member_id, second)
    }

    /// A stable group of dynamic consumers with these client ids; what each was told.
    pub(super) fn stable(&mut self, clients: &[&str]) -> Vec<Joined> {
        let mut members: Vec<(MemberId, Join)> = Vec::new();
        let mut requests = Vec::new();
        for client in clients {
            let (member_id, request) = self.join_twice(consumer(client));
            members.push((Arc::clone(&member_id), Join { member_id, ..consumer(client) }));
            requests.push(request);
            // Everybody who is there already comes back.
            for (n, (_, join)) in members.iter().enumerate().rev().skip(1) {
                if self.join_answer(requests[n]).is_some() {
                    requests[n] = self.join(join.clone());
                }
            }
        }
        let joined: Vec<Joined> = requests.iter().map(|r| self.joined(*r)).collect();
        self.settle(&joined);
        joined
    }

    /// All sync, the leader among them.
    pub(super) fn settle(&mut self, joined: &[Joined]) {
        let mut syncs = Vec::new();
        for one in joined {
            let sync = if one.members.is_empty() {
                self.sync(&one.member_id, one.generation)
            } else {
                self.lead(one)
            };
            syncs.push((sync, own(&one.member_id)));
        }
        for (sync, assignment) in syncs {
            assert_eq!(self.sync_answer(sync), Some(Ok(assignment)));
        }
        assert_eq!(self.group.state(), GroupState::Stable);
    }
}

pub(super) fn plain_sync(member: &MemberId, generation: i32) -> Sync {
    Sync {
        member_id: Arc::clone(member),
        instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    }
}

/// What the leader of these tests assigns to a member.
pub(super) fn own(member: &MemberId) -> Bytes {
    Bytes::copy_from_slice(member.as_bytes())
}

/// A member's join, again.
pub(super) fn again(joined: &Joined, join: Join) -> Join {
    Join { member_id: Arc::clone(&joined.member_id), ..join }
}
