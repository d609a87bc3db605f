//! committed-only: nobody has read what was not committed by then.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for offset in &world.truth.read_now {
        let (read, committed) = (world.truth.read.get(offset), world.truth.committed.get(offset));
        if read != committed {
            return Err(format!("{read:?} was read at offset {offset}, committed is {committed:?}"));
        }
    }
    Ok(())
}
