//! Whether the history of a stream is a chain: each accepted append stands on the one that it expected, and on nothing else. Knows only
//! what clients were told.

use std::collections::{BTreeMap, BTreeSet};

/// One attempt to append: who made it, as what, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppendId {
    pub(crate) writer: u32,
    pub(crate) n: u64,
}

/// What a writer was told of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Its last event lies there.
    Accepted { last: i64 },
    /// The stream's last event is another one.
    Conflict { last: Option<i64> },
    /// Nothing.
    Nothing,
}

/// An append as its writer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) id: AppendId,
    pub(crate) stream: u32,
    /// The stream's last offset; none for a stream that is not there.
    pub(crate) expected: Option<i64>,
    pub(crate) events: usize,
    pub(crate) told: Told,
}

/// An event as it was read in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) offset: i64,
    pub(crate) id: AppendId,
    /// Which of the append's events it is.
    pub(crate) at: usize,
}

/// What is wrong, in words; nothing where all is well.
pub(crate) fn check(attempts: &[Attempt], streams: &BTreeMap<u32, Vec<Read>>) -> Vec<String> {
    let by_id: BTreeMap<AppendId, &Attempt> = attempts.iter().map(|a| (a.id, a)).collect();
    let mut wrong = Vec::new();
    // Where the last event of each append was found.
    let mut found: BTreeMap<AppendId, i64> = BTreeMap::new();
    for (stream, events) in streams {
        let mut last = None;
        let mut rest = events.as_slice();
        while let Some(first) = rest.first() {
            let Some(attempt) = by_id.get(&first.id).filter(|a| a.stream == *stream) else {
                wrong.push(format!("stream {stream}: nobody appended {first:?}"));
                rest = &rest[1..];
                continue;
            };
            let count = attempt.events.min(rest.len());
            let (own, others) = rest.split_at(count);
            let is_whole = own.len() == attempt.events
                && own.iter().enumerate().all(|(at, event)| event.id == first.id && event.at == at);
            if !is_whole {
                wrong.push(format!("stream {stream}: not all of {attempt:?}, or not in order: {own:?}"));
            }
            if attempt.expected != last {
                wrong.push(format!("stream {stream}: behind {last:?} stands {attempt:?}"));
            }
            let end = own.last().map_or(first.offset, |event| event.offset);
            if last.is_some_and(|last| last >= first.offset) {
                wrong.push(format!("stream {stream}: offset {} is not behind {last:?}", first.offset));
            }
            if found.insert(first.id, end).is_some() {
                wrong.push(format!("stream {stream}: twice there is {attempt:?}"));
            }
            last = Some(end);
            rest = others;
        }
    }
    wrong.extend(attempts.iter().filter_map(|attempt| judge(attempt, &found, streams)));
    wrong
}

fn judge(
    attempt: &Attempt,
    found: &BTreeMap<AppendId, i64>,
    streams: &BTreeMap<u32, Vec<Read>>,
) -> Option<String> {
    let there = found.get(&attempt.id);
    match attempt.told {
        Told::Accepted { last } if there != Some(&last) => {
            Some(format!("lost or moved to {there:?}: {attempt:?}"))
        }
        Told::Conflict { .. } if there.is_some() => {
            Some(format!("refused, and there at {there:?}: {attempt:?}"))
        }
        Told::Conflict { last } if last == attempt.expected => {
            Some(format!("refused for no reason: {attempt:?}"))
        }
        Told::Conflict { last: Some(last) } => {
            let ends: BTreeSet<i64> =
                streams.get(&attempt.stream)?.iter().map(|event| event.offset).collect();
            (!ends.contains(&last)).then(|| format!("the conflict names what is not there: {attempt:?}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> AppendId {
        AppendId { writer: 1, n }
    }

    fn attempt(n: u64, expected: Option<i64>, events: usize, told: Told) -> Attempt {
        Attempt { id: id(n), stream: 7, expected, events, told }
    }

    fn read(events: &[(i64, u64, usize)]) -> BTreeMap<u32, Vec<Read>> {
        let events = events.iter().map(|(offset, n, at)| Read { offset: *offset, id: id(*n), at: *at });
        BTreeMap::from([(7, events.collect())])
    }

    #[test]
    fn a_chain_passes_and_each_way_of_breaking_it_is_found() {
        let accepted = |last| Told::Accepted { last };
        let first = attempt(1, None, 1, accepted(0));
        let second = attempt(2, Some(0), 2, accepted(4));
        let late = attempt(3, Some(0), 1, Told::Conflict { last: Some(4) });
        let silent = attempt(4, Some(4), 1, Told::Nothing);
        let all = [first.clone(), second, late, silent];
        let good = [(0, 1, 0), (3, 2, 0), (4, 2, 1)];
        let with_silent = [(0, 1, 0), (3, 2, 0), (4, 2, 1), (9, 4, 0)];
        for history in [&good[..], &with_silent[..]] {
            assert_eq!(check(&all, &read(history)), Vec::<String>::new());
        }
        let twins = [first.clone(), attempt(5, None, 1, accepted(2))];
        let for_nothing = [first.clone(), attempt(6, Some(0), 1, Told::Conflict { last: Some(0) })];
        let of_nobody = [first, attempt(6, None, 1, Told::Conflict { last: Some(3) })];
        for (attempts, history, words) in [
            (&all[..], &[(0, 1, 0), (4, 2, 1)][..], "not all of"),
            (&all[..], &[(0, 1, 0)][..], "lost or moved"),
            (&all[..], &[(0, 1, 0), (3, 2, 0), (5, 2, 1)][..], "lost or moved"),
            (&all[..], &[(3, 2, 0), (4, 2, 1)][..], "behind None stands"),
            (&all[..], &[(0, 1, 0), (3, 2, 0), (4, 2, 1), (5, 3, 0)][..], "refused, and there"),
            (&all[..], &[(0, 1, 0), (3, 2, 0), (4, 2, 1), (6, 4, 0), (8, 4, 0)][..], "twice there is"),
            (&all[..], &[(0, 1, 0), (3, 2, 0), (4, 2, 1), (6, 9, 0)][..], "nobody appended"),
            (&twins[..], &[(0, 1, 0), (2, 5, 0)][..], "behind Some(0) stands"),
            (&for_nothing[..], &[(0, 1, 0)][..], "for no reason"),
            (&of_nobody[..], &[(0, 1, 0)][..], "names what is not there"),
        ] {
            let wrong = check(attempts, &read(history));
            assert!(wrong.iter().any(|w| w.contains(words)), "{words}: {wrong:?}");
        }
    }
}
