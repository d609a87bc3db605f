//! order: along a log epochs never fall, and the records of one producer come in the order in which it sent them.

use crate::world::{PRODUCERS, World};

pub(super) fn check(world: &World) -> Result<(), String> {
    for n in &world.truth.touched {
        let Some(replica) = world.nodes[*n].replica.as_ref() else { continue };
        let records = replica.log.from(replica.log.start);
        let falls = records.windows(2).find(|pair| pair[1].epoch < pair[0].epoch);
        if let Some(pair) = falls {
            return Err(format!("broker {n} has {:?} after {:?}", pair[1], pair[0]));
        }
        for producer in 0..PRODUCERS {
            let mut last = None;
            for record in records.iter().filter(|r| r.producer == producer) {
                if last.is_some_and(|last| record.sequence != last + 1) {
                    return Err(format!(
                        "broker {n} has {record:?} after sequence {last:?} of that producer"
                    ));
                }
                last = Some(record.sequence);
            }
        }
    }
    Ok(())
}
