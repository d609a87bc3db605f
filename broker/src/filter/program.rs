//! An expression as a row of steps over one truth value. Jumps lead forward, so each step is done once at most.

use floodmark_proto::batch::Record;

use super::test::{Facts, May, Test};

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Sets the value.
    Test(Test),
    /// Turns the value round.
    Not,
    /// To a later step, where the value is this one.
    JumpIf(bool, usize),
}

/// Steps, of which the first one sets the value.
#[derive(Debug, Clone)]
pub(super) struct Program(pub(super) Vec<Step>);

impl Program {
    pub(super) fn run(&self, record: &Record<'_>) -> bool {
        let (mut value, mut at) = (true, 0);
        while let Some(step) = self.0.get(at) {
            at += 1;
            match step {
                Step::Test(test) => value = test.of_record(record),
                Step::Not => value = !value,
                Step::JumpIf(condition, to) if value == *condition => at = *to,
                Step::JumpIf(..) => {}
            }
        }
        value
    }

    /// Whether the value may be true at the end, for some record of a batch.
    pub(super) fn may_be_true(&self, facts: &Facts) -> bool {
        // What the value may be before each step, and at the end.
        let mut before = vec![May::BE_NEITHER; self.0.len() + 1];
        if let Some(first) = before.first_mut() {
            *first = May::be(true);
        }
        for (at, step) in self.0.iter().enumerate() {
            let may = before[at];
            if may == May::BE_NEITHER {
                continue;
            }
            let (next, jumped) = match step {
                Step::Test(test) => (test.of_batch(facts), None),
                Step::Not => (May { be_true: may.be_false, be_false: may.be_true }, None),
                Step::JumpIf(condition, to) => {
                    let only =
                        |value: bool| May { be_true: may.be_true && value, be_false: may.be_false && !value };
                    (only(!condition), Some((*to, only(*condition))))
                }
            };
            for (to, may) in std::iter::once((at + 1, next)).chain(jumped) {
                if let Some(there) = before.get_mut(to) {
                    there.be_true |= may.be_true;
                    there.be_false |= may.be_false;
                }
            }
        }
        before.last().is_none_or(|end| end.be_true)
    }
}
