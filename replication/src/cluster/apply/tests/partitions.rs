//! In-sync sets and elections.

use super::*;

/// Three brokers, and a topic on all of them led by the first.
fn topic() -> ClusterImage {
    let mut image = cluster(3);
    done(&mut image, &create("t", 5, &[&[1, 2, 3]]));
    image
}

pub(super) fn isr(image: &ClusterImage, members: &[i32]) -> Command {
    let partition = image.topic("t").unwrap().partition(0).unwrap();
    Command::ChangeIsr {
        topic: id(5),
        partition: 0,
        leader: partition.leader.unwrap_or(BrokerId(1)),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: members.iter().map(|m| (BrokerId(*m), epoch(image, *m))).collect(),
    }
}

pub(super) fn elect(election: Election) -> Command {
    Command::ElectLeader { topic: id(5), partition: 0, election }
}

#[test]
fn the_leader_shrinks_and_grows_the_set() {
    let mut image = topic();
    let command = isr(&image, &[1, 3]);
    assert_eq!(done(&mut image, &command), Output::IsrChanged { partition_epoch: 1 });
    assert_eq!(first_partition(&image, "t"), (Some(1), 0, vec![1, 3]));
    let late = refused(&image, &command);
    assert_eq!(late, CommandError::StalePartitionEpoch { given: 0, current: 1 });
    let command = isr(&image, &[1, 2, 3]);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t").2, [1, 2, 3]);
}

#[test]
fn a_deposed_leader_and_a_follower_are_refused() {
    let mut image = topic();
    let old = isr(&image, &[1]);
    let command = fence(&image, 1);
    done(&mut image, &command);
    assert!(matches!(refused(&image, &old), CommandError::StaleLeaderEpoch { .. }));
    let mut follower = isr(&image, &[2]);
    if let Command::ChangeIsr { leader, .. } = &mut follower {
        *leader = BrokerId(3);
    }
    let error = CommandError::NotLeader { broker: BrokerId(3), leader: Some(BrokerId(2)) };
    assert_eq!(refused(&image, &follower), error);
}

/// R9: what a leader saw in sync was an earlier start of a broker, which may have lost its disk since.
#[test]
fn r9_an_earlier_start_of_a_broker_joins_no_in_sync_set() {
    let mut image = topic();
    let before = isr(&image, &[1, 2, 3]);
    let command = fence(&image, 3);
    done(&mut image, &command);
    assert!(matches!(
        refused(&image, &isr(&image, &[1, 2, 3])),
        CommandError::IneligibleReplica { broker: BrokerId(3), .. }
    ));
    done(&mut image, &register(3, 2));
    let command = unfence(&image, 3);
    done(&mut image, &command);
    // As the leader saw it before broker 3 lost its disk, with the partition's epoch of now.
    let (Command::ChangeIsr { isr: members, .. }, mut now) = (before, isr(&image, &[1, 2])) else { panic!() };
    if let Command::ChangeIsr { isr, .. } = &mut now {
        *isr = members;
    }
    let told = refused(&image, &now).to_string();
    assert_eq!(told, "broker 3 may not be in sync: it has registered again since");
}

#[test]
fn sets_that_make_no_sense_are_refused() {
    let image = topic();
    for (members, why) in [
        (&[][..], "invalid in-sync set: the leader, broker 1, is not in it"),
        (&[2, 3], "invalid in-sync set: the leader, broker 1, is not in it"),
        (&[1, 2, 2], "invalid in-sync set: broker 2 is named twice"),
    ] {
        assert_eq!(refused(&image, &isr(&image, members)).to_string(), why);
    }
    let mut larger = cluster(4);
    done(&mut larger, &create("t", 5, &[&[1, 2, 3]]));
    assert_eq!(
        refused(&larger, &isr(&larger, &[1, 4])).to_string(),
        "invalid in-sync set: broker 4 is no replica"
    );
}

#[test]
fn the_preferred_leader_comes_back_when_it_is_in_sync() {
    let mut image = topic();
    assert_eq!(refused(&image, &elect(Election::Preferred)), CommandError::ElectionNotNeeded);
    let command = fence(&image, 1);
    done(&mut image, &command);
    let unavailable = CommandError::PreferredLeaderNotAvailable { broker: BrokerId(1) };
    assert_eq!(refused(&image, &elect(Election::Preferred)), unavailable);
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert_eq!(refused(&image, &elect(Election::Preferred)), unavailable, "live, but not in sync");
    let command = isr(&image, &[1, 2, 3]);
    done(&mut image, &command);
    let elected = Output::LeaderElected { leader: BrokerId(1), leader_epoch: LeaderEpoch(2) };
    assert_eq!(done(&mut image, &elect(Election::Preferred)), elected);
}

#[test]
fn only_an_order_elects_a_replica_that_is_not_in_sync() {
    let mut image = topic();
    for broker in [2, 3, 1] {
        let command = fence(&image, broker);
        done(&mut image, &command);
    }
    assert_eq!(first_partition(&image, "t"), (None, 1, vec![1]));
    for election in [Election::InSync, Election::Unclean] {
        assert_eq!(refused(&image, &elect(election)), CommandError::NoEligibleLeader);
    }
    let command = unfence(&image, 3);
    done(&mut image, &command);
    assert_eq!(refused(&image, &elect(Election::InSync)), CommandError::NoEligibleLeader);
    let elected = Output::LeaderElected { leader: BrokerId(3), leader_epoch: LeaderEpoch(2) };
    assert_eq!(done(&mut image, &elect(Election::Unclean)), elected);
    assert_eq!(first_partition(&image, "t"), (Some(3), 2, vec![3]));
    assert_eq!(refused(&image, &elect(Election::Unclean)), CommandError::ElectionNotNeeded);
}

#[test]
fn epochs_that_are_used_up_end_elections_and_not_the_program() {
    let mut image = topic();
    let mut topic = Topic::clone(image.topic("t").unwrap());
    let mut last = topic.partition(0).unwrap().clone();
    last.leader_epoch = LeaderEpoch(i32::MAX);
    last.partition_epoch = i32::MAX;
    topic.partitions.insert(0, last);
    image.put_topic(Arc::new(topic));
    assert!(matches!(refused(&image, &isr(&image, &[1])), CommandError::InvalidIsr { .. }));
    let command = Command::DeleteTopic { topic: id(5) };
    done(&mut image, &command);
    assert_eq!(image.first_leader_epoch, LeaderEpoch(i32::MAX));
}

#[test]
fn what_is_not_there_is_named() {
    let image = topic();
    let elect = |topic, partition| Command::ElectLeader { topic, partition, election: Election::InSync };
    assert_eq!(refused(&image, &elect(id(9), 0)), CommandError::UnknownTopic { id: id(9) });
    assert_eq!(
        refused(&image, &elect(id(5), 1)),
        CommandError::UnknownPartition { topic: "t".to_owned(), partition: 1 }
    );
}

fn with_epochs(command: Command, leader_epoch: Option<i32>, partition_epoch: Option<i32>) -> Command {
    let Command::ChangeIsr { topic, partition, leader, leader_epoch: le, partition_epoch: pe, isr } = command
    else {
        panic!("{command:?}")
    };
    let leader_epoch = leader_epoch.map_or(le, LeaderEpoch);
    Command::ChangeIsr {
        topic,
        partition,
        leader,
        leader_epoch,
        partition_epoch: partition_epoch.unwrap_or(pe),
        isr,
    }
}

/// R7: what a replica had in an older leader epoch says nothing of the present one, also where the same broker leads again.
#[test]
fn r7_a_replica_joins_by_the_word_of_the_present_leader_epoch() {
    let mut image = topic();
    let shrunk = isr(&image, &[1, 2]);
    done(&mut image, &shrunk);
    for command in [fence(&image, 1), unfence(&image, 1)] {
        done(&mut image, &command);
    }
    let grown = isr(&image, &[2, 1]);
    done(&mut image, &grown);
    done(&mut image, &elect(Election::Preferred));
    assert_eq!(first_partition(&image, "t"), (Some(1), 2, vec![2, 1]));
    // Decided in epoch 0, when replica 3 had all that there was then.
    let late = with_epochs(isr(&image, &[1, 2, 3]), Some(0), None);
    let stale = CommandError::StaleLeaderEpoch { given: LeaderEpoch(0), current: LeaderEpoch(2) };
    assert_eq!(refused(&image, &late), stale);
    // The leader of now may say the same.
    let now = isr(&image, &[1, 2, 3]);
    done(&mut image, &now);
}

/// R11: the set changed on the controller's side while the leader's proposal was under way. The proposal knows nothing of it.
#[test]
fn r11_a_proposal_from_before_another_change_of_the_partition_is_refused() {
    let mut image = topic();
    let before = isr(&image, &[1, 2, 3]);
    // Broker 3 is fenced and comes back, in the same registration and leader epoch: what was written meanwhile it lacks.
    for command in [fence(&image, 3), unfence(&image, 3)] {
        done(&mut image, &command);
    }
    assert_eq!(first_partition(&image, "t"), (Some(1), 0, vec![1, 2]));
    assert_eq!(refused(&image, &before), CommandError::StalePartitionEpoch { given: 0, current: 1 });
    let ahead = with_epochs(isr(&image, &[1, 2]), None, Some(2));
    assert_eq!(refused(&image, &ahead), CommandError::StalePartitionEpoch { given: 2, current: 1 });
}
