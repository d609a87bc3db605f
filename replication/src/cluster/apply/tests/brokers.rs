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

/// What a fence costs goes with the partitions that there are, once each: every topic is made anew at most once, and those that
/// the broker has nothing of are shared.
#[test]
fn fencing_a_broker_of_ten_thousand_partitions_touches_each_once() {
    let mut image = cluster(4);
    let assignments: Vec<Vec<BrokerId>> =
        (0..100).map(|n| [0, 1, 2].map(|r| BrokerId(1 + (n + r) % 3)).to_vec()).collect();
    let make = |image: &mut ClusterImage, n: u128, assignments: &[Vec<BrokerId>]| {
        let (name, assignments) = (format!("t{n}"), assignments.to_vec());
        done(image, &Command::CreateTopic { name, id: id(n), assignments, settings: Vec::new() });
    };
    for n in 0..100 {
        make(&mut image, 1000 + n, &assignments);
        make(&mut image, 5000 + n, &[vec![BrokerId(4)]]);
    }
    let fence = fence(&image, 1);
    let (next, outcome) = apply(&image, &fence);
    outcome.unwrap();
    let led = image.topics().flat_map(|t| t.partitions.values()).filter(|p| p.leader == Some(BrokerId(1)));
    assert_eq!(led.count(), 3400);
    let mut changed = 0;
    for topic in image.topics() {
        let now = next.topic_by_id(topic.id).unwrap();
        if topic.partitions.len() == 1 {
            assert!(Arc::ptr_eq(now, topic), "broker 1 has nothing of it");
        } else {
            changed += now.partitions.differences(&topic.partitions).len();
        }
    }
    assert_eq!(changed, 10_000);
    for partition in next.topics().flat_map(|t| t.partitions.values()) {
        assert!(partition.leader.is_some_and(|leader| leader != BrokerId(1)));
        assert!(partition.partition_epoch <= 1, "once");
    }
}
