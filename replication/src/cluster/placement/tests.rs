//! Every placement is legal, even, and spread over racks.

use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, ClusterId, TopicId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::image::Broker;
use super::super::{Command, apply};
use super::*;

/// Brokers with their racks, and whether they are fenced.
fn image(brokers: &[(Option<u8>, bool)]) -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([1; 16]));
    let broker = |(n, (rack, fenced)): (i32, &(Option<u8>, bool))| {
        let broker = Broker {
            id: BrokerId(n),
            incarnation: uuid::Uuid::nil(),
            epoch: BrokerEpoch(0),
            fenced: *fenced,
            rack: rack.map(|r| format!("rack{r}")),
            endpoints: Vec::new(),
            feature_levels: (1, 2),
            directories: Vec::new(),
            stopping: false,
            in_sync_defaults: None,
        };
        (BrokerId(n), Arc::new(broker))
    };
    image.brokers = Arc::new((0..).zip(brokers).map(broker).collect());
    image
}

proptest! {
    #[test]
    fn placements_are_legal_and_even(
        brokers in vec((proptest::option::weighted(0.9, 0u8..4), proptest::bool::weighted(0.2)), 1..12),
        first in 0u32..50,
        count in 1u32..60,
        replication_factor in 0usize..5,
        start in any::<u64>(),
    ) {
        let image = image(&brokers);
        let live: Vec<BrokerId> = image.brokers().filter(|b| !b.fenced).map(|b| b.id).collect();
        let wanted = Wanted { first, count, replication_factor, start };
        let placed = match place(&image, wanted) {
            Ok(placed) => placed,
            Err(PlacementError::NoReplicas) => {
                prop_assert_eq!(replication_factor, 0);
                return Ok(());
            }
            Err(PlacementError::TooFewBrokers { wanted, live: found }) => {
                prop_assert!(wanted == replication_factor && found == live.len() && found < wanted);
                return Ok(());
            }
            Err(other) => panic!("{other}"),
        };
        prop_assert_eq!(placed.len(), count as usize);
        let rack = |id: BrokerId| image.broker(id).and_then(|b| b.rack.clone());
        let racks: BTreeSet<_> = live.iter().map(|id| rack(*id)).collect();
        for replicas in &placed {
            let distinct: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(distinct.len(), replication_factor);
            prop_assert!(replicas.iter().all(|r| live.contains(r)));
            if racks.iter().all(Option::is_some) {
                let used: BTreeSet<_> = replicas.iter().map(|id| rack(*id)).collect();
                prop_assert_eq!(used.len(), racks.len().min(replication_factor));
            }
        }
        let leads = |id: &BrokerId| placed.iter().filter(|r| r.first() == Some(id)).count();
        let (least, most) = (live.iter().map(leads).min().unwrap(), live.iter().map(leads).max().unwrap());
        prop_assert!(most - least <= 1, "{least} to {most} leaders");
    }
}

#[test]
fn followers_of_one_leader_differ() {
    let image = image(&[(None, false); 4]);
    let wanted = Wanted { first: 0, count: 12, replication_factor: 2, start: 0 };
    let placed = place(&image, wanted).unwrap();
    let of_first: BTreeSet<_> = placed.iter().filter(|r| r[0] == BrokerId(0)).map(|r| r[1]).collect();
    assert_eq!(of_first.len(), 3);
}

/// `topics` of one partition or more, placed over the live brokers of `image`, and what applying `moves` and letting each end makes
/// of them.
fn with_topics(image: &ClusterImage, topics: &[(u32, usize)]) -> ClusterImage {
    let mut image = image.clone();
    for (n, (count, replication_factor)) in (2u128..).zip(topics) {
        let wanted =
            Wanted { first: 0, count: *count, replication_factor: *replication_factor, start: n as u64 };
        let create = Command::CreateTopic {
            name: format!("t{n}"),
            id: TopicId::from_bytes(n.to_be_bytes()).unwrap(),
            assignments: place(&image, wanted).unwrap(),
            settings: Vec::new(),
        };
        image = done(&image, &create);
    }
    image
}

fn done(image: &ClusterImage, command: &Command) -> ClusterImage {
    let (next, outcome) = apply(image, command);
    outcome.unwrap();
    next
}

fn loads(image: &ClusterImage) -> BTreeMap<BrokerId, (usize, usize)> {
    let mut loads: BTreeMap<BrokerId, (usize, usize)> = image.brokers().map(|b| (b.id, (0, 0))).collect();
    for partition in image.topics().flat_map(|t| t.partitions.values()) {
        for (place, replica) in partition.target().enumerate() {
            let load = loads.get_mut(&replica).unwrap();
            *load = (load.0 + usize::from(place == 0), load.1 + 1);
        }
    }
    loads
}

fn racks_of(image: &ClusterImage, replicas: impl Iterator<Item = BrokerId>) -> usize {
    replicas.map(|r| image.broker(r).and_then(|b| b.rack.clone())).collect::<BTreeSet<_>>().len()
}

proptest! {
    #[test]
    fn a_drained_broker_holds_nothing_and_its_load_goes_to_all(
        racks in vec(proptest::option::of(0u8..3), 4..8),
        topics in vec((1u32..20, 1usize..4), 1..6),
        drained in 0i32..4,
    ) {
        let brokers: Vec<_> = racks.iter().map(|rack| (*rack, false)).collect();
        let mut image = with_topics(&image(&brokers), &topics);
        image.feature_level = 2;
        let drained = BrokerId(drained);
        let racks_before: Vec<usize> = image.topics().flat_map(|t| t.partitions.values())
            .map(|p| racks_of(&image, p.target().filter(|r| *r != drained))).collect();
        for command in place_drain(&image, drained).unwrap() {
            image = done(&image, &command);
        }
        let loads = loads(&image);
        prop_assert_eq!(loads[&drained], (0, 0));
        prop_assert!(place_drain(&image, drained).unwrap().is_empty(), "what moves away is left alone");
        let after = image.topics().flat_map(|t| t.partitions.values()).map(|p| racks_of(&image, p.target()));
        for (before, after) in racks_before.into_iter().zip(after) {
            prop_assert!(after >= before);
        }
        if racks.iter().all(Option::is_none) {
            let others = || loads.iter().filter(|(id, _)| **id != drained).map(|(_, (_, replicas))| *replicas);
            let (least, most) = (others().min().unwrap(), others().max().unwrap());
            // As even as the start was, with what each topic left over.
            prop_assert!(most - least <= 2 + topics.len(), "{least} to {most}");
        }
    }

    #[test]
    fn a_new_broker_gets_its_share_and_takes_it_from_those_with_more(
        count in 3usize..7,
        topics in vec((1u32..20, 1usize..4), 1..6),
    ) {
        let (mut image, new) = with_a_new_broker(count, &topics);
        let before = loads(&image);
        let moves = place_onto(&image, new).unwrap();
        for command in &moves {
            image = done(&image, command);
        }
        let after = loads(&image);
        let total: usize = after.values().map(|(_, replicas)| replicas).sum();
        let share = total / (count + 1);
        prop_assert!(after[&new].1 <= share && after[&new].1 == moves.len());
        prop_assert!(after[&new].1 + 2 >= share, "{after:?}");
        for (id, load) in before.iter().filter(|(id, _)| **id != new) {
            prop_assert!(after[id].1 <= load.1 && (after[id].1 == load.1 || after[id].1 >= share));
        }
        prop_assert!(place_onto(&image, new).unwrap().len() <= 2, "nothing that moves moves again");
    }
}

/// So many brokers with these topics, and one more that has nothing.
fn with_a_new_broker(count: usize, topics: &[(u32, usize)]) -> (ClusterImage, BrokerId) {
    let mut image = with_topics(&image(&vec![(None, false); count]), topics);
    image.feature_level = 2;
    let new = BrokerId(i32::try_from(count).unwrap());
    let broker = Broker { id: new, ..Broker::clone(image.broker(BrokerId(0)).unwrap()) };
    Arc::make_mut(&mut image.brokers).insert(new, Arc::new(broker));
    (image, new)
}

#[test]
fn a_new_broker_gets_no_more_of_a_topic_than_its_part_of_it() {
    for topics in
        [&[(6, 3), (3, 1)][..], &[(3, 1), (6, 3)], &[(12, 3), (3, 1), (6, 2)], &[(4, 1), (12, 2)], &[(8, 1)]]
    {
        let (mut image, new) = with_a_new_broker(3, topics);
        for command in place_onto(&image, new).unwrap() {
            image = done(&image, &command);
        }
        for topic in image.topics() {
            let targets = topic.partitions.values().map(|p| p.target().collect::<Vec<_>>());
            let (all, own) = targets.fold((0, 0), |(all, own), target| {
                (all + target.len(), own + usize::from(target.contains(&new)))
            });
            assert!(own <= all.div_ceil(4), "{topics:?}: {own} of {all} replicas of {}", topic.name);
        }
    }
}

#[test]
fn a_broker_that_nobody_can_stand_in_for_is_not_drained() {
    let mut image = with_topics(&image(&[(None, false); 3]), &[(1, 3)]);
    let told = place_drain(&image, BrokerId(1)).unwrap_err();
    assert!(matches!(&told, PlacementError::NobodyElse { partition: 0, broker: BrokerId(1), .. }), "{told}");
    assert_eq!(place_onto(&image, BrokerId(9)), Err(PlacementError::NotLive { broker: BrokerId(9) }));
    let stopping = Broker { stopping: true, ..Broker::clone(image.broker(BrokerId(0)).unwrap()) };
    Arc::make_mut(&mut image.brokers).insert(BrokerId(0), Arc::new(stopping));
    assert_eq!(place_onto(&image, BrokerId(0)), Err(PlacementError::NotLive { broker: BrokerId(0) }));
    let wanted = Wanted { first: 0, count: 1, replication_factor: 3, start: 0 };
    assert_eq!(place(&image, wanted), Err(PlacementError::TooFewBrokers { wanted: 3, live: 2 }));
}
