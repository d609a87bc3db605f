//! A partition is lost only where each of those who were in sync when somebody led last has said that it lost what it had.

use crate::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let truth = &world.truth;
    if !world.state().is_lost {
        return Ok(());
    }
    match truth.last_led.iter().find(|r| !truth.said_lost.contains(r)) {
        Some(kept) => Err(format!("the partition counts as lost, and broker {kept} has all of it")),
        None => Ok(()),
    }
}
