//! Static members: a process that comes back under its instance id is the member it was (KIP-345, KIP-814).

use super::*;

/// A stable group of static members, in the order given; the first one leads.
fn stable(table: &mut Table, instances: &[&str]) -> Vec<Joined> {
    let mut requests: Vec<RequestId> = Vec::new();
    for instance in instances {
        let earlier: Vec<(usize, Joined)> = requests
            .iter()
            .enumerate()
            .filter_map(|(n, r)| Some((n, table.join_answer(*r)?.clone().ok()?)))
            .collect();
        requests.push(table.join(static_consumer(instance)));
        for (n, joined) in earlier {
            requests[n] = table.join(again(&joined, static_consumer(instances[n])));
        }
    }
    let joined: Vec<Joined> = requests.iter().map(|r| table.joined(*r)).collect();
    table.settle(&joined);
    joined
}

fn heartbeat(table: &mut Table, joined: &Joined, instance: &str) -> Result<(), GroupError> {
    table.group.on_heartbeat(&joined.member_id, Some(instance), joined.generation, table.now)
}

#[test]
fn trap_24_a_static_member_comes_back_to_its_assignment() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let request = table.join(static_consumer("b"));
    let back = table.joined(request);
    assert_eq!(table.group.state(), GroupState::Stable, "nobody else notices");
    assert_eq!(back.generation, joined[1].generation);
    assert_ne!(back.member_id, joined[1].member_id);
    assert!(!back.skip_assignment && back.members.is_empty());
    let sync = table.sync(&back.member_id, back.generation);
    assert_eq!(table.sync_answer(sync), Some(Ok(own(&joined[1].member_id))), "the old assignment");
    assert_eq!(heartbeat(&mut table, &back, "b"), Ok(()));
    assert_eq!(heartbeat(&mut table, &joined[0], "a"), Ok(()));
}

#[test]
fn trap_24_the_older_process_is_fenced_everywhere() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let request = table.join(static_consumer("b"));
    table.joined(request);
    let old = &joined[1];
    let fenced = GroupError::FencedInstanceId;
    assert_eq!(heartbeat(&mut table, old, "b"), Err(fenced));
    let join = table.join(again(old, static_consumer("b")));
    assert_eq!(table.refused(join).error, fenced);
    let sync = Sync { instance_id: Some(id("b")), ..plain_sync(&old.member_id, old.generation) };
    let sync = table.sync_with(sync);
    assert_eq!(table.sync_answer(sync), Some(Err(fenced)));
    assert_eq!(table.leave(&[(&old.member_id, Some("b"))]), [Err(fenced)]);
    let commit = CommitFrom {
        member_id: &old.member_id,
        instance_id: Some("b"),
        generation: old.generation,
        is_transactional: false,
    };
    assert_eq!(table.group.on_commit(&commit, table.now), Err(fenced));
    // Without its instance id it is nobody.
    assert_eq!(table.heartbeat(&old.member_id, old.generation), Err(GroupError::UnknownMemberId));
}

#[test]
fn trap_24_the_new_id_is_in_the_log_before_the_process_hears_of_it() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    table.writes_at_once = false;
    let request = table.join(static_consumer("b"));
    assert!(table.join_answer(request).is_none());
    table.write(Ok(()));
    let back = table.joined(request);
    let written = table.written.last().expect("a snapshot");
    let b = written.members.iter().find(|m| m.instance_id.as_deref() == Some("b")).expect("b");
    assert_eq!((&b.id, &b.assignment), (&back.member_id, &own(&joined[1].member_id)));
    assert_eq!(written.generation, back.generation);
}

#[test]
fn a_return_that_cannot_be_written_is_taken_back() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let before = table.group.snapshot();
    table.writes_at_once = false;
    let shorter = Join { session_timeout_ms: SESSION_MS - 1, ..static_consumer("b") };
    let request = table.join(shorter);
    table.write(Err(GroupError::NotCoordinator));
    assert_eq!(table.refused(request).error, GroupError::NotCoordinator);
    assert_eq!(heartbeat(&mut table, &joined[1], "b"), Ok(()));
    let mut after = table.group.snapshot();
    // Where its process is may be of the newer one; nothing depends on it.
    after.members[1].client_host = Arc::clone(&before.members[1].client_host);
    assert_eq!(after, before);
}

#[test]
fn a_leader_that_comes_back_is_told_to_skip_the_assignment() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let request = table.join(static_consumer("a"));
    let back = table.joined(request);
    assert!(back.skip_assignment);
    assert_eq!((&back.leader, back.members.len()), (&back.member_id, 2));
    assert_eq!(back.generation, joined[0].generation);
}

#[test]
fn a_leader_that_cannot_be_told_to_skip_is_not_told_that_it_leads() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let request = table.join(Join { may_skip_assignment: false, ..static_consumer("a") });
    let back = table.joined(request);
    assert!(!back.skip_assignment && back.members.is_empty());
    assert_eq!(back.leader, joined[0].member_id, "the id it had");
    let sync = table.sync(&back.member_id, back.generation);
    assert_eq!(table.sync_answer(sync), Some(Ok(own(&joined[0].member_id))));
}

#[test]
fn a_return_that_changes_the_protocol_rebalances() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a"]);
    let other = Join { protocols: protocols(&[("roundrobin", "a"), ("range", "a")]), ..static_consumer("a") };
    let request = table.join(other);
    let back = table.joined(request);
    assert_eq!((back.generation, back.protocol.as_deref()), (joined[0].generation + 1, Some("roundrobin")));
}

#[test]
fn a_return_while_the_leader_assigns_rebalances() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let leader = table.join(again(&joined[0], static_consumer("a")));
    let follower = table.join(again(&joined[1], static_consumer("b")));
    assert_eq!(table.joined(leader).generation, 3);
    let old = table.joined(follower);
    let waiting =
        table.sync_with(Sync { instance_id: Some(id("b")), ..plain_sync(&old.member_id, old.generation) });
    let request = table.join(static_consumer("b"));
    assert!(table.join_answer(request).is_none());
    assert_eq!(table.sync_answer(waiting), Some(Err(GroupError::FencedInstanceId)));
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_return_in_a_rebalance_takes_the_place_of_the_one_that_waits() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let leader = table.join(again(&joined[0], static_consumer("a")));
    let leader_again = table.join(static_consumer("a"));
    assert_eq!(table.refused(leader).error, GroupError::FencedInstanceId);
    table.join(again(&joined[1], static_consumer("b")));
    let back = table.joined(leader_again);
    assert_eq!((back.generation, back.members.len()), (3, 2));
}

#[test]
fn the_newest_of_three_processes_wins() {
    let mut table = Table::new();
    stable(&mut table, &["a"]);
    table.writes_at_once = false;
    let second = table.join(static_consumer("a"));
    let third = table.join(static_consumer("a"));
    assert_eq!(table.refused(second).error, GroupError::FencedInstanceId);
    table.write(Err(GroupError::CoordinatorNotAvailable));
    assert!(table.join_answer(third).is_none());
    table.write(Ok(()));
    let back = table.joined(third);
    assert_eq!(heartbeat(&mut table, &back, "a"), Ok(()));
}

#[test]
fn a_rebalance_that_begins_meanwhile_answers_the_one_that_came_back() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    table.writes_at_once = false;
    let back = table.join(static_consumer("b"));
    let leader = table.join(again(&joined[0], static_consumer("a")));
    assert_eq!(table.joined(back).generation, 3);
    assert_eq!(table.joined(leader).generation, 3);
    table.write(Err(GroupError::NotCoordinator));
    let back = table.joined(back);
    assert_eq!(heartbeat(&mut table, &back, "b"), Ok(()), "the newer generation stands");
}

#[test]
fn a_static_member_that_is_away_stays_a_member_for_its_session() {
    let mut table = Table::new();
    let long = |instance| Join { session_timeout_ms: 600_000, ..static_consumer(instance) };
    let a = table.join(long("a"));
    let alone = table.joined(a);
    table.settle(std::slice::from_ref(&alone));
    let b = table.join(long("b"));
    table.pass(i64::from(REBALANCE_MS));
    let joined = table.joined(b);
    assert_eq!(joined.members.len(), 2, "the one that is away counts");
    assert_eq!(joined.leader, joined.member_id, "and does not lead");
    table.lead(&joined);
    let back = table.join(long("a"));
    assert_eq!(table.joined(back).generation, joined.generation);
}

#[test]
fn static_members_that_are_all_away_keep_the_group_until_their_sessions_end() {
    let mut table = Table::new();
    let long = |instance| Join { session_timeout_ms: 600_000, ..static_consumer(instance) };
    let a = table.join(long("a"));
    let alone = table.joined(a);
    table.settle(std::slice::from_ref(&alone));
    let (dynamic, waiting) = table.join_twice(consumer("d"));
    table.leave(&[(&dynamic, None)]);
    assert_eq!(table.refused(waiting).error, GroupError::UnknownMemberId);
    table.pass(500_000);
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
    table.pass(200_000);
    assert_eq!(table.group.state(), GroupState::Empty);
}

#[test]
fn an_operator_removes_a_static_member_by_its_instance_id_alone() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    assert_eq!(table.leave(&[("", Some("b")), ("", Some("c"))]), [Ok(()), Err(GroupError::UnknownMemberId)]);
    assert_eq!(heartbeat(&mut table, &joined[1], "b"), Err(GroupError::UnknownMemberId));
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_full_group_takes_a_static_member_back() {
    let mut table = Table::with(GroupSettings { members_max: 2, ..settings() });
    stable(&mut table, &["a", "b"]);
    let back = table.join(static_consumer("b"));
    assert!(table.join_answer(back).is_some_and(Result::is_ok));
    let third = table.join(static_consumer("c"));
    assert_eq!(table.refused(third).error, GroupError::GroupFull);
}

#[test]
fn a_loaded_group_knows_its_static_members() {
    let mut table = Table::new();
    let joined = stable(&mut table, &["a", "b"]);
    let snapshot = table.written.last().expect("a snapshot").clone();
    let mut table = Table::of(Group::from_snapshot(snapshot, Arc::new(settings())));
    let mut effects = Vec::new();
    table.group.on_loaded(table.now, &mut effects);
    table.take(effects);
    let back = table.join(Join { protocols: protocols(&[("range", "b")]), ..static_consumer("b") });
    assert_eq!(table.joined(back).generation, joined[1].generation);
    assert_eq!(heartbeat(&mut table, &joined[1], "b"), Err(GroupError::FencedInstanceId));
}

#[test]
fn an_id_given_to_a_dynamic_member_is_not_joined_with_as_a_static_one() {
    let mut table = Table::new();
    let request = table.join(consumer("a"));
    let member_id = table.refused(request).member_id;
    let request = table.join(Join { member_id, ..static_consumer("a") });
    assert_eq!(table.refused(request).error, GroupError::UnknownMemberId);
}
