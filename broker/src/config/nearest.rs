//! Which known name somebody probably meant. Pure.

/// The known name with the fewest changes from `wanted`; `None` where nothing is near.
pub(super) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = wanted.chars().count() / 2;
    let best = known.map(|name| (distance(wanted, name), name)).min()?;
    (best.0 <= near).then_some(best.1)
}

/// Letters to insert, remove or replace to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (n, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (m, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[m + 1];
            row[m + 1] = replaced.min(diagonal + 1).min(row[m] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        for (a, b, changes) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("äb", "ab", 1)] {
            assert_eq!(distance(a, b), changes);
            assert_eq!(distance(b, a), changes);
        }
    }

    #[test]
    fn what_is_far_from_everything_gets_no_advice() {
        let known = ["node.id", "num.partitions"];
        assert_eq!(nearest("num.partition", known.into_iter()), Some("num.partitions"));
        assert_eq!(nearest("nodeid", known.into_iter()), Some("node.id"));
        assert_eq!(nearest("zookeeper.connect", known.into_iter()), None);
        assert_eq!(nearest("", known.into_iter()), None);
    }
}
