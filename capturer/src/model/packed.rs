//! Maps without spare room. One whose keys rise as it grows, as numbers do and paths that are found in order, is left with
//! nodes that are half empty: some hundred bytes for each of tens of thousands of sources, over all tables.

use std::collections::{BTreeMap, BTreeSet};

/// A map or set that can be rebuilt with full nodes. With many entries that takes a while, and entries that are added later
/// split nodes again: call it when many were added and no more are expected soon.
pub trait Pack {
    /// Rebuilds it.
    fn pack(&mut self);
}

impl<K: Ord, V> Pack for BTreeMap<K, V> {
    fn pack(&mut self) {
        *self = std::mem::take(self).into_iter().collect();
    }
}

impl<K: Ord> Pack for BTreeSet<K> {
    fn pack(&mut self) {
        *self = std::mem::take(self).into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes() {
        let numbers = 0..1_000_u32;
        let mut map = BTreeMap::new();
        numbers.clone().for_each(|number| drop(map.insert(number, number.to_string())));
        let mut set: BTreeSet<u32> = numbers.clone().collect();
        map.pack();
        set.pack();
        assert!(
            map.iter()
                .map(|(number, text)| (*number, text.clone()))
                .eq(numbers.clone().map(|number| (number, number.to_string())))
        );
        assert!(set.into_iter().eq(numbers));
    }
}
