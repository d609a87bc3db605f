//! Partitions that move: when they are complete, and that nothing is lost on the way.

use super::partitions::isr;
use super::*;

fn move_to(target: &[i32]) -> Command {
    let replicas = target.iter().copied().map(BrokerId).collect();
    Command::MovePartition { topic: id(5), partition: 0, replicas }
}

const CANCEL: fn() -> Command = || Command::CancelMove { topic: id(5), partition: 0 };

fn partition(image: &ClusterImage) -> Partition {
    image.topic("t").unwrap().partition(0).unwrap().clone()
}

fn finish(image: &ClusterImage) -> Command {
    Command::FinishMove { topic: id(5), partition: 0, partition_epoch: partition(image).partition_epoch }
}

/// Replicas, those added, those removed, in-sync set.
fn shape(image: &ClusterImage) -> [Vec<i32>; 4] {
    let p = partition(image);
    [p.replicas, p.adding, p.removing, p.isr].map(|ids| ids.iter().map(|r| r.0).collect())
}

/// Five brokers, and a topic on three of them led by the first.
fn topic() -> ClusterImage {
    let mut image = cluster(5);
    done(&mut image, &create("t", 5, &[&[1, 2, 3]]));
    image
}

fn in_sync(image: &mut ClusterImage, members: &[i32]) {
    let command = isr(image, members);
    done(image, &command);
}

#[test]
fn a_move_adds_then_leads_from_the_target_then_removes() {
    let mut image = topic();
    done(&mut image, &move_to(&[4, 2, 5]));
    assert_eq!(shape(&image), [vec![4, 2, 5, 1, 3], vec![4, 5], vec![1, 3], vec![1, 2, 3]]);
    assert_eq!(partition(&image).leader, Some(BrokerId(1)));
    in_sync(&mut image, &[1, 2, 3, 4]);
    assert_eq!(refused(&image, &finish(&image)), CommandError::NoMove { what: "finished".into() });
    // The last of the target is in sync: the target leads, and nobody has left yet.
    let command = isr(&image, &[1, 2, 3, 4, 5]);
    let answer = partition(&image).partition_epoch + 1;
    assert_eq!(done(&mut image, &command), Output::IsrChanged { partition_epoch: answer });
    let now = partition(&image);
    assert_eq!((now.leader, now.leader_epoch.0, now.isr.len()), (Some(BrokerId(4)), 1, 5));
    assert_eq!(now.partition_epoch, answer + 1, "what follows from the answer has an epoch of its own");
    let stale = finish(&image);
    in_sync(&mut image, &[1, 2, 4, 5]);
    assert!(matches!(refused(&image, &stale), CommandError::StalePartitionEpoch { .. }));
    let command = finish(&image);
    done(&mut image, &command);
    assert_eq!(shape(&image), [vec![4, 2, 5], vec![], vec![], vec![2, 4, 5]]);
    assert_eq!(refused(&image, &finish(&image)), CommandError::NoMove { what: "finished".into() });
}

#[test]
fn a_move_is_not_finished_while_one_of_its_target_is_behind() {
    let mut image = topic();
    done(&mut image, &move_to(&[1, 2, 4]));
    assert_eq!(refused(&image, &finish(&image)), CommandError::NoMove { what: "finished".into() });
    in_sync(&mut image, &[1, 2, 3, 4]);
    in_sync(&mut image, &[1, 3, 4]);
    assert_eq!(refused(&image, &finish(&image)), CommandError::NoMove { what: "finished".into() });
    in_sync(&mut image, &[1, 2, 3, 4]);
    let command = finish(&image);
    done(&mut image, &command);
    assert_eq!(shape(&image), [vec![1, 2, 4], vec![], vec![], vec![1, 2, 4]]);
}

#[test]
fn fewer_replicas_wait_for_a_leader_that_stays() {
    let mut image = topic();
    done(&mut image, &move_to(&[2, 3]));
    assert_eq!(partition(&image).leader, Some(BrokerId(2)));
    assert_eq!(shape(&image), [vec![2, 3, 1], vec![], vec![1], vec![1, 2, 3]]);
    let command = finish(&image);
    done(&mut image, &command);
    assert_eq!(shape(&image), [vec![2, 3], vec![], vec![], vec![2, 3]]);
}

#[test]
fn another_order_is_no_move_and_the_same_target_no_change() {
    let mut image = topic();
    let before = partition(&image);
    done(&mut image, &move_to(&[1, 2, 3]));
    assert_eq!(partition(&image), before);
    done(&mut image, &move_to(&[3, 1, 2]));
    assert!(!partition(&image).is_moving());
    assert_eq!(shape(&image)[0], [3, 1, 2]);
    assert_eq!(partition(&image).leader, Some(BrokerId(1)));
}

#[test]
fn a_move_is_taken_back_at_any_moment_before_its_end() {
    for synced in [&[1, 2, 3][..], &[1, 2, 3, 4]] {
        let mut image = topic();
        done(&mut image, &move_to(&[1, 2, 4]));
        in_sync(&mut image, synced);
        done(&mut image, &CANCEL());
        assert_eq!(shape(&image), [vec![1, 2, 3], vec![], vec![], vec![1, 2, 3]]);
        assert_eq!(refused(&image, &CANCEL()), CommandError::NoMove { what: "cancelled".into() });
    }
}

#[test]
fn an_added_replica_that_leads_gives_the_lead_back_before_it_goes() {
    let mut image = topic();
    done(&mut image, &move_to(&[4, 2]));
    in_sync(&mut image, &[1, 2, 3, 4]);
    assert_eq!(partition(&image).leader, Some(BrokerId(4)));
    done(&mut image, &CANCEL());
    assert_eq!(partition(&image).leader, Some(BrokerId(2)));
    assert_eq!(shape(&image), [vec![2, 1, 3, 4], vec![], vec![4], vec![1, 2, 3, 4]]);
    let command = finish(&image);
    done(&mut image, &command);
    assert_eq!(shape(&image), [vec![2, 1, 3], vec![], vec![], vec![1, 2, 3]]);
}

#[test]
fn another_move_takes_the_place_of_one_under_way() {
    let mut image = topic();
    done(&mut image, &move_to(&[4, 2, 3]));
    done(&mut image, &move_to(&[5, 2, 3]));
    assert_eq!(shape(&image), [vec![5, 2, 3, 1], vec![5], vec![1], vec![1, 2, 3]]);
}

#[test]
fn a_move_never_loses_the_last_replica_in_sync() {
    let mut image = topic();
    done(&mut image, &move_to(&[4]));
    in_sync(&mut image, &[1, 2, 3, 4]);
    assert_eq!(partition(&image).leader, Some(BrokerId(4)));
    // The others fall behind, then the one that alone has everything goes: the move cannot be taken back without it.
    in_sync(&mut image, &[4]);
    let command = fence(&image, 4);
    done(&mut image, &command);
    assert_eq!(refused(&image, &CANCEL()), CommandError::LosesInSync { broker: BrokerId(4) });
    assert_eq!(refused(&image, &move_to(&[5])), CommandError::LosesInSync { broker: BrokerId(4) });
    assert_eq!(refused(&image, &move_to(&[1, 2, 3])), CommandError::LosesInSync { broker: BrokerId(4) });
}

#[test]
fn a_target_is_somebody_who_can_take_it() {
    let mut image = topic();
    let command = fence(&image, 5);
    done(&mut image, &command);
    let command = Command::BeginShutdown { broker: BrokerId(4), epoch: epoch(&image, 4) };
    done(&mut image, &command);
    for (target, why) in [
        (&[][..], "it has no replicas"),
        (&[1, 1], "broker 1 is named twice"),
        (&[1, 9], "broker 9 is not registered"),
        (&[1, 5], "broker 5 is not there to take it: it is fenced or about to stop"),
        (&[1, 4], "broker 4 is not there to take it: it is fenced or about to stop"),
    ] {
        let reason = why.to_owned();
        let invalid = CommandError::InvalidAssignment { partition: 0, reason };
        assert_eq!(refused(&image, &move_to(target)), invalid);
    }
    // A member that is away may stay a member.
    let command = fence(&image, 3);
    done(&mut image, &command);
    done(&mut image, &move_to(&[2, 3]));
}
