//! Joining: ids, protocols, limits, and which joins disturb a group.

use super::*;

#[test]
fn trap_24_a_first_join_of_today_is_given_an_id_to_come_back_with() {
    let mut table = Table::new();
    let first = table.join(consumer("c"));
    let refused = table.refused(first);
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    assert!(refused.member_id.starts_with("c-"));
    assert_eq!(table.group.state(), GroupState::Empty);
    let second = table.join(Join { member_id: Arc::clone(&refused.member_id), ..consumer("c") });
    let joined = table.joined(second);
    assert_eq!((joined.generation, &joined.member_id), (1, &refused.member_id));
    assert_eq!(joined.leader, joined.member_id);
}

#[test]
fn trap_24_an_old_or_static_first_join_is_a_member_at_once() {
    for join in [Join { needs_known_member_id: false, ..consumer("c") }, static_consumer("i")] {
        let mut table = Table::new();
        let request = table.join(join);
        assert_eq!(table.joined(request).generation, 1);
    }
}

#[test]
fn trap_24_the_leader_alone_is_told_of_the_members() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b", "c"]);
    let told: Vec<usize> = joined.iter().map(|j| j.members.len()).collect();
    assert_eq!(told, [3, 0, 0]);
    for one in &joined {
        assert_eq!(one.leader, joined[0].member_id);
        assert_eq!(one.protocol_type.as_deref(), Some("consumer"));
        assert_eq!(one.protocol.as_deref(), Some("range"));
    }
    let metadata: Vec<&[u8]> = joined[0].members.iter().map(|m| m.metadata.as_ref()).collect();
    assert_eq!(metadata, [b"a", b"b", b"c"]);
}

#[test]
fn an_id_that_was_not_given_out_is_unknown() {
    let mut table = Table::new();
    table.stable(&["a"]);
    let request = table.join(Join { member_id: id("nobody"), ..consumer("x") });
    assert_eq!(table.refused(request).error, GroupError::UnknownMemberId);
    let mut empty = Table::new();
    let request = empty.join(Join { member_id: id("nobody"), ..consumer("x") });
    assert_eq!(empty.refused(request).error, GroupError::UnknownMemberId);
}

#[test]
fn session_timeouts_out_of_bounds_are_refused() {
    for (session_timeout_ms, is_taken) in
        [(5_999, false), (6_000, true), (1_800_000, true), (1_800_001, false)]
    {
        let mut table = Table::new();
        let request = table.join(Join { session_timeout_ms, needs_known_member_id: false, ..consumer("c") });
        match table.join_answer(request) {
            Some(Ok(_)) => assert!(is_taken, "{session_timeout_ms}"),
            Some(Err(refused)) => {
                assert_eq!((refused.error, is_taken), (GroupError::InvalidSessionTimeout, false));
            }
            None => panic!("{session_timeout_ms} waits"),
        }
    }
}

#[test]
fn protocols_must_go_with_those_of_the_others() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], bool);
    let cases: [Case; 5] = [
        ("consumer", &[("range", "")], true),
        ("consumer", &[("sticky", ""), ("roundrobin", "")], true),
        ("consumer", &[("sticky", "")], false),
        ("connect", &[("range", "")], false),
        ("consumer", &[], false),
    ];
    for (protocol_type, list, goes) in cases {
        let mut table = Table::new();
        table.stable(&["a"]);
        let join = Join {
            protocol_type: Arc::from(protocol_type),
            protocols: protocols(list),
            needs_known_member_id: false,
            ..consumer("b")
        };
        let request = table.join(join);
        let refused = table.join_answer(request).map(|a| a.clone().expect_err("no rebalance yet").error);
        let expected = (!goes).then_some(GroupError::InconsistentProtocol);
        assert_eq!(refused, expected, "{protocol_type} {list:?}");
    }
}

#[test]
fn the_first_member_must_name_a_type_and_a_protocol() {
    for join in [
        Join { protocol_type: Arc::from(""), ..consumer("c") },
        Join { protocols: Vec::new(), ..consumer("c") },
    ] {
        let mut table = Table::new();
        let request = table.join(join);
        assert_eq!(table.refused(request).error, GroupError::InconsistentProtocol);
    }
}

#[test]
fn a_protocol_type_of_any_name_forms_a_group() {
    for protocol_type in ["connect", "sr", "x"] {
        let mut table = Table::new();
        let join =
            Join { protocol_type: Arc::from(protocol_type), needs_known_member_id: false, ..consumer("c") };
        let request = table.join(join);
        assert_eq!(table.joined(request).protocol_type.as_deref(), Some(protocol_type));
    }
}

#[test]
fn the_protocol_that_most_prefer_among_those_all_know_is_chosen() {
    let members: [&[(&str, &str)]; 3] = [
        &[("only-mine", ""), ("range", ""), ("roundrobin", "")],
        &[("roundrobin", ""), ("range", "")],
        &[("roundrobin", ""), ("range", "")],
    ];
    let mut table = Table::with(GroupSettings { initial_rebalance_delay_ms: 100, ..settings() });
    let join_with = |list: &[(&str, &str)]| Join {
        protocols: protocols(list),
        needs_known_member_id: false,
        ..consumer("c")
    };
    let requests: Vec<RequestId> = members.iter().map(|list| table.join(join_with(list))).collect();
    table.pass(300);
    for request in requests {
        assert_eq!(table.joined(request).protocol.as_deref(), Some("roundrobin"));
    }
}

#[test]
fn of_equally_many_votes_the_leaders_order_decides() {
    for (leaders, others) in [(["x", "y"], ["y", "x"]), (["y", "x"], ["x", "y"])] {
        let mut table = Table::with(GroupSettings { initial_rebalance_delay_ms: 100, ..settings() });
        let join_with = |names: [&str; 2]| Join {
            protocols: protocols(&names.map(|n| (n, ""))),
            needs_known_member_id: false,
            ..consumer("c")
        };
        let first = table.join(join_with(leaders));
        table.join(join_with(others));
        table.pass(300);
        assert_eq!(table.joined(first).protocol.as_deref(), Some(leaders[0]));
    }
}

#[test]
fn a_name_listed_twice_is_one_protocol() {
    let mut table = Table::new();
    let list = protocols(&[("range", "1"), ("range", "2"), ("other", "")]);
    let request = table.join(Join { protocols: list, needs_known_member_id: false, ..consumer("a") });
    let joined = table.joined(request);
    assert_eq!((joined.protocol.as_deref(), &joined.members[0].metadata[..]), (Some("range"), &b"1"[..]));
    let second = table.join(Join { needs_known_member_id: false, ..consumer("b") });
    let back = table.join(Join { protocols: protocols(&[("range", "1")]), ..again(&joined, consumer("a")) });
    assert_eq!(table.joined(back).generation, 2);
    assert_eq!(table.joined(second).generation, 2);
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let mut table = Table::with(GroupSettings { initial_rebalance_delay_ms: 3_000, ..settings() });
    let (_, first) = table.join_twice(consumer("a"));
    table.pass(2_999);
    assert!(table.join_answer(first).is_none());
    let (_, second) = table.join_twice(consumer("b"));
    table.pass(1);
    assert!(table.join_answer(first).is_none(), "a new member came, so the delay begins again");
    table.pass(3_000);
    assert_eq!(table.joined(first).generation, 1);
    assert_eq!(table.joined(second).generation, 1);
    assert_eq!(table.joined(first).members.len(), 2);
}

#[test]
fn the_first_rebalance_does_not_wait_longer_than_the_rebalance_timeout() {
    let mut table = Table::with(GroupSettings { initial_rebalance_delay_ms: 3_000, ..settings() });
    let join_with = |n: i32| Join {
        rebalance_timeout_ms: 10_000,
        needs_known_member_id: false,
        ..consumer(&format!("c{n}"))
    };
    let first = table.join(join_with(0));
    for n in 1..20 {
        table.pass(1_000);
        if table.join_answer(first).is_some() {
            assert_eq!(n, 10, "at the rebalance timeout of the first member");
            return;
        }
        table.join(join_with(n));
    }
    panic!("it waits for ever");
}

#[test]
fn a_follower_that_joins_unchanged_disturbs_nobody() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let request = table.join(again(&joined[1], consumer("b")));
    let answer = table.joined(request);
    assert_eq!((answer.generation, table.group.state()), (joined[1].generation, GroupState::Stable));
    assert_eq!((answer.members.len(), answer.leader), (0, Arc::clone(&joined[0].member_id)));
    let sync = table.sync(&joined[1].member_id, answer.generation);
    assert_eq!(table.sync_answer(sync), Some(Ok(own(&joined[1].member_id))));
}

#[test]
fn a_follower_that_joins_with_other_metadata_and_a_leader_that_joins_at_all_rebalance() {
    for (who, client) in [(0, "a"), (1, "changed")] {
        let mut table = Table::new();
        let joined = table.stable(&["a", "b"]);
        let request = table.join(again(&joined[who], consumer(client)));
        assert!(table.join_answer(request).is_none());
        assert_eq!(table.group.state(), GroupState::PreparingRebalance);
    }
}

#[test]
fn a_member_that_lost_the_answer_to_its_join_gets_it_again() {
    let mut table = Table::new();
    let (first, _) = table.join_twice(consumer("a"));
    let (second, _) = table.join_twice(consumer("b"));
    table.join(Join { member_id: Arc::clone(&first), ..consumer("a") });
    assert_eq!(table.group.state(), GroupState::CompletingRebalance);
    for (member_id, client, told) in [(&first, "a", 2), (&second, "b", 0)] {
        let request = table.join(Join { member_id: Arc::clone(member_id), ..consumer(client) });
        let joined = table.joined(request);
        assert_eq!((joined.generation, joined.members.len()), (2, told));
    }
    assert_eq!(table.group.state(), GroupState::CompletingRebalance);
    let request = table.join(Join { member_id: second, ..consumer("changed") });
    assert!(table.join_answer(request).is_none());
    assert_eq!(table.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_member_that_joins_twice_is_answered_twice() {
    let mut table = Table::new();
    let joined = table.stable(&["a", "b"]);
    let older = table.join(again(&joined[0], consumer("a")));
    let newer = table.join(again(&joined[0], consumer("a")));
    assert_eq!(table.refused(older).error, GroupError::RebalanceInProgress);
    assert!(table.join_answer(newer).is_none());
    table.join(again(&joined[1], consumer("b")));
    assert_eq!(table.joined(newer).generation, joined[0].generation + 1);
}

#[test]
fn an_id_that_was_given_out_holds_back_the_rebalance_until_it_expires() {
    let mut table = Table::new();
    let joined = table.stable(&["a"]);
    let given = table.join(consumer("b"));
    assert_eq!(table.refused(given).error, GroupError::MemberIdRequired);
    assert_eq!(table.group.state(), GroupState::Stable, "an id is no member yet");
    let request = table.join(again(&joined[0], consumer("a")));
    assert!(table.join_answer(request).is_none(), "the id may still be joined with");
    table.pass(i64::from(SESSION_MS));
    let rejoined = table.joined(request);
    assert_eq!((rejoined.generation, rejoined.members.len()), (2, 1));
    let late = table.join(Join { member_id: table.refused(given).member_id, ..consumer("b") });
    assert_eq!(table.refused(late).error, GroupError::UnknownMemberId);
}

#[test]
fn a_group_that_is_full_takes_nobody_new() {
    let mut table = Table::with(GroupSettings { members_max: 2, ..settings() });
    let joined = table.stable(&["a", "b"]);
    let third = table.join(consumer("c"));
    assert_eq!(table.refused(third).error, GroupError::GroupFull);
    let back = table.join(again(&joined[1], consumer("b")));
    assert_eq!(table.joined(back).generation, joined[1].generation);
}

#[test]
fn a_rebalance_forms_no_larger_generation_than_a_group_may_have() {
    let mut table =
        Table::with(GroupSettings { members_max: 2, initial_rebalance_delay_ms: 100, ..settings() });
    let join = |n: i32| Join { needs_known_member_id: false, ..consumer(&format!("c{n}")) };
    let requests: Vec<RequestId> = (0..3).map(|n| table.join(join(n))).collect();
    table.pass(1_000);
    assert_eq!(table.refused(requests[2]).error, GroupError::GroupFull);
    assert_eq!(table.joined(requests[0]).members.len(), 2);
}

#[test]
fn ids_given_out_are_bounded() {
    let mut table = Table::with(GroupSettings { members_max: 2, ..settings() });
    let errors: Vec<GroupError> = (0..3)
        .map(|n| {
            let request = table.join(consumer(&format!("c{n}")));
            table.refused(request).error
        })
        .collect();
    assert_eq!(errors, [GroupError::MemberIdRequired, GroupError::MemberIdRequired, GroupError::GroupFull]);
}

#[test]
fn metadata_of_a_group_is_bounded() {
    let mut table = Table::with(GroupSettings { group_bytes_max: 111, ..settings() });
    let join_with = |len: usize| Join {
        protocols: protocols(&[("range", &"x".repeat(len))]),
        needs_known_member_id: false,
        ..consumer("c")
    };
    let too_much = table.join(join_with(96));
    assert_eq!(table.refused(too_much).error, GroupError::GroupFull);
    let enough = table.join(join_with(90));
    let joined = table.joined(enough);
    let more = table.join(join_with(6));
    assert_eq!(table.refused(more).error, GroupError::GroupFull);
    // A member may bring as much as before: its own bytes do not count against it.
    let back = table.join(Join { member_id: joined.member_id, ..join_with(90) });
    assert!(table.join_answer(back).is_none_or(Result::is_ok));
}

#[test]
fn r32_a_new_member_that_waits_too_long_is_given_up_and_the_others_go_on() {
    let mut table = Table::new();
    let patient = |client| Join { rebalance_timeout_ms: 3_600_000, ..consumer(client) };
    let (first_id, first) = table.join_twice(patient("a"));
    let joined = table.joined(first);
    table.settle(std::slice::from_ref(&joined));
    let (_, second) = table.join_twice(patient("b"));
    for _ in 0..60 {
        table.pass(5_000);
        let _ = table.heartbeat(&first_id, joined.generation);
    }
    assert_eq!(table.refused(second).error, GroupError::UnknownMemberId, "five minutes");
    let back = table.join(again(&joined, patient("a")));
    let joined = table.joined(back);
    assert_eq!(joined.members.len(), 1);
    table.settle(&[joined]);
}

#[test]
fn member_ids_fit_the_wire_whatever_the_client_is_called() {
    let mut table = Table::new();
    let request = table.join(consumer(&"ü".repeat(16_000)));
    assert!(table.refused(request).member_id.len() < 300);
}
