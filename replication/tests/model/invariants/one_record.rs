//! No two records at one offset below a watermark: what a replica holds there is what was committed.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for n in &world.truth.touched {
        let node = &world.nodes[*n];
        let Some(replica) = node.replica.as_ref() else { continue };
        let log = &replica.log;
        for offset in log.start..log.high_watermark {
            let (held, committed) = (log.get(offset), world.truth.committed.get(&offset).copied());
            if held != committed {
                let id = node.id;
                return Err(format!(
                    "below its watermark broker {id} has {held:?} at offset {offset}, committed is {committed:?}"
                ));
            }
        }
    }
    Ok(())
}
