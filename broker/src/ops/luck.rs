//! Whether what came to nothing lately is tried again: after some times in a row only now and then, and always once it has worked. Pure;
//! must know nothing of what is tried.

use std::cell::Cell;

/// Tries in a row that came to nothing, after which few are made. One says little: anything may have taken the processor meanwhile.
pub(super) const VAIN_MAX: u32 = 4;

/// How tries went lately. One for each core: its tasks share it.
#[derive(Debug)]
pub(super) struct Luck {
    in_vain: Cell<u32>,
    skipped: Cell<u32>,
}

impl Luck {
    pub(super) const fn new() -> Luck {
        Luck { in_vain: Cell::new(0), skipped: Cell::new(0) }
    }

    /// Whether the next try is made: each, or where luck has gone one in `apart`.
    pub(super) fn is_worth_a_try(&self, apart: u32) -> bool {
        if self.in_vain.get() < VAIN_MAX {
            return true;
        }
        self.skipped.set((self.skipped.get() + 1) % apart);
        self.skipped.get() == 0
    }

    /// To be told of each try that was made.
    pub(super) fn note(&self, has_worked: bool) {
        self.in_vain.set(if has_worked { 0 } else { VAIN_MAX.min(self.in_vain.get() + 1) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_goes_with_failures_in_a_row_and_comes_back_with_one_success() {
        const APART: u32 = 7;
        let luck = Luck::new();
        for _ in 0..VAIN_MAX {
            for has_worked in [false, false, false, true] {
                assert!(luck.is_worth_a_try(APART));
                luck.note(has_worked);
            }
        }
        for _ in 0..VAIN_MAX {
            assert!(luck.is_worth_a_try(APART));
            luck.note(false);
        }
        for _ in 0..3 {
            let made: Vec<bool> = (0..APART).map(|_| luck.is_worth_a_try(APART)).collect();
            assert_eq!(made.iter().filter(|&&is_made| is_made).count(), 1);
            luck.note(false);
        }
        luck.note(true);
        assert!(luck.is_worth_a_try(APART) && luck.is_worth_a_try(APART));
    }
}
