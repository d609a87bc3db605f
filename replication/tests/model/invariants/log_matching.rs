//! Two logs with a record of the same epoch at the same offset are the same up to there.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for n in &world.truth.touched {
        let Some(own) = world.nodes[*n].replica.as_ref().map(|r| &r.log) else { continue };
        for (node, other) in world.logs().filter(|(node, _)| node.id.0 as usize != *n) {
            let (from, to) = (own.start.max(other.start), own.end().min(other.end()));
            let mut differs_at = None;
            for offset in from..to {
                let (a, b) = (own.get(offset), other.get(offset));
                if a != b {
                    differs_at.get_or_insert(offset);
                }
                let is_same_epoch = a.map(|r| r.epoch) == b.map(|r| r.epoch);
                if let Some(at) = differs_at.filter(|_| is_same_epoch) {
                    return Err(format!(
                        "brokers {n} and {} have the same epoch at offset {offset} and differ at {at}",
                        node.id
                    ));
                }
            }
        }
    }
    Ok(())
}
