//! Deletions of more offsets than one batch has room for: in parts, of which some may be written and others not.

use super::*;

const PARTITIONS: i32 = 20_000;
/// What the log takes in one batch unless it is set otherwise.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A group that had a member, and has committed offsets for very many partitions.
fn desk() -> Desk {
    let mut desk = Desk::new();
    let joined = desk.member("g");
    desk.sync("g", &joined);
    desk.write_all();
    let leaving = [Leaving { member_id: &joined.member_id, instance_id: None }];
    assert_eq!(desk.shard.leave("g", &leaving, desk.now), Ok(vec![Ok(())]));
    for partition in 0..PARTITIONS {
        desk.commit("g", partition, 1);
    }
    desk.write_all();
    assert_eq!(desk.count(), 20_000);
    desk
}

impl Desk {
    fn count(&self) -> usize {
        self.shard.offsets_of("g").expect("active").map_or(0, |offsets| offsets.all().len())
    }

    /// All of them at once.
    fn delete_offsets(&mut self, group: &str) -> oneshot::Receiver<Result<(), GroupError>> {
        let (reply, told) = oneshot::channel();
        let partitions: Vec<(&str, i32)> = (0..PARTITIONS).map(|partition| ("t", partition)).collect();
        let verdicts = self.shard.delete_offsets(group, &partitions, self.now, reply).expect("active");
        assert!(verdicts.iter().all(Result::is_ok));
        told
    }

    /// As a broker does that reads the log.
    fn restart(self) -> Desk {
        let mut shard = ShardState::new(Arc::clone(&self.shard.settings), Arc::default());
        shard.loaded(self.replayed(), self.now);
        Desk { shard, unwritten: VecDeque::new(), ..self }
    }

    fn largest_batch_since(&self, count: usize) -> usize {
        self.log[count..].iter().map(RecordBatch::size_bytes).max().expect("a batch")
    }
}

#[test]
fn a_deletion_in_parts_ends_with_the_group() {
    let mut desk = desk();
    let before = desk.log.len();
    let (accepted, mut told) = desk.delete("g");
    assert_eq!(accepted, Ok(()));
    assert!(desk.write(true));
    assert!(told.try_recv().is_err(), "there is more to be written");
    assert_eq!(desk.state("g"), GroupState::Dead, "nobody commits in between");
    desk.write_all();
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert!(desk.largest_batch_since(before) < BATCH_BYTES_MAX / 8);
    assert!(desk.shard.groups.is_empty() && desk.replayed().is_empty());
}

#[test]
fn a_deletion_of_which_a_part_cannot_be_written_is_told_and_can_be_asked_for_again() {
    let mut desk = desk();
    let (_, mut told) = desk.delete("g");
    assert!(desk.write(true) && desk.write(false));
    assert_eq!(told.try_recv(), Ok(Err(GroupError::CoordinatorNotAvailable)));
    assert!(!desk.write(true), "what follows is not written");
    assert_eq!(desk.state("g"), GroupState::Empty);
    let left = desk.count();
    assert!(left > 0 && left < 20_000);
    assert_eq!(desk.replayed()["g"].offsets.all().len(), left, "what is known is what the log says");
    let (_, mut told) = desk.delete("g");
    desk.write_all();
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert!(desk.shard.groups.is_empty() && desk.replayed().is_empty());
}

#[test]
fn a_deletion_that_a_crash_ends_half_way_leaves_a_group_that_can_be_deleted() {
    let mut desk = desk();
    let (_, told) = desk.delete("g");
    assert!(desk.write(true) && desk.write(true));
    drop(told);
    let mut desk = desk.restart();
    assert_eq!(desk.state("g"), GroupState::Empty);
    assert!(desk.count() > 0 && desk.count() < 20_000);
    let (_, mut told) = desk.delete("g");
    desk.write_all();
    assert_eq!(told.try_recv(), Ok(Ok(())));
    assert!(desk.shard.groups.is_empty() && desk.replayed().is_empty());
}

#[test]
fn offsets_expire_in_parts_and_then_the_group() {
    let mut desk = desk();
    let before = desk.log.len();
    desk.pass(WEEK_MS);
    desk.shard.expire(desk.now);
    assert!(desk.write(true) && desk.write(false));
    assert!(!desk.write(true), "the rest waits for the next time");
    assert_eq!(desk.state("g"), GroupState::Empty);
    desk.shard.expire(desk.now);
    desk.write_all();
    assert!(desk.largest_batch_since(before) < BATCH_BYTES_MAX / 8);
    assert!(desk.shard.groups.is_empty() && desk.replayed().is_empty());
}

/// An offset that is committed while others go is newer than what was found out about it.
#[test]
fn what_is_committed_while_offsets_go_stays() {
    for is_asked_for in [false, true] {
        let mut desk = desk();
        if is_asked_for {
            let _told = desk.delete_offsets("g");
        } else {
            desk.shard.delete_orphans(&|topic, _| topic == "t").expect("active");
        }
        assert!(desk.write(true));
        for partition in [0, 10_000, PARTITIONS - 1] {
            desk.commit("g", partition, 2);
        }
        desk.write_all();
        let left = [0, 10_000, PARTITIONS - 1].map(|partition| desk.fetch("g", partition));
        assert_eq!((left, desk.count()), ([Some(2); 3], 3), "asked for: {is_asked_for}");
        assert_eq!(desk.replayed()["g"].offsets.all().len(), 3);
    }
}

#[test]
fn who_asks_for_offsets_to_go_is_told_last_and_of_any_part_that_stayed() {
    for failing in [None, Some(0), Some(1)] {
        let mut desk = desk();
        let mut told = desk.delete_offsets("g");
        for part in 0..2 {
            assert!(desk.write(failing != Some(part)));
            assert!(told.try_recv().is_err(), "there is more to be written");
        }
        desk.write_all();
        let expected = if failing.is_some() { Err(GroupError::CoordinatorNotAvailable) } else { Ok(()) };
        assert_eq!(told.try_recv(), Ok(expected));
        assert_eq!(desk.count() > 0, failing.is_some());
    }
}
