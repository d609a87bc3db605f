//! Assignments, heartbeats, commits and time-outs of a group with dynamic members.

use super::*;

/// Members that have joined generation 2 and not synced.
fn joined_two(table: &mut Table) -> Vec<Joined> {
    let (a, _) = table.join_twice(consumer("a"));
    let (_, second) = table.join_twice(consumer("b"));
    let first = table.join(Join { member_id: a, ..consumer("a") });
    vec![table.joined(first), table.joined(second)]
}

#[test]
fn followers_wait_for_the_leader_and_everybody_gets_their_own() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    let follower = table.sync(&joined[1].member_id, 2);
    assert_eq!(table.sync_answer(follower), None);
    let leader = table.lead(&joined[0]);
    assert_eq!(table.sync_answer(leader), Some(Ok(own(&joined[0].member_id))));
    assert_eq!(table.sync_answer(follower), Some(Ok(own(&joined[1].member_id))));
    assert_eq!(table.group.state(), GroupState::Stable);
    let again = table.sync(&joined[1].member_id, 2);
    assert_eq!(table.sync_answer(again), Some(Ok(own(&joined[1].member_id))));
}

#[test]
fn nobody_is_told_an_assignment_that_is_not_written() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    table.writes_at_once = false;
    let leader = table.lead(&joined[0]);
    let follower = table.sync(&joined[1].member_id, 2);
    assert_eq!((table.sync_answer(leader), table.sync_answer(follower)), (None, None));
    table.write(Ok(()));
    assert!(table.sync_answer(leader).is_some_and(|a| a.is_ok()));
    assert!(table.sync_answer(follower).is_some_and(|a| a.is_ok()));
}

#[test]
fn an_assignment_that_cannot_be_written_begins_another_rebalance() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    table.writes_at_once = false;
    let leader = table.lead(&joined[0]);
    let follower = table.sync(&joined[1].member_id, 2);
    table.write(Err(GroupError::CoordinatorNotAvailable));
    for sync in [leader, follower] {
        assert_eq!(table.sync_answer(sync), Some(Err(GroupError::CoordinatorNotAvailable)));
    }
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn an_assignment_written_too_late_is_given_to_nobody() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    table.writes_at_once = false;
    let leader = table.lead(&joined[0]);
    table.leave(&[(&joined[1].member_id, None)]);
    assert_eq!(table.sync_answer(leader), Some(Err(GroupError::RebalanceInProgress)));
    table.write(Ok(()));
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn the_leader_assigns_once_in_a_generation() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    table.writes_at_once = false;
    let first = table.lead(&joined[0]);
    let other = vec![(Arc::clone(&joined[1].member_id), Bytes::from_static(b"other"))];
    let second = table.sync_with(Sync { assignments: other, ..plain_sync(&joined[0].member_id, 2) });
    assert_eq!(
        table.sync_answer(first),
        Some(Err(GroupError::RebalanceInProgress)),
        "given up by its sender"
    );
    assert_eq!(table.unwritten.len(), 1);
    table.write(Ok(()));
    assert_eq!(table.sync_answer(second), Some(Ok(own(&joined[0].member_id))));
    let follower = table.sync(&joined[1].member_id, 2);
    assert_eq!(table.sync_answer(follower), Some(Ok(own(&joined[1].member_id))));
}

#[test]
fn who_is_left_out_gets_nothing_and_strangers_are_not_assigned_to() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    let strange = vec![(id("stranger"), Bytes::from_static(b"s"))];
    let leader = table.sync_with(Sync { assignments: strange, ..plain_sync(&joined[0].member_id, 2) });
    assert_eq!(table.sync_answer(leader), Some(Ok(Bytes::new())));
    let written = table.written.last().expect("a snapshot");
    assert_eq!(written.members.len(), 2);
    assert!(written.members.iter().all(|m| m.assignment.is_empty()));
}

#[test]
fn an_assignment_larger_than_a_group_may_be_is_refused() {
    let mut table = Table::with(GroupSettings { group_bytes_max: 400, ..settings() });
    let joined = joined_two(&mut table);
    let large = vec![(Arc::clone(&joined[1].member_id), Bytes::from(vec![0; 300]))];
    let leader = table.sync_with(Sync { assignments: large, ..plain_sync(&joined[0].member_id, 2) });
    assert_eq!(table.sync_answer(leader), Some(Err(GroupError::RecordTooLarge)));
    let leader = table.lead(&joined[0]);
    assert_eq!(table.sync_answer(leader), Some(Ok(own(&joined[0].member_id))));
}

#[test]
fn syncs_are_checked() {
    type Change = fn(&mut Sync);
    let cases: [(&str, Change, GroupError); 5] = [
        ("member", |s| s.member_id = id("x"), GroupError::UnknownMemberId),
        ("old generation", |s| s.generation = 1, GroupError::IllegalGeneration),
        ("future generation", |s| s.generation = 3, GroupError::IllegalGeneration),
        ("type", |s| s.protocol_type = Some(id("connect")), GroupError::InconsistentProtocol),
        ("protocol", |s| s.protocol = Some(id("sticky")), GroupError::InconsistentProtocol),
    ];
    for (name, change, error) in cases {
        let mut table = Table::new();
        let joined = joined_two(&mut table);
        let mut sync = Sync {
            protocol_type: Some(id("consumer")),
            protocol: Some(id("range")),
            ..plain_sync(&joined[1].member_id, 2)
        };
        let right = table.sync_with(sync.clone());
        assert_eq!(table.sync_answer(right), None, "{name}");
        change(&mut sync);
        let wrong = table.sync_with(sync);
        assert_eq!(table.sync_answer(wrong), Some(Err(error)), "{name}");
    }
}

#[test]
fn a_sync_in_a_rebalance_or_without_members_is_refused() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    table.join(again(&joined[0], consumer("a")));
    let sync = table.sync(&joined[1].member_id, joined[1].generation);
    assert_eq!(table.sync_answer(sync), Some(Err(GroupError::RebalanceInProgress)));
    let mut empty = Table::new();
    let sync = empty.sync(&id("a"), 0);
    assert_eq!(empty.sync_answer(sync), Some(Err(GroupError::UnknownMemberId)));
}

#[test]
fn trap_25_heartbeats_in_each_state() {
    let mut table = Table::new();
    assert_eq!(table.heartbeat(&id("a"), 0), Err(GroupError::UnknownMemberId), "empty");
    let joined = joined_two(&mut table);
    let follower = &joined[1].member_id;
    assert_eq!(table.heartbeat(follower, 2), Ok(()), "completing");
    table.settle(&joined);
    assert_eq!(table.heartbeat(follower, 2), Ok(()), "stable");
    assert_eq!(table.heartbeat(follower, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(table.heartbeat(&id("nobody"), 2), Err(GroupError::UnknownMemberId));
    table.join(again(&joined[0], consumer("a")));
    assert_eq!(table.heartbeat(follower, 2), Err(GroupError::RebalanceInProgress), "preparing");
}

#[test]
fn trap_25_a_heartbeat_in_a_rebalance_keeps_the_session() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let leader = table.join(again(&joined[0], consumer("a")));
    for _ in 0..5 {
        table.pass(8_000);
        assert_eq!(table.heartbeat(&joined[1].member_id, 2), Err(GroupError::RebalanceInProgress));
    }
    let follower = table.join(again(&joined[1], consumer("b")));
    assert_eq!(table.joined(leader).members.len(), 2);
    assert_eq!(table.joined(follower).generation, 3);
}

#[test]
fn trap_25_members_that_fall_silent_time_out() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    table.pass(6_000);
    assert_eq!(table.heartbeat(&joined[0].member_id, 2), Ok(()));
    table.pass(6_000);
    assert_eq!(table.heartbeat(&joined[1].member_id, 2), Err(GroupError::UnknownMemberId));
    assert_eq!(table.heartbeat(&joined[0].member_id, 2), Err(GroupError::RebalanceInProgress));
    let alone = table.join(again(&joined[0], consumer("a")));
    assert_eq!(table.joined(alone).members.len(), 1);
}

#[test]
fn when_the_last_member_times_out_an_empty_generation_is_written() {
    let mut table = Table::new();
    table.stable(&["a"]);
    table.pass(i64::from(SESSION_MS));
    assert_eq!(table.group.state(), GroupState::Empty);
    let written = table.written.last().expect("a snapshot");
    assert_eq!((written.generation, written.members.len()), (2, 0));
    assert_eq!((&written.protocol, &written.leader), (&None, &None));
    assert_eq!(written.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(table.group.deadline(), None);
}

#[test]
fn a_member_that_waits_for_an_answer_does_not_time_out() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let waiting = table.join(again(&joined[0], consumer("a")));
    for _ in 0..4 {
        table.pass(9_000);
        let _ = table.heartbeat(&joined[1].member_id, 2);
    }
    assert!(table.join_answer(waiting).is_none());
    table.join(again(&joined[1], consumer("b")));
    assert_eq!(table.joined(waiting).generation, 3);
    table.pass(9_000);
    assert_eq!(table.heartbeat(&joined[0].member_id, 3), Ok(()), "the answer began the session again");
}

#[test]
fn who_does_not_come_back_within_the_rebalance_timeout_is_left_behind() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let leader = table.join(again(&joined[0], consumer("a")));
    for _ in 0..12 {
        table.pass(5_000);
        let _ = table.heartbeat(&joined[1].member_id, 2);
    }
    assert_eq!(table.joined(leader).members.len(), 1);
    assert_eq!(table.heartbeat(&joined[1].member_id, 3), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_leader_that_does_not_come_back_is_replaced() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let request = table.join(again(&joined[1], consumer("changed")));
    table.pass(i64::from(SESSION_MS));
    let rejoined = table.joined(request);
    assert_eq!((&rejoined.leader, rejoined.members.len()), (&joined[1].member_id, 1));
}

#[test]
fn r32_members_that_never_sync_are_given_up() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    let waiting = table.sync(&joined[1].member_id, 2);
    for _ in 0..12 {
        table.pass(5_000);
        let _ = table.heartbeat(&joined[0].member_id, 2);
    }
    assert_eq!(table.sync_answer(waiting), Some(Err(GroupError::RebalanceInProgress)));
    let back = table.join(again(&joined[1], consumer("b")));
    let rejoined = table.joined(back);
    assert_eq!((rejoined.generation, rejoined.members.len()), (3, 1), "the leader is no member any more");
    table.settle(&[rejoined]);
}

#[test]
fn a_follower_that_never_syncs_is_given_up_though_the_group_is_stable() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    table.lead(&joined[0]);
    assert_eq!(table.group.state(), GroupState::Stable);
    for _ in 0..12 {
        table.pass(5_000);
        for one in &joined {
            let _ = table.heartbeat(&one.member_id, 2);
        }
    }
    assert_eq!(table.heartbeat(&joined[1].member_id, 2), Err(GroupError::UnknownMemberId));
    assert_eq!(table.heartbeat(&joined[0].member_id, 2), Err(GroupError::RebalanceInProgress));
}

#[test]
fn trap_25_commits_in_each_state() {
    let mut table = Table::new();
    assert_eq!(table.commit("", -1), Ok(()), "no member, empty group");
    assert_eq!(table.commit("a", -1), Ok(()), "a name alone, empty group");
    assert_eq!(table.commit("a", 0), Err(GroupError::UnknownMemberId));
    let joined = joined_two(&mut table);
    let follower = Arc::clone(&joined[1].member_id);
    assert_eq!(table.commit(&follower, 2), Err(GroupError::RebalanceInProgress), "completing");
    assert_eq!(table.commit("", -1), Err(GroupError::UnknownMemberId), "no member, group with members");
    table.settle(&joined);
    assert_eq!(table.commit(&follower, 2), Ok(()), "stable");
    assert_eq!(table.commit(&follower, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(table.commit(&follower, -1), Err(GroupError::IllegalGeneration));
    assert_eq!(table.commit("nobody", 2), Err(GroupError::UnknownMemberId));
    table.join(again(&joined[0], consumer("a")));
    assert_eq!(table.commit(&follower, 2), Ok(()), "preparing");
}

#[test]
fn commits_keep_the_session() {
    let mut table = Table::new();
    let joined = table.stable(&["a"]);
    for _ in 0..5 {
        table.pass(8_000);
        assert_eq!(table.commit(&joined[0].member_id, joined[0].generation), Ok(()));
    }
}

#[test]
fn a_transaction_may_commit_without_being_a_member_and_in_any_state() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    let anonymous = CommitFrom { member_id: "", instance_id: None, generation: -1, is_transactional: true };
    assert_eq!(table.group.on_commit(&anonymous, table.now), Ok(()));
    let member = CommitFrom { member_id: &joined[0].member_id, generation: 2, ..anonymous };
    assert_eq!(table.group.on_commit(&member, table.now), Ok(()));
    let old = CommitFrom { generation: 1, ..member };
    assert_eq!(table.group.on_commit(&old, table.now), Err(GroupError::IllegalGeneration));
    let stranger = CommitFrom { member_id: "x", ..member };
    assert_eq!(table.group.on_commit(&stranger, table.now), Err(GroupError::UnknownMemberId));
}

#[test]
fn cooperative_members_keep_their_place_through_two_rebalances() {
    let cooperative = |client: &str, owned: &str| Join {
        protocols: protocols(&[("cooperative-sticky", owned)]),
        ..consumer(client)
    };
    let mut table = Table::new();
    let (a, first) = table.join_twice(cooperative("a", ""));
    let alone = table.joined(first);
    table.settle(&[alone]);
    let (b, second) = table.join_twice(cooperative("b", ""));
    let first = table.join(Join { member_id: Arc::clone(&a), ..cooperative("a", "p0 p1") });
    let generation_2 = [table.joined(first), table.joined(second)];
    table.settle(&generation_2);
    // The one that has given something up joins again, so that the other can take it.
    let first = table.join(Join { member_id: a, ..cooperative("a", "p0") });
    assert_eq!(table.heartbeat(&b, 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(table.commit(&b, 2), Ok(()), "they work on meanwhile");
    let second = table.join(Join { member_id: b, ..cooperative("b", "") });
    let generation_3 = [table.joined(first), table.joined(second)];
    assert_eq!(generation_3[0].generation, 3);
    table.settle(&generation_3);
}

#[test]
fn an_unloaded_group_answers_everybody() {
    let mut table = Table::new();
    let joined = joined_two(&mut table);
    let sync = table.sync(&joined[1].member_id, 2);
    let mut other = Table::new();
    let members = other.stable(&["a", "b"]);
    let join = other.join(again(&members[0], consumer("a")));
    for table in [&mut table, &mut other] {
        let mut effects = Vec::new();
        table.group.on_unload(GroupError::NotCoordinator, &mut effects);
        table.take(effects);
    }
    assert_eq!(table.sync_answer(sync), Some(Err(GroupError::NotCoordinator)));
    assert_eq!(other.refused(join).error, GroupError::NotCoordinator);
}

#[test]
fn a_loaded_group_goes_on_where_it_was() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let snapshot = table.written.last().expect("a snapshot").clone();
    let mut table = Table::of(Group::from_snapshot(snapshot.clone(), Arc::new(settings())));
    assert_eq!(table.group.snapshot(), snapshot);
    let mut effects = Vec::new();
    table.group.on_loaded(table.now, &mut effects);
    table.take(effects);
    assert_eq!(table.group.state(), GroupState::Stable);
    for one in &joined {
        assert_eq!(table.heartbeat(&one.member_id, 2), Ok(()));
        let sync = table.sync(&one.member_id, 2);
        assert_eq!(table.sync_answer(sync), Some(Ok(own(&one.member_id))));
    }
    let follower =
        table.join(Join { protocols: protocols(&[("range", "b")]), ..again(&joined[1], consumer("b")) });
    assert_eq!(table.joined(follower).generation, 2, "unchanged");
    table.pass(i64::from(SESSION_MS));
    assert_eq!(table.group.state(), GroupState::Empty, "and nobody stays for ever");
}

#[test]
fn a_loaded_group_that_is_too_large_now_rebalances() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let snapshot = table.written.last().expect("a snapshot").clone();
    let smaller = GroupSettings { members_max: 1, ..settings() };
    let mut table = Table::of(Group::from_snapshot(snapshot, Arc::new(smaller)));
    let mut effects = Vec::new();
    table.group.on_loaded(table.now, &mut effects);
    table.take(effects);
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
    let first =
        table.join(Join { protocols: protocols(&[("range", "")]), ..again(&joined[1], consumer("b")) });
    let second =
        table.join(Join { protocols: protocols(&[("range", "")]), ..again(&joined[0], consumer("a")) });
    assert_eq!(table.refused(second).error, GroupError::GroupFull);
    assert_eq!(table.joined(first).members.len(), 1);
}
