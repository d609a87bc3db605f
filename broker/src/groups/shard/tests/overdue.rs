//! Whether somebody is still there is a question of the clock: the task that tells the time may not have had its turn.

use super::*;
use crate::groups::tests::SESSION_MS;

/// A stable group of one static member, which has just been heard of, and whose session nobody will say is over.
fn desk(join: Join) -> Desk {
    let mut desk = Desk::new();
    desk.commit("g", 0, 7);
    let joined = desk.join("g", join).try_recv().expect("an answer").expect("a member");
    desk.sync("g", &joined);
    desk.write_all();
    assert_eq!(desk.state("g"), GroupState::Stable);
    desk
}

#[test]
fn a_group_can_be_deleted_in_the_millisecond_in_which_its_last_session_ends() {
    let mut desk = desk(static_consumer("i"));
    desk.pass_untold(i64::from(SESSION_MS) - 1);
    assert_eq!(desk.delete("g").0, Err(GroupError::NonEmptyGroup));
    desk.pass_untold(1);
    let (asked, mut told) = desk.delete("g");
    assert_eq!(asked, Ok(()));
    desk.write_all();
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert!(desk.shard.groups.is_empty() && desk.shard.deadlines.is_empty());
    assert!(
        desk.replayed().is_empty(),
        "the record of the empty group is written before the one of its deletion"
    );
}

#[test]
fn offsets_can_be_deleted_when_the_last_session_is_over() {
    let mut desk = desk(reader(b't'));
    desk.pass_untold(i64::from(SESSION_MS) - 1);
    let (reply, _) = oneshot::channel();
    let verdicts = desk.shard.delete_offsets("g", &[("t", 0)], desk.now, reply);
    assert_eq!(verdicts, Ok(vec![Err(GroupError::SubscribedToTopic)]));
    desk.pass_untold(1);
    let (reply, mut told) = oneshot::channel();
    assert_eq!(desk.shard.delete_offsets("g", &[("t", 0)], desk.now, reply), Ok(vec![Ok(())]));
    desk.write_all();
    assert_eq!((told.try_recv(), desk.fetch("g", 0)), (Ok(Ok(())), None));
}

#[test]
fn whoever_is_no_member_can_commit_when_the_last_session_is_over() {
    let mut desk = desk(static_consumer("i"));
    desk.pass_untold(i64::from(SESSION_MS) - 1);
    desk.commit("g", 0, 8);
    desk.write_all();
    assert_eq!(desk.fetch("g", 0), Some(7));
    desk.pass_untold(1);
    desk.commit("g", 0, 9);
    desk.write_all();
    assert_eq!((desk.fetch("g", 0), desk.state("g")), (Some(9), GroupState::Empty));
}

#[test]
fn a_member_that_is_heard_of_before_the_task_has_run_stays() {
    let mut desk = Desk::new();
    let joined = desk.member("g");
    desk.sync("g", &joined);
    desk.write_all();
    desk.pass_untold(i64::from(SESSION_MS));
    let heard = desk.shard.heartbeat("g", &joined.member_id, None, joined.generation, desk.now);
    assert_eq!(heard, Ok(()), "what stood in the socket while all of the broker stood still counts");
    desk.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(desk.delete("g").0, Err(GroupError::NonEmptyGroup));
}
