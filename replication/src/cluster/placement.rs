//! Which brokers hold a new partition: live ones, spread over racks, leaders even. Pure; chance comes in as a number. How
//! partitions go from and to a broker is in `balance`.

mod balance;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use floodmark_proto::ids::BrokerId;

use super::image::ClusterImage;
pub use balance::{place_drain, place_onto};

/// Why partitions cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Fewer live brokers than replicas.
    #[error("replication factor {wanted} is larger than the number of live brokers, {live}")]
    TooFewBrokers {
        /// Replicas wanted.
        wanted: usize,
        /// Brokers there are.
        live: usize,
    },
    /// A partition has at least one replica.
    #[error("the replication factor must be larger than 0")]
    NoReplicas,
    /// Every broker that could take a partition holds it already.
    #[error(
        "no broker can take partition {partition} of topic '{topic}' from broker {broker}: add one, or lower the factor"
    )]
    NobodyElse {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: u32,
        /// The broker that shall lose it.
        broker: BrokerId,
    },
    /// It is not there to take anything.
    #[error("broker {broker} is not registered, fenced, or about to stop")]
    NotLive {
        /// The broker.
        broker: BrokerId,
    },
}

/// What is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Number of the first new partition: 0 for a new topic, the count so far for one that is extended.
    pub first: u32,
    /// How many partitions.
    pub count: u32,
    /// Replicas of each.
    pub replication_factor: usize,
    /// Where in the ring of brokers the topic begins; by chance for each topic, so that small topics do not all begin alike.
    pub start: u64,
}

/// The replicas of each new partition, preferred leader first.
///
/// Leaders differ by at most one partition between brokers; the replicas of a partition stand in as many racks as there are,
/// where each broker says where it stands.
pub fn place(image: &ClusterImage, wanted: Wanted) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    let ring = ring(image);
    if wanted.replication_factor == 0 {
        return Err(PlacementError::NoReplicas);
    }
    if wanted.replication_factor > ring.len() {
        return Err(PlacementError::TooFewBrokers { wanted: wanted.replication_factor, live: ring.len() });
    }
    let partitions = wanted.first..wanted.first.saturating_add(wanted.count);
    Ok(partitions.map(|partition| replicas(&ring, wanted, u64::from(partition))).collect())
}

/// Live brokers with their racks, neighbours in different racks as far as racks go round.
fn ring(image: &ClusterImage) -> Vec<(BrokerId, Option<&str>)> {
    let live = || image.brokers().filter(|b| image.may_lead(b.id));
    // Where some say nothing, the racks of the others say too little.
    let has_racks = live().all(|b| b.rack.is_some());
    let mut racks: BTreeMap<Option<&str>, VecDeque<BrokerId>> = BTreeMap::new();
    for broker in live() {
        let rack = broker.rack.as_deref().filter(|_| has_racks);
        racks.entry(rack).or_default().push_back(broker.id);
    }
    let mut ring = Vec::new();
    while !racks.is_empty() {
        for (rack, brokers) in &mut racks {
            ring.extend(brokers.pop_front().map(|broker| (broker, *rack)));
        }
        racks.retain(|_, brokers| !brokers.is_empty());
    }
    ring
}

fn replicas(ring: &[(BrokerId, Option<&str>)], wanted: Wanted, partition: u64) -> Vec<BrokerId> {
    let brokers = ring.len() as u64;
    let leader = wanted.start.wrapping_add(partition) % brokers;
    // Each time round, followers begin one further: a broker that fails leaves its load to all others, not to one.
    let others = (brokers - 1).max(1);
    let shift = (partition / brokers) % others;
    let at = |n: u64| ring.get(((leader + n) % brokers) as usize);
    let walk: Vec<_> = (0..brokers - 1).filter_map(|n| at(1 + (n + shift) % others)).collect();
    let mut chosen: Vec<BrokerId> = Vec::with_capacity(wanted.replication_factor);
    let mut racks = BTreeSet::new();
    if let Some((broker, rack)) = at(0) {
        chosen.push(*broker);
        racks.insert(*rack);
    }
    for is_new_rack in [true, false] {
        for (broker, rack) in &walk {
            if chosen.len() < wanted.replication_factor
                && !chosen.contains(broker)
                && (!is_new_rack || racks.insert(*rack))
            {
                chosen.push(*broker);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests;
