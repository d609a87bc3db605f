//! The highest offset that was known at a moment, for moments not too long ago.

use std::collections::VecDeque;

/// So many rises are remembered. A question about a moment before them has no answer.
const STEPS_MAX: usize = 1 << 16;

/// Moments at which a maximum rose.
#[derive(Debug, Clone, Default)]
pub(super) struct Staircase {
    steps: VecDeque<(u64, i64)>,
}

impl Staircase {
    /// Known from `at` on; moments come in order.
    pub(super) fn rise(&mut self, at: u64, to: i64) {
        if self.steps.back().is_some_and(|(_, highest)| *highest >= to) {
            return;
        }
        if self.steps.len() == STEPS_MAX {
            self.steps.pop_front();
        }
        self.steps.push_back((at, to));
    }

    /// The highest that was known before `moment`.
    pub(super) fn before(&self, moment: u64) -> Option<i64> {
        let count = self.steps.partition_point(|(at, _)| *at < moment);
        count.checked_sub(1).map(|last| self.steps[last].1)
    }
}
