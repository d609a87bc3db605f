//! Registration and fencing.

use super::*;

#[test]
fn a_registered_broker_is_fenced_until_it_is_ready() {
    let mut image = empty();
    let Output::BrokerRegistered { epoch } = done(&mut image, &register(1, 1)) else { panic!() };
    assert!(!image.is_live(BrokerId(1)));
    done(&mut image, &Command::UnfenceBroker { broker: BrokerId(1), epoch });
    assert!(image.is_live(BrokerId(1)));
    let stale = Command::UnfenceBroker { broker: BrokerId(1), epoch: BrokerEpoch(epoch.0 + 1) };
    assert!(matches!(refused(&image, &stale), CommandError::StaleBrokerEpoch { .. }));
    let unknown = Command::FenceBroker { broker: BrokerId(9), epoch };
    assert_eq!(refused(&image, &unknown), CommandError::UnknownBroker { broker: BrokerId(9) });
}

#[test]
fn the_same_incarnation_registers_again_without_losing_anything() {
    let mut image = cluster(1);
    done(&mut image, &create("t", 5, &[&[1]]));
    let before = first_partition(&image, "t");
    let epoch = epoch(&image, 1);
    assert_eq!(done(&mut image, &register(1, 1)), Output::BrokerRegistered { epoch });
    assert!(image.is_live(BrokerId(1)));
    assert_eq!(first_partition(&image, "t"), before);
}

#[test]
fn a_broker_that_starts_again_leads_again_in_a_new_epoch() {
    let mut image = cluster(1);
    done(&mut image, &create("t", 5, &[&[1]]));
    assert_eq!(first_partition(&image, "t"), (Some(1), 0, vec![1]));
    let before = epoch(&image, 1);
    done(&mut image, &register(1, 2));
    assert!(epoch(&image, 1) > before);
    assert_eq!(first_partition(&image, "t"), (None, 1, vec![1]));
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(1), 2, vec![1]));
}

#[test]
fn another_replica_in_sync_takes_over() {
    let mut image = cluster(3);
    done(&mut image, &create("t", 5, &[&[1, 2, 3]]));
    let command = fence(&image, 1);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(2), 1, vec![2, 3]));
    // A follower only leaves the set.
    let command = fence(&image, 3);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(2), 1, vec![2]));
    // The last one in sync stays so, alive or not.
    let command = fence(&image, 2);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (None, 2, vec![2]));
    for broker in [1, 3] {
        let command = unfence(&image, broker);
        done(&mut image, &command);
        assert_eq!(
            first_partition(&image, "t"),
            (None, 2, vec![2]),
            "broker {broker} lacks what was acknowledged"
        );
    }
    let command = unfence(&image, 2);
    done(&mut image, &command);
    assert_eq!(first_partition(&image, "t"), (Some(2), 3, vec![2]));
}

#[test]
fn names_and_endpoints_have_bounds() {
    let image = empty();
    let with = |change: fn(&mut Option<String>, &mut Vec<Endpoint>)| {
        let mut command = register(1, 1);
        if let Command::RegisterBroker { rack, endpoints, .. } = &mut command {
            change(rack, endpoints);
        }
        command
    };
    let long = with(|rack, _| *rack = Some("r".repeat(256)));
    assert!(matches!(refused(&image, &long), CommandError::LimitExceeded { limit: 255, .. }));
    let many = with(|_, endpoints| *endpoints = vec![endpoints[0].clone(); 65]);
    assert!(matches!(refused(&image, &many), CommandError::LimitExceeded { limit: 64, .. }));
}
