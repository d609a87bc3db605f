//! acked-is-kept: whoever leads by the cluster's word has what was acknowledged. That it was on enough disks then, the world sees when it
//! acknowledges.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let state = world.state();
    let Some(leader) = state.leader.and_then(|leader| world.nodes.get(leader.0 as usize)) else {
        return Ok(());
    };
    let Some(replica) = leader.replica.as_ref().filter(|_| !leader.has_lost) else { return Ok(()) };
    for (offset, record) in world.truth.acked.range(replica.log.start..) {
        if replica.log.get(*offset) != Some(*record) {
            let found = replica.log.get(*offset);
            let id = leader.id;
            return Err(format!(
                "offset {offset} was acknowledged as {record:?}; broker {id}, which leads, has {found:?}"
            ));
        }
    }
    Ok(())
}
