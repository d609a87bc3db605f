//! Leaving and deleting.

use super::*;

#[test]
fn the_others_rebalance_when_one_leaves() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    assert_eq!(table.leave(&[(&joined[1].member_id, None)]), [Ok(())]);
    assert_eq!(table.heartbeat(&joined[0].member_id, 2), Err(GroupError::RebalanceInProgress));
    let request = table.join(again(&joined[0], consumer("a")));
    assert_eq!(table.joined(request).members.len(), 1);
}

#[test]
fn the_last_one_leaves_an_empty_group() {
    let mut table = Table::new();
    let joined = table.stable(&["a"]);
    assert_eq!(table.leave(&[(&joined[0].member_id, None)]), [Ok(())]);
    assert_eq!((table.group.state(), table.group.generation()), (GroupState::Empty, 2));
    assert_eq!(table.written.last().map(|w| w.members.len()), Some(0));
    let joined = table.stable(&["b"]);
    assert_eq!(joined[0].generation, 3, "generations go on");
}

#[test]
fn each_one_of_a_list_gets_an_answer_of_its_own() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let request = table.join(consumer("c"));
    let given = table.refused(request).member_id;
    let b = Arc::clone(&joined[1].member_id);
    let answers =
        table.leave(&[("x", None), (&b, None), (&b, None), (&given, None), ("", None), ("", Some("i"))]);
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(answers, [unknown, Ok(()), unknown, Ok(()), unknown, unknown]);
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn an_id_that_leaves_before_it_joined_disturbs_nobody_and_holds_back_nobody() {
    let mut table = Table::new();
    let joined = table.stable(&["a"]);
    let request = table.join(consumer("b"));
    let given = table.refused(request).member_id;
    assert_eq!(table.leave(&[(&given, None)]), [Ok(())]);
    assert_eq!(table.group.state(), GroupState::Stable);

    let request = table.join(consumer("c"));
    let given = table.refused(request).member_id;
    let request = table.join(again(&joined[0], consumer("a")));
    assert!(table.join_answer(request).is_none());
    assert_eq!(table.leave(&[(&given, None)]), [Ok(())]);
    assert_eq!(table.joined(request).generation, 2);
}

#[test]
fn whoever_leaves_while_waiting_is_answered() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let join = table.join(again(&joined[0], consumer("a")));
    table.leave(&[(&joined[0].member_id, None)]);
    assert_eq!(table.refused(join).error, GroupError::UnknownMemberId);

    let back = table.join(again(&joined[1], consumer("b")));
    let alone = table.joined(back);
    let (_, newcomer) = table.join_twice(consumer("c"));
    let back = table.join(again(&joined[1], consumer("b")));
    assert_eq!(table.joined(back).generation, alone.generation + 1);
    let newcomer = table.joined(newcomer);
    let sync = table.sync(&newcomer.member_id, newcomer.generation);
    assert_eq!(table.sync_answer(sync), None);
    table.leave(&[(&newcomer.member_id, None)]);
    assert_eq!(table.sync_answer(sync), Some(Err(GroupError::UnknownMemberId)));
}

#[test]
fn a_leave_in_a_rebalance_lets_the_others_go_on() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let request = table.join(again(&joined[0], consumer("a")));
    assert!(table.join_answer(request).is_none());
    table.leave(&[(&joined[1].member_id, None)]);
    assert_eq!(table.joined(request).generation, 3);
}

#[test]
fn when_all_leave_during_the_initial_delay_the_group_is_empty_again() {
    let mut table = Table::with(GroupSettings { initial_rebalance_delay_ms: 3_000, ..settings() });
    let (member, _) = table.join_twice(consumer("a"));
    table.leave(&[(&member, None)]);
    table.pass(3_000);
    assert_eq!(table.group.state(), GroupState::Empty);
    assert_eq!(table.group.deadline(), None);
}

#[test]
fn trap_26_a_group_with_members_is_not_deleted() {
    let mut table = Table::new();
    let joined = table.stable(&["a"]);
    assert_eq!(table.group.on_delete(), Err(GroupError::NonEmptyGroup));
    table.join(again(&joined[0], consumer("a")));
    assert_eq!(table.group.on_delete(), Err(GroupError::NonEmptyGroup));
    table.leave(&[(&joined[0].member_id, None)]);
    assert_eq!(table.group.on_delete(), Ok(()));
    assert_eq!(table.group.on_delete(), Err(GroupError::CoordinatorNotAvailable));
}

#[test]
fn a_deleted_group_refuses_everybody_until_that_is_written() {
    let mut table = Table::new();
    let first = table.join(consumer("a"));
    let given = table.refused(first).member_id;
    assert_eq!(table.group.on_delete(), Ok(()));
    let unavailable = GroupError::CoordinatorNotAvailable;
    let join = table.join(Join { member_id: Arc::clone(&given), ..consumer("a") });
    assert_eq!(table.refused(join).error, unavailable);
    let sync = table.sync(&given, 0);
    assert_eq!(table.sync_answer(sync), Some(Err(unavailable)));
    assert_eq!(table.heartbeat(&given, 0), Err(unavailable));
    assert_eq!(table.commit("", -1), Err(unavailable));
    assert_eq!(table.group.on_leave(&[], table.now, &mut Vec::new()), Err(unavailable));

    table.group.on_delete_failed();
    assert_eq!(table.group.state(), GroupState::Empty);
    assert_eq!(table.commit("", -1), Ok(()));
}
