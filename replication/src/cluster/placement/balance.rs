//! Moves that empty a broker, and moves that give a new one its share.

use std::collections::{BTreeMap, BTreeSet};

use floodmark_proto::ids::{BrokerId, TopicId};

use super::super::command::Command;
use super::super::image::{ClusterImage, Topic};
use super::PlacementError;

/// What a broker has: partitions that prefer it as leader, and partitions in all.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    leaders: usize,
    replicas: usize,
}

/// Where every partition shall lie, and what that makes of brokers.
struct Plan<'a> {
    image: &'a ClusterImage,
    loads: BTreeMap<BrokerId, Load>,
    moves: Vec<Command>,
}

/// Moves after which `broker` holds nothing: each partition goes to a broker with few of them, in another rack than its
/// other replicas where there is one. What already moves away is left alone.
pub fn place_drain(image: &ClusterImage, broker: BrokerId) -> Result<Vec<Command>, PlacementError> {
    let mut plan = Plan::new(image);
    for (topic, index, target) in targets(image) {
        let Some(place) = target.iter().position(|r| *r == broker) else { continue };
        let others: Vec<BrokerId> = target.iter().copied().filter(|r| *r != broker).collect();
        let to = plan.least_loaded(broker, &others, place == 0).ok_or_else(|| {
            PlacementError::NobodyElse { topic: topic.name.to_string(), partition: index, broker }
        })?;
        plan.replace(topic.id, index, &target, place, to);
    }
    Ok(plan.moves)
}

/// Moves that give `broker` as many partitions and preferred leaderships as the others then have. Only brokers with more than
/// that give, no rack loses its only replica of a partition, and nothing that moves already is touched.
pub fn place_onto(image: &ClusterImage, broker: BrokerId) -> Result<Vec<Command>, PlacementError> {
    let mut plan = Plan::new(image);
    let live = plan.loads.len().max(1);
    if !plan.loads.contains_key(&broker) {
        return Err(PlacementError::NotLive { broker });
    }
    let mut all = targets(image);
    // By number first, so that each topic gives some.
    all.sort_by_key(|(_, index, _)| *index);
    let share = Load {
        leaders: all.len() / live,
        replicas: all.iter().map(|(_, _, target)| target.len()).sum::<usize>() / live,
    };
    let free = |(topic, index, target): &(&Topic, u32, Vec<BrokerId>)| {
        !target.contains(&broker) && topic.partition(*index).is_some_and(|p| !p.is_moving())
    };
    all.retain(free);
    // Followers before leaders: a partition can be taken once, and one that has a leader alone gives nothing else. A topic gives no more than
    // its own part, or all leaders would be taken from those with a single copy; unless the share is not reached without.
    let followers = share.replicas.saturating_sub(share.leaders);
    let mut parts = parts(image, broker, live);
    for is_spread in [true, false] {
        for (wants_leaders, up_to) in [(false, followers), (true, share.replicas), (false, share.replicas)] {
            all.retain(|(topic, index, target)| {
                let part = parts.entry(topic.id).or_default();
                let is_full = is_spread && *part == 0;
                if is_full || plan.loads.get(&broker).is_none_or(|own| own.replicas >= up_to) {
                    return true;
                }
                let Some(place) = plan.surplus(target, broker, share, wants_leaders) else { return true };
                *part = part.saturating_sub(1);
                plan.replace(topic.id, *index, target, place, broker);
                false
            });
        }
    }
    Ok(plan.moves)
}

/// How many replicas of each topic `broker` lacks to have as many as each of `live` brokers would have, rounded up.
fn parts(image: &ClusterImage, broker: BrokerId, live: usize) -> BTreeMap<TopicId, usize> {
    let (mut all, mut own) = (BTreeMap::<TopicId, usize>::new(), BTreeMap::<TopicId, usize>::new());
    for (topic, _, target) in targets(image) {
        *all.entry(topic.id).or_default() += target.len();
        *own.entry(topic.id).or_default() += usize::from(target.contains(&broker));
    }
    let part = |(topic, count): (TopicId, usize)| {
        (topic, count.div_ceil(live).saturating_sub(own.get(&topic).copied().unwrap_or_default()))
    };
    all.into_iter().map(part).collect()
}

impl<'a> Plan<'a> {
    fn new(image: &'a ClusterImage) -> Plan<'a> {
        let live = image.brokers().filter(|b| image.may_lead(b.id));
        let mut loads: BTreeMap<BrokerId, Load> = live.map(|b| (b.id, Load::default())).collect();
        for (_, _, target) in targets(image) {
            for (place, replica) in target.iter().enumerate() {
                if let Some(load) = loads.get_mut(replica) {
                    load.replicas += 1;
                    load.leaders += usize::from(place == 0);
                }
            }
        }
        Plan { image, loads, moves: Vec::new() }
    }

    /// Who takes the place of `broker` beside `others`.
    fn least_loaded(&self, broker: BrokerId, others: &[BrokerId], is_first: bool) -> Option<BrokerId> {
        let racks: BTreeSet<_> = others.iter().map(|r| self.rack(*r)).collect();
        let candidates = self.loads.iter().filter(|(id, _)| **id != broker && !others.contains(id));
        let cost = |(id, load): &(&BrokerId, &Load)| {
            let clashes = racks.contains(&self.rack(**id));
            (clashes, if is_first { load.leaders } else { 0 }, load.replicas, **id)
        };
        candidates.min_by_key(cost).map(|(id, _)| *id)
    }

    /// The place in `target` that `broker` may take from one that has more than its share.
    fn surplus(
        &self,
        target: &[BrokerId],
        broker: BrokerId,
        share: Load,
        wants_leaders: bool,
    ) -> Option<usize> {
        let own = self.loads.get(&broker)?;
        if wants_leaders && own.leaders >= share.leaders {
            return None;
        }
        let gives = |(place, replica): &(usize, &BrokerId)| {
            let load = self.loads.get(replica)?;
            let is_over = load.replicas > share.replicas && (!wants_leaders || load.leaders > share.leaders);
            (is_over && (*place == 0) == wants_leaders && self.keeps_racks(target, *place, broker))
                .then_some((load.replicas, *place))
        };
        target.iter().enumerate().filter_map(|at| gives(&at)).max().map(|(_, place)| place)
    }

    fn keeps_racks(&self, target: &[BrokerId], place: usize, to: BrokerId) -> bool {
        let racks = |ids: &[BrokerId]| ids.iter().map(|r| self.rack(*r)).collect::<BTreeSet<_>>().len();
        racks(&with(target, place, to)) >= racks(target)
    }

    fn rack(&self, broker: BrokerId) -> Option<&'a str> {
        self.image.broker(broker).and_then(|b| b.rack.as_deref())
    }

    fn replace(&mut self, topic: TopicId, partition: u32, target: &[BrokerId], place: usize, to: BrokerId) {
        let is_first = usize::from(place == 0);
        if let Some(load) = target.get(place).and_then(|from| self.loads.get_mut(from)) {
            load.replicas -= 1;
            load.leaders -= is_first;
        }
        if let Some(load) = self.loads.get_mut(&to) {
            load.replicas += 1;
            load.leaders += is_first;
        }
        self.moves.push(Command::MovePartition { topic, partition, replicas: with(target, place, to) });
    }
}

fn with(target: &[BrokerId], place: usize, to: BrokerId) -> Vec<BrokerId> {
    target.iter().enumerate().map(|(at, replica)| if at == place { to } else { *replica }).collect()
}

/// Every partition, with the replicas that it has once its move has ended.
fn targets(image: &ClusterImage) -> Vec<(&Topic, u32, Vec<BrokerId>)> {
    let of = |topic: &'_ std::sync::Arc<Topic>| {
        topic.partitions.iter().map(|(index, p)| (*index, p.target().collect())).collect::<Vec<_>>()
    };
    image.topics().flat_map(|topic| of(topic).into_iter().map(|(index, to)| (&**topic, index, to))).collect()
}
