//! What each broker carries, and what may not be done to voters and brokers.

use floodmark_replication::cluster::Output;

use super::*;
use crate::test_cluster::{create, done, live};

fn moved(image: &ClusterImage, topic: &str, replicas: &[i32]) -> ClusterImage {
    let topic = image.topic(topic).unwrap().id;
    let replicas = replicas.iter().map(|id| BrokerId(*id)).collect();
    let (image, outcome) = apply(image, &Command::MovePartition { topic, partition: 0, replicas });
    assert_eq!(outcome.unwrap(), Output::Done);
    image
}

#[test]
fn a_broker_carries_what_it_leads_and_what_it_holds() {
    let mut image = live(4);
    create(&mut image, "a", &[&[1, 2], &[2, 1]]);
    create(&mut image, "b", &[&[3, 1]]);
    let image = moved(&image, "b", &[4, 1]);
    let load = load(&image);
    let of = |id: i32| load[&BrokerId(id)];
    assert_eq!(of(1), Load { leaders: 1, replicas: 3, behind: 0 });
    assert_eq!(of(2), Load { leaders: 1, replicas: 2, behind: 0 });
    // What a move adds is carried, and not missed; what it takes away is carried until it ends.
    assert_eq!(of(4), Load { leaders: 0, replicas: 1, behind: 0 });
    assert_eq!(of(3).replicas, 1);
    let fence = Command::FenceBroker { broker: BrokerId(2), epoch: image.broker(BrokerId(2)).unwrap().epoch };
    let image = apply(&image, &fence).0;
    assert_eq!(super::load(&image)[&BrokerId(2)], Load { leaders: 0, replicas: 2, behind: 2 });
}

#[test]
fn voters_are_one_three_or_five_that_are_there() {
    let image = live(5);
    let fence = Command::FenceBroker { broker: BrokerId(5), epoch: image.broker(BrokerId(5)).unwrap().epoch };
    let image = apply(&image, &fence).0;
    let check = |before: &[i32], wanted: &[i32]| {
        let before: Vec<BrokerId> = before.iter().map(|id| BrokerId(*id)).collect();
        check_voters(&image, &before, &wanted.iter().map(|id| BrokerId(*id)).collect()).map_err(|e| e.message)
    };
    assert_eq!(check(&[1], &[1, 2, 3]), Ok(()));
    assert_eq!(check(&[1, 2, 3], &[4]), Ok(()));
    assert!(check(&[1], &[1, 2]).unwrap_err().contains("1, 3 or 5"));
    assert!(check(&[1], &[]).unwrap_err().contains("1, 3 or 5"));
    assert!(check(&[1], &[1, 2, 9]).unwrap_err().contains("broker 9 is not registered"));
    assert!(check(&[1], &[1, 2, 5]).unwrap_err().contains("broker 5 is fenced"));
    // One that votes and is away may stay while another is exchanged.
    assert_eq!(check(&[1, 2, 5], &[1, 3, 5]), Ok(()));
}

#[test]
fn a_broker_is_removed_when_nobody_needs_it() {
    let image = live(1);
    let serving = image.broker(BrokerId(1)).unwrap();
    let fenced = Broker { fenced: true, ..Broker::clone(serving) };
    let check = |known: Option<&Broker>, is_voter, replicas| {
        check_removal(known, BrokerId(1), is_voter, replicas).map_err(|e| e.message)
    };
    assert!(check(Some(serving), false, Some(0)).unwrap_err().contains("drain it and stop it first"));
    assert!(check(Some(&fenced), true, Some(0)).unwrap_err().contains("voters set"));
    assert!(check(Some(&fenced), false, Some(3)).unwrap_err().contains("holds 3 replicas"));
    assert_eq!(check(Some(&fenced), false, Some(0)), Ok(()));
    assert_eq!(check(Some(&fenced), false, None), Ok(()));
    // Forgotten by the image already, and still a member of the quorum.
    assert_eq!(check(None, false, Some(0)), Ok(()));
}

#[test]
fn a_removal_that_would_lose_records_names_their_partitions() {
    let mut image = live(3);
    let replicas: Vec<&[i32]> = vec![&[2]; 7];
    create(&mut image, "lone", &replicas);
    create(&mut image, "pair", &[&[2, 1]]);
    let two = BrokerId(2);
    let epoch = image.broker(two).unwrap().epoch;
    done(&mut image, &Command::FenceBroker { broker: two, epoch });
    let removal = |keeps_replicas| Command::RemoveBroker { broker: two, keeps_replicas };
    let refused = check_leaves_copies(&image, two, &removal(true)).unwrap_err();
    let named = "lone-0, lone-1, lone-2, lone-3, lone-4 and 2 more";
    assert!(refused.message.ends_with(named) && refused.message.contains("alone is in sync"), "{refused}");
    assert!(check_leaves_copies(&image, two, &removal(false)).unwrap_err().message.contains("holds 8"));
    let lone = image.topic("lone").unwrap().id;
    done(&mut image, &Command::DeleteTopic { topic: lone });
    assert_eq!(check_leaves_copies(&image, two, &removal(true)), Ok(()));
}
