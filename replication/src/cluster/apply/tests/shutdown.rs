//! A broker that stops: it hands over first and goes afterwards.

use super::partitions::{elect, isr};
use super::*;

fn begin_shutdown(image: &ClusterImage, broker: i32) -> Command {
    Command::BeginShutdown { broker: BrokerId(broker), epoch: epoch(image, broker) }
}

#[test]
fn what_it_leads_goes_to_others_and_it_stays_in_sync_until_it_is_fenced() {
    let mut image = cluster(3);
    done(&mut image, &create("t", 5, &[&[1, 2, 3]]));
    done(&mut image, &create("alone", 6, &[&[1]]));
    let command = begin_shutdown(&image, 1);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(2), 1, vec![1, 2, 3]));
    assert_eq!(first_partition(&image, "alone"), (Some(1), 0, vec![1]), "nobody else has it");
    assert!(image.is_live(BrokerId(1)) && !image.may_lead(BrokerId(1)));
    let unavailable = CommandError::PreferredLeaderNotAvailable { broker: BrokerId(1) };
    assert_eq!(refused(&image, &elect(Election::Preferred)), unavailable);
    // Said twice it changes no more.
    let partition = image.topic("t").unwrap().partition(0).unwrap().clone();
    done(&mut image, &command);
    assert_eq!(image.topic("t").unwrap().partition(0), Some(&partition));
    let command = fence(&image, 1);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(2), 1, vec![2, 3]));
    assert_eq!(first_partition(&image, "alone"), (None, 1, vec![1]));
    // Its next start ends that.
    done(&mut image, &register(1, 2));
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert!(image.may_lead(BrokerId(1)));
    assert_eq!(first_partition(&image, "alone"), (Some(1), 2, vec![1]));
}

#[test]
fn the_same_incarnation_goes_on_stopping() {
    let mut image = cluster(1);
    let command = begin_shutdown(&image, 1);
    done(&mut image, &command);
    done(&mut image, &register(1, 1));
    assert!(!image.may_lead(BrokerId(1)));
}

#[test]
fn new_topics_pass_it_over() {
    let mut image = cluster(2);
    let command = begin_shutdown(&image, 1);
    done(&mut image, &command);
    done(&mut image, &create("t", 5, &[&[1, 2]]));
    assert_eq!(first_partition(&image, "t"), (Some(2), 0, vec![2]));
    assert!(matches!(refused(&image, &create("u", 6, &[&[1]])), CommandError::InvalidAssignment { .. }));
}

/// R8: neither a fenced broker nor one that stops joins an in-sync set.
#[test]
fn r8_a_broker_that_stops_joins_no_in_sync_set() {
    let mut image = cluster(3);
    done(&mut image, &create("t", 5, &[&[1, 2, 3]]));
    let command = isr(&image, &[1, 2]);
    done(&mut image, &command);
    let command = begin_shutdown(&image, 3);
    done(&mut image, &command);
    let told = refused(&image, &isr(&image, &[1, 2, 3])).to_string();
    assert_eq!(told, "broker 3 may not be in sync: it is about to stop");
    // One that was in it already does not keep the leader from changing the rest of the set.
    let command = begin_shutdown(&image, 2);
    done(&mut image, &command);
    let command = isr(&image, &[1, 2]);
    done(&mut image, &command);
    let command = fence(&image, 3);
    done(&mut image, &command);
    let told = refused(&image, &isr(&image, &[1, 2, 3])).to_string();
    assert_eq!(told, "broker 3 may not be in sync: it is fenced");
}

#[test]
fn only_a_broker_that_is_gone_and_holds_nothing_is_removed() {
    let mut image = cluster(2);
    done(&mut image, &create("t", 5, &[&[1, 2]]));
    let remove = Command::RemoveBroker { broker: BrokerId(2), keeps_replicas: false };
    assert_eq!(refused(&image, &remove), CommandError::BrokerNotFenced { broker: BrokerId(2) });
    let command = fence(&image, 2);
    done(&mut image, &command);
    let holds = CommandError::BrokerHoldsReplicas { broker: BrokerId(2), partitions: 1 };
    assert_eq!(refused(&image, &remove), holds);
    done(&mut image, &Command::DeleteTopic { topic: id(5) });
    done(&mut image, &remove);
    assert_eq!(refused(&image, &remove), CommandError::UnknownBroker { broker: BrokerId(2) });
    let again = epoch(&cluster(2), 2);
    done(&mut image, &register(2, 1));
    assert!(epoch(&image, 2) > again, "what was told to the one before means nothing to this one");
}
