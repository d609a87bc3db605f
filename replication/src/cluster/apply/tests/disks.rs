//! Disks that are gone: nobody counts what was on them as held.

use super::partitions::elect;
use super::*;

fn lose(image: &ClusterImage, broker: i32, partitions: &[(u128, u32)]) -> Command {
    Command::LoseReplicas {
        broker: BrokerId(broker),
        epoch: epoch(image, broker),
        partitions: partitions.iter().map(|(topic, n)| (id(*topic), *n)).collect(),
    }
}

fn with_directory(broker: i32, incarnation: u128, directory: u128) -> Command {
    let mut command = register(broker, incarnation);
    if let Command::RegisterBroker { directories, .. } = &mut command {
        *directories = vec![uuid::Uuid::from_u128(directory), uuid::Uuid::from_u128(77)];
    }
    command
}

/// R9: a broker that comes back with an empty disk is another one, and is told so.
#[test]
fn r9_another_disk_under_a_known_id_is_refused() {
    let mut image = cluster(1);
    let told = refused(&image, &with_directory(1, 2, 99));
    assert!(matches!(told, CommandError::OtherDirectory { broker: BrokerId(1), .. }), "{told}");
    let mut without = register(1, 2);
    if let Command::RegisterBroker { directories, .. } = &mut without {
        directories.clear();
    }
    assert!(matches!(refused(&image, &without), CommandError::OtherDirectory { .. }));
    // Other directories than the first may come and go.
    done(&mut image, &with_directory(1, 2, 1));
    assert_eq!(image.broker(BrokerId(1)).unwrap().directories.len(), 2);
    done(&mut image, &Command::RemoveBroker { broker: BrokerId(1), keeps_replicas: false });
    done(&mut image, &with_directory(1, 3, 99));
}

#[test]
fn a_cluster_of_the_first_level_keeps_no_directories_and_takes_no_newer_command() {
    let image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    let (mut image, outcome) = apply(&image, &register(1, 1));
    outcome.unwrap();
    assert!(image.broker(BrokerId(1)).unwrap().directories.is_empty());
    let stop = Command::BeginShutdown { broker: BrokerId(1), epoch: epoch(&image, 1) };
    assert_eq!(refused(&image, &stop), CommandError::NeedsFeatureLevel { needed: 2, current: 1 });
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    done(&mut image, &stop);
    // What was not known until now is taken from the next start.
    done(&mut image, &register(1, 2));
    assert!(matches!(refused(&image, &with_directory(1, 3, 9)), CommandError::OtherDirectory { .. }));
}

#[test]
fn a_broker_that_lost_a_disk_leaves_the_sets_of_what_was_on_it() {
    let mut image = cluster(3);
    done(&mut image, &create("t", 5, &[&[1, 2, 3], &[1, 2, 3]]));
    let command = lose(&image, 1, &[(5, 0), (5, 9), (8, 0)]);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(2), 1, vec![2, 3]));
    let other = image.topic("t").unwrap().partition(1).unwrap();
    assert_eq!((other.leader, other.isr.len()), (Some(BrokerId(1)), 3), "the other disk is well");
    let mut stale = lose(&image, 2, &[(5, 0)]);
    if let Command::LoseReplicas { epoch, .. } = &mut stale {
        epoch.0 += 1;
    }
    assert!(matches!(refused(&image, &stale), CommandError::StaleBrokerEpoch { .. }));
}

/// R10: the last replica in sync, back without its disk, leads nothing: an empty log must not pass for all there is.
#[test]
fn r10_the_last_replica_in_sync_that_lost_its_disk_does_not_lead() {
    let mut image = cluster(2);
    done(&mut image, &create("t", 5, &[&[1, 2]]));
    for broker in [2, 1] {
        let command = fence(&image, broker);
        done(&mut image, &command);
    }
    done(&mut image, &register(1, 2));
    let command = lose(&image, 1, &[(5, 0)]);
    done(&mut image, &command);
    for broker in [1, 2] {
        let command = unfence(&image, broker);
        done(&mut image, &command);
        assert_eq!(first_partition(&image, "t"), (None, 1, vec![1]));
    }
    assert_eq!(refused(&image, &elect(Election::InSync)), CommandError::NoEligibleLeader);
    let preferred = CommandError::PreferredLeaderNotAvailable { broker: BrokerId(1) };
    assert_eq!(refused(&image, &elect(Election::Preferred)), preferred);
    // Nor by another start of it.
    done(&mut image, &register(1, 3));
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t").0, None);
    // An order prefers the other one, which lacks less.
    done(&mut image, &elect(Election::Unclean));
    assert_eq!(first_partition(&image, "t"), (Some(2), 2, vec![2]));
    let command = fence(&image, 2);
    done(&mut image, &command);
    let command = unfence(&image, 2);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t").0, Some(2), "it is no longer lost");
}

#[test]
fn a_lost_partition_with_nobody_else_begins_anew_by_order_only() {
    let mut image = cluster(1);
    done(&mut image, &create("t", 5, &[&[1]]));
    let command = lose(&image, 1, &[(5, 0)]);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (None, 1, vec![1]));
    done(&mut image, &elect(Election::Unclean));
    assert_eq!(first_partition(&image, "t"), (Some(1), 2, vec![1]));
}

#[test]
fn a_broker_whose_disk_died_gets_its_replicas_back_on_another() {
    let mut image = cluster(3);
    done(&mut image, &create("t", 5, &[&[1, 2, 3]]));
    let command = fence(&image, 1);
    done(&mut image, &command);
    done(&mut image, &Command::RemoveBroker { broker: BrokerId(1), keeps_replicas: true });
    assert!(image.broker(BrokerId(1)).is_none());
    done(&mut image, &with_directory(1, 2, 99));
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert_eq!(
        first_partition(&image, "t"),
        (Some(2), 1, vec![2, 3]),
        "it is a follower that has nothing yet"
    );
    assert_eq!(image.topic("t").unwrap().partition(0).unwrap().replicas.len(), 3);
    // Not where it alone has what was acknowledged.
    for broker in [3, 2] {
        let command = fence(&image, broker);
        done(&mut image, &command);
    }
    let remove = Command::RemoveBroker { broker: BrokerId(2), keeps_replicas: true };
    assert_eq!(refused(&image, &remove), CommandError::LosesInSync { broker: BrokerId(2) });
}
