//! A sorted map that is cheap to copy: copies share all of it, and a change copies one chunk and the list of chunks. Two copies
//! are compared by looking only at chunks they do not share.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::Arc;

/// Entries of a chunk at most; a change of a shared map copies this many.
const CHUNK_ENTRIES_MAX: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A map from keys in rising order. Keys and values should be small or counted references: they are copied by chunks.
#[derive(Debug, Clone)]
pub struct SortedMap<K, V> {
    /// Each holds at least one entry; all keys of one lie before those of the next.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// One key whose value differs between two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// Its value in the older map.
    pub old: Option<&'a V>,
    /// Its value in the newer map.
    pub new: Option<&'a V>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> SortedMap<K, V> {
        SortedMap { chunks: Arc::new(Vec::new()), len: 0 }
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_for(key))?;
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// True where `key` has a value.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// All entries in rising order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// The values in rising order of keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries from `key` on.
    pub fn iter_from<'a, Q: Ord + ?Sized>(&'a self, key: &'a Q) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: Borrow<Q>,
    {
        let chunks = self.chunks.get(self.chunk_for(key)..).unwrap_or_default();
        let entries = chunks.iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)));
        entries.skip_while(move |(k, _)| (*k).borrow() < key)
    }

    /// Gives `key` a value; returns the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V>
    where
        K: Clone,
        V: Clone,
    {
        // A key behind all others goes to the last chunk.
        let at = self.chunk_for(&key).min(self.chunks.len().saturating_sub(1));
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(found) => chunk.get_mut(found).map(|(_, held)| std::mem::replace(held, value)),
            Err(place) => {
                chunk.insert(place, (key, value));
                self.len += 1;
                if chunk.len() > CHUNK_ENTRIES_MAX {
                    // Keys that only rise leave full chunks behind; others leave halves.
                    let keep = if place + 1 == chunk.len() { place } else { chunk.len() / 2 };
                    let rest = chunk.split_off(keep);
                    chunks.insert(at + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Takes `key` out; returns the value it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q> + Clone,
        V: Clone,
    {
        let at = self.chunk_for(key);
        let found = self.chunks.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(at)?);
        let (_, value) = chunk.remove(found);
        let is_empty = chunk.is_empty();
        self.len -= 1;
        if is_empty {
            chunks.remove(at);
        } else {
            // Without this a map that shrank would keep as many chunks as it ever had.
            merge(chunks, at);
            merge(chunks, at.saturating_sub(1));
        }
        Some(value)
    }

    /// Keys whose values differ between `old` and `self`, rising. Costs as much as the chunks that they do not share.
    pub fn differences<'a>(&'a self, old: &'a SortedMap<K, V>) -> Vec<Difference<'a, K, V>>
    where
        V: PartialEq,
    {
        if Arc::ptr_eq(&self.chunks, &old.chunks) {
            return Vec::new();
        }
        let mut ours = self.entries_apart_from(old).peekable();
        let mut theirs = old.entries_apart_from(self).peekable();
        let mut found = Vec::new();
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some((new, _)), Some((old, _))) => new.cmp(old),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return found,
            };
            let new = if order.is_le() { ours.next() } else { None };
            let old = if order.is_ge() { theirs.next() } else { None };
            let Some(key) = new.or(old).map(|(key, _)| key) else { return found };
            let (old, new) = (old.map(|(_, v)| v), new.map(|(_, v)| v));
            if old != new {
                found.push(Difference { key, old, new });
            }
        }
    }

    fn entries_apart_from<'a>(&'a self, other: &SortedMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
        let shared: HashSet<*const Vec<(K, V)>> = other.chunks.iter().map(Arc::as_ptr).collect();
        let own = self.chunks.iter().filter(move |chunk| !shared.contains(&Arc::as_ptr(chunk)));
        own.flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }

    /// The chunk that holds `key` where any does.
    fn chunk_for<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| last.borrow() < key))
    }
}

/// Puts two neighbours together where both are small.
fn merge<K: Clone, V: Clone>(chunks: &mut Vec<Chunk<K, V>>, at: usize) {
    let (Some(first), Some(second)) = (chunks.get(at), chunks.get(at + 1)) else { return };
    if first.len() + second.len() > CHUNK_ENTRIES_MAX / 2 {
        return;
    }
    let mut second = chunks.remove(at + 1);
    if let Some(first) = chunks.get_mut(at) {
        Arc::make_mut(first).append(Arc::make_mut(&mut second));
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SortedMap<K, V> {
    fn eq(&self, other: &SortedMap<K, V>) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.chunks, &other.chunks) || self.iter().eq(other.iter()))
    }
}

impl<K: Ord, V: Eq> Eq for SortedMap<K, V> {}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> SortedMap<K, V> {
        let mut map = SortedMap::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests;
