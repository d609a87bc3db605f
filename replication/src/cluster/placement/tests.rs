//! Every placement is legal, even, and spread over racks.

use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, ClusterId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::image::Broker;
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
