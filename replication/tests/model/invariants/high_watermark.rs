//! The watermark of a replica lies within its log, and never goes back while its broker is up.

use crate::world::World;

pub(super) fn check(world: &mut World) -> Result<(), String> {
    for n in 0..world.nodes.len() {
        let node = &world.nodes[n];
        let log = node.replica.as_ref().filter(|_| node.is_up).map(|r| &r.log);
        let now = log.map(|log| log.high_watermark);
        if let Some(log) = log {
            let watermark = log.high_watermark;
            if watermark < log.start || watermark > log.end() {
                let (start, end) = (log.start, log.end());
                return Err(format!("broker {n}: the watermark {watermark} lies outside {start} to {end}"));
            }
        }
        // One that was given the partition anew begins anew.
        let is_same = world.truth.opened[n] == node.opened;
        world.truth.opened[n] = node.opened;
        if let (true, Some(before), Some(now)) = (is_same, world.truth.watermarks[n], now)
            && now < before
        {
            return Err(format!("broker {n}: the watermark went back from {before} to {now}"));
        }
        world.truth.watermarks[n] = now;
    }
    Ok(())
}
