//! Against the standard library's map.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Model = BTreeMap<u16, u16>;

fn steps() -> impl Strategy<Value = Vec<(bool, u16, u16)>> {
    // Enough keys for several chunks, and removals that empty some.
    vec((proptest::bool::weighted(0.6), 0u16..600, 0u16..3), 0..1500)
}

fn run(map: &mut SortedMap<u16, u16>, model: &mut Model, steps: &[(bool, u16, u16)]) {
    for (is_insert, key, value) in steps {
        if *is_insert {
            assert_eq!(map.insert(*key, *value), model.insert(*key, *value));
        } else {
            assert_eq!(map.remove(key), model.remove(key));
        }
    }
}

fn assert_same(map: &SortedMap<u16, u16>, model: &Model) {
    assert!(map.iter().eq(model.iter()));
    assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
    assert!(map.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK_ENTRIES_MAX));
    for key in 0..600 {
        assert_eq!(map.get(&key), model.get(&key));
    }
}

proptest! {
    #[test]
    fn it_is_a_map(steps in steps(), from in 0u16..600) {
        let (mut map, mut model) = (SortedMap::default(), Model::new());
        run(&mut map, &mut model, &steps);
        assert_same(&map, &model);
        prop_assert!(map.iter_from(&from).eq(model.range(from..)));
    }

    #[test]
    fn copies_do_not_change_and_differences_are_told(first in steps(), second in steps()) {
        let (mut map, mut model) = (SortedMap::default(), Model::new());
        run(&mut map, &mut model, &first);
        let (old, old_model) = (map.clone(), model.clone());
        run(&mut map, &mut model, &second);
        assert_same(&old, &old_model);
        assert_same(&map, &model);
        let keys: std::collections::BTreeSet<_> = old_model.keys().chain(model.keys()).collect();
        let expected: Vec<_> = keys
            .into_iter()
            .map(|key| Difference { key, old: old_model.get(key), new: model.get(key) })
            .filter(|d| d.old != d.new)
            .collect();
        prop_assert_eq!(map.differences(&old), expected);
        prop_assert_eq!(map == old, model == old_model);
    }
}

#[test]
fn a_change_of_a_large_map_copies_one_chunk() {
    let old: SortedMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
    assert!(old.chunks.len() < 10_000 / 100, "{} chunks", old.chunks.len());
    let mut new = old.clone();
    new.insert(5_000, 0);
    let copied = new.entries_apart_from(&old).count();
    assert!(copied <= CHUNK_ENTRIES_MAX, "{copied} entries copied");
    assert_eq!(new.differences(&old), [Difference { key: &5_000, old: Some(&5_000), new: Some(&0) }]);
}

#[test]
fn a_map_that_shrank_keeps_few_chunks() {
    let mut map: SortedMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
    for n in (0..10_000).filter(|n| n % 100 != 0) {
        map.remove(&n);
    }
    assert_eq!(map.len(), 100);
    assert!(map.chunks.len() <= 10, "{} chunks", map.chunks.len());
}
