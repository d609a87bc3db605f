//! exactly-once-append: no record of a producer is committed at two offsets.

use std::collections::BTreeMap;

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    // A record that comes twice comes near the end the second time.
    for (offset, record) in world.truth.committed.iter().rev().take(40) {
        if let Some(other) = seen.insert((record.producer, record.sequence), offset) {
            return Err(format!("{record:?} is committed at offset {offset} and at {other}"));
        }
    }
    Ok(())
}
