//! How far a fetch that waits has looked: of what it has seen, which may be much and cold, nothing is read again before it answers.

use std::sync::Arc;

use super::{AnswerMemory, Part, Position, Wanted, is_enough, read_all};
use crate::ops::visible::end_of;

/// The positions behind all that was seen, and what is still wanted of them.
#[derive(Debug)]
pub(super) struct Seen {
    positions: Arc<[Position]>,
    wanted: Wanted,
}

impl Seen {
    /// After a look that found too little to answer. `None` where it found nothing: then a look from the beginning is one at what is new.
    pub(super) fn after(positions: &[Position], parts: &[Part], wanted: Wanted) -> Option<Seen> {
        let bytes: usize = parts.iter().map(Part::size_bytes).sum();
        if bytes == 0 {
            return None;
        }
        let behind = |(position, part): (&Position, &Part)| match part.size_bytes() {
            0 => Some(position.clone()),
            has => Some(Position {
                from: end_of(&part.batches, position.from).ok()?,
                max_bytes: position.max_bytes.saturating_sub(has),
                // Asked of the reader's own end, which was found to be shared.
                last_fetched_epoch: None,
                ..position.clone()
            }),
        };
        let positions = positions.iter().zip(parts).map(behind).collect::<Option<_>>()?;
        let (min_bytes, max_bytes) =
            (wanted.min_bytes.saturating_sub(bytes), wanted.max_bytes.saturating_sub(bytes));
        Some(Seen { positions, wanted: Wanted { min_bytes, max_bytes, ..wanted } })
    }

    /// Looks at what came since; true where the whole is worth reading by now.
    pub(super) async fn is_enough_by_now(&mut self, memory: Option<&Arc<AnswerMemory>>) -> bool {
        let parts = read_all(&self.positions, self.wanted, memory).await;
        if is_enough(&self.positions, &parts, self.wanted) {
            return true;
        }
        if let Some(seen) = Seen::after(&self.positions, &parts, self.wanted) {
            *self = seen;
        }
        false
    }
}
