//! CPU time, and the comparison of two sides that take turns, so that both meet the same disturbances.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used: user and system, to the nanosecond.
#[must_use]
pub fn thread_cpu() -> Duration {
    duration_of(ClockId::ThreadCPUTime)
}

/// CPU time that all threads of the process have used.
#[must_use]
pub fn process_cpu() -> Duration {
    duration_of(ClockId::ProcessCPUTime)
}

fn duration_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What two sides came to, pair by pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Median of our side.
    pub ours: f64,
    /// Median of the other side.
    pub bare: f64,
    /// Median of the pairs' ratios, ours over the other's.
    pub ratio: f64,
    /// Smallest ratio of a pair.
    pub ratio_min: f64,
    /// Largest ratio of a pair.
    pub ratio_max: f64,
}

/// Runs the two sides in turns, after one pair that does not count. Which side goes first changes with each pair.
pub fn take_turns<S>(
    pairs: usize,
    state: &mut S,
    ours: impl Fn(&mut S) -> anyhow::Result<f64>,
    bare: impl Fn(&mut S) -> anyhow::Result<f64>,
) -> anyhow::Result<Compared> {
    Ok(Compared::of_pairs(&pairs_in_turns(pairs, state, ours, bare)?))
}

/// The same for sides that come to more than one figure: what each pair came to.
pub fn pairs_in_turns<S, F>(
    pairs: usize,
    state: &mut S,
    ours: impl Fn(&mut S) -> anyhow::Result<F>,
    bare: impl Fn(&mut S) -> anyhow::Result<F>,
) -> anyhow::Result<Vec<(F, F)>> {
    let mut measured = Vec::with_capacity(pairs);
    for turn in 0..=pairs.max(1) {
        let pair = if turn % 2 == 0 {
            let ours = ours(state)?;
            (ours, bare(state)?)
        } else {
            let bare = bare(state)?;
            (ours(state)?, bare)
        };
        if turn > 0 {
            measured.push(pair);
        }
    }
    Ok(measured)
}

impl Compared {
    /// Sums up one figure of sides that come to several.
    #[must_use]
    pub fn of_parts<F>(pairs: &[(F, F)], part: impl Fn(&F) -> f64) -> Compared {
        Compared::of_pairs(&pairs.iter().map(|(ours, bare)| (part(ours), part(bare))).collect::<Vec<_>>())
    }

    /// Sums up pairs of (ours, bare).
    #[must_use]
    pub fn of_pairs(pairs: &[(f64, f64)]) -> Compared {
        let column = |of: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let ratios = column(|(ours, bare)| ours / bare);
        Compared {
            ours: middle(&column(|pair| pair.0)),
            bare: middle(&column(|pair| pair.1)),
            ratio: middle(&ratios),
            ratio_min: ratios.first().copied().unwrap_or(f64::NAN),
            ratio_max: ratios.last().copied().unwrap_or(f64::NAN),
        }
    }
}

/// The middle of sorted values; of two middles their mean.
fn middle(sorted: &[f64]) -> f64 {
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (len, half) if len % 2 == 1 => sorted[half],
        (_, half) => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// The median of values in any order; not a number where there are none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    middle(&values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_disturbed_on_both_sides_moves_the_medians_but_not_the_ratio() {
        let compared = Compared::of_pairs(&[(2.0, 1.0), (40.0, 20.0), (2.2, 1.1), (2.0, 1.0), (6.0, 1.0)]);
        assert_eq!((compared.ratio, compared.ratio_min, compared.ratio_max), (2.0, 2.0, 6.0));
        assert_eq!((compared.ours, compared.bare), (2.2, 1.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn sides_take_turns_and_the_first_pair_does_not_count() {
        let mut order = Vec::new();
        let compared = take_turns(
            2,
            &mut order,
            |order| {
                order.push('o');
                Ok(if order.len() < 3 { 100.0 } else { 3.0 })
            },
            |order| {
                order.push('b');
                Ok(2.0)
            },
        );
        assert_eq!(compared.ok().map(|c| c.ratio_max), Some(1.5));
        assert_eq!(String::from_iter(order), "obboob");
    }

    #[test]
    fn work_costs_cpu_time() {
        let before = (thread_cpu(), process_cpu());
        let mut sum = 0u64;
        for n in 0..2_000_000u64 {
            sum = std::hint::black_box(sum ^ n);
        }
        assert!(thread_cpu() > before.0 && process_cpu() > before.1, "{sum}");
    }
}
