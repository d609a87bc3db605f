//! Whoever is in sync by the cluster's word may lead at any moment, so it has everything that was committed, on its disk.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let Some(last) = world.truth.committed.keys().next_back() else { return Ok(()) };
    for n in &world.truth.touched {
        let node = &world.nodes[*n];
        if !world.state().isr.contains(&node.id) || node.has_lost {
            continue;
        }
        let id = node.id;
        let Some(replica) = &node.replica else {
            // It has not heard yet that it holds the partition; nothing can be committed without it.
            return Err(format!("broker {id} is in sync and has no log, offset {last} is committed"));
        };
        for (offset, record) in world.truth.committed.range(replica.log.start..) {
            if replica.log.get(*offset) != Some(*record) || replica.log.durable <= *offset {
                let (found, durable) = (replica.log.get(*offset), replica.log.durable);
                return Err(format!(
                    "offset {offset} is committed as {record:?}; broker {id}, in sync, has {found:?}, synced up to {durable}"
                ));
            }
        }
    }
    Ok(())
}
