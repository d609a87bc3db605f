//! The promises, one a file, looked at after every step.

mod acked_is_kept;
mod candidates;
mod committed_only;
mod exactly_once;
mod high_watermark;
mod log_matching;
mod lost;
mod one_record;
mod order;

use crate::world::World;

/// What is wrong with the world, if anything is.
pub(crate) fn check(world: &mut World) -> Result<(), String> {
    let wrong = world.truth.wrong.take();
    let told = wrong.map_or(Ok(()), Err);
    told.and_then(|()| acked_is_kept::check(world))
        .and_then(|()| candidates::check(world))
        .and_then(|()| one_record::check(world))
        .and_then(|()| committed_only::check(world))
        .and_then(|()| order::check(world))
        .and_then(|()| exactly_once::check(world))
        .and_then(|()| log_matching::check(world))
        .and_then(|()| high_watermark::check(world))
        .and_then(|()| lost::check(world))
}
