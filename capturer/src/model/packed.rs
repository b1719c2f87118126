//! Maps without spare room. A `BTreeMap` whose keys are inserted in rising order, such as numbers or sorted paths,
//! keeps nodes that are half empty: over all tables some hundred bytes for each of tens of thousands of sources.

use std::collections::{BTreeMap, BTreeSet};

/// A map or set that can be rebuilt with full nodes. With many entries that takes a while, and later insertions split
/// nodes again: call it when many were added and no more are expected soon.
pub trait Pack {
    /// Rebuilds it with full nodes.
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
