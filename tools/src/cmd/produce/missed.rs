//! Records that were sent and not acknowledged: which, and why the first was not.

use std::fmt::Write as _;

/// Pieces of the input that are named; whoever has more of them has to look at what was written.
const RANGES_NAMED_MAX: usize = 20;

/// Records are known by their place in the whole input, from 1 on, and come in that order.
#[derive(Default)]
pub(super) struct Missed {
    first: Option<anyhow::Error>,
    /// First and last of each piece.
    ranges: Vec<(u64, u64)>,
    /// Acknowledged though the first one before them was not.
    behind: u64,
}

impl Missed {
    pub(super) fn is_any(&self) -> bool {
        self.first.is_some()
    }

    pub(super) fn add(&mut self, record: u64, why: impl FnOnce() -> anyhow::Error) {
        self.first.get_or_insert_with(why);
        match self.ranges.last_mut() {
            Some((_, last)) if *last + 1 == record => *last = record,
            _ => self.ranges.push((record, record)),
        }
    }

    /// Another record was acknowledged.
    pub(super) fn on_acknowledged(&mut self) {
        self.behind += u64::from(self.is_any());
    }

    /// Why the first was not.
    pub(super) fn take_first(&mut self) -> anyhow::Result<()> {
        self.first.take().map_or(Ok(()), Err)
    }

    /// What to say before that, where so much was written.
    pub(super) fn told(&self, written: &str) -> String {
        if self.behind == 0 {
            return format!("{written} written before this");
        }
        let mut told = format!(
            "{written} written, {} of them behind this one; sent and not acknowledged, by their place in the input: ",
            self.behind
        );
        for (n, (first, last)) in self.ranges.iter().take(RANGES_NAMED_MAX).enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = match first == last {
                true => write!(told, "{comma}{first}"),
                false => write!(told, "{comma}{first} to {last}"),
            };
        }
        if self.ranges.len() > RANGES_NAMED_MAX {
            let more: u64 =
                self.ranges[RANGES_NAMED_MAX..].iter().map(|(first, last)| last - first + 1).sum();
            let _ = write!(told, " and {more} more");
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_which_records_were_missed_and_why_the_first_was() {
        let mut missed = Missed::default();
        missed.on_acknowledged();
        for record in [2, 3, 4] {
            missed.add(record, || anyhow::anyhow!("refused {record}"));
        }
        assert_eq!(missed.told("1 record"), "1 record written before this");
        missed.on_acknowledged();
        missed.add(6, || anyhow::anyhow!("refused 6"));
        missed.on_acknowledged();
        let told = missed.told("3 records");
        assert!(told.starts_with("3 records written, 2 of them behind this one; "), "{told}");
        assert!(told.ends_with(": 2 to 4, 6"), "{told}");
        assert_eq!(missed.take_first().unwrap_err().to_string(), "refused 2");
        let mut many = Missed::default();
        (0..30).for_each(|n| many.add(2 * n + 1, || anyhow::anyhow!("refused")));
        many.on_acknowledged();
        assert!(many.told("1 record").ends_with(", 39 and 10 more"), "{}", many.told(""));
    }
}
